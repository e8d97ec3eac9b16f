"""``make bench``: what the hub does on this machine, beside the bare floors, in under four minutes.

README.md says what each figure means and what it does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import report
from benchmarks.scenarios import (
    Outcome,
    Scenario,
    Setting,
    backlog,
    evidence,
    fanout,
    idle,
    large,
    log,
    modes,
    startup,
)

RESULTS = Path(__file__).parent / "results" / "latest.json"
QUICK = RESULTS.parent / "quick" / "latest.json"

SHORT: dict[str, Scenario] = {"startup": startup.run, "fanout300": fanout.scenario(300)}
LONG: dict[str, Scenario] = {
    "fanout3000": fanout.scenario(3000),
    "idle10k": idle.stream,
    "longpoll10k": idle.longpoll,
    "backlog1m": backlog.backlog,
    "xmin": backlog.xmin,
    "large50": large.run,
    "evidence": evidence.run,
    "log": log.run,
}
"""Too long for `make bench`: by name, or with ``--long``."""
NAMES = (*modes.NAMES, *SHORT, *LONG)


async def measure(setting: Setting, names: Sequence[str]) -> list[Outcome]:
    """Carry out the scenarios, each on hubs of its own; the ways of submitting share one."""
    outcomes: list[Outcome] = []
    chosen = tuple(name for name in modes.NAMES if name in names)
    if chosen:
        outcomes += await modes.run(setting, chosen)
    for name, run in (SHORT | LONG).items():
        if name in names:
            outcomes += await run(setting)
    return outcomes


def collect(outcomes: list[Outcome]) -> dict[str, Any]:
    """The flat object of the results' file. What was not conserved gives no figure."""
    results: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for outcome in outcomes:
        facts |= outcome.facts
    for outcome in outcomes:
        if outcome.conserved is not False:
            results |= outcome.figures
        if outcome.conserved is not None:
            results[f"{outcome.name}.conserved"] = outcome.conserved
        results[f"{outcome.name}.at"] = facts["at"]
        results[f"{outcome.name}.git_commit"] = facts["git_commit"]
    counts = [count for outcome in outcomes for count in outcome.counts]
    totals: dict[str, Any] = {
        name: sum(getattr(count, name) for count in counts)
        for name in ("sent", "receipted", "delivered", "acknowledged", "strays")
    }
    totals["refused"] = {}
    for outcome in outcomes:
        for status, count in outcome.refused.items():
            totals["refused"][status] = totals["refused"].get(status, 0) + count
    totals["conserved"] = all(outcome.conserved is not False for outcome in outcomes)
    shares = [value for name, value in results.items() if name.endswith(".generator_cpu_share")]
    return results | facts | totals | {"generator_cpu_share": max(shares, default=0.0)}


def keep(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Put the results beside those of scenarios that were not run this time; returns all of them."""
    known: dict[str, Any] = {}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    fresh = {name.partition(".")[0] for name in found if "." in name}
    kept = {name: value for name, value in known.items() if "." in name and name.partition(".")[0] not in fresh}
    results = kept | found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def write_details(outcomes: list[Outcome], folder: Path) -> None:
    """Samples and curves of each scenario, a file each."""
    for outcome in outcomes:
        if outcome.details and outcome.conserved:
            path = folder / f"{outcome.name}.samples.json"
            path.write_text(json.dumps(outcome.details, separators=(",", ":")) + "\n", encoding="utf-8")


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description="Measure the hub. benchmarks/README.md says what and how."
    )
    parser.add_argument("--quick", action="store_true", help="2 s for each load: does it work, not how fast")
    parser.add_argument("--only", action="append", choices=NAMES, help="one scenario; may be given several times")
    parser.add_argument("--long", action="store_true", help=f"those that take longer: {', '.join(LONG)}")
    parser.add_argument("--seconds", type=float, help="for each load (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the hub")
    parser.add_argument("--connections", type=int, default=64, help="for single POSTs")
    parser.add_argument("--batch-connections", type=int, default=16, help="for batches")
    parser.add_argument("--receivers", type=int, default=4, help="receiving endpoints")
    parser.add_argument("--poll", action="store_true", help="receive by long polls instead of on streams")
    parser.add_argument("--linger", type=float, default=0, help="ms between polled pages that were not full")
    parser.add_argument("--minutes", type=float, default=1, help="how long `xmin` holds back vacuum")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="documents that wait in `backlog1m`")
    parser.add_argument("--idle", type=int, default=10_000, help="endpoints in `idle10k` and `longpoll10k`")
    parser.add_argument("--no-floors", action="store_true", help="leave out the bare floors")
    parser.add_argument("--output", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (2.0 if options.quick else 10.0)
    options.output = options.output or (QUICK if options.quick else RESULTS)
    if options.only is None:
        short = [name for name in (*modes.NAMES, *SHORT) if name not in modes.BY_NAME]
        options.only = [*modes.BY_NAME, *LONG] if options.long else short
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios; 0 only when everything was conserved."""
    started = time.monotonic()
    options = parse_options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    setting = Setting(
        workers=options.workers,
        seconds=options.seconds,
        connections=options.connections,
        batch_connections=options.batch_connections,
        receivers=options.receivers,
        linger=options.linger,
        polling=options.poll,
        floors=not options.no_floors,
        quick=options.quick,
        minutes=options.minutes,
        backlog=options.backlog,
        idle=options.idle,
        console=console,
    )
    outcomes = uvloop.run(measure(setting, options.only))
    found = collect(outcomes) | {
        "receivers": options.receivers,
        "receiving": "long polls" if options.poll else "streams",
        "quick": options.quick,
        "workers": options.workers,
        "total_seconds": round(time.monotonic() - started, 1),
    }
    report.show(console, found, outcomes)
    keep(found, options.output)
    write_details(outcomes, options.output.parent)
    console.print(f"All figures: {options.output} ({found['total_seconds']:.0f} s)", style="dim")
    return 0 if found["conserved"] else 1


if __name__ == "__main__":
    sys.exit(main())
