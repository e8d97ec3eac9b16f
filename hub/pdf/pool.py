"""Checking processes as a hub process sees them: a few, started when there is a PDF, gone when there is none.

Whatever a PDF does to the process that reads it, this gives a result within bounded time: a process that takes
longer than it may is killed, one that dies is replaced by another for the next PDF. What cost it its life is told
apart by how it ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from hub.observe import metrics
from hub.pdf.process import LENGTH, READY, Limits, Order
from hub.pdf.result import PdfResult, Verdict
from protocol.evidence import timestamp

log = structlog.get_logger()

START_SECONDS = 30.0
"""How long a process may take until it is ready: a third of a second on an idle machine."""
WALL_FACTOR = 3.0
"""How many times its CPU time a check may take by the clock, on a machine that has other work."""
IDLE_SECONDS = 60.0
"""A process that had nothing to do for so long ends, and its memory is free."""
MAX_CHECKS = 200
"""PDFs that one process checks: what libraries keep cannot grow for good."""
MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a PDF may cost. Sizes are bytes."""

    max_bytes: int
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class TrustData:
    """Trust anchors and revocation lists (DER), and a digest by which to tell them from others."""

    anchors: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    hard: tuple[bytes, ...] = ()
    """Those anchors below which revocation must be known."""

    @property
    def digest(self) -> bytes:
        parts = [b"anchors", *sorted(map(_sha256, self.anchors)), b"crls", *sorted(map(_sha256, self.crls))]
        if self.hard:
            parts += [b"hard", *sorted(map(_sha256, self.hard))]
        return _sha256(b"".join(parts))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class ProcessFailed(Exception):
    """The process gave no answer; the message says why, for whoever sent the PDF."""

    def __init__(self, reason: str, *, died: bool = False) -> None:
        super().__init__(reason)
        self.died = died
        """It ended, and not because of a bound that the PDF reached."""


class NoProcessError(OSError):
    """There is none that could check, which says nothing about any PDF."""


class Process:
    """One checking process."""

    def __init__(self) -> None:
        self.checks = 0
        self.idle_since = 0.0
        self._own: socket.socket
        self._process: asyncio.subprocess.Process

    async def start(self, bounds: Bounds) -> None:
        """Returns once it is ready. Raises NoProcessError."""
        self._own, other = socket.socketpair()
        self._own.setblocking(False)
        limits = msgspec.json.encode(Limits(bounds.memory_bytes)).decode()
        with other:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hub.pdf.process",
                limits,
                stdin=other.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                env=_environment(),  # not the hub's: its database's address and its orders are in there
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                if await self._receive() != READY:
                    raise EOFError
        except TimeoutError:
            raise NoProcessError("a process that checks PDFs took too long to start") from None
        except (OSError, EOFError):
            raise NoProcessError("a process that checks PDFs could not be started") from None

    async def check(self, descriptor: int, order: Order) -> PdfResult:
        """What it finds. Raises ProcessFailed; it is of no more use then."""
        self.checks += 1
        body = msgspec.msgpack.encode(order)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(order.cpu_seconds * WALL_FACTOR):
                socket.send_fds(self._own, [LENGTH.pack(len(body))], [descriptor])
                await loop.sock_sendall(self._own, body)
                return msgspec.msgpack.decode(await self._receive(), type=PdfResult)
        except TimeoutError:
            raise ProcessFailed(f"it takes more than {order.cpu_seconds * WALL_FACTOR:g} seconds") from None
        except (OSError, EOFError):
            raise await self._how_it_ended(order) from None

    async def _how_it_ended(self, order: Order) -> ProcessFailed:
        status = await self._process.wait()
        if status == -signal.SIGXCPU:
            return ProcessFailed(f"it takes more than {order.cpu_seconds:g} seconds of computing")
        log.error("a process that checks PDFs died", status=status)
        if status == -signal.SIGKILL:
            return ProcessFailed("it needs more memory than there is", died=True)
        return ProcessFailed("the process that read it died of it", died=True)

    async def _receive(self) -> bytes:
        (length,) = LENGTH.unpack(await self._exactly(LENGTH.size))
        if length > MAX_ANSWER:
            raise EOFError
        return await self._exactly(length)

    async def _exactly(self, size: int) -> bytes:
        loop, found = asyncio.get_running_loop(), bytearray()
        while len(found) < size:
            piece = await loop.sock_recv(self._own, size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        self._own.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if name in os.environ}
    # Hub and protocol as this process has them, wherever it was started.
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (here, kept.get("PYTHONPATH", ""))))
    return kept | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "1"}


class Pool:
    """At most `width` processes of one hub process."""

    def __init__(self, bounds: Bounds, width: int = 1) -> None:
        self.bounds = bounds
        self._free: list[Process] = []
        self._places = asyncio.Semaphore(width)
        self._running: set[Process] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def processes(self) -> int:
        return len(self._running)

    async def check(self, descriptor: int, trust: TrustData) -> PdfResult:
        """What is found of the PDF in a file that is open, within bounded time once it is its turn.

        Raises NoProcessError.
        """
        result = await self._bounded(descriptor, trust)
        metrics.PDF_CHECKED.labels(result.verdict).inc()
        return msgspec.structs.replace(result, checked_at=timestamp(datetime.now(UTC)), trust=trust.digest.hex())

    async def _bounded(self, descriptor: int, trust: TrustData) -> PdfResult:
        size, most = os.fstat(descriptor).st_size, self.bounds.max_bytes
        if size > most:
            return _limit(f"it has {size} bytes, and more than {most} are not checked")
        order = Order(size, self.bounds.cpu_seconds, trust.anchors, trust.crls, trust.hard)
        async with self._places:
            started = time.monotonic()
            try:
                try:
                    return await self._attempt(descriptor, order)
                except ProcessFailed as failed:
                    if not failed.died:
                        return _limit(str(failed))
                # It may be that somebody else ended it, or that it had been dead before. Another will tell.
                try:
                    return await self._attempt(descriptor, order)
                except ProcessFailed as failed:
                    return _limit(str(failed))
            finally:
                metrics.PDF_SECONDS.observe(time.monotonic() - started)

    async def _attempt(self, descriptor: int, order: Order) -> PdfResult:
        process: Process | None = await self._take()
        assert process is not None
        try:
            result = await process.check(descriptor, order)
            # One that reached a bound ends by itself, or is better ended.
            usable = result.verdict is not Verdict.LIMIT and process.checks < MAX_CHECKS
            if usable and process.alive and not self.closed:
                process.idle_since = time.monotonic()
                self._free.append(process)
                process = None
            return result
        finally:
            if process is not None:
                self._running.discard(process)
                await asyncio.shield(process.end())

    async def _take(self) -> Process:
        while self._free:
            process = self._free.pop()
            if process.alive:
                return process
            self._running.discard(process)
            await process.end()
        process = Process()
        try:
            await process.start(self.bounds)
        except BaseException:
            if hasattr(process, "_process"):
                await process.end()
            raise
        self._running.add(process)
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep(), name="pdf-processes")
        return process

    async def _sweep(self) -> None:
        """End processes that have nothing to do; returns when there are none."""
        while self._running:
            await asyncio.sleep(IDLE_SECONDS / 4)
            long_ago = time.monotonic() - IDLE_SECONDS
            await self._end([process for process in self._free if process.idle_since < long_ago])

    async def _end(self, processes: Sequence[Process]) -> None:
        for process in processes:
            if process not in self._free:
                continue  # it was taken while another ended
            self._free.remove(process)
            self._running.discard(process)
            await process.end()

    async def stop(self) -> None:
        """End them all; whoever waits for a check is cancelled by its own end."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._end(list(self._free))


def _limit(reason: str) -> PdfResult:
    return PdfResult(verdict=Verdict.LIMIT, reason=reason)
