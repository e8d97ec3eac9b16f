"""What edXML's texts mean: dates, numbers, one-line texts, content ids; read tolerantly, written strictly.

Dates and times are Vietnam's (UTC+7) unless they say otherwise, and are written `yyyy/MM/dd` and
`yyyy/MM/dd HH:mm:ss`, as the axis's SDK does.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

VIETNAM = timezone(timedelta(hours=7))
SPACE = " \t\r\n"
"""What XML calls white space; Unicode has more, which may belong to a text."""

_LINE_BREAK = re.compile(r"[ \t\r\n]*[\t\r\n][ \t\r\n]*")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(
    r"(?:([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})|([0-9]{1,2})[/-]([0-9]{1,2})[/-]([0-9]{4}))"
    r"((?:[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?)"
)
_EARLIEST_YEAR = 1900  # .NET writes 0001-01-01 for no date


def one_line(text: str) -> str:
    """`text` without margins, its line breaks as single blanks."""
    text = text.strip(SPACE)
    return text if text.isprintable() else _LINE_BREAK.sub(" ", text)


def line(text: str | None) -> str:
    """`text` on one line; "" for what is absent, and for the word null that some builders write."""
    text = one_line(text or "")
    return "" if text == "null" else text


def number(text: str | None, highest: int) -> int | None:
    """The number from 0 to `highest` that `text` is, or None."""
    text = line(text)
    return int(text) if _NUMBER.fullmatch(text) and int(text) <= highest else None


def moment(text: str) -> datetime | None:
    """The instant that `text` (as `line` gives it) names, in Vietnam's zone; None when it names none since 1900.

    Reads `yyyy/MM/dd`, `dd/MM/yyyy`, either with `-`, and ISO 8601; a date alone is its midnight.
    """
    if match := _DATE.fullmatch(text):
        year, month, day, end_day, end_month, end_year, time = match.groups()
        year, month, day = year or end_year, month or end_month, day or end_day
        try:
            found = datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}{time}")
            if found.year >= _EARLIEST_YEAR:
                return found.astimezone(VIETNAM) if found.tzinfo else found.replace(tzinfo=VIETNAM)
        except (ValueError, OverflowError):
            pass
    return None


def date(text: str | None) -> str | None:
    """The day that `text` names, as `yyyy-MM-dd`."""
    found = moment(line(text))
    return None if found is None else found.date().isoformat()


def written_date(day: str) -> str:
    """`yyyy-MM-dd` as edXML writes it."""
    return day.replace("-", "/")


def written_time(instant: datetime) -> str:
    """`instant`, which has a zone, as edXML writes it: whole seconds of Vietnam's time."""
    local = instant.astimezone(VIETNAM)
    return f"{local.year:04}/{local:%m/%d %H:%M:%S}"


def content_id(text: str | None) -> str:
    """A content id without the ``cid:`` that stands before it in one place and not in another."""
    text = line(text)
    return text[4:] if text[:4].lower() == "cid:" else text
