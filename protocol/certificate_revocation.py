"""Whether a certificate was revoked: lists (CRL, RFC 5280) and answers (OCSP, RFC 6960), read and judged.

Pure: answers come in as bytes and are judged for a moment that the caller names, so that the hub today and whoever
verifies a proof years later come to the same result from the same bytes.

An answer counts if it speaks of this very certificate, was signed by its issuer or (OCSP) by a responder to whom
the issuer gave a certificate for that purpose, with SHA-256 or better, and was made before the moment. Of those

* one that says *revoked* wins, however old it is: a revocation is not taken back (a certificate on hold, which the
  issuer may release, counts as revoked until an answer of a later date says good);
* *good* counts while the answer is fresh: until its `nextUpdate`, or for a day when it has none;
* otherwise nothing is known: *unknown*, with the newest answer that once was fresh, if there is one.

A responder's own certificate is not looked up in turn, as RFC 6960 (4.2.2.2.1) leaves to us. Lists that are
partial (deltas, indirect lists, some reasons only) are not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from protocol.certificate import Chain, Given, is_issued_by, load, sha256
from protocol.problems import LienthongError

SKEW = timedelta(minutes=5)
"""How far an authority's clock may be ahead of ours."""
WITHOUT_NEXT_UPDATE = timedelta(days=1)
"""How long an answer without `nextUpdate` counts."""
_STRONG = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class Status(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class AnswerKind(StrEnum):
    CRL = "crl"
    OCSP = "ocsp"


class AnswerError(LienthongError):
    """An answer that says nothing of the certificate; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authority said: the DER of a CRL or of an OCSP response; when it was fetched, if known."""

    kind: AnswerKind
    der: bytes
    fetched_at: datetime | None = None

    @property
    def sha256(self) -> bytes:
        """The digest under which the hub and its evidence know an answer."""
        return hashlib.sha256(self.der).digest()


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """What is known of a certificate at a moment. Times are UTC.

    `answer` is what says so, `answered_at` its `thisUpdate`: its age at a moment is what lies between. After
    `fresh_until` it no longer says *good*. `notes` tell why other answers were not used.
    """

    status: Status
    answer: Answer | None = None
    answered_at: datetime | None = None
    fresh_until: datetime | None = None
    revoked_at: datetime | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def check_revocation(
    certificate: Given, issuer: Given, answers: Iterable[Answer], at: datetime
) -> RevocationStatus:
    """What `answers` say of `certificate`, issued by `issuer`, at `at` (aware).

    Never raises on what an answer holds: one that cannot be used is told of in `notes`.
    """
    subject, by = load(certificate), load(issuer)
    found: list[RevocationStatus] = []
    notes: list[str] = []
    for answer in answers:
        try:
            found.append(_read(answer, subject, by, at))
        except AnswerError as error:
            notes.append(f"{answer.kind}: {error}")
    found.sort(key=lambda one: one.answered_at or datetime.min.replace(tzinfo=UTC))
    revoked = [one for one in found if one.status is Status.REVOKED]
    good = [one for one in found if one.status is Status.GOOD]
    if revoked and not (revoked[-1].reason == "certificate_hold" and good and good[-1] is found[-1]):
        best = min(revoked, key=lambda one: one.revoked_at or at)
    elif good and good[-1].fresh_until is not None and at <= good[-1].fresh_until:
        best = good[-1]
    elif found:
        best = replace(found[-1], status=Status.UNKNOWN)
        notes.append(f"the newest answer counted until {best.fresh_until:%Y-%m-%dT%H:%M:%SZ}")
    else:
        best = RevocationStatus(Status.UNKNOWN)
        notes = notes or ["there is no answer"]
    return replace(best, notes=tuple(notes))


def check_chain(chain: Chain, answers: Iterable[Answer], at: datetime) -> tuple[RevocationStatus, ...]:
    """The same for each certificate of a chain but its anchor, the signer's first. All answers together."""
    answers = list(answers)
    return tuple(check_revocation(one, issuer, answers, at) for one, issuer in chain.issued)


def overall(statuses: Iterable[RevocationStatus]) -> Status:
    """The worst of a chain: *revoked*, else *unknown*, else *good*."""
    present = {one.status for one in statuses}
    return next((status for status in (Status.REVOKED, Status.UNKNOWN) if status in present), Status.GOOD)


def _read(
    answer: Answer, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
) -> RevocationStatus:
    try:
        if answer.kind is AnswerKind.CRL:
            return _read_crl(answer, certificate, issuer, at)
        return _read_ocsp(answer, certificate, issuer, at)
    except AnswerError:
        raise
    except Exception as error:  # for bytes that are none the library has many exceptions, of no common root
        raise AnswerError(f"it cannot be read: {error}") from None


def _judged(
    answer: Answer,
    at: datetime,
    this_update: datetime,
    next_update: datetime | None,
    revoked_at: datetime | None,
    reason: x509.ReasonFlags | None,
) -> RevocationStatus:
    if this_update > at + SKEW:
        raise AnswerError(f"it was made at {this_update:%Y-%m-%dT%H:%M:%SZ}, after the moment in question")
    fresh_until = this_update + WITHOUT_NEXT_UPDATE if next_update is None else next_update
    if fresh_until < this_update:
        raise AnswerError("its nextUpdate lies before its thisUpdate")
    if revoked_at is None or revoked_at > at + SKEW:
        return RevocationStatus(Status.GOOD, answer, this_update, fresh_until)
    word = (reason or x509.ReasonFlags.unspecified).name
    return RevocationStatus(Status.REVOKED, answer, this_update, fresh_until, revoked_at, word)


# -- lists ----------------------------------------------------------------------------------------


def _read_crl(
    answer: Answer, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
) -> RevocationStatus:
    crl = x509.load_der_x509_crl(answer.der)
    if crl.issuer != certificate.issuer or crl.issuer != issuer.subject:
        raise AnswerError("it is another authority's")
    _require_strong(crl.signature_hash_algorithm, issuer.public_key())
    if not _may_sign_lists(issuer) or not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
        raise AnswerError("it was not signed by the certificate's issuer")
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.IssuingDistributionPoint):
            _require_covers(value, certificate)
        elif isinstance(value, x509.DeltaCRLIndicator) or extension.critical:
            raise AnswerError("it is a partial list")
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    reason = None
    if entry is not None:
        for extension in entry.extensions:
            if isinstance(extension.value, x509.CRLReason):
                reason = extension.value.reason
            elif extension.critical and not isinstance(extension.value, x509.InvalidityDate):
                raise AnswerError("its entries cannot all be read")
    revoked_at = None if entry is None else entry.revocation_date_utc
    return _judged(answer, at, crl.last_update_utc, crl.next_update_utc, revoked_at, reason)


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _require_covers(point: x509.IssuingDistributionPoint, certificate: x509.Certificate) -> None:
    """Raise AnswerError unless the list holds all revocations of certificates like this one (RFC 5280, 5.2.5)."""
    if point.indirect_crl or point.only_some_reasons or point.only_contains_attribute_certs:
        raise AnswerError("it is a partial list")
    try:
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if (authority and point.only_contains_user_certs) or (not authority and point.only_contains_ca_certs):
        raise AnswerError("it is a list of other certificates")
    if point.full_name and not set(_names(point.full_name)) & set(crl_urls(certificate)):
        raise AnswerError("it is the list of another distribution point")
    if point.relative_name is not None:
        raise AnswerError("it is the list of another distribution point")


# -- answers --------------------------------------------------------------------------------------


def _read_ocsp(
    answer: Answer, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
) -> RevocationStatus:
    response = ocsp.load_der_ocsp_response(answer.der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise AnswerError(f"the responder did not answer: {response.response_status.name.lower()}")
    if any(extension.critical for extension in response.extensions):
        raise AnswerError("it has a critical extension that is not known here")
    single = next(
        (one for one in response.responses if _is_about(one, certificate, issuer)),
        None,
    )
    if single is None:
        raise AnswerError("it speaks of another certificate")
    _require_responder(response, issuer, at)
    if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise AnswerError("the responder does not know the certificate")
    revoked_at = None
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        revoked_at = single.revocation_time_utc or single.this_update_utc
    return _judged(
        answer, at, single.this_update_utc, single.next_update_utc, revoked_at, single.revocation_reason
    )


def _is_about(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != certificate.serial_number:
        return False
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (single.issuer_name_hash, single.issuer_key_hash) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _require_responder(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: datetime) -> None:
    """Raise AnswerError unless the issuer, or a responder of its choice, signed the answer (RFC 6960, 4.2.2.2)."""
    if _signed(response, issuer):
        return
    for candidate in response.certificates:
        if not _signed(response, candidate):
            continue
        if sha256(candidate) == sha256(issuer):
            return
        if not is_issued_by(candidate, issuer):
            raise AnswerError("it was signed by somebody to whom the certificate's issuer gave no leave")
        try:
            purposes = candidate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
        if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
            raise AnswerError("it was signed with a certificate that is not for answering (no OCSPSigning)")
        made = response.produced_at_utc
        if not candidate.not_valid_before_utc <= made <= candidate.not_valid_after_utc:
            raise AnswerError("the responder's certificate was not valid when it answered")
        return
    raise AnswerError("its signature is not of the certificate's issuer, nor of a responder of its choice")


def _signed(response: ocsp.OCSPResponse, by: x509.Certificate) -> bool:
    key, data, signature = by.public_key(), response.tbs_response_bytes, response.signature
    try:
        algorithm = response.signature_hash_algorithm
        _require_strong(algorithm, key)
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, data, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, data, padding.PKCS1v15(), algorithm)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _require_strong(algorithm: hashes.HashAlgorithm | None, key: object) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return
    if not isinstance(algorithm, _STRONG):
        raise AnswerError(f"it is signed with {algorithm.name if algorithm else 'no digest'}, which is too weak")


# -- asking ---------------------------------------------------------------------------------------


def ocsp_request(certificate: Given, issuer: Given) -> bytes:
    """The DER of a question about `certificate`. Without a nonce, so that responders may answer from a store."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(load(certificate), load(issuer), hashes.SHA1())  # noqa: S303
    return builder.build().public_bytes(Encoding.DER)


def ocsp_urls(certificate: Given) -> tuple[str, ...]:
    """Where its issuer says to ask about it (authority information access)."""
    try:
        found = load(certificate).extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return ()
    places = [one.access_location for one in found if one.access_method == AuthorityInformationAccessOID.OCSP]
    return tuple(_names(places))


def crl_urls(certificate: Given) -> tuple[str, ...]:
    """Where its issuer says the list is (CRL distribution points)."""
    try:
        found = load(certificate).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        url
        for point in found
        if not point.reasons and not point.crl_issuer
        for url in _names(point.full_name or [])
    )


def _names(places: Iterable[x509.GeneralName]) -> Iterable[str]:
    return [place.value for place in places if isinstance(place, x509.UniformResourceIdentifier)]
