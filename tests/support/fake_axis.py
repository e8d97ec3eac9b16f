"""A national axis for a hub to be linked with, written from the description of the interface alone.

Nothing of the hub's own code is in it. It keeps what it is sent, gives what it is told to give, and misbehaves on
order: `faults` holds, by call, answers to give instead of the right one, each once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Sent:
    """A transfer that it took."""

    doc_id: str
    body: bytes
    sender: str
    kind: str


@dataclass
class FakeAxis:
    """One system's view of an axis."""

    system_id: str = "yb.truc"
    secret: str = "bí mật"
    sent: list[Sent] = field(default_factory=list)
    tried: list[bytes] = field(default_factory=list)
    """Every body that came to /sendEdoc, whatever was answered."""
    waiting: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    """By docId: kind, sender, bytes."""
    ended: list[tuple[str, str]] = field(default_factory=list)
    """(docId, status), as /updateStatus had them."""
    reasons: dict[str, str] = field(default_factory=dict)
    agencies: list[dict[str, Any]] = field(default_factory=list)
    levels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What /getAgenciesListQD20 gives, by level; it knows no such call where there is nothing."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    refusing: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """What stands in a document that is refused for good, and the code and text."""
    calls: list[str] = field(default_factory=list)
    signatures: set[str] = field(default_factory=set)
    url: str = ""
    lists_twice: bool = False
    forgets: bool = False
    """What has ended is listed all the same."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeAxis]:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/truc/{call}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/truc"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = request.match_info["call"]
        self.calls.append(call)
        body = await request.read()
        if call == "sendEdoc":
            self.tried.append(body)
        fault = self._signed(request)
        if fault:
            return _fail("15", fault)
        if self.faults.get(call):
            return await self.faults[call].pop(0)(request)
        answer: web.StreamResponse = await getattr(self, "_" + call.lower())(request, body)
        self.moved.set()
        return answer

    def _signed(self, request: web.Request) -> str:
        """What is wrong with the signature, if anything."""
        signed = request.headers.get("XroadVnpt-sign-header", "")
        digest = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if digest != request.headers.get("XroadVnpt-hash-header"):
            return "sai chữ ký"
        members = json.loads(signed)
        names = [name.removeprefix("XroadVnpt-") for name in members]
        if request.headers.get("XroadVnpt-sign-header-key") != ";".join(names):
            return "sai danh sách tham số"
        for name, value in members.items():
            if request.headers.get(name) != value:
                return f"{name} khác với giá trị đã ký"
        if members["XroadVnpt-systemid"] != self.system_id:
            return "systemid lạ"
        if digest in self.signatures:
            return "gửi lại"
        self.signatures.add(digest)
        return ""

    # -- calls ----------------------------------------------------------------------------------

    async def _sendedoc(self, request: web.Request, body: bytes) -> web.StreamResponse:
        digest = hashlib.sha256(body).hexdigest()
        if request.headers["XroadVnpt-hash-file"] != digest:
            return _fail("10", "tệp không hợp lệ")
        for text, (code, why) in self.refusing.items():
            if text in body:
                return _fail(code, why)
        known = next((sent for sent in self.sent if sent.body == body), None)
        if known is None:
            sender, kind = request.headers["XroadVnpt-from"], request.headers["XroadVnpt-messagetype"]
            known = Sent(digest[:32], body, sender, kind)
            self.sent.append(known)
        return _ok(DocId=known.doc_id)

    async def _getreceivededoclist(self, request: web.Request, body: bytes) -> web.StreamResponse:
        wanted = request.headers["XroadVnpt-messagetype"]
        data = [
            {"docId": name, "serviceType": "eDoc", "messageType": kind, "from": sender, "to": "", "status": "new"}
            for name, (kind, sender, _) in self.waiting.items()
            if kind == wanted
        ]
        return _ok(data=data * 2 if self.lists_twice else data)

    async def _downloadedoc(self, request: web.Request, body: bytes) -> web.StreamResponse:
        _, _, content = self.waiting[request.headers["XroadVnpt-docId"]]
        return web.Response(body=content, content_type="application/octet-stream")

    async def _getedoc(self, request: web.Request, body: bytes) -> web.StreamResponse:
        _, _, content = self.waiting[request.headers["XroadVnpt-docId"]]
        return _ok(data=base64.b64encode(content).decode())

    async def _updatestatus(self, request: web.Request, body: bytes) -> web.StreamResponse:
        name, status = request.headers["XroadVnpt-docId"], request.headers["XroadVnpt-status"]
        self.ended.append((name, status))
        self.reasons[name] = request.headers.get("XroadVnpt-reason", "")
        if not self.forgets:
            self.waiting.pop(name, None)
        return _ok()

    async def _getagencieslist(self, request: web.Request, body: bytes) -> web.StreamResponse:
        return _ok(data=self.agencies)

    async def _getagencieslistqd20(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if not self.levels:
            return _fail("59", "không có")
        return _ok(data=self.levels.get(request.headers["XroadVnpt-level"], []))


def _ok(**members: Any) -> web.Response:
    return web.json_response({"status": "OK", "ErrorCode": "0", "ErrorDesc": "", **members})


def _fail(code: str, text: str) -> web.Response:
    return web.json_response({"status": "FAIL", "ErrorCode": code, "ErrorDesc": text})


# -- misbehaviour ---------------------------------------------------------------------------------


def fails(code: str, text: str = "lỗi trục") -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        return _fail(code, text)

    return answer


def says(body: bytes, content_type: str = "application/json", status: int = 200) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, status=status)

    return answer


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """The connection ends without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def breaks_off(content: bytes, announced: int) -> Fault:
    """Fewer bytes than were announced."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(announced)})
        response.content_type = "application/octet-stream"
        await response.prepare(request)
        await response.write(content)
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
