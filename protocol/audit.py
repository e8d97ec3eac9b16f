"""Following a transparency log as an outsider: what an auditor remembers, compares and concludes.

Only what a log signed counts against it. An auditor keeps the last checkpoint of each log; the next one must be
that of the same tree, grown. Everything else that the hub shows (tiles, entries, proofs) is believed when it leads
to the root that was signed, and not before:

    checkpoint, signed ──► edge tiles ──► full tiles, each the hash that its parent holds ──► entries

So a single altered byte is noticed and its place named, and two checkpoints that contradict each other are found
with what proves it. Nothing here does I/O: `protocol/client/audit.py` fetches, `protocol/findings.py` has words.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from protocol.evidence import HASH_BYTES, timestamp
from protocol.log import (
    EMPTY_ROOT,
    ENTRIES,
    TILE_WIDTH,
    Checkpoint,
    LogError,
    NodeHash,
    Tile,
    consistency_proof,
    log_leaf,
    node_from,
    read_bundle,
    read_checkpoint,
    root,
    split_hashes,
    subtree_root,
    tile_of,
    tiles_needed,
    write_bundle,
)
from protocol.misbehaviour import Kind, Misbehaviour, own_note
from protocol.note import NoteError, Verifier, read_note, read_verifier, verify_note

SIGHTS = 32
"""Checkpoints remembered of a log: enough to see what a log that went back contradicts."""
STATE_FORMAT = "lienthong-audit@v1"


# -- checkpoints --------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A checkpoint that a log signed, and where it was seen."""

    checkpoint: Checkpoint
    note: str
    """With the log's own signature alone."""
    keys: tuple[Verifier, ...]
    """The log's key by which it was checked (several, when it has had several)."""
    where: str
    """Said to people: "the hub", "the witness sở-nội-vụ/w1", "the file …"."""
    at: datetime | None = None
    """When: the time that a witness states, or the auditor's own clock."""

    @property
    def size(self) -> int:
        return self.checkpoint.size


def own_key(written: str, keys: Sequence[Verifier]) -> Seen:
    """A note as a checkpoint that one of a log's `keys` signed. Raises LogError saying why it is not."""
    try:
        note = read_note(written)
        checkpoint = read_checkpoint(note)
        signed = verify_note(note, keys)
    except NoteError as error:
        raise LogError(str(error)) from None
    if not signed:
        raise LogError(f"it is not signed with a trusted key of {keys[0].name}")
    if checkpoint.origin != keys[0].name:
        raise LogError(f"it is a checkpoint of {checkpoint.origin}, not of {keys[0].name}")
    return Seen(checkpoint, own_note(note, keys), tuple(keys), "")


def contradiction(old: Seen, new: Seen) -> Misbehaviour | None:
    """What two checkpoints prove by themselves, without the tree: two roots of one size, an impossible root."""
    for seen in (old, new):
        if not seen.size and seen.checkpoint.root != EMPTY_ROOT:
            return _misbehaviour(Kind.IMPOSSIBLE, seen, seen)
    if old.size == new.size and old.checkpoint.root != new.checkpoint.root:
        return _misbehaviour(Kind.TWO_FACES, old, new)
    return None


def rewriting(old: Seen, new: Seen, node: NodeHash) -> Misbehaviour | None:
    """What proves that the larger log `new` does not begin with `old`; None: it does.

    `node` gives hashes of the tree of `new`, checked against its root. The proof begins with the root of the
    smaller tree where RFC 6962 leaves that out, so that it can be read out of the proof.
    """
    if old.size in (0, new.size) or root(old.size, node) == old.checkpoint.root:
        return None
    return _misbehaviour(Kind.REWRITTEN, old, new, prefix_proof(old.size, new.size, node))


def prefix_proof(old: int, new: int, node: NodeHash) -> list[bytes]:
    """A consistency proof that always shows the root of the first `old` entries (see `rewriting`)."""
    path = consistency_proof(old, new, node)
    if path and old & (old - 1) == 0:
        path.insert(0, root(old, node))
    return path


def _misbehaviour(kind: Kind, old: Seen, new: Seen, proof: Iterable[bytes] = ()) -> Misbehaviour:
    return Misbehaviour(
        kind=kind,
        origin=new.checkpoint.origin,
        keys=tuple(dict.fromkeys(map(str, (*old.keys, *new.keys)))),
        known=old.note,
        presented=new.note,
        proof=tuple(base64.b64encode(step).decode() for step in proof),
    )


# -- the tree -----------------------------------------------------------------------------------


class BrokenTreeError(LogError):
    """What a log shows is not what it signed. `first` and `end` say which entries are concerned."""

    def __init__(self, reason: str, first: int, end: int) -> None:
        super().__init__(reason)
        self.first = first
        self.end = end


def _span(tile: Tile, size: int) -> tuple[int, int]:
    """The entries under a tile."""
    level = max(tile.level, 0)
    first = tile.index * TILE_WIDTH << 8 * level
    return min(first, size), min(first + (tile.width << 8 * level), size)


def edge(size: int) -> set[Tile]:
    """The tiles that are not full and lead to the root of a log of `size` entries."""
    return tiles_needed(size, lambda node: root(size, node))


def check_edge(tiles: Mapping[Tile, bytes], checkpoint: Checkpoint) -> None:
    """Check that the edge's tiles lead to the signed root. Raises BrokenTreeError.

    Each hash in them goes into that root, so they are believed afterwards.
    """
    for tile, data in tiles.items():
        _check_length(tile, data, checkpoint.size)
    if root(checkpoint.size, node_from(tiles, checkpoint.size)) != checkpoint.root:
        first = min((_span(tile, checkpoint.size)[0] for tile in tiles), default=0)
        raise BrokenTreeError(
            f"the hashes that it shows for its {checkpoint.size} entries do not lead to the root that it signed",
            first,
            checkpoint.size,
        )


def parent(tile: Tile, size: int) -> Tile:
    """The tile that holds the root of a full `tile`."""
    return tile_of(8 * (tile.level + 1), tile.index, size)


def check_tile(tile: Tile, data: bytes, above: bytes, size: int) -> None:
    """Check a full tile against its parent, which is believed already. Raises BrokenTreeError."""
    _check_length(tile, data, size)
    place = tile.index % TILE_WIDTH * HASH_BYTES
    if subtree_root(split_hashes(data)) != above[place : place + HASH_BYTES]:
        raise BrokenTreeError(f"the tile {tile.path} is not the one that was signed", *_span(tile, size))


def _check_length(tile: Tile, data: bytes, size: int) -> None:
    if len(data) != tile.width * HASH_BYTES:
        raise BrokenTreeError(
            f"the tile {tile.path} has {len(data)} bytes in place of {tile.width * HASH_BYTES}", *_span(tile, size)
        )


def bundle_of(index: int, size: int) -> Tile:
    """The bundle that holds the entry `index`."""
    return tile_of(0, index, size)._replace(level=ENTRIES)


def check_bundle(bundle: Tile, data: bytes, leaves: bytes, size: int) -> list[bytes]:
    """The entries of a bundle, if they are those under `leaves`, which is believed. Raises BrokenTreeError."""
    first, end = _span(bundle, size)
    try:
        entries = read_bundle(data, bundle.width)
    except LogError:
        entries = []
    if len(entries) != bundle.width or write_bundle(entries) != data:
        raise BrokenTreeError(f"the entries in {bundle.path} cannot be read", first, end)
    for place, (entry, leaf) in enumerate(zip(entries, split_hashes(leaves), strict=True)):
        if log_leaf(entry) != leaf:
            raise BrokenTreeError(
                f"entry {first + place} is not the one that was signed", first + place, first + place + 1
            )
        if len(entry) != HASH_BYTES:
            raise BrokenTreeError(
                f"entry {first + place} is no hash of an event: it has {len(entry)} bytes",
                first + place,
                first + place + 1,
            )
    return entries


def moment(text: str) -> datetime:
    """A time that somebody else wrote down (RFC 3339). Raises LogError."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None or not 2000 <= found.year < 9000:
            raise ValueError
    except ValueError:
        raise LogError(f"{text[:40]!r} is not a time") from None
    return found


# -- what is remembered -------------------------------------------------------------------------


class Sight(msgspec.Struct, frozen=True):
    """A checkpoint as it is remembered."""

    size: int
    at: str
    """When it was seen, by the auditor's clock."""
    note: str
    keys: tuple[str, ...]


class Remembered(msgspec.Struct, omit_defaults=True):
    """What an auditor knows of one log."""

    origin: str
    vkey: str
    """The log's key that is trusted."""
    url: str
    first_use: bool
    """The key was taken from the hub itself when it was seen first, and nobody confirmed it since."""
    sights: list[Sight] = []
    """Oldest first. The last is the largest that was seen."""
    shown_at: str = ""
    """When the hub showed that one last."""
    walked: int = 0
    """All entries below were downloaded and checked."""
    hub_keys: list[dict[str, str]] = []
    """The hub's keys (JWK) as they were seen first, by which receipts are checked."""
    hub_keys_first_use: bool = False

    def last(self) -> Seen | None:
        """The largest checkpoint that was seen. Raises LogError when the state was altered."""
        return self.seen(self.sights[-1]) if self.sights else None

    def seen(self, sight: Sight) -> Seen:
        """A remembered checkpoint, its signature checked again. Raises LogError."""
        try:
            keys = tuple(map(read_verifier, sight.keys))
            at = moment(sight.at)
        except (NoteError, LogError) as error:
            raise LogError(f"the state file cannot be read: {error}") from None
        return own_key(sight.note, keys)._replace(where="remembered", at=at)

    def remember(self, seen: Seen, at: datetime) -> None:
        """Remember a checkpoint that contradicts nothing."""
        if not self.sights or self.sights[-1].size < seen.size:
            sight = Sight(seen.size, timestamp(at), seen.note, tuple(map(str, seen.keys)))
            self.sights = _thinned([*self.sights, sight])
        self.shown_at = timestamp(at)


def _thinned(sights: list[Sight]) -> list[Sight]:
    """At most `SIGHTS`, the newest closest together."""
    while len(sights) > SIGHTS:
        # Of neighbours the pair that is closest for its age loses one; the first and the newest two stay.
        place = min(
            range(1, len(sights) - 2),
            key=lambda i: (sights[i + 1].size - sights[i - 1].size) / (sights[-1].size - sights[i].size + 1),
        )
        del sights[place]
    return sights


class State(msgspec.Struct):
    """An auditor's state: every log that it follows, by the log's name."""

    logs: dict[str, Remembered] = {}
    format: str = STATE_FORMAT

    def of_url(self, url: str) -> Remembered | None:
        """The log that was last followed at an address."""
        return next((log for log in self.logs.values() if log.url == url), None)


def read_state(data: bytes) -> State:
    """A state from its JSON. Raises LogError."""
    try:
        state = msgspec.json.decode(data, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogError(f"this is not an auditor's state: {error}") from None
    if state.format != STATE_FORMAT:
        raise LogError(f"this is not an auditor's state, or one of another version ({state.format[:40]!r})")
    return state


def write_state(state: State) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"


def late(log: Remembered, index: int, logged_by: datetime) -> datetime | None:
    """When, after `logged_by`, the hub showed a log without entry `index`; None: not that is known."""
    for place, sight in enumerate(log.sights):
        if sight.size <= index:
            # The last one may have been shown again, later than it was seen first.
            at = moment(log.shown_at if place == len(log.sights) - 1 else sight.at)
            if at > logged_by:
                return at
    return None
