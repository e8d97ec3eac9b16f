"""SIGTERM, and what ends by itself: work under way is finished, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import orjson
import psutil
import pytest

from protocol.evidence import read_receipt, verify_receipt
from protocol.message import seal
from protocol.signature import JOSE_MEDIA_TYPE, from_jwk
from tests.support.load import whole_mailbox
from tests.support.node import Node
from tests.support.parties import PROVINCE, VAN_YEN, Party, register
from tests.support.raw import Answer, raw_connection, request
from tests.support.storm import weather
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]


async def _two_parties(node: Node) -> tuple[Party, Party]:
    async with node.database() as connection:
        sender = await register(connection, "ubnd-tinh", PROVINCE)
        receiver = await register(connection, "van-yen", VAN_YEN)
    await node.knows(receiver)
    return sender, receiver


def _everyone(node: Node) -> list[psutil.Process]:
    return [psutil.Process(node.pid), *node.workers(), *node.postgres()]


async def _gone(processes: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 30)
    assert alive == []


def _assert_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections may linger
        probe.bind(("127.0.0.1", port))
        probe.listen()


async def _commits_held(connection: asyncpg.Connection, count: int) -> None:
    """Wait until `count` commits wait for the lock that the test holds."""

    async def held() -> bool:
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7001 and not granted"
        return bool(await connection.fetchval(waiting) == count)

    await until(held, "commits are under way")


async def test_a_stop_finishes_what_was_taken(start_node: StartNode) -> None:
    node = await start_node("--workers", "2")
    sender, receiver = await _two_parties(node)
    raws = [seal(sender.document(VAN_YEN, id=f"lệnh-{number}"), sender.signer) for number in range(7)]
    single, *batch, late = raws
    one = sender.headers | {"Content-Type": JOSE_MEDIA_TYPE}
    many = sender.headers | {"Content-Type": "application/x-ndjson"}
    everyone = _everyone(node)
    async with AsyncExitStack() as stack:
        parked = await stack.enter_async_context(node.connections())
        await node.park(receiver, parked.values())
        first = await stack.enter_async_context(raw_connection(node.url))
        second = await stack.enter_async_context(raw_connection(node.url))
        async with node.database() as database:
            await database.execute("select pg_advisory_lock(7001)")
            await first.send(request("POST", "/v1/messages", one, single))
            await _commits_held(database, 1)
            await second.send(request("POST", "/v1/messages", many, b"\n".join(batch)))
            await _commits_held(database, 2)
            node.terminate()
            # Readers go home at once, while commits are still held up.
            for connection in parked.values():
                answer = await connection.answer()
                assert (answer.status, answer.json()["entries"]) == (200, [])
                assert await connection.ended() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", node.port)
            await first.send(request("POST", "/v1/messages", one, late))
        # With the test's connection its lock is gone.
        receipts = [await first.answer(), *_lines(await second.answer())]
        refused = await first.ended()
        assert refused == b"" or refused.startswith(b"HTTP/1.1 503 ")
    assert await node.wait() == 0
    await _gone(everyone)
    assert node.postgres_pid() is None
    _assert_free(node.port)
    assert [answer.status for answer in receipts] == [202] * 6
    await node.start()
    async with receiver.client(node.url) as client:
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
        for answer, raw in zip(receipts, [single, *batch], strict=True):
            verify_receipt(read_receipt(answer.body), keys.get, raw)
        assert {entry.body for entry in await whole_mailbox(client)} == {single, *batch}


def _lines(answer: Answer) -> list[Answer]:
    """The answers in the answer to a batch."""
    return [Answer(orjson.loads(line)["status"], {}, line) for line in answer.body.splitlines()]


async def test_a_stop_during_load_loses_nothing(start_node: StartNode) -> None:
    async def stop_and_start(node: Node) -> None:
        everyone = _everyone(node)
        node.terminate()
        assert await node.wait() == 0
        await _gone(everyone)
        await node.start()

    await weather(await start_node("--workers", "2"), stop_and_start)


async def test_workers_end_with_their_supervisor(start_node: StartNode) -> None:
    node = await start_node("--workers", "2")
    _, receiver = await _two_parties(node)
    workers = node.workers()
    assert len(workers) == 2
    async with node.connections() as parked:
        await node.park(receiver, parked.values())
        await node.kill_supervisor()
        for connection in parked.values():
            answer = await connection.answer()
            assert (answer.status, answer.json()["entries"]) == (200, [])
    await _gone(workers)
    _assert_free(node.port)
    postgres = node.postgres_pid()
    assert postgres is not None
    await node.start()
    assert node.postgres_pid() == postgres


async def test_a_stop_while_postgres_is_down_leaves_nothing(start_node: StartNode) -> None:
    node = await start_node()
    everyone = _everyone(node)
    node.kill_postgres()
    node.terminate()
    assert await node.wait() == 0
    await _gone(everyone)
    assert node.postgres() == []
    _assert_free(node.port)
    assert "did not stop in time" not in node.log.read_text()


async def test_a_first_start_can_be_stopped_and_repeated(unstarted: Node) -> None:
    await unstarted.launch()
    making = await until(lambda: unstarted.below("initdb"), "the cluster is being made")
    os.kill(unstarted.pid, signal.SIGINT)  # Ctrl-C
    assert await unstarted.wait() == 0
    await _gone(making)
    assert unstarted.postgres() == []
    await unstarted.start()
