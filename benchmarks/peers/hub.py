"""The hub's own figure in the same run: a few seconds before each peer and a few after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks import latency
from benchmarks.campaign import HEADROOM, Mode, Run
from benchmarks.corpus import Receiver, Sender
from benchmarks.node import Node
from benchmarks.peers.load import WARM_SECONDS, NotConservedError
from benchmarks.scenarios import Setting, modes

_SETTING = Setting(workers=0, seconds=0)
"""For what `make bench` has defaults."""
WANTED = ("stream", "post", "batch50", "manifest50")
"""The doors to compare by; the first one that `make bench` knows is the default."""


def doors() -> dict[str, Mode]:
    """Those of `WANTED` that there are, in that order."""
    known = modes.modes(_SETTING)
    return {name: known[name] for name in WANTED if name in known}


@dataclass(slots=True)
class HubRuns:
    """What the hub did beside a peer."""

    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return sum(run.documents for run in self.runs) / sum(run.seconds for run in self.runs)

    def figures(self) -> dict[str, Any]:
        """For the results' file."""
        documents = sum(run.documents for run in self.runs)
        p50, p99 = latency.milliseconds([time for run in self.runs for time in run.end_to_end], 0.5, 0.99)
        served = sum(run.cpu.hub + run.cpu.postgres for run in self.runs)
        return {
            "hub_docs_per_s": round(self.rate, 1),
            "hub_server_cpu_us_per_doc": round(served / documents * 1e6, 1),
            "hub_client_cpu_us_per_doc": round(sum(run.generator for run in self.runs) / documents * 1e6, 1),
            "hub_e2e_p50_ms": p50,
            "hub_e2e_p99_ms": p99,
            "hub_others_cpu_share": max(run.others_share for run in self.runs),
            "hub_documents": documents,
        }


class Hub:
    """A hub, its senders and receivers, loaded through one door for some seconds at a time. An async context."""

    def __init__(self, node: Node, senders: list[Sender], receivers: list[Receiver], door: str) -> None:
        self._mode = doors()[door]
        self._reading = modes.reading(_SETTING, node, receivers, self._mode)
        self._campaign = modes.campaign(_SETTING, node, senders, receivers, self._mode, self._reading)
        self._rate = 0.0

    async def __aenter__(self) -> Hub:
        await self._reading.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._reading.__aexit__(*error)

    async def measure(self, seconds: float) -> Run:
        """Load the hub as fast as it goes. Raises NotConservedError."""
        if not self._rate:
            warm = min(WARM_SECONDS, seconds)
            self._rate = (await self._run(self._mode.guess * warm / HEADROOM, warm)).rate
        run = await self._run(self._rate * seconds, seconds)
        self._rate = run.rate
        return run

    async def _run(self, documents: float, seconds: float) -> Run:
        campaign = self._campaign
        run = await campaign.run(campaign.make(self._mode, documents * HEADROOM), self._mode, seconds)
        if not run.conservation.holds or campaign.refused:
            raise NotConservedError(f"the hub: not conserved: {run.conservation}, refused: {campaign.refused}")
        return run
