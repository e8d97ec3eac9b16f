"""The log while several processes write and are killed: each sealed event is in it once, in one order."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.evidence import integrate
from hub.evidence.integrate import Integrator
from protocol.audit import Remembered
from protocol.client.audit import Audit, Plan
from protocol.client.log import LogClient
from protocol.ids import uuid7
from protocol.log import log_leaf, root, split_hashes, subtree_root
from protocol.note import Ed25519Key, Verifier, read_note, read_verifier, verify_note
from tests.conftest import RunningHub
from tests.support.node import Node
from tests.support.storm import Strike, weather
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]


async def check_log(connection: asyncpg.Connection) -> int:
    """What must be true of the tables whenever nothing waits; the size of the log."""
    batches = {row["id"]: row["leaves"] for row in await connection.fetch("select id, leaves from batch")}
    places = await connection.fetch("select batch, first from log_batch order by first")
    assert len(places) == len(batches) and {row["batch"] for row in places} == batches.keys()
    logged = b""
    for place in places:
        assert place["first"] * 32 == len(logged), "batches follow each other without a gap"
        logged += batches[place["batch"]]
    rows = await connection.fetch("select hashes from log_tile where level = -1 order by place")
    assert b"".join(row["hashes"] for row in rows) == logged
    leaves = [log_leaf(entry) for entry in split_hashes(logged)]
    known: dict[tuple[int, int], bytes] = {}

    def node(level: int, index: int) -> bytes:
        if not level:
            return leaves[index]
        if (level, index) not in known:
            known[level, index] = subtree_root([node(level - 1, 2 * index), node(level - 1, 2 * index + 1)])
        return known[level, index]

    keys = [read_verifier(row["vkey"]) for row in await connection.fetch("select vkey from log_identity")]
    checkpoints = await connection.fetch("select size, root, note from checkpoint order by size")
    for checkpoint in checkpoints:
        assert checkpoint["root"] == root(checkpoint["size"], node), "every checkpoint is one of this very log"
        assert verify_note(read_note(checkpoint["note"]), keys)
    assert checkpoints[-1]["size"] == len(leaves)
    return len(leaves)


async def _workers(node: Node) -> None:
    node.kill_workers()


async def _workers_and_postgres(node: Node) -> None:
    node.kill_workers()
    node.kill_postgres()


@pytest.mark.parametrize("strike", [_workers, _workers_and_postgres])
async def test_through_kills_every_event_is_logged_once(start_node: StartNode, strike: Strike) -> None:
    node = await start_node("--workers", "3")
    await weather(node, strike)
    async with node.database() as connection:

        async def settled() -> int:
            async with connection.transaction(isolation="repeatable_read"):
                waits = await connection.fetchval("select exists (select 1 from log_pending)")
                return 0 if waits else await check_log(connection)

        size = await until(settled, "nothing waits for its place in the log")
        vkey = await connection.fetchval("select vkey from log_identity")
    assert size > 1000
    async with LogClient(node.url) as client:
        work = Audit(client, Remembered(read_verifier(vkey).name, vkey, node.url, False), Plan(full=True))
        report = await work.run()
    assert (report.status, report.findings) == (0, [])
    assert report.walked >= size


async def _seal(connection: asyncpg.Connection, leaves: int) -> None:
    """A batch as any process commits it; what its seal says does not matter here."""
    hashes = b"".join(hashlib.sha256(f"sự kiện {uuid7()} {leaf}".encode()).digest() for leaf in range(leaves))
    await connection.execute("insert into batch values ($1, now(), 0, $2, 'niêm phong')", uuid7(), hashes)


async def test_many_integrators_at_once_make_one_log(hub: RunningHub) -> None:
    await hub.hub.integrator.stop()
    first = hub.hub.integrator
    identity = await integrate.identify(hub.hub.pool, "không-dùng", first._key.public_key())
    assert identity.origin == first.origin, "the first name stays"
    others = [Integrator(hub.hub.pool, identity, first._key) for _ in range(3)]
    sealed = asyncio.Event()

    async def write() -> None:
        for number in range(120):
            await _seal(hub.connection, 1 + number * 7 % 400)
        sealed.set()

    async def follow(integrator: Integrator) -> int:
        taken = 0
        while not sealed.is_set() or await hub.hub.pool.fetchval("select exists (select 1 from log_pending)"):
            taken += await integrator.integrate()
        return taken

    results = await asyncio.gather(write(), *map(follow, others))
    assert sum(taken or 0 for taken in results) == 120
    assert await check_log(hub.connection) == sum(1 + number * 7 % 400 for number in range(120))


async def test_a_turn_that_is_cut_leaves_nothing_half(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend is ended while the checkpoint is being signed: nothing is there, and the next turn does it."""
    await hub.hub.integrator.stop()
    for _ in range(3):
        await _seal(hub.connection, 300)
    await hub.hub.integrator.integrate()
    assert await check_log(hub.connection) == 900
    await _seal(hub.connection, 5)
    before = await _everything(hub.connection)
    sign = integrate.signature_line
    loop = asyncio.get_running_loop()
    kill = (
        "select pg_terminate_backend(pid) from pg_locks"
        " where locktype = 'advisory' and objid = 7020 and granted and pid <> pg_backend_pid()"
    )

    def killed(name: str, key: Ed25519Key, text: str) -> str:
        assert asyncio.run_coroutine_threadsafe(hub.connection.fetchval(kill), loop).result(30)
        return sign(name, key, text)

    monkeypatch.setattr(integrate, "signature_line", killed)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await hub.hub.integrator.integrate()
    assert await _everything(hub.connection) == before
    monkeypatch.setattr(integrate, "signature_line", sign)
    assert await hub.hub.integrator.integrate() == 1
    assert await check_log(hub.connection) == 905


async def _everything(connection: asyncpg.Connection) -> list[object]:
    orders = {"log_tile": "1, 2", "checkpoint": "1", "log_batch": "1", "log_pending": "1"}
    return [await connection.fetch(f"select * from {table} order by {by}") for table, by in orders.items()]


async def test_a_name_is_given_once(hub: RunningHub) -> None:
    """Several processes of a new hub, all of which ask before one has named the log, agree on one name and key."""
    await hub.hub.integrator.stop()
    await hub.connection.execute("truncate log_identity")
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key() for number in range(4)]
    waiting = "select count(*) = 4 from pg_locks where locktype = 'advisory' and objid = 7021 and not granted"
    async with asyncio.TaskGroup() as group, hub.connection.transaction():
        await hub.connection.execute("select pg_advisory_xact_lock(7021)")
        asking = [
            group.create_task(integrate.identify(hub.hub.pool, f"tên-{n}", key)) for n, key in enumerate(keys)
        ]
        await until(lambda: hub.connection.fetchval(waiting), "all of them wait")
    found = [task.result() for task in asking]
    assert len({str(one.verifier) for one in found}) == 1
    assert str(found[0].verifier) in {str(Verifier(f"tên-{n}", key)) for n, key in enumerate(keys)}
