"""Loads on one node: warm up, find the peak, then measure latencies at a fixed share of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg
import psutil
from rich.console import Console

from benchmarks import latency
from benchmarks.corpus import Corpus, Press
from benchmarks.generator import Submitted, closed_loop, open_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Cpu, Node
from benchmarks.sampler import Sampler
from protocol.signature import PublicKey

BATCH = 50
OPEN_SHARE = 0.7
"""Load of the open loop, as a share of the closed loop's peak."""
HEADROOM = 1.7
"""Documents that are signed for the peak, as a multiple of what the warm-up's rate would use."""
PATIENCE_SECONDS = 20.0
"""How long nothing may be acknowledged before the rest counts as lost."""


class Reading(Protocol):
    """The receiving endpoints: `Receivers` and its kin."""

    ledger: Ledger
    pages: int
    acks: int

    def check(self) -> None:
        """Raise what a receiver ended with, if one did."""


Loop = Callable[[tuple[str, int], Corpus, Ledger, int, float], Awaitable[Submitted]]
"""`generator.closed_loop`, whose last argument is seconds; `generator.open_loop`, requests a second; their kin."""

Verify = Callable[[Ledger, Mapping[str, PublicKey]], Awaitable[Conservation]]
"""Counts a load's documents and checks their receipts with the hub's public keys, after the clock has stopped."""


async def verified(ledger: Ledger, keys: Mapping[str, PublicKey]) -> Conservation:
    """`Verify`, where the answers hold the receipts."""
    return ledger.verify(keys)


@dataclass(frozen=True, slots=True)
class Mode:
    """A way of submitting."""

    name: str
    per_request: int
    connections: int
    guess: int
    """Documents a second for which the warm-up is prepared."""


@dataclass(slots=True)
class Run:
    """One load, from its first document to its last acknowledgement."""

    submitted: Submitted
    conservation: Conservation
    documents: int
    seconds: float
    """From the first document sent to the last one acknowledged."""
    cpu: Cpu
    generator: float
    """CPU seconds of this process."""
    others: float
    """CPU seconds that the rest of the machine used."""
    wal_bytes: int
    pages: int
    acks: int
    end_to_end: list[float]
    offered: float
    """Requests a second of the schedule; 0 in the closed loop."""
    sampler: Sampler

    @property
    def rate(self) -> float:
        return self.documents / self.seconds

    @property
    def others_share(self) -> float:
        """Of all CPUs."""
        return round(self.others / self.seconds / (psutil.cpu_count() or 1), 3)


@dataclass(slots=True)
class Campaign:
    """The loads on one node."""

    node: Node
    press: Press
    receivers: Reading
    console: Console
    closed: Loop = closed_loop
    open: Loop = open_loop
    verify: Verify = verified
    conservation: list[Conservation] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By mode: what was sampled once a second, and the latencies' curves."""
    generator: float = 0.0
    all_cpu: float = 0.0

    async def run(self, corpus: Corpus, mode: Mode, seconds: float, rate: float | None = None) -> Run:
        """Load the hub for `seconds`, as fast as it goes or at `rate` requests a second, and let it finish."""
        node = self.node
        ledger = self.receivers.ledger = Ledger(corpus)
        pages, acks = self.receivers.pages, self.receivers.acks
        control = await asyncpg.connect(node.database_url)
        lsn = "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        wal = await control.fetchval(lsn)
        gc.collect()
        gc.disable()
        machine, cpu, own = psutil.cpu_times(), node.cpu(), time.process_time()
        try:
            async with Sampler(node, lambda: ledger.acknowledged) as sampler:
                if rate is None:
                    submitted = await self.closed(node.address, corpus, ledger, mode.connections, seconds)
                else:
                    submitted = await self.open(node.address, corpus, ledger, mode.connections * 2, rate)
                await ledger.settled(PATIENCE_SECONDS)
        finally:
            gc.enable()
        used, own = node.cpu() - cpu, time.process_time() - own
        others = busy(psutil.cpu_times()) - busy(machine) - used.hub - used.postgres - own
        wal = await control.fetchval(lsn) - wal
        await control.close()
        self.receivers.check()
        conservation = await self.verify(ledger, await node.keys())
        self.conservation.append(conservation)
        for status, count in submitted.refused.items():
            self.refused[str(status)] = self.refused.get(str(status), 0) + count
        if not ledger.acknowledged:
            refused = dict(submitted.refused)
            raise RuntimeError(f"{mode.name}: nothing came through; refused: {refused}\n{node.log_tail()}")
        return Run(
            submitted,
            conservation,
            ledger.acknowledged,
            max(ledger.last_ack, submitted.ended) - submitted.started,
            used,
            own,
            max(0.0, others),
            int(wal),
            self.receivers.pages - pages,
            self.receivers.acks - acks,
            ledger.end_to_end(),
            rate or 0.0,
            sampler,
        )

    async def mode(self, mode: Mode, seconds: float) -> dict[str, Any]:
        """Warm up, find the peak, then measure latencies at `OPEN_SHARE` of it."""
        warm_seconds = min(3.0, seconds)
        self.say(f"{mode.name}: warming up")
        warm = await self.run(self.make(mode, mode.guess * warm_seconds), mode, warm_seconds)
        self.say(f"{mode.name}: the peak, for {seconds:g} s (about {warm.rate:,.0f}/s so far)")
        peak = await self.run(self.make(mode, warm.rate * seconds * HEADROOM), mode, seconds)
        offered = OPEN_SHARE * peak.rate
        self.say(f"{mode.name}: the peak was {peak.rate:,.0f}/s; now {offered:,.0f}/s at fixed times")
        steady = await self.run(self.make(mode, offered * seconds), mode, seconds, offered / mode.per_request)
        self.generator += peak.generator + steady.generator
        self.all_cpu += sum(run.generator + run.cpu.hub + run.cpu.postgres for run in (peak, steady))
        self.details[mode.name] = {
            "peak": peak.sampler.json(),
            "open": steady.sampler.json(),
            "submission_ms": latency.curve(steady.submitted.latencies),
            "acknowledged_ms": latency.curve(steady.end_to_end),
        }
        return named(mode.name, figures(peak, steady, mode))

    def make(self, mode: Mode, documents: float) -> Corpus:
        return self.press.make(max(mode.connections, round(documents / mode.per_request)), mode.per_request)

    def say(self, text: str) -> None:
        self.console.print(text, style="dim")

    @property
    def conserved(self) -> bool:
        return bool(self.conservation) and all(run.holds for run in self.conservation)


def named(scenario: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Figures under their scenario's name."""
    return {f"{scenario}.{name}": value for name, value in values.items()}


def busy(times: Any) -> float:
    """CPU seconds of the machine that were not idle. Steal counts: it was somebody else's."""
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0))


def figures(peak: Run, steady: Run, mode: Mode) -> dict[str, Any]:
    """What a mode reports, without its name."""

    def each(seconds: float) -> float:
        return round(seconds / peak.documents * 1e6, 1)

    submission = latency.table(steady.submitted.latencies)
    closed_p50, closed_p99 = latency.milliseconds(peak.submitted.latencies, 0.5, 0.99)
    closed_e2e_p50, closed_e2e_p99 = latency.milliseconds(peak.end_to_end, 0.5, 0.99)
    sent_for = steady.submitted.ended - steady.submitted.started
    return {
        "docs_per_s": round(peak.rate, 1),
        "cpu_us_per_doc": each(peak.cpu.hub + peak.cpu.postgres),
        **submission,
        "p99_ms_at_70pct": submission["p99_ms"],
        **latency.table(steady.end_to_end, "e2e_"),
        "closed_p50_ms": closed_p50,
        "closed_p99_ms": closed_p99,
        "closed_e2e_p50_ms": closed_e2e_p50,
        "closed_e2e_p99_ms": closed_e2e_p99,
        "open_offered_docs_per_s": round(steady.offered * mode.per_request, 1),
        "open_docs_per_s": round(steady.submitted.requests * mode.per_request / sent_for, 1),
        "open_cpu_us_per_doc": round((steady.cpu.hub + steady.cpu.postgres) / steady.documents * 1e6, 1),
        "open_lag_p99_ms": latency.milliseconds(steady.submitted.lags, 0.99)[0],
        "hub_cpu_us_per_doc": each(peak.cpu.hub),
        "worker_cpu_us_per_doc": [each(worker) for worker in peak.cpu.workers],
        "postgres_cpu_us_per_doc": each(peak.cpu.postgres),
        "generator_cpu_us_per_doc": each(peak.generator),
        "others_cpu_share": peak.others_share,
        "open_others_cpu_share": steady.others_share,
        "docs_per_commit": round(peak.documents / max(1, peak.conservation.seals), 1),
        "docs_per_page": round(peak.documents / max(1, peak.pages), 1),
        "docs_per_ack": round(peak.documents / max(1, peak.acks), 1),
        "wal_bytes_per_doc": round(peak.wal_bytes / peak.documents),
        **peak.sampler.summary(peak.documents),
        "open_loop_lag_max_ms": steady.sampler.summary(steady.documents)["loop_lag_max_ms"],
        "connections": mode.connections,
        "seconds": round(peak.seconds, 2),
        "documents": peak.documents,
    }
