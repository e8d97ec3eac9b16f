"""Carrying messages to another hub: as their senders signed them, natively written ones many at a time.

Nothing is made for it, so nothing is kept: the bytes are the sender's own each time, and the peer knows them by
these. What the hub says of a message goes beside it: for whom, through which hubs, since when.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.couriers.axis import AxisMail
from hub.couriers.link_axis import PeerError, PeerRefusedError
from hub.couriers.link_carrier import Carried, Errand
from hub.couriers.link_health import Transfers
from hub.couriers.link_native import BehindError, MissingError, NativePeer
from hub.couriers.link_native_sync import NativeSync
from hub.relay.beyond import Hops
from hub.relay.format import Format
from hub.relay.mail import Mail
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE
from protocol.client.model import Sent
from protocol.evidence import read_receipt
from protocol.link import Beside, Line
from protocol.manifest import open_native
from protocol.problems import Problem

log = structlog.get_logger()
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)

LINES = 100
LINE_BYTES = 8 << 20
"""Of natively written messages in one request."""
BEHIND_TRIES = 7
"""A message of whose agency or key the peer does not know is tried so often, about half a minute, before it is
refused: what this hub tells of them reaches each of the peer's processes within seconds."""
UPLOADED = 10_000
"""Files that the peer is remembered to have."""


class NativeCarrier:
    """Carries over one link."""

    at_most = LINES

    def __init__(
        self,
        endpoint: int,
        peer: NativePeer,
        mail: AxisMail,
        transfers: Transfers,
        blobs: Blobs,
        hops: Hops,
        sync: NativeSync,
    ) -> None:
        self._endpoint = endpoint
        self._peer = peer
        self._mail = mail
        self._transfers = transfers
        self._blobs = blobs
        self._hops = hops
        self._sync = sync
        self._uploaded: OrderedDict[str, None] = OrderedDict()
        self._behind: dict[UUID, tuple[int, int]] = {}
        """What the peer does not know the signer of: how often it was tried since the peer was told of all, and
        `NativeSync.tells` before that."""

    async def prepare(self, errand: Errand) -> None:
        """Nothing has to be made."""

    async def carry(self, errands: Sequence[Errand]) -> list[Carried | Exception]:
        """See `Carrier.carry`."""
        try:
            hops = await self._hops.onward([errand.message for errand in errands])
        except STORE as error:
            return [error] * len(errands)
        found: list[Carried | Exception] = []
        lines: list[tuple[Errand, Line]] = []
        size = 0
        for errand in errands:
            made = await self._made(errand, hops[errand.message])
            if isinstance(made, Line) and size + len(made.message) <= LINE_BYTES:
                lines.append((errand, made))
                size += len(made.message)
                continue
            found += await self._send(lines)  # in order: what stands before goes first
            lines, size = [], 0
            if isinstance(made, Line):
                lines, size = [(errand, made)], len(made.message)
            else:
                found.append(made)
        return found + await self._send(lines)

    async def _made(self, errand: Errand, hops: tuple[str, ...]) -> Line | Carried | Exception:
        """The line of a message; of one that is none, what became of it."""
        try:
            mail = errand.mail
            format_, body = (mail.format, mail.body) if mail is not None else (Format.EDXML, None)
            if mail is None or body is None:
                delivery = errand.delivery or await self._mail.delivery(self._endpoint, errand.message)
                if delivery is None:
                    return Carried(None)
                format_, body, accepted_at = delivery.format, delivery.body, delivery.accepted_at
                here, digest = delivery.here, delivery.digest
            else:
                accepted_at, here, digest = mail.accepted_at, tuple(mail.entry.agencies), mail.entry.digest
            if format_ is Format.EDXML:
                source = body if body is not None else self._blobs.path(digest)
                return await self._whole(Beside(here, accepted_at, hops), source)
            if body is None:
                return Problem("internal", "a native message has no body")
            await self._upload(body)
            return _line(here, accepted_at, hops, body)
        except (PeerError, PeerRefusedError, Problem, OSError, *STORE) as error:
            return self._judged(errand.message, error)

    async def _whole(self, beside: Beside, source: bytes | Path) -> Carried | Exception:
        return _carried(await self._peer.send_whole(beside, source))

    async def _send(self, lines: list[tuple[Errand, Line]]) -> list[Carried | Exception]:
        if not lines:
            return []
        try:
            outcomes = await self._peer.send_lines([line for _, line in lines])
        except PeerRefusedError as error:
            if len(lines) == 1:
                return [error]
            # A limit, of the peer or of a proxy before it, is for the request: each may be small enough.
            return [found for line in lines for found in await self._send([line])]
        except PeerError as error:
            return [self._judged(errand.message, error) for errand, _ in lines]
        found: list[Carried | Exception] = []
        for (errand, line), outcome in zip(lines, outcomes, strict=True):
            if isinstance(outcome, Sent):
                self._behind.pop(errand.message, None)
                found.append(_carried(outcome))
                continue
            if isinstance(outcome, MissingError):
                self._forget(line.message.encode())
            found.append(self._judged(errand.message, outcome))
        return found

    def _judged(self, message: UUID, error: Exception) -> Exception:
        """An error, or the refusal that it becomes in the end."""
        if not isinstance(error, BehindError):
            self._behind.pop(message, None)
            return error
        self._sync.behind()
        tries, tells = self._behind.get(message, (0, self._sync.tells))
        tries += self._sync.tells > tells  # what it could not be told says nothing of the message
        self._behind[message] = tries, tells
        if tries < BEHIND_TRIES:
            return error
        del self._behind[message]
        return PeerRefusedError(str(error))

    # -- files ----------------------------------------------------------------------------------

    async def _upload(self, body: bytes) -> None:
        """Give the peer the files that a message names, unless it is known to have them."""
        for attachment in open_native(body)[1].attachments:
            if attachment.sha256 in self._uploaded:
                continue
            await self._peer.upload(attachment, self._blobs.path(bytes.fromhex(attachment.sha256)))
            self._uploaded[attachment.sha256] = None
            if len(self._uploaded) > UPLOADED:
                self._uploaded.popitem(last=False)

    def _forget(self, body: bytes) -> None:
        for attachment in open_native(body)[1].attachments:
            self._uploaded.pop(attachment.sha256, None)

    # -- notices --------------------------------------------------------------------------------

    async def tell(self, mail: Mail) -> None:
        """Pass on the receipt of how a message ended here, under the peer's own name for the message."""
        if mail.body is None:
            return
        receipt = read_receipt(mail.body)
        peer_id = await self._transfers.fetched_as(UUID(orjson.loads(receipt.event)["message"]))
        if peer_id is not None:
            try:
                await self._peer.notify(peer_id, receipt)
            except BehindError:
                self._sync.behind()
                raise

    def drop(self, message: UUID) -> None:
        """Nothing is kept."""


def _line(here: tuple[str, ...], accepted_at: datetime, hops: tuple[str, ...], body: bytes) -> Line:
    return Line(recipients=here, accepted_at=accepted_at, hops=hops, message=body.decode("ascii"))


def _carried(sent: Sent) -> Carried:
    return Carried(sent.id, sent.receipt.to_json().decode())
