"""The trial authority over HTTP: its list at ``/crl``, answers about certificates at ``/ocsp`` (RFC 6960, A.1),
time-stamps at ``/tsr`` (RFC 3161, section 3.4)."""

from __future__ import annotations

import base64
import binascii
import socket
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from hub.ca.authority import CRL_LIFE, OCSP_LIFE, Authority
from hub.ca.timestamps import TimestampAuthority
from protocol.timestamp import REPLY_MEDIA_TYPE

MAX_REQUEST_BYTES = 4096


class Responder:
    """Answers for the authority in a folder, whose changes it notices, until `stop`."""

    def __init__(self, folder: Path, ocsp_life: timedelta = OCSP_LIFE, crl_life: timedelta = CRL_LIFE) -> None:
        self.authority = Authority.open(folder)
        self.ocsp_life = ocsp_life
        self.crl_life = crl_life
        self.asked = 0
        """Questions that were answered."""
        self._stamps: TimestampAuthority | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Begin to answer; the address of it. `port` 0 takes a free one."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/crl", self._crl)
        app.router.add_post("/ocsp", self._ocsp)
        app.router.add_get("/ocsp/{request:.+}", self._ocsp_get)
        app.router.add_get("/ca.pem", self._certificate)
        app.router.add_post("/tsr", self._stamp)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        listener = socket.create_server((host, port))
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()
        return f"http://{host}:{self.port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _crl(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(body=self.authority.crl(self.crl_life), content_type="application/pkix-crl")

    async def _ocsp(self, request: web.Request) -> web.Response:
        return self._answer(await request.read())

    async def _ocsp_get(self, request: web.Request) -> web.Response:
        try:
            return self._answer(base64.b64decode(unquote(request.match_info["request"]), validate=True))
        except binascii.Error:
            raise web.HTTPBadRequest from None

    def _answer(self, asked: bytes) -> web.Response:
        self.asked += 1
        body = self.authority.answer(asked, self.ocsp_life)
        return web.Response(body=body, content_type="application/ocsp-response")

    async def _stamp(self, request: web.Request) -> web.Response:
        """A time-stamp (RFC 3161, section 3.4)."""
        self.asked += 1
        if self._stamps is None:
            self._stamps = TimestampAuthority.make(self.authority.certificate, self.authority.key)
        return web.Response(body=self._stamps.answer(await request.read()), content_type=REPLY_MEDIA_TYPE)

    async def _certificate(self, request: web.Request) -> web.Response:
        return web.Response(
            body=(self.authority.folder / "ca.pem").read_bytes(), content_type="application/x-pem-file"
        )
