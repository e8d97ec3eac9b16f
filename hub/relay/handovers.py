"""What this process has given to recipients' systems and not yet sealed as handed over.

Whoever hands out mail says so here once its bytes are written (`note`). An acknowledgement that comes soon takes
what it ends (`take`), and the event of that end says since when the recipient had it; what nobody acknowledged for
`SOON` gets an event of its own (`hub.relay.handover_sealing`).

The memory may forget, when the process dies or when too much waits: then the hand-over is sealed the next time
the entry is handed out, or never, and an acknowledgement says that it had happened by then. It never holds what
was not given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from hub.observe import metrics

SOON = timedelta(seconds=2)
"""How long an acknowledgement is waited for whose event says that the message was handed over."""
MAX_NOTED = 200_000
"""Entries noted by a process (about 20 MB); beyond it a hand-over is not noted, and counted."""
TOGETHER = timedelta(milliseconds=20)
"""Neighbours that were given within so long are sealed as given by the time of the last: one row for them all."""
MAX_SEALED = 1_000
"""Ranges of sealed hand-overs that a mailbox keeps beyond its floor; where there are more, what lies between the
oldest of them counts as sealed, too."""

Key = tuple[int, int]
"""An endpoint and a lane."""


class HandOvers:
    """The memory of one process."""

    def __init__(self, limit: int = MAX_NOTED) -> None:
        self._limit = limit
        self._count = 0
        self._noted: dict[Key, dict[int, datetime]] = {}
        """By sequence, in the order in which they were given: since when the recipient has it."""
        self._sealed: dict[Key, tuple[int, int]] = {}
        """From where to where entries lately went that were sealed without an acknowledgement: a reader who comes
        again is given them again."""

    def __len__(self) -> int:
        return self._count

    def note(self, endpoint: int, lane: int, seqs: Sequence[int], at: datetime) -> None:
        """These entries, in their order, were given at `at`. What was given before keeps its time."""
        key = endpoint, lane
        sealed = self._sealed.get(key)
        if sealed is not None:
            low, high = sealed
            seqs = [seq for seq in seqs if not low <= seq <= high]
        if self._count + len(seqs) > self._limit:
            metrics.HANDOVERS_FORGOTTEN.inc(len(seqs))
            return
        if not seqs:
            return
        noted = self._noted.get(key)
        if noted is None:
            self._noted[key] = dict.fromkeys(seqs, at)
            self._count += len(seqs)
            return
        before = len(noted)
        for seq in seqs:
            noted.setdefault(seq, at)
        self._count += len(noted) - before

    def take(self, endpoint: int, lane: int, seqs: Iterable[int]) -> list[datetime | None] | None:
        """Since when the recipient has each of these; None where that is not known, or of none of them."""
        noted = self._noted.get((endpoint, lane))
        if not noted:
            return None
        before = len(noted)
        pop = noted.pop
        found = [pop(seq, None) for seq in seqs]
        self._count -= before - len(noted)
        if not noted:
            del self._noted[endpoint, lane]
        return found

    def put_back(self, endpoint: int, lane: int, seqs: Iterable[int], times: Iterable[datetime | None]) -> None:
        """What was taken could not be sealed."""
        noted = self._noted.setdefault((endpoint, lane), {})
        before = len(noted)
        for seq, at in zip(seqs, times, strict=True):
            if at is not None and at < noted.get(seq, datetime.max.replace(tzinfo=at.tzinfo)):
                noted[seq] = at
        self._count += len(noted) - before
        if not noted:
            del self._noted[endpoint, lane]

    def take_old(self, before: datetime, limit: int) -> dict[Key, dict[int, datetime]]:
        """Up to `limit` entries that were given before a moment, by mailbox and lane."""
        old: dict[Key, dict[int, datetime]] = {}
        for key, noted in self._noted.items():
            if limit <= 0:
                break
            seqs: list[int] = []
            for seq, at in noted.items():
                if at >= before or len(seqs) == limit:
                    break
                seqs.append(seq)
            if seqs:
                old[key] = {seq: noted.pop(seq) for seq in seqs}
                self._count -= len(seqs)
                limit -= len(seqs)
        for key in old:
            if not self._noted[key]:
                del self._noted[key]
        return old

    def sealed(self, endpoint: int, lane: int, previous: int, first: int, last: int) -> None:
        """The neighbours from `first` to `last` were sealed; `previous` is the entry before them in the inbox."""
        key = endpoint, lane
        low, high = self._sealed.get(key, (0, -1))
        self._sealed[key] = (low, max(high, last)) if low <= first and previous <= high else (first, last)


def given_together(
    times: Sequence[datetime | None], cuts: Collection[int]
) -> Iterator[tuple[int, int, datetime | None]]:
    """Split neighbours (at least one), given at `times`, into runs: places from and to, and by when all of a run
    had been given, which is None where it is not known of any of them.

    A run begins at each of `cuts`, and where an entry was given too long after the first of the run.
    """
    start, first, latest = 0, times[0], times[0]
    for place, at in enumerate(times):
        if at is latest and place not in cuts:  # a page is given at one moment
            continue
        if at is None or latest is None or first is None or place in cuts or abs(at - first) > TOGETHER:
            yield start, place, latest
            start, first, latest = place, at, at
        else:
            latest = max(latest, at)
    yield start, len(times), latest
