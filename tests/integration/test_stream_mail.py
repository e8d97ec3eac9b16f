"""Mail on a stream: pushed from memory or from the store, within credit, acknowledged."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from hub.couriers import stream as couriers
from hub.doors import stream_connection
from protocol.manifest import open_entry
from protocol.stream import (
    Acked,
    Credit,
    Failure,
    Mail,
    Refusal,
)
from tests.support.desk import check_problem
from tests.support.load import whole_mailbox
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, VAN_YEN
from tests.support.stream import RawStream, document, message, prove, raw_stream
from tests.support.until import until


@pytest.fixture
def reads(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Where each read of a mailbox begins."""
    found: list[tuple[int, ...]] = []
    page = pair.hub.hub.mailboxes.page

    async def counted(endpoint: int, after: tuple[int, int, int], *options: Any) -> Any:
        found.append(after)
        return await page(endpoint, after, *options)

    monkeypatch.setattr(pair.hub.hub.mailboxes, "page", counted)
    return found


async def test_what_waits_is_pushed_and_what_comes_then_comes_without_a_read(
    pair: Pair, sending: RawStream, http: aiohttp.ClientSession, reads: list[tuple[int, ...]]
) -> None:
    ids = await pair.send("normal", "express", "normal")
    async with raw_stream(http, pair.hub.url, pair.district, messages=100, size=1 << 20) as stream:
        entries = await stream.mail(3)
        assert [entry["id"] for entry in entries] == [ids[1], ids[0], ids[2]]
        assert reads == [(0, 0, 0)]
        raws = [message(pair, priority="urgent") for _ in range(5)]
        n = await sending.submit(*raws)
        await sending.submit_together(pair.province, [document(pair, DAI_SON)])
        pushed = await stream.mail(6)
        assert [entry["jws"].encode() for entry in pushed if "jws" in entry] == raws
        accepted = [outcome["id"] for outcome in (await sending.answers(n, n + 1))[n]]
        assert [entry["id"] for entry in pushed if "jws" in entry] == accepted
        (signed,) = [entry for entry in pushed if "entry" in entry]
        assert (signed["format"], signed["to"]) == ("manifest", [DAI_SON])
        assert open_entry(signed["entry"].encode()).index == 0
        assert len(reads) == 1, "they came from memory"
        # What is pushed is what anybody reads.
        page, cursor = await pair.receiver.read()
        assert [entry.id for entry in page if entry.lane == "urgent"] == accepted
        assert cursor == stream.cursor


async def test_an_entry_is_the_same_from_memory_and_from_the_store(
    pair: Pair, sending: RawStream, receiving: RawStream, http: aiohttp.ClientSession
) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    large = message(pair, content="Nội dung dài. " * 6000)
    await sending.submit(
        message(pair, VAN_YEN, DAI_SON, expires=expires), large, message(pair, priority="express")
    )
    await sending.submit_together(
        pair.province, [document(pair), document(pair, DAI_SON, LUC_YEN, unreachable="report")]
    )
    by_id = {entry["id"]: entry for entry in await receiving.mail(5)}
    (fetched,) = [entry for entry in by_id.values() if not {"jws", "entry"} & set(entry)]
    assert fetched["size"] == len(large) > 64 << 10
    async with raw_stream(http, pair.hub.url, pair.district, messages=100, size=1 << 20) as stream:
        assert {entry["id"]: entry for entry in await stream.mail(5)} == by_id
    async with http.get(f"{pair.hub.url}/v1/mailbox", headers=pair.district.headers) as answer:
        assert {entry["id"]: entry for entry in (await answer.json())["entries"]} == by_id


async def test_a_stream_goes_on_after_the_cursor_that_it_names(
    pair: Pair, receiving: RawStream, http: aiohttp.ClientSession
) -> None:
    ids = await pair.send(*["normal"] * 3)
    assert [entry["id"] for entry in await receiving.mail(3)] == ids
    ids = await pair.send("express", "normal")
    async with raw_stream(
        http, pair.hub.url, pair.district, messages=9, size=1 << 20, after=receiving.cursor
    ) as on:
        assert [entry["id"] for entry in await on.mail(2)] == ids
        await on.silence()


async def test_several_streams_of_one_endpoint_all_see_everything(pair: Pair, http: aiohttp.ClientSession) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(
                raw_stream(http, pair.hub.url, pair.district, messages=9, size=1 << 20)
            )
            for _ in range(3)
        ]
        ids = await pair.send("normal", "normal")
        for stream in streams:
            assert [entry["id"] for entry in await stream.mail(2)] == ids


async def test_the_hub_sends_no_more_than_was_granted(pair: Pair, http: aiohttp.ClientSession) -> None:
    """The session on this end would raise; and between grants there is silence."""
    await pair.send(*["normal", "express", "urgent"] * 10)
    async with raw_stream(http, pair.hub.url, pair.district, messages=4, size=1 << 20) as stream:
        seen = [entry["id"] for entry in await stream.mail(4)]
        await stream.silence()
        await stream.say(Credit(3, 0), Credit(0, 0))
        seen += [entry["id"] for entry in await stream.mail(3)]
        await stream.silence()
        await pair.send("express")
        await stream.silence()
        await stream.grant(100)
        seen += [entry["id"] for entry in await stream.mail(24)]
        assert len(set(seen)) == 31


async def test_bytes_are_granted_too(pair: Pair, sending: RawStream, http: aiohttp.ClientSession) -> None:
    big = [message(pair, content="Điều khoản " * 500) for _ in range(12)]
    size = len(big[0])
    n = await sending.submit(*big[:6])
    await sending.answers(n)
    async with raw_stream(http, pair.hub.url, pair.district, messages=100, size=1) as stream:
        first = await stream.hear(Mail)  # from the store
        assert len(first.entries) >= 1 and stream.session.mail_bytes <= 0
        await stream.silence()
        await stream.grant(0, -stream.session.mail_bytes + size + 1)
        seen = len(first.entries)
        while seen < 6:
            seen += len((await stream.hear(Mail)).entries)
            if stream.session.mail_bytes <= 0 and seen < 6:
                await stream.silence()
                await stream.grant(0, -stream.session.mail_bytes + size + 1)
        await stream.grant(0, -stream.session.mail_bytes + size + 1)
        await sending.submit(*big[6:])  # from memory
        for count in (1, 1):
            assert len((await stream.hear(Mail)).entries) == count
        assert stream.session.mail_bytes < 0
        await stream.silence()
        await stream.grant(0, 1 << 20)
        await stream.mail(4)


async def test_a_slow_reader_is_let_go_and_reads_again(
    pair: Pair, sending: RawStream, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, reads: list[Any]
) -> None:
    monkeypatch.setattr(couriers, "HELD_BYTES", 20_000)
    async with raw_stream(http, pair.hub.url, pair.district, messages=1, size=1 << 20) as stream:
        ids = []
        for _ in range(30):
            n = await sending.submit(*[message(pair, priority=lane) for lane in ("normal", "express")])
            ids += [outcome["id"] for outcome in (await sending.answers(n))[n]]
            assert pair.hub.hub.live.held <= 20_000
        seen = await stream.mail(1)
        before = len(reads)
        await stream.grant(1000)
        seen += await stream.mail(59)
        assert len(reads) > before
        assert sorted(entry["id"] for entry in seen) == sorted(ids)
        for lane in ("normal", "express"):
            seqs = [entry["seq"] for entry in seen if entry["lane"] == lane]
            assert seqs == sorted(seqs)
    await until(lambda: pair.hub.hub.live.held == 0, "nothing is kept for who has gone")


async def test_a_stream_that_only_submits_is_read_nothing(
    pair: Pair, sending: RawStream, http: aiohttp.ClientSession, reads: list[Any]
) -> None:
    async with raw_stream(http, pair.hub.url, pair.district) as stream:
        n = await sending.submit(message(pair))
        await sending.answers(n)
        await stream.silence()
        assert reads == [] and len(pair.hub.hub.live) == 0
        await stream.grant(1)
        assert len(await stream.mail(1)) == 1


# -- acknowledging -----------------------------------------------------------------------------------


async def test_a_cursor_acknowledges_everything_so_far(pair: Pair, receiving: RawStream) -> None:
    ids = await pair.send("normal", "express", "urgent", "normal")
    await receiving.mail(4)
    for ended in (4, 0):
        n = await receiving.acknowledge(up_to=receiving.cursor)
        assert await receiving.hear(Acked) == Acked(n, ended, 0)
    assert await whole_mailbox(pair.receiver) == []
    for id_ in ids:
        state = await pair.state(id_)
        assert (await prove(pair, state, await pair.sender.fetch(id_)))["event"] == "acknowledged"


async def test_entries_are_acknowledged_and_refused_one_by_one(
    pair: Pair, receiving: RawStream, http: aiohttp.ClientSession
) -> None:
    ids = await pair.send(*["normal"] * 5)
    seqs = [entry["seq"] for entry in await receiving.mail(5)]
    refusals = (Refusal(seqs[1], "Gửi nhầm: không thuộc thẩm quyền của huyện"),)
    n = await receiving.acknowledge(entries=(seqs[4], seqs[2]), refuse=refusals)
    assert await receiving.hear(Acked) == Acked(n, 2, 1)
    assert [entry.id for entry in await whole_mailbox(pair.receiver)] == [ids[0], ids[3]]
    async with raw_stream(http, pair.hub.url, pair.district, messages=9, size=1 << 20) as again:
        assert [entry["seq"] for entry in await again.mail(2)] == [seqs[0], seqs[3]]
    async with raw_stream(http, pair.hub.url, pair.province, messages=9, size=1 << 20) as sender:
        (notice,) = await sender.mail(1)
        assert notice["format"] == "receipt"
        event = await prove(pair, notice, await pair.sender.fetch(ids[1]))
        assert (event["event"], event["reason"]) == ("refused", refusals[0].reason)
    n = await receiving.acknowledge(up_to=receiving.cursor)
    assert await receiving.hear(Acked) == Acked(n, 2, 0)


async def test_many_acknowledgements_at_once_are_answered_together(pair: Pair, receiving: RawStream) -> None:
    await pair.send(*["normal"] * 40)
    seqs = [entry["seq"] for entry in await receiving.mail(40)]
    numbers = [await receiving.acknowledge(entries=(seq,)) for seq in seqs]
    ended, last = 0, 0
    while last < numbers[-1]:
        frame = await receiving.hear(Acked)
        assert frame.n > last
        ended, last = ended + frame.acknowledged, frame.n
    assert (ended, last) == (40, numbers[-1])
    assert await whole_mailbox(pair.receiver) == []


async def test_a_wrong_acknowledgement_fails_no_other(pair: Pair, receiving: RawStream) -> None:
    await pair.send(*["normal"] * 3)
    seqs = [entry["seq"] for entry in await receiving.mail(3)]
    good = [
        await receiving.acknowledge(entries=(seqs[0],)),
        await receiving.acknowledge(entries=(seqs[2] + 1_000_000,)),
        await receiving.acknowledge(up_to=f"{seqs[2]}.0.0"),
        await receiving.acknowledge(entries=(seqs[1],)),
    ]
    wrong = {good.pop(1), good.pop(1)}
    ended = 0
    while receiving.session.unanswered:
        frame = await receiving.next()
        if isinstance(frame, Failure):
            wrong.remove(frame.n)
            check_problem(frame.problem, "beyond-end")
        else:
            assert isinstance(frame, Acked)
            ended += frame.acknowledged
    assert (wrong, ended) == (set(), 2)
    assert [entry.seq for entry in await whole_mailbox(pair.receiver)] == [seqs[2]]


async def test_a_flood_of_acknowledgements_is_not_read_faster_than_it_is_carried_out(
    pair: Pair, receiving: RawStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_connection, "MAX_ACK_LOAD", 10)
    await pair.send(*["normal"] * 60)
    seqs = [entry["seq"] for entry in await receiving.mail(60)]
    longest = 0
    end = pair.hub.hub.acknowledger.end

    async def watched(request: Any) -> Any:
        nonlocal longest
        longest = max(longest, len(request.entries))
        return await end(request)

    monkeypatch.setattr(pair.hub.hub.acknowledger, "end", watched)
    for seq in seqs:
        await receiving.acknowledge(entries=(seq,))
    while receiving.session.unanswered:
        await receiving.hear(Acked)
    assert 1 < longest <= 6, "an entry and its frame count two"
    assert await whole_mailbox(pair.receiver) == []


async def test_what_expires_while_it_is_held_is_not_pushed(
    pair: Pair, sending: RawStream, http: aiohttp.ClientSession
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with raw_stream(http, pair.hub.url, pair.district, messages=1, size=1 << 20) as stream:
        batch = [message(pair), message(pair, expires=soon), message(pair)]
        n = await sending.submit(*batch)
        ids = [outcome["id"] for outcome in (await sending.answers(n))[n]]
        assert [entry["id"] for entry in await stream.mail(1)] == [ids[0]]
        await until(lambda: datetime.now(UTC) > soon, "the second has expired")
        await stream.grant(9)
        assert [entry["id"] for entry in await stream.mail(1)] == [ids[2]]
        await stream.acknowledge(up_to=stream.cursor)
        assert (await stream.hear(Acked)).acknowledged == 2
    assert [(await pair.state(id_))["state"] for id_ in ids] == ["acknowledged", "expired", "acknowledged"]
    ((notice,), _) = await pair.sender.read(wait=10)
    assert notice.receipt is not None
    assert orjson.loads(notice.receipt.event)["message"] == ids[1]
