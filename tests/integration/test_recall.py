"""Recalls, updates, replacements: what was given to nobody never leaves, of the rest its recipients are asked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest

from protocol.client import HubClient
from protocol.message import Reference
from protocol.problems import Problem
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import add_system, state
from tests.support.edxml_messages import document, write
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party, register
from tests.support.until import until

XML = "application/xml"
SILENT_LOCK = 7014


def recall(party: Party, document_id: str, *to: str, **members: Any) -> Any:
    members.setdefault("concerns", (Reference(document_id),))
    return party.document(
        *(to or (VAN_YEN,)), business="recall", reason="Văn bản có sai sót", subject="Thu hồi văn bản", **members
    )


async def deliveries(client: HubClient, message: str) -> dict[str, dict[str, Any]]:
    return {found["endpoint"]: found for found in (await client.events(message))["deliveries"]}


async def test_what_was_not_handed_over_is_recalled_and_never_is(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="301/UBND"))
    kept = await pair.sender.send(pair.province.document(VAN_YEN, id="302/UBND"))
    asked = await pair.sender.send(recall(pair.province, "301/UBND"))
    # Its sender is told, with proof.
    ((notice,), cursor) = await pair.sender.read()
    assert notice.receipt is not None
    event = await pair.check(notice.receipt.to_json(), await pair.sender.fetch(sent.id))
    assert (event["event"], event["message"], event["endpoint"]) == ("recalled", sent.id, "van-yen")
    assert event["reason"] == f"recalled by message {asked.id}"
    await pair.sender.acknowledge(up_to=cursor)
    # The recipient sees neither it nor the recall, however it asks.
    assert [entry.id for entry in await pair.page()] == [kept.id]
    for path in ("", "/document", "/edxml"):
        with pytest.raises(Problem) as refused:
            await pair.receiver._transport.request("GET", f"/v1/messages/{sent.id}{path}")
        assert refused.value.code == "recalled"
    # What happened stays.
    state = await pair.state(sent.id)
    assert (state["state"], state["reason"]) == ("recalled", event["reason"])
    ended = await pair.state(asked.id)
    assert (ended["state"], ended["reason"]) == ("recalled", "what it recalls was never handed over here")
    assert (await deliveries(pair.receiver, sent.id))["van-yen"]["state"] == "recalled"
    assert (await pair.sender.events(sent.id)).get("states") is None
    assert (await pair.sender.read())[0] == []


async def test_what_was_handed_over_is_asked_back_and_the_answer_is_tracked(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="303/UBND"))
    assert [entry.id for entry in await pair.page()] == [sent.id]
    asked = await pair.sender.send(recall(pair.province, "303/UBND"))
    assert [entry.id for entry in await pair.page()] == [sent.id, asked.id]
    assert (await pair.state(sent.id))["state"] in ("waiting", "handed_over")

    async def standing() -> dict[str, Any]:
        (found,) = (await pair.sender.events(sent.id))["states"]
        return dict(found)

    assert (await standing())["current"] == "13"
    answer = pair.district.document(
        PROVINCE, kind="status", status="16", response_for=(Reference("303/UBND", agency=PROVINCE),)
    )
    await pair.receiver.send(answer)
    assert ((await standing())["current"], (await standing())["change"]) == ("16", "16")
    # An answer may name the recall instead of the document.
    to_the_recall = (Reference((await pair.sender.events(asked.id))["sender_id"], agency=PROVINCE),)
    await pair.receiver.send(
        pair.district.document(PROVINCE, kind="status", status="15", response_for=to_the_recall)
    )
    assert [item["code"] for item in (await standing())["reports"]] == ["13", "15", "16"]


async def test_each_recipient_is_decided_alone(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    read = await hub.register("van-yen", VAN_YEN)
    unread = await hub.register("luc-yen", LUC_YEN)
    async with province.client(hub.url) as sender, read.client(hub.url) as reader, unread.client(hub.url) as other:
        sent = await sender.send(province.document(VAN_YEN, LUC_YEN, id="304/UBND"))
        assert len((await reader.read())[0]) == 1
        asked = await sender.send(recall(province, "304/UBND", VAN_YEN, LUC_YEN))
        assert [entry.id for entry in (await reader.read())[0]] == [sent.id, asked.id]
        assert (await other.read())[0] == []
        found = await deliveries(sender, sent.id)
        assert (found["luc-yen"]["state"], found["van-yen"]["state"]) == ("recalled", "handed_over")
        ((notice,), _) = await sender.read()
        assert notice.receipt is not None and orjson.loads(notice.receipt.event)["endpoint"] == "luc-yen"


async def test_only_those_recipients_are_concerned_whom_the_recall_names(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN, DAI_SON)
    await hub.register("luc-yen", LUC_YEN)
    async with province.client(hub.url) as sender:
        sent = await sender.send(province.document(VAN_YEN, DAI_SON, LUC_YEN, id="305/UBND"))
        # Of an endpoint's two agencies one: its delivery is for the other, too.
        await sender.send(recall(province, "305/UBND", VAN_YEN))
        assert {found["state"] for found in (await deliveries(sender, sent.id)).values()} == {"waiting"}
        await sender.send(recall(province, "305/UBND", VAN_YEN, DAI_SON))
        found = await deliveries(sender, sent.id)
        assert (found["van-yen"]["state"], found["luc-yen"]["state"]) == ("recalled", "waiting")


async def test_repeating_a_recall_tells_nobody_twice(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="306/UBND"))
    raw = pair.sender.sign(recall(pair.province, "306/UBND"))
    first = await pair.sender.submit(raw)
    again = await pair.sender.submit(raw)
    assert (again.id, again.duplicate) == (first.id, True)
    assert len((await pair.sender.read())[0]) == 1
    # Another recall of what was recalled has nothing to ask either.
    await pair.sender.send(recall(pair.province, "306/UBND"))
    assert len((await pair.sender.read())[0]) == 1
    assert (await pair.state(sent.id))["state"] == "recalled"
    assert await pair.page() == []


async def test_a_repeated_recall_does_what_the_first_one_could_not(pair: Pair, monkeypatch: Any) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="307/UBND"))
    raw = pair.sender.sign(recall(pair.province, "307/UBND"))

    async def fail(*_: object) -> None:
        raise Problem("store-unavailable")

    with monkeypatch.context() as broken:
        broken.setattr(pair.hub.hub.acknowledger, "recall", fail)
        await pair.sender.submit(raw)
    assert (await pair.state(sent.id))["state"] == "waiting"
    await pair.sender.submit(raw)
    assert (await pair.state(sent.id))["state"] == "recalled"
    assert await pair.page() == []


async def test_only_the_sender_may_recall_or_update(pair: Pair) -> None:
    outsider = await pair.hub.register("luc-yen", LUC_YEN)
    await pair.sender.submit(write(document(to=((VAN_YEN, "Văn Yên"),), document_id="308/UBND")), XML)
    await pair.sender.send(pair.province.document(VAN_YEN, id="309/UBND"))
    forged = [
        recall(outsider, "308/UBND"),
        recall(outsider, "309/UBND", concerns=(Reference("309/UBND", agency=PROVINCE),)),
        outsider.document(VAN_YEN, business="update", concerns=(Reference("308/UBND"),)),
        outsider.document(VAN_YEN, kind="status", status="13", response_for=(Reference("308/UBND"),)),
    ]
    async with outsider.client(pair.hub.url) as client:
        for message in forged:
            raw = client.sign(message)
            with pytest.raises(Problem) as refused:
                await client.submit(raw)
            assert refused.value.code == "not-the-sender"
            await pair.check(orjson.dumps(refused.value.extra["receipt"]), raw)
        # A native id is the endpoint's own: one's own document may bear the same.
        await client.send(outsider.document(VAN_YEN, id="309/UBND"))
        await client.send(recall(outsider, "309/UBND"))
    assert [entry.sender_id for entry in await pair.page() if entry.format == "jws"] == ["309/UBND"]


async def test_a_recall_names_what_it_recalls(pair: Pair) -> None:
    with pytest.raises(Problem) as refused:
        await pair.sender.send(recall(pair.province, "", concerns=()))
    assert (refused.value.code, refused.value.fields[0][0]) == ("bad-document", "$.concerns")
    sent = await pair.sender.send(recall(pair.province, "chưa hề gửi"))
    ((unknown,), (entry,)) = (await pair.sender.events(sent.id))["speaks_of"], await pair.page()
    assert (unknown["relation"], unknown["reference"], entry.id) == ("recall", "unknown", sent.id)


@pytest.mark.parametrize("how", ["business", "status 13"])
async def test_edxml_recalls_alike(pair: Pair, how: str) -> None:
    raw = write(document(to=((VAN_YEN, "Văn Yên"),), document_id="310/UBND"))
    sent = await pair.sender.submit(raw, XML)
    if how == "business":
        business = [("BussinessDocType", "1"), ("BussinessDocReason", "Sai thể thức")]
        asked = write(document(to=((VAN_YEN, "Văn Yên"),), document_id="310/UBND", business=business))
    else:
        asked = state("13", sender=PROVINCE, organ=VAN_YEN, document_id="310/UBND")
        asked = asked.replace(b">000.00.00.H63<", b">" + PROVINCE.encode() + b"<")
    await pair.sender.submit(asked, XML)
    assert await pair.page() == []
    assert (await pair.state(sent.id))["state"] == "recalled"
    assert len((await pair.sender.read())[0]) == 1


async def test_a_system_of_the_axis_that_has_listed_it_does_not_get_it(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await add_system(hub, http, await hub.register("van-yen", VAN_YEN), "yb.vanyen.01")
    async with province.client(hub.url) as sender:
        first = await sender.send(province.document(VAN_YEN, id="311/UBND"))
        taken = await sender.send(province.document(VAN_YEN, id="312/UBND", priority="express"))
        assert len(await district.sdk.get_received_edoc_list()) == 2
        await district.sdk.get_edoc(taken.id)
        for name in ("311/UBND", "312/UBND"):
            await sender.send(recall(province, name))
        answer = await district.sdk.call("/getEdoc", district.sdk.sign({"docId": first.id}), b"{}")
        assert orjson.loads(answer.body)["status"] == "FAIL"
        assert first.id not in {line["docId"] for line in await district.sdk.get_received_edoc_list()}
        found = [(await deliveries(sender, message.id))["van-yen"]["state"] for message in (first, taken)]
        assert found[0] == "recalled" and found[1] in ("waiting", "handed_over")


async def test_attachments_of_what_was_recalled_are_not_given(pair: Pair, tmp_path: Any) -> None:
    file = tmp_path / "Tờ trình.pdf"
    file.write_bytes("Tờ trình".encode())
    attachment = await pair.sender.upload(file)
    await pair.sender.send(pair.province.document(VAN_YEN, id="313/UBND", attachments=(attachment,)))
    await pair.sender.send(recall(pair.province, "313/UBND"))
    with pytest.raises(Problem) as refused:
        await pair.receiver.download(attachment, tmp_path / "khác.pdf")
    assert refused.value.code == "not-found"


async def test_another_process_that_had_the_mailbox_open_is_asked(start_hub: StartHub) -> None:
    here, there = await start_hub(), await start_hub()
    province = await register(here.connection, "ubnd-tinh", PROVINCE)
    district = await register(here.connection, "van-yen", VAN_YEN)
    await here.follow()
    await there.follow()
    async with province.client(here.url) as sender, district.client(there.url) as reader:
        given = await sender.send(province.document(VAN_YEN, id="314/UBND"))
        assert len((await reader.read())[0]) == 1
        kept = await sender.send(province.document(VAN_YEN, id="315/UBND"))
        for name in ("314/UBND", "315/UBND"):
            await sender.send(recall(province, name))
        assert (await deliveries(sender, given.id))["van-yen"]["state"] in ("waiting", "handed_over")
        assert (await deliveries(sender, kept.id))["van-yen"]["state"] == "recalled"


async def test_what_a_process_that_fell_silent_had_open_counts_as_given(pair: Pair) -> None:
    connection = pair.hub.connection
    held = "select pg_try_advisory_lock($1)"
    await until(lambda: connection.fetchval(held, SILENT_LOCK), "the lock of the chore that gives it up")
    ghost = UUID(int=7)
    await connection.execute("insert into reader values ($1, now() - interval '1 hour')", ghost)
    await connection.execute("insert into open_mailbox values ($1, $2)", pair.district.id, ghost)
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="316/UBND"))
    await pair.sender.send(recall(pair.province, "316/UBND"))
    assert (await pair.state(sent.id))["state"] == "waiting"
    await pair.hub.hub.chores._silent_readers()
    assert await connection.fetchval("select count(*) from open_mailbox where reader = $1", ghost) == 0
    await pair.sender.send(recall(pair.province, "316/UBND"))
    assert (await pair.state(sent.id))["state"] == "handed_over"
    later = await pair.sender.send(pair.province.document(VAN_YEN, id="317/UBND"))
    await pair.sender.send(recall(pair.province, "317/UBND"))
    assert (await pair.state(later.id))["state"] == "recalled"


async def test_a_process_that_was_given_up_takes_nothing_out_until_it_is_heard_of_again(pair: Pair) -> None:
    await pair.page()
    await pair.hub.connection.execute("delete from open_mailbox")
    await pair.hub.connection.execute("delete from reader")
    openings = pair.hub.hub.openings
    openings._lease = 0.0  # as after twenty seconds without the store
    assert not openings.holds(pair.district.id)
    (sent,) = await pair.send("normal")
    assert [entry.id for entry in await pair.page()] == [sent]
    assert openings.holds(pair.district.id)
    assert await pair.hub.connection.fetchval("select count(*) from open_mailbox") == 1


async def test_mailboxes_are_closed_when_the_hub_stops(start_hub: StartHub) -> None:
    first = await start_hub()
    province = await register(first.connection, "ubnd-tinh", PROVINCE)
    district = await register(first.connection, "van-yen", VAN_YEN)
    await first.follow()
    async with province.client(first.url) as sender, district.client(first.url) as reader:
        await sender.send(province.document(VAN_YEN, id="318/UBND"))
        ((entry,), _) = await reader.read()
    await first.hub.stop()
    rows = await first.connection.fetchrow(
        "select (select count(*) from open_mailbox), (select count(*) from reader),"
        " (select max(given) from mailbox where endpoint = $1)",
        district.id,
    )
    assert tuple(rows) == (0, 0, entry.seq)


# -- threads ----------------------------------------------------------------------------------------


async def thread(client: HubClient, message: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.thread(message))["messages"]
    return found


async def test_what_belongs_together_is_one_thread(pair: Pair) -> None:
    sent = await pair.sender.send(
        pair.province.document(VAN_YEN, id="320/UBND", subject="Kế hoạch năm", code="320/UBND")
    )
    await pair.page()
    update = await pair.sender.send(
        pair.province.document(VAN_YEN, id="320a", business="update", concerns=(Reference("320/UBND"),))
    )
    answer = await pair.receiver.send(
        pair.district.document(PROVINCE, response_for=(Reference("320/UBND", agency=PROVINCE),))
    )
    status = await pair.receiver.send(
        pair.district.document(
            PROVINCE, kind="status", status="03", response_for=(Reference("320/UBND", agency=PROVINCE),)
        )
    )
    new = await pair.sender.send(
        pair.province.document(VAN_YEN, id="321/UBND", business="replace", concerns=(Reference("320/UBND"),))
    )
    await pair.sender.send(pair.province.document(VAN_YEN, id="322/UBND"))
    expected = [sent.id, update.id, answer.id, status.id, new.id]
    for message in expected:
        found = await thread(pair.sender, message)
        assert [item["id"] for item in found] == expected
    assert (found[0]["subject"], found[0]["code"]) == ("Kế hoạch năm", "320/UBND")
    relations = [link["relation"] for item in found for link in item.get("speaks_of", ())]
    assert relations == ["update", "answer", "state", "replacement"]
    assert {link["message"] for item in found for link in item.get("speaks_of", ())} == {sent.id}
    assert [item["id"] for item in await thread(pair.receiver, answer.id)] == expected


async def test_a_thread_shows_nobody_what_is_not_theirs(hub: RunningHub) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    other = await hub.register("luc-yen", LUC_YEN)
    async with (
        province.client(hub.url) as sender,
        district.client(hub.url) as reader,
        other.client(hub.url) as outsider,
    ):
        sent = await sender.send(province.document(VAN_YEN, LUC_YEN, id="323/UBND"))
        about = (Reference("323/UBND", agency=PROVINCE),)
        await reader.send(district.document(PROVINCE, response_for=about, subject="Trả lời riêng"))
        assert len(await thread(sender, sent.id)) == 2
        assert [item["id"] for item in await thread(outsider, sent.id)] == [sent.id]
        stranger = await hub.register("dai-son", DAI_SON)
        async with stranger.client(hub.url) as nobody:
            with pytest.raises(Problem) as refused:
                await thread(nobody, sent.id)
            assert refused.value.code == "not-found"


async def test_what_was_recalled_stands_in_its_recipients_thread_without_its_words(pair: Pair) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, id="324/UBND", subject="Nội dung sai"))
    await pair.sender.send(recall(pair.province, "324/UBND"))
    (first, second) = await thread(pair.receiver, sent.id)
    assert first["recalled"] and "subject" not in first and "times" not in first
    assert second["business"] == "recall"
    assert (await thread(pair.sender, sent.id))[0]["subject"] == "Nội dung sai"
