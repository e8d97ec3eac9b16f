"""edXML that is refused, by what it says or how it is written; and how little memory a hostile one takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import BinaryIO, cast

import pytest

from protocol import edxml
from protocol.edxml import NAMESPACE, Header, read
from protocol.problems import Problem
from tests.support.edxml_messages import DOCUMENT, EXPECTED, Tree, both, document, status, write


def refused(data: bytes | BinaryIO, code: str, whole: bool = True) -> Problem:
    with pytest.raises(Problem) as caught:
        read(data, whole)
    problem = caught.value
    assert problem.code == code
    assert problem.detail
    assert "\n" not in problem.detail
    assert len(problem.detail) < 400
    assert bool(problem.fields) == (code == "bad-edxml")
    assert all(path[:2] in ("N.", "R.", "M.", "T.") and reason for path, reason in problem.fields)
    return problem


def refused_everywhere(data: bytes, code: str) -> Problem:
    """Refused alike whether read whole or in part."""
    problem = refused(data, code)
    assert refused(data, code, whole=False).detail == problem.detail
    return problem


# -- refused as edXML -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        (document(sender=""), "N.MessageHeader.From.OrganId"),
        (document(sender="null"), "N.MessageHeader.From.OrganId"),
        (document(sender="N/A"), "T.MessageHeader.From.OrganId"),
        (document(to=()), "N.MessageHeader.To.OrganId"),
        (document(to=(("", "Không có mã"),)), "N.MessageHeader.To.OrganId"),
        (document(to=(("H63.1", ""), ("Sở Tài chính", ""))), "T.MessageHeader.To.OrganId"),
        (document(to=(("H63.1\u200b", ""),)), "T.MessageHeader.To.OrganId"),
        (document(to=(("H" * 36, ""),)), "T.MessageHeader.To.OrganId"),
        (document(document_id="  "), "N.MessageHeader.DocumentId"),
        (document(document_id="đ" * 513), "R.MessageHeader.DocumentId"),
        (document(document_id="số\x85một"), "T.MessageHeader.DocumentId"),
        (document(more=[("DocumentId", "khác")]), "M.MessageHeader.DocumentId"),
        (document(more=[("From", [("OrganId", "H63")])]), "M.MessageHeader.From"),
        (document(more=[("To", [("OrganId", "H1"), ("OrganId", "H2")])]), "M.MessageHeader.To.OrganId"),
        (document(more=[("Subject", [("b", "đậm")])]), "T.MessageHeader.Subject"),
        (document(subject="ă" * (edxml.MAX_FIELD + 1)), "R.MessageHeader.Subject"),
        (document(subject="ă" * 300_000), "R.MessageHeader.Subject"),
        (document(more=[("Subject", "ă" * 60_000)] * 20), "R.MessageHeader.Subject"),
        (status(organ=""), "N.MessageHeader.ResponseFor.OrganId"),
        (status(organ="Bộ Nội vụ"), "T.MessageHeader.ResponseFor.OrganId"),
        (status("Đã đến"), "T.MessageHeader.StatusCode"),
        (status("003"), "T.MessageHeader.StatusCode"),
        (status(""), "N.MessageHeader.StatusCode"),
        (status(more=[("StatusCode", "04")]), "M.MessageHeader.StatusCode"),
        (("edXML", []), "N.MessageHeader.From.OrganId"),
        (("edxml", []), "M.edXML"),
        (("html", []), "M.edXML"),
    ],
)  # fmt: skip
def test_what_cannot_be_routed_is_refused(tree: Tree, field: str) -> None:
    problem = refused_everywhere(write(tree, "unprefixed"), "bad-edxml")
    assert field in dict(problem.fields)


def test_every_missing_field_is_named() -> None:
    problem = refused(write(document(sender="", to=(), document_id="")), "bad-edxml")
    assert [path for path, _ in problem.fields] == [
        "N.MessageHeader.From.OrganId",
        "N.MessageHeader.To.OrganId",
        "N.MessageHeader.DocumentId",
    ]
    assert problem.detail == "MessageHeader.From.OrganId is missing (and 2 more)"


def test_the_list_of_faults_has_an_end() -> None:
    problem = refused(write(document(to=tuple((f"Sở {n}", "") for n in range(3000)))), "bad-edxml")
    assert len(problem.fields) == 20
    assert problem.detail.endswith("(and 2999 more)")


def test_two_headers() -> None:
    data = write(document(), "unprefixed")
    header = data[data.index(b"<MessageHeader>") : data.index(b"<TraceHeaderList>")]
    problem = refused_everywhere(data.replace(b"<TraceHeaderList>", header + b"<TraceHeaderList>"), "bad-edxml")
    assert problem.fields[0][0] == "M.MessageHeader"


@pytest.mark.parametrize(
    "root",
    [
        b'<edXML xmlns="http://example.vn/edXML"/>',
        b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body/></s:Envelope>',
        b'<edXML xmlns="http://www.mic.gov.vn/TBT/QCVN_102_2016/"/>',
        b'<edXML xmlns="' + b"x" * 5000 + b'"/>',
    ],
)
def test_other_namespaces_are_refused_by_name(root: bytes) -> None:
    problem = refused_everywhere(root, "bad-edxml")
    assert root.split(b'"')[1][:40].decode() in problem.detail
    assert NAMESPACE in problem.detail


# -- refused as XML -------------------------------------------------------------------------------

LAUGHS = b'<!DOCTYPE edXML [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(20)
) + b"]>"  # fmt: skip


def before_root(text: bytes) -> bytes:
    return DOCUMENT.replace(b"<edXML xmlns", text + b"<edXML xmlns", 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\0" * 100, "NUL"),
        (b"   \n ", "breaks off"),
        (b"xin ch\xc3\xa0o", "text before"),
        (b'{"id": 1}', "text before"),
        (b"r\xc3\xa1c" + DOCUMENT, "text before"),
        (b"\n" + DOCUMENT, "not at start"),
        (before_root(b"r\xc3\xa1c"), "text before"),
        (before_root(b"\0"), "text before"),
        (b"<!-- <edXML/>", "breaks off"),
        (before_root(b"<!-- x"), "stand before the root"),
        (before_root(b"<!-- " + b"x" * 5000 + b" -->"), "stand before the root"),
        (before_root(b" " * 5000), "stand before the root"),
        (before_root(b"<?x " + b"x" * 70_000), "stand before the root"),
        (before_root(b"<!DOCTYPE edXML>"), "DOCTYPE"),
        (before_root(b'<!DOCTYPE edXML SYSTEM "http://example.vn/a.dtd">'), "DOCTYPE"),
        (before_root(b'<!-- a --><!DOCTYPE x [<!ENTITY e SYSTEM "file:///dev/zero">]>'), "DOCTYPE"),
        (before_root(LAUGHS).replace(b"215", b"&u;"), "DOCTYPE"),
        (before_root(b"<!doctype html>"), "DOCTYPE"),
        (before_root(b"<!DOC"), "DOCTYPE"),
        (b"<!DOCTYPE edXML [" + b" " * 200_000, "DOCTYPE"),
        (DOCUMENT.decode().encode("utf-16"), "UTF-16"),
        (DOCUMENT.decode().encode("utf-16-le"), "UTF-16"),
        (DOCUMENT.decode().encode("utf-16-be"), "UTF-16"),
        (DOCUMENT.decode().encode("utf-32"), "UTF-16 or UTF-32"),
        (DOCUMENT.replace(b"UTF-8", b"UTF-16"), "declares the encoding 'UTF-16'"),
        (DOCUMENT.replace(b"UTF-8", b"windows-1258"), "declares the encoding"),
        (DOCUMENT.replace("Yên".encode(), b"Y\xean"), "not UTF-8"),
        (DOCUMENT.replace("Yên".encode(), b"Y\xed\xa0\x80n"), "not UTF-8"),
        (DOCUMENT.replace("Yên".encode(), b"Y\xc0\x80n"), "not UTF-8"),
        (DOCUMENT.replace("Yên".encode(), b"Y\0n"), "NUL"),
        (DOCUMENT.replace("Yên".encode(), b"Y\x0bn"), "not well-formed"),
        (DOCUMENT.replace("Yên".encode(), b"Y&#0;n"), "not well-formed"),
        (DOCUMENT.replace("Yên".encode(), b"Y&ecirc;n"), "undefined entity"),
        (DOCUMENT.replace("Yên".encode(), b"Y&n"), "not well-formed"),
        (DOCUMENT.replace(b"<edXML:Subject>", b"<other:Subject>"), "unbound prefix"),
        (DOCUMENT.replace(b"</edXML:Subject>", b"</edXML:subject>"), "mismatched tag"),
        (DOCUMENT.replace(b"<edXML:Subject>", b'<edXML:Subject a="1" a="2">'), "duplicate attribute"),
        (DOCUMENT[: DOCUMENT.index(b"</edXML:edXMLHeader>")], "breaks off"),
        (DOCUMENT[: DOCUMENT.index(b"<edXML:TypeName>") + 21], "breaks off"),
        (DOCUMENT[:60], "breaks off"),
        (DOCUMENT[:10], "breaks off"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To>" + b"<x>" * 60 + b"</x>" * 60), "64 deep"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To>" + b"<x>" * 500_000), "64 deep"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To>" + b"<x/>" * 100_000), "100000 elements"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To>" + b"<!--" + b"x" * 500_000 + b"-->"), "longer than"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To><x y='" + b"x" * 500_000 + b"'/>"), "longer than"),
        (DOCUMENT.replace(b"<edXML:To>", b"<edXML:To><x>" + b"x" * (8 << 20) + b"</x>"), "beside the attachments"),
    ],
)  # fmt: skip
def test_hostile_xml_is_refused(data: bytes, said: str) -> None:
    assert said in refused_everywhere(data, "bad-xml").detail


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DOCUMENT[:-1], "breaks off"),
        (DOCUMENT[: DOCUMENT.index(b"UEsDBBQA") + 30], "breaks off"),
        (DOCUMENT[: DOCUMENT.index(b"</edXML:ContentTransferEncoded>") + 4], "breaks off"),
        (DOCUMENT + b"th\xc3\xaam", "junk after"),
        (DOCUMENT + DOCUMENT, "junk after"),
        (DOCUMENT.replace(b"UEsDBBQA", b"UEsD\0BQA"), "NUL"),
        (DOCUMENT.replace(b"UEsDBBQA", b"UEsD\xffBQA"), "not UTF-8"),
        (DOCUMENT.replace(b"UEsDBBQA", b"UEsD&a;BQA"), "undefined entity"),
        (DOCUMENT.replace(b"UEsDBBQA", b"<x>" * 100), "64 deep"),
        (DOCUMENT.replace(b"UEsDBBQA", b"<x/>" * 100_000), "100000 elements"),
        (DOCUMENT.replace(b"<Attachment>", b"<Attachment x='" + b"x" * 500_000 + b"'>"), "longer than"),
    ],
)
def test_only_reading_whole_sees_what_is_wrong_with_attachments(data: bytes, said: str) -> None:
    assert read(data) == EXPECTED
    assert said in refused(data, "bad-xml").detail


def test_a_truncated_large_attachment_is_refused() -> None:
    data = write(document(content="QUJD" * 500_000))
    assert both(data) == EXPECTED
    for length in (3_000_000, 2_000_000, 1_000_000, len(data) - 1):
        assert "breaks off" in refused(data[:length], "bad-xml").detail


def test_reading_in_part_reads_little_of_a_large_message() -> None:
    source = Generated(large_message(200 << 20))
    assert read(cast(BinaryIO, source)) == EXPECTED
    assert source.given <= 2 * edxml.CHUNK


# -- memory ---------------------------------------------------------------------------------------

BOUND = 1 << 20
"""expat allocates through Python, so what it holds is counted as well."""


class Generated:
    """A source whose bytes are made while they are read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.given = 0

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        self.given += len(piece)
        return piece


def large_message(size: int, piece: bytes = b"QUJD" * 16_384) -> Iterator[bytes]:
    """DOCUMENT with `size` bytes of text in its first attachment."""
    start, end = DOCUMENT.split(b"UEsDBBQA", 1)
    yield start
    for _ in range(size // len(piece)):
        yield piece
    yield end


def peak(source: Generated) -> tuple[Header | Problem, int]:
    """The outcome of reading `source` whole, and the most memory that took."""
    outcome: Header | Problem
    tracemalloc.start()
    try:
        outcome = read(cast(BinaryIO, source), whole=True)
    except Problem as problem:
        outcome = problem
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return outcome, most


@pytest.mark.parametrize("piece", [b"QUJD" * 16_384, (b"QUJD" * 19 + b"\r\n") * 800], ids=["one line", "lines"])
def test_memory_does_not_grow_with_attachments(piece: bytes) -> None:
    source = Generated(large_message(200 << 20, piece))
    header, most = peak(source)
    assert header == EXPECTED
    assert source.given > 199 << 20
    assert most < BOUND


def test_memory_does_not_grow_with_many_attachments() -> None:
    start, end = DOCUMENT.split(b"<Attachment>", 1)
    one = b"<Attachment><ContentId>cid:x</ContentId><Content>" + b"QUJD" * 2_000 + b"</Content></Attachment>"
    source = Generated(iter([start, *[one] * 10_000, b"<Attachment>", end]))
    header, most = peak(source)
    assert header == EXPECTED
    assert source.given > 80_000_000
    assert most < BOUND


@pytest.mark.parametrize("at", [b"<edXML:To>", b"<Attachment>"])
@pytest.mark.parametrize(
    ("piece", "bound"),
    [
        (b"<!--" + b"x" * 65_532, BOUND),
        (b"<x " + b"x" * 65_533, BOUND),
        (b"\n" * 65_536, BOUND),
        (b"<x>" * 1_000, BOUND),
        (b"<!-- x --><?x y?>" * 4_000, BOUND),
        (b"".join(b"<a%d b%d=''/>" % (n, n) for n in range(4_000)), 2 * BOUND),
    ],
    ids=["comment", "tag", "blanks", "depth", "comments", "elements"],
)
def test_memory_is_bounded_without_end(at: bytes, piece: bytes, bound: int) -> None:
    def endless() -> Iterator[bytes]:
        yield DOCUMENT[: DOCUMENT.index(at) + len(at)]
        for _ in range((64 << 20) // len(piece)):
            yield piece

    problem, most = peak(Generated(endless()))
    assert isinstance(problem, Problem)
    assert problem.code == "bad-xml"
    assert most < bound


@pytest.mark.parametrize("at", [b"<edXML:To>", b"<Attachment>"])
@pytest.mark.parametrize("form", [b"n%d-%d=''", b"xmlns:n%d-%d='u'", b"/><x%d-%d"])
def test_names_that_are_all_different_have_a_limit(at: bytes, form: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield DOCUMENT[: DOCUMENT.index(at) + len(at)]
        for n in range(2_000):
            yield b"<x%d %s/>" % (n, b" ".join(form % (n, m) for m in range(1_000)))

    source = Generated(endless())
    problem, most = peak(source)
    assert isinstance(problem, Problem)
    assert "different names" in problem.detail
    assert source.given <= 3 * edxml.CHUNK
    assert most < 2 * BOUND


@pytest.mark.parametrize("at", [b"<edXML:To>", b"<Attachment>"])
def test_markup_has_a_limit(at: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield DOCUMENT[: DOCUMENT.index(at) + len(at)]
        for _ in range(1_000):
            yield b"<x y='" + b"ngo&amp;c" * 20_000 + b"'/>"

    source = Generated(endless())
    problem, most = peak(source)
    assert isinstance(problem, Problem)
    assert "beside the attachments" in problem.detail
    assert source.given < edxml.MAX_MARKUP + 4 * edxml.CHUNK
    assert most < 4 * BOUND
