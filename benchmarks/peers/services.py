"""Server processes of the peers: on loopback, in a temporary directory, ended with all their descendants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.node import tree_seconds

START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOPBACK = "127.0.0.1"


class ServiceError(RuntimeError):
    """A server did not start, or has ended by itself."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def find(variable: str, *places: str) -> Path | None:
    """A program: what the environment variable names, or the first of `places` (paths, or names on the PATH)."""
    named = os.environ.get(variable)
    for place in (named,) if named else places:
        if found := shutil.which(place):
            return Path(found)
    return None


class Service:
    """One server process. `start` it, `until` it answers, `stop` it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Launch it. It has a session of its own: a Ctrl-C is for us, who end it in order."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def until(self, answers: Callable[[], Awaitable[object]], seconds: float = START_SECONDS) -> None:
        """Try `answers` until it raises no more. Raises ServiceError with the end of the log."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await asyncio.wait_for(answers(), 5)
                return
            except (OSError, TimeoutError, ServiceError) as error:
                process = self._process
                if process is not None and process.poll() is not None:
                    raise ServiceError(f"{self.name} ended ({process.returncode}):\n{self.log_tail()}") from error
                if asyncio.get_running_loop().time() > deadline:
                    raise ServiceError(f"{self.name} does not answer ({error}):\n{self.log_tail()}") from error
            await asyncio.sleep(0.1)

    def log_tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return ""

    def seconds(self) -> float:
        """CPU so far, of all its processes."""
        if self._process is None:
            return 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            return tree_seconds(psutil.Process(self._process.pid))
        return 0.0

    async def stop(self) -> None:
        """End it and everything that it started; by force after `STOP_SECONDS`."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            family = psutil.Process(process.pid)
            members = [family, *family.children(recursive=True)]
        except psutil.NoSuchProcess:
            members = []
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, STOP_SECONDS)
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        await asyncio.to_thread(process.wait)
        await asyncio.to_thread(psutil.wait_procs, members, STOP_SECONDS)


async def listening(port: int) -> None:
    """Raises OSError unless somebody accepts on this port of loopback."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.close()
    await writer.wait_closed()
