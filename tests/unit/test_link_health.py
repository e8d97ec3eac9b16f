"""When a link tries again: pauses grow and stay bounded, and what is gone is not waited for."""

from __future__ import annotations

import asyncio

import pytest

from hub.couriers import link_health
from hub.couriers.link_health import FAILURES, FIRST_SECONDS, Deferred, Health, backoff


def test_pauses_double_up_to_the_longest_and_no_two_links_agree() -> None:
    for tries in range(1, 10):
        expected = min(60.0, FIRST_SECONDS * 2 ** (tries - 1))
        pauses = {backoff(tries, 60.0) for _ in range(50)}
        assert expected / 2 <= min(pauses) <= max(pauses) <= expected
        assert len(pauses) > 40
    assert backoff(10_000, 300.0) <= 300.0


def test_what_is_put_off_is_not_due_and_counts_its_tries() -> None:
    deferred: Deferred[str] = Deferred(300.0)
    assert deferred.due("a") and deferred.next() is None and deferred.tries("a") == 0
    assert [deferred.put("a"), deferred.put("a"), deferred.put("b", tries=7)] == [1, 2, 7]
    assert not deferred.due("a") and deferred.due("c")
    left = deferred.next()
    assert left is not None and 0 < left <= FIRST_SECONDS * 2
    deferred.drop("a")
    assert deferred.due("a") and "a" not in deferred and "b" in deferred


def test_what_is_gone_is_not_waited_for() -> None:
    deferred: Deferred[str] = Deferred(300.0)
    for item in "abc":
        deferred.put(item)
    deferred.keep({"b", "d"})
    assert [item for item in "abcd" if item in deferred] == ["b"]
    deferred.clear()
    assert deferred.next() is None


def _health() -> Health:
    return Health(None, 1, "truc-quoc-gia", 300.0)  # type: ignore[arg-type]


def test_failures_in_a_row_pause_one_way_and_a_success_ends_that() -> None:
    health = _health()
    for _ in range(FAILURES - 1):
        health.push.failure("trục bận")
        assert not health.push.paused
    health.push.failure("trục bận")
    assert health.push.paused and not health.fetch.paused
    health.fetch.success()
    assert health.push.paused, "that lists come says nothing of documents that do not go"
    health.push.success()
    assert not health.push.paused
    health.fetch.failure("không nối được", whole_link=True)
    assert health.fetch.paused


async def test_an_order_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_health, "FIRST_SECONDS", 3600.0)
    health = Health(None, 1, "truc-quoc-gia", 3600.0)  # type: ignore[arg-type]
    health.push.failure("không nối được", whole_link=True)
    waiting = asyncio.create_task(health.push.pause())
    await asyncio.sleep(0)
    assert not waiting.done()
    health.resume()
    async with asyncio.timeout(10):
        await waiting
