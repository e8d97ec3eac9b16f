"""Attachments: bytes in the blob store, and who may read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from hub.store import sql
from hub.store.blobs import Blobs
from protocol.problems import Problem

SQL = sql.load("attachments")


class Attachments:
    """Stores attachments for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], blobs: Blobs) -> None:
        self._pool = pool
        self._blobs = blobs

    async def store(
        self, sha256: bytes, endpoint: int, stream: AsyncIterator[bytes], limit: int
    ) -> tuple[bool, int]:
        """Take in the attachment `sha256` for `endpoint`. Returns whether it is new there, and its size.

        An endpoint has to send the bytes even when the hub has them: knowing a digest is not having the
        file. Raises `Problem` digest-mismatch or too-large; then nothing is kept.
        """
        incoming = await self._blobs.receive(stream, limit)
        try:
            if incoming.sha256 != sha256:
                raise Problem(
                    "digest-mismatch",
                    f"the {incoming.size} bytes received have the SHA-256 {incoming.sha256.hex()}",
                    received=incoming.sha256.hex(),
                )
            await asyncio.to_thread(incoming.keep)
        finally:
            incoming.drop()
        created = await self._pool.fetchval(SQL.add, sha256, incoming.size, endpoint)
        return bool(created), incoming.size

    async def owns(self, sha256: bytes, endpoint: int) -> bool:
        """Whether an endpoint uploaded an attachment, and so may name it."""
        return bool(await self._pool.fetchval(SQL.owns, sha256, endpoint))

    async def may_read(self, sha256: bytes, endpoint: int) -> bool:
        """Whether an endpoint uploaded an attachment or was sent a message that names it."""
        return bool(await self._pool.fetchval(SQL.may_read, sha256, endpoint))
