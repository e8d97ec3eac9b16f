"""``python -m benchmarks.sweeps``: what the store does alone, by batch size, connections and payload.

Straight on `commit_messages`, as the hub calls it, without HTTP, signatures or delivery: documents a second, and
the CPU that PostgreSQL and this program spend on each. It shows where batches stop paying and where bytes begin
to count. Each cell has documents of its own in one database that grows; 16 senders, 4 mailboxes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.node import precise_seconds
from hub.relay.batch import Batch, Submission, Ticket, Work, digest_of
from hub.relay.format import Format
from hub.relay.route import Route
from hub.store import sql
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import connect, migrate, wait_until_reachable
from protocol.evidence import SEAL_TYPE, Sealer
from protocol.message import Lane
from protocol.signature import Signer, generate

SQL = sql.load("relay")
RESULTS = Path(__file__).parent / "results" / "sweeps.json"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONNECTIONS = (1, 2, 3, 4)
PAYLOADS_KIB = (0.5, 1, 2, 4, 8, 16, 32, 64)
BATCH = 64
PAYLOAD_KIB = 2.0
CELL_SECONDS = 1.5
MAILBOXES = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement."""

    sweep: str
    size: int
    """Documents in a commit."""
    connections: int
    payload_kib: float
    docs_per_s: float
    postgres_us: float
    """CPU per document."""
    client_us: float
    wal_bytes: float
    """Per document."""
    commit_ms: float
    """Wall clock of a commit, mean."""


class Bench:
    """Commits batches over connections of its own."""

    def __init__(self, url: str, postgres: psutil.Process, seconds: float) -> None:
        self._url = url
        self._postgres = postgres
        self._seconds = seconds
        self._sealer = Sealer("bench", Signer(generate("EdDSA"), typ=SEAL_TYPE))
        self._routes = [Route({number: [f"000.00.{number:02}.H63"]}) for number in range(1, MAILBOXES + 1)]
        self._number = 0

    def _batch(self, size: int, payload: int) -> Batch:
        ticket = Ticket(size)
        items: list[Work] = []
        for _ in range(size):
            self._number += 1
            number = self._number
            body = (b"%012d" % number) * (payload // 12 + 1)
            items.append(
                Submission(
                    ticket=ticket,
                    endpoint=100 + number % 16,
                    endpoint_name=f"sender {number % 16}",
                    sender_id=f"{number:012d}",
                    sender="000.00.00.H63",
                    format=Format.JWS,
                    lane=Lane.NORMAL,
                    digest=digest_of(body[:payload]),
                    size=payload,
                    body=body[:payload],
                    route=self._routes[number % MAILBOXES],
                )
            )
        return Batch(items, self._sealer)

    async def cell(self, sweep: str, size: int, connections: int, payload_kib: float) -> Cell:
        """Commit for the cell's seconds, after a few commits that do not count."""
        opened = [await connect(self._url, "sweep", hot=True) for _ in range(connections)]
        control = await asyncpg.connect(self._url)
        payload = int(payload_kib * 1024)
        committed, busy = 0, 0.0

        async def commit(connection: asyncpg.Connection) -> None:
            nonlocal committed, busy
            arguments = self._batch(size, payload).arguments({}, [])
            before = time.perf_counter()
            await connection.fetchval(SQL.commit_messages, *arguments)
            busy += time.perf_counter() - before
            committed += 1

        async def work(connection: asyncpg.Connection, until: float) -> None:
            while time.perf_counter() < until:
                await commit(connection)

        async def run(seconds: float) -> float:
            began = time.perf_counter()
            await asyncio.gather(*(work(connection, began + seconds) for connection in opened))
            return time.perf_counter() - began

        try:
            await run(self._seconds / 5)
            committed, busy = 0, 0.0
            lsn = "select (pg_current_wal_insert_lsn() - '0/0')::bigint"
            wal = await control.fetchval(lsn)
            postgres, own = precise_seconds(self._postgres), time.process_time()
            wall = await run(self._seconds)
            postgres, own = precise_seconds(self._postgres) - postgres, time.process_time() - own
            wal = await control.fetchval(lsn) - wal
        finally:
            for connection in (*opened, control):
                await connection.close()
        documents = committed * size
        return Cell(
            sweep,
            size,
            connections,
            payload_kib,
            round(documents / wall),
            round(postgres / documents * 1e6, 1),
            round(own / documents * 1e6, 1),
            round(wal / documents),
            round(busy / committed * 1000, 2),
        )


async def measure(seconds: float, only: Sequence[str], say: Console) -> list[Cell]:
    """All cells of the sweeps `only`, on an embedded PostgreSQL that is removed afterwards."""
    plan: list[tuple[str, int, int, float]] = []
    if "size" in only:
        plan += [("size", size, count, PAYLOAD_KIB) for count in CONNECTIONS for size in SIZES]
    if "payload" in only:
        plan += [("payload", BATCH, 2, payload) for payload in PAYLOADS_KIB]
    folder = Path(tempfile.mkdtemp(prefix="lienthong-sweeps-"))
    folder.chmod(0o755)
    cluster = EmbeddedPostgres(folder)
    try:
        process = psutil.Process(await asyncio.to_thread(cluster.start))
        await wait_until_reachable(cluster.url, 60)
        await migrate(cluster.url)
        bench = Bench(cluster.url, process, seconds)
        cells = []
        for sweep, size, connections, payload in plan:
            say.print(f"{sweep}: {size} a commit, {connections} connections, {payload:g} KiB", style="dim")
            cells.append(await bench.cell(sweep, size, connections, payload))
        return cells
    finally:
        await asyncio.to_thread(cluster.stop)
        shutil.rmtree(folder, True)


def show(console: Console, cells: list[Cell]) -> None:
    """Print a table for each sweep."""
    titles = {
        "size": f"Documents in a commit and connections, {PAYLOAD_KIB:g} KiB each",
        "payload": f"Payload, {BATCH} documents in a commit, 2 connections",
    }
    for sweep, title in titles.items():
        found = [cell for cell in cells if cell.sweep == sweep]
        if not found:
            continue
        head = "connections × documents" if sweep == "size" else "KiB"
        table = Table(title=title)
        for name in (head, "documents/s", "PostgreSQL µs", "client µs", "WAL bytes", "ms a commit"):
            table.add_column(name, justify="right")
        for cell in found:
            first = f"{cell.connections} × {cell.size}" if sweep == "size" else f"{cell.payload_kib:g}"
            figures = cell.postgres_us, cell.client_us
            table.add_row(
                first,
                f"{cell.docs_per_s:,.0f}",
                *(f"{figure:,.1f}" for figure in figures),
                f"{cell.wal_bytes:,.0f}",
                f"{cell.commit_ms:,.2f}",
            )
        console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--only", action="append", choices=("size", "payload"), help="one sweep")
    parser.add_argument("--seconds", type=float, default=CELL_SECONDS, help="for each cell")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to write the cells")
    options = parser.parse_args(arguments)
    console = Console()
    cells = uvloop.run(measure(options.seconds, options.only or ("size", "payload"), console))
    show(console, cells)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
