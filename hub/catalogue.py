"""By what a document is known again that was sent before.

Decree 30/2020/NĐ-CP, appendix VI, has systems warn when a document's id comes again, or when its number,
symbol and issuing body do. The numbers begin anew each year (article 15). What is written down of each new
document are hashes of these, by one process at a time and in its leisure: an index that the commit keeps would
cost every document 2 µs of PostgreSQL, for a question that is asked of few (docs/adr/0032).

A document is written down 90 seconds after its id was made, when nothing older can be committed any more. Whoever
asks whether one is a duplicate need not wait for that: its own keys are made from itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from hub.evidence.describe import Describer, Description
from hub.relay.format import Kind
from hub.relay.repeats import keys_of
from hub.store import sql
from hub.store.routes import Routes

SQL = sql.load("catalogue")

TURN_SECONDS = 5.0
TURN_BUDGET = 0.05
"""Seconds of a turn, about: one part in a hundred of one process, and some 500 documents of 2 KiB a second."""
PAGE = 100
LAG = timedelta(seconds=90)
"""What is committed stood in line for 20 s at most, and a commit may take 50."""
MAX_FOUND = 20
"""Earlier documents that are named of one."""


def keys(row: asyncpg.Record, description: Description) -> list[int]:
    """The hashes of a stored message; none of what is no new document."""
    if row["kind"] != Kind.DOCUMENT or row["business"]:
        return []
    name = row["document_id"] or row["sender_id"]
    return keys_of(row["sender"], name, description.code, description.issued, row["accepted_at"])


class Catalogue:
    """Writes documents down and finds them again, for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], describer: Describer) -> None:
        self._pool = pool
        self._describer = describer

    async def go_on(self, budget: float = TURN_BUDGET, lag: timedelta = LAG) -> None:
        """Write down what has come since the last turn, as far as `budget` seconds go."""
        ends = time.monotonic() + budget
        last = await self._pool.fetchval(SQL.last) or UUID(int=0)
        while True:
            rows = await self._pool.fetch(SQL.next_messages, last, lag, PAGE)
            if not rows:
                return
            entries = [(key, row["id"]) for row in rows for key in keys(row, await self._describer.of(row))]
            last = rows[-1]["id"]
            columns = [key for key, _ in entries], [message for _, message in entries]
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(SQL.add, *columns, last)
                await connection.execute(SQL.mark_known, *columns)
            if time.monotonic() >= ends:
                return

    async def duplicates(
        self, messages: Iterable[tuple[asyncpg.Record, Description]]
    ) -> dict[UUID, list[asyncpg.Record]]:
        """Of each stored message the earlier ones with one of its keys, oldest first, at most `MAX_FOUND`."""
        wanted = [(key, row["id"]) for row, description in messages for key in keys(row, description)]
        if not wanted:
            return {}
        found: dict[UUID, list[asyncpg.Record]] = {}
        for row in await self._pool.fetch(
            SQL.earlier, [key for key, _ in wanted], [message for _, message in wanted], MAX_FOUND
        ):
            earlier = found.setdefault(row["later"], [])
            if all(known["id"] != row["id"] for known in earlier):
                earlier.append(row)
        return found

    async def repeated_by(self, endpoint: int, messages: Iterable[UUID], routes: Routes) -> dict[UUID, list[str]]:
        """What each message repeats of what `endpoint` sent or got, by the hub's ids; a look into the store."""
        rows = await self._pool.fetch(SQL.stored, list(messages))
        found = await self.duplicates([(row, await self._describer.of(row)) for row in rows])
        await routes.load(row["route"] for earlier in found.values() for row in earlier)
        named = {
            id_: [
                str(row["id"])
                for row in earlier
                if row["endpoint"] == endpoint or endpoint in routes.read(row["route"])
            ]
            for id_, earlier in found.items()
        }
        return {id_: names for id_, names in named.items() if names}
