"""The types of the HTTP interface: what validates a request and what describes an answer.

Those of answers about the hub itself are in `status_models`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hub.pdf.result import PdfResult
from protocol.acknowledgement import SignedAcknowledgement
from protocol.evidence import Receipt
from protocol.message import Document, Sha256
from protocol.stream import MAX_ACKS, CursorText, Refusal, Seq

MAX_PAGE = 1000
MAX_WAIT_SECONDS = 60

LaneName = Literal["express", "urgent", "normal"]
FormatName = Literal["jws", "edxml", "receipt", "manifest"]
KindName = Literal["document", "status", "notice"]
BusinessName = Literal["new", "recall", "update", "replace"]
MessageId = Annotated[
    str, Meta(min_length=1, max_length=512, description="The hub's id, or the sender's own id of what it sent")
]


class Unreachable(msgspec.Struct, frozen=True):
    """A recipient that gets nothing, and why."""

    recipient: str
    reason: str


class Submitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The hub has the message: it is on disk, and the receipt proves it."""

    id: Annotated[str, Meta(description="The hub's id of the message (a UUID)")]
    state: Literal["accepted", "duplicate"]
    receipt: Receipt
    unreachable: tuple[Unreachable, ...] = ()
    status: Annotated[int, Meta(description="In the answer to a batch: 202 or 200")] | None = None


class MailboxQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to read a mailbox."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Entries in a page")] = 100
    wait: Annotated[
        float, Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for mail when there is none")
    ] = 0
    after: CursorText = "0.0.0"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """One message in a mailbox."""

    seq: Seq
    lane: LaneName
    id: str
    sender_id: str
    sender: str
    to: Annotated[tuple[str, ...], Meta(description="The agencies of this endpoint that it is addressed to")]
    format: FormatName
    media_type: str
    size: int
    sha256: Sha256
    accepted_at: str
    expires: str | None = None
    jws: Annotated[str, Meta(description="The message, when it is a JWS of at most 64 KiB")] | None = None
    entry: Annotated[str, Meta(description="The message, when it is an entry of a manifest")] | None = None
    edxml: Annotated[str, Meta(description="The message, when it is edXML in UTF-8")] | None = None
    receipt: Annotated[Receipt, Meta(description="The event, when the message is a notice of the hub")] | None = (
        None
    )
    duplicate_of: Annotated[
        tuple[str, ...],
        Meta(description="Documents of yours that it repeats: the same id, or number and symbol, of one agency"),
    ] = ()
    hops: Annotated[
        tuple[str, ...], Meta(description="For hubs that are linked: through which hubs it came (RFC 7638)")
    ] = ()


class MailboxPage(msgspec.Struct, frozen=True):
    """Entries in the order in which to handle them."""

    entries: tuple[Entry, ...]
    cursor: Annotated[
        CursorText,
        Meta(description="Give it as `up_to` to acknowledge the page, as `after` to read on before that"),
    ]
    more: Annotated[bool, Meta(description="Whether more was waiting")]


class AckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done with: everything up to a cursor, single entries, refusals. One may hold all three."""

    up_to: CursorText | None = None
    entries: Annotated[tuple[Seq, ...], Meta(max_length=MAX_ACKS)] = ()
    refuse: Annotated[tuple[Refusal, ...], Meta(max_length=MAX_ACKS)] = ()


class Acked(msgspec.Struct, frozen=True):
    """How many deliveries this request ended; what had ended before does not count again."""

    acknowledged: int
    refused: int


Standard = Annotated[tuple[str, ...], Meta(description="The events of ETSI EN 319 522-1 that it is")]
ReasonCode = Annotated[str, Meta(description="Why, of a closed list (docs/events.md)")]


class HandOver(msgspec.Struct, frozen=True, omit_defaults=True):
    """The message's bytes were given to the recipient's system by then."""

    at: str
    receipt: Receipt | None = None
    standard: Standard = ()


class DeliveryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the message is at one endpoint."""

    endpoint: str
    recipients: tuple[str, ...]
    state: Literal["waiting", "handed_over", "acknowledged", "refused", "expired", "recalled"]
    at: Annotated[str, Meta(description="Since when; absent while the event is not sealed")] | None = None
    code: ReasonCode | None = None
    reason: str | None = None
    receipt: Receipt | None = None
    standard: Standard = ()
    handed_over: HandOver | None = None
    acknowledgement: (
        Annotated[SignedAcknowledgement, Meta(description="What the recipient signed, where it did")] | None
    ) = None


class CheckedAttachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attachment whose signatures were looked at."""

    name: str
    sha256: Sha256
    size: int


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event, and the proof of it."""

    event: Annotated[str, Meta(description="Its kind (docs/events.md)")]
    at: str
    receipt: Receipt | None = None
    standard: Standard = ()
    endpoint: Annotated[str, Meta(description="Whose delivery it is about; absent: the message as a whole")] = ""
    recipients: tuple[str, ...] = ()
    code: ReasonCode | None = None
    reason: str | None = None
    acknowledgement: SignedAcknowledgement | None = None
    attachment: CheckedAttachment | None = None
    pdf: Annotated[PdfResult, Meta(description="Of `signatures_checked`: what was found")] | None = None


StateCode = Annotated[str, Meta(pattern=r"^[0-9]{2}$(?!\n)", description="A business state: 01 to 06, 13, 15, 16")]


class StateReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One report of a state. All are kept, in the order of the states."""

    code: str
    received_at: Annotated[str, Meta(description="When it came to the hub")]
    message: Annotated[str, Meta(description="The hub's id of the message that says it")]
    label: str = ""
    at: Annotated[str, Meta(description="When, by the clock of who says it")] | None = None
    note: (
        Annotated[
            Literal["repeated", "late", "unknown"],
            Meta(description="Reported before; came after a state that follows it; no state that is known"),
        ]
        | None
    ) = None


class AgencyStates(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the document stands with one of the agencies that it went to, by what they reported."""

    agency: str
    reports: tuple[StateReport, ...]
    current: StateCode | None = None
    label: str = ""
    handling: Annotated[str, Meta(description="The furthest of 01 to 06")] | None = None
    change: Annotated[str, Meta(description="13, 15 or 16: asked back, agreed, refused")] | None = None
    overdue: Annotated[bool, Meta(description="Neither finished nor refused on the day when it was due")] = False


RelationName = Literal["state", "answer", "recall", "update", "replacement"]


class SpeaksOf(msgspec.Struct, frozen=True, omit_defaults=True, rename={"agency": "from"}):
    """A document of which the message speaks."""

    id: Annotated[str, Meta(description="The name that its parties have for it")]
    relation: RelationName
    reference: Annotated[Literal["known", "unknown"], Meta(description="Whether this hub relayed that document")]
    agency: str = ""
    status: str = ""
    message: Annotated[str, Meta(description="The hub's id of that document")] | None = None


class Times(msgspec.Struct, frozen=True, omit_defaults=True):
    """When it was issued, sent and due. Dates are Vietnam's."""

    issued: str | None = None
    sent_at: Annotated[str, Meta(description="By the sender's own clock")] | None = None
    send_by: Annotated[str, Meta(description="Noon of the working day after it was issued")] | None = None
    late: Annotated[bool, Meta(description="Whether the hub got it after that")] = False
    due: str | None = None
    overdue: Annotated[bool, Meta(description="Whether the day it was due has passed")] = False


class PackageSignature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A signature (XMLDSig) in an edXML message, as the hub found it when the message came."""

    status: Annotated[
        Literal["valid", "invalid", "dummy", "unsupported"],
        Meta(description="`dummy`: nothing that could be verified; `unsupported`: it may be right, or not"),
    ]
    place: Annotated[int, Meta(description="Among the message's signatures, from 0")] = 0
    reason: str = ""
    subject: Annotated[str, Meta(description="Of its certificate; says nothing unless `valid`")] = ""
    fingerprint: Annotated[str, Meta(description="SHA-256 of its certificate, in hex")] = ""
    whole: Annotated[bool, Meta(description="Whether it covers the whole message")] = False
    weak: Annotated[bool, Meta(description="Whether it rests on SHA-1, or an RSA key below 2,048 bits")] = False


class Timeline(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """What happened to a message."""

    id: str
    sender_id: str
    sender: str
    format: FormatName
    lane: LaneName
    size: int
    sha256: Sha256
    accepted_at: str
    accepted: Receipt
    deliveries: tuple[DeliveryState, ...]
    expires: str | None = None
    kind: KindName = "document"
    business: BusinessName = "new"
    times: Times | None = None
    states: tuple[AgencyStates, ...] = ()
    speaks_of: tuple[SpeaksOf, ...] = ()
    package_signatures: tuple[PackageSignature, ...] = ()
    events: Annotated[tuple[EventView, ...], Meta(description="All of them, in their order")] = ()


class GivenDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as a document, whatever it was written in."""

    id: str
    format: Annotated[FormatName, Meta(description="What it was written in; GET /v1/messages/{id} gives that")]
    converted: Annotated[bool, Meta(description="Whether `document` was made out of another format")]
    document: Document
    duplicate_of: Annotated[
        tuple[str, ...],
        Meta(description="Documents of the same agency that came before, with the same id or number and symbol"),
    ] = ()


class ThreadMessage(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """One message of a thread."""

    id: str
    sender_id: str
    sender: str
    kind: KindName
    accepted_at: str
    business: BusinessName = "new"
    subject: str = ""
    code: str = ""
    type: str = ""
    issued: str | None = None
    due: str | None = None
    speaks_of: tuple[SpeaksOf, ...] = ()
    duplicate_of: tuple[str, ...] = ()
    recalled: Annotated[bool, Meta(description="Recalled before the one who asks was given it")] = False


class ThreadView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Messages that belong together, in the order in which they came; of those, what the caller sent or got."""

    messages: tuple[ThreadMessage, ...]
    more: Annotated[bool, Meta(description="There are others, which are left out here")] = False


class Uploaded(msgspec.Struct, frozen=True):
    """The attachment is on disk."""

    sha256: Sha256
    size: int
