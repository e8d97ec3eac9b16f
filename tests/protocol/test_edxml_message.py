"""A whole edXML message is read: every element, in every dialect, and nothing is lost or understood otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from protocol.edxml import NAMESPACE, read
from protocol.edxml.model import (
    Attachment,
    Bussiness,
    BussinessDocumentInfo,
    Code,
    Element,
    Error,
    ErrorList,
    Manifest,
    Message,
    MessageHeader,
    Organ,
    OrganIdList,
    OtherInfo,
    Receiver,
    ReceiverList,
    Reference,
    ReplacementInfo,
    ReplacementInfoList,
    ResponseFor,
    ResponseForTask,
    SignerInfo,
    StaffInfo,
    TraceHeader,
    TraceHeaderList,
)
from protocol.edxml.reader import MessageReader, read_message
from protocol.edxml.values import content_id, line
from protocol.edxml.writer import write_message
from protocol.problems import Problem
from tests.support.edxml_full import FULL
from tests.support.edxml_made import ROUTABLE
from tests.support.edxml_messages import DOCUMENT, Tree, as_dotnet, by_name, document, status, write
from tests.support.edxml_samples import each_sample


def message_of(data: bytes) -> Message:
    return read_message(data).message


# -- every element ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [lambda tree: tree, by_name], ids=["in order", "backwards"])
@pytest.mark.parametrize("dialect", ["axis", "prefixed", "unprefixed", "none", "root only", "e-doc", "go.vn"])
def test_every_element_of_a_document(dialect: str, order: Callable[[Tree], Tree]) -> None:
    message = message_of(write(order(FULL), dialect))
    header = message.header
    assert header.sender == Organ(
        organ_id="000.00.00.H63", organization_in_charge="UBND tỉnh Yên Bái", organ_name="Sở Nội vụ",
        organ_add="Số 2, phường Đồng Tâm", email="vt@example.vn", telephone="0216 3852", fax="",
        website="example.vn",
    )  # fmt: skip
    assert header.to == (Organ(organ_id="G22"),)
    assert (header.document_id, header.subject, header.content) == ("số 1", "Trích yếu", "Nội dung")
    assert header.code == Code(code_number="215", code_notation="BC-UBND")
    assert header.promulgation_info is not None
    assert (header.promulgation_info.place, header.promulgation_info.promulgation_date) == (
        "Yên Bái",
        "2017/10/02",
    )
    kind = header.document_type
    assert kind is not None
    assert (kind.type, kind.type_detail, kind.type_name) == ("1", "0", "Báo cáo")
    assert header.signer_info == SignerInfo(
        competence="KT. CHỦ TỊCH", position="Phó Chủ tịch", full_name="Đặng Ánh"
    )
    assert (header.due_date, header.steering_type, header.application_type) == ("2017/10/16", "3", "2")
    other = header.other_info
    assert other is not None
    assert other.appendixes is not None
    assert sorted(other.appendixes.appendix) == ["Phụ lục 1", "Phụ lục 2"]
    assert other == OtherInfo(
        priority="1", sphere_of_promulgation="Nội bộ", typer_notation="TVC", promulgation_amount="2",
        page_amount="3", reply_fors="không", direction="false", reference_codes="1;2",
        appendixes=other.appendixes, secret="",
    )  # fmt: skip
    assert header.response_for == (
        ResponseFor(organ_id="G22", code="9/VPCP", document_id="hỏi", promulgation_date="x"),
        ResponseFor(organ_id="G14"),
    )
    assert header.to_places is not None
    assert header.to_places.place == ("Như trên", "Lưu: VT")
    assert header.response_for_task == ResponseForTask(task_code=("T1", "T2"))
    assert message.trace == TraceHeaderList(
        trace_header=(TraceHeader(organ_id="H63", timestamp="2017/10/02 08:15:30"),),
        bussiness=Bussiness(
            document_id="cũ",
            bussiness_doc_type="2",
            bussiness_doc_reason="Sai ngày",
            paper="0",
            replacement_info_list=ReplacementInfoList(
                replacement_info=(
                    ReplacementInfo(document_id="cũ-1", organ_id_list=OrganIdList(organ_id=("H1", "H2"))),
                )
            ),
            bussiness_document_info=BussinessDocumentInfo(
                document_info="1",
                document_receiver="1",
                receiver_list=ReceiverList(receiver=(Receiver(organ_id="H1", receiver_type="0"),)),
            ),
            staff_info=StaffInfo(department="Văn thư", staff="Bình", email="b@x.vn", mobile="84"),
        ),
    )  # fmt: skip
    assert message.errors == ErrorList(error=(Error(code="N.MessageHeader.Subject", description="thiếu"),))
    assert len(message.signatures) == 1
    reference = Reference(
        content_id="cid:a", content_type="application/zip", description="Văn bản", attachment_name="a.pdf"
    )
    assert message.manifest == Manifest(attributes=(), reference=(reference,))
    assert message.attachments == (
        Attachment(content_id="cid:a", attachment_name="a.pdf", description="Văn bản",
                   content_type="application/zip", format="pdf"),
    )  # fmt: skip
    assert message.header_extras == message.attachment_extras == message.extras == ()
    assert not message.is_status


def test_every_element_of_a_status() -> None:
    message = message_of(write(status("06")))
    header = message.header
    assert message.is_status
    assert header.sender == Organ(organ_id="000.00.31.H63", organ_name="UBND huyện Lục Yên")
    assert header.response_for == (
        ResponseFor(
            organ_id="000.00.00.H63",
            code="215/BC-UBND",
            promulgation_date="2017/10/02",
            document_id="000.00.00.H63,2017/10/02,215/BC-UBND",
        ),
    )
    assert header.staff_info == StaffInfo(department="Văn thư", staff="Lê Văn Cường")
    assert (header.status_code, header.description) == ("06", "Đã vào sổ văn bản đến")
    assert header.timestamp == "2017/10/02 09:05:00"
    assert message == Message(header=header)


@pytest.mark.parametrize("order", [lambda tree: tree, by_name, as_dotnet], ids=["java", "backwards", "dotnet"])
@pytest.mark.parametrize("dialect", ["axis", "prefixed", "unprefixed", "none", "root only", "e-doc", "go.vn"])
def test_dialects_give_one_message(dialect: str, order: Callable[[Tree], Tree]) -> None:
    message = message_of(write(order(document()), dialect))
    expected = message_of(DOCUMENT)
    assert (message.header, message.trace, message.manifest) == (
        expected.header,
        expected.trace,
        expected.manifest,
    )
    assert message.attachments == expected.attachments
    assert len(message.signatures) == 1
    assert message.extras == message.header_extras == ()


@pytest.mark.parametrize("name", ["Bussiness", "Business"])
def test_business_in_either_spelling(name: str) -> None:
    message = message_of(write(FULL).replace(b"Bussiness", name.encode()))
    assert message.trace == message_of(write(FULL)).trace


# -- before 2016 ------------------------------------------------------------------------------------

SOAP = """<?xml version="1.0" encoding="UTF-8"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xlink="http://www.w3.org/1999/xlink"
            xmlns:edXML="http://www.e-doc.vn/Schema/">
<s:Header>
  <edXML:MessageHeader><edXML:From><edXML:OrganId>H63</edXML:OrganId></edXML:From>
  <edXML:To><edXML:OrganId>G22</edXML:OrganId></edXML:To><edXML:DocumentId>số 1</edXML:DocumentId>
  <edXML:OtherInfo><edXML:Secret>Mật</edXML:Secret></edXML:OtherInfo>
  </edXML:MessageHeader>
</s:Header>
<s:Body><edXML:Manifest edXML:version="1.0">
  <edXML:Reference xlink:href="cid:tep-1@example.vn" xlink:type="simple">
    <edXML:Description>Tệp kèm theo</edXML:Description></edXML:Reference>
</edXML:Manifest></s:Body>
</s:Envelope>""".encode()


def test_a_soap_envelope_with_its_attachments_elsewhere() -> None:
    reading = read_message(SOAP)
    assert reading.header == read(SOAP, whole=True)
    assert reading.header is not None
    assert (reading.header.sender, reading.header.recipients, reading.header.secret) == ("H63", ("G22",), "Mật")
    assert [reference.content_id for reference in reading.header.references] == ["tep-1@example.vn"]
    assert "SOAP" in reading.warnings[0]
    message = reading.message
    assert message.header.other_info is not None
    assert message.header.other_info.secret == "Mật"
    assert message.manifest is not None
    assert message.manifest.reference[0].description == "Tệp kèm theo"
    assert message_of(b"".join(write_message(message))) == message


def test_a_soap_envelope_of_something_else_is_refused() -> None:
    data = SOAP.replace(b"edXML:MessageHeader", b"edXML:GetPendingDocumentIds")
    with pytest.raises(Problem) as caught:
        read_message(data)
    assert caught.value.fields[0][0] == "M.edXML"
    assert NAMESPACE in caught.value.detail


# -- ragged -----------------------------------------------------------------------------------------


def test_what_the_model_does_not_know_is_kept() -> None:
    data = DOCUMENT.replace(b"<edXML:To>", b'<edXML:To id="7"><x:y xmlns:x="urn:x" x:z="1">m<b/>n</x:y>', 1)
    data = data.replace(b"</edXML:edXMLHeader>", b"<edXML:DigitalSignature/></edXML:edXMLHeader>")
    data = data.replace(b"<Attachment>", b"<Ghi/><Attachment>", 1).replace(b"</edXML>", b"<Sau>c</Sau></edXML>")
    message = message_of(data)
    known = Element("{urn:x}y", (("{urn:x}z", "1"),), ("m", Element(f"{{{NAMESPACE}}}b"), "n"))
    assert message.header.to[0].attributes == (("id", "7"),)
    assert message.header.to[0].extras == (known,)
    assert message.header_extras == (Element(f"{{{NAMESPACE}}}DigitalSignature"),)
    assert message.attachment_extras == (Element(f"{{{NAMESPACE}}}Ghi"),)
    assert message.extras == (Element(f"{{{NAMESPACE}}}Sau", (), ("c",)),)
    assert message_of(b"".join(write_message(message))) == message


def test_of_repeated_fields_the_first_counts_and_the_second_is_kept() -> None:
    message = message_of(write(document(more=[("Subject", "Khác"), ("Code", [("CodeNumber", "9")])])))
    assert message.header.subject == "Về việc kết nối, liên thông văn bản điện tử <đợt 2> & chữ ký số"
    assert message.header.extras == (Element(f"{{{NAMESPACE}}}Subject", (), ("Khác",)),)
    assert message.header.code == Code(
        code_number="215", code_notation="BC-UBND", extras=(Element(f"{{{NAMESPACE}}}CodeNumber", (), ("9",)),)
    )


def test_fields_with_elements_and_parts_with_text_are_kept_as_they_are() -> None:
    data = write(document()).replace(b"<edXML:Content>", b"<edXML:Content><b/>")
    data = data.replace(
        b"<edXML:DocumentType>", b"<edXML:DocumentType>1</edXML:DocumentType><edXML:DocumentType>", 1
    )
    header = message_of(data).header
    assert header.content is None
    assert [element.name.rpartition("}")[2] for element in header.extras] == ["DocumentType", "Content"]
    assert header.document_type is not None
    assert header.document_type.type == "14"


def test_absent_empty_nil_and_blank_are_told_apart() -> None:
    data = write(document()).replace(
        b"<edXML:Fax></edXML:Fax>", b"<edXML:Fax/><edXML:Website> \r\n</edXML:Website>"
    )
    nil = b'<edXML:Telephone xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:nil="true"/><edXML:Fax/>'
    sender = message_of(data.replace(b"<edXML:Fax/>", nil)).header.sender
    assert sender is not None
    assert (sender.email, sender.telephone, sender.fax, sender.website) == (None, None, "", " \n")


def test_what_is_lost_is_said() -> None:
    data = DOCUMENT.replace(b"<edXML:Subject>", b'<edXML:Subject lang="vi">').replace(
        b"<edXML:Code>", b"<edXML:Code>z"
    )
    reading = read_message(data)
    assert [warning for warning in reading.warnings if "not kept" in warning] == [
        "the attribute lang of Subject is not kept",
        "text beside the elements of Code is not kept",
    ]
    assert not [warning for warning in read_message(DOCUMENT).warnings if "not kept" in warning]


def test_in_pieces_of_any_size() -> None:
    expected = read_message(DOCUMENT, lambda index: None)
    for size in (1, 7, 1000, 1 << 20):
        reader = MessageReader(lambda index: None)
        for start in range(0, len(DOCUMENT), size):
            reader.feed(DOCUMENT[start : start + size])
        assert reader.close() == expected
    assert read_message(io.BytesIO(DOCUMENT), lambda index: None) == expected


@pytest.mark.parametrize(
    "data", [b"", b"   ", b"{}", DOCUMENT[:-1], DOCUMENT + b"x", b"<!DOCTYPE edXML>" + DOCUMENT]
)
def test_what_is_dangerous_or_broken_is_refused_as_in_routing(data: bytes) -> None:
    with pytest.raises(Problem) as routing:
        read(data, whole=True)
    with pytest.raises(Problem) as whole:
        read_message(data)
    assert whole.value.members() == routing.value.members()


def test_what_cannot_be_routed_is_refused_or_read_all_the_same() -> None:
    data = write(document(sender="", to=()))
    with pytest.raises(Problem) as caught:
        read_message(data)
    reading = read_message(data, routable=False)
    assert reading.header is None
    assert reading.problem is not None
    assert reading.problem.fields == caught.value.fields
    assert reading.message.header.document_id == "000.00.00.H63,2017/10/02,215/BC-UBND"


def test_a_business_type_that_stands_twice_is_refused() -> None:
    """Of two, one system might see a recall and another a new document."""
    data = write(document(business=[("BussinessDocType", "0"), ("BussinessDocType", "1")]))
    with pytest.raises(Problem) as caught:
        read(data)
    assert caught.value.fields[0][0] == "M.TraceHeaderList.Bussiness.BussinessDocType"


@given(ROUTABLE)
@settings(max_examples=150, deadline=None)
def test_the_message_says_what_the_hub_routes_by(message: Message) -> None:
    reading = read_message(b"".join(write_message(message)))
    header, made = reading.header, message.header
    assert header is not None
    assert header.sender == line(made.sender.organ_id if made.sender else "")
    assert (header.kind == "status") == message.is_status == reading.message.is_status
    parties = made.response_for if message.is_status else made.to
    assert header.recipients == tuple(dict.fromkeys(line(party.organ_id) for party in parties))
    if not message.is_status:
        assert header.document_id == line(made.document_id)
        assert header.subject == line(made.subject)
    references = message.manifest.reference if message.manifest else ()
    filled = [
        item
        for item in references
        if any(map(line, (item.content_id, item.content_type, item.description, item.attachment_name)))
    ]
    assert [item.content_id for item in header.references] == [content_id(item.content_id) for item in filled]


@each_sample
def test_real_messages_are_read_without_a_remainder(path: Path) -> None:
    reading = read_message(path.read_bytes(), lambda index: None)
    assert reading.warnings == ()
    message = reading.message
    assert message.extras == message.header_extras == message.attachment_extras == message.header.extras == ()
    assert [content is not None for content in reading.contents] == [True] * len(message.attachments)


def test_the_header_alone_is_a_message() -> None:
    assert Message(header=MessageHeader(status_code="01")).is_status
    assert not Message(header=MessageHeader()).is_status
    assert not Message(header=MessageHeader(status_code=" ", to=(Organ(organ_id="G22"),))).is_status
    assert Message(header=MessageHeader(status_code="", to=(Organ(organ_id="null"),))).is_status
