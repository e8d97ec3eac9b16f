"""The peer of a native link: another hub, spoken to through its own interface (hub/doors/link.py).

As of the axis's peer, whatever it answers becomes one of two errors: `PeerError`, for now, or `PeerRefusedError`,
for good. One kind of the first is that the peer does not know yet who lies here (`BehindError`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import orjson

from hub.couriers.link_axis import PeerError, PeerRefusedError
from protocol.client.hub import HubClient
from protocol.client.model import Entry, Sent, read_outcome, read_sent
from protocol.client.transport import Transport, raise_for_problem, read_whole
from protocol.evidence import Receipt
from protocol.link import RELAYED_MEDIA_TYPE, Beside, Directory, DirectoryTaken, Line, Notice
from protocol.message import Attachment
from protocol.problems import LienthongError, Problem

NDJSON = "application/x-ndjson"
ANSWER_SECONDS = 60.0
CONNECT_SECONDS = 10.0
DIRECTORY_SECONDS = 120.0
MAX_HELD_BYTES = 64 << 20
"""Of the longest native message or notice that is fetched: more than one request at any hub may have."""
_PIECE = 256 << 10

_BEHIND = frozenset({"unknown-key", "from-not-yours", "key-not-yours"})
"""What a peer says that has not heard yet of an agency or a key here."""
_FOR_GOOD = frozenset(
    {
        "not-a-jws",
        "algorithm-not-allowed",
        "key-disabled",
        "key-expired",
        "certificate-required",
        "certificate-untrusted",
        "certificate-expired",
        "certificate-revoked",
        "bad-signature",
        "bad-manifest",
        "bad-document",
        "id-conflict",
        "too-many-recipients",
        "recipient-unknown",
        "already-expired",
        "not-addressed",
        "not-the-sender",
        "loop",
        "state-secret",
        "bad-xml",
        "bad-edxml",
        "package-signature",
        "pdf-signature",
        "too-large",
    }
)
"""What says something about the message. Every other failure is about the hour, or about the link."""
_OF_THE_MESSAGE = frozenset({"key-not-approved", "attachment-missing", "digest-mismatch", "revocation-unknown"})
"""What may change, and says nothing of the next message."""


class BehindError(PeerError):
    """The peer does not know an agency or a key of this hub's, or did not a moment ago."""


class MissingError(PeerError):
    """The peer does not have a file that a message names."""


def error_of(problem: Problem) -> PeerError | PeerRefusedError:
    """A peer's problem as a link takes it."""
    text = f"{problem.code}: {problem}"
    if problem.code in _BEHIND:
        return BehindError(text)
    if problem.code in _FOR_GOOD:
        return PeerRefusedError(text)
    if problem.code == "attachment-missing":
        return MissingError(text)
    return PeerError(text, whole_link=problem.code not in _OF_THE_MESSAGE)


class NativePeer:
    """One peer, for one courier; to be used in an ``async with`` block."""

    def __init__(self, url: str, token: str, max_bytes: int) -> None:
        """`max_bytes`: of the longest message that is fetched."""
        self._transport = Transport(url, token, None, 0.0, ANSWER_SECONDS)
        self.client = HubClient(url, token, retry_seconds=0.0, timeout=ANSWER_SECONDS)
        self.max_bytes = max_bytes
        self._tag = ""

    async def __aenter__(self) -> NativePeer:
        await self._transport.__aenter__()
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.client.__aexit__(*error)
        await self._transport.__aexit__(*error)

    async def _request(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        try:
            return await self._transport.request(method, path, **options)
        except Problem as problem:
            raise error_of(problem) from None

    # -- what goes there ------------------------------------------------------------------------

    async def send_lines(self, lines: Sequence[Line]) -> list[Sent | PeerError | PeerRefusedError]:
        """Pass on natively written messages; what became of each. Raises PeerError for all together."""
        body = b"\n".join(map(msgspec.json.encode, lines))
        headers = {"Content-Type": NDJSON}
        _, answer = await self._request("POST", "/v1/link/messages", data=lambda: body, headers=headers)
        try:
            outcomes = [read_outcome(orjson.loads(line)) for line in answer.splitlines()]
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
            raise PeerError("what the peer answered cannot be read") from None
        if len(outcomes) != len(lines):
            raise PeerError(f"the peer answered {len(outcomes)} of {len(lines)} messages")
        return [error_of(outcome) if isinstance(outcome, Problem) else outcome for outcome in outcomes]

    async def send_whole(self, beside: Beside, source: bytes | Path) -> Sent:
        """Pass on one message in edXML, from memory or from a file. Raises PeerError or PeerRefusedError."""
        first = msgspec.json.encode(beside) + b"\n"
        headers = {"Content-Type": RELAYED_MEDIA_TYPE}
        _, answer = await self._request(
            "POST", "/v1/link/messages", data=lambda: _after(first, source), headers=headers
        )
        try:
            return read_sent(orjson.loads(answer))
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
            raise PeerError("what the peer answered cannot be read") from None

    async def upload(self, attachment: Attachment, path: Path) -> None:
        """Give the peer a file that a message names. Raises PeerError or PeerRefusedError."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(attachment.size)}
        await self._request(
            "PUT", f"/v1/attachments/{attachment.sha256}", data=lambda: _pieces(path), headers=headers
        )

    async def notify(self, message: str, receipt: Receipt) -> None:
        """Say how what the peer calls `message` ended here. Raises PeerError or PeerRefusedError."""
        body = msgspec.json.encode(Notice(message, receipt))
        headers = {"Content-Type": "application/json"}
        try:
            await self._transport.request("POST", "/v1/link/notices", data=lambda: body, headers=headers)
        except Problem as problem:
            if problem.code == "not-found":  # it has left the peer, and with it whoever wants to know
                raise PeerRefusedError(f"{problem.code}: {problem}") from None
            if problem.code == "bad-request":  # it may not know the key with which this is sealed
                raise BehindError(f"{problem.code}: {problem}") from None
            raise error_of(problem) from None

    async def tell(self, directory: bytes) -> DirectoryTaken:
        """Say who lies here (a `Directory` as JSON). Raises PeerError or PeerRefusedError."""
        headers = {"Content-Type": "application/json"}
        _, answer = await self._request(
            "PUT", "/v1/link/directory", data=lambda: directory, headers=headers, read_timeout=DIRECTORY_SECONDS
        )
        taken: DirectoryTaken = self._decoded(answer, DirectoryTaken)
        return taken

    # -- what comes from there ------------------------------------------------------------------

    async def directory(self) -> tuple[Directory, str] | None:
        """Whom the peer knows, and the tag to `keep`; None when that is what was kept. Raises PeerError."""
        headers = {"If-None-Match": self._tag} if self._tag else {}
        try:
            async with self._transport.open(
                "GET",
                "/v1/link/directory",
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=DIRECTORY_SECONDS
                ),
            ) as response:
                if response.status == 304:
                    return None
                await raise_for_problem(response)
                body, tag = await read_whole(response), response.headers.get("ETag", "")
        except Problem as problem:
            raise error_of(problem) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerError(f"the peer cannot be reached: {str(error)[:200]}", whole_link=True) from None
        return await asyncio.to_thread(self._decoded, body, Directory), tag

    def keep(self, tag: str) -> None:
        """The directory of this tag has been carried out; ``""``: ask for it whatever it is."""
        self._tag = tag

    @staticmethod
    def _decoded(body: bytes, form: Any) -> Any:
        try:
            return msgspec.json.decode(body, type=form)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PeerError(f"what the peer answered is not in the form that links have: {error}") from None

    async def read(self, limit: int, wait: float, after: str) -> tuple[list[Entry], str]:
        """A page of the mailbox there, and where reading goes on. Raises PeerError."""
        try:
            return await self.client.read(limit, wait, after)
        except Problem as problem:
            raise _for_now(problem) from None
        except (LienthongError, ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise PeerError(f"a page of the peer's cannot be read: {error}") from None

    async def acknowledge(self, entries: Sequence[int], refused: dict[int, str]) -> None:
        """Say what this hub has, and what it will not have. Raises PeerError."""
        asked = {"entries": entries, "refuse": [{"seq": seq, "reason": why} for seq, why in refused.items()]}
        body = orjson.dumps({name: value for name, value in asked.items() if value})
        headers = {"Content-Type": "application/json"}
        try:
            await self._transport.request("POST", "/v1/mailbox/ack", data=lambda: body, headers=headers)
        except Problem as problem:
            raise _for_now(problem) from None

    async def fetch_whole(self, name: str) -> bytes:
        """The bytes of a message that is held in memory. Raises PeerError."""
        held = bytearray()
        async for piece in self.fetch(name):
            held += piece
            if len(held) > MAX_HELD_BYTES:
                raise PeerError(f"the peer gave a message of more than {MAX_HELD_BYTES} bytes")
        return bytes(held)

    def fetch(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a message, in pieces. Raises PeerError, also after the first piece."""
        try:
            id_ = UUID(name)
        except ValueError:
            raise PeerError(f"the peer names a message {name[:64]!r}, which is no id") from None
        return self._pieces(f"/v1/messages/{id_}", "the message")

    def download(self, attachment: Attachment) -> AsyncIterator[bytes]:
        """The bytes of a file that a message names, in pieces. Raises PeerError."""
        return self._pieces(f"/v1/attachments/{attachment.sha256}", "a file")

    async def _pieces(self, path: str, what: str) -> AsyncIterator[bytes]:
        try:
            async with self._transport.open("GET", path) as response:
                await raise_for_problem(response)
                async for piece in response.content.iter_chunked(_PIECE):
                    yield piece
        except Problem as problem:
            raise _for_now(problem) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PeerError(f"{what} broke off: {str(error)[:200]}") from None


def _for_now(problem: Problem) -> PeerError:
    found = error_of(problem)
    return found if isinstance(found, PeerError) else PeerError(str(found))


async def _after(first: bytes, source: bytes | Path) -> AsyncIterator[bytes]:
    yield first
    if isinstance(source, bytes):
        yield source
        return
    async for piece in _pieces(source):
        yield piece


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
