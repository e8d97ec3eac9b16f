"""Requests that are repeated until they are answered, refused for good, or out of time."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import orjson

from protocol.problems import Problem, from_members
from protocol.stream import MAX_ANSWER_BYTES, SUBPROTOCOL

Answer = TypeVar("Answer")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
STREAM_PATH = "/v1/stream"
MAX_BODY_BYTES = 256 << 20
"""Of the longest answer that is read whole: a directory of 10^6 agencies with their keys is about 150 MB."""
CLOSE_SECONDS = 3.0
"""How long the hub has to say that it heard of a WebSocket's end."""


async def read_whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises aiohttp.ClientError, also for one that does not end in time."""
    body = bytearray()
    async for piece in response.content.iter_chunked(1 << 18):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


async def raise_for_problem(response: aiohttp.ClientResponse) -> None:
    """Raise `Problem` when the answer is one. An answer that is not the hub's becomes one too."""
    if response.status < 400:
        return
    body = await read_whole(response)
    try:
        members = orjson.loads(body)
    except ValueError:
        members = {}
    problem = from_members(members if isinstance(members, dict) else {}, response.status)
    problem.retry_after = _retry_after(response.headers) or problem.retry_after
    raise problem


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds, where the answer says when to come again."""
    text = (headers or {}).get("Retry-After", "")
    return float(text) if text.isdigit() else None


class Transport:
    """One hub's address, one credential, one pool of connections."""

    def __init__(
        self, url: str, token: str | None, tls: ssl.SSLContext | None, retry_seconds: float, timeout: float
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        self.retry_seconds = retry_seconds
        self.timeout = timeout
        # No limit on the whole: attachments take what they take. A silent peer is given up.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=self._timeout, auto_decompress=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def open(self, method: str, path: str, **options: Any) -> Any:
        """One attempt at a request, as aiohttp's context manager."""
        if self._session is None:
            raise RuntimeError("use the client in an `async with` block")
        return self._session.request(method, self.url + path, **options)

    async def websocket(self, heartbeat: float) -> Any:
        """One attempt at a stream's WebSocket, with a ping every `heartbeat` seconds that must be answered.

        Raises `Problem` when the hub refuses; aiohttp.ClientError or TimeoutError when there is no answer.
        """
        if self._session is None:
            raise RuntimeError("use the client in an `async with` block")
        try:
            ws = await self._session.ws_connect(
                self.url + STREAM_PATH,
                protocols=(SUBPROTOCOL,),
                heartbeat=heartbeat,
                max_msg_size=MAX_ANSWER_BYTES,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
            )
        except aiohttp.WSServerHandshakeError as error:
            if 400 <= error.status < 500:
                # The reason is in the body, which the library has thrown away: ask again without the handshake.
                async with self.open("GET", STREAM_PATH) as response:
                    if response.status == error.status:
                        await raise_for_problem(response)
            if error.status < 400:
                raise Problem("upgrade-required", f"{self.url} answers no WebSocket handshake") from None
            problem = from_members({}, error.status)
            problem.retry_after = _retry_after(error.headers)
            raise problem from None
        if ws.protocol != SUBPROTOCOL:
            await ws.close()
            raise Problem("upgrade-required", f"{self.url} does not speak {SUBPROTOCOL}")
        return ws

    async def request(
        self,
        method: str,
        path: str,
        *,
        data: Callable[[], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer. `data` makes the body anew for each attempt.

        Raises `Problem`: the hub's, or unreachable.
        """
        options: dict[str, Any] = {"headers": headers, "params": params}
        if read_timeout is not None:
            options["timeout"] = aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeout.sock_connect, sock_read=read_timeout
            )

        async def attempt() -> tuple[int, bytes]:
            async with self.open(method, path, data=data() if data else None, **options) as response:
                await raise_for_problem(response)
                return response.status, await read_whole(response)

        return await self.retry(attempt)

    async def retry(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run `attempt` until it returns, fails for good, or `retry_seconds` have passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.retry_seconds
        pause = FIRST_PAUSE
        while True:
            try:
                return await attempt()
            except Problem as problem:
                if not problem.retryable or loop.time() >= deadline:
                    raise
                pause = max(pause, problem.retry_after or 0.0)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if loop.time() >= deadline:
                    reason = str(error) or type(error).__name__
                    raise Problem("unreachable", f"no answer from {self.url}: {reason}") from None
            # Jitter, so that clients that failed together do not come back together.
            await asyncio.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, deadline - loop.time())))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)
