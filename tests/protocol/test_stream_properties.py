"""Two ends of a stream that are never of two minds, and ends that mean ill."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.stream import (
    CLOSE_POLICY,
    CLOSE_PROTOCOL,
    Ack,
    Acked,
    Answer,
    Bye,
    Credit,
    Drain,
    Frame,
    Hello,
    Refusal,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    Welcome,
)
from tests.support.sessions import OTHER, PROBLEM, SENDS, entry, in_state, open_session


class Wire(RuleBasedStateMachine):
    """Two sessions wired back to back: whatever one may send, the other takes, however late it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.hub = Session(Role.CLIENT), Session(Role.HUB)
        self.to_hub: deque[bytes] = deque()
        self.to_client: deque[bytes] = deque()
        self.unanswered: deque[tuple[int, int, int]] = deque()
        """Submissions that the hub has: number, messages, bytes."""
        self.unacked: deque[int] = deque()
        self.seq = 0

    def say(self, frame: Frame) -> None:
        self.to_hub.append(self.client.send(frame))

    @precondition(lambda self: self.client.state is State.OPENING)
    @rule(messages=st.integers(0, 4), size=st.integers(0, 40))
    def hello(self, messages: int, size: int) -> None:
        self.say(Hello(messages, size))

    @precondition(lambda self: self.hub.state is State.GREETING)
    @rule(messages=st.integers(0, 6), size=st.integers(0, 60))
    def welcome(self, messages: int, size: int) -> None:
        self.to_client.append(self.hub.send(Welcome("trục", messages, size, 30)))

    @precondition(lambda self: self.client.may_submit)
    @rule(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3), together=st.booleans())
    def submit(self, sizes: list[int], together: bool) -> None:
        texts = tuple("x" * size for size in sizes[: self.client.submit_messages])
        n = self.client.next_number
        self.say(Submit(n, manifest="m", documents=texts) if together else Submit(n, messages=texts))

    @precondition(lambda self: self.client.state in (State.OPEN, State.DRAINING))
    @rule()
    def acknowledge(self) -> None:
        self.say(Ack(self.client.next_number, up_to="0.0.1"))

    @precondition(lambda self: self.client.state in (State.OPEN, State.DRAINING))
    @rule(messages=st.integers(0, 3), size=st.integers(0, 30))
    def grant_mail(self, messages: int, size: int) -> None:
        self.say(Credit(messages, size))

    @precondition(lambda self: self.client.state in (State.OPEN, State.DRAINING))
    @rule()
    def bye(self) -> None:
        self.say(Bye())

    @precondition(lambda self: self.hub.state in (State.OPEN, State.DRAINING))
    @rule(messages=st.integers(0, 3), size=st.integers(0, 30))
    def grant_submissions(self, messages: int, size: int) -> None:
        self.to_client.append(self.hub.send(Credit(messages, size)))

    @precondition(lambda self: self.unanswered and self.hub.state is not State.CLOSED)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.unanswered)))
        taken = [self.unanswered.popleft() for _ in range(count)]
        answered = [(n, [b'{"status":202}'] * messages) for n, messages, _ in reversed(taken)]
        self.to_client.append(
            self.hub.answers(answered, sum(item[1] for item in taken), sum(item[2] for item in taken))
        )

    @precondition(lambda self: self.unanswered and self.hub.state is not State.CLOSED)
    @rule()
    def refuse(self) -> None:
        n, messages, size = self.unanswered.popleft()
        self.to_client.append(self.hub.failure(PROBLEM.to_json(), n, messages, size))

    @precondition(lambda self: self.unacked and self.hub.state is not State.CLOSED)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        last = data.draw(st.sampled_from(self.unacked))
        while self.unacked and self.unacked[0] <= last:
            self.unacked.popleft()
        self.to_client.append(self.hub.send(Acked(last)))

    @precondition(lambda self: self.hub.may_push)
    @rule(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def push(self, sizes: list[int]) -> None:
        entries = []
        for size in sizes[: self.hub.mail_messages]:
            self.seq += 1
            entries.append(orjson.dumps(entry(self.seq, "x" * size)))
        size = sum(sizes[: self.hub.mail_messages])
        self.to_client.append(self.hub.mail(entries, size, f"0.0.{self.seq}", False))

    @precondition(lambda self: self.hub.state is State.OPEN)
    @rule()
    def drain(self) -> None:
        self.to_client.append(self.hub.send(Drain(5)))

    @precondition(lambda self: self.hub.state is not State.CLOSED)
    @rule(really=st.integers(0, 9))
    def give_up(self, really: int) -> None:
        if not really:
            self.to_client.append(self.hub.failure(PROBLEM.to_json()))

    @rule()
    def nothing_happens(self) -> None:
        """Both may have ended."""

    @precondition(lambda self: self.to_hub)
    @rule()
    def hear_client(self) -> None:
        data = self.to_hub.popleft()
        if self.hub.state is State.CLOSED:
            return  # it has gone
        frame = self.hub.receive(data)
        if isinstance(frame, Submit):
            self.unanswered.append((frame.n, frame.count, frame.size))
        elif isinstance(frame, Ack):
            self.unacked.append(frame.n)

    @precondition(lambda self: self.to_client)
    @rule()
    def hear_hub(self) -> None:
        self.client.receive(self.to_client.popleft())

    @invariant()
    def neither_promises_more_than_the_other_allows(self) -> None:
        if self.hub.state is not State.CLOSED:
            assert self.hub.mail_messages >= 0 and self.client.submit_messages >= 0
            assert self.client.submit_messages <= self.hub.submit_messages + sum(
                frame.count for frame in self.under_way(Submit)
            )

    def under_way(self, kind: type[Any]) -> list[Any]:
        decode = msgspec.json.Decoder(Hello | Submit | Ack | Credit | Bye).decode
        return [frame for frame in map(decode, self.to_hub) if isinstance(frame, kind)]

    @invariant()
    def when_all_was_heard_both_know_the_same(self) -> None:
        if self.to_hub or self.to_client or self.hub.state is State.CLOSED:
            return
        for name in ("state", "submit_messages", "submit_bytes", "mail_messages", "mail_bytes", "unanswered"):
            assert getattr(self.client, name) == getattr(self.hub, name), name
        assert self.client.next_number == self.hub.next_number


Wire.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWire = Wire.TestCase


# -- hostile ends ------------------------------------------------------------------------------------


KINDS = [kind for kinds in SENDS.values() for kind in kinds]
NAMES = {field.encode_name for kind in (*KINDS, Answer, Refusal) for field in msgspec.structs.fields(kind)}
WORDS = st.sampled_from(
    [
        *sorted({str(kind.__struct_config__.tag) for kind in KINDS} | NAMES),
        *("type", "jws", "entry", "receipt", "0.0.0", "1.2.3", "tiếng Việt"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 70) | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


def nearly(kind: type[Frame]) -> st.SearchStrategy[bytes]:
    """What looks like a frame of a kind, and may be one."""
    fields = {field.encode_name: VALUES for field in msgspec.structs.fields(kind)}
    tag = st.just(kind.__struct_config__.tag)
    return st.fixed_dictionaries({"type": tag}, optional=fields).map(lambda members: msgspec.json.encode(members))


FRAMES = st.one_of([nearly(kind) for kind in KINDS])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(Role),
    st.sampled_from(State),
    st.lists(FRAMES | st.binary(max_size=40) | VALUES.map(msgspec.json.encode), max_size=6),
)
def test_whatever_comes_is_a_frame_or_a_stream_error(role: Role, state: State, came: list[bytes]) -> None:
    session = in_state(role, state)[0]
    for data in came:
        try:
            frame = session.receive(data)
        except StreamError as error:
            assert error.code in (CLOSE_PROTOCOL, CLOSE_POLICY)
            return
        assert type(frame) in SENDS[OTHER[role]]


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"type":"bye","x":' + b"[" * 100_000, b'{"a":' * 100_000])
def test_what_nests_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(StreamError):
        open_session(Role.HUB).receive(data)
