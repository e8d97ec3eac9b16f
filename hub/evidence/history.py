"""What happened to a message, with receipts: who has it, since when.

Acceptance and what others recorded are stored events; of a delivery's hand-over and end the texts are derived
again from their runs (hub/relay/events.py). Either is checked against the sealed leaf before it leaves the hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.directory.follow import Directory
from hub.relay import events
from hub.relay.format import Format
from hub.store import sql
from hub.store.routes import Routes
from protocol.acknowledgement import SignedAcknowledgement, locate
from protocol.evidence import EventKind, Receipt, Tree, timestamp
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("messages")
AT_ONCE = 10
"""Deliveries of which the proofs are made together, about 20 ms of the event loop: a circular has thousands."""


@dataclass(slots=True)
class Event:
    """Something that happened to a message, with its proof. `endpoint` is "" when it is about the message as a
    whole; `acknowledgement` is what the recipient signed, of events that end a delivery; `with_end` is set on a
    hand-over that the event of the end tells of, whose receipt it then has."""

    kind: str
    at: datetime
    receipt: Receipt | None
    endpoint: str = ""
    recipients: list[str] = field(default_factory=list)
    code: str | None = None
    reason: str | None = None
    acknowledgement: SignedAcknowledgement | None = None
    with_end: bool = False


@dataclass(slots=True)
class Delivery:
    """One message at one endpoint.

    `state` is ``waiting``, ``handed_over`` or the kind of event that ended the delivery. `handed_over`, where it
    is sealed, is proven by an event of its own or by that of the end. It is not when the recipient was given the
    message less than two seconds ago, by another process than the one that it acknowledged to, or by one that died
    since.
    """

    endpoint: str
    recipients: list[str]
    state: str
    handed_over: Event | None = None
    end: Event | None = None

    @property
    def at(self) -> datetime | None:
        """Since when it is in its state."""
        if self.end is not None:
            return self.end.at
        return None if self.handed_over is None else self.handed_over.at

    @property
    def code(self) -> str | None:
        return None if self.end is None else self.end.code

    @property
    def reason(self) -> str | None:
        return None if self.end is None else self.end.reason

    @property
    def receipt(self) -> Receipt | None:
        """The proof of its state."""
        found = self.end or self.handed_over
        return None if found is None else found.receipt

    @property
    def acknowledgement(self) -> SignedAcknowledgement | None:
        return None if self.end is None else self.end.acknowledgement


@dataclass(slots=True)
class Timeline:
    """A message, the receipt of its acceptance, its deliveries, and all its events in their order."""

    message: asyncpg.Record
    accepted: Receipt
    deliveries: list[Delivery]
    events: list[Event]


@dataclass(slots=True)
class _Found:
    """What the store holds of a message's events; `proofs`: with what proves them."""

    seq: int
    proofs: bool
    positions: dict[int, asyncpg.Record]
    ends: dict[int, asyncpg.Record]
    handed: dict[int, asyncpg.Record]
    recorded: list[asyncpg.Record]
    batches: dict[UUID, tuple[Tree, str]]
    acknowledgements: dict[UUID, asyncpg.Record]


Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items`, up to `size` at a time."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


class History:
    """Reads what happened from the store."""

    def __init__(self, pool: asyncpg.Pool[Any], directory: Directory, routes: Routes) -> None:
        self._pool = pool
        self._routes = routes
        self._directory = directory

    async def message(self, message: UUID) -> asyncpg.Record | None:
        """The stored message (columns of hub/store/messages.sql), or None."""
        row: asyncpg.Record | None = await self._pool.fetchrow(SQL.message, message)
        return row

    async def message_of_sender(self, endpoint: int, sender_id: str) -> asyncpg.Record | None:
        """The message that an endpoint submitted under its own id, or None."""
        row: asyncpg.Record | None = await self._pool.fetchrow(SQL.message_of_sender, endpoint, sender_id)
        return row

    async def accepted_receipt(self, message: asyncpg.Record) -> Receipt:
        """The receipt that was given when the message was accepted."""
        batch = await self._pool.fetchrow(SQL.batch, message["batch"])
        return self._checked(message["event"], message["leaf"], batch, message["id"])

    def _checked(self, event: str, leaf: int, batch: asyncpg.Record | None, message: UUID) -> Receipt:
        found = None if batch is None else events.stored_receipt(event, leaf, batch["leaves"], batch["seal"])
        return self._proven(found, message, leaf)

    async def timeline(self, row: asyncpg.Record, *, proofs: bool = True) -> Timeline:
        """Everything known of a message; without `proofs` deliveries have no receipts, which cost the most, and
        there are no other events."""
        # Before a connection is held: it may take one of its own, and all may be held by others that wait so.
        route = await self._routes.get(row["route"])
        async with self._pool.acquire() as connection:
            batch = await connection.fetchrow(SQL.batch, row["batch"])
            accepted = self._checked(row["event"], row["leaf"], batch, row["id"])
            assert batch is not None
            found = await self._find(connection, row, batch["seq_base"] + row["leaf"], list(route), proofs)
            deliveries = []
            for some in batched(route.items(), AT_ONCE):
                await self._find_proofs(connection, found, [endpoint for endpoint, _ in some])
                deliveries += [self._delivery(row, endpoint, codes, found) for endpoint, codes in some]
            await self._find_batches(connection, found, found.recorded)
            happened = [Event(EventKind.ACCEPTED, row["accepted_at"], accepted)]
            happened += [self._recorded(one, row["id"], found) for one in found.recorded]
        happened += [one for delivery in deliveries for one in (delivery.handed_over, delivery.end) if one]
        # What happened at the same moment stays in this order, in which it can only have happened.
        return Timeline(row, accepted, deliveries, sorted(happened, key=lambda event: event.at))

    async def _find(
        self, connection: Any, row: asyncpg.Record, seq: int, endpoints: list[int], proofs: bool
    ) -> _Found:
        async def by_endpoint(statement: str) -> dict[int, asyncpg.Record]:
            return {one["endpoint"]: one for one in await connection.fetch(statement, endpoints, seq, row["lane"])}

        positions, ends = await by_endpoint(SQL.mailbox_positions), await by_endpoint(SQL.progress)
        found = _Found(seq, proofs, positions, ends, {}, [], {}, {})
        if proofs:
            found.handed = await by_endpoint(SQL.handed_runs)
            found.recorded = await connection.fetch(SQL.recorded, row["id"])
        return found

    async def _find_proofs(self, connection: Any, found: _Found, endpoints: list[int]) -> None:
        """What proves the events at a few endpoints, instead of what proved those before."""
        if not found.proofs:
            return
        ends = [found.ends[endpoint] for endpoint in endpoints if endpoint in found.ends]
        handed = [found.handed[endpoint] for endpoint in endpoints if endpoint in found.handed]
        await self._find_batches(connection, found, [*ends, *handed])
        signed = {run["acknowledgement"] for run in ends} - {None}
        rows = await connection.fetch(SQL.acknowledgements, list(signed)) if signed else []
        found.acknowledgements = {one["id"]: one for one in rows}

    @staticmethod
    async def _find_batches(connection: Any, found: _Found, runs: list[asyncpg.Record]) -> None:
        ids = {run["batch"] for run in runs}
        rows = await connection.fetch(SQL.batches, list(ids)) if ids else []
        found.batches = {row["id"]: (Tree(events.leaves_of(row["leaves"])), row["seal"]) for row in rows}

    def _delivery(self, row: asyncpg.Record, endpoint: int, codes: list[str], found: _Found) -> Delivery:
        name = self._directory.picture.endpoint_name(endpoint)
        about = events.about(row["id"], row["sender"], row["sender_id"], row["digest"], name, codes)
        handed, run = found.handed.get(endpoint), found.ends.get(endpoint)
        handed_over = end = None
        if handed is not None:
            text = events.of_delivery(EventKind.HANDED_OVER, timestamp(handed["at"]), about)
            receipt = self._proof(text, handed, found, row["id"])
            handed_over = Event(EventKind.HANDED_OVER, handed["at"], receipt, name, codes)
        if run is None:
            position = found.positions.get(endpoint)
            given = handed is not None or (position is not None and found.seq <= position["handed"])
            return Delivery(name, codes, "handed_over" if given else "waiting", handed_over)
        kind = events.ENDED_KINDS[run["kind"]]
        end = Event(kind, run["at"], None, name, codes, run["code"], run["reason"])
        if found.proofs:
            stored = found.acknowledgements.get(run["acknowledgement"])
            if stored is not None:
                leaves = events.leaves_of(stored["leaves"])
                end.acknowledgement = locate(stored["jws"], leaves, str(row["id"]), row["digest"].hex())
            text = events.of_delivery(
                kind,
                timestamp(run["at"]),
                about,
                run["code"],
                run["reason"],
                None if end.acknowledgement is None else end.acknowledgement.sha256,
                None if run["handed_at"] is None else timestamp(run["handed_at"]),
            )
            end.receipt = self._proof(text, run, found, row["id"])
            if handed_over is None and run["handed_at"] is not None:
                at = run["handed_at"]
                handed_over = Event(EventKind.HANDED_OVER, at, end.receipt, name, codes, with_end=True)
        return Delivery(name, codes, kind.value, handed_over, end)

    def _recorded(self, one: asyncpg.Record, message: UUID, found: _Found) -> Event:
        members = orjson.loads(one["event"])
        name = "" if one["endpoint"] is None else self._directory.picture.endpoint_name(one["endpoint"])
        return Event(
            one["kind"],
            one["at"],
            self._proof(one["event"], one, found, message),
            name,
            members.get("recipients", []),
            members.get("code"),
            members.get("reason"),
        )

    def _proof(self, event: str, run: asyncpg.Record, found: _Found, message: UUID) -> Receipt:
        batch = found.batches.get(run["batch"])
        receipt = None if batch is None else events.receipt_in(batch[0], event, run["leaf"], batch[1])
        return self._proven(receipt, message, run["leaf"])

    @staticmethod
    def _proven(receipt: Receipt | None, message: UUID, leaf: int) -> Receipt:
        if receipt is None:
            log.error("an event does not match its sealed leaf; no receipt given", message=str(message), leaf=leaf)
            raise Problem("internal", "the proof of this event cannot be produced; the operator has been told")
        return receipt

    async def package_signatures(self, message: asyncpg.Record) -> list[asyncpg.Record]:
        """What was found of an edXML message's package signatures when it came, in their order."""
        if message["format"] != Format.EDXML:
            return []
        rows: list[asyncpg.Record] = await self._pool.fetch(SQL.package_signatures, message["id"])
        return rows

    async def open_deliveries(self, message: UUID) -> tuple[int, list[int]]:
        """A message's sequence, and the endpoints at which its delivery has not ended."""
        row = await self.message(message)
        assert row is not None
        endpoints = list(await self._routes.get(row["route"]))
        async with self._pool.acquire() as connection:
            batch = await connection.fetchrow(SQL.batch, row["batch"])
            assert batch is not None
            seq = batch["seq_base"] + row["leaf"]
            positions = await connection.fetch(SQL.mailbox_positions, endpoints, seq, row["lane"])
        return seq, [row["endpoint"] for row in positions if seq > row["floor"] and not row["done"]]
