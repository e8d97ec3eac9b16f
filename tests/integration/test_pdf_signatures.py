"""Signatures in PDF attachments at every door, ignored or recorded, as the sender's endpoint has it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from hub.directory import change, trust
from hub.directory.change import DirectoryError
from hub.pdf import checks
from hub.pdf.pool import Pool
from hub.pdf.result import PdfResult, Policy
from protocol.edxml.wrapping import wrap
from protocol.message import Reference
from tests.support import pdf_hostile as hostile
from tests.support import pdf_scene
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis
from tests.support.command import Lienthong
from tests.support.pair import Pair
from tests.support.pdf_scene import (
    CHECKED,
    DOORS,
    NAME,
    QUEUED,
    SHEET,
    believe,
    document,
    empty,
    recorded,
    send,
    settle,
    sha256,
    timeline,
    upload,
)
from tests.support.until import until

axis = pdf_scene.axis
quick = pdf_scene.quick


# -- ignore -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_without_a_policy_nobody_looks(axis: Axis, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    async def looked(*args: object) -> PdfResult:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(Pool, "check", looked)
    message = await send(axis, signed.issued(), door)
    assert await axis.hub.connection.fetchval(QUEUED) == 0
    assert await timeline(axis, message) == []
    assert axis.hub.hub.pdf_signatures._checks._processes.processes == 0


# -- record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_found_is_evidence_of_the_message(axis: Axis, door: str) -> None:
    await settle(axis, Policy.RECORD)
    pdf = signed.issued()
    message = await send(axis, pdf, door)
    (event,) = await recorded(axis, message)
    assert event["attachment"]["sha256"] == sha256(pdf) and event["attachment"]["name"].endswith(".pdf")
    result = event["pdf"]
    assert (result["verdict"], result["revisions"]) == ("signed", 4)
    assert [one["name"] for one in result["signatures"]] == [signed.CHAIRMAN, signed.OFFICE]
    assert result["signatures"][1]["whole"] is True
    # It is proven as every event is, and speaks of the message's own bytes.
    async with axis.district.party.client(axis.hub.url) as client:
        raw = await client.fetch(message)
        pair = Pair(axis.hub, axis.province.party, axis.district.party)
        async with pair.sender:
            said = await pair.check(orjson.dumps(event["receipt"]), raw)
    assert (said["event"], said["message"], said["pdf"]) == (CHECKED, message, result)


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_wrong_is_recorded_and_refuses_nothing(axis: Axis, door: str) -> None:
    await settle(axis, Policy.RECORD)
    for pdf, verdict in [
        (signed.paper(), "unsigned"),
        (signed.sign(signed.paper(), signed.stranger()), "untrusted"),
        (signed.replace_content(signed.issued(), "Phai nop phat"), "changed"),
        (signed.issued()[:-300], "unreadable"),
        (hostile.encrypted(signed.paper()), "encrypted"),
        (hostile.nested(), "limit"),
    ]:
        (event,) = await recorded(axis, await send(axis, pdf, door))
        assert event["pdf"]["verdict"] == verdict and event["pdf"]["reason"]


async def test_only_pdfs_and_each_once(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    one, other = signed.issued(), signed.sign(signed.paper("Phụ lục"), signed.seal())
    attachments = await upload(
        axis, (NAME, one), ("Phụ lục.xlsx", SHEET), ("không tên", other), ("một lần nữa.pdf", one)
    )
    async with axis.province.party.client(axis.hub.url) as client:
        message = (await client.send(document(axis, attachments))).id
    events = await recorded(axis, message, 2)
    assert {event["attachment"]["name"] for event in events} == {NAME, "không tên"}


async def test_messages_without_pdfs(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    async with axis.province.party.client(axis.hub.url) as client:
        bare = (await client.send(document(axis, ()))).id
        assert await axis.hub.connection.fetchval(QUEUED) == 0
        sheet = (await client.send(document(axis, await upload(axis, ("Phụ lục.xlsx", SHEET))))).id
    await until(lambda: empty(axis), "the queue is empty")
    assert await timeline(axis, bare) == await timeline(axis, sheet) == []


async def test_the_axis_zips_what_it_carries(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    zipped = b"".join(wrap("5f0c3a17-0000-4000-8000-000000000001.pdf", [signed.issued()]))
    (event,) = await recorded(axis, await send(axis, zipped, "axis"))
    assert event["attachment"]["sha256"] == sha256(signed.issued()) and event["pdf"]["verdict"] == "signed"
    await until(lambda: not list((axis.hub.hub.blobs.root / "incoming").iterdir()), "nothing is left on the disk")


async def test_the_same_bytes_are_checked_once(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    await settle(axis, Policy.RECORD)
    calls, check = [], Pool.check

    async def counted(self: Pool, descriptor: int, data: checks.TrustData) -> PdfResult:
        calls.append(descriptor)
        return await check(self, descriptor, data)

    monkeypatch.setattr(Pool, "check", counted)
    pdf = signed.issued()
    first = await recorded(axis, await send(axis, pdf))
    second = await recorded(axis, await send(axis, pdf))
    assert len(calls) == 1 and first[0]["pdf"] == second[0]["pdf"]
    # Another authority is trusted: then it is not known any more.
    await believe(axis.hub, signed.Authority("Cơ quan chứng thực khác"))
    third = await recorded(axis, await send(axis, pdf))
    assert len(calls) == 2 and third[0]["pdf"]["trust"] != first[0]["pdf"]["trust"]
    monkeypatch.setattr(checks, "FRESH", timedelta(0))
    await recorded(axis, await send(axis, pdf))
    assert len(calls) == 3


async def test_results_are_forgotten_after_a_day(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    message = await send(axis, signed.issued())
    await recorded(axis, message)
    connection = axis.hub.connection
    await connection.execute("update pdf_result set checked_at = now() - interval '25 hours'")
    await axis.hub.hub.pdf_signatures._checks.forget()
    assert await connection.fetchval("select count(*) from pdf_result") == 0
    assert len(await timeline(axis, message)) == 1, "evidence stays"


async def test_a_recipient_from_whom_it_was_recalled_sees_nothing_of_it(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    attachments = await upload(axis, (NAME, signed.issued()))
    async with axis.province.party.client(axis.hub.url) as client:
        sent = document(axis, attachments)
        message = (await client.send(sent)).id
        await recorded(axis, message)
        await client.send(document(axis, (), business="recall", response_for=(Reference(sent.id),)))
        own = [event["event"] for event in (await client.events(message))["events"]]
    assert CHECKED in own and await timeline(axis, message) == []


# -- the policy and the commands --------------------------------------------------------------------


async def test_setting_the_policy(axis: Axis) -> None:
    connection, name = axis.hub.connection, axis.province.party.name
    with pytest.raises(DirectoryError, match="--pdf require"):
        await change.set_pdf_signatures(connection, name, Policy.RECORD, countersigned=True)
    with pytest.raises(DirectoryError, match="no endpoint 'ai'"):
        await change.set_pdf_signatures(connection, "ai", Policy.RECORD)
    await settle(axis, Policy.REQUIRE, countersigned=True)
    kept = axis.hub.hub.directory.picture.endpoints[axis.province.endpoint]
    assert (kept.pdf_signatures, kept.pdf_countersigned) == (Policy.REQUIRE, True)
    await settle(axis, Policy.IGNORE)
    kept = axis.hub.hub.directory.picture.endpoints[axis.province.endpoint]
    assert (kept.pdf_signatures, kept.pdf_countersigned) == (Policy.IGNORE, False)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("update endpoint set pdf_signatures = 'x'")


async def test_the_commands(axis: Axis, database_url: str, tmp_path: Path) -> None:
    lienthong = Lienthong(tmp_path, {"LIENTHONG_DATABASE_URL": database_url})
    name = axis.province.party.name

    async def call(*words: object) -> Any:
        return await asyncio.to_thread(lienthong.json, *words)

    told = await call("endpoint", "signatures", name, "--pdf", "require", "--pdf-countersigned")
    assert told == {"name": name, "pdf_signatures": "require", "pdf_countersigned": True}
    (row,) = [row for row in await call("endpoint", "list") if row["name"] == name]
    assert (row["pdf_signatures"], row["pdf_countersigned"]) == ("require", True)
    assert "require, or" in await asyncio.to_thread(lienthong, "endpoint", "list", COLUMNS="220")
    both = await call("endpoint", "signatures", name, "--policy", "record", "--pdf", "record")
    assert (both["edxml_signatures"], both["pdf_signatures"]) == ("record", "record")
    for wrong in ([], ["--pin", "00"], ["--pdf-countersigned"], ["--pdf", "x"]):
        result = await asyncio.to_thread(lienthong.call, "endpoint", "signatures", name, *wrong)
        assert result.exit_code == 2, wrong
    await axis.hub.follow()

    assert await call("pdf", "queue") == []
    assert "No PDF waits" in await asyncio.to_thread(lienthong, "pdf", "queue")
    await axis.hub.hub.pdf_queue.stop()
    message = await send(axis, signed.issued())
    (waiting,) = await call("pdf", "queue")
    assert (waiting["message"], waiting["endpoint"], waiting["tries"]) == (message, name, 0)
    assert "Nothing is recorded" in await asyncio.to_thread(lienthong, "pdf", "show", message)
    axis.hub.hub.pdf_queue.start()
    await recorded(axis, message)
    (event,) = await call("pdf", "show", message)
    assert event["pdf"]["verdict"] == "signed"
    shown = await asyncio.to_thread(lienthong, "pdf", "show", message)
    assert signed.CHAIRMAN in shown and NAME in shown and "covers the whole file" in shown

    await trust.remove_anchor(axis.hub.connection, signed.authority().certificate_sha256)
    await axis.hub.follow()
    await call("pdf", "again", message)
    axis.hub.hub.pdf_queue.poke()
    events = await recorded(axis, message, 2)
    assert [event["pdf"]["verdict"] for event in events] == ["signed", "untrusted"]
    complaint = await asyncio.to_thread(lienthong.fails, "pdf", "again", "01900000-0000-7000-8000-000000000000")
    assert "there is no message" in complaint


async def test_checking_a_file_by_hand(axis: Axis, database_url: str, tmp_path: Path) -> None:
    lienthong = Lienthong(tmp_path, {"LIENTHONG_DATABASE_URL": database_url})
    file, anchor = tmp_path / "công văn.pdf", tmp_path / "gốc.pem"
    file.write_bytes(signed.issued())
    anchor.write_text(signed.authority().pem)

    async def verdict(*words: object) -> str:
        found = await asyncio.to_thread(lienthong.json, "pdf", "check", file, *words)
        assert datetime.fromisoformat(found["checked_at"]) > datetime.now(UTC) - timedelta(minutes=1)
        return str(found["verdict"])

    assert await verdict() == "signed", "with the anchors of the hub"
    assert await verdict("--trust", anchor) == "signed"
    anchor.write_text(signed.Authority("Lạ").pem)
    assert await verdict("--trust", anchor) == "untrusted"
    anchor.write_text("không phải chứng thư")
    complaint = await asyncio.to_thread(lienthong.fails, "pdf", "check", file, "--trust", anchor)
    assert "holds no PEM certificate" in complaint
