"""What a message says of other documents, and whether it may.

A status reports on a document, an answer answers one, a recall, update or replacement is about one. Each such
link is kept under the name that the parties have for the document and the agency whose it is, so that it need not
have passed through this hub, nor have come before the message that speaks of it.

What is refused is forgery, where the hub knows better: a status by an agency to which the document was not sent,
and a recall or an update of a document by another agency than its sender. What the hub does not know it relays
(docs/states.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

import asyncpg
import structlog

from hub.directory.picture import Picture
from hub.relay.format import BUSINESS
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from hub.store.routes import Routes
from protocol.edxml import Header
from protocol.message import Document
from protocol.problems import Problem
from protocol.status import State

log = structlog.get_logger()
SQL = sql.load("threads")
MAX_REFERENCES = 100
"""Documents that one message is linked with; further ones stand in its bytes alone."""


class Relation(IntEnum):
    """What a message is to the document that it speaks of."""

    STATE = 0
    ANSWER = 1
    RECALL = 2
    UPDATE = 3
    REPLACEMENT = 4

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Reference:
    """One document that a message speaks of. `owner`: its sender's code, ``""`` where that is not known."""

    name: str
    owner: str
    relation: Relation
    state: str = ""
    said_at: datetime | None = None

    @property
    def takes_back(self) -> bool:
        """Whether it asks for the document back."""
        return self.relation is Relation.RECALL or self.state == State.RECALL_ASKED

    @property
    def sender_only(self) -> bool:
        """Whether only the document's sender may say it."""
        return self.takes_back or self.relation is Relation.UPDATE


def of_document(picture: Picture, document: Document, sender: str) -> tuple[Reference, ...]:
    """What a native message by the agency `sender` speaks of.

    Raises `Problem` bad-document for a recall or an update that names nothing, and not-the-sender for one that
    names another agency's document.
    """
    if document.kind == "status":
        code = document.status or ""
        asks = code == State.RECALL_ASKED
        to = {_canonical(picture, address) for address in document.to}
        alone = next(iter(to)) if len(to) == 1 else ""
        return _distinct(
            Reference(
                item.id,
                sender if asks else _canonical(picture, item.agency) if item.agency else alone,
                Relation.STATE,
                code,
                document.at,
            )
            for item in document.response_for
        )
    if document.business == "new":
        if not document.response_for:
            return ()
        return _distinct(
            Reference(item.id, _canonical(picture, item.agency or ""), Relation.ANSWER)
            for item in document.response_for
        )
    relation = Relation(BUSINESS.index(document.business) + 1)
    about = document.concerns or document.response_for
    if not about and relation is not Relation.REPLACEMENT:
        path = "$.concerns"
        reason = f"a message of business `{document.business}` names the document it is about"
        raise Problem("bad-document", f"{path}: {reason}", fields=((path, reason),))
    for item in about:
        if relation is not Relation.REPLACEMENT and item.agency:
            _require_own(_canonical(picture, item.agency), sender, item.id)
    links = [Reference(item.id, _canonical(picture, item.agency or sender), relation) for item in about]
    if document.concerns:
        links += (
            Reference(item.id, _canonical(picture, item.agency or ""), Relation.ANSWER)
            for item in document.response_for
        )
    return _distinct(links)


def of_header(picture: Picture, header: Header, sender: str) -> tuple[Reference, ...]:
    """What an edXML message by the agency `sender` speaks of."""
    said_at = datetime.fromisoformat(header.timestamp) if header.timestamp else None
    if header.kind == "status":
        code = str(header.status_code or "")
        asks = code == State.RECALL_ASKED
        return _distinct(
            Reference(
                item.document_id or item.code,
                sender if asks else _canonical(picture, item.organ),
                Relation.STATE,
                code,
                said_at,
            )
            for item in header.response_for
            if item.document_id or item.code
        )
    links = [
        Reference(item.document_id or item.code, _canonical(picture, item.organ), Relation.ANSWER)
        for item in header.response_for
        if item.document_id or item.code
    ]
    if header.business:
        relation = Relation(header.business + 1)
        names = header.replaces if relation is Relation.REPLACEMENT else (header.business_document_id,)
        # A recall that names nothing repeats the document's own id as its own.
        names = tuple(filter(None, names)) or (header.document_id,)
        links = [Reference(name, sender, relation) for name in names] + links
    return _distinct(links)


def _distinct(references: Iterable[Reference]) -> tuple[Reference, ...]:
    return tuple(dict.fromkeys(references))[:MAX_REFERENCES]


def _canonical(picture: Picture, code: str) -> str:
    agency = picture.agency(code) if code else None
    return code if agency is None else agency.code


def _require_own(owner: str, sender: str, name: str) -> None:
    if owner != sender:
        raise Problem(
            "not-the-sender", f"{name[:100]!r} is a document of {owner}; {sender} may not recall or update it"
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A document that the hub relayed: a row of `threads.sql`, and where it went."""

    row: asyncpg.Record
    route: dict[int, list[str]]

    def went_to(self, agency: str) -> bool:
        return any(agency in codes for codes in self.route.values())


class References:
    """Looks up what messages speak of, for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], routes: Routes) -> None:
        self._pool = pool
        self._routes = routes

    async def named(
        self, picture: Picture, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], list[Named]]:
        """The documents by (name, owner). Of an owner who is not known, those in edXML with that name.

        Without an owner a native document is not found: its id means something at its endpoint only. Raises
        what asyncpg raises.
        """
        endpoints = []
        for _, owner in wanted:
            agency = picture.agency(owner) if owner else None
            endpoints.append(None if agency is None else agency.endpoint)
        rows = await self._pool.fetch(SQL.documents_named, [name for name, _ in wanted], endpoints)
        await self._routes.load(row["route"] for row in rows)
        found: dict[tuple[str, str], list[Named]] = {key: [] for key in wanted}
        for row in rows:
            found[wanted[row["place"] - 1]].append(Named(row, self._routes.read(row["route"])))
        return found

    async def check(
        self, picture: Picture, said: Sequence[tuple[str, tuple[Reference, ...]]]
    ) -> list[Problem | None]:
        """For each (sending agency, what it speaks of): None, or why it may not.

        Raises `Problem` store-unavailable.
        """
        wanted = {
            (item.name, item.owner): None
            for _, references in said
            for item in references
            if item.relation is Relation.STATE or item.sender_only
        }
        if not wanted:
            return [None] * len(said)
        try:
            named = await self.named(picture, list(wanted))
        except (*UNAVAILABLE, TimeoutError) as error:
            log.error("references could not be checked", error=str(error))
            raise Problem(
                "store-unavailable", "nothing is lost: send the same message again", retry_after=2
            ) from None
        return [_judge(sender, references, named) for sender, references in said]


def _judge(
    sender: str, references: tuple[Reference, ...], named: dict[tuple[str, str], list[Named]]
) -> Problem | None:
    for item in references:
        if item.relation is not Relation.STATE and not item.sender_only:
            continue
        found = named[item.name, item.owner]
        own = [document for document in found if not item.owner or document.row["sender"] == item.owner]
        if item.sender_only:
            if found and not own:
                owner = found[0].row["sender"]
                return Problem(
                    "not-the-sender",
                    f"{item.name[:100]!r} is a document of {owner}; {sender} may not recall or update it",
                )
        elif own and not any(document.went_to(sender) for document in own):
            return Problem(
                "not-addressed",
                f"the document {item.name[:100]!r} was not sent to {sender}, which cannot report on it",
            )
    return None
