"""Hubs that cheat: what they seal to have a false statement verify, above all past a list of agencies' keys.

Each case is verified by Python and, where Node.js is here, by the page's script, which must say the same.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.doors.verify import page, words
from protocol.audit_evidence import check_evidence
from protocol.evidence import Sealer, Tree, leaf_hash, receipt
from protocol.evidence import timestamp as moment
from protocol.log import Checkpoint, LogError
from protocol.misbehaviour import Kind, Misbehaviour
from protocol.note import Verifier, signature_line
from protocol.proof import Acknowledged, Evidence, Proof, write_proof
from protocol.proof_trust import Trust, TrustError, read_trust, write_trust
from protocol.proof_verdict import Verdict
from protocol.proof_verify import verify_single
from protocol.signature import generate, thumbprint
from tests.support.certificates import NOW
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.proofs import LATER, MESSAGE, MINUTE, Scene

TRUE_KEY = frozenset({thumbprint(generate("ES256").public_key())})
"""What a verifier knows of an agency whose key the hub does not have."""
NATIONAL = "trục liên thông quốc gia"
LOOK_ALIKES: dict[str, Callable[[str], Any]] = {
    "small letters": str.lower,
    "a blank that is not seen": lambda code: code + "\u00a0",
    "a blank before": lambda code: " " + code,
    "nothing in between": lambda code: code.replace(".", ".\u200b", 1),
    "a Cyrillic letter": lambda code: code.replace("H", "\u041d"),
    "wide digits": lambda code: code.replace("6", "\uff16"),
    "a list of one": lambda code: [code],
}
"""Codes that are not in a list, and that a reader takes for one that is."""


@dataclass
class Cheat(Scene):
    """A hub that makes one end, with members that are otherwise, signed with a key of its own."""

    recipients: tuple[str, ...] = (VAN_YEN,)
    ended: int = 1
    end: dict[str, Any] = field(default_factory=dict)
    """Members of the end that are to be otherwise; None takes one out."""

    def ends(self) -> list[tuple[dict[str, Any], Acknowledged | None]]:
        found = []
        for event, given in super().ends():
            members = {name: value for name, value in (event | self.end).items() if value is not None}
            found.append((members, given if "acknowledgement" in members else None))
        return found


def signed_as(code: Any) -> Scene:
    """A hub that signed a document itself, in the name of what looks like an agency."""
    scene = Scene(members={"from": code})
    payload = scene.document.split(b".")[1]
    members = orjson.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    scene.document = scene.content = scene.sender.sign(orjson.dumps(members | {"from": code}))
    return scene


def relayed(scene: Scene, by: Scene, hub: str = NATIONAL) -> Proof:
    """A file that says that the message was relayed, with another hub's receipt as `by` seals it."""
    text = orjson.dumps(scene.accepted() | {"message": "x"}).decode()
    tree = Tree([leaf_hash(text.encode())])
    theirs = receipt(text, 0, tree, Sealer(hub, by.signer).seal(tree, "x", NOW))
    event = {"event": "relayed", "at": moment(NOW), "message": MESSAGE, "endpoint": hub, "recipients": [VAN_YEN]}
    (own,) = scene.seal([event | {"beyond": msgspec.to_builtins(theirs)}], NOW)
    return scene.change(events=(Evidence(own, None, None),))


@dataclass
class Case:
    scene: Scene
    trust: Trust
    proof: Proof
    code: str
    """Of the finding that must be there."""
    fails: bool = True

    @property
    def verdict(self) -> Verdict:
        return self.scene.verify(self.proof, trust=self.trust)


def _case(scene: Scene, code: str, fails: bool = True, **agencies: Any) -> Case:
    listed = {PROVINCE: TRUE_KEY, VAN_YEN: TRUE_KEY}
    own = thumbprint(scene.sender.key.public_key())
    if not isinstance(scene, Cheat):
        listed = {PROVINCE: TRUE_KEY}
    else:
        listed[PROVINCE] = frozenset({own})
    return Case(scene, scene.trust(agencies=listed | agencies), scene.proof(), code, fails)


def cases() -> dict[str, Case]:
    found = {
        "an end of nobody, named in the text": _case(
            Cheat(end={"recipients": None, "endpoint": f"Văn Yên ({VAN_YEN})"}), "event_wrong"
        ),
        "an end of an empty list": _case(Cheat(end={"recipients": []}), "event_wrong"),
        "an end without a signature is the hub's word": _case(
            Cheat(end={"acknowledgement": None}), "recipient_unsigned", fails=False
        ),
        "a refusal of nobody": _case(Cheat(refused=True, end={"recipients": []}), "event_wrong"),
    }
    for kind in ("Bên nhận xác nhận đã nhận", "Acknowledged", "acknowledged ", "ACKNOWLEDGED", "toString"):
        found[f"a kind called {kind!r}"] = _case(
            Cheat(end={"event": kind, "acknowledgement": None}), "event_unknown", fails=False
        )
    for name, change in LOOK_ALIKES.items():
        code = "recipient_key_foreign" if name == "small letters" else "event_wrong"
        like = change(VAN_YEN)
        listed = like if isinstance(like, str) else VAN_YEN
        found[f"a recipient with {name}"] = _case(Cheat(recipients=(listed,), end={"recipients": [like]}), code)
        code = "key_foreign" if name == "small letters" else "accepted_wrong"
        found[f"a sender with {name}"] = _case(signed_as(change(PROVINCE)), code)
        other = signed_as(change(PROVINCE))
        other.members = {"from": LUC_YEN}
        code = "key_foreign" if name == "small letters" else "sender_wrong"
        found[f"a document whose sender has {name}"] = _case(other, code)
    for at in ("2026-02-30T08:00:00Z", "2026-11-22T24:00:00Z", "2026-11-31T08:00:00+07:00"):
        found[f"a day that there is not, {at}"] = _case(Cheat(end={"at": at}), "event_wrong")
    half = orjson.Fragment(b'"\\ud800"')
    found["an end with half a character"] = _case(Cheat(end={"reason": half}), "event_wrong")
    here, other = Scene(ended=0, made=NOW + MINUTE), Scene(key=generate("EdDSA"))
    both = Trust(
        dict(here.trust().hub_keys) | dict(other.trust().hub_keys),
        (Verifier(here.origin, here.key.public_key()),),  # type: ignore[arg-type]
    )
    found["the receipt of another hub, sealed by this one"] = Case(here, both, relayed(here, here), "beyond_wrong")
    found["the receipt of another hub"] = Case(here, both, relayed(here, other), "beyond")
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_a_hub_that_cheats(name: str) -> None:
    case = CASES[name]
    found = [one for one in case.verdict.findings if one.code == case.code]
    assert found, [one.code for one in case.verdict.findings]
    if case.code != "beyond":  # that file was made before its event's place in the log
        assert case.verdict.verified != case.fails
        assert any(one.fails for one in found) == case.fails
    assert "recipient_keys_known" not in [one.code for one in case.verdict.findings]


def test_the_words_of_an_unknown_kind_are_not_told_as_an_event() -> None:
    """A hub names a kind in the words by which a reader is told of an acknowledgement."""
    case = CASES["a kind called 'Bên nhận xác nhận đã nhận'"]
    told = [one for one in case.verdict.findings if one.step == "events" and one.status == "proven"]
    assert told == []
    (unknown,) = [one for one in case.verdict.findings if one.code == "event_unknown"]
    assert "tự gọi là «Bên nhận xác nhận đã nhận»: chương trình này không biết" in unknown.vi


def test_a_single_receipt_of_an_unknown_kind() -> None:
    scene = Scene()
    event = {"event": "Đã nhận", "at": moment(NOW), "message": MESSAGE, "sha256": scene.digest}
    (one,) = scene.seal([event], NOW)
    verdict = verify_single(one, None, scene.trust(), NOW + MINUTE)
    assert [one.code for one in verdict.findings if one.step == "events"] == ["event_unknown"]


def test_the_receipt_of_another_hub_names_its_key() -> None:
    (found,) = [one for one in CASES["the receipt of another hub"].verdict.findings if one.code == "beyond"]
    assert NATIONAL in found.en and "compare with your list of the trusted" in found.en


@pytest.mark.parametrize("change", [LOOK_ALIKES[name] for name in LOOK_ALIKES if name != "a list of one"])
def test_a_list_with_a_code_that_could_never_apply_is_refused(change: Callable[[str], Any]) -> None:
    """Small letters apply; what merely looks like a code would leave the agency unlisted, and nobody notice."""
    members = orjson.loads(write_trust(Scene().trust())) | {"agencies": {change(VAN_YEN): [*TRUE_KEY]}}
    if change is str.lower:
        assert read_trust(orjson.dumps(members)).keys_of(VAN_YEN) == TRUE_KEY
        return
    with pytest.raises(TrustError, match="is no agency's code"):
        read_trust(orjson.dumps(members))


def test_of_two_codes_that_differ_in_their_letters_alone_each_has_its_keys() -> None:
    other = frozenset({thumbprint(generate("EdDSA").public_key())})
    trust = Scene().trust(agencies={"vxp.saas.03": TRUE_KEY, "VXP.SAAS.03": other})
    assert trust.keys_of("vxp.saas.03") == TRUE_KEY
    assert trust.keys_of("VXP.SAAS.03") == other
    assert trust.keys_of("vxp.saas.04") is None


# -- who frames a hub -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.TWO_FACES, Kind.UNPROVEN])
def test_checkpoints_of_two_logs_convict_nobody(kind: Kind) -> None:
    """A hub that lost its log signs another, called otherwise, with the same key: they contradict nobody."""
    key = Ed25519PrivateKey.generate()
    names = ("tỉnh/log", "tỉnh/log-2")
    notes = []
    for place, name in enumerate(names):
        text = Checkpoint(name, 10 if kind is Kind.TWO_FACES else 10 + place, bytes([place + 1]) * 32).text
        notes.append(text + "\n" + signature_line(name, key, text))
    keys = tuple(str(Verifier(name, key.public_key())) for name in names)
    framed = Misbehaviour(kind=kind, origin=names[1], keys=keys, known=notes[0], presented=notes[1])
    for data in (msgspec.json.encode(framed), msgspec.json.encode({"found": framed})):
        with pytest.raises(LogError, match="the checkpoints are of two logs, tỉnh/log and tỉnh/log-2"):
            check_evidence(data)


# -- the page -------------------------------------------------------------------------------------


def _refused_lists() -> list[str]:
    good = orjson.loads(write_trust(Scene().trust()))
    found = []
    for change in LOOK_ALIKES.values():
        code = change(VAN_YEN)
        if isinstance(code, str) and change is not str.lower:
            found.append(orjson.dumps(good | {"agencies": {code: [*TRUE_KEY]}}).decode())
    return found


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js, which runs the page's script, is not here")
def test_the_page_says_the_same(tmp_path: Path) -> None:
    made = [
        {
            "name": name,
            "proof": base64.b64encode(write_proof(case.proof)).decode(),
            "document": base64.b64encode(case.scene.document).decode(),
            "trust": write_trust(case.trust).decode(),
            "now": LATER.timestamp() * 1000,
            "expected": case.verdict.members(),
        }
        for name, case in CASES.items()
    ]
    file = tmp_path / "cases.json"
    given = {"words": orjson.loads(words()), "cases": made, "flips": [], "certificates": []}
    file.write_bytes(orjson.dumps(given | {"trusts": _refused_lists(), "html": page()[0].decode()}))
    unit = Path(__file__).parents[1] / "unit"
    done = subprocess.run(
        [
            "node",
            "--no-warnings",
            "--test",
            "--test-name-pattern",
            "|".join(("^an? ", "^the receipt", "^lists of the trusted")),
            unit / "verify_page.test.js",
        ],
        env=os.environ
        | {"VERIFY_SCRIPT": str(unit.parents[1] / "hub/doors/verify.js"), "VERIFY_CASES": str(file)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "# fail 0\n" in done.stdout
