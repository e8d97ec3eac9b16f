"""How a link does: when to try again, and what an operator is told of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg

from hub.observe import metrics
from hub.store import sql

SQL = sql.load("links")

FIRST_SECONDS = 0.5
FAILURES = 3
"""So many messages that fail in a row are the link's fault, and it pauses."""
_EXPONENT = 20
Item = TypeVar("Item", bound=Hashable)


def backoff(tries: int, longest: float) -> float:
    """Seconds until the next try: twice as many each time, up to `longest`, a part of them by chance."""
    return min(longest, FIRST_SECONDS * 2.0 ** min(tries - 1, _EXPONENT)) * random.uniform(0.5, 1.0)  # noqa: S311


class Deferred(Generic[Item]):
    """What failed for itself, and when it is to be tried again."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._items: dict[Item, tuple[int, float]] = {}

    def put(self, item: Item, tries: int = 0) -> int:
        """Put off an item that failed once more; how often it has. `tries`: what is known from before."""
        count = max(self._items.get(item, (0, 0.0))[0] + 1, tries)
        self._items[item] = count, time.monotonic() + backoff(count, self._longest)
        return count

    def __contains__(self, item: Item) -> bool:
        return item in self._items

    def due(self, item: Item) -> bool:
        return item not in self._items or self._items[item][1] <= time.monotonic()

    def tries(self, item: Item) -> int:
        """How often it has failed lately."""
        return self._items.get(item, (0, 0.0))[0]

    def drop(self, item: Item) -> None:
        self._items.pop(item, None)

    def keep(self, present: set[Item]) -> None:
        """Forget what is not among `present`: it ended in another way, and nobody would try it again."""
        for item in self._items.keys() - present:
            del self._items[item]

    def clear(self) -> None:
        self._items.clear()

    def next(self) -> float | None:
        """Seconds until something is due; None when nothing is put off."""
        if not self._items:
            return None
        return max(0.0, min(due for _, due in self._items.values()) - time.monotonic())


class Way:
    """One of the things that a link does: a push that fails says nothing of fetching, nor the other way round."""

    def __init__(self, health: Health, longest: float) -> None:
        self._health = health
        self._longest = longest
        self._resumed = asyncio.Event()
        self.failures = 0
        self.until = 0.0

    @property
    def paused(self) -> bool:
        return time.monotonic() < self.until

    async def pause(self) -> None:
        """Return when it may be tried, at once while all is well."""
        while (left := self.until - time.monotonic()) > 0:
            self._resumed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._resumed.wait()
            except TimeoutError:
                pass

    def resume(self) -> None:
        """Try again now."""
        self.failures = 0
        self.until = 0.0
        self._resumed.set()

    def success(self) -> None:
        self.failures = 0
        self.until = 0.0
        self._health.succeeded()

    def failure(self, what: str, whole_link: bool = False) -> None:
        """Something failed that will be tried again."""
        self.failures += 1
        if whole_link or self.failures >= FAILURES:
            self.until = time.monotonic() + backoff(self.failures, self._longest)
        self._health.failed(what)


class Health:
    """One link's, in the process that has it."""

    def __init__(self, pool: asyncpg.Pool[Any], endpoint: int, name: str, longest: float) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._name = name
        self.push, self.fetch, self.sync = (Way(self, longest) for _ in range(3))
        self._changed = True
        self._success_at: datetime | None = None
        self._error_at: datetime | None = None
        self._error: str | None = None
        self._counts = dict.fromkeys(("sent", "fetched", "refused_there", "refused_here"), 0)
        metrics.LINK_SUCCESS.labels(name).set(0)  # else one that never works would never be missed

    def resume(self) -> None:
        """Try everything again now."""
        for way in (self.push, self.fetch, self.sync):
            way.resume()
        self._changed = True

    def succeeded(self) -> None:
        self._success_at = datetime.now(UTC)
        self._changed = True
        metrics.LINK_SUCCESS.labels(self._name).set_to_current_time()

    def failed(self, what: str) -> None:
        self._error_at, self._error = datetime.now(UTC), what[:500]
        self._changed = True
        metrics.LINK_TRANSFERS.labels(self._name, "failed").inc()

    def count(self, what: str) -> None:
        """One more that was ``sent``, ``fetched``, ``refused_there`` or ``refused_here``."""
        self._counts[what] += 1
        self._changed = True
        metrics.LINK_TRANSFERS.labels(self._name, what).inc()

    async def write(self) -> None:
        """Write down what changed, for whoever asks at any process."""
        if not self._changed:
            return
        counts, self._counts = self._counts, dict.fromkeys(self._counts, 0)
        self._changed = False
        worst = max((self.push, self.fetch, self.sync), key=lambda way: way.failures)
        left = worst.until - time.monotonic()
        retry_at = datetime.now(UTC) + timedelta(seconds=left) if left > 0 else None
        try:
            await self._pool.execute(
                SQL.add_state,
                self._endpoint,
                self._success_at,
                self._error_at,
                self._error,
                worst.failures,
                retry_at,
                *counts.values(),
            )
        except BaseException:
            self._changed = True
            self._counts = {name: count + counts[name] for name, count in self._counts.items()}
            raise


class Transfers:
    """What the store keeps of a link's messages."""

    def __init__(self, pool: asyncpg.Pool[Any], endpoint: int) -> None:
        self._pool = pool
        self._endpoint = endpoint

    async def known(self, messages: list[UUID]) -> dict[UUID, asyncpg.Record]:
        rows = await self._pool.fetch(SQL.transfers, self._endpoint, messages)
        return {row["message"]: row for row in rows}

    async def sent_all(self, sent: list[tuple[UUID, str, str | None]]) -> None:
        """The peer has these messages, as what it calls them, with its receipts."""
        if sent:
            columns = [list(column) for column in zip(*sent, strict=True)]
            await self._pool.execute(SQL.put_transfers, self._endpoint, *columns)

    async def sent_as(self, peer_id: str) -> UUID | None:
        """What this hub calls a message that went over."""
        found: UUID | None = await self._pool.fetchval(SQL.transferred_as, self._endpoint, peer_id)
        return found

    async def failed(self, message: UUID, error: str, refused: bool = False) -> int:
        """It did not go over; how often it was tried."""
        count: int = await self._pool.fetchval(
            SQL.put_transfer, self._endpoint, message, None, error[:500], refused
        )
        return count

    async def fetched(self, names: list[str]) -> dict[str, str | None]:
        """What came before, by the peer's name; with the reason where it was refused."""
        rows = await self._pool.fetch(SQL.fetches, self._endpoint, names)
        return {row["peer_id"]: row["error"] for row in rows}

    async def fetch(self, name: str, message: UUID | None, error: str | None = None) -> None:
        await self._pool.execute(SQL.put_fetch, self._endpoint, name, message, error)

    async def fetched_all(self, came: list[tuple[str, UUID]]) -> None:
        """What came from the peer, by its names."""
        if came:
            names, messages = [list(column) for column in zip(*came, strict=True)]
            await self._pool.execute(SQL.put_fetches, self._endpoint, names, messages)

    async def fetched_as(self, message: UUID) -> str | None:
        """What the peer calls a message that came from it."""
        found: str | None = await self._pool.fetchval(SQL.fetched_as, self._endpoint, message)
        return found

    async def message(self, message: UUID) -> asyncpg.Record | None:
        """Who sent a message, what it is, and the name that its parties have for it."""
        return await self._pool.fetchrow(SQL.noticed, message)
