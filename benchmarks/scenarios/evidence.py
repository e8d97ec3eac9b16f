"""What proof costs: the hub as it is beside one that proves nothing, in turn on the same machine.

Both take the same documents on streams and in batches, round by round, the order changing each time. The one that
proves nothing (benchmarks/unproven) makes no event texts, hashes, trees, seals and receipts, seals no
hand-over, and has no log; it is a hub that nobody should run, and is there to be measured against. What is
compared is the median rate, and the CPU of hub and PostgreSQL for a document. The proving hub is counted until
its log holds every event.

A round begins when both databases are at rest: what one left for later (a checkpoint, a vacuum) would be paid for
in the round of the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks import report, stream
from benchmarks.campaign import Campaign, Mode, named
from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.generator import closed_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Cpu, Node
from benchmarks.scenarios import Outcome, Setting
from benchmarks.scenarios.modes import modes
from benchmarks.stream import StreamReceivers
from protocol.signature import PublicKey

ROUNDS = 6
MODES = ("stream", "batch50")
UNPROVEN = Path(__file__).parent.parent / "unproven"
"""A folder with a module that Python imports by itself when it starts (`site`)."""
LOG_SECONDS = 30.0
REST_SECONDS = 30.0


@dataclass
class _Side:
    """One of the two hubs, and what was measured of it, by mode."""

    node: Node
    campaign: Campaign
    proving: bool
    after: Cpu = field(default_factory=Cpu)
    """What the node had used when a load was over and all its events were in the log."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Microseconds of the hub and of PostgreSQL for a document."""

    async def round(self, mode: Mode, guess: float, seconds: float) -> float:
        """One load; its rate."""
        corpus = self.campaign.make(mode, guess)
        before = self.node.cpu()
        run = await self.campaign.run(corpus, mode, seconds)
        used = self.after - before
        self.rates.setdefault(mode.name, []).append(run.rate)
        spent = (used.hub / run.documents * 1e6, used.postgres / run.documents * 1e6)
        self.cpu.setdefault(mode.name, []).append(spent)
        return run.rate

    async def verify(self, ledger: Ledger, keys: Mapping[str, PublicKey]) -> Conservation:
        """Every receipt; from the hub that gives none, an answer counts as one. Not in the hub's time."""
        await self._until("select not exists (select 1 from log_pending)", LOG_SECONDS, "the log does not keep up")
        self.after = self.node.cpu()
        return ledger.verify(keys) if self.proving else ledger.counted(ledger.answered_documents, 1)

    async def rest(self) -> None:
        """Return when the database has nothing left to do."""
        at_rest = "select not exists (select 1 from pg_stat_activity where backend_type = 'autovacuum worker')"
        await self._until(at_rest, REST_SECONDS, "the database does not come to rest", first="checkpoint")

    async def _until(self, holds: str, patience: float, complaint: str, first: str = "select") -> None:
        connection = await asyncpg.connect(self.node.database_url)
        deadline = perf_counter() + patience
        try:
            await connection.execute(first)
            while not await connection.fetchval(holds):
                if perf_counter() > deadline:
                    raise RuntimeError(complaint)
                await asyncio.sleep(0.05)
        finally:
            await connection.close()


async def run(setting: Setting) -> list[Outcome]:
    """Figures under ``evidence``."""
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    receivers = [Receiver(number) for number in range(setting.receivers)]
    chosen = [modes(setting)[name] for name in MODES]
    seconds = min(setting.seconds, 6.0)
    async with (
        Node(setting.workers) as proving,
        Node(setting.workers, environment={"PYTHONPATH": str(UNPROVEN)}) as bare,
    ):
        await _unlog(bare)
        tokens: list[tuple[list[str], list[str]]] = []
        for node in (proving, bare):
            await node.register(senders, receivers)
            tokens.append(([sender.token for sender in senders], [receiver.token for receiver in receivers]))
        sides: list[_Side] = []
        for number, node in enumerate((proving, bare)):
            press = Press(senders, receivers, node.url.removeprefix("http://"), first=number * 1_000_000_000)
            campaign = Campaign(node, press, StreamReceivers(node.address, receivers), setting.console)
            side = _Side(node, campaign, proving=node is proving)
            campaign.verify = side.verify
            sides.append(side)
        for mode in chosen:
            guess = {side.node: float(mode.guess * 2) for side in sides}
            for round_ in range(ROUNDS + 1):
                for place in (0, 1) if round_ % 2 else (1, 0):
                    side = sides[place]
                    for each in sides:
                        await each.rest()
                    _hand_over(senders, receivers, *tokens[place])
                    rate = await _one(
                        setting, side, mode, guess[side.node] * 1.7, seconds if round_ else 2.0, senders, receivers
                    )
                    guess[side.node] = rate * seconds
                if not round_:  # that was the warm-up
                    for side in sides:
                        side.rates.pop(mode.name)
                        side.cpu.pop(mode.name)
        facts = await report.facts(proving)
        conserved = all(side.campaign.conserved for side in sides)
        counts = [count for side in sides for count in side.campaign.conservation]
        log = "" if conserved else proving.log_tail() + bare.log_tail()
    return [Outcome("evidence", named("evidence", _figures(*sides)), conserved, facts, counts, log=log)]


async def _one(
    setting: Setting,
    side: _Side,
    mode: Mode,
    documents: float,
    seconds: float,
    senders: list[Sender],
    receivers: list[Receiver],
) -> float:
    campaign = side.campaign
    async with StreamReceivers(side.node.address, receivers) as reading:
        campaign.receivers = reading
        if mode.name == "stream":
            campaign.closed = partial(stream.closed_loop, senders=senders)
        else:
            campaign.closed = closed_loop
        return await side.round(mode, documents, seconds)


def _hand_over(senders: list[Sender], receivers: list[Receiver], sending: list[str], receiving: list[str]) -> None:
    """Give the parties the tokens of the hub whose turn it is."""
    for sender, token in zip(senders, sending, strict=True):
        sender.token = token
    for receiver, token in zip(receivers, receiving, strict=True):
        receiver.token = token


async def _unlog(node: Node) -> None:
    connection = await asyncpg.connect(node.database_url)
    await connection.execute("alter table batch disable trigger log_batch_later")
    await connection.close()


def _figures(proving: _Side, bare: _Side) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode in MODES:
        rates = median(proving.rates[mode]), median(bare.rates[mode])
        hub, store = (
            [median(spent[part] for spent in side.cpu[mode]) for side in (proving, bare)] for part in (0, 1)
        )
        cpu = hub[0] + store[0], hub[1] + store[1]
        found |= {
            f"{mode}_docs_per_s": round(rates[0], 1),
            f"{mode}_unproven_docs_per_s": round(rates[1], 1),
            f"{mode}_rate_share": round(rates[0] / rates[1], 3),
            f"{mode}_cpu_us_per_doc": round(cpu[0], 1),
            f"{mode}_unproven_cpu_us_per_doc": round(cpu[1], 1),
            f"{mode}_hub_cpu_us_per_doc": round(hub[0], 1),
            f"{mode}_unproven_hub_cpu_us_per_doc": round(hub[1], 1),
            f"{mode}_cpu_share": round(1 - cpu[1] / cpu[0], 3),
        }
    return found
