"""The bytes of the morning: PDF attachments, and messages as a system that knows only edXML writes them."""

from __future__ import annotations

import base64
import hashlib
import io
import unicodedata
import zipfile
from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"


def ascii_text(text: str) -> str:
    """Vietnamese without diacritics: a PDF's built-in fonts have none."""
    plain = unicodedata.normalize("NFD", text.replace("đ", "d").replace("Đ", "D"))
    return plain.encode("ascii", "ignore").decode()


def pdf(symbol: str, subject: str, size: int) -> bytes:
    """A PDF of about `size` bytes: one page with the symbol and the subject, and a made-up scan.

    The same arguments give the same bytes.
    """
    lines = [ascii_text(text).translate({40: " ", 41: " ", 92: " "}) for text in (symbol, subject)]
    page = "BT /F1 11 Tf 72 760 Td 16 TL " + " ".join(f"({line[:90]}) Tj T*" for line in lines) + " ET"
    scan = hashlib.shake_256(symbol.encode()).digest(max(size - 900, 16))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page.encode()),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(scan), scan),
    ]
    body = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (count, table, count, len(body))
    )


@dataclass(frozen=True, slots=True)
class EdxmlParty:
    """An agency as edXML names it."""

    code: str
    name: str


def _element(name: str, content: str) -> str:
    return f"<edXML:{name}>{content}</edXML:{name}>"


def _fields(**values: str) -> str:
    return "".join(_element(name, escape(value)) for name, value in values.items())


def _frame(header: str, rest: str = "", tail: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<edXML xmlns="{NAMESPACE}">'
        f'<edXML:edXMLEnvelope xmlns:edXML="{NAMESPACE}">'
        f"{_element('edXMLHeader', header)}{rest}</edXML:edXMLEnvelope>{tail}</edXML>\n"
    ).encode()


def edxml_document(
    sender: EdxmlParty,
    to: EdxmlParty,
    symbol: str,
    date: str,
    time: str,
    type_name: str,
    subject: str,
    signer: tuple[str, str],
    priority: int,
    file: bytes,
) -> bytes:
    """A document in edXML (QCVN 102:2016) with one file, zipped into it as the national axis does.

    `date` as 2017/10/02, `time` as 09:20, `signer` a position and a name, `priority` 0 (normal) to 4.
    """
    number, _, notation = symbol.partition("/")
    document_id = f"{sender.code},{date},{symbol}"
    content = str(uuid5(NAMESPACE_URL, document_id))
    name = f"{symbol.replace('/', '_')}.pdf"
    header = _element(
        "From", _fields(OrganId=sender.code, OrganizationInCharge=sender.name, OrganName=sender.name)
    )
    header += _element("To", _fields(OrganId=to.code, OrganizationInCharge=to.name, OrganName=to.name))
    header += _fields(DocumentId=document_id)
    header += _element("Code", _fields(CodeNumber=number, CodeNotation=notation))
    header += _element("PromulgationInfo", _fields(Place="Hà Nội", PromulgationDate=date))
    header += _element("DocumentType", _fields(Type="18", TypeDetail="0", TypeName=type_name))
    header += _fields(Subject=subject, Content=subject)
    header += _element(
        "SignerInfo", _fields(Competence="KT. BỘ TRƯỞNG, CHỦ NHIỆM", Position=signer[0], FullName=signer[1])
    )
    header += _element("OtherInfo", _fields(Priority=str(priority), PromulgationAmount="1", PageAmount="2"))
    header += _element("ToPlaces", _fields(Place="Như trên"))
    trace = _element("TraceHeader", _fields(OrganId=sender.code, Timestamp=f"{date} {time}:00"))
    trace += _element(
        "Bussiness", _fields(BussinessDocType="0", BussinessDocReason="Văn bản điện tử mới", Paper="0")
    )
    reference = _fields(
        ContentId=f"cid:{content}", ContentType="application/zip", Description="Văn bản chính", AttachmentName=name
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{content}.pdf", (2017, 10, 2, 9, 0, 0)), file)
    encoded = base64.b64encode(packed.getvalue()).decode()
    return _frame(
        _element("MessageHeader", header) + _element("TraceHeaderList", trace),
        _element(
            "edXMLBody",
            f'<edXML:edXMLManifest version="1.0">{_element("Reference", reference)}</edXML:edXMLManifest>',
        ),
        f"<AttachmentEncoded><Attachment><ContentId>cid:{content}</ContentId>"
        f"<AttachmentName>{escape(name)}</AttachmentName><ContentType>application/zip</ContentType>"
        f'<edXML:ContentTransferEncoded xmlns:edXML="{NAMESPACE}">{encoded}</edXML:ContentTransferEncoded>'
        "</Attachment></AttachmentEncoded>",
    )


def edxml_status(
    sender: EdxmlParty, to: str, symbol: str, date: str, document_id: str, state: str, description: str, time: str
) -> bytes:
    """An edXML status: what `sender` did with the document `document_id` of the agency `to`."""
    header = _element(
        "From", _fields(OrganId=sender.code, OrganName=sender.name, OrganizationInCharge=sender.name)
    )
    header += _element(
        "ResponseFor", _fields(OrganId=to, Code=symbol, PromulgationDate=date, DocumentId=document_id)
    )
    header += _element("StaffInfo", _fields(Department="Phòng Hành chính - Tổ chức", Staff="Lê Thị Chi"))
    header += _fields(StatusCode=state, Description=description, Timestamp=f"{date} {time}:00")
    return _frame(_element("MessageHeader", header))
