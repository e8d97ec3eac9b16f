"""One sealed batch of ended deliveries: its events, its runs, and the mailboxes' new state.

The event of an entry that was handed over a moment ago says since when the recipient had it: both in one leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg

from hub.directory.follow import Directory
from hub.evidence.sealing import Sealed, seal_events
from hub.relay import events
from hub.relay.acknowledgement import Acknowledgement, End, Ended, Mailbox, MovedError, Signed
from hub.relay.batch import Batch, Ticket, Work, make_batch, notice
from hub.relay.handed import Entry
from hub.relay.handovers import MAX_SEALED, HandOvers, given_together
from hub.relay.ranges import beyond, within, write_ranges
from hub.relay.wake import News
from hub.store import sql
from protocol.evidence import EventKind, Sealer, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem

SQL = sql.load("relay")

DAY = 86_400_000_000
"""Microseconds, as sequences count them."""
MAX_RANGES = 10_000
"""Ranges that one mailbox may keep beyond its floor (about 160 KB)."""
SHOWN = timedelta(days=7)
"""How long a notice waits in the mailbox of an endpoint that speaks the axis's interface, where it would never
be read: there the list of what was sent says the same, for good."""
_ACKNOWLEDGED = End(EventKind.ACKNOWLEDGED)


class Flush:
    """One sealed batch of ended deliveries, ready to be written."""

    def __init__(
        self,
        sealer: Sealer,
        directory: Directory,
        requests: list[Acknowledgement],
        mailboxes: dict[tuple[int, int], Mailbox],
        handovers: HandOvers,
    ) -> None:
        """Takes out of `handovers` what it tells of; `undo` puts it back. Raises `Problem` bad-request."""
        self.id = uuid7()
        self.at = datetime.now(UTC)
        self.ended = {id(request): Ended() for request in requests}
        self.runs: list[tuple[Any, ...]] = []
        """Rows of `progress`, as `commit_progress` takes them."""
        self.news: News = []
        self._sealer = sealer
        self._mailboxes = mailboxes
        self._events: list[bytes] = []
        self._handovers = handovers
        self._taken: list[tuple[Mailbox, list[datetime | None]]] = []
        self._signed: dict[int, tuple[int, Signed]] = {}
        self._told: list[tuple[int, int, Entry]] = []
        """(leaf, lane, entry) of each event that its sender is told of."""
        self._picture = directory.picture
        self._at = timestamp(self.at)
        by_endpoint: dict[int, list[Acknowledgement]] = {}
        for request in requests:
            by_endpoint.setdefault(request.endpoint, []).append(request)
        try:
            for mailbox in mailboxes.values():
                asked = by_endpoint.get(mailbox.endpoint, [])
                if mailbox.entries:
                    self._end(mailbox, asked)
                self._move(mailbox, asked)
        except Problem:
            self.undo()
            raise

    def _end(self, mailbox: Mailbox, asked: list[Acknowledgement]) -> None:
        """The events of a mailbox's entries."""
        name = self._picture.endpoint_name(mailbox.endpoint)
        entries, seqs = mailbox.entries, mailbox.seqs
        ends = [self._how(seq, mailbox.lane, asked) for seq in seqs]
        abouts = [
            events.about(entry.id, entry.sender, entry.sender_id, entry.digest, name, entry.agencies).encode()
            for entry in entries
        ]
        cuts = {n for n in range(1, len(ends)) if ends[n] is not ends[n - 1] and ends[n] != ends[n - 1]}
        cuts.update(self._cuts(mailbox))
        quiet = {seq for request in asked for seq in request.quiet}
        for start, end, handed_at in given_together(self._given(mailbox), cuts):
            how, leaf = ends[start], len(self._events)
            if how.signed is not None:
                self._signed[id(how.signed)] = mailbox.endpoint, how.signed
            signed = None if how.signed is None else how.signed.sha256
            handed = None if handed_at is None else timestamp(handed_at)
            around = events.around(how.kind, self._at, how.code, how.reason, signed, handed)
            before, after = map(str.encode, around)
            self._events += [before + about + after for about in abouts[start:end]]
            if how.kind is not EventKind.ACKNOWLEDGED:
                self._told += [
                    (leaf + place - start, mailbox.lane, entries[place])
                    for place in range(start, end)
                    if seqs[place] not in quiet
                ]
            self.runs.append(
                (
                    mailbox.endpoint,
                    mailbox.lane,
                    seqs[start],
                    seqs[end - 1],
                    events.ENDED_KINDS.index(how.kind),
                    leaf,
                    how.code,
                    how.reason,
                    None if how.signed is None else how.signed.id,
                    handed_at,
                )
            )

    def _given(self, mailbox: Mailbox) -> list[datetime | None]:
        """Since when the recipient has each entry; None where that is not known, or sealed already."""
        seqs = mailbox.seqs
        times = self._handovers.take(mailbox.endpoint, mailbox.lane, seqs)
        if times is None:
            return [None] * len(seqs)
        self._taken.append((mailbox, times))
        if mailbox.sealed:
            return [None if within(mailbox.sealed, seq) else at for seq, at in zip(seqs, times, strict=True)]
        return times

    def _how(self, seq: int, lane: int, requests: list[Acknowledgement]) -> End:
        """How an entry ends, counted for the request that ends it."""
        for request in requests:
            ended = self.ended[id(request)]
            if seq in request.expired:
                ended.expired += 1
                return End.of(EventKind.EXPIRED, seq, request.expired[seq], request)
            if seq in request.recalled:
                ended.recalled += 1
                return End.of(EventKind.RECALLED, seq, request.recalled[seq], request)
            if seq in request.refused:
                ended.refused += 1
                return End.of(EventKind.REFUSED, seq, request.refused[seq], request)
            if seq <= request.up_to.get(lane, 0) or seq in request.entries:
                ended.acknowledged += 1
                signed = request.signed
                return _ACKNOWLEDGED if signed is None else End(EventKind.ACKNOWLEDGED, signed=signed)
        raise AssertionError("an entry was read that nobody asked for")

    @staticmethod
    def _cuts(mailbox: Mailbox) -> Iterator[int]:
        """Places of entries that do not follow the one before them in the inbox, or come on another day.

        A run lies within one day, and so within the partition of its entries: it leaves with them.
        """
        for index, (before, entry) in enumerate(pairwise(mailbox.entries), start=1):
            if entry.previous is None:
                neighbours = not mailbox.done.between(before.seq, entry.seq)
            else:
                neighbours = entry.previous == before.seq
            if not neighbours or before.seq // DAY != entry.seq // DAY:
                yield index

    @staticmethod
    def _move(mailbox: Mailbox, requests: list[Acknowledgement]) -> None:
        for request in requests:
            mailbox.done.raise_floor(request.up_to.get(mailbox.lane, 0))
        for entry in mailbox.entries:
            if entry.previous is not None:
                mailbox.done.add(entry.previous, entry.seq)
        mailbox.done.settle()
        # The hub's own expiries are never refused: a mailbox nobody reads must not stop the sweep.
        if len(mailbox.done.ranges) > MAX_RANGES and any(r.entries or r.refused for r in requests):
            raise Problem(
                "bad-request",
                f"more than {MAX_RANGES} gaps in lane {Lane(mailbox.lane).label}; acknowledge the oldest first",
            )

    def undo(self) -> None:
        """It was not written: what was handed over is to be sealed another time."""
        for mailbox, times in self._taken:
            self._handovers.put_back(mailbox.endpoint, mailbox.lane, mailbox.seqs, times)
        self._taken = []

    async def write(self, connection: asyncpg.Connection) -> None:
        """Commit. Raises MovedError when a mailbox is no longer as it was read, `Problem` key-unavailable."""
        sealed = await seal_events(self._sealer, self._events, self.id, self.at)
        moved = [
            mailbox
            for mailbox in self._mailboxes.values()
            if mailbox.entries or mailbox.done.floor != mailbox.floor
        ]
        signed = list(self._signed.values())
        arguments: list[Any] = [
            self.id,
            self.at,
            sealed.leaves,
            sealed.seal,
            [mailbox.endpoint for mailbox in moved],
            [mailbox.lane for mailbox in moved],
            [mailbox.floor for mailbox in moved],
            [mailbox.done_text for mailbox in moved],
            [write_ranges(mailbox.sealed) for mailbox in moved],
            [mailbox.done.floor for mailbox in moved],
            [mailbox.done.write() for mailbox in moved],
            [write_ranges(beyond(mailbox.sealed, mailbox.done.floor, MAX_SEALED)) for mailbox in moved],
            *([run[column] for run in self.runs] for column in range(10)),
            [one.id for _, one in signed],
            [endpoint for endpoint, _ in signed],
            [one.jws for _, one in signed],
            [one.leaves for _, one in signed],
        ]
        notices = await self._notices(sealed)
        try:
            if notices is None:
                await connection.fetchval(SQL.commit_progress, *arguments)
                return
            async with connection.transaction():
                await connection.fetchval(SQL.commit_progress, *arguments)
                base, *_ = await connection.fetchval(SQL.commit_messages, *notices.arguments({}, []))
            self.news = notices.news(base)
        except asyncpg.PostgresError as error:
            if error.sqlstate in ("LT412", "40P01"):
                raise MovedError from None
            raise

    async def _notices(self, sealed: Sealed) -> Batch | None:
        """Messages that carry receipts of refusals and expiries to the senders concerned."""
        told = [(leaf, lane, entry) for leaf, lane, entry in self._told if entry.origin != 0]
        if not told:
            return None
        receipts = events.receipts_json(sealed.tree, [event.decode() for event in self._events], sealed.seal)
        ticket = Ticket(len(told))
        notices: list[Work] = [
            notice(
                ticket,
                f"{self.id}/{leaf}",
                Lane(lane),
                receipts[leaf],
                (entry.origin, entry.sender),
                entry.id,
                self.at + SHOWN if entry.origin in self._picture.axis_endpoints else None,
            )
            for leaf, lane, entry in told
        ]
        return await make_batch(notices, self._sealer)
