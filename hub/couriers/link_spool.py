"""What goes over a link, on disk: the bytes that are pushed, the same ones however often they are.

A peer knows a repeated transfer by its bytes. They depend on when they were made: a conversion has names of the
day's directory in it. So they are made once, flushed to disk under the message's id before the first byte leaves,
and kept until the peer has them. A name that exists is complete; two processes that make the same message at a
time use the one that was named first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

from hub.couriers.axis import Delivery
from hub.couriers.axis_given import AxisGiver
from hub.store.blobs import _flush_folder
from protocol.edxml.trace import TraceAppender, trace_header

_PIECE = 256 << 10


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message ready to be pushed."""

    path: Path
    digest: bytes


class Spool:
    """The outgoing messages of one link."""

    def __init__(self, root: Path, giver: AxisGiver, own_code: str) -> None:
        """`own_code` stands in the TraceHeader that is appended."""
        self._root = root
        self._giver = giver
        self._own_code = own_code
        root.mkdir(parents=True, exist_ok=True)

    async def ready(self, delivery: Delivery) -> Spooled:
        """The bytes of a message for the peer. Raises `Refusal` or `Problem` where they cannot be made."""
        path = self._root / f"{delivery.id}.edxml"
        if not path.exists():
            await self._make(delivery, path)
        return Spooled(path, await asyncio.to_thread(_digest, path))

    async def keep(self, message: UUID, content: bytes) -> Spooled:
        """`content` in the place of a message's own bytes, unless there are some already."""
        path = self._root / f"{message}.edxml"
        if not path.exists():
            await asyncio.to_thread(self._keep, content, path)
        return Spooled(path, await asyncio.to_thread(_digest, path))

    async def _make(self, delivery: Delivery, path: Path) -> None:
        appender = TraceAppender(trace_header(self._own_code, delivery.accepted_at))
        temporary = self._root / f"{uuid4().hex}.new"
        try:
            with await asyncio.to_thread(temporary.open, "xb") as file:
                async with self._giver.open(delivery) as given:
                    async for piece in given.pieces(_PIECE):
                        file.write(await asyncio.to_thread(appender.feed, piece))
                file.write(appender.close())
                await asyncio.to_thread(_name, file, temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _keep(self, content: bytes, path: Path) -> None:
        temporary = self._root / f"{uuid4().hex}.new"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                _name(file, temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def drop(self, message: UUID) -> None:
        (self._root / f"{message}.edxml").unlink(missing_ok=True)

    def clean(self) -> None:
        """Delete what was being made when a process died."""
        for path in self._root.glob("*.new"):
            path.unlink(missing_ok=True)


def _name(file: BinaryIO, temporary: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    _flush_folder(path.parent)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
