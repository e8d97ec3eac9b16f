"""The national axis's HTTP interface: what a system that embeds the axis's SDK finds here.

Its path is free in the SDK; here it is ``/vxp``. Every answer but a document's bytes is HTTP 200 with a JSON
object (`protocol.vxp`), failures too, and whatever goes wrong: a caller of this interface knows nothing else.
docs/connecting-with-the-axis-sdk.md describes the calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hub.config import Config
from hub.couriers.axis import AxisMail, Delivery
from hub.couriers.axis_given import AxisGiver
from hub.couriers.axis_sent import AxisSent
from hub.directory.axis import Change, ReplayedError
from hub.directory.change import DirectoryError
from hub.directory.registrar import Registrar
from hub.doors.edxml_body import edxml_body, edxml_sizes
from hub.doors.vxp_agencies import MAX_LEVEL, AgencyLists, Listing
from hub.doors.vxp_auth import Authenticator, Caller
from hub.doors.vxp_http import JSON, PIECE, as_base64, go_on, is_lost, later, small_body, stream, write
from hub.observe import metrics
from hub.relay.format import Kind
from hub.relay.intake import Intake
from hub.relay.opening import Sender
from hub.relay.route import UNKNOWN
from hub.store.blobs import Blobs
from hub.store.pool import is_away
from protocol.edxml import Header
from protocol.problems import Problem
from protocol.vxp import SERVICE, Code, Refusal, fail, is_digest, local_time, ok, refusal_of

log = structlog.get_logger()

PATH = "/vxp"
_KINDS = {"edoc": Kind.DOCUMENT, "status": Kind.STATUS}
_NAMES = {kind: name for name, kind in _KINDS.items()}

Answer = bytes | Listing | web.StreamResponse
Handler = Callable[[web.Request, Caller], Awaitable[Answer]]


class Agency(msgspec.Struct, frozen=True):
    """The body of /registerAgency. `id` is the caller's own and means nothing here."""

    code: str
    name: str
    pcode: str = ""
    id: str | int | None = None
    mail: str | None = None
    mobile: str | None = None
    fax: str | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    method: Literal["GET", "POST"]
    handler: Handler
    changes: bool = False
    takes_body: bool = False


class AxisDoor:
    """The calls of the interface."""

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        intake: Intake,
        mail: AxisMail,
        giver: AxisGiver,
        sent: AxisSent,
        lists: AgencyLists,
        registrar: Registrar,
        blobs: Blobs,
        repeated_by: Callable[[int, list[UUID]], Awaitable[dict[UUID, list[str]]]],
    ) -> None:
        """`repeated_by` names the documents of an endpoint's that some repeat."""
        self._repeated_by = repeated_by
        self._config = config
        self.authenticator = authenticator
        self._intake = intake
        self.mail = mail
        self._giver = giver
        self._sent = sent
        self._lists = lists
        self._registrar = registrar
        self._blobs = blobs
        self.calls: dict[str, _Call] = {
            "sendEdoc": _Call("POST", self.send, changes=True, takes_body=True),
            "getReceivedEdocList": _Call("POST", self.received),
            "getEdoc": _Call("POST", self.get),
            "downloadEdoc": _Call("GET", self.download),
            "updateStatus": _Call("POST", self.update, changes=True),
            "getSentEdocList": _Call("POST", self.sent),
            "countReceiveEdoc": _Call("POST", self.count_documents),
            "countReceiveStatus": _Call("POST", self.count_statuses),
            "getAgenciesList": _Call("POST", self.agencies),
            "getAgenciesListQD20": _Call("POST", self.agencies_by_level),
            "registerAgency": _Call("POST", self.register, changes=True, takes_body=True),
            "deleteAgency": _Call("POST", self.delete, changes=True),
        }

    def add_to(self, application: web.Application) -> None:
        """Answer everything below `PATH`."""
        # A body that waits for our word is asked for once it is known who sends it.
        for path in (PATH, PATH + "/{call:.*}"):
            application.router.add_route("*", path, self.answer, expect_handler=later)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call, however it ends."""
        name = request.match_info.get("call", "").strip("/")
        caller: Caller | None = None
        refusal: Refusal | None = None
        try:
            call = self.calls.get(name)
            if call is None or call.method != request.method:
                raise Refusal(Code.NO_SUCH_CALL, _no_call(name, call))
            caller = self.authenticator.caller(request, name, call.changes)
            if not call.takes_body:
                await small_body(request, self._config)
            answered = await call.handler(request, caller)
        except Exception as error:
            if is_lost(request):  # an answer that has begun is cut off, so that nobody takes it for whole
                if not isinstance(error, ConnectionError):
                    log.error("an answer broke off", call=name, error=str(error))
                self._forget(caller)
                raise ConnectionResetError("there is nobody to answer") from error
            refusal = _refusal(name, error)
        code = Code.OK
        if refusal is not None:
            answered, code = fail(refusal), refusal.code
        metrics.AXIS_CALLS.labels(name if name in self.calls else "", code.value).inc()
        return await self._deliver(request, answered, caller)

    async def _deliver(self, request: web.Request, answered: Answer, caller: Caller | None) -> web.StreamResponse:
        """Write an answer. One that cannot arrive leaves the request free to come again."""
        try:
            if isinstance(answered, bytes):
                answered = await write(request, answered)
            elif isinstance(answered, Listing):
                answered = await stream(request, JSON, answered.size, answered)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the caller has gone")
            return answered
        except ConnectionError:
            self._forget(caller)
            raise

    def _forget(self, caller: Caller | None) -> None:
        if caller is not None:
            self.authenticator.replays.forget(caller.claim.signature)

    # -- documents ------------------------------------------------------------------------------

    async def send(self, request: web.Request, caller: Caller) -> bytes:
        claim = caller.claim
        kind = _kind(caller)
        digest = claim.get("hash-file").lower()
        if not is_digest(digest):
            raise Refusal(Code.BAD_REQUEST, "hash-file is not a SHA-256 in hex")
        if request.content_type.startswith("multipart/"):
            raise Refusal(Code.BAD_REQUEST, "send the edXML itself as application/octet-stream, not in a form")
        if not self._registrar.speaks_for(caller.system.endpoint, claim.get("from")):
            raise Refusal(Code.SENDER_UNKNOWN, f"{caller.system.id} does not speak for {claim.get('from')[:40]}")
        sender = Sender(caller.system.endpoint, caller.name)
        with self._intake.room(sender, *edxml_sizes(request)) as room:
            await go_on(request)
            upload = partial(self._intake.upload, sender)
            async with edxml_body(request, self._config, self._blobs, room, upload) as body:
                if not body.size:
                    raise Refusal(Code.INVALID_FILE, "the body is empty")
                if body.digest.hex() != digest:
                    found = body.digest.hex()
                    raise Refusal(Code.INVALID_FILE, f"the SHA-256 of the {body.size} bytes is {found}")
                stored = await body.read()
                if isinstance(stored.header, Header) and stored.header.kind != kind.label:
                    is_a = stored.header.kind
                    raise Refusal(Code.BAD_EDXML, f"messagetype announces a {kind.label}, this is a {is_a}")
                accepted = await self._intake.edxml(sender, stored)
        return ok("accepted before" if accepted.duplicate else "", DocId=str(accepted.id))

    async def received(self, request: web.Request, caller: Caller) -> bytes:
        kind = _kind(caller)
        waiting = await self.mail.waiting(caller.system.endpoint, kind)
        repeating = [entry.id for entry in waiting if entry.repeats]
        repeated = await self._repeated_by(caller.system.endpoint, repeating) if repeating else {}
        return ok(
            data=[
                {
                    "docId": str(entry.id),
                    "serviceType": SERVICE,
                    "messageType": _NAMES[kind],
                    "created_time": local_time(entry.accepted_at),
                    "updated_time": local_time(entry.noted_at or entry.accepted_at),
                    "from": entry.sender,
                    "to": ";".join(entry.codes),
                    "status": "processing" if entry.noted_at else "new",
                    "status_desc": ("Đang xử lý" if entry.noted_at else "Chờ nhận")
                    + _repeats(repeated.get(entry.id, ())),
                }
                for entry in waiting
            ]
        )

    async def _delivery(self, caller: Caller) -> Delivery:
        name = caller.claim.get("docid")
        try:
            delivery = await self.mail.delivery(caller.system.endpoint, UUID(name))
        except ValueError:
            delivery = None
        if delivery is None:
            raise Refusal(Code.NO_SUCH_DOCUMENT, f"this system did not get a document {name[:64]!r}")
        return delivery

    async def get(self, request: web.Request, caller: Caller) -> bytes | web.StreamResponse:
        delivery = await self._delivery(caller)
        async with self._giver.open(delivery) as given:
            head, tail = ok(data="").rsplit(b'""', 1)
            size = None if given.size is None else len(head) + 2 + -(-given.size // 3) * 4 + len(tail)
            response = await stream(request, JSON, size, as_base64(given, head, tail))
        self.mail.fetched(caller.system.endpoint, delivery)
        return response

    async def download(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        delivery = await self._delivery(caller)
        async with self._giver.open(delivery) as given:
            response = await stream(request, "application/octet-stream", given.size, given.pieces(PIECE))
        self.mail.fetched(caller.system.endpoint, delivery)
        return response

    async def update(self, request: web.Request, caller: Caller) -> bytes:
        status = caller.claim.get("status").lower()
        if status not in ("done", "fail", "processing"):
            raise Refusal(
                Code.BAD_REQUEST,
                f"status {status[:20]!r} is not done, fail or processing; a business status (01 to 16) is an "
                "edXML message of its own, sent with /sendEdoc",
            )
        delivery = await self._delivery(caller)
        endpoint = caller.system.endpoint
        if status == "processing":
            await self.mail.note(endpoint, delivery)
        elif status == "done":
            await self.mail.end(endpoint, delivery)
        else:
            reason = caller.claim.parameters.get("reason", "")[:500]
            if not reason or not reason.isprintable():
                reason = "the receiving system reported fail"
            await self.mail.end(endpoint, delivery, reason)
        return ok()

    async def sent(self, request: web.Request, caller: Caller) -> bytes:
        name = caller.claim.get("docid")
        lines = await self._sent.find(caller.system.endpoint, name)
        if not lines:
            raise Refusal(Code.NO_SUCH_DOCUMENT, f"this system did not send a document {name[:64]!r}")
        return ok(
            data=[
                {
                    "serviceType": SERVICE,
                    "messageType": _NAMES[line.kind],
                    "senderDocId": str(line.id),
                    "receiverDocId": str(line.id),
                    "fromCode": line.sender,
                    "toCode": line.recipient,
                    "title": line.title,
                    "notation": line.notation,
                    "sendStatus": "done",
                    "sendStatusDesc": "Trục liên thông đã nhận",
                    "receiveStatus": line.state,
                    "receiveStatusDesc": line.explanation,
                    "sentTime": local_time(line.sent_at),
                    "receivedTime": _time_or_nothing(line.ended_at),
                }
                for line in lines
            ]
        )

    async def count_documents(self, request: web.Request, caller: Caller) -> bytes:
        return ok(count=await self.mail.count(caller.system.endpoint, Kind.DOCUMENT))

    async def count_statuses(self, request: web.Request, caller: Caller) -> bytes:
        return ok(count=await self.mail.count(caller.system.endpoint, Kind.STATUS))

    # -- agencies -------------------------------------------------------------------------------

    async def agencies(self, request: web.Request, caller: Caller) -> Listing:
        return await self._lists.by_code()

    async def agencies_by_level(self, request: web.Request, caller: Caller) -> Listing:
        level = caller.claim.parameters.get("level", "") or "0"
        if not (level.isascii() and level.isdigit() and len(level) < 3 and int(level) <= MAX_LEVEL):
            raise Refusal(Code.BAD_REQUEST, f"level {level[:20]!r} is not a number from 0 to {MAX_LEVEL}")
        return await self._lists.by_level(int(level))

    async def register(self, request: web.Request, caller: Caller) -> bytes:
        body = await small_body(request, self._config)
        try:
            asked = msgspec.json.decode(body, type=Agency)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(Code.BAD_REQUEST, f"the body is not an agency as JSON: {error}") from None
        return await self._change(
            caller,
            Change(
                "register",
                asked.code,
                asked.name,
                asked.pcode,
                asked.mail or "",
                asked.mobile or "",
                asked.fax or "",
            ),
        )

    async def delete(self, request: web.Request, caller: Caller) -> bytes:
        return await self._change(caller, Change("delete", caller.claim.get("agencycode")))

    async def _change(self, caller: Caller, change: Change) -> bytes:
        try:
            state = await self._registrar.ask(
                caller.system.id, caller.system.endpoint, change, caller.claim.signature
            )
        except ReplayedError as error:
            raise Refusal(Code.REPLAYED, str(error)) from None
        except DirectoryError as error:
            raise Refusal(Code.NOT_ALLOWED, str(error)) from None
        return ok("waits for the approval of the hub's operator" if state == "waiting" else "")


# -- requests and answers -------------------------------------------------------------------------


def _kind(caller: Caller) -> Kind:
    claim = caller.claim
    service = claim.parameters.get("servicetype", SERVICE)
    if service.lower() != SERVICE.lower():
        raise Refusal(Code.BAD_REQUEST, f"servicetype {service[:20]!r} is not {SERVICE}")
    kind = _KINDS.get(claim.get("messagetype").lower())
    if kind is None:
        raise Refusal(Code.BAD_REQUEST, f"messagetype {claim.get('messagetype')[:20]!r} is not edoc or status")
    return kind


def _repeats(earlier: Sequence[str]) -> str:
    """The interface has no member for it; this one is for people to read."""
    return f"; trùng với văn bản đã gửi trước: {', '.join(earlier)}" if earlier else ""


def _no_call(name: str, call: _Call | None) -> str:
    if call is not None:
        return f"/{name} is a {call.method}"
    if name == "getSynchronizeUnit":
        return "/getSynchronizeUnit is not offered here; /getAgenciesList gives the whole directory"
    return f"there is no call /{name[:60]}"


def _refusal(call: str, error: Exception) -> Refusal:
    """An error as this interface says it."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Problem):
        refusal = refusal_of(error)
        reasons = {item["reason"] for item in error.extra.get("unreachable", ())}
        if refusal.code is Code.RECEIVER_UNKNOWN and reasons and UNKNOWN not in reasons:
            return Refusal(Code.RECEIVER_LOCKED, refusal.description)  # known, but shut
        return refusal
    if isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return Refusal(Code.BAD_REQUEST, "the body is not sent as its headers say")
    if is_away(error):
        log.error("a call of the axis needs the store", call=call, error=str(error))
    else:
        log.exception("a call of the axis failed", call=call)
    return Refusal(Code.AXIS_ERROR)


def _time_or_nothing(moment: datetime | None) -> str:
    return "" if moment is None else local_time(moment)
