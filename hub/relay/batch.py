"""What is committed together: submissions and refusals, and the sealed batch that they make.

A batch is one seal over all of its events, and the arguments of one call of `commit_messages`. Its receipts are
there from the beginning; they are given (`settle`) only when it is on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hub.evidence.sealing import seal
from hub.relay import events
from hub.relay.format import Format, Kind
from hub.relay.package_signatures import Found
from hub.relay.references import Reference
from hub.relay.route import Route
from hub.relay.wake import News, Reach
from protocol.evidence import Sealer, Tree, leaf_hash, timestamp
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem


class Ticket:
    """What one caller waits for: the commit of all its submissions."""

    __slots__ = ("_open", "done")

    def __init__(self, count: int) -> None:
        self._open = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Submission:
    """A message that was admitted, verified and routed, on its way into the store."""

    ticket: Ticket
    endpoint: int
    endpoint_name: str
    sender_id: str
    sender: str
    format: Format
    lane: Lane
    digest: bytes
    size: int
    body: bytes | None
    route: Route
    expires_at: datetime | None = None
    attachments: Sequence[bytes] = ()
    kind: Kind = Kind.DOCUMENT
    business: int = 0
    """What it does, as an index of `hub.relay.format.BUSINESS`."""
    document_id: str = ""
    """Of an edXML message: the document that it is or speaks of, under the name that the parties have for it. A
    native document's is its `sender_id`, which has an index already."""
    references: Sequence[Reference] = ()
    """What it says of other documents."""
    package_signatures: Found = ()
    """What was found of an edXML message's, where its endpoint's policy asks for it."""
    check_pdfs: bool = False
    """Whether signatures in its PDFs are to be checked, or what was found of them recorded."""
    signer: str = ""
    """What its event says of who signed it, as JSON; empty where no signature of ours was checked."""
    repeats: bool = False
    """Whether it is known to repeat an earlier document."""
    other_id: str = ""
    """What to call it instead where its endpoint used `sender_id` for something else."""
    id: UUID = field(default_factory=uuid7)
    # How it ended: exactly one of these is set.
    receipt: bytes | None = None
    duplicate_of: UUID | None = None
    problem: Problem | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.endpoint, self.sender_id


def notice(
    ticket: Ticket,
    name: str,
    lane: Lane,
    receipt: bytes,
    to: tuple[int, str],
    message: UUID,
    expires_at: datetime | None = None,
) -> Submission:
    """A message of the hub's own, called `name`, that brings a sender the receipt (JSON) of what became of his
    `message`. `to`: his endpoint and his agency's code."""
    endpoint, code = to
    return Submission(
        ticket=ticket,
        endpoint=0,
        endpoint_name="hub",
        sender_id=name,
        sender="hub",
        format=Format.RECEIPT,
        lane=lane,
        digest=digest_of(receipt),
        size=len(receipt),
        body=receipt,
        route=Route({endpoint: [code]}),
        expires_at=expires_at,
        kind=Kind.NOTICE,
        document_id=str(message),
    )


@dataclass(slots=True, eq=False)
class Rejection:
    """A refusal to record and seal."""

    ticket: Ticket
    endpoint: int
    endpoint_name: str
    digest: bytes
    code: str
    reason: str
    id: UUID = field(default_factory=uuid7)
    receipt: bytes | None = None
    problem: Problem | None = None


Work = Submission | Rejection


class Batch:
    """A sealed batch: the arguments of `commit_messages`, and the receipts to give when it has committed."""

    def __init__(self, work: list[Work], sealer: Sealer | None) -> None:
        """Without a sealer it is sealed later, by `make_batch`."""
        self.messages = [item for item in work if isinstance(item, Submission)]
        self.rejections = [item for item in work if isinstance(item, Rejection)]
        self.id = uuid7()
        self.at = datetime.now(UTC)
        at = timestamp(self.at)
        self.events = [_accepted_event(item, at) for item in self.messages]
        self.events += [
            events.rejected(at, item.id, item.endpoint_name, item.digest, item.code, item.reason)
            for item in self.rejections
        ]
        self.leaves = [leaf_hash(event.encode()) for event in self.events]
        self.tree = Tree(self.leaves)
        self.seal = sealer.seal(self.tree, str(self.id), self.at) if sealer else ""

    def arguments(self, shared: dict[str, str], watched: Collection[tuple[int, int]]) -> tuple[Any, ...]:
        """What `commit_messages` takes. `shared`: routes, by id, that the store may not hold yet."""
        messages, rejections = self.messages, self.rejections
        count = len(messages)
        places: dict[int, int] = {}  # each route's members are sent once
        starts: list[int] = []
        members: list[int] = []
        reference_of: list[int] = []
        references: list[Reference] = []
        attachment_of: list[int] = []
        attachments: list[bytes] = []
        for number, item in enumerate(messages, start=1):
            start = places.get(id(item.route))
            if start is None:
                start = places[id(item.route)] = len(members) + 1
                members.extend(item.route.endpoints)
            starts.append(start)
            for sha256 in item.attachments:
                attachment_of.append(number)
                attachments.append(sha256)
            for reference in item.references:
                reference_of.append(number)
                references.append(reference)
        return (
            self.id,
            self.at,
            b"".join(self.leaves),
            self.seal,
            [item.id for item in messages],
            [item.endpoint for item in messages],
            [item.sender_id for item in messages],
            [item.sender for item in messages],
            [item.format for item in messages],
            [item.lane for item in messages],
            [item.digest for item in messages],
            [item.size for item in messages],
            [item.expires_at for item in messages],
            [item.route.stored.text for item in messages],
            [item.body for item in messages],
            list(range(count)),
            self.events[:count],
            starts,
            [len(item.route.endpoints) for item in messages],
            members,
            attachment_of,
            attachments,
            [item.id for item in rejections],
            [item.endpoint for item in rejections],
            [item.digest for item in rejections],
            [item.code for item in rejections],
            list(range(count, len(self.events))),
            self.events[count:],
            list(shared),
            list(shared.values()),
            [endpoint for endpoint, _ in watched],
            [lane for _, lane in watched],
            [item.kind for item in messages],
            [item.business for item in messages],
            [item.document_id for item in messages],
            reference_of,
            [reference.name for reference in references],
            [reference.owner for reference in references],
            [reference.relation for reference in references],
            [reference.state for reference in references],
            [reference.said_at for reference in references],
        )

    def signatures(self) -> tuple[Any, ...]:
        """What `commit_signed_messages` takes beyond that; nothing where there is none to note or to check."""
        noted = [(item.id, found) for item in self.messages for found in item.package_signatures]
        queued = [(item.id, item.endpoint) for item in self.messages if item.check_pdfs]
        if not noted and not queued:
            return ()
        rows = [
            (id_, place, one.verdict, one.reason, one.subject, one.fingerprint, one.whole, one.weak)
            for id_, (place, one) in noted
        ]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(8)]
        return *columns, [id_ for id_, _ in queued], [endpoint for _, endpoint in queued]

    def shared_routes(self) -> dict[str, str]:
        """Routes of this batch that are kept apart from its messages, by id."""
        found = {}
        for item in self.messages:
            stored = item.route.stored
            if stored.id is not None and stored.shared is not None:
                found[stored.id] = stored.shared
        return found

    def settle(self) -> None:
        """Give everybody their receipts. Only after COMMIT."""
        written = events.receipts_json(self.tree, self.events, self.seal)
        sealed: list[Work] = [*self.messages, *self.rejections]
        for item, receipt in zip(sealed, written, strict=True):
            item.receipt = receipt
            item.ticket.settle()

    def news(self, base: int) -> News:
        """How far mailboxes reach now, if the batch's k-th message is `base` + k."""
        last: dict[tuple[int, int], tuple[Route, int]] = {}
        for seq, item in enumerate(self.messages, start=base):
            last[id(item.route), item.lane] = item.route, seq
        return [Reach(lane, seq, route.endpoints) for (_, lane), (route, seq) in last.items()]


async def make_batch(work: list[Work], sealer: Sealer) -> Batch:
    """A batch, sealed off the event loop if that takes long. Raises `Problem` key-unavailable."""
    if not sealer.slow:
        return Batch(work, sealer)
    batch = Batch(work, None)
    batch.seal = await seal(sealer, batch.tree, str(batch.id), batch.at)
    return batch


def _accepted_event(item: Submission, at: str) -> str:
    return events.accepted(
        at,
        item.id,
        item.endpoint_name,
        item.sender,
        item.sender_id,
        item.digest,
        item.size,
        item.lane.label,
        item.route.recipients,
        item.route.digest,
        item.route.unreachable_members,
        item.signer,
    )


def digest_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
