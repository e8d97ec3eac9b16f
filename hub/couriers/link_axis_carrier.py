"""Carrying messages to the axis: as edXML with this hub's trace, made once and kept until the peer has it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import NAMESPACE_OID, UUID, uuid5

import asyncpg
import orjson
import structlog

from hub.couriers.axis import AxisMail
from hub.couriers.link_axis import AxisPeer, PeerError, PeerRefusedError
from hub.couriers.link_carrier import Carried, Errand
from hub.couriers.link_health import Transfers
from hub.couriers.link_spool import Spool
from hub.couriers.link_word import status_of_notice
from hub.directory.follow import Directory
from hub.relay.format import Kind
from hub.relay.mail import Mail
from hub.store.pool import UNAVAILABLE
from protocol.evidence import read_receipt
from protocol.problems import Problem
from protocol.vxp import Refusal

log = structlog.get_logger()
_STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)


class AxisCarrier:
    """Carries over one link."""

    at_most = 1

    def __init__(
        self,
        endpoint: int,
        name: str,
        peer: AxisPeer,
        spool: Spool,
        mail: AxisMail,
        transfers: Transfers,
        directory: Directory,
    ) -> None:
        self._endpoint = endpoint
        self._name = name
        self._peer = peer
        self._spool = spool
        self._mail = mail
        self._transfers = transfers
        self._directory = directory

    async def prepare(self, errand: Errand) -> None:
        """Make the bytes."""
        if errand.delivery is None:
            errand.delivery = await self._mail.delivery(self._endpoint, errand.message)
        if errand.delivery is not None:
            await self._spool.ready(errand.delivery)

    async def carry(self, errands: Sequence[Errand]) -> list[Carried | Exception]:
        """See `Carrier.carry`."""
        return [await self._carry(errand) for errand in errands]

    async def _carry(self, errand: Errand) -> Carried | Exception:
        try:
            delivery = errand.delivery or await self._mail.delivery(self._endpoint, errand.message)
            if delivery is None:
                return Carried(None)
            spooled = await self._spool.ready(delivery)
            return Carried(await self._peer.send(spooled.path, spooled.digest, errand.sender, delivery.kind))
        except (PeerError, PeerRefusedError, Refusal, Problem, OSError, *_STORE) as error:
            return error

    async def tell(self, mail: Mail) -> None:
        """Say it as a state, in the name of each recipient: the axis knows no other way."""
        if mail.body is None:
            return
        event = orjson.loads(read_receipt(mail.body).event)
        original = await self._transfers.message(UUID(event["message"]))
        if original is None or original["kind"] != Kind.DOCUMENT or not original["document_id"]:
            return
        for agency in event["recipients"]:
            content = status_of_notice(self._directory.picture, event, agency, original)
            name = uuid5(NAMESPACE_OID, f"{mail.entry.id} {agency}")
            spooled = await self._spool.keep(name, content)
            try:
                await self._peer.send(spooled.path, spooled.digest, agency, Kind.STATUS)
            except PeerRefusedError as error:
                log.warning("the peer refuses a notice", link=self._name, reason=str(error))
            self._spool.drop(name)

    def drop(self, message: UUID) -> None:
        """Delete the bytes."""
        self._spool.drop(message)
