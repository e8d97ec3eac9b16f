"""The transparency log alone: how many events a second it takes in, and what each costs.

Sealed batches are put straight into the store, as commits put them there, first at a fixed rate beside which the
integrator has to keep up, then a million events at once, to see how fast it catches up. Every event must be in the
log exactly once at the end, and the tree, computed again from the tiles that the hub serves, must be the one
signed.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from time import perf_counter

import aiohttp
import asyncpg
import orjson

from benchmarks import report
from benchmarks.campaign import named
from benchmarks.node import Node
from benchmarks.scenarios import Outcome, Setting
from protocol.evidence import HASH_BYTES
from protocol.ids import uuid7
from protocol.log import Checkpoint, Tile, node_from, open_checkpoint, root
from protocol.note import read_verifier

OFFERED = 30_000
"""Events a second."""
EVENTS = 64
"""Of a batch."""
TICK_SECONDS = 0.1
BACKLOG = 1_000_000
CATCH_UP_SECONDS = 120.0
_PUT = "insert into batch select unnest($1::uuid[]), $2, 0, unnest($3::bytea[]), ''"
_SIZE = "select coalesce(max(size), 0) from checkpoint"


async def run(setting: Setting) -> list[Outcome]:
    """Figures under ``log``."""
    backlog = BACKLOG // (10 if setting.quick else 1)
    async with Node(1) as node:
        connection = await asyncpg.connect(node.database_url)
        watch = await asyncpg.connect(node.database_url)
        setting.say(f"log: {OFFERED:,} events a second for {setting.seconds:g} s")
        cpu = node.cpu()
        sent, lag = await _steadily(connection, watch, setting.seconds)
        await _until(watch, sent)
        steady = node.cpu() - cpu
        setting.say(f"log: {backlog:,} events at once")
        await _put(connection, backlog // EVENTS)
        total = sent + backlog // EVENTS * EVENTS
        cpu, began, before = node.cpu(), perf_counter(), await watch.fetchval(_SIZE)
        await _until(watch, total)
        seconds, used = perf_counter() - began, node.cpu() - cpu
        setting.say("log: reading it again")
        conserved = await _whole(node, total)
        size = await watch.fetchval(
            "select pg_total_relation_size('log_tile') + pg_total_relation_size('log_batch')"
        )
        facts = await report.facts(node)
        await connection.close()
        await watch.close()
    caught = total - before
    figures = {
        "offered_events_per_s": OFFERED,
        "lag_max_s": round(lag, 2),
        "hub_cpu_us_per_event": round(steady.hub / sent * 1e6, 2),
        "postgres_cpu_us_per_event": round(steady.postgres / sent * 1e6, 2),
        "catch_up_events_per_s": round(caught / seconds),
        "catch_up_hub_cpu_us_per_event": round(used.hub / caught * 1e6, 2),
        "bytes_per_event": round(size / total, 1),
        "events": total,
    }
    return [Outcome("log", named("log", figures), conserved, facts, log="" if conserved else node.log_tail())]


async def _put(connection: asyncpg.Connection, batches: int) -> None:
    for start in range(0, batches, 500):
        count = min(500, batches - start)
        leaves = [os.urandom(EVENTS * HASH_BYTES) for _ in range(count)]
        await connection.execute(_PUT, [uuid7() for _ in range(count)], datetime.now(UTC), leaves)


async def _steadily(
    connection: asyncpg.Connection, watch: asyncpg.Connection, seconds: float
) -> tuple[int, float]:
    """Put batches in at the offered rate; how many events, and the longest that any waited for its place."""
    began, batches, longest = perf_counter(), 0, 0.0
    while (passed := perf_counter() - began) < seconds:
        due = round(passed * OFFERED / EVENTS) - batches
        await _put(connection, due)
        batches += due
        waited = await watch.fetchval(
            "select coalesce(extract(epoch from clock_timestamp() - min(b.at)), 0)::float8"
            " from log_pending p join batch b on b.id = p.batch"
        )
        longest = max(longest, waited)
        await asyncio.sleep(TICK_SECONDS)
    return batches * EVENTS, longest


async def _until(watch: asyncpg.Connection, events: int) -> None:
    deadline = perf_counter() + CATCH_UP_SECONDS
    while await watch.fetchval(_SIZE) < events:
        if perf_counter() > deadline:
            raise TimeoutError(f"the log did not take {events:,} events in within {CATCH_UP_SECONDS:g} s")
        await asyncio.sleep(0.02)


async def _whole(node: Node, events: int) -> bool:
    """Whether the hub shows a log of so many events that is the one it signed."""
    async with aiohttp.ClientSession(f"{node.url}/log/") as session:

        async def get(path: str) -> bytes:
            async with session.get(path) as answer:
                answer.raise_for_status()
                return await answer.read()

        about = orjson.loads(await (await session.get(f"{node.url}/log")).read())
        checkpoint: Checkpoint = open_checkpoint(await get("checkpoint"), read_verifier(about["vkey"]))[0]
        tiles = {}
        for level in range(8):
            count = checkpoint.size >> 8 * level
            # Level 0 is checked by its last tile alone: 4,000 requests more would show nothing else.
            for index in range(count >> 8 if level == 0 else 0, -(-count // 256)):
                tile = Tile(level, index, min(256, count - index * 256))
                tiles[tile] = await get(tile.path)
    return checkpoint.size == events and root(events, node_from(tiles, events)) == checkpoint.root
