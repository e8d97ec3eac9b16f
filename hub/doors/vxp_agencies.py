"""The directory as the axis's interface lists it: 10^5 agencies, 20 MB of JSON.

A list is made once for a picture of the directory, a few milliseconds at a time so that the event loop goes on,
and given to everybody who asks while that picture is the present one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from hub.directory.follow import Directory
from hub.directory.picture import Agency, Picture
from protocol.agency import is_qcvn_102, is_qd_20
from protocol.vxp import ok

_CHUNK = 1_000
"""Agencies written between two looks at the event loop (about 2 ms)."""
MAX_LEVEL = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole answer in pieces, and its length in bytes."""

    pieces: tuple[bytes, ...]
    size: int

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class AgencyLists:
    """The lists of one process."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._picture: Picture | None = None
        self._made: dict[int, Listing] = {}
        self._lock = asyncio.Lock()

    async def by_code(self) -> Listing:
        """/getAgenciesList: every agency by the code that the hub addresses it by."""
        return await self._get(-1)

    async def by_level(self, level: int) -> Listing:
        """/getAgenciesListQD20: agencies with both codes; of one level of the tree (1 the topmost), or all (0)."""
        return await self._get(level)

    async def _get(self, which: int) -> Listing:
        async with self._lock:  # who comes second gets what the first has made
            picture = self._directory.picture
            if picture is not self._picture:
                self._picture, self._made = picture, {}
            found = self._made.get(which)
            if found is None:
                found = self._made[which] = await self._make(picture, which)
            return found

    @staticmethod
    async def _make(picture: Picture, which: int) -> Listing:
        head, tail = ok(data=orjson.Fragment(b"[]")).split(b"[]")
        pieces = [head + b"["]
        levels: dict[str, int] = {}
        row: list[bytes] = []
        count = 0
        for number, agency in enumerate(picture.agencies.values(), start=1):
            if agency.active and (which <= 0 or _level(picture, agency, levels) == which):
                row.append(orjson.dumps(_old(agency) if which < 0 else _new(agency)))
            if row and number % _CHUNK == 0:
                pieces.append((b"," if count else b"") + b",".join(row))
                count += len(row)
                row = []
            if number % _CHUNK == 0:
                await asyncio.sleep(0)
        if row:
            pieces.append((b"," if count else b"") + b",".join(row))
        pieces.append(b"]" + tail)
        return Listing(tuple(pieces), sum(map(len, pieces)))


def _old(agency: Agency) -> dict[str, Any]:
    return {
        "id": agency.code,
        "pid": agency.parent or "",
        "code": agency.code,
        "name": agency.name,
        "mail": agency.mail,
    }


def _new(agency: Agency) -> dict[str, Any]:
    """An agency with the code of Decision 20/2020 first, where it has one, and that of QCVN 102 beside it."""
    codes = (agency.code, *agency.aliases)
    old = next(filter(is_qcvn_102, codes), "")
    members = _old(agency)
    members["code"] = next(filter(is_qd_20, codes), agency.code)
    return members | {"oldCode": old, "code102": old}


def _above(picture: Picture, agency: Agency) -> Iterator[Agency]:
    """The agency and the units above it, lowest first; a circle in a tree made by hand ends it."""
    for _ in range(MAX_LEVEL):
        yield agency
        above = picture.agency(agency.parent) if agency.parent else None
        if above is None:
            return
        agency = above


def _level(picture: Picture, agency: Agency, known: dict[str, int]) -> int:
    """How deep in the tree an agency stands, 1 at the top; `known` keeps what was found."""
    way: list[str] = []
    level = 0
    for unit in _above(picture, agency):
        if unit.code in known:
            level = known[unit.code]
            break
        way.append(unit.code)
    for code in reversed(way):
        level += 1
        known[code] = level
    return level
