"""Submitting on a stream: pipelined, alone or together; each with its outcome."""

from __future__ import annotations

import contextlib

import aiohttp
import asyncpg
import orjson
import pytest

from hub.doors import stream as door
from hub.doors import stream_connection
from protocol.manifest import seal_documents
from protocol.signature import Signer, generate, to_jwk
from protocol.stream import (
    CLOSE_NORMAL,
    CLOSE_POLICY,
    Answers,
    Bye,
    Failure,
    Submit,
)
from tests.conftest import StartHub
from tests.support import second_verifier
from tests.support.desk import check_problem
from tests.support.load import whole_mailbox
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.stream import RawStream, document, message, prove, raw_stream
from tests.support.until import until

WAITING = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7001 and not granted"


async def test_submissions_go_out_without_waiting_and_each_is_answered(pair: Pair, sending: RawStream) -> None:
    messages = {}
    for size in (1, 3, 50, 2):
        batch = [message(pair, subject=f"Văn bản thứ {place}") for place in range(size)]
        messages[await sending.submit(*batch)] = batch
    together = [document(pair) for _ in range(20)]
    manifest = await sending.submit_together(pair.province, together)
    answers = await sending.answers(*messages, manifest)
    for n, batch in messages.items():
        for raw, outcome in zip(batch, answers[n], strict=True):
            assert (outcome["status"], outcome["state"]) == (202, "accepted")
            assert (await prove(pair, outcome, raw))["message"] == outcome["id"]
    sealed = seal_documents(together, pair.province.signer).documents
    for one, line, outcome in zip(together, sealed, answers[manifest], strict=True):
        event = await prove(pair, outcome, second_verifier.decode64(line.decode()))
        assert (event["event"], event["id"]) == ("accepted", one.id)
    assert sending.session.unanswered == 0
    assert sending.session.submit_messages == door.CREDIT_MESSAGES, "all credit has come back"
    assert len(await whole_mailbox(pair.receiver)) == 76


async def test_a_wrong_one_among_good_ones_spoils_no_other(pair: Pair, sending: RawStream) -> None:
    good = [message(pair) for _ in range(6)]
    forged = message(pair)[:-6] + b"AAAAAA"
    stranger = Signer(generate("ES256")).sign(b"{}")
    wrong = {1: (forged, "bad-signature"), 3: (stranger, "bad-document"), 5: (b"xin ch\xc3\xa0o", "not-a-jws")}
    batch = [wrong[place][0] if place in wrong else raw for place, raw in enumerate(good)]
    n = await sending.submit(*batch)
    for place, (raw, outcome) in enumerate(zip(batch, (await sending.answers(n))[n], strict=True)):
        event = await prove(pair, outcome, raw)
        if place in wrong:
            check_problem(outcome, wrong[place][1])
            assert (event["event"], event["code"]) == ("rejected", wrong[place][1])
        else:
            assert (outcome["status"], event["event"]) == (202, "accepted")
    assert len(await whole_mailbox(pair.receiver)) == 3


async def test_the_same_message_again_is_known_wherever_it_comes(pair: Pair, sending: RawStream) -> None:
    raw, other = message(pair, id="215/BC-UBND"), message(pair, id="215/BC-UBND", subject="Khác")
    first = await sending.submit(raw)
    ((outcome,),) = (await sending.answers(first)).values()
    again, twice, conflict = await sending.submit(raw), await sending.submit(raw, raw), await sending.submit(other)
    answers = await sending.answers(again, twice, conflict)
    for known in (*answers[again], *answers[twice]):
        assert (known["status"], known["state"]) == (200, "duplicate")
        assert (known["id"], known["receipt"]) == (outcome["id"], outcome["receipt"])
    problem = check_problem(answers[conflict][0], "id-conflict")
    assert problem["message"] == outcome["id"]
    assert (await prove(pair, problem, other))["event"] == "rejected"
    assert (await pair.sender.submit(raw)).duplicate
    assert len(await whole_mailbox(pair.receiver)) == 1


async def test_documents_signed_together_again_are_known_one_by_one(pair: Pair, sending: RawStream) -> None:
    """In another manifest, in another order, with others: the same document is the same message."""
    documents = [document(pair, id=f"{number}/UBND") for number in range(4)]
    first = (await sending.answers(await sending.submit_together(pair.province, documents[:3]))).popitem()[1]
    second = (await sending.answers(await sending.submit_together(pair.province, documents[::-1]))).popitem()[1]
    assert [outcome["status"] for outcome in second] == [202, 200, 200, 200]
    assert [outcome["id"] for outcome in second[1:]] == [outcome["id"] for outcome in first[::-1]]
    assert len(await whole_mailbox(pair.receiver)) == 4


async def test_what_was_submitted_before_the_goodbye_is_answered(pair: Pair, sending: RawStream) -> None:
    n = sending.session.next_number
    data = [sending.session.send(Submit(n, messages=(message(pair).decode(),))), sending.session.send(Bye())]
    for frame in data:  # both in one segment, as a client that is done sends them
        await sending.ws.send_frame(frame, aiohttp.WSMsgType.TEXT)
    assert (await sending.hear(Answers)).answers[0].outcomes[0]["status"] == 202
    assert await sending.end() == (None, CLOSE_NORMAL)


async def test_a_submission_is_carried_out_when_its_sender_has_gone(
    pair: Pair, http: aiohttp.ClientSession, connection: asyncpg.Connection
) -> None:
    raw = message(pair)
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7001)")  # commits are held up
        async with raw_stream(http, pair.hub.url, pair.province) as stream:
            await stream.submit(raw)
            await until(lambda: connection.fetchval(WAITING), "the message is being committed")
            stream.ws._response.close()  # cut, without a goodbye
    await until(lambda: len(pair.hub.hub.streams) == 0, "the hub has noticed")
    assert len(await whole_mailbox(pair.receiver)) == 1
    assert (await pair.sender.submit(raw)).duplicate


async def test_what_comes_during_a_commit_goes_together(
    pair: Pair, sending: RawStream, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_connection, "GATHER_SECONDS", 3600.0)
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7001)")  # commits are held up
        first = await sending.submit(message(pair))
        await until(lambda: connection.fetchval(WAITING), "the first is being committed")
        rest = [await sending.submit(message(pair)) for _ in range(4)]
        (stream,) = pair.hub.hub.streams._connections
        await until(lambda: len(stream._group) == 4, "the others have come, and gather")
        assert await connection.fetchval(WAITING) == 1
    assert [answer.n for answer in (await sending.hear(Answers)).answers] == [first]
    assert [answer.n for answer in (await sending.hear(Answers)).answers] == rest
    assert await connection.fetchval("select count(*) from batch where seq_base > 0") == 2


async def test_what_takes_long_is_not_waited_for(
    pair: Pair, sending: RawStream, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_connection, "GATHER_SECONDS", 0.0)
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7001)")
        numbers = [await sending.submit(message(pair))]
        await until(lambda: connection.fetchval(WAITING), "the first is being committed")
        numbers.append(await sending.submit(message(pair)))
        await until(lambda: _waiting(connection, 2), "so is the second")
    answers = await sending.answers(*numbers)
    assert [answers[n][0]["status"] for n in numbers] == [202, 202]


async def _waiting(connection: asyncpg.Connection, count: int) -> bool:
    return bool(await connection.fetchval(WAITING) == count)


async def test_credit_falls_with_the_number_of_streams(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    hub = await start_hub(max_queue_bytes=4 << 20)
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with contextlib.AsyncExitStack() as stack:
        granted = []
        for _ in range(20):
            stream = await stack.enter_async_context(raw_stream(http, hub.url, province, greet=False))
            granted.append((await stream.greet()).bytes)
    assert granted[0] == 1 << 20
    assert granted == sorted(granted, reverse=True)
    assert granted[-1] == door.MIN_CREDIT_BYTES


async def test_more_than_was_granted_is_not_taken(pair: Pair, sending: RawStream) -> None:
    sending.session.submit_messages += 10_000
    for _ in range(5):
        await sending.submit(*[b"a"] * 1000)
    problem, code = await sending.end()
    assert problem is not None
    assert "more was submitted than the hub had granted" in check_problem(problem, "stream-protocol")["detail"]
    assert code == CLOSE_POLICY


# -- manifests that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["root", "order", "missing", "unknown key", "signature", "type"])
async def test_a_wrong_manifest_is_refused_as_a_whole(pair: Pair, sending: RawStream, wrong: str) -> None:
    documents = [document(pair) for _ in range(3)]
    manifest = seal_documents(documents, pair.province.signer)
    jws, lines = manifest.jws, list(manifest.documents)
    if wrong == "root":
        jws = seal_documents([document(pair) for _ in range(3)], pair.province.signer).jws
    elif wrong == "order":
        lines.reverse()
    elif wrong == "missing":
        lines.pop()
    elif wrong == "unknown key":
        jws = seal_documents(documents, Signer(generate("ES256"))).jws
    elif wrong == "signature":
        jws = jws[:-6] + b"AAAAAA"
    else:
        jws = pair.province.signer.sign(second_verifier.decode64(jws.decode().split(".")[1]))
    n = sending.session.next_number
    await sending.say(Submit(n, manifest=jws.decode(), documents=tuple(line.decode() for line in lines)))
    if wrong == "unknown key":  # is looked up for each document: another may be registered for another agency
        outcomes = (await sending.answers(n))[n]
        problems = [check_problem(outcome, "unknown-key") for outcome in outcomes]
        assert len(problems) == 3
        signed = second_verifier.decode64(lines[0].decode())
    else:
        failure = await sending.hear(Failure)
        assert failure.n == n
        code = "bad-signature" if wrong == "signature" else "bad-manifest"
        problems, signed = [check_problem(failure.problem, code)], jws
    event = await prove(pair, problems[0], signed)
    assert (event["event"], event["code"]) == ("rejected", problems[0]["code"])
    assert sending.session.submit_messages == door.CREDIT_MESSAGES
    assert await whole_mailbox(pair.receiver) == []
    n = await sending.submit_together(pair.province, documents)  # and sent rightly it is taken
    assert [outcome["status"] for outcome in (await sending.answers(n))[n]] == [202] * 3


async def test_a_wrong_document_in_a_manifest_spoils_no_other(pair: Pair, sending: RawStream) -> None:
    documents = [document(pair), document(pair, "KHONG.CO"), document(pair, sender=VAN_YEN), document(pair)]
    n = await sending.submit_together(pair.province, documents)
    outcomes = (await sending.answers(n))[n]
    assert [outcome["status"] for outcome in outcomes] == [202, 422, 403, 202]
    check_problem(outcomes[1], "recipient-unknown")
    check_problem(outcomes[2], "from-not-yours")
    entries = await whole_mailbox(pair.receiver)
    assert [entry.document.id for entry in entries] == [documents[0].id, documents[3].id]
    jwk = to_jwk(pair.province.key.public_key())
    for entry, sent in zip(entries, (documents[0], documents[3]), strict=True):
        assert entry.body is not None
        assert orjson.loads(second_verifier.prove_entry(entry.body.decode(), [jwk]))["id"] == sent.id
