"""The stream: one WebSocket on which a system submits and receives. Frames, states and credit, without I/O.

Each WebSocket message is one *frame*, a JSON object whose `type` says which (docs/stream.md shows them all).
A `Session` is one end of a connection: bytes in, frames out, and the other way round. It knows what may come
next (`TABLE`), counts credit, and raises `StreamError` when the other end breaks the rules.

    client                                hub
      │  hello ────────────────────────────►│   what I want, and how much mail I can take
      │◄──────────────────────────── welcome│   how much you may submit
      │  submit 1, submit 2, … ────────────►│   as many as credit allows, without waiting
      │◄──────────────────── answers 2, 1, …│   after COMMIT; credit comes back with them
      │◄─────────────────────────────── mail│   as it is committed, as far as credit allows
      │  ack 3 ────────────────────────────►│
      │◄────────────────────────────── acked│   on disk
      │◄────────────────────────────── drain│   please reconnect: submit no more here
      │  bye ──────────────────────────────►│   answers still come, then the connection is closed

What is subtle:

*Credit.* Each end may send only what the other has granted, in messages and in bytes. A client gets its
credit in `welcome` and back with `answers`; the hub gets its credit for mail in `hello` and by `credit`.
Both must be more than nothing for one more frame to be sent; the frame may then overdraw the bytes, or else
a message larger than the whole credit could never pass.

*Crossing.* `drain` and `submit` may pass each other on the way. The hub answers such a submission with the
problem `stopping`; the client sends the same bytes again elsewhere and nothing is lost or doubled.

*Resuming.* There is no session to resume. After a broken connection the client sends what was not answered
again (the hub knows it by its id and gives the first receipt) and says in `hello` after which cursor it
wants its mail.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import Enum, auto
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocol.manifest import MAX_DOCUMENTS
from protocol.problems import LienthongError
from protocol.reasons import RefusalCode

SUBPROTOCOL = "lienthong.stream.v1"
MAX_FRAME_BYTES = 32 << 20
"""The largest frame that a hub takes."""
MAX_ANSWER_BYTES = 512 << 20
"""The largest frame that it sends: 1,000 refusals, each naming 5,000 recipients. Others are below 32 MiB."""
MAX_MESSAGES = 1000
"""Messages in one frame."""
MAX_ACKS = 10_000
"""Entries acknowledged or refused one by one in one frame."""

MAX_REASON = 500
"""Characters that are said of a frame that cannot be read: it may be long, and is quoted."""

# Close codes (RFC 6455, section 7.4.1).
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL = 1002
CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011
CLOSE_TRY_LATER = 1013

Number = Annotated[int, Meta(ge=1, le=(1 << 53) - 1, description="A client's frame: 1, 2, 3, … in a connection")]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
CursorText = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18}$(?!\n)",
        description="A place in a mailbox: how far each lane was read (express.urgent.normal)",
    ),
]
Seq = Annotated[int, Meta(ge=1, le=(1 << 53) - 1, description="An entry's sequence in its mailbox")]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)")]
Members = dict[str, Any]


class StreamError(LienthongError):
    """The other end broke the protocol. `code` is the WebSocket close code that says so."""

    def __init__(self, reason: str, code: int = CLOSE_PROTOCOL) -> None:
        super().__init__(reason)
        self.code = code


# -- frames -------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", gc=False):
    """Any frame."""


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An entry that the recipient does not take, and what its sender is told: words, and a code for its system."""

    seq: Seq
    reason: Reason
    code: RefusalCode = "other"


class Hello(Frame, tag="hello", frozen=True):
    """The client's first frame. With `messages` and `bytes` of 0 it only submits."""

    messages: Count = 0
    bytes: Count = 0
    after: CursorText = "0.0.0"


class Submit(Frame, tag="submit", frozen=True):
    """Messages as compact JWS; or a manifest's JWS and its `documents`, each as base64url."""

    n: Number
    messages: Annotated[tuple[str, ...], Meta(max_length=MAX_MESSAGES)] = ()
    manifest: str = ""
    documents: Annotated[tuple[str, ...], Meta(max_length=MAX_DOCUMENTS)] = ()

    @property
    def count(self) -> int:
        return len(self.messages) + len(self.documents)

    @property
    def size(self) -> int:
        """Bytes of the messages as they are signed, which is what credit counts."""
        return sum(map(len, self.messages)) + sum(map(len, self.documents))


class Ack(Frame, tag="ack", frozen=True):
    """Mail that the client is done with: up to a cursor, single entries, refusals. One may hold all three.

    Or `signed` alone: the same under the client's signature (`protocol.acknowledgement`).
    """

    n: Number
    up_to: CursorText | None = None
    entries: Annotated[tuple[Seq, ...], Meta(max_length=MAX_ACKS)] = ()
    refuse: Annotated[tuple[Refusal, ...], Meta(max_length=MAX_ACKS)] = ()
    signed: str = ""


class Credit(Frame, tag="credit", frozen=True):
    """So much more may be sent: mail, when it comes from a client; submissions, when it comes from the hub."""

    messages: Count = 0
    bytes: Count = 0


class Bye(Frame, tag="bye", frozen=True):
    """The client sends nothing more; what it sent is answered before the hub closes the connection."""


class Welcome(Frame, tag="welcome", frozen=True):
    """The hub's first frame: its name, and how much may be submitted before answers come."""

    hub: str
    messages: Count
    bytes: Count
    heartbeat: Annotated[float, Meta(description="Seconds between the hub's pings")]


class Answer(msgspec.Struct, frozen=True):
    """The outcomes of one `submit`, in the order of its messages: each as a line of a batch over HTTP."""

    n: Number
    outcomes: tuple[Members, ...]


class Answers(Frame, tag="answers", frozen=True):
    """Outcomes of submissions, in any order of their numbers, and the credit that comes back with them."""

    answers: tuple[Answer, ...]
    messages: Count = 0
    bytes: Count = 0


class Mail(Frame, tag="mail", frozen=True):
    """Entries of the mailbox, as a page over HTTP has them. `cursor` acknowledges all so far."""

    entries: tuple[Members, ...]
    cursor: CursorText
    more: bool = False


class Acked(Frame, tag="acked", frozen=True):
    """All `ack` frames up to `n` that were not answered yet are on disk: how many deliveries they ended."""

    n: Number
    acknowledged: Count = 0
    refused: Count = 0


class Failure(Frame, tag="problem", frozen=True):
    """What the hub could not do: with `n` that frame, without it the connection, which is closed then."""

    problem: Members
    n: Number | None = None
    messages: Count = 0
    bytes: Count = 0


class Drain(Frame, tag="drain", frozen=True):
    """The hub is about to stop: submit elsewhere, acknowledge what you have, say `bye`, within `seconds`."""

    seconds: float


ClientFrame = Hello | Submit | Ack | Credit | Bye
HubFrame = Welcome | Answers | Mail | Acked | Failure | Credit | Drain


# -- states -------------------------------------------------------------------------------------


class Role(Enum):
    CLIENT = auto()
    HUB = auto()


class State(Enum):
    """Of a connection. Both ends go through the same, one a moment later than the other."""

    OPENING = auto()
    """The WebSocket is open; nothing has been said."""
    GREETING = auto()
    """The client has said `hello`."""
    OPEN = auto()
    DRAINING = auto()
    """The hub wants to stop."""
    CLOSING = auto()
    """The client has said `bye`."""
    CLOSED = auto()


Moves = dict[type[Frame], State]

TABLE: dict[State, dict[Role, Moves]] = {
    State.OPENING: {Role.CLIENT: {Hello: State.GREETING}, Role.HUB: {Failure: State.CLOSED}},
    State.GREETING: {
        Role.CLIENT: {},
        Role.HUB: {Welcome: State.OPEN, Failure: State.CLOSED},
    },
    State.OPEN: {
        Role.CLIENT: {Submit: State.OPEN, Ack: State.OPEN, Credit: State.OPEN, Bye: State.CLOSING},
        Role.HUB: {
            Answers: State.OPEN,
            Acked: State.OPEN,
            Mail: State.OPEN,
            Credit: State.OPEN,
            Failure: State.OPEN,
            Drain: State.DRAINING,
        },
    },
    State.DRAINING: {
        # A submission may have crossed the drain on its way.
        Role.CLIENT: {Submit: State.DRAINING, Ack: State.DRAINING, Credit: State.DRAINING, Bye: State.CLOSING},
        Role.HUB: {
            Answers: State.DRAINING,
            Acked: State.DRAINING,
            Mail: State.DRAINING,
            Credit: State.DRAINING,
            Failure: State.DRAINING,
        },
    },
    State.CLOSING: {
        Role.CLIENT: {},
        # What the hub had sent before it heard of the end.
        Role.HUB: {
            Answers: State.CLOSING,
            Acked: State.CLOSING,
            Mail: State.CLOSING,
            Credit: State.CLOSING,
            Failure: State.CLOSING,
            Drain: State.CLOSING,
        },
    },
    State.CLOSED: {Role.CLIENT: {}, Role.HUB: {}},
}
"""Which frames each end may send in a state, and which state follows. Whatever is not here is an error."""

_read: dict[Role, Any] = {
    Role.HUB: msgspec.json.Decoder(ClientFrame).decode,
    Role.CLIENT: msgspec.json.Decoder(HubFrame).decode,
}
_write = msgspec.json.Encoder().encode


class Session:
    """One end of a connection.

    `receive` takes what the other end sent; `send` and its shorter forms give what to send. `submit_messages`
    and `submit_bytes` are the client's credit, `mail_messages` and `mail_bytes` the hub's, as this end knows
    them.
    """

    __slots__ = (
        "_acks",
        "_role",
        "_sent",
        "_unanswered",
        "mail_bytes",
        "mail_messages",
        "state",
        "submit_bytes",
        "submit_messages",
    )

    def __init__(self, role: Role) -> None:
        self._role = role
        self.state = State.OPENING
        self.submit_messages = self.submit_bytes = 0
        self.mail_messages = self.mail_bytes = 0
        self._sent = 0
        """The number of the client's last frame that has one."""
        self._unanswered: dict[int, int] = {}
        """Submissions without an answer: their messages, by number."""
        self._acks: list[int] = []
        """Acknowledgements without an answer, in their order."""

    @property
    def unanswered(self) -> int:
        """Submissions and acknowledgements that wait for an answer."""
        return len(self._unanswered) + len(self._acks)

    @property
    def next_number(self) -> int:
        """The number that the client's next `submit` or `ack` has."""
        return self._sent + 1

    @property
    def may_submit(self) -> bool:
        """Whether the client may submit one more frame now."""
        return self.state is State.OPEN and self.submit_messages > 0 and self.submit_bytes > 0

    @property
    def may_push(self) -> bool:
        """Whether the hub may send one more frame of mail now."""
        return self.state in (State.OPEN, State.DRAINING) and self.mail_messages > 0 and self.mail_bytes > 0

    def receive(self, data: bytes | str) -> Frame:
        """The frame that the other end sent. Raises StreamError."""
        try:
            frame: Frame = _read[self._role](data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StreamError(f"not a frame of this protocol: {error}"[:MAX_REASON]) from None
        self._step(frame, Role.CLIENT if self._role is Role.HUB else Role.HUB)
        return frame

    def send(self, frame: Frame) -> bytes:
        """What to send for a frame. Raises StreamError when it may not be sent now: the caller's mistake."""
        if self._role is Role.CLIENT and type(frame) is Submit and self.state is State.DRAINING:
            raise StreamError("the hub is draining; submit on another connection")
        self._step(frame, self._role)
        return _write(frame)

    def answers(self, answered: list[tuple[int, list[bytes]]], messages: int, size: int) -> bytes:
        """The frame `answers`, from outcomes that are JSON already; credit for so much comes back."""
        self._move(Answers, Role.HUB)
        for n, outcomes in answered:
            self._answered(n, len(outcomes))
        self.submit_messages += messages
        self.submit_bytes += size
        parts = [b'{"n":%d,"outcomes":[%b]}' % (n, b",".join(outcomes)) for n, outcomes in answered]
        return b'{"type":"answers","answers":[%b],"messages":%d,"bytes":%d}' % (b",".join(parts), messages, size)

    def mail(self, entries: list[bytes], size: int, cursor: str, more: bool) -> bytes:
        """The frame `mail`, from entries that are JSON already, with bodies of `size` bytes together."""
        self._move(Mail, Role.HUB)
        self._push(len(entries), size)
        return b'{"type":"mail","entries":[%b],"cursor":"%b","more":%b}' % (
            b",".join(entries),
            cursor.encode(),
            b"true" if more else b"false",
        )

    def failure(self, problem: bytes, n: int | None = None, messages: int = 0, size: int = 0) -> bytes:
        """The frame `problem`, from a problem that is JSON already."""
        self._move(Failure, Role.HUB)
        self._failed(Failure({}, n, messages, size))
        number = b"" if n is None else b',"n":%d' % n
        return b'{"type":"problem","problem":%b%b,"messages":%d,"bytes":%d}' % (problem, number, messages, size)

    # -- the rules ------------------------------------------------------------------------------

    def _move(self, kind: type[Frame], sender: Role) -> None:
        state = TABLE[self.state][sender].get(kind)
        if state is None:
            name = kind.__struct_config__.tag
            raise StreamError(f"`{name}` may not be sent when the connection is {self.state.name.lower()}")
        self.state = state

    def _step(self, frame: Frame, sender: Role) -> None:
        kind = type(frame)
        self._move(kind, sender)
        if isinstance(frame, Submit):
            self._submit(frame)
        elif isinstance(frame, Ack):
            if frame.signed and (frame.up_to or frame.entries or frame.refuse):
                raise StreamError("`ack` has either `signed` or what is not signed")
            self._number(frame.n)
            self._acks.append(frame.n)
        elif isinstance(frame, Credit):
            if sender is Role.CLIENT:
                self._grant_mail(frame.messages, frame.bytes)
            else:
                self._grant_submissions(frame.messages, frame.bytes)
        elif isinstance(frame, Answers):
            for answer in frame.answers:
                self._answered(answer.n, len(answer.outcomes))
            self._grant_submissions(frame.messages, frame.bytes)
        elif isinstance(frame, Mail):
            self._push(len(frame.entries), sum(map(body_size, frame.entries)))
        elif isinstance(frame, Acked):
            self._acknowledged(frame.n)
        elif isinstance(frame, Failure):
            self._failed(frame)
        elif isinstance(frame, Hello):
            self._grant_mail(frame.messages, frame.bytes)
        elif isinstance(frame, Welcome):
            self._grant_submissions(frame.messages, frame.bytes)

    def _number(self, n: int) -> None:
        if n != self._sent + 1:
            raise StreamError(f"the frame after {self._sent} must have the number {self._sent + 1}, not {n}")
        self._sent = n

    def _submit(self, frame: Submit) -> None:
        self._number(frame.n)
        count = frame.count
        whole = bool(frame.manifest) == bool(frame.documents)
        if not count or not whole or (frame.messages and frame.documents):
            raise StreamError("`submit` has either `messages`, or `manifest` and `documents`")
        if self.submit_messages <= 0 or self.submit_bytes <= 0 or count > self.submit_messages:
            raise StreamError("more was submitted than the hub had granted", CLOSE_POLICY)
        self.submit_messages -= count
        self.submit_bytes -= frame.size
        self._unanswered[frame.n] = count

    def _answered(self, n: int, outcomes: int) -> None:
        if self._unanswered.pop(n, None) != outcomes:
            raise StreamError(f"`answers` does not have one outcome for each message of {n}, once")

    def _acknowledged(self, n: int) -> None:
        place = bisect_right(self._acks, n)
        if not place or self._acks[place - 1] != n:
            raise StreamError(f"`acked` names {n}, which is not an acknowledgement without an answer")
        del self._acks[:place]

    def _failed(self, frame: Failure) -> None:
        if frame.n is None:
            self.state = State.CLOSED
            return
        if frame.n in self._acks:
            self._acks.remove(frame.n)
        elif self._unanswered.pop(frame.n, None) is None:
            raise StreamError(f"`problem` names {frame.n}, which does not wait for an answer")
        self._grant_submissions(frame.messages, frame.bytes)

    def _push(self, count: int, size: int) -> None:
        if count > self.mail_messages or self.mail_bytes <= 0:
            raise StreamError("more mail was sent than was granted", CLOSE_POLICY)
        self.mail_messages -= count
        self.mail_bytes -= size

    def _grant_mail(self, messages: int, size: int) -> None:
        self.mail_messages += messages
        self.mail_bytes += size

    def _grant_submissions(self, messages: int, size: int) -> None:
        self.submit_messages += messages
        self.submit_bytes += size


BODIES: tuple[Literal["jws", "entry", "edxml"], ...] = ("jws", "entry", "edxml")
"""The members under which an entry of a mailbox carries a message's bytes."""


def body_size(entry: Members) -> int:
    """What an entry of a mailbox takes of the credit in bytes: the message, where it came along."""
    for name in BODIES:
        body = entry.get(name)
        if isinstance(body, str):
            return len(body) if body.isascii() else len(body.encode())
    return 0
