"""edXML damaged at random, and everything that must hold of whatever comes out of it."""

from __future__ import annotations

import random
import re
from collections import Counter

from protocol.edxml import NAMESPACE, Header, read
from protocol.edxml.check import check
from protocol.edxml.convert import to_native
from protocol.edxml.model import Message, TraceHeader
from protocol.edxml.reader import read_message
from protocol.edxml.trace import append_trace
from protocol.edxml.writer import write_message
from protocol.message import read_document, write_document
from protocol.problems import Problem
from tests.support.edxml_messages import DOCUMENT, document, status, write
from tests.support.edxml_samples import SAMPLES

TRACE = TraceHeader(organ_id="000.00.00.G22", timestamp="2026/03/02 08:00:00")

_EMPTY = b"To From OrganId Code TraceHeaderList Bussiness edXMLHeader".split()
_NAMES = [
    *b"StatusCode Subject Code CodeNumber OrganId Timestamp BussinessDocType TraceHeader OtherInfo".split(),
    *b"ContentTransferEncoded Place Signature".split(),
]
FRAGMENTS = [
    *b"< > / & &amp; &#13; &#x110; = == QUJD null 03 2017/02/31".split(),
    b"", b"\0", b"\xff", b"\r\n", "ệ".encode(), b"9" * 20,
    b"<!--", b"-->", b"<!-- x -->", b"<![CDATA[", b"]]>", b"<![CDATA[x]]>", b"<!DOCTYPE a [", b"<?a?>", b"<?a b?>",
    b" xmlns=''", b" xmlns:edXML='urn:x'", b" a='>'", b" xsi:nil='true'",
    b"<x/>", b"<x>y</x>", b"</edXML>", b"<edXML>", b"<edXML/>", b"<AttachmentEncoded>", b"<AttachmentEncoded/>",
    *(b"<edXML:%s/>" % name for name in _EMPTY),
    *(b"<edXML:%s>1</edXML:%s>" % (name, name) for name in _NAMES),
    b"<TraceHeaderList><TraceHeader/></TraceHeaderList>", b"<Signature>x</Signature>", b"<Attachment/>",
    b"<Attachment><ContentTransferEncoded>QUI=</ContentTransferEncoded></Attachment>",
    b"<ContentTransferEncoded/>",
]  # fmt: skip


def seeds() -> list[bytes]:
    """Good messages: made in every dialect, and real ones when they are there (their attachments cut short)."""
    found = [DOCUMENT, write(status())]
    found += [
        write(document(), dialect) for dialect in ("prefixed", "unprefixed", "none", "root only", "go.vn", "e-doc")
    ]
    for path in sorted(SAMPLES.glob("*.edxml")):
        head, mark, tail = path.read_bytes().partition(b"ContentTransferEncoded xmlns")
        begin, end = tail.find(b">") + 1, tail.find(b"<")
        found.append(head + mark + tail[:begin] + tail[begin : begin + 400] + tail[end:] if mark else head)
    return found


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """`seed` with a few pieces cut out, put in, doubled, moved or renamed; most of them whole elements."""
    data = seed
    for _ in range(chance.randint(1, 4)):
        data = _by_element(data, chance) if chance.random() < 0.85 else _by_byte(data, chance)
    return data


def _by_byte(data: bytes, chance: random.Random) -> bytes:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice([0, 0, 1, 5, 30, 200]))
    return data[:start] + chance.choice([*FRAGMENTS, data[start:end] * 2]) + data[end:]


def _by_element(data: bytes, chance: random.Random) -> bytes:
    tokens = re.findall(rb"<[^>]*>|[^<]+", data)
    spans, opened = [], []
    for index, token in enumerate(tokens):
        if token.startswith(b"</") and opened:
            spans.append((opened.pop(), index + 1))
        elif token.startswith(b"<") and not token.startswith((b"<?", b"<!")) and not token.endswith(b"/>"):
            opened.append(index)
    if not spans:
        return data
    start, end = chance.choice(spans)
    element, place = tokens[start:end], chance.choice(spans)[chance.randint(0, 1)]
    match chance.randint(0, 7):
        case 0:
            tokens[start:end] = []
        case 1:
            tokens[place:place] = element
        case 2:
            del tokens[start:end]
            tokens[min(place, len(tokens)) : min(place, len(tokens))] = element
        case 3:  # another name, another prefix, or none
            name = chance.choice(
                [b"x", b"From", b"To", b"Code", b"Subject", b"StatusCode", b"Attachment", b"Signature"]
            )
            name = chance.choice([b"edXML:", b"", b"e:"]) + name
            tokens[start], tokens[end - 1] = b"<" + name + b">", b"</" + name + b">"
        case 4:
            prefixes = chance.choice([(b"edXML:", b""), (b"edXML:", b"edXML:x"), (b"<", b"<edXML:")])
            tokens[start], tokens[end - 1] = (
                tokens[start].replace(*prefixes, 1),
                tokens[end - 1].replace(b"</", b"<", 1).replace(*prefixes, 1).replace(b"<", b"</", 1),
            )
        case 5:
            tokens[start + 1 : end - 1] = [chance.choice(FRAGMENTS)]
        case 6:
            tokens[place:place] = [chance.choice(FRAGMENTS)]
        case _:
            attribute = chance.choice(
                [b" a='1'", b" xmlns='urn:x'", b" xmlns='" + NAMESPACE.encode() + b"'", b" b='>'"]
            )
            tokens[start] = tokens[start][:-1] + attribute + b">"
    return b"".join(tokens)


def outcome(data: bytes) -> Header | None:
    """The header, or None for a refusal of the two kinds that there are. Anything else fails."""
    try:
        return read(data, whole=True)
    except Problem as problem:
        assert problem.code in ("bad-xml", "bad-edxml")
        problem.to_json()
        return None


def hold(data: bytes) -> str:
    """Check what must hold of `data`, and say what became of it."""
    header = outcome(data)
    if header is None:
        return "refused"
    reading = read_message(data)
    message = reading.message
    assert reading.header == header
    check(message)
    _agrees(header, message)
    again = read_message(b"".join(write_message(message)))
    assert again.message == message
    _agrees(again.header, message)
    _traced(data, message)
    try:
        read_message(data, lambda index: None)
    except Problem as problem:
        assert "ContentTransferEncoded" in problem.detail
        return "not base64"
    return "read"


def _agrees(header: Header | None, message: Message) -> None:
    assert header is not None
    assert message.is_status == (header.kind == "status")
    assert not [error for error in check(message) if error.fatal]
    try:
        native = to_native(message, message_id="x")
    except Problem as problem:
        assert header.kind == "status" and not header.document_id
        assert "ResponseFor.DocumentId" in problem.detail
        return
    assert read_document(write_document(native)) == native
    assert (native.sender, native.to, native.kind) == (header.sender, header.recipients, header.kind)
    assert native.status == header.status_code
    assert native.code == header.code[:50] or not header.code.isprintable()
    assert native.due == header.due
    if header.kind == "document":
        assert ("new", "recall", "update", "replace").index(native.business) == header.business
    if header.business and header.kind == "document":
        expected = [name for name in dict.fromkeys([header.business_document_id or "", *header.replaces]) if name]
        if expected and all(len(name) <= 128 and name.isprintable() for name in expected):
            assert [reference.id for reference in native.concerns] == expected


def _traced(data: bytes, message: Message) -> None:
    out = b"".join(append_trace(data, TRACE))
    if out == data:
        assert message.is_status
        return
    traced = read_message(out).message.trace
    before = message.trace.trace_header if message.trace else ()
    assert traced is not None
    # Of several lists, which count as one, the first gets it.
    assert Counter(traced.trace_header) == Counter((*before, TRACE))
    assert traced.trace_header == (*before, TRACE) or data.lower().count(b"traceheaderlist") > 2
    added = len(out) - len(data)
    same = next((index for index, byte in enumerate(data) if out[index] != byte), len(data))
    assert out[same + added :] == data[same:] or b"TraceHeaderList" in out[same - 30 : same + added + 30]
