"""What a peer is: how to start it, what to ask it, how to end it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.share import Share

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ground:
    """What peers are started on."""

    folder: Path
    """For their data; not readable by this account alone."""
    database: Callable[[str], str]
    """The address of the PostgreSQL database of a name, as asyncpg and psycopg take it."""
    postgres_seconds: Callable[[], float]
    """CPU of the whole PostgreSQL so far."""


class Peer(ABC):
    """A system to compare with. `start` it, load it, `stop` it."""

    name: ClassVar[str]
    title: ClassVar[str]
    guess: ClassVar[int] = 2_000
    """Documents a second for which the warm-up is prepared."""
    payload_only: ClassVar[bool] = False
    """It signs for itself: it is given the payload of 2,048 bytes, not the JWS."""
    defaults: ClassVar[dict[str, Any]]
    """The settings that were found best. `window`: requests that each sender has under way; `split`: the
    processes of the load, ``"roles"`` for one that sends and one that receives."""
    variants: ClassVar[dict[str, dict[str, Any]]] = {}
    """Changes of the settings that are measured besides, each under a name of its own."""
    tries: ClassVar[list[dict[str, Any]]] = []
    """Changes of the settings that `--sweep` tries, one after another."""

    def __init__(self, ground: Ground, receivers: int, settings: Mapping[str, Any] | None = None) -> None:
        self.ground = ground
        self.receivers = receivers
        self.settings = {**self.defaults, **(settings or {})}
        self.address = ""

    def described(self) -> str:
        """The settings, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items() if value not in ("", 0))

    @classmethod
    def missing(cls) -> str | None:
        """What has to be installed before it can run here; None when nothing has."""
        return None

    @abstractmethod
    async def start(self, folder: Path) -> None:
        """Start it, with its data in an empty folder, and set `address`."""

    @abstractmethod
    async def stop(self) -> None:
        """End all that `start` started. Also after a `start` that failed."""

    @abstractmethod
    def server_seconds(self) -> float:
        """CPU so far of what is not the client."""

    @abstractmethod
    async def left_over(self) -> int:
        """Documents that it still keeps for somebody."""

    @abstractmethod
    async def versions(self) -> dict[str, str]:
        """Of the server and of the client library."""

    async def collect(self, share: Share, first: int, count: int) -> None:
        """Note in the share what was delivered, where that can only be seen afterwards."""
        return

    def command(self) -> list[str]:
        """What a process of the load is started with; its order follows as one argument."""
        return [sys.executable, "-m", "benchmarks.peers.child"]

    def environment(self) -> dict[str, str]:
        """What such a process finds in its environment, besides ours."""
        return {}
