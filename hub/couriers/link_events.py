"""What becomes of messages on their way to another hub, as sealed events with the peer's own answer in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from hub.couriers.link_carrier import Carried
from hub.evidence.record import Recorded, Recorder
from hub.relay.mail import Mail
from hub.store import sql
from protocol.evidence import EventKind

SQL = sql.load("links")


class LinkEvents:
    """The events of one link's courier."""

    def __init__(self, pool: asyncpg.Pool[Any], recorder: Recorder, endpoint: int, name: str) -> None:
        self._pool = pool
        self._recorder = recorder
        self._endpoint = endpoint
        self._name = name

    async def relayed(self, over: Sequence[tuple[Mail, Carried]]) -> None:
        """The peer has these, and said what it calls them; each is recorded once.

        Raises `Problem` store-unavailable or key-unavailable, or what asyncpg raises.
        """
        carried = {mail.entry.id: (mail, one) for mail, one in over if one.peer_id is not None}
        for message in await self._told(EventKind.RELAYED, carried):
            del carried[message]
        events = []
        for mail, one in carried.values():
            more: dict[str, object] = {"peer_id": one.peer_id}
            if one.receipt is not None:
                more["beyond"] = orjson.loads(one.receipt)
            events.append(self._event(EventKind.RELAYED, mail, more))
        await self._recorder.record(events)

    async def rejected(self, mail: Mail, reason: str) -> None:
        """The peer will not have it. Raises as `relayed`."""
        await self._once(EventKind.RELAY_REJECTED, mail, {"code": "relay-rejected", "reason": reason})

    async def failed(self, mail: Mail, reason: str) -> None:
        """The peer could not be given it so far; it is tried again. Raises as `relayed`."""
        await self._once(EventKind.RELAY_FAILED, mail, {"code": "relay-failed", "reason": reason})

    async def _once(self, kind: EventKind, mail: Mail, more: dict[str, object]) -> None:
        if not await self._told(kind, [mail.entry.id]):
            await self._recorder.record([self._event(kind, mail, more)])

    async def _told(self, kind: EventKind, messages: Iterable[UUID]) -> list[UUID]:
        """Those of which it is recorded already."""
        rows = await self._pool.fetch(SQL.recorded_of, list(messages), kind.value, self._endpoint)
        return [row["message"] for row in rows]

    def _event(self, kind: EventKind, mail: Mail, more: dict[str, object]) -> Recorded:
        entry = mail.entry
        members: dict[str, object] = {
            "from": entry.sender,
            "id": entry.sender_id,
            "sha256": entry.digest.hex(),
            "endpoint": self._name,
            "recipients": entry.agencies,
        }
        return Recorded(entry.id, kind, self._endpoint, members | more)
