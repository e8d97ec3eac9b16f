"""Old months leave by partition; what waits, and what others need, stays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from hub import retention
from hub.retention import Retention, may_leave, month_after
from hub.store.blobs import Blobs

BY_SEQUENCE = ("inbox", "progress", "handed_run")
PARENTS = (*BY_SEQUENCE, "message", "batch", "rejection", "event", "acknowledgement")
NOW = datetime.now(UTC)


def months_ago(count: int) -> str:
    month = NOW.year * 12 + NOW.month - 1 - count
    return f"{month // 12}{month % 12 + 1:02}"


OLD, OLDER = months_ago(3), months_ago(4)


def moment(month: str) -> datetime:
    return month_after(month) - timedelta(days=10)


class Archive:
    """A database that holds old months, and the blobs beside it."""

    def __init__(self, connection: asyncpg.Connection, url: str, folder: Path) -> None:
        self.connection = connection
        self.blobs = Blobs(folder)
        self.retention = Retention(url, self.blobs, 2)

    async def make(self, month: str) -> None:
        """The partitions of a month."""
        start, end = month_after(month) - timedelta(days=28), month_after(month)
        for parent in PARENTS:
            bounds = "seq_floor" if parent in BY_SEQUENCE else "uuid_floor"
            low, high = await self.connection.fetchrow(f"select {bounds}($1), {bounds}($2)", start, end)
            await self.connection.execute(
                f"create table {parent}_{month} partition of {parent} for values from ('{low}') to ('{high}')"
            )

    async def message(
        self, month: str, number: int, text: str | None, attachments: tuple[bytes, ...] = ()
    ) -> UUID:
        """A message of that month in the mailbox of endpoint 1."""
        at = moment(month) + timedelta(seconds=number)
        seq, id_ = await self.connection.fetchrow("select seq_floor($1), uuid_floor($1)", at)
        body = None if text is None else text.encode()
        digest = hashlib.sha256(body or b"large").digest()
        await self.connection.execute(
            "insert into message (id, accepted_at, endpoint, sender_id, sender, format, lane, digest, size, route,"
            " body, batch, leaf, event) values ($1, $2, 2, $3, 'H63', 0, 2, $4, 5, '{}', $5, $1, 0, '')",
            id_,
            at,
            f"công văn {number}",
            digest,
            body,
        )
        await self.connection.execute("insert into inbox values (1, 2, $1, $2)", seq, id_)
        for sha256 in attachments:
            await self.connection.execute("insert into attachment_use values ($1, $2)", sha256, id_)
        return UUID(str(id_))

    async def blob(self, content: bytes, uploaded: datetime | None = None) -> bytes:
        """A file in the blob store; with `uploaded`, it is an attachment."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        incoming = await self.blobs.receive(chunks(), 1000)
        incoming.keep()
        if uploaded is not None:
            await self.connection.execute(
                "insert into attachment values ($1, $2, 2, $3)", incoming.sha256, len(content), uploaded
            )
            await self.connection.execute("insert into attachment_owner values ($1, 2)", incoming.sha256)
        return incoming.sha256

    async def pass_two_hours(self) -> None:
        """Let what is to be deleted be older by that."""
        await self.connection.execute("update blob_garbage set since = since - interval '2 hours'")
        for path in self.blobs.root.glob("??/??/*"):
            at = path.stat().st_mtime - 7200
            os.utime(path, (at, at))

    async def acknowledge_all(self) -> None:
        await self.connection.execute("update mailbox set floor = seq_floor(now())")

    async def partitions(self) -> set[str]:
        rows = await self.connection.fetch(
            "select relname from pg_class where relkind = 'r' and relname ~ $1", f"_({OLD}|{OLDER})$"
        )
        return {row["relname"] for row in rows}


@pytest.fixture
async def archive(connection: asyncpg.Connection, database_url: str, tmp_path: Path) -> Archive:
    found = Archive(connection, database_url, tmp_path / "blobs")
    await connection.execute("insert into endpoint (name, revision) values ('văn-yên', 1), ('tỉnh', 1)")
    await connection.execute("insert into mailbox (endpoint, lane) values (1, 0), (1, 1), (1, 2)")
    for month in (OLDER, OLD):
        await found.make(month)
    return found


async def test_months_leave_oldest_first_and_the_present_ones_stay(archive: Archive) -> None:
    await archive.message(OLDER, 1, "cũ")
    await archive.message(OLD, 2, "mới hơn")
    await archive.acknowledge_all()
    assert await archive.retention.run() == [OLDER, OLD]
    assert await archive.partitions() == set()
    assert await archive.connection.fetchval("select count(*) from message") == 0
    this = NOW.strftime("%Y%m")
    assert await archive.connection.fetchval(f"select count(*) from inbox_{this}") == 0
    assert await archive.retention.run() == []


async def test_without_a_limit_everything_stays(archive: Archive, database_url: str) -> None:
    await archive.acknowledge_all()
    assert await Retention(database_url, archive.blobs, 0).run() == []
    assert len(await archive.partitions()) == 2 * len(PARENTS)


async def test_a_month_in_which_mail_waits_stays_and_all_after_it(archive: Archive) -> None:
    message = await archive.message(OLDER, 1, "chưa nhận")
    assert await archive.retention.run() == []
    assert len(await archive.partitions()) == 2 * len(PARENTS)
    assert await archive.connection.fetchval("select body from message where id = $1", message) is not None
    await archive.acknowledge_all()
    assert await archive.retention.run() == [OLDER, OLD]


async def test_what_interrupted_work_left_half_detached_is_finished(
    archive: Archive, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.fetchval("select count(*) from inbox")
    monkeypatch.setattr(retention, "STATEMENT_SECONDS", 1)
    with pytest.raises(asyncpg.QueryCanceledError):
        await archive.retention.run()
    await transaction.rollback()
    await holder.close()
    pending = "select count(*) from pg_inherits where inhdetachpending"
    assert await archive.connection.fetchval(pending) == 1
    assert await archive.retention.run() == [OLDER, OLD]
    assert await archive.partitions() == set()


async def test_attachments_that_only_old_messages_name_are_deleted_later(archive: Archive) -> None:
    old = await archive.blob("chỉ bản cũ dùng".encode(), moment(OLD))
    shared = await archive.blob("cả hai dùng".encode(), moment(OLD))
    fresh = await archive.blob("vừa tải lên".encode(), NOW)
    await archive.message(OLD, 1, "cũ", (old, shared))
    await archive.connection.execute("insert into attachment_use select $1, uuid_floor(now())", shared)
    await archive.acknowledge_all()
    assert await archive.retention.run() == [OLDER, OLD]
    kept = {row["sha256"] for row in await archive.connection.fetch("select sha256 from attachment")}
    assert kept == {shared, fresh}
    assert archive.blobs.path(old).exists()  # for the present
    await archive.pass_two_hours()
    await archive.retention.run()
    assert [archive.blobs.path(sha256).exists() for sha256 in (old, shared, fresh)] == [False, True, True]


async def test_an_attachment_that_is_uploaded_again_meanwhile_stays(archive: Archive) -> None:
    content = "gửi lại".encode()
    sha256 = await archive.blob(content, moment(OLD))
    await archive.retention.run()
    await archive.blob(content, NOW)
    await archive.pass_two_hours()
    await archive.retention.run()
    assert archive.blobs.path(sha256).exists()
    assert await archive.connection.fetchval("select count(*) from blob_garbage") == 0


async def test_the_blob_of_a_large_message_leaves_with_it(archive: Archive) -> None:
    sha256 = await archive.blob(b"large")
    await archive.message(OLD, 1, None)
    await archive.acknowledge_all()
    await archive.retention.run()
    assert archive.blobs.path(sha256).exists()
    await archive.pass_two_hours()
    await archive.retention.run()
    assert not archive.blobs.path(sha256).exists()


def test_whole_months_are_kept() -> None:
    now = datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)
    assert may_leave("202512", 2, now)
    assert not may_leave("202601", 2, now)
    assert month_after("202512") == datetime(2026, 1, 1, tzinfo=UTC)
    assert not may_leave("202603", 0 + 1, now)


async def test_every_table_that_is_kept_by_month_is_known_here(archive: Archive) -> None:
    assert set(await archive.connection.fetchval("select monthly_tables()")) == set(PARENTS)


async def test_hand_overs_and_what_recipients_signed_leave_with_their_month(archive: Archive) -> None:
    message = await archive.message(OLD, 1, "cũ")
    seq = await archive.connection.fetchval("select seq from inbox where message = $1", message)
    await archive.connection.execute(
        "insert into handed_run values (1, 2, $1::bigint, $1::bigint, now(), $2::uuid, 0)", seq, message
    )
    await archive.connection.execute(
        "insert into acknowledgement values ($1, 1, now(), 'a.b.c', ''),"
        " (uuid_floor(now()), 1, now(), 'd.e.f', '')",
        message,
    )
    await archive.acknowledge_all()
    assert await archive.retention.run() == [OLDER, OLD]
    assert await archive.connection.fetchval("select count(*) from handed_run") == 0
    assert await archive.connection.fetchval("select jws from acknowledgement") == "d.e.f"
