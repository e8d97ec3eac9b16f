"""The ways of submitting, each from a warm-up to its latencies, on one node; before them the bare floors."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import axis, floors, report, stream
from benchmarks.axis import AxisPress
from benchmarks.campaign import BATCH, Campaign, Mode, named
from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.edxml import EdxmlPress
from benchmarks.floors import Floors
from benchmarks.manifest import ManifestPress
from benchmarks.node import Node
from benchmarks.receivers import Receivers
from benchmarks.scenarios import Outcome, Setting
from benchmarks.stream import StreamReceivers

NAMES = tuple(report.MODES)
BY_NAME = ("axis",)
"""Of these, what `make bench` leaves out, to stay under four minutes."""
APART = 1_000_000_000
"""Between the numbers of two modes' first documents."""


def modes(setting: Setting) -> dict[str, Mode]:
    """All ways of submitting, by name."""
    listed = (
        Mode("post", 1, setting.connections, 9_000),
        Mode("batch50", BATCH, setting.batch_connections, 16_000),
        Mode("stream", 1, setting.batch_connections, 16_000),
        Mode("manifest50", BATCH, setting.batch_connections, 40_000),
        Mode("edxml", 1, setting.connections, 2_500),
        Mode("axis", 1, setting.connections, 2_500),
    )
    return {mode.name: mode for mode in listed}


async def run(setting: Setting, names: tuple[str, ...] = NAMES) -> list[Outcome]:
    """An outcome for each of the modes `names`, and one for the floors."""
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    receivers = [Receiver(number) for number in range(setting.receivers)]
    outcomes: list[Outcome] = []
    setting.say(f"starting a hub of {setting.workers} workers on a fresh PostgreSQL")
    async with Node(setting.workers) as node:
        await node.register(senders, receivers)
        if "axis" in names:
            await axis.add_systems(node, senders)
        bare = None
        if setting.floors:
            setting.say("the bare floors")
            bare = await _floors(setting, node, senders, receivers)
            outcomes.append(Outcome("floor", bare.json(), conserved=None))
        for mode in (modes(setting)[name] for name in names):
            outcomes.append(await _mode(setting, node, senders, receivers, mode, bare))
    return outcomes


async def _mode(
    setting: Setting,
    node: Node,
    senders: list[Sender],
    receivers: list[Receiver],
    mode: Mode,
    bare: Floors | None,
) -> Outcome:
    async with reading(setting, node, receivers, mode) as readers:
        loads = campaign(setting, node, senders, receivers, mode, readers)
        figures = await loads.mode(mode, setting.seconds)
    figures |= named(mode.name, _whole(loads, mode, bare, figures))
    return Outcome(
        mode.name,
        figures,
        loads.conserved,
        await report.facts(node),
        loads.conservation,
        loads.refused,
        loads.details[mode.name],
        "" if loads.conserved else node.log_tail(),
    )


def campaign(
    setting: Setting,
    node: Node,
    senders: list[Sender],
    receivers: list[Receiver],
    mode: Mode,
    readers: Receivers | StreamReceivers,
) -> Campaign:
    """The loads of one mode."""
    made = Campaign(node, _press(node, senders, receivers, mode), readers, setting.console)
    if mode.name == "stream":
        made.closed = partial(stream.closed_loop, senders=senders)
        made.open = partial(stream.open_loop, senders=senders)
    elif mode.name == "axis":
        made.verify = partial(axis.verify, node, senders)
    return made


def _press(node: Node, senders: list[Sender], receivers: list[Receiver], mode: Mode) -> Press:
    """What makes a mode's documents."""
    host = node.url.removeprefix("http://")
    kinds: dict[str, type[Press]] = {"manifest50": ManifestPress, "edxml": EdxmlPress, "axis": AxisPress}
    kind = kinds.get(mode.name, Press)
    return kind(senders, receivers, host, first=NAMES.index(mode.name) * APART)


def reading(setting: Setting, node: Node, receivers: list[Receiver], mode: Mode) -> Receivers | StreamReceivers:
    """Whoever receives a mode's documents."""
    if setting.polling and mode.name != "stream":
        return Receivers(node.address, receivers, setting.linger / 1000)
    return StreamReceivers(node.address, receivers)


async def _floors(setting: Setting, node: Node, senders: list[Sender], receivers: list[Receiver]) -> Floors:
    press = Press(senders, receivers, node.url.removeprefix("http://"), first=900 * APART)
    single, batch = press.make(20 * SENDERS * 4, 1), press.make(SENDERS * 4, BATCH)
    key = senders[0].signer.key.public_key()
    return await floors.measure(node, single, batch, key, min(3.0, setting.seconds))


def _whole(loads: Campaign, mode: Mode, bare: Floors | None, figures: dict[str, Any]) -> dict[str, Any]:
    """Figures about all loads of a mode."""
    found: dict[str, Any] = {"generator_cpu_share": round(loads.generator / loads.all_cpu, 3)}
    if bare is not None and mode.name in ("post", "batch50"):
        floor = bare.verify + bare.insert + (bare.http if mode.per_request == 1 else bare.http_batch)
        found["over_floors"] = round(figures[f"{mode.name}.cpu_us_per_doc"] / floor, 2)
    return found
