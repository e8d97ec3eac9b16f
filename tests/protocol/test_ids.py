"""Ids of version 7: well-formed, unique, and never smaller than the one before."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from uuid import RFC_4122

import pytest

from protocol import ids
from protocol.ids import uuid7


def test_ids_are_uuids_of_version_7_in_growing_order() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert {(made_id.version, made_id.variant) for made_id in made} == {(7, RFC_4122)}
    assert all(before < after for before, after in pairwise(made))


def test_a_clock_that_stands_still_or_goes_back_gives_growing_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 within one millisecond are more than its counter holds; then the clock is set back a day."""
    now = 4_000_000_000.0
    monkeypatch.setattr(ids, "_last", 0)
    monkeypatch.setattr(ids, "time", SimpleNamespace(time=lambda: now))
    made = [uuid7() for _ in range(10_000)]
    now -= 86_400
    made += [uuid7() for _ in range(100)]
    assert all(before < after for before, after in pairwise(made))
    assert {made_id.version for made_id in made} == {7}
    assert made[0].int >> 80 == 4_000_000_000_000
