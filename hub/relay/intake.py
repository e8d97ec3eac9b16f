"""From bytes to a receipt: admission, signature, routing, commit.

This is the one way into the relay. A door hands over the bytes and who sent them; it gets back, for
each message, a receipt or a problem. One bad message among many spoils no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.directory.follow import Directory
from hub.directory.picture import Agency, Picture
from hub.evidence.history import History
from hub.relay.admission import Admission
from hub.relay.commit import Committer, Rejection, Submission, Ticket, Work, digest_of
from hub.relay.format import Format
from hub.relay.route import Route, require_reachable, route
from hub.relay.verify import Verifier, find_key
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.edxml import Header
from protocol.message import LANE_OF_PRIORITY, Document, Lane, open_jws
from protocol.problems import Problem
from protocol.signature import Jws, PublicKey

log = structlog.get_logger()
SQL = sql.load("relay")

ROUTED_AT_ONCE = 2_000
"""Agencies resolved between two looks at the event loop (about 1 ms)."""

_EDXML_LANES = (Lane.NORMAL, Lane.URGENT, Lane.URGENT, Lane.EXPRESS, Lane.EXPRESS)
"""By edXML's Priority 0 to 4: thường, khẩn, thượng khẩn, hỏa tốc, hỏa tốc hẹn giờ."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The authenticated endpoint that submits."""

    endpoint: int
    name: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that the hub has. `receipt` is JSON; `duplicate`: it had been accepted before."""

    id: UUID
    receipt: bytes
    unreachable: list[dict[str, str]]
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """An edXML message as a door received it: its header, or why it has none, and its bytes or their blob."""

    header: Header | Problem
    digest: bytes
    size: int
    body: bytes | None
    keep: Callable[[], Awaitable[None]] | None = None
    """Makes the blob durable; called once it is known that the message can be sent."""


@dataclass(slots=True)
class _Opened:
    raw: bytes
    jws: Jws
    document: Document
    agency: Agency
    key: PublicKey


class Intake:
    """Takes in messages for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        directory: Directory,
        admission: Admission,
        verifier: Verifier,
        committer: Committer,
        history: History,
        max_message_bytes: int,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._admission = admission
        self._verifier = verifier
        self._committer = committer
        self._history = history
        self._max_message_bytes = max_message_bytes

    async def native(self, sender: Sender, raws: Sequence[bytes]) -> list[Accepted | Problem]:
        """Take in compact JWS messages; the outcomes stand in their order.

        There must be `room` for them. Raises `Problem` store-unavailable for all of them together.
        """
        picture = self._directory.picture
        opened = [self._open(picture, sender, raw) for raw in raws]
        await self._verify(opened)
        await self._check_attachments(sender, opened)
        outcomes: list[Accepted | Problem | Submission] = []
        ticket = Ticket(len(raws))
        routes: dict[tuple[str, ...], Route] = {}  # a batch often goes to the same recipients
        routed = 0
        for item in opened:
            if isinstance(item, Problem):
                outcomes.append(item)
                continue
            try:
                submission = self._submission(picture, sender, item, ticket, routes)
            except Problem as problem:
                outcomes.append(problem)
                continue
            outcomes.append(submission)
            routed += submission.recipients
            if routed > ROUTED_AT_ONCE:
                routed = 0
                await asyncio.sleep(0)
        return await self._commit(sender, lambda index: digest_of(raws[index]), outcomes, ticket)

    def room(self, size: int) -> AbstractContextManager[None]:
        """Hold room for a request of `size` bytes while it is read and taken in.

        Raises `Problem` overloaded or stopping on entering.
        """
        return self._admission.admit(size)

    async def edxml(self, sender: Sender, stored: Stored) -> Accepted:
        """Take in one edXML message, for which there must be `room`. Raises `Problem`."""
        picture = self._directory.picture
        outcome: Submission | Problem
        ticket = Ticket(1)
        try:
            header = stored.header
            if isinstance(header, Problem):
                raise header
            agency = self._speaks_for(picture, sender, header.sender)
            found = route(picture, header.recipients)
            require_reachable(found, report=False)
            if stored.keep is not None:
                await stored.keep()
            outcome = Submission(
                ticket=ticket,
                endpoint=sender.endpoint,
                endpoint_name=sender.name,
                # An edXML DocumentId comes again in updates and recalls of the same document, so the
                # key for idempotency is the bytes themselves.
                sender_id=f"edxml:{stored.digest.hex()}",
                sender=agency.code,
                format=Format.EDXML,
                lane=_EDXML_LANES[header.priority],
                digest=stored.digest,
                size=stored.size,
                body=stored.body,
                route=found.endpoints,
                recipients=found.recipients,
            )
        except Problem as problem:
            outcome = problem
        (ended,) = await self._commit(sender, lambda index: stored.digest, [outcome], ticket)
        if isinstance(ended, Problem):
            raise ended
        return ended

    # -- the steps ------------------------------------------------------------------------------

    def _open(self, picture: Picture, sender: Sender, raw: bytes) -> _Opened | Problem:
        try:
            if len(raw) > self._max_message_bytes:
                raise Problem(
                    "too-large",
                    f"a message may have {self._max_message_bytes} bytes",
                    limit=self._max_message_bytes,
                )
            jws, document = open_jws(raw)
            agency = self._speaks_for(picture, sender, document.sender)
            key = find_key(picture, jws, sender.endpoint, agency.code)
            return _Opened(raw, jws, document, agency, key.public)
        except Problem as problem:
            return problem

    @staticmethod
    def _speaks_for(picture: Picture, sender: Sender, code: str) -> Agency:
        agency = picture.agency(code)
        if agency is None or not agency.active or agency.endpoint != sender.endpoint:
            raise Problem("from-not-yours", f"the endpoint {sender.name} does not speak for {code}")
        return agency

    async def _verify(self, opened: list[_Opened | Problem]) -> None:
        """Replace what is signed wrongly by its problem."""
        places = [index for index, item in enumerate(opened) if isinstance(item, _Opened)]
        signatures = [(item.key, item.jws) for item in opened if isinstance(item, _Opened)]
        if not signatures:
            return
        for index, right in zip(places, await self._verifier.check(signatures), strict=True):
            if not right:
                opened[index] = Problem("bad-signature", "the signature was not made over these bytes by this key")

    async def _check_attachments(self, sender: Sender, opened: list[_Opened | Problem]) -> None:
        """Replace what names attachments that the sender has not uploaded by its problem."""
        wanted = {
            bytes.fromhex(attachment.sha256)
            for item in opened
            if isinstance(item, _Opened)
            for attachment in item.document.attachments
        }
        if not wanted:
            return
        try:
            rows = await self._pool.fetch(SQL.missing_attachments, sender.endpoint, list(wanted))
        except (*UNAVAILABLE, TimeoutError) as error:
            log.error("attachments could not be checked", error=str(error))
            raise Problem(
                "store-unavailable", "nothing is lost: send the same message again", retry_after=2
            ) from None
        missing = {row["sha256"].hex() for row in rows}
        for index, item in enumerate(opened):
            if isinstance(item, _Opened):
                absent = [a.sha256 for a in item.document.attachments if a.sha256 in missing]
                if absent:
                    opened[index] = Problem(
                        "attachment-missing",
                        "upload them first with PUT /v1/attachments/{sha256}, then send the same message again",
                        attachments=absent,
                    )

    @staticmethod
    def _submission(
        picture: Picture, sender: Sender, item: _Opened, ticket: Ticket, routes: dict[tuple[str, ...], Route]
    ) -> Submission:
        document = item.document
        if document.expires is not None and document.expires <= datetime.now(UTC):
            raise Problem("already-expired", f"it expired at {document.expires.isoformat()}")
        found = routes.get(document.to)
        if found is None:
            found = routes[document.to] = route(picture, document.to)
        require_reachable(found, document.unreachable == "report")
        return Submission(
            ticket=ticket,
            endpoint=sender.endpoint,
            endpoint_name=sender.name,
            sender_id=document.id,
            sender=item.agency.code,
            format=Format.JWS,
            lane=LANE_OF_PRIORITY[document.priority],
            digest=digest_of(item.raw),
            size=len(item.raw),
            body=item.raw,
            route=found.endpoints,
            recipients=found.recipients,
            unreachable=found.unreachable_members(),
            expires_at=document.expires,
            attachments=[bytes.fromhex(attachment.sha256) for attachment in document.attachments],
        )

    # -- commit and answer ----------------------------------------------------------------------

    async def _commit(
        self,
        sender: Sender,
        digest: Callable[[int], bytes],
        outcomes: list[Accepted | Problem | Submission],
        ticket: Ticket,
    ) -> list[Accepted | Problem]:
        """Commit submissions, seal refusals, and answer in order."""
        work: list[Work] = []
        twins: list[Work] = []
        keys: set[tuple[int, str]] = set()
        rejections: dict[int, Rejection] = {}
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Problem):
                rejections[index] = self._rejection(sender, digest(index), outcome, ticket)
                work.append(rejections[index])
            elif isinstance(outcome, Submission):
                (twins if outcome.key in keys else work).append(outcome)
                keys.add(outcome.key)
        if twins:  # of the same id in one request the first counts: the others follow when it is settled
            later = Ticket(len(twins))
            for twin in twins:
                twin.ticket = later
                ticket.settle()
        self._committer.put(work)
        await ticket.done
        if twins:
            self._committer.put(twins)
            await later.done
        conflicts = {
            index: outcome.problem
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, Submission) and outcome.problem is not None
            if outcome.problem.code == "id-conflict"
        }
        if conflicts:
            again = Ticket(len(conflicts))
            for index, problem in conflicts.items():
                rejections[index] = self._rejection(sender, digest(index), problem, again)
            self._committer.put(rejections[index] for index in conflicts)
            await again.done
        ended: list[Accepted | Problem] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Submission):
                if outcome.problem is not None:
                    ended.append(self._with_receipt(outcome.problem, rejections.get(index)))
                elif outcome.duplicate_of is not None:
                    ended.append(await self._first(outcome.duplicate_of))
                else:
                    assert outcome.receipt is not None
                    ended.append(Accepted(outcome.id, outcome.receipt, outcome.unreachable))
            elif isinstance(outcome, Problem):
                ended.append(self._with_receipt(outcome, rejections.get(index)))
            else:
                ended.append(outcome)
        return ended

    @staticmethod
    def _rejection(sender: Sender, digest: bytes, problem: Problem, ticket: Ticket) -> Rejection:
        reason = problem.detail or problem.kind.title
        return Rejection(ticket, sender.endpoint, sender.name, digest, problem.code, reason[:1000])

    @staticmethod
    def _with_receipt(problem: Problem, rejection: Rejection | None) -> Problem:
        if rejection is not None and rejection.receipt is not None:
            problem.extra["receipt"] = orjson.Fragment(rejection.receipt)
        return problem

    async def _first(self, message: UUID) -> Accepted | Problem:
        """The answer that was given when the message was first submitted."""
        try:
            row = await self._history.message(message)
            if row is None:
                return Problem(
                    "id-conflict", "a message with this id was accepted before and has since left the hub"
                )
            receipt = await self._history.accepted_receipt(row)
        except (*UNAVAILABLE, TimeoutError):
            return Problem("store-unavailable", "nothing is lost: send the same message again", retry_after=2)
        except Problem as problem:
            return problem
        unreachable = orjson.loads(receipt.event).get("unreachable", [])
        return Accepted(message, receipt.to_json(), unreachable, duplicate=True)
