"""Two agencies whose keys came in certificates: of an authority for trials, which plays the demo's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg
from cryptography import x509

from hub.ca.authority import Authority
from hub.ca.responder import Responder
from hub.demo.agencies import AGENCIES, PROVINCE
from hub.demo.node import DemoError
from hub.directory import trust
from hub.store import sql
from protocol.signature import PublicKey

SQL = sql.load("trust")
HOST = "127.0.0.1"
CARELESS = AGENCIES["cd-y-te"]
"""Whose key falls into other hands."""
CERTIFIED = (PROVINCE, CARELESS)
LOOK_SECONDS = 0.2


class Trial:
    """The authority, answering about its certificates in an ``async with`` block."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority.make(folder)
        self._responder = Responder(folder)

    async def __aenter__(self) -> Self:
        self._authority.move(await self._responder.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._responder.stop()

    async def trusted(self, connection: asyncpg.Connection) -> None:
        """Make it a trust anchor, as ``lienthong trust add`` does."""
        await trust.add_anchor(connection, self._authority.certificate)

    def certificates(self, endpoint: str, key: PublicKey) -> list[x509.Certificate]:
        """The certificate of an endpoint's key, if it gets one."""
        agency = AGENCIES[endpoint]
        if agency not in CERTIFIED:
            return []
        return [self._authority.issue(agency.name, key, code=agency.code)]

    def revoke(self) -> str:
        """Revoke the certificate of `CARELESS`. What it was issued to."""
        (issued,) = [one for one in self._authority.issued() if one.name == CARELESS.name]
        return self._authority.revoke(issued.serial, "key_compromise").name


async def learned(connection: asyncpg.Connection, url: str, operator: str, seconds: float) -> None:
    """Let the hub ask its authorities anew; returns once it says that a certificate was revoked.

    Raises DemoError after `seconds`.
    """
    await connection.execute(SQL.forget_asked)
    headers = {"Authorization": f"Bearer {operator}"}
    try:
        async with asyncio.timeout(seconds), aiohttp.ClientSession(headers=headers) as session:
            while not await _says_revoked(session, url):  # noqa: ASYNC110 - nobody tells when
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise DemoError(f"the hub did not learn of a revocation within {seconds:.0f} s") from None


async def _says_revoked(session: aiohttp.ClientSession, url: str) -> bool:
    async with session.get(f"{url}/v1/status") as response:
        status: dict[str, Any] = await response.json() if response.status == 200 else {}
    return any(one.get("revocation") == "revoked" for one in status.get("certificates", ()))
