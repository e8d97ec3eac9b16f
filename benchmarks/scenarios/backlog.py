"""Does the hub stay as fast when a million documents wait, and while somebody holds back vacuum?

Two hubs, each on a PostgreSQL of its own, one as it should be and one burdened, take turns under the same
load; the ratio of their rates is the figure, so that what else the machine does falls on both. Where
mailboxes are deep, new documents stand at the end of a queue whose head is read meanwhile: receivers take as
many as were accepted for them, so that the queue stays as deep as it is.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks import report
from benchmarks.campaign import Campaign, Mode, Run, named
from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.node import Node
from benchmarks.receivers import Receivers
from benchmarks.scenarios import Outcome, Setting
from benchmarks.scenarios.deep import Deep

SLICE_SECONDS = 5.0
PAIRS = 6
_DEAD = """
select coalesce(sum(n_dead_tup), 0)::bigint as dead,
       coalesce(sum(n_dead_tup) filter (where relname = 'mailbox'), 0)::bigint as mailbox
from pg_stat_user_tables
"""


@dataclass(slots=True)
class Side:
    """One of the two hubs."""

    campaign: Campaign
    rates: list[float]

    @classmethod
    async def start(cls, stack: AsyncExitStack, setting: Setting) -> Side:
        senders = [Sender(number) for number in range(1, SENDERS + 1)]
        receivers = [Receiver(number) for number in range(setting.receivers)]
        node = await stack.enter_async_context(Node(setting.workers))
        await node.register(senders, receivers)
        reading = await stack.enter_async_context(Receivers(node.address, receivers, setting.linger / 1000))
        press = Press(senders, receivers, node.url.removeprefix("http://"))
        return cls(Campaign(node, press, reading, setting.console), [])

    async def turn(self, mode: Mode, seconds: float) -> Run:
        """One slice of the load; its rate is noted."""
        guess = self.rates[-1] * 1.5 if self.rates else mode.guess
        run = await self.campaign.run(self.campaign.make(mode, guess * seconds), mode, seconds)
        self.rates.append(run.rate)
        return run


async def xmin(setting: Setting) -> list[Outcome]:
    """Figures under ``xmin``: one transaction elsewhere keeps its snapshot for `setting.minutes`."""
    mode = Mode("xmin", 1, setting.connections, 9_000)
    seconds = min(SLICE_SECONDS, setting.minutes * 60 / 4)
    async with AsyncExitStack() as stack:
        free = await Side.start(stack, setting)
        held = await Side.start(stack, setting)
        await free.turn(mode, min(2.0, seconds))
        await held.turn(mode, min(2.0, seconds))
        holder = await asyncpg.connect(held.campaign.node.database_url)
        stack.push_async_callback(holder.close)
        await holder.execute("begin isolation level repeatable read; select count(*) from mailbox")
        began = perf_counter()
        while perf_counter() - began < setting.minutes * 60:
            for side in (free, held):
                await side.turn(mode, seconds)
            setting.say(f"xmin: {free.rates[-1]:,.0f}/s, with vacuum held back {held.rates[-1]:,.0f}/s")
        lasted = perf_counter() - began
        await holder.execute("rollback")
        outcome = await _compare("xmin", free, held)
    outcome.figures["xmin.seconds"] = round(lasted, 1)
    return [outcome]


async def backlog(setting: Setting) -> list[Outcome]:
    """Figures under ``backlog1m``: `setting.backlog` documents wait, half of them in the mailboxes being read."""
    name = "backlog1m"
    mode = Mode(name, 1, setting.connections, 9_000)
    seconds = min(SLICE_SECONDS, setting.seconds)
    async with AsyncExitStack() as stack:
        empty = await Deep.start(stack, setting, 0)
        setting.say(f"{name}: putting {setting.backlog:,} documents into mailboxes")
        deep = await Deep.start(stack, setting, setting.backlog)
        for side in (empty, deep):
            side.read(stack)
            await side.turn(mode, min(2.0, seconds))
        for _ in range(2 if setting.quick else PAIRS):
            for side in (empty, deep):
                await side.turn(mode, seconds)
            setting.say(f"{name}: {empty.rates[-1]:,.0f}/s, with the backlog {deep.rates[-1]:,.0f}/s")
        setting.say(f"{name}: reading what waits")
        return [await Deep.compare(name, empty, deep)]


async def _compare(name: str, free: Side, held: Side) -> Outcome:
    """The ratio, and what it comes from. The first slices warmed up and do not count."""
    pairs = [burdened / plain for plain, burdened in zip(free.rates[1:], held.rates[1:], strict=True)]
    half = pairs[len(pairs) // 2 :]
    figures: dict[str, Any] = {
        # Of the second half: what was held back has piled up by then.
        "ratio": round(statistics.median(half), 3),
        "ratio_min": round(min(half), 3),
        "ratio_max": round(max(half), 3),
        "docs_per_s": round(statistics.median(held.rates[1:]), 1),
        "free_docs_per_s": round(statistics.median(free.rates[1:]), 1),
        **await _dead(held.campaign.node, ""),
        **await _dead(free.campaign.node, "free_"),
        "slices": len(pairs),
    }
    campaigns = free.campaign, held.campaign
    conserved = all(campaign.conserved for campaign in campaigns)
    log = "" if conserved else "\n".join(campaign.node.log_tail() for campaign in campaigns)
    facts = await report.facts(held.campaign.node)
    counts = [count for campaign in campaigns for count in campaign.conservation]
    details = {"rates": {"free": free.rates, "held": held.rates}}
    return Outcome(name, named(name, figures), conserved, facts, counts, details=details, log=log)


async def _dead(node: Node, prefix: str) -> dict[str, int]:
    """Dead row versions: of all tables, and of mailboxes, which are the ones that are updated again and again."""
    await asyncio.sleep(1.1)  # PostgreSQL's processes tell of them once a second
    connection = await asyncpg.connect(node.database_url)
    try:
        row = await connection.fetchrow(_DEAD)
    finally:
        await connection.close()
    assert row is not None
    return {f"{prefix}dead_tuples": row["dead"], f"{prefix}mailbox_dead_tuples": row["mailbox"]}
