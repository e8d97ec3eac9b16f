"""A link upwards, to an axis that misbehaves: nothing is lost or doubled, and whoever has to know is told."""

from __future__ import annotations

import aiohttp
import orjson
import pytest

from hub.directory import change, links
from hub.store import sql
from protocol import edxml
from tests.conftest import RunningHub, StartHub
from tests.support import link_scene
from tests.support.axis_parties import add_system, paper
from tests.support.fake_axis import HTML, FakeAxis, Fault, fails, hangs_up, says
from tests.support.link_scene import Linked, link_up
from tests.support.linked import (
    GOVERNMENT_OFFICE,
    UP,
)
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

SQL = sql.load("links")

impatient_couriers, axis, linked = link_scene.impatient_couriers, link_scene.axis, link_scene.linked


async def test_a_document_goes_up_as_edxml_with_a_trace_of_this_hub(linked: Linked) -> None:
    message = await linked.send(subject="V/v triển khai chữ ký số")
    await linked.ended(message, "acknowledged")
    (sent,) = linked.axis.sent
    header = edxml.read(sent.body)
    assert (sent.sender, sent.kind) == (VAN_YEN, "edoc")
    assert (header.sender, header.recipients) == (VAN_YEN, (GOVERNMENT_OFFICE,))
    assert header.subject == "V/v triển khai chữ ký số"
    assert "Lienthong (bản chuyển đổi)".encode() in sent.body
    assert sent.body.count(b"<edXML:TraceHeader>") == 2
    assert sent.body.rindex(PROVINCE.encode()) > sent.body.index(b"<edXML:TraceHeader>")
    (row,) = await linked.hub.connection.fetch("select * from link_transfer")
    assert (str(row["message"]), row["peer_id"], row["tries"], row["error"]) == (message, sent.doc_id, 1, None)
    assert not list((linked.hub.hub.blobs.root / "links").rglob("*.*")), "what went over leaves no file behind"


async def test_edxml_goes_up_as_it_is_but_for_the_trace(
    hub: RunningHub, axis: FakeAxis, http: aiohttp.ClientSession
) -> None:
    parties = await link_up(hub, axis)
    system = await add_system(hub, http, parties.district, "yb.vanyen")
    raw = paper(GOVERNMENT_OFFICE, sender=VAN_YEN)
    await system.sdk.send_edoc(raw, VAN_YEN)
    (sent,) = await until(lambda: list(axis.sent), "it went up")
    new = sent.body[sent.body.index(b"<edXML:TraceHeader><edXML:OrganId>" + PROVINCE.encode()) :]
    new = new[: new.index(b"</edXML:TraceHeader>") + len(b"</edXML:TraceHeader>")]
    assert sent.body.replace(new, b"") == raw


@pytest.mark.parametrize(
    "fault",
    [
        fails("20"),
        fails("53", "lặp lại"),
        fails("1", "mã lạ"),
        says(HTML, "text/html"),
        says(HTML, "text/html", 502),
        says(b"", status=500),
        says(b'{"status":"OK","ErrorCode":"0"'),
        says(b'{"status":"OK","ErrorCode":"0","ErrorDesc":""}'),
        says(b'{"status":"OK","ErrorCode":"0","DocId":"a\\r\\nX: 1"}'),
        says(b"[]"),
        hangs_up,
    ],
    ids=["20", "53", "unknown", "html", "502", "500", "cut", "no-docid", "evil-docid", "list", "hang-up"],
)
async def test_what_fails_is_sent_again_with_the_same_bytes(linked: Linked, fault: Fault) -> None:
    linked.axis.faults["sendEdoc"] = [fault, fault]
    message = await linked.send()
    await linked.ended(message, "acknowledged")
    assert len(linked.axis.tried) == 3
    assert len(set(linked.axis.tried)) == 1
    assert len(linked.axis.sent) == 1
    (row,) = await linked.hub.connection.fetch("select * from link_transfer")
    assert (row["tries"], row["error"]) == (3, None)

    async def noted() -> bool:
        row = await linked.row()
        return row["last_error"] is not None and row["failures"] == 0 and row["sent"] == 1

    await until(noted, "the failure is shown")


@pytest.mark.parametrize("code", ["18", "19", "21", "22", "23", "57", "58"])
async def test_what_the_peer_will_not_have_is_refused_and_its_sender_told_why(linked: Linked, code: str) -> None:
    linked.axis.refusing["tử thần".encode()] = (code, "Không có đơn vị nhận này")
    bad = await linked.send(subject="văn bản tử thần")
    good = await linked.send(subject="văn bản lành")
    await linked.ended(good, "acknowledged")
    found = await linked.ended(bad, "refused")
    assert found["reason"] == f"{UP}: code {code}: Không có đơn vị nhận này"
    entries, _ = await linked.sender.read(10, 10.0)
    event = orjson.loads(entries[0].receipt.event)
    assert (event["event"], event["message"]) == ("refused", bad)
    assert len(linked.axis.sent) == 1

    async def counted() -> bool:
        return (await linked.row())["refused_there"] == 1

    await until(counted, "it is counted")
    (failed,) = await linked.hub.connection.fetch(SQL.failed_transfers, (await linked.row())["endpoint"], 10)
    assert (str(failed["message"]), failed["refused"]) == (bad, True)


async def test_one_message_that_fails_does_not_stop_the_others(linked: Linked) -> None:
    linked.axis.refusing["văn bản khó".encode()] = ("20", "chưa xử lý được")
    hard = await linked.send(subject="văn bản khó")
    others = [await linked.send(subject=f"Văn bản số {number}") for number in range(8)]
    for message in others:
        await linked.ended(message, "acknowledged")
    assert (await linked.delivery(hard))["state"] != "acknowledged"
    linked.axis.refusing.clear()
    await linked.ended(hard, "acknowledged")
    assert len(linked.axis.sent) == 9


async def test_messages_of_an_agency_go_in_order(linked: Linked) -> None:
    subjects = [f"Công văn số {number:02}" for number in range(20)]
    last = ""
    for subject in subjects:
        last = await linked.send(subject=subject)
    await linked.ended(last, "acknowledged")
    assert [edxml.read(sent.body).subject for sent in linked.axis.sent] == subjects


async def test_a_wrong_secret_stops_the_link_and_refuses_nothing(linked: Linked) -> None:
    right, linked.axis.secret = linked.axis.secret, "đã đổi"
    message = await linked.send()

    async def shown() -> bool:
        row = await linked.row()
        return row["failures"] > 2 and "15" in row["last_error"]

    await until(shown, "the operator can see why")
    assert (await linked.delivery(message))["state"] in ("waiting", "handed_over")
    token = await change.issue_token(linked.hub.connection, role="operator", label="ops")
    await linked.hub.follow()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{linked.hub.url}/v1/status", headers=headers) as answer,
    ):
        (status,) = (await answer.json())["links"]
    assert (status["name"], status["waiting"]) == (UP, 1)
    assert "15" in status["last_error"]
    linked.axis.secret = right
    await linked.ended(message, "acknowledged")


async def test_what_waits_for_a_disabled_link_goes_when_it_is_enabled(linked: Linked) -> None:
    await links.set_active(linked.hub.connection, UP, False)
    await linked.hub.follow()
    message = await linked.send()
    await until(lambda: not linked.hub.hub.links._running, "the courier has stopped")
    assert linked.axis.tried == []
    await links.set_active(linked.hub.connection, UP, True)
    await linked.hub.follow()
    await linked.ended(message, "acknowledged")


async def test_an_operator_sends_what_was_refused_once_more(linked: Linked) -> None:
    linked.axis.refusing["Báo cáo".encode()] = ("18", "chưa có đơn vị")
    message = await linked.send()
    await linked.ended(message, "refused")
    linked.axis.refusing.clear()
    await links.order(linked.hub.connection, UP, "resend", message)  # type: ignore[arg-type]
    (sent,) = await until(lambda: list(linked.axis.sent), "it went over")
    assert edxml.read(sent.body).subject == "Báo cáo"

    async def noted() -> bool:
        (row,) = await linked.hub.connection.fetch("select * from link_transfer")
        return row["peer_id"] == sent.doc_id and not row["refused"]

    await until(noted, "the transfer is noted")
    assert (await linked.delivery(message))["state"] == "refused", "what was proven stays proven"


async def test_two_processes_are_one_courier(start_hub: StartHub, axis: FakeAxis) -> None:
    first = await start_hub()
    second = await start_hub()
    parties = await link_up(first, axis)
    await second.follow()
    async with parties.district.client(second.url) as sender:
        for number in range(10):
            document = parties.district.document(GOVERNMENT_OFFICE, subject=f"Văn bản {number}")
            await sender.submit(sender.sign(document))
        await until(lambda: len(axis.sent) == 10, "all went over")
    assert len(axis.tried) == 10
    owners = await first.connection.fetchval(
        "select count(*) from pg_locks where locktype = 'advisory' and classid = 7021 and granted"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    assert owners == 1
