"""From bytes to a message that names its sender and its key: read, but not yet believed.

A document says by which agency it was written. Here it is asked whether the endpoint that submits it speaks for
that agency, and whether the key that it names may sign for both. The signature itself is checked afterwards,
together with those of others (`hub.relay.verify`): what is refused here costs no such check. Nothing here waits
for anything, so that whoever opens many looks at the event loop now and then (`OPENED_AT_ONCE`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hub.directory.picture import Agency, Picture
from hub.relay.batch import digest_of
from hub.relay.beyond import Hops, find_beyond, require_new
from hub.relay.format import Format
from hub.relay.references import Reference
from hub.relay.verify import find_signer
from protocol.agency import is_code
from protocol.link import Beside
from protocol.manifest import Opened as Manifest
from protocol.manifest import is_entry, open_entry
from protocol.message import Document, open_jws, read_document
from protocol.problems import Problem
from protocol.signature import Jws, PublicKey

OPENED_AT_ONCE = 32
"""Messages opened, or made into submissions, between two looks at the event loop (about 1 ms)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The authenticated endpoint that submits."""

    endpoint: int
    name: str


@dataclass(slots=True)
class Opened:
    """A message that was read: who sends it, and the key with which it is to be checked."""

    raw: bytes
    digest: bytes
    format: Format
    jws: Jws
    document: Document
    agency: Agency
    key: PublicKey
    signer: str
    references: tuple[Reference, ...] = ()
    beside: Beside | None = None
    """What a link or a hub below said of it."""


class Opener:
    """Opens native messages. What cannot be opened is given as its problem, not raised."""

    def __init__(self, max_message_bytes: int, hops: Hops) -> None:
        self._max_message_bytes = max_message_bytes
        self._hops = hops

    def native(self, picture: Picture, sender: Sender, raw: bytes) -> Opened | Problem:
        """A compact JWS."""
        try:
            if len(raw) > self._max_message_bytes:
                raise self._too_large()
            jws, document = open_jws(raw)
            agency = speaks_for(picture, sender, document.sender)
            key, signer = find_signer(picture, jws, sender.endpoint, agency.code)
            return Opened(raw, digest_of(raw), Format.JWS, jws, document, agency, key.public, signer)
        except Problem as problem:
            return problem

    def documents(
        self, picture: Picture, sender: Sender, manifest: Manifest, entries: list[bytes], start: int
    ) -> Iterator[Opened | Problem]:
        """The documents of a manifest from `start` on, `OPENED_AT_ONCE` of them."""
        jws = manifest.jws
        for index in range(start, min(start + OPENED_AT_ONCE, len(manifest.payloads))):
            payload = manifest.payloads[index]
            try:
                if len(payload) > self._max_message_bytes:
                    raise self._too_large()
                document = read_document(payload)
                agency = speaks_for(picture, sender, document.sender)
                key, signer = find_signer(picture, jws, sender.endpoint, agency.code)
            except Problem as problem:
                yield problem
            else:
                yield Opened(
                    entries[index], digest_of(payload), Format.MANIFEST, jws, document, agency, key.public, signer
                )

    def relayed(self, picture: Picture, sender: Sender, raw: bytes, beside: Beside) -> Opened | Problem:
        """A JWS, or an entry of a manifest, that came over a link. `beside` is what the link said of it."""
        try:
            if len(raw) > self._max_message_bytes * 3 // 2:  # an entry is base64url, and has a path
                raise self._too_large()
            require_new(beside, self._hops.own_keys)
            if is_entry(raw):
                entry = open_entry(raw)
                jws, signed, format_ = entry.jws, entry.payload, Format.MANIFEST
                document = read_document(signed)
            else:
                jws, document = open_jws(raw)
                signed, format_ = raw, Format.JWS
            agency = speaks_for(picture, sender, document.sender)
            key, signer = find_beyond(picture, jws, sender.endpoint, agency.code, beside)
            return Opened(raw, digest_of(signed), format_, jws, document, agency, key, signer, beside=beside)
        except Problem as problem:
            return problem

    def _too_large(self) -> Problem:
        limit = self._max_message_bytes
        return Problem("too-large", f"a message may have {limit} bytes", limit=limit)


def speaks_for(picture: Picture, sender: Sender, code: str) -> Agency:
    """The agency of that code, if messages of it may come from this endpoint. Raises `Problem` from-not-yours."""
    agency = picture.agency(code)
    link = picture.links.get(sender.endpoint)
    if link is not None and (agency is None or agency.endpoint in (None, link.endpoint)):
        # A link stands for everybody beyond it, those too whom its list does not have yet.
        if is_code(code) and not picture.in_branch(link, code):
            return agency or Agency(code, code, endpoint=link.endpoint)
    elif agency is not None and agency.active and agency.endpoint == sender.endpoint:
        return agency
    raise Problem("from-not-yours", f"the endpoint {sender.name} does not speak for {code}")
