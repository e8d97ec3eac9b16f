"""Signed documents, made before the clock starts.

Signing costs 25 µs and would otherwise be measured as the hub's latency. Everything but the randomness of
ECDSA is the same on every run: keys, ids, addresses, text. All payloads have `PAYLOAD_BYTES`, all documents
the same length, so that a request's head can be written once for each sender.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.message import Document, Person, Promulgation, write_document
from protocol.signature import Signer

PAYLOAD_BYTES = 2048
SENDERS = 16
AGENCIES_PER_RECEIVER = 4
URGENT_EVERY = 20
_ID = "{:012d}"

_TEXT = (
    "Thực hiện Nghị định số 30/2020/NĐ-CP ngày 05 tháng 3 năm 2020 của Chính phủ về công tác văn thư, "
    "Ủy ban nhân dân tỉnh Yên Bái yêu cầu các sở, ban, ngành, Ủy ban nhân dân các huyện, thị xã, thành phố "
    "khẩn trương rà soát việc gửi, nhận văn bản điện tử trên trục liên thông, bảo đảm văn bản được ký số "
    "đúng thẩm quyền, gửi đúng nơi nhận và phản hồi trạng thái xử lý trong ngày làm việc. "
)


@dataclass(slots=True)
class Sender:
    """An endpoint that submits, with one agency and one P-256 key derived from its number."""

    number: int
    token: str = ""
    secret: str = ""
    """Of its system on the axis's interface, if it has one."""
    code: str = field(init=False)
    name: str = field(init=False)
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.code = f"000.00.{self.number:02}.H63"
        self.name = f"bench sender {self.number}"
        self.signer = Signer(ec.derive_private_key(20_201_122 + self.number, ec.SECP256R1()))


@dataclass(slots=True)
class Receiver:
    """An endpoint that receives for a few agencies."""

    number: int
    token: str = ""
    secret: str = ""
    """Of its system on the axis's interface, if it has one."""
    codes: list[str] = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        first = self.number * AGENCIES_PER_RECEIVER + 1
        self.codes = [f"000.{unit:02}.99.H63" for unit in range(first, first + AGENCIES_PER_RECEIVER)]
        self.name = f"bench receiver {self.number}"


@dataclass(slots=True)
class Corpus:
    """Documents `first`, `first + 1`, … as they go on the wire.

    Request `r` carries the `per_request` documents from ``r * per_request`` on, all of one sender.
    """

    first: int
    per_request: int
    documents: list[bytes]
    heads: list[bytes]
    """The head of a request, by sender."""

    @property
    def requests(self) -> int:
        return len(self.documents) // self.per_request

    def sender_id(self, place: int) -> str:
        """How the hub names the document at `place`."""
        return _ID.format(self.first + place)

    def holds(self, place: int, document: bytes) -> bool:
        """Whether these are the bytes that the recipient of the document at `place` should get."""
        return self.documents[place] == document

    def digest(self, place: int) -> str:
        """What the hub's events call the bytes of the document at `place`: SHA-256 in hex."""
        return hashlib.sha256(self.documents[place]).hexdigest()

    def place_of(self, sender_id: str) -> int:
        """Where the document with this id stands; -1 when it is not one of these."""
        place = int(sender_id) - self.first if sender_id.isdecimal() else -1
        return place if place < len(self.documents) else -1

    def accepts(self, status: int, body: bytes) -> bool:
        """Whether this answer says that the hub has what the request carried."""
        return status in (200, 202)

    def request(self, number: int) -> tuple[bytes, bytes]:
        """Head and body of a request."""
        start = number * self.per_request
        body = (
            self.documents[start]
            if self.per_request == 1
            else b"\n".join(self.documents[start : start + self.per_request])
        )
        return self.heads[number % len(self.heads)], body


class Press:
    """Makes documents; numbers them on and on, so that none comes twice in a database."""

    def __init__(
        self,
        senders: list[Sender],
        receivers: list[Receiver],
        host: str,
        *,
        addresses: list[str] | None = None,
        first: int = 0,
    ) -> None:
        """Documents go to the receivers' agencies in turn, or to `addresses`. The first one is number `first`."""
        self._senders = senders
        self._codes = addresses or [code for receiver in receivers for code in receiver.codes]
        self._host = host
        self._next = first
        self._templates: dict[tuple[int, int, bool], list[bytes]] = {}

    def _template(self, sender: int, agency: int, urgent: bool) -> list[bytes]:
        """What stands between the places of the id in a payload."""
        key = sender, agency, urgent
        if key not in self._templates:
            document = Document(
                id=_ID.format(0),
                sender=self._senders[sender].code,
                to=(self._codes[agency],),
                subject="V/v kết nối, liên thông phần mềm quản lý văn bản với trục liên thông của tỉnh",
                priority="urgent" if urgent else "normal",
                code=f"{_ID.format(0)}/UBND-VX",  # of its own, or each would repeat all before it
                type="Công văn",
                promulgation=Promulgation("Yên Bái", "2026-03-05"),
                signer=Person("Nguyễn Văn An", "Chủ tịch"),
                content="-",
            )
            room = PAYLOAD_BYTES - len(write_document(document)) + 1
            text = (_TEXT * 8).encode()[:room].decode(errors="ignore")
            text += "." * (room - len(text.encode()))
            payload = write_document(Document(**{**_members(document), "content": text}))
            self._templates[key] = payload.split(_ID.format(0).encode())
        return self._templates[key]

    def payload(self, sender: int, number: int) -> bytes:
        """What is signed of the document with this number."""
        agency = agency_of(number, len(self._senders), len(self._codes))
        return _ID.format(number).encode().join(self._template(sender, agency, number % URGENT_EVERY == 0))

    def heads(self, media_type: str, size: int) -> list[bytes]:
        """The head of a request with a body of `size` bytes, by sender."""
        return [
            (
                f"POST /v1/messages HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {sender.token}\r\n"
                f"Content-Type: {media_type}\r\nContent-Length: {size}\r\n\r\n"
            ).encode()
            for sender in self._senders
        ]

    def make(self, requests: int, per_request: int) -> Corpus:
        """Sign the documents of `requests` requests (about 30 µs each)."""
        first = self._next
        documents = []
        for request in range(requests):
            sender = request % len(self._senders)
            sign = self._senders[sender].signer.sign
            for number in range(self._next, self._next + per_request):
                documents.append(sign(self.payload(sender, number)))
            self._next += per_request
        size = len(documents[0]) * per_request + per_request - 1
        media_type = "application/jose" if per_request == 1 else "application/x-ndjson"
        return Corpus(first, per_request, documents, self.heads(media_type, size))


def agency_of(number: int, senders: int, agencies: int) -> int:
    """The place of the agency to which document `number` goes. Each sender writes to each of them in turn."""
    return (number + number // senders) % agencies


def _members(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in document.__struct_fields__}
