"""edXML as it is met: real messages, every dialect, and what is ragged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.edxml import NAMESPACE, Header, Party, Response
from protocol.status import State
from tests.support.edxml_messages import EXPECTED, Tree, as_dotnet, both, by_name, document, status, write

SAMPLES = Path(__file__).parents[3] / "shared" / "axis" / "samples"


# -- real messages --------------------------------------------------------------------------------


def sample(name: str) -> tuple[Header, Callable[[str], list[str]]]:
    """A real message as read, and a function that finds the texts of its elements by plain search."""
    path = SAMPLES / name
    if not path.is_file():
        pytest.skip(f"no sample messages at ../{path.relative_to(SAMPLES.parents[2])}")
    data = path.read_bytes()
    text = data.decode()
    return both(data), lambda element: re.findall(rf"<(?:edXML:)?{element}>([^<]*)<", text)


@pytest.mark.parametrize(
    ("name", "business", "recipients", "replaces"),
    [
        ("edoc_new.bak", 0, 1, 0),
        ("edoc_revocation", 1, 3, 0),
        ("edoc_update", 2, 3, 0),
        ("edoc_replacement", 3, 3, 1),
        ("874e0f18-90dc-45fb-989a-65401470ba84", 0, 1, 0),
    ],
)
def test_sample_document(name: str, business: int, recipients: int, replaces: int) -> None:
    header, found = sample(f"{name}.edxml")
    assert header.kind == "document"
    assert (header.business, len(header.recipients), len(header.replaces)) == (business, recipients, replaces)
    assert [header.sender, *header.recipients] == found("OrganId")[: 1 + recipients]
    assert [party.name for party in header.parties] == (found("OrganName")[1 : 1 + recipients] or [""])
    assert header.document_id == found("DocumentId")[0]
    assert header.code == f"{found('CodeNumber')[0]}/{found('CodeNotation')[0]}"
    assert header.type_name == found("TypeName")[0]
    assert header.subject == found("Subject")[0]
    assert header.signer == found("FullName")[0]
    assert header.priority == int(found("Priority")[0])
    assert header.promulgation_place == found("Place")[0]
    assert header.promulgation_date == found("PromulgationDate")[0].replace("/", "-")
    assert header.due == next((day.replace("/", "-") for day in found("DueDate")), None)
    assert header.timestamp == found("Timestamp")[0].replace("/", "-").replace(" ", "T") + "+07:00"
    (reference,) = header.references
    assert f"cid:{reference.content_id}" == found("ContentId")[0]
    assert reference.name == found("AttachmentName")[0]
    assert reference.media_type == found("ContentType")[0]
    assert [response.code for response in header.response_for] == [code for code in found("Code") if code.strip()]
    assert header.status_code is None
    assert header.warnings == ()


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("inbox_01", State.ARRIVED),
        ("rejection_02", State.REFUSED),
        ("acceptance_03", State.TAKEN_IN),
        ("assignment_04", State.ASSIGNED),
        ("processing_05", State.IN_PROGRESS),
        ("finish_06", State.FINISHED),
        ("cancellation_13", State.RECALL_ASKED),
        ("change-acceptance_15", State.CHANGE_AGREED),
        ("change-rejection_16", State.CHANGE_REFUSED),
    ],
)
def test_sample_status(name: str, state: State) -> None:
    header, found = sample(f"status_{name}.edxml")
    assert header.kind == "status"
    assert header.status_code is state
    assert [header.sender, *header.recipients] == found("OrganId")
    (answered,) = header.response_for
    assert [header.document_id] == [answered.document_id] == found("DocumentId")
    assert [answered.code] == found("Code")
    assert answered.date == found("PromulgationDate")[0].replace("/", "-")
    assert header.timestamp == found("Timestamp")[0].replace("/", "-").replace(" ", "T") + "+07:00"
    assert [header.status_description] == found("Description")
    assert header.references == ()
    assert header.warnings == ()


# -- dialects -------------------------------------------------------------------------------------


def without_warnings(header: Header) -> dict[str, object]:
    return {name: getattr(header, name) for name in Header.__slots__ if name != "warnings"}


@pytest.mark.parametrize("order", [lambda tree: tree, by_name, as_dotnet], ids=["java", "backwards", "dotnet"])
@pytest.mark.parametrize("dialect", ["axis", "prefixed", "unprefixed", "none", "root only", "e-doc", "go.vn"])
def test_dialects_read_alike(dialect: str, order: Callable[[Tree], Tree]) -> None:
    header = both(write(order(document()), dialect))
    assert without_warnings(header) == without_warnings(EXPECTED)
    assert bool(header.warnings) == (dialect in ("none", "e-doc", "go.vn"))
    if header.warnings:
        assert "namespace" in header.warnings[0]


def test_recipients_are_the_codes_of_the_parties() -> None:
    assert both(write(document())).recipients == ("000.00.31.H63", "H63.31.02")


def test_status_message() -> None:
    header = both(write(status()))
    assert header.kind == "status"
    assert header.sender == "000.00.31.H63"
    assert header.parties == (Party("000.00.00.H63", ""),)
    assert header.document_id == "000.00.00.H63,2017/10/02,215/BC-UBND"
    assert header.status_code is State.TAKEN_IN
    assert header.status_description == "Đã vào sổ văn bản đến"
    assert header.timestamp == "2017-10-02T09:05:00+07:00"
    assert header.response_for == (Response("000.00.00.H63", "215/BC-UBND", header.document_id, "2017-10-02"),)
    assert header.warnings == ()


def test_byte_order_mark() -> None:
    assert both(b"\xef\xbb\xbf" + write(document())) == EXPECTED


@pytest.mark.parametrize("cut", [b"edXML:edXMLEnvelope", b"edXML:edXMLHeader", b"edXML:edXMLBody"])
def test_a_missing_frame_is_tolerated(cut: bytes) -> None:
    data = write(document()).replace(b"<edXML xmlns=", b'<edXML xmlns:edXML="%s" xmlns=' % NAMESPACE.encode())
    data = data.replace(b"<" + cut + b">", b"").replace(b"</" + cut + b">", b"")
    data = (
        data.replace(b'<edXML:edXMLEnvelope xmlns:edXML="%s">' % NAMESPACE.encode(), b"")
        if b"Env" in cut
        else data
    )
    assert both(data) == EXPECTED


def test_no_prolog_and_comments_and_instructions_everywhere() -> None:
    data = write(document()).partition(b"\n")[2]
    data = data.replace(b"BC-UBND", b"BC<!-- ghi ch\xc3\xba -->-UB<?in x?>ND")
    data = (
        b'<?xml-stylesheet href="http://example.vn/a.xsl"?><!-- <!DOCTYPE a> -->\n'
        + data
        + b"<!-- h\xe1\xba\xbft -->"
    )
    assert both(data) == EXPECTED


def test_cdata_and_character_references() -> None:
    data = write(document(signer="@")).replace(b">@<", "><![CDATA[Đặng Thị]]> Ng&#7885;c &#xC1;nh<".encode())
    assert both(data) == EXPECTED


def test_elements_of_other_namespaces_are_not_ours() -> None:
    foreign = b'<x:From xmlns:x="http://example.vn/"><x:OrganId>G22</x:OrganId></x:From><x:To xmlns:x="urn:x"/>'
    data = write(document()).replace(b"<edXML:From>", foreign + b"<edXML:From>")
    assert both(data) == EXPECTED


def test_attachments_may_come_first() -> None:
    tree = document(content="QUJD" * 100_000)
    content = tree[1]
    assert isinstance(content, list)
    assert both(write((tree[0], content[::-1]))) == EXPECTED


# -- ragged, and tolerated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ("2017/10/02", "2017-10-02"),
        ("2017/1/2", "2017-01-02"),
        ("30/10/2020", "2020-10-30"),
        ("2020-10-30", "2020-10-30"),
        ("2018/09/28 23:00:00", "2018-09-28"),
        ("2025-10-22T17:00:00.000Z", "2025-10-23"),
        ("2025-10-23T00:00:00.0000000+07:00", "2025-10-23"),
        ("", None),
        ("10/30/2020", None),
        ("2014/02/30", None),
        ("0001-01-01T00:00:00", None),
        ("9999-12-31T23:59:59-07:00", None),
        ("ngày 2 tháng 10", None),
        ("２０１７/10/02", None),
    ],
)
def test_dates(given: str, read_as: str | None) -> None:
    header = both(write(document(issued=given)))
    assert header.promulgation_date == read_as
    assert len(header.warnings) == (read_as is None)
    assert both(write(document(due=given))).due == read_as


@pytest.mark.parametrize(
    ("given", "priority", "warned"),
    [
        ("0", 0, 0),
        ("4", 4, 0),
        ("", 0, 0),
        ("5", 0, 1),
        ("Khẩn", 0, 1),
        ("-1", 0, 1),
        ("٣", 0, 1),
        ("9" * 5000, 0, 1),
    ],
)
def test_priority(given: str, priority: int, warned: int) -> None:
    header = both(write(document(priority=given)))
    assert header.priority == priority
    assert len(header.warnings) == warned


def test_repeated_recipients_are_named_once() -> None:
    to = (("H63.1", "Một"), ("H63.2", "Hai"), ("H63.1", "Một nữa"), ("H63.2", ""))
    header = both(write(document(to=to)))
    assert header.parties == (Party("H63.1", "Một"), Party("H63.2", "Hai"))
    assert header.warnings == ("MessageHeader.To.OrganId names an agency more than once; the first counts",)


def test_repeated_description_counts_once() -> None:
    header = both(write(document(more=[("Subject", "Khác")])))
    assert header.subject == EXPECTED.subject
    assert header.warnings == ("MessageHeader.Subject stands more than once; the first counts",)


def test_empty_groups_are_absent() -> None:
    empty: list[Tree] = [("To", []), ("To", [("OrganId", ""), ("OrganName", "")]), ("ResponseFor", [("Code", "")])]
    assert both(write(document(more=empty))) == EXPECTED


def test_text_is_one_line_without_margins() -> None:
    assert both(write(document(subject="\n  Dòng một\r\n\t  dòng  hai \n"))).subject == "Dòng một dòng  hai"


def test_the_word_null_is_nothing() -> None:
    header = both(write(document(signer="null")))
    assert header.signer == ""
    assert header.warnings == ("MessageHeader.SignerInfo.FullName is the word null; taken as empty",)


def test_what_may_be_absent() -> None:
    minimal: Tree = ("edXML", [("MessageHeader", [("From", [("OrganId", "H63")]), ("To", [("OrganId", "G22")]),
                                                  ("DocumentId", "số 1")])])  # fmt: skip
    header = both(write(minimal, "prefixed"))
    assert (header.sender, header.recipients, header.document_id) == ("H63", ("G22",), "số 1")
    assert (header.code, header.subject, header.priority, header.business) == ("", "", 0, 0)
    assert header.due is header.promulgation_date is header.timestamp is header.business_document_id is None
    assert (header.references, header.response_for, header.warnings) == ((), (), ())


@pytest.mark.parametrize("name", ["Bussiness", "Business"])
def test_business(name: str) -> None:
    data = write(document(business=[("BussinessDocType", "2"), ("DocumentId", "gốc")]))
    header = both(data.replace(b"Bussiness", name.encode()))
    assert (header.business, header.business_document_id, header.replaces) == (2, "gốc", ())


def test_replacement() -> None:
    infos: list[Tree] = [("ReplacementInfo", [("DocumentId", name), ("OrganIdList", [("OrganId", "G22")])])
                         for name in ("cũ-1", "cũ-2", "cũ-1")]  # fmt: skip
    header = both(write(document(business=[("BussinessDocType", "3"), ("ReplacementInfoList", infos)])))
    assert (header.business, header.business_document_id, header.replaces) == (3, "cũ-1", ("cũ-1", "cũ-2"))


def test_unknown_business_is_warned_about() -> None:
    header = both(write(document(business=[("BussinessDocType", "7")])))
    assert header.business == 0
    assert len(header.warnings) == 1


def test_a_document_without_business() -> None:
    assert both(write(document(business=[]))) == EXPECTED


def test_reference_without_content_id() -> None:
    header = both(write(document(references=(("", "a.pdf"), ("cid:", "b.pdf")))))
    assert [reference.content_id for reference in header.references] == ["", ""]
    assert header.warnings == ("edXMLManifest.Reference.ContentId is missing",)


@pytest.mark.parametrize(
    ("given", "read_as", "warned"), [("3", State.TAKEN_IN, 1), ("07", "07", 1), ("16", "16", 0)]
)
def test_status_codes(given: str, read_as: str, warned: int) -> None:
    header = both(write(status(given)))
    assert header.status_code == read_as
    assert isinstance(header.status_code, State) == (read_as != "07")
    assert len(header.warnings) == warned


def test_a_status_may_have_recipients_and_several_documents() -> None:
    more: list[Tree] = [
        ("To", [("OrganId", "G22")]),
        ("ResponseFor", [("OrganId", "G14"), ("DocumentId", "khác")]),
    ]
    header = both(write(status(more=more)))
    assert header.recipients == ("000.00.00.H63", "G14")
    assert len(header.response_for) == 2
    assert len(header.warnings) == 1


def test_an_empty_status_code_does_not_make_a_status_of_a_document() -> None:
    assert both(write(document(more=[("StatusCode", "")]))) == EXPECTED


def test_a_status_needs_no_document_id() -> None:
    header = both(write(status()).replace(b"DocumentId>", b"Document>"))
    assert header.document_id == ""
    assert header.warnings == ("MessageHeader.ResponseFor.DocumentId is missing",)
