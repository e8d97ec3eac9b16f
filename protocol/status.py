"""Business states of a document at its recipient: codes 01 to 16 of edXML status messages.

They say what a *person* did with a document (took it in, assigned it, finished it) and travel as
messages of kind ``status``. They are not transport acknowledgements.

Source: Decision 28/2018/QĐ-TTg, article 10(2)h, names the states; the codes are those that the
national document axis carries. States come late, twice and out of order in real traffic, so
nothing here rejects a sequence: `current` derives the present state from whatever has come, and
`resolve` puts all of it in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal


class State(StrEnum):
    """A business state by its wire code."""

    ARRIVED = "01"
    REFUSED = "02"
    TAKEN_IN = "03"
    ASSIGNED = "04"
    IN_PROGRESS = "05"
    FINISHED = "06"
    RECALL_ASKED = "13"
    CHANGE_AGREED = "15"
    CHANGE_REFUSED = "16"


VIETNAMESE = {
    State.ARRIVED: "Đã đến",
    State.REFUSED: "Từ chối tiếp nhận",
    State.TAKEN_IN: "Đã tiếp nhận",
    State.ASSIGNED: "Đã phân công",
    State.IN_PROGRESS: "Đang xử lý",
    State.FINISHED: "Đã hoàn thành",
    State.RECALL_ASKED: "Yêu cầu lấy lại",
    State.CHANGE_AGREED: "Đồng ý lấy lại, cập nhật",
    State.CHANGE_REFUSED: "Từ chối lấy lại, cập nhật",
}

# Rank orders states that happen to one document; a higher rank wins over a later time, because
# integrators resend early states long after later ones.
_RANK = {state: rank for rank, state in enumerate(State)}


def current(states: Iterable[tuple[State, float]]) -> State | None:
    """The present state from (state, UNIX time) pairs in any order; None when there are none.

    A recall outranks processing until it is answered; its answer (15 or 16) outranks the recall.
    """
    latest = max(states, key=lambda pair: (_RANK[pair[0]], pair[1]), default=None)
    return None if latest is None else latest[0]


Note = Literal["repeated", "late", "unknown"]
"""Of a report: its state had been reported before; a state that follows it had come before it; its code is none
that is known."""


@dataclass(frozen=True, slots=True)
class Report:
    """One state as it was reported: its wire code, when by the reporter's clock, when it came by the hub's."""

    code: str
    said_at: datetime | None
    came_at: datetime
    message: str = ""
    """The message that carried it."""

    @property
    def at(self) -> datetime:
        return self.said_at or self.came_at


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a document stands with one recipient."""

    current: State | None
    handling: State | None
    """01 to 06 alone: how far it is handled, whatever is asked about taking it back."""
    change: State | None
    """13, 15 or 16: whether it is asked back or changed, and the answer."""
    reports: tuple[tuple[Report, Note | None], ...]
    """All that came, in the order of the states."""


def resolve(reports: Iterable[Report]) -> Standing:
    """Put one recipient's reports in order, whatever order they came in. Loses none."""
    known: list[tuple[State, float]] = []
    ordered = sorted(reports, key=lambda report: (report.code, report.at, report.came_at, report.message))
    noted: list[tuple[Report, Note | None]] = []
    for index, report in enumerate(ordered):
        note: Note | None = None
        if report.code not in frozenset(State):
            note = "unknown"
        else:
            known.append((State(report.code), report.at.timestamp()))
            if index and ordered[index - 1].code == report.code:
                note = "repeated"
            elif any(_follows(other, report) for other in ordered[index + 1 :]):
                note = "late"
        noted.append((report, note))
    asked = [pair for pair in known if pair[0] >= State.RECALL_ASKED]
    handled = [pair for pair in known if pair[0] < State.RECALL_ASKED]
    return Standing(current(known), current(handled), current(asked), tuple(noted))


def _follows(other: Report, report: Report) -> bool:
    """Whether `other`, of a state after that of `report`, came before it. A recall may be asked at any time."""
    in_order = report.code >= State.RECALL_ASKED or other.code < State.RECALL_ASKED
    return (
        in_order and other.code in frozenset(State) and other.code > report.code and other.came_at < report.came_at
    )
