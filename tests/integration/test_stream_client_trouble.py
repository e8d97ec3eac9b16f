"""The client of the stream when the hub will not, cannot, falls silent or goes away."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from hub.directory import change
from protocol.client import ClientError, Entry, HubClient, Problem, Sent, Stream, transport
from protocol.client import stream as streams
from protocol.client.stream import FLEETING_SECONDS
from tests.conftest import StartHub
from tests.support.load import whole_mailbox
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.proxy import Proxy
from tests.support.stream import take
from tests.support.until import until

pytestmark = pytest.mark.usefixtures("impatient")


async def test_who_may_not_is_told_why_when_the_stream_opens(pair: Pair, connection: asyncpg.Connection) -> None:
    operator = await change.issue_token(connection, role="operator")
    await pair.hub.follow()
    for token, code in (("sai", "unauthenticated"), (operator, "forbidden"), (None, "unauthenticated")):
        async with HubClient(pair.hub.url, token) as client:
            with pytest.raises(Problem) as refused:
                async with client.stream():
                    raise AssertionError("it opened")
            assert refused.value.code == code
            assert refused.value.detail


async def test_a_token_that_is_revoked_ends_the_stream_for_good(
    pair: Pair, into: Stream, connection: asyncpg.Connection
) -> None:
    await pair.send("normal")
    await take(into, 1)
    mail = asyncio.create_task(take(into, 1))
    await change.revoke_credentials(connection, "van-yen")
    await pair.hub.follow()
    await pair.send("normal")
    for attempt in (mail, into.acknowledge(up_to=into.cursor), take(into, 1), into.send(None)):  # type: ignore[arg-type]
        with pytest.raises((Problem, ClientError)) as ended:
            await attempt
        if isinstance(ended.value, Problem):
            assert ended.value.code == "unauthenticated"


async def test_a_hub_that_is_not_there_is_given_up_in_time() -> None:
    async with HubClient("http://127.0.0.1:9", "token", retry_seconds=0.2) as client:
        with pytest.raises(Problem) as gone:
            async with client.stream():
                raise AssertionError("it opened")
        assert (gone.value.code, gone.value.retryable) == ("unreachable", True)


async def test_a_hub_that_goes_away_for_good_is_told_to_everybody(pair: Pair) -> None:
    proxy = Proxy()
    async with (
        proxy.before_hub(pair.hub.url) as url,
        pair.province.client(url, retry_seconds=0.3) as client,
        client.stream() as stream,
    ):
        await stream.send(pair.province.document(VAN_YEN))
        mail = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)
        await proxy.refuse()
        attempts = [stream.send(pair.province.document(VAN_YEN)), stream.acknowledge(up_to="0.0.0"), mail]
        for outcome in await asyncio.gather(*attempts, return_exceptions=True):
            assert isinstance(outcome, Problem)
            assert outcome.code == "unreachable"
        with pytest.raises(Problem):
            await stream.send(pair.province.document(VAN_YEN))


async def test_a_hub_that_falls_silent_is_left_for_another_connection(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are lost on the way, and nothing says so but that pings are not answered."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)
    proxy = Proxy()
    async with (
        proxy.before_hub(pair.hub.url) as url,
        pair.province.client(url) as client,
        client.stream() as stream,
    ):
        before = stream._current
        assert before is not None
        proxy.hold()
        sending = asyncio.create_task(stream.send(pair.province.document(VAN_YEN)))
        await before.ended.wait()
        await proxy.cut()
        assert (await sending).duplicate, "it had been taken the first time"


async def test_what_does_not_speak_the_stream_is_no_hub() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with HubClient(url, "token") as client:
            with pytest.raises(Problem) as refused:
                async with client.stream():
                    raise AssertionError("it opened")
        assert refused.value.code == "upgrade-required"


# -- the end -----------------------------------------------------------------------------------------


async def test_leaving_waits_for_what_is_under_way(pair: Pair) -> None:
    async with pair.sender.stream() as stream:
        tasks = [asyncio.create_task(stream.send(pair.province.document(VAN_YEN))) for _ in range(20)]
        await asyncio.sleep(0)
    assert all(isinstance(sent, Sent) for sent in await asyncio.gather(*tasks))
    await until(lambda: len(pair.hub.hub.streams) == 0, "the hub has ended the stream")
    for use in (stream.send(pair.province.document(VAN_YEN)), take(stream, 1)):
        with pytest.raises(ClientError, match="closed"):
            await use
    with pytest.raises(ClientError, match="once"):
        async with stream:
            raise AssertionError("it opened")


async def test_a_stream_is_used_in_its_block(pair: Pair) -> None:
    stream = pair.sender.stream()
    with pytest.raises(ClientError, match="async with"):
        await stream.submit(b"a.b.c")


async def test_leaving_does_not_wait_for_a_hub_that_does_not_answer(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(transport, "CLOSE_SECONDS", 0.1)
    proxy = Proxy()
    async with proxy.before_hub(pair.hub.url) as url, pair.province.client(url) as client:
        async with client.stream() as stream:
            proxy.hold()
            waiting = asyncio.create_task(stream.send(pair.province.document(VAN_YEN)))
            current = stream._current
            assert current is not None
            await until(lambda: current._sent, "it was sent")
        with pytest.raises(ClientError, match="closed before the hub answered"):
            await waiting


async def test_drained_it_goes_elsewhere_at_once_and_loses_and_repeats_nothing(
    start_hub: StartHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hubs on one database behind one address: the first stops in the middle."""
    monkeypatch.setattr(transport, "FIRST_PAUSE", 60.0)  # so a client that paused would be noticed
    here, there = await start_hub(), await start_hub()
    pair = Pair(here, await here.register("ubnd-tinh", PROVINCE), await here.register("van-yen", VAN_YEN))
    await there.follow()
    await there.hub.wake.listening.wait()
    proxy = Proxy()
    async with (
        proxy.before_hub(here.url) as url,
        pair.province.client(url) as sender,
        pair.district.client(url) as receiver,
        sender.stream() as out,
        receiver.stream(messages=20) as into,
    ):
        sent: list[Sent] = []

        async def write() -> None:
            for _ in range(100):
                sent.append(await out.send(pair.province.document(VAN_YEN)))

        async def read() -> list[Entry]:
            entries = []
            async for entry in into.mail():
                entries.append(entry)
                await into.acknowledge(entry)
                if len(entries) == 400:
                    break
            return entries

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            for _ in range(4):
                group.create_task(write())
            for stream in (out, into):
                await until(
                    lambda stream=stream: stream._current.age > FLEETING_SECONDS, "it is an old connection"
                )
            await until(lambda: len(sent) > 40, "it is under way")
            assert len(here.hub.streams) == 2
            proxy.pass_to(there.url)
            await here.hub.stop()
            assert len(there.hub.streams) == 2, "they had gone before the hub stopped"
            assert len(sent) < 400
        entries = reading.result()
        assert sorted(entry.id for entry in entries) == sorted(one.id for one in sent)
        assert [entry.seq for entry in entries] == sorted(entry.seq for entry in entries)
        assert not any(one.duplicate for one in sent), "what was answered is not sent again"
        assert await whole_mailbox(receiver) == []
