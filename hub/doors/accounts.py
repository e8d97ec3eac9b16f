"""The door for questions about messages: who has it, where it stands, what belongs to it, what it says."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import orjson
from aiohttp import web

from hub.catalogue import Catalogue
from hub.couriers.axis import Delivery
from hub.couriers.axis_given import AxisGiver
from hub.couriers.native_given import NativeGiver
from hub.directory.follow import Directory
from hub.doors import models
from hub.doors.find import Finder, is_withdrawn
from hub.doors.http import Caller, Gate, json_response
from hub.doors.models import GivenDocument, MessageId, ThreadView, Timeline
from hub.doors.operations import Answer, Operation
from hub.evidence import history
from hub.evidence.deadlines import times
from hub.evidence.describe import Describer, Description
from hub.evidence.history import History
from hub.evidence.states import SpokenOf, States
from hub.evidence.thread import Member, Threads
from hub.pdf.result import PdfResult
from hub.relay.format import BUSINESS, Format, Kind
from hub.store.routes import Routes
from protocol.evidence import STANDARD_EVENTS, EventKind, timestamp
from protocol.message import Lane
from protocol.problems import Problem
from protocol.status import VIETNAMESE, Standing, State
from protocol.vxp import Refusal

XML = "application/xml"
CONVERTED = "Lienthong-Converted"
_PIECE = 256 << 10
_DONE = frozenset({State.FINISHED, State.REFUSED})


class AccountDoor:
    """The operations below /v1/messages/{id}."""

    def __init__(
        self,
        gate: Gate,
        finder: Finder,
        history: History,
        states: States,
        threads: Threads,
        describer: Describer,
        natives: NativeGiver,
        axis: AxisGiver,
        catalogue: Catalogue,
        routes: Routes,
        directory: Directory,
    ) -> None:
        self._gate = gate
        self._finder = finder
        self._history = history
        self._states = states
        self._threads = threads
        self._describer = describer
        self._natives = natives
        self._axis = axis
        self._catalogue = catalogue
        self._routes = routes
        self._directory = directory

    def operations(self) -> list[Operation]:
        """What this door answers."""
        parameters = {"id": MessageId}
        return [
            Operation(
                "GET",
                "/v1/messages/{id}/events",
                "Who has it, since when, with receipts; where it stands with them",
                self.events,
                {200: Answer("What happened to the message", Timeline)},
                (404,),
                path_parameters=parameters,
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/messages/{id}/thread",
                "What belongs together: updates, replacements, recalls, answers, states",
                self.thread,
                {200: Answer("The messages of the thread that the caller sent or got", ThreadView)},
                (404,),
                path_parameters=parameters,
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/messages/{id}/document",
                "What it says, as a document, whatever it was written in",
                self.document,
                {200: Answer("The sender's own document, or a conversion that says so", GivenDocument)},
                (404, 410, 422),
                path_parameters=parameters,
                tag="messages",
            ),
            Operation(
                "GET",
                "/v1/messages/{id}/edxml",
                "The same as edXML",
                self.edxml,
                {
                    200: Answer(
                        "The sender's own bytes, or a conversion",
                        None,
                        (XML,),
                        {CONVERTED: "`true` when it was made out of another format, else `false`"},
                    )
                },
                (404, 410, 422),
                path_parameters=parameters,
                tag="messages",
            ),
        ]

    # -- what happened --------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.Response:
        caller = self._gate.caller(request)
        async with self._finder.turns.of(caller.endpoint):
            row = await self._finder.message(request, caller)
            timeline = await self._history.timeline(row)
            standings = await self._states.of(row) if row["kind"] == Kind.DOCUMENT else {}
            spoken = await self._spoken_of(row)
            signatures = await self._history.package_signatures(row)
            described = times(await self._describer.of(row), row["accepted_at"], datetime.now(UTC))
            route = await self._routes.get(row["route"])
        # A recipient sees its own deliveries; the sender and administrators see all.
        own = caller.endpoint != row["endpoint"] and not caller.is_administrator
        mine = frozenset(route.get(caller.endpoint, ()))
        shown_times = models.Times(
            described.issued,
            _time(described.sent_at),
            _time(described.send_by),
            described.late,
            described.due,
            described.overdue,
        )
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
            expires=_time(row["expires_at"]),
            deliveries=tuple(
                _delivery(delivery)
                for delivery in timeline.deliveries
                if not own or delivery.endpoint == caller.name
            ),
            kind=Kind(row["kind"]).label,  # type: ignore[arg-type]
            business=_business(row),  # type: ignore[arg-type]
            # What is read out of its bytes is for who may read those.
            times=None if is_withdrawn(row, caller) or shown_times == models.Times() else shown_times,
            states=tuple(
                _standing(agency, standing, described.overdue)
                for agency, standing in standings.items()
                if not own or agency in mine
            ),
            speaks_of=tuple(map(_speaks_of, spoken)),
            package_signatures=tuple(
                models.PackageSignature(**found) for found in signatures if not is_withdrawn(row, caller)
            ),
            events=tuple(
                _event(event)
                for event in timeline.events
                if (not own or event.endpoint in ("", caller.name))
                and not (event.kind == EventKind.SIGNATURES_CHECKED and is_withdrawn(row, caller))
            ),
        )
        return json_response(msgspec.json.encode(answer))

    async def _spoken_of(self, row: asyncpg.Record) -> list[SpokenOf]:
        picture = self._directory.picture

        def endpoint_of(agency: str) -> int | None:
            found = picture.agency(agency) if agency else None
            return None if found is None else found.endpoint

        return await self._states.speaks_of(row, endpoint_of)

    async def thread(self, request: web.Request) -> web.Response:
        caller = self._gate.caller(request)
        async with self._finder.turns.of(caller.endpoint):
            row = await self._finder.message(request, caller)
            thread = await self._threads.of(
                row["id"], lambda found, route: self._finder.may_see(found, route, caller)
            )
            seen = {member.row["id"]: (member.row, member.description) for member in thread.members}
            duplicates = await self._duplicates(caller, seen)
        members = (_member(member, caller, duplicates) for member in thread.members)
        view = ThreadView(tuple(members), thread.more)
        return json_response(msgspec.json.encode(view))

    async def _duplicates(
        self, caller: Caller, messages: dict[UUID, tuple[asyncpg.Record, Description]]
    ) -> dict[UUID, list[str]]:
        """Of each message, the documents among those of the caller that it repeats."""
        shown = {id_: pair for id_, pair in messages.items() if not is_withdrawn(pair[0], caller)}
        found = await self._catalogue.duplicates(shown.values())
        await self._routes.load(row["route"] for rows in found.values() for row in rows)
        own = {
            id_: [
                str(row["id"])
                for row in rows
                if self._finder.may_see(row, self._routes.read(row["route"]), caller)
            ]
            for id_, rows in found.items()
        }
        return {id_: names for id_, names in own.items() if names}

    # -- what it says ---------------------------------------------------------------------------

    async def document(self, request: web.Request) -> web.Response:
        caller = self._gate.endpoint(request)
        row = await self._finder.content(request, caller)
        document, converted = await self._natives.document(row)
        description = await self._describer.of(row)
        duplicates = await self._duplicates(caller, {row["id"]: (row, description)})
        members = {
            "id": str(row["id"]),
            "format": Format(row["format"]).label,
            "converted": converted,
            "document": msgspec.Raw(document),
        }
        if duplicates:
            members["duplicate_of"] = duplicates[row["id"]]
        response = json_response(msgspec.json.encode(members))
        await response.prepare(request)
        await response.write_eof()
        self._finder.handed_over(row, caller)
        return response

    async def edxml(self, request: web.Request) -> web.StreamResponse:
        caller = self._gate.endpoint(request)
        row = await self._finder.content(request, caller)
        if row["kind"] == Kind.NOTICE:
            raise Problem("not-convertible", "a notice of the hub is a receipt; it is no document")
        route = await self._routes.get(row["route"])
        delivery = Delivery(
            row["id"],
            row["accepted_at"],
            tuple(code for codes in route.values() for code in codes),
            Lane(row["lane"]),
            row["seq"],
            Format(row["format"]),
            Kind(row["kind"]),
            row["digest"],
            row["size"],
            row["body"],
        )
        headers = {
            "Content-Type": XML,
            CONVERTED: "false" if row["format"] == Format.EDXML else "true",
            "X-Content-Type-Options": "nosniff",
        }
        try:
            async with self._axis.open(delivery) as given:
                response = web.StreamResponse(headers=headers)
                if given.size is not None:
                    response.content_length = given.size
                await response.prepare(request)
                async for piece in given.pieces(_PIECE):
                    await response.write(piece)
        except Refusal as refusal:
            raise Problem("not-convertible", refusal.description) from None
        await response.write_eof()
        self._finder.handed_over(row, caller)
        return response


def _standard(kind: str) -> tuple[str, ...]:
    return STANDARD_EVENTS[EventKind(kind)] if kind in frozenset(EventKind) else ()


def _delivery(delivery: history.Delivery) -> models.DeliveryState:
    handed = delivery.handed_over
    return models.DeliveryState(
        delivery.endpoint,
        tuple(delivery.recipients),
        delivery.state,  # type: ignore[arg-type]
        _time(delivery.at),
        delivery.code,
        delivery.reason,
        delivery.receipt,
        _standard(delivery.state),
        None if handed is None else models.HandOver(timestamp(handed.at), handed.receipt, _standard(handed.kind)),
        delivery.acknowledgement,
    )


def _event(event: history.Event) -> models.EventView:
    return models.EventView(
        event.kind,
        timestamp(event.at),
        event.receipt,
        _standard(event.kind),
        event.endpoint,
        tuple(event.recipients),
        event.code,
        event.reason,
        event.acknowledgement,
        *_checked(event),
    )


def _checked(event: history.Event) -> tuple[models.CheckedAttachment, PdfResult] | tuple[()]:
    if event.kind != EventKind.SIGNATURES_CHECKED or event.receipt is None:
        return ()
    members = orjson.loads(event.receipt.event)
    attachment = msgspec.convert(members["attachment"], models.CheckedAttachment)
    return attachment, msgspec.convert(members["pdf"], PdfResult)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _business(row: asyncpg.Record) -> str:
    return BUSINESS[row["business"]]


def _label(code: str | None) -> str:
    return VIETNAMESE[State(code)] if code in frozenset(State) else ""


def _standing(agency: str, standing: Standing, overdue: bool) -> models.AgencyStates:
    return models.AgencyStates(
        agency,
        tuple(
            models.StateReport(
                report.code,
                timestamp(report.came_at),
                report.message,
                _label(report.code),
                _time(report.said_at),
                note,
            )
            for report, note in standing.reports
        ),
        standing.current,
        _label(standing.current),
        standing.handling,
        standing.change,
        overdue and standing.handling not in _DONE,
    )


def _speaks_of(spoken: SpokenOf) -> models.SpeaksOf:
    return models.SpeaksOf(
        spoken.name,
        spoken.relation.label,  # type: ignore[arg-type]
        "known" if spoken.message else "unknown",
        spoken.owner,
        spoken.state,
        spoken.message,
    )


def _member(member: Member, caller: Caller, duplicates: dict[UUID, list[str]]) -> models.ThreadMessage:
    row, description = member.row, member.description
    withdrawn = is_withdrawn(row, caller)
    return models.ThreadMessage(
        id=str(row["id"]),
        sender_id=row["sender_id"],
        sender=row["sender"],
        kind=Kind(row["kind"]).label,  # type: ignore[arg-type]
        accepted_at=timestamp(row["accepted_at"]),
        business=_business(row),  # type: ignore[arg-type]
        subject="" if withdrawn else description.subject,
        code="" if withdrawn else description.code,
        type="" if withdrawn else description.type,
        issued=None if withdrawn else description.issued,
        due=None if withdrawn else description.due,
        speaks_of=tuple(
            models.SpeaksOf(
                link.name,
                link.relation.label,  # type: ignore[arg-type]
                "known" if link.message else "unknown",
                link.owner,
                link.state,
                link.message,
            )
            for link in member.links
        ),
        duplicate_of=tuple(duplicates.get(row["id"], ())),
        recalled=withdrawn,
    )
