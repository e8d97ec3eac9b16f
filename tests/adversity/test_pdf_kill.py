"""kill -9 while PDFs are checked: each accepted message gets its event, once, and nothing is left running."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import aiohttp
import psutil

from hub.directory import change, trust
from hub.pdf.result import Policy
from protocol.client import Attachment
from tests.support import pdf_signed as signed
from tests.support.node import Node
from tests.support.parties import PROVINCE, VAN_YEN, Party, register
from tests.support.until import until

COUNT = 12
EVENTS = "select message::text, count(*) from event where kind = 'signatures_checked' group by 1"


async def _send(node: Node, province: Party, http: aiohttp.ClientSession, number: int) -> str:
    pdf = await asyncio.to_thread(signed.sign, signed.paper(f"Báo cáo số {number}"), signed.seal())
    name = hashlib.sha256(pdf).hexdigest()
    async with http.put(f"{node.url}/v1/attachments/{name}", data=pdf, headers=province.headers) as response:
        assert response.status == 201
    async with province.client(node.url) as client:
        attachments = (Attachment(f"Báo cáo số {number}.pdf", len(pdf), name),)
        return (await client.send(province.document(VAN_YEN, attachments=attachments))).id


def _checking(node: Node) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(node.pid).children(recursive=True):
        try:
            if "hub.pdf.process" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_what_was_accepted_is_checked_once_whoever_dies(
    start_node: Callable[..., Awaitable[Node]], http: aiohttp.ClientSession
) -> None:
    node = await start_node("--workers", "2")
    async with node.database() as database:
        province = await register(database, "ubnd-tinh", PROVINCE)
        await register(database, "van-yen", VAN_YEN)
        await trust.add_anchor(database, signed.authority().certificate)
        await change.set_pdf_signatures(database, province.name, Policy.RECORD)
        await node.knows(province)
        messages = [await _send(node, province, http, number) for number in range(COUNT // 2)]
        checking = await until(lambda: _checking(node), "PDFs are being checked")
        node.kill_workers()
        messages += [await _send(node, province, http, number) for number in range(COUNT // 2, COUNT)]
        await until(lambda: _checking(node), "and again")
        for process in _checking(node):
            process.kill()

        async def done() -> bool:
            return not await database.fetchval("select count(*) from pdf_queue")

        await until(done, "nothing waits any more", 90)
        events = {row[0]: row[1] for row in await database.fetch(EVENTS)}
        verdicts = await database.fetch("select distinct result::jsonb ->> 'verdict' as verdict from pdf_result")
    assert events == dict.fromkeys(messages, 1)
    assert [row["verdict"] for row in verdicts] == ["signed"], "a killed process is no fault of a PDF"
    _, alive = await asyncio.to_thread(psutil.wait_procs, checking, 30)
    assert alive == []
