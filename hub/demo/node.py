"""A data directory of the demo's own, and the hub that runs in it as an operator would start it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from hub.store.embedded import EmbeddedPostgres
from protocol.problems import LienthongError

MARK = ".lienthong-demo"
START_SECONDS = 60.0
STOP_SECONDS = 40.0


class DemoError(LienthongError):
    """The demo cannot go on, or what it saw does not add up; the message says what."""


class Place:
    """The demo's directory: made fresh, marked as the demo's, and removed unless it is to be kept.

    Only a directory that carries the mark is ever removed. The mark is locked while a demo runs in it, and
    holds the process id of its hub, so that the next demo can end what a killed one left running.
    """

    def __init__(self, root: Path, keep: bool) -> None:
        self.root = root
        self.hub_dir = root.resolve() / "hub"
        self.hub_dirs = (self.hub_dir, root.resolve() / "nation")
        """Of the province's hub and of the nation's."""
        self._pids: list[int] = []
        self._keep = keep
        self._mark = -1

    def __enter__(self) -> Self:
        if self.root.exists():
            if not (self.root / MARK).is_file():
                raise DemoError(
                    f"{self.root} exists and the demo did not make it; remove it or choose another --data-dir"
                )
            self._lock()
            self._end_leftovers()
            self._remove()
        self.root.mkdir(parents=True)
        self._lock()
        for name in ("outbox", "inbox"):
            (self.root / name).mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hub_dir in self.hub_dirs:
            EmbeddedPostgres(hub_dir).stop()
        if not self._keep:
            self._remove()
        os.close(self._mark)

    def _lock(self) -> None:
        if self._mark >= 0:
            os.close(self._mark)
        self._mark = os.open(self.root / MARK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._mark)
            raise DemoError(f"a demo is running in {self.root}; choose another --data-dir") from None

    def note(self, pid: int) -> None:
        """Remember a hub's process id in the mark."""
        self._pids.append(pid)
        os.pwrite(self._mark, "".join(f"{known}\n" for known in self._pids).encode(), 0)

    def _end_leftovers(self) -> None:
        """End the hubs of a demo that was killed, if they still run."""
        for noted in os.pread(self._mark, 64, 0).decode().split():
            if noted.isdecimal() and Path("/proc/self/cmdline").exists():
                self._end(int(noted))
        for hub_dir in self.hub_dirs:
            EmbeddedPostgres(hub_dir).stop()

    def _end(self, pid: int) -> None:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # The id may belong to somebody else by now: only what serves this very directory is ended.
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if not any(os.fsencode(hub_dir) in words for hub_dir in self.hub_dirs):
                return
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], STOP_SECONDS)[0]:
                raise DemoError(f"the hub of an earlier demo (process {pid}) does not stop; stop it yourself")
        except ProcessLookupError:
            return
        finally:
            os.close(process)

    def _remove(self) -> None:
        shutil.rmtree(self.root)


class Node:
    """``lienthong serve`` as a child process, in an ``async with`` block."""

    def __init__(self, place: Place, workers: int, hub_dir: Path, name: str, *options: str) -> None:
        """`options`: of ``serve``, beside those that every hub of the demo has."""
        self._options = options
        self.url = ""
        self.hub_dir = hub_dir
        self._name = name
        self._place = place
        self._workers = workers
        self._log = place.root / f"{hub_dir.name}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def database_url(self) -> str:
        return EmbeddedPostgres(self.hub_dir).url

    async def __aenter__(self) -> Self:
        # Whatever the environment says of other hubs is not for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "hub", "serve", "--data-dir", str(self.hub_dir), "--port", "0"),
                *("--workers", str(self._workers), "--name", self._name, *self._options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the hub in order
            )
        self._place.note(self._process.pid)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._wait_ready(self._process)
        except BaseException as error:
            await self._stop(self._process)
            if isinstance(error, TimeoutError):
                raise DemoError(f"the hub was not ready after {START_SECONDS:.0f} s; see {self._log}") from None
            raise
        return self

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if b"is ready at" in line:
                self.url = line.decode().split()[-1]
                return
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        raise DemoError(f"the hub did not start: {''.join(last)[-500:]}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        await self._stop(self._process)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.communicate()  # reads its output to the end, or its pipe would stay open
        except TimeoutError:
            process.kill()
            await process.communicate()
