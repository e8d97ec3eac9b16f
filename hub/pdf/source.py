"""The PDFs among a message's files, wherever they are: blobs beside a native message, base64 inside an edXML one.

What counts as a PDF is what its first bytes say, since that is what opens in a reader; a name alone makes none.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hub.pdf.result import MAGIC_WITHIN, is_pdf
from hub.store.blobs import Blobs, Incoming
from protocol.edxml.reader import read_message
from protocol.edxml.wrapping import MAGIC as ZIP_MAGIC
from protocol.edxml.wrapping import unwrap
from protocol.message import Attachment

_PDF_TYPE = "application/pdf"


@dataclass(frozen=True, slots=True)
class File:
    """One attachment of a message."""

    name: str
    sha256: bytes
    size: int
    path: Path
    pdf: bool
    """Whether it is a PDF."""
    named_pdf: bool
    """Whether its name or its type says so."""


class Files:
    """A message's files; those that were taken out of it are on disk until the block ends."""

    def __init__(self, files: list[File], stack: contextlib.ExitStack | None = None) -> None:
        self._files = files
        self._stack = stack or contextlib.ExitStack()

    def __enter__(self) -> list[File]:
        return self._files

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def native_files(blobs: Blobs, attachments: Sequence[Attachment]) -> Files:
    """A native message's. Blocks on the disk. Raises FileNotFoundError."""
    found = []
    for attachment in attachments:
        sha256 = bytes.fromhex(attachment.sha256)
        path = blobs.path(sha256)
        with path.open("rb") as file:
            pdf = is_pdf(file.read(MAGIC_WITHIN))
        named = _named_pdf(attachment.name, attachment.media_type)
        found.append(File(attachment.name, sha256, attachment.size, path, pdf, named))
    return Files(found)


def _named_pdf(name: str, media_type: str) -> bool:
    return name.strip().lower().endswith(".pdf") or media_type.strip().lower().split(";")[0] == _PDF_TYPE


def edxml_files(blobs: Blobs, source: bytes | Path, max_bytes: int) -> Files:
    """The PDFs, and what is only called one, in an edXML message.

    A file that the axis put into a zip is taken out; all together may unpack to `max_bytes`. Blocks. Raises
    `Problem` bad-xml, bad-edxml or too-large, and FileNotFoundError.
    """
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as reading:
        stream = io.BytesIO(source) if isinstance(source, bytes) else reading.enter_context(source.open("rb"))
        return Files(_extract(blobs, stream, max_bytes, stack), stack.pop_all())


def _extract(blobs: Blobs, source: BinaryIO, max_bytes: int, stack: contextlib.ExitStack) -> list[File]:
    sinks: dict[int, _Sink] = {}

    def sink(index: int) -> _Sink:
        sinks[index] = _Sink(blobs, stack)
        return sinks[index]

    message = read_message(source, sink).message
    found, room = [], max_bytes
    for index, declared in enumerate(message.attachments):
        if index not in sinks:
            continue
        carried = sinks[index].close()
        name, media_type = declared.attachment_name or "", declared.content_type or ""
        named = _named_pdf(name, media_type)
        if carried is None:
            if named:
                found.append(File(name, b"", 0, Path(), False, True))
            continue
        with carried.path.open("rb") as file:
            inner = unwrap(file, media_type, name, room)
            if inner is not None:
                carried = blobs.incoming()
                stack.callback(carried.drop)
                for piece in inner:
                    carried.write(piece)
                room -= carried.size
        with carried.path.open("rb") as file:
            pdf = is_pdf(file.read(MAGIC_WITHIN))
        if pdf or named:
            found.append(File(name, carried.sha256, carried.size, carried.path, pdf, named))
    return found


class _Sink:
    """Keeps a file that begins as a PDF or a zip; of others nothing."""

    def __init__(self, blobs: Blobs, stack: contextlib.ExitStack) -> None:
        self._blobs = blobs
        self._stack = stack
        self._head = bytearray()
        self._file: Incoming | None = None
        self._decided = False

    def write(self, data: bytes, /) -> None:
        if not self._decided:
            self._head += data
            if len(self._head) >= MAGIC_WITHIN:
                self._decide()
        elif self._file is not None:
            self._file.write(data)

    def _decide(self) -> None:
        self._decided = True
        if is_pdf(bytes(self._head)) or self._head.startswith(ZIP_MAGIC):
            self._file = self._blobs.incoming()
            self._stack.callback(self._file.drop)
            self._file.write(bytes(self._head))
        self._head.clear()

    def close(self) -> Incoming | None:
        """The file, if it was kept."""
        if not self._decided:
            self._decide()
        return self._file
