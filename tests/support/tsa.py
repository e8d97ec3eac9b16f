"""Time-stamping authorities for tests: roots, intermediates, and a server that can be made to err."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hub.ca.timestamps import TimestampAuthority
from protocol.timestamp import REPLY_MEDIA_TYPE

Answer = Callable[[bytes], Awaitable[web.StreamResponse]]


class Root:
    """A certificate authority in memory; below another one if `issuer` is given."""

    def __init__(self, name: str, issuer: Root | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed_by = issuer or self
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder(
                issuer.certificate.subject if issuer else subject,
                subject,
                self.key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(now - timedelta(days=3650))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.key.public_key()), False)
            .sign(signed_by.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def authority(self, **options: Any) -> TimestampAuthority:
        """A time-stamping authority that this one certifies."""
        return TimestampAuthority.make(self.certificate, self.key, **options)


class Server:
    """A time-stamping authority on loopback. `answer` may be replaced; `requests` are what came."""

    def __init__(self, authority: TimestampAuthority) -> None:
        self.authority = authority
        self.requests: list[bytes] = []
        self.answer: Answer = self.stamp
        self.url = ""
        self.asked = asyncio.Event()

    async def stamp(self, body: bytes) -> web.StreamResponse:
        """As it should."""
        return web.Response(body=self.authority.answer(body), content_type=REPLY_MEDIA_TYPE)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.content_type == "application/timestamp-query"
        body = await request.read()
        self.requests.append(body)
        self.asked.set()
        return await self.answer(body)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application()
        app.router.add_post("/tsr", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}/tsr"
        try:
            yield self
        finally:
            await runner.cleanup()
