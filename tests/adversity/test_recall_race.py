"""Recalls against readers, in two processes: whoever got a document was never said to have been spared it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import orjson
import pytest

from protocol.client import HubClient
from protocol.message import Reference
from protocol.problems import Problem
from tests.support.node import Node
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party, register

READERS = {"pages": VAN_YEN, "stream": LUC_YEN, "one by one": DAI_SON}
ROUNDS = 40


async def read_pages(client: HubClient, got: set[str], done: asyncio.Event, chance: random.Random) -> None:
    """Now and then a page, acknowledged or not."""
    while not done.is_set():
        entries, cursor = await client.read(limit=chance.choice((1, 3, 100)), wait=chance.choice((0, 0, 0.05)))
        got |= {entry.id for entry in entries if entry.format != "receipt"}
        if entries and chance.random() < 0.5:
            await client.acknowledge(up_to=cursor)
        await asyncio.sleep(chance.random() * 0.06)


async def read_stream(client: HubClient, got: set[str], done: asyncio.Event, chance: random.Random) -> None:
    """A stream for a moment, then none, again and again."""
    while not done.is_set():
        try:
            async with (
                asyncio.timeout(chance.random() * 0.25),
                client.stream(messages=chance.choice((1, 8))) as stream,
            ):
                async for entry in stream.mail():
                    got.add(entry.id)
                    if chance.random() < 0.7:
                        await stream.acknowledge(entry)
        except TimeoutError:
            pass
        await asyncio.sleep(chance.random() * 0.05)


async def fetch_single(
    client: HubClient, got: set[str], done: asyncio.Event, chance: random.Random, sent: list[str]
) -> None:
    """Messages by their ids, guessed right, without reading the mailbox."""
    while not done.is_set():
        if sent:
            message = chance.choice(sent[-4:])
            try:
                await client.fetch(message)
                got.add(message)
            except Problem as problem:
                assert problem.code == "recalled"
        await asyncio.sleep(chance.random() * 0.05)


@pytest.mark.parametrize("seed", [1, 2])
async def test_nobody_gets_what_was_recalled_before_it_was_handed_over(
    start_node: Callable[..., Awaitable[Node]], seed: int
) -> None:
    node = await start_node("--workers", "2")
    async with node.database() as connection:
        province = await register(connection, "ubnd-tinh", PROVINCE)
        parties: dict[str, Party] = {}
        for how, code in READERS.items():
            parties[how] = await register(connection, how, code)
    await node.knows(parties["one by one"])
    got: dict[str, set[str]] = {how: set() for how in READERS}
    sent: list[str] = []
    done = asyncio.Event()
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(province.client(node.url)) for _ in range(2)]
        clients = {how: await stack.enter_async_context(party.client(node.url)) for how, party in parties.items()}
        async with asyncio.TaskGroup() as group:
            for part in range(2):
                group.create_task(read_pages(clients["pages"], got["pages"], done, random.Random(seed + part)))
            group.create_task(read_stream(clients["stream"], got["stream"], done, random.Random(seed + 3)))
            group.create_task(
                fetch_single(clients["one by one"], got["one by one"], done, random.Random(seed + 4), sent)
            )

            async def send_and_recall(client: HubClient, first: int) -> None:
                for number in range(first, first + ROUNDS):
                    name = f"{number}/UBND"
                    priority = chance.choice(("normal", "express"))
                    to = tuple(READERS.values())
                    sent.append((await client.send(province.document(*to, id=name, priority=priority))).id)
                    await asyncio.sleep(chance.choice((0, 0, chance.random() * 0.1)))
                    about = (Reference(name),)
                    await client.send(
                        province.document(*to, business="recall", concerns=about, id=f"thu hồi {name}")
                    )

            async with asyncio.TaskGroup() as sending:
                for place, client in enumerate(senders):
                    sending.create_task(send_and_recall(client, 1000 * (place + 1)))
            done.set()
        # What the hub says of each delivery, against what the readers have.
        told = Counter[str]()
        spared: dict[str, set[str]] = {how: set() for how in READERS}
        for message in sent:
            for delivery in (await senders[0].events(message))["deliveries"]:
                told[delivery["state"]] += 1
                if delivery["state"] == "recalled":
                    spared[delivery["endpoint"]].add(message)
        for how in READERS:
            assert not spared[how] & got[how], f"{how}: handed out, and said to be recalled before"
        assert told["recalled"] > 0 and sum(told.values()) - told["recalled"] > 0, f"nothing was decided: {told}"
        # The sender was told of each that was spared, once, with proof in the store's own words.
        notices: Counter[tuple[str, str]] = Counter()
        cursor = "0.0.0"
        while True:
            entries, cursor = await senders[0].read(1000, after=cursor)
            if not entries:
                break
            for entry in entries:
                assert entry.receipt is not None
                event = orjson.loads(entry.receipt.event)
                assert event["event"] == "recalled"
                notices[event["message"], event["endpoint"]] += 1
        assert notices == Counter((message, how) for how, messages in spared.items() for message in messages)
        # Whoever was not spared still gets it.
        for how in ("pages", "stream"):
            rest: set[str] = set()
            cursor = "0.0.0"
            while True:
                entries, cursor = await clients[how].read(1000, after=cursor)
                if not entries:
                    break
                rest |= {entry.id for entry in entries}
            assert not rest & spared[how]
            assert set(sent) <= rest | got[how] | spared[how], f"{how}: lost"
