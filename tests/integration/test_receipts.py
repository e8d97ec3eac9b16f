"""Receipts of a running hub, checked offline by both verifiers, and what the hub will not prove."""

from __future__ import annotations

import hashlib
from pathlib import Path

import aiohttp
import orjson
import pytest

from protocol.client import HubClient
from protocol.evidence import EvidenceError, Receipt, read_receipt, recipients_digest, verify_receipt
from protocol.problems import Problem
from protocol.signature import from_jwk
from tests.conftest import RunningHub, StartHub
from tests.support import second_verifier
from tests.support.desk import check_problem
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN


async def test_a_receipt_says_who_sent_what_to_whom_and_when(pair: Pair) -> None:
    message = pair.sender.sign(pair.province.document(VAN_YEN, DAI_SON, id="7/UBND", priority="express"))
    sent = await pair.sender.submit(message)
    event = await pair.check(sent.receipt.to_json(), message)
    at = event.pop("at")
    assert event == {
        "event": "accepted",
        "message": sent.id,
        "from": PROVINCE,
        "id": "7/UBND",
        "endpoint": "ubnd-tinh",
        "sha256": hashlib.sha256(message).hexdigest(),
        "size": len(message),
        "lane": "express",
        "recipients": 2,
        "recipients_sha256": recipients_digest([VAN_YEN, DAI_SON]),
        "signer": {"kid": pair.province.signer.kid},
    }
    timeline = await pair.sender.events(sent.id)
    assert timeline["accepted_at"] == at
    assert read_receipt(orjson.dumps(timeline["accepted"])) == sent.receipt


async def test_every_receipt_of_a_large_batch_proves_its_own_message(pair: Pair) -> None:
    messages = [pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(300)]
    outcomes = await pair.sender.submit_many(messages)
    jwks = await pair.sender.hub_keys()
    seals = set()
    for message, outcome in zip(messages, outcomes, strict=True):
        assert not isinstance(outcome, Problem)
        members = orjson.loads(outcome.receipt.to_json())
        event = second_verifier.prove(members, jwks, message)
        assert event["message"] == outcome.id
        seals.add(outcome.receipt.seal)
    # One signature for each commit, not for each message.
    assert len(seals) < 20


async def test_the_ends_of_deliveries_are_proven_one_by_one(pair: Pair) -> None:
    """Acknowledged as one run of a hundred, derived again for each."""
    messages = [pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(100)]
    ids = [outcome.id for outcome in await pair.sender.submit_many(messages) if not isinstance(outcome, Problem)]
    entries, cursor = await pair.receiver.read(limit=100)
    await pair.receiver.refuse(entries[50], "trùng")
    assert await pair.receiver.acknowledge(up_to=cursor) == 99
    assert await pair.hub.connection.fetchval("select count(*) from progress") == 3
    for place in (0, 1, 49, 50, 51, 98, 99):
        state = await pair.state(ids[place])
        event = await pair.check(orjson.dumps(state), messages[place])
        kind = "refused" if place == 50 else "acknowledged"
        assert (event["event"], event["message"], event["recipients"]) == (kind, ids[place], [VAN_YEN])
        assert (event["endpoint"], event["at"]) == ("van-yen", state["at"])


async def test_receipts_hold_across_a_restart_and_a_new_key(start_hub: StartHub, tmp_path: Path) -> None:
    first = await start_hub()
    province = await first.register("ubnd-tinh", PROVINCE)
    await first.register("van-yen", VAN_YEN)
    async with province.client(first.url) as sender:
        message = sender.sign(province.document(VAN_YEN))
        sent = await sender.submit(message)
    second = await start_hub(data_dir=str(tmp_path / "khóa mới"))
    async with province.client(second.url) as sender:
        jwks = await sender.hub_keys()
        assert len(jwks) == 2
        again = await sender.submit(message)
        assert (again.duplicate, again.receipt) == (True, sent.receipt)
        later = await sender.send(province.document(VAN_YEN))
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in jwks}
    kids = {verify_receipt(receipt, keys.get).kid for receipt in (sent.receipt, later.receipt)}
    assert kids == set(keys)


async def test_the_hubs_name_stands_in_its_seals(start_hub: StartHub) -> None:
    hub = await start_hub(name="truc.yenbai.gov.vn")
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with province.client(hub.url) as sender:
        sent = await sender.send(province.document(PROVINCE))
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await sender.hub_keys()}
    assert verify_receipt(sent.receipt, keys.get).hub == "truc.yenbai.gov.vn"


async def test_the_keys_are_public_halves_only(hub: RunningHub) -> None:
    async with HubClient(hub.url) as anybody:
        (jwk,) = await anybody.hub_keys()
    assert set(jwk) == {"kty", "crv", "x", "kid", "use"}
    assert (jwk["kty"], jwk["crv"], jwk["use"]) == ("OKP", "Ed25519", "sig")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("message", "event = replace(event, 'normal', 'express')"),
        ("message", "leaf = leaf + 1"),
        ("batch", "leaves = overlay(leaves placing '\\x00' from 1)"),
    ],
)
async def test_what_was_altered_in_the_store_is_not_proven(
    pair: Pair, http: aiohttp.ClientSession, table: str, change: str
) -> None:
    """Somebody with access to the database gets no receipt for what he wrote."""
    message = pair.sender.sign(pair.province.document(VAN_YEN))
    sent = await pair.sender.submit(message)
    await pair.hub.connection.execute(f"update {table} set {change}")
    url = f"{pair.hub.url}/v1/messages/{sent.id}/events"
    async with http.get(url, headers=pair.province.headers) as response:
        assert response.status == 500
        members = orjson.loads(await response.read())
    check_problem(members, "internal")
    assert "event" not in members


async def test_a_receipt_of_another_hub_proves_nothing_here(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN))
    jwks = await pair.sender.hub_keys()
    stranger = second_verifier.encode64(bytes(32))
    with pytest.raises(EvidenceError, match="not among the trusted"):
        verify_receipt(sent.receipt, {stranger: from_jwk(jwks[0])}.get)
    with pytest.raises(second_verifier.NotProvenError, match="not one of the hub's"):
        second_verifier.prove(orjson.loads(sent.receipt.to_json()), [jwks[0] | {"kid": stranger}])
    assert isinstance(sent.receipt, Receipt)
