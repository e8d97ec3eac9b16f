"""The transparency log of a running hub, read by somebody who has nothing but its public key."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import aiohttp
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.evidence.integrate import Integrator, LogBrokenError, identify
from hub.evidence.record import Recorded
from protocol import log
from protocol.evidence import EventKind, Receipt, leaf_hash, read_receipt
from protocol.log import ENTRIES, Checkpoint, Tile
from protocol.note import read_verifier
from protocol.problems import Problem
from protocol.signature import parse
from tests.conftest import RunningHub, StartHub
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.until import until


class Reader:
    """An outsider."""

    def __init__(self, http: aiohttp.ClientSession, hub: RunningHub) -> None:
        self._http = http
        self._hub = hub

    async def get(self, path: str, status: int = 200) -> bytes:
        async with self._http.get(f"{self._hub.url}/log{path}") as response:
            assert response.status == status, await response.text()
            return await response.read()

    async def checkpoint(self) -> Checkpoint:
        about = orjson.loads(await self.get(""))
        assert about["keys"][0]["vkey"] == about["vkey"]
        found, _, _ = log.open_checkpoint(await self.get("/checkpoint"), read_verifier(about["vkey"]))
        assert found.origin == about["origin"]
        return found

    async def tree(self, checkpoint: Checkpoint) -> tuple[dict[Tile, bytes], list[bytes]]:
        """All hash tiles of a checkpoint, and all entries."""
        tiles, entries, size, level = {}, [], checkpoint.size, 0
        while size >> 8 * level:
            count = size >> 8 * level
            for index in range(-(-count // 256)):
                tile = Tile(level, index, min(256, count - 256 * index))
                tiles[tile] = await self.get("/" + tile.path)
                if level == 0:
                    bundle = await self.get("/" + Tile(ENTRIES, index, tile.width).path)
                    entries += log.read_bundle(bundle, tile.width)
            level += 1
        return tiles, entries

    async def prove(self, receipt: Receipt, checkpoint: Checkpoint) -> int:
        """Show that a receipt's event is in the log; gives its place."""
        batch = orjson.loads(parse(receipt.seal.encode()).payload)["batch"]
        proof = log.read_proof((await self.get(f"/proof/{batch}/{receipt.index}")).decode())
        found = log.read_checkpoint(log.read_note(proof.checkpoint))
        log.verify_inclusion(leaf_hash(receipt.event.encode()), proof.index, found.size, found.root, proof.path)
        assert found.size <= checkpoint.size
        return proof.index


async def integrate(hub: RunningHub) -> None:
    """Put everything that was sealed so far into the log."""
    await until(lambda: drained(hub), "the log takes all batches")


async def drained(hub: RunningHub) -> bool:
    await hub.hub.integrator.integrate()
    return not await hub.connection.fetchval("select count(*) from log_pending")


async def test_every_event_is_in_the_log_and_the_log_tells_nothing_else(
    pair: Pair, http: aiohttp.ClientSession
) -> None:
    messages = [pair.sender.sign(pair.province.document(VAN_YEN, DAI_SON)) for _ in range(300)]
    outcomes = await pair.sender.submit_many(messages)
    entries, cursor = await pair.receiver.read(limit=100)
    await pair.receiver.refuse(entries[3], "không đúng thẩm quyền")
    await pair.receiver.acknowledge(up_to=cursor)
    await integrate(pair.hub)
    reader = Reader(http, pair.hub)
    checkpoint = await reader.checkpoint()
    places = set()
    for outcome in outcomes:
        assert not isinstance(outcome, Problem)
        places.add(await reader.prove(outcome.receipt, checkpoint))
    assert len(places) == 300
    state = await pair.state(entries[3].id)
    refused = read_receipt(orjson.dumps(state))
    assert await reader.prove(refused, checkpoint) not in places
    # Whoever downloads all of it can compute all of it again.
    tiles, logged = await reader.tree(checkpoint)
    assert log.root(checkpoint.size, log.node_from(tiles, checkpoint.size)) == checkpoint.root
    assert [log.log_leaf(entry) for entry in logged] == [
        hash_ for tile, data in tiles.items() if tile.level == 0 for hash_ in log.split_hashes(data)
    ]
    sealed = await pair.hub.connection.fetch("select leaves from batch")
    assert sorted(logged) == sorted(leaf for row in sealed for leaf in log.split_hashes(row["leaves"]))


async def test_the_log_only_grows(pair: Pair, http: aiohttp.ClientSession) -> None:
    reader = Reader(http, pair.hub)
    before: list[Checkpoint] = []
    for round_ in range(4):
        count = (1, 254, 3, 300)[round_]
        await pair.sender.submit_many([pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(count)])
        await integrate(pair.hub)
        checkpoint = await reader.checkpoint()
        tiles, _ = await reader.tree(checkpoint)
        for old in before:
            path = log.consistency_proof(old.size, checkpoint.size, log.node_from(tiles, checkpoint.size))
            log.verify_consistency(old.size, old.root, checkpoint.size, checkpoint.root, path)
            # A tile of an older checkpoint is served still.
            await reader.get("/" + log.tile_of(0, old.size - 1, old.size).path)
        before.append(checkpoint)
    assert [checkpoint.size for checkpoint in before] == [1, 255, 258, 558]


async def test_a_receipt_promises_the_log_and_the_time(pair: Pair, http: aiohttp.ClientSession) -> None:
    sent = await pair.sender.submit(pair.sender.sign(pair.province.document(VAN_YEN)))
    sealed = orjson.loads(parse(sent.receipt.seal.encode()).payload)
    assert sealed["log"] == (await Reader(http, pair.hub).checkpoint()).origin == "lienthong/log"
    promised = datetime.fromisoformat(sealed["logged_by"]) - datetime.fromisoformat(sealed["at"])
    assert promised == timedelta(days=1)


async def test_what_waits_for_its_place_is_said_to(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: Integrator, pause: float = 0.0) -> int:
        return 0

    monkeypatch.setattr(Integrator, "integrate", nothing)
    hub = await start_hub()
    reader = Reader(http, hub)
    assert b"no checkpoint yet" in await reader.get("/checkpoint", 404)
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with province.client(hub.url) as sender:
        sent = await sender.submit(sender.sign(province.document(PROVINCE)))
    batch = orjson.loads(parse(sent.receipt.seal.encode()).payload)["batch"]
    assert b"logged_by" in await reader.get(f"/proof/{batch}/0", 404)
    about = orjson.loads(await reader.get(""))
    assert (about["size"], about["waiting"], about["checkpoint_at"]) == (0, 1, None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tile/0/000", 404),
        ("/tile/0/999", 404),
        ("/tile/64/000", 404),
        ("/tile/0/0", 404),
        ("/tile/entries/000.p/7", 404),
        ("/proof/0190-not-a-uuid/0", 400),
        ("/proof/019200000000700080000000000000ff/0", 404),
        ("/proof/019200000000700080000000000000ff/-1", 400),
        ("/proof/019200000000700080000000000000ff/٣", 400),
    ],
)
async def test_what_the_log_does_not_hold(
    hub: RunningHub, http: aiohttp.ClientSession, path: str, status: int
) -> None:
    answer = orjson.loads(await Reader(http, hub).get(path, status))
    assert answer["status"] == status


async def test_a_leaf_beyond_its_batch_is_not_somebody_elses_event(
    pair: Pair, http: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        sent = await pair.sender.submit(pair.sender.sign(pair.province.document(VAN_YEN)))
        await integrate(pair.hub)
        batch = orjson.loads(parse(sent.receipt.seal.encode()).payload)["batch"]
        await Reader(http, pair.hub).get(f"/proof/{batch}/1", 404)


async def test_altered_tables_are_not_signed(pair: Pair) -> None:
    await pair.sender.submit_many([pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(5)])
    await integrate(pair.hub)
    before = await pair.hub.connection.fetchval("select max(size) from checkpoint")
    await pair.hub.connection.execute(
        "update log_tile set hashes = overlay(hashes placing '\\x00'::bytea from 7) where level = -1"
    )
    await pair.sender.submit(pair.sender.sign(pair.province.document(VAN_YEN)))
    with pytest.raises(LogBrokenError, match="not the one that was signed"):
        await pair.hub.hub.integrator.integrate()
    assert await pair.hub.connection.fetchval("select max(size) from checkpoint") == before
    assert await pair.hub.connection.fetchval("select count(*) from log_pending") == 1


async def test_a_node_with_another_key_leaves_the_log_alone(
    start_hub: StartHub, http: aiohttp.ClientSession, tmp_path: object
) -> None:
    first = await start_hub()
    await integrate(first)
    identity = await identify(first.hub.pool, "another/log", Ed25519PrivateKey.generate().public_key())
    assert identity.origin == "lienthong/log"
    second = await start_hub(data_dir=f"{tmp_path}/second", name="Tỉnh Yên Bái")
    assert first.hub.integrator.ours
    assert not second.hub.integrator.ours
    assert (await Reader(http, second).checkpoint()).origin == "lienthong/log"


async def test_the_log_of_several_processes_is_one(
    start_hub: StartHub, http: aiohttp.ClientSession, pair: Pair
) -> None:
    others = [await start_hub() for _ in range(2)]
    stop = asyncio.Event()

    async def integrate_on(hub: RunningHub) -> None:
        while not stop.is_set():
            await hub.hub.integrator.integrate()
            await asyncio.sleep(0)

    turns = [asyncio.create_task(integrate_on(hub)) for hub in [pair.hub, *others]]
    await pair.sender.submit_many([pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(400)])
    stop.set()
    await asyncio.gather(*turns)
    await integrate(pair.hub)
    reader = Reader(http, others[0])
    checkpoint = await reader.checkpoint()
    tiles, logged = await reader.tree(checkpoint)
    assert log.root(checkpoint.size, log.node_from(tiles, checkpoint.size)) == checkpoint.root
    assert len(set(logged)) == len(logged) == 400


async def test_other_events_are_recorded_sealed_and_logged(pair: Pair, http: aiohttp.ClientSession) -> None:
    sent = await pair.sender.submit(pair.sender.sign(pair.province.document(VAN_YEN)))
    recorder = pair.hub.hub.recorder
    await asyncio.gather(
        *(
            recorder.record(
                [Recorded(UUID(sent.id), EventKind.RELAYED, None, {"reason": f"lần {number} – đã chuyển"})]
            )
            for number in range(20)
        )
    )
    rows = await pair.hub.connection.fetch("select e.*, b.leaves from event e join batch b on b.id = e.batch")
    assert len(rows) == 20
    for row in rows:
        text = orjson.loads(row["event"])
        assert (text["event"], text["message"]) == ("relayed", sent.id)
        assert leaf_hash(row["event"].encode()) == row["leaves"][row["leaf"] * 32 :][:32]
    await integrate(pair.hub)
    assert (await Reader(http, pair.hub).checkpoint()).size == 21
