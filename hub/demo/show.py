"""What the spectator sees: lines as things happen, tables at the end.

On a terminal a bar below the lines shows how far the morning is. Everywhere else there are only lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from hub.cli.output import PIPE_COLUMNS
from protocol.message import Priority, printable

_URGENCY: dict[Priority, tuple[str, str]] = {
    "express": ("HỎA TỐC", "bold red"),
    "very_urgent": ("THƯỢNG KHẨN", "red"),
    "urgent": ("KHẨN", "yellow"),
    "normal": ("", ""),
}


class Show:
    """Writes to a terminal, a file or a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(file=self.console.file, highlight=False, width=PIPE_COLUMNS)
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def _print(self, text: Text) -> None:
        # A file or a pipe gets each line whole; on a terminal long lines are cut, not wrapped.
        if self.console.is_terminal:
            self.console.print(text, no_wrap=True, overflow="ellipsis")
        else:
            self.console.print(text, soft_wrap=True)

    def heading(self, text: str) -> None:
        self.console.print()
        self._print(Text(printable(text), "bold"))

    def say(self, text: str) -> None:
        """A sentence for the newcomer; wrapped where the terminal ends."""
        self._wrapped(Text(printable(text)), 2)

    def _wrapped(self, text: Text, indent: int) -> None:
        if self.console.is_terminal:
            self.console.print(Padding(text, (0, 0, 0, indent)))
        else:
            self.console.print(Text(" " * indent) + text, soft_wrap=True)

    def document(self, at: str, priority: Priority, symbol: str, route: str, subject: str, extra: str) -> None:
        """A document that the hub has accepted."""
        urgency, style = _URGENCY[priority]
        line = Text.assemble(
            (f"  {at}  ", "dim"),
            (f"{urgency:<12}", style),
            (f"{symbol:<19}", "bold"),
            f"{route}: ",
            (subject, "italic"),
            (f"  {extra}" if extra else "", "dim"),
        )
        self._print(line)

    def event(self, at: str, text: str, style: str = "dim") -> None:
        """Something that followed from a document."""
        self._print(Text.assemble((f"  {at}  ", "dim"), " " * 12, ("↳ " + printable(text), style)))

    def refused(self, what: str, problem: str, reason: str, proof: str) -> None:
        """A bad submission, and what it got."""
        self._wrapped(Text(what, "bold"), 2)
        self._wrapped(Text(problem, "red"), 4)
        self._wrapped(Text(printable(reason)), 4)
        self._wrapped(Text(proof, "dim"), 4)

    def table(self, columns: Iterable[str], rows: Iterable[tuple[object, ...]]) -> None:
        """A table; the first column is text, the others are numbers, the last row is the sum."""
        lines = [tuple(map(str, row)) for row in rows]
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_footer=True)
        for index, (column, footer) in enumerate(zip(columns, lines[-1], strict=True)):
            table.add_column(
                column, footer, justify="right" if index else "left", footer_style="bold", no_wrap=True
            )
        for row in lines[:-1]:
            table.add_row(*row)
        self.console.print(table)

    @contextlib.contextmanager
    def morning(self, messages: int) -> Iterator[None]:
        """While the block runs, `progress` says how much of it is done."""
        columns = TextColumn("  {task.description}"), BarColumn(30), TextColumn("{task.fields[done]}")
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            self._progress = bar
            self._task = bar.add_task("07:30", total=messages, done="")
            yield
            self._progress = None

    def progress(self, at: str, messages: int, ended: int) -> None:
        """How many messages the hub has accepted, and how many deliveries have ended."""
        if self._progress is not None:
            text = f"{messages} messages, {ended} deliveries done"
            self._progress.update(self._task, description=at, completed=messages, done=text)
