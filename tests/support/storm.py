"""A load from all sides on one node while something happens to it, and what must be true afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from tests.support.load import Ledger, Reader, check_ended, sign_messages, whole_mailbox
from tests.support.node import Node
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, register

SINGLES, BATCHED, BATCH = 120, 120, 12

Strike = Callable[[Node], Awaitable[None]]


async def weather(node: Node, strike: Strike) -> None:
    """Send, read and acknowledge through `strike`; then look for what was lost, doubled or undone.

    `strike` comes twice: when a sixth of the submissions has been answered, and when a third of the
    acknowledgements has. Acknowledging is the slower, so it goes on when submitting has ended.
    """
    async with node.database() as connection:
        senders = [
            await register(connection, "ubnd-tinh", PROVINCE),
            await register(connection, "luc-yen", LUC_YEN),
        ]
        receivers = {
            "pages": await register(connection, "van-yen", VAN_YEN),
            "entries": await register(connection, "dai-son", DAI_SON),
        }
    await node.knows(receivers["entries"])
    loads = [sign_messages(sender, SINGLES + BATCHED, (VAN_YEN, DAI_SON)) for sender in senders]
    ledger = Ledger(sum(map(len, loads)))
    readers = {how: Reader(how, limit=12) for how in receivers}
    complete = asyncio.Event()

    async def twice() -> None:
        await ledger.reached(ledger.expected // 6)
        assert len(ledger.receipts) < ledger.expected
        await strike(node)
        await readers["entries"].reached(ledger.expected // 3)
        assert len(readers["entries"].acknowledged) < ledger.expected
        await strike(node)

    async with AsyncExitStack() as stack:
        writing = [await stack.enter_async_context(sender.client(node.url)) for sender in senders]
        reading = {
            how: await stack.enter_async_context(receiver.client(node.url)) for how, receiver in receivers.items()
        }
        async with asyncio.TaskGroup() as following:
            for how, client in reading.items():
                following.create_task(readers[how].follow(client, complete))
            async with asyncio.TaskGroup() as submitting:
                submitting.create_task(twice())
                for client, load in zip(writing, loads, strict=True):
                    submitting.create_task(ledger.submit_singles(client, load[:SINGLES]))
                    submitting.create_task(ledger.submit_batches(client, load[SINGLES:], BATCH))
            complete.set()
        await ledger.check_receipts(writing[0])
        for how, reader in readers.items():
            ledger.check_mailbox(reader.seen)
            # Every acknowledgement was answered, and none was undone: nothing is handed out again.
            assert len(reader.acknowledged) == ledger.expected
            assert await whole_mailbox(reading[how]) == []
        some = [sent.id for sent in list(ledger.receipts.values())[::15]]
        await check_ended(reading["pages"], some, "van-yen")
        await check_ended(reading["entries"], some, "dai-son")
    async with node.database() as connection:
        stored = await connection.fetchval("select count(*) from message")
        delivered = await connection.fetchval("select count(*) from inbox")
        once = await connection.fetchval("select count(distinct (endpoint, message)) from inbox")
        assert (stored, delivered, once) == (ledger.expected, 2 * ledger.expected, 2 * ledger.expected)
