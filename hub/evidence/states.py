"""Where a document stands with each agency that it went to, by what they reported.

Reports are found by the name that the parties have for the document and by whose it is, in one query whatever
formats they and it were written in. They may have come before the document, twice, or in any order
(`protocol.status`). What counts is what its recipients say of themselves, and what its sender asks of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from hub.relay.references import Relation
from hub.store import sql
from hub.store.routes import Routes
from protocol.status import Report, Standing, State, resolve

SQL = sql.load("threads")
MAX_REPORTS = 2_000
"""Reports looked at; the first ones. A circular to 5,000 agencies has more only when half of them answer."""
_ANSWERS = (State.CHANGE_AGREED, State.CHANGE_REFUSED)


def name_of(row: asyncpg.Record) -> str:
    """The name that the parties have for a stored message: its DocumentId in edXML, else its sender's id."""
    return str(row["document_id"] or row["sender_id"])


@dataclass(frozen=True, slots=True)
class SpokenOf:
    """A document of which a message speaks. `message`: the hub's id, None where the hub does not know it."""

    name: str
    owner: str
    relation: Relation
    state: str
    message: str | None


class States:
    """Reads states for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], routes: Routes) -> None:
        self._pool = pool
        self._routes = routes

    async def of(self, row: asyncpg.Record) -> dict[str, Standing]:
        """By agency of a document's recipients (row of `messages.sql`), where it stands. None reported: absent."""
        route = await self._routes.get(row["route"])
        agencies = {code: endpoint for endpoint, codes in route.items() for code in codes}
        spoken = await self._spoken_of([(name_of(row), row["sender"])])
        reports: dict[str, list[Report]] = {}
        asking: list[tuple[str, str]] = []
        for said in spoken:
            if said["id"] == row["id"]:
                continue
            relation = Relation(said["relation"])
            if said["sender"] == row["sender"] and relation in (Relation.RECALL, Relation.UPDATE):
                asking.append((said["name"] or said["sender_id"], said["sender"]))
            for agency, code in self._says(said, row["sender"], agencies):
                if not (code == State.RECALL_ASKED and agencies[agency] in row["recalled"]):
                    reports.setdefault(agency, []).append(_report(said, code))
        own_name = name_of(row), row["sender"]
        if asking := [key for key in dict.fromkeys(asking) if key != own_name]:
            # Some answer the recall itself instead of the document that is recalled.
            for said in await self._spoken_of(asking):
                if said["state"] in _ANSWERS and said["sender"] in agencies:
                    reports.setdefault(said["sender"], []).append(_report(said, said["state"]))
        return {agency: resolve(reports[agency]) for agency in agencies if agency in reports}

    async def _spoken_of(self, names: list[tuple[str, str]]) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self._pool.fetch(
            SQL.spoken_of, [name for name, _ in names], [owner for _, owner in names], MAX_REPORTS
        )
        await self._routes.load(row["route"] for row in rows)
        return rows

    def _says(self, said: asyncpg.Record, owner: str, agencies: dict[str, int]) -> list[tuple[str, str]]:
        """Which recipients a message says which state of."""
        to = {code for codes in self._routes.read(said["route"]).values() for code in codes}
        asks = said["relation"] == Relation.RECALL or said["state"] == State.RECALL_ASKED
        if asks:
            return [(code, State.RECALL_ASKED) for code in agencies if code in to and said["sender"] == owner]
        if said["relation"] != Relation.STATE or said["sender"] not in agencies:
            return []
        # Where the report does not say whose document it means, it is to the one who got the report.
        return [(said["sender"], said["state"])] if said["owner"] or owner in to else []

    async def speaks_of(self, row: asyncpg.Record, endpoint_of: Callable[[str], int | None]) -> list[SpokenOf]:
        """The documents that a message speaks of. `endpoint_of` an agency: where native ids are looked for."""
        rows = await self._pool.fetch(SQL.speaks_of, [row["id"]])
        if not rows:
            return []
        names = [found["document_id"] for found in rows]
        known = await self._pool.fetch(SQL.documents_named, names, [endpoint_of(found["owner"]) for found in rows])
        first: dict[int, str] = {}
        for document in known:
            place = document["place"] - 1
            owner = rows[place]["owner"]
            if document["id"] != row["id"] and (not owner or document["sender"] == owner):
                first.setdefault(place, str(document["id"]))
        return [
            SpokenOf(
                found["document_id"], found["owner"], Relation(found["relation"]), found["state"], first.get(place)
            )
            for place, found in enumerate(rows)
        ]


def _report(said: asyncpg.Record, code: str) -> Report:
    return Report(code, said["said_at"], said["accepted_at"], str(said["id"]))
