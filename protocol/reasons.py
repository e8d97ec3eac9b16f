"""Why a delivery ended otherwise than acknowledged: codes that a program can read, from closed lists.

An event carries the code beside the words of whoever refused. The words may say anything; the code is one of
these, so that a sender's system can decide what to do next without reading Vietnamese. Codes never change their
meaning and are never removed; a list may grow. A rejected submission has a code of `protocol.problems` instead.

ETSI EN 319 522-2 gives its evidence reasons by code as well; these codes are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from protocol.evidence import EventKind

RefusalCode = Literal[
    "other",
    "not-competent",
    "wrong-recipient",
    "unknown-recipient",
    "duplicate",
    "unreadable",
    "incomplete",
    "invalid-signature",
    "malware",
    "policy",
]
"""What a recipient's system may give."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One code: the events in which it may stand, and what it says in two languages."""

    code: str
    events: tuple[EventKind, ...]
    english: str
    vietnamese: str


_REFUSED = (EventKind.REFUSED,)


def _catalogue(*reasons: Reason) -> dict[str, Reason]:
    return {reason.code: reason for reason in reasons}


REASONS = _catalogue(
    # Given by a recipient's system.
    Reason("other", _REFUSED, "as the words beside it say", "lý do khác, ghi bằng lời bên cạnh"),
    Reason(
        "not-competent", _REFUSED, "the matter is not the recipient's to decide", "không thuộc thẩm quyền nơi nhận"
    ),
    Reason("wrong-recipient", _REFUSED, "sent to the wrong agency by mistake", "gửi nhầm nơi nhận"),
    Reason(
        "unknown-recipient",
        _REFUSED,
        "the system does not serve the agency that is addressed",
        "hệ thống không phục vụ cơ quan được gửi đến",
    ),
    Reason("duplicate", _REFUSED, "the recipient has this document already", "văn bản đã nhận trước đó"),
    Reason(
        "unreadable", _REFUSED, "the content cannot be opened or read", "không mở hoặc không đọc được nội dung"
    ),
    Reason("incomplete", _REFUSED, "something that must be there is missing", "thiếu thành phần bắt buộc"),
    Reason(
        "invalid-signature",
        _REFUSED,
        "a signature in the document is not valid to the recipient",
        "chữ ký số trong văn bản không hợp lệ với nơi nhận",
    ),
    Reason("malware", _REFUSED, "harmful content was found", "phát hiện nội dung độc hại"),
    Reason("policy", _REFUSED, "a rule of the recipient forbids it", "quy định của nơi nhận không cho phép"),
    # Given by the hub.
    Reason(
        "relay-rejected",
        (EventKind.REFUSED, EventKind.RELAY_REJECTED),
        "the next hub does not take it",
        "trục kế tiếp không nhận",
    ),
    Reason(
        "not-convertible",
        (EventKind.REFUSED, EventKind.RELAY_REJECTED),
        "it cannot be written in the form that the next hub takes",
        "không chuyển được sang dạng mà trục kế tiếp nhận",
    ),
    Reason(
        "relay-failed",
        (EventKind.RELAY_FAILED,),
        "the next hub could not be reached for too long",
        "không kết nối được trục kế tiếp trong thời hạn",
    ),
    Reason("expired", (EventKind.EXPIRED,), "its time had passed", "quá thời hạn chuyển"),
    Reason(
        "not-taken",
        (EventKind.EXPIRED,),
        "the recipient took newer ones and left it lying",
        "nơi nhận không lấy về trong khi đã lấy văn bản mới hơn",
    ),
    Reason(
        "recalled-by-sender",
        (EventKind.RECALLED,),
        "its sender took it back",
        "cơ quan gửi thu hồi trước khi giao",
    ),
    Reason(
        "nothing-left",
        (EventKind.RECALLED,),
        "a recall, of which nothing is left to ask",
        "thư thu hồi không còn gì để thực hiện",
    ),
)

REFUSAL_CODES: frozenset[str] = frozenset(get_args(RefusalCode))
DEFAULT_CODES: dict[EventKind, str] = {
    EventKind.REFUSED: "other",
    EventKind.EXPIRED: "expired",
    EventKind.RECALLED: "recalled-by-sender",
}
"""The code of an event of which none was said."""
