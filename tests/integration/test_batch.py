"""Batches: one line, one answer; a bad line spoils no other; a message twice is one message."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from protocol.problems import CATALOGUE, Problem
from tests.support import second_verifier
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, VAN_YEN

NDJSON = "application/x-ndjson"


async def submit(pair: Pair, http: aiohttp.ClientSession, body: bytes) -> list[dict[str, Any]]:
    """The answers to a batch, one a line."""
    headers = {**pair.province.headers, "Content-Type": NDJSON}
    async with http.post(f"{pair.hub.url}/v1/messages", data=body, headers=headers) as response:
        assert (response.status, response.content_type) == (200, NDJSON)
        text = await response.read()
    assert text.endswith(b"\n")
    return [orjson.loads(line) for line in text.splitlines()]


async def test_each_line_gets_its_answer_in_order(pair: Pair, http: aiohttp.ClientSession) -> None:
    sign = pair.sender.sign
    good = [sign(pair.province.document(VAN_YEN, id=f"{number}/UBND")) for number in range(60)]
    bad = {
        3: (b"", "not-a-jws"),
        7: ("công văn".encode(), "not-a-jws"),
        20: (good[20][:-6] + b"AAAAAA", "bad-signature"),
        31: (sign(pair.province.document("KHONG.CO")), "recipient-unknown"),
        45: (sign(pair.province.document(VAN_YEN, sender=VAN_YEN)), "from-not-yours"),
    }
    lines = [bad[number][0] if number in bad else line for number, line in enumerate(good)]
    answers = await submit(pair, http, b"\n".join(lines))
    assert len(answers) == 60
    jwks = await pair.sender.hub_keys()
    for number, (line, answer) in enumerate(zip(lines, answers, strict=True)):
        event = second_verifier.prove(answer["receipt"], jwks, line)
        if number in bad:
            code = bad[number][1]
            assert (answer["code"], answer["status"]) == (code, CATALOGUE[code].status)
            assert (event["event"], event["code"]) == ("rejected", code)
        else:
            assert (answer["state"], answer["status"]) == ("accepted", 202)
            assert (event["event"], event["id"], event["message"]) == ("accepted", f"{number}/UBND", answer["id"])
    entries = await pair.page()
    assert [entry.body for entry in entries] == [line for number, line in enumerate(lines) if number not in bad]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n", ""])
async def test_line_ends_do_not_matter(pair: Pair, http: aiohttp.ClientSession, end: str) -> None:
    messages = [pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(2)]
    separator = b"\r\n" if end.startswith("\r") else b"\n"
    answers = await submit(pair, http, separator.join(messages) + end.encode())
    assert [answer["status"] for answer in answers] == [202, 202]
    assert [entry.body for entry in await pair.page()] == messages


async def test_the_same_message_twice_in_a_batch_is_one(pair: Pair, http: aiohttp.ClientSession) -> None:
    once = pair.sender.sign(pair.province.document(VAN_YEN, id="7/UBND"))
    other = pair.sender.sign(pair.province.document(VAN_YEN, id="8/UBND"))
    answers = await submit(pair, http, b"\n".join([once, other, once, once]))
    assert [answer["status"] for answer in answers] == [202, 202, 200, 200]
    assert {answer["id"] for place, answer in enumerate(answers) if place != 1} == {answers[0]["id"]}
    assert answers[0]["receipt"] == answers[2]["receipt"] == answers[3]["receipt"]
    assert [entry.sender_id for entry in await pair.page()] == ["7/UBND", "8/UBND"]


async def test_one_id_with_two_contents_in_a_batch(pair: Pair, http: aiohttp.ClientSession) -> None:
    lines = [pair.sender.sign(pair.province.document(VAN_YEN, id="7/UBND", subject=text)) for text in "ab"]
    answers = await submit(pair, http, b"\n".join(lines))
    assert [answer["status"] for answer in answers] == [202, 409]
    assert answers[1]["message"] == answers[0]["id"]
    event = second_verifier.prove(answers[1]["receipt"], await pair.sender.hub_keys(), lines[1])
    assert event["code"] == "id-conflict"
    assert [entry.body for entry in await pair.page()] == lines[:1]


async def test_a_batch_sent_again_gets_the_first_receipts(pair: Pair, http: aiohttp.ClientSession) -> None:
    lines = [pair.sender.sign(pair.province.document(VAN_YEN, DAI_SON)) for _ in range(30)]
    first = await submit(pair, http, b"\n".join(lines))
    # What is new among what is known is taken, whatever stands beside it.
    more = [*lines[:10], pair.sender.sign(pair.province.document(VAN_YEN)), b"rac", *lines[10:]]
    again = await submit(pair, http, b"\n".join(more))
    assert [answer["status"] for answer in again] == [*[200] * 10, 202, 400, *[200] * 20]
    assert [answer["receipt"] for answer in again[:10] + again[12:]] == [answer["receipt"] for answer in first]
    assert len(await pair.page()) == 31


async def test_the_same_batch_from_many_at_once_is_taken_once(pair: Pair) -> None:
    """A sender that lost patience and sends again while its first request is still under way."""
    lines = [pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(40)]
    outcomes = await asyncio.gather(*(pair.sender.submit_many(lines) for _ in range(4)))
    for line in zip(*outcomes, strict=True):
        sent = [outcome for outcome in line if not isinstance(outcome, Problem)]
        assert len(sent) == 4
        assert sum(not outcome.duplicate for outcome in sent) == 1
        assert len({outcome.receipt for outcome in sent}) == 1
    assert [entry.body for entry in await pair.page()] != []
    assert sorted(entry.body or b"" for entry in await pair.page(limit=1000)) == sorted(lines)


async def test_the_client_gives_problems_among_receipts(pair: Pair) -> None:
    good = pair.sender.sign(pair.province.document(VAN_YEN))
    outcomes = await pair.sender.submit_many([b"rac", good, good])
    assert isinstance(outcomes[0], Problem)
    assert outcomes[0].code == "not-a-jws"
    assert [getattr(outcome, "duplicate", None) for outcome in outcomes[1:]] == [False, True]
