"""edXML made by chance: whatever comes, a header or a refusal; whatever was written is read again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.edxml import Header, Party, read
from protocol.problems import Problem
from tests.support.edxml_messages import DOCUMENT, Tree, as_dotnet, both, by_name, document, status, write


def outcome(data: bytes, whole: bool) -> Header | Problem:
    """What reading gives: anything but a header or a refusal of these two kinds fails the test."""
    try:
        return read(data, whole)
    except Problem as problem:
        assert problem.code in ("bad-xml", "bad-edxml")
        assert problem.detail
        assert bool(problem.fields) == (problem.code == "bad-edxml")
        problem.to_json()
        return problem


@given(
    st.one_of(st.binary(max_size=500), st.text(alphabet="<>!?-/=&;:'\" \0aedXMLđ[]", max_size=200).map(str.encode))
)
@example(b"<" * 100)
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_header_or_a_problem(data: bytes) -> None:
    outcome(data, whole=True)
    outcome(data, whole=False)


FRAGMENTS = st.sampled_from([
    b"", b"<", b">", b"/", b"&", b"\0", b"\xff", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<!DOCTYPE a [", b"<?a?>",
    b"xmlns=''", b"<edXML:To>", b"</edXML:To>", b"<edXML:OrganId/>", b"<AttachmentEncoded>", b"</edXML>", b"null",
    b"<edXML:StatusCode>03</edXML:StatusCode>", b"edXML:", b"9" * 20, b"2017/02/31", "ệ".encode(),
])  # fmt: skip


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_messages_give_a_header_or_a_problem(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from([DOCUMENT, write(status()), write(document(), "go.vn")]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(message)))
        end = data.draw(
            st.integers(start, min(len(message), start + data.draw(st.sampled_from([0, 1, 10, 2000]))))
        )
        message = message[:start] + data.draw(FRAGMENTS) + message[end:]
    whole, part = outcome(message, whole=True), outcome(message, whole=False)
    if isinstance(whole, Header):
        assert part == whole


LINES = st.text(
    st.one_of(
        st.sampled_from("ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽềềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹĐ&<>'\"]-"),
        st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co")),
    ),
    max_size=40,
).map(lambda text: text.strip(" \t\r\n")).filter(lambda text: text != "null")  # fmt: skip
CODES = st.from_regex(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,33}[0-9A-Za-z])?", fullmatch=True).filter(
    lambda t: t != "null"
)
IDS = LINES.filter(bool)


@given(
    dialect=st.sampled_from(["axis", "prefixed", "unprefixed", "root only"]),
    order=st.sampled_from([lambda tree: tree, by_name, as_dotnet]),
    fields=st.fixed_dictionaries(
        {"sender": CODES, "document_id": IDS}
        | {name: LINES for name in ("sender_name", "place", "type_name", "subject", "signer")}
    ),
    to=st.lists(st.tuples(CODES, LINES), min_size=1, max_size=6, unique_by=lambda party: party[0]),
    priority=st.integers(0, 4),
    issued=st.dates(min_value=date(1900, 1, 1)),
    references=st.lists(st.tuples(IDS.filter(lambda text: text[:4].lower() != "cid:"), LINES), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_what_was_written_is_read(
    dialect: str,
    order: Callable[[Tree], Tree],
    fields: dict[str, str],
    to: list[tuple[str, str]],
    priority: int,
    issued: date,
    references: list[tuple[str, str]],
) -> None:
    tree = document(
        to=tuple(to),
        priority=str(priority),
        issued=f"{issued.year:04}/{issued.month:02}/{issued.day:02}",
        references=tuple((f"cid:{content_id}", name) for content_id, name in references),
        **fields,  # type: ignore[arg-type]
    )
    header = both(write(order(tree), dialect))
    assert header.parties == tuple(Party(code, name) for code, name in to)
    assert header.sender == fields["sender"]
    assert header.document_id == fields["document_id"]
    assert header.promulgation_place == fields["place"]
    for name in ("sender_name", "type_name", "subject", "signer"):
        assert getattr(header, name) == fields[name]
    assert header.priority == priority
    assert header.promulgation_date == issued.isoformat()
    assert [(reference.content_id, reference.name) for reference in header.references] == references
    assert header.warnings == ()
