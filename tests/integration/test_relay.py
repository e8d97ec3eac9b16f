"""Documents from agency to agency, through a real PostgreSQL and real sockets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from hub.directory import change
from protocol.evidence import recipients_digest, verify_receipt
from protocol.message import Reference, seal
from protocol.problems import Problem
from protocol.signature import Signer, from_jwk, generate
from tests.conftest import RunningHub, StartHub
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN


async def test_a_document_is_sent_received_acknowledged_and_proven(hub: RunningHub, tmp_path: Path) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    file = tmp_path / "công văn.pdf"
    file.write_bytes("nội dung công văn".encode() * 1000)
    async with province.client(hub.url) as sender, district.client(hub.url) as receiver:
        attachment = await sender.upload(file, "application/pdf")
        message = sender.sign(province.document(VAN_YEN, attachments=(attachment,)))
        sent = await sender.submit(message)
        assert not sent.duplicate
        (entry,), cursor = await receiver.read()
        assert (entry.body, entry.to, entry.id) == (message, (VAN_YEN,), sent.id)
        assert entry.document.subject == "V/v kết nối, liên thông phần mềm quản lý văn bản"
        target = tmp_path / "nhận được.pdf"
        await receiver.download(entry.document.attachments[0], target)
        assert target.read_bytes() == file.read_bytes()
        assert await receiver.acknowledge(up_to=cursor) == 1
        assert await receiver.acknowledge(up_to=cursor) == 0
        assert (await receiver.read())[0] == []
        (delivery,) = (await sender.events(sent.id))["deliveries"]
        assert (delivery["state"], delivery["endpoint"]) == ("acknowledged", "van-yen")
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await sender.hub_keys()}
    accepted = verify_receipt(sent.receipt, keys.get, message).event
    assert (accepted["event"], accepted["id"], accepted["message"]) == ("accepted", entry.sender_id, sent.id)


async def test_the_same_bytes_again_get_the_first_receipt(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender:
        message = sender.sign(province.document(VAN_YEN))
        first, again, once_more = [await sender.submit(message) for _ in range(3)]
    assert (first.duplicate, again.duplicate, once_more.duplicate) == (False, True, True)
    assert first.receipt == again.receipt == once_more.receipt
    assert {first.id, again.id, once_more.id} == {first.id}
    assert await hub.connection.fetchval("select count(*) from inbox") == 1


async def test_two_endpoints_may_use_the_same_id(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as one, district.client(hub.url) as other:
        first = await one.send(province.document(VAN_YEN, id="7/UBND"))
        second = await other.send(district.document(PROVINCE, id="7/UBND"))
        assert not second.duplicate
        assert first.id != second.id
        # Each finds its own message by its own id, and both by the hub's.
        assert (await one.events("7/UBND"))["id"] == first.id
        assert (await other.events("7/UBND"))["id"] == second.id
        assert (await other.events(first.id))["from"] == PROVINCE


async def test_a_message_is_found_by_the_senders_id_even_when_that_is_a_uuid(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    stranger = await hub.register("luc-yen", LUC_YEN)
    await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender, stranger.client(hub.url) as other:
        for own in ("0f8fad5b-d9cb-469f-a165-70867728950e", "7/UBND-VP", "Số 7: công văn/đi", "{x}"):
            message = sender.sign(province.document(VAN_YEN, id=own))
            sent = await sender.submit(message)
            assert sent.id == str(UUID(sent.id))
            for name in (own, sent.id):
                assert await sender.fetch(name) == message
                assert (await sender.events(name))["sender_id"] == own
                with pytest.raises(Problem) as caught:
                    await other.fetch(name)
                assert caught.value.code == "not-found"


async def test_one_document_to_many_by_every_kind_of_address(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE, aliases={PROVINCE: ("H63",)})
    van_yen = await hub.register("van-yen", VAN_YEN, DAI_SON, aliases={VAN_YEN: ("H63.31",)})
    luc_yen = await hub.register("luc-yen", LUC_YEN, aliases={LUC_YEN: ("H63.32",)})
    await change.put_group(hub.connection, "cac-huyen", ["H63.31", LUC_YEN])
    await hub.follow()
    cases: list[tuple[tuple[str, ...], dict[str, set[str]]]] = [
        (("H63.31",), {"van-yen": {VAN_YEN}}),
        (("group:cac-huyen",), {"van-yen": {VAN_YEN}, "luc-yen": {LUC_YEN}}),
        (("below:H63",), {"van-yen": {VAN_YEN, DAI_SON}, "luc-yen": {LUC_YEN}}),
        ((f"below:{VAN_YEN}",), {"van-yen": {DAI_SON}}),
        (("H63", "H63.32", LUC_YEN), {"ubnd-tinh": {PROVINCE}, "luc-yen": {LUC_YEN}}),
    ]
    mailboxes = {party.name: party for party in (province, van_yen, luc_yen)}
    async with province.client(hub.url) as sender:
        for to, expected in cases:
            sent = await sender.send(province.document(*to))
            event = orjson.loads(sent.receipt.event)
            codes = [code for served in expected.values() for code in served]
            assert (event["recipients"], event["recipients_sha256"]) == (len(codes), recipients_digest(codes))
            for name, party in mailboxes.items():
                async with party.client(hub.url) as receiver:
                    entries, cursor = await receiver.read()
                    found = {entry.id: set(entry.to) for entry in entries}
                    assert found == ({sent.id: expected[name]} if name in expected else {})
                    await receiver.acknowledge(up_to=cursor)


async def test_what_cannot_be_reached_is_reported_beside_those_accepted(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender:
        message = sender.sign(province.document(VAN_YEN, "KHONG.CO", unreachable="report"))
        first, again = await sender.submit(message), await sender.submit(message)
    (gap,) = first.unreachable
    assert gap["recipient"] == "KHONG.CO"
    assert orjson.loads(first.receipt.event)["unreachable"] == [gap]
    assert again.unreachable == first.unreachable


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
async def test_an_agency_may_sign_with_a_key_of_its_own(hub: RunningHub, alg: str) -> None:
    """Registered for the agency, it holds at whichever endpoint speaks for the agency."""
    district = await hub.register("van-yen", VAN_YEN, DAI_SON)
    await hub.register("ubnd-tinh", PROVINCE)
    key = generate(alg)
    await change.add_key(hub.connection, key.public_key(), agency=DAI_SON)
    await hub.follow()
    async with district.client(hub.url) as sender:
        own = seal(district.document(PROVINCE, sender=DAI_SON), Signer(key))
        assert not (await sender.submit(own)).duplicate
        other = seal(district.document(PROVINCE, sender=VAN_YEN), Signer(key))
        with pytest.raises(Problem) as caught:
            await sender.submit(other)
    assert caught.value.code == "key-not-yours"


async def test_a_status_travels_like_a_document(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as one, district.client(hub.url) as other:
        await one.send(province.document(VAN_YEN, id="7/UBND"))
        reference = (Reference("7/UBND", PROVINCE, "7/UBND-VP", "2026-03-02"),)
        await other.send(district.document(PROVINCE, kind="status", status="03", response_for=reference))
        (entry,), _ = await one.read()
        assert (entry.document.kind, entry.document.status) == ("status", "03")
        assert entry.document.response_for == reference


async def test_a_large_message_is_named_in_the_page_and_fetched(start_hub: StartHub) -> None:
    hub = await start_hub(max_message_bytes=4 << 20)
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender, district.client(hub.url) as receiver:
        sent = []
        for size in (10, 60 << 10, 100 << 10, 2 << 20):
            message = sender.sign(province.document(VAN_YEN, content="Đ" * (size // 2)))
            sent.append((await sender.submit(message), message))
        entries, _ = await receiver.read()
        assert [entry.body is not None for entry in entries] == [True, False, False, False]
        for entry, (accepted, message) in zip(entries, sent, strict=True):
            assert (entry.id, entry.size) == (accepted.id, len(message))
            assert entry.sha256 == hashlib.sha256(message).hexdigest()
            assert await receiver.fetch(entry) == message
