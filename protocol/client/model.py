"""What a hub answers, as a client sees it: over HTTP and on a stream alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from protocol.evidence import Receipt
from protocol.manifest import open_native
from protocol.message import Document
from protocol.problems import LienthongError, Problem, from_members


class ClientError(LienthongError):
    """The client was asked for something that it cannot do; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the hub answered to a message: it has it, and `receipt` proves that."""

    id: str
    receipt: Receipt
    duplicate: bool
    unreachable: tuple[dict[str, str], ...] = ()


@dataclass(slots=True)
class Entry:
    """One message in the mailbox.

    `format` is ``jws``, ``manifest`` (a document that was signed together with others), ``edxml`` or
    ``receipt``. `body` holds the message's bytes when they came along (small messages); otherwise
    `HubClient.fetch` gets them.
    """

    seq: int
    lane: str
    id: str
    sender: str
    sender_id: str
    to: tuple[str, ...]
    format: str
    sha256: str
    size: int
    accepted_at: str
    body: bytes | None = None
    receipt: Receipt | None = None
    duplicate_of: tuple[str, ...] = ()
    """Documents that came before with the same id, or number and symbol, of the same agency."""
    hops: tuple[str, ...] = ()
    """For a hub that is linked: through which hubs it came."""
    _document: Document | None = field(default=None, repr=False)

    @property
    def document(self) -> Document:
        """The document of a native message. Raises `ClientError` for another format or an absent body.

        Of an entry of a manifest it is checked that the manifest holds it (`protocol.manifest.open_entry`).
        """
        if self._document is None:
            if self.format not in ("jws", "manifest") or self.body is None:
                raise ClientError(f"message {self.id} is {self.format}; get its bytes with `fetch`")
            self._document = open_native(self.body)[1]
        return self._document


def read_sent(members: dict[str, Any]) -> Sent:
    """An answer that accepts a message."""
    return Sent(
        members["id"],
        msgspec.convert(members["receipt"], Receipt),
        members["state"] == "duplicate",
        tuple(members.get("unreachable", ())),
    )


def read_outcome(members: dict[str, Any]) -> Sent | Problem:
    """One outcome among many: a line of the answer to a batch, or one of a stream's `answers`."""
    status = members["status"]
    return read_sent(members) if status < 400 else from_members(members, status)


def read_entry(members: dict[str, Any]) -> Entry:
    """An entry of a page or of a frame `mail`."""
    body = members.get("jws") or members.get("entry") or members.get("edxml")
    receipt = members.get("receipt")
    return Entry(
        members["seq"],
        members["lane"],
        members["id"],
        members["from"],
        members["sender_id"],
        tuple(members["to"]),
        members["format"],
        members["sha256"],
        members["size"],
        members["accepted_at"],
        body.encode() if body is not None else None,
        msgspec.convert(receipt, Receipt) if receipt is not None else None,
        tuple(members.get("duplicate_of", ())),
        tuple(members.get("hops", ())),
    )
