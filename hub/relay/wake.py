"""Who has mail now: from a commit to whoever waits for it.

In the process that committed, waiters wake from memory, at once, and whoever has asked to be given the
mail itself is given it (`hub.relay.live`). Other processes are told by one NOTIFY every
`COALESCE_SECONDS` that names mailboxes and how far they reach now, never inside the transaction that
wrote the mail (there it would serialise all commits: 6,900/s fell to 2,600/s). A look at the waited-for
mailboxes every `FLOOR_SECONDS`, in turns when they are many, catches what a lost announcement would have
told.

A process has one connection for LISTEN and one for everything it says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol
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
CLOSE_CHANNEL = "lienthong_close"
COALESCE_SECONDS = 0.01
FLOOR_SECONDS = 2.0
LOOKS = 1_000
"""Mailboxes in one look (about 10 ms of PostgreSQL)."""
_NOTIFY_BYTES = 7_900
"""A payload holds at most 8,000 bytes."""
_ENDPOINTS_PER_PLACE = 600
"""An endpoint takes up to 11 bytes with its dot."""
_NARROW = 8


class Reach(NamedTuple):
    """How far a lane of some mailboxes reaches now: the last sequence committed. `endpoints` never changes."""

    lane: int
    seq: int
    endpoints: Collection[int]


News = list[Reach]
"""What a commit brought. A circular is one `Reach`, however many get it."""


class Waiter(Protocol):
    """Who waits for mail of one mailbox. `after` is what it has, by lane."""

    endpoint: int
    after: list[int]

    def heard(self) -> None:
        """There may be mail beyond `after`."""


class Watcher:
    """A waiter that sleeps until there is mail."""

    __slots__ = ("after", "endpoint", "event")

    def __init__(self, endpoint: int) -> None:
        self.endpoint = endpoint
        self.event = asyncio.Event()
        self.after = [0, 0, 0]

    def heard(self) -> None:
        self.event.set()

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
        close_asked: Callable[[set[int]], None] = lambda endpoints: None,
    ) -> None:
        """`pool` tells other processes, `readers` looks for mail; `directory_changed` is told of changes, and
        `close_asked` of mailboxes that another process wants closed (`hub.relay.openings`)."""
        self._close_asked = close_asked
        self._url = url
        self._pool = pool
        self._readers = readers
        self._directory_changed = directory_changed
        self._name = uuid4().hex[:12]
        self._waiters: dict[int, tuple[Waiter, ...]] = {}
        self._to_look: list[Waiter] = []
        self._to_tell: dict[tuple[int, int], int] = {}
        self._to_tell_many: dict[tuple[int, int], Reach] = {}
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
        self.add(watcher)
        try:
            yield watcher
        finally:
            self.remove(watcher)

    def add(self, waiter: Waiter) -> None:
        """Tell `waiter` of mail until it is removed."""
        self._waiters[waiter.endpoint] = (*self._waiters.get(waiter.endpoint, ()), waiter)

    def remove(self, waiter: Waiter) -> None:
        waiters = tuple(other for other in self._waiters[waiter.endpoint] if other is not waiter)
        if waiters:
            self._waiters[waiter.endpoint] = waiters
        else:
            del self._waiters[waiter.endpoint]

    def awaited(self, endpoint: int) -> bool:
        """Whether somebody here waits for an endpoint's mail."""
        return endpoint in self._waiters

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiters.values()))

    def committed(self, news: News) -> None:
        """Mail has just been committed by this process."""
        self._tell_waiters(news)
        for reach in news:
            lane, seq, endpoints = reach
            if len(endpoints) > _NARROW:
                key = lane, id(endpoints)
                before = self._to_tell_many.get(key)
                if before is None or seq > before.seq:
                    self._to_tell_many[key] = reach
            else:
                for endpoint in endpoints:
                    self._to_tell[lane, endpoint] = max(seq, self._to_tell.get((lane, endpoint), 0))
        if news:
            self._tell.set()

    def _tell_waiters(self, news: News) -> None:
        waiters = self._waiters
        for lane, seq, endpoints in news:
            for endpoint in waiters.keys() & endpoints:
                for waiter in waiters[endpoint]:
                    if seq > waiter.after[lane]:
                        waiter.heard()

    def wake(self, endpoints: Iterable[int]) -> None:
        for endpoint in endpoints:
            for waiter in self._waiters.get(endpoint, ()):
                waiter.heard()

    def wake_all(self) -> None:
        """Let everybody look: after announcements may have been missed."""
        self.wake(list(self._waiters))

    def release(self) -> None:
        """Let whoever sleeps go home, when the hub stops. Others are told of that in their own way."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                if isinstance(waiter, Watcher):
                    waiter.heard()

    async def _tell_others(self) -> None:
        while True:
            await self._tell.wait()
            await asyncio.sleep(COALESCE_SECONDS)
            self._tell.clear()
            payloads = self._payloads()
            try:
                await self._pool.execute(SQL.notify, payloads)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("other processes were not told of new mail; they will look", error=str(error))

    def _payloads(self) -> list[str]:
        """What there is to tell: ``name:place,place,…``, where a place is ``lane.sequence.endpoint.endpoint…``"""
        places = [f"{lane}.{seq}.{endpoint}" for (lane, endpoint), seq in self._to_tell.items()]
        for lane, seq, endpoints in self._to_tell_many.values():
            names = [str(endpoint) for endpoint in endpoints]
            for start in range(0, len(names), _ENDPOINTS_PER_PLACE):
                places.append(f"{lane}.{seq}." + ".".join(names[start : start + _ENDPOINTS_PER_PLACE]))
        self._to_tell.clear()
        self._to_tell_many.clear()
        payloads: list[str] = []
        size = _NOTIFY_BYTES
        for place in places:
            size += len(place) + 1
            if size > _NOTIFY_BYTES:
                payloads.append(f"{self._name}:{place}")
                size = len(payloads[-1])
            else:
                payloads[-1] += f",{place}"
        return payloads

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
                await connection.add_listener(CLOSE_CHANNEL, self._heard_close)
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
        name, _, told = str(payload).partition(":")
        if name == self._name:
            return
        for place in told.split(","):
            lane, seq, *endpoints = place.split(".")
            self._tell_waiters([Reach(int(lane), int(seq), set(map(int, endpoints)))])

    def _heard_close(self, connection: object, pid: int, channel: str, payload: object) -> None:
        self._close_asked({int(endpoint) for endpoint in str(payload).split(",")})

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(FLOOR_SECONDS)
            if not self._to_look:
                self._to_look = [waiter for group in self._waiters.values() for waiter in group]
            waiters, self._to_look = self._to_look[:LOOKS], self._to_look[LOOKS:]
            if not waiters:
                continue
            endpoints, lanes, seqs = [], [], []
            for waiter in waiters:
                for lane, seq in enumerate(waiter.after):
                    endpoints.append(waiter.endpoint)
                    lanes.append(lane)
                    seqs.append(seq)
            try:
                rows = await self._readers.fetch(SQL.waiting, endpoints, lanes, seqs)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                continue
            self.wake(row["endpoint"] for row in rows)
