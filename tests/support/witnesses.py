"""Witnesses in this process, and those who come to them by hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hub.witness import state
from hub.witness.server import Witness
from hub.witness.state import State
from protocol.misbehaviour import Misbehaviour
from protocol.note import Verifier

NAMES = ("so-noi-vu.yenbai.gov.vn/w1", "thanh-tra.yenbai.gov.vn/nhân-chứng")


@dataclass
class RunningWitness:
    """A witness that answers at `url`."""

    folder: Path
    verifier: Verifier
    url: str

    @property
    def setting(self) -> str:
        """As ``--witness`` takes it."""
        return f"{self.url} {self.verifier}"

    def follow(self, log: str | Verifier) -> None:
        """What ``lienthong witness log add`` does."""
        with contextlib.closing(State(self.folder)) as opened:
            opened.add_log(str(log))

    def findings(self) -> list[Misbehaviour]:
        with contextlib.closing(State(self.folder)) as opened:
            return [found.misbehaviour for found in opened.findings()]

    def size(self) -> int | None:
        """Of what it signed last, of the one log that it follows."""
        with contextlib.closing(State(self.folder)) as opened:
            (log,) = opened.logs()
        return log.last.size if log.last else None


@contextlib.asynccontextmanager
async def running(
    folder: Path, name: str = NAMES[0], logs: Sequence[Verifier] = ()
) -> AsyncIterator[RunningWitness]:
    """A witness in `folder`, made unless it is there."""
    verifier = state.make(folder, name) if not folder.exists() else opened_verifier(folder)
    server = Witness(folder)
    found = RunningWitness(folder, verifier, await server.start("127.0.0.1", 0))
    for log in logs:
        found.follow(log)
    try:
        yield found
    finally:
        await server.stop()


def opened_verifier(folder: Path) -> Verifier:
    with contextlib.closing(State(folder)) as opened:
        return opened.verifier


@dataclass(frozen=True)
class Answer:
    """What a witness answered."""

    status: int
    media_type: str
    body: str


async def ask(http: aiohttp.ClientSession, url: str, data: Any) -> Answer:
    """Bring a request to the witness at `url`."""
    async with http.post(f"{url}/add-checkpoint", data=data) as response:
        return Answer(response.status, response.content_type, (await response.read()).decode())
