"""Signatures in PDF attachments at every door: ignored, recorded, or required, as the sender's endpoint has it."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import orjson
import pytest

from hub.directory import change, trust
from hub.directory.change import DirectoryError
from hub.evidence import record
from hub.pdf import checks, policy, pool
from hub.pdf import queue as queues
from hub.pdf.pool import Pool
from hub.pdf.result import PdfResult, Policy, Verdict
from protocol.client import Attachment
from protocol.edxml.wrapping import wrap
from protocol.evidence import EventKind
from protocol.message import Document, Reference
from protocol.problems import Problem
from tests.conftest import RunningHub, StartHub
from tests.support import pdf_hostile as hostile
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis, connect, paper
from tests.support.axis_sdk import SdkError
from tests.support.command import Lienthong
from tests.support.desk import STORED, check_problem
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

CHECKED = EventKind.SIGNATURES_CHECKED.value
QUEUED = "select count(*) from pdf_queue"
DOORS = ["native", "edxml", "axis"]
NAME = "Báo cáo tuần 47.pdf"
SHEET = b"PK\x03\x04" + bytes(3000)


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    made = await connect(hub, http)
    await believe(hub)
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "POLL_SECONDS", 0.2)


async def believe(hub: RunningHub, authority: signed.Authority | None = None) -> None:
    """Make the tests' authority a trust anchor."""
    await trust.add_anchor(hub.connection, (authority or signed.authority()).certificate)
    await hub.follow()


async def settle(axis: Axis, wanted: Policy, countersigned: bool = False) -> None:
    """Give the province a policy; returns once the hub knows it."""
    await change.set_pdf_signatures(axis.hub.connection, axis.province.party.name, wanted, countersigned)
    await axis.hub.follow()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def upload(axis: Axis, *files: tuple[str, bytes]) -> tuple[Attachment, ...]:
    headers = axis.province.party.headers
    for _, data in files:
        url = f"{axis.hub.url}/v1/attachments/{sha256(data)}"
        async with aiohttp.ClientSession() as http, http.put(url, data=data, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
    return tuple(Attachment(name, len(data), sha256(data)) for name, data in files)


def document(axis: Axis, attachments: tuple[Attachment, ...], **members: Any) -> Document:
    return axis.province.party.document(VAN_YEN, attachments=attachments, **members)


async def send(axis: Axis, pdf: bytes, door: str = "native", name: str = NAME) -> str:
    """Send a document with this file in it by that door; the hub's id. Raises Problem, or SdkError."""
    if door == "native":
        attachments = await upload(axis, (name, pdf))
        async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
            return (await client.send(document(axis, attachments))).id
    raw = paper(content=b64encode(pdf).decode())
    if door == "axis":
        return await axis.province.sdk.send_edoc(raw, axis.province.party.agencies[0])
    async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
        return (await client.submit(raw, "application/xml")).id


async def timeline(axis: Axis, message: str) -> list[dict[str, Any]]:
    """Its events of PDFs, as its recipient sees them."""
    async with axis.district.party.client(axis.hub.url) as client:
        found = await client.events(message)
    return [event for event in found["events"] if event["event"] == CHECKED]


async def recorded(axis: Axis, message: str, count: int = 1) -> list[dict[str, Any]]:
    """The same once there are `count`, and nothing waits any more."""

    async def done() -> list[dict[str, Any]] | None:
        if await axis.hub.connection.fetchval(QUEUED):
            return None
        found = await timeline(axis, message)
        return found if len(found) >= count else None

    found = await until(done, f"{count} PDFs of {message} were checked")
    assert found is not None and len(found) == count
    return found


async def refusal(axis: Axis, pdf: bytes, door: str = "native", name: str = NAME) -> str:
    """Why it is refused. Nothing of it is kept, and the refusal is sealed."""
    before = await axis.hub.connection.fetchrow(STORED)
    with pytest.raises((Problem, SdkError)) as caught:
        await send(axis, pdf, door, name)
    if isinstance(caught.value, SdkError):
        assert caught.value.code == "61"
        reason = caught.value.description
    else:
        assert isinstance(caught.value, Problem)
        check_problem(caught.value.members(), "pdf-signature")
        assert caught.value.extra["attachment"] == sha256(pdf)
        reason = caught.value.detail
    row = await axis.hub.connection.fetchrow("select * from rejection order by id desc limit 1")
    assert row is not None and row["code"] == "pdf-signature"
    assert orjson.loads(row["event"])["reason"] == reason
    assert await axis.hub.connection.fetchrow(STORED) == before
    return str(reason)


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
    await until(lambda: _empty(axis), "the queue is empty")
    assert await timeline(axis, bare) == await timeline(axis, sheet) == []


async def _empty(axis: Axis) -> bool:
    return not await axis.hub.connection.fetchval(QUEUED)


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


# -- the queue --------------------------------------------------------------------------------------


async def test_what_waits_survives_a_restart(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()  # it dies before it comes to it
    message = await send(axis, signed.issued())
    assert await first.connection.fetchval(QUEUED) == 1
    await start_hub()
    assert len(await recorded(axis, message)) == 1


async def test_whoever_dies_over_a_message_leaves_it_to_others(
    start_hub: StartHub, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()
    message = await send(axis, signed.issued())
    row = await first.connection.fetchrow(queues.SQL.take, timedelta(seconds=1), 0)  # and then no more is heard
    assert row is not None and str(row["message"]) == message
    assert await first.connection.fetchrow(queues.SQL.take, timedelta(seconds=1), 0) is None, (
        "nobody else takes it"
    )
    await start_hub()
    assert len(await recorded(axis, message)) == 1


async def test_several_processes_share_it(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    first = await start_hub()
    axis = await connect(first, http)
    await believe(first)
    await settle(axis, Policy.RECORD)
    await first.hub.pdf_queue.stop()
    messages = [await send(axis, signed.sign(signed.paper(f"Báo cáo {n}"), signed.seal())) for n in range(6)]
    await start_hub()
    await start_hub()
    for message in messages:
        assert len(await recorded(axis, message)) == 1


async def test_endpoints_take_turns(axis: Axis) -> None:
    """However much one sends, another's message is the next but one."""
    await settle(axis, Policy.RECORD)
    await change.set_pdf_signatures(axis.hub.connection, axis.district.party.name, Policy.RECORD)
    await axis.hub.follow()
    await axis.hub.hub.pdf_queue.stop()
    many = {await send(axis, signed.issued()) for _ in range(4)}
    async with axis.district.party.client(axis.hub.url) as client:
        raw = paper(PROVINCE, sender=VAN_YEN, content=b64encode(signed.issued()).decode())
        other = (await client.submit(raw, "application/xml")).id
    order: list[str] = []
    connection = axis.hub.connection
    turn = 0
    for _ in range(2):
        row = await connection.fetchrow(queues.SQL.take, timedelta(minutes=1), turn)
        assert row is not None
        order.append(str(row["message"]))
        turn = row["endpoint"]
    assert order[0] in many and order[1] == other
    await connection.execute("update pdf_queue set due = now()")
    axis.hub.hub.pdf_queue.start()
    await until(lambda: _empty(axis), "all of them were checked")


async def test_a_file_that_is_not_there_is_tried_again(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_PAUSE", timedelta(milliseconds=50))
    await settle(axis, Policy.RECORD)
    pdf = signed.issued()
    path = axis.hub.hub.blobs.path(hashlib.sha256(pdf).digest())
    await axis.hub.hub.pdf_queue.stop()
    message = await send(axis, pdf)
    path.rename(path.with_suffix(".away"))
    axis.hub.hub.pdf_queue.start()

    async def tried() -> bool:
        return bool(await axis.hub.connection.fetchval("select max(tries) >= 3 from pdf_queue"))

    await until(tried, "it was tried again and again")
    path.with_suffix(".away").rename(path)
    assert len(await recorded(axis, message)) == 1


async def test_an_event_that_could_not_be_recorded_is_not_forgotten(
    axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "FIRST_PAUSE", timedelta(milliseconds=50))
    await settle(axis, Policy.RECORD)
    failures, real = [], record.Recorder.record

    async def failing(self: record.Recorder, events: Any) -> None:
        if len(failures) < 2:
            failures.append(events)
            raise Problem("store-unavailable", "nothing is lost")
        await real(self, events)

    monkeypatch.setattr(record.Recorder, "record", failing)
    message = await send(axis, signed.issued())
    assert len(await recorded(axis, message)) == 1 and len(failures) == 2


async def test_a_message_that_left_leaves_the_queue(axis: Axis) -> None:
    gone = UUID("01900000-0000-7000-8000-000000000000")
    await axis.hub.connection.execute("insert into pdf_queue (message, endpoint) values ($1, 1)", gone)
    axis.hub.hub.pdf_queue.poke()
    await until(lambda: _empty(axis), "the queue is empty")


async def test_a_message_and_its_place_in_the_queue_are_committed_together(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    connection = axis.hub.connection
    await axis.hub.hub.pdf_queue.stop()
    await connection.execute("alter table pdf_queue rename to gone")
    with pytest.raises(Problem) as caught:
        await send(axis, signed.issued())
    assert caught.value.code == "internal"
    assert [*(await connection.fetchrow(STORED) or ())] == [0, 0, 0]
    await connection.execute("alter table gone rename to pdf_queue")
    await send(axis, signed.issued())
    assert await connection.fetchval(QUEUED) == 1


# -- require ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_only_signed_intact_and_trusted_will_do(axis: Axis, door: str) -> None:
    await settle(axis, Policy.REQUIRE)
    message = await send(axis, signed.issued(), door)
    (event,) = await recorded(axis, message)
    assert event["pdf"]["verdict"] == "signed", "what it was accepted for is evidence too"
    for pdf, reason in [
        (signed.paper(), "the PDF has no signature"),
        (signed.sign(signed.paper(), signed.stranger()), "leads to no authority that this hub trusts"),
        (signed.sign(signed.issued(), signed.stranger(), "Dấu giả"), "leads to no authority that this hub trusts"),
        (signed.replace_content(signed.issued(), "Phai nop phat"), "content was changed after the signature"),
        (signed.sign(signed.rewrite(signed.issued()), signed.seal(), "Dấu 2"), "content was changed after"),
        (signed.damaged(signed.issued()), "is not intact: the bytes that it covers were changed"),
        (signed.issued()[:-300], "the PDF cannot be read"),
        (hostile.encrypted(signed.paper()), "the PDF is encrypted"),
        (hostile.nested(), "the PDF could not be checked: it is nested too deeply"),
    ]:
        told = await refusal(axis, pdf, door)
        assert reason in told and ".pdf: " in told


async def test_without_trust_anchors_nothing_passes(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(hub, http)
    await settle(axis, Policy.REQUIRE)
    assert "no trust anchors" in await refusal(axis, signed.issued())


async def test_revocation_lists_that_the_hub_has(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    sent = "insert into revocation_answer values ($1, 'crl', $2, $3, $4)"
    address, now = "http://crl.example.invalid/thu-nghiem.crl", datetime.now(UTC)
    older, newer = signed.below().revocation_list(), signed.below().revocation_list(signed.chairman())
    for der, at, place in (
        (newer, now, ""),
        (older, now - timedelta(hours=1), ""),
        (bytes(3 << 20), now, "/huge"),
        (b"\x30\x03abc", now, "/broken"),
    ):
        await axis.hub.connection.execute(sent, hashlib.sha256(der).digest(), address + place, at, der)
    (event,) = await recorded(axis, await send(axis, signed.issued()))
    assert event["pdf"]["verdict"] == "untrusted" and "was revoked at" in event["pdf"]["reason"]
    assert "was revoked at" in event["pdf"]["signatures"][0]["reason"]
    assert event["pdf"]["signatures"][1]["trusted"] is True


async def test_pages_changed_under_a_later_seal(axis: Axis) -> None:
    """As where a clerk writes number and date into the page that the head has signed, and seals it."""
    pdf = signed.sign(signed.rewrite(signed.sign(signed.paper(), signed.chairman())), signed.seal(), "Con dấu")
    await settle(axis, Policy.REQUIRE)
    assert "content was changed after" in await refusal(axis, pdf)
    await settle(axis, Policy.REQUIRE, countersigned=True)
    (event,) = await recorded(axis, await send(axis, pdf))
    assert (event["pdf"]["verdict"], event["pdf"]["countersigned"]) == ("changed", True)
    assert "content was changed after" in await refusal(axis, signed.rewrite(pdf))


async def test_every_pdf_of_a_message_must_be_signed(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    attachments = await upload(axis, (NAME, signed.issued()), ("Phụ lục 1.pdf", signed.paper("Phụ lục 1")))
    async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as caught:
            await client.send(document(axis, attachments))
    assert caught.value.detail.startswith("Phụ lục 1.pdf: the PDF has no signature")
    assert caught.value.extra["verdict"] == "unsigned"


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_called_a_pdf_must_be_one(axis: Axis, door: str) -> None:
    await settle(axis, Policy.REQUIRE)
    with pytest.raises((Problem, SdkError)) as caught:
        await send(axis, b"<html>" + bytes(2000), door)
    assert "it is called a PDF and is none" in str(caught.value)


async def test_other_files_pass(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    message = await send(axis, SHEET, name="Phụ lục.xlsx")
    assert await timeline(axis, message) == []


async def test_a_pdf_by_another_name_is_one(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    assert "has no signature" in await refusal(axis, signed.paper(), name="công văn.docx")
    assert "has no signature" not in await refusal(axis, b"\n" * 500 + signed.issued(), name="công văn.txt")


async def test_one_of_a_batch(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    good, bad = await upload(axis, (NAME, signed.issued()), ("xấu.pdf", signed.paper()))
    async with axis.province.party.client(axis.hub.url) as client:
        messages = [client.sign(document(axis, found)) for found in ((good,), (bad,), ())]
        first, second, third = await client.submit_many(messages)
    assert isinstance(second, Problem) and second.code == "pdf-signature"
    assert not isinstance(first, Problem) and not isinstance(third, Problem)


async def test_what_else_is_wrong_is_said_first(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes the hub check what it would refuse anyway."""
    attachments = await upload(axis, (NAME, signed.paper()))
    await settle(axis, Policy.REQUIRE)
    monkeypatch.setattr(Pool, "check", None)
    async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as caught:
            await client.send(axis.province.party.document("000.00.99.H63", attachments=attachments))
        assert caught.value.code == "recipient-unknown"
        with pytest.raises(Problem) as caught:
            await client.submit(
                paper("000.00.99.H63", content=b64encode(signed.paper()).decode()), "application/xml"
            )
        assert caught.value.code == "recipient-unknown"


async def test_checking_begins_with_the_upload(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    await upload(axis, (NAME, signed.issued()), ("Phụ lục.xlsx", SHEET))

    async def kept() -> int:
        return int(await axis.hub.connection.fetchval("select count(*) from pdf_result"))

    assert await until(kept, "the result is there before any message") == 1


def _hold_checks(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Checks of PDFs begin when what is returned is set."""
    go_on, check = asyncio.Event(), Pool.check

    async def slow(self: Pool, descriptor: int, data: checks.TrustData) -> PdfResult:
        await go_on.wait()
        return await check(self, descriptor, data)

    monkeypatch.setattr(Pool, "check", slow)
    return go_on


async def test_what_takes_too_long_is_asked_for_again(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    await settle(axis, Policy.REQUIRE)
    monkeypatch.setattr(policy, "WAIT_SECONDS", 0.05)
    go_on = _hold_checks(monkeypatch)
    pdf = signed.issued()
    with pytest.raises(Problem) as caught:
        await send(axis, pdf)
    assert (caught.value.code, caught.value.retryable) == ("overloaded", True)
    assert "send the same message again" in caught.value.detail
    assert [*(await axis.hub.connection.fetchrow(STORED) or ())] == [0, 0, 0]
    assert await axis.hub.connection.fetchval("select count(*) from rejection") == 0, "it was not judged"
    attachments = await upload(axis, (NAME, pdf))
    async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
        messages = [client.sign(document(axis, found)) for found in (attachments, (), attachments)]
        late, other, later = await client.submit_many(messages)
    assert isinstance(late, Problem) and isinstance(later, Problem) and not isinstance(other, Problem)
    assert (late.code, later.code) == ("overloaded", "overloaded")
    go_on.set()
    monkeypatch.setattr(policy, "WAIT_SECONDS", 30.0)
    await send(axis, pdf)


async def test_an_endpoint_waits_in_a_line_of_its_own(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    await settle(axis, Policy.REQUIRE)
    monkeypatch.setattr(policy, "MAX_WAITING", 1)
    go_on = _hold_checks(monkeypatch)
    waiting = asyncio.create_task(send(axis, signed.issued()))
    await until(lambda: axis.hub.hub.pdf_signatures._waiting, "one waits")
    with pytest.raises(Problem) as caught:
        await send(axis, signed.sign(signed.paper(), signed.seal()))
    assert caught.value.code == "overloaded" and "wait to have their PDFs checked" in caught.value.detail
    go_on.set()
    assert await waiting


async def test_no_process_is_no_fault_of_a_pdf(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "FIRST_PAUSE", timedelta(milliseconds=50))
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    await settle(axis, Policy.REQUIRE)
    with pytest.raises(Problem) as caught:
        await send(axis, signed.issued())
    assert (caught.value.code, caught.value.retryable) == ("internal", True)
    assert await axis.hub.connection.fetchval("select count(*) from rejection") == 0
    await settle(axis, Policy.RECORD)
    message = await send(axis, signed.issued())

    async def tried() -> bool:
        return bool(await axis.hub.connection.fetchval("select max(tries) >= 2 from pdf_queue"))

    await until(tried, "it was tried again")
    monkeypatch.undo()
    (event,) = await recorded(axis, message)
    assert event["pdf"]["verdict"] == "signed"


async def test_a_store_that_is_away(axis: Axis) -> None:
    await settle(axis, Policy.REQUIRE)
    attachments = await upload(axis, (NAME, signed.issued()))
    await until(lambda: _kept(axis), "it was checked early")
    await axis.hub.connection.execute("alter table pdf_result rename to gone")
    with pytest.raises(Problem) as caught:
        async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
            await client.send(document(axis, attachments))
    assert caught.value.code == "store-unavailable"
    await axis.hub.connection.execute("alter table gone rename to pdf_result")


async def _kept(axis: Axis) -> int:
    return int(await axis.hub.connection.fetchval("select count(*) from pdf_result"))


# -- bounds -----------------------------------------------------------------------------------------


async def test_the_settings_bound_what_a_pdf_may_cost(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    hub = await start_hub(pdf_max_bytes=5000)
    axis = await connect(hub, http)
    await believe(hub)
    await settle(axis, Policy.RECORD)
    (event,) = await recorded(axis, await send(axis, signed.issued()))
    assert event["pdf"]["verdict"] == Verdict.LIMIT and "more than 5000" in event["pdf"]["reason"]
    await settle(axis, Policy.REQUIRE)
    assert "the PDF could not be checked: it has" in await refusal(axis, signed.issued(), "edxml")


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
