"""Old months leave by partition, oldest first, once every recipient has what is in them.

A month may go when it ended more than `months` ago and nothing in it waits, neither for a recipient nor for its
place in the transparency log. Then its partitions are detached without stopping anybody (`detach …
concurrently`), and dropped. What waits is never dropped: the month stays, and all after it, until its recipient
takes the mail or an operator ends it.

Receipts that were given out stay valid. The ids of messages stay too (docs/adr/0005): an id that comes again is
still recognised.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from hub.store import sql
from hub.store.blobs import Blobs
from hub.store.pool import connect

log = structlog.get_logger()
SQL = sql.load("retention")

STATEMENT_SECONDS = 120
"""How long detaching may wait for transactions that began before; then it is tried again the next time."""
GARBAGE_AGE = timedelta(hours=1)


def month_after(month: str) -> datetime:
    """The end of a month written YYYYMM (UTC)."""
    year, number = int(month[:4]), int(month[4:])
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def may_leave(month: str, months: int, now: datetime) -> bool:
    """Whether `months` whole months have passed since a month's end."""
    end = month_after(month)
    return (now.year - end.year) * 12 + now.month - end.month >= months


class Retention:
    """Drops what is older than `months` months; keeps everything when that is 0."""

    def __init__(self, url: str, blobs: Blobs, months: int) -> None:
        self._url = url
        self._blobs = blobs
        self._months = months

    async def run(self) -> list[str]:
        """Drop every month whose time has come; the months dropped (YYYYMM), oldest first."""
        if not self._months:
            return []
        connection = await connect(self._url, "retention", STATEMENT_SECONDS + 10)
        try:
            await connection.execute(f"set statement_timeout = '{STATEMENT_SECONDS}s'")
            await self._delete_garbage(connection)
            dropped: list[str] = []
            while await self._drop_oldest(connection, dropped):
                pass
            return dropped
        finally:
            await connection.close()

    async def _drop_oldest(self, connection: asyncpg.Connection, dropped: list[str]) -> bool:
        month = await connection.fetchval(SQL.oldest)
        if month is None or not may_leave(month, self._months, datetime.now(UTC)):
            return False
        end = month_after(month)
        waiting = await connection.fetch(SQL.waiting, end)
        if waiting:
            log.warning(
                "an old month cannot be dropped: mail in it waits; let its recipients take it, or end it",
                month=month,
                endpoints={row["name"]: row["waiting"] for row in waiting[:10]},
            )
            return False
        if await connection.fetchval(SQL.unlogged, end):
            log.warning(
                "an old month cannot be dropped: events of it are not in the transparency log", month=month
            )
            return False
        # First what is said of the messages, while they are still there to be asked.
        await connection.execute(SQL.condemn_messages, end)
        await connection.execute(SQL.forget_references, end)
        await connection.execute(SQL.forget_uses, end)
        await connection.execute(SQL.condemn_attachments, end)
        for row in await connection.fetch(SQL.partitions, month):
            name, parent = row["name"], row["parent"]
            if row["attached"]:
                # Interrupted, detaching leaves a partition half detached; `finalize` ends that.
                how = "finalize" if row["pending"] else "concurrently"
                await connection.execute(f"alter table {parent} detach partition {name} {how}")
            await connection.execute(f"drop table {name}")
        log.info("dropped a month", month=month)
        dropped.append(month)
        return True

    async def _delete_garbage(self, connection: asyncpg.Connection) -> None:
        before = datetime.now(UTC) - GARBAGE_AGE
        await connection.execute(SQL.spare, before)
        found = [row["sha256"] for row in await connection.fetch(SQL.garbage, before)]

        def discard() -> list[bytes]:
            return [sha256 for sha256 in found if self._blobs.discard(sha256, before.timestamp())]

        gone = await asyncio.to_thread(discard)
        await connection.execute(SQL.discarded, gone)  # what is young is looked at again
        if gone:
            log.info("deleted blobs that nothing names", count=len(gone))
