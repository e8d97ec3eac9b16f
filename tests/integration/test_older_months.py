"""A store that holds older months is brought up to date: what waits in them can be handed over, too."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from hub.store import sql
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import migrate

BEFORE = 11
"""The last schema without hand-overs."""
JANUARY = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**6
FEBRUARY = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * 10**6


async def test_months_that_were_there_before_get_their_hand_overs(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test_{uuid4().hex}"
    maintenance = await asyncpg.connect(postgres.url.replace("/lienthong?", "/postgres?"))
    await maintenance.execute(f'create database "{name}" template template0')
    url = postgres.url.replace("/lienthong?", f"/{name}?")
    known = sql.migrations()
    try:
        monkeypatch.setattr(sql, "migrations", lambda: [one for one in known if one[0] <= BEFORE])
        await migrate(url)
        connection = await asyncpg.connect(url)
        await connection.execute(
            f"create table inbox_202601 partition of inbox for values from ({JANUARY}) to ({FEBRUARY})"
        )
        monkeypatch.setattr(sql, "migrations", lambda: known)
        await migrate(url)
        await connection.execute(
            "insert into handed_run values (1, 2, $1::bigint, $1::bigint, now(), $2, 0)", JANUARY + 5, uuid4()
        )
        where = await connection.fetchval("select tableoid::regclass::text from handed_run")
        assert where == "handed_run_202601"
        bound = "select pg_get_expr(relpartbound, oid) from pg_class where relname = $1"
        assert await connection.fetchval(bound, where) == await connection.fetchval(bound, "inbox_202601")
        await connection.close()
    finally:
        await maintenance.execute(f'drop database "{name}" with (force)')
        await maintenance.close()
