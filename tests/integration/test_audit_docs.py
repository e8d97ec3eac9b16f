"""What docs/audit.md and docs/threat-model.md say of the audit, and how the log is watched from inside."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from hub.cli.audit import audit
from hub.evidence import integrate
from protocol.findings import KINDS, Severity
from tests.conftest import RunningHub
from tests.support.audited import Audited
from tests.support.until import until

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_findings_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", (DOCS / "audit.md").read_text(), re.MULTILINE)
    assert rows == [(code, kind.title) for code, kind in KINDS.items()]


def test_every_finding_says_what_it_means_and_what_to_do() -> None:
    for code, kind in KINDS.items():
        assert kind.title and kind.vietnamese and kind.title != kind.vietnamese, code
        assert kind.meaning or code == "forbidden"
        assert kind.advice or kind.severity is Severity.NOTE
        assert not {"Merkle", "consistency proof", "leaf"} & set(re.split(r"\W+", kind.meaning + kind.advice))


@pytest.mark.parametrize("name", ["audit.md", "threat-model.md"])
def test_options_that_the_pages_name_exist(name: str) -> None:
    text = (DOCS / name).read_text()
    options = {option for parameter in audit.params for option in parameter.opts}
    commands = re.findall(r"lienthong audit [^`]*?(?=\n\n|```|`|$)", text, re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[a-z-]+", " ".join(commands)))
    assert named and named <= options, named - options
    if name == "audit.md":
        described = set(re.findall(r"(?<![\w-])--[a-z-]+", text))
        assert options - described <= {"--token", "--ca", "--json"} | {"url"} | {"--help"}


async def test_an_entry_is_shown_to_those_who_may_see_it(
    hub: RunningHub, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    scene = Audited(hub, tmp_path)
    await scene.settle()
    await scene.send(2)
    await scene.log(2)
    headers = {"Authorization": f"Bearer {scene.token.read_text()}"}

    async def ask(path: str, headers: dict[str, str] = headers) -> tuple[int, dict[str, object]]:
        async with http.get(f"{hub.url}/v1/log/events/{path}", headers=headers) as response:
            return response.status, await response.json()

    status, found = await ask("1")
    assert (status, found["state"], found["index"]) == (200, "kept", 1)
    assert '"event":"accepted"' in str(found["event"]) and found["receipt"]
    assert (await ask("2"))[0] == 404
    for wrong in ("x", "-1", "1" * 19, "1.0"):
        assert (await ask(wrong))[0] == 400
    assert (await ask("1", {}))[0] == 401
    assert (await ask("1", scene.province.headers))[0] == 403
    # Of a month that retention has dropped nothing is missing.
    await hub.connection.execute("delete from batch")
    assert (await ask("1"))[1]["state"] == "missing"
    await hub.connection.execute("update log_batch set batch = '018bcfe5-6800-7000-8000-000000000000'")
    status, found = await ask("1")
    assert (found["state"], found.get("event")) == ("dropped", None)


async def test_status_and_metrics_show_how_the_log_does(
    hub: RunningHub, tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrate, "PAUSE_SECONDS", 0.05)
    scene = Audited(hub, tmp_path)
    await scene.settle()
    await scene.send(3)

    async def get(path: str) -> str:
        async with http.get(hub.url + path) as response:
            assert response.status == 200
            return await response.text()

    async with http.get(f"{hub.url}/v1/status") as response:
        log = (await response.json())["log"]
    assert log["waiting"] == 1
    assert log["lag_seconds"] > 0
    assert re.search(r"^lienthong_log_lag_seconds [0-9.e-]*[1-9]", await get("/metrics"), re.MULTILINE)
    size = await scene.log()
    async with http.get(f"{hub.url}/v1/status") as response:
        log = (await response.json())["log"]
    assert (log["entries"], log["waiting"], log["lag_seconds"]) == (size, 0, 0.0)
    assert log["checkpoint_at"]
    metrics = await get("/metrics")
    assert "lienthong_log_lag_seconds 0.0" in metrics and f"lienthong_log_entries {size}.0" in metrics
    # Tables that were changed are told until they are right again.
    change = "update log_tile set hashes = set_byte(hashes, 7, 255 - get_byte(hashes, 7))"
    await hub.connection.execute(change)
    await scene.send()
    hub.hub.integrator.start()
    try:

        async def broken(value: str) -> bool:
            return f"lienthong_log_broken {value}" in await get("/metrics")

        await until(lambda: broken("1.0"), "the hub says that its tables were changed")
        await hub.connection.execute(change)
        await until(lambda: broken("0.0"), "they are right again")
        assert await until(
            lambda: hub.connection.fetchval("select max(size) from checkpoint where size > $1", size), "it goes on"
        )
    finally:
        await hub.hub.integrator.stop()
