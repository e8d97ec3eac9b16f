"""What the two ends of a native link know of each other: who lies on which side, and with which keys they sign.

This hub tells the peer of its own branch whenever that changes, and asks the peer whom it knows. Whoever finds
that the other is behind (a new key, a new agency) asks for it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import structlog

from hub.couriers.link_native import NativePeer
from hub.directory import hubs
from hub.directory.follow import Directory
from hub.directory.picture import Link, Picture
from hub.store import sql
from protocol.link import DirectoryTaken
from protocol.signature import PublicKey, from_jwk

log = structlog.get_logger()
SQL = sql.load("links")


class NativeSync:
    """Keeps the two in step, for one courier."""

    def __init__(
        self,
        link: Link,
        name: str,
        peer: NativePeer,
        directory: Directory,
        pool: asyncpg.Pool[Any],
        hub: str,
        hub_keys: Sequence[dict[str, str]],
        wanted: asyncio.Event,
    ) -> None:
        """`hub` and `hub_keys`: this hub's name, and its own keys. `wanted` is set to have `once` called."""
        self._link = link
        self._name = name
        self._peer = peer
        self._directory = directory
        self._pool = pool
        self._hub = hub
        self._hub_keys = hub_keys
        self._wanted = wanted
        self._told: str | None = None
        self._seen: Picture | None = None
        self._own: frozenset[str] = frozenset()
        self._untaken = 0
        self.tells = self.asks = 0
        """How often the peer took what it was told, and this hub what the peer tells."""
        self.peer_keys: dict[str, PublicKey] = {}
        """The peer's own keys, with which its receipts are sealed."""

    def behind(self, anew: bool = False) -> None:
        """One of the two does not know what it should: directories are to be exchanged, with `anew` whole."""
        self._told = None
        if anew:
            self._peer.keep("")
        self._wanted.set()

    def look(self) -> None:
        """Ask for an exchange if the directory here has changed."""
        if self._directory.picture is not self._seen:
            self._wanted.set()

    async def once(self, anew: bool) -> None:
        """Tell and ask, as far as there is something new; with `anew` in any case.

        Raises PeerError, PeerRefusedError, DirectoryError, or what asyncpg raises.
        """
        if anew:
            self._told = None
            self._peer.keep("")
        await self._tell()
        await self._ask()

    async def _tell(self) -> None:
        picture = self._directory.picture
        body, tag, codes = await asyncio.to_thread(self._written, picture)
        if tag != self._told:
            taken = await self._peer.tell(body)
            self._note(taken)
            self._told = tag
            self.tells += 1
            self._own, self._untaken = codes, len(codes) - taken.agencies
        self._seen = picture

    def _written(self, picture: Picture) -> tuple[bytes, str, frozenset[str]]:
        told = hubs.told(picture, self._link, self._hub, self._hub_keys, datetime.now(UTC))
        body = msgspec.json.encode(told)
        return body, hubs.fingerprint(body), frozenset(agency.code for agency in told.agencies)

    def _note(self, taken: DirectoryTaken) -> None:
        log.info(
            "the peer was told who lies here",
            link=self._name,
            agencies=taken.agencies,
            keys=taken.keys,
            waiting=taken.waiting,
        )
        for one in taken.untaken:
            log.warning("the peer does not take it", link=self._name, what=one.name, reason=one.reason)

    async def _ask(self) -> None:
        found = await self._peer.directory()
        if found is None:
            await self._pool.execute(SQL.synced_again, self._link.endpoint)
            self.asks += 1
            return
        listed, tag = found
        self.peer_keys = {key["kid"]: from_jwk(key) for key in listed.hub_keys if "kid" in key}
        picture = self._directory.picture
        changed, gone = await hubs.take_from_above(self._pool, picture, self._link, listed)
        await self._pool.execute(SQL.synced, self._link.endpoint, len(listed.agencies))
        if changed or gone:
            log.info("the directory beyond a link changed", link=self._name, agencies=changed, gone=gone)
        self._directory.poke()
        self._peer.keep(tag)
        self.asks += 1
        if len(self._own.difference(agency.code for agency in listed.agencies)) > self._untaken:
            # It forgot, as one restored from a backup does, or an older word of this hub's came late. It is told
            # with the next exchange, not at once: its process may not have heard yet what another one took.
            self._told = None
