"""Auditing an honest hub, and what auditors do besides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hub.cli import audit as command
from hub.cli.output import Output
from protocol.note import read_verifier
from tests.support import audited
from tests.support.audited import Audited
from tests.support.until import until

make_audited = audited.make_audited
scene = audited.scene


async def test_an_honest_log_is_found_in_order(scene: Audited) -> None:
    told = await scene.audit("--log-key", scene.vkey)
    assert told.status == 0, told.text
    assert "5 entries that are new here" in told and "Nothing wrong was found." in told
    await scene.send(3)
    await scene.log(8)
    told = await scene.audit("--log-key", scene.vkey)
    assert told.status == 0, told.text
    assert "8 entries; 5 were there at" in told
    assert scene.evidence() == []


async def test_without_a_key_the_first_is_trusted_and_that_is_said(scene: Audited) -> None:
    for _ in range(2):
        told = await scene.audit()
        assert told.status == 0, told.text
        assert "The hub's key was taken from the hub itself" in told and scene.vkey in told
    assert "taken from the hub" not in await scene.audit("--log-key", scene.vkey)
    assert "taken from the hub" not in await scene.audit()  # confirmed once, it stays so


async def test_everything_of_several_tiles_is_downloaded_and_checked(scene: Audited) -> None:
    await scene.send(600)
    size = await scene.log(605)
    found = await scene.json("--log-key", scene.vkey)
    assert (found["status"], found["new_entries"], found["checked_below"]) == (0, size, size)
    found = await scene.json()
    assert (found["status"], found["new_entries"], found["old_entries"]) == (0, size - 512, 512)
    found = await scene.json("--full")
    assert (found["status"], found["new_entries"], found["old_entries"]) == (0, size, 0)


async def test_receipts_and_events_are_those_of_the_log(scene: Audited) -> None:
    async with scene.district.client(scene.url) as client:
        entries, _ = await client.read()
        for entry in entries:
            await client.acknowledge(entry)
    size = await scene.log()
    assert size > 5
    found = await scene.json(
        "--log-key", scene.vkey, "--receipts", scene.receipts, "--token-file", scene.token, "--events", "50"
    )
    assert [finding["code"] for finding in found["findings"]] == ["first-use"]
    assert found["receipts"] == 5
    # 50 of few entries: all are met. A message's history has its acceptance and its end too.
    assert found["events"] > 10


async def test_a_receipt_whose_time_is_not_over_may_wait(scene: Audited) -> None:
    await scene.send()
    told = await scene.audit("--log-key", scene.vkey, "--receipts", scene.receipts)
    assert told.status == 0, told.text
    assert "An event is not in the log yet, and has time until then" in told
    assert "5 are in the log" in told


async def test_an_endpoint_looks_at_its_own_messages(scene: Audited) -> None:
    found = await scene.json(
        "--log-key", scene.vkey, "--token", scene.province.token, "--receipts", scene.receipts
    )
    assert (found["status"], found["receipts"], found["events"]) == (0, 5, 5)
    await scene.connection.execute("update message set event = replace(event, 'normal', 'express')")
    told = await scene.audit("--token", scene.province.token, "--receipts", scene.receipts)
    assert told.status == 1 and "ALARM: The hub can no longer prove an event of its own" in told
    await scene.connection.execute("delete from message")
    told = await scene.audit("--token", scene.province.token, "--receipts", scene.receipts)
    assert told.status == 0 and "Note: The hub no longer has a message" in told


async def test_it_follows_until_it_is_stopped(scene: Audited) -> None:
    """Each audit is a line when nothing is wrong, and all of it when something is."""
    told: list[str] = []

    class Heard(Output):
        def result(self, members: Any, sentence: str) -> None:
            told.append(sentence)

    wishes = command._Wishes(
        scene.url, read_verifier(scene.vkey), scene.folder / "state.json", scene.folder / "bằng chứng", (), (),
        False, None, (), None, None, 0, 60.0,
    )  # fmt: skip
    following = asyncio.create_task(command._follow(Heard(False), wishes, 0.01))
    await until(lambda: len(told) > 2, "three audits")
    assert "Nothing wrong was found." in told[0] and told[1].endswith("5 entries, in order")
    await scene.rewrite(1)
    await until(lambda: "ALARM" in told[-1], "it is noticed")
    following.cancel()
    assert await following == 1
    unfinished = asyncio.create_task(command._follow(Heard(False), wishes, None))
    await asyncio.sleep(0)
    unfinished.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unfinished


async def test_what_cannot_be_used_is_no_alarm(scene: Audited, tmp_path: Path) -> None:
    """An exit status of 1 is for tampering."""
    broken = tmp_path / "hỏng.json"
    broken.write_text("{}x")
    for options, words in (
        (["--log-key", "a+b+c"], "is not a verifier key"),
        (["--seen", broken], "this is not an auditor's state"),
        (["--hub-key", broken, "--receipts", scene.receipts], "Error: "),
    ):
        told = await scene.audit(*options)
        assert told.status == 2 and words in told, told.text
    told = await scene.audit(state="hỏng.json")
    assert told.status == 2 and "what it remembered is then lost" in told
    assert broken.read_text() == "{}x"
    (tmp_path / "tệp").write_text("")
    told = await scene.audit(state="tệp/state.json")
    assert told.status == 2 and "NOT CHECKED: What was seen could not be written down" in told, told.text
    assert "Nothing wrong" not in told


async def test_an_endpoint_is_told_what_it_may_not_see(scene: Audited) -> None:
    told = await scene.audit("--log-key", scene.vkey, "--token", scene.province.token)
    assert told.status == 2
    assert "NOT CHECKED: The hub does not let this token see that" in told
    assert "lienthong operator token --role auditor" in told
