"""When a document was to be sent, and when it is to be answered.

Decision 28/2018/QĐ-TTg, article 6(2): a document is sent on the day on which it is signed, at the latest in the
morning of the next working day. Here the working week ends on Friday; public holidays, which are set anew each
year, are not known, so after one of them `late` may be said of a document that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone

from hub.evidence.describe import Description

VIETNAM = timezone(timedelta(hours=7))
SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Times:
    """Moments of a document's sending; dates are Vietnam's, as ``2026-03-05``."""

    issued: str | None
    sent_at: datetime | None
    """By the sender's own clock."""
    send_by: datetime | None
    late: bool
    """Whether the hub got it after `send_by`."""
    due: str | None
    overdue: bool
    """Whether the day has passed on which it was due."""


def times(description: Description, accepted_at: datetime, now: datetime) -> Times:
    """What is known of a document's times. `now` is the moment at which that is asked."""
    issued, due = _date(description.issued), _date(description.due)
    by = None if issued is None else send_by(issued)
    return Times(
        None if issued is None else issued.isoformat(),
        description.sent_at,
        by,
        by is not None and accepted_at > by,
        None if due is None else due.isoformat(),
        due is not None and now.astimezone(VIETNAM).date() > due,
    )


def send_by(issued: date) -> datetime:
    """The end of the morning of the first working day after `issued`."""
    day = issued + timedelta(days=1)
    while day.weekday() >= SATURDAY:
        day += timedelta(days=1)
    return datetime.combine(day, time(12), VIETNAM).astimezone(UTC)


def _date(text: str | None) -> date | None:
    try:
        found = date.fromisoformat(text) if text else None
    except ValueError:
        return None
    # Far from today neither the next day nor the time in UTC can be told.
    return found if found is not None and 1900 <= found.year <= 9000 else None
