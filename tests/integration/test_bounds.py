"""What one party may cost the others: everything that could grow is cut, shared out or counted."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta

import aiohttp
import asyncpg
import orjson
import pytest

from hub.couriers import mailbox
from hub.directory import change
from hub.relay import acknowledge, ending, handover_sealing
from protocol.client import Problem
from protocol.evidence import read_receipt, verify_receipt
from protocol.signature import from_jwk
from tests.conftest import RunningHub
from tests.support.edxml_messages import document, write
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

COUNT = 23


async def send(pair: Pair, count: int = COUNT, **members: object) -> list[str]:
    messages = [pair.sender.sign(pair.province.document(VAN_YEN, **members)) for _ in range(count)]
    outcomes = await pair.sender.submit_many(messages)
    return [sent.id for sent in outcomes if not isinstance(sent, Problem)]


async def test_a_long_acknowledgement_is_carried_out_in_parts_and_proven_whole(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    monkeypatch.setattr(acknowledge, "MAX_PART", 5)
    ids = await send(pair)
    _, cursor = await pair.receiver.read()
    beyond = ".".join([*cursor.split(".")[:2], str(int(cursor.split(".")[2]) + 1)])
    with pytest.raises(Problem) as refused:
        await pair.receiver.acknowledge(up_to=beyond)
    assert refused.value.code == "beyond-end"
    assert await connection.fetchval("select count(*) from progress") == 0, "what was refused changed nothing"
    assert await pair.receiver.acknowledge(up_to=cursor) == COUNT
    assert await connection.fetchval("select count(*) from progress") == 5
    assert (await pair.receiver.read())[0] == []
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await pair.sender.hub_keys()}
    for message in ids:
        (delivery,) = (await pair.sender.events(message))["deliveries"]
        receipt = read_receipt(orjson.dumps(delivery["receipt"]))
        event = verify_receipt(receipt, keys.get).event
        assert (event["event"], event["message"]) == ("acknowledged", message)


async def test_a_run_does_not_cross_midnight(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    monkeypatch.setattr(ending, "DAY", 2)  # every other entry begins a day
    await send(pair, 6)
    _, cursor = await pair.receiver.read()
    assert await pair.receiver.acknowledge(up_to=cursor) == 6
    runs = await connection.fetch("select first_seq / 2 as first, last_seq / 2 as last from progress")
    assert len(runs) in (3, 4)
    assert all(run["first"] == run["last"] for run in runs)


async def test_a_run_of_hand_overs_does_not_cross_midnight(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    monkeypatch.setattr(handover_sealing, "DAY", 2)
    await send(pair, 6)
    await pair.receiver.read()
    assert await pair.hub.hub.acknowledger._handovers.seal(datetime.now(UTC) + timedelta(seconds=1)) == 6
    runs = await connection.fetch("select first_seq / 2 as first, last_seq / 2 as last from handed_run")
    assert len(runs) in (3, 4)
    assert all(run["first"] == run["last"] for run in runs)


async def test_partitions_are_made_while_somebody_holds_the_parents(
    hub: RunningHub, connection: asyncpg.Connection, database_url: str
) -> None:
    """As pg_dump does for as long as it takes."""
    dump = await asyncpg.connect(database_url)
    try:
        async with dump.transaction():
            for table in ("message", "batch", "rejection", "inbox", "progress"):
                await dump.execute(f"lock table {table} in access share mode")
            await connection.execute("select ensure_partitions(4)")
    finally:
        await dump.close()
    made = await connection.fetchval(
        "select count(*) from pg_inherits where inhparent = any($1::regclass[])",
        ["message", "batch", "rejection", "inbox", "progress"],
    )
    assert made == 5 * 6
    storage = await connection.fetch(
        """select a.attstorage, c.reloptions from pg_inherits i join pg_class c on c.oid = i.inhrelid
           join pg_attribute a on a.attrelid = c.oid and a.attname = 'body'
           where i.inhparent = 'message'::regclass"""
    )
    assert {(row["attstorage"], *row["reloptions"]) for row in storage} == {(b"e", "toast_tuple_target=8160")}


async def test_partitions_have_utc_months_whoever_asks(connection: asyncpg.Connection) -> None:
    await connection.execute("set timezone = 'Europe/Berlin'")
    await connection.execute("select ensure_partitions(14)")
    await connection.execute("set timezone = 'Asia/Ho_Chi_Minh'")
    await connection.execute("select ensure_partitions(18)")


async def test_a_mailbox_that_nobody_reads_does_not_stop_the_sweep(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "MAX_RANGES", 2)
    expires = datetime.now(UTC) + timedelta(hours=1)
    expiring = []
    for _ in range(4):
        await send(pair, 1)
        expiring += await send(pair, 1, expires=expires)
    await pair.hub.connection.execute("update message set expires_at = now() where expires_at is not null")

    async def swept() -> bool:
        await pair.hub.hub.chores.expire()
        states = [(await pair.sender.events(message))["deliveries"][0]["state"] for message in expiring]
        return states == ["expired"] * 4

    await until(swept, "all four expired")
    entries, _ = await pair.receiver.read()
    assert len(entries) == 4, "the lasting ones are still there"


async def test_large_express_mail_leaves_room_for_the_others(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "LANE_BYTES", (7_000, 2_000, 1_000))
    await send(pair, 12, priority="express", content="h" * 2_000)
    await send(pair, 2, priority="normal")
    entries, cursor = await pair.receiver.read(limit=10)
    assert [entry.lane for entry in entries] == ["express", "express", "normal"]
    seen = {entry.id for entry in entries}
    while entries:
        entries, cursor = await pair.receiver.read(limit=10, after=cursor)
        assert seen.isdisjoint(entry.id for entry in entries)
        seen |= {entry.id for entry in entries}
    assert len(seen) == 14


async def test_a_token_that_is_revoked_while_its_reader_waits_reads_nothing(
    pair: Pair, connection: asyncpg.Connection
) -> None:
    waiting = asyncio.create_task(pair.receiver.read(wait=30))
    await until(lambda: pair.hub.hub.wake.waiting, "a waiting reader")
    await change.revoke_credentials(connection, "van-yen")
    await pair.hub.follow()
    await send(pair, 1)
    with pytest.raises(Problem) as refused:
        await waiting
    assert refused.value.code == "unauthenticated"


async def test_a_body_counts_from_when_it_is_announced(pair: Pair, http: aiohttp.ClientSession) -> None:
    admission = pair.hub.hub.admission
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def body() -> object:
        yield b"e"
        begun.set()
        await go_on.wait()
        yield b"yJ"

    headers = pair.province.headers | {"Content-Type": "application/jose", "Content-Length": "60000"}
    request = asyncio.create_task(http.post(f"{pair.hub.url}/v1/messages", data=body(), headers=headers))
    await begun.wait()
    await until(lambda: admission.used >= 60_000, "the announced body to be counted")
    request.cancel()
    go_on.set()
    await asyncio.gather(request, return_exceptions=True)
    await until(lambda: admission.used == 0, "the room to be given back")


async def test_a_large_edxml_message_that_cannot_be_sent_leaves_no_blob(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    large = write(document(sender=PROVINCE, to=(("000.99.99.H63", "Không có"),), content="A" * (2 << 20)))
    headers = province.headers | {"Content-Type": "application/xml"}
    async with http.post(f"{hub.url}/v1/messages", data=io.BytesIO(large), headers=headers) as response:
        assert response.status == 422
        assert (await response.json(content_type=None))["code"] == "recipient-unknown"
    files = [path for path in hub.hub.blobs.root.rglob("*") if path.is_file()]
    assert files == []
