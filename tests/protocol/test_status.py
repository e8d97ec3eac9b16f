"""Business states: their codes, their names, and which one holds."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.status import VIETNAMESE, Report, State, current, resolve

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


# -- reports in order -------------------------------------------------------------------------------

MORNING = datetime(2026, 3, 2, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return MORNING + timedelta(minutes=minutes)


def report(code: str, came: float, said: float | None = None) -> Report:
    return Report(code, None if said is None else at(said), at(came), f"{code}@{came}")


def shown(*reports: Report) -> list[tuple[str, str | None]]:
    return [(found.code, note) for found, note in resolve(reports).reports]


def test_states_stand_in_their_order_whatever_order_they_came_in() -> None:
    standing = resolve([report("06", 3), report("01", 1), report("03", 5), report("05", 2)])
    assert [found.code for found, _ in standing.reports] == ["01", "03", "05", "06"]
    assert standing.current is standing.handling is State.FINISHED
    assert standing.change is None


def test_a_state_that_comes_after_a_later_one_is_late_and_changes_nothing() -> None:
    assert shown(report("06", 1), report("03", 2)) == [("03", "late"), ("06", None)]
    assert shown(report("03", 1), report("06", 2)) == [("03", None), ("06", None)]


def test_a_state_that_comes_again_is_kept_and_said_to_be_repeated() -> None:
    assert shown(report("03", 1), report("03", 9), report("03", 5)) == [
        ("03", None),
        ("03", "repeated"),
        ("03", "repeated"),
    ]


def test_of_equal_states_the_reporters_clock_decides_where_it_is_told() -> None:
    first, second = report("05", 9, said=1), report("05", 2, said=3)
    assert [found for found, _ in resolve([second, first]).reports] == [first, second]


def test_a_code_that_nobody_knows_is_kept_and_counts_for_nothing() -> None:
    standing = resolve([report("01", 1), report("07", 2)])
    assert [(found.code, note) for found, note in standing.reports] == [("01", None), ("07", "unknown")]
    assert standing.current is State.ARRIVED


def test_handling_goes_on_beside_what_is_asked_about_taking_it_back() -> None:
    asked = [report("03", 1), report("13", 2)]
    assert resolve(asked).current is State.RECALL_ASKED
    standing = resolve([*asked, report("16", 3), report("05", 4)])
    assert (standing.handling, standing.change) == (State.IN_PROGRESS, State.CHANGE_REFUSED)
    # Work that goes on after a recall was asked is not late.
    assert [note for _, note in standing.reports] == [None] * 4


def test_a_recall_that_comes_after_its_answer_is_late() -> None:
    assert shown(report("15", 1), report("13", 2)) == [("13", "late"), ("15", None)]


CAME = st.lists(
    st.tuples(st.sampled_from([*State, "07", "99"]), st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=8
)


@given(CAME, st.randoms(use_true_random=False))
def test_resolving_loses_nothing_and_does_not_depend_on_order(
    came: list[tuple[str, int, int | None]], random: object
) -> None:
    reports = [Report(code, None if said is None else at(said), at(minute), str(place))
               for place, (code, minute, said) in enumerate(came)]  # fmt: skip
    shuffled = list(reports)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    standing = resolve(reports)
    assert resolve(shuffled) == standing
    assert {found for found, _ in standing.reports} == set(reports)
    known = [(State(item.code), item.at.timestamp()) for item in reports if item.code in set(State)]
    assert standing.current == current(known)
