"""How a message ended beyond a native link, told to its sender here.

The peer says it with a receipt of its own, for its own name of the message. The sender knows neither. So this hub
seals an event about its own message, with the peer's receipt inside as the evidence, keeps it with the message's
other events, and puts its receipt into the sender's mailbox, as it does when a recipient here refuses something.
A sender who speaks the axis's interface, where nobody reads notices, gets a state in the recipient's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.couriers.link_word import status_of_notice
from hub.directory.follow import Directory
from hub.evidence.sealing import seal_events
from hub.relay import events
from hub.relay.batch import Ticket, digest_of, make_batch, notice
from hub.relay.format import Format, Kind
from hub.relay.intake import Intake, Stored
from hub.relay.opening import Sender
from hub.relay.wake import News
from hub.store import sql
from hub.store.routes import Routes
from protocol import edxml
from protocol.evidence import EventKind, Receipt, Sealer, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("links")
RELAY = sql.load("relay")

ENDS = (EventKind.REFUSED, EventKind.EXPIRED, EventKind.RECALLED)
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Word:
    """What the peer says: how the message ended, for which of its recipients."""

    kind: EventKind
    recipients: tuple[str, ...]
    reason: str
    at: str


def words(event: dict[str, Any], recipients: Sequence[str]) -> list[Word]:
    """What a peer's event says of a message that went to `recipients` there. Raises `Problem` bad-request."""
    at, kind = event.get("at"), event.get("event")
    known = frozenset(recipients)
    if kind == EventKind.ACCEPTED:  # of some recipients it says that they cannot be reached
        by_reason: dict[str, list[str]] = {}
        for one in _list(event.get("unreachable")):
            code = one.get("recipient") if isinstance(one, dict) else None
            if isinstance(code, str) and code in known:
                by_reason.setdefault(str(one.get("reason"))[:MAX_REASON], []).append(code)
        return [Word(EventKind.REFUSED, tuple(codes), reason, str(at)) for reason, codes in by_reason.items()]
    if kind not in ENDS or not isinstance(at, str):
        raise Problem("bad-request", f"an event {str(kind)[:40]!r} ends no delivery")
    named = tuple(
        dict.fromkeys(code for code in _list(event.get("recipients")) if isinstance(code, str) and code in known)
    )
    if not named:
        raise Problem("bad-request", "the event concerns nobody to whom the message went")
    return [Word(EventKind(kind), named, str(event.get("reason") or "")[:MAX_REASON], at)]


def _list(member: object) -> list[Any]:
    """A member of an event that a peer wrote, who may have written anything."""
    return member if isinstance(member, list) else []


class Teller:
    """Tells senders, for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        sealer: Sealer,
        directory: Directory,
        routes: Routes,
        intake: Intake,
        committed: Callable[[News], None],
    ) -> None:
        """`committed` is told whose mailboxes got notices."""
        self._pool = pool
        self._sealer = sealer
        self._directory = directory
        self._routes = routes
        self._intake = intake
        self._committed = committed

    async def tell(self, endpoint: int, message: UUID, receipt: Receipt) -> None:
        """The peer at `endpoint` gave `receipt` for an event of what this hub calls `message`. Does it once.

        Raises `Problem` bad-request when the two do not go together, not-found, or what asyncpg raises.
        """
        original = await self._pool.fetchrow(SQL.noticed, message)
        codes = None if original is None else (await self._routes.get(original["route"])).get(endpoint)
        if original is None or codes is None:
            raise Problem("not-found", "no message of this id went over this link")
        try:
            event = orjson.loads(receipt.event)
            right = event["sha256"] == original["digest"].hex()
        except (ValueError, KeyError, TypeError):
            right = False
        if not right:
            raise Problem("bad-request", "the receipt speaks of other bytes than the message's")
        if original["kind"] == Kind.NOTICE:
            return
        for word in words(event, codes):
            await self._tell(endpoint, original, word, receipt)

    async def _tell(self, endpoint: int, original: asyncpg.Record, word: Word, receipt: Receipt) -> None:
        said = hashlib.sha256(receipt.event.encode() + "".join(word.recipients).encode()).hexdigest()
        name = f"link:{endpoint}:{said}"
        if await self._pool.fetchval(SQL.told, name):
            return
        link = self._directory.picture.endpoint_name(endpoint)
        picture, origin = self._directory.picture, original["endpoint"]
        if origin in picture.axis_endpoints and original["kind"] == Kind.DOCUMENT:
            await self._state(endpoint, link, original, word)
        now = datetime.now(UTC)
        text = orjson.dumps(
            {
                "event": word.kind,
                "at": timestamp(now),
                "message": str(original["id"]),
                "from": original["sender"],
                "id": original["sender_id"],
                "sha256": original["digest"].hex(),
                "endpoint": link,
                "recipients": word.recipients,
                "reason": word.reason or "no reason was given",
                "beyond": {
                    "event": receipt.event,
                    "index": receipt.index,
                    "size": receipt.size,
                    "path": receipt.path,
                    "seal": receipt.seal,
                },
            }
        ).decode()
        batch = uuid7()
        sealed = await seal_events(self._sealer, [text.encode()], batch, now)
        (body,) = events.receipts_json(sealed.tree, [text], sealed.seal)
        to = origin, original["sender"]
        told = notice(Ticket(1), name, Lane(original["lane"]), body, to, original["id"])
        notices = await make_batch([told], self._sealer)
        event = batch, now, sealed.leaves, sealed.seal, [original["id"]], [word.kind.value], [endpoint], [text]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetchval(RELAY.commit_events, *event)
                base, *_ = await connection.fetchval(RELAY.commit_messages, *notices.arguments({}, []))
        except asyncpg.PostgresError as error:
            if error.sqlstate == "LT409":  # another process was faster
                return
            raise
        self._committed(notices.news(base))
        log.info("a sender is told of beyond a link", link=link, message=str(original["id"]), how=word.kind.value)

    async def _state(self, endpoint: int, link: str, original: asyncpg.Record, word: Word) -> None:
        """The same as a state, for a sender who speaks the axis's interface."""
        if not original["document_id"] and original["format"] == Format.EDXML:
            return
        named = dict(original) | {"document_id": original["document_id"] or original["sender_id"]}
        for agency in word.recipients:
            event = {
                "event": word.kind,
                "message": str(original["id"]),
                "at": word.at,
                "reason": word.reason,
            }
            content = status_of_notice(self._directory.picture, event, agency, named)  # type: ignore[arg-type]
            stored = Stored(edxml.read(content, whole=True), digest_of(content), len(content), content)
            try:
                await self._intake.edxml(Sender(endpoint, link), stored)
            except Problem as problem:
                if problem.retryable:
                    raise
                log.warning(
                    "a state from beyond a link was refused", link=link, agency=agency, reason=str(problem)
                )
