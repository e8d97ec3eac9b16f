"""Connections that never finish their request, or never take their answer, are closed.

aiohttp bounds idle keep-alive connections and handlers bound their bodies. What is left is a client that
sends a request's head a byte at a time (slow loris), or that asks and does not read. Each connection gets
`seconds` from its first byte, or from being opened, to a complete head, and as long to take some of an answer
that does not fit into the system's buffers.

A client that is refused and comes back at once, again and again, costs as much as one that is served. Of
refusals because of load, rate or token, a connection gets `REFUSALS` a second and waits for the others.

aiohttp lets a handler run on when its client has gone, which is right for work that was begun. Whoever
only waits for the client's sake does so inside `while_connected`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from hub.doors.http import problem_response
from protocol.problems import Problem

REFUSALS = 20


class GuardedHandler(RequestHandler):
    """aiohttp's connection with a deadline for each request's head, and for progress of its answer."""

    __slots__ = (
        "_ended",
        "_head_timer",
        "_refused",
        "_refused_since",
        "_seconds",
        "_take_timer",
        "_untaken",
        "waiting",
    )

    def __init__(self, manager: Any, seconds: float, ended: Callable[[], None], **options: Any) -> None:
        """`ended` is called when the connection is closed."""
        super().__init__(manager, **options)
        self._ended = ended
        self._seconds = seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None
        self._untaken = 0
        self._refused = 0
        self._refused_since = 0.0
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
        self._ended()
        self._stop_timer()
        self._stop_watching()
        if self.waiting is not None:
            self.waiting.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def refused(self) -> float:
        """Seconds for which to hold back the refusal that is about to be sent."""
        now = self._loop.time()
        if now - self._refused_since > 1:
            self._refused, self._refused_since = 0, now
        self._refused += 1
        return 0.0 if self._refused <= REFUSALS else self._refused_since + 1 - now

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
        # A body that is malformed was answered; aiohttp meets it again when it skips what is left of it. And
        # whoever leaves in the middle is nobody's mistake: a crowd of them must not fill the log.
        if not isinstance(options.get("exc_info"), (web.RequestPayloadError, ConnectionResetError)):
            super().log_exception(*arguments, **options)

    def _start_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_taking(self) -> None:
        if self.transport is not None:
            self._untaken = self.transport.get_write_buffer_size()
            self._take_timer = self._loop.call_later(self._seconds, self._check_taking)

    def _stop_watching(self) -> None:
        if self._take_timer is not None:
            self._take_timer.cancel()
            self._take_timer = None

    def _check_taking(self) -> None:
        """Nothing is written while writing is paused: what waits must have become less."""
        self._take_timer = None
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() < self._untaken:
            self._watch_taking()
        else:
            self.transport.abort()

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
