"""Evidence stands on its own, and falls with any byte that it rests on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import log
from protocol.audit import own_key, rewriting
from protocol.audit_evidence import BrokenPromise, Evidence, check_evidence, in_log, lookup, write_evidence
from protocol.evidence import SEAL_TYPE, Promise, Sealer, Tree, leaf_hash, receipt, verify_receipt
from protocol.findings import convicted, evidence_name
from protocol.log import InclusionProof, LogError
from protocol.note import signature_line
from protocol.problems import LienthongError
from protocol.signature import Signer, generate, to_jwk
from tests.support.small_log import ORIGIN, SmallLog

AT = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
LATER = AT + timedelta(days=2)
HUB_KEY = generate("EdDSA")
LOG = SmallLog().grow(9)
EVENT = '{"event":"accepted","message":"0192","from":"000.00.00.H63"}'


def sealed(seconds: float | None = 3600.0) -> Any:
    signer = Signer(HUB_KEY, typ=SEAL_TYPE)
    tree = Tree([leaf_hash(EVENT.encode()), leaf_hash(b"{}")])
    sealer = Sealer("trục Yên Bái", signer, None if seconds is None else Promise(ORIGIN, seconds))
    return receipt(EVENT, 0, tree, sealer.seal(tree, "018bcfe5-6800-7000-8000-000000000000", AT))


def promise(**changes: Any) -> bytes:
    members = {
        "receipt": sealed().to_json().decode(),
        "hub_keys": (to_jwk(HUB_KEY.public_key()),),
        "keys": (str(LOG.verifier),),
        "checkpoint": LOG.note(),
        "proof": None,
    } | changes
    broken = msgspec.convert(members, BrokenPromise)
    return write_evidence(
        Evidence(code="broken-promise", origin=ORIGIN, found_at="", said="bất cứ điều gì", promise=broken)
    )


def proof_of(event: str) -> str:
    """The proof of an event in a log that holds it alone."""
    entry = leaf_hash(event.encode())
    checkpoint = log.Checkpoint(ORIGIN, 1, log.log_leaf(entry))
    note = checkpoint.text + "\n" + signature_line(ORIGIN, LOG.key, checkpoint.text)
    return str(InclusionProof(0, (), note))


def test_a_broken_promise_says_what_it_shows_and_that_it_can_be_refuted() -> None:
    checked = check_evidence(promise(), [LOG.verifier], now=LATER)
    assert not checked.conclusive
    assert "promised to have it in the log" in checked.said and "log of 9 entries" in checked.said
    assert "Unless the hub can show a proof" in checked.said
    assert checked.keys[0] == str(LOG.verifier)
    wrong = check_evidence(promise(proof=proof_of("{}")), now=LATER)
    assert "does not lead there" in wrong.said


@pytest.mark.parametrize(
    ("changes", "now", "words"),
    [
        ({}, AT + timedelta(minutes=59), "the promise is not broken yet"),
        ({"proof": proof_of(EVENT)}, LATER, "the promise was kept"),
        ({"receipt": sealed(None).to_json().decode()}, LATER, "promises nothing"),
        ({"keys": ()}, LATER, "names no key"),
        ({"keys": ("x",)}, LATER, "cannot be read"),
        ({"keys": (str(SmallLog().verifier),)}, LATER, "not signed with a trusted key"),
        ({"hub_keys": ()}, LATER, "not among the trusted hub keys"),
        ({"hub_keys": ({"kty": "x"},)}, LATER, "cannot be read"),
        ({"checkpoint": LOG.note().replace("\n9\n", "\n8\n")}, LATER, "is wrong"),
        (
            {"receipt": sealed().to_json().decode().replace("accepted", "rejected")},
            LATER,
            "not in the sealed batch",
        ),
        ({"receipt": "{}"}, LATER, "not a receipt"),
    ],
)
def test_what_shows_nothing_is_refused(changes: dict[str, Any], now: datetime, words: str) -> None:
    with pytest.raises(LienthongError, match=words):
        check_evidence(promise(**changes), now=now)


def test_a_promise_of_another_log_is_not_this_ones() -> None:
    other = SmallLog(origin="khác/log").grow(3)
    with pytest.raises(LogError, match="speaks of the log"):
        check_evidence(promise(keys=(str(other.verifier),), checkpoint=other.note()), now=LATER)


def conviction() -> bytes:
    other = LOG.fork(2, 14)
    old, new = own_key(LOG.note(), [LOG.verifier]), own_key(other.note(), [LOG.verifier])
    proof = rewriting(old, new, other._node)
    assert proof is not None
    finding = convicted(proof, "hôm qua và hôm nay", AT)
    assert finding.evidence is not None
    again = convicted(proof, "ở nơi khác", LATER)
    assert evidence_name(finding) == evidence_name(again), "the same is kept once"
    return write_evidence(finding.evidence)


CONVICTION = conviction()


def test_a_conviction_needs_nothing_but_the_key() -> None:
    checked = check_evidence(CONVICTION, [LOG.verifier])
    assert checked.conclusive and "one of 14 that begins differently" in checked.said
    misbehaviour = orjson.loads(CONVICTION)["misbehaviour"]
    for form in (misbehaviour, {"id": 1, "at": "", "found": misbehaviour}):  # as a witness gives it out
        assert check_evidence(orjson.dumps(form), [LOG.verifier]) == checked
    with pytest.raises(LogError, match="not signed"):
        check_evidence(CONVICTION, [SmallLog().verifier])


@given(st.sampled_from([CONVICTION, promise()]), st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(evidence: bytes, data: st.DataObject) -> None:
    honest = check_evidence(evidence, [LOG.verifier], lookup([to_jwk(HUB_KEY.public_key())]), LATER)
    place = data.draw(st.integers(0, len(evidence) - 1))
    byte = data.draw(st.integers(0, 255))
    altered = evidence[:place] + bytes([byte]) + evidence[place + 1 :]
    try:
        found = check_evidence(altered, [LOG.verifier], lookup([to_jwk(HUB_KEY.public_key())]), LATER)
    except LienthongError:
        return
    assert found == honest


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_garbage_is_no_evidence(garbage: bytes) -> None:
    with pytest.raises(LienthongError):
        check_evidence(garbage)


def test_a_proof_is_of_one_event_under_one_key() -> None:
    proof = proof_of(EVENT)
    assert in_log(proof, EVENT.encode(), [LOG.verifier]) == 0
    assert in_log(proof, b"{}", [LOG.verifier]) is None
    assert in_log(proof, EVENT.encode(), [SmallLog().verifier]) is None
    assert in_log("", EVENT.encode(), [LOG.verifier]) is None
    assert verify_receipt(sealed(), lookup([to_jwk(HUB_KEY.public_key())])).log == ORIGIN
