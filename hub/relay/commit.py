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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.observe import metrics
from hub.relay import events
from hub.relay.batcher import Batcher
from hub.relay.format import Format
from hub.store import sql
from hub.store.pool import UNAVAILABLE, is_away, route_json
from hub.store.reconnect import Reconnecting
from protocol.evidence import Sealer, Tree, leaf_hash, recipients_digest, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")

MAX_BATCH = 256
MAX_BATCH_BYTES = 2 << 20
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
    route: dict[int, list[str]]
    unreachable: list[dict[str, str]] = field(default_factory=list)
    expires_at: datetime | None = None
    attachments: list[bytes] = field(default_factory=list)
    recipients: int = 1
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
    """What an item adds to a batch, in bytes: its body, and what its deliveries write."""
    if isinstance(work, Rejection):
        return 512
    return 512 + len(work.body or b"") + 64 * len(work.route) + 16 * work.recipients


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

    def arguments(self) -> tuple[Any, ...]:
        messages, rejections = self.messages, self.rejections
        count = len(messages)
        delivery_of: list[int] = []
        delivery_to: list[int] = []
        attachment_of: list[int] = []
        attachments: list[bytes] = []
        for number, item in enumerate(messages, start=1):
            delivery_to.extend(item.route)
            delivery_of.extend([number] * len(item.route))
            for sha256 in item.attachments:
                attachment_of.append(number)
                attachments.append(sha256)
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
            [route_json(item.route) for item in messages],
            [item.body for item in messages],
            list(range(count)),
            self.events[:count],
            delivery_of,
            delivery_to,
            attachment_of,
            attachments,
            [item.id for item in rejections],
            [item.endpoint for item in rejections],
            [item.digest for item in rejections],
            [item.code for item in rejections],
            list(range(count, len(self.events))),
            self.events[count:],
        )

    def settle(self) -> None:
        """Give everybody their receipts. Only after COMMIT."""
        written = events.receipts_json(self.tree, self.events, self.seal)
        sealed: list[Work] = [*self.messages, *self.rejections]
        for item, receipt in zip(sealed, written, strict=True):
            item.receipt = receipt
            item.ticket.settle()

    def mailboxes(self) -> set[int]:
        return {endpoint for item in self.messages for endpoint in item.route}


def _accepted_event(item: Submission, at: str) -> str:
    codes = [code for codes in item.route.values() for code in codes]
    return events.accepted(
        at,
        item.id,
        item.endpoint_name,
        item.sender,
        item.sender_id,
        item.digest,
        item.size,
        item.lane.label,
        len(codes),
        recipients_digest(codes),
        item.unreachable,
    )


class Committer:
    """Takes submissions and rejections; settles their tickets once they are on disk, or refused."""

    def __init__(self, url: str, sealer: Sealer, committed: Callable[[set[int]], None]) -> None:
        """`committed` is told which mailboxes have mail, right after each commit."""
        self._sealer = sealer
        self._committed = committed
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
            try:
                await self._commit(worker, batch)
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
            self._committed(batch.mailboxes())
            self._count(batch, started)
            return

    async def _commit(self, worker: int, batch: Batch) -> None:
        """Write a batch, through a reconnect if need be. Returns once it is known to be committed."""
        arguments = batch.arguments()
        in_doubt = False
        deadline = asyncio.get_running_loop().time() + RETRY_SECONDS
        while True:
            try:
                connection = await self._connections[worker].get(deadline)
                await connection.fetchval(SQL.commit_messages, *arguments)
                return
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                passing = is_away(error) or getattr(error, "sqlstate", None) == DEADLOCK
                if not passing and in_doubt and await self._was_committed(worker, batch):
                    return
                if not passing or asyncio.get_running_loop().time() >= deadline:
                    raise
                log.warning("a commit was interrupted; sending the batch again", error=str(error))
                in_doubt = True
                await self._connections[worker].discard()
                await asyncio.sleep(RETRY_PAUSE)

    async def _was_committed(self, worker: int, batch: Batch) -> bool:
        connection = await self._connections[worker].get()
        return bool(await connection.fetchval("select exists (select 1 from batch where id = $1)", batch.id))

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
