"""Upwards: what lies in a link's mailbox goes to its peer, and is acknowledged when the peer has it.

For each message, in this order: its bytes are made and flushed to disk; the peer takes them and says what it calls
them; that is committed; the delivery ends. Whatever dies in between, the next one begins where the last left off,
and pushes the same bytes, which the peer answers with the name that it gave before.

Messages of one agency in one lane go in order; those of different agencies at the same time. One that fails is put
off, and the others go on.
"""

from __future__ import annotations

import asyncio
from uuid import NAMESPACE_OID, UUID, uuid5

import asyncpg
import orjson
import structlog

from hub.couriers.axis import AxisMail, Delivery
from hub.couriers.link_axis import AxisPeer, PeerError, PeerRefusedError
from hub.couriers.link_health import Deferred, Health, Transfers
from hub.couriers.link_spool import Spool
from hub.couriers.link_word import status_of_notice
from hub.couriers.mailbox import Mailboxes
from hub.directory.follow import Directory
from hub.directory.picture import Link
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.format import Format, Kind
from hub.relay.mail import START, Mail
from hub.store.pool import UNAVAILABLE
from protocol.evidence import read_receipt
from protocol.problems import Problem
from protocol.vxp import Refusal

log = structlog.get_logger()

PAGE = 100
AT_ONCE = 8
WAIT_SECONDS = 30.0
STORE_SECONDS = 1.0
MAX_REASON = 500
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)


class Pusher:
    """Pushes the mail of one link."""

    def __init__(
        self,
        link: Link,
        name: str,
        peer: AxisPeer,
        spool: Spool,
        mailboxes: Mailboxes,
        mail: AxisMail,
        acknowledger: Acknowledger,
        transfers: Transfers,
        health: Health,
        directory: Directory,
    ) -> None:
        self._link = link
        self._name = name
        self._peer = peer
        self._spool = spool
        self._mailboxes = mailboxes
        self._mail = mail
        self._acknowledger = acknowledger
        self._transfers = transfers
        self._health = health
        self._directory = directory
        self._deferred: Deferred[UUID] = Deferred(link.retry_seconds)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._again = False

    def again(self, message: UUID | None = None) -> None:
        """Try a message that was put off, or all of them, with the next page."""
        if message is None:
            self._deferred.clear()
        else:
            self._deferred.drop(message)
        self._again = True

    async def run(self) -> None:
        """Push until cancelled. Mail that has been put off is met again each time that reading starts over."""
        after = START
        met: set[UUID] = set()
        while True:
            await self._health.push.pause()
            if self._again or self._deferred.next() == 0.0:
                self._again, after, met = False, START, set()
            left = self._deferred.next()
            wait = WAIT_SECONDS if left is None else min(left, WAIT_SECONDS)
            try:
                page = await self._mailboxes.read(self._link.endpoint, after, PAGE, wait)
                met |= {mail.entry.id for mail in page.entries if mail.entry.id in self._deferred}
                if page.entries:
                    after = page.cursor
                    await self._push_all(page.entries)
                    met |= {mail.entry.id for mail in page.entries if mail.entry.id in self._deferred}
                else:
                    self._deferred.keep(met)
            except (*STORE, Problem) as error:
                log.warning("a link's mail cannot be read", link=self._name, error=str(error))
                self._again = True
                await asyncio.sleep(STORE_SECONDS)

    async def _push_all(self, entries: list[Mail]) -> None:
        due = [mail for mail in entries if self._deferred.due(mail.entry.id)]
        if not due:
            return
        known = await self._transfers.known([mail.entry.id for mail in due])
        lines: dict[tuple[int, str], list[Mail]] = {}
        for mail in due:
            lines.setdefault((mail.lane, mail.entry.sender), []).append(mail)
        async with asyncio.TaskGroup() as group:
            for line in lines.values():
                group.create_task(self._push_line(line, known))

    async def _push_line(self, line: list[Mail], known: dict[UUID, asyncpg.Record]) -> None:
        for mail in line:
            async with self._turns:
                if self._health.push.paused:
                    self._again = True
                    return
                row = known.get(mail.entry.id)
                await self._push(mail, row["peer_id"] if row is not None else None)

    async def _push(self, mail: Mail, peer_id: str | None) -> None:
        """One message, to whatever end. Raises nothing that the next one could not bear."""
        message, endpoint = mail.entry.id, self._link.endpoint
        delivery = None
        try:
            if mail.format is Format.RECEIPT:
                await self._tell(mail)
                await self._acknowledger.end(Acknowledgement(endpoint, entries={mail.entry.seq}))
                self._deferred.drop(message)
                return
            delivery = await self._mail.delivery(endpoint, message)
            if delivery is None:  # recalled
                self._deferred.drop(message)
                return
            if peer_id is None:
                await self._send(delivery, mail.entry.sender)
            await self._mail.end(endpoint, delivery)
            self._deferred.drop(message)
            self._spool.drop(message)
        except PeerError as error:
            await self._put_off(message, str(error))
            self._health.push.failure(str(error), error.whole_link)
        except (PeerRefusedError, Refusal) as error:
            await self._refuse(delivery, message, str(error))
        except Problem as problem:
            if problem.kind.fault == "hub" or delivery is None:
                await self._put_off(message, str(problem))
            else:
                await self._refuse(delivery, message, str(problem))
        except (OSError, *STORE) as error:
            log.warning("a message is put off", link=self._name, message=str(message), error=str(error))
            self._deferred.put(message)

    async def _send(self, delivery: Delivery, sender: str) -> None:
        spooled = await self._spool.ready(delivery)
        name = await self._peer.send(spooled.path, spooled.digest, sender, delivery.kind)
        await self._transfers.sent(delivery.id, name)
        self._health.push.success()
        self._health.count("sent")

    async def _put_off(self, message: UUID, error: str) -> None:
        tries = 0
        try:
            tries = await self._transfers.failed(message, error)
        except STORE as store:
            log.warning("a failure could not be noted", link=self._name, error=str(store))
        count = self._deferred.put(message, tries)
        log.warning("a message is put off", link=self._name, message=str(message), tries=count, error=error)

    async def _refuse(self, delivery: Delivery | None, message: UUID, reason: str) -> None:
        """The peer will not have it: its sender is told why."""
        try:
            if delivery is not None:
                await self._mail.end(self._link.endpoint, delivery, f"{self._name}: {reason}"[:MAX_REASON])
            await self._transfers.failed(message, reason, refused=True)
        except (*STORE, Problem) as error:
            log.warning("a refusal could not be noted", link=self._name, error=str(error))
            self._deferred.put(message)
            return
        log.warning("the peer refuses a message", link=self._name, message=str(message), reason=reason)
        self._deferred.drop(message)
        self._spool.drop(message)
        self._health.push.success()  # it answers, and knows what it wants
        self._health.count("refused_there")

    async def _tell(self, mail: Mail) -> None:
        """A notice of how a delivery ended here, of a document that came by this link: its sender gets a state."""
        body = mail.body
        if body is None:
            return
        event = orjson.loads(read_receipt(body).event)
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

    async def resend(self, message: UUID) -> None:
        """Push a message once more that has ended already, whether it went over or was refused."""
        endpoint = self._link.endpoint
        row = await self._transfers.message(message)
        delivery = await self._mail.delivery(endpoint, message) if row is not None else None
        if row is None or delivery is None:
            log.warning("not for this link, so not sent again", link=self._name, message=str(message))
            return
        try:
            await self._send(delivery, row["sender"])
            self._spool.drop(message)
        except (PeerError, PeerRefusedError, Refusal, Problem, OSError) as error:
            await self._transfers.failed(message, str(error), refused=isinstance(error, PeerRefusedError))
            log.warning("a message could not be sent again", link=self._name, error=str(error))
