"""Asking authorities over HTTP, so that a certificate cannot make the hub ask anything else.

Addresses come from certificates that an operator registered and that lead to an anchor which an operator trusts,
or from the operator. Even so: ``http`` alone (what comes back is signed, and a TLS certificate would have to be
checked in turn), no redirections, no proxy, no compression, ten seconds, a bounded number of bytes. Unless an
operator named the host, none of its addresses may be a loopback, link-local, multicast or unspecified one; private
networks are allowed, since agencies' authorities live there. The addresses checked are those connected to.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from protocol.problems import LienthongError

SECONDS = 10.0
MAX_OCSP_BYTES = 64 << 10
MAX_CRL_BYTES = 16 << 20
MAX_URL = 500


class FetchError(LienthongError):
    """There is no answer; the message says why."""


def _elsewhere(address: str) -> bool:
    """Whether an address is not of this machine, or its link, or of nobody."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved)


class _Resolver(AbstractResolver):
    """Resolves names, and leaves out addresses that may not be asked."""

    def __init__(self, named: frozenset[str]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._named = named

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if host.lower() in self._named:
            return found
        allowed = [one for one in found if _elsewhere(one["host"])]
        if not allowed:
            raise OSError(errno.EACCES, f"{host} is this machine, which no operator named (--revocation-hosts)")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class Fetcher:
    """Asks, within an ``async with`` block. A host that does not answer is not asked again in it."""

    def __init__(self, named: frozenset[str], only_named: bool) -> None:
        """`named`: hosts (lower case) that an operator named; `only_named`: no others may be asked."""
        self._named = named
        self._only_named = only_named
        self._down: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Resolver(self._named), limit=8, use_dns_cache=False),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "lienthong"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def crl(self, url: str) -> bytes:
        """A list, as DER. Raises FetchError."""
        return await self._ask("GET", url, None, MAX_CRL_BYTES)

    async def ocsp(self, url: str, request: bytes) -> bytes:
        """The answer to an OCSP request. Raises FetchError."""
        return await self._ask("POST", url, request, MAX_OCSP_BYTES)

    def _host(self, url: str) -> str:
        """The host of an address (with its port) that may be asked. Raises FetchError."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise FetchError("its address cannot be read") from None
        if parts.scheme != "http" or not host or parts.username is not None or len(url) > MAX_URL:
            raise FetchError("its address is not http://host/path")
        if host in self._named:
            return f"{host}:{port}"
        if self._only_named:
            raise FetchError(f"{host[:100]} is not among --revocation-hosts")
        try:
            right = _elsewhere(host)
        except ValueError:
            right = True  # a name: its addresses are looked at when it is resolved
        if not right:
            raise FetchError(f"{host} is this machine, which no operator named (--revocation-hosts)")
        return f"{host}:{port}"

    async def _ask(self, method: str, url: str, body: bytes | None, limit: int) -> bytes:
        assert self._session is not None
        host = self._host(url)
        if host in self._down:
            raise FetchError(self._down[host])
        headers = {} if body is None else {"Content-Type": "application/ocsp-request"}
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise FetchError(f"{host} answered {response.status}")
                found = bytearray()
                async for piece in response.content.iter_chunked(1 << 16):
                    found += piece
                    if len(found) > limit:
                        raise FetchError(f"the answer of {host} has more than {limit} bytes")
                return bytes(found)
        except TimeoutError:
            self._down[host] = f"{host} did not answer within {SECONDS:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._down[host] = f"{host} cannot be reached: {error}"[:300]
        raise FetchError(self._down[host])
