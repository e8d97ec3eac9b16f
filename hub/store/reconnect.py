"""A connection kept for one purpose, made again when it is lost."""

from __future__ import annotations

import asyncio

import asyncpg

from hub.store.pool import UNAVAILABLE, connect

COMMAND_SECONDS = 30.0
"""A statement that takes longer is given up: its connection may have gone silent."""


class Reconnecting:
    """One connection of the hot path. Not for concurrent use."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: asyncpg.Connection | None = None

    async def get(self, deadline: float | None = None) -> asyncpg.Connection:
        """The connection, made anew if need be; tried until `deadline` (loop time; None: once).

        Raises what `connect` raises when PostgreSQL stays away.
        """
        pause = 0.02
        while self._connection is None or self._connection.is_closed():
            try:
                async with asyncio.timeout_at(deadline):
                    self._connection = await connect(self._url, self._name, COMMAND_SECONDS, hot=True)
            except (*UNAVAILABLE, TimeoutError):
                if deadline is None or asyncio.get_running_loop().time() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
        return self._connection

    async def discard(self) -> None:
        """Drop a connection that failed."""
        if self._connection is not None and not self._connection.is_closed():
            self._connection.terminate()
        self._connection = None

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=5)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                self._connection.terminate()
        self._connection = None
