"""A hub whose log two witnesses follow, and fixtures of it.

A test module takes over the fixtures that it wants: ``scene = witness_scene.scene``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.couriers import link_health
from hub.evidence import integrate, witnessing
from protocol.log import Checkpoint, open_checkpoint
from protocol.note import Verifier, read_verifier
from tests.conftest import RunningHub, StartHub
from tests.support.parties import PROVINCE, VAN_YEN, Party
from tests.support.until import until
from tests.support.witnesses import NAMES, RunningWitness, running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that happens every second or so happens ten times as often."""
    monkeypatch.setattr(integrate, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(witnessing, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(witnessing, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(link_health, "FIRST_SECONDS", 0.05)


@pytest.fixture
async def witnesses(tmp_path: Path) -> AsyncIterator[tuple[RunningWitness, RunningWitness]]:
    """Two agencies' witnesses, which follow no log yet."""
    async with running(tmp_path / "w1", NAMES[0]) as first, running(tmp_path / "w2", NAMES[1]) as second:
        yield first, second


class Scene:
    """A hub with witnesses, and somebody who sends documents."""

    def __init__(self, hub: RunningHub, http: aiohttp.ClientSession, log: Verifier, province: Party) -> None:
        self.hub = hub
        self.http = http
        self.log = log
        self.province = province

    async def send(self, count: int = 1) -> None:
        """Documents one after the other, a batch each."""
        async with self.province.client(self.hub.url) as client:
            for _ in range(count):
                await client.submit(client.sign(self.province.document(VAN_YEN)))

    async def get(self, path: str) -> Any:
        async with self.http.get(self.hub.url + path) as response:
            assert response.status == 200, await response.text()
            return await (response.text() if path in ("/log/checkpoint", "/metrics") else response.json())

    async def checkpoint(self, *witnesses: RunningWitness) -> tuple[Checkpoint, list[str]]:
        """The newest checkpoint, and which of the witnesses signed it."""
        trusted = [witness.verifier for witness in witnesses]
        found, _, signed = open_checkpoint(await self.get("/log/checkpoint"), self.log, trusted)
        return found, [one.verifier.name for one in signed]

    async def cosigned(self, *witnesses: RunningWitness, size: int = 0) -> Checkpoint:
        """The newest checkpoint, once it has at least `size` entries and all these witnesses have signed it."""

        async def look() -> Checkpoint | None:
            found, signed = await self.checkpoint(*witnesses)
            return found if len(signed) == len(witnesses) and found.size >= size else None

        return await until(look, f"{size} entries, signed by {len(witnesses)} witnesses")

    async def status(self, witness: RunningWitness) -> dict[str, Any]:
        found = {one["name"]: one for one in (await self.get("/v1/status"))["witnesses"]}
        return dict(found[witness.verifier.name])

    async def refused(self, witness: RunningWitness) -> str:
        async def look() -> str | None:
            return (await self.status(witness)).get("refused")

        return str(await until(look, "the witness refuses"))


async def follow(hub: RunningHub, http: aiohttp.ClientSession, *witnesses: RunningWitness) -> Scene:
    """Let witnesses follow the hub's log, by the key on its page, and register two agencies."""
    async with http.get(f"{hub.url}/log") as response:
        vkey = (await response.json())["vkey"]
    for witness in witnesses:
        witness.follow(vkey)
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    return Scene(hub, http, read_verifier(vkey), province)


def settings(*witnesses: RunningWitness) -> dict[str, str]:
    return {"witness": " ".join(witness.setting for witness in witnesses), "log_name": "yenbai.gov.vn/nhật-ký"}


@pytest.fixture
async def scene(
    witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub, http: aiohttp.ClientSession
) -> Scene:
    return await follow(await start_hub(**settings(*witnesses)), http, *witnesses)
