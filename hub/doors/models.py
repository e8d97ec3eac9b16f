"""The types of the HTTP interface: what validates a request and what describes an answer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.evidence import Receipt
from protocol.message import Sha256

MAX_PAGE = 1000
MAX_WAIT_SECONDS = 60
MAX_ENTRIES = 10_000

LaneName = Literal["express", "urgent", "normal"]
FormatName = Literal["jws", "edxml", "receipt"]
MessageId = Annotated[
    str, Meta(min_length=1, max_length=512, description="The hub's id, or the sender's own id of what it sent")
]
CursorText = Annotated[
    str,
    Meta(
        pattern=r"^\d{1,18}\.\d{1,18}\.\d{1,18}$(?!\n)",
        description="A place in a mailbox: how far each lane was read (express.urgent.normal)",
    ),
]
Seq = Annotated[int, Meta(ge=1, le=(1 << 53) - 1, description="An entry's sequence in its mailbox")]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)")]


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


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry that the recipient does not take, and what its sender is told."""

    seq: Seq
    reason: Reason


class AckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done with: everything up to a cursor, single entries, refusals. One may hold all three."""

    up_to: CursorText | None = None
    entries: Annotated[tuple[Seq, ...], Meta(max_length=MAX_ENTRIES)] = ()
    refuse: Annotated[tuple[Refusal, ...], Meta(max_length=MAX_ENTRIES)] = ()


class Acked(msgspec.Struct, frozen=True):
    """How many deliveries this request ended; what had ended before does not count again."""

    acknowledged: int
    refused: int


class DeliveryState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the message is at one endpoint."""

    endpoint: str
    recipients: tuple[str, ...]
    state: Literal["waiting", "handed_over", "acknowledged", "refused", "expired"]
    at: str | None = None
    reason: str | None = None
    receipt: Receipt | None = None


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
    waiting_readers: int


class HubStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The hub at a glance. `endpoints` is there for operators and auditors only."""

    hub: str
    version: str
    now: str
    lanes: dict[str, LaneStatus]
    workers: tuple[WorkerStatus, ...]
    endpoints: tuple[EndpointStatus, ...] | None = None


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
