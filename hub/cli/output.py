"""What the command writes: tables and sentences for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from protocol.message import printable

VIETNAM = timezone(timedelta(hours=7))


def local_time(moment: datetime | str | None) -> str:
    """A moment as people here read it: Vietnam's time (UTC+7), seconds."""
    if moment is None:
        return ""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.astimezone(VIETNAM).strftime("%d/%m/%Y %H:%M:%S")


class Output:
    """Writes results in the form that was asked for. `--json` may stand before or after the command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress = Console(stderr=True, highlight=False)

    def result(self, members: Any, sentence: str) -> None:
        """One result: an object for programs, a sentence for people."""
        if self.as_json:
            click.echo(orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str))
        else:
            click.echo(printable_lines(sentence))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], members: Any) -> None:
        """Many results."""
        if self.as_json:
            click.echo(orjson.dumps(members, option=orjson.OPT_INDENT_2, default=str))
            return
        table = Table(title=title or None, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(printable(str(cell)) if cell is not None else "" for cell in row))
        self.console.print(table)


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_object(Output).as_json = True  # type: ignore[union-attr]


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="Write JSON.", allow_from_autoenv=False
)
pass_output = click.make_pass_decorator(Output)
