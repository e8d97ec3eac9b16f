"""The log in a proof: checkpoints, witnesses, time-stamps, clocks that are wrong, promises that are not kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from protocol.log import Checkpoint, InclusionProof, read_proof
from protocol.note import Verifier, signature_line
from protocol.proof import Place, Proof, read_path
from protocol.proof_log import compare_checkpoints
from protocol.proof_verdict import Verdict
from protocol.proof_verify import verify_single
from protocol.signature import b64url, generate
from tests.protocol.test_proof_wrong import fails
from tests.support.certificates import NOW
from tests.support.parties import LUC_YEN
from tests.support.proofs import LATER, MINUTE, ORIGIN, Scene, Witness
from tests.support.tsa import Root

HOUR = timedelta(hours=1)


def texts(verdict: Verdict, code: str) -> tuple[str, str]:
    (found,) = [one for one in verdict.findings if one.code == code]
    return found.en, found.vi


# -- the checkpoint ---------------------------------------------------------------------------------


def test_the_logs_key() -> None:
    scene = Scene()
    bare = scene.verify(trust=scene.trust(logs=()))
    assert bare.verified and "its key was not given" in texts(bare, "log_no_key")[0]
    stranger = Verifier(ORIGIN, generate("EdDSA").public_key())  # type: ignore[arg-type]
    fails(
        scene.verify(trust=scene.trust(logs=(stranger,))),
        "log",
        "log_checkpoint_wrong",
        "is not signed by trục.lienthong.yenbai.gov.vn/log, the log that is trusted",
        "Điểm kiểm tra của nhật ký không dựa vào được",
    )
    # A former key beside the present one does no harm.
    assert scene.verify(trust=scene.trust(logs=(stranger, *scene.trust().logs))).verified


def resigned(scene: Scene, proof: Proof, checkpoint: Checkpoint, name: str = ORIGIN) -> Proof:
    """The log signs another checkpoint."""
    text = checkpoint.text
    return scene.change(proof, checkpoint=text + "\n" + signature_line(name, scene.key, text))  # type: ignore[arg-type]


def test_another_log() -> None:
    scene = Scene()
    proof = scene.proof()
    other = resigned(scene, proof, Checkpoint("khác.gov.vn/log", 9, bytes(32)))
    fails(scene.verify(other), "log", "log_checkpoint_wrong", "is one of khác.gov.vn/log")
    promised = Scene(key=scene.key)
    renamed = resigned(scene, proof, Checkpoint("khác.gov.vn/log", 9, bytes(32)), "khác.gov.vn/log")
    trust = promised.trust(logs=(Verifier("khác.gov.vn/log", scene.key.public_key()),))  # type: ignore[arg-type]
    fails(scene.verify(renamed, trust=trust), "log", "log_wrong", "its seal promises another log")


CHANGES: dict[str, tuple[Callable[[Scene, Proof], Proof], str, str]] = {
    "the log shrank": (
        lambda scene, proof: resigned(scene, proof, Checkpoint(ORIGIN, 5, bytes(32))),
        "log_wrong",
        "the log shrank, or the checkpoint is older than the event",
    ),
    "another root": (
        lambda scene, proof: resigned(scene, proof, Checkpoint(ORIGIN, 9, bytes(32))),
        "log_wrong",
        "its hash does not lead to the checkpoint's root",
    ),
    "another size": (
        lambda scene, proof: resigned(scene, proof, Checkpoint(ORIGIN, 10**9, bytes(32))),
        "log_wrong",
        "has such a path at entry 5",
    ),
    "another place": (
        lambda scene, proof: scene.change(
            proof, accepted=replace(proof.accepted, logged=replace(proof.accepted.logged, index=4))
        ),
        "log_wrong",
        "event 1 is NOT in the log where the file says",
    ),
    "a path that is cut": (
        lambda scene, proof: scene.change(
            proof,
            accepted=replace(
                proof.accepted,
                logged=Place(proof.accepted.logged.index, proof.accepted.logged.path[:-1]),  # type: ignore[union-attr]
            ),
        ),
        "log_wrong",
        "has such a path at entry 5",
    ),
    "a path of something else": (
        lambda scene, proof: scene.change(
            proof,
            accepted=replace(proof.accepted, logged=Place(5, (b64url(b"x" * 31),))),
        ),
        "log_wrong",
        "path in the file cannot be read",
    ),
    "no checkpoint": (
        lambda scene, proof: scene.change(proof, checkpoint=None),
        "log_checkpoint_wrong",
        "the file has no checkpoint",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_inclusion(name: str) -> None:
    scene = Scene()
    change, code, english = CHANGES[name]
    fails(scene.verify(change(scene, scene.proof())), "log", code, english)


def test_two_faces() -> None:
    """Two files of one log that signed two histories convict it together, each being right by itself."""
    scene = Scene()
    mine, other = scene.proof(), Scene(key=scene.key, recipients=(LUC_YEN,), ended=2, before=6).proof()
    smaller = Scene(key=scene.key, before=1).proof()
    stranger = Scene(key=generate("EdDSA")).proof()
    for file, code, english in (
        (other, "log_two_faces", "this file and y.proof both have the signature of the log"),
        (mine, "log_same_face", "has the same checkpoint"),
        (smaller, "log_not_comparable", "9 and 5 entries"),
        (stranger, "log_not_comparable", "not signed by"),
        (replace(mine, checkpoint=None), "log_not_comparable", "a checkpoint is missing"),
    ):
        verdict = scene.verify(mine)
        compare_checkpoints(verdict, mine.checkpoint, file.checkpoint, "y.proof", scene.trust())
        assert verdict.verified == (code != "log_two_faces")
        assert english in texts(verdict, code)[0]
    assert scene.verify(mine).verified


def test_a_checkpoint_that_is_none() -> None:
    scene = Scene()
    for note in ("", "x", "a\n1\nb\n\n— x y\n", scene.proof().checkpoint[:-1]):  # type: ignore[index]
        fails(scene.verify(scene.change(checkpoint=note)), "file", "file_unreadable")
    # A signature written with other spare bits is the same bytes, and another file.
    proof = scene.proof()
    assert proof.checkpoint is not None and proof.checkpoint.endswith("=\n")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = proof.checkpoint[-3]
    other = proof.checkpoint[:-3] + letters[letters.index(last) + 1] + "=\n"
    fails(
        scene.verify(scene.change(proof, checkpoint=other)), "file", "file_unreadable", "not base64 as it must be"
    )


# -- witnesses and clocks ---------------------------------------------------------------------------


def test_quorum() -> None:
    witnesses = [Witness(f"co-quan-{number}.gov.vn") for number in range(3)]
    scene = Scene(witnesses=witnesses)
    proof = scene.proof()
    assert scene.verify(proof, trust=scene.trust(3)).verified
    scene.witnesses = witnesses[:1]
    trust = Scene(witnesses=witnesses).trust(2)
    fails(
        scene.verify(trust=trust),
        "witnesses",
        "witnesses_missing",
        "2 are asked for, 1 that are trusted signed",
        "Thiếu bên làm chứng",
    )
    stranger = Witness("la.gov.vn")
    scene.witnesses = [stranger]
    fails(scene.verify(trust=trust), "witnesses", "witnesses_missing", "0 that are trusted signed")
    unasked = scene.verify(trust=scene.trust(witnesses=()))
    assert unasked.verified
    english, vietnamese = texts(unasked, "witnesses_none")
    assert "the hub's operator could have shown you another log than others see" in english
    assert "người vận hành máy chủ có thể đã cho bạn xem một nhật ký khác" in vietnamese
    assert "The times are the hub's word alone" in texts(unasked, "time_by_hub")[0]


def test_no_quorum_without_a_checkpoint_that_can_be_read() -> None:
    scene = Scene(witnesses=[Witness("a")], logged=False, made=NOW + MINUTE)
    fails(
        scene.verify(trust=scene.trust(1), now=NOW + MINUTE), "witnesses", "witnesses_missing", "1 are asked for"
    )
    whole = Scene(witnesses=scene.witnesses)
    trust = whole.trust(1, logs=())
    fails(whole.verify(trust=trust), "witnesses", "witnesses_missing")


def test_a_witness_whose_signature_is_wrong() -> None:
    scene = Scene(witnesses=[Witness("a"), Witness("b")])
    proof = scene.proof()
    assert proof.checkpoint is not None
    text = proof.checkpoint.partition("\n\n")[0] + "\n"
    forged = scene.witnesses[0].line(text.replace("9", "8"), NOW)
    note = "".join(line for line in proof.checkpoint.splitlines(keepends=True) if not line.startswith("— a "))
    verdict = scene.verify(scene.change(proof, checkpoint=note + forged))
    fails(verdict, "log", "log_checkpoint_wrong", "the signature of a is wrong")


@pytest.mark.parametrize(
    ("seconds", "code", "english", "vietnamese"),
    [
        (LATER + HOUR, "witness_ahead", "later than this computer's clock", "sau đồng hồ của máy này"),
        (
            NOW - HOUR,
            "witness_early",
            "before event 1 happened by the hub's account",
            "thời gian của máy chủ không đúng",
        ),
    ],
)
def test_a_witnesss_time(seconds: object, code: str, english: str, vietnamese: str) -> None:
    scene = Scene(witnesses=[Witness("thanh-tra.gov.vn")], witnessed_at=seconds)  # type: ignore[arg-type]
    fails(scene.verify(trust=scene.trust(1)), "witnesses", code, english, vietnamese)


def test_small_differences_between_clocks_are_no_news() -> None:
    for at in (NOW - 3 * MINUTE, LATER + 4 * MINUTE):
        scene = Scene(witnesses=[Witness("a")], witnessed_at=at)
        assert scene.verify(trust=scene.trust(1)).verified
    assert Scene(made=LATER + 4 * MINUTE, promise=3 * 3600.0).verify().verified


def test_the_verifiers_clock() -> None:
    scene = Scene()
    verdict = scene.verify(now=NOW - HOUR)
    fails(verdict, "clock", "clock_wrong", "This computer's clock says 23/11/2026 14:00:00", "Đồng hồ của máy này")


# -- time-stamps ------------------------------------------------------------------------------------


def test_time_stamps() -> None:
    authority = Root("CA dấu thời gian")
    scene = Scene(stamped_by=authority)
    proof = scene.proof()
    stamped = scene.verify(proof, trust=scene.trust(timestamp_roots=(authority.der,)))
    assert stamped.verified
    english, vietnamese = texts(stamped, "time_stamped")
    assert "23/11/2026 15:03:00" in english and "chậm nhất vào lúc ấy" in vietnamese
    assert not [one for one in stamped.findings if one.code == "time_by_hub"]
    unasked = scene.verify(proof)
    assert unasked.verified and "1 time-stamps were not checked" in texts(unasked, "time_stamp_unchecked")[0]
    other = scene.verify(proof, trust=scene.trust(timestamp_roots=(Root("khác").der,)))
    assert other.verified and "leads to no trusted root" in texts(other, "time_stamp_wrong")[0]
    assert "the hub's word alone" in texts(other, "time_by_hub")[0]


def test_a_time_stamp_over_something_else() -> None:
    authority = Root("CA dấu thời gian")
    scene = Scene(stamped_by=authority)
    proof = scene.change(timestamps=(scene.stamp("điểm kiểm tra khác\n"),))
    verdict = scene.verify(proof, trust=scene.trust(timestamp_roots=(authority.der,)))
    assert "over something else" in texts(verdict, "time_stamp_wrong")[0]
    assert "the hub's word alone" in texts(verdict, "time_by_hub")[0]


@pytest.mark.parametrize(("at", "code"), [(LATER + HOUR, "witness_ahead"), (NOW - HOUR, "witness_early")])
def test_a_time_stamp_at_an_impossible_time(at: object, code: str) -> None:
    authority = Root("CA dấu thời gian")
    scene = Scene(stamped_by=authority, stamped_at=at)  # type: ignore[arg-type]
    fails(scene.verify(trust=scene.trust(timestamp_roots=(authority.der,))), "witnesses", code)


# -- promises ---------------------------------------------------------------------------------------


def test_promised() -> None:
    """Asked for before the log has it."""
    scene = Scene(logged=False, made=NOW + MINUTE)
    verdict = scene.verify(now=NOW + MINUTE)
    assert verdict.verified
    english, vietnamese = texts(verdict, "log_promised")
    assert "not shown to be in the transparency log yet: 3." in english and "lienthong proof 01938f2a" in english
    assert "chậm nhất lúc 23/11/2026 15:03:00" in vietnamese


def test_partly_recorded() -> None:
    scene = Scene(logged=1, made=NOW + MINUTE)
    verdict = scene.verify(now=NOW + MINUTE)
    assert verdict.verified
    assert "1 of 3 events are in the transparency log" in texts(verdict, "log_partly")[0]
    assert "not shown to be in the transparency log yet: 2." in texts(verdict, "log_promised")[0]


def test_an_old_file() -> None:
    scene = Scene(logged=False, made=NOW + MINUTE)
    verdict = scene.verify(now=NOW + HOUR)
    fails(verdict, "log", "log_promise_old", "Get a new file", "Hãy lấy tệp mới")
    assert "the hub must now show the events in the log" in verdict.failed.en  # type: ignore[union-attr]
    assert "BROKEN" not in verdict.failed.en  # type: ignore[union-attr]


def test_a_broken_promise() -> None:
    """The hub itself signed, after the time, a file in which the event is not in the log."""
    scene = Scene(logged=1, made=NOW + 10 * MINUTE)
    verdict = scene.verify(now=NOW + HOUR)
    fails(verdict, "log", "log_promise_broken", "A PROMISE WAS BROKEN", "VI PHẠM CAM KẾT")
    assert verdict.failed is not None
    assert "event 2 would be in the log by 23/11/2026 15:03:00" in verdict.failed.en
    assert "evidence against the hub" in verdict.failed.en and "Outsiders" not in verdict.failed.en
    # A minute more is no lie: the hub's nodes have clocks of their own.
    late = Scene(logged=1, made=NOW + 3.5 * MINUTE)
    assert late.verify(now=NOW + 3.5 * MINUTE).verified


def test_a_broken_promise_that_outsiders_saw() -> None:
    scene = Scene(logged=1, witnesses=[Witness("a")], witnessed_at=NOW + 9 * MINUTE)
    verdict = scene.verify()
    fails(
        verdict,
        "log",
        "log_promise_broken",
        "Outsiders confirm that the file's checkpoint is one of 23/11/2026 15:09:00",
    )


def test_whoever_strips_a_file_is_not_the_hub() -> None:
    """A file in which somebody left the log out is refused as altered; nobody is accused."""
    scene = Scene()
    proof = scene.proof()
    stripped = replace(proof, accepted=replace(proof.accepted, logged=None))
    verdict = scene.verify(stripped)
    fails(verdict, "file", "file_altered")
    assert "PROMISE" not in "".join(one.en for one in verdict.findings)


def test_nothing_was_promised() -> None:
    scene = Scene(logged=False, promise=None)
    verdict = scene.verify()
    assert verdict.verified and "nothing was promised" in texts(verdict, "log_never_promised")[0]


def test_witnesses_of_a_log_in_which_it_is_not() -> None:
    """A hub that lies seals an event for one reader alone, and puts the log's true checkpoint beside it."""
    scene = Scene(witnesses=[Witness("a")], promise=None, stamped_by=Root("CA"))
    proof, trust = scene.proof(), scene.trust(1)
    nowhere = tuple(replace(event, logged=None) for event in proof.events)
    bare = scene.change(proof, accepted=replace(proof.accepted, logged=None), events=nowhere)
    verdict = scene.verify(bare, trust=trust)
    fails(verdict, "witnesses", "witnesses_missing", "1 are asked for, 0 that are trusted")
    assert not {"witnesses_met", "time_stamped"} & {one.code for one in verdict.findings}
    assert "the hub's word alone" in texts(verdict, "time_by_hub")[0]
    unasked = scene.verify(bare)
    assert unasked.verified and not [one for one in unasked.findings if one.step == "witnesses"]
    # The acceptance alone is in the log, the acknowledgement is invented.
    invented = scene.change(proof, events=(nowhere[0],))
    fails(scene.verify(invented, trust=trust), "log", "log_never_promised", "nothing was promised")
    assert scene.verify(invented).verified
    # An end is there, and the acceptance is not.
    turned = scene.change(proof, accepted=replace(proof.accepted, logged=None))
    fails(scene.verify(turned, trust=trust), "witnesses", "witnesses_missing")


# -- a receipt alone --------------------------------------------------------------------------------


def test_a_receipt_and_its_log_proof() -> None:
    scene = Scene(witnesses=[Witness("a")])
    proof = scene.proof()
    receipt, logged = proof.accepted.receipt, proof.accepted.logged
    assert logged is not None and proof.checkpoint is not None
    written = str(InclusionProof(logged.index, tuple(read_path(logged.path)), proof.checkpoint))
    found = verify_single(receipt, scene.content, scene.trust(1), LATER, read_proof(written))
    assert found.verified
    assert "All 1 events are in the transparency log" in texts(found, "log_recorded")[0]
    assert "single receipt" in texts(found, "receipt_alone")[0]
    other = proof.events[0].receipt
    fails(verify_single(other, None, scene.trust(1), LATER, read_proof(written)), "log", "log_wrong")
    # Without it, a receipt says what it says; whoever trusts the log is told what to ask for.
    assert verify_single(receipt, None, scene.trust(logs=(), witnesses=()), LATER).verified
    alone = verify_single(receipt, None, scene.trust(), LATER)
    fails(alone, "log", "log_proof_needed", "so this says nothing yet: the hub must now show it at /log/proof/")
    assert verify_single(receipt, None, scene.trust(), NOW + MINUTE).verified
