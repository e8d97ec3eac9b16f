"""Keeps a process's picture of the directory up to date.

A change is announced by NOTIFY; a look every second is the floor, so that a change reaches every
process within two seconds even when the announcement is lost. The look costs five index probes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncpg
import orjson
import structlog

from hub.directory.picture import Agency, Changes, Credential, Endpoint, Group, Key, Picture
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.signature import from_jwk

log = structlog.get_logger()
SQL = sql.load("directory")

POLL_SECONDS = 1.0
_CHUNK = 2_000
"""Rows turned into objects between two looks at the event loop (about 3 ms)."""


async def _rows(connection: Any, statement: str, since: int) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(statement, since)
    return rows


async def load_changes(pool: asyncpg.Pool[Any], since: int) -> Changes | None:
    """What changed after revision `since`; None when nothing did."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        revision = await connection.fetchval(SQL.revision)
        if revision <= since:
            return None
        changes = Changes(revision=revision)
        changes.endpoints = [Endpoint(*row) for row in await _rows(connection, SQL.endpoints_since, since)]
        changes.groups = [
            Group(row["name"], tuple(row["members"]), row["active"])
            for row in await _rows(connection, SQL.groups_since, since)
        ]
        for row in await _rows(connection, SQL.keys_since, since):
            changes.keys.append(
                Key(
                    row["kid"],
                    from_jwk(orjson.loads(row["jwk"])),
                    row["x5t"],
                    row["endpoint"],
                    row["agency"],
                    row["not_before"],
                    row["not_after"],
                    row["active"],
                )
            )
        changes.credentials = [Credential(*row) for row in await _rows(connection, SQL.credentials_since, since)]
        agencies = await _rows(connection, SQL.agencies_since, since)
    for index, row in enumerate(agencies):
        code, name, parent, aliases, endpoint, active = row
        changes.agencies.append(Agency(code, name, parent, tuple(aliases), endpoint, active))
        if index % _CHUNK == _CHUNK - 1:
            await asyncio.sleep(0)
    return changes


class Directory:
    """Holds the present picture and follows changes."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        self._changed = asyncio.Event()
        self._followed = asyncio.Condition()
        self.picture = Picture()

    async def refresh(self) -> bool:
        """Load what changed. True when something did."""
        changes = await load_changes(self._pool, self.picture.revision)
        if changes is None or changes.revision <= self.picture.revision:  # somebody else was faster
            return False
        self.picture = self.picture.with_changes(changes)
        async with self._followed:
            self._followed.notify_all()
        return True

    def poke(self) -> None:
        """Somebody announced a change."""
        self._changed.set()

    async def reached(self, revision: int) -> None:
        """Wait until the picture is at `revision` or later."""
        async with self._followed:
            await self._followed.wait_for(lambda: self.picture.revision >= revision)

    async def follow(self) -> None:
        """Follow changes until cancelled. Outlives a database that is away."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("the directory cannot be refreshed; routing by the last picture", error=str(error))
            except Exception:  # a picture that stood still unnoticed would let revoked tokens in
                log.exception("the directory cannot be refreshed; routing by the last picture")
