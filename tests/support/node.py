"""A node in processes of its own, as an operator starts it: for what must survive being killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import asyncpg
import psutil

from hub.store import sql
from hub.store.embedded import EmbeddedPostgres
from tests.support.parties import Party
from tests.support.raw import RawConnection, raw_connection, request
from tests.support.until import until

RELAY = sql.load("relay")
END_SECONDS = 45.0
"""A worker that lost its supervisor finishes its requests first."""


class Node:
    """``lienthong serve`` as a child process."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._workers: set[psutil.Process] = set()
        self.url = ""
        self.log = data_dir.with_name(data_dir.name + ".log")

    async def start(self, port: int = 0) -> None:
        """Start it and wait until every worker answers. Started again, it takes the port that it had."""
        await self.launch(port)
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if b"is ready at" in line:
                self.url = line.decode().split()[-1]
                self.workers()
                return
        raise AssertionError(f"the node did not start:\n{self.log.read_text()[-2000:]}")

    async def launch(self, port: int = 0) -> None:
        """Start it, without waiting for anything."""
        self._forget_process()
        if self.url:
            port = self.port
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hub",
                "serve",
                "--data-dir",
                str(self.data_dir),
                "--port",
                str(port),
                *self._options,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")},
            )

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the node's database."""
        connection = await asyncpg.connect(EmbeddedPostgres(self.data_dir).url)
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def connections(self) -> AsyncIterator[dict[int, RawConnection]]:
        """A connection to each worker, by the worker's process id."""
        found: dict[int, RawConnection] = {}
        async with contextlib.AsyncExitStack() as stack:
            # Looked for each time: one that was killed may be listed until it is gone.
            while {worker.pid for worker in self.workers()} - found.keys():
                connection = await stack.enter_async_context(raw_connection(self.url))
                port = connection.local_port
                worker = await until(lambda port=port: _holder(self.workers(), port), "a worker accepts")
                found.setdefault(worker, connection)
            yield found

    async def knows(self, party: Party) -> None:
        """Wait until every worker knows `party`, and so whatever was registered before it."""
        asked = request("GET", "/v1/mailbox", party.headers)
        async with self.connections() as connections:
            for connection in connections.values():

                async def known(connection: RawConnection = connection) -> bool:
                    await connection.send(asked)
                    return (await connection.answer()).status == 200

                await until(known, "the worker knows the endpoint")

    async def park(self, reader: Party, connections: Collection[RawConnection]) -> None:
        """Let `reader` wait for mail on connections to one worker each; returns once each found nothing."""
        async with self.database() as database:
            since = await database.fetchval("select clock_timestamp()")
            for connection in connections:
                await connection.send(request("GET", "/v1/mailbox?wait=60", reader.headers))

            async def read() -> bool:
                looked = await database.fetchval(
                    "select count(*) from pg_stat_activity"
                    " where left(query, 200) = left($1, 200) and state = 'idle' and query_start > $2",
                    RELAY.read_mailbox,
                    since,
                )
                return bool(looked == len(connections))

            await until(read, "the readers wait")

    # -- its processes --------------------------------------------------------------------------

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.Error):
                    if "hub.worker" in child.cmdline():
                        found.append(child)
        self._workers.update(found)
        return found

    def postgres_pid(self) -> int | None:
        """The embedded PostgreSQL's first process, if it runs."""
        return EmbeddedPostgres(self.data_dir).pid()

    def postgres(self) -> list[psutil.Process]:
        """The embedded PostgreSQL's processes, the first one first."""
        pid = self.postgres_pid()
        if pid is None:
            return []
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]

    def below(self, name: str) -> list[psutil.Process]:
        """The processes of this name that the supervisor has started, at any remove."""
        found = []
        for child in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == name:
                    found.append(child)
        return found

    def kill_workers(self) -> None:
        """kill -9 of every worker."""
        _kill(self.workers())

    def kill_postgres(self) -> None:
        """kill -9 of PostgreSQL's first process; those that it started notice and end by themselves."""
        if (pid := self.postgres_pid()) is not None:
            os.kill(pid, signal.SIGKILL)

    async def kill(self) -> None:
        """kill -9 of the supervisor and of the workers, at once."""
        await self._kill_with(self.workers())

    async def kill_everything(self) -> None:
        """kill -9 of the supervisor, the workers and every process of PostgreSQL."""
        await self._kill_with([*self.workers(), *self.postgres()])

    async def kill_supervisor(self) -> None:
        """kill -9 of the supervisor alone."""
        self.workers()
        await self._kill_with([])

    async def _kill_with(self, others: list[psutil.Process]) -> None:
        assert self._process is not None
        self._process.kill()
        _kill(others)
        await self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, as a service manager stops it."""
        assert self._process is not None
        self._process.terminate()

    async def wait(self) -> int:
        """Wait for the supervisor's end; its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop it in order; whatever is left of it is ended."""
        if self._process is not None:
            if self._process.returncode is None:
                self.workers()
                self._process.terminate()
                await self._process.wait()
            self._forget_process()
        _, alive = await asyncio.to_thread(psutil.wait_procs, self._workers, END_SECONDS)
        _kill(alive)
        await asyncio.to_thread(EmbeddedPostgres(self.data_dir).stop)

    def _forget_process(self) -> None:
        """Close the child's pipe, which nobody else does."""
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]
            self._process = None


def _holder(workers: list[psutil.Process], port: int) -> int | None:
    """The worker that holds the connection from a client's `port`."""
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            if any(connection.raddr and connection.raddr.port == port for connection in worker.net_connections()):
                return worker.pid
    return None


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
