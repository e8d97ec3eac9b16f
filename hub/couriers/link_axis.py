"""The peer of a link, spoken to as the national axis's SDK speaks: docs/connecting-with-the-axis-sdk.md.

Whatever a peer answers becomes one of two errors. `PeerError` is for now: nothing is known to have happened, and
the same call is made again later. `PeerRefusedError` is for good: the peer will not have this message.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog

from hub.directory.links import PeerAgency
from hub.directory.picture import Link
from hub.relay.format import Kind
from protocol.problems import LienthongError
from protocol.vxp import SERVICE, Code, Refusal, read_result, sign

log = structlog.get_logger()

MAX_RESULT = 1 << 20
MAX_LIST = 256 << 20
"""Bytes of the longest answer that is read whole: 111,000 agencies are about 20 MB."""
MAX_LEVELS = 10
"""The codes of QCVN 102 have four levels; a tree made by hand may have more."""
MAX_ID = 200
MAX_REASON = 500
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
SLOWEST = 32 << 10
"""Bytes a second: a transfer that is slower is given up, and tried again."""
_PIECE = 256 << 10

_FOR_GOOD = frozenset(
    {
        Code.RECEIVER_UNKNOWN,
        Code.SENDER_UNKNOWN,
        Code.BAD_XML,
        Code.BAD_EDXML,
        Code.RECEIVER_LOCKED,
        Code.BAD_REQUEST,
        Code.NOT_ALLOWED,
        Code.NOT_CONVERTIBLE,
        Code.TOO_LARGE,
        Code.PACKAGE_SIGNATURE,
    }
)
"""What says something about the message. Every other failure is about the hour, or about the link."""
_OF_THE_LINK = frozenset(
    {Code.NOT_AUTHENTICATED, Code.NOT_AS_SIGNED, Code.STALE, Code.DISABLED, Code.NO_SUCH_CALL}
)


class PeerError(LienthongError):
    """Not now. `whole_link`: the next message would not fare better."""

    def __init__(self, text: str, whole_link: bool = False) -> None:
        super().__init__(text)
        self.whole_link = whole_link


class PeerRefusedError(LienthongError):
    """Never: the peer's reason."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the peer's list. `sender` is an agency's code, ``""`` if the list does not say; `to` are those
    that it names as recipients.
    """

    id: str
    sender: str
    to: tuple[str, ...] = ()


class _Item(msgspec.Struct):
    id: str | int = msgspec.field(default="", name="docId")
    sender: str | None = msgspec.field(default=None, name="from")
    to: str | None = None


class _Items(msgspec.Struct):
    data: list[_Item] | None = None


class _Agency(msgspec.Struct):
    id: str | int | None = None
    pid: str | int | None = None
    code: str | None = None
    name: str | None = None
    mail: str | None = None


class _Agencies(msgspec.Struct):
    data: list[_Agency] | None = None


class _Renamed(msgspec.Struct):
    """An agency by its code of Decision 20/2020, and by that of QCVN 102 which it had before."""

    code: str | None = None
    old: str | None = msgspec.field(default=None, name="oldCode")
    qcvn: str | None = msgspec.field(default=None, name="code102")


class _RenamedList(msgspec.Struct):
    data: list[_Renamed] | None = None


class AxisPeer:
    """One peer, for one courier."""

    def __init__(self, link: Link, secret: str, session: aiohttp.ClientSession, max_bytes: int) -> None:
        """`max_bytes`: of the longest message that is fetched."""
        self._link = link
        self._secret = secret
        self._session = session
        self._max_bytes = max_bytes
        self._last = datetime.min.replace(tzinfo=UTC)
        self._streams = True
        self._list = self._known_list = b""

    # -- what goes there ------------------------------------------------------------------------

    async def send(self, path: Path, digest: bytes, sender: str, kind: Kind) -> str:
        """Hand over the edXML file `path`; the peer's id for it. The same bytes may be sent again."""
        parameters = {
            "from": sender,
            "servicetype": SERVICE,
            "messagetype": _messagetype(kind),
            "hash-file": digest.hex(),
        }
        size = (await asyncio.to_thread(path.stat)).st_size
        with await asyncio.to_thread(path.open, "rb") as file:
            found = await self._call("sendEdoc", parameters, file, "application/octet-stream", size)
        name = found.get("DocId")
        if not isinstance(name, str | int) or not _is_id(str(name)):
            raise PeerError("the peer answered OK, but gave no DocId")
        return str(name)

    # -- what comes from there ------------------------------------------------------------------

    async def waiting(self, kind: Kind) -> list[Listed]:
        """What the peer has for this hub, oldest first."""
        body = await self._answer(
            "getReceivedEdocList", {"servicetype": SERVICE, "messagetype": _messagetype(kind)}, limit=MAX_LIST
        )
        items = (await self._decoded(body, _Items)).data or []
        named = {str(item.id): item for item in items}
        return [
            Listed(
                name, (item.sender or "").strip(), tuple(re.split(r"[;,\s]+", item.to.strip())) if item.to else ()
            )
            for name, item in named.items()
            if _is_id(name)
        ]

    async def fetch(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a message, in pieces. Raises PeerError, also after the first piece."""
        parameters = {"docId": name, "filePath": "edoc"}
        if self._streams:
            try:
                async with self._request("downloadEdoc", parameters, "GET") as response:
                    if response.content_type != "application/json" and response.status == 200:
                        if response.content_type in ("text/html", "text/plain"):
                            raise PeerError(f"the peer answered {response.content_type} for a document")
                        async for piece in response.content.iter_chunked(_PIECE):
                            yield piece
                        return
                    _result(response.status, await _read(response, MAX_RESULT))
                    raise PeerError("the peer answered OK, but gave no document")
            except PeerError as error:
                if not error.whole_link:
                    raise
            except aiohttp.ClientError as error:
                raise PeerError(f"the document broke off: {_said(error)}") from None
            except TimeoutError:
                raise PeerError("the document stopped coming") from None
            # No such call there: an axis of before has only the one that gives base64.
        body = await self._answer("getEdoc", parameters, limit=self._max_bytes * 4 // 3 + MAX_RESULT)
        try:
            content = await asyncio.to_thread(_unpacked, body)
        except (binascii.Error, ValueError, TypeError):
            raise PeerError("the peer's base64 is broken") from None
        self._streams = False
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]

    async def end(self, name: str, refused: str | None = None) -> None:
        """Tell the peer that this hub has a message, or why it will not have it."""
        if refused is None:
            await self._call("updateStatus", {"status": "done", "docId": name})
            return
        # The axis has no place for a reason; this hub's own interface reads this header. HTTP wants ASCII.
        reason = " ".join(refused.encode("ascii", "replace").decode().split())[:MAX_REASON] or "refused"
        try:
            await self._call("updateStatus", {"status": "fail", "docId": name, "reason": reason})
        except PeerRefusedError:  # a peer that does not know this parameter
            await self._call("updateStatus", {"status": "fail", "docId": name})

    async def agencies(self) -> list[PeerAgency] | None:
        """The peer's whole list; None when it is, byte for byte, the one that `keep_agencies` was called after."""
        body = await self._answer("getAgenciesList", {}, limit=MAX_LIST)
        levels = await self._levels()
        self._list = await asyncio.to_thread(lambda: hashlib.sha256(b"".join([body, *levels])).digest())
        if self._list == self._known_list:
            return None  # reading 111,000 rows would stop everything else for 100 ms
        rows = (await self._decoded(body, _Agencies)).data or []
        renamed = [row for level in levels for row in (await self._decoded(level, _RenamedList)).data or []]
        return await asyncio.to_thread(_agencies, rows, renamed)

    async def _levels(self) -> list[bytes]:
        """The lists by the codes of Decision 20/2020: of level 1, 2, … until one is empty or all is repeated.

        What a level comprises is not known of every axis. A peer without this list has no other names for anybody.
        """
        found: list[bytes] = []
        for level in range(1, MAX_LEVELS + 1):
            try:
                body = await self._answer("getAgenciesListQD20", {"level": str(level)}, limit=MAX_LIST)
                rows = (await self._decoded(body, _RenamedList)).data
            except (PeerError, PeerRefusedError) as error:
                if not found:
                    log.info("the peer has no list by the newer codes", error=str(error))
                    return []
                raise PeerError(f"the list of level {level}: {error}") from None
            if not rows or body in found:
                break
            found.append(body)
        return found

    def keep_agencies(self, keep: bool = True) -> None:
        """The last list has been carried out, or is to be given again whatever it is."""
        self._known_list = self._list if keep else b""

    # -- calls ----------------------------------------------------------------------------------

    def _now(self) -> datetime:
        """A later millisecond each time: the same call signed in the same one would be a replay."""
        self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
        return self._last

    def _request(
        self,
        call: str,
        parameters: Mapping[str, str],
        method: str = "POST",
        body: Any = None,
        content_type: str = "application/json",
        size: int = 0,
    ) -> Any:
        link = self._link
        headers = sign(
            link.system_id,
            self._secret,
            parameters,
            self._now(),
            content_type=content_type,
            utc_hours=link.utc_hours,
        )
        total = None if method == "GET" else ANSWER_SECONDS + size / SLOWEST
        return self._session.request(
            method,
            f"{link.url}/{call}",
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS),
        )

    async def _answer(
        self,
        call: str,
        parameters: Mapping[str, str],
        body: Any = b"{}",
        content_type: str = "application/json",
        size: int = 0,
        limit: int = MAX_RESULT,
    ) -> bytes:
        """The body of a result that may be a failure. Raises PeerError for what is no result."""
        try:
            async with self._request(call, parameters, "POST", body, content_type, size) as response:
                found = await _read(response, limit)
                if response.status != 200:
                    _result(response.status, found)
                return found
        except aiohttp.ClientConnectorError as error:
            raise PeerError(f"the peer cannot be reached: {_said(error)}", whole_link=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise PeerError(f"the connection broke: {_said(error)}") from None
        except TimeoutError:
            raise PeerError("the peer does not answer in time") from None

    async def _call(
        self,
        call: str,
        parameters: Mapping[str, str],
        body: Any = b"{}",
        content_type: str = "application/json",
        size: int = 0,
    ) -> dict[str, Any]:
        return _result(200, await self._answer(call, parameters, body, content_type, size))

    @staticmethod
    async def _decoded(body: bytes, form: Any) -> Any:
        """A long list. Its members are read once; whether it is a failure at all, its end tells."""

        def decode() -> Any:
            try:
                found = msgspec.json.decode(body, type=form)
            except msgspec.MsgspecError:
                _result(200, body)
                raise PeerError("the peer's list is not in the form that the interface has") from None
            if found.data is None:
                _result(200, body)
            return found

        return await asyncio.to_thread(decode)


def _result(status: int, body: bytes) -> dict[str, Any]:
    """The members of a success. Raises PeerError or PeerRefusedError."""
    if status == 413:
        raise PeerRefusedError("the peer takes no message of this size (HTTP 413)")
    if status != 200:
        kind = status in (401, 403, 404, 405, 429, 502, 503, 504)
        raise PeerError(f"the peer answered HTTP {status}: {_text(body)}", whole_link=kind)
    try:
        return read_result(body)
    except Refusal as refusal:
        text = f"code {refusal.code}: {refusal.description}"
        if refusal.code in _FOR_GOOD:
            raise PeerRefusedError(text) from None
        if refusal.code is Code.AXIS_ERROR and not body.lstrip().startswith(b"{"):
            text = f"{refusal.description}: {_text(body)}"
        raise PeerError(text, whole_link=refusal.code in _OF_THE_LINK) from None


def _text(body: bytes) -> str:
    text = "".join(c if c.isprintable() else " " for c in body[:300].decode("utf-8", "replace"))
    return " ".join(text.split())[:120]


def _said(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        pieces += piece
        if len(pieces) > limit:
            raise PeerError(f"the peer's answer is longer than {limit} bytes")
    return bytes(pieces)


def _unpacked(body: bytes) -> bytes:
    data = _result(200, body).get("data")
    if not isinstance(data, str):
        raise TypeError
    return base64.b64decode("".join(data.split()), validate=True)


def _messagetype(kind: Kind) -> str:
    return "status" if kind is Kind.STATUS else "edoc"


def _is_id(name: str) -> bool:
    """Whether a peer's id can go into a header."""
    return 0 < len(name) <= MAX_ID and name.isascii() and name.isprintable() and name == name.strip()


def _agencies(rows: list[_Agency], renamed: list[_Renamed]) -> list[PeerAgency]:
    codes = {str(row.id): row.code for row in rows if row.id is not None and row.code}
    listed = {row.code for row in rows if row.code}
    others: dict[str, dict[str, None]] = {}
    for other in renamed:
        names = [name for name in (other.code, other.qcvn, other.old) if name]
        for name in names:  # whichever of its names the first list has is its code here
            if name in listed:
                others.setdefault(name, {}).update(dict.fromkeys(one for one in names if one != name))
                break
    found = {}
    for row in rows:
        if row.code:
            parent = codes.get(str(row.pid)) if row.pid is not None else None
            aliases = None if not renamed else tuple(others.get(row.code, ()))
            found[row.code] = PeerAgency(
                row.code, (row.name or "").strip(), parent, (row.mail or "").strip(), aliases
            )
    return list(found.values())
