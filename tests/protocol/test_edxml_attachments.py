"""Attachments are read and written piece by piece, in little memory."""

from __future__ import annotations

import base64
import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.edxml import CHUNK
from protocol.edxml.base64stream import Content, Decoder, NotBase64Error, encode
from protocol.edxml.model import Attachment, Message, MessageHeader
from protocol.edxml.reader import MessageReader, read_message
from protocol.edxml.writer import write_message
from protocol.problems import Problem
from tests.support.edxml_messages import DOCUMENT, document, write


def carrying(content: str) -> bytes:
    return write(document(references=(("cid:a", "Báo cáo.pdf"),), content=content))


def carried(data: bytes) -> tuple[bytes, Content]:
    """The bytes of the one attachment, and what was said of them."""
    file = io.BytesIO()
    (content,) = read_message(data, lambda index: file).contents
    assert content is not None
    assert (content.size, content.sha256) == (len(file.getvalue()), hashlib.sha256(file.getvalue()).hexdigest())
    return file.getvalue(), content


# -- base64 -----------------------------------------------------------------------------------------


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([" ", "\n", "\r\n", "\t", "\n\n"])), max_size=6),
    st.booleans(),
    st.integers(1, 50),
)
@settings(max_examples=300, deadline=None)
def test_base64_with_blanks_anywhere(data: bytes, blanks: list[tuple[int, str]], padded: bool, piece: int) -> None:
    text = base64.b64encode(data).decode()
    text = text if padded else text.rstrip("=")
    for at, blank in blanks:
        text = text[:at] + blank + text[at:]
    found: list[bytes] = []
    decoder = Decoder(found.append)
    for start in range(0, len(text), piece):
        decoder.feed(text[start : start + piece])
    assert decoder.close() == Content(len(data), hashlib.sha256(data).hexdigest())
    assert b"".join(found) == data


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA=A",
        "AA==AAAA",
        "A===",
        "====",
        "=",
        "AAAA=",
        "AAA-",
        "AA_A",
        "AAđA",
        "AAA\u00a0",
        "QQ==QQ==",
        "<>",
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_what_is_not_base64(text: str, piece: int) -> None:
    decoder = Decoder(None)
    with pytest.raises(NotBase64Error):
        for start in range(0, len(text), piece):
            decoder.feed(text[start : start + piece])
        decoder.close()


@given(st.lists(st.binary(max_size=20), max_size=10))
@settings(deadline=None)
def test_encoding_pieces_is_encoding_their_sum(pieces: list[bytes]) -> None:
    assert b"".join(encode(pieces)) == base64.b64encode(b"".join(pieces))


def test_encoding_a_large_piece_gives_small_ones() -> None:
    sizes = [len(piece) for piece in encode([bytes(1_000_000)])]
    assert max(sizes) == 65_536
    assert sum(sizes) == 1_333_336


# -- in a message -----------------------------------------------------------------------------------


def test_bytes_that_no_encoding_of_text_would_survive() -> None:
    data = bytes(range(256)) * 1000
    assert carried(carrying(base64.b64encode(data).decode()))[0] == data


@pytest.mark.parametrize(
    "spelled",
    [
        lambda text: text,
        lambda text: "\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
        lambda text: "\r\n  ".join(text[start : start + 76] for start in range(0, len(text), 76)),
        lambda text: f"  \n{text}\n",
        lambda text: text[:50] + "<!-- x -->" + text[50:],
        lambda text: f"<![CDATA[{text[:77]}]]>{text[77:]}",
        lambda text: text.replace("A", "&#65;"),
        lambda text: "&#13;\n".join(text[start : start + 64] for start in range(0, len(text), 64)),
        lambda text: text.rstrip("="),
    ],
    ids=[
        "one line",
        "lines",
        "indented",
        "margins",
        "comment",
        "cdata",
        "references",
        "java's line ends",
        "unpadded",
    ],
)
def test_base64_as_builders_write_it(spelled: Callable[[str], str]) -> None:
    data = bytes(range(256)) * 300 + b"!"
    placed = carrying("@@").replace(b"@@", spelled(base64.b64encode(data).decode()).encode())
    assert carried(placed)[0] == data


@pytest.mark.parametrize("content", ["QUJD=", "QUJ!", "đ", "<b/>", "QUJD QQ== QQ=="])
def test_content_that_is_not_base64_is_refused_when_it_is_asked_for(content: str) -> None:
    data = carrying("@@").replace(b"@@", content.encode())
    read_message(data)
    with pytest.raises(Problem) as caught:
        read_message(data, lambda index: None)
    assert caught.value.code == "bad-edxml"
    assert caught.value.fields[0][0] == "T.AttachmentEncoded.Attachment.ContentTransferEncoded"


def test_a_content_that_stands_twice_is_refused() -> None:
    data = DOCUMENT.replace(
        b"</Attachment>", b"<ContentTransferEncoded>QQ==</ContentTransferEncoded></Attachment>"
    )
    read_message(data)
    with pytest.raises(Problem) as caught:
        read_message(data, lambda index: None)
    assert caught.value.fields[0][0] == "M.AttachmentEncoded.Attachment.ContentTransferEncoded"


def test_each_attachment_has_its_own_sink_and_may_have_none() -> None:
    message = Message(header=MessageHeader(), attachments=(Attachment(), Attachment(), Attachment()))
    data = b"".join(write_message(message, [[b"one"], None, [b"three"]]))
    files = {0: io.BytesIO(), 2: io.BytesIO()}
    reading = read_message(data, files.get, routable=False)
    assert [file.getvalue() for file in files.values()] == [b"one", b"three"]
    assert [content and content.size for content in reading.contents] == [3, None, 5]
    assert read_message(data, routable=False).contents == ()


def test_what_a_sink_raises_comes_through() -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        read_message(DOCUMENT, lambda index: Full())


# -- memory -----------------------------------------------------------------------------------------

SIZE = 192 << 20
BOUND = 1 << 20


class Made:
    """A file of `SIZE` bytes that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.given = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        self.given += len(piece)
        return piece


def file_pieces() -> Iterator[bytes]:
    piece = bytes(range(256)) * 1024
    for _ in range(SIZE // len(piece)):
        yield piece


def in_lines(data: bytes) -> bytes:
    return b"".join(data[start : start + 76] + b"\r\n" for start in range(0, len(data), 76))


def peak(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spelled", [lambda data: data, in_lines], ids=["one line", "lines"])
def test_reading_a_large_attachment_takes_little_memory(spelled: Callable[[bytes], bytes]) -> None:
    encoded = spelled(b"".join(encode([bytes(range(256)) * 114])))  # a multiple of three bytes
    start, end = carrying("@@").split(b"@@")

    def pieces() -> Iterator[bytes]:
        yield start
        for _ in range(SIZE // (256 * 114)):
            yield encoded
        yield end

    received = 0

    class Count:
        def write(self, data: bytes) -> None:
            nonlocal received
            received += len(data)

    source = Made(pieces())
    most = peak(lambda: void(read_message(cast(BinaryIO, source), lambda index: Count())))
    assert received == SIZE // (256 * 114) * 256 * 114
    assert source.given > SIZE * 4 // 3 - (1 << 20)
    assert most < BOUND


def test_writing_a_large_attachment_takes_little_memory() -> None:
    message = read_message(carrying("")).message
    sizes: list[int] = []
    most = peak(lambda: sizes.extend(map(len, write_message(message, [file_pieces()]))))
    assert sum(sizes) > SIZE * 4 // 3
    assert max(sizes) <= 64 << 10
    assert most < BOUND


@pytest.mark.parametrize("filler", [b"<x a='1' b='2'/>" * 90_000, b"<x>" + b"y" * (7 << 20) + b"</x>"])
def test_reading_a_message_made_to_cost_much_takes_bounded_memory(filler: bytes) -> None:
    data = DOCUMENT.replace(b"<edXML:To>", filler + b"<edXML:To>", 1)
    assert peak(lambda: void(read_message(data))) < 80 << 20


def void(_: object) -> None:
    """For a callable whose value must not live on."""


def test_a_message_in_small_pieces_costs_no_more_than_in_large_ones() -> None:
    """expat would read a tag that is not finished anew with every byte."""
    data = DOCUMENT.replace(b"<edXML:To>", b"<edXML:To x='" + b"y" * 200_000 + b"'>", 1)
    reader = MessageReader()
    for start in range(len(data)):
        reader.feed(data[start : start + 1])
    assert reader.close().message.header.to[0].attributes == (("x", "y" * 200_000),)
    assert CHUNK < 200_000
