"""A node for one measurement: started on a fresh directory, its CPU counted, removed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import psutil

from benchmarks.corpus import Receiver, Sender
from hub.directory import change
from hub.directory.change import AgencyRow
from hub.store.embedded import EmbeddedPostgres
from protocol.signature import PublicKey, from_jwk

START_SECONDS = 90
KNOWN_IN_A_ROW = 24
"""Fresh connections that must all be let in: they are dealt out to the workers in turn."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU since the processes began."""

    hub: float = 0.0
    postgres: float = 0.0
    workers: tuple[float, ...] = ()

    def __sub__(self, other: Cpu) -> Cpu:
        workers = tuple(now - then for now, then in zip(self.workers, other.workers, strict=True))
        return Cpu(self.hub - other.hub, self.postgres - other.postgres, workers)


def tree_seconds(process: psutil.Process) -> float:
    """CPU of a process, of its descendants that live, and of those that it has already buried."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def precise_seconds(process: psutil.Process) -> float:
    """As `tree_seconds`, to the nanosecond where Linux tells (not to 10 ms) for processes that live."""
    try:
        pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
        living = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9
        times = process.cpu_times()
        return living + float(times.children_user + times.children_system)
    except (OSError, ValueError):
        return tree_seconds(process)


class Node:
    """``lienthong serve`` with its embedded PostgreSQL in a temporary directory. An async context."""

    def __init__(self, workers: int, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """`options`: more of what `lienthong serve` takes. `environment`: variables that its processes get."""
        self._environment = dict(environment or {})
        self.worker_count = workers
        self._options = options
        # Not readable by this account alone: root's PostgreSQL runs under another.
        self.folder = Path(tempfile.mkdtemp(prefix="lienthong-bench-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self._log = self.folder / "hub.log"
        self._postgres = EmbeddedPostgres(self.data)
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def __aenter__(self) -> Node:
        try:
            await self.start()
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def start(self) -> float:
        """Start the hub, again after `stop`; returns the seconds until it said that it is ready."""
        began = time.perf_counter()
        async with asyncio.timeout(START_SECONDS):
            await self._start()
        return time.perf_counter() - began

    async def stop(self) -> float:
        """Stop the hub and its PostgreSQL in order; returns the seconds that took."""
        began = time.perf_counter()
        await self._end()
        await asyncio.to_thread(self._postgres.stop)
        return time.perf_counter() - began

    async def _start(self) -> None:
        command = [sys.executable, "-m", "hub", "serve", "--port", "0", "--data-dir", str(self.data)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--workers",
                str(self.worker_count),
                *self._options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment | self._environment,
            )
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if b"is ready at" in line:
                self.url = line.decode().split()[-1]
                return
        raise RuntimeError(f"the hub did not start:\n{self.log_tail()}")

    async def _remove(self) -> None:
        await self._end()
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.to_thread(shutil.rmtree, self.folder, True)

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(60):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    def log_tail(self) -> str:
        """The last lines that the hub logged."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def database_url(self) -> str:
        return self._postgres.url

    def database(self, name: str) -> str:
        """The address of another database of the same server."""
        return self._postgres.url.replace("/lienthong?", f"/{name}?")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The worker processes, oldest first."""
        children = psutil.Process(self.pid).children()
        return sorted((child for child in children if "hub.worker" in child.cmdline()), key=lambda p: p.pid)

    @property
    def postgres_pid(self) -> int:
        """Of the postmaster."""
        pid = self._postgres.pid()
        assert pid is not None
        return pid

    def postgres_seconds(self) -> float:
        """CPU of all of PostgreSQL's processes so far."""
        return tree_seconds(psutil.Process(self.postgres_pid))

    def cpu(self) -> Cpu:
        """CPU of the supervisor and the workers, and of PostgreSQL, which is the supervisor's child or not."""
        postgres = psutil.Process(self.postgres_pid)
        supervisor = psutil.Process(self.pid)
        whole = tree_seconds(supervisor)
        in_postgres = tree_seconds(postgres)
        if supervisor in postgres.parents():
            whole -= in_postgres
        workers = tuple(sum(worker.cpu_times()[:2]) for worker in self.workers())
        return Cpu(whole, in_postgres, workers)

    async def register(self, senders: list[Sender], receivers: list[Receiver]) -> None:
        """Make the endpoints; returns when every worker knows them."""
        connection = await asyncpg.connect(self.database_url)
        try:
            for sender in senders:
                await change.add_agency(connection, AgencyRow(sender.code, f"Huyện số {sender.number}"))
                await change.add_endpoint(connection, sender.name, [sender.code])
                await change.add_key(connection, sender.signer.key.public_key(), endpoint=sender.name)
                sender.token = await change.issue_token(connection, endpoint=sender.name)
            for receiver in receivers:
                for code in receiver.codes:
                    await change.add_agency(connection, AgencyRow(code, f"Đơn vị {code}"))
                await change.add_endpoint(connection, receiver.name, receiver.codes)
                receiver.token = await change.issue_token(connection, endpoint=receiver.name)
        finally:
            await connection.close()
        async with asyncio.timeout(20):
            await self.until_known((receivers or senders)[-1].token)

    async def until_known(self, token: str) -> None:
        """Return when every worker lets this endpoint's token in."""
        headers = {"Authorization": f"Bearer {token}"}
        known = 0
        while known < KNOWN_IN_A_ROW:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(f"{self.url}/v1/mailbox") as answer,
            ):
                known = known + 1 if answer.status == 200 else 0
            if not known:
                await asyncio.sleep(0.05)

    async def keys(self) -> dict[str, PublicKey]:
        """The hub's public keys by `kid`, as it publishes them."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/v1/hub/keys") as answer:
            return {jwk["kid"]: from_jwk(jwk) for jwk in (await answer.json())["keys"]}
