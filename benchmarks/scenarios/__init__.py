"""What `make bench` and `make bench-long` measure, a module each; every one starts hubs of its own.

modes       the ways of submitting: rate, latency, CPU (post, batch50, edxml, …), and the bare floors
startup     how long a hub takes to start
fanout      one document to hundreds of endpoints, and what others feel of it
idle        10,000 endpoints that wait
large       documents of 50 MB, and the memory of a worker meanwhile
evidence    the hub beside one that proves nothing
log         the transparency log alone, at 30,000 events a second
backlog     a million waiting documents; a transaction that holds back vacuum
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from benchmarks.ledger import Conservation


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure. Options of the command line."""

    workers: int
    seconds: float
    """Of each load."""
    connections: int = 64
    batch_connections: int = 16
    receivers: int = 4
    linger: float = 0.0
    polling: bool = False
    """Whether documents are received by long polls; otherwise on streams."""
    floors: bool = True
    quick: bool = False
    minutes: float = 1.0
    """How long a transaction holds back vacuum."""
    backlog: int = 1_000_000
    idle: int = 10_000
    console: Console = field(default_factory=Console)

    def say(self, text: str) -> None:
        self.console.print(text, style="dim")


@dataclass(slots=True)
class Outcome:
    """What a scenario found."""

    name: str
    figures: dict[str, Any]
    """By their full names."""
    conserved: bool | None
    """Whether nothing was lost, nothing came twice and every receipt verified. If not, the figures do not count.
    None: no document was sent.
    """
    facts: dict[str, Any] = field(default_factory=dict)
    """What the figures depend on (`report.facts`)."""
    counts: list[Conservation] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """Answers other than 202, by status."""
    details: dict[str, Any] = field(default_factory=dict)
    """Samples and curves, for a file of their own."""
    log: str = ""
    """The hub's last words, when something was lost."""


Scenario = Callable[[Setting], Awaitable[list[Outcome]]]
