"""Fixtures: one embedded PostgreSQL for the session, one fresh database and one hub for a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from hub.app import Hub
from hub.config import Config, make
from hub.evidence.keys import make_hub_key
from hub.listener import listen
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import migrate, wait_until_reachable
from tests.support.node import Node
from tests.support.parties import Party, register

# How long an example takes says how busy the machine is. Hypothesis gives each 200 ms unless it is told otherwise.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: three processes for two cores, since tests often wait for processes that they started. On two
    cores the suite took 606 s so, and 742 with one for each."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A cluster with a template database at the newest schema."""
    # Not pytest's tmp_path: its folders are closed to other accounts, and root's PostgreSQL is another.
    folder = Path(tempfile.mkdtemp(prefix="lienthong-test-"))
    cluster = EmbeddedPostgres(folder)
    cluster.start()

    async def prepare() -> None:
        await wait_until_reachable(cluster.url, 30)
        await migrate(cluster.url)

    asyncio.run(prepare())
    yield cluster
    cluster.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of a fresh database, with the schema."""
    name = f"test_{uuid4().hex}"
    maintenance = postgres.url.replace("/lienthong?", "/postgres?")
    connection = await asyncpg.connect(maintenance)
    await connection.execute(f'create database "{name}" template lienthong')
    yield postgres.url.replace("/lienthong?", f"/{name}?")
    await connection.execute(f'drop database "{name}" with (force)')
    await connection.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database, for looking and for changing the directory."""
    found = await asyncpg.connect(database_url)
    yield found
    await found.close()


class RunningHub:
    """A hub in this process, on a free port of loopback."""

    def __init__(self, hub: Hub, url: str, connection: asyncpg.Connection) -> None:
        self.hub = hub
        self.url = url
        self.connection = connection

    async def register(self, name: str, *agencies: str, **options: object) -> Party:
        """Make an endpoint; returns once this hub knows it."""
        party = await register(self.connection, name, *agencies, **options)  # type: ignore[arg-type]
        await self.follow()
        return party

    async def follow(self) -> None:
        """Let the hub's picture catch up with the directory."""
        await self.hub.directory.refresh()


StartHub = Callable[..., Awaitable[RunningHub]]


@pytest.fixture
async def start_hub(database_url: str, connection: asyncpg.Connection, tmp_path: Path) -> AsyncIterator[StartHub]:
    """Starts hubs on the test's database, with settings; several make several processes' worth."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: object) -> RunningHub:
            settings.setdefault("data_dir", str(tmp_path / "data"))
            config: Config = make(database_url=database_url, port=0, **settings)
            make_hub_key(config.hub_key_file)
            hub = Hub(config, database_url)
            await hub.start()
            stack.push_async_callback(hub.stop)
            listener = listen("127.0.0.1", 0)
            hub.serve(listener, None)
            return RunningHub(hub, f"http://127.0.0.1:{listener.getsockname()[1]}", connection)

        yield start


@pytest.fixture
async def hub(start_hub: StartHub) -> RunningHub:
    """A running hub with an empty directory."""
    return await start_hub()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A bare HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start_node() -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """Starts nodes in processes of their own, each with a data directory and a PostgreSQL of its own."""
    folder = Path(tempfile.mkdtemp(prefix="lienthong-node-"))
    folder.chmod(0o755)
    nodes: list[Node] = []

    async def start(*options: str) -> Node:
        node = Node(folder / f"node{len(nodes)}", *options)
        nodes.append(node)
        await node.start()
        return node

    yield start
    for node in nodes:
        await node.stop()
    await asyncio.to_thread(shutil.rmtree, folder)
