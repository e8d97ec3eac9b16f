"""A time-stamping authority (RFC 3161) for trials, tests and the demo, beside the trial certificate authority.

It signs the clock of this machine and asks nobody: a token of it proves to nobody else when something was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.ca.authority import TRIAL
from protocol.signature import PrivateKey

POLICY = "1.3.6.1.4.1.32473.3161"
"""Under the number that RFC 5612 keeps for examples."""
DIGESTS = ("sha256", "sha384", "sha512")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class TimestampAuthority:
    """Answers requests for time-stamps. `certificates`: its own first, then those that lead to the root."""

    key: ec.EllipticCurvePrivateKey
    certificates: list[x509.Certificate]
    policy: str = POLICY
    now: Callable[[], datetime] = _now
    serial: int = field(default=0)

    @classmethod
    def make(
        cls,
        issuer: x509.Certificate,
        issuer_key: PrivateKey,
        *,
        name: str = "Lienthong TSA thử nghiệm",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.TIME_STAMPING,),
    ) -> TimestampAuthority:
        """A new one, certified by `issuer` for a year, beginning an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        begin = not_before or _now() - timedelta(hours=1)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "VN"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, TRIAL),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = (
            x509.CertificateBuilder(issuer.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(not_after or begin + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=True,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=False,
                    crl_sign=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=True)  # RFC 3161, 2.3
        return cls(key, [builder.sign(issuer_key, hashes.SHA256())])

    def answer(self, request: bytes) -> bytes:
        """The response to a request, DER. What is no request, or asks for another digest, is rejected."""
        try:
            asked = tsp.TimeStampReq.load(request, strict=True)
            imprint = asked["message_imprint"]
            algorithm = imprint["hash_algorithm"]["algorithm"].native
        except ValueError:
            return self.reject("bad_data_format")
        if algorithm not in DIGESTS:
            return self.reject("bad_alg")
        self.serial += 1
        info: dict[str, Any] = {
            "version": "v1",
            "policy": self.policy,
            "message_imprint": imprint,
            "serial_number": self.serial,
            "gen_time": self.now().replace(microsecond=0),
            "accuracy": {"seconds": 1},
        }
        if asked["nonce"].native is not None:
            info["nonce"] = asked["nonce"].native
        token = self.sign(tsp.TSTInfo(info), with_certificates=bool(asked["cert_req"].native))
        return bytes(tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump())

    def sign(self, info: tsp.TSTInfo, *, with_certificates: bool = True) -> cms.ContentInfo:
        """A token over `info` (RFC 3161, section 2.4.2; the certificate is named as RFC 5816 has it)."""
        own = asn1_x509.Certificate.load(self.certificates[0].public_bytes(Encoding.DER))
        content = info.dump()
        named = tsp.SigningCertificateV2(
            {"certs": [tsp.ESSCertIDv2({"cert_hash": hashlib.sha256(own.dump()).digest()})]}
        )
        attributes = cms.CMSAttributes(
            [
                cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
                cms.CMSAttribute(
                    {"type": "signing_time", "values": [cms.Time({"utc_time": core.UTCTime(self.now())})]}
                ),
                cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(content).digest()]}),
                cms.CMSAttribute({"type": "signing_certificate_v2", "values": [named]}),
            ]
        )
        digest = algos.DigestAlgorithm({"algorithm": "sha256"})
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    {
                        "issuer_and_serial_number": cms.IssuerAndSerialNumber(
                            {"issuer": own.issuer, "serial_number": own.serial_number}
                        )
                    }
                ),
                "digest_algorithm": digest,
                "signed_attrs": attributes,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                "signature": self.key.sign(attributes.dump(), ec.ECDSA(hashes.SHA256())),
            }
        )
        members: dict[str, Any] = {
            "version": "v3",
            "digest_algorithms": [digest],
            "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(content)},
            "signer_infos": [signer],
        }
        if with_certificates:
            members["certificates"] = [
                asn1_x509.Certificate.load(one.public_bytes(Encoding.DER)) for one in self.certificates
            ]
        return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(members)})

    @staticmethod
    def reject(reason: str) -> bytes:
        """A refusal, with one of RFC 3161's reasons."""
        # asn1crypto's TimeStampResp knows no answer without a token.
        status = tsp.PKIStatusInfo({"status": "rejection", "fail_info": {reason}})
        return bytes(core.Sequence(contents=status.dump()).dump())
