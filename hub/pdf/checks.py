"""Results of PDFs by their digest: found once for the same bytes and the same trust, and kept for a day.

A day, since certificates end and are revoked: what is recorded of a message says when it was found.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from hub import tasks
from hub.pdf.pool import Pool, TrustData
from hub.pdf.result import PdfResult
from hub.store import sql
from hub.turns import Turns

log = structlog.get_logger()
SQL = sql.load("pdf")

FRESH = timedelta(days=1)
LIMIT_FRESH = timedelta(minutes=10)
"""A PDF that could not be checked may have met a busy machine; but it shall not cost as much again at once."""
TRUST_SECONDS = 30.0
"""How long revocation lists that were fetched meanwhile may go unseen. A change of anchors is seen at once."""
MAX_LIST_BYTES = 2 << 20
"""Of a revocation list; a longer one is not used here, as it would cost seconds with each signature."""

MAX_LISTS_BYTES = 16 << 20
"""Of all of them."""

_decode = msgspec.json.Decoder(PdfResult).decode


async def read_trust(source: asyncpg.Pool[Any] | asyncpg.Connection) -> TrustData:
    """The hub's trust anchors, and the revocation lists that it has."""
    anchors = await source.fetch(SQL.anchors)
    lists = await source.fetch(SQL.revocation_lists, MAX_LIST_BYTES)
    used, room = [], MAX_LISTS_BYTES
    for row in lists:
        if len(row["der"]) <= room:
            used.append(row["der"])
            room -= len(row["der"])
    hard = tuple(row["der"] for row in anchors if row["hard"])
    return TrustData(tuple(row["der"] for row in anchors), tuple(used), hard)


class Checks:
    """Checks PDFs for one hub process."""

    def __init__(self, pool: asyncpg.Pool[Any], processes: Pool, revision: Callable[[], int]) -> None:
        """`revision`: of the directory, which changes when its trust anchors do."""
        self._pool = pool
        self._processes = processes
        self._revision = revision
        self._trust: tuple[int, float, TrustData] | None = None
        self._under_way: dict[tuple[bytes, bytes], asyncio.Task[PdfResult]] = {}
        self._turns = Turns(1)

    async def stop(self) -> None:
        await tasks.end(list(self._under_way.values()))
        await self._processes.stop()

    async def trust(self) -> TrustData:
        """Whom the hub trusts now."""
        revision, now = self._revision(), time.monotonic()
        if self._trust is None or self._trust[0] != revision or now - self._trust[1] > TRUST_SECONDS:
            self._trust = revision, now, await read_trust(self._pool)
        return self._trust[2]

    async def result(self, endpoint: int, sha256: bytes, path: Path) -> PdfResult:
        """What is found of the PDF with this digest, whose bytes are in `path`, sent by `endpoint`.

        Goes on when the caller does not wait any longer, so that asking again finds it. Endpoints take turns.
        Raises OSError, and what a lost store raises.
        """
        trust = await self.trust()
        key = sha256, trust.digest
        task = self._under_way.get(key)
        if task is None:
            if (kept := await self._kept(*key)) is not None:
                return kept
            task = self._under_way.get(key)  # somebody else may have begun meanwhile
        if task is None:
            # Opened here: an edXML message's files go when its caller does.
            descriptor = os.open(path, os.O_RDONLY)
            task = asyncio.create_task(self._check(endpoint, key, descriptor, trust), name="pdf-check")
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, descriptor, done))
        return await asyncio.shield(task)

    async def _kept(self, sha256: bytes, trust: bytes) -> PdfResult | None:
        now = datetime.now(UTC)
        text = await self._pool.fetchval(SQL.result, sha256, trust, now - FRESH, now - LIMIT_FRESH)
        return None if text is None else _decode(text)

    async def _check(
        self, endpoint: int, key: tuple[bytes, bytes], descriptor: int, trust: TrustData
    ) -> PdfResult:
        async with self._turns.of(endpoint):
            result = await self._processes.check(descriptor, trust)
        text = msgspec.json.encode(result).decode()
        await self._pool.execute(SQL.keep_result, *key, datetime.now(UTC), text)
        return result

    def _ended(self, key: tuple[bytes, bytes], descriptor: int, task: asyncio.Task[PdfResult]) -> None:
        os.close(descriptor)
        del self._under_way[key]
        if not task.cancelled() and (error := task.exception()) is not None:  # its caller may have gone
            log.warning("a PDF was not checked", error=str(error))

    async def forget(self) -> None:
        """Drop results that nobody will use again."""
        await self._pool.execute(SQL.forget_results, datetime.now(UTC) - FRESH)
