"""Keeps one node running: the embedded PostgreSQL if it has one, and its worker processes.

Whatever dies is started again: a worker at once (later if it keeps dying), PostgreSQL as soon as it lets
itself be started. The supervisor itself does next to nothing, so that next to nothing can end it; if it
is killed, its workers stop, and the next start finds PostgreSQL as it was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
import structlog

from hub.config import Config, ConfigError
from hub.evidence.keys import prepare_keys
from hub.listener import listen, share_counts
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import StoreError, migrate, wait_until_reachable
from hub.worker import ENVIRONMENT, Orders

log = structlog.get_logger()

WATCH_SECONDS = 0.2
MAX_PAUSE_SECONDS = 10.0


def _claim(data: Path) -> int:
    """Hold a data directory until the descriptor returned is closed. Raises ConfigError when it is held.

    Two nodes on one embedded PostgreSQL would stop it for each other.
    """
    descriptor = os.open(data / "serve.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"a hub is running in {data} already; stop it, or choose another --data-dir") from None
    return descriptor


async def _bind(host: str, port: int, seconds: float) -> socket.socket:
    """The socket that all workers accept from. Raises ConfigError when the port is not free for `seconds`.

    The workers of a node that was killed give it back within moments.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return listen(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
                raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; see --port") from None
        await asyncio.sleep(0.05)


class Supervisor:
    """Runs a node until it is told to stop."""

    def __init__(self, config: Config, ready: Callable[[str], None]) -> None:
        """`ready` is told the node's address once every worker answers."""
        self._config = config
        self._ready = ready
        self._postgres = EmbeddedPostgres(config.data) if config.embedded else None
        self._stopping = asyncio.Event()
        self._listener: socket.socket
        self._counts: IO[bytes]

    @property
    def _database_url(self) -> str:
        return self._postgres.url if self._postgres else self._config.database_url

    async def run(self) -> None:
        """Start everything, keep it running, stop it in order on SIGTERM or SIGINT."""
        config = self._config
        config.data.mkdir(parents=True, exist_ok=True)
        claim = _claim(config.data)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._listener = await _bind(config.host, config.port, 3)
        self._counts = share_counts(config.workers)
        lifeline, keep_open = os.pipe()
        work = asyncio.create_task(self._work(lifeline))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            with contextlib.suppress(OSError):
                # For the workers too, which have the same socket: whoever comes now is refused.
                self._listener.shutdown(socket.SHUT_RDWR)
            work.cancel()
            done = (await asyncio.gather(work, return_exceptions=True))[0]
            os.close(keep_open)
            os.close(lifeline)
            self._listener.close()
            self._counts.close()
            if self._postgres:
                await asyncio.to_thread(self._postgres.stop)
            os.close(claim)
        if isinstance(done, Exception):
            raise done

    async def _work(self, lifeline: int) -> None:
        """Start everything and keep it running until cancelled."""
        config = self._config
        keeper: asyncio.Task[None] | None = None
        try:
            if self._postgres:
                await asyncio.to_thread(self._postgres.start)
                keeper = asyncio.create_task(self._keep_postgres(self._postgres))
            await wait_until_reachable(self._database_url, 60)
            for applied in await migrate(self._database_url):
                log.info("the schema was brought up to date", migration=applied)
            for made in await asyncio.to_thread(prepare_keys, config):
                log.info("made a key of the hub", file=str(made))
            shutil.rmtree(config.metrics_dir, ignore_errors=True)
            config.metrics_dir.mkdir(parents=True)
            await self._serve(lifeline, [keeper] if keeper else [])
        finally:
            # Last: workers that finish what they took need PostgreSQL until they have ended.
            if keeper:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)

    async def _serve(self, lifeline: int, keepers: list[asyncio.Task[None]]) -> None:
        up = [asyncio.Event() for _ in range(self._config.workers)]
        tasks = [
            asyncio.create_task(self._keep_worker(number, lifeline, event)) for number, event in enumerate(up)
        ]
        announce = asyncio.create_task(self._announce(self._listener.getsockname()[1], up))
        try:
            done, _ = await asyncio.wait([*keepers, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (announce, *tasks):
                task.cancel()
            await asyncio.gather(announce, *tasks, return_exceptions=True)

    async def _announce(self, port: int, up: list[asyncio.Event]) -> None:
        for event in up:
            await event.wait()
        scheme = "https" if self._config.tls_cert else "http"
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        self._ready(f"{scheme}://{host}:{port}")

    async def _keep_worker(self, number: int, lifeline: int, up: asyncio.Event) -> None:
        pause = 0.1
        while True:
            started = asyncio.get_running_loop().time()
            try:
                process, ready = await self._spawn(number, lifeline)
            except OSError as error:  # no memory for it, most likely: the others go on, and it comes later
                log.error("a worker could not be started; it is tried again", error=str(error), seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
                continue
            announced = asyncio.create_task(self._wait_ready(ready, up))
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await self._end(process)
                raise
            finally:
                announced.cancel()
                await asyncio.gather(announced, return_exceptions=True)
            self._forget_metrics(process.pid)
            if asyncio.get_running_loop().time() - started > 10:
                pause = 0.1
            log.error("a worker ended; starting another", pid=process.pid, status=status, seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def _spawn(self, number: int, lifeline: int) -> tuple[asyncio.subprocess.Process, int]:
        ready, announce = os.pipe()
        listener, counts = self._listener.fileno(), self._counts.fileno()
        orders = Orders(self._config, self._database_url, listener, counts, number, lifeline, announce)
        environment = os.environ | {
            ENVIRONMENT: msgspec.json.encode(orders).decode(),
            "PROMETHEUS_MULTIPROC_DIR": str(self._config.metrics_dir.resolve()),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hub.worker",
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(listener, counts, lifeline, announce),
                start_new_session=True,  # Ctrl-C reaches the supervisor, which stops workers in order
            )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(announce)
        return process, ready

    @staticmethod
    async def _wait_ready(ready: int, up: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(ready, readable.set)
        try:
            await readable.wait()
            if os.read(ready, 16):
                up.set()
        finally:
            loop.remove_reader(ready)
            os.close(ready)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self._config.stop_seconds + 5):
                await process.wait()
        except TimeoutError:
            log.error("a worker did not stop in time; killing it", pid=process.pid)
            process.kill()
            await process.wait()

    def _forget_metrics(self, pid: int) -> None:
        for path in self._config.metrics_dir.glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if postgres.pid() is not None:
                continue
            log.error("PostgreSQL ended; starting it again")
            try:
                await asyncio.to_thread(postgres.start)
                log.info("PostgreSQL is back")
            except (StoreError, OSError) as error:
                # After a kill its old processes need a moment to notice and let go of shared memory.
                log.warning("PostgreSQL cannot be started yet", error=str(error))
