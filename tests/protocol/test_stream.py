"""The stream's sessions: what may come next, credit, numbers; two ends that are never of two minds."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.problems import Problem
from protocol.stream import (
    CLOSE_POLICY,
    CLOSE_PROTOCOL,
    MAX_ACKS,
    MAX_MESSAGES,
    TABLE,
    Ack,
    Acked,
    Answer,
    Answers,
    Bye,
    Credit,
    Drain,
    Failure,
    Frame,
    Hello,
    Mail,
    Refusal,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    Welcome,
    body_size,
)

PROBLEM = Problem("overloaded", "gửi lại sau ít phút")
OTHER = {Role.CLIENT: Role.HUB, Role.HUB: Role.CLIENT}
SENDS: dict[Role, tuple[type[Frame], ...]] = {
    Role.CLIENT: (Hello, Submit, Ack, Credit, Bye),
    Role.HUB: (Welcome, Answers, Mail, Acked, Failure, Credit, Drain),
}


def write(frame: Frame) -> bytes:
    return msgspec.json.encode(frame)


def entry(seq: int, body: str = "eyJ") -> dict[str, Any]:
    return {"seq": seq, "lane": "normal", "jws": body}


def open_session(
    role: Role, *, submissions: tuple[int, int] = (10, 1000), mail: tuple[int, int] = (5, 500)
) -> Session:
    """One end of a connection that is open, with credit both ways."""
    session = Session(role)
    hello, welcome = Hello(*mail), Welcome("trục Yên Bái", *submissions, heartbeat=30)
    for frame in (hello, welcome):
        if type(frame) in SENDS[role]:
            session.send(frame)
        else:
            session.receive(write(frame))
    return session


def in_state(role: Role, state: State) -> tuple[Session, dict[type[Frame], Frame]]:
    """One end in a state, a submission and an acknowledgement unanswered; and a fitting frame of each kind."""
    session = open_session(role)
    for frame in (Submit(1, messages=("a",)), Ack(2, entries=(7,))):
        if role is Role.CLIENT:
            session.send(frame)
        else:
            session.receive(write(frame))
    session.state = state
    fitting = (
        Hello(1, 1),
        Submit(3, messages=("a",)),
        Ack(3, up_to="0.0.7"),
        Credit(1, 1),
        Bye(),
        Welcome("trục Yên Bái", 1, 1, 30),
        Answers((Answer(1, ({"status": 202},)),), 1, 1),
        Mail((entry(9),), "0.0.9"),
        Acked(2, 1),
        Failure(PROBLEM.members(), 1),
        Drain(5),
    )
    return session, {type(frame): frame for frame in fitting}


# -- the table --------------------------------------------------------------------------------------


def test_the_table_speaks_of_every_state_and_only_of_frames_that_the_end_may_send() -> None:
    assert set(TABLE) == set(State)
    for moves in TABLE.values():
        assert set(moves) == set(Role)
        for role in Role:
            assert set(moves[role]) <= set(SENDS[role])
    assert TABLE[State.CLOSED] == {Role.CLIENT: {}, Role.HUB: {}}
    reached = {State.OPENING} | {
        state for moves in TABLE.values() for to in moves.values() for state in to.values()
    }
    assert reached == set(State)


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize("sender", Role, ids=lambda role: role.name)
def test_each_frame_in_each_state_is_what_the_table_says(sender: Role, state: State) -> None:
    for kind in SENDS[sender]:
        sending, frames = in_state(sender, state)
        receiving, _ = in_state(OTHER[sender], state)
        frame = frames[kind]
        if kind in TABLE[state][sender]:
            after = TABLE[state][sender][kind]
            assert receiving.receive(write(frame)) == frame
            assert receiving.state is after
            if (sender, kind, state) == (Role.CLIENT, Submit, State.DRAINING):
                with pytest.raises(StreamError, match="draining"):
                    sending.send(frame)  # it may only have crossed the drain
            else:
                assert sending.send(frame) == write(frame)
                assert sending.state is after
            continue
        for session in (receiving, sending):
            with pytest.raises(StreamError) as refused:
                session.receive(write(frame)) if session is receiving else session.send(frame)
            assert refused.value.code == CLOSE_PROTOCOL
            name = kind.__struct_config__.tag
            assert str(refused.value) == f"`{name}` may not be sent when the connection is {state.name.lower()}"


@pytest.mark.parametrize("role", Role, ids=lambda role: role.name)
def test_no_end_takes_the_other_ends_frames_from_itself(role: Role) -> None:
    for kind, frame in in_state(role, State.OPEN)[1].items():
        if kind not in SENDS[OTHER[role]]:
            with pytest.raises(StreamError, match="not a frame"):
                open_session(role).receive(write(frame))


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED], ids=lambda s: s.name)
def test_a_problem_without_a_number_ends_the_connection(state: State) -> None:
    hub, client = in_state(Role.HUB, state)[0], in_state(Role.CLIENT, state)[0]
    frame = client.receive(hub.failure(PROBLEM.to_json()))
    assert isinstance(frame, Failure)
    assert frame.problem == PROBLEM.members()
    assert hub.state is client.state is State.CLOSED


# -- frames -----------------------------------------------------------------------------------------


def test_frames_that_the_hub_writes_by_hand_are_read_like_the_others() -> None:
    hub, client = in_state(Role.HUB, State.OPEN)[0], in_state(Role.CLIENT, State.OPEN)[0]
    outcome = b'{"status":202,"id":"x","receipt":{}}'
    assert client.receive(hub.answers([(1, [outcome])], 1, 1)) == Answers(
        (Answer(1, (orjson.loads(outcome),)),), 1, 1
    )
    page = [orjson.dumps(entry(3)), orjson.dumps(entry(8, "eyJh"))]
    for more in (True, False):
        assert client.receive(hub.mail(page, 7, "0.1.8", more)) == Mail(
            (entry(3), entry(8, "eyJh")), "0.1.8", more
        )
    assert client.mail_messages == hub.mail_messages == 1
    assert client.mail_bytes == hub.mail_bytes == 500 - 14
    failure = client.receive(hub.failure(PROBLEM.to_json(), 2, 3, 4))
    assert failure == Failure(PROBLEM.members(), 2, 3, 4)
    assert client.unanswered == hub.unanswered == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"submit","n":1}',
        '{"type":"submit","n":1,"messages":[]}',
        '{"type":"submit","n":1,"manifest":"a"}',
        '{"type":"submit","n":1,"documents":["a"]}',
        '{"type":"submit","n":1,"manifest":"a","documents":[]}',
        '{"type":"submit","n":1,"manifest":"a","documents":["a"],"messages":["a"]}',
        '{"type":"submit","n":0,"messages":["a"]}',
        '{"type":"submit","n":9007199254740992,"messages":["a"]}',
        '{"type":"submit","n":1,"messages":[7]}',
        '{"type":"ack","n":1,"up_to":"0.0"}',
        '{"type":"ack","n":1,"up_to":"0.0.7\\n"}',
        '{"type":"ack","n":1,"up_to":"0.0.٧"}',
        '{"type":"ack","n":1,"entries":[0]}',
        '{"type":"ack","n":1,"refuse":[{"seq":1,"reason":""}]}',
        '{"type":"ack","n":1,"refuse":[{"seq":1,"reason":"hai\\ndòng"}]}',
        '{"type":"ack","n":1,"refuse":[{"seq":1,"reason":"x","vì":"sao"}]}',
        '{"type":"credit","messages":-1}',
        '{"type":"credit","messages":1e3}',
        '{"type":"hello","messages":1,"after":"1.2.3.4"}',
        '{"type":"xin chào"}',
        "{}",
        "[]",
        "",
        "\x00",
    ],
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    state = State.OPENING if "hello" in text else State.OPEN
    session = open_session(Role.HUB)
    session.state = state
    for data in (text, text.encode()):
        with pytest.raises(StreamError) as refused:
            session.receive(data)
        assert refused.value.code == CLOSE_PROTOCOL
        assert len(str(refused.value)) <= 500


def test_what_a_hub_of_tomorrow_adds_is_passed_over() -> None:
    client = open_session(Role.CLIENT)
    assert client.receive('{"type":"credit","messages":1,"từ":"mai"}') == Credit(1)


def test_a_frame_holds_so_many_and_no_more() -> None:
    many = (MAX_MESSAGES + 1, 1 << 30)
    assert open_session(Role.HUB, submissions=many).receive(write(Submit(1, messages=("a",) * MAX_MESSAGES)))
    assert open_session(Role.HUB).receive(write(Ack(1, entries=tuple(range(1, MAX_ACKS + 1)))))
    for frame in (
        Submit(1, messages=("a",) * (MAX_MESSAGES + 1)),
        Submit(1, manifest="a", documents=("a",) * (MAX_MESSAGES + 1)),
        Ack(1, entries=tuple(range(1, MAX_ACKS + 2))),
        Ack(1, refuse=(Refusal(1, "gửi nhầm"),) * (MAX_ACKS + 1)),
    ):
        with pytest.raises(StreamError, match="length <="):
            open_session(Role.HUB, submissions=many).receive(write(frame))


def test_a_long_name_of_a_frame_is_not_said_back_whole() -> None:
    with pytest.raises(StreamError) as refused:
        open_session(Role.HUB).receive(b'{"type":"' + b"a" * 100_000 + b'"}')
    assert len(str(refused.value)) == 500


# -- numbers ----------------------------------------------------------------------------------------


def test_submissions_and_acknowledgements_are_numbered_together_without_gaps() -> None:
    hub, client = open_session(Role.HUB), open_session(Role.CLIENT)
    assert client.next_number == 1
    for frame in (Submit(1, messages=("a",)), Ack(2), Submit(3, manifest="a", documents=("b", "c")), Credit(1)):
        hub.receive(client.send(frame))
    assert client.next_number == hub.next_number == 4
    for n in (1, 3, 5):
        for frame in (Submit(n, messages=("a",)), Ack(n)):
            with pytest.raises(StreamError, match="must have the number 4"):
                in_step(hub).receive(write(frame))
            with pytest.raises(StreamError, match="must have the number 4"):
                in_step(client).send(frame)


def in_step(session: Session) -> Session:
    """A session that is as far as another."""
    copy = open_session(session._role)
    for n in range(1, session.next_number):
        frame = Ack(n)
        if session._role is Role.HUB:
            copy.receive(write(frame))
        else:
            copy.send(frame)
    return copy


@pytest.mark.parametrize(
    "frame",
    [
        Answers((Answer(3, ({},)),)),
        Answers((Answer(2, ({},)),)),
        Answers((Answer(1, ()),)),
        Answers((Answer(1, ({}, {})),)),
        Answers((Answer(1, ({},)), Answer(1, ({},)))),
        Acked(1),
        Acked(3),
        Failure(PROBLEM.members(), 3),
    ],
    ids=str,
)
def test_an_answer_fits_one_question_that_was_not_answered_yet(frame: Frame) -> None:
    for session, act in (
        (in_state(Role.CLIENT, State.OPEN)[0], lambda session: session.receive(write(frame))),
        (in_state(Role.HUB, State.OPEN)[0], lambda session: session.send(frame)),
    ):
        with pytest.raises(StreamError):
            act(session)


def test_one_answer_may_cover_many_acknowledgements() -> None:
    client = open_session(Role.CLIENT)
    for n in range(1, 5):
        client.send(Ack(n, entries=(n,)))
    client.receive(write(Failure(PROBLEM.members(), 2)))
    assert client.unanswered == 3
    client.receive(write(Acked(3, 2)))
    assert client.unanswered == 1
    for again in (Acked(3), Acked(1), Failure(PROBLEM.members(), 2)):
        with pytest.raises(StreamError):
            client.receive(write(again))
    client.receive(write(Acked(4)))
    assert client.unanswered == 0


# -- credit -----------------------------------------------------------------------------------------


def both(**credit: tuple[int, int]) -> tuple[Session, Session]:
    return open_session(Role.CLIENT, **credit), open_session(Role.HUB, **credit)


def refused_for_credit(act: Any) -> None:
    with pytest.raises(StreamError, match="granted") as refused:
        act()
    assert refused.value.code == CLOSE_POLICY


def test_messages_are_submitted_as_far_as_credit_goes() -> None:
    client, hub = both(submissions=(3, 100))
    hub.receive(client.send(Submit(1, messages=("a", "b"))))
    assert client.submit_messages == hub.submit_messages == 1
    assert client.submit_bytes == hub.submit_bytes == 98
    frame = Submit(2, messages=("a", "b"))
    refused_for_credit(lambda: client.send(frame))
    refused_for_credit(lambda: hub.receive(write(frame)))


def test_the_last_frame_may_overdraw_the_bytes_and_none_after_it() -> None:
    client, hub = both(submissions=(9, 10))
    hub.receive(client.send(Submit(1, manifest="m" * 50, documents=("d" * 30,))))
    assert client.submit_bytes == hub.submit_bytes == -20, "the manifest's own JWS does not count"
    assert not client.may_submit
    refused_for_credit(lambda: client.send(Submit(2, messages=("a",))))
    for session in (client, hub):
        session._sent = 1
    client.receive(hub.answers([(1, [b"{}"])], 1, 30))
    assert client.may_submit
    assert (client.submit_messages, client.submit_bytes) == (hub.submit_messages, hub.submit_bytes) == (9, 10)


def test_no_credit_no_submission() -> None:
    for credit in ((0, 100), (100, 0)):
        client, hub = both(submissions=credit)
        assert not client.may_submit
        refused_for_credit(lambda client=client: client.send(Submit(1, messages=("a",))))
        refused_for_credit(lambda hub=hub: hub.receive(write(Submit(1, messages=("a",)))))
        for session in (client, hub):
            session._sent = 0
        client.receive(hub.send(Credit(1, 1)))
        hub.receive(client.send(Submit(1, messages=("a",))))


def test_mail_is_pushed_as_far_as_credit_goes() -> None:
    client, hub = both(mail=(2, 10))
    assert hub.may_push
    client.receive(hub.mail([orjson.dumps(entry(1, "x" * 25))], 25, "0.0.1", True))
    assert (client.mail_messages, client.mail_bytes) == (hub.mail_messages, hub.mail_bytes) == (1, -15)
    assert not hub.may_push
    refused_for_credit(lambda: hub.mail([b"{}"], 0, "0.0.2", False))
    refused_for_credit(lambda: client.receive(write(Mail((entry(2),), "0.0.2"))))
    hub.receive(client.send(Credit(0, 16)))
    assert hub.may_push
    refused_for_credit(lambda: hub.mail([b"{}", b"{}"], 0, "0.0.3", False))
    client.receive(hub.mail([b"{}"], 0, "0.0.2", False))


def test_a_client_that_only_submits_gets_no_mail() -> None:
    client, hub = both(mail=(0, 0))
    assert not hub.may_push
    refused_for_credit(lambda: client.receive(write(Mail((), "0.0.0"))))


def test_a_refused_submission_gives_its_credit_back() -> None:
    client, hub = both(submissions=(2, 10))
    hub.receive(client.send(Submit(1, manifest="m", documents=("d", "d"))))
    client.receive(hub.failure(PROBLEM.to_json(), 1, 2, 2))
    assert (client.submit_messages, client.submit_bytes, client.unanswered) == (2, 10, 0)
    assert (hub.submit_messages, hub.submit_bytes, hub.unanswered) == (2, 10, 0)


def test_what_an_entry_weighs_is_its_message() -> None:
    assert body_size({"jws": "abc"}) == body_size({"entry": "abc"}) == 3
    assert body_size({"receipt": {"event": "dài"}}) == 0
    assert body_size({"jws": 7, "entry": ["x"]}) == 0


# -- two ends ---------------------------------------------------------------------------------------


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


# -- hostile ends -----------------------------------------------------------------------------------

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
