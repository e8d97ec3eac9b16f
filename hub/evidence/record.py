"""Recording what happens to a message beside its acceptance and the ends of its deliveries: a signature in it was
checked, another hub took it over.

Such events are sealed and kept as text (table `event`), together: whatever came while the last batch was under
way is the next. `record` returns when they are on disk; nothing is answered, shown or done on the strength of
an event before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.evidence.sealing import seal_events
from hub.relay.batcher import Batcher
from hub.store import sql
from hub.store.pool import UNAVAILABLE, is_away
from hub.store.reconnect import Reconnecting
from protocol.evidence import EventKind, Sealer, timestamp
from protocol.ids import uuid7
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")

RETRY_SECONDS = 20.0
RETRY_PAUSE = 0.1


@dataclass(slots=True, eq=False)
class Recorded:
    """An event to record. `members` follow `event`, `at` and `message` in its text, in their order.

    `endpoint` is the one whose delivery it concerns, by id; None when it is about the message as a whole. `at`
    is when it happened; by default when it is sealed.
    """

    message: UUID
    kind: EventKind
    endpoint: int | None = None
    members: Mapping[str, object] = field(default_factory=dict)
    at: datetime | None = None

    def text(self, sealed_at: datetime) -> str:
        """The event as it is hashed."""
        head = {
            "event": self.kind.value,
            "at": timestamp(self.at or sealed_at),
            "message": str(self.message),
        }
        return orjson.dumps(head | dict(self.members)).decode()


@dataclass(slots=True, eq=False)
class _Waiting:
    events: Sequence[Recorded]
    done: asyncio.Future[None]


class Recorder:
    """Seals and keeps events of one process."""

    def __init__(self, url: str, sealer: Sealer) -> None:
        self._sealer = sealer
        self._connection = Reconnecting(url, "record")
        self._batcher: Batcher[_Waiting] = Batcher("record", self._flush, self._give_up, max_items=64)

    def start(self) -> None:
        self._batcher.start()

    async def stop(self) -> None:
        await self._batcher.stop()
        await self._connection.close()

    async def record(self, events: Sequence[Recorded]) -> None:
        """Seal events; returns once they are on disk.

        Raises `Problem` store-unavailable or key-unavailable. Then they may be recorded again: that something
        happened may be said twice.
        """
        if not events:
            return
        waiting = _Waiting(events, asyncio.get_running_loop().create_future())
        self._batcher.put(waiting)
        await waiting.done

    async def _flush(self, worker: int, work: list[_Waiting]) -> None:
        id_, at = uuid7(), datetime.now(UTC)
        events = [event for waiting in work for event in waiting.events]
        texts = [event.text(at) for event in events]
        sealed = await seal_events(self._sealer, map(str.encode, texts), id_, at)
        arguments = (
            id_,
            at,
            sealed.leaves,
            sealed.seal,
            [event.message for event in events],
            [event.kind.value for event in events],
            [event.endpoint for event in events],
            texts,
        )
        await self._commit(id_, arguments)
        for waiting in work:
            if not waiting.done.done():
                waiting.done.set_result(None)

    async def _commit(self, id_: UUID, arguments: tuple[object, ...]) -> None:
        deadline = asyncio.get_running_loop().time() + RETRY_SECONDS
        in_doubt = False
        while True:
            try:
                connection = await self._connection.get(deadline)
                if in_doubt and await connection.fetchval("select true from batch where id = $1", id_):
                    return
                await connection.execute(SQL.commit_events, *arguments)
                return
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                # What was left under way may be committed by now, after it was looked for.
                if not is_away(error) and not (in_doubt and isinstance(error, asyncpg.UniqueViolationError)):
                    raise
                await self._connection.discard()
                if asyncio.get_running_loop().time() >= deadline:
                    raise Problem("store-unavailable", "the event is not recorded", retry_after=2) from None
                in_doubt = True
                await asyncio.sleep(RETRY_PAUSE)

    @staticmethod
    def _give_up(work: list[_Waiting], error: Exception) -> None:
        problem = error if isinstance(error, Problem) else Problem("internal", "the event is not recorded")
        for waiting in work:
            if not waiting.done.done():
                waiting.done.set_exception(problem)
