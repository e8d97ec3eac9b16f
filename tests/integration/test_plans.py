"""The statements of the hot path visit what they return, however long a mailbox's history is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from hub.couriers.mailbox import LANE_BYTES
from hub.relay.mail import END
from hub.store import sql
from hub.store.pool import connect
from protocol.ids import uuid7

SQL = sql.load("relay")
HISTORY = 20_000
ENDPOINT, LANE = 1, 2


@pytest.fixture
async def history(connection: asyncpg.Connection) -> int:
    """A mailbox whose first entries are done and whose last ten are not. Returns the first of those ten."""
    base = await connection.fetchval("select seq_floor(now()) - $1", HISTORY)
    ids = [uuid7() for _ in range(HISTORY)]
    await connection.execute(
        """insert into message select id, now(), 2, id::text, '000.00.00.H63', 0, $2, ''::bytea, 10, null,
           '{"1": ["000.00.31.H63"]}', ''::bytea, $3, 0, '' from unnest($1::uuid[]) id""",
        ids,
        LANE,
        uuid4(),
    )
    await connection.execute(
        "insert into inbox select $1, $2, $3 + n, id from unnest($4::uuid[]) with ordinality e(id, n)",
        ENDPOINT,
        LANE,
        base,
        ids,
    )
    await connection.execute(
        "insert into mailbox (endpoint, lane, floor) select $1, lane, $2 from unnest(array[0, 1, 2]) lane",
        ENDPOINT,
        base + HISTORY - 10,
    )
    await connection.execute("analyze")
    return int(base) + HISTORY - 9


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def visited(connection: asyncpg.Connection, statement: str, *arguments: object) -> int:
    """The most rows that one node of the plan produced or threw away, at a statement's sixth execution."""
    prepared = await connection.prepare(f"explain (analyze, format json) {statement}")
    for _ in range(6):
        (row,) = await prepared.fetch(*arguments)
    plan = orjson.loads(row[0])[0]["Plan"]
    return max(
        int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes(plan)
    )


@pytest.fixture
async def hot(database_url: str, history: int) -> Any:
    found = await connect(database_url, "test", hot=True)
    yield found
    await found.close()


async def test_reading_a_mailbox_visits_only_what_waits(hot: asyncpg.Connection, history: int) -> None:
    assert await visited(hot, SQL.read_mailbox, ENDPOINT, (0, 0, 0), 65536, 100, LANE_BYTES, END) <= 40
    assert await visited(hot, SQL.read_mailbox, ENDPOINT, (0, 0, history + 4), 65536, 100, LANE_BYTES, END) <= 40


async def test_acknowledging_visits_only_what_it_ends(hot: asyncpg.Connection, history: int) -> None:
    whole = [ENDPOINT], [LANE], [ENDPOINT], [LANE], [0], [history + 4], [False]
    single = [ENDPOINT], [LANE], [ENDPOINT], [LANE], [history], [history + 1], [True]
    assert await visited(hot, SQL.read_entries, *whole) <= 40
    assert await visited(hot, SQL.read_entries, *single) <= 40
    assert await visited(hot, SQL.cut_range, ENDPOINT, LANE, history + 9, 5) <= 40


async def test_looking_for_mail_visits_only_what_is_new(hot: asyncpg.Connection, history: int) -> None:
    assert await visited(hot, SQL.waiting, [ENDPOINT] * 3, [0, 1, 2], [0, 0, history + 4]) <= 40
