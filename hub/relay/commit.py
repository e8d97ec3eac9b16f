"""Group commit: messages become durable together, and only then is anybody answered.

One batch is one round trip and one fsync (the SQL function `commit_messages`): idempotency check,
messages, inbox entries, rejections and the batch's seal stand or fall together. The seal is made before
the insert because it is part of it; so when the check finds that some of the batch had been submitted
before, nothing was written, those are answered from the store, and the rest is sealed anew. That is
rare and costs two round trips more.

A lost connection leaves a commit in doubt. The very same batch is then sent again: if it finds its own
ids, it had been committed the first time, and the receipts that were made then are the right ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.observe import metrics
from hub.relay import events
from hub.relay.batcher import Batcher
from hub.relay.format import Format, Kind
from hub.relay.live import Live, Watched
from hub.relay.package_signatures import Found
from hub.relay.references import Reference
from hub.relay.route import Route
from hub.relay.wake import News, Reach
from hub.store import sql
from hub.store.pool import UNAVAILABLE, is_away
from hub.store.reconnect import Reconnecting
from protocol.evidence import Sealer, Tree, leaf_hash, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")

MAX_BATCH = 256
MAX_BATCH_BYTES = 2 << 20
TURN_BYTES = 16 << 10
"""What an endpoint commits in its turn when more waits than fits into a batch."""
FLUSHERS = 2
"""Two commits under way hide each other's fsync; more only made batches smaller."""
RETRY_SECONDS = 20.0
"""How long a batch is tried while PostgreSQL is away before its senders are told to come back."""
RETRY_PAUSE = 0.05
DEADLOCK = "40P01"


class Ticket:
    """What one caller waits for: the commit of all its submissions."""

    __slots__ = ("_open", "done")

    def __init__(self, count: int) -> None:
        self._open = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Submission:
    """A message that was admitted, verified and routed, on its way into the store."""

    ticket: Ticket
    endpoint: int
    endpoint_name: str
    sender_id: str
    sender: str
    format: Format
    lane: Lane
    digest: bytes
    size: int
    body: bytes | None
    route: Route
    expires_at: datetime | None = None
    attachments: Sequence[bytes] = ()
    kind: Kind = Kind.DOCUMENT
    business: int = 0
    """What it does, as an index of `hub.relay.format.BUSINESS`."""
    document_id: str = ""
    """Of an edXML message: the document that it is or speaks of, under the name that the parties have for it. A
    native document's is its `sender_id`, which has an index already."""
    references: Sequence[Reference] = ()
    """What it says of other documents."""
    package_signatures: Found = ()
    """What was found of an edXML message's, where its endpoint's policy asks for it."""
    id: UUID = field(default_factory=uuid7)
    # How it ended: exactly one of these is set.
    receipt: bytes | None = None
    duplicate_of: UUID | None = None
    problem: Problem | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.endpoint, self.sender_id


@dataclass(slots=True, eq=False)
class Rejection:
    """A refusal to record and seal."""

    ticket: Ticket
    endpoint: int
    endpoint_name: str
    digest: bytes
    code: str
    reason: str
    id: UUID = field(default_factory=uuid7)
    receipt: bytes | None = None
    problem: Problem | None = None


Work = Submission | Rejection


def _weigh(work: Work) -> int:
    """What an item adds to a batch, in bytes: its body, and what its deliveries cost (2 µs under the lock that
    orders sequences, so that a batch holds it for 10 ms at most)."""
    if isinstance(work, Rejection):
        return 512
    return 512 + len(work.body or b"") + 512 * len(work.route.endpoints)


class Batch:
    """A sealed batch: the arguments of `commit_messages`, and the receipts to give when it has committed."""

    def __init__(self, work: list[Work], sealer: Sealer) -> None:
        self.messages = [item for item in work if isinstance(item, Submission)]
        self.rejections = [item for item in work if isinstance(item, Rejection)]
        self.id = uuid7()
        self.at = datetime.now(UTC)
        at = timestamp(self.at)
        self.events = [_accepted_event(item, at) for item in self.messages]
        self.events += [
            events.rejected(at, item.id, item.endpoint_name, item.digest, item.code, item.reason)
            for item in self.rejections
        ]
        self.leaves = [leaf_hash(event.encode()) for event in self.events]
        self.tree = Tree(self.leaves)
        self.seal = sealer.seal(self.tree, str(self.id), self.at)

    def arguments(self, shared: dict[str, str], watched: Collection[tuple[int, int]]) -> tuple[Any, ...]:
        """What `commit_messages` takes. `shared`: routes, by id, that the store may not hold yet."""
        messages, rejections = self.messages, self.rejections
        count = len(messages)
        places: dict[int, int] = {}  # each route's members are sent once
        starts: list[int] = []
        members: list[int] = []
        reference_of: list[int] = []
        references: list[Reference] = []
        attachment_of: list[int] = []
        attachments: list[bytes] = []
        for number, item in enumerate(messages, start=1):
            start = places.get(id(item.route))
            if start is None:
                start = places[id(item.route)] = len(members) + 1
                members.extend(item.route.endpoints)
            starts.append(start)
            for sha256 in item.attachments:
                attachment_of.append(number)
                attachments.append(sha256)
            for reference in item.references:
                reference_of.append(number)
                references.append(reference)
        return (
            self.id,
            self.at,
            b"".join(self.leaves),
            self.seal,
            [item.id for item in messages],
            [item.endpoint for item in messages],
            [item.sender_id for item in messages],
            [item.sender for item in messages],
            [item.format for item in messages],
            [item.lane for item in messages],
            [item.digest for item in messages],
            [item.size for item in messages],
            [item.expires_at for item in messages],
            [item.route.stored.text for item in messages],
            [item.body for item in messages],
            list(range(count)),
            self.events[:count],
            starts,
            [len(item.route.endpoints) for item in messages],
            members,
            attachment_of,
            attachments,
            [item.id for item in rejections],
            [item.endpoint for item in rejections],
            [item.digest for item in rejections],
            [item.code for item in rejections],
            list(range(count, len(self.events))),
            self.events[count:],
            list(shared),
            list(shared.values()),
            [endpoint for endpoint, _ in watched],
            [lane for _, lane in watched],
            [item.kind for item in messages],
            [item.business for item in messages],
            [item.document_id for item in messages],
            reference_of,
            [reference.name for reference in references],
            [reference.owner for reference in references],
            [reference.relation for reference in references],
            [reference.state for reference in references],
            [reference.said_at for reference in references],
        )

    def package_signatures(self) -> tuple[Any, ...]:
        """What `commit_signed_messages` takes beyond that; nothing where there is none to note."""
        noted = [(item.id, found) for item in self.messages for found in item.package_signatures]
        if not noted:
            return ()
        rows = [
            (id_, place, one.verdict, one.reason, one.subject, one.fingerprint, one.whole, one.weak)
            for id_, (place, one) in noted
        ]
        return tuple(map(list, zip(*rows, strict=True)))

    def shared_routes(self) -> dict[str, str]:
        """Routes of this batch that are kept apart from its messages, by id."""
        found = {}
        for item in self.messages:
            stored = item.route.stored
            if stored.id is not None and stored.shared is not None:
                found[stored.id] = stored.shared
        return found

    def settle(self) -> None:
        """Give everybody their receipts. Only after COMMIT."""
        written = events.receipts_json(self.tree, self.events, self.seal)
        sealed: list[Work] = [*self.messages, *self.rejections]
        for item, receipt in zip(sealed, written, strict=True):
            item.receipt = receipt
            item.ticket.settle()

    def news(self, base: int) -> News:
        """How far mailboxes reach now, if the batch's k-th message is `base` + k."""
        last: dict[tuple[int, int], tuple[Route, int]] = {}
        for seq, item in enumerate(self.messages, start=base):
            last[id(item.route), item.lane] = item.route, seq
        return [Reach(lane, seq, route.endpoints) for (_, lane), (route, seq) in last.items()]


def _accepted_event(item: Submission, at: str) -> str:
    return events.accepted(
        at,
        item.id,
        item.endpoint_name,
        item.sender,
        item.sender_id,
        item.digest,
        item.size,
        item.lane.label,
        item.route.recipients,
        item.route.digest,
        item.route.unreachable_members,
    )


class Committer:
    """Takes submissions and rejections; settles their tickets once they are on disk, or refused."""

    def __init__(self, url: str, sealer: Sealer, committed: Callable[[News], None], live: Live) -> None:
        """Right after each commit `live` gets the mail and `committed` is told how far mailboxes reach now."""
        self._sealer = sealer
        self._committed = committed
        self._live = live
        self._shared: set[str] = set()
        """Ids of shared routes that are known to be in the store."""
        self.accepted = 0
        self._connections = [Reconnecting(url, f"commit {index}") for index in range(FLUSHERS)]
        self.batcher: Batcher[Work] = Batcher(
            "commit",
            self._flush,
            self._give_up,
            workers=FLUSHERS,
            max_items=MAX_BATCH,
            max_weight=MAX_BATCH_BYTES,
            weigh=_weigh,
            key=lambda work: work.endpoint,
            quantum=TURN_BYTES,
        )

    def start(self) -> None:
        self.batcher.start()

    async def stop(self) -> None:
        await self.batcher.stop()
        for connection in self._connections:
            await connection.close()

    def put(self, work: Iterable[Work]) -> None:
        for item in work:
            self.batcher.put(item)

    async def _flush(self, worker: int, work: list[Work]) -> None:
        self._postpone_twins(work)
        while work:
            started = time.monotonic()
            batch = Batch(work, self._sealer)
            watched = self._live.watched(batch.messages)
            try:
                base, before = await self._commit(worker, batch, watched)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                if getattr(error, "sqlstate", None) == "LT409":
                    try:
                        work = await self._settle_known(worker, batch)
                        continue
                    except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as lost:
                        error = lost
                if is_away(error):
                    await self._connections[worker].discard()
                    log.error("PostgreSQL is away; a batch was given up", error=str(error), items=len(work))
                    self._fail(
                        work,
                        Problem(
                            "store-unavailable", "nothing is lost: send the same message again", retry_after=2
                        ),
                    )
                    return
                if len(work) > 1:
                    # One message that PostgreSQL will not take must not fail its neighbours.
                    log.warning("a batch failed; trying its parts", error=str(error), items=len(work))
                    middle = len(work) // 2
                    await self._flush(worker, work[:middle])
                    await self._flush(worker, work[middle:])
                    return
                log.error("a message could not be stored", error=str(error))
                self._fail(
                    work, Problem("internal", "the hub could not store this message; its operator can see why")
                )
                return
            batch.settle()
            if watched and before is not None:
                self._live.committed(batch, watched, base, before)
            self._committed(batch.news(base))
            self._count(batch, started)
            return

    async def _commit(self, worker: int, batch: Batch, watched: Watched) -> tuple[int, list[int] | None]:
        """Write a batch, through a reconnect if need be. Returns once it is known to be committed.

        Gives the sequence of its first message and, unless that was lost with a connection, the last
        sequence before it of each watched mailbox.
        """
        shared = {id_: text for id_, text in batch.shared_routes().items() if id_ not in self._shared}
        statement, arguments = SQL.commit_messages, batch.arguments(shared, watched)
        if noted := batch.package_signatures():
            statement, arguments = SQL.commit_signed_messages, arguments + noted
        in_doubt = False
        deadline = asyncio.get_running_loop().time() + RETRY_SECONDS
        while True:
            try:
                connection = await self._connections[worker].get(deadline)
                base, *before = await connection.fetchval(statement, *arguments)
                if shared:
                    self._shared.update(shared)
                return base, before
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                passing = is_away(error) or getattr(error, "sqlstate", None) == DEADLOCK
                if not passing and in_doubt:
                    base = await self._committed_as(worker, batch)
                    if base is not None:
                        return base, None
                if not passing or asyncio.get_running_loop().time() >= deadline:
                    raise
                log.warning("a commit was interrupted; sending the batch again", error=str(error))
                in_doubt = True
                await self._connections[worker].discard()
                await asyncio.sleep(RETRY_PAUSE)

    async def _committed_as(self, worker: int, batch: Batch) -> int | None:
        """The sequence at which a batch was committed; None when it was not."""
        connection = await self._connections[worker].get()
        base: int | None = await connection.fetchval("select seq_base from batch where id = $1", batch.id)
        return base

    async def _settle_known(self, worker: int, batch: Batch) -> list[Work]:
        """Answer those of a batch that were submitted before; return the others."""
        connection = await self._connections[worker].get()
        rows = await connection.fetch(
            SQL.find_submissions,
            [item.endpoint for item in batch.messages],
            [item.sender_id for item in batch.messages],
        )
        known = {(row["endpoint"], row["sender_id"]): row for row in rows}
        rest: list[Work] = list(batch.rejections)
        for item in batch.messages:
            row = known.get(item.key)
            if row is None:
                rest.append(item)
                continue
            if row["digest"] == item.digest:
                item.duplicate_of = row["message"]
                metrics.MESSAGES.labels("duplicate").inc()
            else:
                item.problem = Problem(
                    "id-conflict",
                    f"the id {item.sender_id!r} was used for other bytes; give a new document a new id",
                    message=str(row["message"]),
                )
            item.ticket.settle()
        return rest

    def _postpone_twins(self, work: list[Work]) -> None:
        """Leave the second of two submissions with the same id to the next batch, which will find the first."""
        keys: set[tuple[int, str]] = set()
        for item in list(work):
            if isinstance(item, Submission):
                if item.key in keys:
                    work.remove(item)
                    self.batcher.put(item)
                keys.add(item.key)

    def _count(self, batch: Batch, started: float) -> None:
        self.accepted += len(batch.messages)
        metrics.MESSAGES.labels("accepted").inc(len(batch.messages))
        metrics.MESSAGES.labels("rejected").inc(len(batch.rejections))
        metrics.COMMITS.labels("messages").inc()
        metrics.COMMIT_SECONDS.observe(time.monotonic() - started)

    @classmethod
    def _give_up(cls, work: list[Work], error: Exception) -> None:
        """A flush failed as none should. Whoever still waits is told."""
        open_work = [item for item in work if not (item.receipt or item.problem or _is_duplicate(item))]
        cls._fail(open_work, Problem("internal", "nothing is lost: send the same message again"))

    @staticmethod
    def _fail(work: list[Work], problem: Problem) -> None:
        for item in work:
            item.problem = problem
            item.ticket.settle()


def _is_duplicate(item: Work) -> bool:
    return isinstance(item, Submission) and item.duplicate_of is not None


def digest_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
