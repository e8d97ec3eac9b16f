"""Mail for systems that speak the national axis's interface.

The interface has no cursor and no pages: a list shows the oldest entries that have not ended, the next come as
those end. Documents and statuses are asked for apart, though they share a mailbox.

What is subtle: entries of the kind that is not asked for are stepped over, and a system that never takes its
statuses would make each list of documents step over all of them. So the place of the first entry of each kind is
remembered; nothing can ever appear before it (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.couriers.mailbox import Mailboxes, compose
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.format import Format, Kind
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.routes import Routes
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("axis")

LIST_LIMIT = 1_000
LIST_CODES = 100_000
"""Agencies named in a list, altogether (about 1.5 MB): a circular may be for thousands of one system's."""
COUNT_LIMIT = 100_000
"""Counting goes no further; it takes PostgreSQL about 20 ms."""
COUNT_SECONDS = 2.0
"""How old a count may be: nobody may make the hub count more often."""
UNTAKEN_DAYS = 7
"""How long a status waits at the least before it may have to give way to documents (`_make_room`)."""
_ROOM = 5_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry of a list. `codes`: the system's agencies that it is for."""

    id: UUID
    sender: str
    codes: list[str]
    accepted_at: datetime
    noted_at: datetime | None
    """When the system said that it was at work on it."""
    repeats: bool = False
    """Whether it is known to repeat an earlier document."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message at the system's endpoint. `body` is None when it is a blob."""

    id: UUID
    accepted_at: datetime
    addressed: tuple[str, ...]
    """The codes of all agencies that it goes to, here and elsewhere."""
    lane: Lane
    seq: int
    format: Format
    kind: Kind
    digest: bytes
    size: int
    body: bytes | None
    here: tuple[str, ...] = ()
    """Of `addressed`, the system's own."""


class AxisMail:
    """What the axis's door does with mailboxes, for one process."""

    def __init__(
        self, pool: asyncpg.Pool[Any], routes: Routes, mailboxes: Mailboxes, acknowledger: Acknowledger
    ) -> None:
        """`pool` should be that of readers."""
        self._pool = pool
        self._routes = routes
        self._mailboxes = mailboxes
        self._acknowledger = acknowledger
        self._starts: dict[tuple[int, int, Kind], int] = {}
        self._counts: dict[tuple[int, Kind], tuple[float, int]] = {}

    async def waiting(self, endpoint: int, kind: Kind) -> list[Waiting]:
        """The oldest entries that have not ended, most urgent first.

        No lane starves another: of a full list, as of a full page, a part is kept for the less urgent.
        """
        statement = SQL.waiting_documents if kind is Kind.DOCUMENT else SQL.waiting_statuses
        while True:
            starts = [self._starts.get((endpoint, lane, kind), 0) for lane in Lane]
            rows = await self._fetch(statement, endpoint, LIST_LIMIT, starts)
            now = datetime.now(UTC)
            expired = {
                row["seq"]: row["expires_at"]
                for row in rows
                if row["expires_at"] is not None and row["expires_at"] <= now
            }
            if not expired:
                break
            await self._mailboxes.expire(endpoint, expired)
        lanes: tuple[list[asyncpg.Record], ...] = ([], [], [])
        ends = [0, 0, 0]
        for row in rows:
            if row["id"] is None:
                ends[row["lane"]] = row["seq"]
            else:
                lanes[row["lane"]].append(row)
        for lane in Lane:
            first = lanes[lane][0]["seq"] - 1 if lanes[lane] else ends[lane]
            self._starts[endpoint, lane, kind] = max(first, starts[lane])
        take = compose((len(lanes[0]), len(lanes[1]), len(lanes[2])), LIST_LIMIT, 0)
        taken = [row for lane, count in zip(lanes, take, strict=True) for row in lane[:count]]
        await self._routes.load(row["route"] for row in taken)
        shown: list[Waiting] = []
        room = LIST_CODES
        for row in taken:
            codes = self._routes.read(row["route"])[endpoint]
            room -= len(codes)
            if room < 0 and shown:
                break
            shown.append(
                Waiting(row["id"], row["sender"], codes, row["accepted_at"], row["noted_at"], row["repeats"])
            )
        return shown

    async def count(self, endpoint: int, kind: Kind) -> int:
        """How many entries have not ended, as of a moment ago; at most `COUNT_LIMIT`."""
        counted, count = self._counts.get((endpoint, kind), (float("-inf"), 0))
        if time.monotonic() - counted > COUNT_SECONDS:
            statement = SQL.count_documents if kind is Kind.DOCUMENT else SQL.count_statuses
            (row,) = await self._fetch(statement, endpoint, COUNT_LIMIT)
            count = row["count"]
            self._counts[endpoint, kind] = (time.monotonic(), count)
        return count

    async def delivery(self, endpoint: int, message: UUID) -> Delivery | None:
        """A message that is or was in the endpoint's mailbox, ended or not; none that was recalled."""
        return await self._mailboxes.take(endpoint, lambda: self._delivery(endpoint, message), _place)

    async def _delivery(self, endpoint: int, message: UUID) -> Delivery | None:
        for row in await self._fetch(SQL.delivery, message, endpoint):
            route = await self._routes.get(row["route"])
            if endpoint in route and row["kind"] != Kind.NOTICE:
                return Delivery(
                    row["id"],
                    row["accepted_at"],
                    tuple(code for codes in route.values() for code in codes),
                    Lane(row["lane"]),
                    row["seq"],
                    Format(row["format"]),
                    Kind(row["kind"]),
                    row["digest"],
                    row["size"],
                    row["body"],
                    tuple(route[endpoint]),
                )
        return None

    def fetched(self, endpoint: int, delivery: Delivery) -> None:
        """The system was given the message."""
        self._mailboxes.fetched(endpoint, delivery.lane, delivery.seq)

    async def note(self, endpoint: int, delivery: Delivery) -> None:
        """Keep that the system is at work on it. Changes nothing else."""
        await self._fetch(SQL.note, endpoint, delivery.id)

    async def end(self, endpoint: int, delivery: Delivery, refused: str | None = None) -> None:
        """Acknowledge a delivery, or refuse it with a reason. One that has ended stays as it ended."""
        try:
            await self._end(endpoint, delivery, refused)
        except Problem as problem:
            # The one thing that is wrong with a sequence that exists: too many gaps before it.
            if problem.code != "bad-request":
                raise
            await self._make_room(endpoint, delivery.lane)
            await self._end(endpoint, delivery, refused)
        await self._fetch(SQL.forget_note, endpoint, delivery.id)

    async def _end(self, endpoint: int, delivery: Delivery, refused: str | None) -> None:
        if refused is None:
            request = Acknowledgement(endpoint, entries={delivery.seq})
        else:
            request = Acknowledgement(endpoint, refused={delivery.seq: refused})
        await self._acknowledger.end(request)

    async def _make_room(self, endpoint: int, lane: Lane) -> None:
        """End statuses that nobody takes, so that the documents between them can go on ending.

        Each that waits between documents that have ended is a gap, and a mailbox keeps a bounded number. A
        system that takes documents only would come to stand. Raises `Problem` overloaded when none is old.
        """
        before = datetime.now(UTC) - timedelta(days=UNTAKEN_DAYS)
        rows = await self._fetch(SQL.old_statuses, endpoint, lane, before, _ROOM)
        if not rows:
            raise Problem(
                "overloaded",
                "too many entries that came before this one have not ended; take and end the oldest of your "
                "documents and statuses, both",
            )
        log.warning("statuses that nobody takes give way", endpoint=endpoint, lane=lane.label, count=len(rows))
        reason = f"not taken for {UNTAKEN_DAYS} days, while newer documents were"
        seqs = [row["seq"] for row in rows]
        request = Acknowledgement(
            endpoint, expired=dict.fromkeys(seqs, reason), codes=dict.fromkeys(seqs, "not-taken")
        )
        await self._acknowledger.end(request)

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            rows: list[asyncpg.Record] = await self._pool.fetch(statement, *arguments)
            return rows
        except asyncpg.DeadlockDetectedError:  # with a change of the schema; nothing was done
            await asyncio.sleep(0)
            return await self._fetch(statement, *arguments)
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
            log.error("mail for the axis could not be read", error=str(error))
            raise Problem("store-unavailable", "call again; nothing is lost", retry_after=2) from None


def _place(delivery: Delivery | None) -> tuple[int, int] | None:
    return None if delivery is None else (delivery.lane, delivery.seq)
