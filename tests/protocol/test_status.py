"""Business states: their codes, their names, and which one holds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.status import VIETNAMESE, State, current

REPORTS = st.lists(st.tuples(st.sampled_from(State), st.integers(0, 10).map(float)), max_size=6)


def test_the_codes_are_those_that_the_axis_carries_and_each_has_a_name() -> None:
    assert {state.value for state in State} == {"01", "02", "03", "04", "05", "06", "13", "15", "16"}
    assert set(VIETNAMESE) == set(State)
    assert len(set(VIETNAMESE.values())) == len(VIETNAMESE)


def test_without_a_report_there_is_no_state() -> None:
    assert current([]) is None


@pytest.mark.parametrize(("earlier", "later"), list(itertools.pairwise(State)))
def test_a_state_outranks_those_before_it_whenever_they_come(earlier: State, later: State) -> None:
    for early, late in ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0)):
        assert current([(earlier, early), (later, late)]) is later
        assert current([(later, late), (earlier, early)]) is later


def test_a_recall_is_open_until_it_is_answered() -> None:
    asked = [(State.FINISHED, 9.0), (State.RECALL_ASKED, 1.0)]
    assert current(asked) is State.RECALL_ASKED
    assert current([*asked, (State.CHANGE_REFUSED, 0.5)]) is State.CHANGE_REFUSED
    assert current([*asked, (State.CHANGE_AGREED, 0.5)]) is State.CHANGE_AGREED


@given(REPORTS, st.randoms(use_true_random=False))
def test_order_and_repetition_make_no_difference(reports: list[tuple[State, float]], random: object) -> None:
    shuffled = reports * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert current(shuffled) == current(reports)
    assert current(reports) in {state for state, _ in reports} | {None}
