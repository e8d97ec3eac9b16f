"""The catalogue of errors: what the hub says when it says no (RFC 9457).

Every refusal that a peer can see is a `Problem`. Its `code` is stable and is what programs should
switch on; `title` is the same for every occurrence; `detail` speaks of this one occurrence and is
always safe to show a stranger (no SQL, no paths, no secrets). Two further members answer the two
questions an integrator asks at three in the morning:

`fault`      whose mistake it is: ``caller`` (change the request), ``hub`` (ask its operator),
             ``recipient`` (the other agency's system).
`retryable`  whether the very same request may succeed later.

`type` is ``/problems/<code>``, a reference relative to the hub, which serves the explanation there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

MEDIA_TYPE = "application/problem+json"


class LienthongError(Exception):
    """Root of every error that this project raises on purpose."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the catalogue."""

    code: str
    status: int
    title: str
    fault: str = "caller"
    retryable: bool = False


def _catalogue(*kinds: Kind) -> dict[str, Kind]:
    return {kind.code: kind for kind in kinds}


CATALOGUE = _catalogue(
    # The request as HTTP.
    Kind("bad-request", 400, "The request cannot be understood"),
    Kind("unauthenticated", 401, "No valid token or client certificate came with the request"),
    Kind("forbidden", 403, "This token may not do that"),
    Kind("not-found", 404, "There is no such thing here, or it is not yours to see"),
    Kind("method-not-allowed", 405, "This address does not answer that method"),
    Kind("timeout", 408, "The request did not arrive in time", retryable=True),
    Kind("too-large", 413, "The request is larger than this hub accepts"),
    Kind("unsupported-media-type", 415, "This address does not take that media type"),
    Kind("range-not-satisfiable", 416, "The range asked for lies outside the attachment"),
    Kind("too-many-requests", 429, "Too many requests from this endpoint", retryable=True),
    # The signature.
    Kind("not-a-jws", 400, "The body is not a compact JWS (RFC 7515)"),
    Kind("algorithm-not-allowed", 400, "The JWS names an algorithm that this hub does not accept"),
    Kind("unknown-key", 403, "The JWS names a key that is not registered"),
    Kind("key-not-yours", 403, "The key is registered for another agency or endpoint"),
    Kind("key-disabled", 403, "The key has been disabled"),
    Kind("key-expired", 403, "The key is outside the time for which it was registered"),
    Kind("certificate-required", 403, "The key has no certificate of an authority, which this hub requires"),
    Kind("certificate-untrusted", 403, "The key's certificate leads to no authority that this hub trusts"),
    Kind("certificate-expired", 403, "The key's certificate, or its authority's, is outside its time"),
    Kind("certificate-revoked", 403, "The key's certificate, or its authority's, has been revoked"),
    Kind(
        "revocation-unknown",
        503,
        "Whether the key's certificate was revoked is not known at present",
        fault="hub",
        retryable=True,
    ),
    Kind(
        "key-not-approved",
        503,
        "The key waits for the approval of this hub's operator",
        fault="hub",
        retryable=True,
    ),
    Kind("bad-signature", 403, "The signature does not match the message"),
    Kind("bad-manifest", 422, "The documents are not those that the manifest signs"),
    # The document.
    Kind("bad-document", 422, "The document's fields are not as they must be"),
    Kind("from-not-yours", 403, "The endpoint does not speak for the agency named in `from`"),
    Kind("id-conflict", 409, "Another message with this id was accepted from this endpoint before"),
    Kind("too-many-recipients", 422, "The message names more recipients than one message may have"),
    Kind("recipient-unknown", 422, "One or more recipients cannot be reached; nothing was sent"),
    Kind("attachment-missing", 422, "The message names attachments that have not been uploaded"),
    Kind("already-expired", 422, "The message had expired before it arrived"),
    Kind("not-addressed", 403, "The status speaks of a document that was not sent to the agency that reports"),
    Kind("not-the-sender", 403, "Only the agency that sent a document may recall or update it"),
    Kind("loop", 422, "The message has passed through this hub before"),
    Kind("state-secret", 403, "The document is marked as a state secret, which must not pass through this hub"),
    Kind("recalled", 410, "The message was recalled by its sender before it was handed over"),
    Kind("not-convertible", 422, "The message cannot be written in the form that was asked for"),
    Kind("bad-xml", 400, "The body is not XML that this hub accepts"),
    Kind("bad-edxml", 422, "The XML is not an edXML message that can be routed"),
    Kind("package-signature", 403, "The edXML message lacks the package signature that this endpoint's must have"),
    Kind("pdf-signature", 403, "A PDF among the attachments is not signed as this endpoint's must be"),
    # Attachments.
    Kind("digest-mismatch", 422, "The bytes do not have the SHA-256 that the address names"),
    # The stream.
    Kind("upgrade-required", 426, "This address answers a WebSocket handshake only"),
    Kind("stream-protocol", 400, "A frame does not follow the protocol of the stream"),
    # The mailbox.
    Kind("beyond-end", 409, "The mailbox has not handed out what was acknowledged"),
    Kind("bad-acknowledgement", 422, "What was signed is not what lies in the mailbox"),
    Kind("acknowledgement-not-signed", 403, "This endpoint's acknowledgements must be signed"),
    # The hub.
    Kind("overloaded", 503, "The hub has more work than it can queue", fault="hub", retryable=True),
    Kind("stopping", 503, "The hub is stopping; another process will answer", fault="hub", retryable=True),
    Kind("store-unavailable", 503, "The hub cannot reach its store", fault="hub", retryable=True),
    Kind("key-unavailable", 503, "The hub cannot use its signing key", fault="hub", retryable=True),
    Kind("internal", 500, "The hub failed to answer", fault="hub", retryable=True),
    # The client's own words (never sent by a hub).
    Kind("unreachable", 503, "The hub could not be reached", fault="hub", retryable=True),
)


class Problem(LienthongError):
    """A refusal that a peer may see.

    `code` must be in `CATALOGUE`. `detail` says in one sentence what is wrong here and what to do.
    `fields` names offending members as (JSON path, what is wrong). `extra` members are added as they
    are (for example ``recipients`` of `recipient-unknown`).
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        /,  # a peer's problem may have any members, `self` among them
        *,
        fields: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail or CATALOGUE[code].title)
        self.kind = CATALOGUE[code]
        self.detail = detail
        self.fields = fields
        self.retry_after = retry_after
        self.extra = extra

    @property
    def code(self) -> str:
        return self.kind.code

    @property
    def status(self) -> int:
        return self.kind.status

    @property
    def retryable(self) -> bool:
        return self.kind.retryable

    def members(self) -> dict[str, Any]:
        """The problem as the members of its JSON object."""
        kind = self.kind
        members: dict[str, Any] = {
            "type": f"/problems/{kind.code}",
            "title": kind.title,
            "status": kind.status,
            "code": kind.code,
            "fault": kind.fault,
            "retryable": kind.retryable,
        }
        if self.detail:
            members["detail"] = self.detail
        if self.fields:
            members["fields"] = [{"path": path, "reason": reason} for path, reason in self.fields]
        members.update(self.extra)
        return members

    def to_json(self) -> bytes:
        return orjson.dumps(self.members())


_BY_STATUS = {408: "timeout", 413: "too-large", 429: "too-many-requests"}
"""What a proxy before the hub answers, and passes."""


def from_members(members: dict[str, Any], status: int = 500) -> Problem:
    """Rebuild a problem from a peer's JSON object; an unknown code becomes `internal` or `bad-request`."""
    code = members.get("code")
    known = code if isinstance(code, str) and code in CATALOGUE else None
    detail = str(members.get("detail") or members.get("title") or "")
    if known is None:
        known = _BY_STATUS.get(status, "internal" if status >= 500 else "bad-request")
        detail = f"{code or status}: {detail}"
    listed = members.get("fields")
    fields = tuple(
        (str(field.get("path", "")), str(field.get("reason", "")))
        for field in (listed if isinstance(listed, list) else ())
        if isinstance(field, dict)
    )
    standard = {"type", "title", "status", "code", "fault", "retryable", "detail", "fields", "retry_after"}
    extra = {str(name): value for name, value in members.items() if name not in standard}
    later = members.get("retry_after")
    is_time = isinstance(later, int | float) and not isinstance(later, bool) and 0 <= later < float("inf")
    return Problem(known, detail, fields=fields, retry_after=later if is_time else None, **extra)
