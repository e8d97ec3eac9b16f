"""A link downwards: what comes broken, twice, for nobody or from ourselves."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import pytest

from protocol import edxml
from protocol.message import Reference
from tests.conftest import RunningHub
from tests.support import link_scene
from tests.support.axis_parties import add_system, paper, state
from tests.support.edxml_messages import document, write
from tests.support.fake_axis import HTML, FakeAxis, Fault, breaks_off, fails, hangs_up, says
from tests.support.link_scene import Linked, link_up
from tests.support.linked import (
    FINANCE,
    GOVERNMENT_OFFICE,
)
from tests.support.parties import DAI_SON, VAN_YEN
from tests.support.until import until

impatient_couriers, axis, linked = link_scene.impatient_couriers, link_scene.axis, link_scene.linked


async def test_a_document_comes_down_once_and_is_ended_after_it_is_on_disk(linked: Linked) -> None:
    linked.axis.lists_twice = True
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    linked.give("D-1", raw)
    assert await linked.taken("D-1") == "done"
    (entry,) = await linked.mail(1)
    assert await linked.reader.fetch(entry) == raw
    assert entry.sender == GOVERNMENT_OFFICE
    linked.axis.forgets = True  # that documents have ended
    linked.give("D-1", raw)
    linked.give("D-2", raw)  # and the same bytes under another name
    assert await linked.taken("D-2") == "done"
    await until(lambda: linked.axis.ended.count(("D-1", "done")) > 3, "it is ended again and again")
    assert len(await linked.mail(1)) == 1
    assert linked.axis.calls.count("downloadEdoc") == 2


@pytest.mark.parametrize(
    "fault",
    [
        says(HTML, "text/html"),
        says(HTML, "application/octet-stream"),
        says(b"", "application/octet-stream"),
        fails("20"),
        hangs_up,
        breaks_off(b'<?xml version="1.0" encoding="UTF-8"?><edXML', 4000),
        says(paper(DAI_SON, sender=FINANCE), "application/octet-stream"),
    ],
    ids=["html", "html-as-bytes", "nothing", "20", "hang-up", "cut", "another's"],
)
async def test_a_document_that_comes_broken_is_fetched_again(linked: Linked, fault: Fault) -> None:
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    linked.axis.faults["downloadEdoc"] = [fault, fault]
    linked.give("D-1", raw)
    assert await linked.taken("D-1") == "done"
    (entry,) = await linked.mail(1)
    assert await linked.reader.fetch(entry) == raw
    assert linked.axis.ended == [("D-1", "done")]


async def test_an_axis_without_downloads_gives_base64(linked: Linked) -> None:
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    linked.axis.faults["downloadEdoc"] = [fails("59", "không có")] * 10
    linked.axis.faults["getEdoc"] = [says(b'{"status":"OK","ErrorCode":"0","data":"PD94bWwgdmV"}')]
    linked.give("D-1", raw)
    assert await linked.taken("D-1") == "done"
    (entry,) = await linked.mail(1)
    assert await linked.reader.fetch(entry) == raw


async def test_a_lost_word_that_a_document_was_taken_is_said_again(linked: Linked) -> None:
    linked.axis.faults["updateStatus"] = [hangs_up, fails("20"), says(HTML, "text/html", 503)]
    linked.give("D-1", paper(DAI_SON, sender=GOVERNMENT_OFFICE))
    assert await linked.taken("D-1") == "done"
    assert len(await linked.mail(1)) == 1
    assert linked.axis.calls.count("downloadEdoc") == 1


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (paper("000.00.77.H63", sender=GOVERNMENT_OFFICE), "recipient-unknown"),
        (b"<edXML>hong", "bad-xml"),
        (paper(FINANCE, sender=GOVERNMENT_OFFICE), "recipient-unknown"),
    ],
    ids=["nobody", "broken", "elsewhere"],
)
async def test_what_this_hub_cannot_take_is_refused_with_a_reason(linked: Linked, raw: bytes, reason: str) -> None:
    linked.give("D-1", raw)
    assert await linked.taken("D-1") == "fail"
    assert linked.axis.reasons["D-1"].startswith(reason)
    linked.give("D-1", raw)
    await until(lambda: linked.axis.ended.count(("D-1", "fail")) > 1, "it is refused again")

    async def counted() -> bool:
        return (await linked.row())["refused_here"] == 1

    await until(counted, "it is counted once")


async def test_what_this_hub_sent_comes_back_and_is_left_alone(linked: Linked) -> None:
    """As when a document is for agencies here and beyond: the axis gives the whole of it to all of them."""
    linked.give("D-1", paper(DAI_SON, FINANCE, sender=VAN_YEN), sender=VAN_YEN)
    linked.give("D-2", paper(DAI_SON, sender=VAN_YEN), sender="")  # a list that does not say whose it is
    linked.give("D-3", paper(DAI_SON, sender=GOVERNMENT_OFFICE))
    assert [await linked.taken(name) for name in ("D-1", "D-2", "D-3")] == ["done"] * 3
    (entry,) = await linked.mail(1)
    assert entry.sender == GOVERNMENT_OFFICE
    assert linked.axis.sent == []


async def test_what_comes_back_and_is_for_nobody_here_goes_in_a_circle(linked: Linked) -> None:
    """Each of the two hubs believes that the recipient lies at the other."""
    linked.give("D-1", paper(FINANCE, sender=VAN_YEN), sender="")
    assert await linked.taken("D-1") == "fail"
    assert linked.axis.reasons["D-1"].startswith("loop")


async def test_nothing_goes_back_where_it_came_from(linked: Linked) -> None:
    linked.give("D-1", paper(DAI_SON, FINANCE, "000.00.00.H56", sender=GOVERNMENT_OFFICE))
    assert await linked.taken("D-1") == "done"
    (entry,) = await linked.mail(1)
    assert entry.to == (DAI_SON,)
    own = await linked.send()
    await linked.ended(own, "acknowledged")
    (sent,) = linked.axis.sent
    assert edxml.read(sent.body).sender == VAN_YEN
    (row,) = await linked.hub.connection.fetch("select route from message where id = $1", entry.id)
    assert FINANCE not in row["route"]


async def test_states_go_both_ways(linked: Linked) -> None:
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    linked.give("D-1", raw)
    (entry,) = await linked.mail(1)
    await linked.reader.acknowledge(entry)
    about = Reference(id=edxml.read(raw).document_id, agency=GOVERNMENT_OFFICE)
    document = linked.commune.document(GOVERNMENT_OFFICE, kind="status", status="03", response_for=(about,))
    await linked.reader.submit(linked.reader.sign(document))
    (sent,) = await until(lambda: list(linked.axis.sent), "the state went up")
    header = edxml.read(sent.body)
    assert (sent.kind, header.kind, header.status_code) == ("status", "status", "03")
    assert (header.sender, header.recipients, header.document_id) == (DAI_SON, (GOVERNMENT_OFFICE,), about.id)
    message = await linked.send(id="VY-01", subject="Tờ trình")
    await linked.ended(message, "acknowledged")
    linked.give("S-1", state("06", sender=GOVERNMENT_OFFICE, organ=VAN_YEN, document_id="VY-01"), kind="status")
    assert await linked.taken("S-1") == "done"

    async def known() -> list[Any]:
        found: list[Any] = (await linked.sender.events(message)).get("states", [])
        return found

    (states,) = await until(known, "the sender sees the state")
    assert (states["agency"], states["current"]) == (GOVERNMENT_OFFICE, "06")


async def test_a_refusal_here_reaches_the_sender_beyond_as_a_state(linked: Linked) -> None:
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    linked.give("D-1", raw)
    (entry,) = await linked.mail(1)
    await linked.reader.refuse(entry, "Văn bản gửi nhầm xã")
    (sent,) = await until(lambda: list(linked.axis.sent), "the refusal went up")
    header = edxml.read(sent.body)
    assert (sent.kind, sent.sender, header.sender, header.status_code) == ("status", DAI_SON, DAI_SON, "02")
    assert header.status_description == "Văn bản gửi nhầm xã"
    assert (header.recipients, header.document_id) == ((GOVERNMENT_OFFICE,), edxml.read(raw).document_id)

    async def empty() -> bool:
        return (await linked.row())["waiting"] == 0

    await until(empty, "nothing waits")


async def test_a_recall_from_beyond_before_anybody_read_is_carried_out_and_answered(linked: Linked) -> None:
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    name = edxml.read(raw).document_id
    linked.give("D-1", raw)
    assert await linked.taken("D-1") == "done"
    recall = document(
        sender=GOVERNMENT_OFFICE,
        to=((DAI_SON, "UBND xã Đại Sơn"),),
        document_id=name,
        subject="Thu hồi văn bản",
        business=[("BussinessDocType", "1"), ("BussinessDocReason", "Gửi nhầm"), ("DocumentId", name)],
    )
    linked.give("D-2", write(recall))
    assert await linked.taken("D-2") == "done"
    (sent,) = await until(lambda: list(linked.axis.sent), "the answer went up")
    header = edxml.read(sent.body)
    assert (sent.sender, header.status_code, header.document_id) == (DAI_SON, "15", name)
    assert (await linked.reader.read(10))[0] == [], "what was recalled is never handed over"


async def test_large_documents_go_both_ways_from_disk(
    hub: RunningHub, axis: FakeAxis, http: aiohttp.ClientSession
) -> None:
    parties = await link_up(hub, axis)
    system = await add_system(hub, http, parties.district, "yb.vanyen")
    content = base64.b64encode(b"PK" + bytes(range(256)) * 24_000).decode()
    up = paper(GOVERNMENT_OFFICE, sender=VAN_YEN, content=content)
    await system.sdk.send_edoc(up, VAN_YEN)
    (sent,) = await until(lambda: list(axis.sent), "it went up")
    assert content.encode() in sent.body
    assert edxml.read(sent.body, whole=True).sender == VAN_YEN
    down = paper(DAI_SON, sender=GOVERNMENT_OFFICE, content=content)
    axis.waiting["D-1"] = "edoc", GOVERNMENT_OFFICE, down
    await until(lambda: dict(axis.ended).get("D-1") == "done", "it came down")
    async with parties.commune.client(hub.url) as reader:
        ((entry,), _) = await reader.read(5, 5.0)
        assert await reader.fetch(entry) == down
    assert [row["body"] for row in await hub.connection.fetch("select body from message where kind = 0")] == [
        None,
        None,
    ]
