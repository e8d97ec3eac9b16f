"""``lienthong demo``: a morning of documents, relayed before your eyes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hub.cli.output import Output, json_option, pass_output
from hub.demo.run import Options, run
from hub.demo.show import Show


@click.command()
@click.option(
    "--data-dir",
    default="demo-data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo works. Made fresh, removed at the end.",
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 16), help="Processes of the hub.")
@click.option(
    "--seconds",
    default=12.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="How long the four hours take at least.",
)
@click.option("--keep", is_flag=True, help="Keep the data, to look around in it.")
@json_option
@pass_output
def demo(output: Output, data_dir: Path, workers: int, seconds: float, keep: bool) -> None:
    """Watch a morning of documents go from agency to agency, through a hub of its own.

    Starts a hub with its PostgreSQL, registers agencies of Yên Bái, relays what they write, shows four bad
    submissions and what they get, verifies every receipt, and stops everything again. With --json the lines go
    to standard error and a summary to standard output.
    """
    options = Options(data_dir, workers, seconds, keep)
    show = Show(Console(stderr=output.as_json, highlight=False))
    stopped, summary = asyncio.run(_until_stopped(options, show))
    if stopped is not None:
        show.say("Stopped; nothing of the demo runs any more.")
        click.get_current_context().exit(128 + stopped)
    if output.as_json:
        output.result(summary, "")


async def _until_stopped(options: Options, show: Show) -> tuple[int | None, dict[str, Any]]:
    """The signal that ended the demo early, if one did, and its summary."""
    task = asyncio.ensure_future(run(options, show))
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def stop(number: int) -> None:
        # Only the first counts: what is being stopped in order must not be cut off by impatience.
        if not received:
            received.append(number)
            task.cancel()

    # Under nohup a hang-up is ignored, and stays so.
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *hangup)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        return None, await task
    except asyncio.CancelledError:
        if not received:
            raise
        return received[0], {}
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
