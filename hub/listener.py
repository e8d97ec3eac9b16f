"""One listening socket for all processes of a node, and connections dealt out evenly.

The supervisor binds the socket and every worker accepts from it, so that a connection made while a worker dies
waits for another instead of being reset. Each worker writes the number of its connections where the others see
it (a few bytes of memory that they map), and leaves a new connection to whoever has fewer; after
`LEAVE_SECONDS` it takes it all the same. Left to the kernel (SO_REUSEPORT) sixteen lasting connections fall on
two workers ten to six or worse every other time, and half of a core idles (docs/adr/0015).
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import socket
import ssl
import tempfile
from collections.abc import Callable
from typing import IO, Any

import structlog

log = structlog.get_logger()

BACKLOG = 4096
LEAVE_SECONDS = 0.002
FAILED_SECONDS = 1.0
"""How long to wait when there are no descriptors left."""
ACCEPTS = 16
"""Connections accepted between two looks at the event loop."""
_BYTES = 4


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; connections wait in it until somebody accepts. Raises OSError.

    It listens at once because only then is the port its own: two sockets that do not yet may share one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def share_counts(workers: int) -> IO[bytes]:
    """A file in which that many workers can count, to be passed to them by its descriptor."""
    file = tempfile.TemporaryFile()  # it lives as long as the supervisor  # noqa: SIM115
    file.truncate(workers * _BYTES)
    return file


class Counts:
    """How many connections each process of a node has; `own` is this one's."""

    def __init__(self, descriptor: int | None = None, workers: int = 1, number: int = 0) -> None:
        """Counts in the file behind `descriptor`, for worker `number` of `workers`; or alone."""
        self._map = mmap.mmap(-1 if descriptor is None else descriptor, workers * _BYTES)
        self._counts = memoryview(self._map).cast("i")
        self._number = number
        self._counts[number] = 0

    @property
    def own(self) -> int:
        return self._counts[self._number]

    def change(self, by: int) -> None:
        self._counts[self._number] += by

    def close(self) -> None:
        """Have no more: others need not wait for this process."""
        self._counts[self._number] = (1 << 31) - 1

    @property
    def others_have_fewer(self) -> bool:
        return min(self._counts) < self._counts[self._number]


class Acceptor:
    """Accepts connections from a shared socket for one process."""

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], asyncio.Protocol],
        counts: Counts,
        tls: ssl.SSLContext | None,
        handshake_seconds: float,
    ) -> None:
        """`connection` makes a protocol, which counts itself out (`counts.change(-1)`) when it is lost."""
        self._listener = listener
        self._connection = connection
        self._counts = counts
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {"ssl": tls, "ssl_handshake_timeout": handshake_seconds}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._readable)

    def close(self) -> None:
        """Accept no more."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._listener.close()
        self._counts.close()

    def _readable(self) -> None:
        if self._counts.others_have_fewer:
            self._pause(LEAVE_SECONDS)
            return
        for _ in range(ACCEPTS):
            if not self._accept() or self._counts.others_have_fewer:
                return

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._readable)
        self._accept()  # whoever has fewer had time enough

    def _accept(self) -> bool:
        """Accept one connection, if there is one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno != errno.EINVAL:  # else it was shut down: the node is stopping
                log.error("connections cannot be accepted for now", error=str(error))
            self._pause(FAILED_SECONDS)
            return False
        connection.setblocking(False)
        self._counts.change(1)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connection, connection, **self._tls)
        except (OSError, ssl.SSLError, TimeoutError) as error:  # a client that gave up, or speaks no TLS
            log.debug("a connection was not opened", error=str(error))
            connection.close()
            self._counts.change(-1)
