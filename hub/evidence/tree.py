"""The right edge of the log's tree: what is needed to append to it, and nothing more.

A tree of any size has at most one tile at each level that is not full. `Edge` holds those and fills them; each
tile that changes is given to be stored. 1.5 µs an entry: a hash for its leaf, and one for the nodes above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from protocol.log import ENTRIES, TILE_WIDTH, Tile, node_from, root, split_hashes, subtree_root

_sha256 = hashlib.sha256


class Edge:
    """The tiles of a tree that are not full, lowest level first, and the entries under the first."""

    def __init__(self, size: int = 0, stored: Iterable[tuple[int, bytes]] = ()) -> None:
        """`stored`: by level, the hashes of the last tile, where that is not full (`ENTRIES` for entries).

        Raises ValueError when they are not those of a tree of that size.
        """
        rows = dict(stored)
        self.size = size
        self._entries = split_hashes(rows.pop(ENTRIES, b""))
        self._levels: list[list[bytes]] = [[_leaf(entry) for entry in self._entries]]
        while size >> 8 * len(self._levels):
            self._levels.append(split_hashes(rows.pop(len(self._levels), b"")))
        widths = [len(hashes) for hashes in self._levels]
        if rows or widths != [(size >> 8 * level) % TILE_WIDTH for level in range(len(widths))]:
            raise ValueError("the stored tiles are not those of a tree of this size")
        self._changed: dict[tuple[int, int], bytes] = {}

    def append(self, entries: Sequence[bytes]) -> None:
        """Append entries of 32 bytes."""
        start = 0
        while start < len(entries):
            room = TILE_WIDTH - len(self._entries)
            taken = entries[start : start + room]
            start += room
            self._entries += taken
            self._levels[0] += [_sha256(b"\x00" + entry).digest() for entry in taken]
            self.size += len(taken)
            if len(self._entries) == TILE_WIDTH:
                self._changed[ENTRIES, (self.size >> 8) - 1] = b"".join(self._entries)
                self._entries = []
                self._carry(0)

    def _carry(self, level: int) -> None:
        """A tile is full: its root goes into the level above."""
        if level + 1 == len(self._levels):
            self._levels.append([])
        above = self._levels[level + 1]
        above.append(subtree_root(self._levels[level]))
        self._levels[level] = []
        if len(above) == TILE_WIDTH:
            self._changed[level + 1, (self.size >> 8 * (level + 2)) - 1] = b"".join(above)
            self._carry(level + 1)

    def changed(self) -> list[tuple[int, int, bytes]]:
        """(level, place, hashes) of every row to write since the last time, those not full among them."""
        rows = [(level, place, hashes) for (level, place), hashes in self._changed.items()]
        self._changed = {}
        for level, hashes in enumerate(self._levels):
            partial = self._entries if level == 0 else hashes
            if partial:
                rows.append((ENTRIES if level == 0 else level, self.size >> 8 * (level + 1), b"".join(partial)))
        return rows

    def root(self) -> bytes:
        """The root of the tree."""
        tiles = {
            Tile(level, self.size >> 8 * (level + 1), len(hashes)): b"".join(hashes)
            for level, hashes in enumerate(self._levels)
        }
        return root(self.size, node_from(tiles, self.size))


def _leaf(entry: bytes) -> bytes:
    return _sha256(b"\x00" + entry).digest()
