"""Mailboxes: lanes, cursors, and acknowledging in any order."""

from __future__ import annotations

import random

import aiohttp
import orjson
import pytest

from hub.directory import change
from protocol.client import HubClient
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.pair import Pair
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.until import until

# -- order ----------------------------------------------------------------------------------------


async def test_express_comes_before_urgent_before_normal(pair: Pair) -> None:
    ids = await pair.send("normal", "urgent", "express", "normal", "very_urgent", "express")
    entries, cursor = await pair.receiver.read()
    assert [entry.lane for entry in entries] == ["express"] * 2 + ["urgent"] * 2 + ["normal"] * 2
    assert [entry.id for entry in entries] == [ids[place] for place in (2, 5, 1, 4, 0, 3)]
    assert cursor.split(".") == [str(entries[place].seq) for place in (1, 3, 5)]


async def test_in_a_mixed_backlog_every_lane_advances(pair: Pair) -> None:
    """At each size of page, even of one entry, and to the end of every lane."""
    for limit in (1, 3, 10):
        await pair.send(*["express"] * 24, *["urgent"] * 8, *["normal"] * 8)
        lanes: list[str] = []
        while entries := await pair.page(limit=limit):
            assert len(entries) <= limit
            await pair.receiver.acknowledge(*entries)
            lanes += [entry.lane for entry in entries]
        assert sorted(lanes) == ["express"] * 24 + ["normal"] * 8 + ["urgent"] * 8
        first = lanes[: 8 * limit]
        assert {"urgent", "normal"} <= set(first)
        assert first.count("express") >= len(first) / 2


async def test_reading_on_with_after_and_again_without(pair: Pair) -> None:
    ids = await pair.send(*["normal", "express"] * 5)
    seen: list[str] = []
    cursor = "0.0.0"
    while True:
        entries, cursor = await pair.receiver.read(limit=3, after=cursor)
        if not entries:
            break
        seen += [entry.id for entry in entries]
    assert sorted(seen) == sorted(ids)
    # Nothing was acknowledged: a reader that starts anew gets everything again.
    assert sorted(entry.id for entry in await pair.page()) == sorted(ids)
    assert await pair.page(after=cursor) == []
    assert await pair.receiver.acknowledge(up_to=cursor) == 10
    assert await pair.page() == []


async def test_a_page_says_whether_more_waits(pair: Pair, http: aiohttp.ClientSession) -> None:
    await pair.send(*["normal"] * 3)
    for limit, more in ((2, True), (3, False), (4, False)):
        async with http.get(f"{pair.hub.url}/v1/mailbox?limit={limit}", headers=pair.district.headers) as answer:
            assert (await answer.json())["more"] is more


# -- acknowledging --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_entries_are_acknowledged_in_any_order_once_each(pair: Pair, seed: int) -> None:
    choose = random.Random(seed)
    ids = await pair.send(*choose.choices(["normal", "urgent", "express"], k=24))
    left = await pair.page()
    choose.shuffle(left)
    while left:
        now, left = left[:5], left[5:]
        assert await pair.receiver.acknowledge(*now) == len(now)
        assert await pair.receiver.acknowledge(*now) == 0
        assert {entry.id for entry in await pair.page()} == {entry.id for entry in left}
    rows = await pair.hub.connection.fetch(
        "select m.floor, m.done::text, coalesce(max(i.seq), 0) as last from mailbox m"
        " left join inbox i using (endpoint, lane) where m.endpoint = $1 group by m.endpoint, m.lane",
        pair.district.id,
    )
    assert [(row["floor"], row["done"]) for row in rows] == [(row["last"], "{}") for row in rows]
    for message in ids:
        state = await pair.state(message)
        event = await pair.check(orjson.dumps(state), await pair.sender.fetch(message))
        assert (state["state"], event["event"], event["message"]) == ("acknowledged", "acknowledged", message)


async def test_a_cursor_acknowledges_what_was_read_and_not_what_came_since(pair: Pair) -> None:
    await pair.send("normal", "express")
    _, cursor = await pair.receiver.read()
    later = await pair.send("express", "normal", "urgent")
    assert await pair.receiver.acknowledge(up_to=cursor) == 2
    assert {entry.id for entry in await pair.page()} == set(later)


async def test_one_request_may_acknowledge_refuse_and_move_the_cursor(
    pair: Pair, http: aiohttp.ClientSession
) -> None:
    await pair.send(*["normal"] * 6)
    entries = await pair.page()
    asked = {
        "up_to": f"0.0.{entries[2].seq}",
        "entries": [entries[1].seq, entries[4].seq],
        "refuse": [{"seq": entries[0].seq, "reason": "trùng văn bản"}],
    }
    for acknowledged, refused in ((3, 1), (0, 0)):
        url = f"{pair.hub.url}/v1/mailbox/ack"
        async with http.post(url, json=asked, headers=pair.district.headers) as answer:
            assert await answer.json() == {"acknowledged": acknowledged, "refused": refused}
    assert [entry.seq for entry in await pair.page()] == [entries[3].seq, entries[5].seq]
    states = [(await pair.state(entry.id))["state"] for entry in entries]
    done = "refused", "acknowledged", "acknowledged", None, "acknowledged", None
    assert all(found == state for found, state in zip(states, done, strict=True) if state)
    assert {states[3], states[5]} <= {"waiting", "handed_over"}


async def test_what_is_not_in_the_mailbox_cannot_be_acknowledged(pair: Pair) -> None:
    await pair.send("normal")
    ((entry,), cursor) = await pair.receiver.read()
    beyond = f"0.0.{entry.seq + 1}"
    for attempt in (
        pair.receiver.acknowledge(up_to=beyond),
        pair.receiver.acknowledge(up_to=f"{entry.seq}.0.0"),
        pair.receiver.acknowledge(entry.seq, entry.seq + 1),
        pair.receiver.refuse(entry.seq + 1, "không có"),
    ):
        with pytest.raises(Problem) as caught:
            await attempt
        assert caught.value.code == "beyond-end"
    assert [found.id for found in await pair.page()] == [entry.id]
    # A gap between entries holds nothing.
    assert await pair.receiver.acknowledge(entry.seq - 1) == 0
    assert await pair.receiver.acknowledge(up_to=cursor) == 1
    with pytest.raises(Problem):
        await pair.receiver.acknowledge(up_to=beyond)


async def test_nobody_acknowledges_for_another(pair: Pair) -> None:
    stranger = await pair.hub.register("luc-yen", LUC_YEN)
    (message,) = await pair.send("normal")
    (entry,) = await pair.page()
    async with stranger.client(pair.hub.url) as other:
        with pytest.raises(Problem) as caught:
            await other.acknowledge(entry)
        assert caught.value.code == "beyond-end"
        for ask in (other.fetch(message), other.events(message)):
            with pytest.raises(Problem) as caught:
                await ask
            assert caught.value.code == "not-found"
    assert (await pair.state(message))["state"] != "acknowledged"


async def test_each_recipient_sees_its_own_delivery_and_the_sender_all(hub: RunningHub) -> None:
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN))
    other = await hub.register("luc-yen", LUC_YEN)
    async with pair.sender, pair.receiver, other.client(hub.url) as third:
        sent = await pair.sender.send(pair.province.document(VAN_YEN, LUC_YEN))
        await pair.receiver.acknowledge(*await pair.page())
        timelines = [await client.events(sent.id) for client in (pair.sender, pair.receiver, third)]
        seen = [{found["endpoint"] for found in timeline["deliveries"]} for timeline in timelines]
        assert seen == [{"van-yen", "luc-yen"}, {"van-yen"}, {"luc-yen"}]
        token = await change.issue_token(hub.connection, role="auditor", label="thanh tra")
        await hub.follow()
        async with HubClient(hub.url, token) as auditor:
            assert {d["endpoint"] for d in (await auditor.events(sent.id))["deliveries"]} == {"van-yen", "luc-yen"}


async def test_a_page_that_was_read_is_noted_as_handed_over(pair: Pair) -> None:
    (message,) = await pair.send("normal")
    assert (await pair.state(message))["state"] == "waiting"
    await pair.page()
    await until(lambda: _is_handed_over(pair, message), "the note that the page was read")


async def _is_handed_over(pair: Pair, message: str) -> bool:
    state = await pair.state(message)
    assert state["state"] in ("waiting", "handed_over")
    assert "receipt" not in state
    return bool(state["state"] == "handed_over")
