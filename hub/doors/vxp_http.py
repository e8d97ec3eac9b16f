"""HTTP as the axis's interface needs it: bodies that wait to be asked for, answers in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

import pybase64
from aiohttp import web

from hub.config import Config
from hub.couriers.axis_given import Given
from hub.doors.http import SECURITY_HEADERS, read_body

JSON = "application/json"
MAX_BODY = 64 << 10
"""Bytes of a body that is no document."""
PIECE = 3 << 18
"""Bytes of a document handled at once: a multiple of three, so that base64 has no gaps."""


async def later(request: web.Request) -> None:
    """For aiohttp, which would ask for the body before anybody has looked at the head."""


async def go_on(request: web.Request) -> None:
    """Ask for the body, if the caller waits to be asked (RFC 9110, section 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def is_lost(request: web.Request) -> bool:
    """Whether it is too late for an answer: one has begun, or the caller has gone."""
    return request.writer.output_size > 0 or request.transport is None or request.transport.is_closing()


async def write(request: web.Request, body: bytes) -> web.StreamResponse:
    """Answer with JSON. Raises ConnectionError when the caller has gone."""
    if len(body) > 1 << 20:
        return await stream(request, JSON, len(body), _one(body))
    response = web.Response(body=body, content_type=JSON, headers=SECURITY_HEADERS)
    _close_unread(request, response)
    await response.prepare(request)
    await response.write_eof()
    return response


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _close_unread(request: web.Request, response: web.StreamResponse) -> None:
    """What is left of a body that nobody reads would be taken for the next request."""
    if not request.content.is_eof():
        response.force_close()


async def stream(
    request: web.Request, content_type: str, size: int | None, pieces: AsyncIterable[bytes]
) -> web.StreamResponse:
    """Answer with `size` bytes in pieces; None: in chunks (RFC 9112, section 7.1).

    Raises what the pieces raise, and ConnectionError when the caller has gone.
    """
    response = web.StreamResponse(headers={"Content-Type": content_type, **SECURITY_HEADERS})
    response.content_length = size
    _close_unread(request, response)
    await response.prepare(request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


async def as_base64(given: Given, head: bytes, tail: bytes) -> AsyncIterator[bytes]:
    """A document as a JSON string between `head` and `tail`."""
    yield head + b'"'
    async for piece in given.pieces(PIECE):
        yield pybase64.b64encode(piece)
    yield b'"' + tail


async def small_body(request: web.Request, config: Config) -> bytes:
    """A body that is no document. Raises `Problem` too-large or timeout."""
    if not request.body_exists:
        return b""
    await go_on(request)
    return await read_body(request, MAX_BODY, config.request_seconds)
