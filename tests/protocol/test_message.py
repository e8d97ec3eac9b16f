"""The document model: what is taken, what is refused and at which field, and nothing else ever."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.agency import is_code
from protocol.message import (
    LANE_OF_PRIORITY,
    MAX_ATTACHMENTS,
    MAX_ID_LENGTH,
    MAX_RECIPIENTS,
    Attachment,
    Document,
    Lane,
    Person,
    Promulgation,
    Reference,
    new_id,
    open_jws,
    printable,
    read_document,
    seal,
    write_document,
)
from protocol.problems import Problem
from protocol.signature import Signer, generate

SIGNER = Signer(generate("EdDSA"))
LEAST = {"id": "215/BC-UBND", "from": "000.00.00.H63", "to": ["000.00.31.H63"]}
FULL = Document(
    id="VY-2026-03-02/công văn số 7",
    sender="000.00.31.H63",
    to=("000.00.00.H63", "H63.32", "group:so-nganh", "below:000.00.31.H63"),
    subject="V/v kết nối, liên thông phần mềm quản lý văn bản",
    priority="very_urgent",
    code="7/UBND-VP",
    type="Công văn",
    promulgation=Promulgation("Văn Yên", "2026-03-02"),
    signer=Person("Đặng Thị Ngọc Ánh", "Phó Chủ tịch", "KT. Chủ tịch"),
    due="2026-03-10",
    business="update",
    response_for=(Reference("H63-2026-11", "000.00.00.H63", "11/UBND-NC", "2026-02-27"),),
    attachments=(Attachment("Phụ lục I.pdf", 12, "ab" * 32, "application/pdf"),),
    expires=datetime(2026, 4, 1, tzinfo=UTC),
    unreachable="report",
    content="Kính gửi: Ủy ban nhân dân tỉnh.",
)


def payload(**changes: Any) -> bytes:
    return orjson.dumps({name: value for name, value in (LEAST | changes).items() if value is not ...})


def refusal(data: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        read_document(data)
    return caught.value


def test_a_document_goes_through_its_jws_and_back() -> None:
    raw = seal(FULL, SIGNER)
    jws, document = open_jws(raw)
    assert document == FULL
    assert read_document(write_document(document)) == FULL
    assert (jws.raw, jws.kid) == (raw, SIGNER.kid)


def test_only_three_members_are_required_and_defaults_are_not_written() -> None:
    document = read_document(payload())
    assert (document.kind, document.priority, document.business) == ("document", "normal", "new")
    assert orjson.loads(write_document(document)) == LEAST


def test_members_of_a_later_version_are_ignored() -> None:
    assert read_document(payload(tương_lai={"a": [1, 2, None]})) == read_document(payload())


@pytest.mark.parametrize(
    ("priority", "lane"),
    [("normal", Lane.NORMAL), ("urgent", Lane.URGENT), ("very_urgent", Lane.URGENT), ("express", Lane.EXPRESS)],
)
def test_lanes(priority: str, lane: Lane) -> None:
    assert read_document(payload(priority=priority)).lane is lane
    assert LANE_OF_PRIORITY[priority] is lane
    assert sorted(Lane)[0].label == "express"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("$", {"id": ...}),
    ("$", {"from": ...}),
    ("$", {"to": ...}),
    ("$.id", {"id": ""}),
    ("$.id", {"id": "a" * (MAX_ID_LENGTH + 1)}),
    ("$.id", {"id": "một\nhai"}),
    ("$.id", {"id": "a\0"}),
    ("$.id", {"id": "a\x85b"}),
    ("$.id", {"id": "kết thúc\n"}),
    ("$.id", {"id": 7}),
    ("$.id", {"id": None}),
    ("$.from", {"from": "Yên Bái"}),
    ("$.from", {"from": "000.00.00.H63\n"}),
    ("$.from", {"from": "000.00.00.H63\0"}),
    ("$.from", {"from": "A" * 36}),
    ("$.from", {"from": "group:so-nganh"}),
    ("$.to", {"to": []}),
    ("$.to", {"to": "000.00.31.H63"}),
    ("$.to[1]", {"to": ["H63", "ngoài:H63"]}),
    ("$.to[0]", {"to": ["group:"]}),
    ("$.to[0]", {"to": ["below:H63\n"]}),
    ("$.to[0]", {"to": ["H63 "]}),
    ("$.to[0]", {"to": ["group:" + "a" * 65]}),
    ("$.to[0]", {"to": [None]}),
    ("$.subject", {"subject": "x" * 2001}),
    ("$.kind", {"kind": "hồ sơ"}),
    ("$.priority", {"priority": "hỏa tốc"}),
    ("$.code", {"code": "7/\x1bUBND"}),
    ("$.code", {"code": "7" * 51}),
    ("$.promulgation.date", {"promulgation": {"date": "02/03/2026"}}),
    ("$.promulgation.place", {"promulgation": {"place": "Văn\tYên"}}),
    ("$.signer.name", {"signer": {"name": ["Ánh"]}}),
    ("$.due", {"due": "2026-03-02\n"}),
    ("$.due", {"due": "٢٠٢٦-٠٣-٠٢"}),
    ("$.response_for[0]", {"response_for": [{"agency": "H63"}]}),
    ("$.response_for[0].agency", {"response_for": [{"id": "a", "agency": "Văn Yên"}]}),
    ("$.status", {"kind": "status", "status": "3", "response_for": [{"id": "a"}]}),
    ("$.status", {"kind": "status", "response_for": [{"id": "a"}]}),
    ("$.response_for", {"kind": "status", "status": "03"}),
    ("$.attachments[0].sha256", {"attachments": [{"name": "a", "size": 1, "sha256": "AB" * 32}]}),
    ("$.attachments[0].sha256", {"attachments": [{"name": "a", "size": 1, "sha256": "ab" * 32 + "\n"}]}),
    ("$.attachments[0].size", {"attachments": [{"name": "a", "size": -1, "sha256": "ab" * 32}]}),
    ("$.attachments[0].size", {"attachments": [{"name": "a", "size": 1 << 41, "sha256": "ab" * 32}]}),
    ("$.attachments[0].size", {"attachments": [{"name": "a", "size": 1e300, "sha256": "ab" * 32}]}),
    ("$.attachments[0].name", {"attachments": [{"name": "a\0", "size": 1, "sha256": "ab" * 32}]}),
    ("$.attachments", {"attachments": [{"name": "a", "size": 1, "sha256": "ab" * 32}] * (MAX_ATTACHMENTS + 1)}),
    ("$.expires", {"expires": "2026-04-01T00:00:00"}),
    ("$.expires", {"expires": "mai"}),
    ("$.expires", {"expires": "9999-12-31T23:59:59-12:00"}),
    ("$.expires", {"expires": "0001-01-01T00:00:00+14:00"}),
    ("$.unreachable", {"unreachable": True}),
]


@pytest.mark.parametrize(("path", "changes"), WRONG)
def test_a_wrong_member_is_named_by_its_path(path: str, changes: dict[str, Any]) -> None:
    problem = refusal(payload(**changes))
    assert problem.code == "bad-document"
    ((found, reason),) = problem.fields
    assert found == path
    assert reason
    assert path in problem.detail


def test_ten_thousand_recipients_are_too_many() -> None:
    problem = refusal(payload(to=[f"A{number}" for number in range(10_000)]))
    assert (problem.code, problem.extra) == ("too-many-recipients", {"limit": MAX_RECIPIENTS})
    most = tuple(f"A{number}" for number in range(MAX_RECIPIENTS))
    assert read_document(payload(to=most)).to == most


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"van ban"',
        b"{",
        payload() + b"x",
        payload()[:-1],
        b"\xef\xbb\xbf" + payload(),
        payload(id="\ud7ff").replace("\ud7ff".encode(), b"\xed\xa0\x80"),
        payload().replace(b"215", b"\xff\xfe"),
        payload(note="x").replace(b'"x"', b'"\xff"'),
        payload(id="x").replace(b'"x"', b'"\\ud800"'),
        payload(expires=1).replace(b":1", b":1e999"),
        b'{"a":' * 200_000,
        b'{"x":' + b"[" * 200_000,
        payload(x="@").replace(b'"@"', b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=range(16),
)
def test_what_is_no_json_object_in_utf_8(data: bytes) -> None:
    assert refusal(data).code == "bad-document"


@given(st.binary(max_size=100))
@example(b'{"id":"a","from":"A","to":["B"],"expires":"9999-12-31T23:59:59.999999999-23:59"}')
def test_any_bytes_are_a_document_or_a_problem(data: bytes) -> None:
    try:
        assert isinstance(read_document(data), Document)
    except Problem as problem:
        assert problem.code in ("bad-document", "too-many-recipients")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([field.encode_name for field in msgspec.structs.fields(Document)]), json_values)
def test_any_value_in_any_member_is_taken_or_named(name: str, value: Any) -> None:
    try:
        document = read_document(msgspec.json.encode(LEAST | {name: value}))
    except Problem as problem:
        assert problem.code == "bad-document"
        ((path, _),) = problem.fields
        assert path == "$" or path.startswith((f"$.{name}", "$.status", "$.response_for"))
    else:
        assert read_document(write_document(document)) == document


@given(st.text(max_size=150))
def test_an_id_holds_no_control_character(text: str) -> None:
    controls = any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)
    try:
        document = read_document(payload(id=text))
    except Problem:
        assert controls or not 1 <= len(text) <= MAX_ID_LENGTH
    else:
        assert document.id == text
        assert not controls


@given(st.text(max_size=40))
def test_a_sender_is_a_code(text: str) -> None:
    try:
        assert read_document(payload(**{"from": text})).sender == text
    except Problem:
        assert not is_code(text)
    else:
        assert is_code(text)


def test_new_ids_differ() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(read_document(payload(id=text)).id == text for text in ids[:3])


@given(st.text(max_size=30))
@example("Đại Sơn\x1b[2J\u202e\0")
def test_what_is_printed_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    moving = {character for character in text if unicodedata.category(character).startswith("C")}
    assert not any(unicodedata.category(character).startswith("C") for character in shown)
    assert (shown == text) == (not moving)
    kept = [character for character in text if character not in moving]
    assert [character for character in shown if character in kept and not character.isascii()] == [
        character for character in kept if not character.isascii()
    ]
