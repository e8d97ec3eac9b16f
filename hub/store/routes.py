"""A message's route as the store keeps it, and back.

`message.route` is JSON, ``{"<endpoint id>": ["<agency>", …], …}``. A circular's is too long to stand in each
message and in each answer to a reader (7.5 KB for 300 endpoints, which every one of the 300 would fetch and
parse): such a route is kept once, in `shared_route`, and the column holds ``@`` and its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import asyncpg
import orjson

from hub.store import sql

SQL = sql.load("messages")
INLINE_BYTES = 512
"""A longer route is shared."""
REMEMBERED = 1_000
"""Shared routes that a process remembers (about 60 KB each at 300 endpoints)."""


class StoredRoute(NamedTuple):
    """`text` stands in the message; a shared route is itself under `id`."""

    text: str
    id: str | None = None
    shared: str | None = None


def stored(endpoints: dict[int, list[str]]) -> StoredRoute:
    """How a route is kept."""
    text = orjson.dumps({str(endpoint): codes for endpoint, codes in endpoints.items()})
    if len(text) <= INLINE_BYTES:
        return StoredRoute(text.decode())
    id_ = hashlib.sha256(text).hexdigest()
    return StoredRoute(f"@{id_}", id_, text.decode())


@lru_cache(maxsize=4096)
def _inline(text: str) -> dict[int, list[str]]:
    return _parse(text)


def _parse(text: str) -> dict[int, list[str]]:
    return {int(endpoint): codes for endpoint, codes in orjson.loads(text).items()}


class Routes:
    """Reads routes for one process. A route never changes, so what was read once is kept."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        self._shared: dict[str, dict[int, list[str]]] = {}

    async def load(self, texts: Iterable[str]) -> None:
        """Make sure that `read` knows all of `texts`. Costs nothing unless one is shared and new."""
        texts = list(texts)
        while missing := {text[1:] for text in texts if text[0] == "@" and text not in self._shared}:
            rows = await self._pool.fetch(SQL.shared_routes, list(missing))
            if len(rows) < len(missing):
                raise LookupError("a message names a shared route that the store does not hold")
            if len(self._shared) > REMEMBERED:
                self._shared.clear()  # somebody else's, too: they look again
            for row in rows:
                self._shared["@" + row["id"]] = _parse(row["route"])

    def read(self, text: str) -> dict[int, list[str]]:
        """Endpoints and the agencies addressed there. `load` comes first. Do not change the answer."""
        return self._shared[text] if text[0] == "@" else _inline(text)

    async def get(self, text: str) -> dict[int, list[str]]:
        """`load` and `read` for one."""
        await self.load((text,))
        return self.read(text)
