"""What a mailbox has done with: a floor, and ranges beyond it.

Sequences have gaps (they count microseconds), so an entry acknowledged on its own covers the range from
just after the entry before it. Neighbouring entries then leave neighbouring ranges, which merge, and
the floor rises through them: a mailbox acknowledged in any order ends with a floor and no ranges.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

_RANGE = re.compile(r"\[(\d+),(\d+)\)")
Ranges = list[tuple[int, int]]
"""Half-open, sorted and apart."""


def read_ranges(multirange: str) -> Ranges:
    """From PostgreSQL's canonical text of an int8multirange."""
    return [(int(low), int(high)) for low, high in _RANGE.findall(multirange)]


def write_ranges(ranges: Ranges) -> str:
    return "{" + ",".join(f"[{low},{high})" for low, high in ranges) + "}"


def within(ranges: Ranges, seq: int) -> bool:
    place = bisect_right(ranges, seq, key=lambda found: found[0])
    return place > 0 and seq < ranges[place - 1][1]


def beyond(ranges: Iterable[tuple[int, int]], floor: int, at_most: int) -> Ranges:
    """What of `ranges`, in any order, lies beyond `floor`: merged, the lowest joined until `at_most` are left."""
    merged: Ranges = []
    for low, high in sorted(ranges):
        low = max(low, floor + 1)
        if low >= high:
            continue
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    if len(merged) > at_most:
        joined = len(merged) - at_most
        merged[: joined + 1] = [(merged[0][0], merged[joined][1])]
    return merged


@dataclass(slots=True)
class Done:
    """Sequences up to `floor`, and half-open `ranges` beyond it, sorted and apart."""

    floor: int = 0
    ranges: Ranges = field(default_factory=list)

    @classmethod
    def read(cls, floor: int, multirange: str) -> Done:
        """From the columns of `mailbox` (PostgreSQL's canonical int8multirange text)."""
        return cls(floor, read_ranges(multirange))

    def write(self) -> str:
        return write_ranges(self.ranges)

    def __contains__(self, seq: int) -> bool:
        return seq <= self.floor or any(low <= seq < high for low, high in self.ranges)

    def between(self, low: int, high: int) -> bool:
        """Whether anything strictly between `low` and `high` is done already."""
        return any(start < high and end > low + 1 for start, end in self.ranges)

    def add(self, previous: int, seq: int) -> None:
        """The entry `seq`, whose neighbour before is `previous`, is done."""
        self.ranges.append((previous + 1, seq + 1))

    def raise_floor(self, seq: int) -> None:
        """Everything up to `seq` is done."""
        self.floor = max(self.floor, seq)

    def settle(self) -> None:
        """Merge ranges that touch and let the floor rise. Call once after `add` and `raise_floor`."""
        merged: Ranges = []
        for low, high in sorted(self.ranges):
            if low <= self.floor + 1:
                self.floor = max(self.floor, high - 1)
            elif merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.ranges = merged
