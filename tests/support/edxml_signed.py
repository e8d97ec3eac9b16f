"""edXML messages with package signatures, made by signxml with certificates of the tests' own."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from tests.support.edxml_messages import DOCUMENT

NOW = datetime.now(UTC).replace(microsecond=0)
UNSIGNED = re.sub(rb"\s*<edXML:Signature>.*?</edXML:Signature>", b"", DOCUMENT, flags=re.DOTALL)
_PLACE = b'<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#" Id="placeholder"/>'


class _OldSigner(XMLSigner):
    """One that signs with SHA-1 too, as the axis's own profile does."""

    def check_deprecated_methods(self) -> None:
        """Nothing is forbidden."""


class Party:
    """A key with its certificate, by `issuer` or by itself."""

    def __init__(
        self, name: str, key: Any, issuer: Party | None = None, days: tuple[int, int] = (-1, 365)
    ) -> None:
        self.key = key
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        builder = x509.CertificateBuilder(
            issuer_name=issuer.certificate.subject if issuer else subject,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=NOW + timedelta(days=days[0]),
            not_valid_after=NOW + timedelta(days=days[1]),
        )
        is_ca = not isinstance(key, rsa.RSAPrivateKey)
        usage = x509.KeyUsage(not is_ca, not is_ca, False, False, False, is_ca, is_ca, False, False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        for extension, critical in [
            (x509.BasicConstraints(ca=is_ca, path_length=None), True),
            (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (own, False),
        ]:
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign(signer.key, hashes.SHA256())


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@functools.cache
def authority(name: str = "Cơ quan chứng thực") -> Party:
    return Party(name, ec.generate_private_key(ec.SECP256R1()))


@functools.cache
def clerk() -> Party:
    return Party("Văn phòng UBND tỉnh Yên Bái", rsa_key(), authority())


def signed(
    data: bytes = UNSIGNED,
    by: Party | None = None,
    certificates: list[x509.Certificate] | None = None,
    method: SignatureMethod = SignatureMethod.RSA_SHA256,
    digest: DigestAlgorithm = DigestAlgorithm.SHA256,
    c14n: str = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
    reference: str | None = None,
    place: bytes = b"</edXML:edXMLHeader>",
) -> bytes:
    """`data` with an enveloped signature before `place`, over all of it or over what `reference` names (`#id`)."""
    by = by or clerk()
    root = etree.fromstring(data.replace(place, _PLACE + place))
    signer = _OldSigner(signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=c14n)
    chain = certificates or [by.certificate]
    made = signer.sign(root, key=by.key, cert=chain, reference_uri=reference)
    return bytes(etree.tostring(made, xml_declaration=True, encoding="UTF-8"))
