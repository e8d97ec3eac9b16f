"""Endpoints that wait for mail, thousands of them in one process: with long-polls, or on streams.

Each reads what comes, acknowledges it, and waits again. None may be answered with anything else, and none may
lose its connection: then nothing that was measured counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from benchmarks.crowd import Crowd, Deliveries, Member
from benchmarks.generator import LOST, Connection
from benchmarks.receivers import read_acked, read_page
from benchmarks.stream import PATH, Acked, Failure, Mail, hello, read_frame
from benchmarks.websocket import Socket
from protocol.stream import SUBPROTOCOL

WAVE = 100
"""Connections that are made at a time."""
PATIENCE_SECONDS = 30.0


class Waiter(Protocol):
    """One endpoint that waits."""

    def __init__(self, party: Party, number: int, member: Member) -> None: ...

    async def connect(self, address: tuple[str, int]) -> None: ...

    def close(self) -> None: ...


class Poller:
    """One endpoint that waits for mail with long-polls, reads what comes, acknowledges it, and waits again."""

    __slots__ = ("_acking", "_connection", "_head", "_host", "_member", "_number", "_party", "_poll")

    def __init__(self, party: Party, number: int, member: Member) -> None:
        self._party = party
        self._number = number
        self._member = member
        self._acking = False
        self._connection = Connection(self._answered)

    async def connect(self, address: tuple[str, int]) -> None:
        host = f"{address[0]}:{address[1]}"
        self._head = f"Host: {host}\r\nAuthorization: Bearer {self._member.token}\r\n".encode()
        await asyncio.get_running_loop().create_connection(lambda: self._connection, *address)
        self._ask()

    def _ask(self) -> None:
        self._connection.send(b"GET /v1/mailbox?wait=%d HTTP/1.1\r\n%b\r\n" % (self._party.wait, self._head))

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        party = self._party
        if party.over:
            return
        if status != 200:
            party.fail(f"{self._member.name} was answered {status}" if status != LOST else "a connection ended")
        elif self._acking:
            self._acking = False
            party.books.acknowledge(read_acked(body).acknowledged)
            party.progress.set()
            self._ask()
        else:
            page = read_page(body)
            if not page.entries:
                self._ask()
                return
            for entry in page.entries:
                party.books.take(self._number, entry.sender_id, entry.document)
            self._acking = True
            asked = b'{"up_to":"%b"}' % page.cursor.encode()
            self._connection.send(
                b"POST /v1/mailbox/ack HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % (self._head, len(asked)),
                asked,
            )

    def close(self) -> None:
        self._connection.transport.close()


class Streamer:
    """One endpoint on a stream. As `Poller`."""

    __slots__ = ("_acks", "_member", "_number", "_party", "_socket")

    def __init__(self, party: Party, number: int, member: Member) -> None:
        self._party = party
        self._number = number
        self._member = member
        self._acks = 0
        self._socket = Socket(self._received, self._ended)

    async def connect(self, address: tuple[str, int]) -> None:
        await self._socket.open(address, PATH, self._member.token, SUBPROTOCOL)
        self._socket.send((hello(100, 1 << 20),))

    def _ended(self, reason: str) -> None:
        if not self._party.over:
            self._party.fail(f"{self._member.name}: {reason}")

    def _received(self, data: bytes) -> None:
        frame, party = read_frame(data), self._party
        if isinstance(frame, Mail):
            for entry in frame.entries:
                party.books.take(self._number, entry.sender_id, entry.document)
            self._acks += 1
            self._socket.send((b'{"type":"ack","n":%d,"up_to":"%b"}' % (self._acks, frame.cursor.encode()),))
        elif isinstance(frame, Acked):
            party.books.acknowledge(frame.acknowledged)
            party.progress.set()
        elif isinstance(frame, Failure):
            party.fail(f"{self._member.name}: {frame.problem}")

    def close(self) -> None:
        self._socket.close()


class Party:
    """All who wait, and what they were given."""

    def __init__(self, crowd: Crowd, kind: type[Waiter], wait: int) -> None:
        """`wait`: seconds after which a long-poll is answered empty and asked again."""
        self.wait = wait
        self.over = False
        self.progress = asyncio.Event()
        self.books = Deliveries(len(crowd.members))
        self._failed = ""
        self._waiters = [kind(self, number, member) for number, member in enumerate(crowd.members)]

    def fail(self, why: str) -> None:
        self._failed = self._failed or why
        self.progress.set()

    async def connect(self, address: tuple[str, int]) -> None:
        """Connect all, `WAVE` at a time."""
        for start in range(0, len(self._waiters), WAVE):
            await asyncio.gather(*(waiter.connect(address) for waiter in self._waiters[start : start + WAVE]))

    async def served(self, due: int) -> None:
        """Wait until `due` deliveries are acknowledged, or for `PATIENCE_SECONDS` in which none is.

        Raises RuntimeError when a connection broke.
        """
        with contextlib.suppress(TimeoutError):
            while self.books.acknowledged < due and not self._failed:
                self.progress.clear()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self.progress.wait()
        if self._failed:
            raise RuntimeError(self._failed)

    def close(self) -> None:
        self.over = True
        for waiter in self._waiters:
            waiter.close()
