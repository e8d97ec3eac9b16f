"""What an auditor may find, in words for somebody who is no specialist.

A finding says what was seen, what it means and what to do. Where two things that the hub signed contradict each
other, there is evidence with it, which is written into a file of its own (`protocol/audit_evidence.py`).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import NamedTuple

import msgspec

from protocol.audit_evidence import Evidence
from protocol.evidence import timestamp
from protocol.misbehaviour import Misbehaviour, explain
from protocol.note import read_verifier


class Severity(StrEnum):
    """What a finding asks for."""

    ALARM = "alarm"
    """Something that does not happen to an honest hub whose tables nobody touched."""
    UNCHECKED = "unchecked"
    """Something that was to be checked could not be."""
    NOTE = "note"


class Kind(NamedTuple):
    """A sort of finding: its words."""

    severity: Severity
    title: str
    vietnamese: str
    meaning: str
    advice: str


_VIETNAM = timezone(timedelta(hours=7))
_CALL = "Ask the hub's operator in writing, and keep the files and the auditor's state until it is explained."
_SHOW = (
    "Keep the evidence file: it stands on its own. Show it to the other agencies and to the hub's supervising "
    "authority; until it is explained, rely on receipts and documents that you hold yourself."
)
_ALARM, _UNCHECKED = Severity.ALARM, Severity.UNCHECKED
KINDS: dict[str, Kind] = {
    "two-faces": Kind(
        _ALARM,
        "The hub shows different logs to different people",
        "Trục cho mỗi nơi xem một nhật ký khác nhau",
        "It signed two different logs of the same length. One of them hides or invents events.",
        _SHOW,
    ),
    "rewritten": Kind(
        _ALARM,
        "The hub rewrote its history",
        "Trục đã sửa lại lịch sử",
        "It signed one history before and signs another one now: events were changed, removed or put in "
        "afterwards.",
        _SHOW,
    ),
    "impossible": Kind(
        _ALARM,
        "The hub signed a log that cannot exist",
        "Trục đã ký một nhật ký không thể có",
        "An empty log has one possible root, and it signed another.",
        _SHOW,
    ),
    "shrank": Kind(
        _ALARM,
        "The log has become shorter",
        "Nhật ký bị ngắn lại",
        "Events that were in it are not in it any more: the hub's database was set back to an older backup, or "
        "somebody cut it; or a proxy before the hub gives out something old.",
        "Look again in an hour. If it stays so, ask the hub's operator whether a backup was restored, and let "
        "everybody who sent something since that backup compare his receipts (--receipts). When the log grows "
        "on from there, the next audit will have proof that it was rewritten.",
    ),
    "behind-witness": Kind(
        _ALARM,
        "The hub shows you less than it showed a witness",
        "Trục cho xem ít hơn những gì đã cho nhân chứng xem",
        "A witness has signed a longer log than the one that you are shown: the hub was set back to an older "
        "state, or you are shown another log than the witness.",
        "Look again in an hour. If it stays so, ask the hub's operator and the witness.",
    ),
    "broken-tree": Kind(
        _ALARM,
        "The log's contents are not what the hub signed",
        "Nội dung nhật ký khác với những gì trục đã ký",
        "What the hub gives out was altered after it had been signed, most likely in its database.",
        "Tell the hub's operator the entries named here: the tables log_tile and checkpoint have to be "
        "compared with a backup. Whoever holds receipts of that time should check them (--receipts).",
    ),
    "withheld": Kind(
        _ALARM,
        "The hub does not show a part of the log that it signed",
        "Trục không cho xem một phần nhật ký đã ký",
        "It says how many events there are and signed that, and denies having some of them.",
        _CALL,
    ),
    "unknown-key": Kind(
        _ALARM,
        "The log is not signed with the key that you trust",
        "Nhật ký không được ký bằng khóa mà bạn tin cậy",
        "Somebody else answers in the hub's place, or the hub has changed its key.",
        "Ask the hub's operator, by telephone and not through this address, whether the key was changed, since "
        "when, and what the new one is. Then call again with --log-key.",
    ),
    "bad-signature": Kind(
        _ALARM,
        "The signature on the log is wrong",
        "Chữ ký trên nhật ký không đúng",
        "The checkpoint names the key that you trust, and was altered afterwards or never signed with it.",
        _CALL,
    ),
    "bad-cosignature": Kind(
        _ALARM,
        "The hub shows a signature of a witness that is wrong",
        "Trục đưa ra chữ ký sai của nhân chứng",
        "The witness did not sign this. Somebody put its name under the log.",
        "Show it to the witness.",
    ),
    "broken-promise": Kind(
        _ALARM,
        "The hub broke a promise: an event is not in the log",
        "Trục không giữ lời hứa: sự kiện không có trong nhật ký",
        "It signed that the event would be in the log by a certain time. That time is over and it is not "
        "there: somebody removed it before it was logged, or the log stands still.",
        "Keep the receipt: it proves that the event happened, whatever the hub says today. Ask the hub's "
        "operator for the proof that it is in the log; without that, show the evidence file to the hub's "
        "supervising authority.",
    ),
    "late": Kind(
        _ALARM,
        "The hub logged an event later than it had promised",
        "Trục ghi sự kiện vào nhật ký muộn hơn đã hứa",
        "When the promised time was over, the log that you were shown did not have it yet.",
        "Ask the hub's operator why the log stood still.",
    ),
    "far-promise": Kind(
        _ALARM,
        "An event is not in the log, and the hub gave itself too long for it",
        "Sự kiện chưa có trong nhật ký, mà trục tự cho mình thời hạn quá dài",
        "A promise of more than a week binds nobody: until then the hub can show the event to you alone.",
        "Ask the hub's operator: `--log-within-seconds` allows a week at most.",
    ),
    "standstill": Kind(
        _ALARM,
        "The log stands still",
        "Nhật ký không còn được ghi tiếp",
        "The hub itself says that events wait, and for longer than it promises to everybody.",
        "Ask the hub's operator: he has an alert for it (lienthong_log_lag_seconds, lienthong_log_broken).",
    ),
    "event-altered": Kind(
        _ALARM,
        "An event in the hub's database is not the one in its log",
        "Sự kiện trong cơ sở dữ liệu khác với sự kiện trong nhật ký",
        "Its text was changed after it was sealed, or its hash before it was logged.",
        "Whoever holds this event's receipt can tell which one is right. Tell the hub's operator the place "
        "named here.",
    ),
    "event-missing": Kind(
        _ALARM,
        "An event of the log has been deleted from the hub's database",
        "Một sự kiện trong nhật ký đã bị xóa khỏi cơ sở dữ liệu",
        "The log proves that there was an event, and the hub has others of the same month; this one is gone.",
        "Ask the hub's operator. Sender and recipient may still hold its receipt and its document.",
    ),
    "receipt-lost": Kind(
        _ALARM,
        "The hub can no longer prove an event of its own",
        "Trục không còn chứng minh được một sự kiện của chính mình",
        "The event is there, but what it was sealed with was altered or deleted (table batch).",
        "Tell the hub's operator the batch named here: its row has to be restored from a backup.",
    ),
    "bad-receipt": Kind(
        _ALARM,
        "The hub gave out a receipt that proves nothing",
        "Trục đưa ra biên nhận không có giá trị",
        "Its signature or its path is wrong.",
        _CALL,
    ),
    "first-use": Kind(
        Severity.NOTE,
        "The hub's key was taken from the hub itself",
        "Khóa của trục được lấy từ chính trục",
        "Nobody has confirmed it yet. From now on a change of it will be noticed.",
        "Compare it once with what the hub's operator tells you by another way, and give it with --log-key.",
    ),
    "waiting": Kind(
        Severity.NOTE,
        "An event is not in the log yet, and has time until then",
        "Sự kiện chưa có trong nhật ký, còn trong thời hạn",
        "The hub has promised it until the time named here.",
        "Look again afterwards.",
    ),
    "no-promise": Kind(
        Severity.NOTE,
        "A receipt makes no promise about this log",
        "Biên nhận không hứa gì về nhật ký này",
        "It is genuine; it is from before there was a log, or from another hub.",
        "",
    ),
    "remainder": Kind(
        Severity.NOTE,
        "Not all of what is new was looked at",
        "Chưa xem hết phần mới",
        "There is much that is new since the last time; the next audit goes on from here.",
        "Audit more often, or once with --full.",
    ),
    "gone": Kind(
        Severity.NOTE,
        "The hub no longer has a message",
        "Trục không còn giữ văn bản này",
        "It left with its month, or somebody deleted it. What its receipts prove stands.",
        "Compare its date with how long the hub keeps messages; ask the operator if it should still be there.",
    ),
    "untrusted-receipt": Kind(
        _UNCHECKED,
        "A receipt could not be checked",
        "Không kiểm tra được biên nhận",
        "It is damaged, or was sealed with a key that you do not trust as this hub's.",
        "If it is of this hub, give its key with --hub-key.",
    ),
    "not-a-log": Kind(
        _UNCHECKED,
        "The answer is not that of a log",
        "Câu trả lời không phải của một nhật ký",
        "Something answers at this address that is not understood.",
        "Is the address right? Is there a proxy that wants a password?",
    ),
    "unreachable": Kind(
        _UNCHECKED,
        "Nobody answered",
        "Không có trả lời",
        "This was to be checked and could not be.",
        "Try again later; if it stays so, ask who runs it.",
    ),
    "not-kept": Kind(
        _UNCHECKED,
        "What was seen could not be written down",
        "Không ghi lại được những gì đã thấy",
        "Without it the next audit cannot compare, or evidence is lost.",
        "Is the disk full, or the folder closed? See to it and audit again at once.",
    ),
    "forbidden": Kind(
        _UNCHECKED,
        "The hub does not let this token see that",
        "Trục không cho mã này xem",
        "",
        "Events are shown to operators and auditors: lienthong operator token --role auditor.",
    ),
}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was found."""

    code: str
    detail: str
    """What exactly, and where."""
    evidence: Evidence | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def severity(self) -> Severity:
        return self.kind.severity


def shown(moment: datetime) -> str:
    """A moment as people in Vietnam read it."""
    return moment.astimezone(_VIETNAM).strftime("%d/%m/%Y %H:%M:%S (UTC+7)")


def found(code: str, detail: str) -> Finding:
    assert code in KINDS
    return Finding(code, detail)


def convicted(misbehaviour: Misbehaviour, where: str, at: datetime) -> Finding:
    """The finding that something which a log signed proves. Raises LogError when it proves nothing."""
    said = explain(misbehaviour, [read_verifier(key) for key in misbehaviour.keys])
    code = misbehaviour.kind.value
    evidence = Evidence(
        code=code, origin=misbehaviour.origin, found_at=timestamp(at), said=said, misbehaviour=misbehaviour
    )
    return Finding(code, f"{where}: {said}", evidence)


def evidence_name(finding: Finding) -> str:
    """A file name for a finding's evidence: the same for the same evidence."""
    assert finding.evidence is not None
    evidence = finding.evidence
    about = msgspec.json.encode([evidence.code, evidence.misbehaviour, evidence.promise])
    return f"{finding.code}-{hashlib.sha256(about).hexdigest()[:16]}.evidence.json"
