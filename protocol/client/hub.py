"""A hub, as an agency's system sees it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec
import orjson

from protocol.client.model import ClientError, Entry, Sent, read_entry, read_outcome, read_sent
from protocol.client.signing import Ledger
from protocol.client.stream import Stream
from protocol.client.transport import Transport, raise_for_problem
from protocol.client.work import START, checked, read_cursor, seq_of
from protocol.manifest import MANIFEST_MEDIA_TYPE, MAX_DOCUMENTS, Manifest, seal_documents
from protocol.message import Attachment, Document, seal
from protocol.problems import Problem
from protocol.reasons import RefusalCode
from protocol.signature import JOSE_MEDIA_TYPE, PrivateKey, Signer
from protocol.stream import MAX_ACKS, CursorText, Refusal

__all__ = ["ClientError", "Entry", "HubClient", "Sent", "describe_file"]

CHUNK = 1 << 20
POLL_MARGIN = 15.0
"""How much longer than a long poll its answer may take, in seconds."""


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
    receive. `retry_seconds`: how long to go on when the hub cannot be reached. `sign_acknowledgements`: what this
    client acknowledges or refuses is signed with `key`, and proves for itself what was received.
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
        sign_acknowledgements: bool = False,
    ) -> None:
        self._transport = Transport(url, token, tls, retry_seconds, timeout)
        self._signer = key if isinstance(key, Signer) or key is None else Signer(key)
        self._ledger = Ledger(self._require_signer()) if sign_acknowledgements else None

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
        return seal(document, self._require_signer())

    def sign_together(self, documents: Sequence[Document]) -> Manifest:
        """Documents under one signature, as `send_together` would send them."""
        if not 1 <= len(documents) <= MAX_DOCUMENTS:
            raise ClientError(f"1 to {MAX_DOCUMENTS} documents can be signed together, not {len(documents)}")
        return seal_documents(documents, self._require_signer())

    def _require_signer(self) -> Signer:
        if self._signer is None:
            raise ClientError("to sign, make the client with the private key: HubClient(url, token, key=...)")
        return self._signer

    async def send(self, document: Document) -> Sent:
        """Sign a document and submit it. Attachments must have been uploaded. Raises `Problem`."""
        return await self.submit(self.sign(document))

    async def submit(self, message: bytes, media_type: str = JOSE_MEDIA_TYPE) -> Sent:
        """Submit a message as it is: a compact JWS, or an edXML message with ``application/xml``."""
        headers = {"Content-Type": media_type}
        _, body = await self._transport.request(
            "POST", "/v1/messages", data=lambda: _in_pieces(message), headers=headers
        )
        return read_sent(orjson.loads(body))

    async def submit_many(self, messages: Sequence[bytes]) -> list[Sent | Problem]:
        """Submit many JWS in one request; the outcomes stand in their order, refusals as `Problem`."""
        return await self._submit_all(b"\n".join(messages), "application/x-ndjson")

    async def send_together(self, documents: Sequence[Document]) -> list[Sent | Problem]:
        """Sign up to 1,000 documents with one signature and submit them; each can still be proven alone.

        The outcomes stand in their order. Raises `Problem` when all of them are refused together.
        """
        return await self.submit_manifest(self.sign_together(documents))

    async def submit_manifest(self, manifest: Manifest) -> list[Sent | Problem]:
        """Submit documents that were signed together. Outcomes and `Problem` as of `send_together`."""
        return await self._submit_all(manifest.to_body(), MANIFEST_MEDIA_TYPE)

    async def _submit_all(self, body: bytes, media_type: str) -> list[Sent | Problem]:
        headers = {"Content-Type": media_type}
        _, answer = await self._transport.request(
            "POST", "/v1/messages", data=lambda: _in_pieces(body), headers=headers
        )
        return [read_outcome(orjson.loads(line)) for line in answer.splitlines()]

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

    # -- both, on one connection -----------------------------------------------------------------

    def stream(self, after: str = "0.0.0", messages: int = 1000, size: int = 8 << 20) -> Stream:
        """A stream to this hub, to be used in an ``async with`` block.

        `after`: the cursor from which on it gives mail. `messages` and `size` (bytes) bound the mail that
        is under way to the application.
        """
        return Stream(self._transport, self.sign, self.sign_together, after, messages, size, self._ledger)

    # -- receiving ------------------------------------------------------------------------------

    async def read(self, limit: int = 100, wait: float = 0.0, after: str = "0.0.0") -> tuple[list[Entry], str]:
        """A page of the mailbox, and the cursor that acknowledges it. Raises `Problem`."""
        params = {"limit": str(limit), "wait": f"{wait:g}", "after": after}
        _, body = await self._transport.request(
            "GET", "/v1/mailbox", params=params, read_timeout=wait + POLL_MARGIN
        )
        page = orjson.loads(body)
        entries = [read_entry(members) for members in page["entries"]]
        if self._ledger is not None:
            for entry in entries:
                self._ledger.given(entry)
        return entries, page["cursor"]

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
        if self._ledger is not None:
            cursor = read_cursor(checked(up_to, CursorText)) if up_to is not None else START
            seqs = self._ledger.named(entries, cursor)
            parts = [seqs[start : start + MAX_ACKS] for start in range(0, len(seqs), MAX_ACKS)]
            return sum([int((await self._ack_signed(self._ledger, part))["acknowledged"]) for part in parts])
        asked: dict[str, Any] = {}
        if up_to is not None:
            asked["up_to"] = up_to
        if entries:
            asked["entries"] = [entry.seq if isinstance(entry, Entry) else entry for entry in entries]
        return int((await self._ack(asked))["acknowledged"])

    async def refuse(self, entry: Entry | int, reason: str, code: RefusalCode = "other") -> int:
        """Refuse an entry; its sender is told `reason`, and its system `code` (of `protocol.reasons`).

        Returns 1, or 0 when it had ended before.
        """
        seq = seq_of(entry)
        refusal = checked({"seq": seq, "reason": reason, "code": code}, Refusal)
        if self._ledger is not None:
            self._ledger.named([entry], START)
            return int((await self._ack_signed(self._ledger, (), (refusal,)))["refused"])
        return int((await self._ack({"refuse": [msgspec.to_builtins(refusal)]}))["refused"])

    async def _ack_signed(
        self, ledger: Ledger, seqs: Sequence[int], refusals: tuple[Refusal, ...] = ()
    ) -> dict[str, Any]:
        signed = ledger.sign(seqs, refusals).encode()
        if not signed:
            return {"acknowledged": 0, "refused": 0}
        answer = await self._post_ack(signed, JOSE_MEDIA_TYPE)
        ledger.done([*seqs, *(refusal.seq for refusal in refusals)])
        return answer

    async def _ack(self, asked: dict[str, Any]) -> dict[str, Any]:
        return await self._post_ack(orjson.dumps(asked), "application/json")

    async def _post_ack(self, body: bytes, media_type: str) -> dict[str, Any]:
        headers = {"Content-Type": media_type}
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
        return await self._ask(message, "events")

    async def thread(self, message: str) -> dict[str, Any]:
        """The messages that belong together with one: `ThreadView` of the HTTP interface."""
        return await self._ask(message, "thread")

    async def document(self, message: Entry | str) -> dict[str, Any]:
        """What a message says, converted from edXML if need be: `GivenDocument` of the HTTP interface."""
        return await self._ask(message.id if isinstance(message, Entry) else message, "document")

    async def _ask(self, message: str, what: str) -> dict[str, Any]:
        _, body = await self._transport.request("GET", f"/v1/messages/{quote(message, safe='')}/{what}")
        members: dict[str, Any] = orjson.loads(body)
        return members

    async def proof(self, message: str) -> bytes:
        """All that proves what became of a message, as a file (`protocol.proof`)."""
        return (await self._transport.request("GET", f"/v1/messages/{quote(message, safe='')}/proof"))[1]

    async def hub_keys(self) -> list[dict[str, str]]:
        """The hub's public keys as JWKs, for `protocol.evidence.verify_receipt`."""
        _, body = await self._transport.request("GET", "/v1/hub/keys")
        keys: list[dict[str, str]] = orjson.loads(body)["keys"]
        return keys
