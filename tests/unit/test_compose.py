"""How a page of a mailbox is divided among the lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.couriers.mailbox import compose, cursor_text, read_cursor
from protocol.problems import Problem

# What a reader knows of a lane is at most limit + 1 entries, but the division must hold for any number.
waiting = st.tuples(*[st.integers(0, 40) | st.integers(0, 5000)] * 3)
limits = st.integers(1, 12) | st.integers(1, 1000)
turns = st.integers(0, 1000)


@given(waiting, limits, turns)
def test_a_page_is_full_when_mail_waits_and_holds_nothing_that_does_not(
    waiting: tuple[int, int, int], limit: int, turn: int
) -> None:
    take = compose(waiting, limit, turn)
    assert all(0 <= taken <= there for taken, there in zip(take, waiting, strict=True))
    assert sum(take) == min(limit, sum(waiting))


@given(waiting, limits, turns)
def test_express_goes_first_but_for_what_is_kept_for_the_others(
    waiting: tuple[int, int, int], limit: int, turn: int
) -> None:
    express, urgent, normal = compose(waiting, limit, turn)
    if express < waiting[0]:
        kept = limit // 10 + limit // 5 if limit >= 10 else 1
        assert urgent + normal <= kept
        assert express >= limit - kept
    elif urgent < waiting[1]:
        assert normal <= max(limit // 10, 1)


@given(st.integers(1, 1000), turns, st.sampled_from([(5000, 5000, 5000), (5000, 0, 5000), (5000, 1, 1)]))
def test_urgent_and_normal_mail_advances_within_eight_turns(
    limit: int, first: int, waiting: tuple[int, int, int]
) -> None:
    pages = [compose(waiting, limit, turn) for turn in range(first, first + 8)]
    for lane in (1, 2):
        assert any(page[lane] for page in pages) == (waiting[lane] > 0)
    assert sum(page[0] for page in pages) >= 5 * limit


@given(st.integers(1, 9), st.tuples(*[st.integers(0, 30)] * 3))
def test_a_mailbox_read_to_its_end_gives_every_entry(limit: int, waiting: tuple[int, int, int]) -> None:
    left, turn = list(waiting), 0
    while any(left):
        take = compose((left[0], left[1], left[2]), limit, turn)
        assert sum(take) > 0
        left = [there - taken for there, taken in zip(left, take, strict=True)]
        turn += 1
    assert turn == -(-sum(waiting) // limit)


def test_of_a_hundred_a_fifth_is_kept_for_urgent_and_a_tenth_for_normal() -> None:
    assert compose((1000, 1000, 1000), 100, 0) == (70, 20, 10)
    assert compose((1000, 0, 1000), 100, 0) == (90, 0, 10)
    assert compose((0, 1000, 1000), 100, 0) == (0, 90, 10)
    assert compose((5, 5, 1000), 100, 0) == (5, 5, 90)
    assert [compose((9, 9, 9), 1, turn) for turn in range(8)] == [
        (1, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (0, 0, 1),
    ]


@given(st.tuples(*[st.integers(0, 10**18 - 1)] * 3))
def test_a_cursor_goes_there_and_back(cursor: tuple[int, int, int]) -> None:
    assert read_cursor(cursor_text(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.0",
        "0.0.0.0",
        "0..0",
        "-1.0.0",
        "+1.0.0",
        "1e3.0.0",
        "٣.0.0",
        "1_0.0.0",
        " 1.0.0",
        "9" * 19 + ".0.0",
    ],
)
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(Problem) as caught:
        read_cursor(text)
    assert caught.value.code == "bad-request"


@given(st.text(max_size=20) | st.from_regex(r"\A[\d.]{0,20}\Z"))
def test_any_text_is_a_cursor_or_a_problem(text: str) -> None:
    try:
        cursor = read_cursor(text)
    except Problem as problem:
        assert problem.code == "bad-request"
    else:
        assert all(0 <= seq < 10**18 for seq in cursor)
