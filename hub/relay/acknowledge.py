"""Ending deliveries: acknowledged, refused or expired, many at a time, each with its proof.

A flush takes the acknowledgements that came while the last one was under way. It recalls the mailboxes
and the entries concerned (`handed`), or reads them; makes one event for each entry, seals them as one
batch, and writes the mailboxes' new state, the runs and the seal in one statement. If another process
moved one of the mailboxes in between, nothing is written and the flush starts over.

Refusals and expiries also tell the sender: the event's receipt is put into the sender's mailbox as a
message by the hub, in the same transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from hub.directory.follow import Directory
from hub.observe import metrics
from hub.relay.acknowledgement import Acknowledgement, Ended, Mailbox, MovedError
from hub.relay.batcher import Batcher
from hub.relay.ending import Flush
from hub.relay.handed import Entry, Handed
from hub.relay.handover_sealing import HandOverSealing
from hub.relay.ranges import Done, read_ranges
from hub.relay.wake import News
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.reconnect import Reconnecting
from hub.store.routes import Routes
from protocol.evidence import Sealer
from protocol.message import Lane
from protocol.problems import Problem

__all__ = ["Acknowledgement", "Acknowledger", "Ended"]

log = structlog.get_logger()
SQL = sql.load("relay")
RECALL = sql.load("recall")

MAX_REQUESTS = 64
GATHER_SECONDS = 0.02
"""How long a busy process gathers acknowledgements for one commit, one seal, one fsync (docs/adr/0017)."""
MAX_PART = 5_000
"""Entries that one acknowledgement ends in one batch (about 100 ms); a longer one is carried out in parts."""
CONNECT_SECONDS = 5.0
"""How long PostgreSQL is waited for before a reader is told to come back."""
_ATTEMPTS = 8


class Acknowledger:
    """Carries out acknowledgements for one process."""

    def __init__(
        self,
        url: str,
        sealer: Sealer,
        directory: Directory,
        handed: Handed,
        pool: asyncpg.Pool[Any],
        routes: Routes,
        committed: Callable[[News], None],
    ) -> None:
        """`pool` looks ahead in long acknowledgements; `committed` is told whose mailboxes got notices."""
        self._routes = routes
        self._pool = pool
        self._handed = handed
        self._sealer = sealer
        self._directory = directory
        self._committed = committed
        self.ended = 0
        self._connection = Reconnecting(url, "acknowledge")
        self._recalling = Reconnecting(url, "recall")
        self._one_recall = asyncio.Lock()
        self._handovers = HandOverSealing(url, sealer, directory, handed, routes)
        self.batcher: Batcher[Acknowledgement] = Batcher(
            "acknowledge",
            self._flush,
            self._fail,
            max_items=MAX_REQUESTS,
            max_weight=2 * MAX_PART,
            weigh=lambda request: request.weight,
            key=lambda request: request.endpoint,
            quantum=1_000,
            pause=GATHER_SECONDS,
        )

    def start(self) -> None:
        self.batcher.start()
        self._handovers.start()

    async def stop(self) -> None:
        await self.batcher.stop()
        await self._handovers.stop()
        await self._connection.close()
        await self._recalling.close()

    async def end(self, request: Acknowledgement) -> Ended:
        """Carry out a request; returns once it is on disk.

        Raises `Problem` beyond-end, bad-request, store-unavailable or key-unavailable; then nothing has changed.
        """
        total = Ended()
        for lane, seq in request.up_to.items() if request.signed is None else ():
            if not self._handed.covers(request.endpoint, lane, seq, MAX_PART):
                await self._end_in_parts(request.endpoint, lane, seq, total)
        await self._put(request, total)
        return total

    async def _put(self, request: Acknowledgement, total: Ended) -> None:
        self.batcher.put(request)
        ended = await request.done
        total.acknowledged += ended.acknowledged
        total.refused += ended.refused
        total.expired += ended.expired

    async def _end_in_parts(self, endpoint: int, lane: int, up_to: int, total: Ended) -> None:
        """End all of a long range but its last part. Does nothing when it reaches beyond the mailbox's end."""
        while True:
            try:
                row = await self._pool.fetchrow(SQL.cut_range, endpoint, lane, up_to, MAX_PART)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.error("a mailbox could not be read", error=str(error))
                raise Problem("store-unavailable", "nothing is lost: acknowledge again", retry_after=2) from None
            if row is None or row["cut"] is None or row["cut"] >= up_to or row["last"] < up_to:
                return
            await self._put(Acknowledgement(endpoint, up_to={lane: row["cut"]}, part=MAX_PART), total)

    async def recall(self, request: Acknowledgement) -> set[int]:
        """End the `recalled` entries of a request that were given to nobody; the sequences of those.

        All or nothing for each entry, and nothing where some process has the mailbox open: it may have taken out
        what it has not said yet. Raises `Problem` overloaded, store-unavailable or key-unavailable; then nothing
        has changed.
        """
        async with self._one_recall:
            try:
                connection = await self._recalling.get(asyncio.get_running_loop().time() + CONNECT_SECONDS)
                for _ in range(_ATTEMPTS):
                    with contextlib.suppress(MovedError):
                        return await self._recall_held(connection, request)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                await self._recalling.discard()
                self._handed.forget(request.endpoint)
                log.error("a recall could not be carried out", error=str(error))
                raise Problem("store-unavailable", "nothing is lost: send it again", retry_after=2) from None
        raise Problem("overloaded", "the mailbox is being acknowledged; send it again", retry_after=1)

    async def _recall_held(self, connection: asyncpg.Connection, request: Acknowledgement) -> set[int]:
        endpoint = request.endpoint
        async with connection.transaction():
            await connection.execute(RECALL.hold, endpoint)
            rows = await connection.fetch(RECALL.reach, endpoint)
            if any(row["open"] for row in rows):
                return set()
            given = {row["lane"]: row["given"] for row in rows}
            mailboxes = await self._read(connection, [request])
            for mailbox in mailboxes.values():
                mailbox.entries = [entry for entry in mailbox.entries if entry.seq > given[mailbox.lane]]
            ended = [entry for mailbox in mailboxes.values() for entry in mailbox.entries]
            if not request.recalled.keys() - request.quiet <= {entry.seq for entry in ended}:
                # The recall itself stays where anything is left that it asks for.
                for mailbox in mailboxes.values():
                    mailbox.entries = [entry for entry in mailbox.entries if entry.seq not in request.quiet]
                ended = [entry for entry in ended if entry.seq not in request.quiet]
            if not ended:
                return set()
            flush = Flush(self._sealer, self._directory, [request], mailboxes, self._handed.handovers)
            await connection.execute(RECALL.add_recalled, endpoint, [entry.id for entry in ended])
            await flush.write(connection)
        self._handed.forget(endpoint)
        self._committed(flush.news)
        self._count(flush.ended[id(request)])
        return {entry.seq for entry in ended}

    async def _flush(self, worker: int, requests: list[Acknowledgement]) -> None:
        try:
            for _ in range(_ATTEMPTS):
                try:
                    await self._carry_out([request for request in requests if not request.done.done()])
                    return
                except MovedError:
                    for request in requests:
                        self._handed.forget(request.endpoint)
            raise Problem(
                "overloaded", "the mailbox is being acknowledged elsewhere too; try again", retry_after=1
            )
        except Problem as problem:
            if len(requests) == 1 or problem.code == "key-unavailable":
                self._fail(requests, problem)
                return
            for request in requests:
                await self._flush(worker, [request])  # one endpoint's fault must not fail the others
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
            await self._connection.discard()
            for request in requests:
                self._handed.forget(request.endpoint)  # the commit may have been carried out
            log.error("acknowledgements could not be stored", error=str(error), requests=len(requests))
            self._fail(requests, Problem("store-unavailable", "nothing is lost: acknowledge again", retry_after=2))

    @staticmethod
    def _fail(requests: list[Acknowledgement], problem: Exception) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_exception(problem)

    async def _carry_out(self, requests: list[Acknowledgement]) -> None:
        connection = await self._connection.get(asyncio.get_running_loop().time() + CONNECT_SECONDS)
        mailboxes = self._recall(requests)
        if mailboxes is None:
            mailboxes = await self._read(connection, requests)
            valid = [request for request in requests if self._check(request, mailboxes)]
            if len(valid) < len(requests):
                # What was refused must not be ended along with the rest: read again what is left.
                requests, mailboxes = valid, await self._read(connection, valid)
        flush = Flush(self._sealer, self._directory, requests, mailboxes, self._handed.handovers)
        if flush.runs:
            try:
                await flush.write(connection)
            except BaseException:
                flush.undo()
                raise
            for mailbox in mailboxes.values():
                if mailbox.done.ranges:
                    self._handed.forget(mailbox.endpoint)
                else:
                    self._handed.ended(mailbox.endpoint, mailbox.lane, mailbox.done.floor, mailbox.sealed)
            self._committed(flush.news)
            metrics.COMMITS.labels("progress").inc()
        for request in requests:
            ended = flush.ended[id(request)]
            self._count(ended)
            if not request.done.done():  # its caller may have gone
                request.done.set_result(ended)

    def _recall(self, requests: list[Acknowledgement]) -> dict[tuple[int, int], Mailbox] | None:
        """The mailboxes concerned from memory; None unless all of it is known."""
        up_to: dict[tuple[int, int], int] = {}
        for request in requests:
            if request.entries or request.refused or request.expired:
                return None
            for lane, seq in request.up_to.items():
                key = request.endpoint, lane
                up_to[key] = max(seq, up_to.get(key, 0))
        mailboxes = {}
        for (endpoint, lane), seq in up_to.items():
            known = self._handed.recall(endpoint, lane, seq)
            if known is None:
                return None
            floor, entries, sealed = known
            mailboxes[endpoint, lane] = Mailbox(endpoint, lane, floor, "{}", seq, Done(floor), sealed, entries)
        return mailboxes

    def _count(self, ended: Ended) -> None:
        for outcome in ("acknowledged", "refused", "expired", "recalled"):
            if count := getattr(ended, outcome):
                self.ended += count
                metrics.DELIVERIES.labels(outcome).inc(count)

    async def _read(
        self, connection: asyncpg.Connection, requests: list[Acknowledgement]
    ) -> dict[tuple[int, int], Mailbox]:
        """The mailboxes concerned, with the entries that the requests end, each once, in order."""
        ranges: dict[tuple[int, int, int, int, bool], None] = {}
        for request in requests:
            for lane, seq in request.up_to.items():
                ranges[request.endpoint, lane, 0, seq, False] = None
            for seq in request.single():
                for lane in range(len(Lane)):
                    ranges[request.endpoint, lane, seq - 1, seq, True] = None
        boxes = {(request.endpoint, lane) for request in requests for lane in request.lanes()}
        rows = await connection.fetch(
            SQL.read_entries,
            [endpoint for endpoint, _ in boxes],
            [lane for _, lane in boxes],
            *([row[column] for row in ranges] for column in range(5)),
        )
        mailboxes: dict[tuple[int, int], Mailbox] = {}
        found: dict[tuple[int, int, int], asyncpg.Record] = {}
        for row in rows:
            box = row["endpoint"], row["lane"]
            if row["id"] is None:
                done = Done.read(row["floor"], row["done"])
                sealed = read_ranges(row["sealed"])
                mailboxes[box] = Mailbox(*box, row["floor"], row["done"], row["last"], done, sealed)
                continue
            key = (*box, row["seq"])
            # A row of a whole range wins over the same row asked for alone: its neighbours are all here.
            if key not in found or row["previous"] is None:
                found[key] = row
        await self._routes.load(row["route"] for row in found.values())
        for (endpoint, lane, _), row in sorted(found.items()):
            mailboxes[endpoint, lane].entries.append(
                Entry(
                    row["seq"],
                    row["id"],
                    row["digest"],
                    row["sender"],
                    row["sender_id"],
                    row["origin"],
                    self._routes.read(row["route"])[endpoint],
                    row["previous"],
                )
            )
        return mailboxes

    @staticmethod
    def _check(request: Acknowledgement, mailboxes: dict[tuple[int, int], Mailbox]) -> bool:
        """Refuse what lies beyond the mailbox's end. True when the request can be carried out."""
        if request.done.done():
            return False  # its caller has gone
        for lane, seq in request.up_to.items():
            mailbox = mailboxes[request.endpoint, lane]
            if seq > max(mailbox.last, mailbox.floor):
                detail = f"the {Lane(lane).label} lane ends at {max(mailbox.last, mailbox.floor)}, before {seq}"
                request.done.set_exception(Problem("beyond-end", detail))
                return False
        if single := request.single():
            last = max(
                max(mailboxes[request.endpoint, lane].last, mailboxes[request.endpoint, lane].floor)
                for lane in range(len(Lane))
            )
            if max(single) > last:
                request.done.set_exception(
                    Problem("beyond-end", f"the mailbox ends at {last}, before {max(single)}")
                )
                return False
        return True
