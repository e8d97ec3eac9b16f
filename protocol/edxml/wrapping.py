"""The zip that the axis carries files in: made, recognised, and opened within limits.

The axis's builders put each file into a zip of exactly one entry, named `<uuid>.<extension>`; the real name
stands beside it. Some declare `application/zip`, some the file's own type; others send the file itself, which
may be a zip too (every docx and xlsx is one). So a zip counts as a wrapper when it has one entry and either
that is named by a UUID, or the declared type is that of a zip although the real name is not that of one.

What counts as no wrapper is the file itself, and is not looked into. Nothing is ever unpacked by the name
that stands in a zip.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from protocol.edxml.header import refusal
from protocol.edxml.reader import CONTENT_PATH
from protocol.problems import Problem

ZIP_TYPE = "application/zip"
MAGIC = b"PK\x03\x04"
MAX_RATIO = 200
"""How many times its zip a file may be, beyond `FREE_BYTES`. Deflate reaches 1,032."""
FREE_BYTES = 16 * 1024 * 1024
_PIECE = 64 * 1024
_END = struct.Struct("<4s4H2LH")  # the end of the central directory (APPNOTE 4.3.16)
_MAX_DIRECTORY = 64 * 1024
_ZIP_TYPES = (ZIP_TYPE, "application/x-zip-compressed", "application/x-zip")
_UUID_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.[^/\\]{0,20})?", re.IGNORECASE)
_DATE = (1980, 1, 1, 0, 0, 0)
"""The same in every zip, so that the same file gives the same bytes."""


def wrap(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A zip in pieces, with `chunks` as its one entry `name`, which should be `<uuid>.<extension>`.

    Raises `Problem` too-large, in the midst of it, for a file of 2 GiB and more.
    """
    out, size = _Pieces(), 0
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w") as archive, archive.open(info, "w") as entry:
        for chunk in chunks:
            size += len(chunk)
            if size > zipfile.ZIP64_LIMIT:
                raise Problem("too-large", "a file of 2 GiB or more does not fit into edXML's zip")
            entry.write(chunk)
            if piece := out.take():
                yield piece
    yield out.take()


def unwrap(file: BinaryIO, content_type: str, name: str, max_bytes: int) -> Iterator[bytes] | None:
    """The file inside the zip that `file` is, in pieces; None when `file` is no wrapper but the file itself.

    `file` can seek; `content_type` and `name` are what its message declares. The pieces raise `Problem`
    too-large beyond `max_bytes` or `MAX_RATIO`, and bad-edxml for a zip that is damaged.
    """
    packed = _single_entry_size(file)
    if packed is None:
        return None
    try:
        archive = zipfile.ZipFile(file)
        (entry,) = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return None
    declared = content_type.strip().lower() in _ZIP_TYPES and not name.strip().lower().endswith(".zip")
    plain = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not entry.flag_bits & 1
    if entry.is_dir() or not plain or not (declared or _UUID_NAME.fullmatch(entry.filename)):
        return None
    return _unpacked(archive, entry, min(max_bytes, max(FREE_BYTES, packed * MAX_RATIO)))


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    size = 0
    try:
        with archive.open(entry) as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise Problem("too-large", f"a zipped attachment unpacks to more than {limit} bytes")
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise refusal(((f"T.{CONTENT_PATH}", "is a zip that is damaged"),)) from None


def _single_entry_size(file: BinaryIO) -> int | None:
    """The size of `file` if it ends as a zip with one entry does; a zip's directory is not read but for that."""
    file.seek(0)
    magic = file.read(len(MAGIC))
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if magic != MAGIC or at < 0 or len(tail) - at < _END.size:
        return None
    _, _, _, _, entries, directory, _, _ = _END.unpack_from(tail, at)
    zip64 = tail[max(0, at - 20) : at].startswith(b"PK\x06\x07")
    return size if entries == 1 and directory <= _MAX_DIRECTORY and not zip64 else None


class _Pieces(io.RawIOBase):
    """A file that can only be written, and gives back what was."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
