"""One hub process, as the supervisor starts it: ``python -m hub.worker``, settings in the environment.

It holds the reading end of a pipe whose other end only the supervisor has. When the supervisor dies,
however it dies, the pipe ends and the process stops in order: no orphan goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import msgspec
import structlog
import uvloop

from hub.app import Hub, tls_context
from hub.config import Config
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
    port: int
    lifeline: int
    """File descriptor that ends when the supervisor does."""
    ready: int
    """File descriptor to write to once requests are answered."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address that several processes share (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener


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
        await hub.serve(listen(orders.config.host, orders.port), tls_context(orders.config))
        with contextlib.suppress(BrokenPipeError):
            os.write(orders.ready, b"ready\n")
        await stopping.wait()
        log.info("stopping", pid=os.getpid())
    finally:
        await hub.stop()


def main() -> None:
    """Run until SIGTERM, SIGINT or the supervisor's end."""
    configure()
    orders = msgspec.json.decode(os.environ[ENVIRONMENT], type=Orders)
    try:
        uvloop.run(_run(orders))
    except (LienthongError, *UNAVAILABLE) as error:
        log.error("the process could not start", error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
