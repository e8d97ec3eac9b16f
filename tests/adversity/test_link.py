"""Two hubs, one as the other's national axis, while processes are killed and connections cut: nothing is lost,
nothing comes twice, states come back, and every step can be proven."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import pytest

from protocol import edxml
from protocol.client import HubClient
from protocol.message import Reference, open_jws
from tests.support.axis_parties import paper, state
from tests.support.axis_sdk import Sdk, SdkError
from tests.support.linked import GOVERNMENT_OFFICE, Province, link_row, make_nation, make_province, office_sdk
from tests.support.node import Node
from tests.support.parties import DAI_SON, VAN_YEN
from tests.support.proxy import Proxy
from tests.support.struck import PATIENCE, STRIKES, Strike, check_evidence, link_is_empty
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]
Found = TypeVar("Found")
EACH_WAY = 30
AWAY = (aiohttp.ClientError, SdkError, OSError, TimeoutError, AssertionError, ValueError)
"""What a system of the axis sees of a hub that is being killed."""


async def patiently(call: Callable[[], Awaitable[Found]]) -> Found:
    """The answer of a call, made until there is one."""

    async def answered() -> list[Found]:
        try:
            return [await call()]
        except AWAY:
            return []

    return (await until(answered, "the axis answers", PATIENCE))[0]


@dataclass
class Office:
    """The Government Office's system: sends, and takes in and reports on what it gets, again and again."""

    sdk: Sdk
    documents: Counter[str] = field(default_factory=Counter)
    """By DocumentId, how often the axis gave it under different docIds."""
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By agency and DocumentId."""
    _known: set[str] = field(default_factory=set)

    async def take(self, kind: str) -> None:
        """Take all that is listed; a docId that is known is dropped, as a system does."""
        for item in await patiently(lambda: self.sdk.get_received_edoc_list(kind)):
            name = item["docId"]
            raw = await patiently(lambda name=name: self.sdk.get_edoc(name))
            header = edxml.read(raw)
            if name not in self._known:
                self._known.add(name)
                if kind == "status":
                    self.states[header.sender, header.document_id] += 1
                else:
                    self.documents[header.document_id] += 1
                    answer = state("03", sender=GOVERNMENT_OFFICE, organ=VAN_YEN, document_id=header.document_id)
                    await patiently(lambda raw=answer: self.sdk.send_edoc(raw, GOVERNMENT_OFFICE, "status"))
            await patiently(lambda name=name: self.sdk.update_status(name, "done"))

    async def follow(self) -> None:
        while True:
            await self.take("edoc")
            await self.take("status")
            await asyncio.sleep(0.05)  # it polls


@dataclass
class Commune:
    """Reads natively, and reports on what it gets."""

    client: HubClient
    party: Any
    documents: Counter[str] = field(default_factory=Counter)

    async def follow(self) -> None:
        cursor = "0.0.0"
        while True:
            entries, cursor = await self.client.read(20, 5.0, cursor)
            for entry in entries:
                if entry.format == "edxml":
                    header = edxml.read(await self.client.fetch(entry))
                    self.documents[header.document_id] += 1
                    about = Reference(id=header.document_id, agency=GOVERNMENT_OFFICE)
                    document = self.party.document(
                        GOVERNMENT_OFFICE,
                        id=f"03 {header.document_id}",
                        kind="status",
                        status="03",
                        response_for=(about,),
                    )
                    await self.client.submit(self.client.sign(document))
                await self.client.acknowledge(entry)


@dataclass
class District:
    """Sends natively, and reads the states that come back in edXML."""

    client: HubClient
    states: Counter[str] = field(default_factory=Counter)

    async def follow(self) -> None:
        cursor = "0.0.0"
        while True:
            entries, cursor = await self.client.read(20, 5.0, cursor)
            for entry in entries:
                if entry.format == "edxml":
                    header = edxml.read(await self.client.fetch(entry))
                    assert header.status_code == "03"
                    self.states[header.document_id] += 1
                await self.client.acknowledge(entry)


@dataclass
class Scene:
    """Both hubs, the proxy between them, and who sits where."""

    nation: Node
    province: Node
    proxy: Proxy
    parties: Province
    office: Office

    def moved(self, commune: Commune, district: District) -> int:
        """How many messages have arrived, of 4 x `EACH_WAY`."""
        return sum(map(len, (self.office.documents, self.office.states, commune.documents, district.states)))


@pytest.fixture
async def scene(start_node: StartNode, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    nation, province = await asyncio.gather(start_node("--workers", "2"), start_node("--workers", "2"))
    async with nation.database() as connection:
        office, secret = await make_nation(connection, nation.data_dir / "hub-key.pem")
    proxy = Proxy()
    async with proxy.before_hub(nation.url) as url:
        async with province.database() as connection:
            parties = await make_province(connection, province.data_dir / "hub-key.pem", url + "/vxp", secret)
        await province.knows(parties.commune)
        sdk = office_sdk(http, nation.url, office)
        await patiently(lambda: sdk.get_received_edoc_list())
        yield Scene(nation, province, proxy, parties, Office(sdk))


@pytest.mark.parametrize("strike", STRIKES)
async def test_nothing_is_lost_or_doubled_between_two_hubs(scene: Scene, strike: Strike) -> None:
    parties, office = scene.parties, scene.office
    chance = random.Random(strike.__name__)
    strikes = sorted(chance.sample(range(1, EACH_WAY * 3), 3))
    ups = [f"VY-2017-{number:03}" for number in range(EACH_WAY)]
    downs = [paper(DAI_SON, sender=GOVERNMENT_OFFICE) for _ in range(EACH_WAY)]
    names = [edxml.read(raw).document_id for raw in downs]
    async with contextlib.AsyncExitStack() as stack:
        district = District(await stack.enter_async_context(parties.district.client(scene.province.url)))
        commune = Commune(
            await stack.enter_async_context(parties.commune.client(scene.province.url)), parties.commune
        )
        sender = await stack.enter_async_context(parties.district.client(scene.province.url))
        sent: dict[str, tuple[str, bytes]] = {}

        async def send_up() -> None:
            for name in ups:
                document = parties.district.document(GOVERNMENT_OFFICE, id=name, subject=f"Báo cáo {name}")
                message = sender.sign(document)
                sent[name] = (await sender.submit(message)).id, message

        async def send_down() -> None:
            for raw in downs:
                await patiently(lambda raw=raw: office.sdk.send_edoc(raw, GOVERNMENT_OFFICE))

        async def strikes_fall() -> None:
            for at in strikes:
                await until(lambda at=at: scene.moved(commune, district) >= at, f"{at} arrived", PATIENCE)
                await strike(scene)

        async with asyncio.TaskGroup() as group:
            following = [group.create_task(party.follow()) for party in (office, commune, district)]
            async with asyncio.TaskGroup() as working:
                working.create_task(send_up())
                working.create_task(send_down())
                working.create_task(strikes_fall())
            everything = 4 * EACH_WAY
            await until(lambda: scene.moved(commune, district) >= everything, "all has arrived", PATIENCE)
            await until(lambda: link_is_empty(scene, AWAY), "nothing waits at the link", PATIENCE)
            for task in following:
                task.cancel()
        assert office.documents == Counter(ups)
        assert district.states == Counter(ups)
        assert set(commune.documents) == set(names)  # a reader that lost its place may see an entry again
        assert office.states == Counter((DAI_SON, name) for name in names)
        await _check_store(scene)
        await check_evidence(sender, sent)
        assert all(open_jws(raw)[1].id == name for name, (_, raw) in sent.items())


async def _check_store(scene: Scene) -> None:
    """Each message is once in each hub, and each transfer is on record."""
    async with scene.province.database() as province, scene.nation.database() as nation:
        stored = "select kind, count(*), count(distinct digest) from message where kind < 2 group by kind"
        expected = [(0, 2 * EACH_WAY, 2 * EACH_WAY), (1, 2 * EACH_WAY, 2 * EACH_WAY)]
        for connection in (province, nation):
            assert sorted(map(tuple, await connection.fetch(stored))) == expected
            assert await connection.fetchval("select count(*) from rejection") == 0
        link = (await link_row(province))["endpoint"]
        transfers = await province.fetch("select peer_id from link_transfer where endpoint = $1", link)
        theirs = await nation.fetch(
            "select m.id from message m join endpoint e on e.id = m.endpoint where e.name = 'tinh-yen-bai'"
        )
        assert sorted(row["peer_id"] for row in transfers) == sorted(str(row["id"]) for row in theirs)
        refused = "select count(*) from progress where kind <> 0"
        assert (await province.fetchval(refused), await nation.fetchval(refused)) == (0, 0)
