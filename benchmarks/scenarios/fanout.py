"""One document to hundreds of endpoints: how many a second, and what everybody else feels of it.

First the documents of others go alone, at fixed times. Then circulars to all members of the crowd, as fast as
it goes: their rate counts acceptance, with a delivery for each member committed. Then both together, the
circulars at a share of their peak; what others wait now, beside what they waited alone, is what a circular
costs its neighbours. At the end every member's mailbox is read, and every delivery is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from benchmarks import latency, report
from benchmarks.campaign import PATIENCE_SECONDS, named
from benchmarks.corpus import SENDERS, Corpus, Press, Receiver, Sender
from benchmarks.crowd import Crowd, Deliveries, drain, register
from benchmarks.generator import Submitted, closed_loop, open_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Node
from benchmarks.receivers import Receivers
from benchmarks.sampler import Sampler
from benchmarks.scenarios import Outcome, Setting

CONNECTIONS = 32
OTHERS_PER_SECOND = 200
SHARE = 0.25
"""Of the circulars' peak, while others are looked at."""
MAX_DELIVERIES = 900_000
"""Of the peak: they have to be read again."""
WARM_DELIVERIES = 200_000
READERS = 16


def scenario(members: int) -> Callable[[Setting], Coroutine[Any, Any, list[Outcome]]]:
    """The scenario for a crowd of so many endpoints."""
    return partial(run, members=members)


class _Load:
    """What the phases share: one node, its crowd, and the books of all that was sent."""

    def __init__(self, node: Node, crowd: Crowd, senders: list[Sender], receivers: list[Receiver]) -> None:
        host = node.url.removeprefix("http://")
        self.node = node
        self.crowd = crowd
        self.circulars = Press(senders, receivers, host, addresses=crowd.groups, first=1_000_000_000)
        self.singles = Press(senders, receivers, host)
        self.books = Deliveries(len(crowd.members))
        self.ledgers: list[Ledger] = []
        self.refused: dict[str, int] = {}

    def circular(self, documents: float) -> tuple[Corpus, Ledger]:
        corpus = self.circulars.make(max(CONNECTIONS, round(documents)), 1)
        ledger = Ledger(corpus, recipients=len(self.crowd.members))
        self.books.expect(corpus)
        self.ledgers.append(ledger)
        return corpus, ledger

    def note(self, submitted: Submitted) -> None:
        for status, count in submitted.refused.items():
            self.refused[str(status)] = self.refused.get(str(status), 0) + count

    async def peak(self, documents: float, seconds: float) -> Submitted:
        """Circulars as fast as they go."""
        corpus, ledger = self.circular(documents)
        submitted = await closed_loop(self.node.address, corpus, ledger, CONNECTIONS, seconds)
        self.note(submitted)
        return submitted

    async def others(self, reading: Receivers, seconds: float, circulars: float = 0.0) -> tuple[Submitted, Ledger]:
        """Documents to one each at fixed times; beside them so many circulars a second."""
        corpus = self.singles.make(round(OTHERS_PER_SECOND * seconds), 1)
        ledger = reading.ledger = Ledger(corpus)
        loads = [open_loop(self.node.address, corpus, ledger, CONNECTIONS, OTHERS_PER_SECOND)]
        if circulars:
            meanwhile, books = self.circular(circulars * seconds)
            loads.append(open_loop(self.node.address, meanwhile, books, CONNECTIONS, circulars, seed=2))
        submitted = await asyncio.gather(*loads)
        for load in submitted:
            self.note(load)
        await ledger.settled(PATIENCE_SECONDS)
        reading.check()
        return submitted[0], ledger


async def run(setting: Setting, members: int) -> list[Outcome]:
    """Figures under ``fanout<members>``."""
    name = f"fanout{members}"
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    receivers = [Receiver(number) for number in range(setting.receivers)]
    seconds = min(setting.seconds, 4.0)
    async with Node(setting.workers) as node:
        await node.register(senders, receivers)
        load = _Load(node, await register(node, "CR", members), senders, receivers)
        async with Receivers(node.address, receivers) as reading:
            setting.say(f"{name}: others alone, {OTHERS_PER_SECOND}/s at fixed times")
            alone, alone_books = await load.others(reading, seconds)
            setting.say(f"{name}: warming up")
            warm = await load.peak(WARM_DELIVERIES / (10 if setting.quick else 1) / members, 0.5)
            rate = warm.requests / (warm.ended - warm.started)
            setting.say(f"{name}: the peak (about {rate:,.0f}/s so far)")
            most = MAX_DELIVERIES // (10 if setting.quick else 1)
            documents = min(most / members, rate * seconds * 1.7)
            cpu = node.cpu()
            async with Sampler(node, lambda: load.ledgers[-1].answered_documents) as sampler:
                peak = await load.peak(documents, seconds)
            used = node.cpu() - cpu
            rate = len(peak.latencies) / (peak.ended - peak.started)
            setting.say(f"{name}: the peak was {rate:,.0f}/s; others beside {SHARE * rate:,.0f}/s")
            beside, beside_books = await load.others(reading, seconds, SHARE * rate)
        setting.say(f"{name}: reading {members:,} mailboxes")
        took = await drain(node, load.crowd.members, load.books, READERS)
        keys = await node.keys()
        facts, log = await report.facts(node), node.log_tail()
    sent = sum(ledger.sent_documents for ledger in load.ledgers)
    proven = [ledger.receipts(keys) for ledger in load.ledgers]
    receipted = sum(receipts for receipts, _ in proven)
    books = load.books
    circulars = Conservation(
        sent * members,
        receipted * members,
        books.delivered,
        books.acknowledged,
        books.strays,
        sum(seals for _, seals in proven),
    )
    counts = [alone_books.verify(keys), beside_books.verify(keys), circulars]
    conserved = all(count.holds for count in counts)
    accepted = len(peak.latencies)
    figures = {
        "docs_per_s": round(rate, 1),
        "deliveries_per_s": round(rate * members),
        "cpu_us_per_doc": round((used.hub + used.postgres) / accepted * 1e6),
        "hub_cpu_us_per_doc": round(used.hub / accepted * 1e6),
        "postgres_cpu_us_per_doc": round(used.postgres / accepted * 1e6),
        "wal_bytes_per_delivery": round(sampler.total("wal") / accepted / members, 1),
        "loop_lag_max_ms": sampler.summary(accepted)["loop_lag_max_ms"],
        **_waits("others_alone_", alone, alone_books),
        **_waits("others_", beside, beside_books),
        "drain_deliveries_per_s": round(books.delivered / took),
        "documents": sent,
        "deliveries": books.delivered,
    }
    details = {
        "peak": sampler.json(),
        "others_alone_ms": latency.curve(alone.latencies),
        "others_ms": latency.curve(beside.latencies),
    }
    log = "" if conserved else log
    return [Outcome(name, named(name, figures), conserved, facts, counts, load.refused, details, log)]


def _waits(prefix: str, submitted: Submitted, ledger: Ledger) -> dict[str, float]:
    p50, p99 = latency.milliseconds(submitted.latencies, 0.5, 0.99)
    e2e_p50, e2e_p99 = latency.milliseconds(ledger.end_to_end(), 0.5, 0.99)
    names = ("p50_ms", "p99_ms", "e2e_p50_ms", "e2e_p99_ms")
    return {prefix + name: value for name, value in zip(names, (p50, p99, e2e_p50, e2e_p99), strict=True)}
