"""One hub process, as the supervisor starts it: ``python -m hub.worker``, settings in the environment.

It holds the reading end of a pipe whose other end only the supervisor has. When the supervisor dies,
however it dies, the pipe ends and the process stops in order: no orphan goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys

import msgspec
import structlog
import uvloop

from hub.app import Hub, tls_context
from hub.config import Config
from hub.listener import Counts
from hub.observe.logging import configure
from hub.store.pool import UNAVAILABLE, wait_until_reachable
from protocol.problems import LienthongError

log = structlog.get_logger()

ENVIRONMENT = "LIENTHONG_WORKER"
GC_THRESHOLDS = (20_000, 20, 20)


class Orders(msgspec.Struct, frozen=True):
    """What the supervisor tells a worker."""

    config: Config
    database_url: str
    listener: int
    """File descriptor of the socket that all workers accept from."""
    counts: int
    """File descriptor of where they count their connections."""
    number: int
    """Which of them this is, from 0."""
    lifeline: int
    """File descriptor that ends when the supervisor does."""
    ready: int
    """File descriptor to write to once requests are answered."""


async def _run(orders: Orders) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ended = asyncio.create_task(stopping.wait())
    loop.add_reader(orders.lifeline, stopping.set)
    ended.add_done_callback(lambda _: loop.remove_reader(orders.lifeline))
    reachable = asyncio.create_task(wait_until_reachable(orders.database_url, 60))
    await asyncio.wait([ended, reachable], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        reachable.cancel()
        return
    await reachable
    hub = Hub(orders.config, orders.database_url)
    await hub.start()
    # What was made so far lives as long as the process: the collector need not look at it again. Requests
    # leave few cycles, so it may also look less often (4 % of a busy worker's time went into it).
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        counts = Counts(orders.counts, orders.config.workers, orders.number)
        listener = socket.socket(fileno=orders.listener)
        listener.setblocking(False)
        hub.serve(listener, tls_context(orders.config), counts)
        with contextlib.suppress(BrokenPipeError):
            os.write(orders.ready, b"ready\n")
        await stopping.wait()
        log.info("stopping", pid=os.getpid())
    finally:
        await hub.stop()


def _allow_connections() -> None:
    """Let the process have as many open files as the system allows it: a connection is one.

    A shell's soft limit is often 1,024; beyond it nobody more is let in.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run until SIGTERM, SIGINT or the supervisor's end."""
    configure()
    _allow_connections()
    orders = msgspec.json.decode(os.environ[ENVIRONMENT], type=Orders)
    try:
        uvloop.run(_run(orders))
    except (LienthongError, *UNAVAILABLE) as error:
        log.error("the process could not start", error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
