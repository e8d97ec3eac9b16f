"""``python -m benchmarks.summary``: the results as a page, `results/README.md`, from the figures alone.

Nothing on the page is written by hand: it says what results/latest.json and the files beside it say, which
machine and which commit that was, and what does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report

RESULTS = Path(__file__).parent / "results"
BUSY = 0.05
"""Share of the CPUs that others may use before a figure is marked."""
CHARTS = (
    ("throughput.svg", "Documents a second, submitted to acknowledged, by way of submitting"),
    ("cpu.svg", "CPU of each document: the hub's, PostgreSQL's, the generator's"),
    ("latency.svg", "Latency of submission by percentile, open loop at 70 % of the peak, from when it was due"),
    ("samples.svg", "The peak of each way of submitting, second by second"),
    ("sweeps.svg", "The store alone: documents in a commit, and payload"),
)


def page(results: dict[str, Any], folder: Path) -> str:
    """The whole page, as Markdown."""
    parts = ["# Results", ""]
    if not results.get("conserved"):
        parts += ["**Something was lost in the last run; what was is not shown.**", ""]
    parts += _machine(results)
    parts += _modes(results)
    parts += _scenarios(results)
    parts += _peers(results, folder)
    charts = [(name, title) for name, title in CHARTS if (folder / name).exists()]
    for name, title in charts:
        parts += [f"![{title}]({name})", ""]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    aligned = ["---", *("---:" for _ in head[1:])]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, aligned, *rows)]
    return [*lines, ""]


def _machine(results: dict[str, Any]) -> list[str]:
    versions = ", ".join(
        f"{name.partition('.')[2]} {value}" for name, value in results.items() if name.startswith("version.")
    )
    settings = ", ".join(
        f"{name.partition('.')[2]} {value}"
        for name, value in results.items()
        if name.startswith("postgres.") and name not in ("postgres.server_version", "postgres.fdatasync_ms")
    )
    return [
        "Made by `python -m benchmarks.summary`. [What the figures mean, and what they do not](../README.md).",
        "",
        *_table(
            ("", ""),
            (
                ("at", str(results["at"])),
                ("commit", f"`{results['git_commit']}`"),
                ("machine", f"{results['cpu_count']} × {results['cpu_model']}, {results['system']}"),
                ("one flush of the disk", f"{results['postgres.fdatasync_ms']} ms"),
                ("workers of the hub", str(results["workers"])),
                ("PostgreSQL", f"{results['postgres.server_version']}: {settings}"),
                ("Python", f"{results['python']}: {versions}"),
            ),
        ),
    ]


def _modes(results: dict[str, Any]) -> list[str]:
    modes = [mode for mode in report.MODES if f"{mode}.docs_per_s" in results]
    if not modes:
        return []
    rows = []
    for title, name, digits in report.ROWS:
        values = [results.get(f"{mode}.{name}") for mode in modes]
        if title and any(value is not None for value in values):
            rows.append((title.strip(), *(report.written(value, digits) for value in values)))
    parts = ["## The whole way: submit, verify, route, commit, deliver, acknowledge", ""]
    parts += _table(("", *(report.MODES[mode] for mode in modes)), rows)
    parts += _stale(results, modes)
    company = [
        f"{mode} ({share:.0%})" for mode in modes if (share := results.get(f"{mode}.others_cpu_share", 0)) > BUSY
    ]
    if company:
        parts += [f"Others used more than {BUSY:.0%} of the CPUs meanwhile: {', '.join(company)}.", ""]
    floors = [(title, report.written(results[name], digits)) for title, name, digits in _floors(results)]
    if floors:
        parts += ["## Bare floors, CPU µs per document", "", *_table(("", ""), floors)]
    return parts


def _floors(results: dict[str, Any]) -> list[report.Row]:
    return [row for row in report.FLOORS if row[1] in results]


def _scenarios(results: dict[str, Any]) -> list[str]:
    parts = []
    for scenario, (heading, rows) in report.SCENARIOS.items():
        found = [
            (title.strip(), report.written(results[f"{scenario}.{name}"], digits))
            for title, name, digits in rows
            if f"{scenario}.{name}" in results
        ]
        if found:
            parts += [f"## {heading}", "", *_table(("", ""), found), *_stale(results, [scenario])]
    return parts


def _stale(results: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A line for scenarios that were measured on another commit than the latest."""
    others = {
        results[f"{name}.git_commit"]
        for name in names
        if results.get(f"{name}.git_commit", results["git_commit"]) != results["git_commit"]
    }
    return [f"Measured on commit {', '.join(f'`{commit}`' for commit in sorted(others))}.", ""] if others else []


def _peers(results: dict[str, Any], folder: Path) -> list[str]:
    names = sorted({name.split(".")[1] for name in results if name.startswith("peer.")})
    rows = []
    for name in names:
        theirs, ours = results.get(f"peer.{name}.docs_per_s"), results.get(f"peer.{name}.hub_docs_per_s")
        if theirs and ours:
            rows.append((name, f"{theirs:,.0f}", f"{ours:,.0f}", f"{ours / theirs:.2f}"))
    if not rows:
        return []
    more = ["More in [peers.md](peers.md).", ""] if (folder / "peers.md").exists() else []
    head = ("peer", "its documents/s", "the hub's in the same run", "ratio")
    return ["## Peers, in the same run", "", *_table(head, rows), *more]


def write(folder: Path) -> Path:
    """Make the page of the figures in `folder`."""
    results = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    path = folder / "README.md"
    path.write_text(page(results, folder), encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description="Write results/README.md.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of latest.json")
    print(write(parser.parse_args(arguments).results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
