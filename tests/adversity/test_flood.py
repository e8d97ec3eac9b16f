"""Endpoints that flood, dawdle, or never come: the others neither wait for them nor are refused for them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from hub.couriers.mailbox import PAGES_IN_HAND
from hub.doors.guard import GuardedHandler
from hub.relay.admission import OVERHEAD
from hub.relay.commit import MAX_BATCH
from protocol.message import seal
from tests.conftest import RunningHub, StartHub
from tests.support.load import sign_messages, whole_mailbox
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party
from tests.support.raw import RawConnection, head, raw_connection, request, served_here
from tests.support.until import until

JOSE = {"Content-Type": "application/jose"}
SLOW = 500
LARGE = "lũ " * 8_000


@contextlib.asynccontextmanager
async def flooding(hub: RunningHub, party: Party, to: str, senders: int) -> AsyncIterator[Counter[int]]:
    """`party` submits on many connections at once, without a pause, for as long as the block runs."""
    answers: Counter[int] = Counter()
    connector = aiohttp.TCPConnector(limit=0)
    headers = party.headers | JOSE
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def send() -> None:
            while True:
                document = seal(party.document(to, content=LARGE), party.signer)
                async with session.post(f"{hub.url}/v1/messages", data=document) as response:
                    await response.read()
                    answers[response.status] += 1

        tasks = [asyncio.create_task(send()) for _ in range(senders)]
        try:
            yield answers
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in ended), "nobody failed otherwise"


async def test_a_flood_by_one_refuses_nobody_else(start_hub: StartHub) -> None:
    hub = await start_hub(max_queue_bytes=1 << 20)
    flood = await hub.register("ubnd-tinh", PROVINCE)
    sender, receiver = await hub.register("luc-yen", LUC_YEN), await hub.register("van-yen", VAN_YEN)
    await hub.register("dai-son", DAI_SON)
    documents = [sender.document(VAN_YEN, content=LARGE) for _ in range(15)]
    async with (
        flooding(hub, flood, DAI_SON, 60) as answers,
        sender.client(hub.url, retry_seconds=0) as client,  # the first refusal would fail it
        receiver.client(hub.url, retry_seconds=0) as reader,
    ):
        await until(lambda: answers[503], "the flood is refused", 60)
        for found in documents:
            sent = await client.submit(seal(found, sender.signer))
            assert not sent.duplicate
            (entry,), _ = await reader.read(wait=60)
            assert entry.id == sent.id
            assert await reader.acknowledge(entry) == 1
        assert answers[202], "the flood has its share all the same"
    assert set(answers) == {202, 503}
    refused = hub.hub.admission.refused
    assert refused["share"] + refused["bytes"] >= answers[503]


async def test_slow_bodies_of_one_keep_nobody_out(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    """Each announces a megabyte and sends a byte: they would fill the queue eight times over."""
    hub = await start_hub()
    slow, sender = await hub.register("ubnd-tinh", PROVINCE), await hub.register("luc-yen", LUC_YEN)
    receiver = await hub.register("van-yen", VAN_YEN)
    admission = hub.hub.admission
    large = {"Content-Length": str(1 << 20)}
    content = b"ph\xe1\xbb\xa5 l\xe1\xbb\xa5c"
    upload = f"/v1/attachments/{hashlib.sha256(content).hexdigest()}"
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(raw_connection(hub.url)) for _ in range(SLOW)]
        for connection in connections:
            await connection.send(head("POST", "/v1/messages", slow.headers | JOSE | large) + b"e")
        a_byte = (64 << 10) + OVERHEAD  # what is taken ahead of it
        await until(lambda: admission.held(slow.id) == SLOW * a_byte, "all of them have begun")
        assert SLOW * a_byte <= admission.limit * 2 // 3
        uploads = [await stack.enter_async_context(raw_connection(hub.url)) for _ in range(SLOW)]
        for connection in uploads:
            await connection.send(head("PUT", upload, slow.headers | large) + b"e")
        await until(lambda: hub.hub.uploads.used, "uploads have begun")
        async with sender.client(hub.url, retry_seconds=0) as client, receiver.client(hub.url) as reader:
            for number in range(20):
                content_of = "x" * (700_000 if number % 5 == 0 else 500)
                await client.submit(seal(sender.document(VAN_YEN, content=content_of), sender.signer))
            async with http.put(hub.url + upload, data=content, headers=sender.headers) as response:
                assert response.status == 201
            assert len(await whole_mailbox(reader)) == 20
        assert admission.held(slow.id) == SLOW * a_byte, "they dawdle on"
        assert admission.refused["share"] == admission.refused["bytes"] == 0
    await until(lambda: admission.used == hub.hub.uploads.used == 0, "they have gone, and so has their room")


async def _deaf_connection(url: str) -> RawConnection:
    """A connection that takes next to nothing: its buffer is as small as the system allows."""
    parts = urlsplit(url)
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.setblocking(False)
    await asyncio.get_running_loop().sock_connect(found, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=found, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return RawConnection(reader, writer)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs that hold little of an answer in the system's buffers, which may take a whole page."""
    opened = GuardedHandler.connection_made

    def connection_made(connection: GuardedHandler, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        opened(connection, transport)

    monkeypatch.setattr(GuardedHandler, "connection_made", connection_made)


async def _fill(hub: RunningHub, sender: Party, code: str) -> None:
    """Put two megabytes into the mailbox of the agency `code`."""
    async with sender.client(hub.url) as client:
        documents = [sender.document(code, content="đ" * 23_000, priority="express") for _ in range(40)]
        await client.submit_many([seal(found, sender.signer) for found in documents])


@pytest.mark.usefixtures("narrow")
async def test_readers_that_ask_and_do_not_read_hold_a_few_pages(
    start_hub: StartHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await start_hub()
    sender, deaf = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    receiver = await hub.register("luc-yen", LUC_YEN)
    await _fill(hub, sender, VAN_YEN)
    mailboxes = hub.hub.mailboxes
    read_page, pages = mailboxes.page, Counter[int]()

    async def page(endpoint: int, *arguments: Any, **options: Any) -> Any:
        pages[endpoint] += 1
        return await read_page(endpoint, *arguments, **options)

    monkeypatch.setattr(mailboxes, "page", page)
    async with (
        contextlib.AsyncExitStack() as stack,
        sender.client(hub.url) as client,
        receiver.client(hub.url, retry_seconds=0) as reader,
    ):
        for _ in range(3 * PAGES_IN_HAND):
            connection = await _deaf_connection(hub.url)
            stack.push_async_callback(connection.close)
            await connection.send(request("GET", "/v1/mailbox?limit=1000", deaf.headers))
        await until(lambda: pages[deaf.id] == PAGES_IN_HAND, "as many pages as may be were read")
        for _ in range(10):
            await client.submit(seal(sender.document(LUC_YEN), sender.signer))
            (entry,), _ = await reader.read(wait=30)
            assert await reader.acknowledge(entry) == 1
        assert pages[deaf.id] == PAGES_IN_HAND, "the others wait for these to be taken"
    async with deaf.client(hub.url) as hearing:
        assert len(await whole_mailbox(hearing)) == 40, "whoever reads gets it all"


@pytest.mark.usefixtures("narrow")
async def test_a_connection_on_which_nothing_is_taken_is_cut(start_hub: StartHub) -> None:
    hub = await start_hub(request_seconds=0.5)
    sender, deaf = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    await _fill(hub, sender, VAN_YEN)
    connections = [await _deaf_connection(hub.url) for _ in range(2 * PAGES_IN_HAND)]
    for connection in connections:
        await connection.send(request("GET", "/v1/mailbox?limit=1000", deaf.headers))
    for connection in connections:
        await until(lambda port=connection.local_port: not served_here(port), "it is cut off")
        await connection.close()
    async with deaf.client(hub.url) as hearing:
        assert len(await whole_mailbox(hearing)) == 40


async def test_a_mailbox_that_nobody_reads_holds_up_no_other(hub: RunningHub) -> None:
    sender = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)  # never comes
    receiver = await hub.register("luc-yen", LUC_YEN)
    messages = sign_messages(sender, 3 * MAX_BATCH, (VAN_YEN, LUC_YEN))
    async with sender.client(hub.url) as client, receiver.client(hub.url) as reader:
        for start in range(0, len(messages), MAX_BATCH):
            await client.submit_many([message.raw for message in messages[start : start + MAX_BATCH]])
            entries, cursor = await reader.read(1000)
            assert len(entries) == MAX_BATCH
            assert await reader.acknowledge(up_to=cursor) == MAX_BATCH
    waiting = await hub.connection.fetch(
        """select e.name, count(i.seq) as count from endpoint e join mailbox b on b.endpoint = e.id
           left join inbox i on i.endpoint = b.endpoint and i.lane = b.lane and i.seq > b.floor
           group by e.name order by e.name"""
    )
    assert [tuple(row) for row in waiting] == [("luc-yen", 0), ("ubnd-tinh", 0), ("van-yen", 3 * MAX_BATCH)]
