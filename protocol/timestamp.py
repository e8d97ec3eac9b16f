"""Time-stamps of an outside authority (RFC 3161): asking for one, and verifying it years later without a network.

A time-stamp *token* is a signed statement of an authority that it has seen a digest at a certain time. It
holds the authority's certificate, so that a trusted root is all that is needed to verify it. The chain has to
hold at the time that the token names, not today: a certificate that has ended since does no harm (RFC 3161,
section 4).

Signatures and chains are checked by OpenSSL through `rfc3161-client`, as sigstore's clients do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from asn1crypto import cms, tsp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.x509.oid import NameOID
from rfc3161_client import (
    Accuracy,
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    TimeStampTokenInfo,
    VerifierBuilder,
    decode_timestamp_response,
)

from protocol.problems import LienthongError

REQUEST_MEDIA_TYPE = "application/timestamp-query"
REPLY_MEDIA_TYPE = "application/timestamp-reply"
MAX_TOKEN_BYTES = 64 << 10
"""A token with its certificates has 1 to 10 KB."""
_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_GRANTED = bytes.fromhex("3003020100")
"""PKIStatusInfo with the status `granted`."""
_REASONS = {2: "it rejects the request", 3: "it wants to be asked again later"}


class TimestampError(LienthongError):
    """A time-stamp that proves nothing; the message says at which step it fails."""


@dataclass(frozen=True, slots=True)
class TimeStamp:
    """What a token was found to prove: that somebody had the data at that time."""

    at: datetime
    """UTC, as the authority states it."""
    authority: str
    """The subject of the authority's certificate: its common name, or all of it."""
    serial: int
    policy: str
    """The OID of the rules under which the authority works."""
    accuracy: timedelta | None = None
    """How far off the authority's clock is at the most, if it says."""


@dataclass(frozen=True, slots=True)
class TimeStampRequest:
    """A request for a token over `data`, and what its answer must hold."""

    data: bytes
    body: bytes
    """What is sent to the authority (DER)."""
    nonce: int


def request_timestamp(data: bytes) -> TimeStampRequest:
    """A request for a token over the SHA-256 of `data` (at least one byte), with a nonce and the certificates."""
    made = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).build()
    assert made.nonce is not None
    return TimeStampRequest(data, made.as_bytes(), made.nonce)


def read_reply(reply: bytes, request: TimeStampRequest, roots: Sequence[bytes]) -> tuple[bytes, TimeStamp]:
    """The token in an authority's answer, and what it proves. `roots`: certificates (DER) that are trusted.

    Raises TimestampError.
    """
    response = _read(reply)
    if response.status not in (0, 1):
        # A reply without a token has nothing more to say; its text is the authority's own and may be anything.
        raise TimestampError(f"the authority gave no token: {_REASONS.get(response.status, 'it says no')}")
    token = bytes(response.time_stamp_token())
    if not token:
        raise TimestampError("the authority says that it granted a token, and sent none")
    return token, verify_timestamp(token, request.data, roots, nonce=request.nonce)


def verify_timestamp(token: bytes, data: bytes, roots: Sequence[bytes], *, nonce: int | None = None) -> TimeStamp:
    """Check a token over `data` with nothing but trusted roots (certificates, DER).

    Raises TimestampError naming the first step that fails.
    """
    if not 1 < len(token) <= MAX_TOKEN_BYTES:
        raise TimestampError("this is not a time-stamp token")
    anchors = _certificates(roots)
    response = _read(_wrapped(token))
    try:
        info, leaf = response.tst_info, _signer(token)
        imprint, at = info.message_imprint, info.gen_time.astimezone(UTC)
        stamp = TimeStamp(at, _named(leaf), info.serial_number, info.policy.dotted_string, _accuracy(info))
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        digest, stated_nonce = imprint.message if imprint.hash_algorithm == _SHA256 else b"", info.nonce
    except TimestampError:
        raise
    except Exception as error:  # parsers of three libraries, each with its own kinds of complaint
        raise TimestampError(f"this is not a time-stamp token: {error}") from None
    if not digest:
        raise TimestampError("the time-stamp is not over a SHA-256 digest")
    if digest != hashlib.sha256(data).digest():
        raise TimestampError("the time-stamp is over something else than what was given")
    if nonce is not None and stated_nonce != nonce:
        raise TimestampError("the token answers another request than the one that was made (its nonce differs)")
    if not begin <= at <= end:
        raise TimestampError(
            f"the authority's certificate is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, "
            f"and the time-stamp says {at:%Y-%m-%d %H:%M:%S} UTC"
        )
    try:
        VerifierBuilder(roots=anchors).build().verify(response, digest)
    except Exception as error:  # as above
        raise TimestampError(
            f"the authority's signature is wrong, or its certificate leads to no trusted root: {error}"
        ) from None
    return stamp


def _signer(token: bytes) -> x509.Certificate:
    """The authority's certificate out of a token.

    With it the token has to agree in what OpenSSL does not look at: versions, names of algorithms, and the signed
    attribute that names the certificate (RFC 3161, section 2.4.2; RFC 5816). Raises TimestampError, ValueError.
    """
    signed = cms.ContentInfo.load(token, strict=True)["content"]
    if len(signed["signer_infos"]) != 1:
        raise TimestampError("a time-stamp has exactly one signer")
    (signer,) = signed["signer_infos"]
    named = signer["sid"].chosen
    if not isinstance(named, cms.IssuerAndSerialNumber):
        raise TimestampError("the token does not name its signer by issuer and serial number")
    leaf = next(
        (
            one.chosen.dump()
            for one in signed["certificates"]
            if one.name == "certificate"
            and one.chosen.issuer == named["issuer"]
            and one.chosen.serial_number == named["serial_number"].native
        ),
        None,
    )
    if leaf is None:
        raise TimestampError("the certificate of the authority is not in the token")
    digest = signer["digest_algorithm"]["algorithm"].native
    algorithm = signer["signature_algorithm"]["algorithm"].native
    certificate = x509.load_der_x509_certificate(leaf)
    kind = "ecdsa" if isinstance(certificate.public_key(), EllipticCurvePublicKey) else "rsa"
    fitting = {f"{digest}_{kind}", *(("rsassa_pkcs1v15", "rsassa_pss") if kind == "rsa" else ())}
    if signed["version"].native != "v3" or signer["version"].native != "v1" or algorithm not in fitting:
        raise TimestampError("the token is not written as RFC 3161 has it: a version or an algorithm is another")
    for attribute in signer["signed_attrs"]:
        value = attribute["values"][0]
        if isinstance(value, tsp.SigningCertificate | tsp.SigningCertificateV2):
            first = value["certs"][0]
            v2 = isinstance(value, tsp.SigningCertificateV2)
            hashed = first["hash_algorithm"]["algorithm"].native if v2 else "sha1"
            if first["cert_hash"].native == hashlib.new(hashed, leaf).digest():
                return certificate
            raise TimestampError("the token was signed for another certificate than the one in it")
    raise TimestampError("the token does not say which certificate it was signed with")


def _read(reply: bytes) -> TimeStampResponse:
    try:
        return decode_timestamp_response(reply)
    except (ValueError, TypeError) as error:
        raise TimestampError(f"this is not a time-stamp: {error}") from None


def _wrapped(token: bytes) -> bytes:
    """The token as an answer would hold it: what the library reads."""
    length = len(_GRANTED) + len(token)
    head = length.to_bytes((length.bit_length() + 7) // 8, "big")
    prefix = bytes([0x30, length]) if length < 0x80 else bytes([0x30, 0x80 | len(head)]) + head
    return prefix + _GRANTED + token


def _certificates(roots: Sequence[bytes]) -> list[x509.Certificate]:
    try:
        return [x509.load_der_x509_certificate(root) for root in dict.fromkeys(roots)]
    except ValueError as error:
        raise TimestampError(f"a trusted root cannot be read: {error}") from None


def _accuracy(info: TimeStampTokenInfo) -> timedelta | None:
    found: Accuracy | None = cast("Accuracy | None", info.accuracy)  # it is optional, whatever the stub says
    if found is None:
        return None
    return timedelta(seconds=found.seconds or 0, milliseconds=found.millis or 0, microseconds=found.micros or 0)


def _named(certificate: x509.Certificate) -> str:
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else certificate.subject.rfc4514_string()
