"""Deliveries that end otherwise: refused or expired, and how their senders learn of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from protocol.client.hub import Entry
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.until import until

EXPIRY_LOCK = 7011


async def notice(pair: Pair) -> tuple[Entry, dict[str, Any]]:
    """The one entry in the sender's mailbox: the hub's notice, and the event that it proves."""
    ((entry,), cursor) = await pair.sender.read()
    assert (entry.format, entry.sender, entry.to) == ("receipt", "hub", (PROVINCE,))
    assert entry.receipt is not None
    body = await pair.sender.fetch(entry)
    assert body == entry.receipt.to_json()
    event = orjson.loads(entry.receipt.event)
    proven = await pair.check(body, await pair.sender.fetch(event["message"]))
    assert proven == event
    assert await pair.sender.acknowledge(up_to=cursor) == 1
    return entry, event


async def test_a_refusal_tells_the_sender_why_with_proof(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, DAI_SON, priority="express"))
    (entry,) = await pair.page()
    assert await pair.receiver.refuse(entry, "Gửi nhầm: không thuộc thẩm quyền của huyện") == 1
    assert await pair.receiver.refuse(entry, "lý do khác") == 0
    assert await pair.receiver.acknowledge(entry) == 0
    assert await pair.page() == []
    found, event = await notice(pair)
    assert found.lane == "express"
    assert (event["event"], event["message"], event["endpoint"]) == ("refused", sent.id, "van-yen")
    assert event["reason"] == "Gửi nhầm: không thuộc thẩm quyền của huyện"
    assert event["recipients"] == [VAN_YEN, DAI_SON]
    state = await pair.state(sent.id)
    assert (state["state"], state["reason"]) == ("refused", event["reason"])
    # The notice is a message of the hub: its own end is told to nobody.
    assert (await pair.sender.events(found.id))["deliveries"][0]["state"] == "acknowledged"
    assert await pair.hub.connection.fetchval("select count(*) from message") == 2


async def hold_expiry(pair: Pair) -> None:
    """Keep the hub's own sweep from running, so that it is known who ends what."""
    held = "select pg_try_advisory_lock($1)"
    await until(lambda: pair.hub.connection.fetchval(held, EXPIRY_LOCK), "the lock of the sweep")


async def let_expire(pair: Pair) -> None:
    """Move all expiries into the past, as time would."""
    await pair.hub.connection.execute(
        "update message set expires_at = now() - interval '1 second' where expires_at is not null"
    )


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_what_has_expired_is_not_handed_over_and_the_sender_is_told(pair: Pair) -> None:
    await hold_expiry(pair)
    kept = await pair.send("normal")
    (late,) = await pair.send("normal", expires=soon())
    kept += await pair.send("normal")
    assert [entry.id for entry in await pair.page()] == [kept[0], late, kept[1]]
    await let_expire(pair)
    assert [entry.id for entry in await pair.page()] == kept
    _, event = await notice(pair)
    assert (event["event"], event["message"]) == ("expired", late)
    assert event["reason"].startswith("expired at ")
    assert (await pair.state(late))["state"] == "expired"
    assert await pair.receiver.acknowledge(*await pair.page()) == 2


async def test_the_sweep_ends_what_nobody_reads(pair: Pair) -> None:
    await hold_expiry(pair)
    (late,) = await pair.send("urgent", expires=soon())
    await let_expire(pair)
    await pair.hub.hub.chores.expire()
    _, event = await notice(pair)
    assert (event["event"], event["message"]) == ("expired", late)
    await pair.hub.hub.chores.expire()
    assert await pair.sender.read() == ([], "0.0.0")
    assert await pair.page() == []


async def test_the_sweep_ends_any_number_that_expire_at_the_same_moment(pair: Pair) -> None:
    await hold_expiry(pair)
    expires = soon()
    for _ in range(3):
        await pair.send(*["normal"] * 170, expires=expires)
    await let_expire(pair)
    await pair.hub.hub.chores.expire()
    left = await pair.hub.connection.fetchval(
        "select count(*) from inbox i join mailbox m using (endpoint, lane)"
        " where i.endpoint = $1 and i.seq > m.floor and not m.done @> i.seq",
        pair.district.id,
    )
    assert left == 0
    assert await pair.hub.connection.fetchval("select count(*) from message where endpoint = 0") == 510


async def test_a_delivery_that_was_acknowledged_does_not_expire(pair: Pair) -> None:
    await hold_expiry(pair)
    (message,) = await pair.send("normal", expires=soon())
    await pair.receiver.acknowledge(*await pair.page())
    await let_expire(pair)
    await pair.hub.hub.chores.expire()
    assert (await pair.state(message))["state"] == "acknowledged"
    assert (await pair.sender.read())[0] == []
