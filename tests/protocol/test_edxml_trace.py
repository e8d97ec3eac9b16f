"""A TraceHeader is appended, and no other byte of the message changes."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from protocol.edxml import NAMESPACE, read
from protocol.edxml.model import TraceHeader
from protocol.edxml.parser import MAX_MARKUP
from protocol.edxml.reader import read_message
from protocol.edxml.trace import TraceAppender, append_trace, trace_header
from protocol.problems import Problem
from tests.support.edxml_messages import DOCUMENT, Tree, as_dotnet, by_name, document, status, write
from tests.support.edxml_samples import each_sample

TRACE = trace_header("000.00.00.G22", datetime(2026, 3, 2, 20, 30, 5, 900_000, UTC))
ADDED = (
    b"<edXML:TraceHeader><edXML:OrganId>000.00.00.G22</edXML:OrganId>"
    b"<edXML:Timestamp>2026/03/03 03:30:05</edXML:Timestamp></edXML:TraceHeader>"
)


def traced(data: bytes) -> bytes:
    return b"".join(append_trace(data, TRACE))


def only_added(before: bytes, after: bytes) -> bytes:
    """What stands in `after` beyond `before`, which must be one run of bytes."""
    length = len(after) - len(before)
    at = next((index for index, byte in enumerate(before) if after[index] != byte), len(before))
    places = range(max(0, at - length), at + 1)
    starts = [start for start in places if after[:start] + after[start + length :] == before]
    assert starts, "other bytes changed as well"
    whole = [after[start : start + length] for start in starts if after[start : start + 1] == b"<"]
    return whole[0]


def test_a_trace_says_who_and_when_in_vietnams_time() -> None:
    assert TraceHeader(organ_id="000.00.00.G22", timestamp="2026/03/03 03:30:05") == TRACE


def test_it_goes_behind_the_last_and_before_bussiness() -> None:
    after = traced(DOCUMENT)
    assert only_added(DOCUMENT, after) == ADDED
    assert ADDED + b"<edXML:Bussiness>" in after


@pytest.mark.parametrize("order", [lambda tree: tree, by_name, as_dotnet], ids=["java", "backwards", "dotnet"])
@pytest.mark.parametrize("dialect", ["axis", "prefixed", "unprefixed", "none", "root only", "e-doc", "go.vn"])
def test_in_every_dialect(dialect: str, order: Callable[[Tree], Tree]) -> None:
    data = write(order(document()), dialect)
    after = traced(data)
    assert only_added(data, after)
    before, message = read_message(data).message, read_message(after).message
    assert before.trace is not None
    assert message.trace is not None
    assert message.trace.trace_header == (*before.trace.trace_header, TRACE)
    assert message.trace.bussiness == before.trace.bussiness
    assert message.header == before.header
    header, header_before = read(after, whole=True), read(data, whole=True)
    assert header == header_before
    assert header.traced == (*header_before.traced, TRACE.organ_id)


@each_sample
def test_in_real_messages(path: Path) -> None:
    data = path.read_bytes()
    after = traced(data)
    if read(data).kind == "status":
        assert after == data
    else:
        assert only_added(data, after) == ADDED


LIST = DOCUMENT[DOCUMENT.index(b"<edXML:TraceHeaderList>") : DOCUMENT.index(b"<edXML:Signature>")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"", b"<edXML:TraceHeaderList>" + ADDED + b"</edXML:TraceHeaderList>"),
        (b"<edXML:TraceHeaderList/>", b"<edXML:TraceHeaderList>" + ADDED + b"</edXML:TraceHeaderList>"),
        (b"<edXML:TraceHeaderList a='/>' />", b"<edXML:TraceHeaderList a='/>'>" + ADDED + b"</edXML:Trace"),
        (b"<edXML:TraceHeaderList></edXML:TraceHeaderList>", None),
        (b"<edXML:TraceHeaderList>\n</edXML:TraceHeaderList>", None),
        (b"<edXML:TraceHeaderList><edXML:TraceHeader/></edXML:TraceHeaderList>", None),
        (b"<edXML:TraceHeaderList><edXML:TraceHeader/><!-- > --><edXML:Bussiness/></edXML:TraceHeaderList>", None),
        (b"<edXML:TraceHeaderList><edXML:Bussiness/><edXML:TraceHeader/></edXML:TraceHeaderList>", None),
        (b"<edXML:TraceHeaderList><edXML:Bussiness/></edXML:TraceHeaderList>", None),
        (b"<t:TraceHeaderList xmlns:t='" + NAMESPACE.encode() + b"'><t:TraceHeader/></t:TraceHeaderList>", None),
        (b"<TraceHeaderList xmlns='" + NAMESPACE.encode() + b"'/>", None),
    ],
)
def test_lists_of_every_shape(given: bytes, expected: bytes | None) -> None:
    data = DOCUMENT.replace(LIST, given)
    after = traced(data)
    if expected is not None:
        assert after.count(expected) == 1
    if not given.endswith(b"/>") or b"</" in given:
        assert only_added(data, after)
    trace = read_message(after).message.trace
    before = read_message(data).message.trace
    assert trace is not None
    assert trace.trace_header == (*(before.trace_header if before else ()), TRACE)


def test_a_list_outside_the_header_is_found() -> None:
    data = DOCUMENT.replace(LIST, b"").replace(b"<edXML:edXMLBody>", b"<edXML:edXMLBody>" + LIST)
    after = traced(data)
    assert only_added(data, after) == ADDED
    assert after.count(b"<edXML:TraceHeaderList>") == 1


def test_attachments_before_the_header() -> None:
    tree = document()
    assert isinstance(tree[1], list)
    data = write((tree[0], tree[1][::-1]))
    assert only_added(data, traced(data)) == ADDED


def test_a_header_whose_prefix_means_nothing_behind_it() -> None:
    """The new list declares the namespace itself."""
    header = DOCUMENT[DOCUMENT.index(b"<edXML:MessageHeader>") : DOCUMENT.index(b"</edXML:MessageHeader>")]
    own = header.replace(b"edXML:", b"m:").replace(b"r>", b"r xmlns:m='%s'>" % NAMESPACE.encode(), 1)
    data = DOCUMENT.replace(LIST, b"").replace(header, own)
    data = data.replace(b"</edXML:MessageHeader>", b"</m:MessageHeader>")
    after = traced(data)
    assert only_added(data, after).startswith(b'<m:TraceHeaderList xmlns:m="')
    trace = read_message(after).message.trace
    assert trace is not None
    assert trace.trace_header == (TRACE,)


def test_a_status_stays_as_it_is_unless_it_has_a_list() -> None:
    data = write(status(), "prefixed")
    assert traced(data) == data
    with_list = data.replace(b"</e:MessageHeader>", b"</e:MessageHeader><e:TraceHeaderList/>")
    trace = read_message(traced(with_list)).message.trace
    assert trace is not None
    assert trace.trace_header == (TRACE,)


@pytest.mark.parametrize("size", [1, 3, 64, 1000, 100_000])
def test_in_pieces_of_any_size(size: int) -> None:
    expected = traced(DOCUMENT)
    appender = TraceAppender(TRACE)
    pieces = [appender.feed(DOCUMENT[start : start + size]) for start in range(0, len(DOCUMENT), size)]
    assert b"".join(pieces) + appender.close() == expected
    assert b"".join(append_trace(io.BytesIO(DOCUMENT), TRACE)) == expected


@pytest.mark.parametrize("data", [b"", b"<edXML>", b"xin ch\xc3\xa0o", b"<!DOCTYPE a><a/>", b"<html/>"])
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(Problem):
        traced(data)


def large(size: int, between: bytes) -> Iterator[bytes]:
    start, end = DOCUMENT.split(b"UEsDBBQA", 1)
    yield start.replace(b"</edXML:edXMLHeader>", between + b"</edXML:edXMLHeader>")
    for _ in range(size // (64 << 10)):
        yield b"QUJD" * (16 << 10)
    yield end


class Stream:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int) -> bytes:
        return next(self._pieces, b"")


def test_memory_does_not_grow_with_attachments() -> None:
    size, received = 256 << 20, 0
    tracemalloc.start()
    try:
        for piece in append_trace(cast(BinaryIO, Stream(large(size, b""))), TRACE):
            received += len(piece)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received == sum(map(len, large(size, b""))) + len(ADDED)
    assert most < 1 << 20


def test_what_is_held_back_has_a_limit() -> None:
    """A header that goes on for ever, between the last TraceHeader and the attachments."""

    def endless() -> Iterator[bytes]:
        yield DOCUMENT[: DOCUMENT.index(b"<edXML:Bussiness>")]
        for _ in range(2 * MAX_MARKUP // 60_000):
            yield b"<x>" + b"y" * 60_000 + b"</x>"

    appender = TraceAppender(TRACE)
    with pytest.raises(Problem, match="beside the attachments"):
        for piece in endless():
            appender.feed(piece)
