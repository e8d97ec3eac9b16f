"""What a message says about itself, for routing; and how texts become that, or a refusal that names the fields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from protocol.agency import is_code
from protocol.edxml import values
from protocol.edxml.parser import SOAP, TRACED, Reader, foreign
from protocol.problems import Problem
from protocol.status import State

MAX_DOCUMENT_ID = 512
MAX_FAULTS = 20
"""Fields that a refusal names; of the others it says how many they are."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[0-9]{1,2}")
_STATES = frozenset(State)


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
    secret: str = ""
    """The secrecy (độ mật) that the dialect before 2016 has; later ones have no place for it."""
    traced: tuple[str, ...] = field(default=(), compare=False)
    """The codes of the systems that it has passed through. On its way a message gets more, and says the same."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """The codes of `parties`."""
        return tuple(party.code for party in self.parties)


def refusal(faults: tuple[tuple[str, str], ...]) -> Problem:
    """The refusal for `faults`, as (N, R, M or T and a path, what is wrong); there is at least one."""
    (code, reason), more = faults[0], len(faults) - 1
    tail = f" (and {more} more)" if more else ""
    return Problem("bad-edxml", f"{code[2:]} {reason}{tail}", fields=faults[:MAX_FAULTS])


class Judge:
    """Makes a `Header` of what a reader gathered, or says why it cannot."""

    def __init__(self, reader: Reader) -> None:
        self.fields, self.groups, self.warn = reader.fields, reader.groups, reader.warn
        self.warnings, self.soap = reader.warnings, reader.soap
        self.errors: dict[tuple[str, str], None] = {}

    def header(self) -> Header:
        text = self.text
        if self.soap and "MessageHeader" not in self.fields:
            raise foreign(SOAP)
        to, answers = self.filled("MessageHeader.To"), self.filled("MessageHeader.ResponseFor")
        status = self.is_status()
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
            secret=text("OtherInfo.Secret"),
            traced=self.traced(),
        )
        if self.errors:
            raise refusal(tuple(self.errors))
        return header

    def traced(self) -> tuple[str, ...]:
        codes = (group.get(TRACED, "") for group in self.groups.get("TraceHeaderList.TraceHeader", ()))
        return tuple(dict.fromkeys(filter(None, codes)))

    def is_status(self) -> bool:
        # An empty StatusCode beside recipients is a builder's habit, and does not make a status.
        given = self.fields.get("MessageHeader.StatusCode")
        return bool(given) or (given is not None and not self.filled("MessageHeader.To"))

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
        content_id = values.content_id(content_id or group.get(f"{path}.href"))
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
        if found := values.moment(text):
            return found
        if text or (path in self.fields and path.endswith("PromulgationDate")):
            self.warn(path, "is not a date that can be read")
        return None

    def date(self, path: str, text: str) -> str | None:
        moment = self.moment(path, text)
        return None if moment is None else moment.date().isoformat()
