"""edXML messages and native documents made by chance, for property-based tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st

from protocol import message as native
from protocol.edxml import NAMESPACE, OLD_NAMESPACES
from protocol.edxml.binding import DSIG, members
from protocol.edxml.convert import REASONS
from protocol.edxml.model import (
    Attachment,
    Element,
    ErrorList,
    Manifest,
    Message,
    MessageHeader,
    Organ,
    Part,
    ResponseFor,
    TraceHeaderList,
)
from protocol.edxml.names import MEDIA_TYPES, media_type, safe_name
from protocol.status import State

PartT = TypeVar("PartT", bound=Part)

# -- messages ---------------------------------------------------------------------------------------
# Made from one number, not drawn piece by piece: a message has a hundred pieces, and hypothesis takes a fifth
# of a second for so many.

_TRICKY = [
    "", "a", "Trích yếu", "null", " ", "\r\n\t", "  lề  ", "dòng 1\ndòng 2", "]]>", "<!-- & -->", "<b>&amp;</b>",
    "'\"", "\u200b", "\U0001d11e", "e\u0302\u0323", "\x85", "03", "1", "2017/10/02", "30/10/2020", "cid:a", "G22",
]  # fmt: skip
_LETTERS = (
    "ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽềềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹĐ&<>'\"]-\t\n\r\x7f\u2028\ud7ff\ue000\ufffd\U0010ffff "
)
_NAMES = ["x", "Ghi_chú", "a-1", "Mới", "b.2"]
_SPACES = [NAMESPACE, "", "urn:x", "http://example.vn/?a=1&b=<2>", DSIG, *OLD_NAMESPACES]
_ATTRIBUTE_SPACES = ["", "urn:x", "http://www.w3.org/XML/1998/namespace"]


def _clark(space: str, name: str) -> str:
    return f"{{{space}}}{name}" if space else name


class _Maker:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def text(self) -> str:
        """Whatever XML can hold, with margins and line breaks."""
        if self.chance.random() < 0.5:
            return self.chance.choice(_TRICKY)
        return "".join(self.chance.choices(_LETTERS, k=self.chance.randint(0, 20)))

    def code(self) -> str:
        letters = "".join(self.chance.choices("0123456789ABCGHx._-", k=self.chance.randint(0, 33)))
        return f"{self.chance.choice('0HG')}{letters}{self.chance.choice('0H')}"

    def some(self, make: Callable[[], Any], most: int) -> tuple[Any, ...]:
        return tuple(make() for _ in range(self.chance.randint(0, most)))

    def attributes(self) -> tuple[tuple[str, str], ...]:
        names = self.some(lambda: _clark(self.chance.choice(_ATTRIBUTE_SPACES), self.chance.choice(_NAMES)), 2)
        return tuple((name, self.text()) for name in dict.fromkeys(names)) if self.chance.random() < 0.2 else ()

    def element(self, name: str = "", depth: int = 0) -> Element:
        name = name or _clark(self.chance.choice(_SPACES), self.chance.choice(_NAMES))
        content: list[str | Element] = []
        if depth < 3 and self.chance.random() < 0.5:
            for _ in range(self.chance.randint(1, 3)):
                filled = self.text()
                content += [filled] if filled.strip(" \t\r\n") else []
                content.append(self.element("", depth + 1))
        elif alone := self.text():
            content.append(alone)
        return Element(name, self.attributes(), tuple(content))

    def extras(self) -> tuple[Element, ...]:
        return (self.element(),) if self.chance.random() < 0.1 else ()

    def part(self, kind: type[PartT]) -> PartT:
        """Any part of that kind, its members there or not."""
        found: dict[str, Any] = {"attributes": self.attributes(), "extras": self.extras()}
        for member in members(kind):
            part = member.part
            make: Callable[[], Any] = self.text if part is None else lambda part=part: self.part(part)
            if member.many:
                found[member.field] = self.some(make, 2)
            elif self.chance.random() < 0.6:
                found[member.field] = make()
        return kind(**found)

    def maybe(self, kind: type[PartT]) -> PartT | None:
        return self.part(kind) if self.chance.random() < 0.7 else None

    def signature(self) -> Element:
        return self.element(_clark(self.chance.choice([DSIG, NAMESPACE, ""]), "Signature"))

    def message(self) -> Message:
        return Message(
            header=self.part(MessageHeader),
            trace=self.maybe(TraceHeaderList),
            errors=self.maybe(ErrorList),
            signatures=self.some(self.signature, 2),
            manifest=self.maybe(Manifest),
            attachments=self.some(lambda: self.part(Attachment), 3),
            header_extras=self.extras(),
            attachment_extras=self.extras(),
            extras=self.extras(),
        )

    def routable(self) -> Message:
        message, chance = self.message(), self.chance
        more: dict[str, Any] = {"sender": Organ(organ_id=f" {self.code()}", organ_name=self.text())}
        if chance.random() < 0.4:
            answers = [
                ResponseFor(
                    organ_id=f"{self.code()}\n", code=self.text(), document_id=chance.choice(["số 1", "a,b/c"])
                )
                for _ in range(chance.randint(1, 3))
            ]
            more |= {"status_code": chance.choice([*State, "3", "07"]), "response_for": tuple(answers)}
        else:
            to = [Organ(organ_id=self.code(), organ_name=self.text()) for _ in range(chance.randint(1, 4))]
            ids = ["H63,2017/10/02,215/BC-UBND", "x" * 300, " số\n1 "]
            more |= {"to": tuple(to), "document_id": chance.choice(ids), "status_code": chance.choice([None, ""])}
        return msgspec.structs.replace(message, header=msgspec.structs.replace(message.header, **more))


_SEEDS = st.integers(0, 1 << 40)
MESSAGES = _SEEDS.map(lambda seed: _Maker(seed).message())
"""Any message the model can hold, most of which no one could route."""
ROUTABLE = _SEEDS.map(lambda seed: _Maker(seed).routable())
"""A message that can be routed, with whatever else."""

# -- native documents of which edXML can say everything ---------------------------------------------

LINES = (
    st.text(
        st.one_of(
            st.sampled_from("ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽềềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹĐ&<>'\"]- "),
            st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")),
        ),
        max_size=40,
    )
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text != "null")
)
CODES = st.from_regex(r"[0-9A-Z](?:[0-9A-Za-z._-]{0,33}[0-9A-Za-z])?", fullmatch=True).filter(
    lambda code: code != "null"
)
_VIETNAM = timezone(timedelta(hours=7))
_DATES = st.dates(min_value=date(1900, 1, 1)).map(date.isoformat)
_TIMES = st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(9999, 12, 30)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=_VIETNAM)
)
_IDS = LINES.filter(bool)


def _without_slash(text: str) -> bool:
    return bool(text) and "/" not in text


SYMBOLS = (
    st.one_of(
        LINES.map(lambda text: text[:20]),
        st.tuples(LINES.filter(_without_slash), LINES.filter(bool)).map(lambda pair: f"{pair[0][:10]}/{pair[1]}"),
    )
    .map(lambda text: " ".join(text[:50].split()).replace(" /", "/").replace("/ ", "/"))
    .filter(lambda text: text != "null")
)
REFERENCES = st.builds(
    native.Reference,
    id=_IDS,
    agency=st.none() | CODES,
    code=st.none() | LINES.filter(bool),
    date=st.none() | _DATES,
)
ATTACHMENTS = st.builds(
    lambda stem, extension, size, digest: native.Attachment(
        name=(name := safe_name(f"{stem}.{extension}")), size=size, sha256=digest, media_type=media_type(name)
    ),
    LINES,
    st.sampled_from([*MEDIA_TYPES, "bin", "PDF"]),
    st.integers(0, 1 << 40),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
).filter(lambda attachment: attachment.name.strip() == attachment.name)


@st.composite
def documents(draw: st.DrawFn) -> native.Document:
    """A document or status, all of which edXML can say."""
    place, day = draw(LINES), draw(st.none() | _DATES)
    person = native.Person(*(draw(LINES) for _ in range(3)))
    fields: dict[str, Any] = {
        "id": draw(_IDS),
        "sender": draw(CODES),
        "to": tuple(draw(st.lists(CODES, min_size=1, max_size=4, unique=True))),
        "priority": draw(st.sampled_from(["normal", "urgent", "very_urgent", "express"])),
        "code": draw(SYMBOLS),
        "type": draw(LINES),
        "promulgation": native.Promulgation(place, day) if place or day else None,
        "signer": person if person != native.Person() else None,
        "due": draw(st.none() | _DATES),
        "attachments": tuple(draw(st.lists(ATTACHMENTS, max_size=3))),
        "content": draw(LINES),
        "secrecy": draw(st.sampled_from(["", "", "Mật", "Tối mật"])),
        "at": draw(_TIMES),
    }
    if draw(st.booleans()):
        return draw(_statuses(fields))
    business = draw(st.sampled_from(["new", "recall", "update", "replace"]))
    if business != "new":
        about = st.builds(native.Reference, id=_IDS)
        count = 3 if business == "replace" else 1
        fields["concerns"] = tuple(draw(st.lists(about, min_size=1, max_size=count, unique=True)))
        fields["reason"] = draw(LINES.filter(lambda text: text not in REASONS))
    answers = tuple(draw(st.lists(REFERENCES, max_size=3, unique=True)))
    return native.Document(subject=draw(LINES), business=business, response_for=answers, **fields)


@st.composite
def _statuses(draw: st.DrawFn, fields: dict[str, Any]) -> native.Document:
    state = draw(st.sampled_from(State))
    to, answers = fields["to"], []
    for number, organ in enumerate(to if state is not State.RECALL_ASKED else to[:1]):
        reference = draw(REFERENCES)
        agency = fields["sender"] if state is State.RECALL_ASKED else organ
        answers.append(native.Reference(f"{number} {reference.id}", agency, reference.code, reference.date))
    fields["to"] = to if state is not State.RECALL_ASKED else to[:1]
    return native.Document(
        kind="status", status=state, subject=draw(LINES.filter(bool)), response_for=tuple(answers), **fields
    )
