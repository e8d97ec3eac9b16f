"""The catalogue of errors is complete, and a problem survives the way to the client."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hub
import protocol
from protocol.problems import CATALOGUE, Problem, from_members

SOURCES = [
    path
    for package in (hub, protocol)
    for folder in package.__path__
    for path in sorted(Path(folder).rglob("*.py"))
]


def raised(path: Path) -> Iterator[tuple[str, int]]:
    """The literal codes of `Problem("code", …)` in a file, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield str(first.value), node.lineno


def test_every_code_that_is_raised_stands_in_the_catalogue() -> None:
    used = {(code, path.name, line) for path in SOURCES for code, line in raised(path)}
    assert len(used) > 50  # the search finds them
    assert [use for use in used if use[0] not in CATALOGUE] == []


def test_every_entry_of_the_catalogue_is_used() -> None:
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "problems.py")
    from_source = {code for code in CATALOGUE if f'"{code}"' in text}
    own = Path(protocol.__path__[0], "problems.py").read_text()
    assert {code for code in CATALOGUE if code not in from_source and own.count(f'"{code}"') < 2} == set()


@pytest.mark.parametrize("code", CATALOGUE)
def test_each_entry_is_sound(code: str) -> None:
    kind = CATALOGUE[code]
    assert kind.code == code
    assert HTTPStatus(kind.status) >= 400
    assert kind.fault in ("caller", "hub", "recipient")
    assert (kind.status >= 500) == (kind.fault == "hub")
    assert kind.retryable == (kind.status in (408, 429, 500, 503))
    assert kind.title
    assert not kind.title.endswith(".")


def test_the_members_are_those_of_rfc_9457_and_our_own() -> None:
    problem = Problem(
        "too-many-recipients",
        "quá nhiều nơi nhận",
        fields=(("$.to", "5001 addresses"),),
        retry_after=3,
        limit=5000,
    )
    assert orjson.loads(problem.to_json()) == {
        "type": "/problems/too-many-recipients",
        "title": "The message names more recipients than one message may have",
        "status": 422,
        "code": "too-many-recipients",
        "fault": "caller",
        "retryable": False,
        "detail": "quá nhiều nơi nhận",
        "fields": [{"path": "$.to", "reason": "5001 addresses"}],
        "limit": 5000,
    }
    assert str(problem) == "quá nhiều nơi nhận"
    assert str(Problem("forbidden")) == CATALOGUE["forbidden"].title
    assert "detail" not in Problem("forbidden").members()


def test_a_code_outside_the_catalogue_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        Problem("khong-co")


@given(
    st.sampled_from(sorted(CATALOGUE)), st.text(max_size=30), st.lists(st.tuples(st.text(), st.text()), max_size=2)
)
def test_a_problem_is_rebuilt_from_its_members(code: str, detail: str, fields: list[tuple[str, str]]) -> None:
    problem = Problem(code, detail, fields=tuple(fields), unreachable=[{"recipient": "000.00.31.H63"}])
    found = from_members(orjson.loads(problem.to_json()), problem.status)
    assert found.code == code
    assert found.detail == (detail or problem.kind.title)
    assert found.fields == tuple(fields)
    assert found.extra == problem.extra


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "internal"),
        (502, "internal"),
        (400, "bad-request"),
        (418, "bad-request"),
        (408, "timeout"),
        (429, "too-many-requests"),
    ],
)
def test_what_is_not_the_hubs_becomes_a_problem_too(status: int, code: str) -> None:
    for members in ({}, {"code": "từ-tương-lai", "title": "Lạ"}, {"code": 7, "detail": None, "fields": ["x"]}):
        found = from_members(members, status)
        assert found.code == code
        assert str(members.get("code") or status) in found.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@example({"fields": 5})
@example({"fields": None, "self": 1})
@given(
    st.dictionaries(
        st.sampled_from(["code", "detail", "title", "fields", "self", "retryable", "limit"]), json_values
    )
)
def test_any_object_of_a_peer_becomes_a_problem(members: dict[str, object]) -> None:
    assert from_members(members, 500).code in CATALOGUE


@pytest.mark.parametrize(
    ("told", "understood"),
    [(2, 2), (0.5, 0.5), (0, 0), (-1, None), ("2", None), (True, None), (None, None), (float("inf"), None)],
)
def test_when_to_come_again_may_stand_in_the_problem_itself(told: object, understood: float | None) -> None:
    """In the answer to a batch, and on a stream, no header can say it."""
    problem = from_members({"code": "overloaded", "retry_after": told})
    assert problem.retry_after == understood
    assert "retry_after" not in problem.extra
