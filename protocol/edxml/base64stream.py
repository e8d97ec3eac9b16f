"""Base64 in pieces: text to bytes and bytes to text, a few kilobytes at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import msgspec
import pybase64

from protocol.edxml.values import SPACE
from protocol.problems import LienthongError

_SPACE = SPACE.encode()
_PIECE = 48 * 1024
"""Bytes encoded at once: a multiple of three, so that no piece but the last is padded."""


class NotBase64Error(LienthongError):
    """A text that is not base64; the message says why."""


class Content(msgspec.Struct, frozen=True):
    """The bytes of an attachment as they were carried: how many, and their SHA-256 in lower-case hex."""

    size: int
    sha256: str


class Decoder:
    """Decodes base64 with blanks anywhere; what comes out goes to `write`, when there is one.

    Padding may be missing at the end, as some builders leave it out; nothing may follow it. Raises
    `NotBase64Error` for anything else.
    """

    def __init__(self, write: Callable[[bytes], object] | None) -> None:
        self._write = write
        self._digest = hashlib.sha256()
        self._size = 0
        self._rest = b""
        self._padded = False

    def feed(self, text: str) -> None:
        if not text.isascii():
            raise NotBase64Error("there is a letter beyond ASCII")
        data = self._rest + text.encode().translate(None, _SPACE)
        whole = len(data) & ~3
        self._rest = data[whole:]
        if whole and not self._padded:
            self._put(data[:whole])
            whole = 0
        if self._padded and (whole or self._rest):
            raise NotBase64Error("there is more after the padding")

    def close(self) -> Content:
        if self._rest:
            self._put(self._rest + b"=" * (-len(self._rest) % 4))
        return Content(self._size, self._digest.hexdigest())

    def _put(self, block: bytes) -> None:
        self._padded = block.endswith(b"=")
        try:
            decoded = pybase64.b64decode(block, validate=True)
        except ValueError:
            raise NotBase64Error("there is a character that does not belong, or one is missing") from None
        self._size += len(decoded)
        self._digest.update(decoded)
        if self._write is not None:
            self._write(decoded)


def encode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 of `chunks` put together, without line breaks."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % 3
        for start in range(0, whole, _PIECE):
            yield pybase64.b64encode(data[start : min(start + _PIECE, whole)])
        rest = data[whole:]
    if rest:
        yield pybase64.b64encode(rest)
