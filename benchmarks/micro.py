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
from aiohttp.test_utils import make_mocked_request
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.node import tree_seconds
from hub.couriers.mailbox import Mailboxes, Page
from hub.directory import change
from hub.directory.change import AgencyRow
from hub.directory.follow import Directory
from hub.directory.picture import Picture
from hub.doors.http import Gate
from hub.doors.native import _page_json, _submitted
from hub.relay import events
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.commit import Batch, Submission, Ticket, digest_of
from hub.relay.format import Format
from hub.relay.handed import Handed
from hub.relay.intake import Accepted
from hub.relay.route import route
from hub.relay.verify import find_key
from hub.relay.wake import Wake
from hub.store import sql
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import create_pool, migrate, wait_until_reachable
from protocol.evidence import SEAL_TYPE, Sealer, Tree, leaf_hash
from protocol.message import LANE_OF_PRIORITY, read_document
from protocol.signature import Signer, generate, parse, verify

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


class Fixture:
    """One of everything, as the hub would have it; on a database of its own."""

    def __init__(self, pool: asyncpg.Pool, senders: list[Sender], receivers: list[Receiver]) -> None:
        self.pool = pool
        self.senders = senders
        self.press = Press(senders, receivers, "127.0.0.1")
        self.directory = Directory(pool)
        self.sealer = Sealer("bench", Signer(generate("EdDSA"), typ=SEAL_TYPE))
        self.gate = Gate(self.directory)

    @property
    def picture(self) -> Picture:
        return self.directory.picture

    def submissions(self, count: int) -> list[Submission]:
        """Documents of one sender, verified and routed."""
        found = []
        ticket = Ticket(count)
        for raw in self.press.make(1, count).documents:
            jws = parse(raw)
            document = read_document(jws.payload)
            agency = self.picture.agency(document.sender)
            assert agency is not None and agency.endpoint is not None
            found.append(
                Submission(
                    ticket=ticket,
                    endpoint=agency.endpoint,
                    endpoint_name=self.picture.endpoint_name(agency.endpoint),
                    sender_id=document.id,
                    sender=agency.code,
                    format=Format.JWS,
                    lane=LANE_OF_PRIORITY[document.priority],
                    digest=digest_of(raw),
                    size=len(raw),
                    body=raw,
                    route=route(self.picture, document.to).endpoints,
                )
            )
        return found


# -- functions alone ----------------------------------------------------------------------------


def functions(fixture: Fixture, page: Page, endpoint: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """(things handled in a call, the call) by name."""
    sender = fixture.senders[0]
    (raw,) = fixture.press.make(1, 1).documents
    jws = parse(raw)
    document = read_document(jws.payload)
    key = sender.signer.key.public_key()
    picture = fixture.picture
    agency = picture.agency(sender.code)
    assert agency is not None and agency.endpoint is not None
    origin = agency.endpoint
    items = fixture.submissions(64)
    batch = Batch(items, fixture.sealer)
    texts = [event.encode() for event in batch.events]
    (receipt,) = events.receipts_json(Tree(batch.leaves[:1]), batch.events[:1], batch.seal)
    accepted = Accepted(items[0].id, receipt, [])
    request = make_mocked_request("POST", "/v1/messages", headers={"Authorization": f"Bearer {sender.token}"})
    return {
        "gate": (1, lambda: fixture.gate.endpoint(request)),
        "parse": (1, lambda: parse(raw)),
        "read_document": (1, lambda: read_document(jws.payload)),
        "find_key": (1, lambda: find_key(picture, jws, origin, sender.code)),
        "verify": (1, lambda: verify(key, jws.alg, jws.signature, jws.signing_input)),
        "route": (1, lambda: route(picture, document.to)),
        "digest": (1, lambda: digest_of(raw)),
        "submission": (1, lambda: fixture_submission(items[0])),
        "batch 64 (events, leaves, tree, seal)": (64, lambda: Batch(items, fixture.sealer)),
        "   leaf_hash": (64, lambda: [leaf_hash(text) for text in texts]),
        "   tree": (64, lambda: Tree(batch.leaves)),
        "   seal": (64, lambda: fixture.sealer.seal(batch.tree, str(batch.id), batch.at)),
        "arguments 64": (64, batch.arguments),
        "receipts_json 64": (64, lambda: events.receipts_json(batch.tree, batch.events, batch.seal)),
        "response": (1, lambda: _submitted(accepted)),
        f"page_json {len(page.entries)}": (len(page.entries), lambda: _page_json(page)),
    }


def fixture_submission(like: Submission) -> Submission:
    """Another submission with the same contents: what making one costs."""
    return Submission(
        like.ticket,
        like.endpoint,
        like.endpoint_name,
        like.sender_id,
        like.sender,
        like.format,
        like.lane,
        like.digest,
        like.size,
        like.body,
        like.route,
    )


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


def precise_seconds(process: psutil.Process) -> float:
    """CPU of a process and its living descendants, to the nanosecond where Linux tells (not to 10 ms)."""
    try:
        pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9
    except (OSError, ValueError):
        return tree_seconds(process)


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
            Batch(self._fixture.submissions(size), self._fixture.sealer).arguments()
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


async def measure(only: str, live: bool) -> list[Result]:
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


async def _measure(url: str, process: psutil.Process, only: str, live: bool) -> list[Result]:
    senders, receivers = [Sender(number + 1) for number in range(SENDERS)], [Receiver(0)]
    pool = await create_pool(url, 4, "micro", hot=True)
    async with pool.acquire() as connection:
        for party in (*senders, *receivers):
            codes = party.codes if isinstance(party, Receiver) else [party.code]
            for code in codes:
                await change.add_agency(connection, AgencyRow(code, "Cơ quan đo kiểm"))
            await change.add_endpoint(connection, party.name, codes)
            if isinstance(party, Sender):
                await change.add_key(connection, party.signer.key.public_key(), endpoint=party.name)
            party.token = await change.issue_token(connection, endpoint=party.name)
    fixture = Fixture(pool, senders, receivers)
    await fixture.directory.refresh()
    receiver = fixture.picture.endpoint_ids[receivers[0].name]
    wake = Wake(url, pool, pool, lambda: None)
    handed = Handed()
    acknowledger = Acknowledger(url, fixture.sealer, fixture.directory, handed, pool, lambda mailboxes: None)
    acknowledger.start()
    mailboxes = Mailboxes(pool, wake, acknowledger, handed)
    bench = Live(fixture, process, url, receiver)
    try:
        await bench.commit(64, LIVE_DOCUMENTS)
        page = await bench.read(mailboxes, 100)
        if live and any(only in name for name in ("commit_messages", "mailbox read", "acknowledge")):
            for size in (1, 8, 256):
                await bench.commit(size, min(LIVE_DOCUMENTS, 512 * size))
            for size in (8, 500):
                await bench.read(mailboxes, size)
            for size, count in ((1, 400), (8, 400), (100, 70)):
                await bench.acknowledge(mailboxes, acknowledger, size, count)
        cases = functions(fixture, page, receiver)
        timed = [time_function(name, *case) for name, case in cases.items() if only in name]
        return timed + (sorted((r for r in bench.results if only in r.name), key=_order) if live else [])
    finally:
        await acknowledger.stop()
        await mailboxes.stop()
        await pool.close()


def _order(result: Result) -> tuple[str, int]:
    return result.name.rpartition(" ")[0], result.per


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME", help="cases whose name holds this")
    parser.add_argument("--no-live", action="store_true", help="leave out the cases with PostgreSQL")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    results = uvloop.run(measure(options.only, not options.no_live))
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
