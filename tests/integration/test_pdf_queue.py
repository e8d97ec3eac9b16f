"""Messages wait to have their PDFs checked after they were accepted: none is lost, and endpoints take turns."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from hub.directory import change
from hub.evidence import record
from hub.pdf import queue as queues
from hub.pdf.result import Policy
from protocol.problems import Problem
from tests.conftest import StartHub
from tests.support import pdf_scene
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis, connect, paper
from tests.support.desk import STORED
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.pdf_scene import QUEUED, believe, empty, recorded, send, settle
from tests.support.until import until

axis = pdf_scene.axis
quick = pdf_scene.quick


async def test_what_waits_survives_a_restart(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()  # it dies before it comes to it
    message = await send(axis, signed.issued())
    assert await first.connection.fetchval(QUEUED) == 1
    await start_hub()
    assert len(await recorded(axis, message)) == 1


async def test_whoever_dies_over_a_message_leaves_it_to_others(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()
    message = await send(axis, signed.issued())
    async with first.connection.transaction():  # in which time stands still
        row = await first.connection.fetchrow(queues.SQL.take, timedelta(seconds=1), 0)  # no more is heard
        assert row is not None and str(row["message"]) == message
        assert await first.connection.fetchrow(queues.SQL.take, timedelta(seconds=1), 0) is None, (
            "nobody else takes it"
        )
    await start_hub()
    assert len(await recorded(axis, message)) == 1


async def test_several_processes_share_it(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()
    messages = [await send(axis, signed.sign(signed.paper(f"Báo cáo {n}"), signed.seal())) for n in range(6)]
    await start_hub()
    await start_hub()
    for message in messages:
        assert len(await recorded(axis, message)) == 1


async def test_endpoints_take_turns(axis: Axis) -> None:
    """However much one sends, another's message is the next but one."""
    await settle(axis, Policy.RECORD)
    await change.set_pdf_signatures(axis.hub.connection, axis.district.party.name, Policy.RECORD)
    await axis.hub.follow()
    await axis.hub.hub.pdf_queue.stop()
    many = {await send(axis, signed.issued()) for _ in range(4)}
    async with axis.district.party.client(axis.hub.url) as client:
        raw = paper(PROVINCE, sender=VAN_YEN, content=b64encode(signed.issued()).decode())
        other = (await client.submit(raw, "application/xml")).id
    order: list[str] = []
    connection = axis.hub.connection
    turn = 0
    for _ in range(2):
        row = await connection.fetchrow(queues.SQL.take, timedelta(minutes=1), turn)
        assert row is not None
        order.append(str(row["message"]))
        turn = row["endpoint"]
    assert order[0] in many and order[1] == other
    await connection.execute("update pdf_queue set due = now()")
    axis.hub.hub.pdf_queue.start()
    await until(lambda: empty(axis), "all of them were checked")


async def test_a_file_that_is_not_there_is_tried_again(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_PAUSE", timedelta(milliseconds=50))
    await settle(axis, Policy.RECORD)
    pdf = signed.issued()
    path = axis.hub.hub.blobs.path(hashlib.sha256(pdf).digest())
    await axis.hub.hub.pdf_queue.stop()
    message = await send(axis, pdf)
    path.rename(path.with_suffix(".away"))
    axis.hub.hub.pdf_queue.start()

    async def tried() -> bool:
        return bool(await axis.hub.connection.fetchval("select max(tries) >= 3 from pdf_queue"))

    await until(tried, "it was tried again and again")
    path.with_suffix(".away").rename(path)
    assert len(await recorded(axis, message)) == 1


async def test_an_event_that_could_not_be_recorded_is_not_forgotten(
    axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "FIRST_PAUSE", timedelta(milliseconds=50))
    await settle(axis, Policy.RECORD)
    failures, real = [], record.Recorder.record

    async def failing(self: record.Recorder, events: Any) -> None:
        if len(failures) < 2:
            failures.append(events)
            raise Problem("store-unavailable", "nothing is lost")
        await real(self, events)

    monkeypatch.setattr(record.Recorder, "record", failing)
    message = await send(axis, signed.issued())
    assert len(await recorded(axis, message)) == 1 and len(failures) == 2


async def test_a_message_that_left_leaves_the_queue(axis: Axis) -> None:
    gone = UUID("01900000-0000-7000-8000-000000000000")
    await axis.hub.connection.execute("insert into pdf_queue (message, endpoint) values ($1, 1)", gone)
    axis.hub.hub.pdf_queue.poke()
    await until(lambda: empty(axis), "the queue is empty")


async def test_a_message_and_its_place_in_the_queue_are_committed_together(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    connection = axis.hub.connection
    await axis.hub.hub.pdf_queue.stop()
    await connection.execute("alter table pdf_queue rename to gone")
    with pytest.raises(Problem) as caught:
        await send(axis, signed.issued())
    assert caught.value.code == "internal"
    assert [*(await connection.fetchrow(STORED) or ())] == [0, 0, 0]
    await connection.execute("alter table gone rename to pdf_queue")
    await send(axis, signed.issued())
    assert await connection.fetchval(QUEUED) == 1
