"""Links to other hubs and the axis: one courier each, in one of all processes.

Whoever has a link's advisory lock is its courier: it pushes what lies in the link's mailbox (`link_push`),
fetches what the peer has (`link_fetch`), and keeps the directory of what lies beyond. No leader is elected; a lock
goes with its connection. For a moment two processes may hold one for theirs: all that a courier does may be done
twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import structlog

from hub import tasks
from hub.couriers.axis import AxisMail
from hub.couriers.axis_given import AxisGiver
from hub.couriers.link_axis import AxisPeer, PeerError, PeerRefusedError
from hub.couriers.link_fetch import Fetcher
from hub.couriers.link_health import Health, Transfers, backoff
from hub.couriers.link_push import Pusher
from hub.couriers.link_spool import Spool
from hub.couriers.mailbox import Mailboxes
from hub.directory import links
from hub.directory.change import DirectoryError
from hub.directory.follow import Directory
from hub.directory.links import owner
from hub.directory.picture import Link
from hub.directory.vault import Vault, VaultError
from hub.relay.acknowledge import Acknowledger
from hub.relay.intake import Intake
from hub.store import sql
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE, connect

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
    max_xml_bytes: int


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

    async def run(self) -> None:
        """Run until cancelled, or until the lock is lost. Raises an ExceptionGroup."""
        parts, link = self._parts, self._link
        transfers = Transfers(parts.pool, link.endpoint)
        spool = Spool(parts.blobs.root / "links" / str(link.endpoint), parts.giver, link.branch[0])
        await asyncio.to_thread(spool.clean)
        try:
            secret = parts.vault.open(owner(self._name), link.secret).decode()
        except VaultError as error:
            self._health.push.failure(str(error), whole_link=True)
            await self._health.write()
            raise
        async with aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity"}, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            peer = AxisPeer(link, secret, session, parts.max_xml_bytes)
            pusher = Pusher(
                link,
                self._name,
                peer,
                spool,
                parts.mailboxes,
                parts.mail,
                parts.acknowledger,
                transfers,
                self._health,
                parts.directory,
            )
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
            async with asyncio.TaskGroup() as group:
                group.create_task(pusher.run())
                group.create_task(fetcher.run())
                group.create_task(self._sync(peer))
                group.create_task(self._watch(pusher, fetcher))

    async def _watch(self, pusher: Pusher, fetcher: Fetcher) -> None:
        """Write down how it goes, take orders, and see that the lock is still held."""
        while True:
            for order in await self._lock.fetch(SQL.take_orders, self._link.endpoint):
                log.info("an operator's order", link=self._name, what=order["what"], message=str(order["message"]))
                self._health.resume()
                if order["what"] == "sync":
                    self._sync_now.set()
                elif order["message"] is not None:
                    pusher.again(order["message"])
                    await pusher.resend(order["message"])
                else:
                    pusher.again()
                    fetcher.again()
            try:
                await self._health.write()
            except STORE as error:
                log.warning("how a link does could not be noted", link=self._name, error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    # -- the directory beyond -------------------------------------------------------------------

    async def _sync(self, peer: AxisPeer) -> None:
        """Fetch the peer's agencies when it is time, and when it is asked for."""
        tries = 0
        while True:
            left = await self._until_sync()
            if left is None or left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._sync_now.wait()
                except TimeoutError:
                    continue
            if self._sync_now.is_set():
                peer.keep_agencies(False)  # somebody asks, and may have changed the directory here
            self._sync_now.clear()
            await self._health.sync.pause()
            try:
                await self._sync_once(peer)
                tries = 0
            except (PeerError, PeerRefusedError, DirectoryError, *STORE) as error:
                tries += 1
                log.warning("the directory beyond a link was not fetched", link=self._name, error=str(error))
                self._health.sync.failure(f"agencies: {error}")
                await asyncio.sleep(backoff(tries + 2, self._link.retry_seconds))

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

    async def _sync_once(self, peer: AxisPeer) -> None:
        listed = await peer.agencies()
        endpoint = self._link.endpoint
        if listed is None:
            await self._parts.pool.execute(SQL.synced_again, endpoint)
            self._health.sync.success()
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
        self._health.sync.success()
