"""What this process has handed out and not yet seen acknowledged: enough to end deliveries without reading.

A reader usually acknowledges to the process that gave it the page. That process still knows the entries, so
an acknowledgement needs one round trip, the commit, instead of two.

The memory may be wrong in one way only: another process may have moved the mailbox since. The commit
compares the mailbox with what it is believed to be and writes nothing if they differ; then the memory is
dropped and the mailbox is read. Entries themselves never change, and none can appear below one that was read
(sequences follow commits), so a lane known from its floor on is known completely.

A lane may also be known from some other place on, because what lies before was handed out by others or forgotten.
It is of use once an acknowledgement has raised the floor to that place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from uuid import UUID

from hub.relay.handovers import MAX_SEALED, HandOvers
from hub.relay.ranges import Ranges, beyond
from protocol.message import Lane

MAX_ENTRIES = 50_000
"""Entries remembered by a process, about 20 MB; the lanes longest unused are forgotten first."""


@dataclass(slots=True)
class Entry:
    """One delivery, with what the event that ends it says.

    `previous` is the sequence before it in the inbox, where that was read.
    """

    seq: int
    id: UUID
    digest: bytes
    sender: str
    sender_id: str
    origin: int
    agencies: list[str]
    previous: int | None = None


@dataclass(slots=True)
class _Lane:
    """All entries between `known_from` and `known_to` that have not ended. `floor` where that is known, and then
    in `sealed` those beyond it of which the hand-over is sealed."""

    known_from: int
    known_to: int
    floor: int | None = None
    entries: deque[Entry] = field(default_factory=deque)
    sealed: Ranges = field(default_factory=list)


class Handed:
    """The memory of one process."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self._limit = limit
        self._count = 0
        self._lanes: OrderedDict[tuple[int, int], _Lane] = OrderedDict()
        self.handovers = HandOvers()

    def __len__(self) -> int:
        return self._count

    def note(
        self,
        endpoint: int,
        lane: int,
        after: int,
        floor: int | None,
        entries: list[Entry],
        sealed: Ranges | None = None,
    ) -> None:
        """`entries` were handed out: all that a lane holds, beyond `after` and `floor`, up to the last of them.

        `floor` is None when the mailbox was not read: its entries came from the commit. `sealed`: where it was
        read, what is sealed as handed over.
        """
        key = endpoint, lane
        known = self._lanes.get(key)
        if floor is not None and after <= floor:
            self._drop(key)
            known = self._lanes[key] = _Lane(floor, floor, floor, sealed=sealed or [])
        elif known is None or after > known.known_to:
            self._drop(key)  # there is a gap between what is known and this
            known = self._lanes[key] = _Lane(after, after)
        elif floor is not None and known.floor is not None and floor > known.floor:
            # Another process did that; what was read before we did is no news.
            self.ended(endpoint, lane, floor, sealed or [])
        self._lanes.move_to_end(key)
        for entry in entries:
            if entry.seq > known.known_to:
                known.entries.append(entry)
                known.known_to = entry.seq
                self._count += 1
        while self._count > self._limit:
            self._drop(next(iter(self._lanes)))

    def recall(self, endpoint: int, lane: int, up_to: int) -> tuple[int, list[Entry], Ranges] | None:
        """The floor of a lane, its entries up to `up_to`, and what is sealed as handed over; None when they are
        not all known."""
        known = self._lanes.get((endpoint, lane))
        if known is None or known.floor is None or up_to > known.known_to:
            return None
        return known.floor, list(takewhile(lambda entry: entry.seq <= up_to, known.entries)), known.sealed

    def given(self, endpoint: int, lane: int, up_to: int) -> Iterable[Entry]:
        """The entries of a lane up to `up_to` that this process gave and that have not ended."""
        known = self._lanes.get((endpoint, lane))
        return () if known is None else takewhile(lambda entry: entry.seq <= up_to, known.entries)

    def covers(self, endpoint: int, lane: int, up_to: int, at_most: int) -> bool:
        """Whether a lane is known up to `up_to`, and holds no more than `at_most` entries."""
        known = self._lanes.get((endpoint, lane))
        return (
            known is not None
            and known.floor is not None
            and up_to <= known.known_to
            and len(known.entries) <= at_most
        )

    def ended(self, endpoint: int, lane: int, floor: int, sealed: Ranges | None = None) -> None:
        """Everything up to `floor` has ended, and nothing beyond, by a commit of this process. `sealed`: what was
        sealed as handed over before that."""
        known = self._lanes.get((endpoint, lane))
        if known is None:
            known = self._lanes[endpoint, lane] = _Lane(floor, floor, floor)
        if floor < known.known_from:
            return
        known.floor = floor if known.floor is None else max(known.floor, floor)
        known.known_to = max(known.known_to, known.floor)
        known.sealed = beyond(sealed or (), known.floor, MAX_SEALED)
        while known.entries and known.entries[0].seq <= floor:
            known.entries.popleft()
            self._count -= 1

    def sealed(self, endpoint: int, lane: int, sealed: Ranges) -> None:
        """This process has just written what is sealed as handed over."""
        known = self._lanes.get((endpoint, lane))
        if known is not None and known.floor is not None:
            known.sealed = beyond(sealed, known.floor, MAX_SEALED)

    def forget(self, endpoint: int) -> None:
        """The mailbox is not as it was believed to be."""
        for lane in Lane:
            self._drop((endpoint, lane))

    def _drop(self, key: tuple[int, int]) -> None:
        known = self._lanes.pop(key, None)
        if known is not None:
            self._count -= len(known.entries)
