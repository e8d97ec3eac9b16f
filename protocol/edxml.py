"""edXML (QCVN 102:2016): read what is needed to route and describe a message.

`read` takes a document (văn bản) or a status in any dialect seen on the axis and returns a `Header`.
It alters no byte: a message is kept and passed on as it came. What cannot be routed is refused; what
is merely ragged is tolerated, and named in `Header.warnings`.

Subtle parts:

* The parser is expat, not lxml. With these handlers a message of 18 kB, checked to its end, takes either
  of them 180 µs on one core (one of 368 kB: 1,160 µs and 420 µs). But lxml keeps every element name that
  it ever met until its thread ends, so that 20 MB of made-up names leave 35 MB behind for good, and it
  lets unbound prefixes pass. expat forgets, and drops unwanted text before it becomes a string.
* The prolog is searched for a DOCTYPE before the parser sees a byte, and the parser's own handler refuses
  one all the same: entities are never declared, so never expanded or fetched.
* While it lives, expat keeps each distinct name and each unfinished token; releases before 2.6 scan such
  a token anew with every chunk. Hence the limits on names, tokens and markup (all but the attachments'
  text). 16 MiB of distinct attributes would take 215 MiB and two seconds.
* Elements are known by namespace and path, never by prefix or order. The package signature, too, holds
  elements named `Reference`, often in edXML's own namespace. Envelope, header and body are transparent,
  for some dialects leave them out.
* What addresses a message may stand in it only once: of two `From`, the recipient's system might believe
  the other. When a field that only describes is repeated, the first counts.
* Comments and processing instructions are ignored, and do not split the field that they stand in. A field
  that holds elements is refused, since readers differ in what its text is.
* Dates are Vietnam's unless they say otherwise. They are returned in ISO 8601.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import BinaryIO, NoReturn
from xml.parsers import expat

from protocol.agency import is_code
from protocol.problems import LienthongError, Problem
from protocol.status import State

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
OLD_NAMESPACES = ("http://www.e-doc.vn/Schema/", "http://www.go.vn/eDoc")
MAX_PROLOG = 4096
MAX_DEPTH = 64
MAX_ELEMENTS = 100_000
MAX_NAMES = 2_000
"""Different names of elements, attributes and namespaces (enforced to within a chunk)."""
MAX_TOKEN = 256 * 1024
"""Bytes of one tag or comment (enforced to within a chunk)."""
MAX_MARKUP = 8 * 1024 * 1024
"""Bytes of all but the attachments' text."""
MAX_FIELD = 64 * 1024
"""Characters of one field that is read."""
MAX_FIELDS = 1024 * 1024
"""Characters of all fields that are read."""
MAX_DOCUMENT_ID = 512
CHUNK = 64 * 1024
VIETNAM = timezone(timedelta(hours=7))


@dataclass(frozen=True, slots=True)
class Party:
    """An addressee: its identity code, and the name that the sender gave it."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Response:
    """A document that this one answers, or that a status speaks of."""

    organ: str
    code: str
    document_id: str
    date: str | None


@dataclass(frozen=True, slots=True)
class Reference:
    """An attachment as the manifest announces it; `content_id` without its ``cid:``."""

    content_id: str
    name: str
    media_type: str
    description: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a message says about itself. Text that is absent is ``""``."""

    kind: str
    """``document`` or ``status``."""
    sender: str
    sender_name: str
    parties: tuple[Party, ...]
    """Whom it is for: `To`; of a status, the organs of `ResponseFor`, which have no names."""
    document_id: str
    """Of a status: the id of the document that it speaks of, ``""`` if it leaves that out."""
    code: str
    """Number and notation: ``215/BC-UBND``."""
    type_name: str
    subject: str
    priority: int
    """From 0, normal, to 4, express at a set hour."""
    due: str | None
    promulgation_place: str
    promulgation_date: str | None
    signer: str
    business: int
    """0 new, 1 recall, 2 update, 3 replacement."""
    business_document_id: str | None
    """What is recalled, updated or replaced. Many a recall has it as `document_id` instead."""
    replaces: tuple[str, ...]
    """All the documents that a replacement replaces."""
    response_for: tuple[Response, ...]
    status_code: State | str | None
    """Two digits; a `State` where they are one that is known."""
    status_description: str
    timestamp: str | None
    """When the status was given, or when the document entered the first system on its way."""
    references: tuple[Reference, ...]
    warnings: tuple[str, ...]

    @property
    def recipients(self) -> tuple[str, ...]:
        """The codes of `parties`."""
        return tuple(party.code for party in self.parties)


# The elements that are read. `!` may stand but once; `*` may repeat, and starts a group of fields.
_PATHS = """
MessageHeader! From! OrganId!|MessageHeader From OrganName
MessageHeader To* OrganId!|MessageHeader To OrganName
MessageHeader DocumentId!|MessageHeader Subject|MessageHeader DueDate
MessageHeader Code CodeNumber|MessageHeader Code CodeNotation
MessageHeader PromulgationInfo Place|MessageHeader PromulgationInfo PromulgationDate
MessageHeader DocumentType TypeName|MessageHeader SignerInfo FullName|MessageHeader OtherInfo Priority
MessageHeader ResponseFor* OrganId!|MessageHeader ResponseFor DocumentId!
MessageHeader ResponseFor Code|MessageHeader ResponseFor PromulgationDate
MessageHeader StatusCode!|MessageHeader Description|MessageHeader Timestamp
TraceHeaderList TraceHeader* Timestamp
TraceHeaderList Bussiness BussinessDocType|TraceHeaderList Bussiness DocumentId
TraceHeaderList Bussiness ReplacementInfoList ReplacementInfo* DocumentId
edXMLManifest Reference* ContentId|edXMLManifest Reference AttachmentName
edXMLManifest Reference ContentType|edXMLManifest Reference Description
"""
_TRANSPARENT = ("edXML", "edXMLEnvelope", "edXMLHeader", "edXMLBody")
_OLD_ROOTS = ("edxml", "edxmlenvelope", "edoc")
_SPELLED_RIGHT = {"Bussiness": "Business", "BussinessDocType": "BusinessDocType"}

_NO_DOCTYPE = "the message has a DOCTYPE, which is never accepted; leave it out"
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?+(?:[ \t\r\n]++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_SPACE = " \t\r\n"
_LINE_BREAK = re.compile(r"[ \t\r\n]*[\t\r\n][ \t\r\n]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[0-9]{1,2}")
_DATE = re.compile(
    r"(?:([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})|([0-9]{1,2})[/-]([0-9]{1,2})[/-]([0-9]{4}))"
    r"((?:[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?)"
)
_STATES = frozenset(State)
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
        for local in {name, _SPELLED_RIGHT.get(name, name)}:
            self.children[local] = self.children[f"{NAMESPACE} {local}"] = child
            for old in OLD_NAMESPACES:  # those are looked up in lower case
                self.children[f"{old} {local}".lower()] = child


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
    for name in _TRANSPARENT:
        top.adopt(name, top)
    top.adopt("AttachmentEncoded", _ATTACHMENTS)
    return top


_ATTACHMENTS = _Node("AttachmentEncoded")
_OTHER = _Node("")
_TOP = _tree()


class _EnoughError(LienthongError):
    """The header is complete, and the rest was not asked for."""


class _Reader:
    """The handlers of one parse, and what they gather."""

    def __init__(self, whole: bool) -> None:
        self.fields: dict[str, str] = {}
        self.groups: dict[str, list[dict[str, str]]] = {}
        self.warnings: dict[str, None] = {}  # a set that keeps its order
        self._into = self.fields
        self._whole = whole
        self._old = self._enveloped = False
        self._stack: list[_Node] = []
        self._text: list[str] = []
        self._elements = self._characters = self._fed = 0
        self._dropped = 0  # bytes of attachment text in finished runs; where the present run began, or -1
        self._run = -1
        self._names: dict[str, str] = {}  # where the parser keeps them
        self.parser = expat.ParserCreate("UTF-8", " ", self._names)
        self.parser.StartNamespaceDeclHandler = lambda *_: None  # only with it are prefixes kept there
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._root
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append

    def feed(self, chunk: bytes, final: bool) -> None:
        before, self._fed = self._fed, self._fed + len(chunk)
        try:
            self.parser.Parse(chunk, final)
        except expat.ExpatError as error:
            raise _malformed(error, chunk[max(0, self.parser.ErrorByteIndex - before) :]) from None
        position = self.parser.CurrentByteIndex
        if len(self._names) > MAX_NAMES:
            raise Problem("bad-xml", f"there are more than {MAX_NAMES} different names")
        if not final and self._fed - position > MAX_TOKEN:
            raise Problem("bad-xml", f"a tag or comment is longer than {MAX_TOKEN} bytes")
        if (position if self._run < 0 else self._run) - self._dropped > MAX_MARKUP:
            raise Problem("bad-xml", f"there are more than {MAX_MARKUP} bytes beside the attachments' text")
        if self._stack and self._stack[-1].leaf:
            self._measure(self._stack[-1].path, sum(map(len, self._text)))
        else:
            self._text.clear()

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise Problem("bad-xml", f"the message declares the encoding {encoding[:40]!r}; edXML is UTF-8")

    def _doctype(self, *_: object) -> NoReturn:
        raise Problem("bad-xml", _NO_DOCTYPE)

    def _root(self, name: str, attributes: dict[str, str]) -> None:
        uri, _, local = name.rpartition(" ")
        self._old = uri in OLD_NAMESPACES
        if not self._old and uri not in ("", NAMESPACE):
            raise _bad("M", "edXML", f"is in the namespace {uri[:100]!r}, not in {NAMESPACE!r}")
        if local != "edXML" and not (self._old and local.lower() in _OLD_ROOTS):
            raise _bad("M", "edXML", f"is not the root, which is {local[:60]!r} (in namespace {uri!r})")
        if uri != NAMESPACE:
            self.warn("edXML", f"is in the namespace {uri!r} of an old dialect" if uri else "has no namespace")
        self._descend(_TOP)
        self.parser.StartElementHandler = self._start

    def _descend(self, node: _Node) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Problem("bad-xml", f"there are more than {MAX_ELEMENTS} elements")
        if len(self._stack) >= MAX_DEPTH:
            raise Problem("bad-xml", f"elements nest more than {MAX_DEPTH} deep")
        self._stack.append(node)
        self._text.clear()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._stack[-1]
        node = parent.children.get(name)
        if node is None:
            node = parent.children.get(name.lower(), _OTHER) if self._old else _OTHER
        self._descend(node)
        if parent.leaf:
            raise _bad("T", parent.path, "must hold text alone")
        if node.group:
            self._into = {}
            self.groups.setdefault(node.path, []).append(self._into)
        elif node.once and not node.leaf:
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
            self._put(node)
        elif node.group:
            self._into = self.fields
        elif node is _TOP:
            self._enveloped |= name.lower().endswith("edxmlenvelope")
            if not self._stack and not self._whole:
                raise _EnoughError
        self._text.clear()

    # Below AttachmentEncoded the first piece of a text marks where it begins. The handler then goes, so
    # that no strings are made of what follows, and comes back with the next tag.

    def _start_below_attachments(self, name: str, attributes: dict[str, str]) -> None:
        self._finish_run()
        self._descend(_OTHER)

    def _end_below_attachments(self, name: str) -> None:
        self._finish_run()
        if self._stack.pop() is _ATTACHMENTS:
            self.parser.StartElementHandler = self._start
            self.parser.EndElementHandler = self._end
            self.parser.CharacterDataHandler = self._text.append

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
        self._measure(path, len(text))
        self._characters += len(text)
        text = text.strip(_SPACE)
        if not text.isprintable():
            text = _LINE_BREAK.sub(" ", text)
        if text == "null":
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


class _Judge:
    """Makes a `Header` of what a reader gathered, or says why it cannot."""

    def __init__(self, reader: _Reader) -> None:
        self.fields, self.groups, self.warn = reader.fields, reader.groups, reader.warn
        self.warnings = reader.warnings
        self.errors: dict[tuple[str, str], None] = {}

    def header(self) -> Header:
        text = self.text
        to, answers = self.filled("MessageHeader.To"), self.filled("MessageHeader.ResponseFor")
        # An empty StatusCode beside recipients is a builder's habit, and does not make a status.
        status = bool(text("StatusCode")) or (not to and "MessageHeader.StatusCode" in self.fields)
        self.check_code("MessageHeader.From.OrganId", text("From.OrganId"))
        response_for = tuple(map(self.response, answers))
        if status:
            parties = self.parties("MessageHeader.ResponseFor", answers)
            document_id = next((response.document_id for response in response_for if response.document_id), "")
            self.check_id("MessageHeader.ResponseFor.DocumentId", document_id)
            if to:
                self.warn("MessageHeader.To", "has no meaning in a status, which goes to its ResponseFor")
            if not document_id:
                self.warn("MessageHeader.ResponseFor.DocumentId", "is missing")
            sent = "MessageHeader.Timestamp", text("Timestamp")
        else:
            parties = self.parties("MessageHeader.To", to)
            document_id = text("DocumentId")
            self.check_id("MessageHeader.DocumentId", document_id)
            if not document_id:
                self.error("N", "MessageHeader.DocumentId", "is missing")
            path = "TraceHeaderList.TraceHeader.Timestamp"
            sent = path, self.groups.get("TraceHeaderList.TraceHeader", [{}])[0].get(path, "")
        replaced = self.filled("TraceHeaderList.Bussiness.ReplacementInfoList.ReplacementInfo")
        replaces = tuple(dict.fromkeys(text for group in replaced for text in group.values()))
        instant, issued = self.moment(*sent), "PromulgationInfo.PromulgationDate"
        header = Header(
            kind="status" if status else "document",
            sender=text("From.OrganId"),
            sender_name=text("From.OrganName"),
            parties=parties,
            document_id=document_id,
            code="/".join(filter(None, (text("Code.CodeNumber"), text("Code.CodeNotation")))),
            type_name=text("DocumentType.TypeName"),
            subject=text("Subject"),
            priority=self.number("MessageHeader.OtherInfo.Priority", 4),
            due=self.date("MessageHeader.DueDate", text("DueDate")),
            promulgation_place=text("PromulgationInfo.Place"),
            promulgation_date=self.date(f"MessageHeader.{issued}", text(issued)),
            signer=text("SignerInfo.FullName"),
            business=self.number("TraceHeaderList.Bussiness.BussinessDocType", 3),
            business_document_id=self.fields.get("TraceHeaderList.Bussiness.DocumentId")
            or next(iter(replaces), None),
            replaces=replaces,
            response_for=response_for,
            status_code=self.status_code() if status else None,
            status_description=text("Description"),
            timestamp=None if instant is None else instant.isoformat(timespec="seconds"),
            references=tuple(map(self.reference, self.filled("edXMLManifest.Reference"))),
            warnings=tuple(self.warnings),
        )
        if self.errors:
            fields = tuple(self.errors)[:20]
            more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
            raise Problem("bad-edxml", f"{fields[0][0][2:]} {fields[0][1]}{more}", fields=fields)
        return header

    def text(self, path: str) -> str:
        return self.fields.get(f"MessageHeader.{path}", "")

    def filled(self, path: str) -> list[dict[str, str]]:
        """The groups at `path` but for wholly empty ones, which builders write for what is absent."""
        return [group for group in self.groups.get(path, ()) if any(group.values())]

    def error(self, letter: str, path: str, reason: str) -> None:
        self.errors[f"{letter}.{path}", reason] = None

    def check_code(self, path: str, code: str) -> None:
        if not code:
            self.error("N", path, "is missing")
        elif not is_code(code):
            self.error("T", path, f"is not an identity code: {code[:40]!r}")

    def check_id(self, path: str, text: str) -> None:
        if len(text) > MAX_DOCUMENT_ID:
            self.error("R", path, f"is longer than {MAX_DOCUMENT_ID} characters")
        if _CONTROL.search(text):
            self.error("T", path, "holds control characters")

    def parties(self, path: str, groups: list[dict[str, str]]) -> tuple[Party, ...]:
        parties: dict[str, Party] = {}
        for group in groups or [{}]:
            code = group.get(f"{path}.OrganId", "")
            self.check_code(f"{path}.OrganId", code)
            if code not in parties:
                parties[code] = Party(code, group.get(f"{path}.OrganName", ""))
            elif path == "MessageHeader.To":
                self.warn(f"{path}.OrganId", "names an agency more than once; the first counts")
        return tuple(parties.values())

    def response(self, group: dict[str, str]) -> Response:
        path = "MessageHeader.ResponseFor"
        names = ("OrganId", "Code", "DocumentId", "PromulgationDate")
        organ, code, document_id, day = (group.get(f"{path}.{name}", "") for name in names)
        return Response(organ, code, document_id, self.date(f"{path}.PromulgationDate", day))

    def reference(self, group: dict[str, str]) -> Reference:
        path = "edXMLManifest.Reference"
        names = ("ContentId", "AttachmentName", "ContentType", "Description")
        content_id, name, media_type, description = (group.get(f"{path}.{name}", "") for name in names)
        if content_id[:4].lower() == "cid:":
            content_id = content_id[4:]
        if not content_id:
            self.warn(f"{path}.ContentId", "is missing")
        return Reference(content_id, name, media_type, description)

    def status_code(self) -> State | str:
        path, given = "MessageHeader.StatusCode", self.text("StatusCode")
        code = given.zfill(2)
        if not given:
            self.error("N", path, "is missing")
        elif not _NUMBER.fullmatch(given):
            self.error("T", path, "is not a number of two digits")
        elif code not in _STATES:
            self.warn(path, f"is {code!r}, which is no state that is known")
        elif code != given:
            self.warn(path, f"is {given!r}; taken as {code!r}")
        return State(code) if code in _STATES else code

    def number(self, path: str, highest: int) -> int:
        text = self.fields.get(path, "")
        if _NUMBER.fullmatch(text) and int(text) <= highest:
            return int(text)
        if text:
            self.warn(path, f"is not a number from 0 to {highest}; taken as 0")
        return 0

    def moment(self, path: str, text: str) -> datetime | None:
        if match := _DATE.fullmatch(text):
            year, month, day, end_day, end_month, end_year, time = match.groups()
            year, month, day = year or end_year, month or end_month, day or end_day
            try:
                moment = datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}{time}")
                if moment.year >= 1900:  # .NET writes 0001-01-01 for no date
                    return moment.astimezone(VIETNAM) if moment.tzinfo else moment.replace(tzinfo=VIETNAM)
            except (ValueError, OverflowError):
                pass
        if text or (path in self.fields and path.endswith("PromulgationDate")):
            self.warn(path, "is not a date that can be read")
        return None

    def date(self, path: str, text: str) -> str | None:
        moment = self.moment(path, text)
        return None if moment is None else moment.date().isoformat()


def _bad(letter: str, path: str, reason: str) -> Problem:
    return Problem("bad-edxml", f"{path} {reason}", fields=((f"{letter}.{path}", reason),))


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


def _check_prolog(head: bytes) -> None:
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


def read(source: bytes | BinaryIO, whole: bool = False) -> Header:
    """The header of the edXML message in `source`.

    Reading ends where the attachments begin, and what follows may be broken. With `whole` the message is
    checked to its last byte, so that one that breaks off in an attachment is refused. Memory is bounded
    either way.

    Raises `Problem` bad-xml, or bad-edxml with the fields at fault as (path, reason). Paths begin with N
    (missing), R (too long), M (wrong value) or T (wrong form), as in the error lists of the axis.
    """
    chunks = _chunks(source)
    head = next(chunks, b"")
    _check_prolog(head)
    reader = _Reader(whole)
    try:
        for chunk in chunks:
            reader.feed(head, final=False)
            head = chunk
        reader.feed(head, final=True)  # not an empty chunk: expat counts no lines in its last one
    except _EnoughError:
        pass
    finally:
        del reader.parser  # the two hold one another
    return _Judge(reader).header()
