"""A proxy that loses connections: between a client and the hub (TCP), or the hub and PostgreSQL (Unix socket)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

CHUNK = 64 << 10
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Passes bytes on until it is told otherwise."""

    def __init__(self, cut_after: tuple[int, ...] = ()) -> None:
        """`cut_after`: after how many bytes of answers each connection in turn is closed; further
        connections are left alone.
        """
        self.connections = 0
        self.answered = 0
        """Bytes of answers passed on."""
        self.held = 0
        """Bytes of answers that came after `hold`."""
        self.refused = 0
        """Connections that were not passed on."""
        self.asked = bytearray()
        """What clients have sent, all connections together."""
        self._cut_after = cut_after
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: Callable[[], Awaitable[Streams]]

    @contextlib.asynccontextmanager
    async def before_hub(self, url: str) -> AsyncIterator[str]:
        """Stand before the hub at `url`; gives the address to use in its place."""
        self.pass_to(url)
        async with self._serve(await asyncio.start_server(self._accept, "127.0.0.1", 0)) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @contextlib.asynccontextmanager
    async def before_postgres(self, url: str, folder: Path) -> AsyncIterator[str]:
        """Stand in `folder` before the PostgreSQL at `url` (``…?host=FOLDER``); gives the new `url`."""
        address, _, host = url.partition("?host=")
        self._open = lambda: asyncio.open_unix_connection(Path(host) / ".s.PGSQL.5432")
        async with self._serve(await asyncio.start_unix_server(self._accept, folder / ".s.PGSQL.5432")):
            yield f"{address}?host={folder}"

    @contextlib.asynccontextmanager
    async def _serve(self, server: asyncio.Server) -> AsyncIterator[asyncio.Server]:
        try:
            yield server
        finally:
            server.close()
            await self.cut()
            await server.wait_closed()

    def pass_to(self, url: str) -> None:
        """Pass new connections on to the hub at `url`; those that there are stay where they are."""
        parts = urlsplit(url)
        self._open = lambda: asyncio.open_connection(parts.hostname, parts.port)

    def hold(self) -> None:
        """Pass requests on from now on, but no answers."""
        self.held = 0
        self._flowing.clear()

    async def refuse(self) -> None:
        """Close every connection, and new ones at once, until `accept`."""
        self._refusing = True
        await self.cut()

    def accept(self) -> None:
        self._refusing = False

    async def cut(self) -> None:
        """Close every connection; what was held back is lost. New ones are served."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        limit = self._cut_after[self.connections] if self.connections < len(self._cut_after) else None
        self.connections += 1
        try:
            if self._refusing:
                self.refused += 1
                raise ConnectionRefusedError
            there, back = await self._open()
            try:
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(self._ask(reader, back))
                    await self._answer(there, writer, limit)
                    asking.cancel()
            finally:
                back.transport.abort()
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # a lost connection is what this is for
        finally:
            # What was passed on still reaches the client; then the connection ends.
            writer.close()
            self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            self.asked += data
            back.write(data)
            await back.drain()
        back.transport.abort()  # the client has gone

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        passed = 0
        while data := await there.read(CHUNK):
            if not self._flowing.is_set():
                self.held += len(data)
            await self._flowing.wait()
            if limit is not None:
                data = data[: limit - passed]
            writer.write(data)
            await writer.drain()
            passed += len(data)
            self.answered += len(data)
            if passed == limit:
                return
