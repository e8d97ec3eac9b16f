"""The log, proofs and audits while something else happens between two of their steps; and what is left later.

The interleaving is forced: one is held at an event until the other has done its part.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import orjson
import pytest

from hub.cli import audit as command
from hub.cli import audit_files
from hub.evidence.entries import StoredEvents
from hub.evidence.history import History
from hub.evidence.integrate import Integrator
from hub.evidence.keys import load_hub_key, make_hub_key
from hub.evidence.log import Log
from hub.retention import month_after
from hub.store import sql
from hub.store.pool import create_pool
from protocol.audit import read_state
from protocol.client.audit import Audit, Report
from protocol.log import open_checkpoint
from protocol.log import read_proof as read_log_proof
from protocol.note import Verifier, read_verifier
from protocol.proof import read_proof
from protocol.proof_trust import read_trust
from protocol.proof_verify import verify_proof, verify_single
from protocol.signature import parse
from tests.conftest import RunningHub
from tests.integration import test_retention
from tests.integration.test_retention import OLD, Archive, months_ago
from tests.support import audited
from tests.support.audited import Audited
from tests.support.command import Lienthong
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

LOG = sql.load("log")
archive = test_retention.archive
scene = audited.scene
make_audited = audited.make_audited
NEW_LOG = "tỉnh-yên-bái/log-2"


async def _signer(connection: asyncpg.Connection) -> Verifier:
    return read_verifier(await connection.fetchval(LOG.signer))


async def _stop(hub: RunningHub) -> Lienthong:
    """A hub that its operator has stopped, as far as the command can see."""
    await hub.hub.integrator.stop()
    while await hub.hub.integrator.integrate():
        pass
    await hub.hub.reporter.stop()
    await hub.connection.execute("delete from worker")
    return Lienthong(Path(hub.hub.config.data_dir))


# -- the log's key and name -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("use-key",), ("begin", NEW_LOG)])
async def test_what_the_log_is_signed_as_from_now_on_counts_though_the_clock_went_back(
    hub: RunningHub, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """The former key is from tomorrow, by today's clock: it would go on signing, for a thief or for two trees."""
    operator = await _stop(hub)
    await hub.connection.execute("update log_identity set since = now() + interval '1 day'")
    before = await _signer(hub.connection)
    folder = tmp_path / "mới"
    folder.mkdir()
    if words[0] == "use-key":
        make_hub_key(folder / "hub-key.pem")
    address = ("--database-url", hub.hub.config.database_url, "--data-dir", folder, "--yes")
    await asyncio.to_thread(operator, "log", *words, *address)
    now = await _signer(hub.connection)
    assert str(now) != str(before)
    if words[0] == "use-key":
        key = load_hub_key(folder / "hub-key.pem")
        assert now.public == key.public_key().public_bytes_raw()  # type: ignore[union-attr]
    else:
        assert now.name == NEW_LOG
    assert (await Log(hub.hub.pool).identities())[0].verifier.id == now.id


async def test_of_a_new_log_no_witness_has_signed_anything(hub: RunningHub, tmp_path: Path) -> None:
    """What one signed of the former would pass for a checkpoint of the same size, and hide that it is silent."""
    operator = await _stop(hub)
    await hub.connection.execute(
        "insert into witness (name, vkey, size, at, refused) values ('thanh-tra', 'v', 10, now(), 'log khác')"
    )
    (lag,) = await hub.connection.fetch(sql.load("witness").states, ["thanh-tra"])
    assert lag["size"] == 10
    address = ("--database-url", hub.hub.config.database_url, "--data-dir", tmp_path, "--yes")
    await asyncio.to_thread(operator, "log", "begin", NEW_LOG, *address)
    assert await hub.connection.fetchval(sql.load("witness").begin, "thanh-tra", "v") is None
    (state,) = await hub.connection.fetch(sql.load("witness").states, ["thanh-tra"])
    assert (state["size"], state["at"], state["refused"]) == (None, None, None)


class _SlowKey:
    """A log's key that signs when it is told to."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.asked, self.go_on = threading.Event(), threading.Event()

    def public_key(self) -> Any:
        return self._key.public_key()

    def sign(self, data: bytes, /) -> bytes:
        self.asked.set()
        assert self.go_on.wait(60)
        return bytes(self._key.sign(data))


async def test_a_key_that_was_replaced_signs_nothing_after_the_command_has_ended(
    hub: RunningHub, tmp_path: Path
) -> None:
    """A turn is under way with the former key: the command waits for its end, so that it can say when that was."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    operator = await _stop(hub)
    async with province.client(hub.url) as client:
        await client.send(province.document(VAN_YEN))
    (identity, *_) = await Log(hub.hub.pool).identities()
    slow = _SlowKey(load_hub_key(hub.hub.config.hub_key_file))
    node = Integrator(hub.hub.pool, identity, slow)
    folder = tmp_path / "mới"
    folder.mkdir()
    make_hub_key(folder / "hub-key.pem")
    address = ("--database-url", hub.hub.config.database_url, "--data-dir", folder, "--yes")
    waiting = """select exists (select 1 from pg_locks where locktype = 'advisory' and objid = 7020 and not granted
                 and database = (select oid from pg_database where datname = current_database()))"""
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(node.integrate())
        try:
            await until(slow.asked.is_set, "the former key is asked to sign")
            replaced = group.create_task(asyncio.to_thread(operator, "log", "use-key", *address))

            await until(lambda: hub.connection.fetchval(waiting), "the command waits")
            assert not replaced.done()
        finally:
            slow.go_on.set()
    assert turn.result() == 1 and "is signed from now on" in replaced.result()
    assert await node.integrate() == 0 and not node.ours


async def test_a_log_in_which_nothing_happens_is_signed_with_its_new_key(hub: RunningHub, tmp_path: Path) -> None:
    """An auditor who is told that the new key alone counts would be alarmed all night, until the next event."""
    operator = await _stop(hub)
    (before,) = await hub.connection.fetch("select * from checkpoint")
    make_hub_key(tmp_path / "hub-key.pem")
    address = ("--database-url", hub.hub.config.database_url, "--data-dir", tmp_path, "--yes")
    await asyncio.to_thread(operator, "log", "use-key", *address)
    (identity, *_) = await Log(hub.hub.pool).identities()
    node = Integrator(hub.hub.pool, identity, load_hub_key(tmp_path / "hub-key.pem"))  # type: ignore[arg-type]
    assert await node.integrate() == 0
    (after,) = await hub.connection.fetch("select * from checkpoint")
    assert open_checkpoint(after["note"], identity.verifier)[0].root == before["root"]
    assert (after["size"], after["root"], after["at"]) == (before["size"], before["root"], before["at"])
    assert await node.integrate() == 0
    assert await hub.connection.fetch("select * from checkpoint") == [after]


# -- proofs ---------------------------------------------------------------------------------------


async def test_a_checkpoint_comes_with_its_witnesses_though_it_is_pruned_meanwhile(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """Two of one minute, a year old, are chosen among for a proof, and just then all but the last are pruned."""
    hour = datetime(2025, 3, 1, 8, tzinfo=UTC)
    for size in (1, 2):
        await connection.execute("insert into checkpoint values ($1, $2, '', 'ghi chú\n\n')", size, hour)
        await connection.execute(
            "insert into checkpoint_signature values ($1, 'thanh-tra', '— thanh-tra A\n', $2)", size, hour
        )
    pool = await create_pool(database_url, 1, "test")
    chosen = await pool.fetchrow(sql.load("proof").checkpoint, 1, 1000)
    assert chosen is not None and chosen["size"] == 1
    await pool.execute(LOG.prune)
    assert await connection.fetchval("select count(*) from checkpoint where size = 1") == 0
    assert Log(pool).signed(chosen) == "ghi chú\n\n— thanh-tra A\n"
    newest = await pool.fetchrow(LOG.newest)
    assert newest is not None and Log(pool).signed(newest).count("thanh-tra") == 1
    await pool.close()


async def test_no_proof_is_made_of_a_message_whose_month_leaves_meanwhile(
    hub: RunningHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proof without the acknowledgement that was there would say, under the hub's key, that there was none."""
    province, district = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender, district.client(hub.url) as receiver:
        sent = await sender.send(province.document(VAN_YEN))
        (entry,), _ = await receiver.read()
        await receiver.acknowledge(entry)
    timeline = History.timeline

    async def late(self: History, row: asyncpg.Record, **options: Any) -> Any:
        # In the order in which tables leave (retention.sql, `partitions`): the message was found before.
        await hub.connection.execute("delete from message where id = $1", row["id"])
        await hub.connection.execute("delete from progress")
        return await timeline(self, row, **options)

    monkeypatch.setattr(History, "timeline", late)
    address = f"{hub.url}/v1/messages/{sent.id}/proof"
    async with http.get(address, headers=province.headers) as response:
        assert response.status == 404, await response.text()
        assert (await response.json())["code"] == "not-found"


async def test_of_a_month_the_messages_leave_first(archive: Archive) -> None:
    """Who finds a message finds all that became of it, also while a month leaves or after that was interrupted."""
    rows = await archive.connection.fetch(sql.load("retention").partitions, OLD)
    assert rows[0]["parent"] == "message" and len(rows) == 8


# -- auditors -------------------------------------------------------------------------------------


async def _batch(connection: asyncpg.Connection, at: datetime, first: int) -> None:
    """A batch of one submission, in the log."""
    id_ = await connection.fetchval("select uuid_floor($1)", at)
    await connection.execute("insert into batch values ($1, $2, 1, $3, '')", id_, at, bytes(32))
    await connection.execute("delete from log_pending where batch = $1", id_)
    await connection.execute("insert into log_batch values ($1, $2)", id_, first)


async def test_an_auditor_is_not_told_that_an_event_was_deleted_while_its_month_leaves(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """Its message is gone and its batch is not yet; or the two are of different months, and the first has left."""
    month, parents = months_ago(1), ("message", "rejection", "batch")
    end = month_after(month)
    for place, at in enumerate((end - timedelta(days=3), end + timedelta(seconds=1), end + timedelta(days=3))):
        await _batch(connection, at, place)
    await connection.execute("insert into checkpoint values (3, now(), '', '')")
    pool = await create_pool(database_url, 1, "test")

    async def states() -> list[str]:
        found = [await StoredEvents(pool).at(index) for index in range(3)]
        return [one.state for one in found if one is not None]

    assert await states() == ["missing"] * 3, "the months are there, and the messages are not"
    for parent in parents:
        await connection.execute(f"alter table {parent} detach partition {parent}_{month}")
        assert await states() == ["dropped", "dropped", "missing"], parent
    await pool.close()


async def test_of_two_audits_with_one_state_neither_forgets_what_the_other_saw(
    scene: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is slow: what it writes down at its end would be older than what the other knows by then."""
    state = scene.folder / "state.json"
    wishes = command._wishes(
        {
            "url": scene.url,
            "log_key": scene.vkey,
            "state_file": state,
            "evidence": scene.folder / "bằng chứng",
            "token": None,
            "token_file": None,
            "witnesses": (),
            "seen": (),
            "full": False,
            "receipts": None,
            "hub_keys": (),
            "ca": None,
            "events": 0,
            "at_most": 60.0,
        }
    )
    seen, go_on, waits = asyncio.Event(), asyncio.Event(), asyncio.Event()
    run, taken = Audit.run, audit_files._taken

    async def slow(self: Audit) -> Report:
        report = await run(self)
        if not seen.is_set():
            seen.set()
            await go_on.wait()
        return report

    def noted(lock: Any) -> bool:
        free = taken(lock)
        if not free:
            waits.set()
        return free

    monkeypatch.setattr(Audit, "run", slow)
    monkeypatch.setattr(audit_files, "_taken", noted)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(command._once(wishes))
        await seen.wait()
        await scene.send(3)
        await scene.log(8)
        second = group.create_task(command._once(wishes))
        await until(lambda: second.done() or waits.is_set(), "the second waits for the first")
        go_on.set()
    assert (first.result().status, second.result().status) == (0, 0)
    last = read_state(state.read_bytes()).logs[scene.origin].last()
    assert last is not None and last.size == 8


# -- years later ----------------------------------------------------------------------------------


async def test_proofs_and_receipts_outlive_the_month_that_they_are_of(
    hub: RunningHub, http: aiohttp.ClientSession, connection: asyncpg.Connection
) -> None:
    """All that retention lets go of is gone, checkpoints are thinned out, and the log has gone on."""
    province, district = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    await hub.hub.integrator.stop()
    async with province.client(hub.url) as sender, district.client(hub.url) as receiver:
        raw = sender.sign(province.document(VAN_YEN))
        sent = await sender.submit(raw)
        (entry,), _ = await receiver.read()
        await receiver.acknowledge(entry)
        while await hub.hub.integrator.integrate():
            pass
        address = f"{hub.url}/v1/messages/{sent.id}/proof"
        async with http.get(address, headers=province.headers) as response:
            kept = await response.read()
        assert read_proof(kept).events[-1].logged is not None
        async with http.get(f"{hub.url}/v1/hub/trust") as response:
            trust = read_trust(await response.read())
        for table in await connection.fetchval("select monthly_tables()"):
            await connection.execute(f"truncate {table}")
        await connection.execute("update checkpoint set at = at - interval '9 years'")
        for _ in range(3):
            await sender.send(province.document(VAN_YEN))
            assert await hub.hub.integrator.integrate() == 1
            await connection.execute(
                "update checkpoint set at = at - interval '1 year' where at > now() - '1d'::interval"
            )
    await connection.execute(LOG.prune)
    later = datetime.now(UTC) + timedelta(days=3650)
    verdict = verify_proof(kept, raw, trust, later)
    assert verdict.verified, verdict.lines("en")
    assert "log_recorded" in [one.code for one in verdict.findings]
    batch = UUID(orjson.loads(parse(sent.receipt.seal.encode()).payload)["batch"])
    async with http.get(f"{hub.url}/log/proof/{batch}/{sent.receipt.index}") as response:
        logged = read_log_proof(await response.text())
    verdict = verify_single(sent.receipt, raw, trust, later, logged)
    assert verdict.verified, verdict.lines("en")
    async with http.get(address, headers=province.headers) as response:
        assert response.status == 404
    found = await StoredEvents(hub.hub.pool).at(logged.index)
    assert found is not None and found.state == "missing", "this test took rows; retention takes months"
