"""Two processes of a hub, and a stream at one of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from protocol.stream import (
    Ack,
    Acked,
    Mail,
)
from tests.conftest import RunningHub, StartHub
from tests.support.load import whole_mailbox
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.stream import raw_stream

OFFICE = "000.01.00.H63"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
async def test_a_reader_at_one_process_gets_what_both_commit_once_and_in_order(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    """Two hubs on one database, writers at both, and a reader that acknowledges all that it has seen after each
    push: whatever were skipped would be ended unseen.
    """
    here, there = await start_hub(), await start_hub()
    senders = [await here.register("ubnd-tinh", PROVINCE), await here.register("van-phong", OFFICE)]
    district = await here.register("van-yen", VAN_YEN, DAI_SON)
    await there.follow()
    for hub in (here, there):
        await hub.hub.wake.listening.wait()
    if not announced:
        monkeypatch.setattr(there.hub.wake, "_to_tell", Nobody())
    each, width = 120, 3
    sent: set[str] = set()

    async def write(hub: RunningHub, number: int) -> None:
        """Submissions of one, of a few, and of a manifest in turn, each awaited before the next."""
        party = senders[number]
        async with raw_stream(http, hub.url, party) as stream:
            left = each
            while left:
                count = min(left, 1 + left % 4)
                left -= count
                lanes = ["normal", "express", "normal", "urgent"]
                documents = [party.document(VAN_YEN, priority=lanes[(left + i) % 4]) for i in range(count)]
                if left % 3:
                    n = await stream.submit(*[party.client(hub.url).sign(document) for document in documents])
                else:
                    n = await stream.submit_together(party, documents)
                for outcome in (await stream.answers(n))[n]:
                    assert outcome["status"] == 202
                    sent.add(outcome["id"])

    seen: list[dict[str, Any]] = []
    expected = 2 * width * each

    async def read() -> int:
        ended = 0
        async with raw_stream(http, here.url, district, messages=40, size=100_000) as stream:
            while len(seen) < expected or stream.session.unanswered:
                frame = await stream.next()
                if isinstance(frame, Mail):
                    seen.extend(frame.entries)
                    await stream.say(Ack(stream.session.next_number, up_to=frame.cursor))
                    await stream.grant(len(frame.entries), sum(entry["size"] for entry in frame.entries))
                else:
                    assert isinstance(frame, Acked)
                    ended += frame.acknowledged
        return ended

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        for number in range(width):
            group.create_task(write(here, number % 2))
            group.create_task(write(there, number % 2))
    assert reading.result() == expected
    assert len(sent) == expected
    assert sorted(entry["id"] for entry in seen) == sorted(sent)
    for lane in ("express", "urgent", "normal"):
        seqs = [entry["seq"] for entry in seen if entry["lane"] == lane]
        assert seqs == sorted(seqs) and len(seqs) > 100
    connection = here.connection
    assert await connection.fetchval("select count(*) from message") == expected
    batches = await connection.fetchval("select count(distinct batch) from message")
    assert batches > 50, "the commits were many, and interleaved"
    async with district.client(here.url) as client:
        assert await whole_mailbox(client) == []


class Nobody(dict[Any, Any]):
    """Where what one process has to tell the others is lost."""

    def __setitem__(self, place: Any, reach: Any) -> None:
        """Tell nobody."""
