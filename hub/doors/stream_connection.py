"""One stream of the hub: its submissions, its mail and its acknowledgements, until either end closes it.

What comes in one turn of the event loop is taken in together, whatever frames it came in, and while a group is on
its way to the disk, the next one gathers (docs/adr/0059). A submission that finds no room in the hub waits, and
its credit with it, which slows its sender down; acknowledgements pass it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

import structlog
from aiohttp import WSMsgType, web

from hub.config import Config
from hub.couriers.beside import Besides
from hub.couriers.mailbox import Mailboxes, Page, cursor_text, read_cursor
from hub.couriers.stream import StreamCourier
from hub.doors.http import Caller, Gate
from hub.doors.written import entry_json, outcome_json, problem_json
from hub.relay.acknowledge import Acknowledgement, Acknowledger, Ended
from hub.relay.answering import Accepted
from hub.relay.intake import Intake
from hub.relay.live import Live
from hub.relay.opening import Sender
from hub.relay.signed import SignedAcknowledgements
from hub.relay.wake import Wake
from protocol.problems import Problem
from protocol.stream import (
    CLOSE_INTERNAL,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CLOSE_TRY_LATER,
    Ack,
    Acked,
    Bye,
    Credit,
    Drain,
    Frame,
    Hello,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    Welcome,
)

log = structlog.get_logger()

FULL_SECONDS = 0.02
"""How long a submission that finds no room waits before it tries again."""
_SIGNED_BYTES = 20
"""What an entry takes of a signed acknowledgement, about."""
MAX_ACK_LOAD = 50_000
"""Acknowledgements (frames and entries in them) that wait for those under way; then nothing more is read."""
GATHER_SECONDS = 0.1
"""How long submissions gather at most: the group before may wait for something else than the disk."""
ANSWERS_BYTES = 16 << 20
"""Beyond it, what came together is answered in a frame for each submission."""


class Door(Protocol):
    """What a stream needs of the door that opened it."""

    config: Config
    gate: Gate
    intake: Intake
    mailboxes: Mailboxes
    acknowledger: Acknowledger
    wake: Wake
    live: Live
    signed: SignedAcknowledgements
    besides: Besides

    def welcome(self) -> Welcome:
        """What a client is told first."""
        ...

    def greeted(self, connection: Connection) -> None:
        """A client has been told."""
        ...


class Connection:
    """One stream."""

    __slots__ = (
        "_ack_load",
        "_acknowledging",
        "_acks",
        "_answering",
        "_asked",
        "_courier",
        "_door",
        "_gathering",
        "_group",
        "_heard",
        "_request",
        "_sender",
        "_session",
        "_tasks",
        "_under_way",
        "_ws",
    )

    def __init__(self, door: Door, request: web.Request, ws: web.WebSocketResponse[Any], caller: Caller) -> None:
        self._door = door
        self._request = request
        self._ws = ws
        self._sender = Sender(caller.endpoint, caller.name)
        self._session = Session(Role.HUB)
        self._courier: StreamCourier | None = None
        self._group: list[Submit] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._under_way = 0
        """Groups taken in and not answered."""
        self._acks: list[Ack] = []
        self._ack_load = 0
        self._acknowledging: asyncio.Task[None] | None = None
        self._answering: asyncio.Lock | None = None
        """Credit goes back with an answer only when the client has read those before."""
        # Sets, locks and events are made when they are needed: ten thousand streams mostly do nothing.
        self._tasks: set[asyncio.Task[None]] | None = None
        self._heard = True
        """Whether anything came since the last heartbeat."""
        self._asked = False

    async def run(self) -> None:
        """Until either end closes the connection."""
        try:
            await self._converse()
        except StreamError as error:
            await self._fail(Problem("stream-protocol", str(error)), error.code)
        except Problem as problem:
            await self._fail(problem)
        except ConnectionResetError:
            pass
        finally:
            if self._courier is not None:
                await self._courier.stop()
            await self._settle()

    async def _converse(self) -> None:
        session, receive = self._session, self._ws.receive
        while True:
            if session.state is State.OPENING:
                try:
                    message = await receive(self._door.config.request_seconds)
                except TimeoutError:
                    raise Problem("timeout", "no `hello` came; connect again") from None
            else:
                message = await receive()
            self._heard = True
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                if message.type is WSMsgType.PING:
                    await self._ws.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    return  # closed, or cut
                continue
            frame = session.receive(message.data)
            if isinstance(frame, Submit):
                if not self._group:
                    asyncio.get_running_loop().call_soon(self._take_in_soon)
                self._group.append(frame)
            elif isinstance(frame, Ack):
                self._acks.append(frame)
                self._ack_load += 1 + len(frame.entries) + len(frame.refuse) + len(frame.signed) // _SIGNED_BYTES
                if self._acknowledging is None:
                    self._acknowledging = self._start(self._acknowledge())
                elif self._ack_load > MAX_ACK_LOAD:
                    await asyncio.wait((self._acknowledging,))
            elif isinstance(frame, Hello):
                await self._greet(frame)
            elif isinstance(frame, Credit):
                if self._courier is not None:
                    self._courier.granted()
            elif isinstance(frame, Bye):
                if self._courier is not None:
                    await self._courier.stop()
                await self._settle()
                await self._ws.close(code=CLOSE_NORMAL)
                return

    async def _greet(self, hello: Hello) -> None:
        after = read_cursor(hello.after)
        door = self._door
        self._courier = StreamCourier(
            self._sender.endpoint,
            after,
            door.mailboxes,
            door.wake,
            door.live,
            self._session,
            self._push,
            self._courier_failed,
        )
        await self._send(door.welcome())
        self._courier.granted()
        door.greeted(self)

    # -- submissions ----------------------------------------------------------------------------

    def _take_in_soon(self) -> None:
        if not self._under_way:
            self._take_in()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._take_in)

    def _take_in(self) -> None:
        """Take in what came together: each manifest alone, all else as one, and answered in one frame."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        group, self._group = self._group, []
        singles = [frame for frame in group if not frame.manifest]
        if singles:
            self._under_way += 1
            self._start(self._submit_messages(singles)).add_done_callback(self._answered)
        for frame in group:
            if frame.manifest:
                self._start(self._submit_manifest(frame))

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        if self._group:
            self._take_in()

    async def _submit_messages(self, frames: list[Submit]) -> None:
        self._door.gate.endpoint(self._request)  # the token may have been revoked since
        raws = [message.encode("utf-8", "replace") for frame in frames for message in frame.messages]
        size = sum(map(len, raws))
        outcomes: list[Accepted | Problem]
        try:
            async with self._room(size, len(raws)):
                outcomes = await self._door.intake.native(self._sender, raws)
        except Problem as problem:
            outcomes = [problem] * len(raws)
        written = [outcome_json(outcome) for outcome in outcomes]
        answered, start = [], 0
        for frame in frames:
            answered.append((frame.n, written[start : start + len(frame.messages)]))
            start += len(frame.messages)
        async with self._in_turn():
            if len(frames) > 1 and sum(map(len, written)) > ANSWERS_BYTES:
                for frame, answer in zip(frames, answered, strict=True):
                    await self._write(self._session.answers([answer], frame.count, frame.size))
            else:
                size = sum(frame.size for frame in frames)
                await self._write(self._session.answers(answered, len(raws), size))

    async def _submit_manifest(self, frame: Submit) -> None:
        self._door.gate.endpoint(self._request)
        jws = frame.manifest.encode("utf-8", "replace")
        lines = [document.encode("utf-8", "replace") for document in frame.documents]
        try:
            async with self._room(frame.size, frame.count):
                outcomes = await self._door.intake.manifest(self._sender, jws, lines)
        except Problem as problem:
            written = problem_json(problem)
            async with self._in_turn():
                await self._write(self._session.failure(written, frame.n, frame.count, frame.size))
            return
        answered = [(frame.n, [outcome_json(outcome) for outcome in outcomes])]
        async with self._in_turn():
            await self._write(self._session.answers(answered, frame.count, frame.size))

    def _in_turn(self) -> asyncio.Lock:
        """Enter it to answer submissions."""
        if self._answering is None:
            self._answering = asyncio.Lock()
        return self._answering

    @contextlib.asynccontextmanager
    async def _room(self, size: int, messages: int) -> AsyncIterator[None]:
        """Hold room in the hub for `messages` of `size` bytes together, waiting for it.

        Raises `Problem` when it takes too long.
        """
        intake, loop = self._door.intake, asyncio.get_running_loop()
        deadline = loop.time() + self._door.config.request_seconds
        while True:
            seconds = intake.delay(self._sender, size, messages)
            if not seconds or loop.time() > deadline:
                break
            await asyncio.sleep(min(seconds, FULL_SECONDS))
        with intake.room(self._sender, size, messages=messages):
            yield

    # -- mail -----------------------------------------------------------------------------------

    async def _push(self, page: Page) -> None:
        self._door.gate.endpoint(self._request)
        said = await self._door.besides.of(self._sender.endpoint, page.entries)
        entries = [entry_json(mail, said.get(mail.entry.id)) for mail in page.entries]
        size = sum(mail.weight for mail in page.entries)
        await self._write(self._session.mail(entries, size, cursor_text(page.cursor), page.more))
        self._door.mailboxes.handed_over(self._sender.endpoint, page.entries)

    def _courier_failed(self, error: Exception) -> None:
        if isinstance(error, Problem):
            self._start(self._fail(error))
        elif not isinstance(error, ConnectionResetError):
            log.error("mail could not be pushed", endpoint=self._sender.name, exc_info=error)
            self._start(self._fail(Problem("internal", "connect again; nothing is lost"), CLOSE_INTERNAL))

    async def _acknowledge(self) -> None:
        """Carry out acknowledgements: all that came while the last were under way, together."""
        try:
            while self._acks:
                acks, self._acks, self._ack_load = self._acks, [], 0
                self._door.gate.endpoint(self._request)
                if len(acks) > 1 and any(ack.signed for ack in acks):  # each is kept as it was signed
                    await self._one_by_one(acks)
                    continue
                try:
                    ended = await self._end(acks)
                except Problem as problem:
                    if len(acks) == 1:
                        await self._write(self._session.failure(problem_json(problem), acks[0].n))
                        continue
                    await self._one_by_one(acks)
                    continue
                await self._send(Acked(acks[-1].n, ended.acknowledged, ended.refused))
        finally:
            self._acknowledging = None

    async def _one_by_one(self, acks: list[Ack]) -> None:
        """They must not fail each other."""
        for ack in acks:
            try:
                ended = await self._end([ack])
            except Problem as problem:
                await self._write(self._session.failure(problem_json(problem), ack.n))
            else:
                await self._send(Acked(ack.n, ended.acknowledged, ended.refused))

    async def _end(self, acks: list[Ack]) -> Ended:
        """Carry out acknowledgements without a signature, or one with it."""
        door, endpoint = self._door, self._sender.endpoint
        if acks[0].signed:
            request = await door.signed.open(endpoint, acks[0].signed.encode("utf-8", "replace"))
        else:
            if any(ack.up_to or ack.entries or ack.refuse for ack in acks):
                door.signed.require_signed(endpoint)
            request = self._acknowledgement(acks)
        return await door.acknowledger.end(request)

    def _acknowledgement(self, acks: list[Ack]) -> Acknowledgement:
        merged = Acknowledgement(self._sender.endpoint)
        for ack in acks:
            if ack.up_to is not None:
                for lane, seq in enumerate(read_cursor(ack.up_to)):
                    if seq:
                        merged.up_to[lane] = max(seq, merged.up_to.get(lane, 0))
            merged.entries.update(ack.entries)
            merged.refused.update((refusal.seq, refusal.reason) for refusal in ack.refuse)
            merged.codes.update((refusal.seq, refusal.code) for refusal in ack.refuse)
        return merged

    # -- the connection -------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ConnectionResetError):
            return
        if isinstance(error, Problem):
            self._start(self._fail(error))
        elif self._session.state is not State.CLOSED:  # else it had failed before, and nothing could be answered
            log.error("a stream failed", endpoint=self._sender.name, exc_info=error)
            self.close(CLOSE_INTERNAL, "the hub failed; connect again")

    async def _settle(self) -> None:
        """Wait for what is under way. It is finished even when the client has gone."""
        self._take_in()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self, frame: Frame) -> None:
        await self._write(self._session.send(frame))

    async def _write(self, data: bytes) -> None:
        if self._ws.closed:
            raise ConnectionResetError("the connection is closed")
        await self._ws.send_frame(data, WSMsgType.TEXT)

    async def _fail(self, problem: Problem, code: int | None = None) -> None:
        """Say what is wrong with the connection, and close it."""
        if code is None:
            code = CLOSE_TRY_LATER if problem.retryable else CLOSE_POLICY
        with contextlib.suppress(ConnectionResetError, StreamError):
            await self._write(self._session.failure(problem_json(problem)))
        await self._ws.close(code=code, message=problem.code.encode())

    def beat(self) -> None:
        """Called twice in `HEARTBEAT_SECONDS`: ping who was silent since, give up who did not answer the last."""
        if self._heard:
            self._heard = self._asked = False
        elif self._asked:
            if self._request.transport is not None:
                self._request.transport.abort()
        else:
            self._asked = True
            self._start(self._ping())

    async def _ping(self) -> None:
        if not self._ws.closed:
            await self._ws.ping()

    def drain(self, seconds: float) -> None:
        """Ask the client to go elsewhere."""
        if self._session.state is State.OPEN:
            self._start(self._send(Drain(seconds)))

    def close(self, code: int, reason: str) -> None:
        """Close the connection now."""

        async def close() -> None:
            await self._ws.close(code=code, message=reason.encode())

        if not self._ws.closed:
            self._start(close())
