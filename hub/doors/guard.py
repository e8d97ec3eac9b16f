"""Connections that never finish their request are closed.

aiohttp bounds idle keep-alive connections and handlers bound their bodies; what is left is a client that
sends a request's head a byte at a time (slow loris). Each connection gets `head_seconds` from its first
byte, or from being opened, to a complete head.

aiohttp lets a handler run on when its client has gone, which is right for work that was begun. Whoever
only waits for the client's sake does so inside `while_connected`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from hub.doors.http import problem_response
from protocol.problems import Problem


class GuardedHandler(RequestHandler):
    """aiohttp's connection with a deadline for each request's head."""

    __slots__ = ("_head_seconds", "_head_timer", "waiting")

    def __init__(self, manager: Any, head_seconds: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self.waiting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._stop_timer()
        elif self._head_timer is None:
            self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self.waiting is not None:
            self.waiting.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the parser does not take as HTTP: a problem like all others, and no traceback in the log."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        reason = (message or "").partition("\n")[0][:200]
        response = problem_response(Problem("bad-request", f"the request is not valid HTTP: {reason}"))
        response.force_close()
        return response

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        # A body that is malformed was answered; aiohttp meets it again when it skips what is left of it.
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*arguments, **options)

    def _start_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._messages and self._current_request is None:
            self.force_close()


@contextlib.contextmanager
def while_connected(request: web.Request) -> Iterator[None]:
    """Cancel the block when the request's client goes away. Raises ConnectionResetError when it has."""
    protocol = request.protocol
    if request.transport is None:
        raise ConnectionResetError("the client has gone")
    if not isinstance(protocol, GuardedHandler):
        yield
        return
    protocol.waiting = asyncio.current_task()
    try:
        yield
    finally:
        protocol.waiting = None
