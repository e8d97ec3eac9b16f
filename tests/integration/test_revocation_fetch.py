"""What a certificate cannot make the hub ask, and what no answer can make it swallow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from hub.evidence import revocation_fetch
from hub.evidence.revocation_fetch import Fetcher, FetchError

LOOPBACK = frozenset({"127.0.0.1", "localhost"})


class Authority:
    """A server on loopback that says whatever a test wants, and counts who comes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[web.Request], web.StreamResponse] = lambda request: web.Response(body=b"DER")
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path} {len(await request.read())}")
        return self.answer(request)


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    made = Authority()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield made
    await runner.cleanup()


async def told(url: str, named: frozenset[str] = frozenset(), only_named: bool = False) -> str:
    """Why there is no answer."""
    async with Fetcher(named, only_named) as fetcher:
        with pytest.raises(FetchError) as caught:
            await fetcher.crl(url)
    return str(caught.value)


async def test_who_was_named_is_asked(authority: Authority) -> None:
    async with Fetcher(LOOPBACK, True) as fetcher:
        assert await fetcher.crl(f"{authority.url}/crl") == b"DER"
        assert await fetcher.ocsp(f"{authority.url}/ocsp", b"abc") == b"DER"
    assert authority.asked == ["GET /crl 0", "POST /ocsp 3"]


async def test_this_machine_is_not_asked_unless_named(authority: Authority) -> None:
    port = authority.url.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "[::ffff:127.0.0.1]", "[fe80::1]")
    for host in hosts:
        assert "this machine" in await told(f"http://{host}:{port}/crl"), host
    # Written otherwise, it is not an address at all.
    for host in ("2130706433", "127.1", "0x7f000001"):
        assert await told(f"http://{host}:{port}/crl")
    assert authority.asked == []


async def test_only_those_named_are_asked_where_some_are(authority: Authority) -> None:
    assert "not among --revocation-hosts" in await told(f"{authority.url}/crl", frozenset({"ca.gov.vn"}), True)
    assert authority.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/crl",
        "file:///etc/passwd",
        "ftp://127.0.0.1/crl",
        "http://user:secret@127.0.0.1/crl",
        "http:///crl",
        "http://[::1",
        "http://127.0.0.1:99999/crl",
        "ldap://127.0.0.1/cn=CA",
        "http://127.0.0.1/" + "a" * 600,
    ],
)
async def test_addresses_of_other_kinds(url: str) -> None:
    assert "address" in await told(url, LOOPBACK)


async def test_nobody_is_sent_elsewhere(authority: Authority) -> None:
    def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"{authority.url}/secret"})

    authority.answer = away
    assert "answered 302" in await told(f"{authority.url}/crl", LOOPBACK)
    assert authority.asked == ["GET /crl 0"]


async def test_answers_without_an_end(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_fetch, "MAX_CRL_BYTES", 100_000)
    authority.answer = lambda request: web.Response(body=b"0" * 200_000)
    assert "more than 100000 bytes" in await told(f"{authority.url}/crl", LOOPBACK)
    authority.answer = lambda request: web.Response(body=b"0" * (65 << 10))
    async with Fetcher(LOOPBACK, False) as fetcher:
        with pytest.raises(FetchError, match="more than 65536 bytes"):
            await fetcher.ocsp(f"{authority.url}/ocsp", b"")


async def test_compressed_answers_are_not_unpacked(authority: Authority) -> None:
    packed = b"\x1f\x8b\x08" + b"0" * 100

    def gzipped(request: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    authority.answer = gzipped
    async with Fetcher(LOOPBACK, False) as fetcher:
        assert await fetcher.crl(f"{authority.url}/crl") == packed


async def test_who_is_silent_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_fetch, "SECONDS", 0.2)
    gone = asyncio.Event()
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Fetcher(LOOPBACK, False) as fetcher:
            for path in ("1", "2", "3"):
                with pytest.raises(FetchError, match="did not answer"):
                    await fetcher.crl(f"{url}/{path}")
        await gone.wait()
    assert connections == 1
