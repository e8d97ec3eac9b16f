"""Documents that belong together: one, its updates, replacements and recalls, answers to it, states of it.

Links are followed both ways, level by level, up to `MAX_MESSAGES`. Whoever asks sees the messages that they sent
or got; a thread does not lead them further than that, either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from hub.directory.follow import Directory
from hub.evidence.describe import Describer, Description
from hub.evidence.states import MAX_REPORTS, name_of
from hub.relay.format import Kind
from hub.relay.references import Relation
from hub.store import sql
from hub.store.routes import Routes

SQL = sql.load("threads")
MAX_MESSAGES = 200


@dataclass(frozen=True, slots=True)
class Link:
    """What a message of a thread says of a document. `message`: the hub's id, where it is in the thread."""

    relation: Relation
    name: str
    owner: str
    state: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """One message of a thread."""

    row: asyncpg.Record
    description: Description
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Thread:
    """Messages in the order in which they came. `more`: there are others, which were left out."""

    members: list[Member]
    more: bool


class Threads:
    """Reads threads for one process."""

    def __init__(
        self, pool: asyncpg.Pool[Any], routes: Routes, directory: Directory, describer: Describer
    ) -> None:
        self._pool = pool
        self._routes = routes
        self._directory = directory
        self._describer = describer

    async def of(self, message: UUID, may_see: Callable[[asyncpg.Record, dict[int, list[str]]], bool]) -> Thread:
        """The thread of a message. `may_see` tells of a row and its route whether it is shown, and followed."""
        found: dict[UUID, asyncpg.Record] = {}
        links: dict[UUID, list[asyncpg.Record]] = {}
        asked: set[UUID] = set()
        wanted, more = {message}, False
        while wanted:
            asked |= wanted
            rows = await self._pool.fetch(SQL.briefs, list(wanted))
            await self._routes.load(row["route"] for row in rows)
            new = [
                row for row in rows if row["kind"] != Kind.NOTICE and may_see(row, self._routes.read(row["route"]))
            ]
            if len(found) + len(new) > MAX_MESSAGES:
                new, more = new[: MAX_MESSAGES - len(found)], True
            found |= {row["id"]: row for row in new}
            for link in await self._pool.fetch(SQL.speaks_of, [row["id"] for row in new]):
                links.setdefault(link["message"], []).append(link)
            wanted = (await self._neighbours(new, links) if new and not more else set()) - asked
        documents = {(name_of(row), row["sender"]): row for row in reversed(_documents(found))}
        members = []
        for id_ in sorted(found):
            row = found[id_]
            description = Description() if row["kind"] == Kind.STATUS else await self._describer.of(row)
            shown = tuple(_link(link, documents, id_) for link in links.get(id_, ()))
            members.append(Member(row, description, shown))
        return Thread(members, more)

    async def _neighbours(self, rows: list[asyncpg.Record], links: dict[UUID, list[asyncpg.Record]]) -> set[UUID]:
        """Ids of the messages that these speak of, or that speak of these."""
        documents = [row for row in rows if row["kind"] == Kind.DOCUMENT]
        near: set[UUID] = set()
        names = {(name_of(row), row["sender"]) for row in documents}
        if names:
            spoken = await self._pool.fetch(
                SQL.spoken_of, [name for name, _ in names], [owner for _, owner in names], MAX_REPORTS
            )
            near |= {said["id"] for said in spoken}
        names |= {(link["document_id"], link["owner"]) for row in rows for link in links.get(row["id"], ())}
        wanted = list(names)
        if not wanted:
            return near
        endpoints = [self._endpoint(owner) for _, owner in wanted]
        for document in await self._pool.fetch(SQL.documents_named, [name for name, _ in wanted], endpoints):
            owner = wanted[document["place"] - 1][1]
            if not owner or document["sender"] == owner:
                near.add(document["id"])
        return near

    def _endpoint(self, owner: str) -> int | None:
        agency = self._directory.picture.agency(owner) if owner else None
        return None if agency is None else agency.endpoint


def _documents(found: dict[UUID, asyncpg.Record]) -> list[asyncpg.Record]:
    return [found[id_] for id_ in sorted(found) if found[id_]["kind"] == Kind.DOCUMENT]


def _link(link: asyncpg.Record, documents: dict[tuple[str, str], asyncpg.Record], own: UUID) -> Link:
    name, owner = link["document_id"], link["owner"]
    about = documents.get((name, owner))
    if about is None and not owner:
        about = next((row for key, row in documents.items() if key[0] == name), None)
    known = None if about is None or about["id"] == own else str(about["id"])
    return Link(Relation(link["relation"]), name, owner, link["state"], known)
