"""What was given and is not sealed: each once, at the time when it was first given, and in runs of neighbours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from hub.relay.handover_sealing import HandedRuns
from hub.relay.handovers import TOGETHER, HandOvers
from hub.relay.ranges import beyond, read_ranges, within, write_ranges
from protocol.evidence import timestamp

NOW = datetime(2026, 3, 2, 1, 15, 30, tzinfo=UTC)


def later(milliseconds: int) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


def test_what_is_given_again_keeps_its_first_time() -> None:
    given_ = HandOvers()
    given_.note(7, 2, [3, 5], NOW)
    given_.note(7, 2, [5, 9], later(50))
    assert len(given_) == 3
    assert given_.take(7, 2, [3, 5, 8, 9]) == [NOW, NOW, None, later(50)]
    assert given_.take(7, 2, [3]) is None
    assert len(given_) == 0


def test_what_could_not_be_sealed_is_put_back() -> None:
    given_ = HandOvers()
    given_.note(7, 2, [3, 5], NOW)
    times = given_.take(7, 2, [3, 4])
    assert times == [NOW, None]
    given_.note(7, 2, [3], later(10))
    given_.put_back(7, 2, [3, 4], times)
    assert given_.take(7, 2, [3, 4, 5]) == [NOW, None, NOW]
    given_.put_back(7, 2, [3], [None])
    assert len(given_) == 0


def test_what_nobody_acknowledged_is_found_by_its_age() -> None:
    given_ = HandOvers()
    given_.note(7, 2, [3, 5], NOW)
    given_.note(7, 2, [9], later(50))
    given_.note(8, 0, [4], later(20))
    assert given_.take_old(NOW, 10) == {}
    assert given_.take_old(later(30), 2) == {(7, 2): {3: NOW, 5: NOW}}
    assert given_.take_old(later(30), 2) == {(8, 0): {4: later(20)}}
    assert given_.take_old(later(51), 2) == {(7, 2): {9: later(50)}}
    assert len(given_) == 0


def test_what_is_too_much_is_counted() -> None:
    def forgotten() -> float:
        return REGISTRY.get_sample_value("lienthong_handovers_forgotten_total") or 0.0

    before = forgotten()
    given_ = HandOvers(limit=3)
    given_.note(7, 2, [3, 5], NOW)
    given_.note(8, 2, [3, 5], NOW)
    assert (len(given_), forgotten() - before) == (2, 2)
    assert given_.take(8, 2, [3]) is None
    given_.note(8, 2, [3], NOW)
    assert (len(given_), forgotten() - before) == (3, 2)


def test_what_was_sealed_is_not_noted_again() -> None:
    given_ = HandOvers()
    given_.sealed(7, 2, 0, 3, 9)
    given_.note(7, 2, [3, 5, 9, 12], NOW)
    assert given_.take_old(later(1), 10) == {(7, 2): {12: NOW}}
    given_.sealed(7, 2, 9, 12, 12)  # the next one in the inbox
    given_.note(7, 2, [5, 12], NOW)
    assert len(given_) == 0
    given_.sealed(7, 2, 20, 25, 25)  # something lies between
    given_.note(7, 2, [25], NOW)
    assert len(given_) == 0
    given_.note(7, 1, [25], NOW)
    assert len(given_) == 1


def test_it_is_bounded() -> None:
    given_ = HandOvers(limit=3)
    given_.note(7, 2, [1, 2], NOW)
    given_.note(7, 2, [3, 4], NOW)
    assert len(given_) == 2


def test_neighbours_given_together_are_one_run() -> None:
    runs = HandedRuns()
    runs.texts.append(b"")
    times = [NOW, later(5), None, later(15), later(40), later(41), later(41), NOW]
    abouts = [f'"message":"{number}"'.encode() for number in range(8)]
    runs.cut(7, 2, list(range(10, 18)), abouts, times, {6})
    assert runs.rows == [
        (7, 2, 10, 11, later(5), 1),
        (7, 2, 13, 13, later(15), 3),
        (7, 2, 14, 15, later(41), 4),
        (7, 2, 16, 16, later(41), 6),
        (7, 2, 17, 17, NOW, 7),
    ]
    assert [orjson.loads(text) for text in runs.texts[1:3]] == [
        {"event": "handed_over", "at": timestamp(later(5)), "message": str(number)} for number in (0, 1)
    ]


@given(
    st.lists(st.none() | st.integers(0, 100), min_size=1, max_size=30),
    st.sets(st.integers(1, 29)),
)
def test_every_entry_with_a_time_is_in_one_run_whose_time_is_not_before_its_own(
    times: list[int | None], cuts: set[int]
) -> None:
    runs = HandedRuns()
    seqs = list(range(100, 100 + len(times)))
    given_ = [None if at is None else later(at) for at in times]
    runs.cut(1, 0, seqs, [f'"message":"{seq}"'.encode() for seq in seqs], given_, cuts)
    found: dict[int, datetime] = {}
    for _, _, first, last, at, leaf in runs.rows:
        for seq in range(first, last + 1):
            event = orjson.loads(runs.texts[leaf + seq - first])
            assert (event["message"], event["at"]) == (str(seq), timestamp(at))
            assert seq not in found
            found[seq] = at
            assert seq == first or seq - 100 not in cuts
    assert found.keys() == {seq for seq, at in zip(seqs, given_, strict=True) if at is not None}
    for seq, at in zip(seqs, given_, strict=True):
        if at is not None:
            assert at <= found[seq] <= at + 2 * TOGETHER
    assert len(runs.texts) == len(found)


RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 8)).map(lambda r: (r[0], r[0] + r[1])), max_size=12)


@given(RANGES, st.integers(0, 60), st.integers(1, 5))
def test_ranges_beyond_the_floor(ranges: list[tuple[int, int]], floor: int, at_most: int) -> None:
    kept = beyond(ranges, floor, at_most)
    assert len(kept) <= at_most
    assert read_ranges(write_ranges(kept)) == kept
    exact = beyond(ranges, floor, 100)
    for seq in range(80):
        inside = any(low <= seq < high for low, high in ranges) and seq > floor
        assert within(exact, seq) == inside
        assert within(kept, seq) or not inside, "joining adds, and never leaves out"
    assert all(one[1] < other[0] for one, other in pairwise(kept))
