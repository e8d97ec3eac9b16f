"""A checking process: ``python -m hub.pdf.process``, with a socket as its standard input.

It is handed open files over that socket and answers with results; it opens none itself. Before the first it bounds
itself: its address space, its open files (the one that it is handed), no file that it could write, and no module,
socket or process that Python would let it open besides. The CPU time of each check is bounded by the kernel, which
ends the process; wall-clock time by whoever started it (`hub.pdf.pool`).

This keeps a library from reaching out, and a file from costing more than its share. It is no wall against a
file that made this process run a stranger's machine code; all that parses here is Python, and OpenSSL and zlib.

On the wire, both ways: four bytes of length, then MessagePack. With an order comes a file descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

from hub.pdf.result import PdfResult, Verdict

LENGTH = struct.Struct(">I")
MAX_ORDER = 32 << 20
READY = b"ready"
_PR_SET_PDEATHSIG = 1


class Order(msgspec.Struct, frozen=True):
    """One PDF to check: the file descriptor that comes with it has `size` bytes."""

    size: int
    cpu_seconds: float
    anchors: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    hard: tuple[bytes, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """What a checking process may use; in its argument, as JSON."""

    memory_bytes: int
    """Of address space, beyond what it has when it is ready."""


def main() -> None:
    """Serve until the socket ends."""
    _die_with_parent()
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    connection = socket.socket(fileno=os.dup(0))
    from hub.pdf.check import check  # here, and in no other process
    from hub.pdf.trusted import Trust

    loop = asyncio.new_event_loop()
    loop.run_until_complete(check(_WARM, Trust()))
    _bound(limits)
    connection.sendall(LENGTH.pack(len(READY)) + READY)
    while (received := _receive(connection)) is not None:
        order, descriptor = received
        exhausted = False
        try:
            data = _read(descriptor, order.size)
            _allow_cpu(order.cpu_seconds)
            result = loop.run_until_complete(check(data, Trust(order.anchors, order.crls, order.hard)))
        except MemoryError:
            exhausted = True
            result = PdfResult(verdict=Verdict.LIMIT, reason="it needs more memory than a PDF gets here")
        data = b""
        answer = msgspec.msgpack.encode(result)
        connection.sendall(LENGTH.pack(len(answer)) + answer)
        if exhausted:  # what it left behind is not known
            return


def _receive(connection: socket.socket) -> tuple[Order, int] | None:
    """The next order and its file; None when there will be none."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 1)
    if len(head) < LENGTH.size or not descriptors:
        return None
    (left,) = LENGTH.unpack(head)
    if left > MAX_ORDER:
        return None
    pieces = bytearray()
    while len(pieces) < left:
        piece = connection.recv(min(left - len(pieces), 1 << 20))
        if not piece:
            return None
        pieces += piece
    return msgspec.msgpack.decode(pieces, type=Order), descriptors[0]


def _read(descriptor: int, size: int) -> bytes:
    try:
        pieces, at = [], 0
        while at < size and (piece := os.pread(descriptor, size - at, at)):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]
    finally:
        os.close(descriptor)


def _die_with_parent() -> None:
    """Whoever started this process is the only one who reads its answers."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _allow_cpu(seconds: float) -> None:
    """Beyond that, the kernel ends this process (SIGXCPU)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    bound = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (bound, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _bound(limits: Limits) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    held = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    files = max(held) + 1  # the listing's own is the highest, and free again: for the file that is handed over
    for what, bound in (
        (resource.RLIMIT_AS, mapped + limits.memory_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (bound, bound))
    sys.addaudithook(_forbid)


_FORBIDDEN = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
    "os.",
)
_HARMLESS = frozenset({"os.listdir", "os.scandir"})
_UP = f"{os.sep}{os.pardir}{os.sep}"
_LIBRARIES = tuple(str(Path(place).resolve()) + os.sep for place in {sys.prefix, sys.base_prefix, sys.exec_prefix})


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook (PEP 578): nothing is opened but modules that are needed late."""
    if event == "open":
        path, _, flags = arguments
        reads = isinstance(path, str) and not flags & (os.O_WRONLY | os.O_RDWR)
        if reads and path.startswith(_LIBRARIES) and _UP not in path:
            return
        raise PermissionError(f"a checking process opens no files: {path!r}")
    if event.startswith(_FORBIDDEN) and event not in _HARMLESS:
        raise PermissionError(f"a checking process does not do that: {event}")


_WARM = b"%PDF-1.7\n"
"""Anything: it makes the libraries load what they load late."""

if __name__ == "__main__":
    main()
