"""What is asked of mailboxes, and mailboxes as they are found."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from hub.relay.handed import Entry
from hub.relay.ranges import Done, Ranges
from protocol.evidence import EventKind
from protocol.message import Lane
from protocol.reasons import DEFAULT_CODES

PAGE_ENTRIES = 100
"""Entries that an acknowledgement up to a cursor is taken to end, when batches are filled."""


@dataclass(frozen=True, eq=False)
class Signed:
    """The recipient's own signature under an acknowledgement, checked (`hub.relay.signed`).

    `sha256`: of the JWS, in hex. `leaves`: hashes of the documents acknowledged, one after the other.
    """

    id: UUID
    jws: str
    sha256: str
    leaves: bytes


@dataclass(slots=True, eq=False)
class Acknowledgement:
    """What one endpoint says of its mailbox.

    `up_to`: by lane, a sequence up to which everything is acknowledged. `entries`: sequences to
    acknowledge one by one. `refused`, `expired`, `recalled`: sequences that end otherwise, with a reason; `codes`
    has those of `protocol.reasons` that are not the usual ones.
    """

    endpoint: int
    up_to: dict[int, int] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    expired: dict[int, str] = field(default_factory=dict)
    recalled: dict[int, str] = field(default_factory=dict)
    codes: dict[int, str] = field(default_factory=dict)
    quiet: set[int] = field(default_factory=set)
    """Of these no sender is told."""
    part: int = 0
    """How many entries `up_to` ends, where that is known."""
    signed: Signed | None = None
    done: asyncio.Future[Ended] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def single(self) -> list[int]:
        return [*self.entries, *self.refused, *self.expired, *self.recalled]

    @property
    def weight(self) -> int:
        """How many entries it ends, about."""
        single = len(self.entries) + len(self.refused) + len(self.expired)
        return self.part or single + PAGE_ENTRIES * bool(self.up_to)

    def lanes(self) -> list[int]:
        return list(range(len(Lane))) if self.single() else list(self.up_to)


@dataclass(slots=True)
class Ended:
    """How many deliveries an acknowledgement ended. Repeating one ends none."""

    acknowledged: int = 0
    refused: int = 0
    expired: int = 0
    recalled: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How an entry ends. Neighbours that end alike are one run."""

    kind: EventKind
    reason: str | None = None
    code: str | None = None
    signed: Signed | None = None

    @classmethod
    def of(cls, kind: EventKind, seq: int, reason: str, request: Acknowledgement) -> End:
        return cls(kind, reason, request.codes.get(seq, DEFAULT_CODES[kind]), request.signed)


@dataclass
class Mailbox:
    """A mailbox's lane as it was read, or is believed to be, and what is to become of it.

    `sealed`: beyond the floor, the entries of which the hand-over is sealed.
    """

    endpoint: int
    lane: int
    floor: int
    done_text: str
    last: int
    done: Done
    sealed: Ranges = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @cached_property
    def seqs(self) -> list[int]:
        """The sequences of the entries, once they are all there."""
        return [entry.seq for entry in self.entries]


class MovedError(Exception):
    """Another process changed a mailbox between reading and writing it."""
