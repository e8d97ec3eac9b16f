"""Work that needs one owner among all processes: partitions, retention, expiry, left-over uploads.

Each chore runs in every process and takes an advisory lock for its turn; whoever has it works, the
others pass. No leader is elected and none can be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub import tasks
from hub.catalogue import TURN_SECONDS, Catalogue
from hub.evidence.history import History
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.openings import SILENT
from hub.retention import Retention
from hub.store import sql
from hub.store.blobs import Blobs
from hub.store.locks import Locks
from hub.store.pool import UNAVAILABLE
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("chores")
AXIS = sql.load("axis")
RECALL = sql.load("recall")
LINKS = sql.load("links")

PARTITION_MONTHS = 2
EXPIRY_LOOKBACK = timedelta(days=62)
"""How far a hub looks back that has never swept."""
UPLOAD_SECONDS = 24 * 3600
"""An upload that stood still so long is given up."""
EXPIRY_OVERLAP = timedelta(seconds=90)
"""How much of the past is looked at again: a commit may become visible after its time, by 70 s."""


Chore = tuple[int, float, Callable[[], Awaitable[None]]]
"""The advisory lock of whoever does it, the seconds between two turns, a turn."""


class Chores:
    """Runs the chores of one process."""

    def __init__(
        self,
        url: str,
        pool: asyncpg.Pool[Any],
        acknowledger: Acknowledger,
        history: History,
        blobs: Blobs,
        retention: Retention,
        catalogue: Catalogue,
        more: Iterable[Chore] = (),
    ) -> None:
        """`more`: other work that needs one owner, done elsewhere."""
        self._locks = Locks(url)
        self._more = tuple(more)
        self._catalogue = catalogue
        self._retention = retention
        self._pool = pool
        self._acknowledger = acknowledger
        self._history = history
        self._blobs = blobs
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        chores: list[Chore] = [
            (7010, 3600.0, self._partitions),
            (7011, 2.0, self.expire),
            (7012, 3600.0, self._uploads),
            (7013, 3600.0, self._old_months),
            (7014, 20.0, self._silent_readers),
            (7015, TURN_SECONDS, self._catalogue.go_on),
            *self._more,
        ]
        self._tasks = [
            asyncio.create_task(self._repeat(lock, seconds, chore), name=f"chore-{lock}")
            for lock, seconds, chore in chores
        ]

    async def stop(self) -> None:
        await tasks.end(self._tasks)
        await self._locks.close()

    async def _repeat(self, lock: int, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                async with self._locks.hold(lock) as mine:
                    if mine:
                        await chore()
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError, Problem) as error:
                log.warning("a chore was put off", chore=chore.__name__, error=str(error))
            except Exception:  # a chore that ended unnoticed would never be done again
                log.exception("a chore failed", chore=chore.__name__)
            await asyncio.sleep(seconds)

    async def _partitions(self) -> None:
        await self._pool.execute(SQL.ensure_partitions, PARTITION_MONTHS)
        await self._pool.execute(SQL.forget_workers)
        await self._pool.execute(AXIS.forget_old_notes)
        await self._pool.execute(LINKS.forget_fetches)
        await self._pool.execute(LINKS.forget_transfers)

    async def _silent_readers(self) -> None:
        await self._pool.execute(RECALL.give_up_readers, SILENT)

    async def _uploads(self) -> None:
        await asyncio.to_thread(self._blobs.clean, time.time() - UPLOAD_SECONDS)

    async def _old_months(self) -> None:
        await self._retention.run()

    async def expire(self) -> None:
        """End the deliveries of messages whose time has passed; their senders are told."""
        now = datetime.now(UTC)
        since = await self._pool.fetchval(SQL.watermark, "expiry") or now - EXPIRY_LOOKBACK
        after = since - EXPIRY_OVERLAP, UUID(int=0)
        while True:
            rows = await self._pool.fetch(SQL.expiring, *after, now, 500)
            for row in rows:
                seq, endpoints = await self._history.open_deliveries(row["id"])
                reason = f"expired at {row['expires_at'].isoformat()}"
                ended = await asyncio.gather(
                    *(
                        self._acknowledger.end(Acknowledgement(endpoint, expired={seq: reason}))
                        for endpoint in endpoints
                    ),
                    return_exceptions=True,
                )
                for endpoint, error in zip(endpoints, ended, strict=True):
                    if isinstance(error, Problem) and not error.retryable:
                        # One mailbox must not stop the sweep for all others.
                        log.error("a delivery could not be ended", endpoint=endpoint, seq=seq, error=str(error))
                    elif isinstance(error, BaseException):
                        raise error
            if len(rows) < 500:
                break
            after = rows[-1]["expires_at"], rows[-1]["id"]
        await self._pool.execute(SQL.set_watermark, "expiry", now)
