"""From bytes to a receipt: admission, signature, routing, commit.

This is the one way into the relay. A door hands over the bytes and who sent them; it gets back, for
each message, a receipt or a problem. One bad message among many spoils no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.directory.follow import Directory
from hub.directory.picture import Agency, Picture
from hub.evidence.history import History
from hub.relay import references
from hub.relay.admission import Admission, Room
from hub.relay.commit import Committer, Rejection, Submission, Ticket, Work, digest_of
from hub.relay.format import BUSINESS, Format, Kind
from hub.relay.package_signatures import Found, PackageSignatures
from hub.relay.recall import Recalls
from hub.relay.references import Reference, References
from hub.relay.route import Router, inward, require_reachable
from hub.relay.secrecy import require_no_secret
from hub.relay.verify import Verifier, find_key
from hub.store import sql
from hub.store.blobs import CHUNK
from hub.store.pool import UNAVAILABLE
from protocol.agency import is_code
from protocol.edxml import Header
from protocol.edxml.xmldsig import Policy
from protocol.manifest import Opened as Manifest
from protocol.manifest import open_manifest
from protocol.message import LANE_OF_PRIORITY, Document, Lane, open_jws, read_document
from protocol.problems import Problem
from protocol.signature import MAX_HEADER_BYTES, Jws, PublicKey

log = structlog.get_logger()
SQL = sql.load("relay")

ROUTED_AT_ONCE = 2_000
"""Agencies resolved between two looks at the event loop (about 1 ms)."""

OPENED_AT_ONCE = 32
"""Messages opened, or made into submissions, between two looks at the event loop (about 1 ms)."""

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
    path: Path | None = None
    """Where the bytes are until then, when they are not in `body`."""


@dataclass(slots=True)
class _Opened:
    raw: bytes
    digest: bytes
    format: Format
    jws: Jws
    document: Document
    agency: Agency
    key: PublicKey
    references: tuple[Reference, ...] = ()


class Intake:
    """Takes in messages for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        directory: Directory,
        admission: Admission,
        uploads: Admission,
        verifier: Verifier,
        committer: Committer,
        history: History,
        references: References,
        recalls: Recalls,
        max_message_bytes: int,
        package_signatures: PackageSignatures,
    ) -> None:
        self._package_signatures = package_signatures
        self._references = references
        self._recalls = recalls
        self._pool = pool
        self._directory = directory
        self._admission = admission
        self._uploads = uploads
        self._verifier = verifier
        self._committer = committer
        self._history = history
        self._max_message_bytes = max_message_bytes
        self._router = Router()

    async def native(self, sender: Sender, raws: Sequence[bytes]) -> list[Accepted | Problem]:
        """Take in compact JWS messages; the outcomes stand in their order.

        There must be `room` for them. Raises `Problem` store-unavailable for all of them together.
        """
        picture = self._directory.picture
        opened = [self._open(picture, sender, raw) for raw in raws[:OPENED_AT_ONCE]]
        for start in range(OPENED_AT_ONCE, len(raws), OPENED_AT_ONCE):
            await asyncio.sleep(0)
            opened += [self._open(picture, sender, raw) for raw in raws[start : start + OPENED_AT_ONCE]]
        await self._verify(sender, opened)
        return await self._take_in(picture, sender, opened, lambda index: digest_of(raws[index]))

    async def manifest(self, sender: Sender, raw: bytes, lines: Sequence[bytes]) -> list[Accepted | Problem]:
        """Take in the documents of a manifest: its JWS, and each document as base64url.

        There must be `room` for them. The outcomes stand in their order. Raises `Problem` when the manifest
        itself is refused, and store-unavailable, for all of them together.
        """
        picture = self._directory.picture
        try:
            if len(raw) > MAX_HEADER_BYTES * 2:
                raise Problem("bad-manifest", "the manifest's JWS is longer than one can be")
            manifest = open_manifest(raw, lines)
            opened: list[_Opened | Problem] = []
            entries = manifest.entries()
            for start in range(0, len(lines), OPENED_AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                opened += self._open_documents(picture, sender, manifest, entries, start)
            first = next((item for item in opened if isinstance(item, _Opened)), None)
            if first is not None:
                signature = [(first.key, first.jws)]
                if not (await self._verifier.check(sender.endpoint, signature))[0]:
                    raise _bad_signature()
        except Problem as problem:
            await self._commit(sender, lambda index: digest_of(raw), [problem], Ticket(1))
            raise problem from None
        return await self._take_in(picture, sender, opened, lambda index: digest_of(manifest.payloads[index]))

    async def _take_in(
        self,
        picture: Picture,
        sender: Sender,
        opened: list[_Opened | Problem],
        digest: Callable[[int], bytes],
    ) -> list[Accepted | Problem]:
        """Route and commit what was found to be signed rightly."""
        await self._check_attachments(sender, opened)
        await self._check_references(picture, opened)
        outcomes: list[Accepted | Problem | Submission] = []
        ticket = Ticket(len(opened))
        routed = 0
        for item in opened:
            if isinstance(item, Problem):
                outcomes.append(item)
                continue
            try:
                submission = self._submission(picture, sender, item, ticket)
            except Problem as problem:
                outcomes.append(problem)
                continue
            outcomes.append(submission)
            routed += submission.route.recipients + ROUTED_AT_ONCE // OPENED_AT_ONCE
            if routed > ROUTED_AT_ONCE:
                routed = 0
                await asyncio.sleep(0)
        return await self._commit(sender, digest, outcomes, ticket)

    def room(self, sender: Sender, size: int, announced: int = 0, messages: int = 1) -> Room:
        """Room for a request of which `size` bytes are here and `announced` are to be, while it is taken in.

        Raises `Problem` too-many-requests, overloaded or stopping.
        """
        return self._admission.admit(sender.endpoint, size, messages, announced=announced)

    def delay(self, sender: Sender, size: int, messages: int = 1) -> float:
        """Seconds after which to ask for `room` again; 0 when there is. For a door that can stop reading."""
        return self._admission.delay(sender.endpoint, size, messages)

    def upload(self, sender: Sender) -> Room:
        """Room for a piece of what goes to disk as it comes, however long that takes.

        It is not the room of messages on their way: slow uploads do not keep those out. Raises as `room`.
        """
        return self._uploads.admit(sender.endpoint, 0, 0, announced=CHUNK)

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
            require_no_secret(header.secret)
            spoken_of = references.of_header(picture, header, agency.code)
            (refused,) = await self._references.check(picture, [(agency.code, spoken_of)])
            if refused is not None:
                raise refused
            found = self._router.route(picture, header.recipients)
            link = picture.links.get(sender.endpoint)
            if link is not None:
                found = inward(picture, found, link)
            require_reachable(found, report=link is not None)
            signatures: Found = ()
            endpoint = picture.endpoints[sender.endpoint]
            if endpoint.edxml_signatures is not Policy.IGNORE:
                source = stored.path if stored.body is None else stored.body
                assert source is not None
                signatures = await self._package_signatures.check(endpoint, source)
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
                route=found,
                kind=Kind.STATUS if header.kind == "status" else Kind.DOCUMENT,
                business=header.business,
                document_id=header.document_id,
                references=spoken_of,
                package_signatures=signatures,
            )
        except Problem as problem:
            if problem.kind.fault == "hub":
                raise
            outcome = problem
        (ended,) = await self._commit(sender, lambda index: stored.digest, [outcome], ticket)
        if isinstance(ended, Problem):
            raise ended
        return ended

    # -- the steps ------------------------------------------------------------------------------

    def _open(self, picture: Picture, sender: Sender, raw: bytes) -> _Opened | Problem:
        try:
            if len(raw) > self._max_message_bytes:
                raise self._too_large()
            jws, document = open_jws(raw)
            agency = self._speaks_for(picture, sender, document.sender)
            key = find_key(picture, jws, sender.endpoint, agency.code)
            return _Opened(raw, digest_of(raw), Format.JWS, jws, document, agency, key.public)
        except Problem as problem:
            return problem

    def _open_documents(
        self, picture: Picture, sender: Sender, manifest: Manifest, entries: list[bytes], start: int
    ) -> Iterator[_Opened | Problem]:
        """The documents of a manifest from `start` on, `OPENED_AT_ONCE` of them."""
        jws = manifest.jws
        for index in range(start, min(start + OPENED_AT_ONCE, len(manifest.payloads))):
            payload = manifest.payloads[index]
            try:
                if len(payload) > self._max_message_bytes:
                    raise self._too_large()
                document = read_document(payload)
                agency = self._speaks_for(picture, sender, document.sender)
                key = find_key(picture, jws, sender.endpoint, agency.code)
            except Problem as problem:
                yield problem
            else:
                yield _Opened(
                    entries[index], digest_of(payload), Format.MANIFEST, jws, document, agency, key.public
                )

    def _too_large(self) -> Problem:
        limit = self._max_message_bytes
        return Problem("too-large", f"a message may have {limit} bytes", limit=limit)

    @staticmethod
    def _speaks_for(picture: Picture, sender: Sender, code: str) -> Agency:
        agency = picture.agency(code)
        link = picture.links.get(sender.endpoint)
        if link is not None and (agency is None or agency.endpoint in (None, link.endpoint)):
            # A link stands for everybody beyond it, those too whom its list does not have yet.
            if is_code(code) and not picture.in_branch(link, code):
                return agency or Agency(code, code, endpoint=link.endpoint)
        elif agency is not None and agency.active and agency.endpoint == sender.endpoint:
            return agency
        raise Problem("from-not-yours", f"the endpoint {sender.name} does not speak for {code}")

    async def _verify(self, sender: Sender, opened: list[_Opened | Problem]) -> None:
        """Replace what is signed wrongly by its problem."""
        places = [index for index, item in enumerate(opened) if isinstance(item, _Opened)]
        signatures = [(item.key, item.jws) for item in opened if isinstance(item, _Opened)]
        if not signatures:
            return
        for index, right in zip(places, await self._verifier.check(sender.endpoint, signatures), strict=True):
            if not right:
                opened[index] = _bad_signature()

    async def _check_references(self, picture: Picture, opened: list[_Opened | Problem]) -> None:
        """Note what messages say of other documents; replace by its problem what they may not."""
        said = []
        for index, item in enumerate(opened):
            if isinstance(item, Problem):
                continue
            document = item.document
            if document.kind == "document" and document.business == "new" and not document.response_for:
                continue  # as nearly all
            try:
                item.references = references.of_document(picture, document, item.agency.code)
                said.append((index, item))
            except Problem as problem:
                opened[index] = problem
        if not said:
            return
        judged = await self._references.check(picture, [(item.agency.code, item.references) for _, item in said])
        for (index, _), refused in zip(said, judged, strict=True):
            if refused is not None:
                opened[index] = refused

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

    def _submission(self, picture: Picture, sender: Sender, item: _Opened, ticket: Ticket) -> Submission:
        document = item.document
        if document.secrecy:
            require_no_secret(document.secrecy)
        if document.expires is not None and document.expires <= datetime.now(UTC):
            raise Problem("already-expired", f"it expired at {document.expires.isoformat()}")
        found = self._router.route(picture, document.to)
        require_reachable(found, document.unreachable == "report")
        return Submission(
            ticket=ticket,
            endpoint=sender.endpoint,
            endpoint_name=sender.name,
            sender_id=document.id,
            sender=item.agency.code,
            format=item.format,
            lane=LANE_OF_PRIORITY[document.priority],
            digest=item.digest,
            size=len(item.raw),
            body=item.raw,
            route=found,
            expires_at=document.expires,
            attachments=tuple(bytes.fromhex(attachment.sha256) for attachment in document.attachments),
            kind=Kind.STATUS if document.kind == "status" else Kind.DOCUMENT,
            business=BUSINESS.index(document.business),
            references=item.references,
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
                if outcome.references and outcome.problem is None:
                    await self._recall(outcome)
                if outcome.problem is not None:
                    ended.append(self._with_receipt(outcome.problem, rejections.get(index)))
                elif outcome.duplicate_of is not None:
                    ended.append(await self._first(outcome.duplicate_of))
                else:
                    assert outcome.receipt is not None
                    ended.append(Accepted(outcome.id, outcome.receipt, outcome.route.unreachable_members))
            elif isinstance(outcome, Problem):
                ended.append(self._with_receipt(outcome, rejections.get(index)))
            else:
                ended.append(outcome)
        return ended

    async def _recall(self, outcome: Submission) -> None:
        """Carry out a recall. It is on disk: if this fails, it is its recipients who answer it."""
        try:
            await self._recalls.carry_out(outcome, outcome.duplicate_of or outcome.id)
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError, Problem) as error:
            log.error("a recall was not carried out; its recipients have it", error=str(error))

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


def _bad_signature() -> Problem:
    return Problem("bad-signature", "the signature was not made over these bytes by this key")
