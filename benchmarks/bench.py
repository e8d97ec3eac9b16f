"""``make bench``: documents per second and CPU per document, beside the bare floors, in under three minutes.

README.md says what each figure means and what it does not.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import uvloop
from rich.console import Console

from benchmarks import floors, report
from benchmarks.corpus import SENDERS, Corpus, Press, Receiver, Sender
from benchmarks.generator import Submitted, closed_loop, open_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Cpu, Node
from benchmarks.receivers import Receivers

BATCH = 50
OPEN_SHARE = 0.7
"""Load of the open loop, as a share of the closed loop's peak."""
HEADROOM = 1.7
"""Documents that are signed for the peak, as a multiple of what the warm-up's rate would use."""
PATIENCE_SECONDS = 20.0
"""How long nothing may be acknowledged before the rest counts as lost."""
RESULTS = Path(__file__).parent / "results" / "latest.json"


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

    @property
    def rate(self) -> float:
        return self.documents / self.seconds


class Campaign:
    """The loads of one `make bench`, on one node."""

    def __init__(self, node: Node, press: Press, receivers: Receivers, console: Console) -> None:
        self._node = node
        self._press = press
        self._receivers = receivers
        self._console = console
        self.conservation: list[Conservation] = []
        self.refused: dict[str, int] = {}
        self.generator = self.all_cpu = 0.0

    async def run(self, corpus: Corpus, mode: Mode, seconds: float, rate: float | None = None) -> Run:
        """Load the hub for `seconds`, as fast as it goes or at `rate` requests a second, and let it finish."""
        node = self._node
        ledger = self._receivers.ledger = Ledger(corpus)
        pages, acks = self._receivers.pages, self._receivers.acks
        control = await asyncpg.connect(node.database_url)
        lsn = "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        wal = await control.fetchval(lsn)
        gc.collect()
        gc.disable()
        machine, cpu, own = psutil.cpu_times(), node.cpu(), time.process_time()
        try:
            if rate is None:
                submitted = await closed_loop(node.address, corpus, ledger, mode.connections, seconds)
            else:
                submitted = await open_loop(node.address, corpus, ledger, mode.connections * 2, rate)
            await ledger.settled(PATIENCE_SECONDS)
        finally:
            gc.enable()
        used, own = node.cpu() - cpu, time.process_time() - own
        others = _busy(psutil.cpu_times()) - _busy(machine) - used.hub - used.postgres - own
        wal = await control.fetchval(lsn) - wal
        await control.close()
        self._receivers.check()
        conservation = ledger.verify(await node.keys())
        self.conservation.append(conservation)
        for status, count in submitted.refused.items():
            self.refused[str(status)] = self.refused.get(str(status), 0) + count
        return Run(
            submitted,
            conservation,
            ledger.acknowledged,
            max(ledger.last_ack, submitted.ended) - submitted.started,
            used,
            own,
            max(0.0, others),
            int(wal),
            self._receivers.pages - pages,
            self._receivers.acks - acks,
            ledger.end_to_end(),
            rate or 0.0,
        )

    async def mode(self, mode: Mode, seconds: float) -> dict[str, Any]:
        """Warm up, find the peak, then measure latencies at `OPEN_SHARE` of it."""
        warm_seconds = min(3.0, seconds)
        self._say(f"{mode.name}: warming up")
        warm = await self.run(self._make(mode, mode.guess * warm_seconds), mode, warm_seconds)
        self._say(f"{mode.name}: the peak, for {seconds:g} s (about {warm.rate:,.0f}/s so far)")
        peak = await self.run(self._make(mode, warm.rate * seconds * HEADROOM), mode, seconds)
        offered = OPEN_SHARE * peak.rate
        self._say(f"{mode.name}: the peak was {peak.rate:,.0f}/s; now {offered:,.0f}/s at fixed times")
        steady = await self.run(self._make(mode, offered * seconds), mode, seconds, offered / mode.per_request)
        self.generator += peak.generator + steady.generator
        self.all_cpu += sum(run.generator + run.cpu.hub + run.cpu.postgres for run in (peak, steady))
        return {f"{mode.name}.{name}": value for name, value in _figures(peak, steady, mode).items()}

    def _make(self, mode: Mode, documents: float) -> Corpus:
        return self._press.make(max(mode.connections, round(documents / mode.per_request)), mode.per_request)

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim")


def _busy(times: Any) -> float:
    """CPU seconds of the machine that were not idle. Steal counts: it was somebody else's."""
    return float(sum(times) - times.idle - times.iowait - getattr(times, "guest", 0))


def _share(run: Run) -> float:
    return round(run.others / run.seconds / (psutil.cpu_count() or 1), 3)


def _figures(peak: Run, steady: Run, mode: Mode) -> dict[str, Any]:
    def each(seconds: float) -> float:
        return round(seconds / peak.documents * 1e6, 1)

    p50, p95, p99 = report.milliseconds(steady.submitted.latencies, 0.5, 0.95, 0.99)
    e2e_p50, e2e_p95, e2e_p99 = report.milliseconds(steady.end_to_end, 0.5, 0.95, 0.99)
    closed_p50, closed_p99 = report.milliseconds(peak.submitted.latencies, 0.5, 0.99)
    closed_e2e_p50, closed_e2e_p99 = report.milliseconds(peak.end_to_end, 0.5, 0.99)
    sent_for = steady.submitted.ended - steady.submitted.started
    return {
        "docs_per_s": round(peak.rate, 1),
        "cpu_us_per_doc": each(peak.cpu.hub + peak.cpu.postgres),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "e2e_p50_ms": e2e_p50,
        "e2e_p95_ms": e2e_p95,
        "e2e_p99_ms": e2e_p99,
        "closed_p50_ms": closed_p50,
        "closed_p99_ms": closed_p99,
        "closed_e2e_p50_ms": closed_e2e_p50,
        "closed_e2e_p99_ms": closed_e2e_p99,
        "open_offered_docs_per_s": round(steady.offered * mode.per_request, 1),
        "open_docs_per_s": round(steady.submitted.requests * mode.per_request / sent_for, 1),
        "open_cpu_us_per_doc": round((steady.cpu.hub + steady.cpu.postgres) / steady.documents * 1e6, 1),
        "open_lag_p99_ms": report.milliseconds(steady.submitted.lags, 0.99)[0],
        "hub_cpu_us_per_doc": each(peak.cpu.hub),
        "worker_cpu_us_per_doc": [each(worker) for worker in peak.cpu.workers],
        "postgres_cpu_us_per_doc": each(peak.cpu.postgres),
        "generator_cpu_us_per_doc": each(peak.generator),
        "others_cpu_share": _share(peak),
        "open_others_cpu_share": _share(steady),
        "docs_per_commit": round(peak.documents / max(1, peak.conservation.seals), 1),
        "docs_per_page": round(peak.documents / max(1, peak.pages), 1),
        "docs_per_ack": round(peak.documents / max(1, peak.acks), 1),
        "wal_bytes_per_doc": round(peak.wal_bytes / peak.documents),
        "connections": mode.connections,
        "seconds": round(peak.seconds, 2),
        "documents": peak.documents,
    }


async def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole campaign; returns the flat object of the results' file."""
    started = time.monotonic()
    modes = [
        Mode("post", 1, options.connections, 9_000),
        Mode("batch50", BATCH, options.batch_connections, 16_000),
    ]
    modes = [mode for mode in modes if options.only in (None, mode.name)]
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    receivers = [Receiver(number) for number in range(options.receivers)]
    results: dict[str, Any] = {}
    console.print(f"starting a hub of {options.workers} workers on a fresh PostgreSQL", style="dim")
    async with Node(options.workers) as node:
        await node.register(senders, receivers)
        press = Press(senders, receivers, node.url.removeprefix("http://"))
        if not options.no_floors:
            console.print("the bare floors", style="dim")
            single, batch = press.make(20 * SENDERS * 4, 1), press.make(SENDERS * 4, BATCH)
            bare = await floors.measure(
                node, single, batch, senders[0].signer.key.public_key(), min(3.0, options.seconds)
            )
            results |= bare.json()
        async with Receivers(node.address, receivers, options.linger / 1000) as reading:
            campaign = Campaign(node, press, reading, console)
            for mode in modes:
                results |= await campaign.mode(mode, options.seconds)
                if not options.no_floors:
                    floor = bare.verify + bare.insert + (bare.http if mode.per_request == 1 else bare.http_batch)
                    results[f"{mode.name}.over_floors"] = round(results[f"{mode.name}.cpu_us_per_doc"] / floor, 2)
        results |= _conserved(campaign)
        results |= await report.facts(node)
        if not results["conserved"]:
            console.print(node.log_tail(), markup=False)
    return results | {
        "generator_cpu_share": round(campaign.generator / campaign.all_cpu, 3),
        "receivers": options.receivers,
        "quick": options.quick,
        "total_seconds": round(time.monotonic() - started, 1),
    }


def _conserved(campaign: Campaign) -> dict[str, Any]:
    runs = campaign.conservation
    return {
        "conserved": bool(runs) and all(run.holds for run in runs),
        "sent": sum(run.sent for run in runs),
        "receipted": sum(run.receipted for run in runs),
        "delivered": sum(run.delivered for run in runs),
        "acknowledged": sum(run.acknowledged for run in runs),
        "strays": sum(run.strays for run in runs),
        "refused": campaign.refused,
    }


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s for each load: does it work, not how fast")
    parser.add_argument("--only", choices=["post", "batch50"], help="one way of submitting")
    parser.add_argument("--seconds", type=float, help="for each load (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the hub")
    parser.add_argument("--connections", type=int, default=64, help="for single POSTs")
    parser.add_argument("--batch-connections", type=int, default=16, help="for batches")
    parser.add_argument("--receivers", type=int, default=4, help="receiving endpoints")
    parser.add_argument("--linger", type=float, default=0, help="ms between pages that were not full")
    parser.add_argument("--no-floors", action="store_true", help="leave out the bare floors")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to write the figures")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (2.0 if options.quick else 10.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; 0 only when everything was conserved."""
    options = parse_options(arguments)
    console = Console()
    results = uvloop.run(measure(options, console))
    report.show(console, results, [mode for mode in ("post", "batch50") if options.only in (None, mode)])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"All figures: {options.output} ({results['total_seconds']:.0f} s)", style="dim")
    return 0 if results["conserved"] else 1


if __name__ == "__main__":
    sys.exit(main())
