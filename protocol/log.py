"""The transparency log: a Merkle tree over all events, its checkpoints, tiles and proofs.

An *entry* is the leaf hash of an event (32 bytes), the very hash that a receipt proves. So the log can be shown to
everybody and tells nobody who wrote to whom, and whoever holds an event can find it. The tree is that of RFC 6962,
section 2.1 (as are a batch's): it hashes each entry once more.

    event ──SHA-256(0x00‖·)──► entry ──SHA-256(0x00‖·)──► leaf of the log ──► root ──► checkpoint, signed

What is written down follows c2sp.org: tlog-checkpoint (a size and a root as a signed note), tlog-tiles (the
tree in files of 256 hashes that never change) and tlog-proof (an index, a path and a checkpoint).

Functions that need hashes of the tree take `node`, a function that gives the hash of the full subtree
``[index · 2^level, (index + 1) · 2^level)``. `tiles_needed` finds out by a dry run which tiles such a function
will ask for, so that they can be fetched first, all at once: nothing here does I/O.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from protocol.evidence import HASH_BYTES, EvidenceError, leaf_hash, root_from_path
from protocol.note import Note, NoteError, Signed, Verifier, read_note, verify_note

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
ENTRIES = -1
"""The level of an entry bundle, which is no tile but named like one."""
MAX_PATH = 63
EMPTY_ROOT = hashlib.sha256().digest()
PROOF_FORMAT = "c2sp.org/tlog-proof@v1"

NodeHash = Callable[[int, int], bytes]
_sha256 = hashlib.sha256


class LogError(EvidenceError):
    """Something that no honest log says, or that cannot be read; the message says what."""


def log_leaf(entry: bytes) -> bytes:
    """The log's leaf for an entry."""
    return leaf_hash(entry)


def _node(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()


# -- trees --------------------------------------------------------------------------------------


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    level = list(hashes)
    sha256 = _sha256
    while len(level) > 1:
        level = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


def _peaks(start: int, end: int) -> list[tuple[int, int]]:
    """The full subtrees that `[start, end)` falls into, from the left; `start` begins a subtree as large as the
    range, as every range in a proof does."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _range_hash(start: int, end: int, node: NodeHash) -> bytes:
    """The Merkle tree hash of the entries in `[start, end)`."""
    hash_ = b""
    for level, index in reversed(_peaks(start, end)):
        left = node(level, index)
        hash_ = _node(left, hash_) if hash_ else left
    return hash_


def root(size: int, node: NodeHash) -> bytes:
    """The root of the log at `size`."""
    return _range_hash(0, size, node) if size else EMPTY_ROOT


def _split(size: int) -> int:
    """The largest power of two below `size` (of at least 2)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """The path from leaf `index` to the root at `size`, the leaf's sibling first (RFC 6962, section 2.1.1)."""
    if not 0 <= index < size:
        raise LogError(f"entry {index} is not in a log of {size} entries")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: NodeHash) -> list[bytes]:
    """What shows that the log at `new` begins with the log at `old` (RFC 6962, section 2.1.2)."""
    if not 0 <= old <= new:
        raise LogError(f"a log of {old} entries cannot have become one of {new}")
    if old in (0, new):
        return []
    path = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start, whole = middle, False
    if not whole:
        path.append(_range_hash(start, end, node))
    return path[::-1]


def verify_inclusion(entry: bytes, index: int, size: int, root_: bytes, path: Sequence[bytes]) -> None:
    """Check that `entry` is the log's entry `index` at a checkpoint's size and root. Raises EvidenceError."""
    if len(path) > MAX_PATH or root_from_path(log_leaf(entry), index, size, path) != root_:
        raise LogError(
            "the entry is not in the log at that place: its hash does not lead to the checkpoint's root"
        )


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that a log of `new` entries begins with that of `old` entries (RFC 9162, section 2.1.4.2).

    Raises LogError: the log shrank, was rewritten, or the proof is not one.
    """
    if new < old:
        raise LogError(f"the log shrank: it had {old} entries and now says {new}")
    if old in (0, new):
        if path:
            raise LogError("the consistency proof should be empty")
        if old == new and old_root != new_root:
            raise LogError(f"the log shows two faces: two roots at {old} entries")
        return
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps or len(steps) > MAX_PATH + 1:
        raise LogError("the consistency proof has the wrong length")
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise LogError("the consistency proof is too long")
        if node & 1 or node == last:
            first = _node(step, first)
            second = _node(step, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = _node(second, step)
        node >>= 1
        last >>= 1
    if last:
        raise LogError("the consistency proof is too short")
    if first != old_root or second != new_root:
        raise LogError(f"the log was rewritten: its {old} entries of before are not the first {old} of {new}")


# -- tiles --------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """`width` consecutive hashes at height ``8 · level``, from the ``256 · index``-th on."""

    level: int
    index: int  # type: ignore[assignment]  # a tuple's method of this name is not missed
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Its address below the log's prefix."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[start : start + 3] for start in range(0, len(digits), 3)]
        name = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{name}" + (f".p/{self.width}" if self.width < TILE_WIDTH else "")


_TILE_PATH = re.compile(
    r"(?:tile/)?(entries|0|[1-5]?[0-9]|6[0-3])/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


def read_tile_path(path: str) -> Tile:
    """The tile at an address below the log's prefix. Raises LogError."""
    match = _TILE_PATH.fullmatch(path)
    width = int(match[3] or TILE_WIDTH) if match else 0
    if match is None or (match[3] and width >= TILE_WIDTH) or match[2].startswith("x000/"):
        raise LogError("that is not the address of a tile: see c2sp.org/tlog-tiles")
    level = ENTRIES if match[1] == "entries" else int(match[1])
    return Tile(level, int(match[2].replace("x", "").replace("/", "")), width)


def tile_of(level: int, index: int, size: int) -> Tile:
    """The tile that holds the subtree `index` at height `level`, as wide as a log of `size` entries has it."""
    tile_level, below = divmod(level, TILE_HEIGHT)
    place = (index << below) >> TILE_HEIGHT
    return Tile(tile_level, place, min(TILE_WIDTH, (size >> TILE_HEIGHT * tile_level) - place * TILE_WIDTH))


def tiles_needed(size: int, reads: Callable[[NodeHash], object]) -> set[Tile]:
    """The tiles of a log of `size` entries that `reads`, a function of `node`, asks for."""
    found: set[Tile] = set()

    def note(level: int, index: int) -> bytes:
        found.add(tile_of(level, index, size))
        return EMPTY_ROOT

    reads(note)
    return found


def node_from(tiles: Mapping[Tile, bytes], size: int) -> NodeHash:
    """`node` over tiles at hand, of a log of `size` entries. It raises LogError for what they do not hold."""

    def node(level: int, index: int) -> bytes:
        tile = tile_of(level, index, size)
        data = tiles.get(tile)
        if data is None or len(data) < tile.width * HASH_BYTES:
            raise LogError(f"the tile {tile.path} is missing or too short")
        below = level % TILE_HEIGHT
        first = (index << below) % TILE_WIDTH
        return subtree_root(split_hashes(data[first * HASH_BYTES : (first + (1 << below)) * HASH_BYTES]))

    return node


def split_hashes(data: bytes) -> list[bytes]:
    """Hashes one after the other, taken apart."""
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry after its length in two bytes."""
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def read_bundle(data: bytes, count: int) -> list[bytes]:
    """The `count` entries of a bundle. Raises LogError."""
    entries = []
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 2])
        entries.append(data[place + 2 : place + 2 + length])
        place += 2 + length
    if place != len(data) or len(entries) < count:
        raise LogError("an entry bundle of the log is cut short")
    return entries[:count]


# -- checkpoints and proofs ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a log reaches: its size and root under its name."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def read_checkpoint(note: Note) -> Checkpoint:
    """What a note says as a checkpoint; its signatures are not looked at. Raises LogError."""
    lines = note.text.split("\n")
    try:
        origin, size, encoded = lines[:3]
        root_ = base64.b64decode(encoded.encode("ascii"), validate=True)
        if len(root_) != HASH_BYTES or not origin or not re.fullmatch(r"0|[1-9][0-9]{0,18}", size, re.ASCII):
            raise ValueError
        if any(not line for line in lines[3:-1]):
            raise ValueError
    except ValueError:
        raise LogError(
            "the note is not a checkpoint: it has an origin, a size and a root, each on a line"
        ) from None
    return Checkpoint(origin, int(size), root_)


def open_checkpoint(
    data: bytes | str, log: Verifier, witnesses: Iterable[Verifier] = ()
) -> tuple[Checkpoint, Note, list[Signed]]:
    """A checkpoint that `log` signed, and the cosignatures of those `witnesses` that cosigned it.

    Raises LogError when it is not one, is another log's, or a signature of a trusted key is wrong.
    """
    try:
        note = read_note(data)
        signed = verify_note(note, [log, *witnesses])
    except NoteError as error:
        raise LogError(f"the checkpoint cannot be relied on: {error}") from None
    checkpoint = read_checkpoint(note)
    if all(one.verifier is not log for one in signed):
        raise LogError(f"the checkpoint is not signed by {log.name}, the log that is trusted")
    if checkpoint.origin != log.name:
        raise LogError(f"the checkpoint is one of {checkpoint.origin}, not of {log.name}")
    return checkpoint, note, [one for one in signed if one.verifier is not log]


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Where an entry is in the log, and the path to a checkpoint's root."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str

    def __str__(self) -> str:
        """As c2sp.org/tlog-proof writes it."""
        steps = "".join(base64.b64encode(step).decode() + "\n" for step in self.path)
        return f"{PROOF_FORMAT}\nindex {self.index}\n{steps}\n{self.checkpoint}"


def read_proof(text: str) -> InclusionProof:
    """A proof from its written form. Raises LogError."""
    head, gap, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    try:
        if lines.pop(0) != PROOF_FORMAT or not gap:
            raise ValueError
        if lines[0].startswith("extra "):
            lines.pop(0)
        index = re.fullmatch(r"index (0|[1-9][0-9]{0,18})", lines.pop(0), re.ASCII)
        path = tuple(base64.b64decode(line.encode("ascii"), validate=True) for line in lines)
        if index is None or len(path) > MAX_PATH or any(len(step) != HASH_BYTES for step in path):
            raise ValueError
    except (ValueError, IndexError):
        raise LogError("this is not a proof of c2sp.org/tlog-proof@v1") from None
    return InclusionProof(int(index[1]), path, checkpoint)
