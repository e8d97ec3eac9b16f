"""Business states: routed to whose document it is, resolved by agency, in whichever format either side writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from protocol.client import HubClient
from protocol.evidence import read_receipt
from protocol.message import Promulgation, Reference
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.axis_parties import add_system, paper, state
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party

XML = "application/xml"


def report(party: Party, document_id: str, code: str, **members: Any) -> Any:
    """A native status by `party` to the province about its document."""
    members.setdefault("response_for", (Reference(document_id, agency=PROVINCE),))
    to = members.pop("to", PROVINCE)
    return party.document(to, kind="status", status=code, subject="", **members)


async def states(client: HubClient, message: str) -> dict[str, Any]:
    """By agency, what the timeline says of states."""
    return {found["agency"]: found for found in (await client.events(message)).get("states", [])}


async def test_a_native_status_reaches_the_sender_and_stands_in_the_timeline(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="215/BC-UBND"))
    for code in ("01", "03", "06"):
        await pair.receiver.send(report(pair.district, "215/BC-UBND", code))
    entries, _ = await pair.sender.read()
    assert [entry.sender for entry in entries] == [VAN_YEN] * 3
    found = (await states(pair.sender, sent.id))[VAN_YEN]
    assert (found["current"], found["label"], found["handling"]) == ("06", "Đã hoàn thành", "06")
    assert [item["code"] for item in found["reports"]] == ["01", "03", "06"]
    assert [item["message"] for item in found["reports"]] == [entry.id for entry in entries]
    assert (await states(pair.sender, "215/BC-UBND"))[VAN_YEN] == found


async def test_states_out_of_order_and_repeated_are_kept_and_resolved(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="216/BC-UBND"))
    noon = datetime(2026, 3, 2, 5, tzinfo=UTC)
    for code, minutes in (("05", 30), ("03", 10), ("03", 20), ("01", 0), ("07", 40)):
        status = report(pair.district, "216/BC-UBND", code, at=noon + timedelta(minutes=minutes))
        await pair.receiver.send(status)
    found = (await states(pair.sender, sent.id))[VAN_YEN]
    assert found["current"] == "05"
    assert [(item["code"], item.get("note")) for item in found["reports"]] == [
        ("01", "late"),
        ("03", "late"),
        ("03", "repeated"),
        ("05", None),
        ("07", "unknown"),
    ]
    assert found["reports"][0]["at"] == "2026-03-02T05:00:00.000000Z"


async def test_each_agency_has_states_of_its_own_and_sees_no_others(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    parties = {VAN_YEN: await hub.register("van-yen", VAN_YEN), LUC_YEN: await hub.register("luc-yen", LUC_YEN)}
    async with province.client(hub.url) as sender:
        sent = await sender.send(province.document(VAN_YEN, LUC_YEN, id="217/BC-UBND"))
        for code, party in zip(("03", "02"), parties.values(), strict=True):
            async with party.client(hub.url) as receiver:
                await receiver.send(report(party, "217/BC-UBND", code))
        found = await states(sender, sent.id)
        assert {agency: item["current"] for agency, item in found.items()} == {VAN_YEN: "03", LUC_YEN: "02"}
        async with parties[LUC_YEN].client(hub.url) as receiver:
            assert await states(receiver, sent.id) == {LUC_YEN: found[LUC_YEN]}


async def test_a_status_of_an_unknown_document_is_relayed_and_says_so(pair: Pair) -> None:
    sent = await pair.receiver.send(report(pair.district, "chưa hề gửi", "03"))
    ((entry,), _) = await pair.sender.read()
    assert entry.id == sent.id
    timeline = await pair.receiver.events(sent.id)
    assert timeline["kind"] == "status"
    unknown = {"id": "chưa hề gửi", "relation": "state", "reference": "unknown", "from": PROVINCE, "status": "03"}
    assert timeline["speaks_of"] == [unknown]
    # It is known once the document comes, and counts then.
    document = await pair.sender.send(pair.province.document(VAN_YEN, id="chưa hề gửi"))
    assert (await states(pair.sender, document.id))[VAN_YEN]["current"] == "03"
    (known,) = (await pair.receiver.events(sent.id))["speaks_of"]
    assert (known["reference"], known["message"]) == ("known", document.id)


async def test_whoever_never_got_the_document_cannot_report_on_it(pair: Pair) -> None:
    await pair.sender.send(pair.province.document(VAN_YEN, id="218/BC-UBND"))
    outsider = await pair.hub.register("luc-yen", LUC_YEN)
    forged = outsider.client(pair.hub.url)
    async with forged:
        raw = forged.sign(report(outsider, "218/BC-UBND", "02"))
        with pytest.raises(Problem) as refused:
            await forged.submit(raw)
        assert refused.value.code == "not-addressed"
        event = await pair.check(orjson.dumps(refused.value.extra["receipt"]), raw)
        assert (event["event"], event["code"]) == ("rejected", "not-addressed")
        # Nor by leaving out whose document it is, nor among others that it may report on.
        own = await pair.sender.send(pair.province.document(LUC_YEN, id="219/BC-UBND"))
        both = (Reference("219/BC-UBND", agency=PROVINCE), Reference("218/BC-UBND", agency=PROVINCE))
        for response_for in ((Reference("218/BC-UBND"),), both):
            with pytest.raises(Problem) as refused:
                await forged.send(report(outsider, "", "02", response_for=response_for))
            assert refused.value.code == "not-addressed"
        assert await states(pair.sender, own.id) == {}
    assert (await pair.sender.read())[0] == []


async def test_a_forgery_that_came_before_the_document_counts_for_nothing(pair: Pair) -> None:
    outsider = await pair.hub.register("luc-yen", LUC_YEN)
    async with outsider.client(pair.hub.url) as early:
        await early.send(report(outsider, "220/BC-UBND", "02"))
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="220/BC-UBND"))
    assert await states(pair.sender, sent.id) == {}


async def test_states_in_edxml_count_for_a_native_document_and_reach_its_sender_as_json(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="221/BC-UBND"))
    raw = state("03", document_id="221/BC-UBND")
    status = await pair.receiver.submit(raw, XML)
    ((entry,), _) = await pair.sender.read()
    assert (entry.id, entry.format) == (status.id, "edxml")
    given = await pair.sender.document(status.id)
    assert (given["converted"], given["format"]) == (True, "edxml")
    document = given["document"]
    assert (document["kind"], document["status"], document["from"]) == ("status", "03", VAN_YEN)
    assert document["response_for"][0]["id"] == "221/BC-UBND"
    assert document["converted_from"] == "edxml"
    assert (await pair.sender.fetch(status.id)) == raw
    found = (await states(pair.sender, sent.id))[VAN_YEN]
    assert (found["current"], found["reports"][0]["at"]) == ("03", "2017-10-02T02:05:00.000000Z")


async def test_native_states_count_for_an_edxml_document_and_reach_its_sender_as_edxml(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    province = await add_system(hub, http, await hub.register("ubnd-tinh", PROVINCE), "yb.tinh")
    district = await hub.register("van-yen", VAN_YEN)
    raw = paper(VAN_YEN)
    document_id = raw.decode().split("DocumentId>")[1].split("<")[0]
    sent = await province.sdk.send_edoc(raw, PROVINCE)
    async with district.client(hub.url) as receiver:
        status = await receiver.send(report(district, document_id, "05"))
    (line,) = await province.sdk.get_received_edoc_list("status")
    assert line["docId"] == status.id
    converted = await province.sdk.get_edoc(status.id)
    assert b"StatusCode>05<" in converted and document_id.encode() in converted
    async with province.party.client(hub.url) as sender:
        assert (await states(sender, sent))[VAN_YEN]["current"] == "05"


async def test_a_document_is_given_in_the_form_that_is_asked_for(pair: Pair) -> None:
    native = await pair.sender.send(pair.province.document(VAN_YEN, id="222/BC-UBND", subject="Báo cáo quý"))
    raw = paper(VAN_YEN, subject="Báo cáo năm", content="VsSDbiBi4bqjbg==")
    edxml = await pair.sender.submit(raw, XML)
    own = await pair.receiver.document(native.id)
    assert (own["converted"], own["document"]["subject"]) == (False, "Báo cáo quý")
    made = await pair.receiver.document(edxml.id)
    assert (made["converted"], made["document"]["subject"]) == (True, "Báo cáo năm")
    assert made["document"]["id"] == raw.decode().split("DocumentId>")[1].split("<")[0]
    (attachment,) = made["document"]["attachments"]
    _, body = await pair.receiver._transport.request("GET", f"/v1/attachments/{attachment['sha256']}")
    assert body.decode() == "Văn bản"
    for message, expected in ((native.id, "true"), (edxml.id, "false")):
        address = f"{pair.hub.url}/v1/messages/{message}/edxml"
        async with aiohttp.request("GET", address, headers=pair.district.headers) as response:
            assert (response.status, response.content_type) == (200, XML)
            assert response.headers["Lienthong-Converted"] == expected
            body = await response.read()
        assert body == raw if expected == "false" else "Báo cáo quý" in body.decode()


async def test_times_and_deadlines_are_shown(pair: Pair) -> None:
    old = Promulgation("Yên Bái", "2026-03-06")  # a Friday
    sent = await pair.sender.send(
        pair.province.document(VAN_YEN, id="223/BC-UBND", promulgation=old, due="2026-03-20")
    )
    times = (await pair.sender.events(sent.id))["times"]
    assert (times["issued"], times["due"]) == ("2026-03-06", "2026-03-20")
    assert times["send_by"] == "2026-03-09T05:00:00.000000Z"
    assert times["late"] and times["overdue"]
    await pair.receiver.send(report(pair.district, "223/BC-UBND", "03"))
    assert (await states(pair.sender, sent.id))[VAN_YEN]["overdue"]
    await pair.receiver.send(report(pair.district, "223/BC-UBND", "06"))
    assert "overdue" not in (await states(pair.sender, sent.id))[VAN_YEN]


async def test_a_refusal_by_a_system_of_the_axis_reaches_a_native_sender_with_its_reason(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await add_system(hub, http, await hub.register("van-yen", VAN_YEN, DAI_SON), "yb.vanyen.01")
    async with province.client(hub.url) as sender:
        sent = await sender.send(province.document(VAN_YEN, id="224/BC-UBND"))
        asked = {"status": "fail", "docId": sent.id, "reason": "Gui nham noi nhan"}
        (await district.sdk.call("/updateStatus", district.sdk.sign(asked), b"{}")).ok()
        ((entry,), _) = await sender.read()
        assert entry.receipt is not None
        event = orjson.loads(read_receipt(entry.receipt.to_json()).event)
        assert (event["event"], event["message"], event["reason"]) == ("refused", sent.id, "Gui nham noi nhan")


async def test_a_native_document_has_no_entry_in_the_index_of_names(pair: Pair) -> None:
    """The hot path pays for nothing that only others need."""
    await pair.sender.send(pair.province.document(VAN_YEN, id="225/BC-UBND"))
    row = await pair.hub.connection.fetchrow(
        "select document_id, (select count(*) from reference) as references from message"
    )
    assert (row["document_id"], row["references"]) == (None, 0)
