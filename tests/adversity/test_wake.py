"""Mail and changes that one process commits reach those who wait at another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hub.app import Hub
from hub.directory import change, follow
from hub.relay import wake
from hub.relay.wake import Watcher
from hub.store import sql
from protocol.client import Entry, HubClient, Problem
from protocol.message import seal
from protocol.signature import JOSE_MEDIA_TYPE, Signer, generate
from tests.conftest import RunningHub, StartHub
from tests.support.load import whole_mailbox
from tests.support.node import Node
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN, Party, register
from tests.support.raw import request
from tests.support.until import until

DIRECTORY = sql.load("directory")
NEVER = 3600.0
LISTENERS = (
    "select pid from pg_stat_activity where datname = current_database() and application_name = 'lienthong listen'"
)


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set whenever a reader has found nothing and begins to wait."""
    event = asyncio.Event()
    wait = Watcher.wait

    async def noted(self: Watcher, seconds: float) -> bool:
        event.set()
        return await wait(self, seconds)

    monkeypatch.setattr(Watcher, "wait", noted)
    return event


async def _waiting_reader(client: HubClient, parked: asyncio.Event) -> asyncio.Task[tuple[list[Entry], str]]:
    parked.clear()
    reading = asyncio.create_task(client.read(wait=60))
    await parked.wait()
    return reading


async def _parties(hub: RunningHub, others: RunningHub) -> tuple[Party, Party]:
    sender = await hub.register("ubnd-tinh", PROVINCE)
    receiver = await hub.register("van-yen", VAN_YEN)
    await others.follow()
    return sender, receiver


async def test_a_commit_at_one_hub_wakes_a_reader_at_another(
    start_hub: StartHub, parked: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "FLOOR_SECONDS", NEVER)  # so that only the announcement can do it
    here, there = await start_hub(), await start_hub()
    sender, receiver = await _parties(here, there)
    await there.hub.wake.listening.wait()
    async with sender.client(here.url) as client, receiver.client(there.url) as reader:
        reading = await _waiting_reader(reader, parked)
        sent = await client.send(sender.document(VAN_YEN, priority="express"))
        ((entry,), _) = await reading
        assert entry.id == sent.id


async def test_a_line_that_broke_is_made_again(
    start_hub: StartHub, parked: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "FLOOR_SECONDS", NEVER)
    here, there = await start_hub(), await start_hub()
    sender, receiver = await _parties(here, there)
    connection = here.connection
    for hub in (here, there):
        await hub.hub.wake.listening.wait()
    before = {row["pid"] for row in await connection.fetch(LISTENERS)}
    assert len(before) == 2
    await connection.execute(f"select pg_terminate_backend(pid) from ({LISTENERS}) l")

    async def made_again() -> bool:
        now = {row["pid"] for row in await connection.fetch(LISTENERS)}
        return len(now) == 2 and not now & before

    await until(made_again, "both hubs listen on new connections")
    await there.hub.wake.listening.wait()
    async with sender.client(here.url) as client, receiver.client(there.url) as reader:
        reading = await _waiting_reader(reader, parked)
        sent = await client.send(sender.document(VAN_YEN))
        ((entry,), _) = await reading
        assert entry.id == sent.id


async def _deafen(hub: Hub, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the line to other processes away, for good."""

    async def refused(*_: object) -> asyncpg.Connection:
        raise ConnectionRefusedError

    await hub.wake.listening.wait()
    monkeypatch.setattr(wake, "connect", refused)
    await connection.execute(f"select pg_terminate_backend(pid) from ({LISTENERS}) l")
    await until(lambda: not hub.wake.listening.is_set(), "the line is gone")


async def test_without_announcements_the_floor_finds_the_mail(
    start_hub: StartHub, parked: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await start_hub(), await start_hub()
    sender, receiver = await _parties(here, there)
    await _deafen(there.hub, here.connection, monkeypatch)
    async with sender.client(here.url) as client, receiver.client(there.url) as reader:
        reading = await _waiting_reader(reader, parked)
        sent = await client.send(sender.document(VAN_YEN))
        ((entry,), _) = await reading
        assert entry.id == sent.id
        assert not there.hub.wake.listening.is_set()


async def test_a_reader_in_one_process_is_woken_by_another(
    start_node: Callable[..., Awaitable[Node]],
) -> None:
    node = await start_node("--workers", "2")
    async with node.database() as database:
        sender = await register(database, "ubnd-tinh", PROVINCE)
        receiver = await register(database, "van-yen", VAN_YEN)
    await node.knows(receiver)
    jose = sender.headers | {"Content-Type": JOSE_MEDIA_TYPE}
    async with node.connections() as connections:
        (one, other) = connections.values()
        for sends, waits in ((one, other), (other, one)):
            await _acknowledge_all(node, receiver)
            await node.park(receiver, [waits])
            raw = seal(sender.document(VAN_YEN), sender.signer)
            await sends.send(request("POST", "/v1/messages", jose, raw))
            assert (await sends.answer()).status == 202
            (entry,) = (await waits.answer()).json()["entries"]
            assert entry["jws"].encode() == raw


async def _acknowledge_all(node: Node, receiver: Party) -> None:
    async with receiver.client(node.url) as client:
        if waiting := await whole_mailbox(client):
            await client.acknowledge(*waiting)


# -- the directory ----------------------------------------------------------------------------------


@pytest.fixture(params=["announced", "looked-for"])
async def two_hubs(
    request: pytest.FixtureRequest, start_hub: StartHub, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunningHub, RunningHub]:
    """Two hubs of which the second follows the directory by announcements only, or by looking only."""
    monkeypatch.setattr(follow, "POLL_SECONDS", NEVER if request.param == "announced" else 0.1)
    here, there = await start_hub(), await start_hub()
    await there.hub.wake.listening.wait()
    if request.param == "looked-for":
        await _deafen(there.hub, here.connection, monkeypatch)
    return here, there


async def _followed(hub: RunningHub) -> None:
    """The hub, by itself, has the directory as it is now."""
    revision = await hub.connection.fetchval(DIRECTORY.revision)
    async with asyncio.timeout(30):
        await hub.hub.directory.reached(revision)


async def test_changes_of_the_directory_reach_every_process(two_hubs: tuple[RunningHub, RunningHub]) -> None:
    here, there = two_hubs
    connection = here.connection
    sender = await register(connection, "ubnd-tinh", PROVINCE)
    await _followed(there)
    async with sender.client(there.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as unknown:
            await client.send(sender.document(LUC_YEN))
        assert unknown.value.code == "recipient-unknown"

        receiver = await register(connection, "luc-yen", LUC_YEN)  # a new endpoint
        await _followed(there)
        await client.send(sender.document(LUC_YEN))

        await change.set_endpoint_active(connection, "luc-yen", active=False)
        await _followed(there)
        with pytest.raises(Problem) as disabled:
            await client.send(sender.document(LUC_YEN))
        assert disabled.value.code == "recipient-unknown"
        async with receiver.client(there.url, retry_seconds=0) as reader:
            with pytest.raises(Problem) as closed:
                await reader.read()
            assert closed.value.code == "forbidden"
            await change.set_endpoint_active(connection, "luc-yen", active=True)
            await _followed(there)
            assert len((await reader.read())[0]) == 1, "a disabled endpoint's mail waits"

        key = generate("EdDSA")
        message = seal(sender.document(LUC_YEN), Signer(key))
        with pytest.raises(Problem) as stranger:
            await client.submit(message)
        assert stranger.value.code == "unknown-key"
        kid = await change.add_key(connection, key.public_key(), endpoint="ubnd-tinh")  # a new key
        await _followed(there)
        await client.submit(message)
        await change.disable_key(connection, kid)
        await _followed(there)
        with pytest.raises(Problem) as ended:
            await client.submit(seal(sender.document(LUC_YEN), Signer(key)))
        assert ended.value.code == "key-disabled"

        await change.revoke_credentials(connection, "ubnd-tinh")
        await _followed(there)
        with pytest.raises(Problem) as revoked:
            await client.read()
        assert revoked.value.code == "unauthenticated"
