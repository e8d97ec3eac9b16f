"""What the hub's store has of the log's entries, for operators and auditors."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from hub.doors.http import Gate, json_response
from hub.doors.operations import Answer, Operation
from hub.doors.status_models import LogEvent
from hub.evidence.entries import StoredEvents
from hub.turns import Turns
from protocol.problems import Problem

AT_ONCE = 2
MAX_INDEX = 10**18


class LogEventsDoor:
    """Answers auditors who pick entries and look whether the store still has what they are the hashes of."""

    def __init__(self, gate: Gate, events: StoredEvents) -> None:
        self._gate = gate
        self._events = events
        self._turns = Turns(AT_ONCE)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/v1/log/events/{index}",
                "What the store has of an entry of the log",
                self.log_event,
                {200: Answer("The event, as far as it is there", LogEvent)},
                (400, 404),
                path_parameters={"index": Annotated[int, Meta(ge=0, lt=MAX_INDEX)]},
                tag="log",
                description="For operators and auditors. SHA-256 over a zero byte and the event is the entry.",
            )
        ]

    async def log_event(self, request: web.Request) -> web.Response:
        if not self._gate.caller(request).is_administrator:
            raise Problem("forbidden", "events are shown to operators and auditors; yours are in your messages")
        written = request.match_info["index"]
        if not written.isascii() or not written.isdigit() or len(written) > 18:  # below MAX_INDEX
            raise Problem("bad-request", "the address is /v1/log/events/<the entry's number, from 0>")
        async with self._turns.of(0):
            found = await self._events.at(int(written))
        if found is None:
            raise Problem("not-found", "the log does not reach so far; see /log/checkpoint")
        answer = LogEvent(int(written), str(found.batch), found.leaf, found.state, found.event, found.receipt)
        return json_response(msgspec.json.encode(answer))
