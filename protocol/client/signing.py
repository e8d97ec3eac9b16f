"""What a client signs for when it acknowledges: documents that it was given, each by its id and digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol.acknowledgement import Document, RefusedDocument, sign_acknowledgement
from protocol.client.model import ClientError, Entry
from protocol.client.work import LANES, MAX_OPEN, Cursor
from protocol.signature import Signer
from protocol.stream import Refusal


class Ledger:
    """The entries that a client was given and has not acknowledged; the oldest are forgotten beyond `limit`."""

    def __init__(self, signer: Signer, limit: int = MAX_OPEN) -> None:
        self._signer = signer
        self._limit = limit
        self._open: dict[int, tuple[int, Document]] = {}
        """By sequence, in the order in which they came: the lane and the document."""

    def given(self, entry: Entry) -> None:
        """The application is given an entry."""
        self._open[entry.seq] = LANES[entry.lane], Document(entry.seq, entry.id, entry.sha256)
        if len(self._open) > self._limit:
            del self._open[next(iter(self._open))]

    def named(self, entries: Iterable[Entry | int], up_to: Cursor) -> list[int]:
        """The sequences of these entries and of all up to a cursor, each once. Raises `ClientError` for one that
        the client was not given: it cannot sign for what it does not know."""
        seqs: dict[int, None] = {}
        for entry in entries:
            if isinstance(entry, Entry):
                self.given(entry)
                seqs[entry.seq] = None
            elif entry in self._open:
                seqs[entry] = None
            else:
                raise ClientError(f"this client was not given the entry {entry}, so it cannot sign for it")
        for seq, (lane, _) in self._open.items():
            if seq <= up_to[lane]:
                seqs[seq] = None
        return list(seqs)

    def sign(self, seqs: Iterable[int], refusals: Sequence[Refusal] = ()) -> str:
        """The compact JWS over what `named` gave. Of what was acknowledged meanwhile nothing is said again; ``""``
        when nothing is left."""
        documents = [self._open[seq][1] for seq in dict.fromkeys(seqs) if seq in self._open]
        refused = []
        for one in refusals:
            if one.seq in self._open:
                document = self._open[one.seq][1]
                refused.append(RefusedDocument(one.seq, document.message, document.sha256, one.reason, one.code))
        left = {one.seq for one in refused}
        documents = [document for document in documents if document.seq not in left]
        if not documents and not refused:
            return ""
        return sign_acknowledgement(self._signer, documents, refused).decode()

    def done(self, seqs: Iterable[int]) -> None:
        """The hub has it on disk that these are acknowledged or refused."""
        for seq in seqs:
            self._open.pop(seq, None)
