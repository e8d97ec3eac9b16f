"""Proofs that prove nothing: each says at which step it fails, and in what words.

Where a file was changed after the hub signed it, that alone refuses it. So here it is mostly the hub that lies, or
its key that was stolen: the file is signed, and what is in it is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from protocol.evidence import SEAL_TYPE
from protocol.proof import Evidence, Proof, sign_proof, write_proof
from protocol.proof_trust import TrustError
from protocol.proof_verdict import Verdict
from protocol.signature import Signer, generate
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.proofs import MESSAGE, Scene, Witness


def fails(verdict: Verdict, step: str, code: str, english: str = "", vietnamese: str = "") -> None:
    failed = verdict.failed
    assert failed is not None and not verdict.verified
    assert (failed.step, failed.code) == (step, code), [(one.step, one.code, one.en) for one in verdict.findings]
    assert english in failed.en, failed.en
    assert vietnamese in failed.vi, failed.vi
    assert verdict.lines("en")[0].startswith("VERDICT: NOT proven. The first step that fails: ")
    assert verdict.lines("vi")[0].startswith("KẾT LUẬN: KHÔNG được chứng minh.")


# -- somebody changed the file ----------------------------------------------------------------------


def test_changed_after_the_hub_signed() -> None:
    scene = Scene()
    proof = scene.proof()
    stripped = replace(proof.events[0], logged=None)
    for changed in (
        replace(proof, recipients=proof.recipients[:1]),  # type: ignore[index]
        replace(proof, events=()),
        replace(proof, events=(stripped, *proof.events[1:])),
        replace(proof, checkpoint=None),
        replace(proof, message=replace(proof.message, size=1)),
    ):
        fails(
            scene.verify(write_proof(changed)),
            "file",
            "file_altered",
            "altered since the hub signed it",
            "không thể dựa vào bất cứ điều gì",
        )


def test_signed_by_somebody_else() -> None:
    scene = Scene()
    proof = scene.proof()
    stranger = Signer(generate("EdDSA"), typ=SEAL_TYPE)
    fails(scene.verify(sign_proof(proof, stranger)), "file", "file_altered", "not among the trusted hub keys")
    # A name is no key.
    pretender = Signer(generate("EdDSA"), kid=scene.signer.kid, typ=SEAL_TYPE)
    fails(scene.verify(sign_proof(proof, pretender)), "file", "file_altered", "signature over the file is wrong")
    # A signature over something else that the hub signed.
    seal = replace(proof, signature=proof.accepted.receipt.seal)
    fails(scene.verify(seal), "file", "file_altered", "cannot be read")
    again = replace(
        proof,
        signature=Signer(scene.key, typ="lienthong-else")
        .sign(b'{"at":"2026-11-23T08:10:00Z","sha256":"x"}')
        .decode(),
    )
    fails(scene.verify(again), "file", "file_altered", "over something else")
    for text in ("", "a.b.c", "ünïcode"):
        fails(scene.verify(replace(proof, signature=text)), "file", "file_altered")


def test_another_document() -> None:
    scene, other = Scene(), Scene()
    fails(
        scene.verify(document=other.document),
        "document",
        "document_other",
        "is NOT the one that the proof speaks of",
        "KHÔNG phải là văn bản mà bằng chứng nói đến",
    )
    fails(scene.verify(document=b""" """), "document", "document_other")


# -- the hub lies -----------------------------------------------------------------------------------


def other_receipt(scene: Scene) -> Evidence:
    """A genuine event about another message."""
    event = scene.accepted() | {"message": MESSAGE.replace("a001", "b002")}
    (receipt,) = scene.seal([event], scene.at)
    return Evidence(receipt, None, None)


def handed_over_at_no_time(scene: Scene) -> Evidence:
    """An end that says nonsense of the hand-over."""
    event, _ = scene.ends()[1]
    (receipt,) = scene.seal([event | {"handed_over_at": "hôm qua"}], scene.at)
    return Evidence(receipt, None, None)


def of(change: Callable[[dict[str, Any]], object]) -> Callable[[Scene, Proof], Proof]:
    """The proof with members changed by hand."""

    def changed(scene: Scene, proof: Proof) -> Proof:
        members = msgspec.json.decode(write_proof(proof))
        change(members)
        return msgspec.convert(members, Proof)

    return changed


FORGERIES: dict[str, tuple[Callable[[Scene, Proof], Proof], str, str, str]] = {
    "the event's text": (
        of(
            lambda m: m["accepted"]["receipt"].update(
                event=m["accepted"]["receipt"]["event"].replace("215", "216")
            )
        ),
        "accepted",
        "accepted_wrong",
        "not in the sealed batch",
    ),
    "the receipt's place": (
        of(lambda m: m["accepted"]["receipt"].update(index=1)),
        "accepted",
        "accepted_wrong",
        "not in the sealed batch",
    ),
    "the batch's size": (
        of(lambda m: m["accepted"]["receipt"].update(size=3)),
        "accepted",
        "accepted_wrong",
        "another batch size",
    ),
    "a path that is too short": (
        of(lambda m: m["accepted"]["receipt"].update(path=[])),
        "accepted",
        "accepted_wrong",
        "shorter",
    ),
    "no seal": (
        of(lambda m: m["accepted"]["receipt"].update(seal="x")),
        "accepted",
        "accepted_wrong",
        "not a JWS",
    ),
    "another message's receipt": (
        lambda scene, proof: replace(proof, accepted=other_receipt(scene)),
        "accepted",
        "accepted_wrong",
        "about another message",
    ),
    "an end for an acceptance": (
        lambda scene, proof: replace(proof, accepted=replace(proof.events[1], acknowledgement=None)),
        "accepted",
        "accepted_wrong",
        "not one of acceptance",
    ),
    "another size": (
        of(lambda m: m["message"].update(size=m["message"]["size"] + 1)),
        "accepted",
        "accepted_wrong",
        "another document",
    ),
    "an acceptance that is acknowledged": (
        lambda scene, proof: replace(
            proof, accepted=replace(proof.accepted, acknowledgement=proof.events[0].acknowledgement)
        ),
        "accepted",
        "accepted_wrong",
        "no acknowledgement",
    ),
    "a recipient more": (
        of(lambda m: m["recipients"].append("000.00.99.H63")),
        "recipients",
        "recipients_other",
        "is NOT the one of the acceptance",
    ),
    "a recipient less": (of(lambda m: m["recipients"].pop()), "recipients", "recipients_other", ""),
    "another message's event": (
        lambda scene, proof: replace(proof, events=(*proof.events, other_receipt(scene))),
        "events",
        "event_wrong",
        "event 4 is wrong",
    ),
    "a hand-over at no time": (
        lambda scene, proof: replace(proof, events=(*proof.events, handed_over_at_no_time(scene))),
        "events",
        "event_wrong",
        "does not say what happened, or when",
    ),
    "an event's text": (
        of(
            lambda m: m["events"][0]["receipt"].update(
                event=m["events"][0]["receipt"]["event"].replace("tại", "o") + " "
            )
        ),
        "events",
        "event_wrong",
        "not in the sealed batch",
    ),
    "accepted twice": (
        lambda scene, proof: replace(proof, events=(replace(proof.accepted), *proof.events)),
        "events",
        "event_wrong",
        "accepted once",
    ),
    "somebody else's acknowledgement": (
        lambda scene, proof: replace(
            proof, events=(replace(proof.events[0], acknowledgement=scene.acknowledgement()), *proof.events[1:])
        ),
        "events",
        "recipient_wrong",
        "not the one that the event names",
    ),
    "the recipient's key": (
        lambda scene, proof: replace(
            proof,
            events=(
                replace(
                    proof.events[0],
                    acknowledgement=replace(proof.events[0].acknowledgement, key=scene.acknowledgement().key),
                ),
                *proof.events[1:],
            ),
        ),
        "events",
        "recipient_wrong",
        "signature on the acknowledgement is wrong",
    ),
    "the place in what the recipient signed": (
        of(lambda m: m["events"][0]["acknowledgement"].update(index=1)),
        "events",
        "recipient_wrong",
        "shorter",
    ),
    "a key that the acceptance does not name": (
        lambda scene, proof: replace(proof, sender=replace(proof.sender, key=scene.acknowledgement().key)),
        "sender",
        "sender_wrong",
        "not the one that the event of acceptance names",
    ),
    "no key where the acceptance names one": (
        of(lambda m: m["sender"].update(key="")),
        "sender",
        "sender_wrong",
        "do not name the same signer",
    ),
    "a certificate that the acceptance does not name": (
        of(lambda m: m["sender"].update(chain=["MAA="])),
        "sender",
        "sender_wrong",
        "certificate is not the one",
    ),
    "answers that the acceptance does not name": (
        of(lambda m: m["sender"].update(revocation=[{"kind": "crl", "der": "MAA="}])),
        "sender",
        "sender_wrong",
        "answers on revocation are not those",
    ),
    "a signature that is not the document's": (
        of(lambda m: m["sender"].update(signature=m["sender"]["signature"][:-4] + "AAAA")),
        "sender",
        "sender_wrong",
        "not the document's",
    ),
    "a place in a manifest": (
        of(lambda m: m["sender"].update(index=1)),
        "sender",
        "sender_wrong",
        "no place in a manifest",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_by_the_hub(name: str) -> None:
    change, step, code, english = FORGERIES[name]
    scene = Scene()
    fails(scene.verify(scene.sign(change(scene, scene.proof()))), step, code, english)


@pytest.mark.parametrize(
    ("members", "english"),
    [
        ({"index": 2}, "the document is not the one that the manifest signs"),
        ({"path": ()}, "no manifest of 5 documents has this place and path"),
        ({"path": ("AA",)}, "cannot be read"),
        ({"signature": "x"}, "cannot be read"),
    ],
)
def test_a_manifests_entry(members: dict[str, Any], english: str) -> None:
    scene = Scene(format="manifest")
    proof = scene.proof()
    fails(
        scene.verify(scene.change(proof, sender=replace(proof.sender, **members))),
        "sender",
        "sender_wrong",
        english,
    )


def test_the_senders_signature() -> None:
    """The hub accepted what the named key did not sign."""
    scene, forger = Scene(), Scene()
    forger.sender, forged = scene.sender, forger.sender
    assert forged.kid != scene.sender.kid
    fails(
        forger.verify(),
        "sender",
        "sender_wrong",
        "was not made with that key over this document",
        "Chữ ký của bên gửi KHÔNG đúng",
    )


def test_edxml_with_a_signature() -> None:
    scene, native = Scene(format="edxml"), Scene()
    proof = scene.change(sender=native.proof().sender)
    fails(scene.verify(proof), "sender", "sender_wrong", "a format that has none")


def test_a_signed_document_that_is_called_unsigned() -> None:
    """The hub leaves a signature that it could not show out, and calls the document one of the axis's."""
    scene = Scene()
    proof = scene.proof()
    called = replace(proof.message, format="edxml")
    bare = scene.change(proof, message=called, sender=replace(proof.sender, signature="", key=""))
    fails(scene.verify(bare), "sender", "sender_wrong", "names a signer, and the file says")


def test_an_acceptance_without_a_signer() -> None:
    """Of before the hub noted who signed: the sender's signature is then not proven, whatever key is offered."""
    scene = Scene(members={"signer": None})
    proof = scene.proof()
    fails(scene.verify(proof), "sender", "sender_wrong", "do not name the same signer")
    bare = scene.change(proof, sender=replace(proof.sender, key=""))
    fails(scene.verify(bare), "sender", "sender_key_unnamed", "was not checked")


def test_a_recipient_that_signed_something_else() -> None:
    scene = Scene(recipients=(VAN_YEN,), ended=1)
    for given, english in (
        (scene.acknowledgement(refused=True), "signed something else than the event says"),
        (scene.acknowledgement(message=MESSAGE.replace("a001", "b002")), "does not cover this document"),
    ):
        event, _ = scene.ends()[0]
        event["acknowledgement"] = hashlib.sha256(given.jws.encode()).hexdigest()
        (receipt,) = scene.seal([event], scene.at)
        proof = scene.change(events=(Evidence(receipt, None, given),))
        fails(scene.verify(proof), "events", "recipient_wrong", english, "Chữ ký xác nhận của hệ thống")


def test_an_acknowledgement_that_was_left_out() -> None:
    scene = Scene(recipients=(VAN_YEN,), ended=1)
    proof = scene.proof()
    verdict = scene.verify(scene.change(proof, events=(replace(proof.events[0], acknowledgement=None),)))
    (found,) = [one for one in verdict.findings if one.code == "recipient_missing"]
    assert "which is not in the file: not checked" in found.en and found.status == "not_proven"


def test_events_of_recipients_that_the_message_does_not_have() -> None:
    scene = Scene(signed=0)
    event, _ = scene.ends()[0]
    for recipients, english in (
        (["000.00.99.H63"], "recipients that the message does not have"),
        ("x", "cannot be read"),
    ):
        (receipt,) = scene.seal([event | {"recipients": recipients}], scene.at)
        fails(
            scene.verify(scene.change(events=(Evidence(receipt, None, None),))), "events", "event_wrong", english
        )


def test_an_acknowledgement_of_something_that_is_no_end() -> None:
    scene = Scene()
    given = scene.acknowledgement()
    event = {"event": "relayed", "at": "2026-11-23T08:00:00Z", "message": MESSAGE}
    (receipt,) = scene.seal([event], scene.at)
    proof = scene.change(events=(Evidence(receipt, None, given),))
    fails(scene.verify(proof), "events", "event_wrong", "an event that is none")
    for at in ("", "2026-11-23T08:00:00", "hôm nay", None, 1, "9999-12-31T23:59:59Z"):
        (receipt,) = scene.seal([event | {"at": at}], scene.at)
        proof = scene.change(events=(Evidence(receipt, None, None),))
        fails(scene.verify(proof), "events", "event_wrong", "what happened, or when")


def test_an_event_of_a_kind_that_is_not_known() -> None:
    """A newer hub may have more kinds: they are shown by their names."""
    scene = Scene(ended=0, promise=None)
    event = {"event": "stored_for_good", "at": "2026-11-23T08:00:00Z", "message": MESSAGE}
    (receipt,) = scene.seal([event], scene.at)
    verdict = scene.verify(scene.change(events=(Evidence(receipt, None, None),)))
    assert verdict.verified and any("stored_for_good" in one.en for one in verdict.findings)


def test_a_signature_over_something_else_is_none_of_a_document() -> None:
    """The hub shows what somebody signed as an acknowledgement, or under another id, as a document of theirs."""
    scene = Scene()
    scene.sender = scene.sender.typed("lienthong-ack+1")
    scene.document, scene.content = scene._written()
    fails(scene.verify(), "sender", "sender_wrong", "a JWS of another type")
    for members, english in (
        ({"id": "216/BC-UBND"}, "has another id"),
        ({"id": f"{VAN_YEN}/215/BC-UBND"}, "has another id"),
    ):
        fails(Scene(members=members).verify(), "sender", "sender_wrong", english)
        fails(Scene(format="manifest", members=members).verify(), "sender", "sender_wrong", english)
    assert Scene(members={"id": f"{PROVINCE}/215/BC-UBND"}).verify().verified  # as beyond a link
    scene = Scene()
    scene.document = scene.content = scene.sender.sign(b"[1]")
    fails(scene.verify(), "sender", "sender_wrong", "what was signed is not a document")


def test_another_sender_than_the_document_names() -> None:
    verdict = Scene(members={"from": VAN_YEN}).verify()
    (found,) = [one for one in verdict.findings if one.code == "sender_other_name"]
    assert found.status == "not_proven" and f"calls itself {PROVINCE}; the hub noted {VAN_YEN}" in found.en


def test_whose_the_recipients_keys_are_is_the_hubs_word() -> None:
    """A hub that lies can make a key and sign as anybody."""
    (found,) = [one for one in Scene(signed=2).verify().findings if one.code == "recipient_keys_by_hub"]
    assert found.status == "not_proven" and "these 2 signed acknowledgements" in found.en
    assert "do máy chủ liên thông đăng ký" in found.vi
    assert "recipient_keys_by_hub" not in {one.code for one in Scene(signed=0).verify().findings}


def test_what_others_chose_is_no_line_of_its_own() -> None:
    scene = Scene(recipients=(VAN_YEN,), ended=1, signed=0, refused=True)
    event, _ = scene.ends()[0]
    reason = "x\n  [proven] Witnesses: all of them\u202e\u2028\x1b[2J"
    (receipt,) = scene.seal([event | {"reason": reason}], scene.at)
    verdict = scene.verify(scene.change(events=(Evidence(receipt, None, None),)))
    for language in ("vi", "en"):
        written = "\n".join(verdict.lines(language))
        assert "x\\n  [proven] Witnesses: all of them\\u202e\\u2028\\x1b[2J" in written
        assert not set("\u202e\u2028\x1b") & set(written)


def test_a_witness_with_a_key_of_the_hub() -> None:
    scene = Scene()
    hub = Witness("thanh-tra.gov.vn", scene.key)  # type: ignore[arg-type]
    with pytest.raises(TrustError, match="a key of the hub or its log"):
        scene.trust(1, witnesses=(hub.verifier,), logs=())


def test_a_trusted_key_of_another_hub_is_no_key_of_this_one() -> None:
    scene = Scene()
    other = Scene(key=generate("EdDSA"))
    fails(scene.verify(trust=other.trust()), "file", "file_altered", "not among the trusted")
