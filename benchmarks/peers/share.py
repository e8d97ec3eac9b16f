"""What the processes of one load share: the documents, and what became of each of them.

One block of anonymous memory that every process maps. It holds counters for each process, and for each
document: whom it is for, when it was sent, confirmed and acknowledged (seconds of `perf_counter`, which is
one clock for the whole machine), how often it was delivered, and its bytes. Every document has one writer at
a time for each of these, so there is no lock.

Only the standard library: it is also imported where nothing of this project is installed.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter

SEATS = 32
"""Processes at most."""
SENT, CONFIRMED, ACKNOWLEDGED, STRAYS = range(4)
_COUNTERS = 8
_TAIL = 24
"""Bytes at a document's end that tell it from all others: half of its signature."""


class Share:
    """The block. `capacity` documents of at most `length` bytes."""

    def __init__(self, capacity: int, length: int, descriptor: int | None = None) -> None:
        """Makes the block, or maps the one of an open file descriptor."""
        self.capacity, self.length = capacity, length
        times = 8 * capacity
        counters = 8 * SEATS * _COUNTERS
        size = counters + 3 * times + 2 * capacity + capacity * length
        self.descriptor = _block(size) if descriptor is None else descriptor
        self._map = mmap.mmap(self.descriptor, size)
        self._view = view = memoryview(self._map)
        at = 0

        def part(length: int) -> memoryview[int]:
            nonlocal at
            at += length
            return view[at - length : at]

        self.counters = part(counters).cast("Q")
        self.sent = part(times).cast("d")
        self.confirmed = part(times).cast("d")
        self.acknowledged = part(times).cast("d")
        self.deliveries = part(capacity)
        self.receivers = part(capacity)
        self._documents = part(capacity * length)

    def write(self, place: int, document: bytes, receiver: int) -> None:
        """Put a document in its place. It must have the block's length."""
        if len(document) != self.length:
            raise ValueError(f"a document of {len(document)} bytes among those of {self.length}")
        self._documents[place * self.length : (place + 1) * self.length] = document
        self.receivers[place] = receiver

    def document(self, place: int) -> bytes:
        return bytes(self._documents[place * self.length : (place + 1) * self.length])

    def total(self, counter: int) -> int:
        """A counter, over all processes."""
        return sum(self.counters[counter::_COUNTERS])

    def add(self, seat: int, counter: int, number: int) -> None:
        """Add to a counter of a process."""
        self.counters[seat * _COUNTERS + counter] += number

    def close(self) -> None:
        """Give the memory back, and the descriptor."""
        for view in (
            self.counters,
            self.sent,
            self.confirmed,
            self.acknowledged,
            self.deliveries,
            self.receivers,
            self._documents,
            self._view,
        ):
            view.release()
        self._map.close()
        os.close(self.descriptor)


def _block(size: int) -> int:
    """An open file of zeros that costs only what is written to it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("peers")
    else:
        descriptor, path = tempfile.mkstemp(prefix="lienthong-peers-")
        Path(path).unlink()
    os.ftruncate(descriptor, size)
    return descriptor


class Book:
    """What one process of a load takes from the share and writes into it.

    A document's place decides who sends it: sender `s` of `n` has places `first + s`, `first + s + n`, …
    """

    def __init__(self, share: Share, seat: int, senders: int, ahead: int = 0) -> None:
        """`ahead`: documents at most that may be sent and not yet acknowledged, of all processes; 0: any."""
        self.share = share
        self._senders = senders
        self._ahead = ahead
        self._mine = share.counters[seat * _COUNTERS : (seat + 1) * _COUNTERS]
        self._next: dict[int, int] = {}
        self._end = 0
        self._until = 0.0
        self._places: dict[bytes, int] = {}

    def prepare(self, first: int, count: int) -> None:
        """The next load is of these places; all that were delivered before are strays from now on."""
        self._end = first + count
        self._next = {sender: first + sender for sender in range(self._senders)}
        self._places = {self.share.document(place)[-_TAIL:]: place for place in range(first, self._end)}

    def go(self, until: float) -> None:
        """Places may be taken until then."""
        self._until = until

    def take(self, sender: int, count: int = 1) -> list[int]:
        """Up to `count` documents that `sender` is to send now. None: the load is over."""
        place = self._next[sender]
        now = perf_counter()
        if now >= self._until or place >= self._end:
            return []
        places = list(range(place, min(self._end, place + count * self._senders), self._senders))
        self._next[sender] = place + count * self._senders
        sent = self.share.sent
        for place in places:
            sent[place] = now
        self._mine[SENT] += len(places)
        return places

    def crowded(self) -> bool:
        """Whether more is under way than the peer takes well. Ask before `take`."""
        if not self._ahead:
            return False
        share = self.share
        return share.total(SENT) - share.total(ACKNOWLEDGED) >= self._ahead

    def document(self, place: int) -> bytes:
        return self.share.document(place)

    def receiver(self, place: int) -> int:
        return self.share.receivers[place]

    def confirmed(self, places: Sequence[int]) -> None:
        """The peer told the sender that it has these, on disk."""
        now = perf_counter()
        confirmed = self.share.confirmed
        for place in places:
            confirmed[place] = now
        self._mine[CONFIRMED] += len(places)

    def delivered(self, document: bytes, receiver: int) -> int:
        """A receiver was handed these bytes. Returns their place; -1 if nobody sent them so, or to another."""
        place = self._places.get(document[-_TAIL:], -1)
        share = self.share
        if place < 0 or share.receivers[place] != receiver or share.document(place) != document:
            self._mine[STRAYS] += 1
            return -1
        share.deliveries[place] += 1
        if share.deliveries[place] > 1:
            self._mine[STRAYS] += 1
            return -1
        return place

    def acknowledge(self, places: Iterable[int]) -> None:
        """The receiver has acknowledged these; `delivered` gave them."""
        now = perf_counter()
        acknowledged = self.share.acknowledged
        count = 0
        for place in places:
            if place >= 0:
                acknowledged[place] = now
                count += 1
        self._mine[ACKNOWLEDGED] += count
