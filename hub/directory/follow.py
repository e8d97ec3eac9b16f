"""Keeps a process's picture of the directory up to date.

A change is announced by NOTIFY; a look every second is the floor, so that a change reaches every
process within two seconds even when the announcement is lost. The look costs ten index probes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import orjson
import structlog

from hub.directory.picture import (
    Agency,
    BeyondKey,
    Changes,
    Credential,
    Endpoint,
    Group,
    Hub,
    Key,
    Link,
    Picture,
    System,
)
from hub.directory.trust_standing import Anchor, KeyCertificate, Revocation, TrustPolicy
from hub.pdf.result import Policy as PdfPolicy
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.certificate_revocation import Status
from protocol.edxml.xmldsig import Policy
from protocol.signature import from_jwk

log = structlog.get_logger()
SQL = sql.load("directory")
AXIS = sql.load("axis")
LINKS = sql.load("links")
TRUST = sql.load("trust")

POLL_SECONDS = 1.0
_CHUNK = 2_000
"""Rows turned into objects between two looks at the event loop (about 3 ms)."""


async def _rows(connection: Any, statement: str, since: int) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(statement, since)
    return rows


async def load_changes(pool: asyncpg.Pool[Any], since: int) -> Changes | None:
    """What changed after revision `since`; None when nothing did."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        revision = await connection.fetchval(SQL.revision)
        if revision <= since:
            return None
        changes = Changes(revision=revision)
        for row in await _rows(connection, SQL.endpoints_since, since):
            id_, name, active, messages, octets, policy, pins, any_certificate, pdf, *rest = row
            pinned = None if any_certificate else frozenset(pins)
            changes.endpoints.append(
                Endpoint(id_, name, active, messages, octets, Policy(policy), pinned, PdfPolicy(pdf), *rest)
            )
        changes.groups = [
            Group(row["name"], tuple(row["members"]), row["active"])
            for row in await _rows(connection, SQL.groups_since, since)
        ]
        for row in await _rows(connection, SQL.keys_since, since):
            changes.keys.append(
                Key(
                    row["kid"],
                    from_jwk(orjson.loads(row["jwk"])),
                    row["x5t"],
                    row["endpoint"],
                    row["agency"],
                    row["not_before"],
                    row["not_after"],
                    row["active"],
                )
            )
        changes.credentials = [Credential(*row) for row in await _rows(connection, SQL.credentials_since, since)]
        for row in await _rows(connection, AXIS.systems_since, since):
            id_, endpoint, utc_hours, secrets, active = row
            changes.systems.append(System(id_, endpoint, utc_hours, tuple(secrets), active))
        for row in await _rows(connection, LINKS.links_since, since):
            endpoint, url, system_id, secret, utc_hours, branch, *rest = row
            changes.links.append(Link(endpoint, url, system_id, secret, utc_hours, tuple(branch), *rest))
        for row in await _rows(connection, LINKS.hubs_since, since):
            jwks = orjson.loads(row["hub_keys"])
            own = tuple(map(from_jwk, jwks))
            changes.hubs.append(Hub(row["endpoint"], tuple(row["branch"]), row["approval"], own))
        for row in await _rows(connection, LINKS.keys_since, since):
            link, key, jwk, *rest = row
            changes.beyond_keys.append(BeyondKey(link, key, from_jwk(orjson.loads(jwk)), *rest))
        changes.anchors = [Anchor(*row) for row in await _rows(connection, TRUST.anchors_since, since)]
        for row in await _rows(connection, TRUST.certificates_since, since):
            kid, sha256, chained, chain, *rest = row
            changes.certificates.append(KeyCertificate(kid, sha256, chained, tuple(chain), *rest))
        for row in await _rows(connection, TRUST.revocations_since, since):
            certificate, status, *rest = row
            changes.revocations.append(Revocation(certificate, Status(status), *rest))
        agencies = await _rows(connection, SQL.agencies_since, since)
    for index, row in enumerate(agencies):
        code, name, parent, aliases, endpoint, active, mail, system = row
        changes.agencies.append(Agency(code, name, parent, tuple(aliases), endpoint, active, mail, system))
        if index % _CHUNK == _CHUNK - 1:
            await asyncio.sleep(0)
    return changes


class Directory:
    """Holds the present picture and follows changes."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        trust: TrustPolicy | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`trust`: what the hub demands of certificates. `before`: done before each new picture is shown."""
        self._before = before
        self._pool = pool
        self._changed = asyncio.Event()
        self._followed = asyncio.Condition()
        self.picture = Picture(trust=trust or TrustPolicy())

    async def refresh(self) -> bool:
        """Load what changed. True when something did."""
        changes = await load_changes(self._pool, self.picture.revision)
        if changes is not None and self._before is not None:
            await self._before()
        if changes is None or changes.revision <= self.picture.revision:  # somebody else was faster
            return False
        self.picture = self.picture.with_changes(changes)
        async with self._followed:
            self._followed.notify_all()
        return True

    def poke(self) -> None:
        """Somebody announced a change."""
        self._changed.set()

    async def reached(self, revision: int) -> None:
        """Wait until the picture is at `revision` or later."""
        async with self._followed:
            await self._followed.wait_for(lambda: self.picture.revision >= revision)

    async def follow(self) -> None:
        """Follow changes until cancelled. Outlives a database that is away."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("the directory cannot be refreshed; routing by the last picture", error=str(error))
            except Exception:  # a picture that stood still unnoticed would let revoked tokens in
                log.exception("the directory cannot be refreshed; routing by the last picture")
