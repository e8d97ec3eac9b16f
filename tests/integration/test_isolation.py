"""What one endpoint does costs itself: its rate, its room, its place in line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from aiohttp import web

from hub.couriers.mailbox import READS
from hub.directory import change
from hub.directory.change import Limits
from hub.doors import guard
from hub.doors.guard import GuardedHandler
from hub.relay import opening
from hub.relay.commit import MAX_BATCH
from protocol.client import HubClient, Problem
from protocol.message import seal
from tests.conftest import RunningHub, StartHub
from tests.support.edxml_messages import document, write
from tests.support.load import sign_messages
from tests.support.pair import Pair
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN, Party
from tests.support.raw import raw_connection, request
from tests.support.until import until

JOSE, NDJSON = {"Content-Type": "application/jose"}, {"Content-Type": "application/x-ndjson"}
AN_HOUR = 1 / 3600
"""One in an hour: no test lasts so long."""


async def limit(hub: RunningHub, party: Party, messages: float | None = None, octets: float | None = None) -> None:
    await change.set_limits(hub.connection, party.name, lambda before: Limits(messages, octets))
    await hub.follow()


async def post(
    hub: RunningHub, http: aiohttp.ClientSession, party: Party, body: bytes, headers: dict[str, str] = JOSE
) -> tuple[int, dict[str, Any], int]:
    """Status, the first JSON object of the answer, and Retry-After (0 without)."""
    async with http.post(
        f"{hub.url}/v1/messages", data=io.BytesIO(body), headers=party.headers | headers
    ) as response:
        told = orjson.loads((await response.read()).splitlines()[0])
        return response.status, told, int(response.headers.get("Retry-After", 0))


def signed(party: Party, *to: str, **members: Any) -> bytes:
    return seal(party.document(*to, **members), party.signer)


# -- rates ------------------------------------------------------------------------------------------


async def test_an_endpoint_beyond_its_rate_is_told_when_to_come_back_and_nobody_else_is(
    pair: Pair, http: aiohttp.ClientSession
) -> None:
    hub, province, district = pair.hub, pair.province, pair.district
    await limit(hub, province, messages=AN_HOUR)
    assert (await post(hub, http, province, signed(province, VAN_YEN)))[0] == 202
    refused = signed(province, VAN_YEN)
    status, told, seconds = await post(hub, http, province, refused)
    assert (status, told["code"], told["fault"], told["retryable"]) == (429, "too-many-requests", "caller", True)
    assert 3500 < seconds <= 3600
    assert "receipt" not in told, "it was not looked at"
    assert (await post(hub, http, district, signed(district, PROVINCE)))[0] == 202
    # Reading and acknowledging are not limited.
    for _ in range(3):
        (entry,), _ = await pair.sender.read()
    assert await pair.sender.acknowledge(entry) == 1
    assert len(await pair.page()) == 1
    await limit(hub, province, messages=0)
    assert (await post(hub, http, province, refused))[0] == 202, "it may be sent again as it was"


async def test_the_default_holds_for_those_without_a_limit_of_their_own(
    start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    hub = await start_hub(rate_messages=AN_HOUR)
    province, district = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    await limit(hub, district, messages=0)
    for party, expected in ((province, [202, 429]), (district, [202, 202])):
        found = [(await post(hub, http, party, signed(party, PROVINCE)))[0] for _ in range(2)]
        assert found == expected
    await limit(hub, district)
    found = [(await post(hub, http, district, signed(district, PROVINCE)))[0] for _ in range(2)]
    assert found == [202, 429]


async def test_a_process_grants_its_share_of_a_limit(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    hub = await start_hub(rate_messages=4 * AN_HOUR, rate_seconds=3600, workers=2)
    province = await hub.register("ubnd-tinh", PROVINCE)
    found = [(await post(hub, http, province, signed(province, PROVINCE)))[0] for _ in range(4)]
    assert found == [202, 202, 429, 429]


async def test_each_line_of_a_batch_counts(pair: Pair, http: aiohttp.ClientSession) -> None:
    await limit(pair.hub, pair.province, messages=AN_HOUR)
    batch = b"\n".join(signed(pair.province, VAN_YEN) for _ in range(10))
    assert (await post(pair.hub, http, pair.province, batch, NDJSON))[0] == 200
    assert len(await pair.page()) == 10, "one that is larger than the allowance passes, and is owed"
    status, _, seconds = await post(pair.hub, http, pair.province, signed(pair.province, VAN_YEN))
    assert (status, seconds > 9 * 3600) == (429, True)


@pytest.mark.parametrize("kind", ["message", "edxml", "large edxml", "attachment"])
async def test_every_way_of_submitting_counts_its_bytes(
    pair: Pair, http: aiohttp.ClientSession, kind: str
) -> None:
    hub, province = pair.hub, pair.province
    await limit(hub, province, octets=1)
    if kind == "message":
        answer = await post(hub, http, province, signed(province, VAN_YEN, content="x" * 5_000))
    elif kind == "attachment":
        attached = b"n" * 5_000
        url = f"{hub.url}/v1/attachments/{hashlib.sha256(attached).hexdigest()}"
        async with http.put(url, data=attached, headers=province.headers) as response:
            answer = response.status, {}, 0
    else:
        content = "A" * (2 << 20) if "large" in kind else ""
        text = write(document(sender=PROVINCE, to=((VAN_YEN, "Văn Yên"),), content=content))
        answer = await post(hub, http, province, text, {"Content-Type": "application/xml"})
    assert answer[0] in (201, 202), answer
    status, _, seconds = await post(hub, http, province, signed(province, VAN_YEN))
    assert (status, seconds > (2 << 20 if "large" in kind else 900)) == (429, True)


async def test_limits_and_refusals_are_shown(pair: Pair, http: aiohttp.ClientSession) -> None:
    hub, province = pair.hub, pair.province
    await limit(hub, province, messages=AN_HOUR, octets=5e6)
    for _ in range(3):
        await post(hub, http, province, signed(province, VAN_YEN))
    token = await change.issue_token(hub.connection, role="operator", label="trực ban")
    await hub.follow()
    await hub.hub.reporter.report()
    async with http.get(f"{hub.url}/v1/status", headers={"Authorization": f"Bearer {token}"}) as response:
        status = await response.json()
    shown = {endpoint["name"]: endpoint for endpoint in status["endpoints"]}
    assert (shown["ubnd-tinh"]["rate_messages"], shown["ubnd-tinh"]["rate_bytes"]) == (AN_HOUR, 5e6)
    assert "rate_messages" not in shown["van-yen"]
    assert status["workers"][0]["refused"] == {"bytes": 0, "share": 0, "time": 0, "rate": 2}
    async with http.get(f"{hub.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    counts = [
        float(line.split()[1]) for line in lines if line.startswith('lienthong_refused_total{reason="rate"}')
    ]
    assert counts and counts[0] >= 2


async def test_a_stream_is_left_unread_while_its_endpoint_is_too_fast(pair: Pair) -> None:
    await limit(pair.hub, pair.province, messages=20)
    async with pair.sender.stream() as stream:
        for _ in range(2):
            documents = [pair.province.document(VAN_YEN) for _ in range(25)]
            assert len({sent.id for sent in await asyncio.gather(*map(stream.send, documents))}) == 25
    assert pair.hub.hub.admission.refused["rate"] == 0
    entries, _ = await pair.receiver.read(100)
    assert len(entries) == 50


# -- time in the queue --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def commits_held(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """No commit that delivers anything ends while the block runs."""
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7001)")
        yield


async def stand_still(hub: RunningHub, http: aiohttp.ClientSession, party: Party) -> list[asyncio.Task[Any]]:
    """Submissions of `party` that wait: some are being committed, and one is still in the queue for too long."""
    queue = hub.hub.committer.batcher
    waiting: list[asyncio.Task[Any]] = []
    before = queue.items
    while not len(queue):  # two flushes take what comes first, and then nobody takes
        waiting.append(asyncio.create_task(post(hub, http, party, signed(party, PROVINCE))))
        await until(lambda: queue.items - before + len(queue) == len(waiting), "it is in the queue")
    await until(lambda: queue.waited(0) > hub.hub.config.max_queue_seconds, "it has been there for too long")
    return waiting


async def test_when_the_store_stands_still_new_submissions_are_told_so_and_old_ones_are_kept(
    start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    hub = await start_hub(max_queue_seconds=0.2)
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with commits_held(hub.connection):
        waiting = await stand_still(hub, http, province)
        status, told, seconds = await post(hub, http, province, signed(province, PROVINCE))
        assert (status, told["code"], told["fault"], seconds) == (503, "overloaded", "hub", 1)
        async with http.get(f"{hub.url}/healthz/ready") as response:
            assert (await response.json())["checks"] == {"database": "ok", "intake": "overloaded"}
        assert hub.hub.admission.refused["time"] == 1, "asking for health is not counted"
        assert not any(task.done() for task in waiting)
    assert [status for status, _, _ in await asyncio.gather(*waiting)] == [202] * len(waiting)
    assert (await post(hub, http, province, signed(province, PROVINCE)))[0] == 202
    async with http.get(f"{hub.url}/healthz/ready") as response:
        assert response.status == 200


async def test_delivery_goes_on_while_nothing_more_is_let_in(
    start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    hub = await start_hub(max_queue_seconds=0.2)
    province, district = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    messages = [message.raw for message in sign_messages(province, 50, (VAN_YEN,))]
    async with district.client(hub.url, retry_seconds=0) as reader, province.client(hub.url) as sender:
        await sender.submit_many(messages)
        async with commits_held(hub.connection):
            waiting = await stand_still(hub, http, province)
            assert (await post(hub, http, district, signed(district, PROVINCE)))[0] == 503
            for _ in range(5):
                entries, cursor = await reader.read(10)
                assert len(entries) == 10
                assert await reader.acknowledge(up_to=cursor) == 10
            assert (await sender.events(entries[-1].id))["deliveries"][0]["state"] == "acknowledged"
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)


# -- order ------------------------------------------------------------------------------------------


async def test_a_single_document_does_not_wait_for_a_thousand_of_somebody_else(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    flooding, single = await hub.register("ubnd-tinh", PROVINCE), await hub.register("luc-yen", LUC_YEN)
    receiver = await hub.register("van-yen", VAN_YEN)
    batch = b"\n".join(message.raw for message in sign_messages(flooding, 1000, (VAN_YEN,), ("normal",)))
    queue = hub.hub.committer.batcher
    async with commits_held(hub.connection):
        large = asyncio.create_task(post(hub, http, flooding, batch, NDJSON))
        await until(lambda: queue.items + len(queue) >= 1000, "the batch waits for its commit")
        small = asyncio.create_task(post(hub, http, single, signed(single, VAN_YEN, id="công-văn-đơn")))
        await until(lambda: queue.items + len(queue) >= 1001, "the single document waits too")
    assert (await small)[0] == 202
    assert (await large)[0] == 200
    async with receiver.client(hub.url) as client:
        entries, cursor = await client.read(1000)
        entries += (await client.read(1000, after=cursor))[0]
    ids = [entry.sender_id for entry in entries]
    assert len(ids) == 1001
    place = ids.index("công-văn-đơn")
    # Behind what was being committed (on two connections) and the next batch, not behind the rest.
    assert place <= 3 * MAX_BATCH
    assert len(set(ids)) == 1001


async def test_a_large_batch_is_opened_a_few_at_a_time(
    pair: Pair, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between them the event loop sees to everything else."""
    turn, opened = 0, Counter[int]()
    open_jws = opening.open_jws

    def counted(raw: bytes) -> Any:
        opened[turn] += 1
        return open_jws(raw)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    monkeypatch.setattr(opening, "open_jws", counted)
    counting = asyncio.create_task(count_turns())
    batch = b"\n".join(message.raw for message in sign_messages(pair.province, 300, (VAN_YEN,)))
    assert (await post(pair.hub, http, pair.province, batch, NDJSON))[0] == 200
    counting.cancel()
    assert sum(opened.values()) == 300
    assert max(opened.values()) <= opening.OPENED_AT_ONCE


async def test_a_flood_of_reads_leaves_connections_for_others(
    pair: Pair, connection: asyncpg.Connection, database_url: str
) -> None:
    """While the store is slow to answer, an endpoint has few questions under way, and the rest waits its turn."""
    (sent,) = await pair.send("normal")
    active = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and application_name = $1"
    )

    def busy(pool: str, count: int) -> Any:
        async def asked() -> bool:
            return bool(await connection.fetchval(active, f"lienthong {pool}") == count)

        return asked

    blocker = await asyncpg.connect(database_url)
    try:
        async with blocker.transaction():
            await blocker.execute("lock table message in access exclusive mode")
            reads = [asyncio.create_task(pair.receiver.read()) for _ in range(20)]
            questions = [asyncio.create_task(pair.sender.events(sent)) for _ in range(20)]
            await until(busy("readers", READS), "the flood is being answered")
            other = asyncio.create_task(pair.sender.read())
            await until(busy("readers", READS + 1), "and so is somebody else")
            await until(busy("pool", 2), "the same of questions")
            asking = asyncio.create_task(pair.receiver.events(sent))
            await until(busy("pool", 3), "and so is somebody else's")
        assert [len(entries) for entries, _ in await asyncio.gather(*reads)] == [1] * 20
        await other
        assert len(await asyncio.gather(*questions, asking)) == 21
    finally:
        await blocker.close()


# -- refusals ---------------------------------------------------------------------------------------


async def test_refusals_on_one_connection_are_held_back_when_they_come_too_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Clock:
        now = 50.0

        def time(self) -> float:
            return self.now

    async def handler(request: web.BaseRequest) -> web.Response:
        raise AssertionError

    clock = Clock()
    connection = GuardedHandler(web.Server(handler), 1.0, ended=lambda: None, loop=asyncio.get_running_loop())
    monkeypatch.setattr(connection, "_loop", clock)
    assert [connection.refused() for _ in range(guard.REFUSALS)] == [0.0] * guard.REFUSALS
    clock.now += 0.25
    assert connection.refused() == pytest.approx(0.75)
    clock.now += 0.8
    assert connection.refused() == 0.0


async def test_a_client_that_insists_is_answered_all_the_same(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = await hub.register("ubnd-tinh", PROVINCE)
    count = guard.REFUSALS + 5
    refused, asked = GuardedHandler.refused, Counter[int]()

    def counted(connection: GuardedHandler) -> float:
        asked[id(connection)] += 1
        return refused(connection)

    monkeypatch.setattr(GuardedHandler, "refused", counted)
    async with raw_connection(hub.url) as connection:
        wrong = request("GET", "/v1/mailbox", {"Authorization": "Bearer sai"})
        await connection.send(wrong * count + request("GET", "/v1/mailbox", party.headers))
        answers = [await connection.answer() for _ in range(count + 1)]
    assert [answer.status for answer in answers] == [401] * count + [200]
    assert list(asked.values()) == [count]


async def test_the_client_waits_out_a_limit(pair: Pair) -> None:
    await limit(pair.hub, pair.province, messages=2)
    client: HubClient = pair.sender
    sent = [await client.send(pair.province.document(VAN_YEN)) for _ in range(4)]
    assert len({one.id for one in sent}) == 4
    assert pair.hub.hub.admission.refused["rate"] >= 1
    async with pair.province.client(pair.hub.url, retry_seconds=0) as hasty:
        await limit(pair.hub, pair.province, messages=AN_HOUR)
        await hasty.send(pair.province.document(VAN_YEN))
        with pytest.raises(Problem) as refused:
            await hasty.send(pair.province.document(VAN_YEN))
    assert (refused.value.code, refused.value.retryable) == ("too-many-requests", True)
