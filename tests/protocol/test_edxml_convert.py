"""edXML to native and back, both ways round, and end to end with the files."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from protocol import message as native
from protocol.edxml import Header, model
from protocol.edxml.check import check
from protocol.edxml.convert import (
    MARK,
    REASONS,
    entry_name,
    from_native,
    is_converted,
    native_attachment,
    to_native,
)
from protocol.edxml.model import Message
from protocol.edxml.reader import read_message
from protocol.edxml.wrapping import ZIP_TYPE, unwrap, wrap
from protocol.edxml.writer import write_message
from protocol.message import Attachment, Document, Person, Promulgation, Reference, read_document, write_document
from protocol.problems import Problem
from tests.support.edxml_made import ROUTABLE, documents
from tests.support.edxml_messages import document, status, write
from tests.support.edxml_samples import each_sample

SENT = datetime(2026, 3, 2, 1, 2, 3, tzinfo=UTC)


def nobody(code: str) -> model.Organ | None:
    return None


def native_of(data: bytes, message_id: str = "") -> Document:
    return to_native(read_message(data).message, message_id=message_id)


def written(message: Message) -> bytes:
    return b"".join(write_message(message))


# -- both ways round --------------------------------------------------------------------------------


@given(documents())
@settings(max_examples=250, deadline=None)
def test_native_to_edxml_and_back_is_the_same(made: Document) -> None:
    message = read_message(written(from_native(made, SENT, nobody))).message
    back = to_native(message, made.attachments, made.id if made.kind == "status" else "")
    assert back.converted_from == "edxml"
    assert msgspec.structs.replace(back, converted_from=None) == made
    assert is_converted(message)
    assert not [fault for fault in check(message) if fault.fatal]


COMMON = [
    "kind", "sender", "recipients", "document_id", "code", "type_name", "subject", "due", "promulgation_place",
    "promulgation_date", "signer", "business", "business_document_id", "replaces", "status_code",
    "status_description", "timestamp",
]  # fmt: skip


def common(header: Header | None) -> dict[str, Any]:
    """What of a header the common model has, with the liberties that `convert` names."""
    assert header is not None
    found = {name: getattr(header, name) for name in COMMON}
    found["priority"] = min(header.priority, 3)
    found["answers"] = [(item.document_id or item.code, item.code, item.date) for item in header.response_for]
    return found


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_edxml_to_native_and_back_is_the_same(order: int) -> None:
    business = [
        [("BussinessDocType", "0")],
        [("BussinessDocType", "1"), ("DocumentId", "cũ"), ("BussinessDocReason", "Sai thẩm quyền")],
        [("BussinessDocType", "2"), ("DocumentId", "cũ"), ("BussinessDocReason", REASONS[2])],
        [("BussinessDocType", "3"), ("ReplacementInfoList", [("ReplacementInfo", [("DocumentId", "cũ")])])],
    ][order]
    before = read_message(write(document(business=business)))  # type: ignore[arg-type]
    made = to_native(before.message)
    after = read_message(written(from_native(made, SENT, nobody)))
    assert common(after.header) == common(before.header)


@each_sample
def test_real_messages_to_native_and_back(path: Path) -> None:
    before = read_message(path.read_bytes(), lambda index: None)
    files = [
        native_attachment(before.message, index, content.size, content.sha256, unpacked=True)
        for index, content in enumerate(before.contents)
        if content
    ]
    made = to_native(before.message, files, "trạng thái" if before.message.is_status else "")
    assert read_document(write_document(made)) == made
    after = read_message(written(from_native(made, SENT, nobody)))
    expected, found = common(before.header), common(after.header)
    if made.business == "new":  # a builder's left-over, which says nothing of a new document
        expected["business_document_id"] = None
    if made.business == "recall":  # names what it recalls by its own id alone
        expected["business_document_id"] = made.id
    if made.business == "replace":  # names the same document twice
        assert len(made.concerns) == 1
    assert found == expected
    assert [item.name for item in after.header.references] == [item.name for item in files]  # type: ignore[union-attr]


@given(ROUTABLE)
@settings(max_examples=150, deadline=None)
def test_whatever_was_routed_becomes_a_document_that_the_hub_accepts(message: Message) -> None:
    made = to_native(message, message_id="x" if message.is_status else "")
    assert read_document(write_document(made)) == made
    again = to_native(from_native(made, SENT, nobody), message_id=made.id)
    assert (again.sender, again.to, again.kind, again.status) == (made.sender, made.to, made.kind, made.status)
    assert (again.business, again.concerns[:1], again.priority) == (
        made.business,
        made.concerns[:1],
        made.priority,
    )


# -- what becomes of what ---------------------------------------------------------------------------


def test_a_document_as_native() -> None:
    more = [("ResponseFor", [("OrganId", "Bộ Nội vụ"), ("Code", "7/BNV")]), ("ResponseFor", [("OrganId", "G14")])]
    made = native_of(write(document(more=more, priority="4", signer="null")))  # type: ignore[arg-type]
    assert made == Document(
        id="000.00.00.H63,2017/10/02,215/BC-UBND",
        sender="000.00.00.H63",
        to=("000.00.31.H63", "H63.31.02"),
        subject="Về việc kết nối, liên thông văn bản điện tử <đợt 2> & chữ ký số",
        priority="express",
        code="215/BC-UBND",
        type="Báo cáo",
        promulgation=Promulgation("Yên Bái", "2017-10-02"),
        signer=Person("", "Phó Chủ tịch", ""),
        due="2017-10-16",
        response_for=(
            Reference("hỏi-9", "G22", "9/VPCP-TTĐT", "2017-09-20"),
            Reference("7/BNV", None, "7/BNV"),
        ),
        content="Nội dung không được đọc",
        at=datetime(2017, 10, 2, 1, 15, 30, tzinfo=UTC),
        converted_from="edxml",
    )


def test_a_status_as_native() -> None:
    made = native_of(write(status("3")), "trạng thái 1")
    assert made == Document(
        id="trạng thái 1",
        sender="000.00.31.H63",
        to=("000.00.00.H63",),
        subject="Đã vào sổ văn bản đến",
        kind="status",
        status="03",
        response_for=(
            Reference("000.00.00.H63,2017/10/02,215/BC-UBND", "000.00.00.H63", "215/BC-UBND", "2017-10-02"),
        ),
        at=datetime(2017, 10, 2, 2, 5, tzinfo=UTC),
        converted_from="edxml",
    )
    assert read_document(write_document(made)) == made


def test_a_recall_of_a_document_speaks_of_the_senders_own() -> None:
    (answer,) = native_of(write(status("13")), "x").response_for
    assert answer.agency == "000.00.31.H63"
    back = from_native(native_of(write(status("13")), "x"), SENT, nobody)
    assert [item.organ_id for item in back.header.response_for] == ["000.00.00.H63"]


def test_a_status_that_names_no_document_cannot_be_converted() -> None:
    data = write(status()).replace(b"DocumentId>", b"X>").replace(b"edXML:Code>", b"edXML:Y>")
    with pytest.raises(Problem) as caught:
        native_of(data, "x")
    assert caught.value.fields[0][0] == "N.MessageHeader.ResponseFor.DocumentId"


def test_what_cannot_be_routed_cannot_be_converted() -> None:
    with pytest.raises(Problem) as caught:
        to_native(read_message(write(document(to=())), routable=False).message)
    assert caught.value.fields[0][0] == "N.MessageHeader.To.OrganId"


def test_long_ids_become_digests_and_long_texts_are_cut() -> None:
    long = "số " + "1" * 200
    made = native_of(write(document(document_id=long, subject="ă" * 3000, number="1" * 80, type_name="ă" * 200)))
    assert made.id == "sha256:" + hashlib.sha256(long.encode()).hexdigest()
    assert (len(made.subject), len(made.code), len(made.type)) == (2000, 50, 100)
    assert read_document(write_document(made)) == made


def test_a_native_document_as_edxml() -> None:
    made = Document(
        id="215", sender="H63", to=("group:so", "G22"), subject="Trích yếu\0", priority="very_urgent",
        code="215/BC/UBND", type="Báo cáo", business="recall", concerns=(Reference("214"),),
        response_for=(Reference("7", "G22"),),
    )  # fmt: skip
    directory = {"H63": model.Organ(organ_id="khác", organ_name="UBND tỉnh", email="a@example.vn")}
    message = from_native(
        made, SENT, directory.get, lambda address: ["H63.1", "H63.2"] if ":" in address else [address], "tin số 9"
    )
    header = message.header
    assert header.sender == model.Organ(organ_id="H63", organ_name="UBND tỉnh", email="a@example.vn")
    assert [organ.organ_id for organ in header.to] == ["H63.1", "H63.2", "G22"]
    assert header.subject == "Trích yếu\ufffd"
    assert header.code == model.Code(code_number="215", code_notation="BC/UBND")
    assert header.other_info == model.OtherInfo(priority="2")
    assert header.response_for == (model.ResponseFor(organ_id="G22", document_id="7"),)
    clerk = model.StaffInfo(department=MARK, staff="tin số 9")
    assert message.trace == model.TraceHeaderList(
        trace_header=(model.TraceHeader(organ_id="H63", timestamp="2026/03/02 08:02:03"),),
        bussiness=model.Bussiness(
            document_id="214", bussiness_doc_type="1", bussiness_doc_reason=REASONS[1], paper="0", staff_info=clerk
        ),
    )
    assert message.manifest is None
    assert not message.is_status


def test_a_native_status_as_edxml() -> None:
    made = Document(
        id="x", sender="H63.31", to=("G22", "G14"), kind="status", status="02",
        response_for=(Reference("7", "G22"), Reference("8", "G14"), Reference("9")),
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    message = from_native(made, SENT, nobody)
    header = message.header
    assert message.is_status
    assert message.trace is None
    assert (header.status_code, header.description) == ("02", "Từ chối tiếp nhận")
    assert header.timestamp == "2026/01/01 07:00:00"
    assert [(item.organ_id, item.document_id) for item in header.response_for] == [
        ("G22", "7"), ("G22", "9"), ("G14", "8"), ("G14", "9")
    ]  # fmt: skip
    assert header.staff_info == model.StaffInfo(department=MARK)
    assert is_converted(message)
    assert not is_converted(read_message(write(status())).message)


def test_groups_need_somebody_who_knows_them() -> None:
    with pytest.raises(Problem) as caught:
        from_native(Document(id="1", sender="H63", to=("group:so",)), SENT, nobody)
    assert caught.value.code == "recipient-unknown"


@pytest.mark.parametrize(
    ("code", "number", "notation"),
    [
        ("215/BC-UBND", "215", "BC-UBND"),
        ("BC-UBND", "BC-UBND", None),
        ("/BC", "/BC", None),
        ("215/", "215/", None),
    ],
)
def test_symbols(code: str, number: str, notation: str | None) -> None:
    message = from_native(Document(id="1", sender="H63", to=("G22",), code=code), SENT, nobody)
    assert message.header.code == model.Code(code_number=number, code_notation=notation)
    assert to_native(message).code == code


# -- with their files -------------------------------------------------------------------------------


def test_files_go_there_and_back() -> None:
    files = {"Báo cáo.pdf": b"%PDF-1.7" + bytes(range(256)), "Phụ lục.zip": b"PK\x03\x04 x", "khong-duoi": b""}
    attachments = tuple(
        Attachment(
            name, len(data), hashlib.sha256(data).hexdigest(), "application/pdf" if "pdf" in name else "x/y"
        )
        for name, data in files.items()
    )
    made = Document(id="1", sender="H63", to=("G22",), attachments=attachments, at=SENT)
    message = from_native(made, SENT, nobody)
    zips = [
        wrap(entry_name(attachment), [data])
        for attachment, data in zip(message.attachments, files.values(), strict=True)
    ]
    data = b"".join(write_message(message, zips))
    assert not [fault for fault in check(message) if "Attachment" in fault.code or "Manifest" in fault.code]

    packed: dict[int, io.BytesIO] = {}
    reading = read_message(data, lambda index: packed.setdefault(index, io.BytesIO()))
    found = []
    for index, attachment in enumerate(reading.message.attachments):
        assert attachment.content_type == ZIP_TYPE
        pieces = unwrap(packed[index], ZIP_TYPE, attachment.attachment_name or "", 1 << 20)
        assert pieces is not None
        plain = b"".join(pieces)
        digest = hashlib.sha256(plain).hexdigest()
        found.append(native_attachment(reading.message, index, len(plain), digest, unpacked=True))
    back = to_native(reading.message, found)
    assert [item.sha256 for item in back.attachments] == [item.sha256 for item in attachments]
    assert [item.name for item in back.attachments] == list(files)
    assert [item.media_type for item in back.attachments] == [
        "application/pdf",
        ZIP_TYPE,
        "application/octet-stream",
    ]


def test_an_attachment_takes_its_name_from_where_there_is_one() -> None:
    data = write(document(references=(("cid:a", "../Báo cáo.docx"),)))
    message = read_message(data).message
    unnamed = message.attachments[0].__class__(content_id="CID:a", content_type=" ")
    message = msgspec.structs.replace(message, attachments=(unnamed,))
    found = native_attachment(message, 0, 3, "ab" * 32, unpacked=False)
    assert found.name == "Báo cáo.docx"
    assert found.media_type.endswith("wordprocessingml.document")
    declared = msgspec.structs.replace(
        message, attachments=(msgspec.structs.replace(unnamed, content_type="x/y"),)
    )
    assert native_attachment(declared, 0, 3, "ab" * 32, unpacked=False).media_type == "x/y"
    assert native.Attachment("tep-dinh-kem", 3, "ab" * 32) == native_attachment(
        Message(header=model.MessageHeader(), attachments=(model.Attachment(),)), 0, 3, "ab" * 32, unpacked=True
    )


def test_new_members_of_a_native_document_change_no_bytes_of_old_ones() -> None:
    old = b'{"id":"7","from":"H63","to":["G22"]}'
    assert write_document(read_document(old)) == old
    made = Document(
        id="7",
        sender="H63",
        to=("G22",),
        concerns=(Reference("6"),),
        reason="Sai ngày",
        at=SENT,
        converted_from="edxml",
    )
    assert read_document(write_document(made)) == made
    with pytest.raises(Problem):
        read_document(b'{"id":"7","from":"H63","to":["G22"],"at":"2026-03-02T01:02:03"}')
    with pytest.raises(Problem):
        read_document(b'{"id":"7","from":"H63","to":["G22"],"reason":"a\\nb"}')
