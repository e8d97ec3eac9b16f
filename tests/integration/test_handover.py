"""Hand-over as evidence: sealed once, at the time when it happened, whoever gave and whoever acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest

from hub.relay import events, handover_sealing
from protocol.client import HubClient, Stream
from protocol.evidence import EventKind, Tree, leaf_hash, timestamp
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import connect, paper
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN
from tests.support.told import tells
from tests.support.until import until


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not acknowledged is sealed when a test says so."""
    monkeypatch.setattr(handover_sealing, "LOOK_SECONDS", 3600.0)


async def seal(hub: RunningHub, seconds: float = 1.0) -> int:
    """Seal, as if so much time had passed, what the hub gave; how many entries it looked at."""
    sealing = hub.hub.acknowledger._handovers
    return await sealing.seal(datetime.now(UTC) + timedelta(seconds=seconds))


async def handed_over(pair: Pair, message: str) -> dict[str, Any]:
    """The sealed hand-over of a message with one delivery; both verifiers accept its receipt, which is that of the
    event that ended the delivery, where there is no other."""
    state = await pair.state(message)
    found = state["handed_over"]
    document = await pair.sender.fetch(message)
    event = await pair.check(orjson.dumps(found), document)
    told = event["at"] if event["event"] == "handed_over" else event["handed_over_at"]
    assert (event["message"], told) == (message, found["at"])
    assert event["event"] in ("handed_over", state["state"])
    assert found["standard"] == ["E.1 ContentHandover"]
    return event | {"at": told}


async def runs(pair: Pair) -> tuple[int, int]:
    """Runs of hand-overs that were sealed by themselves, and of ends that tell of them."""
    alone = await pair.hub.connection.fetchval("select count(*) from handed_run")
    return alone, await pair.hub.connection.fetchval("select count(*) from progress where handed_at is not null")


async def test_a_page_that_is_acknowledged_is_sealed_with_its_end(pair: Pair) -> None:
    before = datetime.now(UTC)
    ids = await pair.send(*["normal"] * 30)
    entries, cursor = await pair.receiver.read(limit=100)
    between = datetime.now(UTC)
    assert await pair.receiver.acknowledge(up_to=cursor) == 30
    assert await runs(pair) == (0, 1)
    leaves = await pair.hub.connection.fetchval(
        "select sum(octet_length(leaves)) / 32 from batch where id in (select batch from progress)"
    )
    assert leaves == 30, "one event each tells of both"
    for message in (ids[0], ids[17], ids[-1]):
        event = await handed_over(pair, message)
        assert event["endpoint"] == "van-yen"
        assert event["recipients"] == [VAN_YEN]
        assert before <= datetime.fromisoformat(event["at"]) <= between
    assert await seal(pair.hub) == 0, "nothing is left to seal"
    assert [entry.id for entry in entries] == ids


async def test_the_events_of_a_message_stand_in_their_order(pair: Pair) -> None:
    (message,) = await pair.send("express")
    (entry,) = await pair.page()
    await pair.receiver.refuse(entry, "không thuộc thẩm quyền của huyện", "not-competent")
    timeline = await pair.sender.events(message)
    assert [(event["event"], event.get("endpoint", "")) for event in timeline["events"]] == [
        ("accepted", ""),
        ("handed_over", "van-yen"),
        ("refused", "van-yen"),
    ]
    assert [event["standard"] for event in timeline["events"]] == [
        ["A.1 SubmissionAcceptance", "D.1 ContentConsignment"],
        ["E.1 ContentHandover"],
        ["C.4 ConsignmentRejection"],
    ]
    document = await pair.sender.fetch(message)
    for event in timeline["events"]:
        proven = await pair.check(orjson.dumps(event), document)
        assert tells(proven, event)
    assert proven["event"] == "refused"
    assert (timeline["events"][2]["code"], proven["code"]) == ("not-competent", "not-competent")
    assert timeline["deliveries"][0]["code"] == "not-competent"
    # The recipient sees the same.
    assert (await pair.receiver.events(message))["events"] == timeline["events"]


async def test_what_nobody_acknowledges_is_sealed_by_itself(pair: Pair) -> None:
    ids = await pair.send("normal", "normal", "express")
    await pair.page()
    assert "handed_over" not in await pair.state(ids[0])
    assert await seal(pair.hub, -60) == 0, "not before its time"
    assert await seal(pair.hub) == 3
    assert await runs(pair) == (2, 0), "one for each lane"
    proven = [await handed_over(pair, message) for message in ids]
    state = await pair.state(ids[0])
    assert (state["state"], state["at"]) == ("handed_over", proven[0]["at"])
    # Given again and acknowledged later, it was handed over the first time.
    entries = await pair.page()
    assert await pair.receiver.acknowledge(*entries) == 3
    assert await seal(pair.hub) == 0
    assert [await handed_over(pair, message) for message in ids] == proven
    assert await runs(pair) == (2, 0)
    assert (await pair.state(ids[2]))["state"] == "acknowledged"


async def test_who_reads_the_same_again_and_again_is_handed_it_over_once(pair: Pair) -> None:
    ids = await pair.send(*["normal"] * 5)
    for _ in range(3):
        await pair.page()
        await seal(pair.hub)
    assert await runs(pair) == (1, 0)
    more = await pair.send(*["normal"] * 2)
    await pair.page()
    assert await seal(pair.hub) == 2, "of what is sealed nothing is asked again"
    sealed = "select handed_sealed::text from mailbox where not isempty(handed_sealed)"
    ranges = await pair.hub.connection.fetchval(sealed)
    assert ranges.count("[") == 1, "neighbours are one range"
    await pair.receiver.acknowledge(*await pair.page())
    assert await runs(pair) == (2, 0)
    for message in ids + more:
        await handed_over(pair, message)


async def test_single_entries_in_any_order(pair: Pair) -> None:
    ids = await pair.send(*["normal"] * 6)
    entries = await pair.page()
    await pair.receiver.acknowledge(entries[4], entries[2])
    await pair.receiver.refuse(entries[3], "trùng", "duplicate")
    assert await seal(pair.hub) == 3
    cursor = (await pair.receiver.read())[1]
    await pair.receiver.acknowledge(up_to=cursor)
    for message in ids:
        await handed_over(pair, message)
    covered = await pair.hub.connection.fetchval(
        "select sum((select count(*) from inbox i where i.endpoint = h.endpoint and i.lane = h.lane"
        " and i.seq between h.first_seq and h.last_seq)) from (select endpoint, lane, first_seq, last_seq"
        " from handed_run union all select endpoint, lane, first_seq, last_seq from progress"
        " where handed_at is not null) h"
    )
    assert covered == 6, "each once"


async def test_a_large_document_is_handed_over_when_it_is_fetched(pair: Pair) -> None:
    message = pair.sender.sign(pair.province.document(VAN_YEN, content="Nội dung dài. " * 9000))
    sent = await pair.sender.submit(message)
    (entry,) = await pair.page()
    assert entry.body is None
    assert await seal(pair.hub) == 0, "a page only names it"
    assert await pair.receiver.fetch(entry) == message
    assert await seal(pair.hub) == 1
    await handed_over(pair, sent.id)
    (other,) = await pair.send("normal")
    await pair.sender.fetch(other)
    await pair.receiver.acknowledge(*await pair.page())
    await handed_over(pair, other)


async def test_a_message_that_was_never_given_was_not_handed_over(pair: Pair) -> None:
    """Who acknowledges without having read is taken at his word, and no hand-over is claimed."""
    message = pair.sender.sign(pair.province.document(VAN_YEN, content="Nội dung dài. " * 9000))
    sent = await pair.sender.submit(message)
    (entry,) = await pair.page()
    await pair.receiver.acknowledge(entry)
    state = await pair.state(sent.id)
    assert state["state"] == "acknowledged"
    assert "handed_over" not in state
    assert await pair.sender.fetch(sent.id) == message, "its sender is handed nothing over by that"
    assert await seal(pair.hub) == 0


async def test_on_a_stream(pair: Pair, into: Stream) -> None:
    ids = []
    mail = into.mail()
    for _ in range(3):
        (message,) = await pair.send("urgent")
        ids.append(message)
        entry = await anext(mail)
        assert entry.id == message
        await into.acknowledge(entry)
    for message in ids:
        await handed_over(pair, message)
    await pair.send("urgent")
    await anext(mail)
    await until(lambda: seal(pair.hub), "what was pushed is noted")
    assert await runs(pair) == (1, 3)


async def test_a_system_of_the_axis(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(hub, http)
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    district = axis.district.sdk
    await district.get_received_edoc_list()
    assert await seal(hub) == 0, "a list only names it"
    await district.get_edoc(doc_id)
    await district.update_status(doc_id, "done")
    told = "select count(*) from progress where handed_at is not null"
    assert await hub.connection.fetchval(told) == 1
    timeline = await hub.hub.history.timeline(await hub.hub.history.message(doc_id))
    assert [event.kind for event in timeline.events] == [
        EventKind.ACCEPTED,
        EventKind.HANDED_OVER,
        EventKind.ACKNOWLEDGED,
    ]


@pytest.fixture
async def two(start_hub: StartHub) -> AsyncIterator[tuple[Pair, HubClient, RunningHub]]:
    """Two hubs on one database, as two processes of one: a pair at the first, its recipient at the second."""
    first, second = await start_hub(), await start_hub()
    pair = Pair(
        first, await first.register("ubnd-tinh", PROVINCE), await first.register("van-yen", VAN_YEN, DAI_SON)
    )
    await second.follow()
    async with pair.sender, pair.receiver, pair.district.client(second.url) as other:
        yield pair, other, second


async def test_one_process_gives_and_another_is_told(two: tuple[Pair, HubClient, RunningHub]) -> None:
    pair, other, second = two
    ids = await pair.send(*["normal"] * 4)
    _, cursor = await pair.receiver.read()
    assert await other.acknowledge(up_to=cursor) == 4
    assert "handed_over" not in await pair.state(ids[0]), "the second does not know of it"
    assert await seal(second) == 0
    assert await seal(pair.hub) == 4
    proven = [await handed_over(pair, message) for message in ids]
    ended = (await pair.state(ids[0]))["at"]
    assert all(event["at"] < ended for event in proven)
    assert [event["event"] for event in (await pair.sender.events(ids[0]))["events"]] == [
        "accepted",
        "handed_over",
        "acknowledged",
    ]


async def test_two_processes_that_give_the_same(two: tuple[Pair, HubClient, RunningHub]) -> None:
    pair, other, second = two
    ids = await pair.send(*["normal"] * 4)
    await pair.page()
    await other.read()
    assert await seal(second) == 4
    sealed = [await handed_over(pair, message) for message in ids]
    batches = "select count(*) from batch"
    before = await pair.hub.connection.fetchval(batches)
    assert await seal(pair.hub) == 4, "it looks, and finds them sealed"
    assert await runs(pair) == (1, 0)
    assert await pair.hub.connection.fetchval(batches) == before
    # The first still believes that nothing is sealed; its acknowledgement finds out.
    _, cursor = await pair.receiver.read(after="0.0.0")
    assert await pair.receiver.acknowledge(up_to=cursor) == 4
    assert [await handed_over(pair, message) for message in ids] == sealed
    assert await runs(pair) == (1, 0)


async def test_an_acknowledgement_here_after_a_sealing_there(two: tuple[Pair, HubClient, RunningHub]) -> None:
    pair, other, second = two
    ids = await pair.send(*["normal"] * 4)
    _, cursor = await pair.receiver.read()
    await other.read(limit=2)
    assert await seal(second) == 2
    assert await pair.receiver.acknowledge(up_to=cursor) == 4
    assert await runs(pair) == (1, 1), "those two, and the other two with their end"
    for message in ids:
        await handed_over(pair, message)
    assert await pair.hub.connection.fetchval("select handed_sealed::text from mailbox where floor > 0") == "{}"


async def test_what_a_process_took_with_it_is_sealed_when_it_is_given_again(
    two: tuple[Pair, HubClient, RunningHub],
) -> None:
    pair, other, second = two
    ids = await pair.send("normal", "normal")
    await pair.page()
    noted = pair.hub.hub.acknowledger._handed.handovers
    assert noted.take_old(datetime.max.replace(tzinfo=UTC), 100), "it dies with these"
    again = datetime.now(UTC)
    entries, _ = await other.read()
    await other.acknowledge(entries[0])
    assert await seal(second) == 1
    for message in ids:
        assert datetime.fromisoformat((await handed_over(pair, message))["at"]) >= again


async def test_a_circular_is_handed_over_at_each_recipient(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    parties = [await hub.register(f"huyen-{code}", code) for code in (VAN_YEN, LUC_YEN, DAI_SON)]
    async with province.client(hub.url) as sender:
        sent = await sender.send(province.document(VAN_YEN, LUC_YEN, DAI_SON))
        for party in parties[:2]:
            async with party.client(hub.url) as reader:
                _, cursor = await reader.read()
                if party is parties[0]:
                    await reader.acknowledge(up_to=cursor)
        await seal(hub)
        timeline = await sender.events(sent.id)
    assert [delivery["state"] for delivery in timeline["deliveries"]] == ["acknowledged", "handed_over", "waiting"]
    assert ["handed_over" in delivery for delivery in timeline["deliveries"]] == [True, True, False]
    assert [event["event"] for event in timeline["events"]].count("accepted") == 1
    assert sorted(event.get("endpoint", "") for event in timeline["events"]) == [
        "",
        f"huyen-{VAN_YEN}",
        f"huyen-{VAN_YEN}",
        f"huyen-{LUC_YEN}",
    ]


async def test_what_is_left_is_sealed_when_the_hub_stops(start_hub: StartHub) -> None:
    first, second = await start_hub(), await start_hub()
    pair = Pair(first, await first.register("ubnd-tinh", PROVINCE), await first.register("van-yen", VAN_YEN))
    await second.follow()
    async with pair.sender, pair.district.client(second.url) as other:
        (message,) = await pair.send("normal")
        await other.read()
        await second.hub.acknowledger._handovers.stop()
        await handed_over(pair, message)


async def test_what_was_sealed_before_there_were_codes_is_proven(pair: Pair) -> None:
    """A refusal as an older hub left it: no code in its text, and none in its run."""
    (message,) = await pair.send("normal")
    (entry,) = await pair.page()
    await pair.receiver.refuse(entry, "gửi nhầm")
    run = await pair.hub.connection.fetchrow("select at, batch, leaf from progress")
    about = events.about(
        UUID(message), entry.sender, entry.sender_id, bytes.fromhex(entry.sha256), "van-yen", list(entry.to)
    )
    old = events.of_delivery(EventKind.REFUSED, timestamp(run["at"]), about, None, "gửi nhầm")
    tree = Tree([leaf_hash(old.encode())])
    seal_ = pair.hub.hub._sealer.seal(tree, str(run["batch"]), run["at"])
    await pair.hub.connection.execute(
        "update batch set leaves = $2, seal = $3 where id = $1", run["batch"], tree.root, seal_
    )
    await pair.hub.connection.execute("update progress set code = null, handed_at = null, leaf = 0")
    state = await pair.state(message)
    proven = await pair.check(orjson.dumps(state), await pair.sender.fetch(message))
    assert (proven["reason"], "code" in proven, "code" in state) == ("gửi nhầm", False, False)
