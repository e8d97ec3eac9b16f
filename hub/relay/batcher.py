"""Natural batching: what arrives while a flush is under way is the next batch.

There is no timer. An idle batcher flushes one item at once; a busy one fills its batches, and the
flush itself is the delay. Commits, acknowledgements and signature checks all run on this.

What fits into the next batch waits in the order in which it came. What comes beyond it lines up by
endpoint, and the lines are served in turn, each turn for about the same weight (deficit round robin:
Shreedhar and Varghese, SIGCOMM 1995). So whoever comes to a crowded batcher waits for the flush under way,
for one batch, and for one turn of each endpoint in line, however much any of them has put there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import structlog

Item = TypeVar("Item")
log = structlog.get_logger()


class _Line(Generic[Item]):
    """What one endpoint has waiting beyond the next batch."""

    __slots__ = ("credit", "items", "key", "served")

    def __init__(self, key: int) -> None:
        self.key = key
        self.items: deque[tuple[float, int, Item]] = deque()
        """When each came, its weight, and itself."""
        self.credit = 0
        """Weight that it may still take in its turn; what is left over counts in the next."""
        self.served = False
        """Whether its turn has begun."""


class Batcher(Generic[Item]):
    """A queue and the workers that empty it in batches.

    `flush(worker, items)` gets up to `max_items` items of up to `max_weight` together (always at least
    one) and must tell whoever waits for each how it ended; if it raises, `failed(items, error)` must.
    `weigh` gives an item's weight, in bytes or whatever its flush costs. `key` gives its endpoint; then
    endpoints share a crowded batcher, each getting `quantum` of weight in its turn. Items of one endpoint
    keep their order. `pause`: seconds between the beginnings of two flushes, unless a whole batch waits; the
    first flush after a longer silence begins at once.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[int, list[Item]], Awaitable[None]],
        failed: Callable[[list[Item], Exception], None],
        *,
        workers: int = 1,
        max_items: int = 256,
        max_weight: int = 1 << 62,
        weigh: Callable[[Item], int] = lambda item: 1,
        key: Callable[[Item], int] | None = None,
        quantum: int = 1,
        pause: float = 0.0,
    ) -> None:
        self._pause = pause
        self._next = 0.0
        self.name = name
        self.weight = 0
        self.batches = 0
        self.items = 0
        self._flush = flush
        self._failed = failed
        self._workers = workers
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._key = key
        self._quantum = quantum
        self._queue: deque[Item] = deque()
        self._lines: dict[int, _Line[Item]] = {}
        self._turns: deque[_Line[Item]] = deque()
        self._lined_up = 0
        self._moved = 0.0
        """When a batch was last taken, or the first item came since."""
        self._filled = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._queue) + self._lined_up

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(index), name=f"{self.name}-{index}") for index in range(self._workers)
        ]

    def put(self, item: Item) -> None:
        """Queue an item. Admission control is the caller's."""
        weight = self._weigh(item)
        queue = self._queue
        if not queue and not self._lined_up:
            self._moved = time.monotonic()
            queue.append(item)
        elif self._key is not None and (
            self._lined_up or len(queue) >= self._max_items or self.weight + weight > self._max_weight
        ):
            self._line_up(self._key(item), weight, item)
        else:
            queue.append(item)
        self.weight += weight
        self._idle.clear()
        self._filled.set()

    def _line_up(self, key: int, weight: int, item: Item) -> None:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(key)
            self._turns.append(line)
        line.items.append((time.monotonic(), weight, item))
        self._lined_up += 1

    def waited(self, key: int) -> float:
        """How long, in seconds, what an endpoint puts now can expect to wait at least: as long as the oldest of
        its line has waited, or as long as nothing at all has moved.
        """
        if not self._queue and not self._lined_up:
            return 0.0
        line = self._lines.get(key)
        since = self._moved if line is None else min(self._moved, line.items[0][0])
        return time.monotonic() - since

    async def drain(self) -> None:
        """Wait until everything that was put has been flushed."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Flush what is queued, then end the workers."""
        if self._tasks:
            await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _take(self) -> list[Item]:
        queue, weight = self._queue, 0
        batch: list[Item] = []
        while queue and len(batch) < self._max_items:
            heavy = self._weigh(queue[0])
            if batch and weight + heavy > self._max_weight:
                break
            weight += heavy
            batch.append(queue.popleft())
        if self._lined_up and not queue:
            weight = self._take_turns(batch, weight)
        self.weight -= weight
        self._moved = time.monotonic()
        return batch

    def _take_turns(self, batch: list[Item], weight: int) -> int:
        """Fill a batch that weighs `weight` from the lines; returns what it weighs then."""
        turns = self._turns
        while turns:
            line = turns[0]
            if not line.served:
                line.served = True
                line.credit += self._quantum
            items = line.items
            while items:
                _, heavy, item = items[0]
                if heavy > line.credit and len(turns) > 1:
                    break
                if len(batch) >= self._max_items or (batch and weight + heavy > self._max_weight):
                    return weight  # the turn goes on with the next batch
                items.popleft()
                batch.append(item)
                weight += heavy
                self._lined_up -= 1
                line.credit = max(0, line.credit - heavy)
            if items:
                line.served = False
                turns.rotate(-1)
            else:
                turns.popleft()
                del self._lines[line.key]
        return weight

    async def _work(self, worker: int) -> None:
        while True:
            while not self._queue and not self._lined_up:
                self._filled.clear()
                await self._filled.wait()
            if self._pause:
                await self._gather()
            batch = self._take()
            self._busy += 1
            self.batches += 1
            self.items += len(batch)
            try:
                await self._flush(worker, batch)
            except Exception as error:  # a worker that died would stop the hub without a word
                log.exception("a flush failed", batcher=self.name, items=len(batch))
                self._failed(batch, error)
            finally:
                self._busy -= 1
                if not self._busy and not self._queue and not self._lined_up:
                    self._idle.set()

    async def _gather(self) -> None:
        """Let more come, if the last flush began a moment ago."""
        now = asyncio.get_running_loop().time()
        if now < self._next and len(self) < self._max_items and self.weight < self._max_weight:
            await asyncio.sleep(self._next - now)
            now = asyncio.get_running_loop().time()
        self._next = now + self._pause


def longest_wait(*batchers: Batcher[Any]) -> Callable[[int], float]:
    """A function that gives the longest that an endpoint waits (`Batcher.waited`) in any of `batchers`."""

    def longest(endpoint: int) -> float:
        seconds = 0.0
        for batcher in batchers:
            if len(batcher):
                seconds = max(seconds, batcher.waited(endpoint))
        return seconds

    return longest
