"""Hubs that are linked natively, in this process: the nation's, the province's below it, and others where needed.

A test module takes over the fixtures that it wants: ``levels = native_linked.levels``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.app import Hub
from hub.config import Config, make
from hub.directory import change, hubs, links
from hub.directory.change import AgencyRow
from hub.directory.links import NewLink
from hub.directory.vault import Vault
from hub.evidence.keys import prepare_keys
from hub.listener import listen
from hub.store.embedded import EmbeddedPostgres
from protocol.client import HubClient
from tests.conftest import RunningHub
from tests.support.linked import FINANCE, GOVERNMENT_OFFICE, UP, impatient, link_row
from tests.support.parties import DAI_SON, NAMES, PROVINCE, VAN_YEN, Party, register
from tests.support.until import until

BELOW = "tinh-yen-bai"
"""What the nation's hub calls the province's."""


@contextlib.asynccontextmanager
async def another_hub(postgres: EmbeddedPostgres, folder: Path, name: str) -> AsyncIterator[RunningHub]:
    """A hub with a database of its own, in this process."""
    database = f"test_{uuid4().hex}"
    maintenance = await asyncpg.connect(postgres.url.replace("/lienthong?", "/postgres?"))
    await maintenance.execute(f'create database "{database}" template lienthong')
    url = postgres.url.replace("/lienthong?", f"/{database}?")
    config: Config = make(database_url=url, port=0, data_dir=str(folder / name), name=name)
    prepare_keys(config)
    connection = await asyncpg.connect(url)
    hub = Hub(config, url)
    try:
        await hub.start()
        listener = listen("127.0.0.1", 0)
        hub.serve(listener, None)
        yield RunningHub(hub, f"http://127.0.0.1:{listener.getsockname()[1]}", connection)
    finally:
        await hub.stop()
        await connection.close()
        await maintenance.execute(f'drop database "{database}" with (force)')
        await maintenance.close()


async def link_natively(
    lower: RunningHub, upper: RunningHub, *branch: str, name: str = UP, below: str = BELOW, **options: Any
) -> None:
    """What the two operators do: `link accept` above, `link add --native` below."""
    approval = options.pop("approval", False)
    token = await hubs.accept(upper.connection, below, branch, approval=approval)
    options = {"retry_seconds": 0.3, "sync_seconds": 0.5, "default": True, "kind": "native"} | options
    new = NewLink(name, upper.url, "", branch, **options)
    vault = Vault.load(lower.hub.config.secrets_key)
    await upper.follow()
    await links.add_link(lower.connection, vault, new, token)
    await lower.follow()


@dataclass
class Levels:
    """The nation's hub with the Government Office and a ministry, the province's with a district and a commune."""

    nation: RunningHub
    province: RunningHub
    office: Party
    finance: Party
    district: Party
    commune: Party
    clients: dict[str, HubClient] = field(default_factory=dict)

    def client(self, party: Party) -> HubClient:
        return self.clients[party.name]

    async def send(self, party: Party, *to: str, **members: Any) -> str:
        client = self.client(party)
        return (await client.submit(client.sign(party.document(*to, **members)))).id

    async def mail(self, party: Party, count: int = 1) -> list[Any]:
        """What a party has got, as soon as it is `count` messages."""

        async def look() -> list[Any] | None:
            entries, _ = await self.client(party).read(200)
            return entries if len(entries) >= count else None

        return await until(look, f"{party.name} has {count} messages")

    async def delivery(self, party: Party, message: str) -> dict[str, Any]:
        (found,) = (await self.client(party).events(message))["deliveries"]
        return dict(found)

    async def ended(self, party: Party, message: str, how: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            found = await self.delivery(party, message)
            return found if found["state"] == how else None

        return await until(look, f"the delivery is {how}")

    async def row(self) -> asyncpg.Record:
        return await link_row(self.province.connection)

    async def settled(self) -> None:
        """Wait until nothing waits for the link, either way."""
        waiting = "select count(*) from inbox i join mailbox b on b.endpoint = i.endpoint and b.lane = i.lane join"
        waiting += " endpoint e on e.id = i.endpoint where e.name = $1 and i.seq > b.floor and not b.done @> i.seq"

        async def empty() -> bool:
            up = await self.province.connection.fetchval(waiting, UP)
            down = await self.nation.connection.fetchval(waiting, BELOW)
            return (up, down) == (0, 0)

        await until(empty, "nothing waits at the link")


async def settle(levels: Levels) -> None:
    """Wait until both hubs know each other's agencies."""

    def known() -> bool:
        above, below = levels.nation.hub.directory.picture, levels.province.hub.directory.picture
        agency, office = above.agency(DAI_SON), below.agency(GOVERNMENT_OFFICE)
        return bool(
            agency and agency.endpoint and office and office.endpoint and below.beyond_keys and above.beyond_keys
        )

    await until(known, "each hub knows who lies beyond")


HubMaker = Callable[[str], Awaitable[RunningHub]]


@pytest.fixture
async def hub_maker(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[HubMaker]:
    """Makes hubs with databases of their own."""
    async with contextlib.AsyncExitStack() as stack:

        async def make_one(name: str) -> RunningHub:
            return await stack.enter_async_context(another_hub(postgres, tmp_path, name))

        with impatient():
            yield make_one
            # hubs stop while their couriers are still impatient
            await stack.aclose()


async def make_levels(nation: RunningHub, province: RunningHub) -> Levels:
    """Who is connected to which."""
    office = await register(nation.connection, "vpcp", GOVERNMENT_OFFICE)
    finance = await register(nation.connection, "btc", FINANCE)
    await change.add_agency(province.connection, AgencyRow(PROVINCE, NAMES[PROVINCE]))
    district = await register(province.connection, "van-yen", VAN_YEN)
    commune = await register(province.connection, "dai-son", DAI_SON)
    await nation.follow()
    await province.follow()
    return Levels(nation, province, office, finance, district, commune)


@pytest.fixture
async def unlinked(hub_maker: HubMaker) -> AsyncIterator[Levels]:
    """Both hubs, not linked yet."""
    levels = await make_levels(await hub_maker("truc-quoc-gia"), await hub_maker("truc-yen-bai"))
    async with contextlib.AsyncExitStack() as stack:
        for party, hub in (
            (levels.office, levels.nation),
            (levels.finance, levels.nation),
            (levels.district, levels.province),
            (levels.commune, levels.province),
        ):
            levels.clients[party.name] = await stack.enter_async_context(party.client(hub.url))
        yield levels


@pytest.fixture
async def levels(unlinked: Levels) -> Levels:
    """Both hubs, linked; each knows who lies beyond."""
    await link_natively(unlinked.province, unlinked.nation, PROVINCE)
    await settle(unlinked)
    return unlinked
