"""Reading a hub's transparency log from outside: over HTTP, without an account, within bounds.

    async with LogClient(url) as client:
        note = await client.checkpoint()
        tree = Tree(client, own_key(note, [read_verifier(vkey)]))
        await tree.open()
        entry = await tree.entry(0)

Nobody at the other end is trusted: each answer may have so many bytes and take so many seconds, and redirects are
not followed. What a `Tree` gives out was checked up to the signed root.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar
from uuid import UUID

import aiohttp
import msgspec
import orjson

from protocol.audit import (
    BrokenTreeError,
    Seen,
    bundle_of,
    check_bundle,
    check_edge,
    check_tile,
    edge,
    parent,
)
from protocol.evidence import HASH_BYTES
from protocol.log import ENTRIES, TILE_WIDTH, NodeHash, Tile, node_from, tile_of, tiles_needed
from protocol.note import MAX_BYTES as NOTE_BYTES
from protocol.problems import LienthongError

TIMEOUT_SECONDS = 30.0
"""For a whole answer, not from byte to byte: one that trickles is given up too."""
AT_ONCE = 8
TRIES = 3
PAUSE_SECONDS = 0.5
TILE_BYTES = TILE_WIDTH * HASH_BYTES
BUNDLE_BYTES = TILE_WIDTH * (2 + HASH_BYTES)
JSON_BYTES = 4 << 20
TILES_KEPT = 256
"""Tiles above the lowest that a tree remembers: 2 MiB."""
Result = TypeVar("Result")


class FetchError(LienthongError):
    """Something could not be fetched, or is not what a hub answers."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        """Of the answer; 0 when there was none."""


class WithheldError(BrokenTreeError):
    """A part of the log that was signed and is not shown."""


class About(msgspec.Struct, frozen=True):
    """What a hub says of its log. Nothing of it is proven."""

    origin: str
    vkey: str
    size: int
    waiting: int
    within_seconds: float
    checkpoint_at: str | None = None
    keys: list[dict[str, Any]] = []


class LogClient:
    """One hub's log, and what a token lets one see besides."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        self._timeout = timeout
        self._room = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=AT_ONCE),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, url: str, limit: int, *, own: bool = False) -> bytes:
        """The body of an answer of at most `limit` bytes; `own`: show the token.

        Raises FetchError, after some tries where the reason may pass.
        """
        for attempt in range(TRIES):
            try:
                return await self._get(url, limit, own)
            except FetchError as error:
                if attempt == TRIES - 1 or (error.status and error.status not in (429, 502, 503, 504)):
                    raise
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    async def _get(self, url: str, limit: int, own: bool) -> bytes:
        if self._session is None:
            raise RuntimeError("use the client in an `async with` block")
        headers = self._headers if own else {}
        body = b""
        try:
            async with self._room:
                self.requests += 1
                async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if len(body) > limit:
                            raise FetchError(f"{url} answers with more than {limit} bytes", response.status or 1)
                    if response.status != 200:
                        raise FetchError(f"{url} answers {response.status}{_detail(body)}", response.status)
                    return body
        except TimeoutError:
            raise FetchError(f"no whole answer from {url} within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(f"no answer from {url}: {str(error) or type(error).__name__}") from None

    async def _json(self, url: str, *, own: bool = False, limit: int = JSON_BYTES) -> Any:
        body = await self.get(url, limit, own=own)
        try:
            return orjson.loads(body)
        except ValueError:
            raise FetchError(f"what {url} answers is not JSON", 200) from None

    async def about(self) -> About:
        """What the hub says of its log."""
        members = await self._json(f"{self.url}/log", limit=NOTE_BYTES)
        try:
            return msgspec.convert(members, About)
        except msgspec.ValidationError as error:
            raise FetchError(f"what {self.url}/log answers is not about a log: {error}", 200) from None

    async def checkpoint(self) -> str:
        """The newest checkpoint, unchecked."""
        try:
            return (await self.get(f"{self.url}/log/checkpoint", NOTE_BYTES)).decode()
        except UnicodeDecodeError:
            raise FetchError("the checkpoint is not UTF-8", 200) from None

    async def tile(self, tile: Tile) -> bytes | None:
        """A tile or an entry bundle, unchecked; None when the hub says that there is none."""
        limit = BUNDLE_BYTES if tile.level == ENTRIES else TILE_BYTES
        try:
            return await self.get(f"{self.url}/log/{tile.path}", limit)
        except FetchError as error:
            if error.status == 404:
                return None
            raise

    async def proof(self, batch: UUID | str, leaf: int) -> str | None:
        """The proof that an event is in the log, unchecked; None when the hub has none."""
        try:
            return (await self.get(f"{self.url}/log/proof/{UUID(str(batch))}/{leaf}", NOTE_BYTES)).decode()
        except ValueError:
            return None
        except FetchError as error:
            if error.status == 404:
                return None
            raise

    async def hub_keys(self) -> list[dict[str, str]]:
        """The public keys (JWK) that the hub says it seals with."""
        members = await self._json(f"{self.url}/v1/hub/keys", limit=NOTE_BYTES)
        if not isinstance(members, dict) or not isinstance(members.get("keys"), list):
            raise FetchError("the hub does not name its keys", 200)
        return [key for key in members["keys"] if isinstance(key, dict)]

    async def event(self, index: int) -> dict[str, Any]:
        """What the hub's store has of the log's entry `index`, for operators and auditors."""
        return _object(await self._json(f"{self.url}/v1/log/events/{index}", own=True))

    async def history(self, message: str) -> dict[str, Any]:
        """What happened to a message, for whoever may see it."""
        return _object(await self._json(f"{self.url}/v1/messages/{UUID(message)}/events", own=True))

    async def witness(self, url: str) -> list[dict[str, Any]]:
        """The logs that a witness at `url` says it follows."""
        members = _object(await self._json(url.rstrip("/") + "/", limit=1 << 20))
        logs = members.get("logs")
        return [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []

    async def witness_evidence(self, url: str) -> list[Any]:
        """What a witness says it found."""
        members = _object(await self._json(url.rstrip("/") + "/evidence"))
        found = members.get("evidence")
        return found if isinstance(found, list) else []


def _object(members: Any) -> dict[str, Any]:
    if not isinstance(members, dict):
        raise FetchError("the answer is not a JSON object", 200)
    return members


def _detail(body: bytes) -> str:
    """What a problem says, as far as it is one."""
    try:
        members = orjson.loads(body)
    except ValueError:
        return ""
    detail = members.get("detail") or members.get("title") if isinstance(members, dict) else None
    return f": {detail[:300]}" if isinstance(detail, str) else ""


class Tree:
    """The tree under one checkpoint; what it gives was checked up to the signed root."""

    def __init__(self, client: LogClient, seen: Seen) -> None:
        self.seen = seen
        self.size = seen.size
        self._client = client
        self._edge: dict[Tile, bytes] = {}
        self._kept: OrderedDict[Tile, bytes] = OrderedDict()

    async def open(self) -> None:
        """Fetch the tiles that lead to the root. Raises BrokenTreeError, FetchError."""
        self._edge = await self._fetch(sorted(edge(self.size)))
        check_edge(self._edge, self.seen.checkpoint)

    async def _fetch(self, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        wanted = list(tiles)
        found = {}
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            # All are waited for, whatever becomes of one: none is left under way.
            answers = await asyncio.gather(*map(self._client.tile, part), return_exceptions=True)
            for tile, data in zip(part, answers, strict=True):
                if isinstance(data, BaseException):
                    raise data
                if data is None:
                    first = tile.index * TILE_WIDTH << 8 * max(tile.level, 0)
                    raise WithheldError(
                        f"the hub says that there is no {tile.path}",
                        first,
                        min(self.size, first + (tile.width << 8 * max(tile.level, 0))),
                    )
                found[tile] = data
        return found

    async def tiles(self, wanted: Iterable[Tile]) -> dict[Tile, bytes]:
        """Tiles, each checked against the one above it. Raises BrokenTreeError, FetchError."""
        missing: set[Tile] = set()
        have: dict[Tile, bytes] = {}
        asked = list(wanted)
        for tile in asked:
            while tile not in missing and tile not in have:
                data = self._edge.get(tile) or self._kept.get(tile)
                if data is not None:
                    have[tile] = data
                    break
                missing.add(tile)
                if tile.width < TILE_WIDTH:
                    raise WithheldError(f"the tile {tile.path} is not one of this size", 0, self.size)
                tile = parent(tile, self.size)
        for level in sorted({tile.level for tile in missing}, reverse=True):
            part = sorted(tile for tile in missing if tile.level == level)
            for tile, data in (await self._fetch(part)).items():
                check_tile(tile, data, have[parent(tile, self.size)], self.size)
                have[tile] = data
                if level:
                    self._kept[tile] = data
        while len(self._kept) > TILES_KEPT:
            self._kept.popitem(last=False)
        return {tile: have[tile] for tile in asked}

    async def compute(self, of: Callable[[NodeHash], Result]) -> Result:
        """What a function of `node` (protocol/log.py) gives. Raises BrokenTreeError, FetchError."""
        tiles = await self.tiles(tiles_needed(self.size, of))
        return of(node_from(tiles, self.size))

    async def bundles(self, indexes: Iterable[int]) -> dict[int, list[bytes]]:
        """Entry bundles (of 256) by their index. Raises BrokenTreeError, FetchError."""
        tiles = [tile_of(0, index * TILE_WIDTH, self.size) for index in indexes]
        believed = await self.tiles(tiles)
        fetched = await self._fetch([tile._replace(level=ENTRIES) for tile in tiles])
        return {
            bundle.index: check_bundle(bundle, data, believed[bundle._replace(level=0)], self.size)
            for bundle, data in fetched.items()
        }

    async def entry(self, index: int) -> bytes:
        """The entry at a place in the log. Raises BrokenTreeError, FetchError."""
        bundle = bundle_of(index, self.size).index
        return (await self.bundles([bundle]))[bundle][index % TILE_WIDTH]
