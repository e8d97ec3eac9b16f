"""Lists of the axis's interface behind 10^5 documents, and among entries that nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import orjson
import pytest

from hub.couriers import axis as axis_mail
from hub.couriers.axis import COUNT_LIMIT, LIST_LIMIT
from hub.relay import ending
from hub.store import sql
from hub.store.pool import connect as connect_store
from protocol.ids import uuid7
from protocol.message import Lane
from tests.conftest import RunningHub
from tests.integration.test_plans import visited
from tests.support.axis_parties import Axis, connect, paper, state
from tests.support.axis_sdk import SdkError
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

SQL = sql.load("axis")
MANY = 100_000


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


async def fill(
    connection: asyncpg.Connection, endpoint: int, count: int, kind: int = 0, lane: Lane = Lane.NORMAL
) -> list[UUID]:
    """Put so many messages into a mailbox, as a commit would, but for their bytes and proofs."""
    ids = [uuid7() for _ in range(count)]
    async with connection.transaction():
        base = await connection.fetchval("select greatest(last_value + 1, seq_floor(now())) from mailbox_seq")
        await connection.execute("select setval('mailbox_seq', $1::bigint)", base + count)
        batch = uuid7()
        await connection.execute(
            "insert into message select id, now(), $4, id::text, $2, 1, $3, ''::bytea, 10, null, $5, ''::bytea,"
            " $6, n - 1, '', $7 from unnest($1::uuid[]) with ordinality e(id, n)",
            ids,
            PROVINCE,
            lane,
            endpoint + 1_000,
            f'{{"{endpoint}": ["{VAN_YEN}"]}}',
            batch,
            kind,
        )
        await connection.execute(
            "insert into inbox select $1, $2, $3::bigint + n - 1, id, $5"
            " from unnest($4::uuid[]) with ordinality e(id, n)",
            endpoint,
            lane,
            base,
            ids,
            kind,
        )
        await connection.execute("insert into batch values ($1, now(), $2, ''::bytea, '')", batch, base)
    return ids


def doc_ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["docId"] for entry in entries]


async def test_a_hundred_thousand_documents_come_a_thousand_at_a_time(axis: Axis) -> None:
    """And a status behind all of them comes at once."""
    ids = list(map(str, await fill(axis.hub.connection, axis.district.endpoint, MANY)))
    await axis.hub.connection.execute("analyze")
    sdk = axis.district.sdk
    assert await sdk.get_received_edoc_list("status") == []
    status_id = await axis.province.sdk.send_edoc(state(sender=PROVINCE, organ=VAN_YEN), PROVINCE, "status")
    assert doc_ids(await sdk.get_received_edoc_list("status")) == [status_id]
    assert await sdk.count_receive_edoc() == COUNT_LIMIT == MANY
    assert await sdk.count_receive_status() == 1
    for start in (0, LIST_LIMIT):
        assert doc_ids(await sdk.get_received_edoc_list()) == ids[start : start + LIST_LIMIT]
        await asyncio.gather(*(sdk.update_status(each, "done") for each in ids[start : start + LIST_LIMIT]))
    assert doc_ids(await sdk.get_received_edoc_list()) == ids[2 * LIST_LIMIT : 3 * LIST_LIMIT]
    express = await axis.province.sdk.send_edoc(paper(VAN_YEN, priority="3"), PROVINCE)
    found = doc_ids(await sdk.get_received_edoc_list())
    assert found == [express, *ids[2 * LIST_LIMIT : 3 * LIST_LIMIT - 1]], "what is urgent comes first"
    await sdk.update_status(status_id, "done")
    assert await sdk.get_received_edoc_list("status") == []


async def test_no_lane_starves_another(axis: Axis) -> None:
    connection, endpoint = axis.hub.connection, axis.district.endpoint
    lanes = {lane: set(map(str, await fill(connection, endpoint, 1_500, lane=lane))) for lane in Lane}
    found = doc_ids(await axis.district.sdk.get_received_edoc_list())
    assert [len(lanes[lane] & set(found)) for lane in Lane] == [700, 200, 100]
    assert [next(lane for lane in Lane if each in lanes[lane]) for each in found] == (
        [Lane.EXPRESS] * 700 + [Lane.URGENT] * 200 + [Lane.NORMAL] * 100
    )


async def test_the_loop_goes_on_while_many_ask(axis: Axis) -> None:
    """Twenty systems' worth of polling against a full mailbox, while somebody sends."""
    await fill(axis.hub.connection, axis.district.endpoint, 20_000)
    await axis.hub.connection.execute("analyze")
    sdk = axis.district.sdk
    polls = [asyncio.create_task(sdk.get_received_edoc_list()) for _ in range(20)]
    doc_id = await axis.province.sdk.send_edoc(paper(PROVINCE), PROVINCE)
    assert doc_ids(await axis.province.sdk.get_received_edoc_list()) == [doc_id]
    for found in await asyncio.gather(*polls):
        assert len(found) == LIST_LIMIT


@pytest.fixture
async def hot(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    found = await connect_store(database_url, "test", hot=True)
    yield found
    await found.close()


async def test_a_list_visits_what_it_returns(axis: Axis, hot: asyncpg.Connection) -> None:
    """Behind 10^5 documents: the first thousand, or the statuses alone; never all of it."""
    connection, endpoint = axis.hub.connection, axis.district.endpoint
    await fill(connection, endpoint, 50_000)
    await fill(connection, endpoint, 500, kind=1)
    await fill(connection, endpoint, 50_000)
    await connection.execute("analyze")
    nowhere = [0, 0, 0]
    assert await visited(hot, SQL.waiting_documents, endpoint, LIST_LIMIT, nowhere) <= LIST_LIMIT + 10
    assert await visited(hot, SQL.waiting_statuses, endpoint, LIST_LIMIT, nowhere) <= 510
    assert await visited(hot, SQL.count_statuses, endpoint, COUNT_LIMIT) <= 510
    assert await visited(hot, SQL.count_documents, endpoint, 1_000) <= 1_010


async def test_statuses_that_nobody_takes_are_stepped_over_once(axis: Axis, hot: asyncpg.Connection) -> None:
    connection, endpoint = axis.hub.connection, axis.district.endpoint
    await fill(connection, endpoint, 20_000, kind=1)
    behind = await fill(connection, endpoint, 10)
    await connection.execute("analyze")
    assert doc_ids(await axis.district.sdk.get_received_edoc_list()) == list(map(str, behind))
    starts = axis.hub.hub.axis.mail._starts
    lane = axis_mail.Kind.DOCUMENT
    place = [starts[endpoint, each, lane] for each in Lane]
    assert await visited(hot, SQL.waiting_documents, endpoint, LIST_LIMIT, [0, 0, 0]) >= 20_000
    assert await visited(hot, SQL.waiting_documents, endpoint, LIST_LIMIT, place) <= 20
    # What comes later is found, whatever was remembered; so is what had not ended.
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    await axis.district.sdk.update_status(str(behind[0]), "processing")
    assert doc_ids(await axis.district.sdk.get_received_edoc_list()) == [*map(str, behind), doc_id]
    assert len(await axis.district.sdk.get_received_edoc_list("status")) == LIST_LIMIT


async def test_ended_in_any_order(axis: Axis) -> None:
    ids = [await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE) for _ in range(6)]
    sdk = axis.district.sdk
    for done in (3, 0, 5, 1):
        await sdk.update_status(ids[done], "done")
        ids[done] = ""
        assert doc_ids(await sdk.get_received_edoc_list()) == list(filter(None, ids))


async def test_untaken_statuses_give_way_to_documents(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes documents only: each status between them is a gap, and gaps are bounded."""
    monkeypatch.setattr(ending, "MAX_RANGES", 3)
    connection, sdk = axis.hub.connection, axis.district.sdk
    ids = []
    statuses = []
    for _ in range(6):
        statuses.append(
            await axis.province.sdk.send_edoc(state(sender=PROVINCE, organ=VAN_YEN), PROVINCE, "status")
        )
        ids.append(await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE))
    for doc_id in ids[:3]:
        await sdk.update_status(doc_id, "done")
    with pytest.raises(SdkError, match="take and end the oldest") as caught:
        await sdk.update_status(ids[3], "done")
    assert caught.value.code == "20", "statuses of today do not give way"
    assert doc_ids(await sdk.get_received_edoc_list()) == ids[3:]
    assert doc_ids(await sdk.get_received_edoc_list("status")) == statuses
    monkeypatch.setattr(axis_mail, "UNTAKEN_DAYS", 0)
    for doc_id in ids[3:]:
        await sdk.update_status(doc_id, "done")
    assert await sdk.get_received_edoc_list() == []
    (line,) = await axis.province.sdk.get_sent_edoc_list(statuses[0], "status")
    assert line["receiveStatus"] == "fail" and "not taken" in line["receiveStatusDesc"]
    told = await connection.fetch("select body from message where kind = 2")
    events = [orjson.loads(orjson.loads(row["body"])["event"]) for row in told]
    assert {event["event"] for event in events} == {"expired"}
    assert {event["message"] for event in events} <= set(statuses), "and their sender is told"


async def test_what_has_expired_is_not_listed(axis: Axis) -> None:
    party = axis.province.party
    async with party.client(axis.hub.url) as client:
        sent = await client.send(
            party.document(VAN_YEN, expires=datetime.now(UTC) + timedelta(hours=1)),
        )
        kept = await client.send(party.document(VAN_YEN))
        assert doc_ids(await axis.district.sdk.get_received_edoc_list()) == [sent.id, kept.id]
        await axis.hub.connection.execute("update message set expires_at = now() where expires_at is not null")

        async def gone() -> bool:
            return doc_ids(await axis.district.sdk.get_received_edoc_list()) == [kept.id]

        await until(gone, "the first leaves the list")
        (delivery,) = (await client.events(sent.id))["deliveries"]
    assert delivery["state"] == "expired"


async def test_a_circular_to_thousands_of_one_system(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is bounded in agencies too."""
    ids = list(map(str, await fill(axis.hub.connection, axis.district.endpoint, 10)))
    monkeypatch.setattr(axis_mail, "LIST_CODES", 4)
    assert doc_ids(await axis.district.sdk.get_received_edoc_list()) == ids[:4]
    monkeypatch.setattr(axis_mail, "LIST_CODES", 0)
    assert doc_ids(await axis.district.sdk.get_received_edoc_list()) == ids[:1], "one at the least"


async def test_counts_are_a_moment_old_at_the_most(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = axis.district.sdk
    assert await sdk.count_receive_edoc() == 0
    await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    assert await sdk.count_receive_edoc() == 0, "nobody makes the hub count more often"
    monkeypatch.setattr(axis_mail, "COUNT_SECONDS", 0)
    assert await sdk.count_receive_edoc() == 1
