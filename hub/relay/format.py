"""What a message is, and how its bytes are written. The core does not care; doors and readers do."""

from __future__ import annotations

from enum import IntEnum

from protocol.evidence import RECEIPT_MEDIA_TYPE
from protocol.manifest import ENTRY_MEDIA_TYPE
from protocol.signature import JOSE_MEDIA_TYPE


class Format(IntEnum):
    JWS = 0
    EDXML = 1
    RECEIPT = 2
    """A notice by the hub itself: the receipt of an event about a message the reader sent."""
    MANIFEST = 3
    """A document that was signed together with others: an entry of a manifest (`protocol.manifest`)."""

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self]

    @property
    def label(self) -> str:
        return self.name.lower()


_MEDIA_TYPES = {
    Format.JWS: JOSE_MEDIA_TYPE,
    Format.EDXML: "application/xml",
    Format.RECEIPT: RECEIPT_MEDIA_TYPE,
    Format.MANIFEST: ENTRY_MEDIA_TYPE,
}


class Kind(IntEnum):
    """What a message is."""

    DOCUMENT = 0
    STATUS = 1
    """A business state of a document (`protocol.status`)."""
    NOTICE = 2
    """The hub's own word to a sender."""

    @property
    def label(self) -> str:
        return self.name.lower()


BUSINESS = ("new", "recall", "update", "replace")
"""What a document does, by the number that edXML has for it (BussinessDocType) and the store keeps."""
