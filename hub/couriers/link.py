"""Links to other hubs and the axis: one courier each, in one of all processes.

Whoever has a link's advisory lock is its courier: it pushes what lies in the link's mailbox (`link_push`),
fetches what the peer has (`link_fetch`), and keeps the directory of what lies beyond. No leader is elected; a lock
goes with its connection. For a moment two processes may hold one for theirs: all that a courier does may be done
twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import structlog

from hub import tasks
from hub.couriers.axis import AxisMail
from hub.couriers.axis_given import AxisGiver
from hub.couriers.link_axis import AxisPeer, PeerError, PeerRefusedError
from hub.couriers.link_axis_carrier import AxisCarrier
from hub.couriers.link_carrier import Carried, Carrier
from hub.couriers.link_events import LinkEvents
from hub.couriers.link_fetch import Fetcher
from hub.couriers.link_health import Health, Transfers, backoff
from hub.couriers.link_native import NativePeer
from hub.couriers.link_native_carrier import NativeCarrier
from hub.couriers.link_native_fetch import NativeFetcher
from hub.couriers.link_native_sync import NativeSync
from hub.couriers.link_push import Pusher
from hub.couriers.link_spool import Spool
from hub.couriers.link_told import Teller
from hub.couriers.mailbox import Mailboxes
from hub.directory import links
from hub.directory.change import DirectoryError
from hub.directory.follow import Directory
from hub.directory.links import owner
from hub.directory.picture import Link
from hub.directory.vault import Vault, VaultError
from hub.evidence.record import Recorder
from hub.relay.acknowledge import Acknowledger
from hub.relay.beyond import Hops
from hub.relay.intake import Intake
from hub.store import sql
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE, connect
from protocol.evidence import read_receipt
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("links")

LOCKS = 7021
"""Advisory locks (7021, endpoint)."""
LOOK_SECONDS = 1.0
LOCK_SECONDS = 2.0
STATEMENT_SECONDS = 10.0
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)
_TRY = "select pg_try_advisory_lock($1, $2)"


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a process couriers work with."""

    url: str
    pool: asyncpg.Pool[Any]
    directory: Directory
    vault: Vault
    intake: Intake
    mailboxes: Mailboxes
    mail: AxisMail
    acknowledger: Acknowledger
    giver: AxisGiver
    blobs: Blobs
    attachments: Attachments
    teller: Teller
    recorder: Recorder
    hops: Hops
    hub: str
    hub_keys: Sequence[dict[str, str]]
    """This hub's name and its own keys (JWKs), as peers are told them."""
    max_xml_bytes: int
    max_attachment_bytes: int


class Links:
    """The links of a process: those of whose couriers it is one, and those that wait for their turn."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._running: dict[Link, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="links")

    async def stop(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        await tasks.end(self._running.values())
        self._running.clear()

    async def _follow(self) -> None:
        """Start and stop couriers as the directory says."""
        while True:
            picture = self._parts.directory.picture
            wanted = {
                link
                for link in picture.links.values()
                if link.active and (endpoint := picture.endpoints.get(link.endpoint)) and endpoint.active
            }
            ended = [link for link in self._running if link not in wanted]
            if ended:
                await tasks.end([self._running.pop(link) for link in ended])
            for link in wanted - self._running.keys():
                name = picture.endpoints[link.endpoint].name
                self._running[link] = asyncio.create_task(self._keep(link, name), name=f"link-{name}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _keep(self, link: Link, name: str) -> None:
        """Be the link's courier whenever nobody else is."""
        tries = 0
        while True:
            try:
                async with _locked(self._parts.url, link.endpoint) as lock:
                    log.info("this process is the link's courier", link=name)
                    tries = 0
                    await Courier(self._parts, link, name, lock).run()
            except* VaultError as group:
                log.error("a link cannot start", link=name, error=str(group.exceptions[0]))
            except* STORE as group:
                log.warning("a link's courier is interrupted", link=name, error=str(group.exceptions[0]))
            except* Exception:  # a courier that ended unnoticed would leave its mail lying
                log.exception("a link's courier failed", link=name)
            tries += 1
            await asyncio.sleep(backoff(tries, link.retry_seconds))


@asynccontextmanager
async def _locked(url: str, endpoint: int) -> AsyncIterator[asyncpg.Connection]:
    """A connection that has the link's lock. Waits for it."""
    connection = await connect(url, "link", STATEMENT_SECONDS)
    try:
        while not await connection.fetchval(_TRY, LOCKS, endpoint):  # noqa: ASYNC110
            await asyncio.sleep(LOCK_SECONDS)  # nobody tells when a lock is free
        yield connection
    finally:
        connection.terminate()


class Courier:
    """One link's courier, while this process has the lock."""

    def __init__(self, parts: Parts, link: Link, name: str, lock: asyncpg.Connection) -> None:
        self._parts = parts
        self._link = link
        self._name = name
        self._lock = lock
        self._health = Health(parts.pool, link.endpoint, name, link.retry_seconds)
        self._sync_now = asyncio.Event()
        self._anew = False

    async def run(self) -> None:
        """Run until cancelled, or until the lock is lost. Raises an ExceptionGroup."""
        try:
            secret = self._parts.vault.open(owner(self._name), self._link.secret).decode()
        except VaultError as error:
            self._health.push.failure(str(error), whole_link=True)
            await self._health.write()
            raise
        await (self._run_native(secret) if self._link.kind == "native" else self._run_axis(secret))

    async def _run_axis(self, secret: str) -> None:
        parts, link = self._parts, self._link
        transfers = Transfers(parts.pool, link.endpoint)
        spool = Spool(parts.blobs.root / "links" / str(link.endpoint), parts.giver, link.branch[0])
        await asyncio.to_thread(spool.clean)
        async with aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity"}, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            peer = AxisPeer(link, secret, session, parts.max_xml_bytes)
            carrier = AxisCarrier(link.endpoint, self._name, peer, spool, parts.mail, transfers, parts.directory)
            fetcher = Fetcher(
                link,
                self._name,
                peer,
                parts.intake,
                parts.blobs,
                transfers,
                self._health,
                parts.directory,
                parts.max_xml_bytes,
            )
            await self._all(self._pusher(carrier, transfers), fetcher, partial(self._sync_axis, peer))

    async def _run_native(self, token: str) -> None:
        parts, link = self._parts, self._link
        transfers = Transfers(parts.pool, link.endpoint)
        async with NativePeer(link.url, token, parts.max_xml_bytes) as peer:
            sync = NativeSync(
                link, self._name, peer, parts.directory, parts.pool, parts.hub, parts.hub_keys, self._sync_now
            )
            carrier = NativeCarrier(link.endpoint, peer, parts.mail, transfers, parts.blobs, parts.hops, sync)
            fetcher = NativeFetcher(
                link,
                self._name,
                peer,
                parts.intake,
                parts.blobs,
                parts.attachments,
                transfers,
                self._health,
                parts.teller,
                sync,
                parts.max_attachment_bytes,
            )
            pusher = self._pusher(carrier, transfers, self._unreachable_there)
            await self._all(pusher, fetcher, sync.once, sync.look)

    def _pusher(
        self,
        carrier: Carrier,
        transfers: Transfers,
        carried: Callable[[UUID, Carried], Awaitable[None]] | None = None,
    ) -> Pusher:
        parts = self._parts
        return Pusher(
            self._link,
            self._name,
            carrier,
            parts.mailboxes,
            parts.mail,
            parts.acknowledger,
            transfers,
            self._health,
            carried,
            events=LinkEvents(parts.pool, parts.recorder, self._link.endpoint, self._name),
        )

    async def _all(
        self,
        pusher: Pusher,
        fetcher: Fetcher | NativeFetcher,
        sync: Callable[[bool], Awaitable[None]],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Everything at once. `sync` exchanges directories, with True in any case; `look` sees if one changed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(pusher.run())
            group.create_task(fetcher.run())
            group.create_task(self._sync(sync))
            group.create_task(self._watch(pusher, fetcher, look))

    async def _watch(self, pusher: Pusher, fetcher: Fetcher | NativeFetcher, look: Callable[[], None]) -> None:
        """Write down how it goes, take orders, and see that the lock is still held."""
        while True:
            look()
            for order in await self._lock.fetch(SQL.orders, self._link.endpoint):
                log.info("an operator's order", link=self._name, what=order["what"], message=str(order["message"]))
                self._health.resume()
                if order["what"] == "sync":
                    self._anew = True
                    self._sync_now.set()
                elif order["message"] is not None:
                    pusher.again(order["message"])
                    try:
                        await pusher.resend(order["message"])
                    except (*STORE, Problem):
                        raise
                    except Exception:  # which must not come again and again, and end each courier
                        log.exception("an order cannot be carried out", link=self._name, message=order["message"])
                else:
                    pusher.again()
                    fetcher.again()
                await self._lock.execute(SQL.end_order, order["id"])  # done, so that nobody dies in between
            try:
                await self._health.write()
            except STORE as error:
                log.warning("how a link does could not be noted", link=self._name, error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    # -- the directory beyond -------------------------------------------------------------------

    async def _sync(self, once: Callable[[bool], Awaitable[None]]) -> None:
        """Exchange directories when it is time, and when it is asked for."""
        native = self._link.kind == "native"  # whose first exchange must come before anything else is understood
        while True:
            left = 0.0 if native else await self._until_sync()
            native = False
            if left is None or left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._sync_now.wait()
                except TimeoutError:
                    continue
            self._sync_now.clear()
            anew, self._anew = self._anew, False
            await self._health.sync.pause()
            try:
                await once(anew)
                self._health.sync.success()
            except (PeerError, PeerRefusedError, DirectoryError, *STORE) as error:
                self._anew = self._anew or anew
                log.warning("the directory beyond a link was not fetched", link=self._name, error=str(error))
                self._health.sync.failure(f"agencies: {error}", whole_link=True)  # an order ends the pause
                self._sync_now.set()

    async def _until_sync(self) -> float | None:
        """Seconds until the directory is to be fetched; None: when somebody asks."""
        if self._link.sync_seconds <= 0:
            return None
        try:
            at: datetime | None = await self._parts.pool.fetchval(SQL.synced_at, self._link.endpoint)
        except STORE:
            return 1.0
        if at is None:
            return 0.0
        due = at + timedelta(seconds=self._link.sync_seconds)
        return max(0.0, (due - datetime.now(UTC)).total_seconds())

    async def _sync_axis(self, peer: AxisPeer, anew: bool) -> None:
        """Fetch the axis's agencies."""
        if anew:
            peer.keep_agencies(False)  # somebody asks, and may have changed the directory here
        listed = await peer.agencies()
        endpoint = self._link.endpoint
        if listed is None:
            await self._parts.pool.execute(SQL.synced_again, endpoint)
            return
        picture = self._parts.directory.picture
        rows = await asyncio.to_thread(links.wanted, picture, endpoint, listed)
        gone = await asyncio.to_thread(links.vanished, picture, endpoint, listed)
        async with self._parts.pool.acquire() as connection:
            await links.apply(connection, endpoint, rows, gone)
            await connection.execute(SQL.synced, endpoint, len(listed))
        if rows or gone:
            log.info("the directory beyond a link changed", link=self._name, agencies=len(rows), gone=len(gone))
            self._parts.directory.poke()
        peer.keep_agencies()

    # -- what a native peer could not do ------------------------------------------------------------

    async def _unreachable_there(self, message: UUID, carried: Carried) -> None:
        """Tell a message's sender of recipients whom the peer, which took it for others, cannot reach."""
        if carried.receipt is not None and '\\"unreachable\\"' in carried.receipt:
            receipt = read_receipt(carried.receipt.encode())
            try:
                await self._parts.teller.tell(self._link.endpoint, message, receipt)
            except Problem as problem:
                if problem.retryable:
                    raise
                log.error("a sender cannot be told", link=self._name, message=str(message), error=str(problem))
