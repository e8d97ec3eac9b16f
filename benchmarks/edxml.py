"""edXML documents (QCVN 102:2016) as an office sends them: a header, and an attachment in base64 inside.

Every document has exactly `DOCUMENT_BYTES`, so that a request's head can be written once for each sender. They
differ in their number, and so in their digest, by which the hub knows them.
"""

from __future__ import annotations

import hashlib
import random
from base64 import b64encode
from dataclasses import dataclass, field

from benchmarks.corpus import URGENT_EVERY, Corpus, Press, Receiver, Sender, agency_of
from protocol.edxml import NAMESPACE

DOCUMENT_BYTES = 18 << 10
SCANS = 32
"""Different attachments."""
_NUMBER = "{:012d}"

_SUBJECTS = (
    "Về việc rà soát, cập nhật danh mục mã định danh điện tử của các cơ quan, đơn vị",
    "Về việc báo cáo kết quả gửi, nhận văn bản điện tử quý I năm 2026",
    "Về việc tăng cường phòng, chống thiên tai và tìm kiếm cứu nạn",
    "Về việc cử cán bộ tham gia tập huấn quản lý văn bản và điều hành",
    "Về việc thẩm định dự toán kinh phí chuyển đổi số năm 2026",
)
_SENTENCES = (
    "Thực hiện Kế hoạch chuyển đổi số của tỉnh, đề nghị các đơn vị triển khai các nội dung sau.",
    "Văn bản giấy chỉ được gửi kèm khi pháp luật chuyên ngành có quy định.",
    "Kết quả thực hiện gửi về Văn phòng trước ngày 25 hằng tháng để tổng hợp, báo cáo.",
    "Trong quá trình thực hiện, nếu có vướng mắc, đề nghị phản ánh kịp thời để được hướng dẫn.",
    "Các đơn vị chịu trách nhiệm về tính đầy đủ, chính xác của thông tin trong phần mềm.",
)


def numbered(number: int) -> bytes:
    """A document's number, as it stands in it."""
    return _NUMBER.format(number).encode()


@dataclass(slots=True)
class EdxmlCorpus(Corpus):
    """edXML documents; the hub names them after their bytes."""

    places: dict[str, int] = field(default_factory=dict)
    """By SHA-256 in hex."""

    def sender_id(self, place: int) -> str:
        return f"edxml:{self.digest(place)}"

    def place_of(self, sender_id: str) -> int:
        return self.places.get(sender_id.removeprefix("edxml:"), -1)


class EdxmlPress(Press):
    """Makes edXML documents, one to a request."""

    def __init__(self, senders: list[Sender], receivers: list[Receiver], host: str, *, first: int = 0) -> None:
        super().__init__(senders, receivers, host, first=first)
        self._names = [receiver.name for receiver in receivers for _ in receiver.codes]
        chance = random.Random(102_2016)
        self._scans = [chance.randbytes(10_500) for _ in range(SCANS)]
        self._parts: dict[tuple[int, int, bool], list[bytes]] = {}

    def make(self, requests: int, per_request: int) -> EdxmlCorpus:
        """Write `requests` documents (15 µs each). Raises ValueError unless each has a request of its own."""
        if per_request != 1:
            raise ValueError("an edXML message has a request of its own")
        first, documents = self._next, []
        for request, number in enumerate(range(first, first + requests)):
            sender = request % len(self._senders)
            agency = agency_of(number, len(self._senders), len(self._codes))
            parts = self._between(sender, agency, number % URGENT_EVERY == 0)
            documents.append(numbered(number).join(parts))
        self._next += requests
        places = {hashlib.sha256(document).hexdigest(): place for place, document in enumerate(documents)}
        return EdxmlCorpus(first, 1, documents, self.heads("application/xml", DOCUMENT_BYTES), places)

    def around(self, scan: bytes) -> list[bytes]:
        """What stands between the places of its number in a document of any size, with `scan` attached."""
        written = self._write(0, 0, False, "UBND-VX", _SUBJECTS[0], _SENTENCES[0], scan)
        return written.split(numbered(0))

    def _between(self, sender: int, agency: int, urgent: bool) -> list[bytes]:
        """What stands between the places of a document's number."""
        key = sender, agency, urgent
        if key not in self._parts:
            chance = random.Random(f"{sender} {agency} {urgent}")
            scan = chance.choice(self._scans)
            notation = f"UBND-{chance.choice(('VX', 'NC', 'TH', 'KT'))}"
            subject = chance.choice(_SUBJECTS)
            room = DOCUMENT_BYTES - len(self._write(sender, agency, urgent, notation, subject, "", scan))
            text = " ".join(chance.choices(_SENTENCES, k=60)).encode()[:room].decode(errors="ignore")
            text += "." * (room - len(text.encode()))
            written = self._write(sender, agency, urgent, notation, subject, text, scan)
            self._parts[key] = written.split(numbered(0))
        return self._parts[key]

    def _write(
        self, sender: int, agency: int, urgent: bool, notation: str, subject: str, content: str, scan: bytes
    ) -> bytes:
        origin, number = self._senders[sender], _NUMBER.format(0)
        code, name = self._codes[agency], self._names[agency]
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<edXML:edXML xmlns:edXML="{NAMESPACE}"><edXML:edXMLEnvelope><edXML:edXMLHeader><edXML:MessageHeader>
<edXML:From><edXML:OrganId>{origin.code}</edXML:OrganId><edXML:OrganName>Ủy ban nhân dân huyện số {origin.number}</edXML:OrganName>
<edXML:OrganAdd>Tổ dân phố số {origin.number}, tỉnh Yên Bái</edXML:OrganAdd><edXML:Email>vanthu{origin.number}@yenbai.example</edXML:Email></edXML:From>
<edXML:To><edXML:OrganId>{code}</edXML:OrganId><edXML:OrganName>Đơn vị {name}</edXML:OrganName></edXML:To>
<edXML:DocumentId>{origin.code},2026/03/05,{number}/{notation}</edXML:DocumentId>
<edXML:Code><edXML:CodeNumber>{number}</edXML:CodeNumber><edXML:CodeNotation>{notation}</edXML:CodeNotation></edXML:Code>
<edXML:PromulgationInfo><edXML:Place>Yên Bái</edXML:Place><edXML:PromulgationDate>2026/03/05</edXML:PromulgationDate></edXML:PromulgationInfo>
<edXML:DocumentType><edXML:Type>2</edXML:Type><edXML:TypeName>Công văn</edXML:TypeName></edXML:DocumentType>
<edXML:Subject>{subject}</edXML:Subject><edXML:Content>{content}</edXML:Content>
<edXML:SignerInfo><edXML:Competence>TM. ỦY BAN NHÂN DÂN</edXML:Competence><edXML:Position>Chủ tịch</edXML:Position><edXML:FullName>Hoàng Thị Bích</edXML:FullName></edXML:SignerInfo>
<edXML:ToPlaces><edXML:Place>Như trên</edXML:Place><edXML:Place>Lưu: VT</edXML:Place></edXML:ToPlaces>
<edXML:OtherInfo><edXML:Priority>{int(urgent)}</edXML:Priority><edXML:PageAmount>3</edXML:PageAmount></edXML:OtherInfo>
</edXML:MessageHeader><edXML:TraceHeaderList><edXML:TraceHeader><edXML:OrganId>{origin.code}</edXML:OrganId>
<edXML:Timestamp>2026/03/05 08:15:30</edXML:Timestamp></edXML:TraceHeader>
<edXML:Bussiness><edXML:BussinessDocType>0</edXML:BussinessDocType></edXML:Bussiness></edXML:TraceHeaderList></edXML:edXMLHeader>
<edXML:edXMLBody><edXML:edXMLManifest><edXML:Reference><edXML:ContentId>cid:tep-1</edXML:ContentId>
<edXML:ContentType>application/pdf</edXML:ContentType><edXML:Description>Toàn văn, đã ký số</edXML:Description>
<edXML:AttachmentName>{notation}.pdf</edXML:AttachmentName></edXML:Reference></edXML:edXMLManifest></edXML:edXMLBody></edXML:edXMLEnvelope>
<edXML:AttachmentEncoded><edXML:Attachment><edXML:ContentId>cid:tep-1</edXML:ContentId><edXML:AttachmentName>{notation}.pdf</edXML:AttachmentName>
<edXML:ContentTransferEncoded>{b64encode(scan).decode()}</edXML:ContentTransferEncoded></edXML:Attachment></edXML:AttachmentEncoded></edXML:edXML>
""".encode()  # noqa: E501
