"""By what a document is known again that was sent before.

Decree 30/2020/NĐ-CP, appendix VI, has systems warn when a document's id comes again, or when its number,
symbol and issuing body do. The numbers begin anew each year (article 15). What is written down of each new
document are hashes of these, by one process at a time and in its leisure: an index that the commit keeps would
cost every document 2 µs of PostgreSQL, for a question that is asked of few (docs/adr/0032).

A document is written down a minute after its id was made, when nothing older can be committed any more. Whoever
asks whether one is a duplicate need not wait for that: its own keys are made from itself.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import asyncpg

from hub.evidence.describe import Describer, Description
from hub.relay.format import Kind
from hub.store import sql

SQL = sql.load("catalogue")

TURN_SECONDS = 5.0
TURN_BUDGET = 0.05
"""Seconds of a turn, about: one part in a hundred of one process, and some 500 documents of 2 KiB a second."""
PAGE = 100
LAG = timedelta(minutes=1)
"""A commit may take 50 s."""
MAX_FOUND = 20
"""Earlier documents that are named of one."""
_VIETNAM = timezone(timedelta(hours=7))


def keys(row: asyncpg.Record, description: Description) -> list[int]:
    """The hashes of a stored message; none of what is no new document."""
    if row["kind"] != Kind.DOCUMENT or row["business"]:
        return []
    found = [_key("id", row["sender"], row["document_id"] or row["sender_id"])]
    if code := _plain(description.code):
        issued: datetime = row["accepted_at"]
        year = (description.issued or str(issued.astimezone(_VIETNAM).year))[:4]
        found.append(_key("symbol", row["sender"], year, code))
    return found


def _plain(text: str) -> str:
    """Without what clerks write differently: blanks and the case of letters."""
    return "".join(unicodedata.normalize("NFC", text).casefold().split())


def _key(*parts: str) -> int:
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


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
            await self._pool.execute(
                SQL.add, [key for key, _ in entries], [message for _, message in entries], last
            )
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
