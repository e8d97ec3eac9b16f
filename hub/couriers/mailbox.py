"""Reading a mailbox: by lane, without starving any, never past what has expired.

A page holds entries of all three lanes, most urgent first, and is read in one statement from three
index ranges. Nothing is marked by reading: what has been handed out comes again until it is
acknowledged, unless the reader says `after` which entries it has seen. How far a mailbox was handed out
is noted once a second, for whoever asks where a message is. Whoever has written an entry's bytes to a
recipient says so (`handed_over`, `fetched`): that becomes evidence (`hub.relay.handovers`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg
import structlog

from hub import tasks
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.format import Format
from hub.relay.handed import Entry, Handed
from hub.relay.mail import END, INLINE_BYTES, After, Mail, carried
from hub.relay.openings import Openings
from hub.relay.ranges import read_ranges
from hub.relay.wake import Wake
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.routes import Routes
from hub.turns import Turns
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")

Found = TypeVar("Found")

PAGE_BYTES = 8 << 20
LANE_BYTES = (PAGE_BYTES * 7 // 10, PAGE_BYTES * 2 // 10, PAGE_BYTES // 10)
"""Bytes of bodies of each lane in a page: large express mail must not starve the other lanes either."""
HANDED_SECONDS = 1.0
GATHER_SECONDS = 0.05
"""How long a reader who was served so recently waits for more, once mail comes: a mailbox that is busy is
read in pages, not entry by entry. The first document after a pause is handed over at once."""
READS = 2
"""Pages that one endpoint reads from the store at a time. The pool has twice as many connections."""
PAGES_IN_HAND = 4
"""Pages that one endpoint has read and not yet taken from its connections (up to 8 MiB each)."""


def compose(waiting: tuple[int, int, int], limit: int, turn: int) -> tuple[int, int, int]:
    """How many entries of each lane a page of `limit` takes, given how many wait.

    Express first, but of a page of ten or more a fifth is kept for urgent and a tenth for normal mail.
    Smaller pages cannot be divided so: of eight in a row (`turn` counts them) one begins with normal
    and two with urgent mail. Room that a lane does not use goes to the others, most urgent first.
    """
    express, urgent, normal = waiting
    if limit >= 10:
        kept_normal, kept_urgent = limit // 10, limit // 5
    else:
        kept_normal = 1 if turn % 8 == 7 else 0
        kept_urgent = 1 if turn % 8 in (2, 5) else 0
    take_normal = min(normal, kept_normal)
    take_urgent = min(urgent, kept_urgent, limit - take_normal)
    take_express = min(express, limit - take_normal - take_urgent)
    room = limit - take_express - take_urgent - take_normal
    more_urgent = min(urgent - take_urgent, room)
    more_normal = min(normal - take_normal, room - more_urgent)
    return take_express, take_urgent + more_urgent, take_normal + more_normal


@dataclass(slots=True)
class Page:
    """Entries in the order in which they should be handled, and where reading goes on."""

    entries: list[Mail]
    cursor: After
    more: bool


class Mailboxes:
    """Hands out mail to whoever pulls, for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        routes: Routes,
        wake: Wake,
        acknowledger: Acknowledger,
        handed: Handed,
        openings: Openings,
    ) -> None:
        """`pool` should be this reader's own: a flood of submissions must not keep it waiting."""
        self.openings = openings
        self._pool = pool
        self._routes = routes
        self._wake = wake
        self._acknowledger = acknowledger
        self._memory = handed
        self._turns: dict[int, int] = {}
        self._served: dict[int, float] = {}
        self._handed: dict[tuple[int, int], int] = {}
        self._noted: dict[tuple[int, int], int] = {}
        self._reads = Turns(READS)
        self._in_hand = Turns(PAGES_IN_HAND)
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._note_handed(), name="note-handed")

    def close(self) -> None:
        """Let every waiting reader go home with what there is."""
        self._stopping = True
        self._wake.release()

    async def stop(self) -> None:
        self.close()
        if self._task is not None:
            await tasks.end([self._task])
        with contextlib.suppress(*UNAVAILABLE, TimeoutError, asyncpg.PostgresError):
            await self._flush_handed()

    async def read(self, endpoint: int, after: After, limit: int, wait: float) -> Page:
        """The next page of a mailbox beyond `after`, waiting up to `wait` seconds for mail to come.

        Raises `Problem` store-unavailable.
        """
        async with self.reading(endpoint, after, limit, wait) as page:
            return page

    @contextlib.asynccontextmanager
    async def reading(self, endpoint: int, after: After, limit: int, wait: float) -> AsyncIterator[Page]:
        """The page that `read` gives, as one of the `PAGES_IN_HAND` of its endpoint while the block runs."""
        hand = self._in_hand.of(endpoint)
        page = await self._wait(hand, endpoint, after, limit, wait)
        try:
            yield page
        finally:
            hand.release()

    async def _wait(self, hand: asyncio.Semaphore, endpoint: int, after: After, limit: int, wait: float) -> Page:
        """The page, with `hand` acquired for it, which nobody holds while waiting for mail."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        with self._wake.watch(endpoint) as watcher:
            watcher.after = list(after)
            while True:
                await hand.acquire()
                try:
                    watcher.event.clear()
                    page = await self.page(endpoint, after, limit, END, LANE_BYTES)
                except BaseException:
                    hand.release()
                    raise
                left = deadline - loop.time()
                if page.entries:
                    self._served[endpoint] = loop.time()
                if page.entries or left <= 0 or self._stopping:
                    return page
                hand.release()
                await watcher.wait(left)
                gather = self._served.get(endpoint, 0.0) + GATHER_SECONDS - loop.time()
                if gather > 0 and not self._stopping:
                    await asyncio.sleep(gather)

    async def page(
        self,
        endpoint: int,
        after: After,
        limit: int,
        until: After = END,
        shares: tuple[int, int, int] = LANE_BYTES,
    ) -> Page:
        """What the mailbox holds now beyond `after`, at most up to `until`, with `shares` bytes of bodies by lane.

        Raises `Problem` store-unavailable.
        """
        with self.openings.using(endpoint):
            return await self._read_page(endpoint, after, limit, until, shares)

    async def _read_page(
        self, endpoint: int, after: After, limit: int, until: After, shares: tuple[int, int, int]
    ) -> Page:
        while True:
            await self.openings.open(endpoint)
            try:
                async with self._reads.of(endpoint):
                    rows = await self._pool.fetch(
                        SQL.read_mailbox, endpoint, after, INLINE_BYTES, limit + 1, shares, until
                    )
                await self._routes.load(row["route"] for row in rows)
            except asyncpg.DeadlockDetectedError:
                continue  # with a change of the schema; nothing was read
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.error("a mailbox could not be read", error=str(error))
                raise Problem("store-unavailable", "try again; nothing is lost", retry_after=2) from None
            now = datetime.now(UTC)
            expired = {
                row["seq"]: row["expires_at"]
                for row in rows
                if row["expires_at"] is not None and row["expires_at"] <= now
            }
            if expired:
                await self.expire(endpoint, expired)
            elif self.openings.holds(endpoint):  # else somebody may have recalled an entry since it was read
                return self._page(endpoint, after, rows, limit)

    async def take(
        self,
        endpoint: int,
        find: Callable[[], Awaitable[Found]],
        place: Callable[[Found], tuple[int, int] | None],
    ) -> Found:
        """What `find` reads out of a mailbox, one entry by itself; it must leave out what was recalled.

        `place` gives its lane and sequence, or None when it is nothing that the endpoint would be given. Raises
        `Problem` store-unavailable.
        """
        with self.openings.using(endpoint):
            while True:
                await self.openings.open(endpoint)
                found = await find()
                if self.openings.holds(endpoint):
                    if (taken := place(found)) is not None:
                        self.openings.given(endpoint, *taken)
                    return found

    async def expire(self, endpoint: int, expired: dict[int, datetime]) -> None:
        """End entries (by sequence) whose time has come. What others have ended meanwhile is left alone."""
        reasons = {seq: f"expired at {at.isoformat()}" for seq, at in expired.items()}
        await self._acknowledger.end(Acknowledgement(endpoint, expired=reasons))

    def _page(self, endpoint: int, after: After, rows: list[asyncpg.Record], limit: int) -> Page:
        lanes: tuple[list[asyncpg.Record], ...] = ([], [], [])
        for row in rows:
            lanes[row["lane"]].append(row)
        turn = self._turns.get(endpoint, 0)
        take = compose((len(lanes[0]), len(lanes[1]), len(lanes[2])), limit, turn)
        mail: list[Mail] = []
        cursor = list(after)
        for lane, count in enumerate(take):
            taken: list[Mail] = []
            for row in lanes[lane][:count]:
                if row["cut"] and taken:
                    break
                taken.append(_mail(row, self._routes.read(row["route"])[endpoint]))
            if taken:
                first = lanes[lane][0]
                cursor[lane] = taken[-1].entry.seq
                self.note(endpoint, lane, after[lane], first["floor"], first["done"], taken, first["sealed"])
                mail += taken
        if mail:
            self._turns[endpoint] = turn + 1
        return Page(mail, (cursor[0], cursor[1], cursor[2]), len(mail) < len(rows))

    def note(
        self,
        endpoint: int,
        lane: int,
        after: int,
        floor: int | None,
        done: bool,
        taken: list[Mail],
        sealed: str | None = None,
    ) -> None:
        """Remember what is handed out, for the acknowledgement and for whoever asks where a message is.

        `taken` is all that the lane holds beyond `after`, up to the last of them. `floor` is None when the
        mailbox was not read. `done`: something was acknowledged out of order before. `sealed`: ranges of which
        the hand-over is sealed, if there are any.
        """
        key, last = (endpoint, lane), taken[-1].entry.seq
        self.openings.given(endpoint, lane, last)
        known = max(floor or 0, self._handed.get(key, 0), self._noted.get(key, 0))
        if (
            floor is None or after <= known
        ):  # else the reader says that it has what lies between; we have not seen it
            self._handed[key] = max(last, self._handed.get(key, 0))
        if not done:  # else the acknowledgement has to read
            ranges = read_ranges(sealed) if sealed else None
            self._memory.note(endpoint, lane, after, floor, [mail.entry for mail in taken], ranges)

    def handed_over(self, endpoint: int, mails: list[Mail]) -> None:
        """These were written to a connection of the recipient. A large message is only named in a page: it is
        handed over when it is fetched."""
        now = datetime.now(UTC)
        lanes: tuple[list[int], ...] = ([], [], [])
        for mail in mails:
            if mail.body is not None:
                lanes[mail.lane].append(mail.entry.seq)
        for lane, seqs in enumerate(lanes):
            if seqs:
                self._memory.handovers.note(endpoint, lane, seqs, now)

    def fetched(self, endpoint: int, lane: int, seq: int) -> None:
        """One entry was handed over by itself. That it was taken out is said with `openings`."""
        self._handed[endpoint, lane] = max(seq, self._handed.get((endpoint, lane), 0))
        self._memory.handovers.note(endpoint, lane, (seq,), datetime.now(UTC))

    async def _note_handed(self) -> None:
        while True:
            await asyncio.sleep(HANDED_SECONDS)
            with contextlib.suppress(*UNAVAILABLE, TimeoutError, asyncpg.PostgresError):
                await self._flush_handed()

    async def _flush_handed(self) -> None:
        handed, self._handed = self._handed, {}
        news = {key: seq for key, seq in handed.items() if seq > self._noted.get(key, 0)}
        if not news:
            return
        order = sorted(news)
        columns = [key[0] for key in order], [key[1] for key in order], [news[key] for key in order]
        try:
            await self._pool.execute(SQL.set_handed, *columns)
        except BaseException:  # to be noted with the next
            self._handed = news | {key: max(seq, news.get(key, 0)) for key, seq in self._handed.items()}
            raise
        self._noted |= news


def _mail(row: asyncpg.Record, agencies: list[str]) -> Mail:
    format_ = Format(row["format"])
    return Mail(
        Entry(row["seq"], row["id"], row["digest"], row["sender"], row["sender_id"], row["endpoint"], agencies),
        row["lane"],
        format_,
        row["size"],
        row["accepted_at"],
        row["expires_at"],
        carried(row["body"], format_),
        row["repeats"],
    )


def cursor_text(cursor: After) -> str:
    """A cursor as the wire has it: express.urgent.normal."""
    return ".".join(map(str, cursor))


def read_cursor(text: str) -> After:
    """The cursor of `cursor_text`. Raises `Problem` bad-request."""
    parts = text.split(".")
    if len(parts) != len(Lane) or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise Problem("bad-request", "a cursor is three numbers separated by dots, as the mailbox gave it")
    express, urgent, normal = map(int, parts)
    return express, urgent, normal
