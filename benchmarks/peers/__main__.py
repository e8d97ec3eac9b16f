"""``make bench-peers``: the hub beside other people's queues, in turn, on one machine in one run.

benchmarks/PEERS.md says what is compared and what that is worth.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from benchmarks import report
from benchmarks.corpus import SENDERS, Receiver, Sender
from benchmarks.node import Node
from benchmarks.peers import tables
from benchmarks.peers.hub import Hub, HubRuns, doors
from benchmarks.peers.load import NotConservedError, measure
from benchmarks.peers.peer import Ground, Peer
from benchmarks.peers.sweep import sweep

NAMES = ("rabbitmq", "jetstream", "procrastinate", "skip_locked", "pyas2")
RESULTS = Path(__file__).parents[1] / "results"
PEER_SECONDS = 240.0
"""For one peer altogether, over and above its loads."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A peer, as it is measured."""

    name: str
    """In the results' file."""
    title: str
    kind: type[Peer]
    settings: dict[str, Any]


def kind_of(name: str) -> type[Peer]:
    """The class of the peer of this name. Raises ImportError when its client library is not installed."""
    module = importlib.import_module(f"benchmarks.peers.{name}")
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Peer) and found.__module__ == module.__name__
    )


def entrants(names: Sequence[str]) -> tuple[list[Entrant], dict[str, tables.Figures]]:
    """The peers that can be measured here, and for the others why not."""
    there: list[Entrant] = []
    absent: dict[str, tables.Figures] = {}
    for name in names:
        try:
            kind = kind_of(name)
            why = kind.missing()
        except ImportError as error:
            absent[name] = {"title": name, "absent": f"needs the extra bench-peers of Python packages ({error})"}
            continue
        if why is not None:
            absent[name] = {"title": kind.title, "absent": why}
            continue
        there.append(Entrant(name, kind.title, kind, {}))
        there += [
            Entrant(f"{name}_{variant}", f"{kind.title}, {variant}", kind, settings)
            for variant, settings in kind.variants.items()
        ]
    return there, absent


async def compare(options: argparse.Namespace, console: Console) -> dict[str, tables.Figures]:
    """Measure the hub, a peer, the hub, a peer, …; what each came to, by the entrant's name."""
    there, found = await asyncio.to_thread(entrants, options.only or NAMES)
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    receivers = [Receiver(number) for number in range(options.receivers)]

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False)

    say(f"starting a hub of {options.workers} workers on a fresh PostgreSQL")
    async with Node(options.workers) as node:
        await node.register(senders, receivers)
        facts = await report.facts(node)
        for figures in found.values():
            figures |= {"at": facts["at"], "git_commit": facts["git_commit"]}
        ground = Ground(node.folder, node.database, node.postgres_seconds)
        async with Hub(node, senders, receivers, options.hub_mode) as hub:
            say(f"the hub, by {options.hub_mode}")
            before = await hub.measure(options.hub_seconds)
            for entrant in there:
                peer = entrant.kind(ground, options.receivers, entrant.settings)
                try:
                    figures = await _measure(peer, senders, receivers, options.seconds, say)
                except Exception as error:
                    figures = {"failed": str(error) or type(error).__name__}
                    console.print(f"{entrant.title}: {error}", style="red", markup=False)
                say(f"the hub, by {options.hub_mode}")
                after = await hub.measure(options.hub_seconds)
                beside = HubRuns([before, after])
                if "docs_per_s" in figures:
                    figures["hub_over_peer"] = round(beside.rate / figures["docs_per_s"], 3)
                figures |= {
                    "title": entrant.title,
                    **beside.figures(),
                    "hub_mode": options.hub_mode,
                    "settings": peer.described(),
                    "quick": options.quick,
                    "at": facts["at"],
                    "git_commit": facts["git_commit"],
                }
                found[entrant.name] = figures
                before = after
        common = {f"peer.{name}": value for name, value in facts.items() if "." not in name}
        common |= {f"peer.{name.replace('.', '_')}": value for name, value in facts.items() if "." in name}
    results = tables.merge(options.output, found, common)
    options.output.with_name("peers.md").write_text(tables.markdown(results), encoding="utf-8")
    return found


async def _measure(
    peer: Peer, senders: list[Sender], receivers: list[Receiver], seconds: float, say: Any
) -> tables.Figures:
    folder = peer.ground.folder / f"peer-{peer.name}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        async with asyncio.timeout(PEER_SECONDS + 2 * seconds):
            await peer.start(folder)
            outcome = await measure(peer, senders, receivers, seconds, say)
            return outcome.figures() | await peer.versions()
    finally:
        await peer.stop()


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s for each load: does it work, not how fast")
    parser.add_argument("--only", action="append", choices=NAMES, help="one peer; may be given several times")
    parser.add_argument("--seconds", type=float, help="for each peer (default 8)")
    parser.add_argument("--hub-seconds", type=float, help="for the hub beside it, each time (default 4)")
    parser.add_argument("--hub-mode", choices=list(doors()), default=next(iter(doors())), help="the hub's door")
    parser.add_argument("--workers", type=int, default=2, help="processes of the hub")
    parser.add_argument("--receivers", type=int, default=4, help="receiving endpoints, of hub and peers alike")
    parser.add_argument("--sweep", choices=NAMES, help="try a peer's settings instead, without a hub")
    parser.add_argument("--output", type=Path, help="where to write the figures; peers.md is put beside it")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (2.0 if options.quick else 8.0)
    options.hub_seconds = options.hub_seconds or (2.0 if options.quick else 4.0)
    options.output = options.output or (RESULTS / "quick" if options.quick else RESULTS) / "latest.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; 0 when every peer that is installed was measured and everything was conserved."""
    options = parse_options(arguments)
    console = Console()
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)  # it logs each attempt on a server that starts

    async def run() -> dict[str, tables.Figures]:
        task = asyncio.current_task()
        assert task is not None
        # Ctrl-C cancels the task already; ended by a supervisor, everything has to be taken down just so.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if options.sweep:
            kind = kind_of(options.sweep)
            if why := kind.missing():
                raise SystemExit(f"{kind.title}: {why}")
            await sweep(kind, options.seconds, options.receivers, console)
            return {}
        return await compare(options, console)

    try:
        found = uvloop.run(run())
    except NotConservedError as error:
        console.print(str(error), style="bold red", markup=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; everything that was started has ended", style="yellow")
        return 130
    if found:
        tables.show(console, found)
        console.print(f"All figures: {options.output}", style="dim")
    return 1 if any("failed" in figures for figures in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
