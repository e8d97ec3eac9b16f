"""The sender's certificate in a proof: at the time of the acceptance, whatever became of it since."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from msgspec.structs import replace

from protocol.certificate_revocation import Answer
from tests.protocol.test_proof_log import texts
from tests.protocol.test_proof_wrong import fails
from tests.support.certificates import DAY, HOUR, NOW, Holder, root
from tests.support.proofs import LATER, MINUTE, Scene, Witness, _der

ROOT = root()
MIDDLE = ROOT.issue("CA cơ quan nhà nước", authority=True)
NAME = "Văn phòng UBND tỉnh Yên Bái"


def scene_of(
    sender: Holder | None = None,
    answers: list[Answer] | None = None,
    chain: tuple[Holder, ...] = (),
    **members: Any,
) -> Scene:
    sender = sender or MIDDLE.issue(NAME)
    if answers is None:
        answers = [MIDDLE.ocsp(sender.certificate), ROOT.crl()]
    return Scene(chain=chain or (sender, MIDDLE, ROOT), answers=answers, **members)


def anchors(scene: Scene, *of: Holder) -> dict[str, Any]:
    return {"trust": scene.trust(anchors=tuple(map(_der, of or (ROOT,))))}


@pytest.mark.parametrize("format_", ["jws", "manifest"])
def test_good(format_: str) -> None:
    scene = scene_of(format=format_)
    verdict = scene.verify(**anchors(scene))
    assert verdict.verified
    english, vietnamese = texts(verdict, "certificate_good")
    assert NAME in english and "Trung tâm chứng thực thử nghiệm" in english
    assert "có hiệu lực lúc tiếp nhận (23/11/2026 15:00:00 (UTC+7))" in vietnamese
    assert (
        "was not revoked, by its authority's answer of 23/11/2026 14:00:00" in texts(verdict, "revocation_good")[0]
    )


def test_nobody_is_trusted_for_certificates() -> None:
    scene = scene_of()
    verdict = scene.verify()
    assert verdict.verified
    assert f"The certificate of CN={NAME}, C=VN was not checked" in texts(verdict, "certificate_no_anchors")[0]


def test_another_authority_is_trusted() -> None:
    scene = scene_of()
    verdict = scene.verify(**anchors(scene, root("Tổ chức khác")))
    fails(
        verdict,
        "certificate",
        "certificate_wrong",
        "leads to CN=Trung tâm chứng thực thử nghiệm",
        "không dùng được lúc tiếp nhận",
    )


def test_expired_now_but_valid_then() -> None:
    sender = MIDDLE.issue(NAME, ends=NOW + DAY)
    scene = scene_of(sender)
    verdict = scene.verify(now=NOW + 400 * DAY, **anchors(scene))
    assert verdict.verified
    english, vietnamese = texts(verdict, "certificate_good_then")
    assert (
        "It has expired since (24/11/2026" in english and "takes nothing from a signature made before" in english
    )
    assert "Nay đã hết hạn" in vietnamese


@pytest.mark.parametrize(
    ("dates", "english"),
    [
        ({"begins": NOW - 30 * DAY, "ends": NOW - DAY}, "expired at 2026-11-22"),
        ({"begins": NOW + DAY, "ends": NOW + 30 * DAY}, "is not valid before 2026-11-24"),
    ],
)
def test_not_valid_then(dates: dict[str, Any], english: str) -> None:
    """The hub should not have accepted it; that it is valid today, or was once, is no excuse."""
    scene = scene_of(MIDDLE.issue(NAME, **dates))
    fails(scene.verify(**anchors(scene)), "certificate", "certificate_wrong", english)
    fails(scene.verify(now=NOW + 2 * DAY, **anchors(scene)), "certificate", "certificate_wrong", english)


def test_an_authority_that_had_expired() -> None:
    middle = ROOT.issue("CA cũ", authority=True, ends=NOW - DAY)
    sender = middle.issue(NAME)
    scene = scene_of(sender, [middle.ocsp(sender.certificate)], (sender, middle, ROOT))
    fails(scene.verify(**anchors(scene)), "certificate", "certificate_wrong", "expired")


def test_revoked_before() -> None:
    sender = MIDDLE.issue(NAME)
    scene = scene_of(sender, [MIDDLE.crl(sender.certificate), ROOT.crl()])
    fails(
        scene.verify(**anchors(scene)),
        "revocation",
        "revocation_revoked",
        "had been revoked (23/11/2026 13:00:00 (UTC+7)) before",
        "đã bị thu hồi",
    )
    authority = scene_of(sender, [MIDDLE.crl(), ROOT.crl(MIDDLE.certificate)])
    fails(authority.verify(**anchors(authority)), "revocation", "revocation_revoked")


def test_revoked_later_is_not_in_the_answers_of_then() -> None:
    """An answer of after the acceptance that says revoked since then: the signature of before stands."""
    sender = MIDDLE.issue(NAME)
    later = MIDDLE.crl(sender.certificate, since=NOW + HOUR, at=NOW - HOUR)
    scene = scene_of(sender, [later, ROOT.crl()])
    verdict = scene.verify(now=NOW + 3 * HOUR, **anchors(scene))
    assert verdict.verified and texts(verdict, "revocation_good")


def test_revocation_was_not_known() -> None:
    for answers, english in (
        ([], "there is no answer"),
        ([MIDDLE.crl(at=NOW - 3 * DAY), ROOT.crl()], "the newest answer counted until"),
        ([root("Kẻ giả mạo").crl(), ROOT.crl()], "another authority's"),
    ):
        scene = scene_of(answers=answers)
        verdict = scene.verify(**anchors(scene))
        assert verdict.verified
        found = texts(verdict, "revocation_unknown")
        assert english in found[0] and "under its policy «soft»" in found[0] and "chính sách «soft»" in found[1]


def test_the_certificate_is_the_keys() -> None:
    mine, other = MIDDLE.issue(NAME), MIDDLE.issue("Kẻ khác")
    scene = scene_of(mine)
    stranger = scene_of(other)
    proof = scene.proof()
    fails(
        scene.verify(scene.change(proof, sender=replace(proof.sender, chain=stranger.proof().sender.chain))),
        "sender",
        "sender_wrong",
        "certificate is not the one",
    )
    # The hub noted a certificate that does not have the key.
    confused = scene_of(Holder(mine.key, other.certificate))
    fails(confused.verify(), "sender", "sender_wrong", "the certificate is one for another key")
    fewer = scene.change(proof, sender=replace(proof.sender, revocation=proof.sender.revocation[:1]))
    fails(scene.verify(fewer), "sender", "sender_wrong", "answers on revocation are not those")


def test_a_pinned_certificate() -> None:
    """One that the hub took as registered: it leads to nobody, and that is said."""
    alone = root(NAME)
    scene = scene_of(alone, [], (alone,))
    verdict = scene.verify(**anchors(scene))
    assert verdict.verified and "not on an authority's word" in texts(verdict, "certificate_pinned")[0]


@pytest.mark.parametrize(("begins", "ends"), [(NOW - 30 * DAY, NOW - HOUR), (NOW + HOUR, NOW + 30 * DAY)])
def test_a_certificate_that_was_not_valid_is_none_that_was_pinned(begins: Any, ends: Any) -> None:
    """A hub that lies shows the certificate without those above, as if it had been registered alone."""
    sender = MIDDLE.issue(NAME, begins=begins, ends=ends)
    scene = scene_of(sender, [], (sender,))
    fails(scene.verify(**anchors(scene)), "certificate", "certificate_wrong", "was of no use when")


def test_a_certificate_that_cannot_be_read() -> None:
    scene = scene_of()
    cut = Holder(scene.chain[0].key, scene.chain[0].certificate)
    proof = scene.proof()
    fails(
        scene.verify(scene.change(proof, sender=replace(proof.sender, chain=("MAA=", *proof.sender.chain[1:])))),
        "sender",
        "sender_wrong",
    )
    assert isinstance(cut.certificate, x509.Certificate)


def test_with_everything() -> None:
    scene = scene_of(witnesses=[Witness("thanh-tra.gov.vn")])
    trust = scene.trust(1, anchors=(_der(ROOT),))
    assert scene.verify(trust=trust, now=LATER).verified


def test_accepted_in_time_by_the_hubs_word_alone() -> None:
    """A hub that holds a key whose certificate has ended can date the acceptance back, not the witness's time."""
    witness = Witness("thanh-tra.gov.vn")
    for minutes, later in ((1, True), (3, False)):  # witnesses sign two minutes after the acceptance
        scene = scene_of(MIDDLE.issue(NAME, ends=NOW + minutes * MINUTE), witnesses=[witness])
        verdict = scene.verify(trust=scene.trust(1, anchors=(_der(ROOT),)))
        assert verdict.verified
        assert ("certificate_seen_later" in [one.code for one in verdict.findings]) is later
        if later:
            english, vietnamese = texts(verdict, "certificate_seen_later")
            assert "that the message was accepted before is the hub's word" in english
            assert "sau khi chứng thư số của bên gửi hết hạn" in vietnamese
