"""When a document was to be sent: by noon of the working day after it was issued, in Vietnam's time."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.evidence.deadlines import VIETNAM, send_by, times
from hub.evidence.describe import Description

ACCEPTED = datetime(2026, 3, 3, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("issued", "by"),
    [
        ("2026-03-02", "2026-03-03"),  # Monday
        ("2026-03-05", "2026-03-06"),
        ("2026-03-06", "2026-03-09"),  # Friday
        ("2026-03-07", "2026-03-09"),
        ("2026-03-08", "2026-03-09"),
        ("2025-12-31", "2026-01-01"),
    ],
)
def test_it_is_noon_of_the_next_working_day(issued: str, by: str) -> None:
    found = send_by(date.fromisoformat(issued)).astimezone(VIETNAM)
    assert (found.date().isoformat(), found.hour, found.minute) == (by, 12, 0)


def test_late_begins_after_noon_and_overdue_after_midnight_in_vietnam() -> None:
    described = Description(issued="2026-03-02", due="2026-03-20")
    on_time = datetime(2026, 3, 3, 5, 0, tzinfo=UTC)
    assert not times(described, on_time, on_time).late
    assert times(described, datetime(2026, 3, 3, 5, 1, tzinfo=UTC), on_time).late
    assert not times(described, on_time, datetime(2026, 3, 20, 16, 59, tzinfo=UTC)).overdue
    assert times(described, on_time, datetime(2026, 3, 20, 17, 0, tzinfo=UTC)).overdue


def test_what_is_no_date_is_none() -> None:
    for text in ("", "0001-01-01", "9999-12-31", "2026-02-30", "hôm qua"):
        found = times(Description(issued=text, due=text), ACCEPTED, ACCEPTED)
        assert (found.issued, found.send_by, found.late, found.due, found.overdue) == (
            None,
            None,
            False,
            None,
            False,
        )


@given(st.dates(date(1901, 1, 1), date(8999, 12, 30)))
def test_it_is_never_on_the_same_day_nor_on_a_weekend(issued: date) -> None:
    by = send_by(issued).astimezone(VIETNAM)
    assert issued < by.date() and by.weekday() < 5 and (by.date() - issued).days <= 3
