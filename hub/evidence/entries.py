"""What the store still has of the log's entries, for auditors: the events whose hashes they are.

Events of submissions (accepted, rejected) are found by their batch. Those of deliveries are derived from runs,
which nobody can find by a batch (docs/adr/0002); their messages' histories have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg

from hub.relay import events
from hub.store import sql
from protocol.evidence import Receipt

SQL = sql.load("log")
MESSAGES = sql.load("messages")
AFTER = timedelta(seconds=1)
WINDOWS = (timedelta(seconds=2), timedelta(minutes=2))
"""How long before its commit a message may have got its id: first as usual, then as after a database's absence."""

EntryState = Literal["kept", "missing", "dropped", "elsewhere"]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """What the store has under an entry.

    `state`: ``kept``; ``missing`` when it should be there and is not; ``dropped`` by retention, with its month;
    ``elsewhere`` in the history of a message. `receipt` is None when what sealed it no longer fits.
    """

    batch: UUID
    leaf: int
    state: EntryState
    event: str | None = None
    receipt: Receipt | None = None


class StoredEvents:
    """Looks up events by their place in the log."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def at(self, index: int) -> StoredEvent | None:
        """What is there under the log's entry `index`; None when the log does not reach so far."""
        async with self._pool.acquire() as connection:
            size = await connection.fetchval(SQL.size)
            place = await connection.fetchrow(SQL.batch_at, index)
            if index >= size or place is None:
                return None
            batch, leaf = place["batch"], index - place["first"]
            row = await connection.fetchrow(MESSAGES.batch, batch)
            if row is None:
                return StoredEvent(batch, leaf, await _why_not(connection, _made(batch)))
            if not row["seq_base"]:
                return StoredEvent(batch, leaf, "elsewhere")
            for window in WINDOWS:
                event = await connection.fetchval(
                    SQL.entry_event, batch, leaf, row["at"] - window, row["at"] + AFTER
                )
                if event is not None:
                    receipt = events.stored_receipt(event, leaf, row["leaves"], row["seal"])
                    return StoredEvent(batch, leaf, "kept", event, receipt)
            # Its message may be of the month before, if it came just before midnight, and have left with that.
            return StoredEvent(batch, leaf, await _why_not(connection, row["at"] - WINDOWS[-1]))


async def _why_not(connection: Any, at: datetime) -> EntryState:
    """Why the store does not have what it had at that time. To be asked after it was looked for."""
    kept = await connection.fetchval(SQL.kept_since)
    return "dropped" if kept is None or at.astimezone(UTC).strftime("%Y%m") < kept else "missing"


def _made(id_: UUID) -> datetime:
    """The time in an id of version 7."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC)
