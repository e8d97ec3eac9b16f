"""What is wrong with a message, field by field, in the style of the axis's error lists.

A code is N (missing), R (too long), M (a value that may not be) or T (wrong form), and the field's path. Most
faults are advice: real traffic is full of them, and the hub passes such messages on. Those that are `fatal`
keep a message from being routed; they are exactly those for which `protocol.edxml.read` refuses it.

Lengths are those of Decree 30/2020/NĐ-CP, appendix VI, or of a provincial axis's checker where the decree has
none. Required are the fields by which Decision 28/2018/QĐ-TTg, article 10(2), wants a document known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from protocol.agency import MAX_CODE_LENGTH, is_code
from protocol.edxml.binding import href, members
from protocol.edxml.header import MAX_DOCUMENT_ID, refusal
from protocol.edxml.model import Message, Part
from protocol.edxml.values import content_id, line, moment, number
from protocol.problems import Problem
from protocol.status import State


class FieldError(NamedTuple):
    """One fault: its code (`R.MessageHeader.Subject`), what is wrong, and whether it forbids routing."""

    code: str
    reason: str
    fatal: bool = False


_ORGAN = {"OrganName": 200, "OrganizationInCharge": 500, "OrganAdd": 500, "Email": 100, "Telephone": 20, "Fax": 20}
LENGTHS = {
    **{f"MessageHeader.{party}.{name}": length for party in ("From", "To") for name, length in _ORGAN.items()},
    "MessageHeader.Code.CodeNumber": 11,
    "MessageHeader.Code.CodeNotation": 30,
    "MessageHeader.PromulgationInfo.Place": 50,
    "MessageHeader.DocumentType.TypeName": 100,
    "MessageHeader.Subject": 500,
    "MessageHeader.Content": 500,
    "MessageHeader.SignerInfo.Position": 100,
    "MessageHeader.SignerInfo.FullName": 50,
    "MessageHeader.OtherInfo.SphereOfPromulgation": 100,
    "MessageHeader.OtherInfo.TyperNotation": 10,
    "TraceHeaderList.TraceHeader.OrganId": MAX_CODE_LENGTH,
    "edXMLManifest.Reference.AttachmentName": 500,
    "AttachmentEncoded.Attachment.AttachmentName": 500,
}
"""Characters that a field may have."""

_REQUIRED = (
    "MessageHeader.Code.CodeNumber",
    "MessageHeader.Code.CodeNotation",
    "MessageHeader.PromulgationInfo.PromulgationDate",
    "MessageHeader.DocumentType.TypeName",
    "MessageHeader.Subject",
)
_REQUIRED_OF_STATUS = ("MessageHeader.ResponseFor.Code", "MessageHeader.ResponseFor.DocumentId")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DAY = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_TWO_DIGITS = re.compile(r"[0-9]{1,2}")

Fault = tuple[str, str] | None
"""A letter and a reason."""


def _day(text: str) -> Fault:
    if moment(text) is None:
        return "T", "is not a date"
    return None if _DAY.fullmatch(text) else ("T", "is a date that is not written yyyy/MM/dd")


def _time(text: str) -> Fault:
    if moment(text) is None:
        return "T", "is not a time"
    return None if _TIME.fullmatch(text) else ("T", "is a time that is not written yyyy/MM/dd HH:mm:ss")


def _up_to(highest: int) -> Callable[[str], Fault]:
    def check(text: str) -> Fault:
        if number(text, 10**9) is None:
            return "T", "is not a number"
        return None if number(text, highest) is not None else ("M", f"is not a number from 0 to {highest}")

    return check


def _true_or_false(text: str) -> Fault:
    return None if text.lower() in ("true", "false", "0", "1") else ("M", "is neither true nor false")


def _file_name(text: str) -> Fault:
    return ("M", "holds a path; only its last part is used") if "/" in text or "\\" in text else None


FORMS: dict[str, Callable[[str], Fault]] = {
    "MessageHeader.PromulgationInfo.PromulgationDate": _day,
    "MessageHeader.ResponseFor.PromulgationDate": _day,
    "MessageHeader.DueDate": _day,
    "MessageHeader.Timestamp": _time,
    "MessageHeader.DocumentType.Type": _up_to(10**9),
    "MessageHeader.DocumentType.TypeDetail": _up_to(10**9),
    "MessageHeader.OtherInfo.Priority": _up_to(4),
    "MessageHeader.OtherInfo.PromulgationAmount": _up_to(999),
    "MessageHeader.OtherInfo.PageAmount": _up_to(999),
    "MessageHeader.OtherInfo.Direction": _true_or_false,
    "MessageHeader.SteeringType": _up_to(3),
    "TraceHeaderList.TraceHeader.Timestamp": _time,
    "TraceHeaderList.Bussiness.BussinessDocType": _up_to(3),
    "TraceHeaderList.Bussiness.Paper": _up_to(10**9),
    "TraceHeaderList.Bussiness.BussinessDocumentInfo.DocumentInfo": _up_to(1),
    "TraceHeaderList.Bussiness.BussinessDocumentInfo.DocumentReceiver": _up_to(1),
    "TraceHeaderList.Bussiness.BussinessDocumentInfo.ReceiverList.Receiver.ReceiverType": _up_to(1),
    "edXMLManifest.Reference.AttachmentName": _file_name,
    "AttachmentEncoded.Attachment.AttachmentName": _file_name,
}
"""What the text of a field must be, if it has one."""


def check(message: Message) -> list[FieldError]:
    """Every fault of `message`, each once, those that forbid routing first."""
    checker = _Checker(message)
    checker.route()
    checker.fields()
    checker.relations()
    return list(checker.found)


def problem(errors: list[FieldError]) -> Problem | None:
    """Problem bad-edxml with `errors` as its fields (the first twenty), or None if there are none."""
    return refusal(tuple((error.code, error.reason) for error in errors)) if errors else None


def leaves(message: Message) -> Iterator[tuple[str, str]]:
    """The path and text of every field, as `line` gives it; paths name elements, without prefixes and places."""
    yield from _leaves("MessageHeader", message.header)
    for name, part in [
        ("TraceHeaderList", message.trace),
        ("ErrorList", message.errors),
        ("edXMLManifest", message.manifest),
        *(("AttachmentEncoded.Attachment", attachment) for attachment in message.attachments),
    ]:
        if part is not None:
            yield from _leaves(name, part)


def _leaves(path: str, part: Part) -> Iterator[tuple[str, str]]:
    for member in members(type(part)):
        value = getattr(part, member.field)
        for item in value if member.many else () if value is None else (value,):
            name = f"{path}.{member.element}"
            if isinstance(item, Part):
                yield from _leaves(name, item)
            else:
                yield name, line(item)


class _Checker:
    def __init__(self, message: Message) -> None:
        self._message = message
        self._leaves = list(leaves(message))
        self._filled = {path for path, text in self._leaves if text}
        self.found: dict[FieldError, None] = {}

    def _add(self, letter: str, path: str, reason: str, fatal: bool = False) -> None:
        self.found[FieldError(f"{letter}.{path}", reason, fatal)] = None

    def route(self) -> None:
        """What `protocol.edxml.header` asks of a message."""
        header = self._message.header
        self._code("MessageHeader.From.OrganId", header.sender.organ_id if header.sender else None)
        if self._message.is_status:
            answers = [
                response
                for response in header.response_for
                if any(
                    map(line, (response.organ_id, response.code, response.document_id, response.promulgation_date))
                )
            ]
            for code in [response.organ_id for response in answers] or [None]:
                self._code("MessageHeader.ResponseFor.OrganId", code)
            ids = [line(response.document_id) for response in answers]
            self._id("MessageHeader.ResponseFor.DocumentId", next(filter(None, ids), ""))
            self._state(line(header.status_code))
        else:
            to = [organ.organ_id for organ in header.to if line(organ.organ_id) or line(organ.organ_name)]
            for code in to or [None]:
                self._code("MessageHeader.To.OrganId", code)
            if len(set(map(line, to))) < len(to):
                self._add("M", "MessageHeader.To.OrganId", "names an agency more than once")
            self._id("MessageHeader.DocumentId", line(header.document_id))
            if not line(header.document_id):
                self._add("N", "MessageHeader.DocumentId", "is missing", fatal=True)

    def _code(self, path: str, text: str | None) -> None:
        code = line(text)
        if not code:
            self._add("N", path, "is missing", fatal=True)
        elif not is_code(code):
            self._add("T", path, f"is not an identity code: {code[:40]!r}", fatal=True)

    def _id(self, path: str, text: str) -> None:
        if len(text) > MAX_DOCUMENT_ID:
            self._add("R", path, f"is longer than {MAX_DOCUMENT_ID} characters", fatal=True)
        if _CONTROL.search(text):
            self._add("T", path, "holds control characters", fatal=True)

    def _state(self, given: str) -> None:
        path = "MessageHeader.StatusCode"
        if not given:
            self._add("N", path, "is missing", fatal=True)
        elif not _TWO_DIGITS.fullmatch(given):
            self._add("T", path, "is not a number of two digits", fatal=True)
        elif given.zfill(2) not in frozenset(State):
            self._add("M", path, "is no state that is known")
        elif len(given) < 2:
            self._add("T", path, "is not written with two digits")

    def fields(self) -> None:
        """Each field for itself, and those that are missing."""
        for path in _REQUIRED_OF_STATUS if self._message.is_status else _REQUIRED:
            if path not in self._filled:
                self._add("N", path, "is missing")
        for path, text in self._leaves:
            if len(text) > LENGTHS.get(path, len(text)):
                self._add("R", path, f"is longer than {LENGTHS[path]} characters")
            if text and path in FORMS and (fault := FORMS[path](text)):
                self._add(fault[0], path, fault[1])

    def relations(self) -> None:
        """Fields that must agree with others."""
        trace = self._message.trace
        for system in trace.trace_header if trace else ():
            for element, text in [("OrganId", system.organ_id), ("Timestamp", system.timestamp)]:
                if not line(text):
                    self._add("N", f"TraceHeaderList.TraceHeader.{element}", "is missing")
        bussiness = trace.bussiness if trace else None
        kind = number(bussiness.bussiness_doc_type, 3) if bussiness else None
        for needed, path in [(2, "DocumentId"), (3, "ReplacementInfoList.ReplacementInfo.DocumentId")]:
            if kind == needed and f"TraceHeaderList.Bussiness.{path}" not in self._filled:
                self._add("N", f"TraceHeaderList.Bussiness.{path}", "is missing, and says what this is about")
        announced_at, carried_at = "edXMLManifest.Reference.ContentId", "AttachmentEncoded.Attachment.ContentId"
        references = self._message.manifest.reference if self._message.manifest else ()
        announced = [content_id(reference.content_id or href(reference)) for reference in references]
        carried = [content_id(attachment.content_id) for attachment in self._message.attachments]
        for path, ids, others, reason in [
            (announced_at, announced, carried, "names no attachment of the message"),
            (carried_at, carried, announced, "is not in the manifest"),
        ]:
            if "" in ids:
                self._add("N", path, "is missing")
            if len(set(ids)) < len(ids):
                self._add("M", path, "stands at two attachments")
            if set(ids) - set(others) - {""}:
                self._add("M", path, reason)
