"""What a verifier knows by a way of its own: keys of agencies, how long a promise may be, a new log."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.note import Verifier
from protocol.proof_trust import Gathered, Trust, TrustError, read_agency_key, read_trust, write_trust
from protocol.signature import generate, thumbprint
from tests.protocol.test_proof import codes
from tests.protocol.test_proof_certificates import ROOT, scene_of
from tests.protocol.test_proof_log import texts
from tests.protocol.test_proof_wrong import fails
from tests.support.certificates import NOW
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.proofs import ORIGIN, Scene, Witness

STRANGER = thumbprint(generate("ES256").public_key())
DAY = timedelta(days=1)


def keys(scene: Scene) -> tuple[str, str]:
    """The ids of the sender's key and of the recipients'."""
    return thumbprint(scene.sender.key.public_key()), thumbprint(scene.recipient_key.public_key())


# -- keys of agencies -------------------------------------------------------------------------------


def test_keys_that_the_verifier_knows() -> None:
    scene = Scene(signed=2)
    sender, recipient = keys(scene)
    agencies = {PROVINCE: frozenset({STRANGER, sender}), VAN_YEN: frozenset({recipient})}
    verdict = scene.verify(trust=scene.trust(agencies=agencies))
    assert verdict.verified
    assert "one of the agency " + PROVINCE in texts(verdict, "key_known")[0]
    assert "key_by_hub" not in codes(verdict)
    assert "The keys of 1 signed acknowledgements" in texts(verdict, "recipient_keys_known")[0]
    assert "these 1 signed acknowledgements" in texts(verdict, "recipient_keys_by_hub")[0], (
        "Lục Yên's is not listed"
    )


def test_a_key_that_the_sender_does_not_have() -> None:
    """An operator who registers a key of his own for an agency can sign in its name, but not with its key."""
    scene = Scene()
    for trust in (
        scene.trust(agencies={PROVINCE: frozenset({STRANGER})}),
        scene.trust(agencies={PROVINCE: frozenset({keys(scene)[1]}), VAN_YEN: frozenset({keys(scene)[0]})}),
    ):
        fails(
            scene.verify(trust=trust),
            "certificate",
            "key_foreign",
            f"NOT among those that your list of the trusted names for the agency {PROVINCE}",
            "Hãy hỏi chính cơ quan đó",
        )


def test_a_certificate_does_not_stand_for_a_key_that_is_known() -> None:
    """Who makes an authority believe that he is the agency has a certificate, and still not the agency's key."""
    scene = scene_of()
    members = {"anchors": (ROOT.certificate.public_bytes(Encoding.DER),)}
    strangers = {PROVINCE: frozenset({STRANGER})}
    fails(
        scene.verify(trust=scene.trust(**members, agencies=strangers)),
        "certificate",
        "key_foreign",
        keys(scene)[0],
    )
    own = {PROVINCE: frozenset({keys(scene)[0]})}
    good = scene.verify(trust=scene.trust(**members, agencies=own))
    assert good.verified and {"key_known", "certificate_good"} <= set(codes(good))


def test_a_code_by_which_the_sender_calls_itself() -> None:
    """The hub may note an agency by another code than the document names: a list may name it by either."""
    scene = Scene(members={"from": "000.00.00.H01"})
    sender, _ = keys(scene)
    assert "key_known" in codes(scene.verify(trust=scene.trust(agencies={PROVINCE: frozenset({sender})})))
    assert "key_known" in codes(scene.verify(trust=scene.trust(agencies={"000.00.00.H01": frozenset({sender})})))
    both = {PROVINCE: frozenset({sender}), "000.00.00.H01": frozenset({STRANGER})}
    fails(scene.verify(trust=scene.trust(agencies=both)), "certificate", "key_foreign", "000.00.00.H01")


@pytest.mark.parametrize("refused", [False, True])
def test_an_acknowledgement_by_another_key(refused: bool) -> None:
    """An operator who signs for a recipient that was never given the document does not have its key."""
    scene = Scene(refused=refused)
    fails(
        scene.verify(trust=scene.trust(agencies={VAN_YEN: frozenset({STRANGER})})),
        "events",
        "recipient_key_foreign",
        f"NOT among those that your list of the trusted names for {VAN_YEN}",
        "Hãy hỏi chính bên nhận",
    )


def test_a_system_of_several_agencies() -> None:
    """One that speaks for two must have the key of each that is listed; only for all listed is it known."""

    class Shared(Scene):
        def ends(self):  # type: ignore[no-untyped-def]
            (event, given), *_ = super().ends()
            return [(event | {"recipients": [VAN_YEN, LUC_YEN]}, given)]

    scene = Shared()
    _, recipient = keys(scene)
    own, other = frozenset({recipient}), frozenset({STRANGER})
    for agencies, code in (
        ({VAN_YEN: own}, "recipient_keys_by_hub"),
        ({VAN_YEN: own, LUC_YEN: own}, "recipient_keys_known"),
        ({VAN_YEN: own, LUC_YEN: other}, "recipient_key_foreign"),
    ):
        verdict = scene.verify(trust=scene.trust(agencies=agencies))
        assert [one for one in codes(verdict) if one.startswith("recipient_key")] == [code]


# -- how long a promise may be ----------------------------------------------------------------------


def test_a_promise_for_ever() -> None:
    """A hub that promises to log within ten years could show an event to one reader alone and never be caught."""
    kept = Scene(logged=1, promise=5 * DAY.total_seconds())
    assert "log_promised" in codes(kept.verify())
    fails(
        kept.verify(trust=kept.trust(promise_seconds=86_400)),
        "log",
        "log_promise_far",
        "promises to log 2 of the events by 28/11/2026",
        "lâu hơn 1 ngày",
    )
    far = Scene(logged=1, promise=3650 * DAY.total_seconds())
    fails(far.verify(), "log", "log_promise_far", "longer than the 7 days that you accept")
    assert Scene(promise=3650 * DAY.total_seconds()).verify().verified, "what is in the log needs no promise"


def test_a_seal_of_the_future_makes_no_promise_shorter() -> None:
    scene = Scene(logged=1, at=NOW + 20 * DAY, made=NOW + 20 * DAY)
    fails(scene.verify(now=NOW), "clock", "clock_wrong")
    assert "log_promise_far" in codes(scene.verify(now=NOW))


# -- a log that began anew --------------------------------------------------------------------------

ANEW = "trục.lienthong.yenbai.gov.vn/log-2"


def logs(scene: Scene, *names: str) -> tuple[Verifier, ...]:
    return tuple(Verifier(name, scene.key.public_key()) for name in names)  # type: ignore[arg-type]


def test_a_log_that_began_anew() -> None:
    """After a loss the old events are in another log: that counts for who was told of both, and is said."""
    scene = Scene(origin=ANEW, witnesses=[Witness("thanh-tra.gov.vn")])
    verdict = scene.verify(trust=scene.trust(1, logs=logs(scene, ORIGIN, ANEW)))
    assert verdict.verified
    english, vietnamese = texts(verdict, "log_begun_anew")
    assert f"the hub promised the log «{ORIGIN}»; now they are in the log «{ANEW}»" in english
    assert "máy chủ đã bắt đầu một nhật ký mới" in vietnamese
    assert "log_begun_anew" not in codes(Scene().verify())


def test_a_log_that_nobody_was_told_of() -> None:
    scene = Scene(origin=ANEW)
    for names, code, english in (
        ((ANEW,), "log_wrong", f"its seal promises another log, {ORIGIN}, which is not among the trusted"),
        ((ORIGIN,), "log_checkpoint_wrong", f"not signed by {ORIGIN}, the log that is trusted"),
    ):
        fails(scene.verify(trust=scene.trust(logs=logs(scene, *names))), "log", code, english)


# -- the list as a file -----------------------------------------------------------------------------


def test_the_list_as_a_file() -> None:
    trust = Scene().trust(agencies={VAN_YEN: frozenset({STRANGER})}, promise_seconds=3600)
    again = read_trust(write_trust(trust))
    assert (again.agencies, again.promise_seconds) == (trust.agencies, 3600)
    members = orjson.loads(write_trust(trust))
    for wrong in (
        {"agencies": {VAN_YEN: []}},
        {"agencies": {VAN_YEN: ["không phải khóa"]}},
        {"agencies": {"": [STRANGER]}},
        {"agencies": {VAN_YEN: STRANGER}},
        {"agencies": [VAN_YEN]},
        {"promise_seconds": -1},
        {"promise_seconds": "một tuần"},
    ):
        with pytest.raises(TrustError, match=r"not a list of the trusted|is no key's id|without a code"):
            read_trust(orjson.dumps(members | wrong))


def test_lists_together() -> None:
    """Several lists: what any of them names, and the shortest promise that any of them accepts."""
    other = thumbprint(generate("EdDSA").public_key())
    gathered = Gathered()
    for kid, seconds in ((STRANGER, 3600), (other, 86_400)):
        gathered.add(Scene().trust(agencies={VAN_YEN: frozenset({kid})}, promise_seconds=seconds))
    trust: Trust = gathered.trust()
    assert (trust.agencies, trust.promise_seconds) == ({VAN_YEN: {STRANGER, other}}, 3600)


def test_an_agencys_key_as_an_option() -> None:
    assert read_agency_key(f"{VAN_YEN}={STRANGER}") == (VAN_YEN, STRANGER)
    for wrong in (VAN_YEN, f"={STRANGER}", f"{VAN_YEN}={STRANGER[1:]}", f"{STRANGER}={VAN_YEN}"):
        with pytest.raises(TrustError, match=r"is no key's id|without a code"):
            read_agency_key(wrong)
