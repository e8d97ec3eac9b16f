"""A hub, as an agency's system sees it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec
import orjson

from protocol.client.transport import Transport, raise_for_problem
from protocol.evidence import Receipt
from protocol.message import Attachment, Document, open_jws, seal
from protocol.problems import LienthongError, Problem, from_members
from protocol.signature import JOSE_MEDIA_TYPE, PrivateKey, Signer

CHUNK = 1 << 20
POLL_MARGIN = 15.0
"""How much longer than a long poll its answer may take, in seconds."""


class ClientError(LienthongError):
    """The client was asked for something that it cannot do; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the hub answered to a message: it has it, and `receipt` proves that."""

    id: str
    receipt: Receipt
    duplicate: bool
    unreachable: tuple[dict[str, str], ...] = ()


@dataclass(slots=True)
class Entry:
    """One message in the mailbox.

    `format` is ``jws``, ``edxml`` or ``receipt``. `body` holds the sender's bytes when they came along
    (small messages); otherwise `HubClient.fetch` gets them.
    """

    seq: int
    lane: str
    id: str
    sender: str
    sender_id: str
    to: tuple[str, ...]
    format: str
    sha256: str
    size: int
    accepted_at: str
    body: bytes | None = None
    receipt: Receipt | None = None
    _document: Document | None = field(default=None, repr=False)

    @property
    def document(self) -> Document:
        """The document of a native message. Raises `ClientError` for another format or an absent body."""
        if self._document is None:
            if self.format != "jws" or self.body is None:
                raise ClientError(f"message {self.id} is {self.format}; get its bytes with `fetch`")
            self._document = open_jws(self.body)[1]
        return self._document


def _sent(members: dict[str, Any]) -> Sent:
    return Sent(
        members["id"],
        msgspec.convert(members["receipt"], Receipt),
        members["state"] == "duplicate",
        tuple(members.get("unreachable", ())),
    )


def _entry(members: dict[str, Any]) -> Entry:
    jws = members.get("jws")
    receipt = members.get("receipt")
    return Entry(
        members["seq"],
        members["lane"],
        members["id"],
        members["from"],
        members["sender_id"],
        tuple(members["to"]),
        members["format"],
        members["sha256"],
        members["size"],
        members["accepted_at"],
        jws.encode("ascii") if jws is not None else None,
        msgspec.convert(receipt, Receipt) if receipt is not None else None,
    )


def describe_file(path: Path, media_type: str = "application/octet-stream", name: str | None = None) -> Attachment:
    """A file as a document names it: hashed in pieces, whatever its size."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Attachment(name=name or path.name, size=size, sha256=digest.hexdigest(), media_type=media_type)


def _in_pieces(body: bytes) -> bytes | io.BytesIO:
    """A body as it should be sent: a large one in pieces, between which the event loop runs."""
    return body if len(body) <= CHUNK else io.BytesIO(body)


async def _file_chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


class HubClient:
    """A connection to a hub, to be used in an ``async with`` block.

    `url`: the hub's address. `token`: what the hub gave this endpoint; or `tls` with a client
    certificate. `key`: signs documents (a private key, or a `Signer` with another `kid`); not needed to
    receive. `retry_seconds`: how long to go on when the hub cannot be reached.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        key: PrivateKey | Signer | None = None,
        tls: ssl.SSLContext | None = None,
        retry_seconds: float = 60.0,
        timeout: float = 60.0,
    ) -> None:
        self._transport = Transport(url, token, tls, retry_seconds, timeout)
        self._signer = key if isinstance(key, Signer) or key is None else Signer(key)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    # -- sending --------------------------------------------------------------------------------

    def sign(self, document: Document) -> bytes:
        """The document as the message that `send` would send."""
        if self._signer is None:
            raise ClientError("to sign, make the client with the private key: HubClient(url, token, key=...)")
        return seal(document, self._signer)

    async def send(self, document: Document) -> Sent:
        """Sign a document and submit it. Attachments must have been uploaded. Raises `Problem`."""
        return await self.submit(self.sign(document))

    async def submit(self, message: bytes, media_type: str = JOSE_MEDIA_TYPE) -> Sent:
        """Submit a message as it is: a compact JWS, or an edXML message with ``application/xml``."""
        headers = {"Content-Type": media_type}
        _, body = await self._transport.request(
            "POST", "/v1/messages", data=lambda: _in_pieces(message), headers=headers
        )
        return _sent(orjson.loads(body))

    async def submit_many(self, messages: Sequence[bytes]) -> list[Sent | Problem]:
        """Submit many JWS in one request; the outcomes stand in their order, refusals as `Problem`."""
        body = b"\n".join(messages)
        headers = {"Content-Type": "application/x-ndjson"}
        _, answer = await self._transport.request(
            "POST", "/v1/messages", data=lambda: _in_pieces(body), headers=headers
        )
        outcomes: list[Sent | Problem] = []
        for line in answer.splitlines():
            members = orjson.loads(line)
            outcomes.append(
                _sent(members) if members["status"] < 400 else from_members(members, members["status"])
            )
        return outcomes

    async def upload(
        self, path: Path, media_type: str = "application/octet-stream", name: str | None = None
    ) -> Attachment:
        """Upload a file in a stream; put the result into `Document.attachments`. Raises `Problem`."""
        attachment = await asyncio.to_thread(describe_file, path, media_type, name)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(attachment.size)}
        await self._transport.request(
            "PUT", f"/v1/attachments/{attachment.sha256}", data=lambda: _file_chunks(path), headers=headers
        )
        return attachment

    # -- receiving ------------------------------------------------------------------------------

    async def read(self, limit: int = 100, wait: float = 0.0, after: str = "0.0.0") -> tuple[list[Entry], str]:
        """A page of the mailbox, and the cursor that acknowledges it. Raises `Problem`."""
        params = {"limit": str(limit), "wait": f"{wait:g}", "after": after}
        _, body = await self._transport.request(
            "GET", "/v1/mailbox", params=params, read_timeout=wait + POLL_MARGIN
        )
        page = orjson.loads(body)
        return [_entry(members) for members in page["entries"]], page["cursor"]

    async def mail(self, wait: float = 30.0, limit: int = 100) -> AsyncIterator[Entry]:
        """Entries as they come, for as long as the caller goes on; each is given once.

        Acknowledge each when it is safe with you; what was not acknowledged comes again to the next
        client.
        """
        cursor = "0.0.0"
        while True:
            entries, cursor = await self.read(limit, wait, cursor)
            for entry in entries:
                yield entry

    async def acknowledge(self, *entries: Entry | int, up_to: str | None = None) -> int:
        """Acknowledge entries, or everything up to a cursor. Returns how many were new to the hub."""
        asked: dict[str, Any] = {}
        if up_to is not None:
            asked["up_to"] = up_to
        if entries:
            asked["entries"] = [entry.seq if isinstance(entry, Entry) else entry for entry in entries]
        return int((await self._ack(asked))["acknowledged"])

    async def refuse(self, entry: Entry | int, reason: str) -> int:
        """Refuse an entry; its sender is told `reason`. Returns 1, or 0 when it had ended before."""
        seq = entry.seq if isinstance(entry, Entry) else entry
        return int((await self._ack({"refuse": [{"seq": seq, "reason": reason}]}))["refused"])

    async def _ack(self, asked: dict[str, Any]) -> dict[str, Any]:
        body = orjson.dumps(asked)
        headers = {"Content-Type": "application/json"}
        _, answer = await self._transport.request("POST", "/v1/mailbox/ack", data=lambda: body, headers=headers)
        members: dict[str, Any] = orjson.loads(answer)
        return members

    async def fetch(self, message: Entry | str) -> bytes:
        """A message's bytes as its sender sent them. Raises `Problem`."""
        name = message.id if isinstance(message, Entry) else message
        _, body = await self._transport.request("GET", f"/v1/messages/{quote(name, safe='')}")
        return body

    async def download(self, attachment: Attachment, path: Path) -> None:
        """Stream an attachment to `path`; a broken transfer goes on where it stopped.

        Raises `Problem`: digest-mismatch when what came is not what the document names; then there is no
        file at `path`.
        """
        partial = path.with_name(path.name + ".part")
        address = f"/v1/attachments/{attachment.sha256}"

        async def attempt() -> None:
            start = partial.stat().st_size if partial.exists() else 0
            if start >= attachment.size > 0:
                return
            headers = {"Range": f"bytes={start}-"} if start else {}
            async with self._transport.open("GET", address, headers=headers) as response:
                await raise_for_problem(response)
                mode = "ab" if response.status == 206 else "wb"
                with partial.open(mode) as file:
                    # What has arrived is written at once: when the connection breaks, what is still in a
                    # buffer is lost and comes again.
                    async for chunk in response.content.iter_any():
                        file.write(chunk)

        await self._transport.retry(attempt)
        found = await asyncio.to_thread(describe_file, partial)
        if found.sha256 != attachment.sha256:
            partial.unlink()
            raise Problem("digest-mismatch", f"what came for {attachment.name} has the SHA-256 {found.sha256}")
        partial.replace(path)

    # -- asking ---------------------------------------------------------------------------------

    async def events(self, message: str) -> dict[str, Any]:
        """What happened to a message (the hub's id, or one's own): `Timeline` of the HTTP interface."""
        _, body = await self._transport.request("GET", f"/v1/messages/{quote(message, safe='')}/events")
        members: dict[str, Any] = orjson.loads(body)
        return members

    async def hub_keys(self) -> list[dict[str, str]]:
        """The hub's public keys as JWKs, for `protocol.evidence.verify_receipt`."""
        _, body = await self._transport.request("GET", "/v1/hub/keys")
        keys: list[dict[str, str]] = orjson.loads(body)["keys"]
        return keys
