"""One load on one peer: the same documents, senders and receivers as the hub has, counted through to the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import msgspec
import psutil

from benchmarks import latency
from benchmarks.campaign import HEADROOM, PATIENCE_SECONDS, busy
from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.node import tree_seconds
from benchmarks.peers.peer import ROOT, Peer
from benchmarks.peers.share import ACKNOWLEDGED, SEATS, SENT, STRAYS, Share
from protocol.signature import parse

CAPACITY = 600_000
"""Documents of a peer's loads together. The memory costs only what is written to it."""
WARM_SECONDS = 3.0
LEFT_SECONDS = 10.0
"""How long a peer may take to work off acknowledgements that it does not answer."""


class NotConservedError(RuntimeError):
    """Documents are missing, or came twice, or were never sent so: there is no figure."""


@dataclass(frozen=True, slots=True)
class Conservation:
    """Documents of one load, counted at each stage."""

    sent: int
    confirmed: int
    delivered: int
    """Exactly once, to the right receiver, byte for byte."""
    acknowledged: int
    strays: int
    left: int = 0
    """What the peer still held at the end."""

    @property
    def holds(self) -> bool:
        return (
            0 < self.sent == self.confirmed == self.delivered == self.acknowledged
            and not self.strays
            and not self.left
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load came to. Times are in seconds."""

    conservation: Conservation
    seconds: float
    """From the first document sent to the last acknowledged."""
    server: float
    """CPU."""
    client: float
    """CPU of the processes that send and receive."""
    others: float
    """CPU of the rest of the machine."""
    confirmed_after: list[float]
    acknowledged_after: list[float]

    @property
    def rate(self) -> float:
        return self.conservation.acknowledged / self.seconds

    def figures(self) -> dict[str, Any]:
        """For the results' file."""
        documents = max(1, self.conservation.acknowledged)
        confirm_p50, confirm_p99 = latency.milliseconds(self.confirmed_after, 0.5, 0.99)
        e2e_p50, e2e_p99 = latency.milliseconds(self.acknowledged_after, 0.5, 0.99)
        return {
            "docs_per_s": round(self.rate, 1),
            "server_cpu_us_per_doc": round(self.server / documents * 1e6, 1),
            "client_cpu_us_per_doc": round(self.client / documents * 1e6, 1),
            "confirm_p50_ms": confirm_p50,
            "confirm_p99_ms": confirm_p99,
            "e2e_p50_ms": e2e_p50,
            "e2e_p99_ms": e2e_p99,
            "others_cpu_share": round(self.others / self.seconds / (psutil.cpu_count() or 1), 3),
            "documents": documents,
            "seconds": round(self.seconds, 2),
        }


class Stock:
    """Writes signed documents into a share, for a peer's loads one after another."""

    def __init__(self, press: Press, receivers: Sequence[Receiver], payload_only: bool) -> None:
        self._press = press
        self._place = {code: receiver.number for receiver in receivers for code in receiver.codes}
        self._payload_only = payload_only
        self._filled = 0
        (sample,) = press.make(1, 1).documents
        self.share = Share(CAPACITY, len(self._bytes(sample)))

    def add(self, documents: float) -> tuple[int, int]:
        """At most so many more; returns the first one's place and how many they are."""
        first = self._filled
        count = min(max(SENDERS, round(documents)), self.share.capacity - first)
        for document in self._press.make(count, 1).documents:
            self.share.write(self._filled, self._bytes(document), self._place[_recipient(document)])
            self._filled += 1
        return first, count

    def _bytes(self, document: bytes) -> bytes:
        return bytes(parse(document).payload) if self._payload_only else document


class _Addressed(msgspec.Struct):
    to: list[str]


_read_addressed = msgspec.json.Decoder(_Addressed).decode


def _recipient(document: bytes) -> str:
    return _read_addressed(parse(document).payload).to[0]


def seats(split: int | str, receivers: int) -> list[tuple[list[int], list[int]]]:
    """The senders and the receivers of each process."""
    everyone, everywhere = list(range(SENDERS)), list(range(receivers))
    if split == "roles":
        return [(everyone, []), ([], everywhere)]
    assert isinstance(split, int) and 0 < split <= SEATS
    return [(everyone[n::split], everywhere[n::split]) for n in range(split)]


class Crew:
    """The processes of a load. An async context: at its end they are closed in order, or ended."""

    def __init__(self, peer: Peer, share: Share) -> None:
        self._peer = peer
        self._share = share
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Crew:
        peer, share = self._peer, self._share
        order = {
            "peer": peer.name,
            "address": peer.address,
            "settings": peer.settings,
            "capacity": share.capacity,
            "length": share.length,
            "descriptor": share.descriptor,
            "all_senders": SENDERS,
        }
        try:
            for seat, (senders, receivers) in enumerate(seats(peer.settings["split"], peer.receivers)):
                own = json.dumps({**order, "seat": seat, "senders": senders, "receivers": receivers})
                self._processes.append(
                    await asyncio.create_subprocess_exec(
                        *peer.command(),
                        own,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        cwd=ROOT,
                        env={**os.environ, **peer.environment()},
                        pass_fds=[share.descriptor],
                        start_new_session=True,
                    )
                )
            await self._answers("open", 60)
        except BaseException:
            await self._end(0)
            raise
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self._end(0 if kind else 20)

    async def run(self, first: int, count: int, seconds: float) -> tuple[float, float, float, float]:
        """Load the peer; returns seconds: how long until the last acknowledgement, and CPU.

        That of the server, of this crew and of the rest of the machine.
        """
        self._tell(do="prepare", first=first, count=count)
        await self._answers("prepare", 60)
        share = self._share
        already = share.total(ACKNOWLEDGED)
        machine, own = psutil.cpu_times(), self.cpu()
        served, this = self._peer.server_seconds(), psutil.Process().cpu_times()
        started = perf_counter()
        self._tell(do="go", until=started + seconds)
        await self._answers("go", seconds + 60)
        await self._settled()
        served, own = self._peer.server_seconds() - served, self.cpu() - own
        idle_watch = sum(psutil.Process().cpu_times()[:2]) - sum(this[:2])
        others = busy(psutil.cpu_times()) - busy(machine) - served - own - idle_watch
        if share.total(ACKNOWLEDGED) == already:
            raise NotConservedError(f"{self._peer.title}: nothing was acknowledged")
        last = max(share.acknowledged[first : first + count])
        return last - started, served, own, max(0.0, others)

    def cpu(self) -> float:
        """Seconds that the crew's processes have used."""
        return sum(tree_seconds(psutil.Process(process.pid)) for process in self._processes)

    async def _settled(self) -> None:
        """Wait until all that was sent is acknowledged, or until nothing more happens."""
        share = self._share
        seen, since = -1, perf_counter()
        while (done := share.total(ACKNOWLEDGED)) < share.total(SENT):
            if done != seen:
                seen, since = done, perf_counter()
            elif perf_counter() - since > PATIENCE_SECONDS:
                return
            for process in self._processes:
                if process.returncode is not None:
                    raise RuntimeError(f"a client of {self._peer.title} ended by itself ({process.returncode})")
            await asyncio.sleep(0.02)

    def _tell(self, **command: Any) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _answers(self, did: str, seconds: float) -> None:
        async def answer(process: asyncio.subprocess.Process) -> None:
            assert process.stdout is not None
            line = await process.stdout.readline()
            said = json.loads(line) if line else {"error": "it ended without a word"}
            if said.get("did") != did:
                raise RuntimeError(f"a client of {self._peer.title} failed: {said.get('error', said)}")

        async with asyncio.timeout(seconds):
            await asyncio.gather(*(answer(process) for process in self._processes))

    async def _end(self, patience: float) -> None:
        """Close their input, which ends them, and wait; then by force."""
        for process in self._processes:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), max(0.1, patience))
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._processes.clear()


def count(share: Share, first: int, number: int) -> Conservation:
    """Count a load's documents, each by itself."""
    end = first + number
    sent = [place for place in range(first, end) if share.sent[place]]
    return Conservation(
        sent=len(sent),
        confirmed=sum(1 for place in sent if share.confirmed[place]),
        delivered=sum(1 for place in sent if share.deliveries[place] == 1),
        acknowledged=sum(1 for place in sent if share.acknowledged[place]),
        strays=share.total(STRAYS)
        + sum(1 for place in range(first, end) if share.deliveries[place] and not share.sent[place]),
    )


async def measure(
    peer: Peer, senders: list[Sender], receivers: list[Receiver], seconds: float, say: Callable[[str], None]
) -> Outcome:
    """Warm the peer up, load it for `seconds`, and count. Raises NotConservedError."""
    stock = Stock(Press(senders, receivers, ""), receivers, peer.payload_only)
    share = stock.share
    try:
        warm_seconds = min(WARM_SECONDS, seconds)
        async with Crew(peer, share) as crew:
            first, number = stock.add(peer.guess * warm_seconds)
            say(f"{peer.title}: warming up")
            taken, *_ = await crew.run(first, number, warm_seconds)
            await peer.collect(share, first, number)
            warm = _hold(peer, count(share, first, number))
            first, number = stock.add(warm.acknowledged / taken * seconds * HEADROOM)
            say(f"{peer.title}: for {seconds:g} s (about {warm.acknowledged / taken:,.0f}/s so far)")
            taken, server, client, others = await crew.run(first, number, seconds)
            await peer.collect(share, first, number)
        found = _hold(peer, replace(count(share, first, number), left=await _left(peer)))
        sent = [place for place in range(first, first + number) if share.sent[place]]
        return Outcome(
            found,
            taken,
            server,
            client,
            others,
            [share.confirmed[place] - share.sent[place] for place in sent],
            [share.acknowledged[place] - share.sent[place] for place in sent],
        )
    finally:
        share.close()


def _hold(peer: Peer, found: Conservation) -> Conservation:
    if not found.holds:
        raise NotConservedError(f"{peer.title}: not conserved: {asdict(found)}")
    return found


async def _left(peer: Peer) -> int:
    deadline = perf_counter() + LEFT_SECONDS
    while True:
        left = await peer.left_over()
        if not left or perf_counter() > deadline:
            return left
        await asyncio.sleep(0.1)
