"""Pushing an endpoint's mail over one connection: from memory where it can, from the store where it must.

A courier begins by reading what the mailbox holds. From then on each commit of this process offers it the new
entries (`hub.relay.live`), and it pushes them without a read. It goes back to the store when another process
has committed in between (then it reads just that gap), when it was told of mail that nobody offered, and when
its reader is so slow that what was offered had to be let go.

Nothing runs and next to nothing is kept while there is no mail: a task exists only while it pushes. The
reader's credit, in messages and bytes, bounds what is under way to it.
"""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from hub.couriers.mailbox import LANE_BYTES, PAGE_BYTES, Mailboxes, Page, compose
from hub.relay.live import Live
from hub.relay.mail import END, INLINE_BYTES, After, Mail
from hub.relay.wake import Wake
from protocol.problems import Problem
from protocol.stream import Session

MAX_PAGE = 500
MAX_PAGE_BYTES = 1 << 20
"""Bytes of bodies in one push from memory; one larger message goes alone."""
HELD_BYTES = 4 << 20
"""What is kept from commits for a reader whose credit is used up; beyond it is let go, and read again later."""
ALL_HELD_BYTES = 64 << 20
"""The same for all readers of a process together."""
RETRY_SECONDS = 1.0
"""About how long after a mailbox could not be read it is tried again."""
_NONE: list[Any] = []
"""What a lane of an idle stream has. Never changed: ten thousand streams have three lanes each."""
_OVERHEAD = 512
"""What an entry costs beside its body."""


class _Lane:
    """What is known of one lane beyond what was pushed."""

    __slots__ = ("ahead", "head", "ready")

    def __init__(self, head: int) -> None:
        self.head = head
        """Everything up to here was pushed or is in `ready`."""
        self.ready: list[Mail] = _NONE
        self.ahead: list[tuple[int, list[Mail]]] = _NONE
        """Offers that came before what precedes them: (the sequence that does, entries)."""

    def offer(self, previous: int, mails: list[Mail]) -> bool:
        """Whether all of `mails` were missing, and nothing before them."""
        if not self.ahead and previous <= self.head < mails[0].entry.seq:  # as nearly always
            if self.ready:
                self.ready += mails
            else:  # `mails` may be another reader's too, and `_NONE` everybody's
                self.ready = mails.copy()
            self.head = mails[-1].entry.seq
            return True
        self.put_aside(previous, mails)
        self.join()
        return False

    def put_aside(self, previous: int, mails: list[Mail]) -> None:
        if not self.ahead:
            self.ahead = []
        insort(self.ahead, (previous, mails), key=lambda offer: offer[0])

    def join(self) -> None:
        """Move offers that nothing is missing before to `ready`."""
        if self.ahead and not self.ready:
            self.ready = []
        while self.ahead and self.ahead[0][0] <= self.head:
            for mail in self.ahead.pop(0)[1]:
                if mail.entry.seq > self.head:
                    self.ready.append(mail)
                    self.head = mail.entry.seq


class StreamCourier:
    """The pushing side of one connection. It is a `Waiter` and a `LiveReader` for its endpoint."""

    __slots__ = (
        "_behind",
        "_cursor",
        "_failed",
        "_held",
        "_lanes",
        "_live",
        "_mailboxes",
        "_reading",
        "_send",
        "_session",
        "_started",
        "_stopped",
        "_task",
        "_turn",
        "_wake",
        "after",
        "endpoint",
    )

    def __init__(
        self,
        endpoint: int,
        after: After,
        mailboxes: Mailboxes,
        wake: Wake,
        live: Live,
        session: Session,
        send: Callable[[Page], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        """Push to `endpoint` what lies beyond `after`, by `send`, as far as the session's credit goes.

        `failed` is told why no more can be pushed.
        """
        self.endpoint = endpoint
        self.after = list(after)
        self._cursor = list(after)
        self._lanes = tuple(_Lane(seq) for seq in after)
        self._mailboxes = mailboxes
        self._wake = wake
        self._live = live
        self._send = send
        self._failed = failed
        self._session = session
        self._held = 0
        self._turn = 0
        self._behind = True
        self._reading = False
        self._started = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def granted(self) -> None:
        """The reader takes more. Until it does for the first time, nothing is read or kept for it."""
        if not self._started and self._session.may_push and not self._stopped:
            self._started = True
            self._wake.add(self)
            self._live.add(self)
        self._kick()

    async def stop(self) -> None:
        """Push no more."""
        if self._stopped:
            return
        self._stopped = True
        if self._started:
            self._wake.remove(self)
            self._live.remove(self)
            self._let_go()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def heard(self) -> None:
        """There is mail that was not offered."""
        self._behind = True
        self._kick()

    def offer(self, lane: int, previous: int, mails: list[Mail]) -> None:
        """`mails` were committed right after `previous`."""
        if not mails:
            return
        self.after[lane] = max(self.after[lane], mails[-1].entry.seq)
        if self._behind:
            return  # they are read with the rest
        if self._reading:  # it may be read, too
            self._lanes[lane].put_aside(previous, mails)
            self._hold(_weight(mails))
        elif self._lanes[lane].offer(previous, mails):
            self._hold(_weight(mails))
        else:
            self._count_held()  # some were read before they were offered
        if self._held > HELD_BYTES or self._live.held > ALL_HELD_BYTES:
            self._let_go()
        self._kick()

    def _hold(self, size: int) -> None:
        self._held += size
        self._live.held += size

    def _count_held(self) -> None:
        held = sum(_weight(lane.ready) + sum(_weight(mails) for _, mails in lane.ahead) for lane in self._lanes)
        self._hold(held - self._held)

    def _let_go(self) -> None:
        for lane, seq in zip(self._lanes, self._cursor, strict=True):
            lane.ready, lane.ahead, lane.head = _NONE, _NONE, seq
        self._hold(-self._held)
        self._behind = True

    def _kick(self) -> None:
        if self._task is None and not self._stopped and self._has_work():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _has_work(self) -> bool:
        return self._session.may_push and (self._behind or any(lane.ready or lane.ahead for lane in self._lanes))

    async def _run(self) -> None:
        try:
            while self._has_work():
                try:
                    page = await self._next()
                except Problem as problem:
                    if not problem.retryable:
                        raise
                    pause = RETRY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
                    asyncio.get_running_loop().call_later(pause, self._kick)
                    return
                if page.entries and self._session.may_push:  # else the connection has ended meanwhile
                    await self._send(page)
                    if page.more:
                        await asyncio.sleep(0)  # others have their turn between pages
        except Exception as error:  # whoever owns the connection closes it
            self._failed(error)
        finally:
            self._task = None

    async def _next(self) -> Page:
        """What to push now, which may be nothing. When it raises, nothing has changed."""
        lanes = self._lanes
        waiting = len(lanes[0].ready), len(lanes[1].ready), len(lanes[2].ready)
        if waiting == (0, 0, 0):
            return await self._from_store()
        counts = compose(waiting, min(self._session.mail_messages, MAX_PAGE), self._turn)
        now = datetime.now(UTC)
        expired = {
            mail.entry.seq: mail.expires_at
            for lane, count in zip(lanes, counts, strict=True)
            for mail in lane.ready[:count]
            if mail.expires_at is not None and mail.expires_at <= now
        }
        if not expired:
            return self._from_memory(counts)
        await self._mailboxes.expire(self.endpoint, expired)
        for lane in lanes:
            self._hold(-_weight([mail for mail in lane.ready if mail.entry.seq in expired]))
            lane.ready = [mail for mail in lane.ready if mail.entry.seq not in expired]
        return Page([], self._place(), True)

    def _place(self) -> After:
        express, urgent, normal = self._cursor
        return express, urgent, normal

    def _from_memory(self, counts: tuple[int, int, int]) -> Page:
        """A page of what commits offered: so many of each lane, as far as bytes go."""
        room = min(MAX_PAGE_BYTES, self._session.mail_bytes)
        mail: list[Mail] = []
        for number, count in enumerate(counts):
            lane = self._lanes[number]
            ready = lane.ready
            taken: list[Mail] = []
            for item in ready[:count]:
                size = item.weight
                if room < size and (mail or taken):
                    break
                room -= size
                taken.append(item)
            if not taken:
                continue
            lane.ready = ready[len(taken) :] or _NONE
            self._hold(-_weight(taken))
            self._mailboxes.note(self.endpoint, number, self._cursor[number], None, False, taken)
            self._cursor[number] = taken[-1].entry.seq
            mail += taken
        self._turn += 1
        return Page(mail, self._place(), any(lane.ready for lane in self._lanes))

    async def _from_store(self) -> Page:
        """A page of what was not offered: all of it, or what lies before the offers that are ahead."""
        lanes = self._lanes
        everything, self._behind = self._behind, False  # what is heard of from now on is looked for again
        start = lanes[0].head, lanes[1].head, lanes[2].head
        until = END if everything else (_missing(lanes[0]), _missing(lanes[1]), _missing(lanes[2]))
        self._reading = True
        try:
            page = await self._mailboxes.page(
                self.endpoint, start, min(self._session.mail_messages, MAX_PAGE), until, self._shares()
            )
        except BaseException:
            self._behind = True
            raise
        finally:
            self._reading = False
        whole = not everything and not page.more
        for number, lane in enumerate(lanes):
            lane.head = max(page.cursor[number], until[number]) if whole else page.cursor[number]
            self._cursor[number] = lane.head
            self.after[number] = max(self.after[number], lane.head)
            lane.join()
        self._behind = self._behind or (everything and page.more)
        self._count_held()
        return Page(page.entries, self._place(), page.more)

    def _shares(self) -> tuple[int, int, int]:
        """Bytes of bodies by lane that a read may bring: about what the credit allows, but one entry of each."""
        credit = self._session.mail_bytes
        if credit >= PAGE_BYTES:
            return LANE_BYTES
        express, urgent, normal = (max(share * credit // PAGE_BYTES, INLINE_BYTES) for share in LANE_BYTES)
        return express, urgent, normal


def _missing(lane: _Lane) -> int:
    """Up to where a lane has to be read before its offers can be taken."""
    return lane.ahead[0][0] if lane.ahead else lane.head


def _weight(mails: list[Mail]) -> int:
    return sum(mail.weight + _OVERHEAD for mail in mails)
