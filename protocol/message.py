"""The document model and its native writing: one compact JWS whose payload is the document as JSON.

`Document` is the same model as edXML's header, under names of its own. It is used three ways, from
one definition: to validate what arrives, to write what a client sends, and to describe the payload
in the hub's OpenAPI document. Members that it does not know are kept in the bytes and ignored.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.agency import CODE_PATTERN
from protocol.ids import uuid7
from protocol.problems import Problem
from protocol.signature import Jws, Signer, parse

MAX_ID_LENGTH = 128
MAX_RECIPIENTS = 5_000
"""Addresses in one message's `to`, and agencies that they may resolve to."""
MAX_ATTACHMENTS = 100
RESERVED_TYPES = "lienthong-"
"""So begin the types (`typ`) of everything but documents that is signed as a JWS."""

# `$(?!\n)`: Python's `$` also matches before a final line feed, JSON Schema's does not; this
# spelling means the end of the text in both.
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
_ADDRESS_PATTERN = r"^(?:(?:below|group):)?[0-9A-Za-z](?:[0-9A-Za-z._-]{0,62}[0-9A-Za-z])?$(?!\n)"

SenderId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        pattern=_NO_CONTROLS,
        description="The sender's own id of this message; the key for idempotency at its endpoint",
    ),
]
Code = Annotated[str, Meta(pattern=CODE_PATTERN, description="An agency's identity code or alias")]
Address = Annotated[
    str,
    Meta(
        max_length=70,
        pattern=_ADDRESS_PATTERN,
        description="An agency's code or alias; `group:NAME`; or `below:CODE`, everything below that unit",
    ),
]
Line = Annotated[str, Meta(max_length=500, pattern=_NO_CONTROLS)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)", description="SHA-256 in lower-case hex")]
Date = Annotated[
    str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$(?!\n)", description="A date, in Vietnam's time zone")
]
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]


class Lane(IntEnum):
    """Urgency class (độ khẩn), most urgent first. On the wire a lane is its `label`."""

    EXPRESS = 0
    URGENT = 1
    NORMAL = 2

    @property
    def label(self) -> str:
        return self.name.lower()


Priority = Literal["normal", "urgent", "very_urgent", "express"]
"""thường, khẩn, thượng khẩn, hỏa tốc. Decree 30/2020 ranks three above the ordinary; `very_urgent`
shares the lane of `urgent`."""

LANE_OF_PRIORITY: dict[str, Lane] = {
    "normal": Lane.NORMAL,
    "urgent": Lane.URGENT,
    "very_urgent": Lane.URGENT,
    "express": Lane.EXPRESS,
}


class Promulgation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where and when the document was issued (nơi và ngày ban hành)."""

    place: Line = ""
    date: Date | None = None


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who signed the document itself (người ký)."""

    name: Line = ""
    position: Line = ""
    competence: Line = ""


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the document. Its bytes travel beside the message, named by their SHA-256."""

    name: Annotated[str, Meta(min_length=1, max_length=500, pattern=_NO_CONTROLS)]
    size: Annotated[int, Meta(ge=0, le=1 << 40)]
    sha256: Sha256
    media_type: Annotated[str, Meta(max_length=255, pattern=_NO_CONTROLS)] = "application/octet-stream"


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document that this one answers or that a status speaks of."""

    id: SenderId
    agency: Code | None = None
    code: Line | None = None
    date: Date | None = None


class Document(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """A message as its sender wrote it: the payload of the JWS."""

    id: SenderId
    sender: Code
    to: Annotated[tuple[Address, ...], Meta(min_length=1)]
    subject: Annotated[str, Meta(max_length=2000, description="Trích yếu")] = ""
    kind: Literal["document", "status"] = "document"
    priority: Priority = "normal"
    code: Annotated[str, Meta(max_length=50, pattern=_NO_CONTROLS, description="Số và ký hiệu")] = ""
    type: Annotated[str, Meta(max_length=100, pattern=_NO_CONTROLS, description="Tên loại văn bản")] = ""
    promulgation: Promulgation | None = None
    signer: Person | None = None
    due: Date | None = None
    business: Literal["new", "recall", "update", "replace"] = "new"
    response_for: tuple[Reference, ...] = ()
    status: (
        Annotated[str, Meta(pattern=r"^[0-9]{2}$(?!\n)", description="Business state, kind `status`")] | None
    ) = None
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=MAX_ATTACHMENTS)] = ()
    expires: Instant | None = None
    unreachable: Annotated[
        Literal["reject", "report"],
        Meta(description="Unknown or disabled recipients: reject the whole submission, or report them"),
    ] = "reject"
    content: Annotated[str, Meta(description="The text of the document, where it needs no file")] = ""
    concerns: Annotated[
        tuple[Reference, ...], Meta(description="What a recall, update or replacement is about, or replaces")
    ] = ()
    reason: Annotated[
        str, Meta(max_length=500, pattern=_NO_CONTROLS, description="Why it is recalled, updated or replaced")
    ] = ""
    secrecy: Annotated[
        str,
        Meta(
            max_length=40,
            pattern=_NO_CONTROLS,
            description="Độ mật (Mật, Tối mật, Tuyệt mật). A hub refuses what is a state secret",
        ),
    ] = ""
    at: Annotated[
        Instant | None, Meta(description="When it was sent or, of a status, reached, by the sender's clock")
    ] = None
    converted_from: Annotated[
        Literal["edxml"] | None, Meta(description="Set where a hub made this out of another format")
    ] = None

    @property
    def lane(self) -> Lane:
        return LANE_OF_PRIORITY[self.priority]


_decoder = msgspec.json.Decoder(Document)
_encoder = msgspec.json.Encoder()


def read_document(payload: bytes) -> Document:
    """Decode and validate a JWS payload.

    Raises `Problem` bad-document (with the offending field's JSON path), or too-many-recipients.
    """
    try:
        payload.decode()  # the decoder skips unknown members without looking at their encoding
        document = _decoder.decode(payload)
    except UnicodeDecodeError:
        raise Problem("bad-document", "the payload is not valid UTF-8") from None
    except RecursionError:
        raise Problem("bad-document", "the payload nests too deeply") from None
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `")
        path = path.rstrip("`") or "$"
        raise Problem("bad-document", f"{path}: {reason}", fields=((path, reason),)) from None
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise Problem("bad-document", f"the payload is not JSON: {error}") from None
    if len(document.to) > MAX_RECIPIENTS:
        raise Problem(
            "too-many-recipients",
            f"{len(document.to)} addresses in `to`; at most {MAX_RECIPIENTS} are allowed, or address a group",
            limit=MAX_RECIPIENTS,
        )
    if document.expires is not None:
        try:
            document.expires.astimezone(UTC)
        except OverflowError:
            raise _missing("$.expires", "in UTC it lies outside the years 1 to 9999") from None
    if document.kind == "status" and document.status is None:
        raise _missing("$.status", "a message of kind `status` needs `status`")
    if document.kind == "status" and not document.response_for:
        raise _missing("$.response_for", "a message of kind `status` names the document it speaks of")
    return document


def _missing(path: str, reason: str) -> Problem:
    return Problem("bad-document", f"{path}: {reason}", fields=((path, reason),))


def is_reserved(jws: Jws) -> bool:
    """Whether its type (`typ`) is one of this project's own: a seal, a proof, an acknowledgement, a manifest.

    Whoever signed such a thing did not sign it as a document, whatever else could be read in it.
    """
    typ = jws.header.get("typ")
    return isinstance(typ, str) and typ.startswith(RESERVED_TYPES)


def open_jws(raw: bytes) -> tuple[Jws, Document]:
    """Take a native message apart, without verifying its signature.

    Raises `Problem` as `protocol.signature.parse` and `read_document` do.
    """
    jws = parse(raw)
    if is_reserved(jws):
        raise Problem("bad-document", f"a JWS of the type {jws.header['typ'][:80]!r} is not a document")
    return jws, read_document(jws.payload)


def write_document(document: Document) -> bytes:
    """The document as JSON, UTF-8, defaults left out."""
    return _encoder.encode(document)


def seal(document: Document, signer: Signer) -> bytes:
    """The document as a compact JWS, ready to send."""
    return signer.sign(write_document(document))


def new_id() -> str:
    """A fresh message id for a sender that keeps none of its own."""
    return str(uuid7())


def printable(text: str) -> str:
    """`text` with control and formatting characters and separators of lines shown as escapes, safe for a terminal
    or a log."""
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
