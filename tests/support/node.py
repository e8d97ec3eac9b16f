"""A node in processes of its own, as an operator starts it: for what must survive being killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil


class Node:
    """``lienthong serve`` as a child process."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.log = data_dir.with_name(data_dir.name + ".log")

    async def start(self, port: int = 0) -> None:
        """Start it and wait until every worker answers."""
        if self.url:
            port = int(self.url.rpartition(":")[2])
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
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if b"is ready at" in line:
                self.url = line.decode().split()[-1]
                return
        raise AssertionError(f"the node did not start:\n{self.log.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        children = psutil.Process(self.pid).children()
        found = []
        for child in children:
            with contextlib.suppress(psutil.Error):
                if "hub.worker" in child.cmdline():
                    found.append(child)
        return found

    def postgres_pid(self) -> int | None:
        """The embedded PostgreSQL's first process, if it runs."""
        from hub.store.embedded import EmbeddedPostgres

        return EmbeddedPostgres(self.data_dir).pid()

    def kill_workers(self) -> None:
        for worker in self.workers():
            worker.kill()

    def kill_postgres(self) -> None:
        if (pid := self.postgres_pid()) is not None:
            os.kill(pid, signal.SIGKILL)

    async def kill(self) -> None:
        """kill -9 of the supervisor and of the workers, at once."""
        workers = self.workers()
        assert self._process is not None
        self._process.kill()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        await self._process.wait()

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop it in order; whatever is left of it is ended."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.terminate()
                await self._process.wait()
            # The transport of a child's pipe is closed by nobody else.
            self._process._transport.close()  # type: ignore[attr-defined]
        from hub.store.embedded import EmbeddedPostgres

        await asyncio.to_thread(EmbeddedPostgres(self.data_dir).stop)
