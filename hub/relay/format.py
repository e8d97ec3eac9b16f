"""How a message's bytes are written. The core does not care; doors and readers do."""

from __future__ import annotations

from enum import IntEnum

from protocol.evidence import RECEIPT_MEDIA_TYPE
from protocol.signature import JOSE_MEDIA_TYPE


class Format(IntEnum):
    JWS = 0
    EDXML = 1
    RECEIPT = 2
    """A notice by the hub itself: the receipt of an event about a message the reader sent."""

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
}
