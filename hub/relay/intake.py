"""From bytes to a receipt: admission, signature, routing, commit.

This is the one way into the relay. A door hands over the bytes and who sent them; it gets back, for
each message, a receipt or a problem. One bad message among many spoils no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from hub.directory.follow import Directory
from hub.directory.picture import Picture
from hub.evidence.history import History
from hub.pdf.policy import PdfSignatures
from hub.pdf.result import Policy as PdfPolicy
from hub.relay import references
from hub.relay.admission import Admission, Room
from hub.relay.answering import Accepted, Answers
from hub.relay.attached import Attached
from hub.relay.batch import Submission, Ticket, digest_of
from hub.relay.beyond import Hops, is_named_for_another, require_new, require_untraced, route_beyond
from hub.relay.commit import Committer
from hub.relay.format import BUSINESS, Format, Kind
from hub.relay.opening import OPENED_AT_ONCE, Opened, Opener, Sender, speaks_for
from hub.relay.package_signatures import Found, PackageSignatures
from hub.relay.recall import Recalls
from hub.relay.references import References
from hub.relay.repeats import New, Repeats
from hub.relay.route import Router, inward, require_reachable
from hub.relay.secrecy import require_no_secret
from hub.relay.verify import Verifier
from hub.store.blobs import CHUNK
from protocol.edxml import Header
from protocol.edxml.xmldsig import Policy
from protocol.ids import uuid7
from protocol.link import Beside
from protocol.manifest import open_manifest
from protocol.message import LANE_OF_PRIORITY, Lane
from protocol.problems import Problem
from protocol.signature import MAX_HEADER_BYTES

ROUTED_AT_ONCE = 2_000
"""Agencies resolved between two looks at the event loop (about 1 ms)."""

_EDXML_LANES = (Lane.NORMAL, Lane.URGENT, Lane.URGENT, Lane.EXPRESS, Lane.EXPRESS)
"""By edXML's Priority 0 to 4: thường, khẩn, thượng khẩn, hỏa tốc, hỏa tốc hẹn giờ."""


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
        hops: Hops,
        *,
        pdf_signatures: PdfSignatures,
        repeats: Repeats,
    ) -> None:
        self._repeats = repeats
        self._package_signatures = package_signatures
        self._pdf_signatures = pdf_signatures
        self._hops = hops
        self._references = references
        self._directory = directory
        self._admission = admission
        self._uploads = uploads
        self._verifier = verifier
        self._opener = Opener(max_message_bytes, hops)
        self._attached = Attached(pool, pdf_signatures)
        self._answers = Answers(committer, history, recalls, pdf_signatures)
        self._router = Router()

    async def native(self, sender: Sender, raws: Sequence[bytes]) -> list[Accepted | Problem]:
        """Take in compact JWS messages; the outcomes stand in their order.

        There must be `room` for them. Raises `Problem` store-unavailable for all of them together.
        """
        picture = self._directory.picture
        open_native = self._opener.native
        opened = [open_native(picture, sender, raw) for raw in raws[:OPENED_AT_ONCE]]
        for start in range(OPENED_AT_ONCE, len(raws), OPENED_AT_ONCE):
            await asyncio.sleep(0)
            opened += [open_native(picture, sender, raw) for raw in raws[start : start + OPENED_AT_ONCE]]
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
            opened: list[Opened | Problem] = []
            entries = manifest.entries()
            for start in range(0, len(lines), OPENED_AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                opened += self._opener.documents(picture, sender, manifest, entries, start)
            first = next((item for item in opened if isinstance(item, Opened)), None)
            if first is not None:
                signature = [(first.key, first.jws)]
                if not (await self._verifier.check(sender.endpoint, signature))[0]:
                    raise _bad_signature()
        except Problem as problem:
            await self._answers.settle(sender, lambda index: digest_of(raw), [problem], Ticket(1))
            raise problem from None
        return await self._take_in(picture, sender, opened, lambda index: digest_of(manifest.payloads[index]))

    async def relayed(
        self, sender: Sender, raws: Sequence[bytes], besides: Sequence[Beside]
    ) -> list[Accepted | Problem]:
        """Take in native messages, JWS or entries of manifests, that came over a link; outcomes as of `native`.

        The sender is the link, or the endpoint of a hub below. Raises `Problem` store-unavailable for all of them.
        """
        picture = self._directory.picture
        opened: list[Opened | Problem] = []
        for index, (raw, beside) in enumerate(zip(raws, besides, strict=True)):
            if index % OPENED_AT_ONCE == OPENED_AT_ONCE - 1:
                await asyncio.sleep(0)
            opened.append(self._opener.relayed(picture, sender, raw, beside))
        await self._verify(sender, opened)

        def digest(index: int) -> bytes:
            item = opened[index]
            return item.digest if isinstance(item, Opened) else digest_of(raws[index])

        return await self._take_in(picture, sender, list(opened), digest)

    async def _take_in(
        self,
        picture: Picture,
        sender: Sender,
        opened: list[Opened | Problem],
        digest: Callable[[int], bytes],
    ) -> list[Accepted | Problem]:
        """Route and commit what was found to be signed rightly."""
        await self._attached.check(sender, opened)
        await self._check_references(picture, opened)
        outcomes: list[Accepted | Problem | Submission] = []
        ticket = Ticket(len(opened))
        pdfs_by = self._pdf_signatures.deadline()
        routed = 0
        for item in opened:
            if isinstance(item, Problem):
                outcomes.append(item)
                continue
            try:
                submission = self._submission(picture, sender, item, ticket)
                if submission.check_pdfs:
                    await self._attached.require_pdfs(picture, sender, item, pdfs_by)
            except Problem as problem:
                outcomes.append(problem)
                continue
            outcomes.append(submission)
            routed += submission.route.recipients + ROUTED_AT_ONCE // OPENED_AT_ONCE
            if routed > ROUTED_AT_ONCE:
                routed = 0
                await asyncio.sleep(0)
        if picture.endpoints[sender.endpoint].pdf_signatures is PdfPolicy.REQUIRE:
            for outcome in outcomes:
                if isinstance(outcome, Submission):
                    outcome.id = (
                        uuid7()
                    )  # looking at PDFs may take longer than anything stands in line for its commit
        came = [
            (outcome.id, item.beside)
            for item, outcome in zip(opened, outcomes, strict=True)
            if isinstance(item, Opened) and isinstance(outcome, Submission) and item.beside is not None
        ]
        if self._repeats.has_time():
            await self._compare(opened, outcomes)
        await self._hops.keep(came)
        return await self._answers.settle(sender, digest, outcomes, ticket)

    async def _compare(
        self, opened: list[Opened | Problem], outcomes: list[Accepted | Problem | Submission]
    ) -> None:
        """Mark the documents that repeat one."""
        new: list[tuple[Submission, New]] = []
        for item, outcome in zip(opened, outcomes, strict=True):
            if isinstance(item, Opened) and isinstance(outcome, Submission) and not outcome.business:
                document = item.document
                if document.kind == "document":
                    issued = document.promulgation.date if document.promulgation else None
                    new.append((outcome, New(outcome.id, outcome.sender, document.id, document.code, issued)))
        await self._look(new)

    async def _look(self, new: list[tuple[Submission, New]]) -> None:
        if new:
            await self._repeats.look([document for _, document in new])
            for submission, document in new:
                submission.repeats = document.repeats

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

    def uploaded(self, sender: Sender, sha256: bytes) -> None:
        """An attachment has come that messages of this endpoint may name."""
        self._pdf_signatures.uploaded(self._directory.picture.endpoints[sender.endpoint], sha256)

    async def edxml(self, sender: Sender, stored: Stored, beside: Beside | None = None) -> Accepted:
        """Take in one edXML message, for which there must be `room`. Raises `Problem`.

        `beside`: what a native link said of it.
        """
        picture = self._directory.picture
        outcome: Submission | Problem
        ticket = Ticket(1)
        try:
            header = stored.header
            if isinstance(header, Problem):
                raise header
            agency = speaks_for(picture, sender, header.sender)
            require_no_secret(header.secret)
            require_untraced(picture, header, agency.code)
            if beside is not None:
                require_new(beside, self._hops.own_keys)
            spoken_of = references.of_header(picture, header, agency.code)
            (refused,) = await self._references.check(picture, [(agency.code, spoken_of)])
            if refused is not None:
                raise refused
            link = picture.links.get(sender.endpoint)
            if beside is not None:
                found = route_beyond(self._router, picture, sender.endpoint, beside, header.recipients)
            else:
                found = self._router.route(picture, header.recipients)
                if link is not None:
                    found = inward(picture, found, link)
                require_reachable(found, report=link is not None)
            signatures: Found = ()
            endpoint = picture.endpoints[sender.endpoint]
            if endpoint.edxml_signatures is not Policy.IGNORE:
                source = stored.path if stored.body is None else stored.body
                assert source is not None
                signatures = await self._package_signatures.check(endpoint, source)
            if endpoint.pdf_signatures is PdfPolicy.REQUIRE:
                source = stored.path if stored.body is None else stored.body
                assert source is not None
                await self._pdf_signatures.require_edxml(endpoint, source, self._pdf_signatures.deadline())
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
                check_pdfs=endpoint.pdf_signatures is not PdfPolicy.IGNORE,
            )
            if beside is not None:
                await self._hops.keep([(outcome.id, beside)])
            if header.kind == "document" and not header.business and self._repeats.has_time():
                name, issued = header.document_id, header.promulgation_date
                await self._look([(outcome, New(outcome.id, agency.code, name, header.code, issued))])
        except Problem as problem:
            if problem.kind.fault == "hub":
                raise
            outcome = problem
        (ended,) = await self._answers.settle(sender, lambda index: stored.digest, [outcome], ticket)
        if isinstance(ended, Problem):
            raise ended
        return ended

    # -- the steps ------------------------------------------------------------------------------

    async def _verify(self, sender: Sender, opened: list[Opened | Problem]) -> None:
        """Replace what is signed wrongly by its problem."""
        places = [index for index, item in enumerate(opened) if isinstance(item, Opened)]
        signatures = [(item.key, item.jws) for item in opened if isinstance(item, Opened)]
        if not signatures:
            return
        for index, right in zip(places, await self._verifier.check(sender.endpoint, signatures), strict=True):
            if not right:
                opened[index] = _bad_signature()

    async def _check_references(self, picture: Picture, opened: list[Opened | Problem]) -> None:
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

    def _submission(self, picture: Picture, sender: Sender, item: Opened, ticket: Ticket) -> Submission:
        document = item.document
        if document.secrecy:
            require_no_secret(document.secrecy)
        if document.expires is not None and document.expires <= datetime.now(UTC):
            raise Problem("already-expired", f"it expired at {document.expires.isoformat()}")
        if item.beside is None:
            found = self._router.route(picture, document.to)
            require_reachable(found, document.unreachable == "report")
        else:
            found = route_beyond(self._router, picture, sender.endpoint, item.beside, document.to)
        id_, other_id = document.id, ""
        if item.beside is not None:
            # Beyond a link two systems may use the same id; here they are one endpoint.
            other_id = f"{item.agency.code}/{document.id}"
            if is_named_for_another(picture, sender.endpoint, item.agency, document.id):
                id_, other_id = other_id, ""
        return Submission(
            ticket=ticket,
            endpoint=sender.endpoint,
            endpoint_name=sender.name,
            sender_id=id_,
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
            signer=item.signer,
            check_pdfs=bool(document.attachments)
            and picture.endpoints[sender.endpoint].pdf_signatures is not PdfPolicy.IGNORE,
            other_id=other_id,
            document_id="" if id_ == document.id else document.id,
        )


def _bad_signature() -> Problem:
    return Problem("bad-signature", "the signature was not made over these bytes by this key")
