"""Every document of one load generator, counted from the schedule to its last acknowledgement.

Each receipt is read and compared with what was sent as it comes; every `sample`-th is kept, and its proof
verified when the clock has stopped. A document that was delivered but not acknowledged when its reader ended
comes again, as the hub promises; once it was acknowledged it may not.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import orjson

from benchmarks.locust.load import Load
from protocol.evidence import Receipt, verify_receipt
from protocol.problems import LienthongError
from protocol.signature import PublicKey

_SENT, _RECEIPTED, _REFUSED, _AGAIN = 1, 2, 4, 8


class _Answer(msgspec.Struct):
    id: str
    state: str
    receipt: Receipt


_read_answer = msgspec.json.Decoder(_Answer).decode


class Counts(msgspec.Struct):
    """What a load generator reports. Counts of several are added up; of shares and lags the worst counts."""

    offered: int = 0
    """Documents that were due."""
    sent: int = 0
    receipted: int = 0
    """With a receipt that speaks of the very bytes that were sent."""
    verified: int = 0
    """Receipts whose proof was checked with the hub's public key."""
    due: int = 0
    """Deliveries that the receipted documents call for."""
    delivered: int = 0
    """Handed to the right mailbox, byte for byte; each mailbox counts once."""
    acknowledged: int = 0
    """As the hub counted them in its answers to acknowledgements."""
    repeated: int = 0
    """Delivered again because a reader ended before it acknowledged: allowed."""
    strays: int = 0
    """Delivered although acknowledged, with other bytes, or into another's mailbox."""
    requests: int = 0
    failures: int = 0
    cpu_share: float = 0.0
    """CPU of the busiest generator: 1 is one CPU."""
    waiting_share: float = 0.0
    """Part of the time that it could have run but others had the CPUs; 0 where the system does not tell."""
    late_p99_ms: float = 0.0
    """How late an idle sender was woken, 99th percentile of the latest generator."""
    faults: dict[str, int] = {}
    """What went wrong with how many documents, in words."""

    def __add__(self, other: Counts) -> Counts:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        worst = {name: max(getattr(self, name), getattr(other, name)) for name in _WORST}
        return Counts(**sums, **worst, faults=dict(Counter(self.faults) + Counter(other.faults)))

    @property
    def conserved(self) -> bool:
        """Whether everything that was sent arrived, was acknowledged, and nothing else did."""
        return (
            self.sent == self.receipted
            and self.due == self.delivered == self.acknowledged
            and not self.strays
            and not self.faults
        )


_WORST = ("cpu_share", "waiting_share", "late_p99_ms")
_ADDED = tuple(name for name in Counts.__struct_fields__ if name not in (*_WORST, "faults"))


class Mailbox:
    """What one reader has seen of its mailbox."""

    def __init__(self, place: int, documents: int) -> None:
        self.place = place
        """Of the receiver in the load."""
        self.cursor = "0.0.0"
        self.read_by_user = False
        self.others = 0
        """Entries that are not of this load. They are left where they are."""
        self.doubtful: set[int] = set()
        """Documents in an acknowledgement that was not answered as it should."""
        self._delivered = bytearray(documents // 8 + 1)
        self._acknowledged = bytearray(documents // 8 + 1)

    def note_delivered(self, number: int) -> bool:
        """Whether it is the first time."""
        return self._note(self._delivered, number)

    def note_acknowledged(self, number: int) -> bool:
        return self._note(self._acknowledged, number)

    def was_acknowledged(self, number: int) -> bool:
        return bool(self._acknowledged[number >> 3] >> (number & 7) & 1)

    @staticmethod
    def _note(bits: bytearray, number: int) -> bool:
        fresh = not bits[number >> 3] >> (number & 7) & 1
        bits[number >> 3] |= 1 << (number & 7)
        return fresh


class Account:
    """The books of one cell. Times are seconds of `perf_counter`."""

    def __init__(self, load: Load, cell: int, sample: int) -> None:
        self.load = load
        manifest = load.manifest
        self.counts = Counts()
        self.mailboxes = {
            place: Mailbox(place, manifest.documents)
            for place in range(cell, len(manifest.receivers), manifest.cells)
        }
        self.lags = array("d")
        """How late idle senders were woken."""
        self.faults: Counter[str] = Counter()
        self._state = bytearray(manifest.documents)
        self._due = array("d", bytes(8 * manifest.documents))
        self._given_up = 0
        self._sample = sample
        self._kept: list[tuple[int, bytes]] = []

    # -- sending --------------------------------------------------------------------------------

    def sent(self, number: int, due: float) -> None:
        self._state[number] |= _SENT
        self._due[number] = due
        self.counts.sent += 1

    def sent_again(self, number: int) -> None:
        """The document goes out once more: no answer came, or one that said "later"."""
        self._state[number] |= _AGAIN

    def receipted(self, number: int, answer: bytes) -> str | None:
        """The hub accepted document `number`. Returns what is wrong with its answer; None when nothing is."""
        state = self._state[number]
        if state & _RECEIPTED:
            return None  # the answer to a submission that was repeated: the first receipt again
        wrong = self._wrong(number, answer, bool(state & _AGAIN))
        if wrong:
            self._give_up(number, wrong)
            return wrong
        self._state[number] |= _RECEIPTED
        counts = self.counts
        counts.receipted += 1
        counts.due += self.load.manifest.fan_out
        if not counts.receipted % self._sample:
            self._kept.append((number, answer))
        return None

    def _wrong(self, number: int, answer: bytes, again: bool) -> str | None:
        try:
            read = _read_answer(answer)
            event = orjson.loads(read.receipt.event)
            speaks_of = event["event"], event["id"], event["sha256"]
        except (ValueError, msgspec.MsgspecError, KeyError, TypeError):
            return "an acceptance without a readable receipt"
        if read.state == "duplicate" and not again:
            return "accepted before this run: sign new documents"
        digest = hashlib.sha256(self.load.document(number)).hexdigest()
        if speaks_of != ("accepted", self.load.manifest.sender_id(number), digest):
            return "a receipt that speaks of something else than what was sent"
        receipt = read.receipt
        steps = receipt.size.bit_length()
        if receipt.index >= receipt.size or len(receipt.path) > steps or receipt.seal.count(".") != 2:
            return "a receipt that cannot be of its batch"
        return None

    def refused(self, number: int, reason: str) -> None:
        """The hub said no, for good."""
        self._give_up(number, f"refused: {reason}")

    def _give_up(self, number: int, fault: str) -> None:
        self._state[number] |= _REFUSED
        self._given_up += 1
        self.faults[fault] += 1

    def due(self, number: int) -> float:
        """When the document was due."""
        return self._due[number]

    def unanswered(self) -> Iterator[int]:
        """Documents that were sent and have neither a receipt nor a refusal."""
        for number, state in enumerate(self._state):
            if state & _SENT and not state & (_RECEIPTED | _REFUSED):
                yield number

    # -- receiving ------------------------------------------------------------------------------

    def delivered(self, mailbox: Mailbox, sender_id: str, document: bytes) -> int:
        """A mailbox handed out a document. Returns its number; -1 when it is not of this load."""
        number = self.load.number_of(sender_id)
        if number < 0:
            mailbox.others += 1
            return -1
        if (
            not self._state[number] & _SENT
            or mailbox.place not in self.load.manifest.recipients(number)
            or document != self.load.document(number)
            or mailbox.was_acknowledged(number)
        ):
            self.counts.strays += 1
        elif mailbox.note_delivered(number):
            self.counts.delivered += 1
        else:
            self.counts.repeated += 1
        return number

    def acknowledged(self, mailbox: Mailbox, numbers: list[int], counted: int) -> list[int]:
        """The hub ended `counted` deliveries by an acknowledgement of `numbers`. Returns the fresh ones."""
        self.counts.acknowledged += counted
        return [number for number in numbers if mailbox.note_acknowledged(number)]

    def emptied(self, mailbox: Mailbox) -> None:
        """The whole mailbox was read and held nothing of this load: what was in doubt was acknowledged."""
        for number in mailbox.doubtful:
            self.counts.acknowledged += mailbox.note_acknowledged(number)
        mailbox.doubtful.clear()

    # -- at the end -----------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """Documents that were sent and have neither a receipt nor a refusal."""
        return self.counts.sent - self.counts.receipted - self._given_up

    @property
    def undelivered(self) -> int:
        """Deliveries that are not acknowledged yet."""
        return self.counts.due - self.counts.acknowledged

    def verify(self, keys: Mapping[str, PublicKey]) -> None:
        """Check the proofs of the receipts that were kept, with the hub's public keys."""
        for number, answer in self._kept:
            try:
                verify_receipt(_read_answer(answer).receipt, keys.get, self.load.document(number))
            except LienthongError as error:
                self.faults[f"a receipt that proves nothing: {error}"] += 1
            else:
                self.counts.verified += 1
        self._kept.clear()

    def report(self) -> Counts:
        """The counts, with what depends on the rest filled in."""
        counts = self.counts
        counts.faults = dict(self.faults)
        if self.lags:
            ordered = sorted(self.lags)
            counts.late_p99_ms = round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000, 1)
        return counts
