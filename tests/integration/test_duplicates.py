"""Documents that come twice: the same bytes, the same id, the same number and symbol of the same issuing body."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from hub.relay.repeats import CREDIT_SECONDS, STATEMENT_SECONDS, New, Repeats
from protocol.client import HubClient
from protocol.message import Promulgation
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.axis_parties import add_system, paper
from tests.support.edxml_messages import document, write
from tests.support.pair import Pair
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN

XML = "application/xml"
ISSUED = Promulgation("Yên Bái", "2026-03-02")


async def catch_up(hub: RunningHub) -> None:
    """Let everything be written down, as it would be within a minute."""
    await hub.hub.catalogue.go_on(60.0, timedelta(seconds=-5))


async def duplicates(client: HubClient, message: str) -> list[str]:
    """What a message repeats, as `document` says; `thread` must say the same."""
    found: list[str] = (await client.document(message)).get("duplicate_of", [])
    (shown,) = (item for item in (await client.thread(message))["messages"] if item["id"] == message)
    assert shown.get("duplicate_of", []) == found
    return found


async def send(pair: Pair, code: str, **members: Any) -> str:
    members.setdefault("promulgation", ISSUED)
    return (await pair.sender.send(pair.province.document(VAN_YEN, code=code, **members))).id


async def test_number_and_symbol_of_the_same_body_in_the_same_year_are_flagged(pair: Pair) -> None:
    first = await send(pair, "215/BC-UBND")
    await catch_up(pair.hub)
    again = await send(pair, "215/bc-ubnd ")
    other = await send(pair, "216/BC-UBND")
    next_year = await send(pair, "215/BC-UBND", promulgation=Promulgation("Yên Bái", "2027-01-04"))
    assert await duplicates(pair.receiver, again) == [first]
    for message in (first, other, next_year):
        assert await duplicates(pair.receiver, message) == []
    await catch_up(pair.hub)
    assert await duplicates(pair.receiver, first) == []
    assert await duplicates(pair.sender, again) == [first]


async def test_an_update_of_a_document_is_none(pair: Pair) -> None:
    raw = paper(VAN_YEN)
    first = await pair.sender.submit(raw, XML)
    name = raw.decode().split("DocumentId>")[1].split("<")[0]
    number = name.rpartition(",")[2].partition("/")[0]
    await catch_up(pair.hub)
    business = [("BussinessDocType", "2"), ("DocumentId", name)]
    update = write(document(to=((VAN_YEN, "Văn Yên"),), document_id=name, number=number, business=business))
    sent = await pair.sender.submit(update, XML)
    assert await duplicates(pair.receiver, sent.id) == []
    # Sent anew with other words, it is one, though it is no update of anything.
    again = await pair.sender.submit(raw.replace(b"Nguy", b"NGUY").replace("Báo cáo".encode(), b"B.C."), XML)
    assert await duplicates(pair.receiver, again.id) == [first.id]


async def test_formats_make_no_difference(pair: Pair) -> None:
    native = await send(pair, "7/QĐ-UBND", id=f"{PROVINCE},2026/03/02,7/QĐ-UBND")
    await catch_up(pair.hub)
    raw = write(
        document(
            to=((VAN_YEN, "Văn Yên"),),
            document_id=f"{PROVINCE},2026/03/02,7/QĐ-UBND",
            number="8",
            notation="QĐ-UBND",
            issued="2026/03/02",
        )
    )
    edxml = await pair.sender.submit(raw, XML)
    assert await duplicates(pair.receiver, edxml.id) == [native]
    await catch_up(pair.hub)
    third = await send(pair, "8/QĐ-UBND")
    assert await duplicates(pair.receiver, third) == [edxml.id]


async def test_what_went_to_others_is_no_duplicate_for_whoever_gets_it_first(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    await hub.register("luc-yen", LUC_YEN)
    async with province.client(hub.url) as sender, district.client(hub.url) as reader:
        first = await sender.send(province.document(LUC_YEN, code="9/TB-UBND"))
        await catch_up(hub)
        second = await sender.send(province.document(VAN_YEN, code="9/TB-UBND"))
        assert await duplicates(reader, second.id) == []
        assert await duplicates(sender, second.id) == [first.id]


async def test_the_same_bytes_are_answered_with_the_first_id_at_either_door(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    await hub.register("van-yen", VAN_YEN)
    province = await add_system(hub, http, await hub.register("ubnd-tinh", PROVINCE), "yb.tinh")
    raw = paper(VAN_YEN)
    first = await province.sdk.send_edoc(raw, PROVINCE)
    assert await province.sdk.send_edoc(raw, PROVINCE) == first
    async with province.party.client(hub.url) as client:
        again = await client.submit(raw, XML)
        assert (again.id, again.duplicate) == (first, True)


async def test_a_native_id_with_other_bytes_is_refused(pair: Pair) -> None:
    first = await send(pair, "10/UBND", id="10/UBND")
    with pytest.raises(Problem) as refused:
        await send(pair, "11/UBND", id="10/UBND")
    assert (refused.value.code, refused.value.extra["message"]) == ("id-conflict", first)


async def test_writing_down_goes_on_where_it_stopped_and_leaves_the_newest(pair: Pair) -> None:
    for number in range(5):
        await send(pair, f"{number + 20}/UBND")
    catalogue = pair.hub.hub.catalogue
    count = "select count(*) from catalogue"
    await catalogue.go_on(60.0)
    assert await pair.hub.connection.fetchval(count) == 0, "what is younger than a minute may not be all there"
    await catch_up(pair.hub)
    assert await pair.hub.connection.fetchval(count) == 10
    await catch_up(pair.hub)
    assert await pair.hub.connection.fetchval(count) == 10


# -- told with the entry itself -------------------------------------------------------------------


async def test_an_entry_says_what_it_repeats_at_once(pair: Pair) -> None:
    """Also within the minute in which nothing is written down yet."""
    first = await send(pair, "301/QĐ-UBND")
    second = await send(pair, "301/qđ-ubnd")
    entries = await pair.page()
    assert [(entry.id, entry.duplicate_of) for entry in entries] == [(first, ()), (second, (first,))]
    assert await duplicates(pair.receiver, second) == [first]


async def test_what_was_taken_in_under_a_flood_is_marked_later(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repeats, "has_time", lambda self: False)
    first = await send(pair, "302/QĐ-UBND")
    second = await send(pair, "302/QĐ-UBND")
    assert [entry.duplicate_of for entry in await pair.page()] == [(), ()]
    await catch_up(pair.hub)
    assert [entry.duplicate_of for entry in await pair.page()] == [(), (first,)]
    assert second != first


async def test_a_stream_says_it_too(pair: Pair) -> None:
    async with pair.receiver.stream() as stream:
        first = await send(pair, "303/QĐ-UBND")
        second = await send(pair, "303/QĐ-UBND")
        found = []
        async for entry in stream.mail():
            found.append((entry.id, entry.duplicate_of))
            if len(found) == 2:
                break
    assert found == [(first, ()), (second, (first,))]


async def test_a_list_of_the_axis_says_it_in_words(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await add_system(hub, http, await hub.register("van-yen", VAN_YEN), "yb.vanyen")
    async with province.client(hub.url) as client:
        raw = paper(VAN_YEN)
        first = await client.submit(raw, XML)
        again = await client.submit(raw.replace("Báo cáo".encode(), b"B.C."), XML)
    listed = {item["docId"]: item["status_desc"] for item in await district.sdk.get_received_edoc_list()}
    assert listed == {first.id: "Chờ nhận", again.id: f"Chờ nhận; trùng với văn bản đã gửi trước: {first.id}"}


async def test_nothing_is_told_of_what_others_got(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    await hub.register("luc-yen", LUC_YEN)
    async with province.client(hub.url) as sender, district.client(hub.url) as reader:
        await sender.send(province.document(LUC_YEN, code="304/TB-UBND"))
        await sender.send(province.document(VAN_YEN, code="304/TB-UBND"))
        ((entry,), _) = await reader.read()
        assert entry.duplicate_of == ()


async def test_looking_is_bounded_by_a_share_of_time(pair: Pair) -> None:
    repeats = Repeats(pair.hub.hub.pool)
    looked = 0
    while repeats.has_time():
        await repeats.look([New(uuid4(), PROVINCE, f"id {looked}", f"{looked}/BC", None)])
        looked += 1
    assert 1 <= looked <= CREDIT_SECONDS / STATEMENT_SECONDS + 1
