"""HTTP by hand: for clients that stop in the middle, dawdle, or say several things at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", "Host: hub", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A whole request."""
    return head(method, path, {**headers, "Content-Length": str(len(body))}) + body


class RawConnection:
    """One connection to a hub. Whatever is awaited here ends within `ANSWER_SECONDS` or fails."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.local_port = int(writer.get_extra_info("sockname")[1])

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """The next response. Raises IncompleteReadError when the hub closed instead."""
        async with asyncio.timeout(ANSWER_SECONDS):
            start, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(start.split()[1]), headers, body)

    async def interim(self, status: int) -> None:
        """An interim response (1xx) has come, and it is this one."""
        async with asyncio.timeout(ANSWER_SECONDS):
            start, *_ = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        assert int(start.split()[1]) == status, start

    async def ended(self) -> bytes:
        """What the hub still says until it closes the connection."""
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def finish(self) -> None:
        """Say that nothing more will come, and go on listening."""
        self._writer.write_eof()

    async def close(self) -> None:
        """Close without further ado, as a client does that crashed."""
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[RawConnection]:
    """A connection to the hub at `url`."""
    parts = urlsplit(url)
    connection = RawConnection(*await asyncio.open_connection(parts.hostname, parts.port))
    try:
        yield connection
    finally:
        await connection.close()


def served_here(port: int) -> bool:
    """Whether a hub in this process still holds the connection that a client opened from `port`."""
    return any(found.raddr and found.raddr.port == port for found in psutil.Process().net_connections("tcp"))
