"""Two agencies that follow the hub's log with a witness each, and the checkpoint that both have signed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import structlog

from hub.cli.output import local_time
from hub.demo.agencies import AGENCIES
from hub.demo.node import DemoError
from hub.demo.show import Show
from hub.witness import state
from hub.witness.server import Witness
from hub.witness.state import State
from protocol.log import open_checkpoint
from protocol.note import Verifier, read_verifier

NAMES = {"so-noi-vu": "so-noi-vu.yenbai.gov.vn/w1", "dai-son": "dai-son.vanyen.yenbai.gov.vn/w1"}
"""By endpoint, what its agency calls its witness."""
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.2


class Witnesses:
    """Runs both, each in a folder of its own, in an ``async with`` block."""

    def __init__(self, folder: Path) -> None:
        self._log_file = folder / "witnesses.log"
        self._folders = {endpoint: folder / f"witness-{endpoint}" for endpoint in NAMES}
        self._verifiers: dict[str, Verifier] = {}
        self._running: list[Witness] = []
        self._log: Verifier | None = None
        self.options: list[str] = []
        """What the hub is told of them."""

    async def __aenter__(self) -> Self:
        # What they say of single requests is not for the spectator.
        self._logged = self._log_file.open("a", encoding="utf-8")
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(self._logged))
        for endpoint, folder in self._folders.items():
            self._verifiers[endpoint] = await asyncio.to_thread(state.make, folder, NAMES[endpoint])
            witness = Witness(folder)
            address = await witness.start("127.0.0.1", 0)
            self._running.append(witness)
            self.options += ["--witness", f"{address} {self._verifiers[endpoint]}"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for witness in self._running:
            await witness.stop()
        structlog.reset_defaults()
        self._logged.close()

    async def follow(self, url: str, show: Show) -> None:
        """Tell both of the log of the hub at `url`."""
        async with aiohttp.ClientSession() as session, session.get(f"{url}/log") as response:
            vkey = (await response.json())["vkey"]
        self._log = read_verifier(vkey)
        for folder in self._folders.values():
            with contextlib.closing(State(folder)) as opened:
                opened.add_log(vkey)
        names = " and ".join(AGENCIES[endpoint].short for endpoint in NAMES)
        show.say(
            f"{names} each run a witness: it signs the hub's transparency log while that does nothing but grow, "
            "so that nobody, the hub's operator included, can change afterwards what happened."
        )

    async def check(self, url: str, show: Show) -> dict[str, Any]:
        """Wait until both have signed the newest checkpoint of the log, and show it. Raises DemoError."""
        assert self._log is not None
        names = {verifier.name: endpoint for endpoint, verifier in self._verifiers.items()}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
                while True:
                    async with session.get(f"{url}/log/checkpoint") as response:
                        written = await response.text()
                    if response.status == 200:
                        checkpoint, _, signed = open_checkpoint(written, self._log, self._verifiers.values())
                        if len(signed) == len(names):
                            break
                    await asyncio.sleep(LOOK_SECONDS)
            show.heading(f"The log: {checkpoint.size} events, each in its place for good")
            for one in signed:
                show.say(
                    f"{AGENCIES[names[one.verifier.name]].name} signed it at {local_time(one.at)} (UTC+7), as "
                    f"{one.verifier.name}."
                )
            return {"entries": checkpoint.size, "witnesses": sorted(one.verifier.name for one in signed)}
        raise DemoError("the witnesses did not sign the log in time")
