"""The stream door's load: senders that submit what is due, receivers to whom mail is pushed.

`closed_loop` and `open_loop` are those of `generator`, for streams: each connection belongs to one sender and
has at most `WINDOW` documents without an answer. Documents that are due together go in one frame, as the hub's own
client sends what it has at hand.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import msgspec

from benchmarks.corpus import SENDERS, Corpus, Receiver, Sender
from benchmarks.generator import Submitted
from benchmarks.ledger import Ledger
from benchmarks.receivers import Entry
from benchmarks.websocket import Socket
from protocol.stream import SUBPROTOCOL

PATH = "/v1/stream"
WINDOW = 64
"""Documents that a connection has under way."""
CREDIT_MESSAGES = 4_000
CREDIT_BYTES = 16 << 20
"""Mail that a receiver lets come before it has acknowledged."""


class _Frame(msgspec.Struct, tag_field="type"):
    pass


class _Welcome(_Frame, tag="welcome"):
    messages: int
    bytes: int


class _Answer(msgspec.Struct):
    n: int
    outcomes: list[msgspec.Raw]


class _Answers(_Frame, tag="answers"):
    answers: list[_Answer]


class Mail(_Frame, tag="mail"):
    """Entries, and the cursor that acknowledges them."""

    entries: list[Entry]
    cursor: str


class Acked(_Frame, tag="acked"):
    """Acknowledgements up to number `n` are on disk."""

    n: int
    acknowledged: int = 0


class Failure(_Frame, tag="problem"):
    """What the hub could not do."""

    problem: dict[str, Any]


class _Credit(_Frame, tag="credit"):
    pass


class _Drain(_Frame, tag="drain"):
    pass


read_frame = msgspec.json.Decoder(_Welcome | _Answers | Mail | Acked | Failure | _Credit | _Drain).decode


def hello(messages: int = 0, size: int = 0) -> bytes:
    """The first frame: how much mail may come."""
    return b'{"type":"hello","messages":%d,"bytes":%d}' % (messages, size)


class _Connection:
    """A sender's connection."""

    def __init__(self, load: _Load, number: int) -> None:
        self._load = load
        self.number = number
        self.socket = Socket(self._received, load.failed)
        self.frames: dict[int, list[int]] = {}
        """The requests of each frame that waits for its answer."""
        self.number_of_last = 0
        self.last = -1
        """The last request that was sent."""
        self.waiting: deque[int] = deque()
        """Requests that are due and find the window full."""
        self.under_way = 0

    async def open(self, address: tuple[str, int], token: str) -> None:
        await self.socket.open(address, PATH, token, SUBPROTOCOL)
        self.socket.send((hello(),))

    def submit(self, requests: list[int]) -> None:
        """Send these in one frame, as the hub's own client does with what it has to send at a moment."""
        self.number_of_last += 1
        self.frames[self.number_of_last] = requests
        self.last = requests[-1]
        self.under_way += len(requests)
        documents = b'","'.join(self._load.corpus.request(request)[1] for request in requests)
        self.socket.send((b'{"type":"submit","n":%d,"messages":["%b"]}' % (self.number_of_last, documents),))

    def _received(self, data: bytes) -> None:
        frame = read_frame(data)
        if isinstance(frame, _Answers):
            now = perf_counter()
            for answer in frame.answers:
                for request, outcome in zip(self.frames.pop(answer.n), answer.outcomes, strict=True):
                    self.under_way -= 1
                    self._load.answered(request, now, bytes(outcome))
            self._load.free(self, now)
        elif isinstance(frame, Failure):
            self._load.failed(f"the hub has a problem: {frame.problem}")


class _Load:
    """What the two loops share."""

    def __init__(self, corpus: Corpus, ledger: Ledger) -> None:
        self.corpus = corpus
        self.ledger = ledger
        self.found = Submitted()
        self.connections: list[_Connection] = []
        self.since = [0.0] * corpus.requests
        self.under_way = 0
        self.over = False
        self.finished = asyncio.Event()
        self.error = ""

    async def open(self, address: tuple[str, int], senders: list[Sender], count: int) -> None:
        """Connections in multiples of the senders: request `r` belongs to connection `r % count`."""
        count = max(1, count // SENDERS) * SENDERS
        for number in range(count):
            connection = _Connection(self, number)
            self.connections.append(connection)
            await connection.open(address, senders[number % SENDERS].token)

    def close(self) -> None:
        self.over = True
        for connection in self.connections:
            connection.socket.close()

    def sent(self, request: int, since: float) -> None:
        self.since[request] = since
        self.under_way += 1
        self.found.requests += 1
        self.ledger.sent(request, since)

    def answered(self, request: int, now: float, outcome: bytes) -> None:
        self.under_way -= 1
        self.found.latencies.append(now - self.since[request])
        self.ledger.answered(request, outcome)

    def failed(self, why: str) -> None:
        if not self.over:
            self.error = self.error or why
            self.finished.set()

    def free(self, connection: _Connection, now: float) -> None:
        raise NotImplementedError

    async def wait(self) -> None:
        """Until all is answered. Raises ConnectionError when a stream broke."""
        await self.finished.wait()
        if self.error:
            raise ConnectionError(self.error)
        self.found.ended = perf_counter()


class _Closed(_Load):
    until = 0.0

    def free(self, connection: _Connection, now: float) -> None:
        due: list[int] = []
        if now < self.until:
            step = len(self.connections)
            request = connection.last + step if connection.last >= 0 else connection.number
            while connection.under_way + len(due) < WINDOW and request < self.corpus.requests:
                self.sent(request, now)
                due.append(request)
                request += step
        if due:
            connection.submit(due)
        elif not self.under_way:
            self.finished.set()


async def closed_loop(
    address: tuple[str, int],
    corpus: Corpus,
    ledger: Ledger,
    connections: int,
    seconds: float,
    senders: list[Sender],
) -> Submitted:
    """Keep every connection's window full, until `seconds` are over or the corpus is used up."""
    load = _Closed(corpus, ledger)
    await load.open(address, senders, connections)
    try:
        load.found.started = perf_counter()
        load.until = load.found.started + seconds
        for connection in load.connections:
            load.free(connection, perf_counter())
        await load.wait()
    finally:
        load.close()
    return load.found


class _Open(_Load):
    def __init__(self, corpus: Corpus, ledger: Ledger) -> None:
        super().__init__(corpus, ledger)
        self.due: list[float] = []
        self.next = 0
        self.loop = asyncio.get_running_loop()

    def free(self, connection: _Connection, now: float) -> None:
        if connection.waiting:
            self._fill(connection, now)
        if not self.under_way and self.next == len(self.due):
            self.finished.set()

    def _fill(self, connection: _Connection, now: float) -> None:
        waiting = connection.waiting
        due: list[int] = []
        while waiting and connection.under_way + len(due) < WINDOW:
            due.append(waiting.popleft())
            self.found.lags.append(now - self.since[due[-1]])
        if due:
            connection.submit(due)

    def tick(self) -> None:
        """Send what is due, and come back when more is."""
        now = perf_counter()
        touched = set()
        while self.next < len(self.due) and self.due[self.next] <= now:
            connection = self.connections[self.next % len(self.connections)]
            self.sent(self.next, self.due[self.next])
            connection.waiting.append(self.next)
            touched.add(connection)
            self.next += 1
        for connection in touched:
            self._fill(connection, now)
        if self.next < len(self.due) and not self.over:
            self.loop.call_later(max(0.0, self.due[self.next] - now), self.tick)


async def open_loop(
    address: tuple[str, int],
    corpus: Corpus,
    ledger: Ledger,
    connections: int,
    rate: float,
    senders: list[Sender],
    seed: int = 1,
) -> Submitted:
    """Submit the whole corpus at `rate` documents a second, at random (Poisson) but repeatable times."""
    chance = random.Random(seed)
    load = _Open(corpus, ledger)
    await load.open(address, senders, connections)
    try:
        load.found.started = at = perf_counter()
        for _ in range(corpus.requests):
            at += chance.expovariate(rate)
            load.due.append(at)
        load.tick()
        await load.wait()
    finally:
        load.close()
    return load.found


class StreamReceivers:
    """All receiving endpoints, on streams. An async context; `ledger` is told what comes."""

    def __init__(self, address: tuple[str, int], receivers: Iterable[Receiver]) -> None:
        self._address = address
        self._mailboxes = [_Mailbox(self, receiver) for receiver in receivers]
        self._error = ""
        self.ledger: Ledger
        self.pages = 0
        self.acks = 0

    async def __aenter__(self) -> StreamReceivers:
        for mailbox in self._mailboxes:
            await mailbox.open(self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        for mailbox in self._mailboxes:
            mailbox.close()

    def check(self) -> None:
        """Raise ConnectionError when a stream broke."""
        if self._error:
            raise ConnectionError(self._error)

    def failed(self, why: str) -> None:
        self._error = self._error or why


class _Mailbox:
    def __init__(self, owner: StreamReceivers, receiver: Receiver) -> None:
        self._owner = owner
        self._receiver = receiver
        self._socket = Socket(self._received, self._ended)
        self._acks: deque[tuple[int, list[int]]] = deque()
        self._n = 0
        self._over = False

    async def open(self, address: tuple[str, int]) -> None:
        await self._socket.open(address, PATH, self._receiver.token, SUBPROTOCOL)
        self._socket.send((hello(CREDIT_MESSAGES, CREDIT_BYTES),))

    def close(self) -> None:
        self._over = True
        self._socket.close()

    def _ended(self, reason: str) -> None:
        if not self._over:
            self._owner.failed(f"{self._receiver.name}: {reason}")

    def _received(self, data: bytes) -> None:
        frame = read_frame(data)
        owner = self._owner
        if isinstance(frame, Mail):
            owner.pages += 1
            places, size = [], 0
            for entry in frame.entries:
                document = entry.document
                size += len(document)
                place = owner.ledger.delivered(entry.sender_id, document)
                if place >= 0:
                    places.append(place)
            self._n += 1
            self._acks.append((self._n, places))
            self._socket.send(
                (
                    b'{"type":"ack","n":%d,"up_to":"%b"}' % (self._n, frame.cursor.encode()),
                    b'{"type":"credit","messages":%d,"bytes":%d}' % (len(frame.entries), size),
                )
            )
        elif isinstance(frame, Acked):
            owner.acks += 1
            ended: list[int] = []
            while self._acks and self._acks[0][0] <= frame.n:
                ended += self._acks.popleft()[1]
            owner.ledger.acknowledge(ended, frame.acknowledged)
        elif isinstance(frame, Failure):
            owner.failed(f"{self._receiver.name}: {frame.problem}")
