"""The stream door: who may open a stream, what ends one, and how a hub that stops lets go."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub.directory import change
from hub.doors import stream as door
from protocol.problems import MEDIA_TYPE
from protocol.stream import (
    CLOSE_GOING_AWAY,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_PROTOCOL,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Acked,
    Answers,
    Bye,
    Drain,
    Hello,
    Mail,
    Submit,
)
from tests.conftest import StartHub
from tests.support.desk import check_problem
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.stream import RawStream, message, raw_stream
from tests.support.until import until

CLOSE_TOO_BIG = 1009
"""RFC 6455, section 7.4.1."""


async def handshake(pair: Pair, http: aiohttp.ClientSession, **headers: str) -> dict[str, Any]:
    """The problem with which a handshake is refused."""
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": SUBPROTOCOL} | key
    asked |= pair.province.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    asked = {name: value for name, value in asked.items() if value}
    async with http.get(f"{pair.hub.url}/v1/stream", headers=asked) as answer:
        assert answer.content_type == MEDIA_TYPE
        members: dict[str, Any] = await answer.json(content_type=MEDIA_TYPE)
        assert members["status"] == answer.status
        return members


async def test_who_may_not_is_told_before_the_stream_opens(
    pair: Pair, http: aiohttp.ClientSession, connection: asyncpg.Connection
) -> None:
    operator = await change.issue_token(connection, role="operator")
    await pair.hub.follow()
    for headers, code in (
        ({"Authorization": ""}, "unauthenticated"),
        ({"Authorization": "Bearer sai"}, "unauthenticated"),
        ({"Authorization": f"Bearer {operator}"}, "forbidden"),
        ({"Upgrade": ""}, "upgrade-required"),
        ({"Connection": ""}, "upgrade-required"),
        ({"Sec_WebSocket_Protocol": ""}, "upgrade-required"),
        ({"Sec_WebSocket_Protocol": "lienthong.stream.v2"}, "upgrade-required"),
        ({"Sec_WebSocket_Key": ""}, "upgrade-required"),
    ):
        check_problem(await handshake(pair, http, **headers), code)
    pair.hub.hub.streams.draining = True
    check_problem(await handshake(pair, http), "stopping")
    pair.hub.hub.streams.draining = False


@pytest.mark.parametrize("how", ["submit", "acknowledge", "mail"])
async def test_a_token_that_is_revoked_ends_its_stream(
    pair: Pair, http: aiohttp.ClientSession, connection: asyncpg.Connection, how: str
) -> None:
    party = pair.province if how == "submit" else pair.district
    (id_,) = await pair.send("normal")
    async with raw_stream(http, pair.hub.url, party, messages=9, size=1 << 20) as stream:
        if how != "submit":
            await stream.mail(1)
        await change.revoke_credentials(connection, party.name)
        await pair.hub.follow()
        if how == "submit":
            await stream.submit(message(pair))
        elif how == "acknowledge":
            await stream.acknowledge(up_to=stream.cursor)
        else:
            await pair.send("normal")
        problem, code = await stream.end()
        assert problem is not None
        check_problem(problem, "unauthenticated")
        assert code == CLOSE_POLICY
    if how != "submit":
        assert (await pair.state(id_))["state"] in ("waiting", "handed_over")
    assert await connection.fetchval("select count(*) from message") == (2 if how == "mail" else 1)


async def test_a_disabled_endpoints_stream_ends_and_its_mail_waits(
    pair: Pair, receiving: RawStream, http: aiohttp.ClientSession, connection: asyncpg.Connection
) -> None:
    await pair.send("normal")
    await receiving.mail(1)
    await change.set_endpoint_active(connection, "van-yen", False)
    await pair.hub.follow()
    await receiving.acknowledge(up_to=receiving.cursor)
    problem, code = await receiving.end()
    assert problem is not None
    check_problem(problem, "forbidden")
    assert code == CLOSE_POLICY
    await change.set_endpoint_active(connection, "van-yen", True)
    await pair.hub.follow()
    async with raw_stream(http, pair.hub.url, pair.district, messages=9, size=1 << 20) as again:
        assert len(await again.mail(1)) == 1


# -- frames that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", CLOSE_PROTOCOL),
        (b"xin ch\xc3\xa0o", CLOSE_PROTOCOL),
        (b"\xff\xfe", CLOSE_PROTOCOL),
        (b"{}", CLOSE_PROTOCOL),
        (b'{"type":"welcome","hub":"x","messages":1,"bytes":1,"heartbeat":1}', CLOSE_PROTOCOL),
        (b'{"type":"hello"}', CLOSE_PROTOCOL),
        (b'{"type":"submit","n":1}', CLOSE_PROTOCOL),
        (b'{"type":"submit","n":2,"messages":["a"]}', CLOSE_PROTOCOL),
        (b'{"type":"ack","n":1,"up_to":"x"}', CLOSE_PROTOCOL),
        (b"[" * 100_000, CLOSE_PROTOCOL),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_bad_frame_ends_the_stream_with_what_is_wrong(
    pair: Pair, sending: RawStream, http: aiohttp.ClientSession, data: bytes, code: int
) -> None:
    await sending.ws.send_frame(data, aiohttp.WSMsgType.TEXT)
    problem, closed = await sending.end()
    assert problem is not None
    assert check_problem(problem, "stream-protocol")["detail"]
    assert closed == code
    async with raw_stream(http, pair.hub.url, pair.province) as again:  # others, and the next, are served
        await again.answers(await again.submit(message(pair)))


async def test_a_stream_begins_with_hello(pair: Pair, http: aiohttp.ClientSession) -> None:
    for first in (b'{"type":"submit","n":1,"messages":["a"]}', b'{"type":"bye"}'):
        async with raw_stream(http, pair.hub.url, pair.province, greet=False) as stream:
            await stream.ws.send_bytes(first)
            problem, code = await stream.end()
            assert problem is not None
            assert "when the connection is opening" in check_problem(problem, "stream-protocol")["detail"]
            assert code == CLOSE_PROTOCOL


async def test_a_client_that_says_nothing_is_not_waited_for(
    start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    hub = await start_hub(request_seconds=0.2)
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with raw_stream(http, hub.url, province) as talking:
        async with raw_stream(http, hub.url, province, greet=False) as silent:
            problem, _ = await silent.end()
            assert problem is not None
            check_problem(problem, "timeout")
        await talking.silence()  # after its hello a stream may be silent for as long as it likes


async def test_a_client_that_answers_no_ping_is_given_up(
    pair: Pair, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HEARTBEAT_SECONDS", 1.0)
    async with raw_stream(http, pair.hub.url, pair.province, greet=False) as stream:
        assert (await stream.greet()).heartbeat == 1.0
        message = await stream.ws.receive(30)
        assert message.type is aiohttp.WSMsgType.PING
        await stream.ws.pong(message.data)
        assert (await stream.ws.receive(30)).type is aiohttp.WSMsgType.PING, "who answers is asked again"
        assert (await stream.ws.receive(30)).type is aiohttp.WSMsgType.CLOSED
    await until(lambda: len(pair.hub.hub.streams) == 0, "the stream has ended")


async def test_a_cursor_that_no_mailbox_gave_is_refused(pair: Pair, http: aiohttp.ClientSession) -> None:
    async with raw_stream(http, pair.hub.url, pair.province, greet=False) as stream:
        await stream.say(Hello(1, 1, "1.2"))
        problem, code = await stream.end()
        assert problem is not None
        check_problem(problem, "stream-protocol")
        assert code == CLOSE_PROTOCOL


async def test_a_frame_larger_than_any_may_be_is_not_read(pair: Pair, sending: RawStream) -> None:
    """Its head says how long it is, and that is enough."""
    head = bytes([0x81, 0x80 | 127]) + (MAX_FRAME_BYTES + 1).to_bytes(8, "big") + b"mask"
    sending.ws._writer.transport.write(head)
    assert await sending.end() == (None, CLOSE_TOO_BIG)
    await until(lambda: len(pair.hub.hub.streams) == 0, "the stream has ended")


async def test_a_large_message_is_answered_and_not_a_fault_of_the_frame(pair: Pair, sending: RawStream) -> None:
    n = await sending.submit(message(pair), message(pair, content="a" * (1 << 20)), message(pair))
    outcomes = (await sending.answers(n))[n]
    assert [outcome["status"] for outcome in outcomes] == [202, 413, 202]
    check_problem(outcomes[1], "too-large")


# -- the end -----------------------------------------------------------------------------------------


async def test_a_hub_that_stops_asks_its_streams_to_go_and_finishes_what_it_took(
    start_hub: StartHub,
    http: aiohttp.ClientSession,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = await start_hub()
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    async with raw_stream(http, hub.url, province):
        pass
    await until(lambda: len(hub.hub.streams) == 0, "those of before have gone")
    async with (
        raw_stream(http, hub.url, province) as sender,
        raw_stream(http, hub.url, district, messages=9, size=1 << 20) as receiver,
        raw_stream(http, hub.url, district) as stubborn,
        raw_stream(http, hub.url, province, greet=False) as mute,
    ):
        monkeypatch.setattr(door, "DRAIN_SECONDS", 3.0)
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(7001)")  # commits are held up
            raws = [pair_message(province, number) for number in range(2)]
            first = await sender.submit(raws[0])
            waiting = "select true from pg_locks where locktype = 'advisory' and objid = 7001 and not granted"
            await until(lambda: connection.fetchval(waiting), "the message is being committed")
            stopping = asyncio.create_task(hub.hub.stop())
            assert (await sender.hear(Drain)).seconds == 3.0
            # This one crossed the drain on its way.
            crossed = Submit(first + 1, messages=(raws[1].decode(),))
            sender.session._step(crossed, sender.session._role)
            await sender.ws.send_bytes(
                orjson.dumps({"type": "submit", "n": crossed.n, "messages": crossed.messages})
            )
            refused = await sender.hear(Answers)
            assert refused.answers[0].n == crossed.n
            problem = check_problem(refused.answers[0].outcomes[0], "stopping")
            assert problem["retryable"] and problem["retry_after"] == 1
        assert (await sender.hear(Answers)).answers[0].outcomes[0]["status"] == 202
        await sender.say(Bye())
        assert await sender.end() == (None, CLOSE_NORMAL)
        frames = [await receiver.next(), await receiver.next()]
        assert {type(frame) for frame in frames} == {Drain, Mail}, "mail is pushed to the last"
        (cursor,) = [frame.cursor for frame in frames if isinstance(frame, Mail)]
        await receiver.acknowledge(up_to=cursor)
        assert (await receiver.hear(Acked)).acknowledged == 1
        await receiver.say(Bye())
        assert await receiver.end() == (None, CLOSE_NORMAL)
        for late in (stubborn, mute):
            assert await late.end() == (None, CLOSE_GOING_AWAY)
        await stopping


def pair_message(party: Any, number: int) -> bytes:
    return bytes(party.signer.sign(orjson.dumps({"id": f"{number}/UBND", "from": PROVINCE, "to": [VAN_YEN]})))
