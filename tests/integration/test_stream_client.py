"""The client of the stream: outcomes, mail, acknowledgements."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from hub.relay.answering import Accepted
from protocol.client import ClientError, Problem, Sent, Stream
from protocol.client import work as works
from protocol.evidence import verify_receipt
from protocol.message import write_document
from protocol.signature import from_jwk, to_jwk
from protocol.stream import (
    MAX_FRAME_BYTES,
    Ack,
    Credit,
    Frame,
    Hello,
    Submit,
)
from tests.conftest import RunningHub, StartHub
from tests.support import second_verifier
from tests.support.load import whole_mailbox
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.stream import of, take
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("impatient")


async def test_many_callers_share_frames_and_each_gets_its_own_outcome(
    pair: Pair, out: Stream, said: list[Frame]
) -> None:
    documents = [pair.province.document(VAN_YEN) for _ in range(300)]
    raws = [pair.sender.sign(document) for document in documents]
    raws[7] = raws[7][:-6] + b"AAAAAA"
    raws[100] = b"xin ch\xc3\xa0o"
    outcomes = await asyncio.gather(*(out.submit(raw) for raw in raws), return_exceptions=True)
    assert [len(frame.messages) for frame in of(said, Submit)] == [300], "what came in one turn went in one frame"
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await pair.sender.hub_keys()}
    for place, (raw, document, outcome) in enumerate(zip(raws, documents, outcomes, strict=True)):
        if place in (7, 100):
            assert isinstance(outcome, Problem)
            assert outcome.code == ("bad-signature" if place == 7 else "not-a-jws")
            continue
        assert isinstance(outcome, Sent)
        assert verify_receipt(outcome.receipt, keys.get, raw).event["id"] == document.id
    again = await out.submit(raws[0])
    assert again.duplicate and again.receipt == outcomes[0].receipt  # type: ignore[union-attr]
    assert len(await whole_mailbox(pair.receiver)) == 298


async def test_one_caller_after_the_other_and_documents_together(pair: Pair, out: Stream, into: Stream) -> None:
    first = await out.send(pair.province.document(VAN_YEN, subject="Tờ trình"))
    documents = [pair.province.document(*to) for to in ((VAN_YEN,), ("KHONG.CO",), (DAI_SON,))]
    sent, refused, last = await out.send_together(documents)
    assert isinstance(sent, Sent) and isinstance(refused, Problem) and isinstance(last, Sent)
    assert refused.code == "recipient-unknown"
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await pair.sender.hub_keys()}
    verify_receipt(sent.receipt, keys.get, write_document(documents[0]))
    entries = await take(into, 3)
    assert [entry.id for entry in entries] == [first.id, sent.id, last.id]
    assert [entry.format for entry in entries] == ["jws", "manifest", "manifest"]
    assert [entry.document for entry in entries[1:]] == [documents[0], documents[2]]
    assert entries[0].document.subject == "Tờ trình"
    body = entries[2].body
    assert body is not None
    jwk = to_jwk(pair.province.key.public_key())
    assert second_verifier.prove_entry(body.decode(), [jwk]) == write_document(documents[2])


async def test_a_manifest_that_is_refused_is_a_problem_of_its_own(pair: Pair, out: Stream) -> None:
    good, other = (pair.sender.sign_together([pair.province.document(VAN_YEN)]) for _ in range(2))
    wrong = type(good)(good.jws, other.documents)
    with pytest.raises(Problem) as refused:
        await out.submit_manifest(wrong)
    assert refused.value.code == "bad-manifest"
    assert refused.value.extra["receipt"]["event"]
    (sent,) = await out.submit_manifest(good)
    assert isinstance(sent, Sent)


async def test_more_than_credit_allows_waits_for_it(start_hub: StartHub, said: list[Frame]) -> None:
    hub = await start_hub(max_queue_bytes=256 << 10)  # 64 KiB for one stream
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN))
    async with pair.sender, pair.receiver, pair.sender.stream() as stream:
        content = "Căn cứ Nghị định số 30/2020/NĐ-CP " * 300
        documents = [pair.province.document(VAN_YEN, content=content) for _ in range(40)]
        work = [stream.send(document) for document in documents[:20]]
        both = await asyncio.gather(*work, stream.send_together(documents[20:]))
        assert all(isinstance(sent, Sent) for sent in [*both[:20], *both[20]])
        assert len(list(of(said, Submit))) > 3
        assert len(await whole_mailbox(pair.receiver)) == 40


class Faulty:
    """An intake that answers with a problem so many times before it works."""

    def __init__(self, hub: RunningHub, problem: Problem, times: int) -> None:
        self.tries: list[list[bytes]] = []
        intake = hub.hub.streams.intake
        self._native, self._manifest = intake.native, intake.manifest
        intake.native, intake.manifest = self.native, self.manifest  # type: ignore[method-assign]
        self._problem = problem
        self._left = times

    def _fails(self, raws: list[bytes]) -> bool:
        self.tries.append(raws)
        self._left -= 1
        return self._left >= 0

    async def native(self, sender: Any, raws: Any) -> list[Accepted | Problem]:
        if self._fails(list(raws)):
            return [self._problem] * len(raws)
        return await self._native(sender, raws)

    async def manifest(self, sender: Any, jws: bytes, lines: Any) -> list[Accepted | Problem]:
        if self._fails([jws, *lines]):
            if self._problem.code == "overloaded":
                raise self._problem
            # Some of them had been committed before the store went away.
            return [*(await self._manifest(sender, jws, lines))[:1], *[self._problem] * (len(lines) - 1)]
        return await self._manifest(sender, jws, lines)


@pytest.mark.parametrize("code", ["store-unavailable", "overloaded", "internal"])
async def test_what_fails_for_a_passing_reason_is_sent_again(pair: Pair, out: Stream, code: str) -> None:
    problem = Problem(code, "lát nữa", retry_after=0.05)
    raws = [pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(3)]
    faulty = Faulty(pair.hub, problem, 2)
    sent = await asyncio.gather(*map(out.submit, raws))
    assert [one.duplicate for one in sent] == [False] * 3
    tried = Counter(raw for part in faulty.tries for raw in part)
    assert set(tried) == set(raws), "the same bytes each time"
    assert min(tried.values()) >= 2 and len(faulty.tries) >= 3
    faulty = Faulty(pair.hub, problem, 2)
    outcomes = await out.send_together([pair.province.document(VAN_YEN) for _ in range(3)])
    assert all(isinstance(one, Sent) for one in outcomes)
    assert outcomes[0].duplicate is False, "the first outcome stands"  # type: ignore[union-attr]
    assert len(faulty.tries) == 3 and faulty.tries[0] == faulty.tries[2]
    assert len(await whole_mailbox(pair.receiver)) == 6


async def test_what_goes_on_failing_is_given_up_in_time(pair: Pair) -> None:
    async with pair.province.client(pair.hub.url, retry_seconds=1.0) as client, client.stream() as stream:
        faulty = Faulty(pair.hub, Problem("store-unavailable", "lát nữa"), 10_000)
        with pytest.raises(Problem) as gone:
            await stream.send(pair.province.document(VAN_YEN))
        assert gone.value.code == "store-unavailable"
        assert len(faulty.tries) > 1
        outcomes = await stream.send_together([pair.province.document(VAN_YEN) for _ in range(2)])
        assert isinstance(outcomes[0], Sent)
        assert isinstance(outcomes[1], Problem) and outcomes[1].code == "store-unavailable"


async def test_a_caller_that_has_gone_is_left_out(pair: Pair, out: Stream, said: list[Frame]) -> None:
    staying = asyncio.create_task(out.send(pair.province.document(VAN_YEN)))
    leaving = [asyncio.create_task(out.send(pair.province.document(VAN_YEN))) for _ in range(3)]
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await staying
    await out.send(pair.province.document(VAN_YEN))
    assert len(await whole_mailbox(pair.receiver)) == 2


async def test_what_no_hub_reads_is_refused_here(pair: Pair, out: Stream, into: Stream) -> None:
    """It would end the stream, and again when it is sent again."""
    for message in (b"a" * MAX_FRAME_BYTES, b"\0" * (MAX_FRAME_BYTES // 5)):
        with pytest.raises(Problem) as large:
            await out.submit(message)
        assert large.value.code == "too-large"
    (sent,) = await pair.send("normal")
    (entry,) = await take(into, 1)
    for reason in ("", "hai\ndòng", "x" * 501):
        with pytest.raises(ClientError):
            await into.refuse(entry, reason)
    for wrong in (0, -1, 1 << 53):
        with pytest.raises(ClientError):
            await into.acknowledge(wrong)
    for cursor in ("", "1.2", "a.b.c", "0.0.0\n"):
        with pytest.raises(ClientError):
            await into.acknowledge(up_to=cursor)
    with pytest.raises(ClientError):
        pair.receiver.stream("1.2")
    with pytest.raises(ClientError):
        pair.receiver.stream(messages=0)
    await into.acknowledge(entry)
    assert (await pair.state(sent))["state"] == "acknowledged"
    await out.send(pair.province.document(VAN_YEN))


# -- mail --------------------------------------------------------------------------------------------


async def test_mail_comes_as_fast_as_the_application_takes_it(pair: Pair, said: list[Frame]) -> None:
    ids = await pair.send(*["normal"] * 57)
    async with pair.receiver.stream(messages=10, size=20_000) as stream:
        mail = stream.mail()
        first = await anext(mail)
        await until(lambda: len(stream._inbox) == 9, "the window is full")
        seen = [first.id]
        async for entry in mail:
            assert len(stream._inbox) <= 10
            assert stream._inbox_bytes <= 40_000
            seen.append(entry.id)
            if len(seen) == 57:
                break
    assert seen == ids
    assert isinstance(said[0], Hello) and said[0].messages == 0, (
        "before the application asks for mail there is none"
    )
    credits_ = list(of(said, Credit))
    assert credits_[0] == Credit(10, 20_000)
    assert len(credits_) <= 12, "credit is given back in halves of the window"


async def test_a_window_of_one_is_enough(pair: Pair) -> None:
    ids = await pair.send(*["normal"] * 5)
    async with pair.receiver.stream(messages=1, size=1) as stream:
        assert [entry.id for entry in await take(stream, 5)] == ids
        await stream.acknowledge(up_to=stream.cursor)
    assert await whole_mailbox(pair.receiver) == []


async def test_a_large_message_is_fetched(pair: Pair, into: Stream) -> None:
    document = pair.province.document(VAN_YEN, content="Phụ lục " * 20_000)
    await pair.sender.send(document)
    (entry,) = await take(into, 1)
    assert entry.body is None
    with pytest.raises(ClientError, match="fetch"):
        assert entry.document
    assert await pair.receiver.fetch(entry) == pair.sender.sign(document)


# -- acknowledging -----------------------------------------------------------------------------------


async def test_entries_acknowledged_in_their_order_become_a_cursor(
    pair: Pair, into: Stream, said: list[Frame]
) -> None:
    ids = await pair.send(*["normal", "express"] * 10)
    entries = await take(into, 20)
    await asyncio.gather(*(into.acknowledge(entry) for entry in entries[:5]))
    for entry in entries[5:]:
        await into.acknowledge(entry)
    acks = list(of(said, Ack))
    assert [ack.entries for ack in acks] == [()] * 16
    assert acks[0].up_to == f"{entries[4].seq}.0.0"
    assert acks[-1].up_to == f"0.0.{entries[-1].seq}"
    for id_ in ids:
        assert (await pair.state(id_))["state"] == "acknowledged"


async def test_entries_acknowledged_out_of_order_stand_alone_until_the_gap_closes(
    pair: Pair, into: Stream, said: list[Frame]
) -> None:
    await pair.send(*["normal"] * 6)
    first, second, third, fourth, fifth, sixth = await take(into, 6)
    await into.acknowledge(third, second)
    await into.refuse(fifth, "Gửi nhầm")
    await into.acknowledge(first)
    assert [entry.id for entry in await whole_mailbox(pair.receiver)] == [fourth.id, sixth.id]
    await into.acknowledge(fourth.seq)
    await into.acknowledge(sixth)
    acks = [(ack.up_to, ack.entries) for ack in of(said, Ack)]
    assert acks == [
        (None, (third.seq, second.seq)),
        (None, ()),
        (f"0.0.{third.seq}", ()),
        (f"0.0.{fifth.seq}", ()),
        (f"0.0.{sixth.seq}", ()),
    ]
    states = [(await pair.state(entry.id))["state"] for entry in (first, second, third, fourth, fifth, sixth)]
    assert states == ["acknowledged"] * 4 + ["refused", "acknowledged"]


async def test_a_cursor_of_the_applications_own(pair: Pair, into: Stream, said: list[Frame]) -> None:
    await pair.send("normal", "express", "normal", "normal")
    entries = await take(into, 3)
    cursor = into.cursor
    (last,) = await take(into, 1)
    await into.acknowledge(up_to=cursor)
    assert [entry.id for entry in await whole_mailbox(pair.receiver)] == [last.id]
    await into.acknowledge(last)
    assert list(of(said, Ack))[-1].up_to == f"0.0.{last.seq}"
    assert entries[0].lane == "express"


async def test_whoever_begins_in_the_middle_acknowledges_one_by_one(pair: Pair, said: list[Frame]) -> None:
    """A cursor would end what lies before it, which this application has not said."""
    old = await pair.send("normal", "normal")
    _, cursor = await pair.receiver.read()
    await pair.send(*["normal"] * 3)
    async with pair.receiver.stream(after=cursor) as stream:
        for entry in await take(stream, 3):
            await stream.acknowledge(entry)
    assert [ack.up_to for ack in of(said, Ack)] == [None] * 3
    assert [entry.id for entry in await whole_mailbox(pair.receiver)] == old


async def test_an_application_that_leaves_everything_open_is_not_kept_track_of_for_ever(
    pair: Pair, into: Stream, said: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(works, "MAX_OPEN", 10)
    await pair.send(*["normal"] * 12)
    entries = await take(into, 12)
    await into.acknowledge(entries[0])
    (ack,) = of(said, Ack)
    assert (ack.up_to, ack.entries) == (None, (entries[0].seq,))


async def test_a_wrong_acknowledgement_is_told_to_its_caller_only(pair: Pair, into: Stream) -> None:
    await pair.send("normal", "normal")
    first, second = await take(into, 2)
    outcomes = await asyncio.gather(
        into.acknowledge(first),
        into.acknowledge(second.seq + 5_000_000),
        into.acknowledge(second),
        return_exceptions=True,
    )
    assert outcomes[0] is outcomes[2] is None
    assert isinstance(outcomes[1], Problem) and outcomes[1].code == "beyond-end"
    assert await whole_mailbox(pair.receiver) == []


async def test_an_acknowledgement_that_fails_for_a_passing_reason_is_repeated(
    pair: Pair, into: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledger = pair.hub.hub.acknowledger
    end, failures = acknowledger.end, 0

    async def failing(request: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise Problem("store-unavailable", retry_after=0.01)
        return await end(request)

    await pair.send("normal")
    (entry,) = await take(into, 1)
    monkeypatch.setattr(acknowledger, "end", failing)
    await into.acknowledge(entry)
    assert failures == 3
    assert await whole_mailbox(pair.receiver) == []


async def test_more_acknowledgements_than_a_frame_holds(pair: Pair, into: Stream, said: list[Frame]) -> None:
    await pair.send("normal")
    (entry,) = await take(into, 1)
    with contextlib.suppress(Problem):
        await into.acknowledge(*range(entry.seq + 1_000_000, entry.seq + 1_025_000))
    assert [len(ack.entries) for ack in of(said, Ack)] == [10_000, 10_000, 5_000]
