"""The log's tree, tiles, checkpoints and proofs, against RFC 6962's own recursive definitions."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol import log
from protocol.evidence import EvidenceError
from protocol.log import Checkpoint, LogError, Tile
from protocol.note import Verifier, signature_line

ORIGIN = "trục.lienthong.yenbai.gov.vn/log"
SIZES = st.integers(0, 1200)


def entry(number: int) -> bytes:
    return hashlib.sha256(f"sự kiện {number}".encode()).digest()


LEAVES = [log.log_leaf(entry(number)) for number in range(1200)]


def mth(start: int, end: int) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if end == start:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    k = 1
    while k * 2 < end - start:
        k *= 2
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, end)).digest()


def node(level: int, index: int) -> bytes:
    return mth(index << level, (index + 1) << level)


def tiles_of(size: int) -> dict[Tile, bytes]:
    """Every tile of a log, as it would be stored."""
    found = {}
    level = 0
    while size >> 8 * level:
        count = size >> 8 * level
        for index in range(-(-count // 256)):
            width = min(256, count - index * 256)
            hashes = [node(8 * level, index * 256 + place) for place in range(width)]
            found[Tile(level, index, width)] = b"".join(hashes)
        level += 1
    return found


@given(SIZES)
def test_the_root_is_that_of_the_standard(size: int) -> None:
    assert log.root(size, node) == mth(0, size)


@given(st.integers(1, 1200), st.data())
def test_every_entry_can_be_shown_to_be_in_the_log(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = log.inclusion_proof(index, size, node)
    log.verify_inclusion(entry(index), index, size, mth(0, size), path)
    with pytest.raises(EvidenceError):
        log.verify_inclusion(entry(index + 1), index, size, mth(0, size), path)
    with pytest.raises(EvidenceError):
        log.verify_inclusion(entry(index), index, size, mth(0, size), [*path, EMPTY])
    if path:
        with pytest.raises(EvidenceError):
            log.verify_inclusion(entry(index), index, size, mth(0, size), path[:-1])
        altered = [bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:]]
        with pytest.raises(EvidenceError):
            log.verify_inclusion(entry(index), index, size, mth(0, size), altered)


EMPTY = bytes(32)


@given(SIZES, st.data())
def test_a_log_that_only_grew_can_show_it(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, new))
    path = log.consistency_proof(old, new, node)
    log.verify_consistency(old, mth(0, old), new, mth(0, new), path)
    with pytest.raises(LogError):
        log.verify_consistency(old, mth(0, old), new, mth(0, new), [*path, EMPTY])
    if old not in (0, new):
        with pytest.raises(LogError, match="rewritten"):
            log.verify_consistency(old, EMPTY, new, mth(0, new), path)
        with pytest.raises(LogError):
            log.verify_consistency(old, mth(0, old), new, EMPTY, path)
        with pytest.raises(LogError):
            log.verify_consistency(old, mth(0, old), new, mth(0, new), path[:-1])


def test_a_log_that_shrank_or_shows_two_faces_is_told() -> None:
    with pytest.raises(LogError, match="shrank: it had 8 entries and now says 7"):
        log.verify_consistency(8, mth(0, 8), 7, mth(0, 7), [])
    with pytest.raises(LogError, match="two faces"):
        log.verify_consistency(8, mth(0, 8), 8, mth(0, 7), [])
    log.verify_consistency(8, mth(0, 8), 8, mth(0, 8), [])


@given(st.integers(1, 1200), st.data())
def test_proofs_come_out_of_tiles(size: int, data: st.DataObject) -> None:
    tiles = tiles_of(size)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    for ask in (
        lambda node: log.inclusion_proof(index, size, node),
        lambda node: log.consistency_proof(old, size, node),
        lambda node: log.root(size, node),
    ):
        needed = log.tiles_needed(size, ask)
        assert needed <= tiles.keys()
        assert ask(log.node_from({tile: tiles[tile] for tile in needed}, size)) == ask(node)
    with pytest.raises(LogError, match="missing"):
        log.root(size, log.node_from({}, size))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999, 1), "tile/0/999.p/1"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(log.ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (Tile(63, 5, 255), "tile/63/005.p/255"),
    ],
)
def test_tiles_have_the_addresses_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert log.read_tile_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1",
        "tile/0/0001",
        "tile/64/000",
        "tile/01/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/x000/001",
        "tile/0/x1/000",
        "tile/0/../000",
        "",
        "tile/entries/",
        "tile/0/000\n",
        "tile/0/x001",
        "tile/0/٠٠٠",
    ],
)
def test_other_addresses_are_refused(path: str) -> None:
    with pytest.raises(LogError):
        log.read_tile_path(path)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_are_read_as_written(entries: list[bytes]) -> None:
    data = log.write_bundle(entries)
    assert log.read_bundle(data, len(entries)) == entries
    with pytest.raises(LogError):
        log.read_bundle(data + b"\x00", len(entries) + 1)


def test_a_checkpoint_is_opened_by_those_who_trust_its_log() -> None:
    key, witness = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    checkpoint = Checkpoint(ORIGIN, 12, mth(0, 12))
    text = checkpoint.text
    note = text + "\n" + signature_line(ORIGIN, key, text) + signature_line("other", witness, text)
    trusted = Verifier(ORIGIN, key.public_key())
    assert log.open_checkpoint(note, trusted)[0] == checkpoint
    with pytest.raises(LogError, match="not signed by"):
        log.open_checkpoint(note, Verifier("unknown", key.public_key()))
    with pytest.raises(LogError, match=r"signature of .* is wrong"):
        log.open_checkpoint(note.replace("\n12\n", "\n13\n"), trusted)
    twin = Verifier("other", witness.public_key())
    with pytest.raises(LogError, match="is one of trục"):
        log.open_checkpoint(note, twin)


@pytest.mark.parametrize(
    "text",
    ["a\n1\n", "a\n01\nx\n", "a\n-1\n" + "A" * 44 + "\n", "a\n1\nAAAA\n", "a\n1\n\n", "a\n١\n" + "A" * 43 + "=\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    key = Ed25519PrivateKey.generate()
    with pytest.raises(LogError):
        log.open_checkpoint(text + "\n" + signature_line("a", key, text), Verifier("a", key.public_key()))


@given(st.integers(1, 300), st.data())
def test_a_proof_is_read_as_written(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    checkpoint = Checkpoint(ORIGIN, size, mth(0, size)).text + "\n— a AAAAAAA=\n"
    proof = log.InclusionProof(index, tuple(log.inclusion_proof(index, size, node)), checkpoint)
    assert log.read_proof(str(proof)) == proof


@pytest.mark.parametrize("text", ["", "c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v1\nindex 01\n\nx\n"])
def test_what_is_no_proof_is_refused(text: str) -> None:
    with pytest.raises(LogError, match="not a proof"):
        log.read_proof(text)
