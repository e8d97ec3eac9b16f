"""Upwards: what lies in a link's mailbox goes to its peer, and is acknowledged when the peer has it.

For each message, in this order: the peer takes it and says what it calls it; that is committed; the delivery ends.
Whatever dies in between, the next one begins where the last left off, and pushes the same bytes, which the peer
answers with the name that it gave before.

Messages of one agency in one lane go in order; those of different agencies at the same time. One that fails is put
off, and the others go on. The next message of an agency does not wait for what is written down of the one before:
what the peer has is committed and ended for many at a time, while others are on their way.

A large message may take hours over a slow line. What comes meanwhile, perhaps more urgent, does not wait for it as
long as a turn is free: its own agency's in that lane does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import structlog

from hub import tasks
from hub.couriers.axis import AxisMail
from hub.couriers.link_axis import PeerError, PeerRefusedError
from hub.couriers.link_carrier import Carried, Carrier, Errand
from hub.couriers.link_events import LinkEvents
from hub.couriers.link_health import Deferred, Health, Transfers
from hub.couriers.mailbox import Mailboxes
from hub.directory.picture import Link
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.format import Format
from hub.relay.mail import START, Mail
from hub.store.pool import UNAVAILABLE
from protocol.problems import Problem
from protocol.vxp import Refusal

log = structlog.get_logger()

PAGE = 100
AT_ONCE = 8
AHEAD = 6
"""Messages of a line that are made ready while others are on their way: each is flushed to disk (some 5 ms)."""
WAIT_SECONDS = 30.0
HOLD_SECONDS = 1.0
"""How long the next page waits for what of this one is still on its way."""
STORE_SECONDS = 1.0
MAX_REASON = 500
FAILED_TRIES = 10
"""After so many (about half an hour) it becomes an event that a message does not get over. It is tried on."""
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)


class Pusher:
    """Pushes the mail of one link."""

    def __init__(
        self,
        link: Link,
        name: str,
        carrier: Carrier,
        mailboxes: Mailboxes,
        mail: AxisMail,
        acknowledger: Acknowledger,
        transfers: Transfers,
        health: Health,
        carried: Callable[[UUID, Carried], Awaitable[None]] | None = None,
        *,
        events: LinkEvents,
    ) -> None:
        """`carried` is told what the peer has taken, before the delivery ends. It raises `Problem` or what asyncpg
        raises, and is then told again.
        """
        self._events = events
        self._link = link
        self._name = name
        self._carrier = carrier
        self._mailboxes = mailboxes
        self._mail = mail
        self._acknowledger = acknowledger
        self._transfers = transfers
        self._health = health
        self._carried = carried
        self._deferred: Deferred[UUID] = Deferred(link.retry_seconds)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._again = False
        self._busy: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._over: list[tuple[Mail, Carried]] = []
        self._ending: asyncio.Task[None] | None = None

    def again(self, message: UUID | None = None) -> None:
        """Try a message that was put off, or all of them, with the next page."""
        if message is None:
            self._deferred.clear()
        else:
            self._deferred.drop(message)
        self._again = True

    async def run(self) -> None:
        """Push until cancelled. Mail that has been put off is met again each time that reading starts over."""
        async with asyncio.TaskGroup() as group:
            await self._run(group)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        after = START
        met: set[UUID] = set()
        while True:
            await self._health.push.pause()
            if self._again or self._deferred.next() == 0.0:
                self._again, after, met = False, START, set()
            left = self._deferred.next()
            longest = HOLD_SECONDS if self._busy else WAIT_SECONDS
            wait = longest if left is None else min(left, longest)
            try:
                page = await self._mailboxes.read(self._link.endpoint, after, PAGE, wait)
                met |= {mail.entry.id for mail in page.entries if mail.entry.id in self._deferred}
                if page.entries:
                    after = page.cursor
                    await self._push_all(page.entries, group)
                    met |= {mail.entry.id for mail in page.entries if mail.entry.id in self._deferred}
                else:
                    self._deferred.keep(met)
            except (*STORE, Problem) as error:
                log.warning("a link's mail cannot be read", link=self._name, error=str(error))
                self._again = True
                await asyncio.sleep(STORE_SECONDS)

    async def _push_all(self, entries: list[Mail], group: asyncio.TaskGroup) -> None:
        due = [mail for mail in entries if self._deferred.due(mail.entry.id)]
        if not due:
            return
        known = await self._transfers.known([mail.entry.id for mail in due])
        lines: dict[tuple[int, str], list[Mail]] = {}
        for mail in due:
            lines.setdefault((mail.lane, mail.entry.sender), []).append(mail)
        pushing: set[asyncio.Task[None]] = set()
        for key, line in lines.items():
            if key not in self._busy:  # what a busy line leaves is met when it has ended
                self._busy[key] = group.create_task(self._push(key, line, known, group))
                pushing.add(self._busy[key])
        if not pushing:
            await asyncio.wait(self._busy.values(), timeout=HOLD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        while pushing:
            _, pushing = await asyncio.wait(pushing, timeout=HOLD_SECONDS)
            if not self._turns.locked():
                break
        for task in pushing:
            task.add_done_callback(self._outlived)

    def _outlived(self, task: asyncio.Task[None]) -> None:
        """Reading has gone on without it: what was left for it is to be met."""
        self._again = True

    # -- one agency's messages ------------------------------------------------------------------

    async def _push(
        self, key: tuple[int, str], line: list[Mail], known: dict[UUID, asyncpg.Record], group: asyncio.TaskGroup
    ) -> None:
        try:
            await self._push_line(line, known, group)
            while self._ending is not None and not self._ending.done():
                await asyncio.wait([self._ending])
        finally:
            del self._busy[key]

    async def _push_line(
        self, line: list[Mail], known: dict[UUID, asyncpg.Record], group: asyncio.TaskGroup
    ) -> None:
        """The messages of one line, one after the other; while some are on their way the next are prepared."""
        errands = []
        for mail in line:
            row = known.get(mail.entry.id)
            if row is not None and row["peer_id"] is not None:
                self._end(mail, Carried(row["peer_id"], row["receipt"]), group)  # it went over before
            elif mail.format is Format.RECEIPT:
                await self._tell(mail, group)
            else:
                errands.append(Errand(mail.entry.id, mail.entry.sender, mail))
        many = self._carrier.at_most
        groups = [errands[start : start + many] for start in range(0, len(errands), many)]
        ahead: deque[asyncio.Task[None]] = deque()
        try:
            for place, now in enumerate(groups):
                async with self._turns:
                    if self._health.push.paused:
                        self._again = True
                        return
                    for then in groups[place + len(ahead) : place + AHEAD]:
                        ahead.append(asyncio.create_task(self._prepare(then)))
                    await asyncio.wait([ahead.popleft()])  # `carry` meets what it met
                    for errand, found in zip(now, await self._carrier.carry(now), strict=True):
                        assert errand.mail is not None
                        await self._settle(errand.mail, found, group)
        finally:
            await tasks.end(ahead)

    async def _prepare(self, errands: list[Errand]) -> None:
        with contextlib.suppress(PeerError, PeerRefusedError, Refusal, Problem, OSError, *STORE):
            for errand in errands:
                await self._carrier.prepare(errand)

    async def _settle(self, mail: Mail, found: Carried | Exception, group: asyncio.TaskGroup) -> None:
        """A message has gone over, or not."""
        message = mail.entry.id
        if isinstance(found, Carried):
            if found.peer_id is None:  # recalled
                self._deferred.drop(message)
                return
            self._health.push.success()
            self._health.count("sent")
            self._mailboxes.fetched(self._link.endpoint, mail.lane, mail.entry.seq)
            self._end(mail, found, group)
        elif isinstance(found, PeerError):
            await self._put_off(mail, str(found))
            self._health.push.failure(str(found), found.whole_link)
        elif isinstance(found, PeerRefusedError | Refusal):
            await self._refuse(mail, str(found))
        elif isinstance(found, Problem):
            if found.retryable or found.kind.fault == "hub":
                await self._put_off(mail, str(found))
            else:
                await self._refuse(mail, str(found))
        elif isinstance(found, (OSError, *STORE)):
            log.warning("a message is put off", link=self._name, message=str(message), error=str(found))
            self._deferred.put(message)
        else:
            raise found

    # -- how it ends ----------------------------------------------------------------------------

    def _end(self, mail: Mail, carried: Carried, group: asyncio.TaskGroup) -> None:
        """The peer has it: that is committed and the delivery ended, with all others for which that is true."""
        self._over.append((mail, carried))
        if carried.peer_id is not None:
            self._mailboxes.fetched(self._link.endpoint, mail.lane, mail.entry.seq)
        if self._ending is None or self._ending.done():
            self._ending = group.create_task(self._end_all())

    async def _end_all(self) -> None:
        while self._over:
            over, self._over = self._over, []
            try:
                await self._transfers.sent_all(
                    [(mail.entry.id, one.peer_id, one.receipt) for mail, one in over if one.peer_id is not None]
                )
                await self._events.relayed(over)
                if self._carried is not None:
                    for mail, one in over:
                        await self._carried(mail.entry.id, one)
                request = Acknowledgement(self._link.endpoint, entries={mail.entry.seq for mail, _ in over})
                await self._acknowledger.end(request)
            except (Problem, *STORE) as error:
                log.warning("what went over a link could not be noted", link=self._name, error=str(error))
                for mail, _ in over:
                    self._deferred.put(mail.entry.id)
                continue
            for mail, _ in over:
                self._deferred.drop(mail.entry.id)
                self._carrier.drop(mail.entry.id)

    async def _put_off(self, mail: Mail, error: str) -> None:
        message, tries = mail.entry.id, 0
        try:
            tries = await self._transfers.failed(message, error)
        except STORE as store:
            log.warning("a failure could not be noted", link=self._name, error=str(store))
        count = self._deferred.put(message, tries)
        if count >= FAILED_TRIES:
            with contextlib.suppress(*STORE, Problem):  # else it is said after the next try
                await self._events.failed(mail, error[:MAX_REASON])
        log.warning("a message is put off", link=self._name, message=str(message), tries=count, error=error)

    async def _refuse(self, mail: Mail, reason: str) -> None:
        """The peer will not have it: its sender is told why."""
        message = mail.entry.id
        why = f"{self._name}: {reason}"[:MAX_REASON]
        try:
            await self._events.rejected(mail, reason[:MAX_REASON])
            seq, codes = mail.entry.seq, {mail.entry.seq: "relay-rejected"}
            await self._acknowledger.end(Acknowledgement(self._link.endpoint, refused={seq: why}, codes=codes))
            await self._transfers.failed(message, reason, refused=True)
        except (*STORE, Problem) as error:
            log.warning("a refusal could not be noted", link=self._name, error=str(error))
            self._deferred.put(message)
            return
        log.warning("the peer refuses a message", link=self._name, message=str(message), reason=reason)
        self._deferred.drop(message)
        self._carrier.drop(message)
        self._health.push.success()  # it answers, and knows what it wants
        self._health.count("refused_there")

    async def _tell(self, mail: Mail, group: asyncio.TaskGroup) -> None:
        """A notice of how a delivery ended here, of a document that came by this link."""
        try:
            async with self._turns:
                await self._carrier.tell(mail)
        except PeerRefusedError as error:
            log.warning("the peer refuses a notice", link=self._name, reason=str(error))
        except PeerError as error:
            await self._put_off(mail, str(error))
            self._health.push.failure(str(error), error.whole_link)
            return
        except (Problem, OSError, *STORE) as error:
            log.warning("a notice is put off", link=self._name, message=str(mail.entry.id), error=str(error))
            self._deferred.put(mail.entry.id)
            return
        self._end(mail, Carried(None), group)

    async def resend(self, message: UUID) -> None:
        """Push a message once more that has ended already, whether it went over or was refused."""
        row = await self._transfers.message(message)
        delivery = await self._mail.delivery(self._link.endpoint, message) if row is not None else None
        if row is None or delivery is None:
            log.warning("not for this link, so not sent again", link=self._name, message=str(message))
            return
        (found,) = await self._carrier.carry([Errand(message, row["sender"], None, delivery)])
        if isinstance(found, Carried) and found.peer_id is not None:
            await self._transfers.sent_all([(message, found.peer_id, found.receipt)])
            self._health.push.success()
            self._health.count("sent")
            self._carrier.drop(message)
        elif isinstance(found, Exception):
            await self._transfers.failed(message, str(found), refused=isinstance(found, PeerRefusedError))
            log.warning("a message could not be sent again", link=self._name, error=str(found))
