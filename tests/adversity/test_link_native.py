"""Two hubs, linked natively, while processes are killed and connections cut: nothing is lost, nothing comes twice,
states and refusals come back, and what was signed on one side is what is read on the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
import orjson
import pytest

from hub.directory import change, hubs, links
from hub.directory.change import AgencyRow
from hub.directory.links import NewLink
from hub.directory.vault import Vault
from protocol.client import HubClient
from protocol.message import Reference
from protocol.problems import Problem
from tests.support.linked import GOVERNMENT_OFFICE, UP, link_row
from tests.support.node import Node
from tests.support.parties import DAI_SON, NAMES, PROVINCE, Party, register
from tests.support.proxy import Proxy
from tests.support.struck import PATIENCE, STRIKES, Strike, check_evidence, link_is_empty
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]
EACH_WAY = 30
REFUSED = 5
"""Every fifth document is refused by its recipient."""
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, Problem)


@dataclass
class Agency:
    """An agency's system at its own hub: sends, takes in and reports on what it gets, hears of what it sent."""

    party: Party
    peer: str
    client: HubClient
    documents: Counter[str] = field(default_factory=Counter)
    """By the sender's id, how often an entry came under another of the hub's ids."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    sent: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    async def send(self, names: list[str]) -> None:
        for name in names:
            raw = self.client.sign(self.party.document(self.peer, id=name, subject=f"Văn bản {name}"))
            self.sent[name] = (await self.client.submit(raw)).id, raw

    async def follow(self) -> None:
        cursor = "0.0.0"
        while True:
            entries, cursor = await self.client.read(20, 5.0, cursor)
            for entry in entries:
                new = entry.id not in self.known
                self.known.add(entry.id)
                if entry.format == "receipt":
                    assert entry.receipt is not None
                    event = orjson.loads(entry.receipt.event)
                    assert (event["event"], event["recipients"]) == ("refused", [self.peer])
                    self.refusals[event["id"]] += new
                elif entry.document.kind == "status":
                    self.states[entry.document.response_for[0].id] += new
                else:
                    await self._take(entry, new)
                    if int(entry.sender_id[-3:]) % REFUSED == 0:
                        await self.client.refuse(entry, "Không thuộc thẩm quyền")
                        continue
                await self.client.acknowledge(entry)

    async def _take(self, entry: object, new: bool) -> None:
        name = entry.sender_id  # type: ignore[attr-defined]
        self.documents[name] += new
        self.bodies[name] = entry.body  # type: ignore[attr-defined]
        if int(name[-3:]) % REFUSED:
            about = Reference(id=name, agency=self.peer)
            status = self.party.document(
                self.peer, id=f"03 {name}", kind="status", status="03", response_for=(about,)
            )
            await self.client.submit(self.client.sign(status))


@dataclass
class Scene:
    """Both hubs, the proxy between them, and who sits where."""

    nation: Node
    province: Node
    proxy: Proxy
    office: Agency
    commune: Agency

    def moved(self) -> int:
        """How many messages have arrived, of 4 x `EACH_WAY`."""
        sides = self.office, self.commune
        return sum(len(side.documents) + len(side.states) + len(side.refusals) for side in sides)


@pytest.fixture
async def scene(start_node: StartNode) -> AsyncIterator[Scene]:
    nation, province = await asyncio.gather(
        start_node("--workers", "2", "--name", "truc-quoc-gia"),
        start_node("--workers", "2", "--name", "truc-yen-bai"),
    )
    async with nation.database() as connection:
        office = await register(connection, "vpcp", GOVERNMENT_OFFICE)
        token = await hubs.accept(connection, "tinh-yen-bai", (PROVINCE,))
    proxy = Proxy()
    async with proxy.before_hub(nation.url) as url, contextlib.AsyncExitStack() as stack:
        async with province.database() as connection:
            await change.add_agency(connection, AgencyRow(PROVINCE, NAMES[PROVINCE]))
            commune = await register(connection, "dai-son", DAI_SON)
            vault = Vault.load(province.data_dir / "hub-key.pem")
            new = NewLink(
                UP, url, "", (PROVINCE,), default=True, retry_seconds=0.5, sync_seconds=1.0, kind="native"
            )
            await links.add_link(connection, vault, new, token)
            known = "select count(*) from agency where code = $1 and endpoint is not null"
            await until(lambda: connection.fetchval(known, GOVERNMENT_OFFICE), "the directory has come", PATIENCE)
        await province.knows(commune)
        await nation.knows(office)
        above = await stack.enter_async_context(office.client(nation.url))
        below = await stack.enter_async_context(commune.client(province.url))
        yield Scene(
            nation,
            province,
            proxy,
            Agency(office, DAI_SON, above),
            Agency(commune, GOVERNMENT_OFFICE, below),
        )


@pytest.mark.parametrize("strike", STRIKES)
async def test_nothing_is_lost_or_doubled_between_two_hubs(scene: Scene, strike: Strike) -> None:
    office, commune = scene.office, scene.commune
    chance = random.Random(strike.__name__)
    strikes = sorted(chance.sample(range(1, EACH_WAY * 3), 3))
    # The same ids on both sides, which must not meet.
    names = [f"2026-{number:03}" for number in range(1, EACH_WAY + 1)]

    async def strikes_fall() -> None:
        for at in strikes:
            await until(lambda at=at: scene.moved() >= at, f"{at} arrived", PATIENCE)
            await strike(scene)

    async with asyncio.TaskGroup() as group:
        following = [group.create_task(side.follow()) for side in (office, commune)]
        async with asyncio.TaskGroup() as working:
            working.create_task(office.send(names))
            working.create_task(commune.send(names))
            working.create_task(strikes_fall())
        await until(lambda: scene.moved() >= 4 * EACH_WAY, "all has arrived", PATIENCE)
        await until(lambda: link_is_empty(scene, AWAY), "nothing waits at the link", PATIENCE)
        for task in following:
            task.cancel()
    refused = [name for name in names if int(name[-3:]) % REFUSED == 0]
    taken = [name for name in names if name not in refused]
    for side, other in ((office, commune), (commune, office)):
        assert side.documents == Counter(names)
        assert side.bodies == {name: raw for name, (_, raw) in other.sent.items()}
        assert side.states == Counter(taken)
        assert side.refusals == Counter(refused)
        await check_evidence(side.client, side.sent)
    await _check_store(scene, len(taken))


async def _check_store(scene: Scene, taken: int) -> None:
    """Each message is once in each hub, and each transfer is on record under the names of both."""
    async with scene.province.database() as province, scene.nation.database() as nation:
        stored = "select kind, count(*), count(distinct digest) from message where kind < 2 group by kind"
        expected = [(0, 2 * EACH_WAY, 2 * EACH_WAY), (1, 2 * taken, 2 * taken)]
        for connection in (province, nation):
            assert sorted(map(tuple, await connection.fetch(stored))) == expected
        link = (await link_row(province))["endpoint"]
        transfers = await province.fetch(
            "select peer_id from link_transfer t join message m on m.id = t.message"
            " where t.endpoint = $1 and m.kind < 2",
            link,
        )
        theirs = await nation.fetch(
            "select m.id from message m join endpoint e on e.id = m.endpoint where e.name = 'tinh-yen-bai'"
        )
        assert sorted(row["peer_id"] for row in transfers) == sorted(str(row["id"]) for row in theirs)
