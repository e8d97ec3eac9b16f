"""The types of answers about the hub itself: its health and status, its keys, its log, its problems."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.evidence import Receipt
from protocol.message import Sha256


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


class WitnessStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a witness of the transparency log does."""

    name: str
    size: Annotated[int | None, Meta(description="Events in the newest checkpoint that it signed")]
    lag_seconds: Annotated[float, Meta(description="For how long there has been one that it has not signed")]
    signed_at: str | None = None
    clock_seconds: Annotated[float, Meta(description="How far its clock was ahead of the hub's then")] = 0.0
    refused: Annotated[str, Meta(description="Why it says that the log was changed, while it does")] | None = None
    failures: Annotated[int, Meta(description="In a row; 0 while it signs")] = 0
    last_error_at: str | None = None
    last_error: Annotated[str, Meta(description="For operators and auditors only")] | None = None


class CertificateStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A certificate that somebody should look at: it ends soon, was revoked, or that is not known."""

    sha256: Sha256
    kind: Literal["anchor", "signer"]
    subject: str
    not_after: Annotated[str, Meta(description="When it, or one that it rests on, ends")]
    days: Annotated[int, Meta(description="Whole days until then; negative after it")]
    owner: Annotated[str, Meta(description="The endpoint or agency whose key it is")] = ""
    revocation: Literal["good", "revoked", "unknown"] | None = None
    reason: str = ""
    answered_at: Annotated[str, Meta(description="When its authority last said so")] | None = None
    failure: Annotated[str, Meta(description="Why it is not known")] = ""


class HubStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The hub at a glance. `endpoints`, `links` and `certificates` are there for operators and auditors only."""

    hub: str
    version: str
    now: str
    lanes: dict[str, LaneStatus]
    workers: tuple[WorkerStatus, ...]
    endpoints: tuple[EndpointStatus, ...] | None = None
    links: tuple[LinkStatus, ...] | None = None
    certificates: tuple[CertificateStatus, ...] | None = None
    witnesses: tuple[WitnessStatus, ...] | None = None
    log: LogGlance | None = None


class LogKey(msgspec.Struct, frozen=True):
    """A key that the transparency log is or was signed with."""

    vkey: Annotated[str, Meta(description="Verifier key: name+id+base64 (c2sp.org/signed-note)")]
    since: str


class LogStatus(msgspec.Struct, frozen=True):
    """The transparency log at a glance."""

    origin: Annotated[str, Meta(description="Its name, the first line of every checkpoint")]
    vkey: Annotated[str, Meta(description="The key that signs its checkpoints. Get it once, by a way you trust")]
    size: Annotated[int, Meta(description="Events that are in it")]
    checkpoint_at: Annotated[str | None, Meta(description="When the newest checkpoint was signed")]
    waiting: Annotated[int, Meta(description="Batches of events that wait for their place")]
    within_seconds: Annotated[
        float, Meta(description="The longest time until an event is in it, as seals promise")
    ]
    keys: Annotated[tuple[LogKey, ...], Meta(description="The present key, then those before it")]


class LogEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the store has of an entry of the transparency log."""

    index: int
    batch: Annotated[str, Meta(description="The batch in which it was sealed")]
    leaf: Annotated[int, Meta(description="Its place in that batch")]
    state: Annotated[
        Literal["kept", "missing", "dropped", "elsewhere"],
        Meta(
            description="`missing`: it should be there. `dropped`: by retention, with its month. `elsewhere`: of "
            "a delivery; the history of its message has it"
        ),
    ]
    event: Annotated[str, Meta(description="Its text")] | None = None
    receipt: Annotated[Receipt, Meta(description="Absent when what sealed it does not fit any more")] | None = None


class LogGlance(msgspec.Struct, frozen=True):
    """How the transparency log does."""

    entries: int
    checkpoint_at: Annotated[str | None, Meta(description="When the newest checkpoint was signed")]
    waiting: Annotated[int, Meta(description="Batches of events that wait for their place")]
    lag_seconds: Annotated[float, Meta(description="How long the oldest of them has waited")]


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
