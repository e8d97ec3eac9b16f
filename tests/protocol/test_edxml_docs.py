"""docs/edxml.md names every element of the model, and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from protocol.edxml.binding import members
from protocol.edxml.model import Attachment, ErrorList, Manifest, MessageHeader, Part, TraceHeaderList

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "edxml.md").read_text(encoding="utf-8")


def elements(part: type[Part]) -> set[str]:
    found = set()
    for member in members(part):
        found |= {member.element} | (elements(member.part) if member.part else set())
    return found


def test_every_element_is_in_the_table() -> None:
    table = PAGE.partition("## Elements")[2].partition("## Dialects")[0]
    named = set(re.findall(r"\w+", table))
    for part in (MessageHeader, TraceHeaderList, ErrorList, Manifest, Attachment):
        assert elements(part) <= named, elements(part) - named


def test_every_test_that_is_named_exists() -> None:
    there: dict[str, set[str]] = {}
    for path in (ROOT / "tests" / "protocol").glob("test_edxml*.py"):
        kind = path.stem.removeprefix("test_").removeprefix("edxml_")
        there[kind] = set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    kind, count = "", 0
    for given, name in re.findall(r"`(\w*)::(test_\w+)`", PAGE):
        kind = given or kind
        assert name in there[kind], f"{kind}::{name}"
        count += 1
    assert count > 50
