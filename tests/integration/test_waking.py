"""Readers that wait for mail, woken by commits here and in other processes."""

from __future__ import annotations

import asyncio

from protocol.client.hub import Entry
from tests.conftest import RunningHub, StartHub
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

GIVE_UP_SECONDS = 40.0
"""Less than the 60 s after which a reader that nobody woke looks once more and goes home."""


async def woken(read: asyncio.Task[tuple[list[Entry], str]]) -> tuple[list[Entry], str]:
    """What a waiting reader gets, if it is woken."""
    return await asyncio.wait_for(read, GIVE_UP_SECONDS)


async def waiting(hub: RunningHub, count: int = 1) -> None:
    await until(lambda: hub.hub.wake.waiting >= count, "a reader that waits")


def stop_part(hub: RunningHub, name: str) -> None:
    """End one of the loops by which processes wake each other's readers."""
    (task,) = [task for task in hub.hub.wake._tasks if task.get_name() == name]
    task.cancel()


async def test_a_reader_that_waits_gets_what_is_committed(pair: Pair) -> None:
    stop_part(pair.hub, "wake-floor")
    read = asyncio.create_task(pair.receiver.read(wait=60))
    await waiting(pair.hub)
    (message,) = await pair.send("normal")
    entries, _ = await woken(read)
    assert [entry.id for entry in entries] == [message]


async def test_several_readers_of_one_mailbox_all_wake(pair: Pair) -> None:
    reads = [asyncio.create_task(pair.receiver.read(wait=60)) for _ in range(3)]
    await waiting(pair.hub, 3)
    (message,) = await pair.send("express")
    assert [[entry.id for entry in (await woken(read))[0]] for read in reads] == [[message]] * 3


async def test_a_reader_that_waits_beyond_a_cursor_wakes_for_what_is_new_only(pair: Pair) -> None:
    await pair.send("normal")
    _, cursor = await pair.receiver.read()
    read = asyncio.create_task(pair.receiver.read(wait=60, after=cursor))
    await waiting(pair.hub)
    (later,) = await pair.send("express")
    assert [entry.id for entry in (await woken(read))[0]] == [later]


async def test_a_reader_is_woken_by_a_commit_in_another_process(start_hub: StartHub) -> None:
    """Two hubs on one database, each with its own memory. The floor under lost wake-ups is taken away."""
    near, far = await start_hub(), await start_hub()
    for hub in (near, far):
        await until(hub.hub.wake.listening.is_set, "the line to the other process")
    stop_part(far, "wake-floor")
    province = await near.register("ubnd-tinh", PROVINCE)
    district = await near.register("van-yen", VAN_YEN)
    await far.follow()
    async with province.client(near.url) as sender, district.client(far.url) as receiver:
        read = asyncio.create_task(receiver.read(wait=60))
        await waiting(far)
        sent = await sender.send(province.document(VAN_YEN))
        assert [entry.id for entry in (await woken(read))[0]] == [sent.id]
        # Acknowledged there, it is gone here.
        await receiver.acknowledge(*(await receiver.read())[0])
        async with district.client(near.url) as same:
            assert (await same.read())[0] == []
        (delivery,) = (await sender.events(sent.id))["deliveries"]
        assert delivery["state"] == "acknowledged"


async def test_a_lost_announcement_is_made_up_for(start_hub: StartHub) -> None:
    near, far = await start_hub(), await start_hub()
    await until(far.hub.wake.listening.is_set, "the line to the other process")
    province = await near.register("ubnd-tinh", PROVINCE)
    district = await near.register("van-yen", VAN_YEN)
    await far.follow()
    stop_part(near, "wake-tell")
    async with province.client(near.url) as sender, district.client(far.url) as receiver:
        read = asyncio.create_task(receiver.read(wait=60))
        await waiting(far)
        sent = await sender.send(province.document(VAN_YEN))
        assert [entry.id for entry in (await woken(read))[0]] == [sent.id]


async def test_without_mail_a_reader_gets_an_empty_page_in_the_end(pair: Pair) -> None:
    assert await pair.receiver.read(wait=0.05, after="1.2.3") == ([], "1.2.3")


async def test_the_client_gives_each_entry_once_as_it_comes(pair: Pair) -> None:
    ids = await pair.send("normal", "express")
    seen: list[str] = []
    async for entry in pair.receiver.mail(wait=60):
        seen.append(entry.id)
        if len(seen) == 2:
            ids += await pair.send("urgent")
        if len(seen) == 3:
            break
    assert sorted(seen) == sorted(ids)
    assert seen[-1] == ids[-1]
