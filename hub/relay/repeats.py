"""Seeing at once that a document was sent before, as far as that costs next to nothing.

What a document is known again by are hashes of its id, and of its number, symbol, issuing body and year
(`hub.catalogue`). A process makes them of what it takes in while it has time for that: a hundredth of its time, in
which it looks at some 45 documents a second that come singly, at more that come together. Those it compares with
what it saw itself lately, and with what is written down. What repeats something is marked before it is committed,
so that its recipients are told with the entry itself. What is not looked at, because there is too much, is marked
by the catalogue later (docs/adr/0032).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.store import sql
from hub.store.pool import UNAVAILABLE

log = structlog.get_logger()
SQL = sql.load("catalogue")

SHARE = 0.01
"""Of a process's time."""
CREDIT_SECONDS = 0.02
"""How much of it may be saved up."""
STATEMENT_SECONDS = 0.0002
"""What one look into the store is counted as, here and there (measured: docs/adr/0032)."""
DOCUMENT_SECONDS = 0.00001
"""The same of each document in it."""
PATIENCE_SECONDS = 0.25
"""A store that takes longer is asked by the catalogue instead: the sender waits meanwhile."""
REMEMBERED = 20_000
"""Hashes of documents that this process saw lately (about 4 MB); in the store they are a minute later."""
_VIETNAM = timezone(timedelta(hours=7))


def keys_of(sender: str, name: str, code: str, issued: str | None, accepted_at: datetime) -> list[int]:
    """The hashes of a new document. The year is that of its issue, or of its arrival in Vietnam."""
    found = [_key("id", sender, name)]
    if code := _plain(code):
        year = (issued or str(accepted_at.astimezone(_VIETNAM).year))[:4]
        found.append(_key("symbol", sender, year, code))
    return found


def _plain(text: str) -> str:
    """Without what clerks write differently: blanks and the case of letters."""
    return "".join(unicodedata.normalize("NFC", text).casefold().split())


def _key(*parts: str) -> int:
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


class New:
    """A new document that is about to be committed, and what is known of it."""

    __slots__ = ("code", "id", "issued", "name", "repeats", "sender")

    def __init__(self, id_: UUID, sender: str, name: str, code: str, issued: str | None) -> None:
        self.id = id_
        self.sender = sender
        self.name = name
        self.code = code
        self.issued = issued
        self.repeats = False


class Repeats:
    """Looks, for one process."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        self._recent: OrderedDict[int, UUID] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()
        self._credit = CREDIT_SECONDS
        self._at = time.monotonic()

    def has_time(self) -> bool:
        """Whether there is time to look at documents now."""
        now = time.monotonic()
        self._credit = min(CREDIT_SECONDS, self._credit + (now - self._at) * SHARE)
        self._at = now
        return self._credit > 0

    async def look(self, documents: Sequence[New]) -> None:
        """Say of each document whether it repeats one; what does is marked in the store. Never fails."""
        began = time.perf_counter()
        found = [(document, keys_of_new(document)) for document in documents]
        earlier: list[tuple[int, UUID]] = []
        for document, keys in found:
            for key in keys:
                known = self._recent.get(key)
                if known is not None and known != document.id:
                    document.repeats = True
                    earlier.append((key, known))
                else:
                    self._recent[key] = document.id
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        self._credit -= time.perf_counter() - began + STATEMENT_SECONDS + DOCUMENT_SECONDS * len(documents)
        # A task of its own: to cancel a statement means to wait for a server that may have gone silent.
        asking = asyncio.create_task(self._ask(found, earlier), name="repeats")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        await asyncio.wait([asking], timeout=PATIENCE_SECONDS)

    async def _ask(self, found: list[tuple[New, list[int]]], earlier: list[tuple[int, UUID]]) -> None:
        """Look into the store. Never fails."""
        by_key = {key: document for document, keys in found for key in keys}
        try:
            for row in await self._pool.fetch(SQL.known, list(by_key)):
                by_key[row["key"]].repeats = True
            marked = [document.id for document, _ in found if document.repeats]
            if marked:
                columns = [key for key, _ in earlier], [message for _, message in earlier]
                await self._pool.execute(SQL.mark, marked, *columns)
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
            log.warning("documents were not compared with earlier ones", error=str(error))


def keys_of_new(document: New) -> list[int]:
    """The hashes of a document that comes now."""
    return keys_of(document.sender, document.name, document.code, document.issued, datetime.now(_VIETNAM))
