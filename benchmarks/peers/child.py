"""A process of a load: sends, receives, or both. Told what to do by lines on its standard input.

    {"do": "prepare", "first": 0, "count": 1000}    answered {"did": "prepare"}
    {"do": "go", "until": 12.5}                     answered {"did": "go"} when all that it sent is confirmed
    end of input                                    it closes its connections and exits

What goes wrong is a line {"error": "…"}, and it exits. Times are seconds of `perf_counter`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import uvloop

from benchmarks.peers.share import Book, Share

CROWDED_SECONDS = 0.001
"""How long a sender waits when the peer has enough under way."""


class Client(ABC):
    """How to talk to a peer. One in each process of a load."""

    def __init__(self, address: str, settings: Mapping[str, Any], book: Book) -> None:
        self.address = address
        self.settings = settings
        self.book = book

    @abstractmethod
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        """Connect, on behalf of these senders and receivers."""

    @abstractmethod
    async def publish(self, sender: int, places: Sequence[int]) -> None:
        """Send these documents; return when the peer has confirmed that it has them all on disk."""

    @abstractmethod
    async def receive(self, receiver: int) -> None:
        """Take what comes for a receiver, tell the book, acknowledge; until cancelled."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect; what was acknowledged has reached the peer when this returns."""


class Answers:
    """Waits for `count` answers: `all` is done with the last one, or with the first error."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, error: str | None = None) -> None:
        """One answer came."""
        self._count -= 1
        if self.all.done():
            return
        if error is not None:
            self.all.set_exception(RuntimeError(error))
        elif not self._count:
            self.all.set_result(None)


class _Process:
    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        settings = order["settings"]
        share = Share(order["capacity"], order["length"], order["descriptor"])
        self._book = Book(share, order["seat"], order["all_senders"], settings.get("ahead", 0))
        module = importlib.import_module(f"benchmarks.peers.{order['peer']}")
        self._client: Client = module.client(order["address"], settings, self._book)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await self._client.open(self._order["senders"], self._order["receivers"])
        for receiver in self._order["receivers"]:
            self._start(self._client.receive(receiver))
        say(did="open")
        try:
            await self._obey(reader)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._client.close()

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while True:
            line = asyncio.ensure_future(reader.readline())
            await asyncio.wait([line, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                line.cancel()
                self._failed.result()
            if not line.result():
                return
            command = json.loads(line.result())
            if command["do"] == "prepare":
                self._book.prepare(command["first"], command["count"])
                gc.enable()
                gc.collect()
                gc.disable()  # as the hub's generator does while it measures
                say(did="prepare")
            else:
                self._start(self._go(command["until"]))

    async def _go(self, until: float) -> None:
        self._book.go(until)
        window = self._order["settings"]["window"]
        await asyncio.gather(*(self._slot(s) for s in self._order["senders"] for _ in range(window)))
        say(did="go")

    async def _slot(self, sender: int) -> None:
        """One of the requests that a sender has under way."""
        book, client = self._book, self._client
        batch = self._order["settings"].get("batch", 1)
        while True:
            if book.crowded():
                await asyncio.sleep(CROWDED_SECONDS)  # other processes make room, too: there is nobody to tell us
                continue
            places = book.take(sender, batch)
            if not places:
                return
            await client.publish(sender, places)
            book.confirmed(places)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._failed.done():
            self._failed.set_exception(error)


def say(**values: Any) -> None:
    """Answer with a line."""
    print(json.dumps(values), flush=True)


def main() -> int:
    """Obey until the input ends; 1 after an error."""

    async def run() -> None:
        await _Process(json.loads(sys.argv[1])).run()

    try:
        uvloop.run(run())
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            say(error="".join(traceback.format_exception(error))[-3000:])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
