"""The stream door: one WebSocket on which an endpoint submits and receives (`protocol.stream`).

Here streams are opened, kept alive and, when the hub stops, sent elsewhere; what goes over one of them is in
`stream_connection`.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from hub import tasks
from hub.config import Config
from hub.couriers.beside import Besides
from hub.couriers.mailbox import Mailboxes
from hub.doors.http import Gate
from hub.doors.operations import Answer, Operation
from hub.doors.stream_connection import Connection
from hub.relay.acknowledge import Acknowledger
from hub.relay.intake import Intake
from hub.relay.live import Live
from hub.relay.signed import SignedAcknowledgements
from hub.relay.wake import Wake
from protocol.problems import Problem
from protocol.stream import CLOSE_GOING_AWAY, MAX_FRAME_BYTES, SUBPROTOCOL, Welcome

CREDIT_MESSAGES = 4_000
MAX_CREDIT_BYTES = 4 << 20
MIN_CREDIT_BYTES = 64 << 10
"""What a client may submit before answers come. All streams together get about as much as may be queued (each
a quarter of that, divided by the streams there are), so that what is read and waits for room stays bounded."""
HEARTBEAT_SECONDS = 30.0
BEATS = 200
"""Connections pinged between two looks at the event loop (about 2 ms)."""
DRAIN_SECONDS = 5.0
"""How long clients have to go elsewhere when the hub stops."""
CLOSE_SECONDS = 3.0
"""How long a client that was told of the end has to say that it heard."""


class StreamDoor:
    """Opens streams and, when the hub stops, closes them."""

    def __init__(
        self,
        config: Config,
        gate: Gate,
        intake: Intake,
        mailboxes: Mailboxes,
        acknowledger: Acknowledger,
        wake: Wake,
        live: Live,
        signed: SignedAcknowledgements,
        besides: Besides,
    ) -> None:
        self.besides = besides
        self.config = config
        self.gate = gate
        self.intake = intake
        self.mailboxes = mailboxes
        self.acknowledger = acknowledger
        self.wake = wake
        self.live = live
        self.signed = signed
        self.draining = False
        self._connections: set[Connection] = set()
        self._gone = asyncio.Event()
        """No connection is left; of interest once the hub drains."""
        self._beating: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def operations(self) -> list[Operation]:
        """What this door answers."""
        return [
            Operation(
                "GET",
                "/v1/stream",
                "Open a stream: submit and receive on one WebSocket",
                self.open,
                {101: Answer(f"The WebSocket is open, of subprotocol {SUBPROTOCOL}", None, ())},
                (426, 503),
                headers={
                    "Upgrade": "`websocket`, and the other headers of a handshake (RFC 6455, section 4.1)",
                    "Sec-WebSocket-Protocol": f"`{SUBPROTOCOL}`",
                },
                tag="stream",
                description="The frames are described in docs/stream.md. Without a handshake the answer is 426.",
            )
        ]

    async def open(self, request: web.Request) -> web.StreamResponse:
        caller = self.gate.endpoint(request)
        if self.draining:
            raise Problem("stopping", "connect again", retry_after=1)
        # No compression by default: signed base64 shrinks by a quarter and costs ten times the copying.
        ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            timeout=CLOSE_SECONDS,
            autoping=False,
            compress=False,
            max_msg_size=MAX_FRAME_BYTES,
            decode_text=False,
        )
        if not _asks_for_stream(request) or not ws.can_prepare(request).ok:
            raise Problem("upgrade-required", f"open a WebSocket of subprotocol {SUBPROTOCOL} here")
        await ws.prepare(request)
        connection = Connection(self, request, ws, caller)
        self._connections.add(connection)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        try:
            await connection.run()
        finally:
            self._ended(connection)
        return ws

    def welcome(self) -> Welcome:
        """What a client is told first: how much it may submit, by how many streams there are now."""
        share = self.config.max_queue_bytes // 4 // max(1, len(self))
        credit = max(MIN_CREDIT_BYTES, min(share, MAX_CREDIT_BYTES))
        return Welcome(self.config.hub_name, CREDIT_MESSAGES, credit, HEARTBEAT_SECONDS)

    def greeted(self, connection: Connection) -> None:
        """A client has been told. If the hub drains by now, it is asked to go elsewhere."""
        if self.draining:
            connection.drain(DRAIN_SECONDS)

    def _ended(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self.draining and not self._connections:
            self._gone.set()

    async def _beat(self) -> None:
        """Ask the silent whether they are there. One timer for all: each has 600 bytes and a place in a heap."""
        while not self.draining:
            await asyncio.sleep(HEARTBEAT_SECONDS / 2)
            for number, connection in enumerate(list(self._connections), start=1):
                connection.beat()
                if number % BEATS == 0:
                    await asyncio.sleep(0)

    async def drain(self) -> None:
        """Ask all clients to go elsewhere; close what is left after `DRAIN_SECONDS`."""
        self.draining = True
        connections = list(self._connections)
        for connection in connections:
            connection.drain(DRAIN_SECONDS)
        if connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._gone.wait()
        for connection in list(self._connections):
            connection.close(CLOSE_GOING_AWAY, "the hub is stopping")
        if self._beating is not None:
            await tasks.end([self._beating])


def _asks_for_stream(request: web.Request) -> bool:
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return SUBPROTOCOL in map(str.strip, offered.split(","))
