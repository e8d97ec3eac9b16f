"""Several processes, each held at the place where another comes between: nothing is lost, nothing done twice.

The interleaving is forced: somebody waits for a lock, or at an event, until the other has done its part.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from hub.app import Hub
from hub.config import make
from hub.directory.change import changing
from hub.evidence import keys
from hub.evidence.integrate import Integrator
from hub.evidence.keys import load_hub_key, make_hub_key, prepare_keys
from hub.evidence.log import Log
from hub.listener import listen
from hub.pdf import queue
from hub.pdf.pool import Pool, TrustData
from hub.pdf.result import PdfResult, Policy
from hub.relay.repeats import Repeats
from hub.retention import Retention, month_after
from hub.store import sql
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs, Incoming
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import create_pool
from protocol.signature import PrivateKey, generate
from tests.adversity.test_log import check_log
from tests.conftest import RunningHub
from tests.integration.test_retention import months_ago
from tests.support import native_linked, pdf_scene
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis
from tests.support.command import Lienthong
from tests.support.native_linked import Levels
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.pdf_scene import document, recorded, settle, upload
from tests.support.until import until

TRUST = sql.load("trust")
RETENTION = sql.load("retention")
axis = pdf_scene.axis
hub_maker, unlinked, levels = native_linked.hub_maker, native_linked.unlinked, native_linked.levels

FORM = "Phụ lục: mẫu phiếu trình".encode()
HOURS = timedelta(hours=3)
NEW_LOG = "tỉnh-yên-bái/log-2"


async def _bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _age(path: Path) -> None:
    at = (datetime.now(UTC) - HOURS).timestamp()
    os.utime(path, (at, at))


async def _condemned(blobs: Blobs, connection: asyncpg.Connection) -> Path:
    """A blob that nothing names, condemned long enough ago to be deleted now."""
    path = (await blobs.receive(_bytes(FORM), 1000)).keep()
    _age(path)
    await connection.execute(
        "insert into blob_garbage values ($1, now() - $2::interval)", sha256(FORM).digest(), HOURS
    )
    return path


# -- blobs ----------------------------------------------------------------------------------------


async def test_an_attachment_that_comes_again_while_old_ones_are_deleted_is_kept(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    """Its bytes are on disk, the store does not know yet, and just then whoever deletes comes by."""
    blobs = Blobs(tmp_path / "blobs")
    path = await _condemned(blobs, connection)
    pool = await create_pool(database_url, 1, "test")
    waiting = "select exists (select 1 from pg_locks where relation = 'attachment'::regclass and not granted)"
    async with asyncio.TaskGroup() as group, connection.transaction():
        await connection.execute("lock table attachment in share mode")
        attachments = Attachments(pool, blobs)
        storing = group.create_task(attachments.store(sha256(FORM).digest(), 1, _bytes(FORM), 1000))
        await until(lambda: connection.fetchval(waiting), "the bytes are on disk, their row waits")
        await Retention(database_url, blobs, 1).run()
    assert storing.result() == (True, len(FORM))
    assert path.read_bytes() == FORM
    assert await connection.fetchval("select count(*) from blob_garbage") == 1, "it is looked at again"
    await Retention(database_url, blobs, 1).run()
    assert await connection.fetchval("select count(*) from blob_garbage") == 0
    assert path.read_bytes() == FORM
    await pool.close()


async def test_an_attachment_that_another_uploads_while_old_ones_leave_stays(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    """Whoever lets old ones leave began before it was uploaded, and comes to it afterwards."""
    blobs, first, form = Blobs(tmp_path / "blobs"), bytes(32), sha256(FORM).digest()
    for old in (first, form):
        await connection.execute("insert into attachment values ($1, 5, 1, now() - interval '1 year')", old)
        await connection.execute("insert into attachment_owner values ($1, 1)", old)
    pool = await create_pool(database_url, 2, "test", hot=True)  # so that they leave in their order
    waiting = "select exists (select 1 from pg_locks where locktype = 'transactionid' and not granted)"
    async with asyncio.TaskGroup() as group, connection.transaction():
        await connection.execute("select 1 from attachment where sha256 = $1 for update", first)
        group.create_task(pool.execute(RETENTION.condemn_attachments, datetime.now(UTC) - HOURS))
        await until(lambda: connection.fetchval(waiting), "it waits at the first")
        assert await Attachments(pool, blobs).store(form, 2, _bytes(FORM), 1000) == (True, len(FORM))
    rows = await connection.fetch("select sha256 from attachment")
    assert [row["sha256"] for row in rows] == [form]
    rows = await connection.fetch("select sha256, endpoint from attachment_owner order by endpoint")
    assert [tuple(row) for row in rows] == [(form, 1), (form, 2)]
    await pool.close()


async def test_a_blob_that_is_kept_in_the_moment_of_its_deletion_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path)
    path = (await blobs.receive(_bytes(FORM), 1000)).keep()
    _age(path)
    again: list[Incoming] = [await blobs.receive(_bytes(FORM), 1000)]
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if self == path and again:  # its age was looked at
            again.pop().keep()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    before = (datetime.now(UTC) - timedelta(hours=1)).timestamp()
    assert not blobs.discard(sha256(FORM).digest(), before)
    assert not again and path.read_bytes() == FORM
    _age(path)
    assert blobs.discard(sha256(FORM).digest(), before) and not path.exists()
    assert blobs.discard(sha256(FORM).digest(), before), "what is gone is gone"


async def test_whoever_is_killed_while_blobs_are_deleted_leaves_the_rest_to_others(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path / "blobs")
    path = await _condemned(blobs, connection)
    with monkeypatch.context() as patched:

        def killed(self: Blobs, sha256: bytes, older_than: float) -> bool:
            raise KeyError("killed here")

        patched.setattr(Blobs, "discard", killed)
        with pytest.raises(KeyError):
            await Retention(database_url, blobs, 1).run()
    await Retention(database_url, blobs, 1).run()
    assert not path.exists()
    assert await connection.fetchval("select count(*) from blob_garbage") == 0


async def test_a_table_that_was_detached_and_not_dropped_is_dropped_later(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    """The last of a month's tables: nothing of that month is attached any more."""
    month = months_ago(3)
    assert month_after(month) < datetime.now(UTC)
    await connection.execute(f"create table batch_{month} (like batch including all)")
    assert await Retention(database_url, Blobs(tmp_path), 2).run() == [month]
    assert await connection.fetchval("select to_regclass($1)", f"batch_{month}") is None


# -- a new hub ------------------------------------------------------------------------------------


def test_a_key_that_another_process_has_made_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub-key.pem"
    made: list[PrivateKey] = []

    def slow(algorithm: str) -> PrivateKey:
        own = generate(algorithm)
        if not made:
            made.append(own)
            assert make_hub_key(file)  # by the other
            made.append(load_hub_key(file))
        return own

    monkeypatch.setattr(keys, "generate", slow)
    # The two are one process here, and would share the name that begins with the process's number.
    monkeypatch.setattr(os, "getpid", iter(range(10, 20)).__next__)
    assert not make_hub_key(file)
    assert load_hub_key(file).public_key() == made[1].public_key()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


async def test_of_two_that_start_a_new_cluster_one_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lienthong-test-"))
    one, two = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    begun, go_on, count, asking = threading.Event(), threading.Event(), [], []
    initialise, flock = EmbeddedPostgres._initialise, fcntl.flock

    def slow(self: EmbeddedPostgres) -> None:
        count.append(self)
        begun.set()
        assert go_on.wait(60)
        initialise(self)

    def noted(descriptor: object, operation: int) -> None:
        asking.append(descriptor)
        flock(descriptor, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedPostgres, "_initialise", slow)
    monkeypatch.setattr(fcntl, "flock", noted)

    try:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asyncio.to_thread(one.start))
            await until(begun.is_set, "the first makes the cluster")
            second = group.create_task(asyncio.to_thread(two.start))
            try:
                await until(lambda: len(asking) == 2, "the second asks whether it may")
            finally:
                go_on.set()
        assert first.result() == second.result()
        assert count == [one]
    finally:
        for cluster in (one, two):  # whoever of the two started it
            await asyncio.to_thread(cluster.stop)
        shutil.rmtree(folder)


# -- the log, the catalogue, the directory --------------------------------------------------------


async def test_what_another_node_sealed_is_believed_beyond_a_link(levels: Levels, tmp_path: Path) -> None:
    """A node with a key of its own begins while the link's courier works in another."""
    first = levels.province.hub
    config = make(
        database_url=first.config.database_url, port=0, data_dir=str(tmp_path / "hai"), name=first.config.hub_name
    )
    prepare_keys(config)
    second = Hub(config, config.database_url)
    await second.start()
    try:
        listener = listen("127.0.0.1", 0)
        second.serve(listener, None)
        message = await levels.send(levels.office, DAI_SON)
        (entry,) = await levels.mail(levels.commune)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with levels.commune.client(url) as client:
            await client.refuse(entry, "Không thuộc thẩm quyền")
        (told,) = await levels.mail(levels.office)
        event = orjson.loads(told.receipt.event)
        assert (event["event"], event["message"]) == ("refused", message)
        assert first.hops.own_keys == second.hops.own_keys and len(first.hops.own_keys) == 2
    finally:
        await second.stop()


class _SlowKey:
    """A log's key that signs when it is told to."""

    def __init__(self, key: keys.LogKey) -> None:
        self._key = key
        self.asked, self.go_on = threading.Event(), threading.Event()

    def public_key(self) -> Any:
        return self._key.public_key()

    def sign(self, data: bytes, /) -> bytes:
        self.asked.set()
        assert self.go_on.wait(60)
        return self._key.sign(data)


async def test_another_log_begins_when_the_turn_under_way_has_ended(hub: RunningHub, tmp_path: Path) -> None:
    """A node was started after its operator was asked whether all are stopped."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    await hub.hub.integrator.stop()
    await hub.hub.integrator.integrate()
    async with province.client(hub.url) as client:
        await client.send(province.document(VAN_YEN))
    await hub.hub.reporter.stop()
    await hub.connection.execute("delete from worker")
    (identity,) = await Log(hub.hub.pool).identities()
    key = load_hub_key(hub.hub.config.hub_key_file)
    slow = _SlowKey(key)  # type: ignore[arg-type]
    node = Integrator(hub.hub.pool, identity, slow)
    url = hub.hub.config.database_url
    waiting = """select exists (select 1 from pg_locks where locktype = 'advisory' and objid = 7020 and not granted
                 and database = (select oid from pg_database where datname = current_database()))"""
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(node.integrate())
        try:
            await until(slow.asked.is_set, "the node signs a checkpoint of the old log")
            begin = group.create_task(
                asyncio.to_thread(Lienthong(tmp_path), "log", "begin", NEW_LOG, "--yes", "--database-url", url)
            )
            await until(lambda: hub.connection.fetchval(waiting), "whoever begins another waits")
        finally:
            slow.go_on.set()
    assert turn.result() == 1 and "has ended" in begin.result()
    identity = (await Log(hub.hub.pool).identities())[0]
    assert identity.origin == NEW_LOG
    after = Integrator(hub.hub.pool, identity, key)  # type: ignore[arg-type]
    assert await after.integrate() == 1
    assert await check_log(hub.connection) == 1


async def test_a_catalogue_that_is_interrupted_marks_what_it_wrote_down(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repeats, "has_time", lambda self: False)
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    await hub.hub.chores.stop()
    async with province.client(hub.url) as client:
        for _ in range(2):
            await client.send(province.document(VAN_YEN, code="215/BC-UBND"))
    connection, lag = hub.connection, timedelta(seconds=-5)
    await connection.execute("alter table repeated rename to gone")
    with pytest.raises(asyncpg.UndefinedTableError):
        await hub.hub.catalogue.go_on(60.0, lag)
    await connection.execute("alter table gone rename to repeated")
    await hub.hub.catalogue.go_on(60.0, lag)
    assert await connection.fetchval("select count(*) from repeated") == 1


async def test_what_was_learned_before_a_revocation_does_not_undo_it(connection: asyncpg.Connection) -> None:
    """A process that lost its lock while it asked writes down last what it heard first."""
    now, certificate = datetime.now(UTC), b"c" * 32

    async def put(status: str, reason: str, minutes: int) -> str:
        at = now + timedelta(minutes=minutes)
        async with changing(connection) as revision:
            await connection.execute(
                TRUST.put_revocation, certificate, status, reason, None, b"a" * 32, at, at + HOURS, revision
            )
        return str(await connection.fetchval("select status from revocation where certificate = $1", certificate))

    assert await put("good", "", 0) == "good"
    assert await put("revoked", "key_compromise", 2) == "revoked"
    assert await put("good", "", 1) == "revoked"
    assert await put("good", "", 3) == "revoked", "a revocation is not taken back"
    assert await put("revoked", "certificate_hold", 4) == "revoked"
    assert await put("good", "", 3) == "revoked"
    assert await put("good", "", 5) == "good", "but for a certificate on hold"


# -- PDFs -----------------------------------------------------------------------------------------


async def test_pdfs_to_be_checked_again_are_although_a_check_is_under_way(
    axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator asks when the first of two has been recorded and the second is looked at."""
    await settle(axis, Policy.RECORD)
    held, go_on, check = asyncio.Event(), asyncio.Event(), Pool.check
    seen = []

    async def slow(self: Pool, descriptor: int, data: TrustData) -> PdfResult:
        seen.append(descriptor)
        if len(seen) == 2:
            held.set()
            await go_on.wait()
        return await check(self, descriptor, data)

    monkeypatch.setattr(Pool, "check", slow)
    one, two = (signed.sign(signed.paper(f"Báo cáo {number}"), signed.seal()) for number in (1, 2))
    attachments = await upload(axis, ("Một.pdf", one), ("Hai.pdf", two))
    async with axis.province.party.client(axis.hub.url) as client:
        message = (await client.send(document(axis, attachments))).id
    await held.wait()
    assert str(await axis.hub.connection.fetchval(queue.SQL.add, message)) == message
    go_on.set()
    found = await recorded(axis, message, 3)
    names = sorted(event["attachment"]["name"] for event in found)
    assert names == ["Hai.pdf", "Một.pdf", "Một.pdf"]
