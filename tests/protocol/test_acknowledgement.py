"""What a recipient signs: it covers the documents that it names, and no other."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.acknowledgement import (
    ACKNOWLEDGEMENT_TYPE,
    Document,
    RefusedDocument,
    SignedAcknowledgement,
    covers,
    document_leaf,
    locate,
    read_acknowledgement,
    sign_acknowledgement,
    verify_acknowledgement,
)
from protocol.evidence import EvidenceError
from protocol.problems import Problem
from protocol.reasons import DEFAULT_CODES, REASONS, REFUSAL_CODES
from protocol.signature import Signer, b64url, generate

SIGNER = Signer(generate("ES256"))
KEYS = {SIGNER.kid: SIGNER.key.public_key()}
AT = datetime(2026, 3, 2, 1, 15, 30, tzinfo=UTC)


def document(number: int) -> Document:
    return Document(
        1000 + number, f"01890a5d-{number:04}", hashlib.sha256(f"công văn {number}".encode()).hexdigest()
    )


def leaves(documents: list[Document]) -> list[bytes]:
    return [document_leaf(one.message, one.sha256) for one in documents]


REFUSED = RefusedDocument(7, "01890a5d-7", "ab" * 32, "không thuộc thẩm quyền", "not-competent")


@given(st.integers(1, 70), st.data())
def test_each_document_is_shown_to_be_covered(count: int, data: st.DataObject) -> None:
    documents = [document(number) for number in range(count)]
    jws = sign_acknowledgement(SIGNER, documents, at=AT)
    _, statement = read_acknowledgement(jws)
    assert statement.entries == tuple(one.seq for one in documents)
    assert covers(statement, leaves(documents))
    one = documents[data.draw(st.integers(0, count - 1))]
    found = locate(jws.decode(), leaves(documents), one.message, one.sha256)
    assert found.size == count
    verified = verify_acknowledgement(found, KEYS.get, one.message, one.sha256)
    assert (verified.kid, verified.at, verified.refused) == (SIGNER.kid, "2026-03-02T01:15:30.000000Z", False)
    other = document(count)
    with pytest.raises(EvidenceError, match="does not cover this document"):
        verify_acknowledgement(found, KEYS.get, one.message, other.sha256)
    with pytest.raises(EvidenceError, match="does not cover this document"):
        verify_acknowledgement(found, KEYS.get, other.message, one.sha256)


def test_what_is_refused_stands_there_with_its_reason() -> None:
    jws = sign_acknowledgement(SIGNER, [document(1)], [REFUSED])
    found = locate(jws.decode(), leaves([document(1)]), REFUSED.message, REFUSED.sha256)
    assert (found.size, found.path) == (0, ())
    verified = verify_acknowledgement(found, KEYS.get, REFUSED.message, REFUSED.sha256)
    assert (verified.refused, verified.code, verified.reason) == (True, "not-competent", "không thuộc thẩm quyền")
    with pytest.raises(EvidenceError, match="refuses other documents"):
        verify_acknowledgement(found, KEYS.get, document(1).message, document(1).sha256)
    assert found.sha256 == hashlib.sha256(jws).hexdigest()


def test_what_was_altered_proves_nothing() -> None:
    documents = [document(number) for number in range(5)]
    jws = sign_acknowledgement(SIGNER, documents).decode()
    good = locate(jws, leaves(documents), documents[2].message, documents[2].sha256)
    asked = documents[2].message, documents[2].sha256
    head, payload, signature = jws.split(".")
    forged = b64url(msgspec.json.encode({"at": "2026-03-02T01:15:30Z", "entries": [1], "root": "A" * 43}))
    for change, match in (
        ({"jws": f"{head}.{forged}.{signature}"}, "signature on the acknowledgement is wrong"),
        ({"jws": f"{head}.{payload}.{signature[:-4]}AAAA"}, "is wrong|cannot be read"),
        ({"jws": "không phải JWS"}, "cannot be read"),
        ({"index": 3}, "does not cover"),
        ({"size": 4}, "cannot be one of its documents"),
        ({"path": good.path[:-1]}, "path is shorter"),
        ({"path": (*good.path, good.path[0])}, "path is longer"),
        ({"path": ("AA", *good.path[1:])}, "cannot be one of its documents"),
        ({"path": ("ả", *good.path[1:])}, "cannot be read"),
    ):
        with pytest.raises(EvidenceError, match=match):
            verify_acknowledgement(msgspec.structs.replace(good, **change), KEYS.get, *asked)
    with pytest.raises(EvidenceError, match="not one of the recipient"):
        verify_acknowledgement(good, {}.get, *asked)
    stranger = {SIGNER.kid: generate("ES256").public_key()}
    with pytest.raises(EvidenceError, match="is wrong"):
        verify_acknowledgement(good, stranger.get, *asked)


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        ({}, "missing required field `at`"),
        ({"at": "2026-03-02T01:15:30Z"}, "names nothing"),
        ({"at": "hôm qua", "entries": [1], "root": "A"}, "Invalid isoformat"),
        ({"at": "2026-03-02T01:15:30", "entries": [1], "root": "A"}, "no offset"),
        ({"at": "2026-03-02T01:15:30Z", "entries": [1]}, "none without the other"),
        ({"at": "2026-03-02T01:15:30Z", "entries": [1, 1], "root": "A"}, "twice"),
        ({"at": "2026-03-02T01:15:30Z", "entries": [0], "root": "A"}, ">= 1"),
        ({"at": "2026-03-02T01:15:30Z", "entries": [1], "root": "A", "thêm": 1}, "unknown field"),
        ({"at": "2026-03-02T01:15:30Z", "refused": [{"seq": 1, "message": "x"}]}, "missing required field"),
        (
            {
                "at": "2026-03-02T01:15:30Z",
                "refused": [{"seq": 1, "message": "x", "sha256": "ab" * 32, "reason": "r", "code": "vì thế"}],
            },
            "Invalid enum value",
        ),
    ],
)
def test_what_is_not_one_is_refused(payload: dict[str, Any], match: str) -> None:
    jws = SIGNER.typed(ACKNOWLEDGEMENT_TYPE).sign(orjson.dumps(payload))
    with pytest.raises(Problem, match=match) as caught:
        read_acknowledgement(jws)
    assert caught.value.code == "bad-acknowledgement"


def test_a_signature_over_something_else_is_no_acknowledgement() -> None:
    """A document that somebody signed must not be taken for what he acknowledges."""
    payload = orjson.dumps({"at": "2026-03-02T01:15:30Z", "entries": [1], "root": "A" * 43})
    for signer in (SIGNER, SIGNER.typed("lienthong-seal+1")):
        with pytest.raises(Problem, match="not of type"):
            read_acknowledgement(signer.sign(payload))


def test_the_lists_of_reasons_fit_together() -> None:
    assert REASONS.keys() > REFUSAL_CODES
    for kind, code in DEFAULT_CODES.items():
        assert kind in REASONS[code].events
    for reason in REASONS.values():
        assert reason.events and reason.english and reason.vietnamese


def test_an_answer_of_the_hub_is_read_as_it_was_written() -> None:
    found = SignedAcknowledgement("a.b.c", 1, 2, ("AA",))
    assert msgspec.json.decode(msgspec.json.encode(found), type=SignedAcknowledgement) == found
