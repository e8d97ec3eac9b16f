"""Locks that one process at a time holds, over all nodes: for work that needs one owner.

They are PostgreSQL's advisory locks of one session, on a connection that nothing else uses. Were they taken on
pooled connections, as many pieces of work as the pool has connections could hold them all and wait for one more
for ever. A lost connection loses its locks; whoever works under one finishes its turn, which another process
may begin too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg

from hub.store.pool import UNAVAILABLE
from hub.store.reconnect import Reconnecting


class Locks:
    """The locks of one process. `pool` documents the numbers."""

    def __init__(self, url: str) -> None:
        self._connection = Reconnecting(url, "locks")
        self._using = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def hold(self, number: int) -> AsyncIterator[bool]:
        """Whether the lock is this process's until the block ends. Raises what a lost database raises."""
        async with self._using:
            connection = await self._connection.get()
            mine = bool(await connection.fetchval("select pg_try_advisory_lock($1)", number))
        try:
            yield mine
        finally:
            if mine:
                # A connection that is lost has lost its locks too. It must not hide a cancellation.
                with contextlib.suppress(*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                    async with self._using:
                        if not connection.is_closed():
                            await connection.fetchval("select pg_advisory_unlock($1)", number)

    async def close(self) -> None:
        await self._connection.close()
