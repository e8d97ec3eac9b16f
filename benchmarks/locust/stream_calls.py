"""One system's stream: the WebSocket, `protocol.stream`'s rules, and the account that everything goes into.

A WebSocket has no requests, so the events are fired here: `WS submit` from a frame to its answer, `WS acknowledge`
likewise, `WS stream` for opening one; `from schedule` and `end to end` as for the HTTP door. Submissions do not
wait for each other. A greenlet reads; when the connection breaks it opens another, after a moment and by
chance, and submits again what was not answered.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gevent
import orjson
from gevent.event import Event
from locust.event import EventHook
from websocket import ABNF, WebSocket, WebSocketException

from benchmarks.locust.account import Account, Mailbox
from benchmarks.locust.calls import END_TO_END, FROM_SCHEDULE, RETRY_SECONDS, refusal
from protocol.stream import (
    SUBPROTOCOL,
    Ack,
    Acked,
    Answers,
    Bye,
    Credit,
    Drain,
    Failure,
    Frame,
    Hello,
    Mail,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    Welcome,
    body_size,
)

MAIL_MESSAGES, MAIL_BYTES = 500, 4 << 20
"""How much mail may be on its way to a receiver."""
CONNECT_SECONDS = 20.0
SILENCE_SECONDS = 90.0
"""Three of the hub's heartbeats; a connection on which nothing comes for so long is dead."""
RECONNECT_SECONDS = (0.5, 2.0)
BYE_SECONDS = 5.0


@dataclass(slots=True)
class _Submission:
    numbers: list[int]
    due: float
    sent: float


class Stream:
    """A connection that is kept up until `finish`. `mailbox`: of a receiver; a sender has none."""

    def __init__(self, host: str, token: str, insecure: bool, account: Account, events: EventHook) -> None:
        self._url = f"ws{host.removeprefix('http')}/v1/stream"
        self._token = token
        self._tls = {"cert_reqs": ssl.CERT_NONE, "check_hostname": False} if insecure else {}
        self._account = account
        self._events = events
        self._socket: WebSocket | None = None
        self._session = Session(Role.CLIENT)
        self._open = Event()
        """Set while submissions may be tried."""
        self._unanswered: dict[int, _Submission] = {}
        self._again: list[_Submission] = []
        self._acks: dict[int, tuple[list[int], str, float]] = {}
        """Numbers of documents, the cursor that they reach to, and when, by frame."""
        self._finished = False
        self.mailbox: Mailbox | None = None

    @property
    def busy(self) -> bool:
        """Whether answers to submissions are outstanding."""
        return bool(self._unanswered or self._again)

    # -- what users do --------------------------------------------------------------------------

    def run(self) -> None:
        """Keep a connection and read from it: for a greenlet of its own, until `finish`."""
        while not self._finished:
            try:
                self._connect()
                while self._session.state is not State.CLOSED:
                    self._read()
            except (WebSocketException, OSError, StreamError) as error:
                if not self._finished:
                    self._fire("WS", "stream", perf_counter(), error)
            self._lost()
            if not self._finished:
                gevent.sleep(random.uniform(*RECONNECT_SECONDS))

    def submit(self, numbers: list[int], due: float) -> None:
        """Submit documents; returns when they are on their way, which takes a connection and credit."""
        for number in numbers:
            self._account.sent(number, due)
        self._submit(_Submission(numbers, due, 0.0))

    def finish(self) -> None:
        """Say goodbye: what was sent is answered before the hub closes the connection."""
        self._finished = True
        if self._session.state in (State.OPEN, State.DRAINING):
            try:
                self._send(Bye())
            except (WebSocketException, OSError, StreamError):
                self.cut()

    def cut(self) -> None:
        """Close the connection as it is."""
        if self._socket is not None:
            self._socket.shutdown()

    # -- the connection -------------------------------------------------------------------------

    def _connect(self) -> None:
        since = perf_counter()
        self._session = Session(Role.CLIENT)
        self._socket = WebSocket(sslopt=self._tls, skip_utf8_validation=True)
        self._socket.connect(
            self._url,
            header=[f"Authorization: Bearer {self._token}"],
            subprotocols=[SUBPROTOCOL],
            suppress_origin=True,
            timeout=CONNECT_SECONDS,
        )
        mailbox = self.mailbox
        if mailbox is not None:
            self._send(Hello(MAIL_MESSAGES, MAIL_BYTES, mailbox.cursor))
        else:
            self._send(Hello())
        self._read()
        self._socket.settimeout(SILENCE_SECONDS)
        self._fire("WS", "stream", since)
        again, self._again = self._again, []
        for submission in again:
            self._repeat(submission)

    def _lost(self) -> None:
        """Nothing of what is under way will be answered on this connection."""
        self._open.clear()
        self._session.state = State.CLOSED
        self.cut()
        self._again += self._unanswered.values()
        self._unanswered.clear()
        if self.mailbox is not None:
            for numbers, _, _ in self._acks.values():
                self.mailbox.doubtful.update(numbers)
        self._acks.clear()

    def _send(self, frame: Frame) -> None:
        assert self._socket is not None
        self._socket.send(self._session.send(frame), ABNF.OPCODE_TEXT)

    def _read(self) -> None:
        """One frame. Raises when there is none any more."""
        assert self._socket is not None
        opcode, data = self._socket.recv_data()
        if opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big")
            self._session.state = State.CLOSED
            if not self._finished and code not in (1000, 1001):
                raise StreamError(f"the hub closed the stream: {code}")
            return
        frame = self._session.receive(data)
        if isinstance(frame, Answers):
            for answer in frame.answers:
                self._answered(self._unanswered.pop(answer.n), answer.outcomes)
        elif isinstance(frame, Mail):
            self._mail(frame)
        elif isinstance(frame, Acked):
            self._acked(frame)
        elif isinstance(frame, Failure):
            self._failed(frame)
        elif isinstance(frame, Drain):
            self._open.clear()
            self._send(Bye())
        if isinstance(frame, Welcome | Answers | Credit | Failure) and self._session.may_submit:
            self._open.set()

    # -- submissions ----------------------------------------------------------------------------

    def _submit(self, submission: _Submission) -> None:
        while not self._session.may_submit:
            self._open.clear()
            self._open.wait()
        documents = tuple(self._account.load.document(number).decode("ascii") for number in submission.numbers)
        n = self._session.next_number
        submission.sent = perf_counter()
        self._unanswered[n] = submission
        try:
            self._send(Submit(n, documents))
        except (WebSocketException, OSError):
            self.cut()  # the reader finds out, and submits it again

    def _repeat(self, submission: _Submission) -> None:
        for number in submission.numbers:
            self._account.sent_again(number)
        gevent.spawn(self._submit, submission)

    def _answered(self, submission: _Submission, outcomes: tuple[dict[str, Any], ...]) -> None:
        account, fault = self._account, None
        left: list[int] = []
        for number, outcome in zip(submission.numbers, outcomes, strict=True):
            line = orjson.dumps(outcome)
            if "code" not in outcome:
                wrong = account.receipted(number, line)
            else:
                found = refusal(200, line)
                wrong = found.reason
                if found.retryable:
                    left.append(number)
                else:
                    account.refused(number, found.reason)
            fault = wrong or fault
        count = len(submission.numbers)
        name = "submit" if count == 1 else f"submit, {count} at once"
        self._fire("WS", name, submission.sent, StreamError(fault) if fault else None)
        if left:
            again = _Submission(left, submission.due, 0.0)
            self._again.append(again)
            gevent.spawn_later(RETRY_SECONDS, self._try_again, again)
        for _ in range(count - len(left)):
            self._fire(FROM_SCHEDULE, "submit", submission.due)

    def _try_again(self, submission: _Submission) -> None:
        if submission in self._again:  # else a new connection has taken it
            self._again.remove(submission)
            self._repeat(submission)

    # -- mail -----------------------------------------------------------------------------------

    def _mail(self, frame: Mail) -> None:
        mailbox = self.mailbox
        assert mailbox is not None
        numbers, seqs = [], []
        for entry in frame.entries:
            number = self._account.delivered(mailbox, entry.get("sender_id", ""), entry.get("jws", "").encode())
            if number >= 0:
                numbers.append(number)
                seqs.append(entry["seq"])
        if numbers:
            n = self._session.next_number
            self._acks[n] = numbers, frame.cursor, perf_counter()
            self._send(Ack(n, entries=tuple(seqs)) if mailbox.others else Ack(n, up_to=frame.cursor))
        self._send(Credit(len(frame.entries), sum(map(body_size, frame.entries))))

    def _acked(self, frame: Acked) -> None:
        assert self.mailbox is not None
        done = [n for n in self._acks if n <= frame.n]
        numbers = [number for n in done for number in self._acks[n][0]]
        for n in done:
            _, self.mailbox.cursor, since = self._acks.pop(n)  # a new connection begins here
            self._fire("WS", "acknowledge", since)
        for number in self._account.acknowledged(self.mailbox, numbers, frame.acknowledged):
            self._fire(END_TO_END, "acknowledged", self._account.due(number))

    def _failed(self, frame: Failure) -> None:
        reason = str(frame.problem.get("code"))
        numbers, _, since = self._acks.pop(frame.n or 0, ([], "", perf_counter()))
        if self.mailbox is not None:
            self.mailbox.doubtful.update(numbers)
        self._fire("WS", "acknowledge" if numbers else "stream", since, StreamError(reason))

    def _fire(self, kind: str, name: str, since: float, error: Exception | None = None) -> None:
        self._events.fire(
            request_type=kind,
            name=name,
            response_time=(perf_counter() - since) * 1000,
            response_length=0,
            exception=error,
            context={},
        )
