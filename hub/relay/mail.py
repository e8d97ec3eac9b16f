"""One delivery as it is handed out, whether it was read from the store or comes straight from a commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hub.relay.format import Format
from hub.relay.handed import Entry

INLINE_BYTES = 64 << 10
"""Larger messages are named in a page and fetched one by one."""
After = tuple[int, int, int]
"""A place in a mailbox: a sequence by lane."""
CARRIED = (Format.JWS, Format.MANIFEST, Format.EDXML)
"""What goes along with an entry as text, and counts for its reader. A notice is small and the hub's own."""
START: After = (0, 0, 0)
END: After = ((1 << 63) - 1,) * 3


@dataclass(slots=True)
class Mail:
    """One entry of a mailbox. `body` is absent when the message does not go along with it (`carried`)."""

    entry: Entry
    lane: int
    format: Format
    size: int
    accepted_at: datetime
    expires_at: datetime | None
    body: bytes | None
    repeats: bool = False
    """Whether it is known to repeat an earlier document."""

    @property
    def weight(self) -> int:
        """Bytes of the message that go along with the entry, as a reader's credit counts them."""
        return len(self.body) if self.body is not None and self.format in CARRIED else 0


def carried(body: bytes | None, format_: Format) -> bytes | None:
    """`body`, of at most `INLINE_BYTES`, if it can go along with its entry: as text in JSON it must be UTF-8."""
    if body is not None and format_ is Format.EDXML:
        try:
            body.decode()
        except UnicodeDecodeError:
            return None
    return body
