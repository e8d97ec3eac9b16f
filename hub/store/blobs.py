"""Large bytes beside the database: attachments, and messages too large for a row.

A blob is a file named by its SHA-256, written under a temporary name, flushed to disk and only then
renamed: a name that exists is complete and durable, whenever the power went. (`obstore` was measured
for this and does not fsync: docs/adr/0003.) Nodes that share a database share this directory, by a
network file system, until an object store stands in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

from protocol.problems import Problem

CHUNK = 256 << 10
"""Bytes that are gathered for one write."""


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Blobs:
    """A directory of blobs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: bytes) -> Path:
        """Where a blob is, or would be."""
        name = sha256.hex()
        return self.root / name[:2] / name[2:4] / name

    async def receive(self, chunks: AsyncIterator[bytes], limit: int) -> Incoming:
        """Write a stream to disk, hashing it. The result must be kept or dropped.

        Raises `Problem` too-large beyond `limit` bytes. Holds about two chunks in memory.
        """
        incoming = Incoming(self._incoming / uuid4().hex, self)
        try:
            await asyncio.to_thread(incoming.open)
            buffer = bytearray()
            async for chunk in chunks:
                buffer += chunk
                if incoming.size + len(buffer) > limit:
                    raise Problem("too-large", f"at most {limit} bytes are accepted", limit=limit)
                if len(buffer) >= CHUNK:
                    await asyncio.to_thread(incoming.write, bytes(buffer))
                    buffer.clear()
            if buffer:
                await asyncio.to_thread(incoming.write, bytes(buffer))
        except BaseException:
            incoming.drop()
            raise
        return incoming

    def incoming(self) -> Incoming:
        """A blob to be written piece by piece, and kept or dropped. Blocks on the disk: call in a thread."""
        incoming = Incoming(self._incoming / uuid4().hex, self)
        incoming.open()
        return incoming

    def discard(self, sha256: bytes, older_than: float) -> bool:
        """Delete a blob if it was written before `older_than` (UNIX time); whether it is gone.

        A younger one may belong to a message that is being taken in, of which the store knows nothing yet.
        """
        path, aside = self.path(sha256), self._incoming / uuid4().hex
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= older_than:
                return False
            path.rename(aside)
            if aside.stat().st_mtime >= older_than:  # it was kept anew between the two
                aside.rename(path)
                return False
            aside.unlink()
        return True

    def clean(self, older_than: float) -> int:
        """Delete what uploads left behind when they were cut off, if last written before `older_than`
        (UNIX time). Returns how many there were.
        """
        count = 0
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < older_than:
                    path.unlink()
                    count += 1
        return count


class Incoming:
    """A blob being received."""

    def __init__(self, path: Path, blobs: Blobs) -> None:
        self.path = path
        self.size = 0
        self._blobs = blobs
        self._hash = hashlib.sha256()
        self._descriptor = -1

    def open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)

    def write(self, data: bytes, /) -> None:
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size += len(data)

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    def keep(self) -> Path:
        """Make the blob durable under its name. Blocks on the disk: call in a thread."""
        os.utime(self._descriptor)
        os.fsync(self._descriptor)
        self._close()
        path = self._blobs.path(self.sha256)
        # Also where it is already, so that its age is that of who kept it last (`Blobs.discard`).
        for folder in (path.parent.parent, path.parent):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                _flush_folder(folder.parent)
        self.path.rename(path)
        _flush_folder(path.parent)
        return path

    def drop(self) -> None:
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
