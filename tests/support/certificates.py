"""Certificates, lists and answers of every kind, right and wrong ones, made by hand for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from protocol.certificate_revocation import Answer, AnswerKind
from protocol.signature import PrivateKey

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(3)]
"""Making one takes a tenth of a second: they are made once."""


def make_key(kind: str, number: int = 0) -> PrivateKey:
    if kind == "rsa":
        return RSA_KEYS[number]
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def digest_for(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COUNTRY_NAME, "VN"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def key_usage(**what: bool) -> x509.KeyUsage:
    fields = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{field: what.get(field, False) for field in fields})


@dataclass
class Holder:
    """Somebody with a key and a certificate, who may issue more."""

    key: PrivateKey
    certificate: x509.Certificate

    def issue(
        self,
        text: str,
        key: PrivateKey | None = None,
        *,
        authority: bool = False,
        begins: datetime = NOW - 30 * DAY,
        ends: datetime = NOW + 335 * DAY,
        extensions: Sequence[x509.ExtensionType] = (),
        signed_by: PrivateKey | None = None,
        serial: int | None = None,
        path_length: int | None = None,
    ) -> Holder:
        """Somebody to whom this one gives a certificate. `signed_by`: a forger's key instead of the own."""
        key = key or make_key("p256")
        return Holder(
            key,
            _build(
                name(text),
                key,
                self.certificate.subject,
                signed_by or self.key,
                authority,
                begins,
                ends,
                extensions,
                serial,
                path_length,
            ),
        )

    # -- what it says of others -----------------------------------------------------------------

    def crl(
        self,
        *revoked: x509.Certificate,
        at: datetime = NOW - HOUR,
        life: timedelta | None = DAY,
        reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise,
        since: datetime = NOW - 2 * HOUR,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        signed_by: PrivateKey | None = None,
        issuer: str | None = None,
    ) -> Answer:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=name(issuer) if issuer else self.certificate.subject
        ).last_update(at)
        builder = builder.next_update(at + (DAY if life is None else life))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(one.serial_number, since)
                .add_extension(x509.CRLReason(reason), critical=False)
                .build()
            )
        key = signed_by or self.key
        return Answer(AnswerKind.CRL, builder.sign(key, digest_for(key)).public_bytes(Encoding.DER), at)

    def ocsp(
        self,
        certificate: x509.Certificate,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        *,
        at: datetime = NOW - HOUR,
        life: timedelta | None = DAY,
        reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise,
        since: datetime = NOW - 2 * HOUR,
        responder: Holder | None = None,
        algorithm: hashes.HashAlgorithm | None = None,
        issuer: Holder | None = None,
    ) -> Answer:
        """`responder`: who signs, its certificate beside it. `issuer`: of whose certificate it speaks."""
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=(issuer or self).certificate,
            algorithm=algorithm or hashes.SHA1(),
            cert_status=status,
            this_update=at,
            next_update=None if life is None else at + life,
            revocation_time=since if revoked else None,
            revocation_reason=reason if revoked else None,
        )
        signer = responder or self
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        if responder is not None:
            builder = builder.certificates([responder.certificate])
        response = builder.sign(signer.key, digest_for(signer.key))
        return Answer(AnswerKind.OCSP, response.public_bytes(Encoding.DER), at)


def _build(
    subject: x509.Name,
    key: PrivateKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    authority: bool,
    begins: datetime,
    ends: datetime,
    extensions: Sequence[x509.ExtensionType],
    serial: int | None,
    path_length: int | None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    given = {type(extension) for extension in extensions}
    if x509.BasicConstraints not in given:
        builder = builder.add_extension(
            x509.BasicConstraints(authority, path_length if authority else None), critical=True
        )
    if x509.KeyUsage not in given:
        usage = key_usage(key_cert_sign=True, crl_sign=True) if authority else key_usage(digital_signature=True)
        builder = builder.add_extension(usage, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.KeyUsage))
    return builder.sign(issuer_key, digest_for(issuer_key))


def root(
    text: str = "Trung tâm chứng thực thử nghiệm",
    kind: str = "p256",
    number: int = 0,
    ends: datetime = NOW + 3650 * DAY,
    **options: object,
) -> Holder:
    """An authority that certifies itself."""
    key = make_key(kind, number)
    certificate = _build(
        name(text),
        key,
        name(text),
        key,
        True,
        NOW - 365 * DAY,
        ends,
        (),
        None,
        options.get("path_length"),  # type: ignore[arg-type]
    )
    return Holder(key, certificate)


def places(crl: str | None = None, ocsp_url: str | None = None) -> list[x509.ExtensionType]:
    """Extensions that say where to ask."""
    found: list[x509.ExtensionType] = []
    if crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
        found.append(x509.CRLDistributionPoints([point]))
    if ocsp_url:
        place = x509.UniformResourceIdentifier(ocsp_url)
        found.append(
            x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place)])
        )
    return found
