"""Read a whole edXML message: every field, and the attachments' bytes as they go by.

The routing parser (`parser`) sees each chunk first. It bounds what follows, refuses what is dangerous, and
gives the same `Header` that the hub routes by. So a message that was taken in can always be read, and nothing
here can understand it otherwise. The one thing judged here in addition is the attachments' base64.

Subtle parts:

* The tree that is built leaves out the attachments' text, and is bounded by the routing parser's limits on
  markup and elements: 8 MiB and 100,000. The costliest message that was found, 1.4 MB of elements with two
  attributes each, takes 55 MiB. Attachments cost a piece of 64 KiB, however large they are.
* expat gives text that crosses a line break or a chunk in pieces; `buffer_text` puts them together in C, else
  base64 in lines of 76 characters would cost two calls a line.
* A sink is chosen by an attachment's place alone: its name may stand after its bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, Protocol
from xml.parsers import expat

import msgspec

from protocol.edxml.base64stream import Content, Decoder, NotBase64Error
from protocol.edxml.binding import Binder, Node
from protocol.edxml.header import Header, Judge, refusal
from protocol.edxml.model import Message
from protocol.edxml.parser import CHUNK, Pieces, Reader, check_prolog
from protocol.problems import Problem

CONTENT_PATH = "AttachmentEncoded.Attachment.ContentTransferEncoded"


class Sink(Protocol):
    """Where the bytes of an attachment go, in pieces; a file open for writing is one."""

    def write(self, data: bytes, /) -> object: ...


Sinks = Callable[[int], Sink | None]
"""The sink for the attachment at a place, counted from 0; None to measure and digest it only."""


class Reading(msgspec.Struct, frozen=True):
    """What was read."""

    message: Message
    header: Header | None
    """None for a message that cannot be routed, if that was allowed; `problem` then says why."""
    problem: Problem | None
    contents: tuple[Content | None, ...]
    """Of each of `message.attachments`, its bytes as they were carried; None where the element was missing.
    Empty when no sinks were given."""
    warnings: tuple[str, ...]
    """What was ragged, and what of the XML the model does not keep."""


class MessageReader:
    """Takes a message in pieces of any size; `close` gives it. After an exception it is of no more use."""

    def __init__(self, sinks: Sinks | None = None, routable: bool = True) -> None:
        """With `sinks` the attachments' base64 is decoded, and must be right. Unless `routable` is False, what
        `protocol.edxml.read` refuses is refused here."""
        self._sinks, self._routable = sinks, routable
        self._pieces = Pieces()
        self._routing: Reader | None = None
        self._tree: _Tree

    def feed(self, data: bytes) -> None:
        """Raises `Problem` bad-xml, or bad-edxml for what ends the reading, and whatever a sink raises."""
        for chunk in self._pieces.add(data):
            self._parse(chunk, final=False)

    def close(self) -> Reading:
        """Raises `Problem` as `feed` does, or bad-edxml with every field that keeps it from being routed."""
        routing = self._parse(self._pieces.rest(), final=True)
        header = problem = None
        try:
            header = Judge(routing).header()
        except Problem as refused:
            if self._routable:
                raise
            problem = refused
        tree = self._tree
        message = tree.binder.message(tree.root)
        return Reading(message, header, problem, tuple(tree.contents), (*routing.warnings, *tree.binder.lost))

    def _parse(self, chunk: bytes, final: bool) -> Reader:
        if self._routing is None:
            check_prolog(chunk)
            self._routing = Reader(whole=True, large=not final)
            self._tree = _Tree(self._routing, self._sinks)
        done = False
        try:
            self._routing.feed(chunk, final)
            self._tree.feed(chunk, final)
            done = not final
        finally:
            if not done:  # parsers and their handlers hold one another
                del self._routing.parser, self._tree.parser
        return self._routing


class _Tree:
    """Builds nodes out of chunks that the routing parser has accepted."""

    root: Node
    binder: Binder

    def __init__(self, routing: Reader, sinks: Sinks | None) -> None:
        self.contents: list[Content | None] = []
        self._routing, self._sinks = routing, sinks
        self._stack: list[Node] = []
        self._roles: list[str] = []
        self._attachments = 0
        self._filled = False
        self._decoder: Decoder | None = None
        self.parser = expat.ParserCreate("UTF-8", " ")
        self.parser.buffer_text = True
        self.parser.buffer_size = CHUNK
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def feed(self, chunk: bytes, final: bool) -> None:
        self.parser.Parse(chunk, final)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        node = Node(name, attributes)
        role = self._role(name)
        if role == "content":
            self._begin_content()
        elif self._stack:
            self._stack[-1].content.append(node)
        else:
            self.root = node
        self._stack.append(node)
        self._roles.append(role)

    def _role(self, name: str) -> str:
        if not self._roles:
            self.binder = Binder(self._routing.old)
            return "frame"
        above, binder = self._roles[-1], self.binder
        if above == "frame":
            place = binder.place(name)
            return place if place in ("frame", "attachments") else ""
        if above == "attachments" and binder.is_attachment(name):
            self._attachments += 1
            self._filled = False
            if self._sinks is not None:
                self.contents.append(None)
            return "attachment"
        if above == "content" and self._sinks is not None:
            raise _refused("T", "must hold text alone")
        return "content" if above == "attachment" and binder.is_content(name) else ""

    def _begin_content(self) -> None:
        self.parser.CharacterDataHandler = None
        if self._sinks is not None:
            if self._filled:
                raise _refused("M", "stands more than once")
            self._filled = True
            sink = self._sinks(self._attachments - 1)
            self._decoder = Decoder(None if sink is None else sink.write)
            self.parser.CharacterDataHandler = self._encoded

    def _end(self, name: str) -> None:
        self._stack.pop()
        if self._roles.pop() == "content":
            self.parser.CharacterDataHandler = self._text
            if self._decoder is not None:
                try:
                    self.contents[-1] = self._decoder.close()
                except NotBase64Error as error:
                    raise _not_base64(error) from None
                self._decoder = None

    def _text(self, text: str) -> None:
        self._stack[-1].content.append(text)

    def _encoded(self, text: str) -> None:
        assert self._decoder is not None
        try:
            self._decoder.feed(text)
        except NotBase64Error as error:
            raise _not_base64(error) from None


def _not_base64(error: NotBase64Error) -> Problem:
    return _refused("T", f"is not base64: {error}")


def _refused(letter: str, reason: str) -> Problem:
    return refusal(((f"{letter}.{CONTENT_PATH}", reason),))


def read_message(source: bytes | BinaryIO, sinks: Sinks | None = None, routable: bool = True) -> Reading:
    """The whole message in `source`; for the rest see `MessageReader`."""
    reader = MessageReader(sinks, routable)
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    while chunk := stream.read(CHUNK):
        reader.feed(chunk)
    return reader.close()
