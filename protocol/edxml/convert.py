"""Between edXML and the native document: what both can say, without loss; the rest is named here.

| native | edXML document | edXML status |
| --- | --- | --- |
| `id` | DocumentId | nowhere |
| `from`, `to` | From, To | From, the OrganIds of ResponseFor |
| `subject` | Subject | Description |
| `priority` | OtherInfo/Priority 0, 1, 2, 3; 4 (hỏa tốc hẹn giờ) becomes `express` | the same |
| `code`, `type`, `content`, `due` | Code, DocumentType/TypeName, Content, DueDate | the same |
| `promulgation`, `signer` | PromulgationInfo, SignerInfo | the same |
| `secrecy` | OtherInfo/Secret, which the dialect before 2016 has | the same |
| `business`, `reason`, `concerns` | Bussiness | nowhere |
| `response_for` | ResponseFor | ResponseFor, one for each pair of recipient and document |
| `status`, `at` | the first TraceHeader's Timestamp | StatusCode, Timestamp |
| `attachments` | edXMLManifest, AttachmentEncoded | the same |

Only native: `expires` and `unreachable`, which the hub has acted upon; addresses of groups, which are resolved;
an attachment's `media_type`, which edXML's zip hides, and which is told by its extension again. Only edXML:
contact details, copies and pages, spread, steering, places, tasks, the clerk, and for whom an update or
replacement is. Texts longer than a native member may be are cut. The original is always at hand for the rest.

A conversion says that it is one. In a native document it is `converted_from`. edXML has no place for it, so
it stands where receivers show who handled the message: in StaffInfo, whose Department is `MARK`, and whose
Staff names the original.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

import msgspec

from protocol import message as native
from protocol.agency import is_code
from protocol.edxml import model
from protocol.edxml.binding import href
from protocol.edxml.check import check, problem
from protocol.edxml.header import refusal
from protocol.edxml.names import media_type, safe_name
from protocol.edxml.values import SPACE, content_id, date, line, moment, number, written_date, written_time
from protocol.edxml.wrapping import ZIP_TYPE
from protocol.edxml.writer import NOT_XML
from protocol.problems import Problem
from protocol.status import VIETNAMESE, State

MARK = "Lienthong (bản chuyển đổi)"
"""Department of the StaffInfo of a message that was converted to edXML."""
Business = Literal["new", "recall", "update", "replace"]
PRIORITIES: tuple[native.Priority, ...] = ("normal", "urgent", "very_urgent", "express", "express")
"""By edXML's number."""
BUSINESS: tuple[Business, ...] = ("new", "recall", "update", "replace")
"""By BussinessDocType."""
REASONS = ("Văn bản điện tử mới", "Thu hồi văn bản điện tử", "Cập nhật văn bản điện tử", "Văn bản thay thế")
"""What the axis's samples give as the reason when there is none."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Organs = Callable[[str], model.Organ | None]
"""What the directory knows of an agency, by its code."""
Resolver = Callable[[str], Iterable[str]]
"""The codes of the agencies that an address stands for."""


# -- edXML to native ----------------------------------------------------------------------------------


def to_native(
    message: model.Message, attachments: Sequence[native.Attachment] = (), message_id: str = ""
) -> native.Document:
    """`message` as a document, marked as converted. `attachments` are its files, as `native_attachment` has them.

    A status needs `message_id`; a document has its DocumentId unless one is given. An id of more than 128
    characters becomes `sha256:` and its digest. Raises `Problem` bad-edxml for a message that cannot be routed,
    and for a status that names no document, neither by id nor by symbol.
    """
    if fatal := [error for error in check(message) if error.fatal]:
        raise problem(fatal) or AssertionError
    header = message.header
    status = message.is_status
    sender = line(header.sender.organ_id) if header.sender else ""
    answers = [_reference(response) for response in header.response_for]
    if status and not any(answers):
        raise refusal((("N.MessageHeader.ResponseFor.DocumentId", "is missing, and so is Code"),))
    if status:
        to = [line(response.organ_id) for response in header.response_for if line(response.organ_id)]
        code = line(header.status_code).zfill(2)
        # A recall (13) goes from the document's own agency to its recipient; every other state goes back to it.
        if code == State.RECALL_ASKED:
            answers = [answer and msgspec.structs.replace(answer, agency=sender) for answer in answers]
    else:
        to = [line(organ.organ_id) for organ in header.to if line(organ.organ_id)]
    info = header.promulgation_info or model.PromulgationInfo()
    promulgation = native.Promulgation(place=_line(info.place, 500), date=date(info.promulgation_date))
    given = header.signer_info or model.SignerInfo()
    names = (_line(text, 500) for text in (given.full_name, given.position, given.competence))
    signer = native.Person(*names)
    other = header.other_info or model.OtherInfo()
    urgency = number(other.priority, 4)
    traces = message.trace.trace_header if message.trace else ()
    sent = header.timestamp if status else traces[0].timestamp if traces else None
    business, reason, concerns = _business(message)
    return native.Document(
        id=_id(message_id or line(header.document_id)),
        sender=sender,
        to=tuple(dict.fromkeys(to)),
        subject=_text(header.description if status else header.subject, 2000),
        kind="status" if status else "document",
        priority=PRIORITIES[urgency or 0],
        code=_line(_symbol(header.code), 50),
        type=_line(header.document_type.type_name if header.document_type else "", 100),
        promulgation=None if promulgation == native.Promulgation() else promulgation,
        signer=None if signer == native.Person() else signer,
        due=date(header.due_date),
        business=business,
        response_for=tuple(dict.fromkeys(answer for answer in answers if answer is not None)),
        status=code if status else None,
        attachments=tuple(attachments),
        content=_text(header.content, 1 << 20),
        secrecy=_line(other.secret, 40),
        concerns=concerns,
        reason=reason,
        at=moment(line(sent)),
        converted_from="edxml",
    )


def native_attachment(
    message: model.Message, index: int, size: int, sha256: str, unpacked: bool
) -> native.Attachment:
    """The attachment at `index` of `message`, which is `size` bytes with that digest, as a native one.

    `unpacked` says that these are the bytes inside the zip (`protocol.edxml.wrapping.unwrap`).
    """
    attachment = message.attachments[index]
    key = content_id(attachment.content_id)
    announced = [
        reference
        for reference in (message.manifest.reference if message.manifest else ())
        if content_id(reference.content_id or href(reference)) == key
    ]
    names = [attachment.attachment_name, *(reference.attachment_name for reference in announced)]
    name = safe_name(next(filter(None, map(line, names)), ""))
    declared = _line(attachment.content_type, 255)
    if unpacked or not declared:
        declared = media_type(name)
    return native.Attachment(name=name, size=size, sha256=sha256, media_type=declared)


def _line(text: str | None, limit: int) -> str:
    return _CONTROL.sub(" ", line(text))[:limit]


def _text(text: str | None, limit: int) -> str:
    stripped = (text or "").strip(SPACE)
    return "" if stripped == "null" else stripped[:limit]


def _id(text: str) -> str:
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= native.MAX_ID_LENGTH else "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _symbol(code: model.Code | None) -> str:
    return "/".join(filter(None, (line(code.code_number), line(code.code_notation)))) if code else ""


def _reference(response: model.ResponseFor) -> native.Reference | None:
    named = line(response.document_id) or line(response.code)
    if not named:
        return None
    organ = line(response.organ_id)
    return native.Reference(
        id=_id(named),
        agency=organ if is_code(organ) else None,
        code=_line(response.code, 500) or None,
        date=date(response.promulgation_date),
    )


def _business(message: model.Message) -> tuple[Business, str, tuple[native.Reference, ...]]:
    """What is done, why, and to which documents."""
    bussiness = message.trace.bussiness if message.trace else None
    kind = number(bussiness.bussiness_doc_type, 3) if bussiness else 0
    if bussiness is None or not kind or message.is_status:
        return "new", "", ()
    ids = [line(bussiness.document_id)]
    if bussiness.replacement_info_list:
        ids += (line(info.document_id) for info in bussiness.replacement_info_list.replacement_info)
    if not any(ids):  # a recall repeats the id of what it recalls as its own
        ids = [line(message.header.document_id)]
    reason = _line(bussiness.bussiness_doc_reason, 500)
    concerns = (native.Reference(id=_id(name)) for name in dict.fromkeys(filter(None, ids)))
    return BUSINESS[kind], "" if reason == REASONS[kind] else reason, tuple(concerns)


# -- native to edXML ----------------------------------------------------------------------------------


def from_native(
    document: native.Document, sent: datetime, organs: Organs, resolve: Resolver | None = None, origin: str = ""
) -> model.Message:
    """`document` as an edXML message, marked as converted from `origin`, a text that names the original.

    `sent` stands in where the document does not say when it was sent; it has a zone. `organs` tells what stands
    beside the codes of sender and recipients, `resolve` what groups and aliases stand for; without it every
    address must be a code. Each attachment is to be written as the zip that
    `protocol.edxml.wrapping.wrap(entry_name(attachment), …)` makes of it.

    Raises `Problem` recipient-unknown for an address that cannot be resolved. A character that XML cannot hold
    becomes U+FFFD.
    """
    to = list(dict.fromkeys(code for address in document.to for code in _resolved(address, resolve)))
    status = document.kind == "status"
    clerk = model.StaffInfo(department=MARK, staff=_xml(origin) or None)
    when = written_time(document.at or sent)
    number, _, notation = document.code.partition("/")
    if not number or not notation:
        number, notation = document.code, ""
    files = [_file(document, index) for index in range(len(document.attachments))]
    urgency = PRIORITIES.index(document.priority)
    header = model.MessageHeader(
        sender=_organ(document.sender, organs),
        to=() if status else tuple(_organ(code, organs) for code in to),
        document_id=None if status else _xml(document.id),
        code=model.Code(code_number=_xml(number), code_notation=_xml(notation) or None) if number else None,
        promulgation_info=_promulgation(document.promulgation) if document.promulgation else None,
        # Type 1 is what every checker that was seen lets pass; the kind of document is in its name.
        document_type=model.DocumentType(type="1", type_detail="0", type_name=_xml(document.type))
        if document.type
        else None,
        subject=None if status else _xml(document.subject),
        content=_xml(document.content) or None,
        signer_info=_signer(document.signer) if document.signer else None,
        due_date=written_date(document.due) if document.due else None,
        other_info=model.OtherInfo(priority=str(urgency), secret=_xml(document.secrecy) or None)
        if urgency or document.secrecy or not status
        else None,
        response_for=_answers(document, to) if status else tuple(_answer(item) for item in document.response_for),
        staff_info=clerk if status else None,
        status_code=document.status if status else None,
        description=(_xml(document.subject) or _label(document.status)) if status else None,
        timestamp=when if status else None,
    )
    trace = None
    if not status:
        own = model.TraceHeader(organ_id=document.sender, timestamp=when)
        trace = model.TraceHeaderList(trace_header=(own,), bussiness=_bussiness(document, clerk))
    return model.Message(
        header=header,
        trace=trace,
        manifest=model.Manifest(reference=tuple(reference for reference, _ in files)) if files else None,
        attachments=tuple(attachment for _, attachment in files),
    )


def entry_name(attachment: model.Attachment) -> str:
    """What the one entry of the zip is called that carries `attachment`: its content id and its extension."""
    _, dot, extension = line(attachment.attachment_name).rpartition(".")
    return f"{content_id(attachment.content_id)}.{extension if dot else 'bin'}"


def is_converted(message: model.Message) -> bool:
    """Whether `message` says that it was converted to edXML."""
    bussiness = message.trace.bussiness if message.trace else None
    clerks = [message.header.staff_info, bussiness.staff_info if bussiness else None]
    return any(clerk is not None and line(clerk.department) == MARK for clerk in clerks)


def _resolved(address: str, resolve: Resolver | None) -> Iterable[str]:
    if resolve is not None:
        return resolve(address)
    if is_code(address):
        return (address,)
    raise Problem("recipient-unknown", f"edXML has no address like {address}; name the agencies")


def _xml(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)


def _organ(code: str, organs: Organs) -> model.Organ:
    return msgspec.structs.replace(organs(code) or model.Organ(), organ_id=code)


def _promulgation(info: native.Promulgation) -> model.PromulgationInfo:
    issued = written_date(info.date) if info.date else None
    return model.PromulgationInfo(place=_xml(info.place) or None, promulgation_date=issued)


def _signer(signer: native.Person) -> model.SignerInfo:
    competence, position, name = (_xml(text) or None for text in (signer.competence, signer.position, signer.name))
    return model.SignerInfo(competence=competence, position=position, full_name=name)


def _label(status: str | None) -> str:
    return VIETNAMESE[State(status)] if status in frozenset(State) else ""


def _answer(reference: native.Reference, organ: str | None = None) -> model.ResponseFor:
    return model.ResponseFor(
        organ_id=organ or reference.agency,
        code=_xml(reference.code) if reference.code else None,
        document_id=_xml(reference.id),
        promulgation_date=written_date(reference.date) if reference.date else None,
    )


def _answers(document: native.Document, to: Sequence[str]) -> tuple[model.ResponseFor, ...]:
    """Of a status: each recipient with the documents that are its own, or with all where none is said to be."""
    answers = []
    for organ in to:
        own = [item for item in document.response_for if item.agency == organ]
        free = [item for item in document.response_for if item.agency not in to]
        answers += [_answer(item, organ) for item in own + free or document.response_for]
    return tuple(answers)


def _bussiness(document: native.Document, clerk: model.StaffInfo) -> model.Bussiness:
    kind = BUSINESS.index(document.business)
    replaced: tuple[model.ReplacementInfo, ...] = ()
    about = document.concerns
    if document.business == "replace":
        replaced = tuple(model.ReplacementInfo(document_id=_xml(reference.id)) for reference in about)
        about = ()
    return model.Bussiness(
        document_id=_xml(about[0].id) if about else None,
        bussiness_doc_type=str(kind),
        bussiness_doc_reason=_xml(document.reason) or REASONS[kind],
        paper="0",  # Decision 28/2018, article 5(3): what was sent electronically is not sent on paper
        replacement_info_list=model.ReplacementInfoList(replacement_info=replaced) if replaced else None,
        staff_info=clerk,
    )


def _file(document: native.Document, index: int) -> tuple[model.Reference, model.Attachment]:
    attachment = document.attachments[index]
    key = uuid5(NAMESPACE_URL, f"{document.sender}/{document.id}/{index}/{attachment.sha256}")
    name = _xml(safe_name(attachment.name))
    announced = model.Reference(
        content_id=f"cid:{key}", content_type=ZIP_TYPE, description=name, attachment_name=name
    )
    carried = model.Attachment(
        content_id=announced.content_id, attachment_name=name, description=name, content_type=ZIP_TYPE
    )
    return announced, carried
