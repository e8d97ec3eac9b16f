"""Write an edXML message in the strict form, its attachments as they come.

The prefixes are those of the axis's Java SDK, redundant as they look: the root and `AttachmentEncoded` in the
default namespace, `edXML:` from the envelope down and on `ContentTransferEncoded`, which declares it again,
`Signature` without one. A receiver in .NET refused a message whose serializer had dropped them. Members stand
in the SDK's order; those of a status in that of its status messages. UTF-8, no blanks between elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from protocol.edxml.base64stream import encode
from protocol.edxml.binding import members
from protocol.edxml.header import refusal
from protocol.edxml.model import Attributes, Element, Message, Organ, Part, ResponseFor, StaffInfo
from protocol.edxml.parser import NAMESPACE

XML = "http://www.w3.org/XML/1998/namespace"

_HEAD = f'<?xml version="1.0" encoding="UTF-8"?>\n<edXML xmlns="{NAMESPACE}">'
_ENVELOPE = f'<edXML:edXMLEnvelope xmlns:edXML="{NAMESPACE}">'
_CONTENT = f'<edXML:ContentTransferEncoded xmlns:edXML="{NAMESPACE}">'.encode()
_CONTENT_END = b"</edXML:ContentTransferEncoded>"

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write (production 2, Char)."""
_NO_NAME = re.compile(r"""^[\d.-]|[\s<>&"'/={}:;!?]|^(?:xmlns)?$""")
"""What would let a name end, or become something else. XML's own rule (production 5) is narrower."""
_TEXT = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("\r"): "&#13;"}
_VALUE = _TEXT | {ord('"'): "&quot;", ord("\t"): "&#9;", ord("\n"): "&#10;"}

_STATUS_ORDER: dict[type[Part], tuple[str, ...]] = {
    Organ: ("OrganId", "OrganName", "OrganizationInCharge"),
    ResponseFor: ("OrganId", "Code", "PromulgationDate", "DocumentId"),
    StaffInfo: ("Department", "Staff", "Mobile", "Email"),
}
"""What comes first in a status; the rest follows in its usual order."""


def write_message(message: Message, contents: Sequence[Iterable[bytes] | None] = ()) -> Iterator[bytes]:
    """`message` in pieces, with `contents` as the bytes of its attachments, in their order.

    An attachment without contents, or with None, gets no `ContentTransferEncoded`. Contents are put in as they
    are: `protocol.edxml.wrapping` makes the zip that the axis's own builders carry files in.

    Raises `Problem` bad-edxml where a text has a character that XML cannot hold, and ValueError for a name that
    is none, or for more contents than attachments; both before the first piece.
    """
    if len(contents) > len(message.attachments):
        raise ValueError(f"{len(contents)} contents for {len(message.attachments)} attachments")
    writer = Writer(message.is_status)
    head = writer.head(message).encode()
    parts = [writer.fields(attachment, "").encode() for attachment in message.attachments]
    tail = "".join(writer.element(extra, "") for extra in message.extras) + "</edXML>\n"
    if parts or message.attachment_extras:
        head += b"<AttachmentEncoded>"
        beside = "".join(writer.element(extra, "") for extra in message.attachment_extras)
        tail = f"{beside}</AttachmentEncoded>{tail}"
    return _pieces(head, parts, contents, tail.encode())


def _pieces(
    head: bytes, parts: list[bytes], contents: Sequence[Iterable[bytes] | None], tail: bytes
) -> Iterator[bytes]:
    for index, part in enumerate(parts):
        content = contents[index] if index < len(contents) else None
        head += b"<Attachment" + part
        if content is not None:
            yield head + _CONTENT
            yield from encode(content)
            head = _CONTENT_END
        head += b"</Attachment>"
    yield head + tail


class Writer:
    """Writes text; `path` is that of the part being written, for what is said of a text that cannot be."""

    def __init__(self, status: bool) -> None:
        self._status = status
        self._path = ""

    def head(self, message: Message) -> str:
        """Everything before the attachments."""
        self._path = ""
        parts = [_HEAD, _ENVELOPE, "<edXML:edXMLHeader>", self.part("MessageHeader", message.header, "edXML:")]
        if message.trace is not None:
            parts.append(self.part("TraceHeaderList", message.trace, "edXML:"))
        if message.errors is not None:
            parts.append(self.part("ErrorList", message.errors, "edXML:"))
        parts += (self.element(signature, "") for signature in message.signatures)
        parts += (self.element(extra, "edXML:") for extra in message.header_extras)
        parts.append("</edXML:edXMLHeader>")
        if message.manifest is not None:
            body = self.part("edXMLManifest", message.manifest, "edXML:")
            parts.append(f"<edXML:edXMLBody>{body}</edXML:edXMLBody>")
        parts.append("</edXML:edXMLEnvelope>")
        return "".join(parts)

    def part(self, name: str, part: Part, prefix: str) -> str:
        return f"<{prefix}{name}{self.fields(part, prefix, name)}</{prefix}{name}>"

    def fields(self, part: Part, prefix: str, name: str = "Attachment") -> str:
        """What follows the name in the tag of `part`, and what it holds."""
        above, self._path = self._path, f"{self._path}.{name}".lstrip(".")
        parts = [self._attributes(part.attributes), ">"]
        ordered = members(type(part))
        if self._status and type(part) in _STATUS_ORDER:
            first = _STATUS_ORDER[type(part)]
            ordered = tuple(sorted(ordered, key=lambda m: first.index(m.element) if m.element in first else 99))
        for member in ordered:
            value = getattr(part, member.field)
            for item in value if member.many else () if value is None else (value,):
                if isinstance(item, Part):
                    parts.append(self.part(member.element, item, prefix))
                else:
                    text = self._escaped(item, member.element, _TEXT)
                    parts.append(f"<{prefix}{member.element}>{text}</{prefix}{member.element}>")
        parts += (self.element(extra, prefix) for extra in part.extras)
        self._path = above
        return "".join(parts)

    def element(self, element: Element, prefix: str, inherited: str = NAMESPACE) -> str:
        """An element that the model does not know. `inherited` is the default namespace where it stands."""
        namespace, name = _split(element.name)
        if namespace != NAMESPACE or not prefix:
            prefix, declared = "", "" if namespace == inherited else f' xmlns="{namespace.translate(_VALUE)}"'
            inherited = namespace
        else:
            declared = ""
        inner = "".join(
            self._escaped(item, name, _TEXT) if isinstance(item, str) else self.element(item, prefix, inherited)
            for item in element.content
        )
        return f"<{prefix}{name}{declared}{self._attributes(element.attributes)}>{inner}</{prefix}{name}>"

    def _attributes(self, attributes: Attributes) -> str:
        parts = []
        for number, (full, value) in enumerate(attributes):
            namespace, name = _split(full)
            if namespace == XML:
                name = f"xml:{name}"
            elif namespace:
                parts.append(f' xmlns:a{number}="{namespace.translate(_VALUE)}"')
                name = f"a{number}:{name}"
            parts.append(f' {name}="{self._escaped(value, name, _VALUE)}"')
        return "".join(parts)

    def _escaped(self, text: str, name: str, table: dict[int, str]) -> str:
        if NOT_XML.search(text):
            path = f"{self._path}.{name}".lstrip(".")
            raise refusal(((f"T.{path}", "has a character that XML cannot hold"),))
        return text.translate(table)


def _split(name: str) -> tuple[str, str]:
    """Namespace and local name of one in Clark's notation."""
    namespace, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    if _NO_NAME.search(local) or NOT_XML.search(namespace):
        raise ValueError(f"{name[:60]!r} is no name of an element or attribute")
    return namespace, local
