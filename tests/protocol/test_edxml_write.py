"""What is written is the strict form, and says again all that was read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings

from protocol.edxml import NAMESPACE
from protocol.edxml.model import Attachment, Element, Manifest, Message, MessageHeader, Organ, OtherInfo
from protocol.edxml.reader import read_message
from protocol.edxml.writer import write_message
from protocol.problems import Problem
from tests.support.edxml_full import FULL
from tests.support.edxml_made import MESSAGES
from tests.support.edxml_messages import document, status, write
from tests.support.edxml_samples import each_sample


def written(message: Message, contents: tuple[bytes, ...] = ()) -> bytes:
    return b"".join(write_message(message, [[content] for content in contents]))


# -- nothing is lost --------------------------------------------------------------------------------


@given(MESSAGES)
@settings(max_examples=200, deadline=None)
def test_what_was_written_is_read(message: Message) -> None:
    data = written(message, tuple(b"%d" % index * 100 for index in range(len(message.attachments))))
    reading = read_message(data, lambda index: None, routable=False)
    assert reading.message == message
    assert [content.size for content in reading.contents if content] == [100] * len(message.attachments)
    assert not [warning for warning in reading.warnings if "not kept" in warning]
    assert written(reading.message) == written(message)


def census(data: bytes) -> Counter[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Every element by path, text and attributes, as another parser sees them."""
    found: Counter[tuple[str, str, tuple[tuple[str, str], ...]]] = Counter()

    def walk(element: ET.Element, path: str) -> None:
        path = f"{path}/{element.tag.rpartition('}')[2]}"
        text = "".join((element.text or "").split()) if path.endswith("Encoded") else (element.text or "").strip()
        found[path, text, tuple(sorted(element.attrib.items()))] += 1
        for child in element:
            walk(child, path)

    walk(ET.fromstring(data), "")
    return found


@each_sample
def test_a_real_message_written_again_has_every_element_it_had(path: Path) -> None:
    data = path.read_bytes()
    files: dict[int, list[bytes]] = {}

    class Keep:
        def __init__(self, index: int) -> None:
            self.write = files.setdefault(index, []).append

    reading = read_message(data, Keep)
    again = b"".join(write_message(reading.message, [files[index] for index in range(len(files))]))
    assert census(again) == census(data)
    assert read_message(again, lambda index: None) == reading
    names = [re.findall(r"<([A-Za-z:]+)", text.decode()) for text in (data, again)]
    assert names[0] == names[1], "the same tags, with the same prefixes, in the same order"


def test_every_element_of_the_model_is_written() -> None:
    data = write(FULL)
    reading = read_message(data, lambda index: None)
    assert census(written(reading.message, (b"PK",))) == census(data)


# -- the strict form --------------------------------------------------------------------------------


def test_the_prefixes_are_those_of_the_axis() -> None:
    text = written(read_message(write(document(), "none")).message, (b"a", b"b")).decode()
    assert text.startswith(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<edXML xmlns="{NAMESPACE}">'
        f'<edXML:edXMLEnvelope xmlns:edXML="{NAMESPACE}"><edXML:edXMLHeader><edXML:MessageHeader><edXML:From>'
        "<edXML:OrganId>000.00.00.H63</edXML:OrganId>"
    )
    assert '</edXML:TraceHeaderList><Signature xmlns=""><SignedInfo>' in text
    assert (
        "<edXML:edXMLBody><edXML:edXMLManifest><edXML:Reference><edXML:ContentId>cid:a-1</edXML:ContentId>" in text
    )
    assert text.endswith(
        "</edXML:edXMLEnvelope><AttachmentEncoded>"
        "<Attachment><ContentId>cid:a-1</ContentId><AttachmentName>Báo cáo.pdf</AttachmentName>"
        f'<edXML:ContentTransferEncoded xmlns:edXML="{NAMESPACE}">YQ==</edXML:ContentTransferEncoded></Attachment>'
        "<Attachment><ContentId>CID:a-2</ContentId><AttachmentName>Phụ lục.xlsx</AttachmentName>"
        f'<edXML:ContentTransferEncoded xmlns:edXML="{NAMESPACE}">Yg==</edXML:ContentTransferEncoded></Attachment>'
        "</AttachmentEncoded></edXML>\n"
    )


@pytest.mark.parametrize("dialect", ["axis", "prefixed", "unprefixed"])
def test_a_signature_has_no_prefix(dialect: str) -> None:
    text = written(read_message(write(document(), dialect)).message).decode()
    assert "</edXML:TraceHeaderList><Signature><SignedInfo><Reference><ContentId>" in text


def test_members_stand_in_the_order_of_the_java_sdk() -> None:
    text = written(read_message(write(FULL, "go.vn")).message).decode()
    header = re.findall(
        r"<edXML:(\w+)>", text[text.index("<edXML:MessageHeader>") : text.index("</edXML:MessageHeader>")]
    )
    expected = [
        "From", "To", "DocumentId", "Code", "PromulgationInfo", "DocumentType", "Subject", "Content", "SignerInfo",
        "DueDate", "OtherInfo", "ResponseFor", "SteeringType", "ToPlaces", "ResponseForTask", "ApplicationType",
    ]  # fmt: skip
    assert sorted(set(expected), key=header.index) == expected
    assert header[header.index("Priority") :][:10] == [
        "Priority", "SphereOfPromulgation", "TyperNotation", "PromulgationAmount", "PageAmount", "ReplyFors",
        "Direction", "ReferenceCodes", "Appendixes", "Appendix",
    ]  # fmt: skip


def test_a_status_stands_in_the_order_of_status_messages() -> None:
    more = [("To", [("OrganId", "")])]
    tree = status(more=more)  # type: ignore[arg-type]
    text = written(read_message(write(tree, "unprefixed")).message).decode()
    assert re.findall(r"<edXML:(\w+)>", text)[2:] == [
        "From", "OrganId", "OrganName", "To", "OrganId",
        "ResponseFor", "OrganId", "Code", "PromulgationDate", "DocumentId",
        "StaffInfo", "Department", "Staff", "StatusCode", "Description", "Timestamp",
    ]  # fmt: skip
    assert "edXMLBody" not in text
    assert "AttachmentEncoded" not in text


def test_absent_members_are_not_written_and_empty_ones_are() -> None:
    message = Message(header=MessageHeader(sender=Organ(organ_id="H63", fax=""), other_info=OtherInfo()))
    text = written(message).decode()
    assert "<edXML:Fax></edXML:Fax></edXML:From><edXML:OtherInfo></edXML:OtherInfo>" in text
    assert "Email" not in text


def test_a_manifest_says_its_version() -> None:
    assert b'<edXML:edXMLManifest version="1.0">' in written(Message(header=MessageHeader(), manifest=Manifest()))


# -- what cannot be written -------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["\0", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800"])
def test_characters_that_xml_has_not(bad: str) -> None:
    with pytest.raises(Problem) as caught:
        write_message(Message(header=MessageHeader(sender=Organ(organ_name=f"Sở{bad}"))))
    assert caught.value.code == "bad-edxml"
    assert [path for path, _ in caught.value.fields] == ["T.MessageHeader.From.OrganName"]
    with pytest.raises(Problem):
        write_message(Message(header=MessageHeader(), extras=(Element("x", (("a", bad),)),)))


@pytest.mark.parametrize(
    "name", ["", "a b", "a>", "1a", "-a", "a:b", "{urn:x}", "{urn:x}a/", "xmlns", "{\0}a", 'a="1"']
)
def test_names_that_would_be_something_else(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        write_message(Message(header=MessageHeader(), extras=(Element(name),)))
    with pytest.raises(ValueError, match="no name"):
        write_message(Message(header=MessageHeader(attributes=((name, "1"),))))


def test_contents_without_an_attachment() -> None:
    with pytest.raises(ValueError, match="2 contents for 1 attachments"):
        write_message(Message(header=MessageHeader(), attachments=(Attachment(),)), [[b"a"], [b"b"]])


def test_an_attachment_without_content() -> None:
    message = Message(header=MessageHeader(), attachments=(Attachment(content_id="a"), Attachment(content_id="b")))
    data = b"".join(write_message(message, [None, [b"x", b"", b"yz"]]))
    reading = read_message(data, lambda index: None, routable=False)
    assert reading.message == message
    assert reading.contents[0] is None
    assert reading.contents[1] is not None
    assert reading.contents[1].size == 3
