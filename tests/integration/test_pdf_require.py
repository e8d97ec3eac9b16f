"""Signatures in PDF attachments where the sender's endpoint requires them: what is refused, and what waits."""

from __future__ import annotations

import asyncio
import hashlib
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from hub.pdf import checks, policy, pool
from hub.pdf import queue as queues
from hub.pdf.pool import Pool
from hub.pdf.result import PdfResult, Policy, Verdict
from protocol.problems import Problem
from tests.conftest import RunningHub, StartHub
from tests.support import pdf_hostile as hostile
from tests.support import pdf_scene
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis, connect, paper
from tests.support.axis_sdk import SdkError
from tests.support.desk import STORED
from tests.support.pdf_scene import (
    DOORS,
    NAME,
    SHEET,
    believe,
    document,
    recorded,
    refusal,
    send,
    settle,
    timeline,
    upload,
)
from tests.support.until import until

axis = pdf_scene.axis
quick = pdf_scene.quick


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


@pytest.mark.parametrize("door", DOORS)
async def test_a_message_begins_when_its_pdfs_have_been_looked_at(
    axis: Axis, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is not older than that, however long it took: what stood in line for too long is not committed."""
    await settle(axis, Policy.REQUIRE)
    check, looked = Pool.check, [0.0]

    async def noted(*arguments: Any) -> PdfResult:
        result = await check(*arguments)
        looked.append(time.time())
        return result

    monkeypatch.setattr(Pool, "check", noted)
    message = UUID(await send(axis, signed.issued(), door))
    assert looked[-1] > 0.0 and message.int >> 80 >= int(looked[-1] * 1000)


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
