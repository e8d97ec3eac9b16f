"""Sealing hand-overs that nobody acknowledged soon, and those of what another process has ended.

Twice a second a process takes from its memory what it gave more than `SOON` ago (`hub.relay.handovers`), reads
those entries and what of them is sealed already, and commits the events of the rest as runs. It holds the
mailboxes meanwhile, a few milliseconds, so that no entry is sealed twice, whichever processes gave it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog

from hub import tasks
from hub.directory.follow import Directory
from hub.evidence.sealing import seal_events
from hub.observe import metrics
from hub.relay import events
from hub.relay.ending import DAY
from hub.relay.handed import Handed
from hub.relay.handovers import MAX_SEALED, SOON, Key, given_together
from hub.relay.ranges import Ranges, beyond, read_ranges, write_ranges
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.reconnect import Reconnecting
from hub.store.routes import Routes
from protocol.evidence import EventKind, Sealer, timestamp
from protocol.ids import uuid7
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")

LOOK_SECONDS = 0.5
AT_ONCE = 1_000
"""Entries in a batch (about 30 ms, in which their mailboxes cannot be acknowledged)."""
CONNECT_SECONDS = 5.0
_ERRORS = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError, Problem)


HandedRun = tuple[int, int, int, int, datetime, int]
"""Endpoint, lane, first and last sequence, time, leaf of the first."""


class HandedRuns:
    """Runs of hand-overs in a batch, and their events."""

    def __init__(self) -> None:
        self.rows: list[HandedRun] = []
        self.texts: list[bytes] = []
        """The events, in UTF-8."""

    def cut(
        self,
        endpoint: int,
        lane: int,
        seqs: list[int],
        abouts: list[bytes],
        times: Sequence[datetime | None],
        cuts: set[int],
    ) -> None:
        """Add entries of one lane that were given at `times`, but for a None. A run begins at each of `cuts`."""
        for start, end, at in given_together(times, cuts):
            if at is None:
                continue
            self.rows.append((endpoint, lane, seqs[start], seqs[end - 1], at, len(self.texts)))
            before, after = map(str.encode, events.around(EventKind.HANDED_OVER, timestamp(at)))
            self.texts += [before + about + after for about in abouts[start:end]]

    def columns(self) -> Iterator[list[Any]]:
        return ([row[column] for row in self.rows] for column in range(6))


class HandOverSealing:
    """Does it for one process."""

    def __init__(self, url: str, sealer: Sealer, directory: Directory, handed: Handed, routes: Routes) -> None:
        self._sealer = sealer
        self._directory = directory
        self._handed = handed
        self._routes = routes
        self._connection = Reconnecting(url, "handovers")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="handovers")

    async def stop(self) -> None:
        """Seal what is left."""
        if self._task is not None:
            await tasks.end([self._task])
        with contextlib.suppress(*_ERRORS):
            while await self.seal(datetime.now(UTC)):
                pass
        await self._connection.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                while await self.seal(datetime.now(UTC) - SOON):
                    pass
            except _ERRORS as error:
                await self._connection.discard()
                log.warning("hand-overs could not be sealed; it is tried again", error=str(error))
            except Exception:  # else nothing would be sealed any more
                await self._connection.discard()
                log.exception("hand-overs could not be sealed")

    async def seal(self, before: datetime) -> int:
        """Seal a batch of what was given before a moment, if there is any; how many entries were looked at."""
        old = self._handed.handovers.take_old(before, AT_ONCE)
        if not old:
            return 0
        try:
            connection = await self._connection.get(asyncio.get_running_loop().time() + CONNECT_SECONDS)
            async with connection.transaction():
                state = await self._seal(connection, old)
        except BaseException:
            for (endpoint, lane), times in old.items():
                self._handed.handovers.put_back(endpoint, lane, times.keys(), times.values())
            raise
        for (endpoint, lane), sealed in state.items():
            self._handed.sealed(endpoint, lane, sealed)
        return sum(map(len, old.values()))

    async def _seal(
        self, connection: asyncpg.Connection, old: dict[Key, dict[int, datetime]]
    ) -> dict[Key, Ranges]:
        """What is sealed now in the mailboxes that changed."""
        keys = sorted(old)
        boxes = {
            (row["endpoint"], row["lane"]): row
            for row in await connection.fetch(
                SQL.hold_mailboxes, [endpoint for endpoint, _ in keys], [lane for _, lane in keys]
            )
        }
        places = [(endpoint, lane, seq) for endpoint, lane in keys for seq in old[endpoint, lane]]
        rows = await connection.fetch(
            SQL.handed_entries, *([place[column] for place in places] for column in range(3))
        )
        await self._routes.load(row["route"] for row in rows)
        runs = HandedRuns()
        found: dict[Key, list[asyncpg.Record]] = {}
        for row in rows:
            found.setdefault((row["endpoint"], row["lane"]), []).append(row)
        for key, entries in found.items():
            self._cut(runs, key, entries, old[key])
            self._remember(key, entries)
        state = {key: read_ranges(box["sealed"]) for key, box in boxes.items()}
        if not runs.rows:
            return state
        # From the entry before on: nothing lies between, and neighbouring runs become one range.
        before = {(row["endpoint"], row["lane"], row["seq"]): row["previous"] for row in rows}
        for endpoint, lane, first, last, _, _ in runs.rows:
            state[endpoint, lane].append((before[endpoint, lane, first] + 1, last + 1))
        state = {key: beyond(ranges, boxes[key]["floor"], MAX_SEALED) for key, ranges in state.items()}
        id_, at = uuid7(), datetime.now(UTC)
        sealed = await seal_events(self._sealer, runs.texts, id_, at)
        await connection.execute(
            SQL.commit_handed,
            id_,
            at,
            sealed.leaves,
            sealed.seal,
            [endpoint for endpoint, _ in state],
            [lane for _, lane in state],
            [write_ranges(ranges) for ranges in state.values()],
            *runs.columns(),
        )
        metrics.COMMITS.labels("handovers").inc()
        return state

    def _cut(self, runs: HandedRuns, key: Key, entries: list[asyncpg.Record], times: dict[int, datetime]) -> None:
        endpoint, lane = key
        name = self._directory.picture.endpoint_name(endpoint)
        seqs = [row["seq"] for row in entries]
        cuts = {
            place
            for place in range(1, len(entries))
            if entries[place]["previous"] != seqs[place - 1] or seqs[place] // DAY != seqs[place - 1] // DAY
        }
        abouts = [
            events.about(
                row["id"],
                row["sender"],
                row["sender_id"],
                row["digest"],
                name,
                self._routes.read(row["route"])[endpoint],
            ).encode()
            for row in entries
        ]
        runs.cut(
            endpoint, lane, seqs, abouts, [None if row["sealed"] else times[row["seq"]] for row in entries], cuts
        )

    def _remember(self, key: Key, entries: list[asyncpg.Record]) -> None:
        """That these are sealed: a reader who never acknowledges gets them again and again."""
        start = 0
        for place in range(1, len(entries) + 1):
            if place == len(entries) or entries[place]["previous"] != entries[place - 1]["seq"]:
                first, last = entries[start], entries[place - 1]
                self._handed.handovers.sealed(*key, first["previous"], first["seq"], last["seq"])
                start = place
