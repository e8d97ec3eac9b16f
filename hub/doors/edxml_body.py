"""Taking in the body of a request that is an edXML message: small ones in memory, large ones as a blob."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from aiohttp import web

from hub.config import Config
from hub.doors.http import chunks, in_pieces, read_body, sizes
from hub.relay.admission import Room
from hub.relay.batch import digest_of
from hub.relay.intake import Stored
from hub.store.blobs import Blobs, Incoming
from protocol import edxml
from protocol.problems import Problem

INLINE_XML_BYTES = 1 << 20
"""A larger edXML message becomes a blob, and its row holds no body."""
_THREAD_XML_BYTES = 64 << 10
"""From here on an edXML message is parsed off the event loop (about 0.5 ms)."""


class Body:
    """A message that has arrived, and is not yet read."""

    def __init__(self, digest: bytes, size: int, content: bytes | None, incoming: Incoming | None) -> None:
        self.digest = digest
        self.size = size
        self._content = content
        self._incoming = incoming

    @classmethod
    async def of(cls, incoming: Incoming) -> Body:
        """What has arrived on disk. The caller has room for as much as `in_memory` says, and drops `incoming`."""
        small = incoming.size <= INLINE_XML_BYTES
        held = await asyncio.to_thread(incoming.path.read_bytes) if small else None
        return cls(incoming.sha256, incoming.size, held, incoming)

    async def read(self) -> Stored:
        """What the intake takes: its header, or why it has none, since that refusal is sealed like any other."""
        if self._incoming is None:
            assert self._content is not None
            return Stored(await _header(self._content), self.digest, self.size, self._content)
        path = self._incoming.path
        with path.open("rb") as file:
            header = await _header(file)
        if self._content is not None:
            return Stored(header, self.digest, self.size, self._content)
        return Stored(header, self.digest, self.size, None, self._keep, path)

    async def _keep(self) -> None:
        assert self._incoming is not None
        await asyncio.to_thread(self._incoming.keep)


def in_memory(incoming: Incoming) -> int:
    """How many bytes of what has arrived on disk `Body.of` holds in memory: a small message whole, else none."""
    return incoming.size if incoming.size <= INLINE_XML_BYTES else 0


def edxml_sizes(request: web.Request) -> tuple[int, int]:
    """What `Intake.room` is to be asked for before the body is read (`hub.doors.http.sizes`)."""
    length = request.content_length
    return sizes(request, INLINE_XML_BYTES) if length is not None and length <= INLINE_XML_BYTES else (0, 0)


@contextlib.asynccontextmanager
async def edxml_body(
    request: web.Request, config: Config, blobs: Blobs, room: Room, upload: Callable[[], Room]
) -> AsyncIterator[Body]:
    """The request's body for as long as the block runs; a blob that was not kept is gone afterwards.

    `room` is held for it, `upload` gives room for what goes to disk. Raises `Problem` too-large, timeout or
    overloaded.
    """
    length, seconds = request.content_length, config.request_seconds
    if length is not None and length <= INLINE_XML_BYTES:
        content = await read_body(request, min(INLINE_XML_BYTES, config.max_xml_bytes), seconds, room.reach)
        yield Body(digest_of(content), len(content), content, None)
        return
    with upload() as piece:
        stream = chunks(request, config.max_xml_bytes, seconds, in_pieces(room, piece))
        incoming = await blobs.receive(stream, config.max_xml_bytes)
    try:
        room.reach(in_memory(incoming))
        yield await Body.of(incoming)
    finally:
        incoming.drop()


async def _header(source: bytes | BinaryIO) -> edxml.Header | Problem:
    try:
        if isinstance(source, bytes) and len(source) < _THREAD_XML_BYTES:
            return edxml.read(source, whole=True)
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        return await asyncio.to_thread(edxml.read, stream, whole=True)
    except Problem as problem:
        return problem
