"""What a message says about itself: codes, texts and dates, and no XML."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.status import State


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
