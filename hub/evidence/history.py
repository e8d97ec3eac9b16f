"""What happened to a message, with receipts: who has it, since when.

Receipts of acceptance are stored events; receipts of a delivery's end are derived again from its run
(hub/relay/events.py) and checked against the sealed leaf before they leave the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.directory.follow import Directory
from hub.relay import events
from hub.relay.format import Format
from hub.store import sql
from hub.store.routes import Routes
from protocol.evidence import Receipt, timestamp
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("messages")


@dataclass(slots=True)
class Delivery:
    """One message at one endpoint.

    `state` is ``waiting``, ``handed_over`` or the kind of event that ended the delivery; `at` and
    `receipt` belong to that event and are None before it.
    """

    endpoint: str
    recipients: list[str]
    state: str
    at: datetime | None = None
    reason: str | None = None
    receipt: Receipt | None = None


@dataclass(slots=True)
class Timeline:
    """A message, the receipt of its acceptance, and its deliveries."""

    message: asyncpg.Record
    accepted: Receipt
    deliveries: list[Delivery]


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
        if found is None:
            log.error("an event does not match its sealed leaf; no receipt given", message=str(message), leaf=leaf)
            raise Problem("internal", "the proof of this event cannot be produced; the operator has been told")
        return found

    async def timeline(self, row: asyncpg.Record, *, proofs: bool = True) -> Timeline:
        """Everything known of a message; without `proofs` deliveries have no receipts, which cost the most."""
        # Before a connection is held: it may take one of its own, and all may be held by others that wait so.
        route = await self._routes.get(row["route"])
        async with self._pool.acquire() as connection:
            batch = await connection.fetchrow(SQL.batch, row["batch"])
            accepted = self._checked(row["event"], row["leaf"], batch, row["id"])
            assert batch is not None
            seq = batch["seq_base"] + row["leaf"]
            endpoints, lane = list(route), row["lane"]
            positions = {
                position["endpoint"]: position
                for position in await connection.fetch(SQL.mailbox_positions, endpoints, seq, lane)
            }
            runs = {run["endpoint"]: run for run in await connection.fetch(SQL.progress, endpoints, seq, lane)}
            batches: dict[UUID, asyncpg.Record | None] = {}
            for run in runs.values() if proofs else ():
                if run["batch"] not in batches:
                    batches[run["batch"]] = await connection.fetchrow(SQL.batch, run["batch"])
        deliveries = []
        for endpoint, codes in route.items():
            name = self._directory.picture.endpoint_name(endpoint)
            run = runs.get(endpoint)
            if run is None:
                position = positions.get(endpoint)
                handed = position is not None and seq <= position["handed"]
                deliveries.append(Delivery(name, codes, "handed_over" if handed else "waiting"))
                continue
            kind = events.ENDED_KINDS[run["kind"]]
            if not proofs:
                deliveries.append(Delivery(name, codes, kind.value, run["at"], run["reason"]))
                continue
            text = events.ended(
                kind,
                timestamp(run["at"]),
                row["id"],
                row["sender"],
                row["sender_id"],
                row["digest"],
                name,
                codes,
                run["reason"],
            )
            receipt = self._checked(text, run["leaf"], batches[run["batch"]], row["id"])
            deliveries.append(Delivery(name, codes, kind.value, run["at"], run["reason"], receipt))
        return Timeline(row, accepted, deliveries)

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
