"""Connections that never finish their request are closed.

aiohttp bounds idle keep-alive connections and handlers bound their bodies; what is left is a client that
sends a request's head a byte at a time (slow loris). Each connection gets `head_seconds` from its first
byte, or from being opened, to a complete head.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp.web_protocol import RequestHandler


class GuardedHandler(RequestHandler):
    """aiohttp's connection with a deadline for each request's head."""

    __slots__ = ("_head_seconds", "_head_timer")

    def __init__(self, manager: Any, head_seconds: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None

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
        super().connection_lost(exc)

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
