"""Lists and answers about revoked certificates: what counts, until when, and what is not believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.certificate import validate_chain
from protocol.certificate_revocation import (
    Answer,
    AnswerKind,
    RevocationStatus,
    Status,
    check_chain,
    check_revocation,
    crl_urls,
    ocsp_request,
    ocsp_urls,
    overall,
)
from tests.support.certificates import DAY, HOUR, NOW, Holder, make_key, places, root

ROOT = root()
LEAF = ROOT.issue("Ủy ban nhân dân huyện Văn Yên")
FORGER = root()
"""Somebody of the authority's name, with another key."""
RESPONDER = ROOT.issue("OCSP", extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])])
REVOKED = ocsp.OCSPCertStatus.REVOKED
GOOD = ocsp.OCSPCertStatus.GOOD


def judged(*answers: Answer, at=NOW, issuer: Holder = ROOT, leaf: Holder = LEAF) -> RevocationStatus:  # type: ignore[no-untyped-def]
    return check_revocation(leaf.certificate, issuer.certificate, answers, at)


def unused(answer: Answer, **options: object) -> str:
    """Why an answer was not used."""
    found = judged(answer, **options)  # type: ignore[arg-type]
    assert (found.status, found.answer) == (Status.UNKNOWN, None)
    (note,) = found.notes
    return note


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_good_by_list_and_by_answer(kind: str) -> None:
    top = root("Gốc", kind)
    leaf = top.issue("Văn phòng")
    for answer in (top.crl(), top.ocsp(leaf.certificate), top.ocsp(leaf.certificate, algorithm=hashes.SHA256())):
        found = check_revocation(leaf.certificate, top.certificate, [answer], NOW)
        assert (found.status, found.answer, found.notes) == (Status.GOOD, answer, ())
        assert (found.answered_at, found.fresh_until) == (NOW - HOUR, NOW - HOUR + DAY)


def test_revoked_by_list_and_by_answer() -> None:
    for answer in (ROOT.crl(LEAF.certificate), ROOT.ocsp(LEAF.certificate, REVOKED)):
        found = judged(answer)
        assert (found.status, found.reason) == (Status.REVOKED, "key_compromise")
        assert (found.revoked_at, found.answer) == (NOW - 2 * HOUR, answer)


def test_it_was_good_before_it_was_revoked() -> None:
    """Years later: what was known when a message was accepted, and what came after."""
    before = ROOT.ocsp(LEAF.certificate, at=NOW - 3 * HOUR)
    after = ROOT.crl(LEAF.certificate, at=NOW - HOUR, since=NOW - 2 * HOUR)
    assert judged(before, at=NOW - 150 * timedelta(minutes=1)).status is Status.GOOD
    assert judged(before, after).status is Status.REVOKED
    early = judged(after, at=NOW - 3 * HOUR)
    assert early.status is Status.UNKNOWN and "after the moment in question" in early.notes[0]


def test_a_revocation_wins_and_does_not_grow_stale() -> None:
    revoked = ROOT.crl(LEAF.certificate, at=NOW - 40 * DAY, life=DAY, since=NOW - 41 * DAY)
    assert judged(revoked, ROOT.ocsp(LEAF.certificate)).status is Status.REVOKED
    assert judged(revoked).status is Status.REVOKED


def test_a_certificate_on_hold_may_be_released() -> None:
    hold = ROOT.crl(LEAF.certificate, at=NOW - 5 * HOUR, reason=x509.ReasonFlags.certificate_hold, since=NOW - DAY)
    assert judged(hold).status is Status.REVOKED
    assert judged(hold, ROOT.crl(at=NOW - HOUR)).status is Status.GOOD
    assert judged(hold, ROOT.crl(at=NOW - 6 * HOUR)).status is Status.REVOKED


def test_a_stale_answer_says_nothing_but_how_old_it_is() -> None:
    old = ROOT.crl(at=NOW - 3 * DAY)
    for answer in (old, ROOT.ocsp(LEAF.certificate, at=NOW - 3 * DAY)):
        found = judged(answer)
        assert (found.status, found.answer, found.answered_at) == (Status.UNKNOWN, answer, NOW - 3 * DAY)
        assert found.notes == ("the newest answer counted until 2026-11-21T08:00:00Z",)
    assert judged(old, at=NOW - 2 * DAY).status is Status.GOOD
    assert judged(old, at=NOW - 2 * DAY + timedelta(seconds=1)).status is Status.UNKNOWN


def test_an_answer_without_an_end_counts_for_a_day() -> None:
    answer = ROOT.ocsp(LEAF.certificate, life=None)
    assert judged(answer).fresh_until == NOW - HOUR + DAY
    assert judged(answer, at=NOW + DAY).status is Status.UNKNOWN


def test_the_newest_good_answer_counts() -> None:
    old, new = ROOT.crl(at=NOW - 5 * HOUR), ROOT.ocsp(LEAF.certificate, at=NOW - HOUR)
    assert judged(old, new).answer == judged(new, old).answer == new


def test_no_answer() -> None:
    assert judged() == RevocationStatus(Status.UNKNOWN, notes=("there is no answer",))


# -- what is not believed -------------------------------------------------------------------------


def test_forged_answers() -> None:
    assert "not signed by the certificate's issuer" in unused(ROOT.crl(signed_by=make_key("p256")))
    assert "its signature is not of" in unused(FORGER.ocsp(LEAF.certificate, issuer=ROOT))
    beside = unused(FORGER.ocsp(LEAF.certificate, issuer=ROOT, responder=FORGER))
    assert "gave no leave" in beside


def test_an_answer_by_a_delegate() -> None:
    assert judged(ROOT.ocsp(LEAF.certificate, responder=RESPONDER)).status is Status.GOOD
    assert judged(ROOT.ocsp(LEAF.certificate, REVOKED, responder=RESPONDER)).status is Status.REVOKED


def test_who_may_not_answer() -> None:
    plain = ROOT.issue("Văn phòng khác")
    assert "not for answering" in unused(ROOT.ocsp(LEAF.certificate, responder=plain))
    other = root("Cơ quan khác")
    foreign = other.issue("OCSP", extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])])
    assert "gave no leave" in unused(ROOT.ocsp(LEAF.certificate, responder=foreign))
    ended = ROOT.issue(
        "OCSP cũ",
        ends=NOW - DAY,
        extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])],
    )
    # The library dates an answer by today's clock.
    assert "not valid when it answered" in unused(ROOT.ocsp(LEAF.certificate, responder=ended))


def test_answers_about_others() -> None:
    other = ROOT.issue("Ai đó")
    assert "another certificate" in unused(ROOT.ocsp(other.certificate))
    namesake = root()  # an authority of the same name with another key
    twin = namesake.issue("Ai đó", serial=LEAF.certificate.serial_number)
    assert "another certificate" in unused(ROOT.ocsp(twin.certificate, issuer=namesake))
    assert "another authority's" in unused(ROOT.crl(issuer="Cơ quan khác"))
    assert judged(ROOT.crl(other.certificate)).status is Status.GOOD


def test_answers_that_are_none() -> None:
    unknown = ROOT.ocsp(LEAF.certificate, ocsp.OCSPCertStatus.UNKNOWN)
    assert "does not know the certificate" in unused(unknown)
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    der = later.public_bytes(Encoding.DER)
    assert "try_later" in unused(Answer(AnswerKind.OCSP, der))
    for kind in AnswerKind:
        assert "cannot be read" in unused(Answer(kind, b"<html>502</html>"))
    assert "cannot be read" in unused(replace(ROOT.crl(), kind=AnswerKind.OCSP))


def test_answers_from_the_future() -> None:
    assert "after the moment" in unused(ROOT.crl(at=NOW + HOUR))
    assert judged(ROOT.crl(at=NOW + timedelta(minutes=4))).status is Status.GOOD  # clocks differ


def test_partial_lists() -> None:
    def point(**options: object) -> x509.IssuingDistributionPoint:
        fields: dict[str, object] = {
            "full_name": None,
            "relative_name": None,
            "only_contains_user_certs": False,
            "only_contains_ca_certs": False,
            "only_some_reasons": None,
            "indirect_crl": False,
            "only_contains_attribute_certs": False,
        }
        return x509.IssuingDistributionPoint(**(fields | options))  # type: ignore[arg-type]

    assert "partial" in unused(ROOT.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]))
    assert "partial" in unused(ROOT.crl(extensions=[(point(indirect_crl=True), True)]))
    reasons = frozenset({x509.ReasonFlags.key_compromise})
    assert "partial" in unused(ROOT.crl(extensions=[(point(only_some_reasons=reasons), True)]))
    assert "other certificates" in unused(ROOT.crl(extensions=[(point(only_contains_ca_certs=True), True)]))
    assert judged(ROOT.crl(extensions=[(point(only_contains_user_certs=True), True)])).status is Status.GOOD
    url = x509.UniformResourceIdentifier("http://crl.example/1.crl")
    named = ROOT.crl(extensions=[(point(full_name=[url]), True)])
    assert "another distribution point" in unused(named)
    leaf = ROOT.issue("Văn phòng", extensions=places(crl="http://crl.example/1.crl"))
    assert judged(named, leaf=leaf).status is Status.GOOD


def test_whole_chains() -> None:
    between = ROOT.issue("Trung gian", authority=True)
    leaf = between.issue("Văn phòng")
    chain = validate_chain(leaf.certificate, [between.certificate], [ROOT.certificate], NOW)
    all_good = [between.ocsp(leaf.certificate), ROOT.crl()]
    assert [one.status for one in check_chain(chain, all_good, NOW)] == [Status.GOOD, Status.GOOD]
    assert overall(check_chain(chain, all_good, NOW)) is Status.GOOD
    assert overall(check_chain(chain, all_good[:1], NOW)) is Status.UNKNOWN
    gone = [between.ocsp(leaf.certificate), ROOT.crl(between.certificate)]
    assert overall(check_chain(chain, gone, NOW)) is Status.REVOKED
    assert [one.status for one in check_chain(chain, gone, NOW)] == [Status.GOOD, Status.REVOKED]


# -- asking ---------------------------------------------------------------------------------------


def test_where_and_how_to_ask() -> None:
    leaf = ROOT.issue("Văn phòng", extensions=places("http://ca.example/list.crl", "http://ocsp.example"))
    assert crl_urls(leaf.certificate) == ("http://ca.example/list.crl",)
    assert ocsp_urls(leaf.certificate) == ("http://ocsp.example",)
    assert crl_urls(LEAF.certificate) == ocsp_urls(LEAF.certificate) == ()
    asked = ocsp.load_der_ocsp_request(ocsp_request(leaf.certificate, ROOT.certificate))
    assert asked.serial_number == leaf.certificate.serial_number


@given(st.integers(0, 2_000), st.integers(0, 255), st.booleans())
def test_no_altered_byte_makes_a_revoked_certificate_good(place: int, byte: int, as_list: bool) -> None:
    answer = CRL if as_list else OCSP
    der = bytearray(answer.der)
    der[place % len(der)] = byte
    assert judged(replace(answer, der=bytes(der))).status is not Status.GOOD


CRL, OCSP = ROOT.crl(LEAF.certificate), ROOT.ocsp(LEAF.certificate, REVOKED)
