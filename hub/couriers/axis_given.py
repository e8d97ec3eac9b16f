"""What a system of the axis is given: the sender's bytes where they are edXML, a conversion where they are not.

A conversion is made while it is handed over, and says that it is one; the original stays as it is and can be
fetched from the hub's own interface. Whatever their size, bytes are handed on in pieces and nothing of them is
kept: a conversion's size is not known before its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from hub.couriers.axis import Delivery
from hub.directory.follow import Directory
from hub.directory.picture import Picture
from hub.relay.format import Format
from hub.store.blobs import Blobs
from protocol.edxml.convert import entry_name, from_native
from protocol.edxml.model import Organ
from protocol.edxml.wrapping import wrap
from protocol.edxml.writer import write_message
from protocol.manifest import open_native
from protocol.problems import Problem
from protocol.vxp import Code, Refusal

log = structlog.get_logger()

_CHUNK = 256 << 10


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Given:
    """An edXML message to be handed over. `size` is in bytes, None where only the end will tell."""

    size: int | None
    _source: bytes | _Source

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """The bytes, `size` at a time; only the last piece is shorter. Raises `Problem` or OSError in between."""
        if isinstance(self._source, bytes):
            for start in range(0, len(self._source), size):
                yield self._source[start : start + size]
            return
        while piece := await asyncio.to_thread(self._source.read, size):
            yield piece


class _Regrouped:
    """Reads pieces of any size as if they were a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self._buffer) < size and (piece := next(self._pieces, b"")):
            self._buffer += piece
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


class AxisGiver:
    """Opens messages for systems of the axis, for one process."""

    def __init__(self, blobs: Blobs, directory: Directory, max_bytes: int) -> None:
        """`max_bytes`: what the files of a document may come to that is to be converted."""
        self._blobs = blobs
        self._directory = directory
        self._max_bytes = max_bytes

    @contextlib.asynccontextmanager
    async def open(self, delivery: Delivery) -> AsyncIterator[Given]:
        """The message as edXML, while the block runs.

        Raises `Refusal` NOT_CONVERTIBLE, or `Problem` internal when its bytes are missing.
        """
        if delivery.format is not Format.EDXML:
            yield Given(None, _Regrouped(await asyncio.to_thread(self._convert, delivery)))
            return
        if delivery.body is not None:
            yield Given(len(delivery.body), delivery.body)
            return
        path = self._blobs.path(delivery.digest)
        _require(path)
        with await asyncio.to_thread(path.open, "rb") as file:
            yield Given(delivery.size, file)

    def _convert(self, delivery: Delivery) -> Iterator[bytes]:
        """A native document as edXML, in pieces."""
        picture = self._directory.picture
        try:
            document = open_native(delivery.body or b"")[1]
            # As it was addressed when it came: a group may have other members by now.
            document = msgspec.structs.replace(document, to=delivery.addressed)
            origin = f"{delivery.format.media_type} {delivery.id}"
            message = from_native(document, delivery.accepted_at, partial(_organ, picture), origin=origin)
        except Problem as problem:
            raise Refusal(Code.NOT_CONVERTIBLE, f"the document cannot be written as edXML: {problem}") from None
        if sum(attachment.size for attachment in document.attachments) > self._max_bytes:
            raise Refusal(
                Code.NOT_CONVERTIBLE,
                f"its files are larger than {self._max_bytes} bytes together; fetch it from /v1/messages",
            )
        files = [self._blobs.path(bytes.fromhex(attachment.sha256)) for attachment in document.attachments]
        for file in files:
            _require(file)
        contents = [
            wrap(entry_name(attachment), _read(file))
            for attachment, file in zip(message.attachments, files, strict=True)
        ]
        return write_message(message, contents)


def _require(path: Path) -> None:
    if not path.is_file():
        log.error("a blob is missing", path=str(path))
        raise Problem("internal", "the hub does not find these bytes; its operator can see which")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _organ(picture: Picture, code: str) -> Organ | None:
    agency = picture.agency(code)
    if agency is None:
        return None
    above = picture.agency(agency.parent) if agency.parent else None
    return Organ(
        organ_name=agency.name, organization_in_charge=above.name if above else None, email=agency.mail or None
    )
