"""What a witness is sent, signs, refuses (every rule of c2sp.org/tlog-witness), and what it keeps as evidence."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.log import Checkpoint, LogError
from protocol.misbehaviour import Kind, Misbehaviour, explain, prefix_root, read_misbehaviour
from protocol.note import COSIGNATURE, NoteError, Verifier, signature_line
from protocol.witness import (
    MAX_PROOF,
    Refusal,
    Seen,
    judge,
    read_cosignature,
    read_request,
    read_size,
    time_to_state,
    write_request,
)
from tests.support.small_log import ORIGIN, SmallLog

AT = datetime(2026, 11, 23, 17, 0, 30, tzinfo=UTC)
EXAMPLE = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501


@pytest.fixture
def log() -> SmallLog:
    return SmallLog().grow(21)


def seen(log: SmallLog, size: int, at: datetime = AT) -> Seen:
    checkpoint = log.checkpoint(size)
    return Seen(size, checkpoint.root, log.note(size), at)


def refused(data: bytes, log: SmallLog, last: Seen | None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        judge(read_request(data), [log.verifier], last)
    return caught.value


# -- the wire -------------------------------------------------------------------------------------


def test_the_example_of_the_specification_is_read_and_written_byte_for_byte() -> None:
    request = read_request(EXAMPLE.encode())
    assert (request.old, len(request.proof), request.checkpoint.size) == (20852014, 4, 20852163)
    assert request.checkpoint.origin == "example.com/behind-the-sofa"
    assert [signature.id.hex() for signature in request.note.signatures] == ["033de0ae", "a292ea05"]
    assert write_request(request.old, request.proof, str(request.note)) == EXAMPLE.encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("old 20852014", "old 020852014"),
        ("old 20852014", "old -1"),
        ("old 20852014", "old  20852014"),
        ("old 20852014", "old 20852014 "),
        ("old 20852014", "old +1"),
        ("old 20852014", "old "),
        ("old 20852014", "old 9223372036854775808"),
        ("old 20852014", "old ٢٠"),
        ("old 20852014", "OLD 20852014"),
        ("old 20852014", "20852014"),
        ("old 20852014\n", "old 20852014\r\n"),
        ("old 20852014\n", ""),
        ("PlRNCrwHpqhG", "PlRNCrwHpqh!"),
        ("PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=", "PlRN"),
        ("/0=\n\n", "/0=\n"),
        ("\n20852163\n", "\n020852163\n"),
        ("\n20852163\n", "\n9223372036854775808\n"),
        ("CsUYapGGPo4d", "CsUYapGG"),
        ("\n— example.com/behind-the-sofa Az3g", "\nexample.com/behind-the-sofa Az3g"),
        ("qbSzm9Q=\n", "qbSzm9Q="),
        ("example.com/behind-the-sofa\n", "example.com/\x00\n"),
    ],
)
def test_what_is_no_request_is_refused(before: str, after: str) -> None:
    assert before in EXAMPLE
    with pytest.raises(Refusal) as caught:
        read_request(EXAMPLE.replace(before, after, 1).encode())
    assert caught.value.status == 400
    assert caught.value.body == f"{caught.value}\n" and caught.value.media_type.startswith("text/plain")


@given(st.binary(max_size=400))
def test_garbage_is_refused_with_400(data: bytes) -> None:
    for body in (data, b"old 0\n\n" + data, EXAMPLE.encode()[: len(data)]):
        with pytest.raises(Refusal) as caught:
            read_request(body)
        assert caught.value.status == 400


def test_too_many_lines_are_refused(log: SmallLog) -> None:
    most = write_request(0, [bytes(32)] * MAX_PROOF, log.note())
    assert len(read_request(most).proof) == 63
    with pytest.raises(Refusal, match="more than 63 lines"):
        read_request(write_request(0, [bytes(32)] * 64, log.note()))
    with pytest.raises(Refusal, match="more than 64 signatures"):
        read_request((EXAMPLE + "— a AAAAAAA=\n" * 63).encode())


def test_sizes_are_decimal_without_leading_zeroes() -> None:
    assert [read_size(text) for text in ("0", "7", "9223372036854775807")] == [0, 7, 2**63 - 1]
    assert [read_size(text) for text in ("", "00", "07", "-1", "1.0", "٣", "9223372036854775808")] == [None] * 7


# -- the rules, in the specification's order --------------------------------------------------------


def test_a_first_checkpoint_a_larger_one_and_the_same_again_are_signed(log: SmallLog) -> None:
    judge(read_request(log.request(0, 13)), [log.verifier], None)
    judge(read_request(log.request(13)), [log.verifier], seen(log, 13))
    judge(read_request(log.request(21)), [log.verifier], seen(log, 21))
    judge(read_request(log.request(0, 0)), [log.verifier], None)
    judge(read_request(log.request(0, 0)), [log.verifier], seen(log, 0))
    judge(read_request(log.request(0)), [log.verifier], seen(log, 0))


def test_404_a_log_that_the_witness_does_not_follow(log: SmallLog) -> None:
    with pytest.raises(Refusal, match="does not follow a log called trục") as caught:
        judge(read_request(log.request(0)), [], None)
    assert caught.value.status == 404


def test_403_a_checkpoint_that_the_log_did_not_sign(log: SmallLog) -> None:
    stranger = SmallLog().grow(21)
    assert refused(stranger.request(0), log, None).status == 403
    # A log that signs as itself, but says it is another: that other one's keys count.
    text = log.checkpoint().text
    other = SmallLog(origin="example.vn/log")
    note = text + "\n" + signature_line(other.origin, other.key, text)
    assert refused(write_request(0, [], note), log, None).status == 403
    # The right key over another text.
    forged = log.note().replace("\n21\n", "\n22\n")
    found = refused(write_request(0, [], forged), log, None)
    assert found.status == 403 and found.misbehaviour is None and "is wrong" in str(found)


def test_signatures_of_unknown_keys_are_ignored(log: SmallLog) -> None:
    stranger = Ed25519PrivateKey.generate()
    note = log.note() + signature_line(ORIGIN, stranger, "something else") + "— ai-đó AAAAAAA=\n"
    judge(read_request(write_request(0, [], note)), [log.verifier], None)


def test_a_log_may_change_its_key(log: SmallLog) -> None:
    """Both keys are trusted for a while; a checkpoint by either is signed."""
    new = SmallLog(origin=ORIGIN).grow(21)
    trusted = [log.verifier, new.verifier]
    judge(read_request(log.request(0, 13)), trusted, None)
    judge(read_request(new.request(13)), trusted, seen(log, 13))


def test_400_an_old_size_beyond_the_checkpoint(log: SmallLog) -> None:
    found = refused(write_request(21, [], log.note(13)), log, seen(log, 21))
    assert (found.status, found.size, found.misbehaviour) == (400, None, None)


@pytest.mark.parametrize("old", [0, 8, 14])
def test_409_with_the_size_that_was_signed_last(log: SmallLog, old: int) -> None:
    found = refused(log.request(old), log, seen(log, 13))
    assert (found.status, found.body, found.media_type) == (409, "13\n", "text/x.tlog.size")
    assert found.misbehaviour is None, "not to know what a witness knows is no misbehaviour"


def test_409_before_anything_was_signed(log: SmallLog) -> None:
    found = refused(log.request(13), log, None)
    assert (found.status, found.body) == (409, "0\n")


@pytest.mark.parametrize("old", [0, 13])
def test_409_and_evidence_for_two_roots_of_one_size(log: SmallLog, old: int) -> None:
    """Whatever old size comes along: the two notes are what counts."""
    found = refused(write_request(old, [], log.fork(5, 13).note()), log, seen(log, 13))
    assert (found.status, found.body, found.media_type) == (409, "13\n", "text/x.tlog.size")
    assert found.misbehaviour and found.misbehaviour.kind is Kind.TWO_FACES and found.misbehaviour.conclusive
    assert explain(found.misbehaviour, [log.verifier]) == f"{ORIGIN} signed two different logs of 13 entries."


def test_422_a_proof_that_is_none(log: SmallLog) -> None:
    last, good = seen(log, 13), log.proof(13)
    for proof in (good[:-1], [*good, bytes(32)], [bytes(32), *good[1:]], [], good[::-1]):
        found = refused(write_request(13, proof, log.note()), log, last)
        assert found.status == 422 and found.size is None
        assert found.misbehaviour and found.misbehaviour.kind is Kind.UNPROVEN
        assert "Ask the log for that proof" in explain(found.misbehaviour, [log.verifier])


@pytest.mark.parametrize(("last", "size"), [(None, 21), (21, 21), (0, 0), (None, 0), (0, 5)])
def test_422_a_proof_where_there_is_nothing_to_prove(log: SmallLog, last: int | None, size: int) -> None:
    """An odd request by somebody, and nothing against the log."""
    data = write_request(last or 0, [bytes(32)], log.note(size))
    found = refused(data, log, None if last is None else seen(log, last))
    assert (found.status, found.misbehaviour) == (422, None)


def test_422_an_empty_log_that_has_a_root(log: SmallLog) -> None:
    note = log.sign(Checkpoint(ORIGIN, 0, bytes(32)).text)
    found = refused(write_request(0, [], note), log, None)
    assert found.status == 422 and found.misbehaviour and found.misbehaviour.kind is Kind.IMPOSSIBLE
    assert "that it is empty" in explain(found.misbehaviour, [log.verifier])
    # Also where the size alone would be the answer.
    found = refused(write_request(0, [], note), log, seen(log, 13))
    assert (found.status, found.size) == (409, 13)
    assert found.misbehaviour and found.misbehaviour.kind is Kind.IMPOSSIBLE


@given(st.integers(3, 60), st.data())
def test_a_log_that_proves_another_past_convicts_itself(size: int, data: st.DataObject) -> None:
    """The proof of a rewritten log holds the root of its other past, whatever was rewritten."""
    log = SmallLog().grow(size)
    known = data.draw(st.integers(2, size - 1))
    at = data.draw(st.integers(0, known - 1))
    rewritten = log.fork(at, size)
    found = refused(rewritten.request(known), log, seen(log, known))
    assert found.status == 422 and found.misbehaviour
    if known & (known - 1) == 0:  # a proof leaves the root of such a size out
        assert found.misbehaviour.kind is Kind.UNPROVEN
        return
    assert found.misbehaviour.kind is Kind.REWRITTEN
    assert "that begins differently" in explain(found.misbehaviour, [log.verifier])
    assert prefix_root(known, size, rewritten.checkpoint().root, rewritten.proof(known)) == (
        rewritten.checkpoint(known).root
    )


@given(st.integers(2, 40), st.data())
def test_nobody_else_can_convict_a_log(size: int, data: st.DataObject) -> None:
    """An honest log's checkpoints with any other proof show nothing that it did."""
    log = SmallLog().grow(size)
    known = data.draw(st.integers(1, size - 1))
    proof = list(log.proof(known))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(proof)))
        what = data.draw(st.sampled_from(["drop", "add", "change"]))
        if what == "add" or place == len(proof):
            proof.insert(place, data.draw(st.binary(min_size=32, max_size=32)))
        elif what == "drop":
            del proof[place]
        else:
            proof[place] = data.draw(st.binary(min_size=32, max_size=32))
    try:
        judge(read_request(write_request(known, proof, log.note())), [log.verifier], seen(log, known))
    except Refusal as refusal:
        assert refusal.status == 422 and refusal.misbehaviour
        assert refusal.misbehaviour.kind is Kind.UNPROVEN
    else:
        assert proof == log.proof(known)


# -- time -------------------------------------------------------------------------------------------


def test_a_later_cosignature_never_states_an_earlier_time() -> None:
    assert time_to_state(AT.replace(microsecond=999_999), None) == AT
    assert time_to_state(AT + timedelta(seconds=1), AT) == AT + timedelta(seconds=1)
    assert time_to_state(AT - timedelta(seconds=59), AT) == AT
    with pytest.raises(Refusal, match="its operator must set it right") as caught:
        time_to_state(AT - timedelta(hours=1), AT)
    assert caught.value.status == 503


# -- answers ------------------------------------------------------------------------------------------


def test_an_answer_is_read_as_the_log_needs_it(log: SmallLog) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    witness = Verifier("so-noi-vu.yenbai.gov.vn/w1", key.public_key(), COSIGNATURE)
    text, note = log.checkpoint().text, log.note()
    line = signature_line(witness.name, key, text, AT)
    foreign = signature_line(witness.name, other, text, AT)
    assert read_cosignature(line.encode(), note, witness) == (line, AT)
    assert read_cosignature((foreign + line).encode(), note, witness) == (line, AT)
    plain = Verifier(witness.name, key.public_key())
    for answer, reason in (
        (foreign.encode(), "no cosignature of so-noi-vu"),
        (line.encode()[:-1], "not lines"),
        (b"", "not lines"),
        (b"\xff\n", "not UTF-8"),
        (b"OK\n", "not written as"),
        (signature_line(witness.name, key, "another text\n", AT).encode(), "is wrong"),
        ((foreign * 65).encode(), "not lines"),
    ):
        with pytest.raises(NoteError, match=reason):
            read_cosignature(answer, note, witness)
    with pytest.raises(NoteError, match="not one of a witness"):
        read_cosignature(signature_line(witness.name, key, text).encode(), note, plain)


# -- evidence -----------------------------------------------------------------------------------------


@pytest.fixture
def finding(log: SmallLog) -> Misbehaviour:
    found = refused(log.fork(5, 21).request(13), log, seen(log, 13)).misbehaviour
    assert found and found.kind is Kind.REWRITTEN
    return found


def test_a_finding_is_checked_by_others_with_the_log_s_key_alone(log: SmallLog, finding: Misbehaviour) -> None:
    again = read_misbehaviour(msgspec.json.encode(finding))
    assert again == finding
    assert "signed a log of 13 entries, and one of 21" in explain(again, [log.verifier])
    with pytest.raises(LogError, match="not signed by"):
        explain(again, [SmallLog().verifier])


def test_findings_that_are_made_up_show_nothing(log: SmallLog, finding: Misbehaviour) -> None:
    fork = log.fork(5, 21)
    change = msgspec.structs.replace
    two_faces = change(finding, kind=Kind.TWO_FACES)
    for made_up in (
        two_faces,
        change(two_faces, known=log.note(), presented=log.note()),
        change(finding, presented=log.note(), proof=tuple(_b64(log.proof(13)))),
        change(finding, proof=finding.proof[:-1]),
        change(finding, proof=("!",)),
        change(finding, known=finding.presented, presented=finding.known),
        change(finding, known=finding.known.replace("\n13\n", "\n14\n")),
        change(finding, known=""),
        change(finding, kind=Kind.IMPOSSIBLE),
        change(finding, kind=Kind.UNPROVEN, known=log.note(), presented=fork.note()),
    ):
        with pytest.raises(LogError):
            explain(made_up, [log.verifier])
    for data in (b"", b"{}", b'{"kind":"liar","origin":"a","keys":[],"known":"","presented":""}'):
        with pytest.raises(LogError, match="not what a witness found"):
            read_misbehaviour(data)


def test_a_finding_keeps_no_lines_of_strangers(log: SmallLog) -> None:
    note = log.fork(5, 13).note()
    found = refused(write_request(13, [], note + "— ai-đó AAAAAAA=\n"), log, seen(log, 13))
    assert found.misbehaviour and found.misbehaviour.presented == note


def _b64(steps: list[bytes]) -> list[str]:
    return [base64.b64encode(step).decode() for step in steps]
