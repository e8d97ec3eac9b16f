"""``python -m benchmarks.charts``: the results as SVG charts, and the page that shows them.

    throughput.svg   documents a second by way of submitting
    cpu.svg          where each document's CPU goes
    latency.svg      submission by percentile, from when it was due
    samples.svg      the peaks second by second
    sweeps.svg       the store alone

The same figures give the same bytes: no date, no random ids. Needs matplotlib, of the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import report, summary

mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["svg.hashsalt"] = "lienthong"
mpl.rcParams["axes.spines.top"] = mpl.rcParams["axes.spines.right"] = False

Results = dict[str, Any]
INK = "#1b3a5c"
COLOURS = ("#1b3a5c", "#c8553d", "#3e8e6e", "#b08a2e", "#7a5195", "#5b8db8")
_HIDDEN = 0.99999
"""The percentile axis ends here: beyond is only the worst request."""


def throughput(results: Results, folder: Path) -> Figure | None:
    """Documents a second by way of submitting."""
    modes = _modes(results)
    if not modes:
        return None
    figure, axes = _figure(6.4, 0.6 + 0.45 * len(modes))
    rates = [results[f"{mode}.docs_per_s"] for mode in modes]
    bars = axes.barh([report.MODES[mode] for mode in modes], rates, color=INK, height=0.6)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates) * 1.15)
    axes.set_xlabel("documents/s, submitted to acknowledged, closed loop")
    return figure


def cpu(results: Results, folder: Path) -> Figure | None:
    """Where each document's CPU goes."""
    modes = _modes(results)
    if not modes:
        return None
    figure, axes = _figure(6.4, 1.1 + 0.45 * len(modes))
    left = [0.0] * len(modes)
    names = [report.MODES[mode] for mode in modes]
    for place, (part, title) in enumerate(
        (("hub", "hub"), ("postgres", "PostgreSQL"), ("generator", "generator (not the hub's)"))
    ):
        values = [results[f"{mode}.{part}_cpu_us_per_doc"] for mode in modes]
        axes.barh(names, values, left=left, color=COLOURS[place], height=0.6, label=title)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("µs of CPU per document")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    return figure


def latency(results: Results, folder: Path) -> Figure | None:
    """Latency of submission by percentile."""
    curves = {mode: _details(folder, mode).get("submission_ms", []) for mode in _modes(results)}
    curves = {mode: curve for mode, curve in curves.items() if curve}
    if not curves:
        return None
    figure, axes = _figure(6.4, 3.4)
    for place, (mode, curve) in enumerate(curves.items()):
        shares = [1 / (1 - min(share / 100, _HIDDEN)) for share, _ in curve]
        axes.plot(shares, [ms for _, ms in curve], color=COLOURS[place], label=report.MODES[mode])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([2, 10, 100, 1000, 10_000], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    axes.minorticks_off()
    axes.grid(axis="both", alpha=0.25)
    axes.set_xlabel("percentile of requests")
    axes.set_ylabel("ms from when it was due")
    axes.legend(frameon=False, fontsize=8)
    return figure


def samples(results: Results, folder: Path) -> Figure | None:
    """The peaks second by second: documents, CPU and the event loop."""
    peaks = {mode: _details(folder, mode).get("peak", {"rows": []}) for mode in _modes(results)}
    found = {mode: sampled for mode, sampled in peaks.items() if len(sampled["rows"]) > 1}
    if not found:
        return None
    shown = (
        ("documents", "documents/s"),
        ("hub_cpu", "hub, CPUs"),
        ("postgres_cpu", "PostgreSQL, CPUs"),
        ("loop_lag_ms", "loop late by, ms"),
    )
    figure = Figure(figsize=(6.4, 1.3 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True)
    for axes, (column, title) in zip(panels, shown, strict=True):
        for place, (mode, sampled) in enumerate(found.items()):
            at, value = sampled["columns"].index("t"), sampled["columns"].index(column)
            rows = sampled["rows"]
            axes.plot(
                [row[at] for row in rows],
                [row[value] for row in rows],
                color=COLOURS[place],
                label=report.MODES[mode],
            )
        axes.set_ylim(bottom=0)
        axes.set_ylabel(title, fontsize=8)
        axes.tick_params(labelsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper center", ncols=len(found))
    panels[-1].set_xlabel("seconds")
    return figure


def sweeps(results: Results, folder: Path) -> Figure | None:
    """The store alone: by batch size and connections, and by payload."""
    path = folder / "sweeps.json"
    if not path.exists():
        return None
    cells = json.loads(path.read_text(encoding="utf-8"))
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = sorted({cell["connections"] for cell in cells if cell["sweep"] == "size"})
    for place, count in enumerate(counts):
        own = [cell for cell in cells if cell["sweep"] == "size" and cell["connections"] == count]
        left.plot(
            [cell["size"] for cell in own],
            [cell["docs_per_s"] for cell in own],
            color=COLOURS[place],
            marker="o",
            markersize=3,
            label=f"{count} connection{'s' if count > 1 else ''}",
        )
    left.set_xscale("log", base=2)
    left.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    left.set_xlabel("documents in a commit")
    left.set_ylabel("documents/s")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    own = [cell for cell in cells if cell["sweep"] == "payload"]
    right.plot(
        [cell["payload_kib"] for cell in own],
        [cell["docs_per_s"] * cell["payload_kib"] / 1024 for cell in own],
        color=INK,
        marker="o",
        markersize=3,
    )
    right.set_xscale("log", base=2)
    right.set_xticks([0.5, 2, 8, 64], ["0.5", "2", "8", "64"])
    right.set_xlabel("KiB a document")
    right.set_ylabel("MiB/s of documents")
    right.set_ylim(bottom=0)
    return figure


def _modes(results: Results) -> list[str]:
    return [mode for mode in report.MODES if f"{mode}.docs_per_s" in results]


def _details(folder: Path, scenario: str) -> dict[str, Any]:
    path = folder / f"{scenario}.samples.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


DRAWN: dict[str, Callable[[Results, Path], Figure | None]] = {
    "throughput": throughput,
    "cpu": cpu,
    "latency": latency,
    "samples": samples,
    "sweeps": sweeps,
}


def draw(folder: Path) -> list[Path]:
    """Draw what there are figures for; returns the files."""
    results = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    drawn = []
    for name, make in DRAWN.items():
        figure = make(results, folder)
        if figure is not None:
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            drawn.append(path)
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.charts", description="Draw the charts and write results/README.md."
    )
    parser.add_argument("--results", type=Path, default=summary.RESULTS, help="the folder of latest.json")
    folder = parser.parse_args(arguments).results
    for path in (*draw(folder), summary.write(folder)):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
