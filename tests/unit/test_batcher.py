"""Natural batching: what arrives during a flush is the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hub.relay.batcher import Batcher


class Gate:
    """A flush that can be held, and a record of what was flushed."""

    def __init__(self, **options: Any) -> None:
        self.batches: list[list[int]] = []
        self.failed: list[tuple[list[int], Exception]] = []
        self.started = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.open.set()
        self.fails: Callable[[list[int]], bool] = lambda items: False
        self.batcher: Batcher[int] = Batcher(
            "thử", self._flush, lambda items, error: self.failed.append((items, error)), **options
        )
        self.batcher.start()

    async def _flush(self, worker: int, items: list[int]) -> None:
        self.batches.append(items)
        self.started.release()
        await self.open.wait()
        if self.fails(items):
            raise RuntimeError("hỏng")

    def put(self, *items: int) -> None:
        for item in items:
            self.batcher.put(item)


async def test_an_idle_batcher_flushes_one_item_at_once_and_then_what_gathered() -> None:
    gate = Gate()
    gate.open.clear()
    gate.put(1)
    await gate.started.acquire()
    gate.put(2, 3, 4)
    assert len(gate.batcher) == 3
    gate.open.set()
    await gate.batcher.drain()
    assert gate.batches == [[1], [2, 3, 4]]
    assert (gate.batcher.batches, gate.batcher.items, len(gate.batcher)) == (2, 4, 0)
    await gate.batcher.stop()


async def test_a_batch_holds_no_more_items_than_it_may() -> None:
    gate = Gate(max_items=4)
    gate.put(*range(10))
    await gate.batcher.drain()
    assert gate.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    await gate.batcher.stop()


async def test_a_batch_weighs_no_more_than_it_may_but_takes_one_item_of_any_weight() -> None:
    gate = Gate(max_weight=10, weigh=lambda item: item)
    gate.put(6, 4, 1, 50, 9, 2)
    assert gate.batcher.weight == 72
    await gate.batcher.drain()
    assert gate.batches == [[6, 4], [1], [50], [9], [2]]
    assert gate.batcher.weight == 0
    await gate.batcher.stop()


async def test_workers_flush_side_by_side() -> None:
    gate = Gate(workers=2, max_items=1)
    gate.open.clear()
    gate.put(1, 2, 3)
    await gate.started.acquire()
    await gate.started.acquire()
    assert gate.batches == [[1], [2]]
    drained = asyncio.create_task(gate.batcher.drain())
    gate.open.set()
    await drained
    assert sorted(gate.batches) == [[1], [2], [3]]
    await gate.batcher.stop()


async def test_a_failing_flush_is_reported_and_ends_nothing() -> None:
    gate = Gate(max_items=1)
    gate.fails = lambda items: items == [2]
    gate.put(1, 2, 3)
    await gate.batcher.drain()
    assert gate.batches == [[1], [2], [3]]
    ((items, error),) = gate.failed
    assert (items, str(error)) == ([2], "hỏng")
    gate.put(4)
    await gate.batcher.drain()
    assert gate.batches[-1] == [4]
    await gate.batcher.stop()


async def test_stopping_flushes_what_was_put() -> None:
    gate = Gate(max_items=2)
    gate.put(1, 2, 3)
    await gate.batcher.stop()
    assert gate.batches == [[1, 2], [3]]


async def test_draining_waits_for_the_flush_under_way() -> None:
    gate = Gate()
    gate.open.clear()
    gate.put(1)
    await gate.started.acquire()
    drained = asyncio.create_task(gate.batcher.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    gate.open.set()
    await drained
    await gate.batcher.stop()


async def test_a_batcher_that_was_never_started_stops() -> None:
    async def flush(worker: int, items: list[int]) -> None:
        raise AssertionError(items)

    batcher: Batcher[int] = Batcher("thử", flush, lambda items, error: None)
    await batcher.stop()
    assert len(batcher) == 0
