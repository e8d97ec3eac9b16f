"""Which mailboxes this process reads, said before it reads them: so that a recall knows what nobody was given.

A recall must be certain that no reader has the document, in any process, whatever becomes of that process. So
before a process takes an entry out of a mailbox, by reading or from its own commits, it has the mailbox *open*: a
row in the store, written once for as long as the mailbox is in use. When nobody uses it any more the process
says how far it got and closes it. A recall takes effect only in a mailbox that nobody has open, beyond what was
given (`hub.relay.acknowledge`). Reading costs nothing for it but a look into a dict.

What is subtle:

* A process that falls silent is given up after `SILENT` (`hub.chores`): whatever lies in its mailboxes then counts
  as given. It may be alive, cut off from the store. So whatever it takes out, it keeps only if it had been heard
  of less than `LEASE_SECONDS` before, which it checks *afterwards* (`holds`): then the entry was taken out
  before anybody could have given the process up, and counted as given when that happened.
* A mailbox that was opened after a commit began is not offered what that commit wrote (`Live.watched`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import structlog

from hub import tasks
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("recall")

LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0
SILENT = timedelta(minutes=2)
"""A commit may take 50 s, and what it wrote is offered to whoever had the mailbox open when it began."""
IDLE_SECONDS = 60.0
"""How long a mailbox stays open that nobody uses, unless somebody asks for it."""
TICK_SECONDS = 1.0
_ERRORS = (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError)


class Openings:
    """The open mailboxes of one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        connected: Callable[[int], bool],
        awaited: Callable[[int], bool] = lambda endpoint: False,
    ) -> None:
        """`connected`: whether a connection of this process takes an endpoint's mail from commits; `awaited`:
        whether a reader waits for it, who would open the mailbox again."""
        self._awaited = awaited
        self._pool = pool
        self._connected = connected
        self._id = uuid4()
        self._known = False
        """Whether the store knows `_id`."""
        self._lease = 0.0
        self._open: dict[int, float] = {}
        """By endpoint: when it was last used."""
        self._using: dict[int, int] = {}
        self._given: dict[tuple[int, int], int] = {}
        self._wanted: dict[int, asyncio.Future[None]] = {}
        self._unclosed: set[int] = set()
        """Mailboxes of which it is not known whether the store heard that they were closed."""
        self._turn = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._to_close: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._renewing(), name="openings-renew"),
            asyncio.create_task(self._closing(), name="openings-close"),
        ]

    async def stop(self) -> None:
        """Say how far everything was given. Nothing may be handed out any more."""
        await tasks.end(self._tasks)
        if self._opening is not None:
            await tasks.end([self._opening])
        with contextlib.suppress(*_ERRORS):
            async with self._turn:
                await self._close([*self._open, *self._unclosed])
                await self._pool.execute(SQL.drop_reader, self._id)

    # -- what readers call ----------------------------------------------------------------------

    def holds(self, endpoint: int) -> bool:
        """Whether what has just been taken out of a mailbox may be handed out."""
        return endpoint in self._open and time.monotonic() < self._lease

    @contextlib.contextmanager
    def using(self, endpoint: int) -> Iterator[None]:
        """Keep a mailbox open, once it is, while the block runs."""
        self._using[endpoint] = self._using.get(endpoint, 0) + 1
        try:
            yield
        finally:
            self._using[endpoint] -= 1
            if not self._using[endpoint]:
                del self._using[endpoint]

    async def open(self, endpoint: int) -> None:
        """Have a mailbox open; within `using`. Raises `Problem` store-unavailable."""
        if self.holds(endpoint):
            self._open[endpoint] = time.monotonic()
            return
        waiting = self._wanted.get(endpoint)
        if waiting is None:
            waiting = self._wanted[endpoint] = asyncio.get_running_loop().create_future()
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open_wanted(), name="openings-open")
        await asyncio.shield(waiting)

    def given(self, endpoint: int, lane: int, seq: int) -> None:
        """An entry was taken out, and with it all before it."""
        key = endpoint, lane
        if seq > self._given.get(key, 0):
            self._given[key] = seq

    def close_soon(self, endpoints: set[int]) -> None:
        """Somebody wants to recall: close what is not in use."""
        self._to_close |= endpoints & (self._open.keys() | self._unclosed)
        if self._to_close:
            self._asked.set()

    async def close_now(self, endpoints: set[int]) -> None:
        """The same, at once. Raises what asyncpg raises."""
        async with self._turn:
            await self._close([endpoint for endpoint in endpoints if not self._in_use(endpoint)])

    # -- in the background ----------------------------------------------------------------------

    async def _open_wanted(self) -> None:
        while self._wanted:
            async with self._turn:
                wanted, self._wanted = self._wanted, {}
                try:
                    await self._register(list(wanted))
                except BaseException as error:
                    away = isinstance(error, _ERRORS)
                    if away:
                        log.error("mailboxes could not be opened", error=str(error))
                    problem = Problem("store-unavailable", "try again; nothing is lost", retry_after=2)
                    for waiting in wanted.values():
                        if not waiting.done():
                            waiting.set_exception(problem)
                            waiting.exception()  # whoever waited may have gone
                    if not away:
                        raise
                for waiting in wanted.values():
                    if not waiting.done():
                        waiting.set_result(None)

    async def _register(self, endpoints: list[int]) -> None:
        for _ in range(3):
            if time.monotonic() >= self._lease:
                await self._renew()
            if await self._pool.fetchval(SQL.open_mailboxes, self._id, endpoints):
                now = time.monotonic()
                for endpoint in endpoints:
                    self._open[endpoint] = now
                self._unclosed.difference_update(endpoints)
                return
            self._lease = 0.0  # given up by others
        raise TimeoutError("this process is given up again and again")

    async def _renew(self) -> None:
        """Be heard of. Under another name, and with nothing open, when this process was given up."""
        before = time.monotonic()
        if not self._known:
            await self._pool.execute(SQL.new_reader, self._id)
            self._known = True
        elif await self._pool.fetchval(SQL.renew_reader, self._id) is None:
            log.warning("this process was silent for too long; as a reader it begins anew")
            self._open.clear()
            self._unclosed.clear()
            self._given.clear()
            self._id, self._known = uuid4(), False
            await self._pool.execute(SQL.new_reader, self._id)
            self._known = True
        self._lease = before + LEASE_SECONDS

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(*_ERRORS):
                async with self._turn:
                    await self._renew()

    async def _closing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._asked.wait()
            self._asked.clear()
            asked, self._to_close = self._to_close, set()
            old = time.monotonic() - IDLE_SECONDS
            idle = {e for e, used in self._open.items() if used < old and not self._awaited(e)}
            leave = (asked | idle | self._unclosed) - {e for e in asked | idle if self._in_use(e)}
            if not leave:
                continue
            try:
                async with self._turn:
                    await self._close([endpoint for endpoint in leave if not self._in_use(endpoint)])
            except _ERRORS as error:
                log.warning("mailboxes could not be closed; it is tried again", error=str(error))

    def _in_use(self, endpoint: int) -> bool:
        return endpoint in self._using or endpoint in self._wanted or self._connected(endpoint)

    async def _close(self, endpoints: list[int]) -> None:
        """Under `_turn`, so that nobody opens meanwhile. From the first moment on nothing is taken out."""
        if not endpoints:
            return
        leaving = set(endpoints)
        for endpoint in leaving:
            if self._open.pop(endpoint, None) is not None:
                self._unclosed.add(endpoint)
        given = sorted((key, seq) for key, seq in self._given.items() if key[0] in leaving)
        await self._pool.execute(
            SQL.close_mailboxes,
            self._id,
            sorted(leaving),
            [endpoint for (endpoint, _), _ in given],
            [lane for (_, lane), _ in given],
            [seq for _, seq in given],
        )
        self._unclosed -= leaving
        for key, seq in given:
            if self._given.get(key) == seq:
                del self._given[key]
