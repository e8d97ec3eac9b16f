"""Reading the transparency log: tiles, checkpoints with what witnesses wrote under them, and proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from hub.store import sql
from protocol.evidence import HASH_BYTES
from protocol.log import (
    ENTRIES,
    InclusionProof,
    NodeHash,
    Tile,
    consistency_proof,
    inclusion_proof,
    log_leaf,
    node_from,
    split_hashes,
    tiles_needed,
    write_bundle,
)
from protocol.note import Verifier, read_verifier

SQL = sql.load("log")
RECENT = 64
"""Checkpoints among which a proof looks for one that witnesses have signed."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Identity:
    """The log's name, and a key that its checkpoints are signed with from `since` on."""

    origin: str
    verifier: Verifier
    since: datetime


class Log:
    """The log as everybody may read it."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def tile(self, tile: Tile) -> bytes | None:
        """A tile's hashes, or an entry bundle; None when the log does not reach so far."""
        return (await self.tiles([tile])).get(tile)

    async def tiles(self, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        """Tiles by what was asked for, those that the log does not hold left out."""
        asked = list(tiles)
        wanted = [(ENTRIES if tile.level == 0 else tile.level, tile.index) for tile in asked]
        rows = await self._pool.fetch(SQL.tiles, [level for level, _ in wanted], [place for _, place in wanted])
        stored = {(row["level"], row["place"]): row["hashes"] for row in rows}
        found = {}
        for tile, key in zip(asked, wanted, strict=True):
            hashes = stored.get(key, b"")[: tile.width * HASH_BYTES]
            if len(hashes) < tile.width * HASH_BYTES:
                continue
            if tile.level == ENTRIES:
                found[tile] = write_bundle(split_hashes(hashes))
            elif tile.level == 0:
                found[tile] = b"".join(map(log_leaf, split_hashes(hashes)))
            else:
                found[tile] = hashes
        return found

    async def compute(self, size: int, of: Callable[[NodeHash], Result]) -> Result:
        """What a function of `node` (protocol/log.py) gives over the log at `size`. Raises LogError."""
        tiles = await self.tiles(tiles_needed(size, of))
        return of(node_from(tiles, size))

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the log at `new` begins with the log at `old`."""
        return await self.compute(new, lambda node: consistency_proof(old, new, node))

    async def newest(self) -> str | None:
        """The newest checkpoint with all signatures that it has; None before the first."""
        row = await self._pool.fetchrow(SQL.newest)
        return None if row is None else self.signed(row)

    @staticmethod
    def signed(checkpoint: asyncpg.Record) -> str:
        """A row of `checkpoint` as a note, with the lines of the witnesses that signed along.

        They come with the row: asked for later, those of an old one might have been pruned meanwhile.
        """
        note: str = checkpoint["note"]
        return note + (checkpoint["lines"] or "")

    async def covering(self, size: int) -> asyncpg.Record | None:
        """Of the newest checkpoints of at least `size` entries the one that most witnesses signed; None: not
        yet any.

        A stamped one comes first among equals, then the newest.
        """
        rows = await self._pool.fetch(SQL.checkpoints, size, RECENT)
        return max(rows, key=lambda row: (row["signatures"], row["stamped"], row["size"]), default=None)

    async def place(self, batch: UUID) -> range | None:
        """Where a batch's events are in the log; None while it waits."""
        row = await self._pool.fetchrow(SQL.place, batch)
        return None if row is None else range(row["first"], row["next"])

    async def reach(self) -> tuple[int, datetime | None, int]:
        """Events in the log, when the newest checkpoint was signed, and how many batches wait."""
        row = await self._pool.fetchrow(SQL.reach)
        assert row is not None
        return row["size"] or 0, row["at"], row["waiting"]

    async def identities(self) -> list[Identity]:
        """The log's name and keys, the present one first."""
        rows = await self._pool.fetch(SQL.identities)
        return [Identity(row["origin"], read_verifier(row["vkey"]), row["since"]) for row in rows]

    async def proof(
        self, batch: UUID, leaf: int, checkpoint: asyncpg.Record | None = None
    ) -> InclusionProof | None:
        """The proof that a batch's event is in the log, to `checkpoint` or the best one; None while it is not."""
        places = await self.place(batch)
        if places is None or not 0 <= leaf < len(places):
            return None
        index = places[leaf]
        if checkpoint is None or checkpoint["size"] <= index:
            checkpoint = await self.covering(index + 1)
        if checkpoint is None:
            return None
        size = checkpoint["size"]
        path = await self.compute(size, lambda node: inclusion_proof(index, size, node))
        return InclusionProof(index, tuple(path), self.signed(checkpoint))
