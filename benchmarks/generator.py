"""The load generator: HTTP/1.1 on bare asyncio protocols, so that little of two cores goes to it.

`Connection` has one request under way and knows answers by their Content-Length, which is all that the
hub sends. `closed_loop` keeps every connection busy: it finds the most that the hub can do.
`open_loop` sends at times fixed beforehand, whatever the hub does, and measures from those times: a
request that had to wait for the hub to finish others has waited (coordinated omission hides just that).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.corpus import Corpus
from benchmarks.ledger import Ledger

LOST = 0
"""The status of an answer that did not come."""


class Connection(asyncio.Protocol):
    """One connection. `answered(connection, status, body)` is called for each request's answer."""

    __slots__ = ("_answered", "_head", "_missing", "_parts", "_status", "lost", "request", "transport")

    def __init__(self, answered: Callable[[Connection, int, bytes], None]) -> None:
        self._answered = answered
        self._head = b""
        self._missing = 0
        self._parts: list[bytes] = []
        self._status = 0
        self.request = -1
        self.lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._answered(self, LOST, b"")

    def send(self, head: bytes, body: bytes = b"") -> None:
        self.transport.writelines((head, body))

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._take(data)
            return
        data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return
        self._head = b""
        self._status = int(data[9:12])
        place = data.find(b"Content-Length: ", 0, end) + 16
        if place < 16:
            raise RuntimeError(f"an answer without Content-Length: {data[:end]!r}")
        self._missing = int(data[place : data.index(b"\r\n", place)])
        if not self._missing:
            self._answered(self, self._status, b"")
        elif len(data) > end + 4:
            self._take(data[end + 4 :])

    def _take(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing:
            self._parts.append(data)
            return
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
        self._answered(self, self._status, data)


class Asker:
    """A connection to await answers on, one after another."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._connection = Connection(self._answered)

    @classmethod
    async def connect(cls, address: tuple[str, int]) -> Asker:
        asker = cls()
        await asyncio.get_running_loop().create_connection(lambda: asker._connection, *address)
        return asker

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    async def ask(self, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """The status (LOST when the connection ended) and the body of the answer."""
        if self._connection.lost:
            return LOST, b""
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(head, body)
        return await self._answer

    def close(self) -> None:
        self._connection.transport.close()


@dataclass(slots=True)
class Submitted:
    """What came of submitting. Times are seconds of `perf_counter`."""

    started: float = 0.0
    ended: float = 0.0
    requests: int = 0
    latencies: list[float] = field(default_factory=list)
    """Of each request that was accepted, from when it was sent or, in the open loop, from when it was due."""
    lags: list[float] = field(default_factory=list)
    """Open loop: how long after it was due each request was sent."""
    refused: Counter[int] = field(default_factory=Counter)
    """Other answers, by status."""


class _Load:
    """What the two loops share."""

    def __init__(self, corpus: Corpus, ledger: Ledger) -> None:
        self.corpus = corpus
        self.ledger = ledger
        self.found = Submitted()
        self.next = 0
        self.under_way = 0
        self.finished = asyncio.Event()
        self.connections: list[Connection] = []
        self.since: list[float] = []

    async def connect(self, address: tuple[str, int], count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(self.answered), *address)
            self.connections.append(connection)

    def close(self) -> None:
        for connection in self.connections:
            connection.request = -1
            connection.transport.close()

    def submit(self, connection: Connection, since: float) -> None:
        """Send the next request; its latency counts from `since`."""
        number = self.next
        self.next += 1
        self.under_way += 1
        connection.request = number
        self.since.append(since)
        self.ledger.sent(number, since)
        connection.send(*self.corpus.request(number))

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        number = connection.request
        if number < 0:
            return
        connection.request = -1
        now = perf_counter()
        self.under_way -= 1
        if self.corpus.accepts(status, body):
            self.found.latencies.append(now - self.since[number])
            self.ledger.answered(number, body)
        else:
            self.found.refused[status] += 1
        self.free(connection, now)

    def free(self, connection: Connection, now: float) -> None:
        raise NotImplementedError


class _Closed(_Load):
    def __init__(self, corpus: Corpus, ledger: Ledger) -> None:
        super().__init__(corpus, ledger)
        self.until = 0.0

    def free(self, connection: Connection, now: float) -> None:
        if now < self.until and self.next < self.corpus.requests and not connection.lost:
            self.submit(connection, now)
        elif not self.under_way:
            self.finished.set()


async def closed_loop(
    address: tuple[str, int], corpus: Corpus, ledger: Ledger, connections: int, seconds: float
) -> Submitted:
    """Submit on `connections` without a pause, until `seconds` are over or the corpus is used up."""
    load = _Closed(corpus, ledger)
    await load.connect(address, connections)
    try:
        load.found.started = perf_counter()
        load.until = load.found.started + seconds
        for connection in load.connections:
            if load.next < corpus.requests:
                load.submit(connection, perf_counter())
        await load.finished.wait()
    finally:
        load.close()
    load.found.ended = perf_counter()
    load.found.requests = load.next
    return load.found


class _Open(_Load):
    def __init__(self, corpus: Corpus, ledger: Ledger, due: list[float]) -> None:
        super().__init__(corpus, ledger)
        self.due = due
        self.idle: list[Connection] = []
        self.timer: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()

    def free(self, connection: Connection, now: float) -> None:
        if not connection.lost:
            self.idle.append(connection)
        self.pump()
        if not self.under_way and (self.next == len(self.due) or all(c.lost for c in self.connections)):
            self.finished.set()

    def pump(self) -> None:
        """Send what is due."""
        now = perf_counter()
        due, idle = self.due, self.idle
        while idle and self.next < len(due) and due[self.next] <= now:
            since = due[self.next]
            self.found.lags.append(now - since)
            self.submit(idle.pop(), since)
        if self.timer is None and self.next < len(due):
            self.timer = self.loop.call_later(max(0.0, due[self.next] - now), self.tick)

    def tick(self) -> None:
        self.timer = None
        if self.idle:
            self.pump()
        # With no idle connection the next answer pumps.


async def open_loop(
    address: tuple[str, int], corpus: Corpus, ledger: Ledger, connections: int, rate: float, seed: int = 1
) -> Submitted:
    """Submit the whole corpus at `rate` requests a second, at random (Poisson) but repeatable times."""
    chance = random.Random(seed)
    load = _Open(corpus, ledger, [])
    await load.connect(address, connections)
    try:
        load.found.started = at = perf_counter()
        for _ in range(corpus.requests):
            at += chance.expovariate(rate)
            load.due.append(at)
        load.idle.extend(load.connections)
        load.pump()
        await load.finished.wait()
    finally:
        load.close()
    load.found.ended = perf_counter()
    load.found.requests = load.next
    return load.found
