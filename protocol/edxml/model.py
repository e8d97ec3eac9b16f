"""A whole edXML message: every element of QCVN 102:2016, documents and statuses alike, as the text it holds.

A part is named as its element is, in snake case (`OrganId` is `organ_id`), and its members stand in the order
in which the axis's Java SDK writes them. Texts are kept as they came: None is an element that is absent, `""`
one that is empty; `protocol.edxml.values` says what they mean. What a part has no member for is kept in its
`attributes` and `extras`, so that reading and writing again loses nothing.

The annexes of QCVN 102:2016 were not at hand. Elements and their order are those of messages captured on the
axis and of the SDKs that its members use; what the dialect before 2016 alone has is marked so.
"""

from __future__ import annotations

import msgspec

from protocol.edxml.values import line

Attributes = tuple[tuple[str, str], ...]
"""Names as Clark writes them, ``{namespace}local``, with their values."""


class Element(msgspec.Struct, frozen=True, omit_defaults=True):
    """An element of which this model knows nothing: its name as ``{namespace}local``, and what it holds.

    Blanks between elements are left out, as they carry nothing.
    """

    name: str
    attributes: Attributes = ()
    content: tuple[str | Element, ...] = ()


def _element_name(field: str) -> str:
    return "".join(word.capitalize() for word in field.split("_"))


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_element_name):
    """An element with members."""

    attributes: Attributes = ()
    extras: tuple[Element, ...] = ()
    """Elements that have no member, and repetitions of those that may stand but once."""


class Organ(Part, frozen=True):
    """An agency, as sender or recipient."""

    organ_id: str | None = None
    organization_in_charge: str | None = None
    """The superior body."""
    organ_name: str | None = None
    organ_add: str | None = None
    email: str | None = None
    telephone: str | None = None
    fax: str | None = None
    website: str | None = None


class Code(Part, frozen=True):
    """Số và ký hiệu: 215 and BC-UBND of 215/BC-UBND."""

    code_number: str | None = None
    code_notation: str | None = None


class PromulgationInfo(Part, frozen=True):
    """Where and when the document was issued."""

    place: str | None = None
    promulgation_date: str | None = None


class DocumentType(Part, frozen=True):
    """Loại văn bản. Builders disagree on what `type` counts; `type_name` is what to trust."""

    type: str | None = None
    type_detail: str | None = None
    type_name: str | None = None


class SignerInfo(Part, frozen=True):
    """Who signed the document itself."""

    competence: str | None = None
    position: str | None = None
    full_name: str | None = None


class Appendixes(Part, frozen=True):
    """Names of appendixes."""

    appendix: tuple[str, ...] = ()


class OtherInfo(Part, frozen=True):
    """Urgency (0 thường to 4 hỏa tốc hẹn giờ), spread, and numbers of copies and pages."""

    priority: str | None = None
    sphere_of_promulgation: str | None = None
    typer_notation: str | None = None
    promulgation_amount: str | None = None
    page_amount: str | None = None
    reply_fors: str | None = None
    direction: str | None = None
    reference_codes: str | None = None
    appendixes: Appendixes | None = None
    secret: str | None = None
    """Độ mật; before 2016 alone."""


class ResponseFor(Part, frozen=True):
    """A document that is answered. In a status: the agency that it goes to, and the document it speaks of."""

    organ_id: str | None = None
    code: str | None = None
    document_id: str | None = None
    promulgation_date: str | None = None


class ToPlaces(Part, frozen=True):
    """Nơi nhận: who else has the document, for information; not whom it is delivered to."""

    place: tuple[str, ...] = ()


class ResponseForTask(Part, frozen=True):
    """Tasks that the document answers."""

    task_code: tuple[str, ...] = ()


class StaffInfo(Part, frozen=True):
    """The clerk who handled it."""

    department: str | None = None
    staff: str | None = None
    email: str | None = None
    mobile: str | None = None


class MessageHeader(Part, frozen=True):
    """Of a document everything but the last four members; of a status `sender`, `response_for` and those four."""

    sender: Organ | None = msgspec.field(default=None, name="From")
    to: tuple[Organ, ...] = ()
    document_id: str | None = None
    code: Code | None = None
    promulgation_info: PromulgationInfo | None = None
    document_type: DocumentType | None = None
    subject: str | None = None
    content: str | None = None
    signer_info: SignerInfo | None = None
    due_date: str | None = None
    other_info: OtherInfo | None = None
    response_for: tuple[ResponseFor, ...] = ()
    steering_type: str | None = None
    """1 not steering, 2 steering, 3 a report on steering."""
    to_places: ToPlaces | None = None
    response_for_task: ResponseForTask | None = None
    application_type: str | None = None
    staff_info: StaffInfo | None = None
    status_code: str | None = None
    description: str | None = None
    timestamp: str | None = None


class TraceHeader(Part, frozen=True):
    """One system on the way, each appends its own. `id`, `version` and more may stand in `attributes`."""

    organ_id: str | None = None
    timestamp: str | None = None


class Receiver(Part, frozen=True):
    """A recipient that an update adds (`receiver_type` 1) or takes away (0)."""

    organ_id: str | None = None
    receiver_type: str | None = None


class ReceiverList(Part, frozen=True):
    receiver: tuple[Receiver, ...] = ()


class BussinessDocumentInfo(Part, frozen=True):
    """What an update changes: 1 in `document_info` for its fields, in `document_receiver` for its recipients."""

    document_info: str | None = None
    document_receiver: str | None = None
    receiver_list: ReceiverList | None = None


class OrganIdList(Part, frozen=True):
    organ_id: tuple[str, ...] = ()


class ReplacementInfo(Part, frozen=True):
    """A document that is replaced, and for whom."""

    document_id: str | None = None
    organ_id_list: OrganIdList | None = None


class ReplacementInfoList(Part, frozen=True):
    replacement_info: tuple[ReplacementInfo, ...] = ()


class Bussiness(Part, frozen=True):
    """What is done with the document: 0 new, 1 recall, 2 update, 3 replacement (spelled as on the axis)."""

    document_id: str | None = None
    bussiness_doc_type: str | None = None
    bussiness_doc_reason: str | None = None
    paper: str | None = None
    replacement_info_list: ReplacementInfoList | None = None
    bussiness_document_info: BussinessDocumentInfo | None = None
    staff_info: StaffInfo | None = None


class TraceHeaderList(Part, frozen=True):
    trace_header: tuple[TraceHeader, ...] = ()
    bussiness: Bussiness | None = None


class Error(Part, frozen=True):
    code: str | None = None
    description: str | None = None


class ErrorList(Part, frozen=True):
    """Faults that were found; the form is that of an implementation, no message with one was seen."""

    error: tuple[Error, ...] = ()


class Reference(Part, frozen=True):
    """An attachment as the manifest announces it."""

    content_id: str | None = None
    content_type: str | None = None
    description: str | None = None
    attachment_name: str | None = None


class Manifest(Part, frozen=True):
    attributes: Attributes = (("version", "1.0"),)
    reference: tuple[Reference, ...] = ()


class Attachment(Part, frozen=True):
    """An attachment but for its bytes, which are read and written beside the message."""

    content_id: str | None = None
    attachment_name: str | None = None
    description: str | None = None
    content_type: str | None = None
    format: str | None = None
    """The extension of its name; some builders write it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message, without the frame of envelope, header and body, and without its attachments' bytes."""

    header: MessageHeader
    trace: TraceHeaderList | None = None
    errors: ErrorList | None = None
    signatures: tuple[Element, ...] = ()
    """`Signature` below the header, in whichever namespace; `protocol.edxml.xmldsig` judges them, on the bytes."""
    manifest: Manifest | None = None
    attachments: tuple[Attachment, ...] = ()
    header_extras: tuple[Element, ...] = ()
    """What else stands in the header, such as .NET's empty `DigitalSignature`."""
    attachment_extras: tuple[Element, ...] = ()
    """What else stands beside the attachments."""
    extras: tuple[Element, ...] = ()
    """What else stands anywhere else."""

    @property
    def is_status(self) -> bool:
        """Whether it says what became of a document; an empty StatusCode beside recipients does not make it so."""
        header = self.header
        if header.status_code is None:
            return False
        addressed = any(line(organ.organ_id) or line(organ.organ_name) for organ in header.to)
        return bool(line(header.status_code)) or not addressed
