"""One side speaks the axis's interface, the other the hub's own: documents, files, states and refusals."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import aiohttp
import orjson
import pybase64
import pytest

from hub.directory import change
from protocol import edxml
from protocol.client import Document, new_id
from protocol.client.hub import describe_file
from protocol.edxml import convert
from protocol.edxml.reader import read_message
from protocol.evidence import read_receipt, verify_receipt
from protocol.manifest import seal_documents
from protocol.message import Person, Promulgation, Reference
from protocol.signature import from_jwk
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import Axis, add_system, connect, paper, state
from tests.support.axis_sdk import SdkError
from tests.support.parties import DAI_SON, LUC_YEN, NAMES, PROVINCE, VAN_YEN
from tests.support.until import until


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    """Both have both; in these tests the province uses the hub's own interface."""
    return await connect(hub, http)


def letter(axis: Axis, *to: str, **members: object) -> Document:
    members = {
        "code": "215/BC-UBND",
        "type": "Báo cáo",
        "subject": "Báo cáo kết quả kết nối, liên thông",
        "priority": "urgent",
        "promulgation": Promulgation("Yên Bái", "2026-03-02"),
        "signer": Person("Đặng Thị Ngọc Ánh", "Phó Chủ tịch", "KT. CHỦ TỊCH"),
        "content": "Nội dung văn bản",
        **members,
    }
    return axis.province.party.document(*(to or (VAN_YEN,)), **members)


async def received(axis: Axis, kind: str = "edoc") -> bytes:
    """The one message that the district's system finds, as it gets it; taken by both calls, and acknowledged."""
    sdk = axis.district.sdk
    (entry,) = await sdk.get_received_edoc_list(kind)
    raw = await sdk.get_edoc(entry["docId"])
    assert await sdk.download_edoc(entry["docId"]) == raw
    await sdk.update_status(entry["docId"], "done")
    return raw


# -- from the hub's own interface to the axis's -----------------------------------------------------


async def test_a_native_document_comes_as_edxml(axis: Axis) -> None:
    document = letter(axis, VAN_YEN, DAI_SON, due="2026-03-16")
    async with axis.province.party.client(axis.hub.url) as client:
        sent = await client.send(document)
        (entry,) = await axis.district.sdk.get_received_edoc_list()
        assert (entry["docId"], entry["from"], entry["to"]) == (sent.id, PROVINCE, f"{VAN_YEN};{DAI_SON}")
        raw = await received(axis)
        header = edxml.read(raw, whole=True)
        assert header.kind == "document"
        assert (header.sender, header.sender_name) == (PROVINCE, NAMES[PROVINCE])
        assert [(party.code, party.name) for party in header.parties] == [
            (VAN_YEN, NAMES[VAN_YEN]),
            (DAI_SON, NAMES[DAI_SON]),
        ]
        assert (header.document_id, header.code, header.subject) == (document.id, "215/BC-UBND", document.subject)
        assert (header.priority, header.due, header.promulgation_date) == (1, "2026-03-16", "2026-03-02")
        assert header.signer == "Đặng Thị Ngọc Ánh"
        message = read_message(raw).message
        assert convert.is_converted(message), "it says that it is a conversion"
        assert sent.id in raw.decode(), "and names the original"
        (state_,) = (await client.events(sent.id))["deliveries"]
        assert (state_["state"], state_["recipients"]) == ("acknowledged", [VAN_YEN, DAI_SON])
    async with axis.district.party.client(axis.hub.url) as reader:
        original = await reader.fetch(sent.id)
    proven = orjson.loads(sent.receipt.event)["sha256"]
    assert hashlib.sha256(original).hexdigest() == proven, "which stays as it was"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_its_files_come_inside(axis: Axis, tmp_path: Path, size: int) -> None:
    file = tmp_path / "Báo cáo số 215.pdf"
    file.write_bytes(os.urandom(size))
    async with axis.province.party.client(axis.hub.url) as client:
        await client.upload(file)
        await client.send(letter(axis, attachments=(describe_file(file, "application/pdf"),)))
    raw = await received(axis)
    (reference,) = edxml.read(raw, whole=True).references
    assert reference.name == file.name
    encoded = raw.split(b"<edXML:ContentTransferEncoded", 1)[1].split(b">", 1)[1].split(b"<", 1)[0]
    with zipfile.ZipFile(io.BytesIO(pybase64.b64decode(encoded))) as archive:
        (name,) = archive.namelist()
        assert name == f"{reference.content_id}.pdf"
        assert archive.read(name) == file.read_bytes()


async def test_a_document_of_a_manifest_comes_too(axis: Axis) -> None:
    documents = [letter(axis, subject=f"Công văn số {number}") for number in range(3)]
    manifest = seal_documents(documents, axis.province.party.signer)
    async with aiohttp.ClientSession() as session:
        headers = axis.province.party.headers | {"Content-Type": "application/vnd.lienthong.manifest"}
        async with session.post(
            f"{axis.hub.url}/v1/messages", data=manifest.to_body(), headers=headers
        ) as response:
            assert response.status == 200
    raws = await axis.district.sdk.receive()
    assert [edxml.read(raw).subject for raw in raws] == [document.subject for document in documents]


async def test_who_it_was_addressed_to_when_it_came(axis: Axis, http: aiohttp.ClientSession) -> None:
    """Groups have no place in edXML, and may have other members by the time the document is fetched."""
    await add_system(axis.hub, http, await axis.hub.register("luc-yen", LUC_YEN), "yb.lucyen")
    await change.put_group(axis.hub.connection, "huyen", [VAN_YEN, LUC_YEN])
    await axis.hub.follow()
    async with axis.province.party.client(axis.hub.url) as client:
        await client.send(letter(axis, "group:huyen", DAI_SON))
    await change.put_group(axis.hub.connection, "huyen", [LUC_YEN])
    await axis.hub.follow()
    header = edxml.read(await received(axis))
    assert set(header.recipients) == {VAN_YEN, LUC_YEN, DAI_SON}


async def test_a_native_status_comes_as_a_status(axis: Axis) -> None:
    doc_id = await axis.district.sdk.send_edoc(paper(PROVINCE, sender=VAN_YEN), VAN_YEN)
    name = await axis.hub.connection.fetchval("select document_id from message where id = $1::uuid", doc_id)
    async with axis.province.party.client(axis.hub.url) as client:
        ((entry,), _) = await client.read()
        await client.send(
            axis.province.party.document(
                VAN_YEN,
                kind="status",
                status="03",
                subject="Đã tiếp nhận, vào sổ",
                response_for=(Reference(id=name, agency=VAN_YEN, code="5/BC-UBND"),),
            )
        )
        await client.acknowledge(entry)
    assert await axis.district.sdk.get_received_edoc_list("edoc") == []
    header = edxml.read(await received(axis, "status"), whole=True)
    assert (header.kind, header.status_code, header.document_id) == ("status", "03", name)
    assert (header.sender, header.recipients) == (PROVINCE, (VAN_YEN,))
    kinds = await axis.hub.connection.fetch("select kind, business from message order by id")
    assert [tuple(row) for row in kinds] == [(0, 0), (1, 0)]


@pytest.mark.parametrize(("business", "number"), [("recall", 1), ("update", 2), ("replace", 3)])
async def test_what_a_document_does_is_kept_and_told(axis: Axis, business: str, number: int) -> None:
    async with axis.province.party.client(axis.hub.url) as client:
        await client.send(letter(axis, business=business, concerns=(Reference(id="công văn cũ"),)))
    assert await axis.hub.connection.fetchval("select business from message") == number
    header = edxml.read(await received(axis))
    assert (header.business, header.business_document_id) == (number, "công văn cũ")


async def test_a_refusal_on_the_axis_reaches_the_native_sender(axis: Axis) -> None:
    async with axis.province.party.client(axis.hub.url) as client:
        document = letter(axis)
        sent = await client.send(document)
        await axis.district.sdk.update_status(sent.id, "fail")
        ((notice,), _) = await client.read()
        assert notice.receipt is not None
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
        event = verify_receipt(read_receipt(notice.receipt.to_json()), keys.get).event
    assert (event["event"], event["message"], event["id"]) == ("refused", sent.id, document.id)
    assert event["reason"] == "the receiving system reported fail"


async def test_what_cannot_be_written_as_edxml_is_said_to_be_so(
    start_hub: StartHub, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    axis = await connect(await start_hub(max_xml_bytes=100_000), http)
    file = tmp_path / "lớn.bin"
    file.write_bytes(os.urandom(100_001))
    async with axis.province.party.client(axis.hub.url) as client:
        await client.upload(file)
        sent = await client.send(letter(axis, attachments=(describe_file(file),)))
        sdk = axis.district.sdk
        for call in (sdk.get_edoc, sdk.download_edoc):
            with pytest.raises(SdkError, match="/v1/messages") as caught:
                await call(sent.id)
            assert caught.value.code == "57"
        await sdk.update_status(sent.id, "fail")
        ((notice,), _) = await client.read()
        assert notice.format == "receipt"


async def test_a_file_that_is_missing_from_the_store(axis: Axis, tmp_path: Path) -> None:
    file = tmp_path / "mất.pdf"
    file.write_bytes(b"x" * 1000)
    async with axis.province.party.client(axis.hub.url) as client:
        await client.upload(file)
        sent = await client.send(letter(axis, attachments=(describe_file(file),)))
    axis.hub.hub.blobs.path(hashlib.sha256(file.read_bytes()).digest()).unlink()
    with pytest.raises(SdkError) as caught:
        await axis.district.sdk.get_edoc(sent.id)
    assert caught.value.code == "20"


async def test_a_file_that_breaks_off_cuts_the_answer_off(axis: Axis, tmp_path: Path) -> None:
    """Nobody may take half a document for a whole one."""
    file = tmp_path / "hỏng.bin"
    file.write_bytes(os.urandom(3_000_000))
    async with axis.province.party.client(axis.hub.url) as client:
        await client.upload(file)
        sent = await client.send(letter(axis, attachments=(describe_file(file),)))
    path = axis.hub.hub.blobs.path(hashlib.sha256(file.read_bytes()).digest())
    original = convert.entry_name

    def breaking(attachment: object) -> str:
        path.unlink()  # between the look and the reading
        return original(attachment)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub.couriers.axis_given.entry_name", breaking)
        with pytest.raises(aiohttp.ClientError):
            await axis.district.sdk.get_edoc(sent.id)
    assert len(await axis.district.sdk.get_received_edoc_list()) == 1


# -- from the axis's interface to the hub's own -----------------------------------------------------


async def test_edxml_from_the_axis_reaches_a_native_reader_as_it_is(axis: Axis) -> None:
    raw = paper(VAN_YEN, DAI_SON, priority="3")
    doc_id = await axis.province.sdk.send_edoc(raw, PROVINCE)
    async with axis.district.party.client(axis.hub.url) as client:
        ((entry,), _) = await client.read()
        assert (entry.id, entry.format, entry.lane, entry.to) == (doc_id, "edxml", "express", (VAN_YEN, DAI_SON))
        assert await client.fetch(entry) == raw
        await client.acknowledge(entry)
    lines = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert {line["receiveStatus"] for line in lines} == {"done"}
    assert await axis.district.sdk.get_received_edoc_list() == [], "one mailbox, whichever way it is read"


async def test_a_native_refusal_reaches_the_sender_on_the_axis(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    async with axis.district.party.client(axis.hub.url) as client:
        ((entry,), _) = await client.read()
        await client.refuse(entry, "Văn bản gửi nhầm địa chỉ")
    (line,) = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert line["receiveStatus"] == "fail"
    assert line["receiveStatusDesc"] == "Hệ thống nhận từ chối: Văn bản gửi nhầm địa chỉ"


async def test_a_status_from_the_axis_reaches_a_native_reader(axis: Axis) -> None:
    document = letter(axis)
    async with axis.province.party.client(axis.hub.url) as client:
        sent = await client.send(document)
        await axis.district.sdk.update_status(sent.id, "done")
        raw = state("06", document_id=document.id)
        status_id = await axis.district.sdk.send_edoc(raw, VAN_YEN, "status")
        ((entry,), _) = await client.read()
        assert (entry.id, entry.format) == (status_id, "edxml")
        header = edxml.read(await client.fetch(entry))
    assert (header.status_code, header.document_id) == ("06", document.id)
    kept = "select kind, document_id from message where id = $1::uuid"
    row = await axis.hub.connection.fetchrow(kept, status_id)
    assert tuple(row) == (1, document.id)


async def test_what_was_sent_natively_shows_on_the_axis_too(axis: Axis) -> None:
    """A system that moves from one interface to the other finds what it sent."""
    document = letter(axis, id=new_id())
    async with axis.province.party.client(axis.hub.url) as client:
        sent = await client.send(document)
    for name in (sent.id, document.id):
        (line,) = await axis.province.sdk.get_sent_edoc_list(name)
        assert (line["senderDocId"], line["title"], line["notation"]) == (sent.id, document.subject, "215/BC-UBND")

    async def taken() -> bool:
        (line,) = await axis.province.sdk.get_sent_edoc_list(sent.id)
        return bool(line["receiveStatus"] == "processing")

    await axis.district.sdk.get_edoc(sent.id)
    await until(taken, "what was fetched shows as such")


async def test_the_same_file_through_both_doors_is_one_document(axis: Axis) -> None:
    raw = paper(VAN_YEN)
    async with axis.province.party.client(axis.hub.url) as client:
        sent = await client.submit(raw, "application/xml")
        assert await axis.province.sdk.send_edoc(raw, PROVINCE) == sent.id
        assert (await client.submit(raw, "application/xml")).duplicate
