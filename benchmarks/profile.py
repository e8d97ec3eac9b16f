"""``python -m benchmarks.profile``: where a worker spends its time under the load of `benchmarks.bench`.

py-spy samples one worker from outside, so the hub runs unchanged. It is not among the project's
dependencies: install it with ``pip install py-spy`` or put it on PATH. Sampling a process needs the right
to trace it, which root has.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.axis import add_systems
from benchmarks.campaign import HEADROOM
from benchmarks.corpus import SENDERS, Receiver, Sender
from benchmarks.node import Node
from benchmarks.scenarios import Setting, modes

SAMPLES_PER_SECOND = 500
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


async def sample(options: argparse.Namespace, program: str, console: Console) -> list[tuple[list[str], int]]:
    """Load a fresh hub and sample its first worker; returns (stack from the outside in, samples)."""
    setting = Setting(options.workers, options.seconds, receivers=options.receivers, linger=options.linger)
    mode = modes.modes(setting)[options.mode]
    senders = [Sender(number + 1) for number in range(SENDERS)]
    receivers = [Receiver(number) for number in range(options.receivers)]
    async with Node(options.workers) as node:
        await node.register(senders, receivers)
        if mode.name == "axis":
            await add_systems(node, senders)
        async with modes.reading(setting, node, receivers, mode) as readers:
            campaign = modes.campaign(setting, node, senders, receivers, mode, readers)
            warm = await campaign.run(campaign.make(mode, 2 * mode.guess), mode, 2)
            corpus = campaign.make(mode, warm.rate * (options.seconds + 2) * HEADROOM)
            output = node.folder / "stacks"
            command = [program, "record", "--format", "raw", "--output", str(output), "--nonblocking"]
            command += ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(round(options.seconds))]
            if options.native:
                command.append("--native")
            if options.threads:
                command.append("--threads")
            sampler = await asyncio.create_subprocess_exec(
                *command,
                "--pid",
                str(node.workers()[0].pid),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            run = await campaign.run(corpus, mode, options.seconds + 1)
            _, errors = await sampler.communicate()
            if not output.exists():
                raise SystemExit(f"py-spy wrote nothing: {errors.decode()[-500:]}")
            console.print(
                f"{mode.name}: {run.rate:,.0f} documents/s while sampled; CPU µs per document: "
                f"hub {run.cpu.hub / run.documents * 1e6:.0f}, "
                f"PostgreSQL {run.cpu.postgres / run.documents * 1e6:.0f}, "
                f"generator {run.generator / run.documents * 1e6:.0f}"
            )
            text = output.read_text(encoding="utf-8")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    stacks = []
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        stacks.append((frames.split(";"), int(count)))
    return stacks


def short(frame: str, lines: bool) -> str:
    """A frame without the folder that packages are installed in, and without its line."""
    match = _FRAME.match(frame)
    if match is None:
        return frame
    place = match["file"].rpartition("site-packages/")[2]
    return f"{match['function']}  {place}" + (f":{match['line']}" if lines and match["line"] else "")


def show(console: Console, stacks: list[tuple[list[str], int]], top: int, lines: bool) -> None:
    """Print the functions by the time in themselves, and by the time in all that they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    total = sum(count for _, count in stacks)
    for frames, count in stacks:
        own[short(frames[-1], lines)] += count
        for frame in {short(frame, False) for frame in frames}:
            whole[frame] += count
    for title, counted in (("in itself", own), ("with all that it calls", whole)):
        table = Table("share", "function", title=f"Top {top} by time {title} ({total} samples)")
        for frame, count in counted.most_common(top):
            table.add_row(f"{count / total:.1%}", frame)
        console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("mode", nargs="?", choices=modes.NAMES, default="post")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--lines", action="store_true", help="count lines, not functions")
    parser.add_argument("--native", action="store_true", help="see into compiled libraries too")
    parser.add_argument("--threads", action="store_true", help="keep threads apart")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--linger", type=float, default=0)
    parser.add_argument("--output", type=Path, help="keep the folded stacks, for a flame graph")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    beside = Path(sys.executable).with_name("py-spy")
    program = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if program is None:
        console.print("py-spy is not installed: `pip install py-spy`, or put it on PATH, and call this again")
        return 1
    stacks = uvloop.run(sample(options, program, console))
    show(console, stacks, options.top, options.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
