"""Downwards: what a link's peer has for this hub is taken in like any other submission, then said to be taken.

For each message: its bytes come to disk; the relay commits it, from the link's endpoint; only then is the peer
told ``done``. Whatever dies in between, the peer lists it again, and the hub knows it by the peer's name for it
or, if it died before that was noted, by its bytes.

What this hub itself has sent may come back, since the peer does not know what went to whom below: it is said to be
taken, and left alone, unless it is for nobody here.
"""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
import structlog

from hub.couriers.link_axis import AxisPeer, Listed, PeerError, PeerRefusedError
from hub.couriers.link_health import Deferred, Health, Transfers
from hub.directory.follow import Directory
from hub.directory.picture import Link, Picture
from hub.doors.edxml_body import Body, in_memory
from hub.relay.format import Kind
from hub.relay.intake import Intake
from hub.relay.opening import Sender
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE
from protocol.edxml import Header
from protocol.problems import Problem

log = structlog.get_logger()

AT_ONCE = 4
HOLD_SECONDS = 1.0
"""How long the next list waits for what of this one is still on its way; what is of the same agency waits on."""
BROKEN_TRIES = 3
"""A message that cannot be read is fetched so often before it is refused: it may have been cut off on its way."""
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)


class Fetcher:
    """Fetches for one link."""

    def __init__(
        self,
        link: Link,
        name: str,
        peer: AxisPeer,
        intake: Intake,
        blobs: Blobs,
        transfers: Transfers,
        health: Health,
        directory: Directory,
        max_bytes: int,
    ) -> None:
        """`max_bytes`: of one message."""
        self._link = link
        self._name = name
        self._peer = peer
        self._intake = intake
        self._blobs = blobs
        self._transfers = transfers
        self._health = health
        self._directory = directory
        self._max_bytes = max_bytes
        self._sender = Sender(link.endpoint, name)
        self._deferred: Deferred[str] = Deferred(link.retry_seconds)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._busy: dict[str, asyncio.Task[int]] = {}
        self._poked = asyncio.Event()

    def again(self) -> None:
        """Look now, for what was put off too."""
        self._deferred.clear()
        self._poked.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._run(group)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._health.fetch.pause()
            self._poked.clear()
            moved = 0
            listed: set[str] | None = set()
            for kind in (Kind.DOCUMENT, Kind.STATUS):
                ended, names = await self._round(kind, group)
                moved += ended
                listed = None if listed is None or names is None else listed | names
            if listed is not None:
                self._deferred.keep(listed)
            if moved:  # there may be more than fits into one list
                continue
            left = self._deferred.next()
            wait = self._link.poll_seconds if left is None else min(max(left, 0.1), self._link.poll_seconds)
            try:
                async with asyncio.timeout(wait):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def _round(self, kind: Kind, group: asyncio.TaskGroup) -> tuple[int, set[str] | None]:
        """Take what is listed now: how many came to an end, and all names, if there was a list."""
        try:
            listed = await self._peer.waiting(kind)
            self._health.fetch.success()
            names = {item.id for item in listed}
            if not listed:
                return 0, names
            known = await self._transfers.fetched([item.id for item in listed])
        except (PeerError, PeerRefusedError) as error:
            self._health.fetch.failure(str(error), whole_link=True)
            return 0, None
        except STORE as error:
            log.warning("a link's peer is not asked", link=self._name, error=str(error))
            return 0, None
        lines: dict[str, list[Listed]] = {}
        for item in listed:
            if self._deferred.due(item.id):
                lines.setdefault(item.sender, []).append(item)
        new = {
            sender: group.create_task(self._take_line(line, known))
            for sender, line in lines.items()
            if sender not in self._busy
        }
        pending = set(new.values())
        while pending:
            _, pending = await asyncio.wait(pending, timeout=HOLD_SECONDS)
            if not self._turns.locked():
                break
        for sender, task in new.items():
            if task in pending:
                self._busy[sender] = task
                task.add_done_callback(partial(self._outlived, sender))
        return sum(task.result() for task in new.values() if task not in pending), names

    def _outlived(self, sender: str, task: asyncio.Task[int]) -> None:
        del self._busy[sender]
        self._poked.set()

    async def _take_line(self, line: list[Listed], known: dict[str, str | None]) -> int:
        ended = 0
        for item in line:
            async with self._turns:
                if self._health.fetch.paused:
                    break
                ended += await self._take(item, known)
        return ended

    async def _take(self, item: Listed, known: dict[str, str | None]) -> bool:
        """One message. True when it has come to an end, for the first time."""
        try:
            if item.id in known:  # a peer may go on listing what has ended
                await self._peer.end(item.id, known[item.id])
                self._deferred.drop(item.id)
                return False
            if item.sender and self._is_own(self._directory.picture, item.sender):
                await self._leave(item, item.to)
            else:
                await self._fetch(item)
        except PeerError as error:
            self._put_off(item, str(error))
            self._health.fetch.failure(str(error), error.whole_link)
        except PeerRefusedError as error:  # of what it listed itself
            self._put_off(item, str(error))
            self._health.fetch.failure(str(error))
        except Problem as problem:  # for now: those for good are `_refuse`d
            self._put_off(item, str(problem))
        except (OSError, *STORE) as error:
            self._put_off(item, str(error))
        else:
            self._deferred.drop(item.id)
            return True
        return False

    def _put_off(self, item: Listed, error: str) -> None:
        tries = self._deferred.put(item.id)
        log.warning("fetching is put off", link=self._name, peer_id=item.id, tries=tries, error=error)

    def _is_own(self, picture: Picture, code: str) -> bool:
        agency = picture.agency(code)
        if agency is not None and agency.endpoint not in (None, self._link.endpoint):
            return True
        return picture.in_branch(self._link, code)

    async def _leave(self, item: Listed, to: tuple[str, ...]) -> None:
        """A message of this hub's own that has come back.

        When nobody of the branch is among its recipients, it was not given to be delivered here: the peer believes
        of somebody that he lies here of whom this hub believes that he lies there.
        """
        picture = self._directory.picture
        if to and not any(self._is_own(picture, code) for code in to):
            await self._refuse(item, Problem("loop", "this hub sent it itself, for agencies that are not its own"))
            return
        await self._transfers.fetch(item.id, None)
        await self._peer.end(item.id)

    async def _fetch(self, item: Listed) -> None:
        try:
            with self._intake.upload(self._sender):
                incoming = await self._blobs.receive(self._peer.fetch(item.id), self._max_bytes)
        except Problem as problem:
            if problem.code != "too-large":
                raise
            await self._refuse(item, problem)
            return
        try:
            with self._intake.room(self._sender, in_memory(incoming)):
                await self._submit(item, await Body.of(incoming))
        finally:
            incoming.drop()

    async def _submit(self, item: Listed, body: Body) -> None:
        stored = await body.read()
        if isinstance(stored.header, Header):
            picture, sender = self._directory.picture, stored.header.sender
            if self._is_own(picture, sender):
                await self._leave(item, stored.header.recipients)
                return
            other = item.sender and _code(picture, item.sender) != _code(picture, sender)
            # Or the peer's list has another code of the same agency: it is believed when it goes on saying so.
            if other and self._deferred.tries(item.id) < BROKEN_TRIES - 1:
                raise PeerError(f"the peer gave a document of {sender[:40]} for one of {item.sender[:40]}")
        elif self._deferred.tries(item.id) < BROKEN_TRIES - 1:
            raise PeerError(f"what came cannot be read: {stored.header}")
        try:
            accepted = await self._intake.edxml(self._sender, stored)
        except Problem as problem:
            if problem.retryable or problem.kind.fault == "hub":
                raise
            await self._refuse(item, problem)
            return
        await self._transfers.fetch(item.id, accepted.id)
        if not accepted.duplicate:
            self._health.count("fetched")
        await self._peer.end(item.id)

    async def _refuse(self, item: Listed, problem: Problem) -> None:
        reason = f"{problem.code}: {problem}"
        log.warning("a message from a peer is refused", link=self._name, peer_id=item.id, reason=reason)
        # The peer first: if this is not noted any more, it is refused again.
        await self._peer.end(item.id, reason)
        await self._transfers.fetch(item.id, None, reason[:500])
        self._health.count("refused_here")


def _code(picture: Picture, code: str) -> str:
    agency = picture.agency(code)
    return code if agency is None else agency.code
