"""Documents of 50 MB through the axis's interface: how many MiB a second, and what a worker needs for it.

Each goes the whole way: a system sends it to ``/vxp/sendEdoc``, the receiving one fetches it from
``/vxp/downloadEdoc`` and says that it is done. A few are under way at a time. Meanwhile the workers' memory is
read ten times a second. At the end every receipt is looked up, and the receiver must have nothing left.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import threading
import time
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import aiohttp
import psutil

from benchmarks import axis, report
from benchmarks.campaign import busy, named
from benchmarks.corpus import Corpus, Receiver, Sender
from benchmarks.edxml import EdxmlPress, numbered
from benchmarks.ledger import Ledger
from benchmarks.node import Node
from benchmarks.scenarios import Outcome, Setting
from protocol.vxp import SERVICE, read_result

DOCUMENTS = 40
QUICK = 4
AT_ONCE = 4
ATTACHMENT_BYTES = 37_500_000
"""50 MB in base64."""
EVERY_SECONDS = 0.1
_PIECE = 1 << 20
_MIB = 1 << 20


class Memory:
    """Samples the resident memory (RSS) of processes in a thread of its own. A context."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rows: list[list[float]] = []
        """Seconds since the beginning, then MiB of each."""

    def read(self) -> list[float]:
        """MiB of each process now."""
        return [round(process.memory_info().rss / _MIB, 1) for process in self._processes]

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began = perf_counter()
        while not self._over.wait(EVERY_SECONDS):
            self.rows.append([round(perf_counter() - began, 2), *self.read()])

    def peak(self, first: float = 0.0, last: float = float("inf")) -> float:
        """The most that any process held between these seconds, MiB."""
        return max((max(held) for at, *held in self.rows if first <= at <= last), default=0.0)


@dataclass(slots=True)
class Digests(Corpus):
    """Large documents in the books: the SHA-256 (hex) of each stands for its bytes."""

    def sender_id(self, place: int) -> str:
        return f"edxml:{self.digest(place)}"

    def place_of(self, sender_id: str) -> int:
        digest = sender_id.removeprefix("edxml:").encode()
        return self.documents.index(digest) if digest in self.documents else -1

    def digest(self, place: int) -> str:
        return self.documents[place].decode()


class _Press:
    """Makes the documents when they are sent: they differ in their numbers alone."""

    def __init__(self, sender: Sender, receiver: Receiver) -> None:
        scan = random.Random(50).randbytes(ATTACHMENT_BYTES)
        self._parts = EdxmlPress([sender], [receiver], "").around(scan)

    def make(self, place: int) -> bytes:
        return numbered(place).join(self._parts)


async def run(setting: Setting) -> list[Outcome]:
    """Figures: ``mib_per_s``, ``worker_idle_mib``, ``worker_peak_mib`` and, of the first half alone,
    ``worker_peak_first_half_mib``.
    """
    count = QUICK if setting.quick else DOCUMENTS
    sender, receiver = Sender(1), Receiver(0)
    setting.say(f"large50: making {count} documents, and starting a hub")
    press = _Press(sender, receiver)
    size = len(press.make(0))
    corpus = Digests(0, 1, [hashlib.sha256(press.make(place)).hexdigest().encode() for place in range(count)], [])
    ledger = Ledger(corpus)
    async with Node(setting.workers) as node:
        await node.register([sender], [receiver])
        await axis.add_systems(node, [sender, receiver])
        setting.say(f"large50: {count} documents of {size / 1e6:.1f} MB, {AT_ONCE} at a time")
        machine, cpu, own = psutil.cpu_times(), node.cpu(), time.process_time()
        with Memory(node.workers()) as memory:
            idle = max(memory.read())
            began = perf_counter()
            done = await _carry(node, sender, receiver, press, ledger)
            seconds = perf_counter() - began
        used, own = node.cpu() - cpu, time.process_time() - own
        others = busy(psutil.cpu_times()) - busy(machine) - used.hub - used.postgres - own
        conservation = await axis.verify(node, [sender], ledger, await node.keys())
        conservation = replace(conservation, strays=conservation.strays + await _waiting(node, receiver))
        facts = await report.facts(node)
        log = "" if conservation.holds else node.log_tail()
    middle = sorted(done)[count // 2 - 1] - began
    figures = {
        "mib_per_s": round(count * size / _MIB / seconds, 1),
        "worker_idle_mib": idle,
        "worker_peak_mib": memory.peak(),
        "worker_peak_first_half_mib": memory.peak(last=middle),
        "cpu_ms_per_mib": round((used.hub + used.postgres) / (count * size / _MIB) * 1000, 2),
        "others_cpu_share": round(max(0.0, others) / seconds / (psutil.cpu_count() or 1), 3),
        "documents": count,
        "document_bytes": size,
        "seconds": round(seconds, 2),
    }
    details = {"columns": ["t", *(f"worker_{n + 1}_mib" for n in range(setting.workers))], "rows": memory.rows}
    return [
        Outcome("large50", named("large50", figures), conservation.holds, facts, [conservation], {}, details, log)
    ]


async def _carry(node: Node, sender: Sender, receiver: Receiver, press: _Press, ledger: Ledger) -> list[float]:
    """Send, fetch and end every document; returns when each was done. Raises `Refusal` when the hub refuses."""
    places = iter(range(len(ledger.submitted)))
    done: list[float] = []

    async def work(session: aiohttp.ClientSession) -> None:
        for place in places:
            document = await asyncio.to_thread(press.make, place)
            headers = axis.send_headers(sender, ledger.corpus.digest(place))
            ledger.sent(place, perf_counter())
            async with session.post("/vxp/sendEdoc", headers=headers, data=io.BytesIO(document)) as answer:
                body = await answer.read()
            del document
            name = read_result(body)["DocId"]
            ledger.answered(place, body)
            digest = await _fetch(session, receiver, name)
            fetched = ledger.delivered(ledger.corpus.sender_id(place), digest.encode())
            await _call(session, receiver, "updateStatus", {"status": "done", "docId": name})
            ledger.acknowledge([fetched] if fetched >= 0 else [], 1)
            done.append(perf_counter())

    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    async with aiohttp.ClientSession(node.url, timeout=timeout) as session:
        await asyncio.gather(*(work(session) for _ in range(AT_ONCE)))
    return done


async def _fetch(session: aiohttp.ClientSession, receiver: Receiver, name: str) -> str:
    """The SHA-256 (hex) of what /downloadEdoc gives."""
    headers = axis.call_headers(receiver, {"docId": name})
    digest = hashlib.sha256()
    async with session.get("/vxp/downloadEdoc", headers=headers) as answer:
        async for piece in answer.content.iter_chunked(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


async def _call(
    session: aiohttp.ClientSession, receiver: Receiver, call: str, parameters: dict[str, str]
) -> dict[str, Any]:
    headers = axis.call_headers(receiver, parameters)
    async with session.post(f"/vxp/{call}", headers=headers, data=b"{}") as answer:
        return read_result(await answer.read())


async def _waiting(node: Node, receiver: Receiver) -> int:
    """How many documents the receiver would still be given."""
    async with aiohttp.ClientSession(node.url) as session:
        found = await _call(session, receiver, "countReceiveEdoc", {"servicetype": SERVICE, "messagetype": "edoc"})
    return int(found["count"])
