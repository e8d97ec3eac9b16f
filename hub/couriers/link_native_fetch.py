"""Downwards: what another hub has for this one is committed and receipted here, and only then acknowledged there.

The mailbox there is read like any other. Whatever dies in between, its entries come again, and the hub knows them:
a native message by its sender's id and its bytes, one in edXML by its bytes.

Messages of one agency in one lane are taken in their order; those of different agencies at the same time. What
comes while a large one is on its way does not wait for it, as long as a turn is free: its own agency's does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.couriers.link_axis import PeerError, PeerRefusedError
from hub.couriers.link_health import Deferred, Health, Transfers
from hub.couriers.link_native import NativePeer
from hub.couriers.link_native_sync import NativeSync
from hub.couriers.link_told import Teller
from hub.directory.picture import Link
from hub.doors.edxml_body import Body, in_memory
from hub.relay.answering import Accepted
from hub.relay.intake import Intake
from hub.relay.opening import Sender
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE
from protocol.client.model import Entry
from protocol.evidence import EvidenceError, Receipt, read_receipt, verify_receipt
from protocol.link import Beside
from protocol.manifest import open_native
from protocol.message import Document
from protocol.problems import Problem
from protocol.proof import read_moment

log = structlog.get_logger()

PAGE = 100
START = "0.0.0"
WAIT_SECONDS = 25.0
HOLD_SECONDS = 1.0
"""How long the next page waits for what of this one is still on its way."""
AT_ONCE = 4
BEHIND_TRIES = 7
"""A message of whose sender's key nothing is known is looked at so often, about half a minute, before it is
refused: what the peer tells of its signers comes within seconds."""
_BEHIND = frozenset({"unknown-key", "key-not-yours", "from-not-yours"})
MAX_REASON = 500
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)
Taken = tuple[set[int], dict[int, str]]
"""The sequences that came to an end here, and those that are refused, with reasons."""


class NativeFetcher:
    """Fetches for one link."""

    def __init__(
        self,
        link: Link,
        name: str,
        peer: NativePeer,
        intake: Intake,
        blobs: Blobs,
        attachments: Attachments,
        transfers: Transfers,
        health: Health,
        teller: Teller,
        sync: NativeSync,
        max_attachment_bytes: int,
    ) -> None:
        self._link = link
        self._name = name
        self._peer = peer
        self._intake = intake
        self._blobs = blobs
        self._attachments = attachments
        self._transfers = transfers
        self._health = health
        self._teller = teller
        self._sync = sync
        self._max_attachment_bytes = max_attachment_bytes
        self._sender = Sender(link.endpoint, name)
        self._deferred: Deferred[int] = Deferred(link.retry_seconds)
        self._behind: dict[int, tuple[int, int]] = {}
        """Entries of somebody unknown: how often each was looked at since the peer was asked who that is, and
        `NativeSync.asks` before that."""
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._busy: dict[tuple[str, str], asyncio.Task[Taken]] = {}
        self._again = False
        self._poked = asyncio.Event()

    def again(self) -> None:
        """Look now, for what was put off too."""
        self._deferred.clear()
        self._again = True
        self._poked.set()

    async def run(self) -> None:
        """Fetch until cancelled. What has been put off is met again each time that reading starts over."""
        async with asyncio.TaskGroup() as group:
            await self._run(group)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        after = START
        met: set[int] = set()
        while True:
            await self._health.fetch.pause()
            if self._again or self._deferred.next() == 0.0:
                self._again, after, met = False, START, set()
            left = self._deferred.next()
            wait = WAIT_SECONDS if left is None else min(left, WAIT_SECONDS)
            page = await self._read(after, wait)
            if page is None:
                continue
            entries, cursor = page
            if not entries:
                self._deferred.keep(met)
                continue
            await self._acknowledge(await self._take_all(entries, group))
            met |= {entry.seq for entry in entries if entry.seq in self._deferred}
            after = cursor

    async def _acknowledge(self, taken: Taken) -> None:
        ended, refused = taken
        try:
            if ended or refused:
                await self._peer.acknowledge(sorted(ended), refused)
                for seq in (*ended, *refused):
                    self._deferred.drop(seq)
                    self._behind.pop(seq, None)
                for _ in refused:
                    self._health.count("refused_here")
                self._health.fetch.success()
        except PeerError as error:  # they come again, and are known
            self._health.fetch.failure(str(error), error.whole_link)
            self._again = True

    async def _read(self, after: str, wait: float) -> tuple[list[Entry], str] | None:
        """A page; None when there was none, or an operator wants another look."""
        self._poked.clear()
        reading = asyncio.ensure_future(self._peer.read(PAGE, wait, after))
        poked = asyncio.ensure_future(self._poked.wait())
        try:
            await asyncio.wait({reading, poked}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                return None
            page = reading.result()
        except PeerError as error:
            self._health.fetch.failure(str(error), whole_link=True)
            return None
        finally:
            for task in (reading, poked):
                task.cancel()
            await asyncio.gather(reading, poked, return_exceptions=True)
        self._health.fetch.success()
        return page

    async def _take_all(self, entries: list[Entry], group: asyncio.TaskGroup) -> Taken:
        """What is to be acknowledged. What takes longer is acknowledged when it has ended."""
        lines: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            if self._deferred.due(entry.seq):
                lines.setdefault((entry.lane, entry.sender), []).append(entry)
        new = {
            key: group.create_task(self._take_line(line)) for key, line in lines.items() if key not in self._busy
        }
        if lines and not new:  # what a busy line leaves is met when it has ended
            await asyncio.wait(self._busy.values(), timeout=HOLD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        pending = set(new.values())
        while pending:
            _, pending = await asyncio.wait(pending, timeout=HOLD_SECONDS)
            if not self._turns.locked():
                break
        ended: set[int] = set()
        refused: dict[int, str] = {}
        for key, task in new.items():
            if task in pending:
                self._busy[key] = task
                group.create_task(self._await(key, task))
            else:
                ended |= task.result()[0]
                refused |= task.result()[1]
        return ended, refused

    async def _await(self, key: tuple[str, str], task: asyncio.Task[Taken]) -> None:
        """Reading has gone on without this line: it is acknowledged by itself, and what was left for it is met."""
        try:
            await self._acknowledge(await task)
        finally:
            del self._busy[key]
        self._again = True
        self._poked.set()

    async def _take_line(self, line: list[Entry]) -> Taken:
        """The sequences that came to an end here, and those that are refused, with reasons.

        Natively written neighbours are taken together, everything else alone.
        """
        ended: set[int] = set()
        refused: dict[int, str] = {}
        run: list[tuple[Entry, bytes]] = []
        for entry in line:
            async with self._turns:
                if self._health.fetch.paused:
                    self._again = True
                    return ended, refused
                if read_moment(entry.accepted_at) is None:
                    self._judge(entry, PeerError("the peer does not say when it accepted a message"), refused)
                    continue
                if entry.format in ("jws", "manifest"):
                    try:
                        run.append((entry, await self._native(entry)))
                    except (PeerError, Problem, OSError, *STORE) as error:
                        self._judge(entry, error, refused)
                    continue
                await self._take_run(run, ended, refused)
                run = []
                try:
                    if entry.format == "receipt":
                        await self._told(entry)
                        ended.add(entry.seq)
                    else:
                        await self._edxml(entry, ended)
                except (PeerError, PeerRefusedError, Problem, OSError, *STORE) as error:
                    self._judge(entry, error, refused)
        async with self._turns:
            await self._take_run(run, ended, refused)
        return ended, refused

    def _judge(self, entry: Entry, error: Exception, refused: dict[int, str]) -> None:
        """Refuse an entry, or put it off."""
        if isinstance(error, Problem) and not error.retryable and error.kind.fault != "hub":
            behind = error.code in _BEHIND
            if behind:
                self._sync.behind()
            if not behind or self._is_up_to_date(entry):
                reason = f"{error.code}: {error}"[:MAX_REASON]
                log.warning("a message from a peer is refused", link=self._name, peer_id=entry.id, reason=reason)
                refused[entry.seq] = reason
                return
        tries = self._deferred.put(entry.seq)
        log.warning("fetching is put off", link=self._name, peer_id=entry.id, tries=tries, error=str(error))
        if isinstance(error, PeerError):
            self._health.fetch.failure(str(error), error.whole_link)

    def _is_up_to_date(self, entry: Entry) -> bool:
        """Whether an entry of somebody unknown was looked at often enough since the peer was asked."""
        tries, asks = self._behind.get(entry.seq, (0, self._sync.asks))
        tries += self._sync.asks > asks  # an exchange that fails says nothing of the message
        self._behind[entry.seq] = tries, asks
        return tries >= BEHIND_TRIES

    # -- native messages ------------------------------------------------------------------------

    async def _native(self, entry: Entry) -> bytes:
        """The bytes of a native message, its files being here."""
        raw = entry.body
        if raw is None:
            raw = await self._peer.fetch_whole(entry.id)
        try:
            document = open_native(raw)[1]
        except Problem:
            return raw  # the intake says what is wrong with it, and seals that
        await self._download(document)
        return raw

    async def _download(self, document: Document) -> None:
        """Bring the files here that a message names."""
        for attachment in document.attachments:
            sha256 = bytes.fromhex(attachment.sha256)
            if await self._attachments.owns(sha256, self._link.endpoint):
                continue
            with self._intake.upload(self._sender):
                await self._attachments.store(
                    sha256, self._link.endpoint, self._peer.download(attachment), self._max_attachment_bytes
                )
            self._intake.uploaded(self._sender, sha256)

    async def _take_run(
        self, run: Sequence[tuple[Entry, bytes]], ended: set[int], refused: dict[int, str]
    ) -> None:
        if not run:
            return
        size = sum(len(raw) for _, raw in run)
        try:
            with self._intake.room(self._sender, size, messages=len(run)):
                outcomes = await self._intake.relayed(
                    self._sender, [raw for _, raw in run], [_beside(entry) for entry, _ in run]
                )
        except (Problem, *STORE) as error:
            outcomes = [error if isinstance(error, Problem) else Problem("store-unavailable")] * len(run)
        taken: list[tuple[Entry, Accepted]] = []
        for (entry, _), outcome in zip(run, outcomes, strict=True):
            if isinstance(outcome, Problem):
                self._judge(entry, outcome, refused)
            else:
                taken.append((entry, outcome))
        await self._note(taken, ended)

    async def _note(self, taken: Sequence[tuple[Entry, Accepted]], ended: set[int]) -> None:
        """Keep what the peer calls what was taken in, and say who could not be reached; then it has ended."""
        try:
            await self._transfers.fetched_all([(entry.id, accepted.id) for entry, accepted in taken])
            for entry, accepted in taken:
                if accepted.unreachable:
                    await self._peer.notify(entry.id, read_receipt(accepted.receipt))
        except (PeerError, PeerRefusedError, *STORE) as error:  # they come again, and are known
            log.warning("what came over a link could not be noted", link=self._name, error=str(error))
            for entry, _ in taken:
                self._deferred.put(entry.seq)
            return
        for entry, accepted in taken:
            ended.add(entry.seq)
            if not accepted.duplicate:
                self._health.count("fetched")

    # -- everything else ------------------------------------------------------------------------

    async def _edxml(self, entry: Entry, ended: set[int]) -> None:
        with self._intake.upload(self._sender):
            incoming = await self._blobs.receive(self._bytes(entry), self._peer.max_bytes)
        try:
            with self._intake.room(self._sender, in_memory(incoming)):
                stored = await (await Body.of(incoming)).read()
                if stored.digest.hex() != entry.sha256:
                    raise PeerError("a message came broken")
                accepted = await self._intake.edxml(self._sender, stored, _beside(entry))
        finally:
            incoming.drop()
        await self._note([(entry, accepted)], ended)

    async def _bytes(self, entry: Entry) -> AsyncIterator[bytes]:
        if entry.body is not None:
            yield entry.body
            return
        async for piece in self._peer.fetch(entry.id):
            yield piece

    async def _told(self, entry: Entry) -> None:
        """A notice of how a message ended there that went from here: its sender is told."""
        receipt = entry.receipt
        if receipt is None:
            receipt = read_receipt(await self._peer.fetch_whole(entry.id))
        try:
            verify_receipt(receipt, self._sync.peer_keys.get)
        except EvidenceError as error:
            if not self._is_up_to_date(entry):
                self._sync.behind(anew=True)  # its key may be a new one
                raise PeerError(f"a notice is not sealed by the peer: {error}") from None
            log.error("a notice is not sealed by the peer", link=self._name, peer_id=entry.id, error=str(error))
            return
        message = await self._transfers.sent_as(_about(receipt))
        if message is None:
            # It ended before this hub wrote down that it went over: that is done with the next push.
            if self._deferred.tries(entry.seq) < BEHIND_TRIES - 1:
                raise PeerError("a notice speaks of a message that is not known to have gone over")
            log.warning("a notice speaks of an unknown message", link=self._name, peer_id=entry.id)
            return
        try:
            await self._teller.tell(self._link.endpoint, message, receipt)
        except Problem as problem:
            if problem.retryable:
                raise
            log.warning("a notice cannot be used", link=self._name, peer_id=entry.id, reason=str(problem))


def _about(receipt: Receipt) -> str:
    try:
        return str(UUID(orjson.loads(receipt.event)["message"]))
    except (ValueError, KeyError, TypeError):
        return ""


def _beside(entry: Entry) -> Beside:
    return Beside(entry.to, datetime.fromisoformat(entry.accepted_at), entry.hops)
