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
import time
from collections.abc import Callable, Iterable

import asyncpg
import structlog

from hub.observe import metrics
from hub.relay.batch import Batch, Rejection, Submission, Work, make_batch
from hub.relay.batcher import Batcher
from hub.relay.live import Live, Watched
from hub.relay.wake import News
from hub.store import sql
from hub.store.pool import UNAVAILABLE, is_away
from hub.store.reconnect import Reconnecting
from protocol.evidence import Sealer
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
STANDING_SECONDS = 20.0
"""What has stood in line for longer, because PostgreSQL is away, is not begun: its sender is told to come back.
So an id is 70 s old at most when it is committed: whoever goes through messages in their order relies on that."""
RETRY_PAUSE = 0.05
DEADLOCK = "40P01"


def _weigh(work: Work) -> int:
    """What an item adds to a batch, in bytes: its body, and what its deliveries cost (2 µs under the lock that
    orders sequences, so that a batch holds it for 10 ms at most)."""
    if isinstance(work, Rejection):
        return 512
    return 512 + len(work.body or b"") + 512 * len(work.route.endpoints)


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
        old = int((time.time() - STANDING_SECONDS) * 1000)
        if late := [item for item in work if item.id.int >> 80 < old]:
            self._fail(late, Problem("store-unavailable", "nothing is lost: send it again", retry_after=2))
            work[:] = [item for item in work if item.id.int >> 80 >= old]
        self._postpone_twins(work)
        while work:
            started = time.monotonic()
            try:
                batch = await make_batch(work, self._sealer)
            except Problem as problem:
                self._fail(work, problem)
                return
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
        if noted := batch.signatures():
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
