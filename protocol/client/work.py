"""What a stream's client has under way: submissions, acknowledgements, and which mail it is done with."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from protocol.client import transport
from protocol.client.model import ClientError, Entry, Sent
from protocol.message import Lane
from protocol.problems import Problem
from protocol.stream import MAX_FRAME_BYTES, Ack, Refusal

LANES = {lane.label: lane.value for lane in Lane}
MAX_OPEN = 100_000
"""Entries that an application may leave unacknowledged before they are no longer kept track of (about 10 MB)."""

Cursor = tuple[int, int, int]
START: Cursor = (0, 0, 0)


def read_cursor(text: str) -> Cursor:
    """The cursor that a frame has. Raises ValueError."""
    express, urgent, normal = map(int, text.split("."))
    return express, urgent, normal


def write_cursor(cursor: Cursor | list[int]) -> str:
    return ".".join(map(str, cursor))


@dataclass(slots=True, eq=False)
class Work:
    """Something that is sent again until it is answered, or until `deadline` (of the loop's clock) has passed."""

    deadline: float
    done: asyncio.Future[list[Sent | Problem]]
    pause: float = field(default=transport.FIRST_PAUSE, init=False)

    def wait(self, problem: Problem) -> float:
        """Seconds after which to send it again, jittered; they grow each time."""
        pause, self.pause = self.pause, min(self.pause * 2, transport.LONGEST_PAUSE)
        return max(pause * random.uniform(0.5, 1.0), problem.retry_after or 0.0)  # noqa: S311

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class Submission(Work):
    """One message; or a manifest and its documents, whose outcomes come together."""

    message: str = ""
    manifest: str = ""
    documents: tuple[str, ...] = ()
    accepted: dict[int, Sent] = field(default_factory=dict)
    """Outcomes that will stand when the manifest has to be sent again because of others."""

    def settle(self, outcomes: list[Sent | Problem]) -> None:
        """These are the outcomes, and what had been accepted before has its first."""
        for place, sent in self.accepted.items():
            outcomes[place] = sent
        if not self.done.done():
            self.done.set_result(outcomes)

    def keep(self, outcomes: list[Sent | Problem]) -> None:
        """Some of these ask to be sent again; remember the others."""
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Sent):
                self.accepted.setdefault(place, outcome)


@dataclass(slots=True, eq=False)
class Acking(Work):
    """What one caller acknowledges or refuses. `entries`: lane (-1 when it is not known) and sequence of each."""

    entries: tuple[tuple[int, int], ...] = ()
    up_to: Cursor = START
    refuse: tuple[Refusal, ...] = ()
    alone: bool = False
    """Whether it gets a frame of its own, because together with others it failed."""


class Tally:
    """Which entries the application was given and is not done with, by lane.

    When it is done with all up to one, a cursor says so in a few bytes and costs the hub next to nothing;
    one by one, each has to be looked up. That holds only for whoever reads the mailbox from its beginning:
    a cursor ends what lies before it, too.
    """

    def __init__(self, from_start: bool) -> None:
        self._on = from_start
        self._open: tuple[OrderedDict[int, bool], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        """Sequences in their order, and whether each is done."""
        self._done_to = list(START)

    def handed(self, lane: int, seq: int) -> None:
        """The application has been given an entry."""
        if not self._on:
            return
        self._open[lane][seq] = False
        if len(self._open[lane]) > MAX_OPEN:
            self._on = False
            for open_ in self._open:
                open_.clear()

    def done(self, seq: int) -> int:
        """The application is done with an entry. Its lane; -1 when it is not known."""
        for lane, open_ in enumerate(self._open):
            if seq in open_:
                open_[seq] = True
                self._advance(lane, 0)
                return lane
        return -1

    def done_up_to(self, cursor: Cursor) -> None:
        """The application is done with everything up to a cursor."""
        for lane, seq in enumerate(cursor):
            self._advance(lane, seq)

    def _advance(self, lane: int, seq: int) -> None:
        open_ = self._open[lane]
        while open_:
            first, done = next(iter(open_.items()))
            if not done and first > seq:
                return
            del open_[first]
            self._done_to[lane] = first

    def frame(self, n: int, works: list[Acking]) -> Ack:
        """The frame that says all of `works`."""
        up_to = list(START)
        single: list[int] = []
        for work in works:
            for lane, seq in enumerate(work.up_to):
                up_to[lane] = max(up_to[lane], seq)
            for lane, seq in work.entries:
                if lane >= 0 and seq <= self._done_to[lane]:
                    up_to[lane] = max(up_to[lane], self._done_to[lane])
                else:
                    single.append(seq)
        refuse = tuple(refusal for work in works for refusal in work.refuse)
        return Ack(n, write_cursor(up_to) if any(up_to) else None, tuple(single), refuse)


def told(error: Exception) -> Exception:
    """The error for one more who is told: each has a traceback of its own."""
    if isinstance(error, Problem):
        return Problem(error.code, error.detail, fields=error.fields, retry_after=error.retry_after, **error.extra)
    return ClientError(str(error) or type(error).__name__)


def seq_of(entry: Entry | int) -> int:
    return entry.seq if isinstance(entry, Entry) else entry


def checked(value: Any, model: Any) -> Any:
    """What the frame can hold. Raises `ClientError`: the hub would end the stream for it."""
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError as error:
        raise ClientError(str(error)) from None


def check_size(texts: tuple[str, ...]) -> None:
    """Raises `Problem` too-large for what no hub reads."""
    if sum(map(len, texts)) > MAX_FRAME_BYTES // 8 and len(msgspec.json.encode(texts)) > MAX_FRAME_BYTES - 1024:
        raise Problem("too-large", f"a frame may have {MAX_FRAME_BYTES} bytes", limit=MAX_FRAME_BYTES)
