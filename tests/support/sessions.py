"""Sessions of a stream in the states that tests want, and frames that fit them."""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.problems import Problem
from protocol.stream import (
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
    Role,
    Session,
    State,
    Submit,
    Welcome,
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
