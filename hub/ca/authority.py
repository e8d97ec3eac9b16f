"""An authority in a folder: its key, its certificate, and what it has issued.

Layout: ``ca.pem`` (the certificate, to be trusted), ``ca-key.pem`` (mode 0600), ``issued.json`` (what was issued
and revoked, replaced whole at each change) and ``issued/<serial>.pem``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from protocol.certificate import to_der, to_pem
from protocol.problems import LienthongError
from protocol.signature import PrivateKey, PublicKey, generate, load_private, private_pem

TRIAL = "Thử nghiệm – không có giá trị pháp lý"
"""In every name: that this is for trial and has no legal force."""
NAME = "Lienthong CA thử nghiệm"
ALGORITHMS = ("ES256", "RS256")
"""Of the authority's own key. Validators refuse Ed25519 for authorities; the keys that it certifies may be."""
YEARS = 10
DAYS = 365
MAX_COMMON_NAME = 64
"""RFC 5280, appendix A (ub-common-name)."""
CRL_LIFE = timedelta(days=1)
OCSP_LIFE = timedelta(hours=1)
BACKDATED = timedelta(minutes=5)
"""Certificates begin a little in the past: clocks differ."""


class AuthorityError(LienthongError):
    """The authority cannot do that; the message says what to do."""


class Issued(msgspec.Struct):
    """One certificate that was issued. Times are RFC 3339, UTC. `serial` is hexadecimal."""

    serial: str
    name: str
    not_after: datetime
    revoked_at: datetime | None = None
    reason: str = ""


class _Index(msgspec.Struct):
    url: str = ""
    issued: list[Issued] = []


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _name(common: str, organization: str = "", code: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COUNTRY_NAME, "VN")]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]))
    parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, TRIAL))
    if code:
        parts.append(x509.NameAttribute(NameOID.USER_ID, code))
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common[:MAX_COMMON_NAME]))
    return x509.Name(parts)


def _usage(*, signs: bool = False, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=signs,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _write(file: Path, data: bytes, mode: int = 0o644) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as target:
        target.write(data)
    temporary.rename(file)


def _refused(why: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(why).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority at work. Changes are on disk when a method returns; one process at a time should make them."""

    folder: Path
    key: PrivateKey
    certificate: x509.Certificate
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def make(cls, folder: Path, *, name: str = NAME, url: str = "", alg: str = "ES256") -> Authority:
        """A new authority in `folder`. `url`: where `responder` will be; without it certificates name no place.

        Raises AuthorityError where there is one already.
        """
        if alg not in ALGORITHMS:
            raise AuthorityError(f"an authority's key is one of {', '.join(ALGORITHMS)}")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "ca-key.pem").exists():
            raise AuthorityError(f"there is an authority in {folder} already; choose another folder")
        key, now = generate(alg), datetime.now(UTC)
        subject = _name(name, "Lienthong")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(issues=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, _digest(key))
        )
        _write(folder / "ca-key.pem", private_pem(key), 0o600)
        _write(folder / "ca.pem", to_pem(certificate))
        _write(folder / "issued.json", msgspec.json.encode(_Index(url)))
        (folder / "issued").mkdir(exist_ok=True)
        return cls(folder, key, certificate)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The authority in `folder`. Raises AuthorityError."""
        try:
            key = load_private((folder / "ca-key.pem").read_bytes())
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except (OSError, ValueError, LienthongError) as error:
            raise AuthorityError(
                f"there is no authority in {folder}: {error}. Make one with `lienthong ca init`"
            ) from None
        return cls(folder, key, certificate)

    # -- issuing --------------------------------------------------------------------------------

    def issue(
        self,
        name: str,
        key: PublicKey,
        *,
        code: str = "",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate for an agency's signing key; `code`, its identity code, becomes the subject's UID."""
        now, index = self.now(), self._index()
        serial = x509.random_serial_number()
        begins = not_before or now - BACKDATED
        ends = not_after or now + timedelta(days=DAYS)
        builder = (
            x509.CertificateBuilder(
                subject_name=_name(name, code=code), issuer_name=self.certificate.subject, public_key=key
            )
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if index.url:
            place = x509.UniformResourceIdentifier
            builder = builder.add_extension(
                x509.CRLDistributionPoints(
                    [x509.DistributionPoint([place(f"{index.url}/crl")], None, None, None)]
                ),
                critical=False,
            ).add_extension(
                x509.AuthorityInformationAccess(
                    [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place(f"{index.url}/ocsp"))]
                ),
                critical=False,
            )
        certificate = builder.sign(self.key, _digest(self.key))
        index.issued.append(Issued(f"{serial:x}", name, ends))
        _write(self.folder / "issued" / f"{serial:x}.pem", to_pem(certificate))
        self._save(index)
        return certificate

    def revoke(self, serial: str, reason: str = "unspecified") -> Issued:
        """Revoke what was issued under `serial` (hexadecimal), from now on. Raises AuthorityError."""
        try:
            x509.ReasonFlags[reason]
        except KeyError:
            known = ", ".join(flag.name for flag in x509.ReasonFlags)
            raise AuthorityError(f"{reason!r} is no reason; one of {known}") from None
        index = self._index()
        found = next((one for one in index.issued if one.serial == serial.lower().lstrip("0")), None)
        if found is None:
            raise AuthorityError(f"this authority has issued nothing under the serial number {serial[:60]}")
        if found.revoked_at is None:
            found.revoked_at, found.reason = self.now().replace(microsecond=0), reason
            self._save(index)
        return found

    def move(self, url: str) -> None:
        """Let certificates that are issued from now on name another place to ask."""
        index = self._index()
        index.url = url
        self._save(index)

    def issued(self) -> list[Issued]:
        """Everything that was issued, in order."""
        return self._index().issued

    # -- answering ------------------------------------------------------------------------------

    def crl(self, life: timedelta = CRL_LIFE) -> bytes:
        """A fresh list of what was revoked, as DER."""
        index, now = self._index(), self.now()
        builder = (
            x509.CertificateRevocationListBuilder(issuer_name=self.certificate.subject)
            .last_update(now)
            .next_update(now + life)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        for one in index.issued:
            if one.revoked_at is not None:
                builder = builder.add_revoked_certificate(
                    x509.RevokedCertificateBuilder(int(one.serial, 16), one.revoked_at)
                    .add_extension(x509.CRLReason(x509.ReasonFlags[one.reason]), critical=False)
                    .build()
                )
        return builder.sign(self.key, _digest(self.key)).public_bytes(Encoding.DER)

    def answer(self, request: bytes, life: timedelta = OCSP_LIFE) -> bytes:
        """The OCSP response to a request, as DER, signed by the authority itself."""
        try:
            asked = ocsp.load_der_ocsp_request(request)
        except ValueError:
            return _refused(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        mine = ocsp.OCSPRequestBuilder().add_certificate(self.certificate, self.certificate, asked.hash_algorithm)
        if asked.issuer_key_hash != mine.build().issuer_key_hash:
            return _refused(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        index, now = self._index(), self.now().replace(microsecond=0)
        found = next((one for one in index.issued if int(one.serial, 16) == asked.serial_number), None)
        status = ocsp.OCSPCertStatus.UNKNOWN
        revoked_at = reason = None
        if found is not None:
            status, revoked_at = ocsp.OCSPCertStatus.GOOD, found.revoked_at
            if revoked_at is not None:
                status, reason = ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags[found.reason]
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=asked.issuer_name_hash,
            issuer_key_hash=asked.issuer_key_hash,
            serial_number=asked.serial_number,
            algorithm=asked.hash_algorithm,
            cert_status=status,
            this_update=now,
            next_update=now + life,
            revocation_time=revoked_at,
            revocation_reason=reason,
        )
        signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate).sign(
            self.key, _digest(self.key)
        )
        return signed.public_bytes(Encoding.DER)

    def der(self) -> bytes:
        """Its own certificate."""
        return to_der(self.certificate)

    def _index(self) -> _Index:
        return msgspec.json.decode((self.folder / "issued.json").read_bytes(), type=_Index)

    def _save(self, index: _Index) -> None:
        _write(self.folder / "issued.json", msgspec.json.encode(index))
