"""What a native reader is given of a message in edXML: the same as a `Document`, made when it is asked for.

The original stays as it is. The files in it become attachments of the hub the first time somebody asks, so that
they are fetched like any other; they leave with the message.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any, BinaryIO

import asyncpg
import structlog

from hub.relay.format import Format
from hub.store import sql
from hub.store.blobs import Blobs, Incoming
from protocol.edxml.convert import native_attachment, to_native
from protocol.edxml.model import Message
from protocol.edxml.reader import read_message
from protocol.edxml.wrapping import unwrap
from protocol.manifest import open_native
from protocol.message import Attachment, write_document
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("attachments")

AT_ONCE = 2
"""Conversions under way in one process; each is a thread and writes the files to disk."""


class NativeGiver:
    """Gives messages as native documents, for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], blobs: Blobs, max_bytes: int) -> None:
        """`max_bytes`: what the files of a message may unpack to, altogether."""
        self._pool = pool
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def document(self, row: asyncpg.Record) -> tuple[bytes, bool]:
        """A stored message as a document's JSON, and whether it was converted for that.

        Raises `Problem` not-convertible for a notice of the hub and for what a document cannot say, or internal.
        """
        if row["format"] == Format.RECEIPT:
            raise Problem("not-convertible", "a notice of the hub is a receipt; it is no document")
        if row["format"] != Format.EDXML:
            return open_native(row["body"])[0].payload, False
        async with self._turns:
            try:
                document, files = await asyncio.to_thread(self._convert, row)
            except FileNotFoundError:
                log.error("a blob is missing", message=str(row["id"]))
                raise Problem(
                    "internal", "the hub does not find these bytes; its operator can see which"
                ) from None
            except Problem as problem:
                raise Problem(
                    "not-convertible", f"the message cannot be written as a document: {problem}"
                ) from None
        if files:
            await self._pool.execute(
                SQL.adopt,
                [bytes.fromhex(file.sha256) for file in files],
                [file.size for file in files],
                row["endpoint"],
                row["id"],
            )
        return document, True

    def _convert(self, row: asyncpg.Record) -> tuple[bytes, list[Attachment]]:
        if row["body"] is not None:
            return self._read(row, io.BytesIO(row["body"]))
        with self._blobs.path(row["digest"]).open("rb") as file:
            return self._read(row, file)

    def _read(self, row: asyncpg.Record, source: BinaryIO) -> tuple[bytes, list[Attachment]]:
        carried: dict[int, Incoming] = {}
        unpacked: dict[int, Incoming] = {}

        def sink(index: int) -> Incoming:
            carried[index] = self._blobs.incoming()
            return carried[index]

        try:
            reading = read_message(source, sink)
            message, files, room = reading.message, [], self._max_bytes
            for index, content in enumerate(reading.contents):
                if content is None:
                    continue
                found = carried[index]
                if self._unpack(message, index, found, unpacked, room):
                    found = unpacked[index]
                    room -= found.size
                files.append(
                    native_attachment(message, index, found.size, found.sha256.hex(), unpacked=index in unpacked)
                )
            # A status has no id of its own in edXML; a document has its DocumentId.
            message_id = str(row["id"]) if message.is_status else ""
            document = write_document(to_native(message, files, message_id))
            for incoming in (carried | unpacked).values():
                incoming.keep()
            return document, files
        finally:
            for incoming in (*carried.values(), *unpacked.values()):
                incoming.drop()

    def _unpack(
        self, message: Message, index: int, carried: Incoming, unpacked: dict[int, Incoming], room: int
    ) -> bool:
        """Take one file out of the zip that it may be in; all of a message's have `room` bytes."""
        declared = message.attachments[index]
        with carried.path.open("rb") as file:
            inner = unwrap(file, declared.content_type or "", declared.attachment_name or "", room)
            if inner is None:
                return False
            unpacked[index] = self._blobs.incoming()
            for piece in inner:
                unpacked[index].write(piece)
        return True
