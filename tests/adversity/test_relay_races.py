"""The relay's core, each time held where something else comes between: a standby that is away, a clock that was
wrong, a process that stands still, a token that ends. Nothing is acknowledged that could be lost; nothing stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.config import make
from hub.couriers.mailbox import PAGES_IN_HAND
from hub.directory import change
from hub.evidence.record import Recorded
from hub.listener import share_counts
from hub.relay import acknowledge, commit
from hub.store import pool, reconnect
from hub.store.reconnect import Reconnecting
from hub.supervisor import Supervisor
from protocol import ids
from protocol.client import Problem
from protocol.evidence import EventKind
from protocol.message import seal
from tests.conftest import RunningHub, StartHub
from tests.support.load import whole_mailbox
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

WAITS = """select count(*) from pg_stat_activity
           where datname = current_database() and application_name = 'lienthong ' || $1 and wait_event = $2"""
WAITING = """select count(distinct pid) = 2 from pg_locks
             where relation = 'event'::regclass and not granted"""


# -- a synchronous standby ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _standby_away(connection: asyncpg.Connection, database_url: str) -> AsyncIterator[None]:
    """Whatever is committed in the block waits for a standby that is not there; `connection` does not."""
    await connection.execute("set synchronous_commit = local")
    await connection.execute("alter system set synchronous_standby_names = 'dự_phòng'")
    try:
        await connection.execute("select pg_reload_conf()")
        probe = await asyncpg.connect(database_url, server_settings={"application_name": "lienthong probe"})
        try:
            async with asyncio.TaskGroup() as group:

                async def write() -> None:
                    while True:  # until the server has read its settings
                        await probe.execute("insert into watermark values ('probe', now()) on conflict do nothing")
                        await probe.execute("delete from watermark where name = 'probe'")

                writing = group.create_task(write())
                await until(lambda: connection.fetchval(WAITS, "probe", "SyncRep"), "commits wait for the standby")
                writing.cancel()
        finally:
            probe.terminate()
        yield
    finally:
        await connection.execute("alter system reset synchronous_standby_names")
        await connection.execute("select pg_reload_conf()")


async def test_what_no_standby_has_is_not_acknowledged(
    start_hub: StartHub, connection: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement cancelled while it waits for the standby is committed here, and lost with this machine."""
    monkeypatch.setattr(reconnect, "COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(commit, "RETRY_SECONDS", 2.5)
    monkeypatch.setattr(acknowledge, "CONNECT_SECONDS", 1.0)
    monkeypatch.setitem(pool._HOT_SETTINGS, "lock_timeout", "700ms")
    hub = await start_hub()
    province = await hub.register("ubnd-tinh", PROVINCE)
    district = await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender, district.client(hub.url) as reader:
        before = await sender.send(province.document(VAN_YEN))
        ((first,), _) = await reader.read()
        message = seal(province.document(VAN_YEN, id="45/QĐ-UBND"), province.signer)
        async with _standby_away(connection, database_url):
            async with (
                province.client(hub.url, retry_seconds=0) as hasty,
                district.client(hub.url, retry_seconds=0) as impatient,
            ):
                for asked in (
                    lambda: hasty.submit(message),
                    lambda: hasty.submit(message),  # as one that was submitted before
                    lambda: impatient.acknowledge(first),
                    lambda: impatient.acknowledge(first),
                ):
                    with pytest.raises(Problem) as failed:
                        await asked()
                    assert (failed.value.code, failed.value.retryable) == ("store-unavailable", True)
            left = "select count(*) = 1 from pg_stat_activity where datname = current_database()"
            left += " and application_name like 'lienthong commit %' and wait_event_type is distinct from 'Client'"
            await until(lambda: connection.fetchval(left), "only the first attempt is left in the store")
            assert await connection.fetchval("select count(*) from submission") == 1, "nobody can see it"
            assert await connection.fetchval("select count(*) from progress") == 0
        sent = await sender.submit(message)
        await reader.acknowledge(first)
        (entry,) = await whole_mailbox(reader)
        assert entry.id == sent.id != before.id
        assert await connection.fetchval("select count(*) from progress") == 1


# -- processes and machines that stand still ------------------------------------------------------


async def test_a_machine_that_is_lost_in_a_transaction_does_not_stop_the_others(
    hub: RunningHub, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was telling a sender of a refusal: its transaction has the lock under which everybody commits."""
    settings = pool._HOT_SETTINGS
    assert settings["idle_in_transaction_session_timeout"] == "20s"
    monkeypatch.setitem(settings, "idle_in_transaction_session_timeout", "500ms")
    province = await hub.register("ubnd-tinh", PROVINCE)
    lost = Reconnecting(database_url, "acknowledge")
    standing = await lost.get()
    transaction = standing.transaction()
    await transaction.start()
    await standing.execute("select pg_advisory_xact_lock(7001)")
    async with province.client(hub.url) as client:
        sent = await client.send(province.document(PROVINCE))
        assert [entry.id for entry in await whole_mailbox(client)] == [sent.id]
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as ended:
        await transaction.commit()
    assert pool.is_away(ended.value)
    await lost.discard()


async def test_connections_of_a_machine_that_is_lost_are_noticed(database_url: str) -> None:
    """Without that they, and the locks that they hold, live for two hours (Linux's tcp_keepalive_time)."""
    found = await pool.connect(database_url, "probe")
    rows = await found.fetch("select name, source from pg_settings where name like 'tcp\\_keepalives\\_%'")
    await found.close()
    assert {row["name"]: row["source"] for row in rows} == dict.fromkeys(
        (f"tcp_keepalives_{what}" for what in ("idle", "interval", "count")), "client"
    )


async def test_a_commit_that_waits_for_a_lock_too_long_is_tried_again(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the wait before the hub leaves: no backend stays behind in line."""
    assert float(pool._HOT_SETTINGS["lock_timeout"].rstrip("s")) < reconnect.COMMAND_SECONDS
    monkeypatch.setitem(pool._HOT_SETTINGS, "lock_timeout", "200ms")
    province = await hub.register("ubnd-tinh", PROVINCE)
    ended: list[str] = []
    away = pool.is_away

    def noted(error: BaseException) -> bool:
        ended.append(getattr(error, "sqlstate", ""))
        return away(error)

    monkeypatch.setattr(commit, "is_away", noted)
    async with province.client(hub.url, retry_seconds=0) as client, asyncio.TaskGroup() as group:
        async with hub.connection.transaction():
            await hub.connection.execute("select pg_advisory_xact_lock(7001)")
            sending = group.create_task(client.send(province.document(PROVINCE)))
            await until(lambda: ended, "the wait was ended")
        sent = await sending
        assert set(ended) == {"55P03"} and not sent.duplicate


async def test_what_stood_in_line_for_too_long_is_sent_again_and_found_by_its_keys(
    start_hub: StartHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes documents down has passed their ids by now; what the hub had begun goes on."""
    held, other = await start_hub(), await start_hub()
    province = await held.register("ubnd-tinh", PROVINCE)
    await other.follow()
    for hub in (held, other):
        await hub.hub.chores.stop()
    committer, go_on, begun = held.hub.committer, asyncio.Event(), []
    original = committer._commit

    async def slow(*arguments: Any) -> Any:
        begun.append(arguments)
        await go_on.wait()
        return await original(*arguments)

    monkeypatch.setattr(committer, "_commit", slow)
    monkeypatch.setattr(commit, "STANDING_SECONDS", 0.2)
    async with province.client(held.url, retry_seconds=0) as client, province.client(other.url) as passing:
        async with asyncio.TaskGroup() as group:
            first = []
            for number in range(commit.FLUSHERS):
                first.append(group.create_task(client.send(province.document(PROVINCE))))
                await until(lambda number=number: len(begun) == number + 1, "a commit is under way")  # type: ignore[misc]
            document = seal(province.document(PROVINCE, id="47/QĐ-UBND"), province.signer)
            standing = asyncio.create_task(client.submit(document))
            await until(lambda: len(committer.batcher) == 1, "the next stands in line")
            since = time.time()
            await until(lambda: time.time() > since + 0.4, "it has stood there for too long")
            await passing.send(province.document(PROVINCE))
            await other.hub.catalogue.go_on(60.0, timedelta(0))
            go_on.set()
            with pytest.raises(Problem) as failed:
                await standing
            assert (failed.value.code, failed.value.retryable) == ("store-unavailable", True)
        assert not any(one.result().duplicate for one in first)
        sent = await client.submit(document)
        assert not sent.duplicate
        await other.hub.catalogue.go_on(60.0, timedelta(0))
        known = "select count(*) from catalogue where message = $1"
        assert await held.connection.fetchval(known, UUID(sent.id)) > 0
        assert len(await whole_mailbox(client)) == commit.FLUSHERS + 2


async def test_an_event_whose_commit_was_left_under_way_is_recorded_once(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is left and goes on in the store; the second meets it there."""
    monkeypatch.setattr(reconnect, "COMMAND_SECONDS", 1.0)
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with province.client(hub.url) as client:
        sent = await client.send(province.document(PROVINCE))
    event = Recorded(UUID(sent.id), EventKind.RELAYED, province.id)
    async with asyncio.TaskGroup() as group:
        async with hub.connection.transaction():
            await hub.connection.execute("lock table event in share mode")
            recording = group.create_task(hub.hub.recorder.record([event]))
            await until(lambda: hub.connection.fetchval(WAITING), "a second attempt waits beside the first")
        await recording
    assert await hub.connection.fetchval("select count(*) from event where message = $1", UUID(sent.id)) == 1


# -- clocks ---------------------------------------------------------------------------------------

YEAR = timedelta(days=400)
CLOCK = """create or replace function seq_floor(moment timestamptz) returns bigint language sql immutable as $$
               select (extract(epoch from moment + '%s'::interval) * 1000000)::bigint $$"""


async def test_a_clock_of_the_store_that_was_wrong_once_stops_nothing_for_good(hub: RunningHub) -> None:
    """Sequences count its microseconds and never go back; those of a year without tables cannot be written."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with province.client(hub.url, retry_seconds=0) as client:
        first = await client.send(province.document(PROVINCE))
        await hub.connection.execute(CLOCK % "400 days")
        document = seal(province.document(PROVINCE), province.signer)
        with pytest.raises(Problem) as failed:
            await client.submit(document)
        assert failed.value.code == "internal"
        await hub.connection.execute(CLOCK % "0 days")
        second = await client.submit(document)
        assert [entry.id for entry in await whole_mailbox(client)] == [first.id, second.id]


async def test_a_clock_of_the_hub_that_was_wrong_once_stops_nothing_for_good(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    ahead = YEAR.total_seconds()
    monkeypatch.setattr(ids, "_last", ids._last)
    monkeypatch.setattr(ids, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    document = seal(province.document(PROVINCE, id="46/QĐ-UBND"), province.signer)
    async with province.client(hub.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as failed:
            await client.submit(document)
        assert failed.value.code == "internal"
        ahead = 0.0
        sent = await client.submit(document)
        assert [entry.id for entry in await whole_mailbox(client)] == [sent.id]


def test_ids_grow_where_the_clock_was_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as there are tables for them."""
    now = time.time()
    monkeypatch.setattr(ids, "_last", 0)
    monkeypatch.setattr(ids, "time", SimpleNamespace(time=lambda: now))
    first = ids.uuid7()
    now -= 58 * 86_400
    assert ids.uuid7() > first
    now -= 2 * 86_400
    assert ids.uuid7().int >> 80 == int(now * 1000)


# -- tokens ---------------------------------------------------------------------------------------


async def test_a_token_that_ends_while_its_reader_waits_in_line_gets_no_mail(hub: RunningHub, http: Any) -> None:
    """Not for mail, which would be asked again anyway: for its turn, behind pages that nobody takes."""
    province = await hub.register("ubnd-tinh", PROVINCE)
    async with province.client(hub.url) as client:
        await client.send(province.document(PROVINCE))
    hand = hub.hub.mailboxes._in_hand.of(province.id)
    for _ in range(PAGES_IN_HAND):
        await hand.acquire()

    async def read() -> int:
        async with http.get(f"{hub.url}/v1/mailbox", headers=province.headers) as response:
            return int(response.status)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        await until(lambda: hub.hub.wake.awaited(province.id), "the reader is in line")
        await change.revoke_credentials(hub.connection, province.name)
        await hub.follow()
        hand.release()
    assert reading.result() == 401


# -- the supervisor -------------------------------------------------------------------------------


async def test_a_worker_that_cannot_be_started_now_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was no memory for another process: likely just after one was killed for want of it."""
    supervisor = Supervisor(make(port=0, data_dir=str(tmp_path), database_url="postgresql:///x"), print)
    spawn, asked, again = asyncio.create_subprocess_exec, [], asyncio.Event()

    async def scarce(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        asked.append(len(list(Path("/proc/self/fd").iterdir())))
        if len(asked) <= 2:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        again.set()
        return await spawn(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", scarce)
    with socket.socket() as listener, share_counts(1) as counts:
        supervisor._listener, supervisor._counts = listener, counts
        keeping = asyncio.create_task(supervisor._keep_worker(0, listener.fileno(), asyncio.Event()))
        waiting = asyncio.create_task(again.wait())
        await asyncio.wait([keeping, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert again.is_set(), "it gave up"
        keeping.cancel()
        waiting.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)
    assert len(set(asked)) == 1, "a descriptor leaked"
