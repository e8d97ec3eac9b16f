"""10,000 endpoints that wait for mail: what they cost in memory and CPU while nothing comes.

Memory is what the workers hold for themselves (USS), above the same hub before any of the endpoints was
registered; the part that the directory takes is told apart. At the end every one of them is sent a document,
and has to get it where it waits: a connection that had died quietly would cost nothing.
"""

from __future__ import annotations

import asyncio
import resource
import time
from time import perf_counter

import asyncpg
import psutil

from benchmarks import report
from benchmarks.campaign import named
from benchmarks.corpus import SENDERS, Press, Sender
from benchmarks.crowd import register
from benchmarks.generator import closed_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Node
from benchmarks.sampler import Sampler
from benchmarks.scenarios import Outcome, Setting
from benchmarks.waiters import Party, Poller, Streamer, Waiter

SPARE_FILES = 500
"""Files that a process needs beside those of the waiting connections."""
WAIT_SECONDS = 30
"""After which a long-poll is answered empty and asked again."""
SETTLE_SECONDS = 30.0
_WAITING = """
select sum((stats::json ->> 'waiting_readers')::int + (stats::json ->> 'streams')::int) from worker
"""
GROUP = 5_000
"""Recipients that one document may have."""


def room_for(wanted: int) -> int:
    """How many connections this process and its children may hold, up to `wanted`; raises its limit for that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - SPARE_FILES)


async def longpoll(setting: Setting) -> list[Outcome]:
    """Figures under ``longpoll10k``."""
    return await run(setting, "longpoll10k", Poller)


async def stream(setting: Setting) -> list[Outcome]:
    """Figures under ``idle10k``."""
    return await run(setting, "idle10k", Streamer)


async def run(setting: Setting, name: str, kind: type[Waiter]) -> list[Outcome]:
    """What `setting.idle` waiting endpoints cost."""
    count = room_for(setting.idle)
    if count < setting.idle:
        setting.say(f"{name}: this machine lets a process open {count + SPARE_FILES} files, so {count} wait")
    groups = -(-count // GROUP)
    count -= count % groups
    quiet = 5 if setting.quick else WAIT_SECONDS
    sender = [Sender(number) for number in range(1, SENDERS + 1)]
    async with Node(setting.workers) as node:
        await node.register(sender, [])
        empty = memory(node)
        setting.say(f"{name}: registering and connecting {count:,} endpoints")
        crowd = await register(node, "CHO", count, count // groups)
        registered = memory(node)
        party = Party(crowd, kind, quiet)
        try:
            began = perf_counter()
            await party.connect(node.address)
            await _all_wait(node, count)
            connected = perf_counter() - began
            setting.say(f"{name}: nothing happens for {quiet} s")
            cpu, own, since = node.cpu(), time.process_time(), perf_counter()
            async with Sampler(node, lambda: 0) as sampler:
                await asyncio.sleep(quiet)
            used, own, since = node.cpu() - cpu, time.process_time() - own, perf_counter() - since
            full = memory(node)
            setting.say(f"{name}: a document for each of them")
            press = Press(sender, [], node.url.removeprefix("http://"), addresses=crowd.groups)
            corpus = press.make(len(crowd.groups), 1)
            party.books.expect(corpus)
            ledger = Ledger(corpus, recipients=count // groups)
            began = perf_counter()
            await closed_loop(node.address, corpus, ledger, len(crowd.groups), 60)
            await party.served(count)
        finally:
            party.close()
        keys = await node.keys()
        facts, log = await report.facts(node), node.log_tail()
    books = party.books
    receipted, seals = ledger.receipts(keys)
    each = count // groups
    counted = Conservation(count, receipted * each, books.delivered, books.acknowledged, books.strays, seals)
    cpus = psutil.cpu_count() or 1
    figures = {
        "endpoints": count,
        "mib": round(full - empty, 1),
        "directory_mib": round(registered - empty, 1),
        "kib_per_connection": round((full - registered) * 1024 / count, 2),
        "empty_hub_mib": round(empty, 1),
        "cpu_share": round((used.hub + used.postgres) / since / cpus, 4),
        "hub_cpu_share": round(used.hub / since / cpus, 4),
        "postgres_cpu_share": round(used.postgres / since / cpus, 4),
        "generator_cpu_share": round(own / since / cpus, 4),
        "connect_s": round(connected, 2),
        "asked_again_after_s": quiet,
        "all_served_s": round(books.last_ack - began, 2),
    }
    log = "" if counted.holds else log
    details = {"idle": sampler.json()}
    return [Outcome(name, named(name, figures), counted.holds, facts, [counted], details=details, log=log)]


def memory(node: Node) -> float:
    """MiB that the workers hold and would give back if they ended."""
    total = 0
    for worker in node.workers():
        held = worker.memory_full_info()
        total += getattr(held, "uss", held.rss)
    return total / (1 << 20)


async def _all_wait(node: Node, count: int) -> None:
    """Return when the hub says that so many readers wait. Raises TimeoutError."""
    connection = await asyncpg.connect(node.database_url)
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                if await connection.fetchval(_WAITING) >= count:
                    return
                await asyncio.sleep(0.2)
    finally:
        await connection.close()
