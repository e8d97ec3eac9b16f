"""``python -m benchmarks.micro``: µs per call of the functions that every document passes through.

The functions are timed alone, on one core, with warm caches: good for comparing two versions of one of
them, not for adding up. The best of several rounds is given beside their median, for others may use the
machine. The cases with PostgreSQL run on an embedded one of their own and give its CPU as well.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CROWD, GROUP, Fixture, functions
from benchmarks.corpus import SENDERS, Receiver, Sender
from benchmarks.node import precise_seconds
from hub.couriers.mailbox import Mailboxes, Page
from hub.directory import change
from hub.directory.change import AgencyRow
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.batch import Batch
from hub.relay.handed import Handed
from hub.relay.openings import Openings
from hub.relay.wake import Wake
from hub.store import sql
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import create_pool, migrate, wait_until_reachable
from hub.store.routes import Routes

ROUND_SECONDS = 0.15
ROUNDS = 7
LIVE_DOCUMENTS = 4096
SQL = sql.load("relay")


@dataclass(frozen=True, slots=True)
class Result:
    """µs for each of `per` things that one call handles."""

    name: str
    per: int
    best: float
    median: float
    postgres: float | None = None
    """PostgreSQL's CPU. With it, `best` and `median` are this program's CPU and the wall clock."""


def time_function(name: str, per: int, call: Callable[[], object]) -> Result:
    """Time `call` in rounds."""
    count, taken = 1, 0.0
    while taken < ROUND_SECONDS / 10:
        count *= 2
        taken = _seconds(call, count)
    count = max(1, round(count * ROUND_SECONDS / taken))
    rounds = [_seconds(call, count) / count / per * 1e6 for _ in range(ROUNDS)]
    return Result(name, per, min(rounds), statistics.median(rounds))


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


# -- with PostgreSQL ----------------------------------------------------------------------------


class Live:
    """Times statements against PostgreSQL: this program's CPU, its CPU, and the wall clock."""

    def __init__(self, fixture: Fixture, postgres: psutil.Process, url: str, receiver: int) -> None:
        self._fixture = fixture
        self._postgres = postgres
        self._url = url
        self.receiver = receiver
        self.results: list[Result] = []

    async def _time(self, name: str, per: int, documents: int, work: Callable[[], Awaitable[object]]) -> None:
        postgres, own, start = precise_seconds(self._postgres), time.process_time(), time.perf_counter()
        await work()
        wall, own = time.perf_counter() - start, time.process_time() - own
        postgres = precise_seconds(self._postgres) - postgres
        each = 1e6 / documents
        self.results.append(Result(name, per, own * each, wall * each, postgres * each))

    async def commit(self, size: int, documents: int) -> None:
        """`commit_messages` in batches of `size`, one after another."""
        connection = await asyncpg.connect(self._url)
        batches = [
            Batch(self._fixture.submissions(size), self._fixture.sealer).arguments({}, [])
            for _ in range(max(4, documents // size))
        ]

        async def work() -> None:
            for arguments in batches[2:]:
                await connection.fetchval(SQL.commit_messages, *arguments)

        for arguments in batches[:2]:  # the first calls plan the statement
            await connection.fetchval(SQL.commit_messages, *arguments)
        await self._time(f"commit_messages {size}", size, (len(batches) - 2) * size, work)
        await connection.close()

    async def read(self, mailboxes: Mailboxes, size: int) -> Page:
        """Pages of `size` from a mailbox with a backlog. Returns the last."""
        page = await mailboxes.read(self.receiver, (0, 0, 0), size, 0)
        count = 0
        after = page.cursor

        async def work() -> None:
            nonlocal after, count, page
            while count < LIVE_DOCUMENTS:
                page = await mailboxes.read(self.receiver, after, size, 0)
                after, count = page.cursor, count + len(page.entries)
                if not page.more:
                    after = (0, 0, 0)

        await self._time(f"mailbox read {size}", size, LIVE_DOCUMENTS, work)
        return page

    async def acknowledge(self, mailboxes: Mailboxes, acknowledger: Acknowledger, size: int, count: int) -> None:
        """`count` acknowledgements of `size` entries each, up to a cursor."""
        cursors = []
        after = (0, 0, 0)
        for _ in range(count):
            page = await mailboxes.read(self.receiver, after, size, 0)
            after = page.cursor
            cursors.append(after)
        ended = 0

        async def work() -> None:
            nonlocal ended
            for cursor in cursors:
                up_to = {lane: seq for lane, seq in enumerate(cursor) if seq}
                ended += (await acknowledger.end(Acknowledgement(self.receiver, up_to))).acknowledged

        await self._time(f"acknowledge {size}", size, count * size, work)
        assert ended == count * size


async def measure(only: Sequence[str], live: bool) -> list[Result]:
    """Set up an embedded PostgreSQL, time what `only` is part of, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="lienthong-micro-"))
    folder.chmod(0o755)
    cluster = EmbeddedPostgres(folder)
    try:
        process = psutil.Process(await asyncio.to_thread(cluster.start))
        await wait_until_reachable(cluster.url, 60)
        await migrate(cluster.url)
        return await _measure(cluster.url, process, only, live)
    finally:
        await asyncio.to_thread(cluster.stop)
        shutil.rmtree(folder, True)


async def _measure(url: str, process: psutil.Process, only: Sequence[str], live: bool) -> list[Result]:
    def wanted(name: str) -> bool:
        return any(part in name for part in only)

    senders, receivers = [Sender(number + 1) for number in range(SENDERS)], [Receiver(0)]
    pool = await create_pool(url, 4, "micro", hot=True)
    await _register(url, senders, receivers)
    fixture = Fixture(pool, senders, receivers)
    await fixture.directory.refresh()
    receiver = fixture.picture.endpoint_ids[receivers[0].name]
    wake = Wake(url, pool, pool, lambda: None)
    handed = Handed()
    routes = Routes(pool)
    acknowledger = Acknowledger(url, fixture.sealer, fixture.directory, handed, pool, routes, lambda news: None)
    acknowledger.start()
    openings = Openings(pool, lambda endpoint: False)
    mailboxes = Mailboxes(pool, routes, wake, acknowledger, handed, openings)
    bench = Live(fixture, process, url, receiver)
    try:
        await bench.commit(64, LIVE_DOCUMENTS)
        page = await bench.read(mailboxes, 100)
        if live and any(wanted(name) for name in ("commit_messages", "mailbox read", "acknowledge")):
            for size in (1, 8, 256):
                await bench.commit(size, min(LIVE_DOCUMENTS, 512 * size))
            for size in (8, 500):
                await bench.read(mailboxes, size)
            for size, count in ((1, 400), (8, 400), (100, 70)):
                await bench.acknowledge(mailboxes, acknowledger, size, count)
        cases = functions(fixture, page)
        timed = [time_function(name, *case) for name, case in cases.items() if wanted(name)]
        return timed + (sorted((r for r in bench.results if wanted(r.name)), key=_order) if live else [])
    finally:
        await acknowledger.stop()
        await mailboxes.stop()
        await pool.close()


async def _register(url: str, senders: list[Sender], receivers: list[Receiver]) -> None:
    connection = await asyncpg.connect(url)
    try:
        codes = [f"000.01.{number:03}.H63" for number in range(CROWD)]
        circle = [AgencyRow(code, "Xã", endpoint=f"xã {code}") for code in codes]
        speakers = [AgencyRow(sender.code, "Huyện", endpoint=sender.name) for sender in senders]
        readers = [AgencyRow(code, "Sở", endpoint=reader.name) for reader in receivers for code in reader.codes]
        await change.import_agencies(connection, [*circle, *speakers, *readers])
        await change.put_group(connection, GROUP.partition(":")[2], codes)
        for sender in senders:
            await change.add_key(connection, sender.signer.key.public_key(), endpoint=sender.name)
            sender.token = await change.issue_token(connection, endpoint=sender.name)
    finally:
        await connection.close()


def _order(result: Result) -> tuple[str, int]:
    return result.name.rpartition(" ")[0], result.per


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="cases whose name holds this")
    parser.add_argument("--no-live", action="store_true", help="leave out the cases with PostgreSQL")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    results = uvloop.run(measure(options.only or [""], not options.no_live))
    console = Console()
    alone = Table("function", "things", "best µs each", "median µs each", title="Functions, µs of wall clock")
    live = Table("statement", "documents", "own CPU µs", "PostgreSQL CPU µs", "wall µs", title="With PostgreSQL")
    for result in results:
        if result.postgres is None:
            alone.add_row(result.name, str(result.per), f"{result.best:.2f}", f"{result.median:.2f}")
        else:
            figures = (result.best, result.postgres, result.median)
            live.add_row(result.name, str(result.per), *(f"{figure:.1f}" for figure in figures))
    for table in (alone, live):
        if table.row_count:
            console.print(table)
    console.print(f"{(datetime.now(UTC) - started).total_seconds():.0f} s", style="dim")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
