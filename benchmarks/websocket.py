"""A WebSocket client on a bare asyncio protocol (RFC 6455), for a load generator that should cost little.

Only what the hub's stream door sends is understood: whole text frames, pings, closing. Client frames must be
masked; the mask is zero, which the hub cannot tell from any other and which leaves the bytes as they are.
"""

from __future__ import annotations

import asyncio
import os
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_FIN = 0x80
_MASKED = 0x80
_NO_MASK = b"\0\0\0\0"


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FIN | opcode, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, _MASKED | 127, size)
    return b"".join((head, _NO_MASK, payload))


class Socket(asyncio.Protocol):
    """One connection. `received(text)` is called for each frame, `ended(reason)` once when it is over."""

    __slots__ = ("_ended", "_have", "_need", "_opened", "_parts", "_received", "_reply", "transport")

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[str], None]) -> None:
        self._received = received
        self._ended = ended
        self._opened: asyncio.Future[None] | None = None
        self._reply = b""
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 2
        self.transport: asyncio.Transport

    async def open(self, address: tuple[str, int], path: str, token: str, subprotocol: str) -> None:
        """Connect and shake hands. Raises ConnectionError when the server does not want to."""
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        await loop.create_connection(lambda: self, *address)
        key = b64encode(os.urandom(16)).decode()
        self.transport.write(
            (
                f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nAuthorization: Bearer {token}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
            ).encode()
        )
        await self._opened

    def send(self, payloads: Iterable[bytes]) -> None:
        """Send each as a frame, together."""
        self.transport.write(b"".join(map(frame, payloads)))

    def close(self) -> None:
        """Cut the connection."""
        self.transport.close()

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection ended: {exc or 'closed'}")

    def data_received(self, data: bytes) -> None:
        if self._opened is not None:
            data = self._shake(data)
        if not data:
            return
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        buffer = b"".join(self._parts) if len(self._parts) > 1 else data
        start = 0
        while True:
            size = _size(buffer, start)
            if size > len(buffer) - start:
                break
            self._take(buffer, start, start + size)
            start += size
        rest = buffer[start:]
        self._parts = [rest] if rest else []
        self._have, self._need = len(rest), size

    # -- inside ---------------------------------------------------------------------------------

    def _shake(self, data: bytes) -> bytes:
        """Read the answer to the handshake; returns what came after it."""
        self._reply += data
        head, blank, rest = self._reply.partition(b"\r\n\r\n")
        if not blank:
            return b""
        if head.startswith(b"HTTP/1.1 101"):
            opened, self._opened = self._opened, None
            if opened is not None and not opened.done():
                opened.set_result(None)
            return rest
        self._fail(f"the server answered {self._reply[:200]!r}")
        return b""

    def _take(self, buffer: bytes, start: int, end: int) -> None:
        opcode = buffer[start] & 0x0F
        payload = buffer[start + _head(buffer[start + 1]) : end]
        if opcode == _TEXT:
            self._received(payload)
        elif opcode == _PING:
            self.transport.write(frame(payload, _PONG))
        elif opcode == _CLOSE:
            self._fail(f"the server closed the connection: {payload[2:].decode(errors='replace')}")

    def _fail(self, reason: str) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            if not opened.done():
                opened.set_exception(ConnectionError(reason))
            return
        self._ended(reason)


def _head(second: int) -> int:
    """Length of a server's frame's head, from its second byte."""
    return {126: 4, 127: 10}.get(second, 2)


def _size(buffer: bytes, start: int) -> int:
    """Length of the frame at `start` with its head; as much as is known of it when the head is not whole."""
    have = len(buffer) - start
    if have < 2:
        return 2
    second = buffer[start + 1]
    head = _head(second)
    if have < head:
        return head
    if head == 2:
        return 2 + second
    return head + int.from_bytes(buffer[start + 2 : start + head], "big")
