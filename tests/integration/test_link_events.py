"""What becomes of a message on its way to another hub, as sealed events with that hub's own answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from hub.couriers import link_push
from protocol.client import HubClient
from protocol.evidence import read_receipt, verify_receipt
from protocol.signature import from_jwk
from tests.support import link_scene, native_linked
from tests.support.link_scene import Linked
from tests.support.linked import GOVERNMENT_OFFICE, UP
from tests.support.native_linked import Levels
from tests.support.told import tells
from tests.support.until import until

impatient_couriers, axis, linked = link_scene.impatient_couriers, link_scene.axis, link_scene.linked
hub_maker, unlinked, levels = native_linked.hub_maker, native_linked.unlinked, native_linked.levels


async def events(client: HubClient, message: str) -> dict[str, dict[str, Any]]:
    """The sealed events of a message by kind, each proven."""
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
    document = await client.fetch(message)
    found = {}
    for event in (await client.events(message))["events"]:
        proven = verify_receipt(read_receipt(orjson.dumps(event)), keys.get, document).event
        assert tells(proven, event)
        assert event["event"] not in found, "each once"
        found[event["event"]] = proven
    return found


async def test_what_another_hub_has_taken_is_relayed_with_its_receipt(levels: Levels) -> None:
    client = levels.client(levels.district)
    sent = await client.submit(client.sign(levels.district.document(GOVERNMENT_OFFICE, subject="Báo cáo")))
    (entry,) = await levels.mail(levels.office)
    await levels.ended(levels.district, sent.id, "acknowledged")
    found = await events(client, sent.id)
    assert list(found) == ["accepted", "handed_over", "relayed", "acknowledged"]
    assert found["relayed"]["recipients"] == [GOVERNMENT_OFFICE]
    assert found["relayed"]["peer_id"] == entry.id
    above = {jwk["kid"]: from_jwk(jwk) for jwk in await levels.client(levels.office).hub_keys()}
    beyond = read_receipt(orjson.dumps(found["relayed"]["beyond"]))
    assert verify_receipt(beyond, above.get, entry.body).event["message"] == entry.id


async def test_what_the_axis_has_taken_is_relayed_under_its_name(linked: Linked) -> None:
    message = await linked.send(subject="V/v triển khai chữ ký số")
    await linked.ended(message, "acknowledged")
    found = await events(linked.sender, message)
    assert list(found) == ["accepted", "handed_over", "relayed", "acknowledged"]
    assert (found["relayed"]["peer_id"], found["relayed"]["endpoint"]) == (linked.axis.sent[0].doc_id, UP)
    assert "beyond" not in found["relayed"]


async def test_what_the_peer_will_not_have(linked: Linked) -> None:
    linked.axis.refusing["tử thần".encode()] = ("18", "Không có đơn vị nhận này")
    message = await linked.send(subject="số tử thần")
    await linked.ended(message, "refused")
    found = await events(linked.sender, message)
    assert list(found) == ["accepted", "relay_rejected", "refused"]
    assert found["relay_rejected"]["code"] == found["refused"]["code"] == "relay-rejected"
    assert "Không có đơn vị nhận này" in found["relay_rejected"]["reason"]


async def test_what_does_not_get_over_for_long(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_push, "FAILED_TRIES", 2)
    linked.axis.refusing["văn bản khó".encode()] = ("20", "chưa xử lý được")
    message = await linked.send(subject="văn bản khó")

    async def tried() -> bool:
        return bool(await linked.hub.connection.fetchval("select tries >= 4 from link_transfer"))

    await until(tried, "it was tried four times")
    assert list(await events(linked.sender, message)) == ["accepted", "relay_failed"]
    linked.axis.refusing.clear()
    await linked.ended(message, "acknowledged")
    found = await events(linked.sender, message)
    assert list(found) == ["accepted", "relay_failed", "handed_over", "relayed", "acknowledged"]
    assert found["relay_failed"]["code"] == "relay-failed"
