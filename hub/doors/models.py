"""The types of the HTTP interface: what validates a request and what describes an answer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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


class DeliveryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the message is at one endpoint."""

    endpoint: str
    recipients: tuple[str, ...]
    state: Literal["waiting", "handed_over", "acknowledged", "refused", "expired", "recalled"]
    at: str | None = None
    reason: str | None = None
    receipt: Receipt | None = None


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


class Health(msgspec.Struct, frozen=True):
    """Whether the process lives, or can serve; `checks` says what was looked at."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


class LaneStatus(msgspec.Struct, frozen=True):
    waiting: Annotated[int, Meta(description="Deliveries not yet ended")]
    oldest_seconds: Annotated[float, Meta(description="Age of the oldest of them; 0 when there is none")]


class EndpointStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    active: bool
    waiting: int
    oldest_seconds: float
    seen_at: str | None = None
    rate_messages: (
        Annotated[float, Meta(description="Messages a second that it may submit, when it has a limit of its own")]
        | None
    ) = None
    rate_bytes: Annotated[float, Meta(description="The same of bytes")] | None = None


class WorkerStatus(msgspec.Struct, frozen=True):
    """One hub process, over its last few seconds."""

    id: str
    pid: int
    started_at: str
    reported_at: str
    accepted_per_second: float
    ended_per_second: float
    commit_batch_mean: Annotated[float, Meta(description="Messages and rejections in a commit")]
    commit_queue: int
    queue_bytes: int
    loop_lag_ms: Annotated[float, Meta(description="Longest lateness of the event loop")]
    waiting_readers: Annotated[int, Meta(description="Long polls under way")]
    streams: Annotated[int, Meta(description="Streams that receive")] = 0
    refused: Annotated[
        dict[str, int], Meta(description="Requests not let in since it started, by what they would have exceeded")
    ] = {}


class LinkStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a link to another hub or the axis does."""

    name: str
    active: bool
    waiting: Annotated[int, Meta(description="Messages that are to go there and have not")]
    oldest_seconds: float
    sent: int
    fetched: int
    refused_there: Annotated[
        int, Meta(description="Messages that the peer will not have; their senders were told")
    ]
    refused_here: int
    failures: Annotated[int, Meta(description="In a row; 0 while it works")] = 0
    last_success_at: str | None = None
    last_error_at: str | None = None
    last_error: str | None = None
    retry_at: Annotated[str, Meta(description="When it goes on after failures")] | None = None
    synced_at: Annotated[str, Meta(description="When the peer's agencies were last fetched")] | None = None


class HubStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The hub at a glance. `endpoints` and `links` are there for operators and auditors only."""

    hub: str
    version: str
    now: str
    lanes: dict[str, LaneStatus]
    workers: tuple[WorkerStatus, ...]
    endpoints: tuple[EndpointStatus, ...] | None = None
    links: tuple[LinkStatus, ...] | None = None


class ProblemKind(msgspec.Struct, frozen=True):
    """One entry of the catalogue of problems."""

    code: str
    status: int
    title: str
    fault: str
    retryable: bool


class KeySet(msgspec.Struct, frozen=True):
    """The hub's public keys (RFC 7517): what receipts are verified with."""

    keys: tuple[dict[str, str], ...]
