"""Conservation: every document that was sent is counted through to its recipient's acknowledgement.

While the clock runs the ledger only notes; `verify` then checks every receipt, not a sample. A seal
signs a whole batch, so its signature is checked once, and each of its receipts by its Merkle path.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import msgspec
import orjson

from benchmarks.corpus import Corpus
from protocol.evidence import Receipt, leaf_hash, root_from_path, verify_receipt
from protocol.problems import LienthongError
from protocol.signature import PublicKey, parse, unb64url


class _Answer(msgspec.Struct):
    state: str
    receipt: Receipt


_read_answer = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True)
class Conservation:
    """Documents, counted at each stage."""

    sent: int
    receipted: int
    """With a receipt that verifies and speaks of the very bytes that were sent."""
    delivered: int
    """Handed to the right mailbox exactly once, byte for byte."""
    acknowledged: int
    """As the hub counted them in its answers to acknowledgements."""
    strays: int
    """Deliveries beyond one, of other bytes, or of a document of an earlier run."""
    seals: int
    """Commit batches that the receipts came from."""

    @property
    def holds(self) -> bool:
        return self.sent == self.receipted == self.delivered == self.acknowledged and not self.strays


class Ledger:
    """What happened to the documents of one corpus."""

    def __init__(self, corpus: Corpus, recipients: int = 1) -> None:
        """`recipients`: agencies that each document is for."""
        count = len(corpus.documents)
        self.corpus = corpus
        self._recipients = recipients
        self.submitted = array("d", bytes(8 * count))
        """When each document was sent, or due (seconds of `perf_counter`)."""
        self.acked = array("d", bytes(8 * count))
        """When the answer to its acknowledgement came."""
        self._delivered = bytearray(count)
        self.answers: list[tuple[int, bytes]] = []
        """Requests that were accepted, and the answers to them, which hold their receipts."""
        self.sent_documents = 0
        self.answered_documents = 0
        self.acknowledged = 0
        self.strays = 0
        self.last_ack = 0.0
        self._progress = asyncio.Event()

    def sent(self, request: int, since: float) -> None:
        per_request = self.corpus.per_request
        start = request * per_request
        for place in range(start, start + per_request):
            self.submitted[place] = since
        self.sent_documents += per_request

    def answered(self, request: int, body: bytes) -> None:
        self.answers.append((request, body))
        self.answered_documents += self.corpus.per_request

    def delivered(self, sender_id: str, document: bytes) -> int:
        """A mailbox handed out the document with this id. Returns its place, -1 if it is a stray."""
        place = self.corpus.place_of(sender_id)
        if place < 0 or not self.corpus.holds(place, document):
            self.strays += 1
            return -1
        if self._delivered[place]:
            self.strays += 1
            return -1
        self._delivered[place] = 1
        return place

    def acknowledge(self, places: list[int], counted: int) -> None:
        """The hub answered an acknowledgement of `places`, of which it says that it ended `counted`."""
        now = self.last_ack = perf_counter()
        acked = self.acked
        for place in places:
            acked[place] = now
        self.acknowledged += counted
        self._progress.set()

    async def settled(self, patience: float) -> None:
        """Wait until all that was answered is acknowledged, or until nothing more happens for `patience` s."""
        while self.acknowledged < self.answered_documents:
            self._progress.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._progress.wait()
            except TimeoutError:
                return

    def end_to_end(self) -> list[float]:
        """Seconds from submission to acknowledgement, of every document that was acknowledged."""
        return [acked - sent for sent, acked in zip(self.submitted, self.acked, strict=True) if acked]

    def verify(self, keys: Mapping[str, PublicKey]) -> Conservation:
        """Check all receipts with the hub's public keys, and count."""
        return self.counted(*self.receipts(keys))

    def counted(self, receipted: int, seals: int) -> Conservation:
        """What became of the documents, if so many have a receipt."""
        return Conservation(
            self.sent_documents, receipted, sum(self._delivered), self.acknowledged, self.strays, seals
        )

    def receipts(self, keys: Mapping[str, PublicKey]) -> tuple[int, int]:
        """How many documents have a receipt that proves their acceptance, and how many seals these share."""
        seals: dict[str, tuple[bytes, int]] = {}
        receipted = 0
        for request, body in self.answers:
            start = request * self.corpus.per_request
            lines = [body] if self.corpus.per_request == 1 else body.split(b"\n")
            for place, line in zip(range(start, start + self.corpus.per_request), lines, strict=False):
                receipted += self._proves(place, line, keys, seals)
        return receipted, len(seals)

    def _proves(
        self, place: int, line: bytes, keys: Mapping[str, PublicKey], seals: dict[str, tuple[bytes, int]]
    ) -> bool:
        """Whether an answer's receipt proves that the hub accepted the document at `place`."""
        try:
            receipt = _read_answer(line).receipt
            if receipt.seal not in seals:
                verify_receipt(receipt, keys.get)
                sealed = orjson.loads(parse(receipt.seal.encode()).payload)
                seals[receipt.seal] = unb64url(sealed["root"].encode()), sealed["size"]
            root, size = seals[receipt.seal]
            path = [unb64url(step.encode()) for step in receipt.path]
            if root_from_path(leaf_hash(receipt.event.encode()), receipt.index, size, path) != root:
                return False
            event = orjson.loads(receipt.event)
        except (LienthongError, msgspec.MsgspecError, ValueError):
            return False
        return bool(
            event["event"] == "accepted"
            and event["recipients"] == self._recipients
            and event["id"] == self.corpus.sender_id(place)
            and event["sha256"] == self.corpus.digest(place)
        )
