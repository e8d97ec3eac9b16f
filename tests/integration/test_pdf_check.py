"""What is found of signatures in PDFs as offices sign them, and as somebody forges them; what a reader is told."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import MDPPerm, SigSeedSubFilter

from hub.pdf.check import check
from hub.pdf.result import MAX_SIGNATURES, Changes, PdfResult, PdfSignature, Verdict, conclude, is_pdf, judge, line
from hub.pdf.source import edxml_files
from hub.pdf.trusted import Trust
from hub.pdf.words import describe
from hub.store.blobs import Blobs
from protocol.problems import Problem
from tests.support import pdf_hostile as hostile
from tests.support import pdf_signed as signed
from tests.support.edxml_samples import each_sample
from tests.support.pdf_signed import CHAIRMAN, NOW, OFFICE, Signer, chairman, clock, paper, seal, sign


async def found(pdf: bytes, *crls: bytes, anchors: list[signed.Authority] | None = None) -> PdfResult:
    trusted = [signed.authority()] if anchors is None else anchors
    return await check(pdf, Trust([one.der for one in trusted], crls))


def one(result: PdfResult) -> PdfSignature:
    (signature,) = result.signatures
    return signature


# -- as offices sign --------------------------------------------------------------------------------


async def test_person_and_organisation_with_number_and_date_between() -> None:
    result = await found(signed.issued())
    assert (result.verdict, result.reason, result.revisions) == (Verdict.SIGNED, "", 4)
    person, office = result.signatures
    assert (person.name, person.organisation, person.field) == (CHAIRMAN, OFFICE, "Chữ ký 1")
    assert (office.name, office.field, office.issuer) == (
        OFFICE,
        "Con dấu",
        "Cơ quan chứng thực số chuyên dùng (thử nghiệm)",
    )
    assert (person.certificate, office.certificate) == (chairman().fingerprint, seal().fingerprint)
    assert person.intact and person.trusted and office.intact and office.trusted
    # The person signed the second state of the file; the field was filled in, then the office signed all of it.
    assert (person.whole, person.revision, person.changes) == (False, 2, Changes.FORM)
    assert (office.whole, office.revision, office.changes) == (True, 4, Changes.NONE)
    assert (person.algorithm, office.algorithm) == ("sha256 with ECDSA secp256r1", "sha256 with RSA 2048")
    assert not person.weak and not office.weak
    assert (person.page, person.place) == (1, (320.0, 120.0, 560.0, 200.0))
    assert (office.page, office.place) == (1, (300.0, 210.0, 400.0, 290.0))


async def test_who_is_told_is_no_more_than_who_signed() -> None:
    """Certificates hold the numbers of people's identity cards."""
    result = await found(signed.issued())
    assert "015099000001" not in describe(result) + repr(result)


async def test_no_signature() -> None:
    result = await found(paper())
    assert (result.verdict, result.reason, result.signatures) == (Verdict.UNSIGNED, "it has no signature", ())


async def test_an_invisible_signature_and_several_pages() -> None:
    signature = one(await found(sign(paper(pages=3), chairman())))
    assert (signature.page, signature.place, signature.whole) == (0, (), True)


async def test_adobes_way_of_signing() -> None:
    pdf = sign(paper(), seal(), subfilter=SigSeedSubFilter.ADOBE_PKCS7_DETACHED)
    assert (await found(pdf)).verdict is Verdict.SIGNED


async def test_a_time_stamp() -> None:
    signature = one(await found(sign(paper(), chairman(), stamper=clock().stamper(NOW))))
    assert signature.timestamp is not None
    assert signature.timestamp.at == NOW.isoformat().replace("+00:00", "Z")
    assert signature.timestamp.authority == "Dịch vụ cấp dấu thời gian (thử nghiệm)"
    assert signature.timestamp.intact and signature.timestamp.trusted
    assert signature.claimed_at


async def test_a_time_stamp_over_the_whole_file_is_nobodys_signature() -> None:
    def stamp(pdf: bytes) -> bytes:
        stamper = signers.PdfTimeStamper(clock().stamper(NOW))
        out = stamper.timestamp_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)), "sha256")
        return bytes(out.getvalue())

    alone = await found(await asyncio.to_thread(stamp, paper()))
    assert (alone.verdict, one(alone).kind) == (Verdict.UNSIGNED, "timestamp")
    result = await found(await asyncio.to_thread(stamp, sign(paper(), chairman())))
    signature, stamped = result.signatures
    assert (result.verdict, signature.changes) == (Verdict.SIGNED, Changes.MAINTENANCE)
    assert (stamped.kind, stamped.intact, stamped.trusted, stamped.whole) == ("timestamp", True, True, True)


async def test_revocation_data_that_the_file_carries() -> None:
    def add(pdf: bytes) -> bytes:
        from pyhanko.sign.validation.dss import DocumentSecurityStore

        out = io.BytesIO(pdf)
        crl = signed.asn1_crl(signed.below().revocation_list())
        DocumentSecurityStore.add_dss(out, sig_contents=None, crls=[crl])
        return out.getvalue()

    result = await found(await asyncio.to_thread(add, sign(paper(), chairman())))
    assert (result.verdict, one(result).revocation, one(result).changes) == (
        Verdict.SIGNED,
        ("crl",),
        Changes.MAINTENANCE,
    )


async def test_hybrid_files_as_word_processors_write_them() -> None:
    pdf = sign(hostile.hybrid(), chairman(), strict=False)
    result = await found(pdf)
    assert (result.verdict, result.hybrid, one(result).whole) == (Verdict.SIGNED, True, True)
    place = pdf.index(b"/MediaBox")
    broken = pdf[:place] + pdf[place:].replace(b"595", b"596", 1)
    assert (await found(broken)).verdict is Verdict.INVALID


@each_sample
async def test_real_messages(path: Path, tmp_path: Path) -> None:
    """Whatever PDFs are in them can be read."""
    with edxml_files(Blobs(tmp_path), path, 1 << 30) as files:
        for file in files:
            if file.pdf:
                result = await found(file.path.read_bytes())
                assert result.verdict in (Verdict.UNSIGNED, Verdict.SIGNED, Verdict.UNTRUSTED), result
    assert list((tmp_path / "incoming").iterdir()) == []


# -- trust ------------------------------------------------------------------------------------------


async def test_nobody_is_trusted_where_there_are_no_anchors() -> None:
    """Not even those whom the machine trusts for TLS."""
    result = await found(sign(paper(), chairman()), anchors=[])
    assert result.verdict is Verdict.UNTRUSTED
    assert "no trust anchors" in one(result).reason and one(result).intact


async def test_a_certificate_that_only_says_whose_it_is() -> None:
    result = await found(sign(paper(), signed.stranger()))
    assert result.verdict is Verdict.UNTRUSTED
    assert result.reason == (
        f"the signature of {CHAIRMAN} is intact, but not trusted: "
        "its certificate leads to no authority that this hub trusts"
    )


async def test_one_of_two_is_not_trusted() -> None:
    pdf = sign(sign(paper(), chairman()), signed.stranger(), "Con dấu")
    result = await found(pdf)
    assert result.verdict is Verdict.UNTRUSTED
    assert [signature.trusted for signature in result.signatures] == [True, False]


async def test_expired_certificates_and_the_time_stamp_that_helps() -> None:
    old = Signer("Nguyễn Văn Cũ", OFFICE, days=(-800, -300))
    result = await found(sign(paper(), old))
    assert result.verdict is Verdict.UNTRUSTED and "expired" in result.reason
    in_time = clock().stamper(NOW - timedelta(days=400))
    assert (await found(sign(paper(), old, stamper=in_time))).verdict is Verdict.SIGNED
    too_late = clock().stamper(NOW - timedelta(days=200))
    assert "expired" in (await found(sign(paper(), old, stamper=too_late))).reason
    of_nobody = Signer("Đồng hồ lạ", key=clock().key, issuer=signed.Authority("Lạ"), stamps=True, days=(-800, 300))
    stamped = await found(sign(paper(), old, stamper=of_nobody.stamper(NOW - timedelta(days=400))))
    assert stamped.verdict is Verdict.UNTRUSTED
    assert one(stamped).timestamp is not None and not one(stamped).timestamp.trusted  # type: ignore[union-attr]


async def test_not_valid_yet() -> None:
    early = Signer("Lê Thị Sớm", OFFICE, days=(10, 300))
    assert "not valid yet" in (await found(sign(paper(), early))).reason


async def test_a_certificate_that_may_not_sign() -> None:
    usage = signed.key_usage(sign=False, repudiate=False)
    server = Signer("may-chu.yenbai.gov.vn", OFFICE, usage=usage)
    assert "may not be used to sign" in (await found(sign(paper(), server))).reason


async def test_revoked() -> None:
    pdf = signed.issued()
    fresh = signed.below().revocation_list(chairman())
    result = await found(pdf, fresh)
    assert result.verdict is Verdict.UNTRUSTED and "was revoked at" in result.reason
    old = signed.below().revocation_list(chairman(), at=NOW - timedelta(days=90))
    result = await found(pdf, old)
    assert result.verdict is Verdict.UNTRUSTED and "revocation list names" in result.reason
    others = signed.below().revocation_list(Signer("Người khác", issuer=signed.below()))
    assert (await found(pdf, others)).verdict is Verdict.SIGNED


async def test_lists_that_grew_old_are_no_worse_than_none() -> None:
    old = signed.below().revocation_list(at=NOW - timedelta(days=90))
    assert (await found(signed.issued(), old)).verdict is Verdict.SIGNED


async def test_weak_algorithms() -> None:
    signature = one(await found(sign(paper(), chairman(), digest="sha1")))
    assert (signature.intact, signature.trusted, signature.weak) == (True, False, True)
    assert "too weak" in signature.reason
    from cryptography.hazmat.primitives.asymmetric import rsa

    short = Signer("Khóa ngắn", OFFICE, rsa.generate_private_key(65537, 1024))
    signature = one(await found(sign(paper(), short)))
    assert (signature.trusted, signature.weak, signature.algorithm) == (False, True, "sha256 with RSA 1024")


# -- changed after signing --------------------------------------------------------------------------


async def test_text_written_into_a_page_after_signing() -> None:
    pdf = signed.rewrite(sign(paper(), chairman()))
    result = await found(pdf)
    assert result.verdict is Verdict.CHANGED and not result.countersigned
    assert result.reason.startswith(
        f"content was changed after the signature of {CHAIRMAN}: an update of the file did more"
    )
    assert one(result).intact and one(result).changes is Changes.OTHER


async def test_the_same_covered_by_the_seal() -> None:
    pdf = sign(signed.rewrite(sign(paper(), chairman())), seal(), "Con dấu")
    result = await found(pdf)
    assert (result.verdict, result.countersigned) == (Verdict.CHANGED, True)
    assert judge(result, "báo cáo.pdf", "00", countersigned=True) is None
    assert judge(result, "báo cáo.pdf", "00", countersigned=False) is not None


@pytest.mark.parametrize("last", ["stranger", "changed again"])
async def test_a_seal_that_does_not_stand_covers_nothing(last: str) -> None:
    pdf = sign(
        signed.rewrite(sign(paper(), chairman())), signed.stranger() if last == "stranger" else seal(), "Dấu"
    )
    if last == "changed again":
        pdf = signed.rewrite(pdf)
    result = await found(pdf)
    assert (result.verdict, result.countersigned) == (Verdict.CHANGED, False)


async def test_shadow_attack() -> None:
    result = await found(signed.replace_content(signed.issued(), "Phai nop 1.000.000.000 dong"))
    assert (result.verdict, result.countersigned) == (Verdict.CHANGED, False)
    assert [signature.changes for signature in result.signatures] == [Changes.OTHER, Changes.OTHER]


async def test_its_signer_allowed_no_changes() -> None:
    pdf = sign(paper(form=True), chairman(), certify=MDPPerm.NO_CHANGES)
    assert (await found(pdf)).verdict is Verdict.SIGNED
    result = await found(signed.fill(pdf))
    assert result.verdict is Verdict.CHANGED and "its signer allowed no such changes" in result.reason


async def test_bytes_changed_in_what_was_signed() -> None:
    result = await found(signed.damaged(signed.issued()))
    assert result.verdict is Verdict.INVALID
    assert (
        result.reason
        == f"the signature of {CHAIRMAN} is not intact: the bytes that it covers were changed after signing"
    )


@pytest.mark.parametrize("text", [b"\n% rubbish\n", b"x", b"\n1 0 obj\n<<>>\nendobj\nstartxref\n%d\n%%%%EOF\n"])
async def test_bytes_after_the_last_state(text: bytes) -> None:
    """Which other readers may take for a further state."""
    pdf = sign(paper(), chairman())
    if b"%d" in text:
        text %= int(pdf.rsplit(b"startxref", 1)[1].split()[0])
    result = await found(hostile.appended(pdf, text))
    assert result.verdict is Verdict.CHANGED and "belong to no state" in result.reason
    assert (await found(hostile.appended(pdf, b"\r\n\0"))).verdict is Verdict.SIGNED


# -- forged -----------------------------------------------------------------------------------------


async def test_forged_byte_ranges() -> None:
    pdf = sign(paper(), chairman())
    _, before, after, rest = hostile.byte_range(pdf)
    for numbers, reason in [
        ((0, before, after, rest - 10), "were changed after signing"),
        ((0, before, after, rest + 10), "beyond the end"),
        ((1, before - 1, after, rest), "does not begin at the file's first byte"),
        ((0, before - 5, after, rest), "not filled by the signature itself"),
        ((0, before, after + 5, rest - 5), "not filled by the signature itself"),
        ((0, before, 0, rest), "not filled by the signature itself"),
        ((0, before, after), "does not begin"),
        ((0, before, -1, rest), "does not begin"),
    ]:
        result = await found(hostile.with_byte_range(pdf, *numbers))
        assert result.verdict is Verdict.INVALID and reason in result.reason, (numbers, result.reason)


async def test_signature_wrapping() -> None:
    result = await found(hostile.wrapped(sign(paper(), chairman()), b"Phai nop phat"))
    assert result.verdict is Verdict.CHANGED and not result.countersigned
    assert not one(result).whole


async def test_a_signature_shown_twice() -> None:
    result = await found(hostile.borrowed(sign(paper(), chairman())))
    assert result.verdict is Verdict.INVALID and "in several fields" in result.reason


async def test_a_signature_taken_from_another_file() -> None:
    """Its bytes put in the place of another's."""
    theirs, own = sign(paper(), chairman()), sign(paper("Quyết định giả"), signed.stranger())
    _, start, end, _ = hostile.byte_range(theirs)
    _, first, last, _ = hostile.byte_range(own)
    contents = theirs[start + 1 : end - 1].rstrip(b"0")
    contents += b"0" * (len(contents) & 1)
    forged = own[: first + 1] + contents.ljust(last - first - 2, b"0") + own[last - 1 :]
    result = await found(forged)
    assert result.verdict is Verdict.INVALID and CHAIRMAN in result.reason
    assert not one(result).trusted


async def test_a_kind_of_signature_that_is_not_known() -> None:
    pdf = sign(paper(), chairman()).replace(b"/ETSI.CAdES.detached", b"/ETSI.CAdES.attached")
    result = await found(pdf)
    assert result.verdict is Verdict.INVALID and "is not checked here" in result.reason


async def test_too_many_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.pdf.check.MAX_SIGNATURES", 2)
    pdf = paper()
    for number in range(3):
        pdf = sign(pdf, chairman(), f"Chữ ký {number}")
    result = await found(pdf)
    assert (result.verdict, result.reason) == (Verdict.LIMIT, "it has more than 2 signatures")
    assert MAX_SIGNATURES > 10


# -- what cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (lambda: signed.issued()[:20_000], Verdict.UNREADABLE),
        (lambda: signed.issued()[:-200], Verdict.UNREADABLE),
        (lambda: b"%PDF-1.7\n", Verdict.UNREADABLE),
        (lambda: b"%PDF-1.7\n" + bytes(range(256)) * 400, Verdict.UNREADABLE),
        (hostile.index_loop, Verdict.UNREADABLE),
        (hostile.field_loop, Verdict.UNREADABLE),
        (lambda: hostile.bomb(64 << 20), Verdict.UNREADABLE),
        (hostile.nested, Verdict.LIMIT),
        (lambda: hostile.encrypted(paper()), Verdict.ENCRYPTED),
    ],
    ids=["half", "no end", "head only", "rubbish", "index loop", "field loop", "bomb", "nested", "encrypted"],
)
async def test_what_cannot_be_read(made: Callable[[], bytes], verdict: Verdict) -> None:
    result = await found(made())
    assert result.verdict is verdict and result.reason and result.signatures == ()
    problem = judge(result, "công văn.pdf", "ab" * 32, countersigned=True)
    assert problem is not None and problem.detail.startswith("công văn.pdf: the PDF ")


async def test_damage_anywhere_never_passes_for_the_signed_file() -> None:
    """A byte flipped at each of many places: whatever is said, it is not that the file is signed as it is."""
    pdf = sign(paper(), chairman())
    _, start, end, _ = hostile.byte_range(pdf)
    places = [place for place in range(0, len(pdf), 131) if not start <= place < end]
    for place in places:
        damaged = bytearray(pdf)
        damaged[place] ^= 0x41
        result = await found(bytes(damaged))
        assert result.verdict is not Verdict.SIGNED, place


# -- what is made of it -----------------------------------------------------------------------------


def test_what_a_pdf_is() -> None:
    assert is_pdf(b"%PDF-1.4\n") and is_pdf(b"\xef\xbb\xbf\n" + b" " * 1000 + b"%PDF-1.7")
    assert not is_pdf(b" " * 1024 + b"%PDF-1.7") and not is_pdf(b"PK\x03\x04") and not is_pdf(b"")


def test_text_of_strangers_is_one_printable_line() -> None:
    shown = line("Văn thư\x1b[31m\u202e\x00\n Yên Bái " + "x" * 1000)
    assert shown.isprintable() and shown.startswith("Văn thư") and len(shown) <= 300


def test_a_state_that_nothing_covers_is_not_countersigned() -> None:
    loose = PdfSignature(field="a", intact=True, trusted=True, changes=Changes.OTHER, revision=0)
    sound = PdfSignature(field="b", intact=True, trusted=True, whole=True, revision=2)
    assert conclude([loose, sound])[2] is False


def test_what_a_refusal_says() -> None:
    result = PdfResult(verdict=Verdict.UNSIGNED, reason="it has no signature")
    problem = judge(result, "", "ab" * 32, countersigned=False)
    assert isinstance(problem, Problem) and (problem.code, problem.status) == ("pdf-signature", 403)
    assert problem.detail == f"{'ab' * 32}: the PDF has no signature, and this endpoint's must be signed"
    assert problem.extra["attachment"] == "ab" * 32 and problem.extra["verdict"] == "unsigned"


async def test_what_a_person_reads() -> None:
    text = describe(await found(signed.rewrite(sign(paper(), signed.stranger(), stamper=clock().stamper(NOW)))))
    assert (
        CHAIRMAN in text and "NOT TRUSTED" in text and "AFTER IT CONTENT WAS CHANGED" in text and "stamped" in text
    )


def test_a_hub_process_does_not_load_it() -> None:
    code = "import sys, hub.app, hub.cli; print([m for m in sys.modules if m.startswith('pyhanko')])"
    written = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert written.strip() == "[]"


@pytest.fixture(autouse=True)
async def _logs_again() -> AsyncIterator[None]:
    """Checking switches logging off, in a process where nobody else logs."""
    import logging

    yield
    logging.disable(logging.NOTSET)
