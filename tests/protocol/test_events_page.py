"""docs/events.md names every event and every code as the program does."""

from __future__ import annotations

import re
from pathlib import Path

from protocol.acknowledgement import ACKNOWLEDGEMENT_TYPE
from protocol.evidence import EVENT_URI, STANDARD_EVENTS, EventKind
from protocol.reasons import REASONS, REFUSAL_CODES

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose head begins with `first`."""
    lines = PAGE.split(f"| {first} |", 1)[1].split("\n")[2:]
    table = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_event_and_its_name_in_the_standard() -> None:
    found = {cells[0].strip("`"): cells[1] for cells in rows("event")}
    assert found == {
        kind.value: ", ".join(STANDARD_EVENTS[kind]) or "none" for kind in EventKind if kind in STANDARD_EVENTS
    }
    assert found.keys() == {kind.value for kind in EventKind}
    for names in STANDARD_EVENTS.values():
        assert all(re.fullmatch(r"[A-F]\.[1-6] [A-Z][A-Za-z]+", name) for name in names)


def test_every_code_where_it_may_stand() -> None:
    found = [(cells[0].strip("`"), cells[1].replace("`", ""), cells[2]) for cells in rows("code")]
    assert [code for code, _, _ in found] == list(REASONS)
    for code, kinds, says in found:
        reason = REASONS[code]
        assert kinds == ", ".join(reason.events)
        assert says == reason.english
    assert {code for code, _, _ in found[:10]} == REFUSAL_CODES, "the page says that these are the first ten"


def test_names_that_others_use() -> None:
    assert f"`{ACKNOWLEDGEMENT_TYPE}`" in PAGE
    assert f"`{EVENT_URI}`" in PAGE
