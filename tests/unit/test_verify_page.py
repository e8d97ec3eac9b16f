"""The page that verifies proofs in a browser: it agrees with the Python verifier, and lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub.doors.verify import page, words
from protocol.note import Verifier
from protocol.proof import Evidence, Proof, ProofError, read_proof, write_proof
from protocol.proof_trust import write_trust
from protocol.proof_words import PDF
from protocol.signature import generate, thumbprint
from tests.protocol.test_proof_certificates import MIDDLE, ROOT, scene_of
from tests.protocol.test_proof_log import CHANGES
from tests.protocol.test_proof_wrong import FORGERIES
from tests.support.certificates import HOUR, NOW, make_key, root
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.proofs import LATER, MESSAGE, MINUTE, ORIGIN, Scene, Witness
from tests.support.tsa import Root

SCRIPT = Path(__file__).parents[2] / "hub/doors/verify.js"


def base64_(data: bytes) -> str:
    return base64.b64encode(data).decode()


def case(
    name: str,
    scene: Scene,
    proof: Proof | bytes | None = None,
    document: bytes | None = b"",
    quorum: int = 0,
    now: Any = LATER,
    **members: Any,
) -> dict[str, Any]:
    """A proof, and what the Python verifier says of it."""
    trust = scene.trust(quorum, **members)
    document = scene.document if document == b"" else document
    file = proof if isinstance(proof, bytes) else write_proof(proof or scene.proof())
    return {
        "name": name,
        "proof": base64_(file),
        "document": None if document is None else base64_(document),
        "trust": write_trust(trust).decode(),
        "now": now.timestamp() * 1000,
        "expected": scene.verify(file, document, trust, now).members(),
    }


def _known_by_the_verifier() -> list[dict[str, Any]]:
    """Keys of agencies, the longest promise, and a log that began anew, as the list of the trusted names them."""
    scene = Scene(signed=2)
    sender, recipient, stranger = (
        frozenset({thumbprint(key.public_key())})
        for key in (scene.sender.key, scene.recipient_key, generate("EdDSA"))
    )
    found = [
        case(f"agencies whose keys are known {number}", scene, agencies=agencies)
        for number, agencies in enumerate(
            (
                {PROVINCE: sender | stranger, VAN_YEN: recipient},
                {PROVINCE: sender, VAN_YEN: recipient, LUC_YEN: recipient},
                {PROVINCE: recipient, VAN_YEN: sender},
                {LUC_YEN: stranger},
                {"__proto__": stranger, "constructor": stranger},
            )
        )
    ]
    other = Scene(members={"from": "000.00.00.H01"})
    own = frozenset({thumbprint(other.sender.key.public_key())})
    for agencies in ({PROVINCE: own}, {PROVINCE: own, "000.00.00.H01": stranger}):
        found.append(case(f"an agency of two codes, {len(agencies)} listed", other, agencies=agencies))
    certified = scene_of()
    found.append(case("a certificate with another key than the known", certified, agencies={PROVINCE: stranger}))
    for days, seconds in ((5, 86_400), (5, 3600), (3650, 7 * 86_400), (3650, 315_360_000)):
        far = Scene(logged=1, promise=days * 86_400.0)
        found.append(case(f"{days} days promised, {seconds} s accepted", far, promise_seconds=seconds))
    anew = Scene(origin=ORIGIN + "-2")
    for names in ((anew.origin,), (ORIGIN,), (ORIGIN, anew.origin)):
        logs = tuple(Verifier(name, anew.key.public_key()) for name in names)  # type: ignore[arg-type]
        found.append(case(f"a log that began anew, trusting {names}", anew, logs=logs))
    return found


def cases() -> list[dict[str, Any]]:
    found = []
    two = [Witness("so-noi-vu.gov.vn"), Witness("thanh-tra.gov.vn")]
    for format_ in ("jws", "manifest", "edxml"):
        for alg in ("ES256", "EdDSA", "PS256"):
            scene = Scene(format=format_, alg=alg, witnesses=two, signed=2)
            found.append(case(f"{format_} signed with {alg}", scene, quorum=2))
    found.append(case("refused", Scene(refused=True)))
    many = tuple(sorted(f"000.{number:02}.{place:02}.H63" for number in range(8) for place in range(5)))
    found.append(case("many recipients", Scene(recipients=many, ended=33)))
    found.append(case("codes beyond the first plane sort by code point", Scene(recipients=("\U00010000", "￰"))))
    for name, (change, *_) in (FORGERIES | CHANGES).items():
        scene = Scene()
        found.append(case(name, scene, scene.sign(change(scene, scene.proof()))))
    scene = Scene()
    found.append(case("no document", scene, document=None))
    found.append(case("another document", scene, document=b"x"))
    found.append(case("the payload alone", scene, document=base64.urlsafe_b64decode(_padded(scene.document))))
    found.append(case("a recipient's copy", scene, scene.change(recipients=None)))
    unsigned = scene.proof()
    without = tuple(msgspec.structs.replace(one, acknowledgement=None) for one in unsigned.events)
    found.append(case("an acknowledgement that was left out", scene, scene.change(unsigned, events=without)))
    found.append(case("a clock that is behind", scene, now=NOW - HOUR))
    found.append(case("no key of the log", scene, logs=()))
    found.append(case("no key of the log though witnesses are asked for", Scene(witnesses=two), quorum=1, logs=()))
    found.append(case("cut", scene, write_proof(scene.proof())[:-40]))
    found.append(case("with white space around", scene, b"\n " + write_proof(scene.proof()) + b"\r\n"))
    found.append(case("nothing", scene, b""))
    found.append(case("a format that is no text", scene, b'{"format":{"toString":1}}'))
    found.append(case("no signer", Scene(members={"signer": None})))
    for at in (LATER + HOUR, NOW - HOUR):
        found.append(case(f"witnessed at {at}", Scene(witnesses=two, witnessed_at=at), quorum=2))
    fewer = Scene(witnesses=two[:1])
    found.append(case("a witness less", fewer, quorum=2, witnesses=tuple(one.verifier for one in two)))
    found.append(case("no witness that is trusted", fewer, witnesses=(two[1].verifier,)))
    found.append(case("promised", Scene(logged=False, made=NOW + MINUTE), now=NOW + MINUTE))
    found.append(case("partly recorded", Scene(logged=1, made=NOW + MINUTE), now=NOW + MINUTE))
    found.append(case("an old file", Scene(logged=False, made=NOW + MINUTE)))
    found.append(case("a broken promise", Scene(logged=1)))
    late = Scene(logged=1, witnesses=two, witnessed_at=NOW + 9 * MINUTE)
    found.append(case("a broken promise that others saw", late, quorum=2))
    found.append(case("nothing promised", Scene(logged=False, promise=None)))
    nowhere = Scene(witnesses=two, promise=None)
    whole = nowhere.proof()
    ends = tuple(msgspec.structs.replace(one, logged=None) for one in whole.events)
    start = msgspec.structs.replace(whole.accepted, logged=None)
    for name, members in {
        "witnesses of a log in which it is not": {"accepted": start, "events": ends},
        "an end that is not in the log": {"events": ends},
        "an acceptance that is not in the log": {"accepted": start},
    }.items():
        for quorum in (0, 2):
            found.append(
                case(f"{name}, quorum {quorum}", nowhere, nowhere.change(whole, **members), quorum=quorum)
            )
    called = Scene()
    plain = called.proof()
    unsigned_ = msgspec.structs.replace(plain.sender, signature="", key="")
    for format_ in ("edxml", "receipt"):
        message = msgspec.structs.replace(plain.message, format=format_)
        found.append(case(f"called {format_}", called, called.change(plain, message=message, sender=unsigned_)))
    found += _known_by_the_verifier()
    found.append(case("another id", Scene(members={"id": "x"})))
    found.append(case("another sender", Scene(members={"from": VAN_YEN})))
    found.append(case("another id in a manifest", Scene(format="manifest", members={"id": "x"})))
    odd = Scene()
    odd.sender = odd.sender.typed("lienthong-ack+1")
    odd.document, odd.content = odd._written()
    found.append(case("a signature of another type", odd))
    for payload in (b"[1]", b"1", b'{"id":"x"}'):
        none = Scene()
        none.document = none.content = none.sender.sign(payload)
        found.append(case(f"{payload.decode()} for a document", none))
    found.append(case("a time-stamp", Scene(stamped_by=Root("CA dấu thời gian"))))
    for kind in ("p256", "ed25519", "rsa"):
        sender = MIDDLE.issue("Văn phòng UBND tỉnh Yên Bái", make_key(kind))
        found.append(case(f"a certificate of {kind}", scene_of(sender)))
    confused = scene_of(MIDDLE.issue("A"))
    confused.chain = (type(ROOT)(confused.chain[0].key, MIDDLE.issue("B").certificate), MIDDLE, ROOT)
    found.append(case("a certificate of another key", confused))
    header = base64.urlsafe_b64encode(orjson.dumps({"alg": "ES256", "x5c": [base64_(b"\x30\x00")]})).rstrip(b"=")
    named = Scene()
    named.sender._prefix = header + b"."
    named.document, named.content = named._written()
    found.append(case("a sender who names a certificate only", named))
    for name, event in told_events(scene).items():
        (receipt,) = scene.seal([event], scene.at)
        proof = scene.change(events=(Evidence(receipt, None, None),))
        found.append(case(name, scene, proof, now=NOW + MINUTE))
    return found + resigned()


def told_events(scene: Scene) -> dict[str, dict[str, Any]]:
    """Events that hold something to be looked into."""
    event = {
        "event": "relayed",
        "at": "2026-11-23T08:00:00.000001Z",
        "message": MESSAGE,
        "endpoint": "trục quốc gia",
    }
    other = Scene(key=generate("EdDSA"))
    (theirs,) = other.seal([scene.accepted() | {"message": "x"}], NOW)
    (ours,) = scene.seal([scene.accepted() | {"message": "x"}], NOW)
    (different,) = scene.seal([scene.accepted() | {"sha256": "ab" * 32}], NOW)
    (refused,) = scene.seal([scene.accepted() | {"event": "rejected"}], NOW)
    found = {
        name: event | {"beyond": msgspec.to_builtins(receipt)}
        for name, receipt in {
            "relayed to a hub that is not trusted": theirs,
            "relayed to a hub that is trusted": ours,
            "relayed and another message accepted": different,
            "relayed and not accepted": refused,
            "relayed and the receipt altered": msgspec.structs.replace(ours, event=ours.event + " "),
        }.items()
    }
    reason = "x\n [proven]\t\r\u202e\u2028\x1b\x7f\U000e0001"
    found["a reason that is not what it seems"] = event | {"event": "refused", "reason": reason}
    handed = {"event": "acknowledged", "recipients": [VAN_YEN], "handed_over_at": "2026-11-23T07:59:59.900000Z"}
    found["acknowledged, and handed over before"] = event | handed
    found |= {
        f"handed over {at}": event | handed | {"handed_over_at": at}
        for at in (None, "", "hôm qua", 1, "2026-11-23T07:59:59", "9999-11-23T07:59:59Z", "2026-13-23T07:59:59Z")
    }
    found |= {f"an event called {kind}": event | {"event": kind} for kind in ("constructor", "toString")}
    found |= {f"relayed with {beyond}": event | {"beyond": beyond} for beyond in (None, {}, "x", 1)}
    for verdict in (*PDF, "something new"):
        attachment = {"name": "báo cáo.pdf", "sha256": "ab" * 32, "size": 1}
        kind = {"event": "signatures_checked", "attachment": attachment, "pdf": {"verdict": verdict}}
        found[f"a PDF that is {verdict}"] = event | kind
    return found


def resigned() -> list[dict[str, Any]]:
    """Files with one byte that is another one, signed by the hub all the same."""
    scene = Scene(recipients=(VAN_YEN,), ended=1, alg="EdDSA", witnesses=[Witness("a")])
    file = write_proof(scene.proof())
    found = []
    for place in range(0, len(file), 17):
        try:
            changed = read_proof(file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :])
        except ProofError:
            continue
        found.append(case(f"byte {place} is another one", scene, scene.sign(changed), quorum=1))
    return found


def _padded(jws: bytes) -> bytes:
    payload = jws.split(b".")[1]
    return payload + b"=" * (-len(payload) % 4)


def flips() -> list[dict[str, Any]]:
    scenes = {
        "a native document's proof": Scene(recipients=(VAN_YEN,), ended=1, alg="EdDSA"),
        "a manifest entry's proof": Scene(format="manifest", recipients=(VAN_YEN,), ended=1, signed=0),
    }
    return [case(name, scene) for name, scene in scenes.items()]


def certificates() -> list[dict[str, str]]:
    made = [root(kind=kind).certificate for kind in ("p256", "rsa", "ed25519")]
    made.append(MIDDLE.issue("Ủy ban nhân dân " * 2).certificate)
    return [
        {
            "der": base64_(one.public_bytes(Encoding.DER)),
            "spki": base64_(one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        }
        for one in made
    ]


def trusts() -> list[str]:
    scene = Scene(witnesses=[Witness("a")])
    good = orjson.loads(write_trust(scene.trust(1)))
    changes: list[dict[str, Any]] = [
        {"format": "lienthong-trust+2"},
        {"hub_keys": []},
        {"hub_keys": [{"kty": "oct"}]},
        {"quorum": 2},
        {"quorum": -1},
        {"quorum": 0.5},
        {"logs": good["witnesses"]},
        {"witnesses": good["logs"]},
        {"witnesses": good["witnesses"] * 2},
        {"witnesses": [str(Witness("b", scene.key).verifier)]},  # type: ignore[arg-type]
        {"witnesses": [str(Witness("b", scene.key).verifier)], "logs": []},  # type: ignore[arg-type]
        {"logs": [good["logs"][0].replace("+", "x+", 1)]},
        {"logs": ["x"]},
        {"logs": "abc"},
        {"witnesses": [{"toString": 1}]},
        {"anchors": None},
        {"more": 1},
        {"agencies": {VAN_YEN: []}},
        {"agencies": {VAN_YEN: ["x"]}},
        {"agencies": {"": [good["hub_keys"][0]["kid"]]}},
        {"agencies": [VAN_YEN]},
        {"promise_seconds": -1},
        {"promise_seconds": 10**10},
        {"promise_seconds": 0.5},
    ]
    return ["", "null", "[]", *(orjson.dumps(good | change).decode() for change in changes)]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js, which runs the page's script, is not here")
def test_both_verifiers_agree(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"
    made = {
        "words": orjson.loads(words()),
        "cases": cases(),
        "flips": flips(),
        "certificates": certificates(),
        "trusts": trusts(),
        "html": page()[0].decode(),
    }
    assert sum(one["expected"]["verified"] for one in made["cases"]) > 20
    assert sum(not one["expected"]["verified"] for one in made["cases"]) > 100
    file.write_bytes(orjson.dumps(made))
    done = subprocess.run(
        ["node", "--no-warnings", "--test", Path(__file__).with_name("verify_page.test.js")],
        env=os.environ | {"VERIFY_SCRIPT": str(SCRIPT), "VERIFY_CASES": str(file)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, (
        re.sub(r"(?m)^.*# Subtest.*\n|^\s*ok \d+.*\n", "", done.stdout)[-6000:] + done.stderr
    )
    assert f"# pass {len(made['cases']) + len(made['flips']) + 6}\n" in done.stdout


# -- the page itself --------------------------------------------------------------------------------


def test_the_policy_lets_in_this_script_alone() -> None:
    body, policy = page()
    html = body.decode()
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    for kind, text in (("script", script), ("style", style)):
        digest = base64_(hashlib.sha256(text.encode()).digest())
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    (own,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy == own + "; frame-ancestors 'none'"  # which a page cannot say of itself
    assert script.strip() == SCRIPT.read_text(encoding="utf-8").strip()


def test_the_page_asks_for_nothing() -> None:
    """It works when it was saved, without a network: there is nothing in it that would be fetched."""
    html = page()[0].decode()
    assert not re.findall(
        r"""(?i)\b(?:src|href|action|srcset|poster)\s*=|(?<!\w)url\(|@import|fetch\(|XMLHttp|WebSocket""", html
    )
    assert not re.findall(r"(?i)\bon\w+\s*=\s*[\"']|innerHTML|\beval\b|new Function", html)


def test_the_page_has_its_sentences() -> None:
    html = page()[0].decode()
    (data,) = re.findall(r'<script type="application/json" id="words">(.*?)</script>', html, re.DOTALL)
    assert orjson.loads(data) == orjson.loads(words()) and "<" not in data
    assert html.index('lang="vi"') < html.index('lang="en"')
    for said in ("Trang này không kiểm tra", "What this page does not check", "RFC 3161", "lienthong verify"):
        assert said in html
