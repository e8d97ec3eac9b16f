"""Every call of the axis's interface, by a double of its SDK that knows nothing of this hub."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import orjson
import pytest

from protocol import edxml
from protocol.ids import uuid7
from protocol.vxp import local_time
from tests.conftest import RunningHub
from tests.support.axis_parties import Axis, add_system, connect, paper, state
from tests.support.axis_sdk import SdkError
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN
from tests.support.until import until

SAMPLES = Path(__file__).parents[3] / "shared" / "axis" / "samples"


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


# -- sending and receiving --------------------------------------------------------------------------


async def test_a_document_goes_from_system_to_system(axis: Axis) -> None:
    """/sendEdoc, /getReceivedEdocList, /getEdoc, /updateStatus: what an integrator does all day."""
    raw = paper(VAN_YEN)
    doc_id = await axis.province.sdk.send_edoc(raw, PROVINCE)
    district = axis.district.sdk
    (entry,) = await district.get_received_edoc_list()
    accepted_at = await axis.hub.connection.fetchval("select accepted_at from message")
    assert entry == {
        "docId": doc_id,
        "serviceType": "eDoc",
        "messageType": "edoc",
        "created_time": local_time(accepted_at),
        "updated_time": local_time(accepted_at),
        "from": PROVINCE,
        "to": VAN_YEN,
        "status": "new",
        "status_desc": "Chờ nhận",
    }
    assert await district.get_edoc(doc_id) == raw
    assert await district.download_edoc(doc_id) == raw
    assert await district.get_received_edoc_list() == [entry], "it stays until it is done"
    assert await district.update_status(doc_id, "done") == {"status": "OK", "ErrorCode": "0", "ErrorDesc": ""}
    assert await district.get_received_edoc_list() == []
    assert await district.update_status(doc_id, "done"), "twice changes nothing"
    assert await district.get_edoc(doc_id) == raw, "what was taken can be fetched again"
    kinds = await axis.hub.connection.fetch("select kind, reason from progress")
    assert [tuple(row) for row in kinds] == [(0, None)]


async def test_what_the_samples_say_arrives_unaltered(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the samples of the national axis lie outside the repository")
    codes: set[str] = set()
    for path in SAMPLES.glob("*.edxml"):
        header = edxml.read(path.read_bytes())
        codes |= {header.sender, *header.recipients}
    system = await add_system(hub, http, await hub.register("truc", *sorted(codes)), "vxp.saas.03")
    paths = sorted(SAMPLES.glob("*.edxml"))
    assert len(paths) >= 10
    for path in paths:
        raw, header = path.read_bytes(), edxml.read(path.read_bytes())
        kind = "edoc" if header.kind == "document" else "status"
        doc_id = await system.sdk.send_edoc(raw, header.sender, kind)
        ((entry,), others) = (
            await system.sdk.get_received_edoc_list(kind),
            await system.sdk.get_received_edoc_list("status" if kind == "edoc" else "edoc"),
        )
        assert (entry["docId"], entry["messageType"], entry["from"]) == (doc_id, kind, header.sender)
        assert set(entry["to"].split(";")) == set(header.recipients) and others == []
        assert await system.sdk.get_edoc(doc_id) == raw
        await system.sdk.update_status(doc_id, "done")


async def test_a_document_for_several_agencies_of_a_system_is_listed_once(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN, DAI_SON, "H63"), "H63")
    (entry,) = await axis.district.sdk.get_received_edoc_list()
    assert (entry["docId"], entry["to"]) == (doc_id, f"{VAN_YEN};{DAI_SON}")
    (own,) = await axis.province.sdk.get_received_edoc_list()
    assert (own["docId"], own["to"], own["from"]) == (doc_id, PROVINCE, PROVINCE)
    await axis.district.sdk.update_status(doc_id, "done")
    assert len(await axis.province.sdk.get_received_edoc_list()) == 1, "one system's end is not another's"


async def test_the_same_bytes_again_are_the_same_document(axis: Axis) -> None:
    raw = paper(VAN_YEN)
    first = await axis.province.sdk.send_edoc(raw, PROVINCE)
    assert await axis.province.sdk.send_edoc(raw, PROVINCE) == first
    assert len(await axis.district.sdk.get_received_edoc_list()) == 1
    await axis.district.sdk.update_status(first, "done")
    assert await axis.province.sdk.send_edoc(raw, PROVINCE) == first
    assert await axis.district.sdk.get_received_edoc_list() == [], "nor does it come again"
    assert await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE) != first


async def test_documents_and_statuses_are_asked_for_apart(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    status_id = await axis.district.sdk.send_edoc(state("03"), VAN_YEN, "status")
    back_id = await axis.district.sdk.send_edoc(paper(PROVINCE, sender=VAN_YEN), VAN_YEN)
    province = axis.province.sdk
    assert [entry["docId"] for entry in await province.get_received_edoc_list("status")] == [status_id]
    assert [entry["docId"] for entry in await province.get_received_edoc_list("edoc")] == [back_id]
    assert [entry["docId"] for entry in await axis.district.sdk.get_received_edoc_list()] == [doc_id]
    assert await province.count_receive_edoc() == 1
    assert await province.count_receive_status() == 1
    assert await axis.district.sdk.count_receive_status() == 0
    assert edxml.read(await province.get_edoc(status_id)).status_code == "03"
    await province.update_status(status_id, "done")
    assert await province.get_received_edoc_list("status") == []


@pytest.mark.parametrize("priority", ["0", "1", "3"])
async def test_the_most_urgent_comes_first_and_of_those_the_oldest(axis: Axis, priority: str) -> None:
    ids = {}
    for number in range(3):
        for each in ("0", priority):
            ids[number, each] = await axis.province.sdk.send_edoc(paper(VAN_YEN, priority=each), PROVINCE)
    order = [entry["docId"] for entry in await axis.district.sdk.get_received_edoc_list()]
    if priority == "0":
        assert order == sorted(order)
    else:
        assert order == [ids[number, each] for each in (priority, "0") for number in range(3)]


async def pieces(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 100_000):
        yield raw[start : start + 100_000]


@pytest.mark.parametrize("size", [1, 786_431, 786_432, 786_433, 5_000_000])
async def test_a_document_of_any_size_comes_and_goes_in_pieces(axis: Axis, size: int) -> None:
    """Around the size of a piece, where base64 would show a gap; and as a blob."""
    raw = paper(VAN_YEN, content="QUJD" * (size // 4))
    raw += b" " * (size % 3)
    headers = axis.province.sdk.sign(
        {
            "from": PROVINCE,
            "servicetype": "eDoc",
            "messagetype": "edoc",
            "hash-file": hashlib.sha256(raw).hexdigest(),
        },
        "application/octet-stream",
    )
    doc_id = (await axis.province.sdk.call("/sendEdoc", headers, pieces(raw))).ok()["DocId"]
    assert await axis.district.sdk.get_edoc(doc_id) == raw
    assert await axis.district.sdk.download_edoc(doc_id) == raw
    blobs = [path for path in axis.hub.hub.blobs.root.rglob("*") if path.is_file()]
    assert [path.name for path in blobs] == ([hashlib.sha256(raw).hexdigest()] if len(raw) > 1 << 20 else [])


async def test_a_body_that_waits_to_be_asked_for(axis: Axis) -> None:
    raw = paper(VAN_YEN)
    doc_id = await axis.province.sdk.send_edoc(raw, PROVINCE, expect100=True)
    sdk = axis.district.sdk
    headers = sdk.sign({"docId": doc_id, "filePath": "C:\\Văn bản đến\\a.edxml"})
    assert (await sdk.call("/getEdoc", headers, b"{}", expect100=True)).ok()["data"]


async def test_docid_is_spelled_in_two_ways(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    sdk = axis.district.sdk
    for name in ("docid", "docId", "DocID"):
        assert (await sdk.call("/getEdoc", sdk.sign({name: doc_id}), b"{}")).ok()["data"]
        assert (await sdk.call("/updateStatus", sdk.sign({name: doc_id, "status": "done"}), b"{}")).ok()


# -- acknowledging ----------------------------------------------------------------------------------


async def test_processing_is_noted_and_ends_nothing(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    sdk = axis.district.sdk
    for _ in range(2):
        await sdk.update_status(doc_id, "processing")
        (entry,) = await sdk.get_received_edoc_list()
        assert (entry["docId"], entry["status"], entry["status_desc"]) == (doc_id, "processing", "Đang xử lý")
    noted = await axis.hub.connection.fetchval("select at from axis_note")
    assert entry["updated_time"] == local_time(noted)
    (line,) = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert (line["receiveStatus"], line["receivedTime"]) == ("processing", "")
    await sdk.update_status(doc_id, "done")
    assert await axis.hub.connection.fetchval("select count(*) from axis_note") == 0


async def test_fail_refuses_and_the_sender_sees_it(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN, DAI_SON), PROVINCE)
    await axis.district.sdk.update_status(doc_id, "fail")
    assert await axis.district.sdk.get_received_edoc_list() == []
    lines = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert [line["toCode"] for line in lines] == [VAN_YEN, DAI_SON]
    assert {line["receiveStatus"] for line in lines} == {"fail"}
    assert all(line["receiveStatusDesc"].startswith("Hệ thống nhận từ chối") for line in lines)
    await axis.district.sdk.update_status(doc_id, "done")
    lines = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert lines[0]["receiveStatus"] == "fail", "it stays as it ended"


async def test_fail_with_a_reason(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    sdk = axis.district.sdk
    parameters = {"docId": doc_id, "status": "fail", "reason": "Sai noi nhan"}
    (await sdk.call("/updateStatus", sdk.sign(parameters), b"{}")).ok()
    (line,) = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert line["receiveStatusDesc"] == "Hệ thống nhận từ chối: Sai noi nhan"


async def test_statuses_of_the_transport_are_three(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    for wrong in ("03", "đã nhận", "read"):
        with pytest.raises(SdkError, match="edXML message of its own") as caught:
            sdk = axis.district.sdk
            headers = sdk.sign({"docId": doc_id, "status": wrong})
            (await sdk.call("/updateStatus", headers, b"{}")).ok()
        assert caught.value.code == "50"
    assert len(await axis.district.sdk.get_received_edoc_list()) == 1


async def test_what_the_system_did_not_get(axis: Axis) -> None:
    mine = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    sender = axis.province.sdk
    for doc_id in (mine, str(uuid4()), str(uuid7()), "1", "000.00.00.H63,2026/03/02,1/BC-UBND", "'; drop table x"):
        for call in (sender.get_edoc, sender.download_edoc):
            with pytest.raises(SdkError) as caught:
                await call(doc_id)
            assert caught.value.code == "55"
        for status in ("done", "fail", "processing"):
            with pytest.raises(SdkError) as caught:
                await sender.update_status(doc_id, status)
            assert caught.value.code == "55"
    assert len(await axis.district.sdk.get_received_edoc_list()) == 1


# -- what became of it ------------------------------------------------------------------------------


async def test_the_sender_sees_each_recipient(axis: Axis, http: aiohttp.ClientSession) -> None:
    far = await add_system(axis.hub, http, await axis.hub.register("luc-yen", LUC_YEN), "yb.lucyen")
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN, LUC_YEN, DAI_SON, subject="Công văn khẩn"), PROVINCE)
    sent = {line["toCode"]: line for line in await axis.province.sdk.get_sent_edoc_list(doc_id)}
    assert set(sent) == {VAN_YEN, LUC_YEN, DAI_SON}
    accepted_at = await axis.hub.connection.fetchval("select accepted_at from message")
    number = edxml.read(await far.sdk.get_edoc(doc_id)).code
    assert sent[VAN_YEN] == {
        "serviceType": "eDoc",
        "messageType": "edoc",
        "senderDocId": doc_id,
        "receiverDocId": doc_id,
        "fromCode": PROVINCE,
        "toCode": VAN_YEN,
        "title": "Công văn khẩn",
        "notation": number,
        "sendStatus": "done",
        "sendStatusDesc": "Trục liên thông đã nhận",
        "receiveStatus": "new",
        "receiveStatusDesc": "Chờ hệ thống nhận lấy về",
        "sentTime": local_time(accepted_at),
        "receivedTime": "",
    }
    await axis.district.sdk.update_status(doc_id, "done")

    async def handed() -> bool:
        lines = await axis.province.sdk.get_sent_edoc_list(doc_id)
        return {line["toCode"]: line["receiveStatus"] for line in lines} == {
            VAN_YEN: "done",
            DAI_SON: "done",
            LUC_YEN: "processing",
        }

    await until(handed, "what was fetched and not acknowledged is shown as such")
    ended = {line["toCode"]: line for line in await axis.province.sdk.get_sent_edoc_list(doc_id)}
    at = await axis.hub.connection.fetchval("select at from progress")
    assert ended[VAN_YEN]["receivedTime"] == local_time(at)
    assert ended[LUC_YEN]["receivedTime"] == ""


async def test_a_document_is_found_by_its_own_id_too(axis: Axis) -> None:
    raw = paper(VAN_YEN)
    again = raw.replace("Báo cáo phòng".encode(), "BÁO CÁO phòng".encode())
    ids = [await axis.province.sdk.send_edoc(each, PROVINCE) for each in (raw, again)]
    name = edxml.read(raw).document_id
    found = await axis.hub.hub.readers.fetchval("select count(*) from message where document_id = $1", name)
    assert found == 2
    sdk = axis.province.sdk
    # HTTP carries this id as UTF-8, as the double writes it.
    assert [line["senderDocId"] for line in await sdk.get_sent_edoc_list(name)] == ids


async def test_what_the_system_did_not_send(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    for sdk, name in ((axis.district.sdk, doc_id), (axis.province.sdk, str(uuid4())), (axis.province.sdk, "x")):
        with pytest.raises(SdkError) as caught:
            await sdk.get_sent_edoc_list(name)
        assert caught.value.code == "55"
    with pytest.raises(SdkError, match="docid is missing") as caught:
        await axis.province.sdk.get_sent_edoc_list("")
    assert caught.value.code == "50"


async def test_a_large_document_is_described_from_its_blob(axis: Axis) -> None:
    raw = paper(VAN_YEN, subject="Tài liệu lớn", content="QUJD" * 500_000)
    doc_id = await axis.province.sdk.send_edoc(raw, PROVINCE)
    (line,) = await axis.province.sdk.get_sent_edoc_list(doc_id)
    assert line["title"] == "Tài liệu lớn"


async def test_notices_are_no_documents_and_do_not_stay(axis: Axis) -> None:
    """What is refused shows in the list of what was sent; the hub's receipt of it is no edXML."""
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    await axis.district.sdk.update_status(doc_id, "fail")
    sdk = axis.province.sdk
    assert await sdk.get_received_edoc_list("edoc") == [] == await sdk.get_received_edoc_list("status")
    assert (await sdk.count_receive_edoc(), await sdk.count_receive_status()) == (0, 0)
    notice = await axis.hub.connection.fetchrow("select * from message where kind = 2")
    assert notice["document_id"] == doc_id
    stays = notice["expires_at"] - notice["accepted_at"]
    assert timedelta(days=6) < stays <= timedelta(days=7), "it leaves by itself"
    with pytest.raises(SdkError):
        await sdk.get_edoc(str(notice["id"]))
    # Whoever uses the hub's own interface beside it reads it there.
    async with axis.province.party.client(axis.hub.url) as client:
        ((entry,), _) = await client.read()
    assert entry.format == "receipt" and entry.receipt is not None
    assert orjson.loads(entry.receipt.event)["message"] == doc_id
    await axis.hub.connection.execute("update message set expires_at = now() - interval '1 s' where kind = 2")
    await axis.hub.hub.chores.expire()
    async with axis.province.party.client(axis.hub.url) as client:
        assert (await client.read())[0] == []


async def test_a_notice_to_a_native_endpoint_stays(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await add_system(hub, http, await hub.register("van-yen", VAN_YEN), "yb.vanyen")
    async with province.client(hub.url) as client:
        sent = await client.submit(paper(VAN_YEN), "application/xml")
    await district.sdk.update_status(sent.id, "fail")
    assert await hub.connection.fetchval("select expires_at from message where kind = 2") is None
