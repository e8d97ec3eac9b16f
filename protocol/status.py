"""Business states of a document at its recipient: codes 01 to 16 of edXML status messages.

They say what a *person* did with a document (took it in, assigned it, finished it) and travel as
messages of kind ``status``. They are not transport acknowledgements.

Source: Decision 28/2018/QĐ-TTg, article 10(2)h, names the states; the codes are those that the
national document axis carries. States come late, twice and out of order in real traffic, so
nothing here rejects a sequence: `current` derives the present state from whatever has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


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
