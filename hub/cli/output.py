"""What the command writes: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from protocol.message import printable

VIETNAM = timezone(timedelta(hours=7))
PIPE_COLUMNS = 200
"""Width of tables where there is no terminal to tell its own."""


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
        if not self.console.is_terminal:
            self.console = Console(highlight=False, soft_wrap=True, width=PIPE_COLUMNS)
        self.progress = Console(stderr=True, highlight=False)

    def result(self, members: Any, sentence: str) -> None:
        """One result: an object for programs, a sentence for people."""
        if self.as_json:
            click.echo(orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str))
        else:
            click.echo(printable_lines(sentence))

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], members: Any, nothing: str = ""
    ) -> None:
        """Many results. `nothing` is said where there is none."""
        if self.as_json:
            click.echo(orjson.dumps(members, option=orjson.OPT_INDENT_2, default=str))
            return
        rows = list(rows)
        if not rows:
            click.echo(nothing or f"{title}: none")
            return
        table = Table(title=title or None, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(printable(str(cell)) if cell is not None else "" for cell in row))
        self.console.print(table)


def _token_file(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    # Looked at before the token is made: a token that could not be written down would be lost.
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {value.parent}")
    return value


def _file_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{what}-file",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=_token_file,
        help=f"Write the {what} into this file (only you can read it) instead of showing it.",
    )


token_option = _file_option("token")
secret_option = _file_option("secret")


def hand_over(token: str, whose: str, file: Path | None, what: str = "token") -> tuple[dict[str, str], str]:
    """Give a new token to whoever asked for it: members for programs, a line for people."""
    if file is None:
        return {what: token}, f"{what.capitalize()} for {whose} (shown this once): {token}"
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as target:
        target.write(token + "\n")
    temporary.rename(file)
    return {f"{what}_file": str(file)}, f"{what.capitalize()} for {whose}: in {file}"


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _set_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_object(Output).as_json = True  # type: ignore[union-attr]


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, help="Write JSON.", allow_from_autoenv=False
)
pass_output = click.make_pass_decorator(Output)
