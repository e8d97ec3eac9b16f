"""What two hubs say to each other over a native link, beside the messages themselves.

A hub that is linked with another is its client. Messages pass as their senders signed them; what a hub has to say
about one stands beside it (`Beside`): for whom, through which hubs, since when. The two tell each other which
agencies lie on their side and with which keys those sign (`Directory`).

Natively written messages go many in a body, each a line (`Line`). A message of another format goes alone: its
`Beside` on the first line, then its bytes, of any length (`RELAYED_MEDIA_TYPE`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.evidence import Receipt
from protocol.message import MAX_RECIPIENTS, Code, Instant
from protocol.message import Line as Text

RELAYED_MEDIA_TYPE = "application/vnd.lienthong.relayed"
MAX_HOPS = 16
"""Hubs that a message may have passed through."""
MAX_BESIDE_BYTES = 512 << 10
"""A `Beside` with 5,000 recipients is about 100 KB."""
MAX_LINES = 200

Hop = Annotated[str, Meta(min_length=1, max_length=128, description="The thumbprint of a hub's key (RFC 7638)")]
System = Annotated[str, Meta(max_length=200, description="One of the peer's systems, in the peer's own words")]


class Beside(msgspec.Struct, frozen=True, omit_defaults=True, rename={"recipients": "for"}):
    """What a hub says of a message that it passes on."""

    recipients: Annotated[
        tuple[Code, ...],
        Meta(min_length=1, max_length=MAX_RECIPIENTS, description="The agencies that it is passed on for"),
    ]
    accepted_at: Annotated[Instant, Meta(description="When the hub took it in")]
    hops: Annotated[
        tuple[Hop, ...], Meta(max_length=MAX_HOPS, description="Hubs on its way, the first first")
    ] = ()


class Line(Beside, frozen=True, omit_defaults=True, kw_only=True):
    """A natively written message on its way."""

    message: Annotated[str, Meta(min_length=1, description="A compact JWS, or an entry of a manifest")]


class LinkAgency(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agency on the side of whoever says it."""

    code: Code
    name: Annotated[str, Meta(min_length=1, max_length=500)]
    parent: Code | None = None
    aliases: Annotated[tuple[Code, ...], Meta(max_length=20)] = ()
    mail: Text = ""
    system: System = ""


class LinkKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key of an agency there, or of a system and so of all agencies that it speaks for."""

    name: Annotated[
        str, Meta(min_length=1, max_length=128, description="As a JWS names it: `kid`, or `x5t:` and `x5t#S256`")
    ]
    jwk: dict[str, str]
    agency: Code | None = None
    system: System = ""
    not_before: Instant | None = None
    not_after: Instant | None = None


class Directory(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who lies on the side of the hub that says it, and with which keys they sign."""

    hub: Annotated[str, Meta(max_length=200, description="The hub's name")]
    hub_keys: Annotated[
        tuple[dict[str, str], ...], Meta(max_length=100, description="The hub's own keys, as JWKs")
    ]
    agencies: tuple[LinkAgency, ...] = ()
    keys: tuple[LinkKey, ...] = ()


class Untaken(msgspec.Struct, frozen=True):
    """An agency or a key that the peer did not take from a directory."""

    name: str
    reason: str


class DirectoryTaken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a directory."""

    agencies: Annotated[int, Meta(description="Agencies of that hub that are known here now")]
    keys: Annotated[int, Meta(description="Keys that count now")]
    waiting: Annotated[int, Meta(description="Keys that wait for the approval of this hub's operator")] = 0
    untaken: Annotated[tuple[Untaken, ...], Meta(description="The first of what was not taken")] = ()


class Notice(msgspec.Struct, frozen=True):
    """How a message ended beyond the link that had come from here."""

    message: Annotated[str, Meta(max_length=36, description="What this hub calls the message")]
    receipt: Annotated[Receipt, Meta(description="The other hub's own, for the event there")]
