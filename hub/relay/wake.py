"""Who has mail now: from a commit to whoever waits for it.

In the process that committed, waiters wake from memory, at once. Other processes are told by one
NOTIFY every `COALESCE_SECONDS` that names mailboxes, never inside the transaction that wrote the mail
(there it would serialise all commits: 6,900/s fell to 2,600/s). A look at the waited-for mailboxes
every `FLOOR_SECONDS` catches what a lost announcement would have told.

A process has one connection for LISTEN and one for everything it says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import structlog

from hub import tasks
from hub.store import sql
from hub.store.pool import UNAVAILABLE, connect

log = structlog.get_logger()
SQL = sql.load("relay")

MAIL_CHANNEL = "lienthong_mail"
DIRECTORY_CHANNEL = "lienthong_directory"
COALESCE_SECONDS = 0.01
FLOOR_SECONDS = 2.0
_NAMES_PER_NOTIFY = 900
"""A payload holds at most 8,000 bytes; an endpoint id takes up to 8 with its comma."""


class Watcher:
    """One waiter for one mailbox. `after` is what it has seen, by lane; the floor looks beyond it."""

    __slots__ = ("after", "endpoint", "event")

    def __init__(self, endpoint: int) -> None:
        self.endpoint = endpoint
        self.event = asyncio.Event()
        self.after = [0, 0, 0]

    async def wait(self, seconds: float) -> bool:
        """Wait for mail; False when none was announced in `seconds`. Call `event.clear` before reading."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        return True


class Wake:
    """The waiters of one process, and its line to the other processes."""

    def __init__(
        self,
        url: str,
        pool: asyncpg.Pool[Any],
        readers: asyncpg.Pool[Any],
        directory_changed: Callable[[], None],
    ) -> None:
        """`pool` tells other processes, `readers` looks for mail; `directory_changed` is told of changes."""
        self._url = url
        self._pool = pool
        self._readers = readers
        self._directory_changed = directory_changed
        self._name = uuid4().hex[:12]
        self._watchers: dict[int, set[Watcher]] = {}
        self._to_tell: set[int] = set()
        self._tell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = asyncio.Event()

    def start(self) -> None:
        loops = {"wake-tell": self._tell_others, "wake-listen": self._listen, "wake-floor": self._look}
        self._tasks = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]

    async def stop(self) -> None:
        await tasks.end(self._tasks)

    @contextlib.contextmanager
    def watch(self, endpoint: int) -> Iterator[Watcher]:
        """Be told of mail for `endpoint` while the block runs."""
        watcher = Watcher(endpoint)
        self._watchers.setdefault(endpoint, set()).add(watcher)
        try:
            yield watcher
        finally:
            watchers = self._watchers[endpoint]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[endpoint]

    @property
    def waiting(self) -> int:
        return sum(map(len, self._watchers.values()))

    def committed(self, endpoints: Collection[int]) -> None:
        """Mail for `endpoints` has just been committed by this process."""
        self.wake(endpoints)
        if endpoints:
            self._to_tell.update(endpoints)
            self._tell.set()

    def wake(self, endpoints: Iterable[int]) -> None:
        for endpoint in endpoints:
            for watcher in self._watchers.get(endpoint, ()):
                watcher.event.set()

    def wake_all(self) -> None:
        """Let everybody look: after announcements may have been missed, and when the hub stops."""
        self.wake(list(self._watchers))

    async def _tell_others(self) -> None:
        while True:
            await self._tell.wait()
            await asyncio.sleep(COALESCE_SECONDS)
            self._tell.clear()
            names = [str(endpoint) for endpoint in self._to_tell]
            self._to_tell.clear()
            payloads = [
                f"{self._name}:" + ",".join(names[start : start + _NAMES_PER_NOTIFY])
                for start in range(0, len(names), _NAMES_PER_NOTIFY)
            ]
            try:
                await self._pool.execute(SQL.notify, payloads)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("other processes were not told of new mail; they will look", error=str(error))

    async def _listen(self) -> None:
        while True:
            lost = asyncio.Event()
            try:
                connection = await connect(self._url, "listen")
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                await asyncio.sleep(0.5)
                continue
            try:
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(MAIL_CHANNEL, self._heard)
                await connection.add_listener(DIRECTORY_CHANNEL, lambda *_: self._directory_changed())
                self.listening.set()
                self.wake_all()
                self._directory_changed()
                await lost.wait()
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("the line to other processes broke", error=str(error))
            finally:
                self.listening.clear()
                connection.terminate()

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        name, _, endpoints = str(payload).partition(":")
        if name != self._name:
            self.wake(int(endpoint) for endpoint in endpoints.split(",") if endpoint)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(FLOOR_SECONDS)
            watchers = [watcher for group in self._watchers.values() for watcher in group]
            if not watchers:
                continue
            endpoints, lanes, seqs = [], [], []
            for watcher in watchers:
                for lane, seq in enumerate(watcher.after):
                    endpoints.append(watcher.endpoint)
                    lanes.append(lane)
                    seqs.append(seq)
            try:
                rows = await self._readers.fetch(SQL.waiting, endpoints, lanes, seqs)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                continue
            self.wake(row["endpoint"] for row in rows)
