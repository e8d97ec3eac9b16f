"""Signed PDFs as Vietnamese offices make them, with a certificate authority of the tests' own.

The person who signs, then the organisation's seal, each in an update of the file; a signature that is seen on the
page, in Vietnamese; number and date as a clerk adds them later.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib
from asn1crypto import crl
from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.font.opentype import GlyphAccumulator, GlyphAccumulatorFactory
from pyhanko.pdf_utils.generic import pdf_name
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.text import TextBoxStyle
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter
from pyhanko.sign import fields, signers
from pyhanko.sign.timestamps import DummyTimeStamper
from pyhanko.stamp import TextStampStyle
from pyhanko_certvalidator.registry import SimpleCertificateStore

NOW = datetime.now(UTC).replace(microsecond=0)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
SUBJECT = "Báo cáo kết quả công tác phòng, chống thiên tai tuần 47"
CHAIRMAN = "Trần Huy Tuấn"
OFFICE = "Ủy ban nhân dân tỉnh Yên Bái"


class _Font(GlyphAccumulatorFactory):
    """A factory that leaves no file open."""

    def __init__(self, font_size: int) -> None:
        super().__init__(str(FONT), font_size=font_size)

    def create_font_engine(self, writer: Any, obj_stream: Any = None) -> GlyphAccumulator:
        return GlyphAccumulator(writer, io.BytesIO(FONT.read_bytes()), font_size=self.font_size)


class Authority:
    """A certificate authority, by another or by itself."""

    def __init__(self, name: str, above: Authority | None = None, days: tuple[int, int] = (-900, 3650)) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = above or self
        self.certificate = (
            _builder(subject, above.certificate.subject if above else subject, self.key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage(authority=True), critical=True)
            .add_extension(_distribution(), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def certificate_sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def revocation_list(self, *revoked: Signer, at: datetime = NOW) -> bytes:
        """A list (DER) that names these."""
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.certificate.subject, last_update=at, next_update=at + timedelta(days=7)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder(one.certificate.serial_number, at - timedelta(hours=1))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, days: tuple[int, int]) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW + timedelta(days=days[0]),
        not_valid_after=NOW + timedelta(days=days[1]),
    )


def _distribution() -> x509.CRLDistributionPoints:
    """Where nobody will ask: a hub that did would be found out."""
    where = x509.UniformResourceIdentifier("http://crl.example.invalid/thu-nghiem.crl")
    return x509.CRLDistributionPoints([x509.DistributionPoint([where], None, None, None)])


def key_usage(authority: bool = False, sign: bool = True, repudiate: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        not authority and sign,
        not authority and repudiate,
        False,
        False,
        False,
        authority,
        authority,
        False,
        False,
    )


class Signer:
    """Who signs, or time-stamps, with a certificate by `issuer`."""

    def __init__(
        self,
        name: str,
        organisation: str = "",
        key: Any = None,
        issuer: Authority | None = None,
        days: tuple[int, int] = (-300, 700),
        usage: x509.KeyUsage | None = None,
        stamps: bool = False,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer or authority()
        attributes = [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "VN"),
        ]
        if organisation:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
        # What such certificates hold besides, and no record should repeat.
        attributes.append(x509.NameAttribute(NameOID.USER_ID, "CCCD:015099000001"))
        builder = _builder(x509.Name(attributes), self.issuer.certificate.subject, self.key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(usage or key_usage(repudiate=not stamps), critical=True)
        builder = builder.add_extension(_distribution(), critical=False)
        if stamps:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
            )
        self.certificate = builder.sign(self.issuer.key, hashes.SHA256())

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def _parts(self) -> tuple[Any, Any, SimpleCertificateStore]:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        private = self.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        store, above = SimpleCertificateStore(), self.issuer
        while above is not None:
            store.register(asn1_x509.Certificate.load(above.der))
            above = above.above  # type: ignore[assignment]
        return asn1_x509.Certificate.load(der), asn1_keys.PrivateKeyInfo.load(private), store

    def signer(self) -> signers.SimpleSigner:
        certificate, key, store = self._parts()
        return signers.SimpleSigner(signing_cert=certificate, signing_key=key, cert_registry=store)

    def stamper(self, at: datetime | None = None) -> DummyTimeStamper:
        """A time-stamping authority whose clock stands at `at`."""
        certificate, key, store = self._parts()
        return DummyTimeStamper(
            tsa_cert=certificate, tsa_key=key, certs_to_embed=store, fixed_dt=at or datetime.now(UTC)
        )


@functools.cache
def authority() -> Authority:
    return Authority("Cơ quan chứng thực số chuyên dùng (thử nghiệm)")


@functools.cache
def below() -> Authority:
    return Authority("Cơ quan chứng thực số cấp dưới (thử nghiệm)", authority())


@functools.cache
def chairman() -> Signer:
    """A person, with a P-256 key, two steps below the trust anchor."""
    return Signer(CHAIRMAN, OFFICE, issuer=below())


@functools.cache
def seal() -> Signer:
    """The organisation, with an RSA key."""
    return Signer(OFFICE, OFFICE, rsa.generate_private_key(65537, 2048))


@functools.cache
def clock() -> Signer:
    """A time-stamping authority."""
    key = rsa.generate_private_key(65537, 2048)  # the stamper that pyHanko has for tests makes no others
    return Signer("Dịch vụ cấp dấu thời gian (thử nghiệm)", key=key, days=(-900, 900), stamps=True)


@functools.cache
def stranger() -> Signer:
    """Somebody whose certificate calls itself the chairman's, by nobody whom a hub trusts."""
    return Signer(CHAIRMAN, OFFICE, issuer=Authority("Cơ quan chứng thực lạ"))


@functools.cache
def paper(subject: str = SUBJECT, form: bool = False, pages: int = 1) -> bytes:
    """An unsigned document of `pages` pages; with `form` it has a field for number and date."""
    writer = PdfFileWriter()
    font = _Font(12).create_font_engine(writer)
    for number in range(pages):
        shaped = font.shape(f"{subject}, trang {number + 1}").graphics_ops
        content = b"BT /F1 12 Tf 1 0 0 1 72 760 Tm " + shaped + b" ET"
        page = PageObject(
            contents=writer.add_object(generic.StreamObject(stream_data=content)),
            media_box=(0, 0, 595, 842),
            resources=generic.DictionaryObject(
                {pdf_name("/Font"): generic.DictionaryObject({pdf_name("/F1"): font.as_resource()})}
            ),
        )
        reference = writer.insert_page(page)
        if form and not number:
            field = generic.DictionaryObject(
                {
                    pdf_name("/FT"): pdf_name("/Tx"),
                    pdf_name("/T"): generic.pdf_string("so_va_ngay"),
                    pdf_name("/Type"): pdf_name("/Annot"),
                    pdf_name("/Subtype"): pdf_name("/Widget"),
                    pdf_name("/F"): generic.NumberObject(4),
                    pdf_name("/P"): reference,
                    pdf_name("/V"): generic.pdf_string(""),
                    pdf_name("/Rect"): generic.ArrayObject(map(generic.NumberObject, (72, 700, 300, 720))),
                }
            )
            held = writer.add_object(field)
            page[pdf_name("/Annots")] = generic.ArrayObject([held])
            writer.root[pdf_name("/AcroForm")] = writer.add_object(
                generic.DictionaryObject({pdf_name("/Fields"): generic.ArrayObject([held])})
            )
    font.prepare_write()
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def sign(
    pdf: bytes,
    by: Signer,
    field: str = "Chữ ký 1",
    seen: str = "",
    box: tuple[int, int, int, int] = (320, 120, 560, 200),
    stamper: Any = None,
    certify: fields.MDPPerm | None = None,
    digest: str = "sha256",
    subfilter: fields.SigSeedSubFilter = fields.SigSeedSubFilter.PADES,
    strict: bool = True,
    **options: Any,
) -> bytes:
    """`pdf` with one more signature, in an update; `seen`: what is written in `box` on the first page."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf), strict=strict)
    fields.append_signature_field(
        writer, fields.SigFieldSpec(sig_field_name=field, on_page=0, box=box if seen else None)
    )
    style = None
    if seen:
        font = _Font(10)
        style = TextStampStyle(stamp_text=seen, text_box_style=TextBoxStyle(font=font))
    metadata = signers.PdfSignatureMetadata(
        field_name=field,
        md_algorithm=digest,
        subfilter=subfilter,
        certify=certify is not None,
        docmdp_permissions=certify or fields.MDPPerm.FILL_FORMS,
        **options,
    )
    made = signers.PdfSigner(metadata, signer=by.signer(), timestamper=stamper, stamp_style=style)
    # In a thread: it runs an event loop of its own, and tests may be in theirs.
    with ThreadPoolExecutor(1) as thread:
        out = thread.submit(made.sign_pdf, writer).result()
    return bytes(out.getvalue())


@functools.cache
def issued() -> bytes:
    """A document as an office issues it: signed by its chairman, number and date filled in, sealed."""
    text = f"Người ký: {CHAIRMAN}\nCơ quan: {OFFICE}\nThời gian ký: 23/11/2026"
    first = sign(paper(form=True), chairman(), seen=text)
    return sign(fill(first), seal(), "Con dấu", seen=f"Con dấu của {OFFICE}", box=(300, 210, 400, 290))


def damaged(pdf: bytes) -> bytes:
    """With one byte changed of what was signed: the width of a page."""
    place = pdf.index(b"/MediaBox")
    return pdf[:place] + pdf[place:].replace(b"595", b"596", 1)


def fill(pdf: bytes, text: str = "Số: 215/BC-UBND, ngày 23 tháng 11 năm 2026") -> bytes:
    """Number and date in the field that is there for it."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    (field,) = [one for one in writer.root["/AcroForm"]["/Fields"] if one.get_object().get("/FT") == "/Tx"]
    field.get_object()[pdf_name("/V")] = generic.pdf_string(text)
    writer.mark_update(field.reference)
    return _written(writer)


def rewrite(pdf: bytes, text: str = "Số: 215/BC-UBND") -> bytes:
    """Text written into the first page itself, in an update."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    content = generic.StreamObject(
        stream_data=b"BT /F1 12 Tf 72 720 Td (" + text.encode("latin-1", "replace") + b") Tj ET"
    )
    writer.add_stream_to_page(0, writer.add_object(content))
    return _written(writer)


def replace_content(pdf: bytes, subject: str) -> bytes:
    """A shadow attack: the page's content stream put in place of another, in an update."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    page = writer.root["/Pages"]["/Kids"][0]
    content = generic.StreamObject(stream_data=b"BT /F1 12 Tf 72 760 Td (" + subject.encode() + b") Tj ET")
    page.get_object()[pdf_name("/Contents")] = writer.add_object(content)
    writer.mark_update(writer.root["/Pages"]["/Kids"].raw_get(0))
    return _written(writer)


def _written(writer: IncrementalPdfFileWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def asn1_crl(der: bytes) -> crl.CertificateList:
    return crl.CertificateList.load(der)


def anchors(*authorities: Authority) -> Sequence[bytes]:
    return [one.der for one in authorities or (authority(),)]
