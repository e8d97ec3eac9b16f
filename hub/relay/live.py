"""Mail that goes from a commit straight to a connection of the same process, without a read.

A reader may be handed an entry from memory only if it has, or is about to be handed, everything that lies
before it in the mailbox; otherwise an acknowledgement up to that entry would end what it never saw. A commit
therefore says, for each mailbox that has a live reader here, which sequence was the last before it (looked up
under the lock that orders sequences). A reader who has that one takes the new entries; one who has not (another
process has committed in between) keeps them aside and reads the gap from the store first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from hub.relay.handed import Entry
from hub.relay.mail import INLINE_BYTES, Mail, carried

if TYPE_CHECKING:
    from hub.relay.batch import Batch, Submission


class LiveReader(Protocol):
    """Who takes mail from commits, for one endpoint."""

    endpoint: int

    def offer(self, lane: int, previous: int, mails: list[Mail]) -> None:
        """`mails` follow `previous` in the mailbox, with nothing between."""


Watched = dict[tuple[int, int], list[int]]
"""By (endpoint, lane) of mailboxes with a live reader: the places in a batch of what it has for them."""


class Live:
    """The live readers of one process."""

    def __init__(self, is_open: Callable[[int], bool] = lambda endpoint: True) -> None:
        """`is_open`: whether this process has said that it reads the mailbox (`hub.relay.openings`)."""
        self._is_open = is_open
        self._readers: dict[int, tuple[LiveReader, ...]] = {}  # mostly one: a set takes 216 bytes
        self.held = 0
        """Bytes that readers keep until they are pushed."""

    def add(self, reader: LiveReader) -> None:
        self._readers[reader.endpoint] = (*self._readers.get(reader.endpoint, ()), reader)

    def remove(self, reader: LiveReader) -> None:
        readers = tuple(other for other in self._readers[reader.endpoint] if other is not reader)
        if readers:
            self._readers[reader.endpoint] = readers
        else:
            del self._readers[reader.endpoint]

    def has(self, endpoint: int) -> bool:
        """Whether somebody takes this endpoint's mail."""
        return endpoint in self._readers

    def endpoints(self) -> Iterable[int]:
        """Who is connected."""
        return self._readers.keys()

    def __len__(self) -> int:
        return sum(map(len, self._readers.values()))

    def watched(self, messages: list[Submission]) -> Watched:
        """The mailboxes of which a commit of `messages` should say what they held before.

        Only what is open before the commit begins: else what it writes might be recalled before it is offered.
        """
        watched: Watched = {}
        live = self._readers.keys()
        if not live:
            return watched
        for place, item in enumerate(messages):
            for endpoint in live & item.route.endpoints.keys():
                if self._is_open(endpoint):
                    watched.setdefault((endpoint, item.lane), []).append(place)
        return watched

    def committed(self, batch: Batch, watched: Watched, base: int, before: list[int]) -> None:
        """`batch` is on disk, its k-th message as sequence `base` + k; `before` answers `watched`."""
        for ((endpoint, lane), places), previous in zip(watched.items(), before, strict=True):
            readers = self._readers.get(endpoint, ())  # they may have left, or come: those read
            if readers:
                mails = [_mail(batch, batch.messages[place], base + place, endpoint) for place in places]
                for reader in readers:
                    reader.offer(lane, previous, mails)


def _mail(batch: Batch, item: Submission, seq: int, endpoint: int) -> Mail:
    agencies = item.route.endpoints[endpoint]
    return Mail(
        Entry(seq, item.id, item.digest, item.sender, item.sender_id, item.endpoint, agencies),
        item.lane,
        item.format,
        item.size,
        batch.at,
        item.expires_at,
        carried(item.body, item.format) if item.size <= INLINE_BYTES else None,
        item.repeats,
    )
