"""What a peer's event says of a message that went over a link, whatever the peer wrote into it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.couriers.link_told import Word, words
from protocol.evidence import EventKind
from protocol.problems import Problem

AT = "2026-03-02T01:15:30Z"
WENT_TO = ("000.00.31.H63", "000.00.32.H63")
VAN_YEN, LUC_YEN = WENT_TO


def test_an_end_of_those_to_whom_it_went() -> None:
    event = {"event": "refused", "at": AT, "recipients": [VAN_YEN, VAN_YEN, "000.00.99.H63"], "reason": "không"}
    assert words(event, WENT_TO) == [Word(EventKind.REFUSED, (VAN_YEN,), "không", AT)]


def test_an_acceptance_that_reaches_not_everybody() -> None:
    unreachable: list[Any] = [{"recipient": LUC_YEN, "reason": "x" * 9_000}, {"recipient": ["a"]}, "x", None, {}]
    (word,) = words({"event": "accepted", "at": AT, "unreachable": unreachable}, WENT_TO)
    assert (word.kind, word.recipients, len(word.reason)) == (EventKind.REFUSED, (LUC_YEN,), 500)
    assert words({"event": "accepted", "at": AT, "unreachable": 1}, WENT_TO) == []


@pytest.mark.parametrize("recipients", [None, 1, "000.00.31.H63", [["000.00.31.H63"]], {VAN_YEN: 1}, ["x"]])
def test_nobody_to_whom_it_went(recipients: object) -> None:
    with pytest.raises(Problem, match="concerns nobody") as refused:
        words({"event": "expired", "at": AT, "recipients": recipients}, WENT_TO)
    assert refused.value.code == "bad-request"


@pytest.mark.parametrize(
    "event", [{}, {"event": "acknowledged", "at": AT}, {"event": "refused"}, {"event": ["x"]}]
)
def test_no_end(event: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="ends no delivery"):
        words(event, WENT_TO)
