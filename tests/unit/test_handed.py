"""The memory of what was handed out: it may know less than the store, never something else."""

from __future__ import annotations

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from hub.relay.handed import Entry, Handed


def entry(seq: int) -> Entry:
    return Entry(seq, uuid4(), b"", "000.00.00.H63", f"văn bản {seq}", 1, ["000.00.31.H63"])


def seqs(found: tuple[int, list[Entry]] | None) -> tuple[int, list[int]] | None:
    return None if found is None else (found[0], [item.seq for item in found[1]])


def test_a_lane_read_from_its_floor_is_known_up_to_the_last_entry() -> None:
    handed = Handed()
    handed.note(7, 2, 0, 0, [entry(3), entry(5)])
    handed.note(7, 2, 5, 0, [entry(9)])
    assert seqs(handed.recall(7, 2, 5)) == (0, [3, 5])
    assert seqs(handed.recall(7, 2, 9)) == (0, [3, 5, 9])
    assert handed.recall(7, 2, 10) is None
    assert handed.recall(7, 1, 3) is None
    assert handed.recall(8, 2, 3) is None


def test_a_gap_makes_it_forget() -> None:
    handed = Handed()
    handed.note(7, 2, 0, 0, [entry(3)])
    handed.note(7, 2, 6, 0, [entry(8)])
    assert handed.recall(7, 2, 3) is None
    assert handed.recall(7, 2, 8) is None


def test_what_follows_a_gap_is_known_once_the_floor_has_come_there() -> None:
    handed = Handed()
    handed.note(7, 2, 6, None, [entry(8), entry(9)])
    handed.note(7, 2, 9, None, [entry(12)])
    assert handed.recall(7, 2, 8) is None
    handed.ended(7, 2, 4)
    assert handed.recall(7, 2, 8) is None
    handed.ended(7, 2, 8)
    assert seqs(handed.recall(7, 2, 12)) == (8, [9, 12])


def test_a_mailbox_that_was_never_read_is_known_from_its_first_acknowledgement() -> None:
    handed = Handed()
    handed.ended(7, 2, 5)
    handed.note(7, 2, 5, None, [entry(8)])
    assert seqs(handed.recall(7, 2, 8)) == (5, [8])


def test_a_floor_that_another_process_raised_is_taken_over() -> None:
    handed = Handed()
    handed.note(7, 2, 0, 0, [entry(3), entry(5)])
    handed.note(7, 2, 5, 3, [entry(8)])
    assert seqs(handed.recall(7, 2, 8)) == (3, [5, 8])


def test_a_floor_read_before_we_raised_it_is_no_news() -> None:
    handed = Handed()
    handed.note(7, 2, 0, 0, [entry(3), entry(5)])
    handed.ended(7, 2, 3)
    handed.note(7, 2, 5, 0, [entry(8)])
    assert seqs(handed.recall(7, 2, 8)) == (3, [5, 8])


def test_what_ended_is_dropped_and_the_rest_stays_known() -> None:
    handed = Handed()
    handed.note(7, 2, 0, 0, [entry(3), entry(5), entry(9)])
    handed.ended(7, 2, 5)
    assert seqs(handed.recall(7, 2, 9)) == (5, [9])
    assert seqs(handed.recall(7, 2, 4)) == (5, [])
    assert len(handed) == 1


def test_it_is_bounded_and_forgets_the_lane_longest_unused() -> None:
    handed = Handed(limit=4)
    handed.note(1, 0, 0, 0, [entry(1), entry(2)])
    handed.note(2, 0, 0, 0, [entry(1), entry(2)])
    handed.note(1, 0, 2, 0, [entry(3)])
    assert handed.recall(2, 0, 2) is None
    assert seqs(handed.recall(1, 0, 3)) == (0, [1, 2, 3])
    assert len(handed) == 3


@given(
    st.sets(st.integers(1, 60), min_size=1),
    st.lists(
        st.tuples(st.sampled_from(["read", "end", "move"]), st.integers(0, 60), st.integers(1, 5)), max_size=30
    ),
)
def test_whatever_it_recalls_is_what_the_mailbox_holds(inbox: set[int], steps: list[tuple[str, int, int]]) -> None:
    """Against a model of the mailbox: reads from anywhere, ends here, and moves by another process."""
    handed = Handed()
    floor = 0
    believed = 0
    for step, place, count in steps:
        if step == "read":
            waiting = [seq for seq in sorted(inbox) if seq > max(place, floor)][:count]
            if waiting:
                handed.note(1, 0, place, floor, [entry(seq) for seq in waiting])
                believed = floor
        elif step == "end":
            found = handed.recall(1, 0, place)
            if found is None:
                continue
            if found[0] != floor:  # the commit would find the mailbox moved, and the memory be dropped
                handed.forget(1)
                continue
            assert [item.seq for item in found[1]] == [seq for seq in sorted(inbox) if floor < seq <= place]
            floor = max(floor, place)
            handed.ended(1, 0, floor)
        else:
            floor = max(floor, place)
    assert believed <= floor
