"""A trust anchor below which it must be known that nobody's certificate was revoked, and signatures in PDFs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hub.directory import trust
from hub.pdf.check import check
from hub.pdf.pool import TrustData
from hub.pdf.result import PdfResult, Policy, Verdict
from hub.pdf.trusted import NOT_KNOWN, Trust
from tests.support import pdf_scene
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis
from tests.support.pdf_scene import recorded, refusal, send, settle
from tests.support.pdf_signed import NOW, Authority, below, chairman, clock, paper, seal, sign

axis, quick = pdf_scene.axis, pdf_scene.quick
LIST = "insert into revocation_answer values ($1, 'crl', $2, $3, $4)"
ADDRESS = "http://crl.example.invalid/thu-nghiem.crl"


async def _found(pdf: bytes, *crls: bytes, hard: bool = True) -> PdfResult:
    anchor = signed.authority().der
    return await check(pdf, Trust([anchor], crls, [anchor] if hard else []))


async def test_what_is_not_known_is_not_trusted() -> None:
    pdf = sign(paper(), seal())
    assert (await _found(pdf, hard=False)).verdict is Verdict.SIGNED
    result = await _found(pdf)
    assert (result.verdict, result.signatures[0].intact) == (Verdict.UNTRUSTED, True)
    assert result.reason.endswith(NOT_KNOWN)
    assert (await _found(pdf, signed.authority().revocation_list())).verdict is Verdict.SIGNED


async def test_each_authority_on_the_way_must_have_said_something() -> None:
    pdf = sign(paper(), chairman())  # two steps below the anchor
    own, above = below().revocation_list(), signed.authority().revocation_list()
    for lists in ((), (own,), (above,)):
        assert (await _found(pdf, *lists)).reason.endswith(NOT_KNOWN)
    assert (await _found(pdf, own, above)).verdict is Verdict.SIGNED
    revoked = await _found(pdf, below().revocation_list(chairman()), above)
    assert "was revoked at" in revoked.reason


async def test_a_list_that_has_grown_old_says_nothing() -> None:
    pdf, old = sign(paper(), seal()), signed.authority().revocation_list(at=NOW - timedelta(days=90))
    assert (await _found(pdf, old, hard=False)).verdict is Verdict.SIGNED
    assert (await _found(pdf, old)).reason.endswith(NOT_KNOWN)


async def test_only_what_leads_to_that_anchor() -> None:
    other = Authority("Cơ quan chứng thực công cộng (thử nghiệm)")
    pdf = sign(paper(), seal())
    result = await check(pdf, Trust([signed.authority().der, other.der], (), [other.der]))
    assert result.verdict is Verdict.SIGNED


async def test_at_the_time_of_a_time_stamp() -> None:
    """The certificate has expired since; a list made later says that it was good then."""
    then = NOW - timedelta(days=30)
    expired = signed.Signer("Trần Thị Bích", days=(-300, -10))
    pdf = sign(paper(), expired, stamper=clock().stamper(then))
    assert (await _found(pdf, hard=False)).verdict is Verdict.SIGNED
    assert (await _found(pdf)).verdict is Verdict.UNTRUSTED
    assert (await _found(pdf, signed.authority().revocation_list())).verdict is Verdict.SIGNED


@pytest.mark.parametrize("door", pdf_scene.DOORS)
async def test_an_operator_says_so_of_an_anchor(axis: Axis, door: str) -> None:
    connection, pdf = axis.hub.connection, sign(paper(), seal())
    await settle(axis, Policy.REQUIRE)
    await recorded(axis, await send(axis, pdf, door))
    await trust.add_anchor(connection, signed.authority().certificate, revocation="hard")
    await axis.hub.follow()
    assert NOT_KNOWN in await refusal(axis, sign(paper(), seal()), door)
    crl, now = signed.authority().revocation_list(), datetime.now(UTC)
    await connection.execute(LIST, b"l" * 32, ADDRESS, now, crl)
    await trust.add_anchor(connection, signed.authority().certificate, revocation="hard")  # lists are seen at once
    await axis.hub.follow()
    await recorded(axis, await send(axis, sign(paper("Báo cáo khác"), seal()), door))


def test_the_policy_is_part_of_what_a_result_rests_on() -> None:
    anchor = signed.authority().der
    assert TrustData((anchor,)).digest != TrustData((anchor,), (), (anchor,)).digest
