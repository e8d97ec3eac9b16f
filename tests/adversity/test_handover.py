"""Hand-overs in trouble: processes killed before they sealed, streams cut and resumed. Each is sealed once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from protocol.client import HubClient
from protocol.evidence import read_receipt, verify_receipt
from protocol.problems import Problem
from protocol.signature import from_jwk
from tests.conftest import RunningHub
from tests.support.node import Node
from tests.support.parties import PROVINCE, VAN_YEN, Party, register
from tests.support.proxy import Proxy
from tests.support.told import tells
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]
DOCUMENTS = 60
TIMES_SEALED = """
    select i.message, count(h.first_seq) as times from inbox i
    left join (
        select endpoint, lane, first_seq, last_seq from handed_run
        union all
        select endpoint, lane, first_seq, last_seq from progress where handed_at is not null
    ) h
        on h.endpoint = i.endpoint and h.lane = i.lane and i.seq between h.first_seq and h.last_seq
    group by i.message
"""


async def send(client: HubClient, party: Party, count: int = DOCUMENTS) -> list[str]:
    lanes = ("normal", "express", "urgent")
    raws = [client.sign(party.document(VAN_YEN, priority=lanes[n % 3])) for n in range(count)]
    outcomes = await client.submit_many(raws)
    assert not any(isinstance(outcome, Problem) for outcome in outcomes)
    return [outcome.id for outcome in outcomes if not isinstance(outcome, Problem)]


async def times_sealed(connection: asyncpg.Connection) -> dict[str, int]:
    return {str(row["message"]): row["times"] for row in await connection.fetch(TIMES_SEALED)}


async def check(client: HubClient, messages: list[str]) -> None:
    """Every event of these is proven, and stands where it belongs."""
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
    for message in messages:
        timeline: dict[str, Any] = await client.events(message)
        kinds = [event["event"] for event in timeline["events"]]
        assert kinds in (["accepted", "handed_over", "acknowledged"], ["accepted", "acknowledged"])
        for event in timeline["events"]:
            proven = verify_receipt(read_receipt(orjson.dumps(event)), keys.get).event
            assert tells(proven, event) and proven["message"] == message


async def test_workers_killed_between_giving_and_sealing(start_node: StartNode) -> None:
    """A reader who reads and now and then acknowledges, while both workers are killed again and again."""
    node = await start_node("--workers", "2")
    async with node.database() as database:
        province = await register(database, "ubnd-tinh", PROVINCE)
        district = await register(database, "van-yen", VAN_YEN)
    await node.knows(district)
    chance = random.Random(5)
    async with province.client(node.url) as sender, district.client(node.url) as reader:
        ids = await send(sender, province)
        for round_ in range(6):
            entries, _ = await reader.read(limit=20)
            if round_ % 2:
                await reader.acknowledge(*chance.sample(entries, 3))
            node.kill_workers()
            await until(lambda: _answers(reader), "a worker answers again")
        async with node.database() as database:
            early = await times_sealed(database)
            assert set(early.values()) <= {0, 1}
        # From here on nobody is killed: what is given now is sealed.
        entries, cursor = await reader.read(limit=100)
        assert await reader.acknowledge(up_to=cursor) == len(entries)
        await node.stop()
        await node.start()
        async with node.database() as database:
            sealed = await times_sealed(database)
        assert set(sealed.values()) <= {0, 1}, "none twice"
        assert {message for message, times in early.items() if times} <= {
            m for m, times in sealed.items() if times
        }
        assert all(sealed[entry.id] for entry in entries)
        await check(sender, ids)


async def _answers(client: HubClient) -> bool:
    try:
        await client.read(limit=1)
    except Problem:
        return False
    return True


async def test_a_stream_cut_and_resumed_is_handed_each_document_over_once(hub: RunningHub) -> None:
    """The recipient acknowledges in the end only; each new connection is given all of it again."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    choose = random.Random(7)
    proxy = Proxy(tuple(choose.randint(5_000, 60_000) for _ in range(6)))
    async with proxy.before_hub(hub.url) as address, province.client(hub.url) as sender:
        ids = await send(sender, province)
        for _ in range(7):
            seen: list[str] = []
            async with district.client(address) as reader, reader.stream() as stream:
                async for entry in stream.mail():
                    seen.append(entry.id)
                    if len(set(seen)) == DOCUMENTS:
                        break
                while await hub.hub.acknowledger._handovers.seal(datetime.now(UTC)):
                    pass
        async with district.client(hub.url) as reader:
            _, cursor = await reader.read(limit=100)
            assert await reader.acknowledge(up_to=cursor) == DOCUMENTS
        assert proxy.connections > 7, "nothing was cut"
        assert await times_sealed(hub.connection) == dict.fromkeys(ids, 1)
        await check(sender, ids)


async def test_two_processes_and_many_readers(start_node: StartNode) -> None:
    """Readers of one mailbox at both workers, some of which acknowledge: each document is handed over once."""
    node = await start_node("--workers", "2")
    async with node.database() as database:
        province = await register(database, "ubnd-tinh", PROVINCE)
        district = await register(database, "van-yen", VAN_YEN)
    await node.knows(district)
    done = asyncio.Event()

    async def read(seed: int) -> None:
        chance = random.Random(seed)
        async with district.client(node.url) as reader:
            while not done.is_set():
                entries, cursor = await reader.read(limit=chance.choice((5, 50)), wait=0.2)
                what = chance.randrange(3)
                if entries and what == 0:
                    await reader.acknowledge(up_to=cursor)
                elif entries and what == 1:
                    await reader.acknowledge(*chance.sample(entries, (len(entries) + 1) // 2))

    async with province.client(node.url) as sender, asyncio.TaskGroup() as group:
        for seed in range(5):
            group.create_task(read(seed))
        ids: list[str] = []
        for _ in range(5):
            ids += await send(sender, province)

        async def ended() -> bool:
            async with node.database() as database:
                left = "select count(*) from inbox i join mailbox b using (endpoint, lane) where i.seq > b.floor"
                return not await database.fetchval(left)

        await until(ended, "everything is acknowledged", 60)
        done.set()
    await node.stop()
    await node.start()
    async with node.database() as database:
        assert await times_sealed(database) == dict.fromkeys(ids, 1)
    async with province.client(node.url) as sender:
        await check(sender, ids[::10])
