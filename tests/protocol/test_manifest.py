"""Manifests: one signature over many documents, each of which can be proven alone, and nothing else can."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.evidence import root_from_path
from protocol.manifest import (
    MANIFEST_TYPE,
    MAX_DOCUMENTS,
    MAX_JWS_BYTES,
    Manifest,
    is_entry,
    message_digest,
    open_entry,
    open_manifest,
    open_native,
    seal_documents,
    seal_manifest,
    signed_bytes,
)
from protocol.message import Document, open_jws, seal, write_document
from protocol.problems import Problem
from protocol.signature import Signer, b64url, generate, parse, to_jwk, unb64url, verify
from tests.support.second_verifier import NotProvenError, inclusion_path, leaf, prove_entry, tree_hash

KEY = generate("ES256")
SIGNER = Signer(KEY)
JWKS = [to_jwk(KEY.public_key())]
SIZES = (1, 2, 3, 5, 8, 100, 999, 1000)


def payloads(count: int) -> list[bytes]:
    return [f'{{"id":"{number}/UBND","trích yếu":"Văn bản số {number}"}}'.encode() for number in range(count)]


def refused(act: Callable[[], object], *, code: str = "bad-manifest") -> str:
    with pytest.raises(Problem) as caught:
        act()
    assert caught.value.code == code, caught.value
    return str(caught.value)


# -- there and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", SIZES)
def test_each_document_can_be_proven_alone_by_both_verifiers(count: int) -> None:
    documents = payloads(count)
    manifest = seal_manifest(documents, SIGNER)
    opened = open_manifest(manifest.jws, manifest.documents)
    assert opened.payloads == documents
    signed = orjson.loads(opened.jws.payload)
    leaves = [leaf(document) for document in documents]
    assert signed == {"root": b64url(tree_hash(leaves)), "size": count}
    assert verify(KEY.public_key(), opened.jws.alg, opened.jws.signature, opened.jws.signing_input)
    for index, raw in enumerate(opened.entries()):
        assert is_entry(raw)
        entry = open_entry(raw)
        assert (entry.payload, entry.index, entry.size) == (documents[index], index, count)
        assert entry.jws.raw == manifest.jws
        assert signed_bytes(raw) == documents[index]
        assert message_digest(raw) == hashlib.sha256(documents[index]).digest()
        if index % (1 + count // 50) == 0:
            assert prove_entry(raw.decode(), JWKS) == documents[index]
            path = [unb64url(step.encode()) for step in raw.decode().split("~")[2].split(".") if step]
            assert path == inclusion_path(index, leaves)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=40))
def test_whatever_the_documents_are_the_recipient_gets_them(documents: list[bytes]) -> None:
    manifest = seal_manifest(documents, SIGNER)
    entries = open_manifest(manifest.jws, manifest.documents).entries()
    assert [open_entry(raw).payload for raw in entries] == documents
    assert [prove_entry(raw.decode(), JWKS) for raw in entries] == documents


def test_the_same_documents_make_the_same_manifest() -> None:
    assert seal_manifest(payloads(7), SIGNER) == seal_manifest(payloads(7), SIGNER)


def test_documents_are_signed_as_they_would_be_alone() -> None:
    documents = [
        Document(id=f"{number}/BC-UBND", sender="000.00.00.H63", to=("000.00.31.H63",), subject="Báo cáo quý")
        for number in range(3)
    ]
    manifest = seal_documents(documents, SIGNER)
    body = manifest.to_body()
    jws, *lines = body.split(b"\n")
    for document, raw in zip(documents, open_manifest(jws, lines).entries(), strict=True):
        opened, found = open_native(raw)
        assert (opened.raw, found) == (manifest.jws, document)
        assert open_native(seal(document, SIGNER))[1] == document
        assert signed_bytes(raw) == write_document(document)


def test_a_message_of_its_own_is_its_own_signed_bytes() -> None:
    raw = SIGNER.sign(payloads(1)[0])
    assert not is_entry(raw)
    assert signed_bytes(raw) == raw
    assert message_digest(raw) == hashlib.sha256(raw).digest()


def test_a_manifest_holds_one_to_a_thousand_documents() -> None:
    for count in (0, MAX_DOCUMENTS + 1):
        with pytest.raises(ValueError, match=f"1 to 1000 documents, not {count}"):
            seal_manifest(payloads(count), SIGNER)


# -- a manifest that was tampered with ----------------------------------------------------------------


def sealed(count: int = 5) -> Manifest:
    return seal_manifest(payloads(count), SIGNER)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[::-1],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:-1], b64url(b"{}").encode()],
        lambda lines: [*lines[:-1], b""],
        lambda lines: [],
    ],
    ids=["reversed", "swapped", "one missing", "one twice", "one replaced", "one empty", "none"],
)
def test_other_documents_or_another_order_are_refused(change: Callable[[list[bytes]], list[bytes]]) -> None:
    manifest = sealed()
    refused(lambda: open_manifest(manifest.jws, change(list(manifest.documents))))


def test_each_bit_of_a_document_counts() -> None:
    manifest = sealed(3)
    for place in range(len(payloads(3)[1])):
        document = bytearray(payloads(3)[1])
        document[place] ^= 1
        lines = [manifest.documents[0], b64url(bytes(document)).encode(), manifest.documents[2]]
        refused(lambda lines=lines: open_manifest(manifest.jws, lines))


def test_a_line_that_is_not_base64url_is_named() -> None:
    manifest = sealed(3)
    for line in (b"e30=", b"e3 0", b"a", b"e30\r", "tiếng".encode(), b"e31"):
        lines = [*manifest.documents[:2], line]
        assert refused(lambda lines=lines: open_manifest(manifest.jws, lines)).startswith("document 3 ")


def signed_as(payload: bytes, typ: str = MANIFEST_TYPE) -> bytes:
    return SIGNER.typed(typ).sign(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"xin chao",
        b"[]",
        b"7",
        b'{"size":1}',
        b'{"root":"","size":1}',
        b'{"root":7,"size":1}',
        b'{"root":null,"size":1}',
        b'{"root":"AAAA","size":1}',
        '{"root":"thiếu","size":1}'.encode(),
        b'{"root":"%b"}' % (b"A" * 43),
        b'{"root":"%b","size":"1"}' % (b"A" * 43),
        b'{"root":"%b","size":true}' % (b"A" * 43),
        b'{"root":"%b","size":1.0}' % (b"A" * 43),
        b'{"root":"%b","size":0}' % (b"A" * 43),
        b'{"root":"%b","size":-1}' % (b"A" * 43),
        b'{"root":"%b","size":1001}' % (b"A" * 43),
        b"[" * 5000,
    ],
)
def test_a_manifest_that_signs_anything_else_is_none(payload: bytes) -> None:
    for opened in (
        lambda: open_manifest(signed_as(payload), [b"e30"]),
        lambda: open_entry(signed_as(payload) + b"~0~~e30"),
    ):
        refused(opened)


def test_a_jws_of_another_type_is_no_manifest_and_a_manifest_is_no_document() -> None:
    """Whoever signed a document has not signed a manifest of it, nor the other way round."""
    manifest = sealed(1)
    signed = parse(manifest.jws).payload
    for raw in (
        SIGNER.sign(signed),
        signed_as(signed, "lienthong-seal+1"),
        signed_as(signed, "LIENTHONG-MANIFEST+1"),
    ):
        refused(lambda raw=raw: open_manifest(raw, manifest.documents))
        refused(lambda raw=raw: open_entry(raw + b"~0~~" + manifest.documents[0]))
    refused(lambda: open_jws(manifest.jws), code="bad-document")


def test_what_is_no_jws_is_no_manifest() -> None:
    for raw in (b"", b"a.b", b"a.b.c.d", b"..", b"xin chao"):
        refused(lambda raw=raw: open_manifest(raw, [b"e30"]), code="not-a-jws")
        refused(lambda raw=raw: open_entry(raw + b"~0~~e30"), code="not-a-jws")


def test_a_jws_longer_than_any_manifest_is_not_looked_at() -> None:
    long = signed_as(b" " * MAX_JWS_BYTES)
    refused(lambda: open_manifest(long, [b"e30"]))
    refused(lambda: open_entry(long + b"~0~~e30"))


# -- an entry that was tampered with ------------------------------------------------------------------


def entry_parts(count: int = 5, index: int = 2) -> list[bytes]:
    manifest = sealed(count)
    return open_manifest(manifest.jws, manifest.documents).entries()[index].split(b"~")


def not_proven(parts: list[bytes]) -> None:
    """Neither verifier takes the entry."""
    raw = b"~".join(parts)
    with pytest.raises(Problem) as caught:
        open_entry(raw)
    assert caught.value.code in ("bad-manifest", "not-a-jws")
    with pytest.raises((NotProvenError, UnicodeDecodeError)):
        prove_entry(raw.decode("ascii"), JWKS)


@pytest.mark.parametrize("index", [0, 1, 3, 4, 5, 999])
def test_a_document_stands_at_its_own_place_only(index: int) -> None:
    parts = entry_parts()
    not_proven([parts[0], str(index).encode(), *parts[2:]])


@pytest.mark.parametrize("text", [b"", b"-2", b"+2", b" 2", b"2 ", b"02", b"2_", b"2.0", b"\xd9\xa2", b"9" * 5000])
def test_a_place_is_written_in_one_way(text: bytes) -> None:
    parts = entry_parts()
    refused(lambda: open_entry(b"~".join([parts[0], text, *parts[2:]])))


def test_every_step_of_the_path_counts() -> None:
    parts = entry_parts()
    steps = parts[2].split(b".")
    assert len(steps) == 3
    changed = [steps[:-1], steps[1:], [*steps, steps[0]], steps[::-1], [], [b"", *steps], [b"AAAA", *steps[1:]]]
    changed += [[*steps[:place], b"A" * 43, *steps[place + 1 :]] for place in range(3)]
    changed += [[*steps[:2], steps[2][:-1]], [*steps[:2], steps[2] + b"="], [steps[0]] * 5000]
    for path in changed:
        not_proven([*parts[:2], b".".join(path), parts[3]])


def test_another_document_is_not_the_one() -> None:
    parts, others = entry_parts(), entry_parts(index=3)
    for document in (others[3], b64url(b"{}").encode(), b"", parts[3] + b"A", parts[3][:-1], parts[3] + b"="):
        not_proven([*parts[:3], document])


def test_an_entry_has_four_parts() -> None:
    parts = entry_parts()
    for some in (parts[:3], [*parts, b""], [*parts, b"e30"], [b"~"], [parts[0]]):
        not_proven(some)


def test_an_inner_hash_is_no_document() -> None:
    """What the tree hashes above the leaves has another prefix: nobody can pass two hashes off as a document."""
    documents = payloads(2)
    inner = b"".join(map(leaf, documents))
    four = seal_manifest([*documents, *payloads(4)[2:]], SIGNER)
    raw = open_manifest(four.jws, four.documents).entries()[0].split(b"~")
    above = raw[2].split(b".")[1]
    assert root_from_path(tree_hash([leaf(d) for d in documents]), 0, 2, [unb64url(above)])
    not_proven([raw[0], b"0", above, b64url(inner).encode()])


def test_a_signature_by_another_is_seen_by_whoever_checks_it() -> None:
    """Taking an entry apart proves nothing of who signed: the hub and the recipient check that with the key."""
    stranger = seal_manifest(payloads(3), Signer(generate("ES256"), kid=SIGNER.kid))
    raw = open_manifest(stranger.jws, stranger.documents).entries()[1]
    entry = open_entry(raw)
    assert not verify(KEY.public_key(), entry.jws.alg, entry.jws.signature, entry.jws.signing_input)
    with pytest.raises(NotProvenError, match="signature is wrong"):
        prove_entry(raw.decode(), JWKS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_entry_changed_anywhere_proves_nothing(data: st.DataObject) -> None:
    """By one character, or by leaving some out: another document is never proven, by either verifier."""
    count = data.draw(st.sampled_from((1, 2, 3, 6, 33)))
    index = data.draw(st.integers(0, count - 1))
    raw = b"~".join(entry_parts(count, index))
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start, min(start + 3, len(raw))))
    put = data.draw(st.sampled_from([b"", b"A", b"~", b".", b"0", b"-", b"=", b"\xff"]))
    changed = raw[:start] + put + raw[end:]
    if changed == raw:
        return
    try:
        entry = open_entry(changed)
    except Problem:
        return
    # All that is left is the JWS's own text, which its signature covers.
    assert entry.payload == payloads(count)[index]
    assert not verify(KEY.public_key(), entry.jws.alg, entry.jws.signature, entry.jws.signing_input)
    with pytest.raises(NotProvenError):
        prove_entry(changed.decode("ascii"), JWKS)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.from_regex(re.compile(rb"[\w.]*~[\d]*~[\w.]*~[\w]*"), fullmatch=True))
def test_nothing_else_is_an_entry(raw: bytes) -> None:
    for opened in (open_entry, open_native, lambda raw: open_manifest(raw, [b"e30"])):
        with pytest.raises(Problem):
            opened(raw)
