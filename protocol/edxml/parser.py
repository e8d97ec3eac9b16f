"""From bytes to the texts of the elements that are read, within limits."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NoReturn
from xml.parsers import expat

from protocol.edxml.values import one_line
from protocol.problems import LienthongError, Problem

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
OLD_NAMESPACES = ("http://www.e-doc.vn/Schema/", "http://www.go.vn/eDoc")
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
"""Before 2016 the header stood in a SOAP envelope, and attachments travelled beside it."""
XLINK_HREF = "http://www.w3.org/1999/xlink href"
"""How a `Reference` of that time names its attachment."""
MAX_PROLOG = 4096
MAX_DEPTH = 64
MAX_ELEMENTS = 100_000
MAX_NAMES = 2_000
"""Different names of elements, attributes and namespaces (enforced from the second chunk on)."""
MAX_TOKEN = 256 * 1024
"""Bytes of one tag or comment (enforced to within a chunk)."""
MAX_MARKUP = 8 * 1024 * 1024
"""Bytes of all but the attachments' text."""
MAX_FIELD = 64 * 1024
"""Characters of one field that is read."""
MAX_FIELDS = 1024 * 1024
"""Characters of all fields that are read."""
CHUNK = 64 * 1024

# The elements that are read. `!` may stand but once; `*` may repeat, and starts a group of fields.
_PATHS = """
MessageHeader! From! OrganId!|MessageHeader From OrganName
MessageHeader To* OrganId!|MessageHeader To OrganName
MessageHeader DocumentId!|MessageHeader Subject|MessageHeader DueDate
MessageHeader Code CodeNumber|MessageHeader Code CodeNotation
MessageHeader PromulgationInfo Place|MessageHeader PromulgationInfo PromulgationDate
MessageHeader DocumentType TypeName|MessageHeader SignerInfo FullName
MessageHeader OtherInfo Priority|MessageHeader OtherInfo Secret
MessageHeader ResponseFor* OrganId!|MessageHeader ResponseFor DocumentId!
MessageHeader ResponseFor Code|MessageHeader ResponseFor PromulgationDate
MessageHeader StatusCode!|MessageHeader Description|MessageHeader Timestamp
TraceHeaderList TraceHeader* Timestamp|TraceHeaderList TraceHeader OrganId
TraceHeaderList Bussiness BussinessDocType!|TraceHeaderList Bussiness DocumentId
TraceHeaderList Bussiness ReplacementInfoList ReplacementInfo* DocumentId
edXMLManifest Reference* ContentId|edXMLManifest Reference AttachmentName
edXMLManifest Reference ContentType|edXMLManifest Reference Description
"""
TRACED = "TraceHeaderList.TraceHeader.OrganId"
FRAMES = ("edXML", "edXMLEnvelope", "edXMLHeader", "edXMLBody")
_OLD_ROOTS = ("edxml", "edxmlenvelope", "edoc")
OTHER_SPELLINGS = {
    "Bussiness": "Business",
    "BussinessDocType": "BusinessDocType",
    "BussinessDocReason": "BusinessDocReason",
    "BussinessDocumentInfo": "BusinessDocumentInfo",
    "edXMLManifest": "Manifest",
}

_NO_DOCTYPE = "the message has a DOCTYPE, which is never accepted; leave it out"
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?+(?:[ \t\r\n]++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_BREAKS_OFF = {
    expat.errors.XML_ERROR_NO_ELEMENTS,
    expat.errors.XML_ERROR_UNCLOSED_TOKEN,
    expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    expat.errors.XML_ERROR_PARTIAL_CHAR,
}


class _Node:
    """An element that is read. `children` is keyed by name as expat gives it, in every namespace."""

    __slots__ = ("children", "group", "leaf", "once", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.children: dict[str, _Node] = {}
        self.leaf = self.group = self.once = False

    def adopt(self, name: str, child: _Node) -> None:
        for spelling in spellings(name):
            self.children[spelling] = child


def spellings(name: str) -> Iterator[str]:
    """The element `name` as expat may give it. In an old dialect it is then looked up in lower case."""
    for local in {name, OTHER_SPELLINGS.get(name, name)}:
        yield from (local, f"{NAMESPACE} {local}")
        yield from (f"{old} {local}".lower() for old in OLD_NAMESPACES)


def _tree() -> _Node:
    top = _Node("")
    for path in re.split(r"[|\n]", _PATHS.strip()):
        node = top
        for step in path.split():
            name = step.rstrip("!*")
            child = node.children.get(name)
            if child is None:
                node.adopt(name, child := _Node(f"{node.path}.{name}".lstrip(".")))
            child.once |= step.endswith("!")
            child.group |= step.endswith("*")
            node = child
        node.leaf = True
    for name in FRAMES:
        top.adopt(name, top)
    top.children[f"{SOAP} Header"] = top.children[f"{SOAP} Body"] = top
    top.adopt("AttachmentEncoded", _ATTACHMENTS)
    return top


_ATTACHMENTS = _Node("AttachmentEncoded")
_OTHER = _Node("")
_TOP = _tree()


class _EnoughError(LienthongError):
    """The header is complete, and the rest was not asked for."""


class Reader:
    """The handlers of one parse, and what they gather: `fields` by path, and those of each group apart."""

    def __init__(self, whole: bool, large: bool = True) -> None:
        """`large` is False for a message that is fed in one chunk, and bounded by it."""
        self.fields: dict[str, str] = {}
        self.groups: dict[str, list[dict[str, str]]] = {}
        self.warnings: dict[str, None] = {}  # a set that keeps its order
        self._into = self.fields
        self._whole = whole
        self.old = self.soap = self._enveloped = False
        self._stack: list[_Node] = []
        self._text: list[str] = []
        self._elements = self._characters = self._fed = 0
        self._dropped = 0  # bytes of attachment text in finished runs; where the present run began, or -1
        self._run = -1
        self._names: dict[str, str] | None = {} if large else None  # where the parser keeps them
        self.parser = expat.ParserCreate("UTF-8", " ", self._names)
        if large:
            self.parser.StartNamespaceDeclHandler = lambda *_: None  # only with it are prefixes kept there
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._root
        self.parser.EndElementHandler = self._end

    def feed(self, chunk: bytes, final: bool) -> None:
        before, self._fed = self._fed, self._fed + len(chunk)
        try:
            self.parser.Parse(chunk, final)
        except expat.ExpatError as error:
            raise _malformed(error, chunk[max(0, self.parser.ErrorByteIndex - before) :]) from None
        position = self.parser.CurrentByteIndex
        if self._names is not None and len(self._names) > MAX_NAMES:
            raise Problem("bad-xml", f"there are more than {MAX_NAMES} different names")
        if not final and self._fed - position > MAX_TOKEN:
            raise Problem("bad-xml", f"a tag or comment is longer than {MAX_TOKEN} bytes")
        if (position if self._run < 0 else self._run) - self._dropped > MAX_MARKUP:
            raise Problem("bad-xml", f"there are more than {MAX_MARKUP} bytes beside the attachments' text")
        if self._text:
            self._measure(self._stack[-1].path, sum(map(len, self._text)))

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise Problem("bad-xml", f"the message declares the encoding {encoding[:40]!r}; edXML is UTF-8")

    def _doctype(self, *_: object) -> NoReturn:
        raise Problem("bad-xml", _NO_DOCTYPE)

    def _root(self, name: str, attributes: dict[str, str]) -> None:
        uri, _, local = name.rpartition(" ")
        self.soap = uri == SOAP and local == "Envelope"
        self.old = uri in OLD_NAMESPACES or self.soap
        if not self.old and uri not in ("", NAMESPACE):
            raise foreign(uri)
        if local != "edXML" and not (self.old and local.lower() in _OLD_ROOTS) and not self.soap:
            raise _bad("M", "edXML", f"is not the root, which is {local[:60]!r} (in namespace {uri!r})")
        if self.soap:
            self.warn("edXML", "is a SOAP envelope of an old dialect, whose attachments travel beside it")
        elif uri != NAMESPACE:
            self.warn("edXML", f"is in the namespace {uri!r} of an old dialect" if uri else "has no namespace")
        self._push(_TOP)
        self.parser.StartElementHandler = self._start

    def _push(self, node: _Node) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Problem("bad-xml", f"there are more than {MAX_ELEMENTS} elements")
        if len(self._stack) >= MAX_DEPTH:
            raise Problem("bad-xml", f"elements nest more than {MAX_DEPTH} deep")
        self._stack.append(node)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._stack[-1]
        node = parent.children.get(name)
        if node is None:
            node = parent.children.get(name.lower(), _OTHER) if self.old else _OTHER
        self._push(node)
        if parent.leaf:
            raise _bad("T", parent.path, "must hold text alone")
        if node.leaf:
            self.parser.CharacterDataHandler = self._text.append  # none elsewhere: blanks cost a call each
        elif node.group:
            self._into = {}
            self.groups.setdefault(node.path, []).append(self._into)
            if attributes and XLINK_HREF in attributes:
                self._into[f"{node.path}.href"] = attributes[XLINK_HREF]
        elif node.once:
            self._put(node)
        elif node is _ATTACHMENTS:
            if self._enveloped and not self._whole:
                raise _EnoughError
            self.parser.StartElementHandler = self._start_below_attachments
            self.parser.EndElementHandler = self._end_below_attachments
            self.parser.CharacterDataHandler = self._drop

    def _end(self, name: str) -> None:
        node = self._stack.pop()
        if node.leaf:
            self.parser.CharacterDataHandler = None
            self._put(node)
            self._text.clear()
        elif node.group:
            self._into = self.fields
        elif node is _TOP:
            self._enveloped |= name.lower().endswith("edxmlenvelope")
            if not self._stack and not self._whole:
                raise _EnoughError

    # Below AttachmentEncoded the first piece of a text marks where it begins. The handler then goes, so
    # that no strings are made of what follows, and comes back with the next tag.

    def _start_below_attachments(self, name: str, attributes: dict[str, str]) -> None:
        self._finish_run()
        self._push(_OTHER)

    def _end_below_attachments(self, name: str) -> None:
        self._finish_run()
        if self._stack.pop() is _ATTACHMENTS:
            self.parser.StartElementHandler = self._start
            self.parser.EndElementHandler = self._end
            self.parser.CharacterDataHandler = None

    def _drop(self, text: str) -> None:
        self._run = self.parser.CurrentByteIndex
        self.parser.CharacterDataHandler = None

    def _finish_run(self) -> None:
        if self._run >= 0:
            self._dropped += self.parser.CurrentByteIndex - self._run
            self._run = -1
            self.parser.CharacterDataHandler = self._drop

    def _measure(self, path: str, length: int) -> None:
        if length > MAX_FIELD:
            raise _bad("R", path, f"is longer than {MAX_FIELD} characters")
        if self._characters + length > MAX_FIELDS:
            raise _bad("R", path, f"brings the fields to more than {MAX_FIELDS} characters")

    def _put(self, node: _Node) -> None:
        path, text = node.path, "".join(self._text)
        if len(text) > MAX_FIELD or self._characters + len(text) > MAX_FIELDS:
            self._measure(path, len(text))
        self._characters += len(text)
        text = one_line(text)
        if text == "null":
            if path != TRACED:  # of which nothing is told to anybody
                self.warn(path, "is the word null; taken as empty")
            text = ""
        if path not in self._into:
            self._into[path] = text
        elif node.once:
            raise _bad("M", path, "stands more than once")
        else:
            self.warn(path, "stands more than once; the first counts")

    def warn(self, path: str, what: str) -> None:
        self.warnings[f"{path} {what}"] = None


def _bad(letter: str, path: str, reason: str) -> Problem:
    return Problem("bad-edxml", f"{path} {reason}", fields=((f"{letter}.{path}", reason),))


def foreign(uri: str) -> Problem:
    """The refusal of a root in a namespace that is none of edXML's."""
    return _bad("M", "edXML", f"is in the namespace {uri[:100]!r}, not in {NAMESPACE!r}")


def _malformed(error: expat.ExpatError, rest: bytes) -> Problem:
    """The refusal for what expat found at the beginning of `rest`."""
    message = expat.ErrorString(error.code)
    where = f"line {error.lineno}, column {error.offset + 1}"
    if message in _BREAKS_OFF:
        return Problem("bad-xml", f"the message breaks off at {where}, before its root element is closed")
    if rest[:1] == b"\0":
        return Problem("bad-xml", f"there is a NUL byte at {where}")
    try:
        rest[:4].decode()
    except UnicodeDecodeError as undecodable:
        if undecodable.start == 0:
            return Problem("bad-xml", f"the bytes at {where} are not UTF-8")
    return Problem("bad-xml", f"the XML is not well-formed at {where}: {message}")


def check_prolog(head: bytes) -> None:
    """Refuse what must not reach the parser, by the bytes before the root element."""
    if not head:
        raise Problem("bad-xml", "the message is empty")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:4]:
        raise Problem("bad-xml", "the message is in UTF-16 or UTF-32, or begins with NUL; edXML is UTF-8")
    match = _PROLOG.match(head)
    end = match.end() if match else 0
    unfinished = head.startswith((b"<!--", b"<?"), end)
    if end > MAX_PROLOG or (unfinished and len(head) > MAX_PROLOG):
        raise Problem("bad-xml", f"more than {MAX_PROLOG} bytes stand before the root element")
    if head.startswith(b"<!", end) and not unfinished:
        raise Problem("bad-xml", _NO_DOCTYPE)
    if end < len(head) and not head.startswith(b"<", end):
        raise Problem("bad-xml", "there is text before the XML")


def _chunks(source: bytes | BinaryIO) -> Iterator[bytes]:
    """Chunks of one size whatever the source gives at a time; only the last may be shorter."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    while chunk := stream.read(CHUNK):
        while len(chunk) < CHUNK and (more := stream.read(CHUNK - len(chunk))):
            chunk += more
        yield chunk


class Pieces:
    """Chunks of one size out of pieces of any; the last is kept back until `rest`.

    expat reads an unfinished tag anew with every chunk, so that small ones would cost time without bound.
    """

    def __init__(self) -> None:
        self._waiting = bytearray()

    def add(self, piece: bytes) -> Iterator[bytes]:
        self._waiting += piece
        while len(self._waiting) > CHUNK:
            chunk = bytes(self._waiting[:CHUNK])
            del self._waiting[:CHUNK]
            yield chunk

    def rest(self) -> bytes:
        return bytes(self._waiting)


def gather(source: bytes | BinaryIO, whole: bool) -> Reader:
    """A reader that has read `source`: to where the attachments begin, or with `whole` to its last byte.

    Raises `Problem` bad-xml, or bad-edxml for what ends the reading: another root, a field too long or unclear.
    """
    chunks = _chunks(source)
    head = next(chunks, b"")
    check_prolog(head)
    chunk = next(chunks, b"")
    reader = Reader(whole, large=bool(chunk))
    try:
        while chunk:
            reader.feed(head, final=False)
            head, chunk = chunk, next(chunks, b"")
        reader.feed(head, final=True)  # not an empty chunk: expat counts no lines in its last one
    except _EnoughError:
        pass
    finally:
        del reader.parser  # the two hold one another
    return reader
