"""X.509 certificates of signers: reading them, and whether they lead to somebody who is trusted.

Pure: no clock and no network. Whoever calls says at which moment a chain must hold, so that the same functions
serve the hub now and whoever verifies a proof years later. Revocation is `protocol.certificate_revocation`.

Path building and validation are those of `cryptography` (RFC 5280; written for TLS), with a policy of our own for
extensions: an agency's signing certificate need not have an alternative name, or a purpose that has to do with
TLS, but must be allowed to sign, and must not be an authority's. What stays of that library's rules: RSA keys of
at least 2,048 bits, P-256, P-384 or P-521 for *authorities* (an Ed25519 authority is refused; a signer's own key
may be Ed25519), no SHA-1, certificates of version 3, no critical extension that it does not know, eight
authorities between signer and anchor at the most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from protocol.problems import LienthongError
from protocol.signature import PublicKey, b64url, checked

Given = bytes | x509.Certificate
"""A certificate: its DER, or as `cryptography` has it."""

MAX_CERTIFICATES = 20
"""Certificates in a file; a chain has three or four."""
MAX_CERTIFICATE_BYTES = 64 << 10

_USELESS_PURPOSES = frozenset(
    {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.OCSP_SIGNING,
        ExtendedKeyUsageOID.TIME_STAMPING,
        ExtendedKeyUsageOID.CODE_SIGNING,
    }
)
"""A certificate for these alone is not one for signing documents."""

_NAMES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.COUNTRY_NAME: "C",
    NameOID.USER_ID: "UID",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.TITLE: "title",
    NameOID.EMAIL_ADDRESS: "E",
}


class CertificateError(LienthongError):
    """A certificate that cannot be used, or leads nowhere; the message says why in plain words."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Certificates of which each is issued by the next: the signer's first, the trusted anchor last.

    An anchor that is itself the signer's makes a chain of one. `not_before` and `not_after` (UTC) bound the time
    in which all of them are valid.
    """

    certificates: tuple[x509.Certificate, ...]
    not_before: datetime
    not_after: datetime

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def anchor(self) -> x509.Certificate:
        return self.certificates[-1]

    @property
    def issued(self) -> tuple[tuple[x509.Certificate, x509.Certificate], ...]:
        """Each certificate but the anchor, with its issuer: those of which revocation has to be asked."""
        return tuple(zip(self.certificates, self.certificates[1:], strict=False))

    def der(self) -> tuple[bytes, ...]:
        """Their DER, in order."""
        return tuple(map(to_der, self.certificates))


# -- reading --------------------------------------------------------------------------------------


def load(der: Given) -> x509.Certificate:
    """One certificate from its DER. Raises CertificateError."""
    if isinstance(der, x509.Certificate):
        return der
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateError(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsed as late as possible by the library: what cannot be read is to be found here.
        _ = certificate.extensions, certificate.subject, certificate.issuer
    except Exception as error:  # for bytes that are none the library has many exceptions, of no common root
        raise CertificateError(f"not a certificate that can be read: {error}") from None
    return certificate


def load_all(data: bytes) -> list[x509.Certificate]:
    """The certificates of a file in their order: PEM (one or several) or DER (one). Raises CertificateError."""
    if b"PRIVATE KEY" in data:
        raise CertificateError("the file holds a private key; give the certificate alone")
    if b"-----BEGIN CERTIFICATE-----" not in data:
        return [load(data)]
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"not certificates that can be read: {error}") from None
    if len(found) > MAX_CERTIFICATES:
        raise CertificateError(f"the file holds {len(found)} certificates; {MAX_CERTIFICATES} are the most")
    return [load(to_der(certificate)) for certificate in found]


def to_der(certificate: Given) -> bytes:
    return certificate if isinstance(certificate, bytes) else certificate.public_bytes(Encoding.DER)


def to_pem(certificate: Given) -> bytes:
    return load(certificate).public_bytes(Encoding.PEM)


def sha256(certificate: Given) -> bytes:
    """The SHA-256 of its DER: the name under which the hub and its evidence know a certificate."""
    return load(certificate).fingerprint(hashes.SHA256())


def x5t(certificate: Given) -> str:
    """The same as a JWS header writes it (`x5t#S256`)."""
    return b64url(sha256(certificate))


def public_key(certificate: Given) -> PublicKey:
    """Its key, if it is of a type and strength that signs messages. Raises `protocol.signature.KeyFormatError`."""
    return checked(load(certificate).public_key())


def name(of: x509.Name) -> str:
    """A name as people read it: ``CN=…, O=…, C=VN``; the most particular part first."""
    parts = []
    for attribute in reversed(list(of)):
        value = attribute.value if isinstance(attribute.value, str) else attribute.value.hex()
        parts.append(f"{_NAMES.get(attribute.oid, attribute.oid.dotted_string)}={value}")
    return ", ".join(parts) or "(no name)"


def subject(certificate: Given) -> str:
    return name(load(certificate).subject)


def issuer(certificate: Given) -> str:
    return name(load(certificate).issuer)


def is_authority(certificate: Given) -> bool:
    """Whether it may issue certificates."""
    try:
        found = load(certificate).extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


# -- chains ---------------------------------------------------------------------------------------


def _signs(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise ValueError("its key usage does not allow it to sign")


def _issues(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key usage does not allow it to issue certificates")


def _for_documents(policy: Policy, certificate: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if purposes is not None and set(purposes) <= _USELESS_PURPOSES:
        raise ValueError("its extended key usage is for something else than signing documents")


def _not_an_authority(
    policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("it is an authority's; a signer needs one of its own")


def _an_authority(policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("it is not an authority's")


_SIGNER = (
    ExtensionPolicy.permit_all()
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_documents)
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _not_an_authority)
)
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _an_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _issues)
)


def validate_chain(leaf: Given, intermediates: Iterable[Given], anchors: Iterable[Given], at: datetime) -> Chain:
    """The chain by which `leaf` leads to one of `anchors`, every certificate valid at `at` (aware).

    `intermediates` are certificates that may be of use, in any order; they need no trust. Of revocation nothing is
    said. Raises CertificateError with a reason that names the certificate concerned.
    """
    certificate = load(leaf)
    between = [load(one) for one in intermediates]
    trusted = [load(one) for one in anchors]
    if not trusted:
        raise CertificateError("nobody is trusted: there is no trust anchor")
    _require_time(certificate, at, "the certificate")
    verifier = (
        PolicyBuilder()
        .store(Store(trusted))
        .time(at.astimezone(UTC).replace(tzinfo=None))
        .extension_policies(ca_policy=_AUTHORITY, ee_policy=_SIGNER)
        .build_client_verifier()
    )
    try:
        found = verifier.verify(certificate, between).chain
    except (VerificationError, x509.UnsupportedGeneralNameType) as error:
        raise CertificateError(_why(certificate, between, trusted, at, error)) from None
    return Chain(
        tuple(found),
        max(one.not_valid_before_utc for one in found),
        min(one.not_valid_after_utc for one in found),
    )


def _require_time(certificate: x509.Certificate, at: datetime, what: str) -> None:
    if at < certificate.not_valid_before_utc:
        raise CertificateError(
            f"{what} of {subject(certificate)} is not valid before {_moment(certificate.not_valid_before_utc)}"
        )
    if at > certificate.not_valid_after_utc:
        raise CertificateError(
            f"{what} of {subject(certificate)} expired at {_moment(certificate.not_valid_after_utc)}"
        )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _why(
    leaf: x509.Certificate,
    between: list[x509.Certificate],
    trusted: list[x509.Certificate],
    at: datetime,
    error: Exception,
) -> str:
    """Why no chain was found, as far as following the issuers' names tells; else in the library's words."""
    here, seen = leaf, {sha256(leaf)}
    while True:
        issuers = [one for one in (*trusted, *between) if one.subject == here.issuer and sha256(one) not in seen]
        if not issuers:
            if here.issuer == here.subject:
                return f"it leads to {subject(here)}, who is not trusted here"
            return f"the certificate of {issuer(here)}, who issued {subject(here)}, is missing or not trusted"
        signed = [one for one in issuers if is_issued_by(here, one)]
        if not signed:
            return f"the signature on {subject(here)} was not made by {issuer(here)}, as it claims"
        here = signed[0]
        try:
            _require_time(here, at, "the authority's certificate")
        except CertificateError as expired:
            return str(expired)
        seen.add(sha256(here))
        if here in trusted:
            text = str(error).partition(" (encountered processing")[0]
            return text.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")


def is_issued_by(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except Exception:  # a key or a signature of a kind that the library does not know is no proof either
        return False
    return True
