"""The stream's sessions: what may come next, numbers, credit."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

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
    Credit,
    Failure,
    Frame,
    Mail,
    Refusal,
    Role,
    Session,
    State,
    StreamError,
    Submit,
    body_size,
)
from tests.support.sessions import OTHER, PROBLEM, SENDS, entry, in_state, open_session, write


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


# -- frames ------------------------------------------------------------------------------------------


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


# -- numbers -----------------------------------------------------------------------------------------


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


# -- credit ------------------------------------------------------------------------------------------


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
