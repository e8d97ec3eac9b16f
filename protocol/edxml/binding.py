"""From a tree of elements to a `Message`: what has a member goes there, what has none is kept beside it.

Elements are told apart exactly as routing does (`parser`): by namespace and name in any order, with the same
other spellings, so that the two never understand one message in two ways. A part that may stand once and
stands twice counts as one with the members of both; of a field that stands twice the first counts, and the
second is an extra.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from protocol.edxml.model import (
    Attachment,
    Element,
    ErrorList,
    Manifest,
    Message,
    MessageHeader,
    Part,
    TraceHeaderList,
)
from protocol.edxml.parser import FRAMES, NAMESPACE, SOAP, XLINK_HREF, spellings
from protocol.edxml.values import SPACE

DSIG = "http://www.w3.org/2000/09/xmldsig#"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

PartT = TypeVar("PartT", bound=Part)


class Node:
    """An element while it is read: its name and attributes as expat gives them, texts and children in order."""

    __slots__ = ("attributes", "content", "name")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.content: list[str | Node] = []

    @property
    def children(self) -> Iterator[Node]:
        return (item for item in self.content if isinstance(item, Node))

    @property
    def text(self) -> str:
        return "".join(item for item in self.content if isinstance(item, str))


class Member(NamedTuple):
    """A member of a part: the name of its element, the part that it is (None for a text), whether it repeats."""

    field: str
    element: str
    part: type[Part] | None
    many: bool


@functools.cache
def members(part: type[Part]) -> tuple[Member, ...]:
    """The members of `part` in the order in which they are written."""
    found = []
    for field in msgspec.structs.fields(part):
        if field.name not in ("attributes", "extras"):
            many = get_origin(field.type) is tuple
            kind = next((item for item in get_args(field.type) if item not in (str, Ellipsis, type(None))), None)
            found.append(Member(field.name, field.encode_name, kind, many))
    return tuple(found)


@functools.cache
def _table(part: type[Part]) -> dict[str, Member]:
    return {spelling: member for member in members(part) for spelling in spellings(member.element)}


def clark(name: str) -> str:
    """``{namespace}local`` of a name as expat gives it."""
    namespace, _, local = name.rpartition(" ")
    return f"{{{namespace}}}{local}" if namespace else local


def _element(node: Node) -> Element:
    content: list[str | Element] = []
    blank = any(True for _ in node.children)
    for item in node.content:
        if isinstance(item, Node):
            content.append(_element(item))
        elif content and isinstance(content[-1], str):
            content[-1] += item
        else:
            content.append(item)
    if blank:  # between elements, blanks are the layout of whoever wrote them
        content = [item for item in content if not isinstance(item, str) or item.strip(SPACE)]
    return Element(clark(node.name), _attributes(node), tuple(content))


def _signature(node: Node) -> Element:
    """A signature in an old dialect's namespace, or spelling, is one in today's."""
    element = _element(node)
    known = element.name == "Signature" or element.name.startswith((f"{{{DSIG}}}", f"{{{NAMESPACE}}}"))
    return element if known else msgspec.structs.replace(element, name=f"{{{NAMESPACE}}}Signature")


def _attributes(node: Node) -> tuple[tuple[str, str], ...]:
    return tuple((clark(name), value) for name, value in node.attributes.items())


def _merged(nodes: list[Node]) -> Node:
    if len(nodes) == 1:
        return nodes[0]
    merged = Node(nodes[0].name, {})
    for node in nodes:
        merged.attributes = node.attributes | merged.attributes
        merged.content += node.content
    return merged


class Binder:
    """Binds one message. `old` is whether its root is of an old dialect; `lost` names what could not be kept."""

    def __init__(self, old: bool) -> None:
        self._old = old
        self.lost: dict[str, None] = {}

    def part(self, kind: type[PartT], node: Node) -> PartT:
        table, found, extras = _table(kind), dict[str, Any](), list[Element]()
        single: dict[Member, list[Node]] = {}
        for child in node.children:
            member = self._look_up(table, child.name)
            if member is None or self._unfit(member, child):
                extras.append(_element(child))
            elif member.part is not None and not member.many:
                single.setdefault(member, []).append(child)
            elif member.many:
                found.setdefault(member.field, []).append(self._value(member, child))
            elif member.field in found:
                extras.append(_element(child))
            elif child.attributes.get(f"{XSI} nil") not in ("true", "1") or child.text:
                found[member.field] = self._value(member, child)
        for member, nodes in single.items():
            found[member.field] = self._value(member, _merged(nodes))
        if node.text.strip(SPACE):
            self._lose(f"text beside the elements of {_local(node)}")
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        return kind(attributes=_attributes(node), extras=tuple(extras), **found)

    def message(self, root: Node) -> Message:
        """The message below `root`, whose envelope, header and body may be there or not."""
        places: dict[str, list[Node]] = {name: [] for name in _PLACES.values()}
        header_extras: list[Element] = []
        extras: list[Element] = []

        def sort(frame: Node, into: list[Element]) -> None:
            self._lose_attributes(frame)
            for child in frame.children:
                place = self.place(child.name)
                if place == "frame":
                    sort(child, header_extras if _local(child).lower().endswith("header") else into)
                elif place is None:
                    into.append(_element(child))
                else:
                    places[place].append(child)

        sort(root, extras)
        for node in places["attachments"]:
            self._lose_attributes(node)
        attachments = _merged([Node("", {}), *places["attachments"]])
        files = [child for child in attachments.children if self.is_attachment(child.name)]
        others = (child for child in attachments.children if not self.is_attachment(child.name))
        return Message(
            header=self.part(MessageHeader, _merged([Node("", {}), *places["header"]])),
            trace=self._once(TraceHeaderList, places["trace"]),
            errors=self._once(ErrorList, places["errors"]),
            signatures=tuple(map(_signature, places["signatures"])),
            manifest=self._once(Manifest, places["manifest"]),
            attachments=tuple(self.part(Attachment, node) for node in files),
            header_extras=tuple(header_extras),
            attachment_extras=tuple(map(_element, others)),
            extras=tuple(extras),
        )

    def place(self, name: str) -> str | None:
        """What an element in a frame is: ``frame``, ``header``, ``trace``, ``attachments``…; None if unknown."""
        found: str | None = self._look_up(_PLACES, name)
        return found

    def is_attachment(self, name: str) -> bool:
        return self._look_up(_ATTACHMENT, name) is not None

    def is_content(self, name: str) -> bool:
        return self._look_up(_CONTENT, name) is not None

    def is_trace_header(self, name: str) -> bool:
        return self._look_up(_TRACE_HEADER, name) is not None

    def _look_up(self, table: dict[str, Any], name: str) -> Any:
        found = table.get(name)
        return table.get(name.lower()) if found is None and self._old else found

    def _once(self, kind: type[PartT], nodes: list[Node]) -> PartT | None:
        return self.part(kind, _merged(nodes)) if nodes else None

    @staticmethod
    def _unfit(member: Member, node: Node) -> bool:
        """Whether a text holds elements, or a part holds text alone."""
        nested = any(True for _ in node.children)
        return nested if member.part is None else not nested and bool(node.text.strip(SPACE))

    def _value(self, member: Member, node: Node) -> str | Part:
        if member.part is not None:
            return self.part(member.part, node)
        self._lose_attributes(node)
        return node.text

    def _lose_attributes(self, node: Node) -> None:
        for name in node.attributes:
            if name != f"{XSI} nil":
                self._lose(f"the attribute {clark(name)} of {_local(node)}")

    def _lose(self, what: str) -> None:
        self.lost[f"{what} is not kept"] = None


def _local(node: Node) -> str:
    return node.name.rpartition(" ")[2]


def href(reference: Part) -> str:
    """What a `Reference` of before 2016 names its attachment by, or ""."""
    return dict(reference.attributes).get(clark(XLINK_HREF), "")


_PLACES: dict[str, str] = {
    spelling: place
    for name, place in [
        *((frame, "frame") for frame in FRAMES),
        ("MessageHeader", "header"),
        ("TraceHeaderList", "trace"),
        ("ErrorList", "errors"),
        ("Signature", "signatures"),
        ("edXMLManifest", "manifest"),
        ("AttachmentEncoded", "attachments"),
    ]
    for spelling in spellings(name)
} | {f"{SOAP} Header": "frame", f"{SOAP} Body": "frame", f"{DSIG} Signature": "signatures"}
_ATTACHMENT = dict.fromkeys(spellings("Attachment"), True)
_TRACE_HEADER = dict.fromkeys(spellings("TraceHeader"), True)
_CONTENT = dict.fromkeys(spellings("ContentTransferEncoded"), True)
