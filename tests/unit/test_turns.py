"""Fair order: whoever comes to a crowded place does not wait for all that others have put there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from hub.relay import batcher as module
from hub.relay.batcher import Batcher
from hub.relay.verify import GROUP, Verifier
from hub.turns import Turns
from protocol.signature import Signer, generate, parse

Item = tuple[int, int, int]
"""Endpoint, number, weight."""


class Counter:
    """A batcher whose flushes are let go one by one."""

    def __init__(self, *, fair: bool = True, max_items: int = 4, max_weight: int = 100, quantum: int = 10) -> None:
        self.batches: list[list[Item]] = []
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)
        self.batcher: Batcher[Item] = Batcher(
            "thử",
            self._flush,
            lambda items, error: None,
            max_items=max_items,
            max_weight=max_weight,
            weigh=lambda item: item[2],
            key=(lambda item: item[0]) if fair else None,
            quantum=quantum,
        )
        self.batcher.start()

    async def _flush(self, worker: int, items: list[Item]) -> None:
        self.batches.append(items)
        self.begun.release()
        await self.go.acquire()

    def put(self, endpoint: int, numbers: Sequence[int], weight: int = 10) -> None:
        for number in numbers:
            self.batcher.put((endpoint, number, weight))

    async def end(self) -> None:
        """Let every flush go, and stop."""
        for _ in range(1000):
            self.go.release()
        await self.batcher.stop()


async def crowded(**options: int) -> Counter:
    """A batcher that has begun with one item of endpoint 1, and has forty more of it waiting."""
    counter = Counter(**options)
    counter.put(1, [0])
    await counter.begun.acquire()
    counter.put(1, range(1, 41))
    return counter


async def release(counter: Counter) -> None:
    counter.go.release()
    await counter.begun.acquire()


async def test_a_newcomer_waits_for_one_batch_and_its_turn() -> None:
    counter = await crowded()
    counter.put(2, [0])
    assert len(counter.batcher) == 41
    for _ in range(2):
        await release(counter)
    assert [item[:2] for item in counter.batches[1]] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert (2, 0, 10) in counter.batches[2]
    await counter.end()


async def test_without_endpoints_it_is_first_come_first_served() -> None:
    counter = Counter(fair=False)
    counter.put(1, range(9))
    counter.put(2, range(2))
    await counter.end()
    assert [item[:2] for batch in counter.batches for item in batch] == [(1, n) for n in range(9)] + [
        (2, 0),
        (2, 1),
    ]


async def test_everything_is_flushed_once_and_each_endpoint_keeps_its_order() -> None:
    counter = await crowded(max_items=7)
    for number in range(30):
        counter.put(2 + number % 5, [number], 1 + number * 7 % 50)
    for _ in range(3):
        await release(counter)
    counter.put(3, range(100, 110), 1)
    counter.put(1, range(100, 103), 90)
    await counter.end()
    flushed = [item for batch in counter.batches for item in batch]
    assert len(flushed) == 41 + 30 + 13 == len(set(flushed))
    for endpoint in range(1, 7):
        numbers = [number for owner, number, _ in flushed if owner == endpoint]
        assert numbers == sorted(numbers)
    assert all(len(batch) <= 7 for batch in counter.batches)
    assert all(sum(item[2] for item in batch) <= 100 or len(batch) == 1 for batch in counter.batches)
    assert (len(counter.batcher), counter.batcher.weight) == (0, 0)


async def test_turns_are_of_equal_weight_not_of_equal_number() -> None:
    """One sends a hundred times as much in each item: it gets a hundredth as many of them."""
    counter = await crowded(max_items=50, max_weight=1000, quantum=10)
    counter.put(1, range(41, 100))  # fills the next batch
    counter.put(2, range(10), 500)
    counter.put(3, range(300), 5)
    await counter.end()
    order = [item for batch in counter.batches[2:] for item in batch]
    until = next(place for place, item in enumerate(order) if item == (3, 199, 5))
    large = [item for item in order[:until] if item[0] == 2]
    assert len(large) in (1, 2), "a thousand bytes of the one while the other had a thousand"


async def test_an_item_heavier_than_any_turn_comes_at_last() -> None:
    counter = await crowded(quantum=1)
    counter.put(2, [0], 5_000)
    counter.put(3, range(3), 1)
    await counter.end()
    assert [(2, 0, 5_000)] in counter.batches, "alone, since nothing fits beside it"


async def test_a_crowd_of_endpoints_is_served_in_turn() -> None:
    counter = await crowded(max_items=10, quantum=10)
    for endpoint in range(2, 22):
        counter.put(endpoint, range(5))
    await counter.end()
    order = [item[:2] for batch in counter.batches for item in batch][11:]
    first = {endpoint: order.index((endpoint, 0)) for endpoint in range(2, 22)}
    last = max(first.values())
    assert last <= 2 * 21, "each has had one before anybody has had three"
    for endpoint in range(2, 22):
        assert order.index((endpoint, 4)) > last


async def test_waiting_is_told_by_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    counter = Counter()
    assert counter.batcher.waited(1) == 0.0
    now += 3600  # idleness is not waiting
    counter.put(1, range(4))
    assert counter.batcher.waited(1) == counter.batcher.waited(2) == 0.0
    await counter.begun.acquire()
    now += 5
    assert counter.batcher.waited(1) == 0.0, "nothing waits: a flush is under way"
    counter.put(1, range(4, 12))
    now += 2
    assert counter.batcher.waited(2) == 2.0, "nothing has moved since the first of them came"
    await release(counter)
    assert (counter.batcher.waited(1), counter.batcher.waited(2)) == (2.0, 0.0)
    now += 1
    counter.put(2, [0])
    assert (counter.batcher.waited(1), counter.batcher.waited(2), counter.batcher.waited(3)) == (3.0, 1.0, 1.0)
    await counter.end()
    assert counter.batcher.waited(1) == 0.0


# -- signatures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "in a thread"])
async def test_a_single_signature_does_not_wait_for_a_thousand(in_place: bool) -> None:
    signer = Signer(generate("EdDSA"))
    good = parse(signer.sign(b"{}"))
    bad = parse(signer.sign(b"{}").rpartition(b".")[0] + b"." + signer.sign(b"[]").rpartition(b".")[2])
    public = signer.key.public_key()
    verifier = Verifier(in_place)
    verifier.start()
    ended: list[str] = []

    async def check(name: str, endpoint: int, count: int) -> list[bool]:
        signatures = [(public, bad if number % 7 == 3 else good) for number in range(count)]
        results = await verifier.check(endpoint, signatures)
        ended.append(name)
        return results

    large = [asyncio.create_task(check(f"batch {number}", 1, 1000)) for number in range(3)]
    await asyncio.sleep(0)
    single = asyncio.create_task(check("single", 2, 1))
    assert await single == [True]
    assert ended == ["single"]
    assert await asyncio.gather(*large) == [[number % 7 != 3 for number in range(1000)]] * 3
    assert verifier.batcher.items == -(-1000 // GROUP) * 3 + 1
    await verifier.stop()


async def test_a_caller_that_leaves_in_the_middle_of_a_thousand_disturbs_nobody() -> None:
    signer = Signer(generate("EdDSA"))
    public, good = signer.key.public_key(), parse(signer.sign(b"{}"))
    verifier = Verifier(in_place=True)
    verifier.start()
    leaving = asyncio.create_task(verifier.check(1, [(public, good)] * 200))
    await asyncio.sleep(0)
    staying = asyncio.create_task(verifier.check(1, [(public, good)] * 40))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == [True] * 40
    assert leaving.cancelled()
    await verifier.stop()


# -- turns ------------------------------------------------------------------------------------------


async def test_an_endpoints_own_wait_behind_each_other_and_nobody_else_does() -> None:
    turns = Turns(2)
    begun: list[int] = []
    go = asyncio.Event()

    async def work(endpoint: int) -> None:
        async with turns.of(endpoint):
            begun.append(endpoint)
            await go.wait()

    tasks = [asyncio.create_task(work(endpoint)) for endpoint in (1, 1, 1, 1, 2, 3)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert begun == [1, 1, 2, 3]
    go.set()
    await asyncio.gather(*tasks)
    assert begun == [1, 1, 2, 3, 1, 1]
    del tasks
    gc.collect()
    assert not turns._lines, "nothing is kept of those who have gone"
