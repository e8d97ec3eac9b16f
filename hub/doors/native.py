"""The native door: submit, read, acknowledge, ask. Requests in, answers out; no SQL, no policy."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import BinaryIO
from uuid import UUID

import asyncpg
import msgspec
import orjson
from aiohttp import web

from hub.config import Config
from hub.couriers.mailbox import Mailboxes, Page, cursor_text, read_cursor
from hub.doors.guard import while_connected
from hub.doors.http import (
    Caller,
    Gate,
    blob_response,
    chunks,
    json_response,
    problem_response,
    read_body,
    read_json,
    read_query,
)
from hub.doors.models import (
    Acked,
    AckRequest,
    DeliveryState,
    MailboxPage,
    MailboxQuery,
    MessageId,
    Submitted,
    Timeline,
    Uploaded,
)
from hub.doors.operations import Answer, Body, Operation
from hub.evidence.history import History
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.commit import digest_of
from hub.relay.format import Format
from hub.relay.intake import Accepted, Intake, Sender, Stored
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from hub.store.pool import read_route
from protocol import edxml
from protocol.evidence import RECEIPT_MEDIA_TYPE, Receipt, timestamp
from protocol.message import Lane, Sha256
from protocol.problems import Problem
from protocol.signature import JOSE_MEDIA_TYPE

NDJSON = "application/x-ndjson"
XML = "application/xml"
INLINE_XML_BYTES = 1 << 20
"""A larger edXML message becomes a blob, and its row holds no body."""
_THREAD_XML_BYTES = 64 << 10
"""From here on an edXML message is parsed off the event loop (about 0.5 ms)."""


class NativeDoor:
    """The operations of /v1 that agency systems use."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        intake: Intake,
        mailboxes: Mailboxes,
        acknowledger: Acknowledger,
        history: History,
        attachments: Attachments,
        blobs: Blobs,
    ) -> None:
        self._config = config
        self._gate = gate
        self._intake = intake
        self._mailboxes = mailboxes
        self._acknowledger = acknowledger
        self._history = history
        self._attachments = attachments
        self._blobs = blobs

    def operations(self) -> list[Operation]:
        """What this door answers."""
        receipt_header = {"Location": "Where the message's bytes are"}
        return [
            Operation(
                "POST",
                "/v1/messages",
                "Submit a message, or a batch of messages",
                self.submit,
                {
                    200: Answer(
                        "The message had been accepted before: its first receipt. "
                        "For a batch: one line for each of its lines, in order, with the line's own `status`",
                        Submitted,
                        ("application/json", NDJSON),
                    ),
                    202: Answer("Accepted: on disk", Submitted, headers=receipt_header),
                },
                (409, 413, 415, 422),
                Body(
                    {JOSE_MEDIA_TYPE: None, NDJSON: None, XML: None},
                    "One compact JWS (RFC 7515) whose payload is a `Document` (components/schemas); "
                    "or one JWS a line; or an edXML message",
                ),
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/messages/{id}",
                "The sender's bytes",
                self.fetch,
                {
                    200: Answer(
                        "As they came",
                        None,
                        (JOSE_MEDIA_TYPE, XML, RECEIPT_MEDIA_TYPE),
                        models={RECEIPT_MEDIA_TYPE: Receipt},
                    )
                },
                (404,),
                path_parameters={"id": MessageId},
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/messages/{id}/events",
                "Who has it, since when, with receipts",
                self.events,
                {200: Answer("What happened to the message", Timeline)},
                (404,),
                path_parameters={"id": MessageId},
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/mailbox",
                "Read the mailbox, or wait for mail",
                self.read,
                {200: Answer("A page of the mailbox", MailboxPage)},
                query=MailboxQuery,
                tag="mailbox",
            ),
            Operation(
                "POST",
                "/v1/mailbox/ack",
                "Acknowledge or refuse what was read",
                self.acknowledge,
                {200: Answer("On disk, with its evidence", Acked)},
                (409, 413, 422),
                Body({"application/json": AckRequest}),
                tag="mailbox",
            ),
            Operation(
                "PUT",
                "/v1/attachments/{sha256}",
                "Upload an attachment",
                self.upload,
                {201: Answer("Stored", Uploaded), 200: Answer("It was there already", Uploaded)},
                (413, 422),
                Body({"application/octet-stream": None}, "The attachment's bytes"),
                path_parameters={"sha256": Sha256},
                tag="attachments",
            ),
            Operation(
                "GET",
                "/v1/attachments/{sha256}",
                "Download an attachment, or a range of it",
                self.download,
                {
                    200: Answer("The bytes", None, ("application/octet-stream",)),
                    206: Answer("The range asked for", None, ("application/octet-stream",)),
                },
                (404, 416),
                path_parameters={"sha256": Sha256},
                headers={"Range": "RFC 9110, section 14: `bytes=0-1023`"},
                tag="attachments",
            ),
        ]

    # -- messages -------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        sender = Sender(caller.endpoint, caller.name)
        media_type = request.content_type
        if media_type == JOSE_MEDIA_TYPE:
            limit = self._config.max_message_bytes
            with self._intake.room(_length(request, limit)):
                body = await read_body(request, limit, self._config.request_seconds)
                (outcome,) = await self._intake.native(sender, [body.strip()])
            if isinstance(outcome, Problem):
                return problem_response(outcome)
            return _submitted(outcome)
        if media_type == NDJSON:
            with self._intake.room(_length(request, self._config.max_batch_bytes)):
                return await self._submit_batch(request, sender)
        if media_type in (XML, "text/xml"):
            with self._intake.room(_length(request, INLINE_XML_BYTES)):
                return await self._submit_edxml(request, sender)
        raise Problem(
            "unsupported-media-type",
            f"send {JOSE_MEDIA_TYPE} (one JWS), {NDJSON} (one JWS a line) or {XML} (edXML), not {media_type}",
        )

    async def _submit_batch(self, request: web.Request, sender: Sender) -> web.Response:
        body = await read_body(request, self._config.max_batch_bytes, self._config.request_seconds)
        lines = [line.strip() for line in body.split(b"\n")]
        while lines and not lines[-1]:
            lines.pop()
        limit = self._config.max_batch_messages
        if not lines:
            raise Problem("bad-request", "the batch has no line; write one JWS on each")
        if len(lines) > limit:
            raise Problem(
                "too-large", f"{len(lines)} messages in a batch; at most {limit} are accepted", limit=limit
            )
        answers = []
        for outcome in await self._intake.native(sender, lines):
            if isinstance(outcome, Problem):
                answers.append(outcome.to_json())
            else:
                status = 200 if outcome.duplicate else 202
                answers.append(b'{"status":%d,%b' % (status, _answer_members(outcome)[1:]))
        answers.append(b"")
        return web.Response(body=b"\n".join(answers), content_type=NDJSON)

    async def _submit_edxml(self, request: web.Request, sender: Sender) -> web.Response:
        config = self._config
        length = request.content_length
        if length is not None and length <= INLINE_XML_BYTES:
            body = await read_body(request, INLINE_XML_BYTES, config.request_seconds)
            header = await _read_edxml(body, len(body))
            stored = Stored(header, digest_of(body), len(body), body)
            return _submitted(await self._intake.edxml(sender, stored))
        stream = chunks(request, config.max_xml_bytes, config.request_seconds)
        incoming = await self._blobs.receive(stream, config.max_xml_bytes)

        async def keep() -> None:
            await asyncio.to_thread(incoming.keep)

        try:
            with incoming.path.open("rb") as file:
                header = await _read_edxml(file, incoming.size)
            if incoming.size <= INLINE_XML_BYTES:
                body = await asyncio.to_thread(incoming.path.read_bytes)
                stored = Stored(header, incoming.sha256, incoming.size, body)
            else:
                stored = Stored(header, incoming.sha256, incoming.size, None, keep)
            return _submitted(await self._intake.edxml(sender, stored))
        finally:
            incoming.drop()

    async def _find(self, request: web.Request, caller: Caller) -> asyncpg.Record:
        """The message that the address names, if the caller sent it, gets it, or administers the hub."""
        name = request.match_info["id"]
        row = None
        with contextlib.suppress(ValueError):
            row = await self._history.message(UUID(name))
        if row is None and "\0" not in name:  # which no text in PostgreSQL holds
            row = await self._history.message_of_sender(caller.endpoint, name)
        if row is None or not (
            caller.is_administrator
            or row["endpoint"] == caller.endpoint
            or caller.endpoint in read_route(row["route"])
        ):
            raise Problem("not-found", "no message of yours has this id")
        return row

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        row = await self._find(request, caller)
        headers = {"Digest-SHA-256": row["digest"].hex(), "X-Content-Type-Options": "nosniff"}
        media_type = Format(row["format"]).media_type
        if row["body"] is not None:
            return web.Response(body=row["body"], content_type=media_type, headers=headers)
        path = self._blobs.path(row["digest"])
        return await blob_response(request, path, headers | {"Content-Type": media_type})

    async def events(self, request: web.Request) -> web.Response:
        caller = self._gate.caller(request)
        row = await self._find(request, caller)
        timeline = await self._history.timeline(row)
        # A recipient sees its own deliveries; the sender and administrators see all.
        own = caller.endpoint != row["endpoint"] and not caller.is_administrator
        answer = Timeline(
            id=str(row["id"]),
            sender_id=row["sender_id"],
            sender=row["sender"],
            format=Format(row["format"]).label,  # type: ignore[arg-type]
            lane=Lane(row["lane"]).label,  # type: ignore[arg-type]
            size=row["size"],
            sha256=row["digest"].hex(),
            accepted_at=timestamp(row["accepted_at"]),
            accepted=timeline.accepted,
            expires=timestamp(row["expires_at"]) if row["expires_at"] else None,
            deliveries=tuple(
                DeliveryState(
                    delivery.endpoint,
                    tuple(delivery.recipients),
                    delivery.state,  # type: ignore[arg-type]
                    timestamp(delivery.at) if delivery.at else None,
                    delivery.reason,
                    delivery.receipt,
                )
                for delivery in timeline.deliveries
                if not own or delivery.endpoint == caller.name
            ),
        )
        return json_response(msgspec.json.encode(answer))

    # -- mailbox --------------------------------------------------------------------------------

    async def read(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        query = read_query(request, MailboxQuery)
        with while_connected(request):
            page = await self._mailboxes.read(caller.endpoint, read_cursor(query.after), query.limit, query.wait)
        if query.wait:
            self._gate.endpoint(request)  # its token may have been revoked while it waited
        return json_response(_page_json(page))

    async def acknowledge(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        body = await read_body(request, 1 << 20, self._config.request_seconds)
        asked = read_json(body, AckRequest)
        up_to = read_cursor(asked.up_to) if asked.up_to else (0, 0, 0)
        ended = await self._acknowledger.end(
            Acknowledgement(
                caller.endpoint,
                up_to={lane: seq for lane, seq in enumerate(up_to) if seq},
                entries=set(asked.entries),
                refused={refusal.seq: refusal.reason for refusal in asked.refuse},
            )
        )
        return json_response(msgspec.json.encode(Acked(ended.acknowledged, ended.refused)))

    # -- attachments ----------------------------------------------------------------------------

    def _sha256(self, request: web.Request) -> bytes:
        name = request.match_info["sha256"]
        if len(name) != 64 or set(name) - set("0123456789abcdef"):
            raise Problem("bad-request", "the address ends with the SHA-256 in lower-case hex")
        return bytes.fromhex(name)

    async def upload(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        sha256 = self._sha256(request)
        stream = chunks(request, self._config.max_attachment_bytes, self._config.request_seconds)
        created, size = await self._attachments.store(
            sha256, caller.endpoint, stream, self._config.max_attachment_bytes
        )
        return json_response(msgspec.json.encode(Uploaded(sha256.hex(), size)), 201 if created else 200)

    async def download(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        sha256 = self._sha256(request)
        if not await self._attachments.may_read(sha256, caller.endpoint):
            raise Problem("not-found", "no attachment that you uploaded or were sent has this digest")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": "attachment",
            "ETag": f'"{sha256.hex()}"',
            "X-Content-Type-Options": "nosniff",
        }
        return await blob_response(request, self._blobs.path(sha256), headers)


def _length(request: web.Request, limit: int) -> int:
    """How many bytes of memory a request's body may take: what it says, but at most `limit`."""
    length = request.content_length
    return limit if length is None else min(length, limit)


async def _read_edxml(source: bytes | BinaryIO, size: int) -> edxml.Header | Problem:
    """The header, or why there is none: the refusal is sealed as that of a native message is."""
    try:
        if size < _THREAD_XML_BYTES and isinstance(source, bytes):
            return edxml.read(source, whole=True)
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        return await asyncio.to_thread(edxml.read, stream, whole=True)
    except Problem as problem:
        return problem


def _answer_members(accepted: Accepted) -> bytes:
    """The JSON object of an answer; the receipt is put in as it was written."""
    state = b"duplicate" if accepted.duplicate else b"accepted"
    unreachable = b',"unreachable":' + orjson.dumps(accepted.unreachable) if accepted.unreachable else b""
    return b'{"id":"%b","state":"%b","receipt":%b%b}' % (
        str(accepted.id).encode(),
        state,
        accepted.receipt,
        unreachable,
    )


def _submitted(accepted: Accepted) -> web.Response:
    response = json_response(_answer_members(accepted), 200 if accepted.duplicate else 202)
    response.headers["Location"] = f"/v1/messages/{accepted.id}"
    return response


def _page_json(page: Page) -> bytes:
    """A page as JSON. Bodies are put in as they are: a JWS needs no escape, a receipt is JSON already."""
    entries = []
    for mail in page.entries:
        row = mail.row
        format_ = Format(row["format"])
        entry = {
            "seq": row["seq"],
            "lane": Lane(row["lane"]).label,
            "id": str(row["id"]),
            "sender_id": row["sender_id"],
            "from": row["sender"],
            "to": mail.agencies,
            "format": format_.label,
            "media_type": format_.media_type,
            "size": row["size"],
            "sha256": row["digest"].hex(),
            "accepted_at": timestamp(row["accepted_at"]),
        }
        if row["expires_at"] is not None:
            entry["expires"] = timestamp(row["expires_at"])
        body = row["body"]
        if body is not None and format_ is Format.JWS:
            entry["jws"] = orjson.Fragment(b'"' + body + b'"')
        elif body is not None and format_ is Format.RECEIPT:
            entry["receipt"] = orjson.Fragment(body)
        entries.append(entry)
    return orjson.dumps({"entries": entries, "cursor": cursor_text(page.cursor), "more": page.more})
