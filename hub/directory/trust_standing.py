"""What a key counts for, worked out beforehand, so that the hot path only compares two times.

From what the directory knows (certificates of keys, trust anchors, revocation) and the hub's policy comes, for
each certificate of a key, a `Standing`: what is accepted, what is refused and why, and what the sealed event will
say of the signer, in pieces of time. It is made when any of these change, never when a message comes.

Policy (docs/adr/0050):

* a revoked certificate is refused, whatever the policy;
* where revocation is not known, *soft* accepts and says so in the event, *hard* refuses until it is known again;
  *off* does not ask;
* a key without a certificate is accepted as long as it is registered, unless certificates are required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from protocol.certificate_revocation import Status
from protocol.evidence import timestamp

Revoking = Literal["soft", "hard", "off"]

ONLY_THE_CERTIFICATE = frozenset({"superseded", "affiliation_changed", "cessation_of_operation"})
"""Reasons of a revocation that say nothing against the key: another certificate of the same key goes on."""


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The hub's settings. `revocation` holds for anchors that have no policy of their own."""

    require_certificates: bool = False
    revocation: Revoking = "soft"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A certificate whose word is taken for who somebody is."""

    sha256: bytes
    revocation: Revoking | None
    not_before: datetime
    not_after: datetime
    subject: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class KeyCertificate:
    """A certificate in which a key came. `chain`: SHA-256 of its chain, itself first; empty without one.

    `not_before` and `not_after` bound the time in which all certificates of the chain are valid.
    """

    kid: str
    sha256: bytes
    chained: bool
    chain: tuple[bytes, ...]
    not_before: datetime
    not_after: datetime
    subject: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is known of one certificate (protocol.certificate_revocation.RevocationStatus, as stored)."""

    certificate: bytes
    status: Status
    reason: str = ""
    revoked_at: datetime | None = None
    answer: bytes | None = None
    answered_at: datetime | None = None
    fresh_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a signature counts for until `until` (None: for ever); `later` from then on.

    `signer` is the JSON of the event's member `signer`; `refusal` the code and detail of the Problem instead.
    """

    signer: str
    refusal: tuple[str, str] | None = None
    until: datetime | None = None
    later: Standing | None = None

    def at(self, now: datetime) -> Standing:
        """The piece that holds at `now`."""
        found = self
        while found.until is not None and now >= found.until and found.later is not None:
            found = found.later
        return found


def plain(kid: str, policy: TrustPolicy) -> Standing:
    """Of a key without a certificate."""
    signer = orjson.dumps({"kid": kid}).decode()
    if policy.require_certificates:
        return Standing(signer, ("certificate-required", f"the key {kid} is registered without a certificate"))
    return Standing(signer)


def certified(
    certificate: KeyCertificate,
    anchors: Mapping[bytes, Anchor],
    revocations: Mapping[bytes, Revocation],
    policy: TrustPolicy,
) -> Standing:
    """Of a key, by one of its certificates."""
    members: dict[str, object] = {"kid": certificate.kid, "certificate": certificate.sha256.hex()}
    subject = certificate.subject
    if not certificate.chained:
        if policy.require_certificates:
            detail = f"the certificate of {subject} leads to no authority that this hub trusts"
            return Standing(_json(members), ("certificate-required", detail))
        return _in_its_time(certificate, Standing(_json(members)))
    anchor = anchors.get(certificate.chain[-1]) if certificate.chain else None
    if anchor is None or not anchor.active:
        detail = f"the certificate of {subject} no longer leads to an authority that this hub trusts"
        return Standing(_json(members), ("certificate-untrusted", detail))
    revoking = anchor.revocation or policy.revocation
    known = [revocations.get(one) for one in certificate.chain[:-1]]
    if revoking == "off":
        members["revocation"] = {"status": "unchecked", "policy": "off"}
        return _in_its_time(certificate, Standing(_json(members)))
    for one in known:
        if one is not None and one.status is Status.REVOKED:
            return Standing(_json(members), ("certificate-revoked", _revoked(one, certificate)))
    return _in_its_time(certificate, _by_revocation(certificate, known, revoking, members))


def _by_revocation(
    certificate: KeyCertificate,
    known: list[Revocation | None],
    revoking: Revoking,
    members: dict[str, object],
) -> Standing:
    answered = [one for one in known if one is not None and one.answer is not None]
    said: dict[str, object] = {"policy": revoking}
    if answered:
        said["answered_at"] = timestamp(min(one.answered_at for one in answered if one.answered_at is not None))
        said["answers"] = [one.answer.hex() for one in answered if one.answer is not None]
    unknown = Standing(_json(members | {"revocation": {"status": "unknown"} | said}))
    if revoking == "hard":
        age = f"; the last answer is of {said['answered_at']}" if answered else ""
        unknown = Standing(
            unknown.signer,
            (
                "revocation-unknown",
                f"whether the certificate of {certificate.subject} was revoked is not known at present{age}",
            ),
        )
    fresh = [one.fresh_until for one in answered if one.status is Status.GOOD and one.fresh_until is not None]
    if len(fresh) < len(known):
        return unknown
    return Standing(_json(members | {"revocation": {"status": "good"} | said}), until=min(fresh), later=unknown)


def _in_its_time(certificate: KeyCertificate, standing: Standing) -> Standing:
    """`standing`, between the beginning and the end of a certificate's chain."""
    subject = certificate.subject
    early = f"the certificate of {subject} is valid from {certificate.not_before:%Y-%m-%dT%H:%MZ} on"
    late = f"the certificate of {subject} (or its authority's) expired at {certificate.not_after:%Y-%m-%dT%H:%MZ}"
    end = Standing(standing.signer, ("certificate-expired", late))
    return Standing(
        standing.signer,
        ("certificate-expired", early),
        certificate.not_before,
        _until(standing, certificate.not_after, end),
    )


def _until(standing: Standing, moment: datetime, then: Standing) -> Standing:
    """`standing` until `moment`, and `then` for ever."""
    if standing.until is None or standing.until >= moment or standing.later is None:
        return Standing(standing.signer, standing.refusal, moment, then)
    return Standing(standing.signer, standing.refusal, standing.until, _until(standing.later, moment, then))


def _revoked(one: Revocation, certificate: KeyCertificate) -> str:
    whose = "the certificate" if one.certificate == certificate.sha256 else "an authority behind the certificate"
    when = "" if one.revoked_at is None else f" at {one.revoked_at:%Y-%m-%dT%H:%M:%SZ}"
    return (
        f"{whose} of {certificate.subject} was revoked{when} ({one.reason or 'unspecified'}); nothing signed with "
        "it is accepted any more, whenever it was signed: the date in a document is the signer's own claim"
    )


def ends_the_key(certificate: KeyCertificate, revocations: Mapping[bytes, Revocation]) -> bool:
    """Whether its revocation speaks against the key, and so against every certificate of that key."""
    own = revocations.get(certificate.sha256)
    return own is not None and own.status is Status.REVOKED and own.reason not in ONLY_THE_CERTIFICATE


def _json(members: dict[str, object]) -> str:
    return orjson.dumps(members).decode()
