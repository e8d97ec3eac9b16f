"""One WebSocket of a stream: frames out as credit allows, answers in, until it has ended.

Whatever was sent on it and not answered is given back when it ends, and goes out on the next one with the
same bytes, by which the hub knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Protocol

import aiohttp
from aiohttp import WSMsgType

from protocol.client.work import Acking, Submission
from protocol.problems import Problem, from_members
from protocol.stream import (
    MAX_ACKS,
    MAX_MESSAGES,
    Ack,
    Acked,
    Answers,
    Bye,
    Credit,
    Drain,
    Failure,
    Hello,
    Mail,
    Members,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    Welcome,
)

FRAME_BYTES = 1 << 20
"""Bytes of messages that go out together; one larger message goes alone."""
STEADY_SECONDS = 5.0
"""A connection that lasted so long was of use, whatever came on it."""
BYE_SECONDS = 10.0
"""How long the hub has to close a connection after the goodbye."""


class Owner(Protocol):
    """The stream that a connection belongs to."""

    queue: deque[Submission]
    acks: deque[Acking]

    def answered(self, work: Submission, outcomes: tuple[Members, ...], stopping: bool) -> None: ...
    def refused(self, work: Submission, problem: Problem) -> None: ...
    def acked(self, work: Acking) -> None: ...
    def ack_failed(self, works: list[Acking], problem: Problem) -> None: ...
    def deliver(self, frame: Mail) -> None: ...
    def credit_due(self, session: Session) -> Credit | None: ...
    def ack_frame(self, n: int, works: list[Acking]) -> Ack: ...
    def give_back(self, sent: list[Submission], acks: list[Acking]) -> None: ...


class Connection:
    """A connection that has been welcomed. `draining`, `ended`: what its owner waits for."""

    def __init__(self, owner: Owner, ws: Any, session: Session) -> None:
        self.session = session
        self.draining = asyncio.Event()
        self.ended = asyncio.Event()
        self.problem: Problem | None = None
        """Why the hub ended it, where it said so."""
        self._owner = owner
        self._ws = ws
        self._current = True
        """Whether new work goes here. It does not when another connection has taken over."""
        self._finishing = False
        self._pending = asyncio.Event()
        self._sent: dict[int, list[Submission]] = {}
        self._acks: dict[int, list[Acking]] = {}
        self._frames = 0
        self._opened = asyncio.get_running_loop().time()

    @classmethod
    async def open(cls, owner: Owner, ws: Any, hello: Hello) -> Connection:
        """Greet the hub on an open WebSocket.

        Raises `Problem` when the hub refuses, StreamError, or ConnectionError when the connection ends instead.
        """
        session = Session(Role.CLIENT)
        await ws.send_frame(session.send(hello), WSMsgType.TEXT)
        message = await ws.receive()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            raise ConnectionResetError("the hub closed the connection before it said anything")
        frame = session.receive(message.data)
        if isinstance(frame, Failure):
            raise from_members(frame.problem)
        assert isinstance(frame, Welcome), "the session lets nothing else pass"
        return cls(owner, ws, session)

    @property
    def useful(self) -> bool:
        """Whether the hub did anything here, or could have."""
        return bool(self._frames) or self.age > STEADY_SECONDS

    @property
    def age(self) -> float:
        """Seconds since it was welcomed."""
        return asyncio.get_running_loop().time() - self._opened

    def poke(self) -> None:
        """There may be something to send."""
        self._pending.set()

    def finish(self, hand_over: bool = True) -> None:
        """Wait for the answers that are due, then say goodbye. With `hand_over` new work goes elsewhere."""
        self._finishing = True
        self._current = not hand_over
        self._pending.set()

    async def run(self) -> None:
        """Send and receive until the connection has ended, however it does."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._ws.close()
            sent = [work for works in self._sent.values() for work in works]
            acks = [work for works in self._acks.values() for work in works]
            self._owner.give_back(sent, acks)
            self.ended.set()
        for task in (reading, writing):
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError | aiohttp.ClientError | StreamError):
                raise error

    # -- in -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self._ws.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            frame = self.session.receive(message.data)
            if isinstance(frame, Drain):
                self.draining.set()
                continue
            self._frames += 1
            if isinstance(frame, Answers):
                for answer in frame.answers:
                    self._answered(answer.n, answer.outcomes)
            elif isinstance(frame, Mail):
                self._owner.deliver(frame)
            elif isinstance(frame, Acked):
                for n in [n for n in self._acks if n <= frame.n]:
                    for work in self._acks.pop(n):
                        self._owner.acked(work)
            elif isinstance(frame, Failure):
                self._failed(frame)
            self._pending.set()  # credit may have come, or the last answer

    def _answered(self, n: int, outcomes: tuple[Members, ...]) -> None:
        works = self._sent.pop(n)
        stopping = self.session.state is not State.OPEN
        if works[0].manifest:
            self._owner.answered(works[0], outcomes, stopping)
            return
        for place, work in enumerate(works):
            self._owner.answered(work, outcomes[place : place + 1], stopping)

    def _failed(self, frame: Failure) -> None:
        problem = from_members(frame.problem)
        if frame.n is None:
            self.problem = problem
        elif frame.n in self._acks:
            self._owner.ack_failed(self._acks.pop(frame.n), problem)
        else:
            for work in self._sent.pop(frame.n):
                self._owner.refused(work, problem)

    # -- out ------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while self.session.state is not State.CLOSING:
            await self._pending.wait()
            self._pending.clear()
            while (data := self._next()) is not None:
                await self._ws.send_frame(data, WSMsgType.TEXT)
        await asyncio.sleep(BYE_SECONDS)  # meanwhile the end is read

    def _next(self) -> bytes | None:
        """The next frame; None when there is nothing to send now."""
        session, owner = self.session, self._owner
        if session.state not in (State.OPEN, State.DRAINING):
            return None
        if self._current:
            credit = owner.credit_due(session)
            if credit is not None:
                return session.send(credit)
            if owner.acks:
                return self._acknowledge()
            if owner.queue and session.may_submit and (data := self._submit()) is not None:
                return data
        idle = not (self._current and (owner.acks or owner.queue))
        if self._finishing and idle and not session.unanswered:
            return session.send(Bye())
        return None

    def _acknowledge(self) -> bytes:
        """All acknowledgements that wait, as far as a frame holds them."""
        waiting, entries, refusals = self._owner.acks, 0, 0
        works: list[Acking] = []
        while waiting:
            entries += len(waiting[0].entries)
            refusals += len(waiting[0].refuse)
            if works and (waiting[0].alone or works[0].alone or max(entries, refusals) > MAX_ACKS):
                break
            works.append(waiting.popleft())
        n = self.session.next_number
        data = self.session.send(self._owner.ack_frame(n, works))
        self._acks[n] = works
        return data

    def _submit(self) -> bytes | None:
        """What waits to be submitted, as far as credit and a frame's size go; None when it must wait."""
        session, queue = self.session, self._owner.queue
        while queue and queue[0].done.done():
            queue.popleft()  # its caller has gone
        if not queue:
            return None
        n = session.next_number
        if queue[0].manifest:
            if len(queue[0].documents) > session.submit_messages:
                return None
            works = [queue.popleft()]
            frame = Submit(n, manifest=works[0].manifest, documents=works[0].documents)
        else:
            room = min(session.submit_bytes, FRAME_BYTES)
            count = min(session.submit_messages, MAX_MESSAGES)
            works = []
            while queue and len(works) < count and not queue[0].manifest:
                room -= len(queue[0].message)
                if works and room < 0:
                    break
                works.append(queue.popleft())
            frame = Submit(n, messages=tuple([work.message for work in works]))
        data = session.send(frame)
        self._sent[n] = works
        return data
