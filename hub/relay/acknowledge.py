"""Ending deliveries: acknowledged, refused or expired, many at a time, each with its proof.

A flush takes the acknowledgements that came while the last one was under way. It recalls the mailboxes
and the entries concerned (`handed`), or reads them; makes one event for each entry, seals them as one
batch, and writes the mailboxes' new state, the runs and the seal in one statement. If another process
moved one of the mailboxes in between, nothing is written and the flush starts over.

Refusals and expiries also tell the sender: the event's receipt is put into the sender's mailbox as a
message by the hub, in the same transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import structlog

from hub.directory.follow import Directory
from hub.observe import metrics
from hub.relay import events
from hub.relay.batcher import Batcher
from hub.relay.commit import Batch, Submission, Ticket, digest_of
from hub.relay.format import Format, Kind
from hub.relay.handed import Entry, Handed
from hub.relay.ranges import Done
from hub.relay.route import Route
from hub.relay.wake import News
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.reconnect import Reconnecting
from hub.store.routes import Routes
from protocol.evidence import EventKind, Sealer, Tree, leaf_hash, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")
RECALL = sql.load("recall")

MAX_REQUESTS = 64
GATHER_SECONDS = 0.02
"""How long a busy process gathers acknowledgements for one commit, one seal, one fsync (docs/adr/0017)."""
MAX_PART = 5_000
"""Entries that one acknowledgement ends in one batch (about 100 ms); a longer one is carried out in parts."""
PAGE_ENTRIES = 100
"""Entries that an acknowledgement up to a cursor is taken to end, when batches are filled."""
DAY = 86_400_000_000
"""Microseconds, as sequences count them."""
MAX_RANGES = 10_000
"""Ranges that one mailbox may keep beyond its floor (about 160 KB)."""
SHOWN = timedelta(days=7)
"""How long a notice waits in the mailbox of an endpoint that speaks the axis's interface, where it would never
be read: there the list of what was sent says the same, for good."""
CONNECT_SECONDS = 5.0
"""How long PostgreSQL is waited for before a reader is told to come back."""
_ATTEMPTS = 8


@dataclass(slots=True, eq=False)
class Acknowledgement:
    """What one endpoint says of its mailbox.

    `up_to`: by lane, a sequence up to which everything is acknowledged. `entries`: sequences to
    acknowledge one by one. `refused`, `expired`, `recalled`: sequences that end otherwise, with a reason.
    """

    endpoint: int
    up_to: dict[int, int] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    expired: dict[int, str] = field(default_factory=dict)
    recalled: dict[int, str] = field(default_factory=dict)
    quiet: set[int] = field(default_factory=set)
    """Of these no sender is told."""
    part: int = 0
    """How many entries `up_to` ends, where that is known."""
    done: asyncio.Future[Ended] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def single(self) -> list[int]:
        return [*self.entries, *self.refused, *self.expired, *self.recalled]

    @property
    def weight(self) -> int:
        """How many entries it ends, about."""
        single = len(self.entries) + len(self.refused) + len(self.expired)
        return self.part or single + PAGE_ENTRIES * bool(self.up_to)

    def lanes(self) -> list[int]:
        return list(range(len(Lane))) if self.single() else list(self.up_to)


@dataclass(slots=True)
class Ended:
    """How many deliveries an acknowledgement ended. Repeating one ends none."""

    acknowledged: int = 0
    refused: int = 0
    expired: int = 0
    recalled: int = 0


@dataclass(slots=True)
class _Mailbox:
    """A mailbox as it was read, and what is to become of it."""

    endpoint: int
    lane: int
    floor: int
    done_text: str
    last: int
    done: Done
    entries: list[Entry] = field(default_factory=list)


class _MovedError(Exception):
    """Another process changed a mailbox between reading and writing it."""


class Acknowledger:
    """Carries out acknowledgements for one process."""

    def __init__(
        self,
        url: str,
        sealer: Sealer,
        directory: Directory,
        handed: Handed,
        pool: asyncpg.Pool[Any],
        routes: Routes,
        committed: Callable[[News], None],
    ) -> None:
        """`pool` looks ahead in long acknowledgements; `committed` is told whose mailboxes got notices."""
        self._routes = routes
        self._pool = pool
        self._handed = handed
        self._sealer = sealer
        self._directory = directory
        self._committed = committed
        self.ended = 0
        self._connection = Reconnecting(url, "acknowledge")
        self._recalling = Reconnecting(url, "recall")
        self._one_recall = asyncio.Lock()
        self.batcher: Batcher[Acknowledgement] = Batcher(
            "acknowledge",
            self._flush,
            self._fail,
            max_items=MAX_REQUESTS,
            max_weight=2 * MAX_PART,
            weigh=lambda request: request.weight,
            key=lambda request: request.endpoint,
            quantum=1_000,
            pause=GATHER_SECONDS,
        )

    def start(self) -> None:
        self.batcher.start()

    async def stop(self) -> None:
        await self.batcher.stop()
        await self._connection.close()
        await self._recalling.close()

    async def end(self, request: Acknowledgement) -> Ended:
        """Carry out a request; returns once it is on disk.

        Raises `Problem` beyond-end, bad-request or store-unavailable; then nothing has changed.
        """
        total = Ended()
        for lane, seq in request.up_to.items():
            if not self._handed.covers(request.endpoint, lane, seq, MAX_PART):
                await self._end_in_parts(request.endpoint, lane, seq, total)
        await self._put(request, total)
        return total

    async def _put(self, request: Acknowledgement, total: Ended) -> None:
        self.batcher.put(request)
        ended = await request.done
        total.acknowledged += ended.acknowledged
        total.refused += ended.refused
        total.expired += ended.expired

    async def _end_in_parts(self, endpoint: int, lane: int, up_to: int, total: Ended) -> None:
        """End all of a long range but its last part. Does nothing when it reaches beyond the mailbox's end."""
        while True:
            try:
                row = await self._pool.fetchrow(SQL.cut_range, endpoint, lane, up_to, MAX_PART)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.error("a mailbox could not be read", error=str(error))
                raise Problem("store-unavailable", "nothing is lost: acknowledge again", retry_after=2) from None
            if row is None or row["cut"] is None or row["cut"] >= up_to or row["last"] < up_to:
                return
            await self._put(Acknowledgement(endpoint, up_to={lane: row["cut"]}, part=MAX_PART), total)

    async def recall(self, request: Acknowledgement) -> set[int]:
        """End the `recalled` entries of a request that were given to nobody; the sequences of those.

        All or nothing for each entry, and nothing where some process has the mailbox open: it may have taken out
        what it has not said yet. Raises `Problem` overloaded or store-unavailable; then nothing has changed.
        """
        async with self._one_recall:
            try:
                connection = await self._recalling.get(asyncio.get_running_loop().time() + CONNECT_SECONDS)
                for _ in range(_ATTEMPTS):
                    with contextlib.suppress(_MovedError):
                        return await self._recall_held(connection, request)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                await self._recalling.discard()
                self._handed.forget(request.endpoint)
                log.error("a recall could not be carried out", error=str(error))
                raise Problem("store-unavailable", "nothing is lost: send it again", retry_after=2) from None
        raise Problem("overloaded", "the mailbox is being acknowledged; send it again", retry_after=1)

    async def _recall_held(self, connection: asyncpg.Connection, request: Acknowledgement) -> set[int]:
        endpoint = request.endpoint
        async with connection.transaction():
            await connection.execute(RECALL.hold, endpoint)
            rows = await connection.fetch(RECALL.reach, endpoint)
            if any(row["open"] for row in rows):
                return set()
            given = {row["lane"]: row["given"] for row in rows}
            mailboxes = await self._read(connection, [request])
            for mailbox in mailboxes.values():
                mailbox.entries = [entry for entry in mailbox.entries if entry.seq > given[mailbox.lane]]
            ended = [entry for mailbox in mailboxes.values() for entry in mailbox.entries]
            if not request.recalled.keys() - request.quiet <= {entry.seq for entry in ended}:
                # The recall itself stays where anything is left that it asks for.
                for mailbox in mailboxes.values():
                    mailbox.entries = [entry for entry in mailbox.entries if entry.seq not in request.quiet]
                ended = [entry for entry in ended if entry.seq not in request.quiet]
            if not ended:
                return set()
            flush = _Flush(self._sealer, self._directory, [request], mailboxes)
            await connection.execute(RECALL.add_recalled, endpoint, [entry.id for entry in ended])
            await flush.write(connection)
        self._handed.forget(endpoint)
        self._committed(flush.news)
        self._count(flush.ended[id(request)])
        return {entry.seq for entry in ended}

    async def _flush(self, worker: int, requests: list[Acknowledgement]) -> None:
        try:
            for _ in range(_ATTEMPTS):
                try:
                    await self._carry_out([request for request in requests if not request.done.done()])
                    return
                except _MovedError:
                    for request in requests:
                        self._handed.forget(request.endpoint)
            raise Problem(
                "overloaded", "the mailbox is being acknowledged elsewhere too; try again", retry_after=1
            )
        except Problem as problem:
            if len(requests) == 1:
                self._fail(requests, problem)
            for request in requests if len(requests) > 1 else []:
                await self._flush(worker, [request])  # one endpoint's fault must not fail the others
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
            await self._connection.discard()
            for request in requests:
                self._handed.forget(request.endpoint)  # the commit may have been carried out
            log.error("acknowledgements could not be stored", error=str(error), requests=len(requests))
            self._fail(requests, Problem("store-unavailable", "nothing is lost: acknowledge again", retry_after=2))

    @staticmethod
    def _fail(requests: list[Acknowledgement], problem: Exception) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_exception(problem)

    async def _carry_out(self, requests: list[Acknowledgement]) -> None:
        connection = await self._connection.get(asyncio.get_running_loop().time() + CONNECT_SECONDS)
        mailboxes = self._recall(requests)
        if mailboxes is None:
            mailboxes = await self._read(connection, requests)
            valid = [request for request in requests if self._check(request, mailboxes)]
            if len(valid) < len(requests):
                # What was refused must not be ended along with the rest: read again what is left.
                requests, mailboxes = valid, await self._read(connection, valid)
        flush = _Flush(self._sealer, self._directory, requests, mailboxes)
        if flush.runs:
            await flush.write(connection)
            for mailbox in mailboxes.values():
                if mailbox.done.ranges:
                    self._handed.forget(mailbox.endpoint)
                else:
                    self._handed.ended(mailbox.endpoint, mailbox.lane, mailbox.done.floor)
            self._committed(flush.news)
            metrics.COMMITS.labels("progress").inc()
        for request in requests:
            ended = flush.ended[id(request)]
            self._count(ended)
            if not request.done.done():  # its caller may have gone
                request.done.set_result(ended)

    def _recall(self, requests: list[Acknowledgement]) -> dict[tuple[int, int], _Mailbox] | None:
        """The mailboxes concerned from memory; None unless all of it is known."""
        up_to: dict[tuple[int, int], int] = {}
        for request in requests:
            if request.entries or request.refused or request.expired:
                return None
            for lane, seq in request.up_to.items():
                key = request.endpoint, lane
                up_to[key] = max(seq, up_to.get(key, 0))
        mailboxes = {}
        for (endpoint, lane), seq in up_to.items():
            known = self._handed.recall(endpoint, lane, seq)
            if known is None:
                return None
            floor, entries = known
            mailboxes[endpoint, lane] = _Mailbox(endpoint, lane, floor, "{}", seq, Done(floor), entries)
        return mailboxes

    def _count(self, ended: Ended) -> None:
        for outcome in ("acknowledged", "refused", "expired", "recalled"):
            if count := getattr(ended, outcome):
                self.ended += count
                metrics.DELIVERIES.labels(outcome).inc(count)

    async def _read(
        self, connection: asyncpg.Connection, requests: list[Acknowledgement]
    ) -> dict[tuple[int, int], _Mailbox]:
        """The mailboxes concerned, with the entries that the requests end, each once, in order."""
        ranges: dict[tuple[int, int, int, int, bool], None] = {}
        for request in requests:
            for lane, seq in request.up_to.items():
                ranges[request.endpoint, lane, 0, seq, False] = None
            for seq in request.single():
                for lane in range(len(Lane)):
                    ranges[request.endpoint, lane, seq - 1, seq, True] = None
        boxes = {(request.endpoint, lane) for request in requests for lane in request.lanes()}
        rows = await connection.fetch(
            SQL.read_entries,
            [endpoint for endpoint, _ in boxes],
            [lane for _, lane in boxes],
            *([row[column] for row in ranges] for column in range(5)),
        )
        mailboxes: dict[tuple[int, int], _Mailbox] = {}
        found: dict[tuple[int, int, int], asyncpg.Record] = {}
        for row in rows:
            box = row["endpoint"], row["lane"]
            if row["id"] is None:
                done = Done.read(row["floor"], row["done"])
                mailboxes[box] = _Mailbox(*box, row["floor"], row["done"], row["last"], done)
                continue
            key = (*box, row["seq"])
            # A row of a whole range wins over the same row asked for alone: its neighbours are all here.
            if key not in found or row["previous"] is None:
                found[key] = row
        await self._routes.load(row["route"] for row in found.values())
        for (endpoint, lane, _), row in sorted(found.items()):
            mailboxes[endpoint, lane].entries.append(
                Entry(
                    row["seq"],
                    row["id"],
                    row["digest"],
                    row["sender"],
                    row["sender_id"],
                    row["origin"],
                    self._routes.read(row["route"])[endpoint],
                    row["previous"],
                )
            )
        return mailboxes

    @staticmethod
    def _check(request: Acknowledgement, mailboxes: dict[tuple[int, int], _Mailbox]) -> bool:
        """Refuse what lies beyond the mailbox's end. True when the request can be carried out."""
        if request.done.done():
            return False  # its caller has gone
        for lane, seq in request.up_to.items():
            mailbox = mailboxes[request.endpoint, lane]
            if seq > max(mailbox.last, mailbox.floor):
                detail = f"the {Lane(lane).label} lane ends at {max(mailbox.last, mailbox.floor)}, before {seq}"
                request.done.set_exception(Problem("beyond-end", detail))
                return False
        if single := request.single():
            last = max(
                max(mailboxes[request.endpoint, lane].last, mailboxes[request.endpoint, lane].floor)
                for lane in range(len(Lane))
            )
            if max(single) > last:
                request.done.set_exception(
                    Problem("beyond-end", f"the mailbox ends at {last}, before {max(single)}")
                )
                return False
        return True


class _Flush:
    """One sealed batch of ended deliveries, ready to be written."""

    def __init__(
        self,
        sealer: Sealer,
        directory: Directory,
        requests: list[Acknowledgement],
        mailboxes: dict[tuple[int, int], _Mailbox],
    ) -> None:
        self.id = uuid7()
        self.at = datetime.now(UTC)
        self.ended = {id(request): Ended() for request in requests}
        self.runs: list[tuple[int, int, int, int, int, int, str | None]] = []
        self.news: News = []
        self._sealer = sealer
        self._mailboxes = mailboxes
        self._events: list[str] = []
        self._told: list[tuple[int, int, Entry]] = []
        """(leaf, lane, entry) of each event that its sender is told of."""
        picture = self._picture = directory.picture
        at = timestamp(self.at)
        by_endpoint: dict[int, list[Acknowledgement]] = {}
        for request in requests:
            by_endpoint.setdefault(request.endpoint, []).append(request)
        for mailbox in mailboxes.values():
            asked = by_endpoint.get(mailbox.endpoint, [])
            name = picture.endpoint_name(mailbox.endpoint)
            kinds = [self._kind(entry.seq, mailbox.lane, asked) for entry in mailbox.entries]
            first_leaf = len(self._events)
            for entry, (kind, reason) in zip(mailbox.entries, kinds, strict=True):
                if kind is not EventKind.ACKNOWLEDGED and not any(entry.seq in r.quiet for r in asked):
                    self._told.append((len(self._events), mailbox.lane, entry))
                self._events.append(
                    events.ended(
                        kind,
                        at,
                        entry.id,
                        entry.sender,
                        entry.sender_id,
                        entry.digest,
                        name,
                        entry.agencies,
                        reason,
                    )
                )
            self._cut_runs(mailbox, kinds, first_leaf)
            self._move(mailbox, asked)

    def _kind(self, seq: int, lane: int, requests: list[Acknowledgement]) -> tuple[EventKind, str | None]:
        """How an entry ends, counted for the request that ends it."""
        for request in requests:
            ended = self.ended[id(request)]
            if seq in request.expired:
                ended.expired += 1
                return EventKind.EXPIRED, request.expired[seq]
            if seq in request.recalled:
                ended.recalled += 1
                return EventKind.RECALLED, request.recalled[seq]
            if seq in request.refused:
                ended.refused += 1
                return EventKind.REFUSED, request.refused[seq]
            if seq <= request.up_to.get(lane, 0) or seq in request.entries:
                ended.acknowledged += 1
                return EventKind.ACKNOWLEDGED, None
        raise AssertionError("an entry was read that nobody asked for")

    def _cut_runs(self, mailbox: _Mailbox, kinds: list[tuple[EventKind, str | None]], first_leaf: int) -> None:
        """Rows of `progress`: neighbours in the inbox that ended alike."""
        entries = mailbox.entries
        if not entries:
            return
        starts = [0]
        for index, (before, entry) in enumerate(pairwise(entries), start=1):
            if entry.previous is None:
                neighbours = not mailbox.done.between(before.seq, entry.seq)
            else:
                neighbours = entry.previous == before.seq
            # A run lies within one day, and so within the partition of its entries: it leaves with them.
            if not neighbours or kinds[index] != kinds[index - 1] or before.seq // DAY != entry.seq // DAY:
                starts.append(index)
        for start, end in pairwise([*starts, len(entries)]):
            kind, reason = kinds[start]
            self.runs.append(
                (
                    mailbox.endpoint,
                    mailbox.lane,
                    entries[start].seq,
                    entries[end - 1].seq,
                    events.ENDED_KINDS.index(kind),
                    first_leaf + start,
                    reason,
                )
            )

    @staticmethod
    def _move(mailbox: _Mailbox, requests: list[Acknowledgement]) -> None:
        for request in requests:
            mailbox.done.raise_floor(request.up_to.get(mailbox.lane, 0))
        for entry in mailbox.entries:
            if entry.previous is not None:
                mailbox.done.add(entry.previous, entry.seq)
        mailbox.done.settle()
        # The hub's own expiries are never refused: a mailbox nobody reads must not stop the sweep.
        if len(mailbox.done.ranges) > MAX_RANGES and any(r.entries or r.refused for r in requests):
            raise Problem(
                "bad-request",
                f"more than {MAX_RANGES} gaps in lane {Lane(mailbox.lane).label}; acknowledge the oldest first",
            )

    async def write(self, connection: asyncpg.Connection) -> None:
        """Commit. Raises _MovedError when a mailbox is no longer as it was read."""
        leaves = [leaf_hash(event.encode()) for event in self._events]
        tree = Tree(leaves)
        seal = self._sealer.seal(tree, str(self.id), self.at)
        moved = [
            mailbox
            for mailbox in self._mailboxes.values()
            if mailbox.entries or mailbox.done.floor != mailbox.floor
        ]
        arguments: list[Any] = [
            self.id,
            self.at,
            b"".join(leaves),
            seal,
            [mailbox.endpoint for mailbox in moved],
            [mailbox.lane for mailbox in moved],
            [mailbox.floor for mailbox in moved],
            [mailbox.done_text for mailbox in moved],
            [mailbox.done.floor for mailbox in moved],
            [mailbox.done.write() for mailbox in moved],
            *([run[column] for run in self.runs] for column in range(7)),
        ]
        try:
            notices = self._notices(tree, seal)
            if notices is None:
                await connection.fetchval(SQL.commit_progress, *arguments)
                return
            async with connection.transaction():
                await connection.fetchval(SQL.commit_progress, *arguments)
                base, *_ = await connection.fetchval(SQL.commit_messages, *notices.arguments({}, []))
            self.news = notices.news(base)
        except asyncpg.PostgresError as error:
            if error.sqlstate in ("LT412", "40P01"):
                raise _MovedError from None
            raise

    def _notices(self, tree: Tree, seal: str) -> Batch | None:
        """Messages that carry receipts of refusals and expiries to the senders concerned."""
        told = [(leaf, lane, entry) for leaf, lane, entry in self._told if entry.origin != 0]
        if not told:
            return None
        receipts = events.receipts_json(tree, self._events, seal)
        ticket = Ticket(len(told))
        notices: list[Any] = []
        for leaf, lane, entry in told:
            body = receipts[leaf]
            notices.append(
                Submission(
                    ticket=ticket,
                    endpoint=0,
                    endpoint_name="hub",
                    sender_id=f"{self.id}/{leaf}",
                    sender="hub",
                    format=Format.RECEIPT,
                    lane=Lane(lane),
                    digest=digest_of(body),
                    size=len(body),
                    body=body,
                    route=Route({entry.origin: [entry.sender]}),
                    expires_at=self.at + SHOWN if entry.origin in self._picture.axis_endpoints else None,
                    kind=Kind.NOTICE,
                    document_id=str(entry.id),
                )
            )
        return Batch(notices, self._sealer)
