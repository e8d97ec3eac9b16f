"""A prepared load: who sends and who receives, and the signed documents, in a folder.

    load.json   endpoints with their tokens, and what the documents were signed for
    documents   one JWS a line
    offsets     where each line begins, and the end of the last: unsigned 64-bit integers of this machine

Document `n` is of round ``n // senders`` by sender ``n % senders``: each round, every sender has one. Senders
and receivers are dealt out to cells, and a cell's senders address its own receivers only, so that each of
several load generators can account for its documents alone.
"""

from __future__ import annotations

import mmap
from array import array
from pathlib import Path

import msgspec

MANIFEST = "load.json"
DOCUMENTS = "documents"
OFFSETS = "offsets"
SENT = "sent-at"
"""Made when a load is used: the hub would answer the second time with the first receipts."""


class LoadError(Exception):
    """A load that cannot be used; the message says what to do."""


class Sender(msgspec.Struct, frozen=True):
    """An endpoint that submits."""

    name: str
    agency: str
    token: str


class Receiver(msgspec.Struct, frozen=True):
    """An endpoint that reads its mailbox."""

    name: str
    agencies: tuple[str, ...]
    token: str


class Manifest(msgspec.Struct, frozen=True):
    """What a load was prepared for."""

    run: str
    """Begins every document's id: no load repeats another's."""
    hub: str
    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]
    rounds: int
    """Documents of each sender."""
    fan_out: int = 1
    """Mailboxes that each document is for."""
    cells: int = 1
    """Load generators that share the load."""

    @property
    def documents(self) -> int:
        return self.rounds * len(self.senders)

    def cell_of(self, number: int) -> int:
        """The cell that sends document `number`."""
        return number % len(self.senders) % self.cells

    def sender_id(self, number: int) -> str:
        return f"{self.run}-{number:09}"

    def recipients(self, number: int) -> list[int]:
        """The receivers of document `number`: `fan_out` in a row, another row for each document."""
        sender = number % len(self.senders)
        cell = sender % self.cells
        mailboxes = range(cell, len(self.receivers), self.cells)
        in_cell = len(range(cell, len(self.senders), self.cells))
        turn = number // len(self.senders)
        first = (turn * in_cell + sender // self.cells) * self.fan_out + turn
        return [mailboxes[(first + place) % len(mailboxes)] for place in range(self.fan_out)]

    def check(self) -> None:
        """Raise LoadError for numbers that do not go together."""
        smallest = len(self.receivers) // self.cells
        if not self.senders or not self.receivers:
            raise LoadError("a load needs a sender and a receiver at least")
        if min(smallest, len(self.senders) // self.cells) < 1:
            raise LoadError(f"{self.cells} generators need at least as many senders and as many receivers")
        if self.fan_out > smallest:
            raise LoadError(f"a document cannot go to {self.fan_out} mailboxes: a generator has {smallest}")


class Load:
    """The documents of a folder, read as they are needed."""

    def __init__(self, folder: Path) -> None:
        """Raises LoadError when there is no load in the folder."""
        try:
            self.manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
            with (folder / DOCUMENTS).open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._offsets = array("Q", (folder / OFFSETS).read_bytes())
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise LoadError(f"{folder} holds no load ({error}); make one with benchmarks.locust.prepare") from None
        self.folder = folder

    def document(self, number: int) -> bytes:
        """Document `number`, as it goes on the wire."""
        start, end = self._offsets[number : number + 2]
        return self._bytes[start : end - 1]

    def number_of(self, sender_id: str) -> int:
        """The number of the document with this id; -1 when it is not of this load."""
        run, _, number = sender_id.rpartition("-")
        if run != self.manifest.run or not number.isdigit() or int(number) >= self.manifest.documents:
            return -1
        return int(number)
