"""Concurrent committers, concurrent readers: nothing is skipped, nothing repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg

from hub.relay.batch import Batch, Submission, Ticket, digest_of
from hub.relay.format import Format
from hub.relay.route import Route
from hub.store import sql
from protocol.client import HubClient
from protocol.evidence import Sealer
from protocol.message import Lane, seal
from protocol.signature import Signer, generate
from tests.conftest import RunningHub
from tests.support.load import Ledger, Reader, check_ended, sign_messages, whole_mailbox
from tests.support.node import Node
from tests.support.parties import DAI_SON, LUC_YEN, VAN_YEN, Party, register
from tests.support.until import until

SQL = sql.load("relay")
DEPARTMENTS = ("000.01.00.H63", "000.02.00.H63", "000.03.00.H63", "000.04.00.H63")
SINGLES, BATCHED, BATCH = 60, 90, 15


async def test_readers_miss_nothing_while_two_processes_commit(
    start_node: Callable[..., Awaitable[Node]],
) -> None:
    node = await start_node("--workers", "2")
    async with node.database() as connection:
        senders = [
            await register(connection, f"sở-{number}", code) for number, code in enumerate(DEPARTMENTS, start=1)
        ]
        receivers = {
            "pages": await register(connection, "van-yen", VAN_YEN),
            "entries": await register(connection, "luc-yen", LUC_YEN),
            "nothing": await register(connection, "dai-son", DAI_SON),
        }
    await node.knows(receivers["nothing"])
    to = (VAN_YEN, LUC_YEN, DAI_SON)
    loads = [sign_messages(sender, SINGLES + BATCHED, to) for sender in senders]
    ledger = Ledger(sum(map(len, loads)))
    readers = {how: Reader(how) for how in receivers}
    complete = asyncio.Event()
    async with AsyncExitStack() as stack:
        writing = [await stack.enter_async_context(sender.client(node.url)) for sender in senders]
        reading = {
            how: await stack.enter_async_context(receiver.client(node.url)) for how, receiver in receivers.items()
        }
        async with asyncio.TaskGroup() as following:
            for how, client in reading.items():
                following.create_task(readers[how].follow(client, complete))
            async with asyncio.TaskGroup() as submitting:
                for client, load in zip(writing, loads, strict=True):
                    submitting.create_task(ledger.submit_singles(client, load[:SINGLES]))
                    submitting.create_task(ledger.submit_batches(client, load[SINGLES:], BATCH))
            complete.set()
        await ledger.check_receipts(writing[0])
        for how, reader in readers.items():
            ledger.check_mailbox(reader.seen)
            assert reader.pages > 3, f"{how}: read too late to meet the committers"
        assert await whole_mailbox(reading["pages"]) == []
        assert await whole_mailbox(reading["entries"]) == []
        # Only the cursor moved there, so all of it is still there for whoever starts again.
        assert len(await whole_mailbox(reading["nothing"])) == ledger.expected
        some = [sent.id for sent in list(ledger.receipts.values())[::40]]
        await check_ended(reading["pages"], some, "van-yen")
        await check_ended(reading["entries"], some, "luc-yen")
        async with node.database() as connection:
            # A process opens its first commit connection with its first commit.
            committers = "select count(*) from pg_stat_activity where application_name = 'lienthong commit 0'"
            assert await connection.fetchval(committers) == 2, "only one of the processes committed"


# -- the guard, at the level of SQL -----------------------------------------------------------------


def _batch(sealer: Sealer, sender: Party, receiver: Party, id_: str) -> Batch:
    body = seal(sender.document(VAN_YEN, id=id_), sender.signer)
    submission = Submission(
        ticket=Ticket(1),
        endpoint=sender.id,
        endpoint_name=sender.name,
        sender_id=id_,
        sender=sender.agencies[0],
        format=Format.JWS,
        lane=Lane.NORMAL,
        digest=digest_of(body),
        size=len(body),
        body=body,
        route=Route({receiver.id: list(receiver.agencies)}),
    )
    return Batch([submission], sealer)


async def _waits_for_lock(connection: asyncpg.Connection, pid: int) -> bool:
    """Whether the backend `pid` waits for the advisory lock under which sequences are given out."""
    return bool(
        await connection.fetchval(
            "select true from pg_locks l join pg_stat_activity a using (pid)"
            " where pid = $1 and locktype = 'advisory' and objid = 7001 and not granted"
            " and wait_event_type = 'Lock' and wait_event = 'advisory'",
            pid,
        )
    )


async def _two_commits(hub: RunningHub) -> tuple[Party, Batch, Batch]:
    """A receiver, and two messages for it that are to be committed."""
    sender = await hub.register("so-noi-vu", DEPARTMENTS[0])
    receiver = await hub.register("van-yen", VAN_YEN)
    sealer = Sealer("lienthong", Signer(generate("EdDSA")))
    return receiver, _batch(sealer, sender, receiver, "trước"), _batch(sealer, sender, receiver, "sau")


async def _ids(client: HubClient, after: str = "0.0.0") -> tuple[list[str], str]:
    entries, cursor = await client.read(after=after)
    return [entry.sender_id for entry in entries], cursor


async def test_the_guard_makes_sequences_follow_commits(hub: RunningHub, database_url: str) -> None:
    receiver, early, late = await _two_commits(hub)
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        held = first.transaction()
        await held.start()
        await first.fetchval(SQL.commit_messages, *early.arguments({}, []))
        committing = asyncio.create_task(second.fetchval(SQL.commit_messages, *late.arguments({}, [])))
        pid = second.get_server_pid()
        await until(lambda: _waits_for_lock(hub.connection, pid), "the second commit waits for the first")
        async with receiver.client(hub.url) as client:
            assert await _ids(client) == ([], "0.0.0")
            await held.commit()
            await committing
            assert (await _ids(client))[0] == ["trước", "sau"]
        bases = await hub.connection.fetch("select seq_base from batch order by id")
        assert bases[0]["seq_base"] < bases[1]["seq_base"]
    finally:
        await first.close()
        await second.close()


async def test_without_the_guard_a_reader_would_skip(hub: RunningHub, database_url: str) -> None:
    """The same two commits through the same function less its lock: what the guard is there for."""
    receiver, early, late = await _two_commits(hub)
    guarded = await hub.connection.fetchval("select pg_get_functiondef('commit_messages'::regproc)")
    lock = "perform pg_advisory_xact_lock(7001);"
    assert guarded.count(lock) == 1
    await hub.connection.execute(guarded.replace(lock, "").replace("commit_messages", "commit_unguarded"))
    unguarded = SQL.commit_messages.replace("commit_messages", "commit_unguarded")
    first = await asyncpg.connect(database_url)
    try:
        held = first.transaction()
        await held.start()
        await first.fetchval(unguarded, *early.arguments({}, []))
        await hub.connection.fetchval(unguarded, *late.arguments({}, []))
        async with receiver.client(hub.url) as client:
            seen, cursor = await _ids(client)
            assert seen == ["sau"]
            await held.commit()
            assert (await _ids(client, cursor))[0] == [], "the earlier commit is behind the cursor"
            assert (await _ids(client))[0] == ["trước", "sau"]
    finally:
        await first.close()
