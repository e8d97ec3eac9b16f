"""The door for hubs below: what a native link needs beside the native door's mailbox and attachments.

Only endpoints that an operator accepted as hubs come in here (`lienthong link accept`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from aiohttp import web

from hub.config import Config
from hub.couriers.link_told import Teller
from hub.directory import hubs
from hub.directory.change import DirectoryError
from hub.directory.follow import Directory
from hub.directory.picture import Hub, Picture
from hub.doors.edxml_body import Body, in_memory
from hub.doors.http import Caller, Gate, chunks, in_pieces, json_response, read_body, read_json, sizes
from hub.doors.models import Submitted
from hub.doors.native import NDJSON
from hub.doors.operations import Answer, Operation
from hub.doors.operations import Body as Takes
from hub.doors.written import accepted_json, outcome_json
from hub.relay.intake import Intake
from hub.relay.opening import Sender
from hub.store.blobs import Blobs
from protocol.evidence import EvidenceError, verify_receipt
from protocol.link import MAX_BESIDE_BYTES, MAX_LINES, RELAYED_MEDIA_TYPE, Beside, DirectoryTaken, Line, Notice
from protocol.link import Directory as Told
from protocol.problems import Problem
from protocol.signature import thumbprint

MAX_DIRECTORY_BYTES = 64 << 20
_line = msgspec.json.Decoder(Line)
_beside = msgspec.json.Decoder(Beside)


class LinkDoor:
    """The operations below /v1/link."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        intake: Intake,
        blobs: Blobs,
        directory: Directory,
        pool: asyncpg.Pool[Any],
        teller: Teller,
        hub_keys: Sequence[dict[str, str]],
    ) -> None:
        """`hub_keys`: this hub's own, as JWKs."""
        self._config = config
        self._gate = gate
        self._intake = intake
        self._blobs = blobs
        self._directory = directory
        self._pool = pool
        self._teller = teller
        self._hub_keys = hub_keys
        self._told: tuple[Picture, str, bytes] | None = None
        self._telling = asyncio.Lock()

    def operations(self) -> list[Operation]:
        """What this door answers."""
        return [
            Operation(
                "POST",
                "/v1/link/messages",
                "Pass on messages, as a hub that is linked with this one",
                self.pass_on,
                {
                    200: Answer(
                        "One line for each message, in order, with its own `status`", Submitted, (NDJSON,)
                    ),
                    202: Answer("Accepted: on disk. To a message that came alone", Submitted),
                },
                (403, 413, 415, 422, 429),
                Takes(
                    {NDJSON: None, RELAYED_MEDIA_TYPE: None},
                    f"Up to {MAX_LINES} natively written messages, one on each line: `for` (the agencies that it "
                    "is passed on for), `accepted_at`, `hops`, `message`; or one message in edXML, the first "
                    "three on the first line and then its bytes",
                ),
                tag="links",
            ),
            Operation(
                "GET",
                "/v1/link/directory",
                "Whom this hub knows, and with which keys they sign",
                self.tell,
                {200: Answer("The directory; 304 when it is the one that `If-None-Match` names", Told)},
                (403,),
                headers={"If-None-Match": "The `ETag` of the answer before"},
                tag="links",
            ),
            Operation(
                "PUT",
                "/v1/link/directory",
                "Say who lies in the linked hub's own branch, and with which keys they sign",
                self.take,
                {200: Answer("What was taken of it", DirectoryTaken)},
                (403, 413, 422),
                Takes({"application/json": Told}),
                tag="links",
            ),
            Operation(
                "POST",
                "/v1/link/notices",
                "Say how a message ended that had come from this hub",
                self.notice,
                {204: Answer("Its sender is told", None, ())},
                (403, 404, 422),
                Takes({"application/json": Notice}),
                tag="links",
            ),
        ]

    def _hub(self, request: web.Request) -> tuple[Caller, Hub]:
        """Who comes. Raises `Problem` unauthenticated or forbidden."""
        caller = self._gate.endpoint(request)
        hub = self._directory.picture.hubs.get(caller.endpoint)
        if hub is None:
            raise Problem("forbidden", f"{caller.name} is not linked; ask this hub's operator for `link accept`")
        return caller, hub

    # -- messages -------------------------------------------------------------------------------

    async def pass_on(self, request: web.Request) -> web.Response:
        caller, _ = self._hub(request)
        sender = Sender(caller.endpoint, caller.name)
        if request.content_type == NDJSON:
            return await self._submit_lines(request, sender)
        if request.content_type == RELAYED_MEDIA_TYPE:
            return await self._submit_one(request, sender)
        raise Problem(
            "unsupported-media-type", f"send {NDJSON} or {RELAYED_MEDIA_TYPE}, not {request.content_type}"
        )

    async def _submit_lines(self, request: web.Request, sender: Sender) -> web.Response:
        limit = self._config.max_batch_bytes
        with self._intake.room(sender, *sizes(request, limit)) as room:
            body = await read_body(request, limit, self._config.request_seconds, room.reach)
            lines = [_read(_line, line) for line in body.split(b"\n") if line.strip()]
            if not 1 <= len(lines) <= MAX_LINES:
                raise Problem("bad-request", f"send 1 to {MAX_LINES} messages, one on each line")
            room.reach(len(body), len(lines))
            outcomes = await self._intake.relayed(sender, [line.message.encode() for line in lines], lines)
        written = b"".join(outcome_json(outcome) + b"\n" for outcome in outcomes)
        return web.Response(body=written, content_type=NDJSON)

    async def _submit_one(self, request: web.Request, sender: Sender) -> web.Response:
        with self._intake.room(sender, 0) as room, self._intake.upload(sender) as piece:
            limit = self._config.max_xml_bytes + MAX_BESIDE_BYTES
            stream = chunks(request, limit, self._config.request_seconds, in_pieces(room, piece))
            first, rest = await _split(stream)
            beside = _read(_beside, first)
            incoming = await self._blobs.receive(rest, self._config.max_xml_bytes)
            try:
                room.reach(in_memory(incoming))
                stored = await (await Body.of(incoming)).read()
                accepted = await self._intake.edxml(sender, stored, beside)
            finally:
                incoming.drop()
        return json_response(accepted_json(accepted), 200 if accepted.duplicate else 202)

    async def notice(self, request: web.Request) -> web.Response:
        caller, hub = self._hub(request)
        said = read_json(await read_body(request, 1 << 20, self._config.request_seconds), Notice)
        try:
            message = UUID(said.message)
        except ValueError:
            raise Problem("bad-request", "`message` is not an id of this hub") from None
        own = {thumbprint(key): key for key in hub.keys}
        try:
            verify_receipt(said.receipt, own.get)
        except EvidenceError as error:
            raise Problem("bad-request", f"the receipt is not one of the linked hub's: {error}") from None
        await self._teller.tell(caller.endpoint, message, said.receipt)
        return web.Response(status=204)

    # -- directories ----------------------------------------------------------------------------

    async def take(self, request: web.Request) -> web.Response:
        _, hub = self._hub(request)
        body = await read_body(request, MAX_DIRECTORY_BYTES, self._config.request_seconds)
        told = await asyncio.to_thread(read_json, body, Told)
        if told.hub == self._config.hub_name and {key.get("kid") for key in told.hub_keys} & {
            key["kid"] for key in self._hub_keys
        }:
            raise Problem("loop", "this hub is linked with itself")
        await self._directory.refresh()
        try:
            taken = await hubs.take_from_below(self._pool, self._directory.picture, hub, told)
        except DirectoryError as error:
            raise Problem("bad-request", str(error)) from None
        await self._directory.refresh()
        return json_response(msgspec.json.encode(taken))

    async def tell(self, request: web.Request) -> web.Response:
        self._hub(request)
        async with self._telling:  # who comes second gets what the first has made; it is the same for all
            picture = self._directory.picture
            if self._told is None or self._told[0] is not picture:
                body = await asyncio.to_thread(self._written, picture)
                self._told = picture, f'"{hubs.fingerprint(body)}"', body
            _, tag, body = self._told
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        response = json_response(body)
        response.headers["ETag"] = tag
        return response

    def _written(self, picture: Picture) -> bytes:
        told = hubs.told(picture, None, self._config.hub_name, self._hub_keys, datetime.now(UTC))
        return msgspec.json.encode(told)


def _read(decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("bad-request", f"what stands beside a message cannot be read: {error}") from None


async def _split(stream: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first line of a stream, and what follows. Raises `Problem` bad-request."""
    held = b""
    async for piece in stream:
        held += piece
        first, found, after = held.partition(b"\n")
        if len(first) > MAX_BESIDE_BYTES:
            break
        if found:
            return first, _with_rest(after, stream)
    raise Problem("bad-request", "on the first line stands what is said beside the message")


async def _with_rest(first: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in stream:
        yield piece
