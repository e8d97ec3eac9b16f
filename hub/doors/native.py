"""The native door: submit, read, acknowledge, ask. Requests in, answers out; no SQL, no policy."""

from __future__ import annotations

import contextlib
from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from hub.config import Config
from hub.couriers.beside import Besides
from hub.couriers.mailbox import Mailboxes, read_cursor
from hub.doors.edxml_body import edxml_body, edxml_sizes
from hub.doors.find import Finder
from hub.doors.guard import while_connected
from hub.doors.http import (
    Gate,
    blob_response,
    chunks,
    in_pieces,
    json_response,
    problem_response,
    read_body,
    read_json,
    read_query,
    sizes,
)
from hub.doors.models import (
    Acked,
    AckRequest,
    MailboxPage,
    MailboxQuery,
    MessageId,
    Submitted,
    Uploaded,
)
from hub.doors.operations import Answer, Body, Operation
from hub.doors.written import accepted_json, outcome_json, page_json
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.admission import Room
from hub.relay.answering import Accepted
from hub.relay.format import Format
from hub.relay.intake import Intake
from hub.relay.opening import Sender
from hub.relay.signed import SignedAcknowledgements
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from protocol.evidence import RECEIPT_MEDIA_TYPE, Receipt
from protocol.manifest import ENTRY_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from protocol.message import Sha256
from protocol.problems import Problem
from protocol.signature import JOSE_MEDIA_TYPE

NDJSON = "application/x-ndjson"
XML = "application/xml"


class NativeDoor:
    """The operations of /v1 that agency systems use."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        intake: Intake,
        mailboxes: Mailboxes,
        acknowledger: Acknowledger,
        finder: Finder,
        attachments: Attachments,
        blobs: Blobs,
        besides: Besides,
        signed: SignedAcknowledgements,
    ) -> None:
        self._besides = besides
        self._signed = signed
        self._config = config
        self._gate = gate
        self._intake = intake
        self._mailboxes = mailboxes
        self._acknowledger = acknowledger
        self._finder = finder
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
                (409, 413, 415, 422, 429),
                Body(
                    {JOSE_MEDIA_TYPE: None, NDJSON: None, MANIFEST_MEDIA_TYPE: None, XML: None},
                    "One compact JWS (RFC 7515) whose payload is a `Document` (components/schemas); "
                    "or one JWS a line; or a manifest's JWS and one document a line; or an edXML message",
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
                        (JOSE_MEDIA_TYPE, ENTRY_MEDIA_TYPE, XML, RECEIPT_MEDIA_TYPE),
                        models={RECEIPT_MEDIA_TYPE: Receipt},
                    )
                },
                (404, 410),
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
                Body(
                    {"application/json": AckRequest, JOSE_MEDIA_TYPE: None},
                    "As JSON; or the same under the recipient's signature, a compact JWS (docs/events.md)",
                ),
                tag="mailbox",
            ),
            Operation(
                "PUT",
                "/v1/attachments/{sha256}",
                "Upload an attachment",
                self.upload,
                {201: Answer("Stored", Uploaded), 200: Answer("It was there already", Uploaded)},
                (413, 422, 429),
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
            with self._intake.room(sender, *sizes(request, limit)) as room:
                body = await read_body(request, limit, self._config.request_seconds, room.reach)
                (outcome,) = await self._intake.native(sender, [body.strip()])
            if isinstance(outcome, Problem):
                return problem_response(outcome)
            return _submitted(outcome)
        if media_type == NDJSON:
            with self._intake.room(sender, *sizes(request, self._config.max_batch_bytes)) as room:
                return await self._submit_batch(request, sender, room)
        if media_type == MANIFEST_MEDIA_TYPE:
            with self._intake.room(sender, *sizes(request, self._config.max_batch_bytes)) as room:
                return await self._submit_manifest(request, sender, room)
        if media_type in (XML, "text/xml"):
            with self._intake.room(sender, *edxml_sizes(request)) as room:
                return await self._submit_edxml(request, sender, room)
        raise Problem(
            "unsupported-media-type",
            f"send {JOSE_MEDIA_TYPE} (one JWS), {NDJSON} (one JWS a line), {MANIFEST_MEDIA_TYPE} (documents that "
            f"one JWS signs) or {XML} (edXML), not {media_type}",
        )

    async def _submit_batch(self, request: web.Request, sender: Sender, room: Room) -> web.Response:
        body = await read_body(request, self._config.max_batch_bytes, self._config.request_seconds, room.reach)
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
        room.reach(len(body), len(lines))
        return _outcomes(await self._intake.native(sender, lines))

    async def _submit_manifest(self, request: web.Request, sender: Sender, room: Room) -> web.Response:
        body = await read_body(request, self._config.max_batch_bytes, self._config.request_seconds, room.reach)
        jws, *documents = body.rstrip(b"\r\n").split(b"\n")
        if not documents:
            raise Problem("bad-manifest", "after the manifest's JWS comes one document on each line")
        room.reach(len(body), len(documents))
        return _outcomes(
            await self._intake.manifest(sender, jws.strip(), [document.strip() for document in documents])
        )

    async def _submit_edxml(self, request: web.Request, sender: Sender, room: Room) -> web.Response:
        upload = partial(self._intake.upload, sender)
        async with edxml_body(request, self._config, self._blobs, room, upload) as body:
            return _submitted(await self._intake.edxml(sender, await body.read()))

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        row = await self._finder.content(request, caller)
        headers = {"Digest-SHA-256": row["digest"].hex(), "X-Content-Type-Options": "nosniff"}
        media_type = Format(row["format"]).media_type
        response: web.StreamResponse
        if row["body"] is not None:
            response = web.Response(body=row["body"], content_type=media_type, headers=headers)
        else:
            path = self._blobs.path(row["digest"])
            response = await blob_response(request, path, headers | {"Content-Type": media_type})
        await response.prepare(request)
        await response.write_eof()
        if response.status == HTTPStatus.OK:  # else it is a part of it
            self._finder.handed_over(row, caller)
        return response

    # -- mailbox --------------------------------------------------------------------------------

    async def read(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        query = read_query(request, MailboxQuery)
        async with contextlib.AsyncExitStack() as stack:
            reading = self._mailboxes.reading(caller.endpoint, read_cursor(query.after), query.limit, query.wait)
            with while_connected(request):
                page = await stack.enter_async_context(reading)
            self._gate.endpoint(request)  # its token may have been revoked while it waited, for mail or in line
            said = await self._besides.of(caller.endpoint, page.entries)
            response = json_response(page_json(page, said))
            # The page stays in hand until the reader has taken it: one that is slow gets no further ones.
            await response.prepare(request)
            await response.write_eof()
            self._mailboxes.handed_over(caller.endpoint, page.entries)
        return response

    async def acknowledge(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        body = await read_body(request, 1 << 20, self._config.request_seconds)
        if request.content_type == JOSE_MEDIA_TYPE:
            ended = await self._acknowledger.end(await self._signed.open(caller.endpoint, body.strip()))
            return json_response(msgspec.json.encode(Acked(ended.acknowledged, ended.refused)))
        self._signed.require_signed(caller.endpoint)
        asked = read_json(body, AckRequest)
        up_to = read_cursor(asked.up_to) if asked.up_to else (0, 0, 0)
        ended = await self._acknowledger.end(
            Acknowledgement(
                caller.endpoint,
                up_to={lane: seq for lane, seq in enumerate(up_to) if seq},
                entries=set(asked.entries),
                refused={refusal.seq: refusal.reason for refusal in asked.refuse},
                codes={refusal.seq: refusal.code for refusal in asked.refuse},
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
        sender = Sender(caller.endpoint, caller.name)
        sha256, limit = self._sha256(request), self._config.max_attachment_bytes
        with self._intake.room(sender, 0, messages=0) as room, self._intake.upload(sender) as piece:
            stream = chunks(request, limit, self._config.request_seconds, in_pieces(room, piece))
            created, size = await self._attachments.store(sha256, caller.endpoint, stream, limit)
        self._intake.uploaded(sender, sha256)
        return json_response(msgspec.json.encode(Uploaded(sha256.hex(), size)), 201 if created else 200)

    async def download(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        sha256 = self._sha256(request)
        async with self._finder.turns.of(caller.endpoint):
            allowed = await self._attachments.may_read(sha256, caller.endpoint)
        if not allowed:
            raise Problem("not-found", "no attachment that you uploaded or were sent has this digest")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": "attachment",
            "ETag": f'"{sha256.hex()}"',
            "X-Content-Type-Options": "nosniff",
        }
        return await blob_response(request, self._blobs.path(sha256), headers)


def _outcomes(outcomes: list[Accepted | Problem]) -> web.Response:
    """The answer to many messages: one line each, in their order."""
    body = b"".join(outcome_json(outcome) + b"\n" for outcome in outcomes)
    return web.Response(body=body, content_type=NDJSON)


def _submitted(accepted: Accepted) -> web.Response:
    response = json_response(accepted_json(accepted), 200 if accepted.duplicate else 202)
    response.headers["Location"] = f"/v1/messages/{accepted.id}"
    return response
