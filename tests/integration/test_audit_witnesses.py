"""Auditing with witnesses: somebody who never saw a log before notices that others were shown another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from hub.evidence import witnessing
from protocol.note import Verifier
from tests.conftest import StartHub
from tests.support.audited import Audited
from tests.support.small_log import SmallLog
from tests.support.until import until
from tests.support.witnesses import NAMES, RunningWitness, running

MakeScene = Callable[..., Awaitable[Audited]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnessing, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("protocol.client.audit.AGAIN_SECONDS", 0.0)


@pytest.fixture
async def witnesses(tmp_path: Path) -> AsyncIterator[tuple[RunningWitness, RunningWitness]]:
    async with running(tmp_path / "w1", NAMES[0]) as first, running(tmp_path / "w2", NAMES[1]) as second:
        yield first, second


@pytest.fixture
async def scene(witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub, tmp_path: Path) -> Audited:
    """A hub with five logged events, which two witnesses have signed."""
    setting = " ".join(witness.setting for witness in witnesses)
    scene = Audited(await start_hub(witness=setting, log_name="yenbai.gov.vn/nhật-ký"), tmp_path)
    await scene.settle()
    for witness in witnesses:
        witness.follow(scene.vkey)
    await scene.send(5)
    await scene.log(5)
    await scene.cosigned(2)
    return scene


def asked(*witnesses: RunningWitness) -> list[str]:
    return [word for one in witnesses for word in ("--witness", f"{one.verifier}={one.url}")]


async def test_witnesses_and_hub_agree(scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]) -> None:
    told = await scene.audit("--log-key", scene.vkey, *asked(*witnesses))
    assert told.status == 0, told.text
    for witness in witnesses:
        assert f"cosigned   {witness.verifier.name}" in told
        assert f"agrees     the witness {witness.verifier.name}, 5 entries" in told
    await scene.send(2)
    await scene.hub.hub.witnessing.stop()
    await scene.log(7)
    found = await scene.json(*asked(*witnesses))
    assert found["status"] == 0
    assert {one["size"] for one in found["agreed"]} == {5} and found["cosigned"] == []


async def test_who_sees_a_rewritten_log_for_the_first_time_has_a_witness(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    await scene.hub.hub.witnessing.stop()
    await scene.rewrite(1)
    await scene.send(2)
    await scene.log(7)
    told = await scene.audit("--log-key", scene.vkey, state=None)
    assert told.status == 0
    told = await scene.audit("--log-key", scene.vkey, *asked(witnesses[0]), state=None)
    assert told.status == 1
    assert "ALARM: The hub rewrote its history" in told
    assert f"the witness {witnesses[0].verifier.name} was shown, and what you are" in told
    (file,) = scene.evidence()
    told = await scene.call("audit", "--check", file, "--log-key", scene.vkey)
    assert told.status == 0 and "one of 7 that begins differently" in told, told.text


async def test_two_witnesses_were_shown_two_logs(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness], tmp_path: Path
) -> None:
    """The second is shown a log of its own from the beginning; whoever asks both sees it."""
    first, _ = witnesses
    await scene.hub.hub.witnessing.stop()
    forged = SmallLog(scene.hub.hub.integrator._key, scene.origin).grow(5, "giả")  # type: ignore[arg-type]
    async with running(tmp_path / "w3", "kiểm-toán/w3") as other:
        other.follow(scene.vkey)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{other.url}/add-checkpoint", data=forged.request(0)) as answer,
        ):
            assert answer.status == 200
        told = await scene.audit("--log-key", scene.vkey, *asked(first, other))
        assert told.status == 1
        assert "ALARM: The hub shows different logs to different people" in told
        assert f"the witness {first.verifier.name} and the witness kiểm-toán/w3" in told
        told = await scene.audit(*asked(first, other), url="http://127.0.0.1:1", state="mới.json")
        assert told.status == 2  # without any key the hub has to be asked
        told = await scene.audit(
            "--log-key", scene.vkey, *asked(first, other), url="http://127.0.0.1:1", state="mới.json"
        )
        assert told.status == 1 and "shows different logs" in told and "Nobody answered" in told


async def test_a_hub_that_shows_less_than_it_showed_a_witness(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    await scene.hub.hub.witnessing.stop()
    entries = await scene.entries()
    await scene.make(entries[:3])
    told = await scene.audit("--log-key", scene.vkey, *asked(*witnesses))
    assert told.status == 1
    assert "ALARM: The hub shows you less than it showed a witness" in told
    assert f"the log that the witness {witnesses[0].verifier.name} has" in told
    assert "had 5 entries; now 3 are shown" in told


async def test_what_a_witness_found_is_told_with_its_proof(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    await scene.rewrite(2)
    await scene.send()
    await scene.log(6)
    first = witnesses[0]

    await until(lambda: bool(first.findings()), "the witness has noticed")
    told = await scene.audit("--log-key", scene.vkey, *asked(first), state=None)
    assert told.status == 1
    assert f"kept by the witness {first.verifier.name}" in told


async def test_a_cosignature_that_the_witness_did_not_make(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    await scene.hub.hub.witnessing.stop()
    await scene.connection.execute("update checkpoint_signature set line = overlay(line placing 'AAAA' from 80)")
    told = await scene.audit("--log-key", scene.vkey, *asked(*witnesses))
    assert told.status == 1
    assert "ALARM: The hub shows a signature of a witness that is wrong" in told


async def test_a_witness_that_cannot_be_relied_on(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness], tmp_path: Path
) -> None:
    first, second = witnesses
    away = Verifier("ở-đâu/w9", SmallLog().key.public_key(), 4)
    told = await scene.audit("--log-key", scene.vkey, "--witness", f"{away}=http://127.0.0.1:1")
    assert told.status == 2 and "NOT CHECKED: Nobody answered" in told and "the witness ở-đâu/w9" in told
    told = await scene.audit("--witness", f"{away}={first.url}")
    assert told.status == 2 and "is not signed with the key that you gave for it" in told
    async with running(tmp_path / "w3", "kiểm-toán/w3") as other:
        told = await scene.audit(*asked(other))
        assert told.status == 2 and "it does not follow yenbai.gov.vn/nhật-ký" in told
        other.follow(scene.vkey)
        told = await scene.audit(*asked(other))
        assert told.status == 2 and "it has not signed a checkpoint of this log yet" in told

    async def garbage(request: web.Request) -> web.Response:
        return web.json_response({"logs": [{"origin": scene.origin, "checkpoint": "x" * 1000}]})

    app = web.Application()
    app.router.add_get("/", garbage)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        told = await scene.audit("--witness", f"{second.verifier}=http://127.0.0.1:{port}")
        assert told.status == 2 and "NOT CHECKED: The answer is not that of a log" in told
    finally:
        await runner.cleanup()


async def test_the_key_of_a_log_is_not_one_of_a_witness(
    scene: Audited, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    told = await scene.audit("--witness", scene.vkey)
    assert told.status == 2 and "is not the key of a witness" in told
    told = await scene.audit("--log-key", witnesses[0].verifier)
    assert told.status == 2 and "is the key of a witness, not of a log" in told
