"""Natural batching: what arrives while a flush is under way is the next batch.

There is no timer. An idle batcher flushes one item at once; a busy one fills its batches, and the
flush itself is the delay. Commits, acknowledgements and signature checks all run on this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

Item = TypeVar("Item")
log = structlog.get_logger()


class Batcher(Generic[Item]):
    """A queue and the workers that empty it in batches.

    `flush(worker, items)` gets up to `max_items` items of up to `max_weight` together (always at least
    one) and must tell whoever waits for each how it ended; if it raises, `failed(items, error)` must.
    `weigh` gives an item's weight, in bytes.
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
        weigh: Callable[[Item], int] = lambda item: 0,
    ) -> None:
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
        self._queue: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(index), name=f"{self.name}-{index}") for index in range(self._workers)
        ]

    def put(self, item: Item) -> None:
        """Queue an item. Admission control is the caller's."""
        self._queue.append(item)
        self.weight += self._weigh(item)
        self._idle.clear()
        self._filled.set()

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
        self.weight -= weight
        return batch

    async def _work(self, worker: int) -> None:
        while True:
            while not self._queue:
                self._filled.clear()
                await self._filled.wait()
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
                if not self._busy and not self._queue:
                    self._idle.set()
