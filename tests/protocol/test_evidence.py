"""Receipts: the trees of RFC 9162 against a second implementation, and every way to forge one."""

from __future__ import annotations

import ast
import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from protocol.evidence import (
    SEAL_TYPE,
    EvidenceError,
    Receipt,
    Sealer,
    Tree,
    leaf_hash,
    read_receipt,
    receipt,
    recipients_digest,
    root_from_path,
    timestamp,
    verify_receipt,
)
from protocol.signature import PublicKey, Signer, b64url, generate, thumbprint, to_jwk
from tests.support import second_verifier
from tests.support.second_verifier import NotProvenError

KEY = generate("EdDSA")
PUBLIC = KEY.public_key()
KEYS = {thumbprint(PUBLIC): PUBLIC}
JWKS = [to_jwk(PUBLIC)]
AT = datetime(2026, 3, 2, 1, 15, tzinfo=UTC)
DOCUMENT = "Quyết định 1085/QĐ-UBND".encode()


def batch(size: int, key: Any = KEY, typ: str | None = SEAL_TYPE, hub: str = "truc.h63") -> list[Receipt]:
    """The receipts of a batch of `size` events about `DOCUMENT`."""
    digest = hashlib.sha256(DOCUMENT).hexdigest()
    events = [f'{{"event":"accepted","số":{number},"sha256":"{digest}"}}' for number in range(size)]
    tree = Tree([leaf_hash(event.encode()) for event in events])
    seal = Sealer(hub, Signer(key, typ=typ)).seal(tree, "lô-1", AT)
    return [receipt(event, index, tree, seal) for index, event in enumerate(events)]


def members(found: Receipt) -> dict[str, Any]:
    return dict(orjson.loads(found.to_json()))


def altered(found: Receipt, **changes: Any) -> Receipt:
    return read_receipt(orjson.dumps(members(found) | changes))


BATCHES = {size: batch(size) for size in (1, 2, 3, 5, 8, 13)}
any_receipt = st.sampled_from([found for receipts in BATCHES.values() for found in receipts])


# -- trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 70, 127, 256, 257])
def test_roots_and_paths_are_those_of_rfc_9162(size: int) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(size)]
    assert leaves == [second_verifier.leaf(b"%d" % number) for number in range(size)]
    tree = Tree(leaves)
    assert tree.root == second_verifier.tree_hash(leaves)
    for index in range(size):
        path = tree.path(index)
        assert path == second_verifier.inclusion_path(index, leaves)
        assert root_from_path(leaves[index], index, size, path) == tree.root
        assert second_verifier.root_of(leaves[index], index, size, path) == tree.root


def test_the_tree_of_one_leaf_is_the_leaf_and_that_of_none_is_none() -> None:
    assert Tree([leaf_hash(b"")]).root == hashlib.sha256(b"\0").digest()
    with pytest.raises(ValueError, match="at least one"):
        Tree([])


@given(st.integers(1, 80), st.data())
def test_both_implementations_agree_on_every_path_right_or_wrong(size: int, data: st.DataObject) -> None:
    """A path of any length, for any place in a tree of any size: the same root, or none from either."""
    index = data.draw(st.integers(-1, 80))
    path = [bytes([number]) * 32 for number in range(data.draw(st.integers(0, 8)))]
    leaf = leaf_hash("công văn".encode())
    try:
        first = root_from_path(leaf, index, size, path)
    except EvidenceError:
        first = None
    try:
        second = second_verifier.root_of(leaf, index, size, path)
    except NotProvenError:
        second = None
    assert first == second


@given(st.integers(1, 200), st.data())
def test_a_leaf_proves_itself_at_its_own_place_only(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(size)]
    tree = Tree(leaves)
    index, claimed = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    assume(claimed != index)
    try:
        root = root_from_path(leaves[index], claimed, size, tree.path(index))
    except EvidenceError:
        return
    assert root != tree.root


def test_an_inner_node_cannot_be_passed_off_as_an_event() -> None:
    """The prefixes 0x00 and 0x01 keep a node's preimage from being an event's."""
    leaves = [leaf_hash(b"%d" % number) for number in range(4)]
    tree = Tree(leaves)
    left = tree.levels[1][0]
    assert Tree([left, tree.levels[1][1]]).root == tree.root
    assert leaf_hash(leaves[0] + leaves[1]) != left
    assert leaf_hash(b"\1" + leaves[0] + leaves[1]) != left


# -- receipts -------------------------------------------------------------------------------------


@given(any_receipt)
def test_a_receipt_proves_its_event_to_both_verifiers(found: Receipt) -> None:
    verified = verify_receipt(found, KEYS.get, DOCUMENT)
    assert (verified.hub, verified.batch, verified.kid) == ("truc.h63", "lô-1", thumbprint(PUBLIC))
    assert verified.sealed_at == "2026-03-02T01:15:00.000000Z"
    assert verified.event["số"] == found.index
    assert second_verifier.prove(members(found), JWKS, DOCUMENT) == verified.event


def test_the_hubs_key_may_be_of_any_type() -> None:
    for alg in ("ES256", "PS256"):
        key = generate(alg)
        (found,) = batch(1, key)
        assert verify_receipt(found, {thumbprint(key.public_key()): key.public_key()}.get).event["số"] == 0


def test_a_receipt_is_read_alone_or_out_of_an_answer() -> None:
    found = BATCHES[5][3]
    assert read_receipt(found.to_json()) == found
    assert read_receipt(orjson.dumps({"id": "…", "receipt": members(found)})) == found


@given(any_receipt, st.data())
@example(found=BATCHES[3][0], data=None)
def test_any_altered_byte_of_a_receipt_is_noticed(found: Receipt, data: st.DataObject | None) -> None:
    raw = bytearray(found.to_json())
    if data is None:  # the last character of the seal holds bits that belong to no byte
        place = len(raw) - 3
        changes = [byte for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    else:
        place = data.draw(st.integers(0, len(raw) - 1))
        changes = [data.draw(st.integers(0, 255))]
    before = raw[place]
    for change in changes:
        if change == before:
            continue
        raw[place] = change
        with pytest.raises(EvidenceError):
            verify_receipt(read_receipt(bytes(raw)), KEYS.get, DOCUMENT)
        with pytest.raises((NotProvenError, ValueError, KeyError)):
            second_verifier.prove(orjson.loads(bytes(raw)), JWKS, DOCUMENT)


@given(any_receipt, any_receipt)
def test_no_member_of_one_receipt_serves_another(found: Receipt, other: Receipt) -> None:
    """Mixed from two genuine receipts, only what equals one of them proves anything."""
    for name in ("event", "index", "path", "size", "seal"):
        mixed = altered(found, **{name: members(other).get(name)})
        if mixed == found:
            continue
        if mixed == other:
            verify_receipt(mixed, KEYS.get)
            continue
        with pytest.raises(EvidenceError):
            verify_receipt(mixed, KEYS.get)
        with pytest.raises(NotProvenError):
            second_verifier.prove(members(mixed), JWKS)


def test_each_failure_says_at_which_step_it_is() -> None:
    found = BATCHES[5][2]
    header, payload, _ = found.seal.split(".")
    stranger = generate("EdDSA")
    other_key = batch(5, stranger)[2]
    wrong_sign = f"{header}.{payload}.{b64url(bytes(64))}"
    cases: list[tuple[Receipt, str]] = [
        (altered(found, seal="không phải con dấu"), "cannot be read"),
        (altered(found, seal="khong.phai"), "not a JWS"),
        (altered(found, seal=wrong_sign), "signature on the seal is wrong"),
        (batch(5, typ=None)[2], "another type"),
        (batch(5, typ="JWT")[2], "another type"),
        (other_key, "not among the trusted"),
        (altered(found, size=6), "another batch size"),
        (altered(found, index=5), "outside its batch"),
        (altered(found, index=3), "not in the sealed batch"),
        (altered(found, event=found.event + " "), "not in the sealed batch"),
        (altered(found, event="[1]"), "cannot be read"),
        (altered(found, event="{"), "cannot be read"),
        (altered(found, path=[*found.path, found.path[0]]), "longer than"),
        (altered(found, path=found.path[1:]), "shorter than"),
        (altered(found, path=[found.path[0][:-2], *found.path[1:]]), "cannot be read"),
        (altered(found, path=["ă", *found.path[1:]]), "cannot be read"),
    ]
    for forged, step in cases:
        with pytest.raises(EvidenceError, match=step):
            verify_receipt(forged, KEYS.get)
    with pytest.raises(EvidenceError, match="another document"):
        verify_receipt(found, KEYS.get, DOCUMENT + b"\n")


def test_a_seal_signed_with_another_key_under_the_same_kid_is_noticed() -> None:
    stranger = generate("EdDSA")
    (found,) = batch(1, stranger)
    kid = thumbprint(stranger.public_key())
    trusted: dict[str, PublicKey] = {kid: PUBLIC}
    with pytest.raises(EvidenceError, match="signature"):
        verify_receipt(found, trusted.get)


def test_a_document_signed_by_an_agency_is_no_seal_even_with_the_hubs_key() -> None:
    """What separates a seal from all else that a key may sign is its `typ`."""
    found = BATCHES[1][0]
    payload = orjson.loads(second_verifier.decode64(found.seal.split(".")[1]))
    document = Signer(KEY).sign(orjson.dumps(payload)).decode()
    with pytest.raises(EvidenceError, match="another type"):
        verify_receipt(altered(found, seal=document), KEYS.get)


@pytest.mark.parametrize(
    "sealed",
    [
        b"{}",
        b"[]",
        b"null",
        b"7",
        b'{"root":1,"size":1,"hub":"h","batch":"b","at":"t"}',
        b'{"root":"AA"}',
        b"\xff",
    ],
)
def test_a_seal_over_something_else_is_refused(sealed: bytes) -> None:
    seal = Signer(KEY, typ=SEAL_TYPE).sign(sealed).decode()
    with pytest.raises(EvidenceError):
        verify_receipt(altered(BATCHES[1][0], seal=seal), KEYS.get)


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"receipt":' * 2_000)
@example(b'{"event":"\\ud800","index":0,"size":1,"path":[],"seal":""}')
@example(b'{"event":"","index":99999999999999999999999,"size":1,"path":[],"seal":""}')
@example(b'{"receipt":{"event":"","index":-1,"size":0,"path":[1],"seal":null}}')
def test_any_bytes_are_a_receipt_or_refused(data: bytes) -> None:
    try:
        found = read_receipt(data)
    except EvidenceError:
        return
    assert isinstance(found, Receipt)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("event", "index", "size", "path", "seal"), json_values)))
def test_any_members_are_a_receipt_that_proves_nothing_or_refused(found: dict[str, Any]) -> None:
    for data in (orjson.dumps(found), orjson.dumps({"receipt": found})):
        with pytest.raises(EvidenceError):
            verify_receipt(read_receipt(data), KEYS.get)


def test_the_second_verifier_shares_no_code_with_the_first() -> None:
    tree = ast.parse(Path(second_verifier.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names}
    assert packages == {"__future__", "base64", "collections", "cryptography", "hashlib", "json", "typing"}


# -- what events say ------------------------------------------------------------------------------


def test_moments_are_written_in_utc_with_microseconds() -> None:
    hanoi = timezone(timedelta(hours=7))
    assert timestamp(datetime(2026, 3, 2, 8, 15, 30, 5, tzinfo=hanoi)) == "2026-03-02T01:15:30.000005Z"


@given(st.lists(st.from_regex(r"\A[0-9]{3}\.[0-9]{2}\.[0-9]{2}\.H63\Z"), unique=True, max_size=8))
def test_the_digest_of_recipients_knows_no_order_and_forgets_nobody(codes: list[str]) -> None:
    digest = recipients_digest(codes)
    assert digest == recipients_digest(reversed(codes))
    assert digest == hashlib.sha256("".join(code + "\n" for code in sorted(codes)).encode()).hexdigest()
    assert all(digest != recipients_digest(codes[:place] + codes[place + 1 :]) for place in range(len(codes)))
