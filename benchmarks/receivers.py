"""The receiving endpoints: each polls its mailbox with a cursor and acknowledges what it read.

Reading does not wait for acknowledging: one connection asks for the next page while another acknowledges
all that has come so far, up to a cursor. A document whose bytes do not stand in the page (edXML) is fetched
before it is acknowledged, several at a time. A document counts as acknowledged when the hub's answer, which
means that the acknowledgement is on disk, has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from benchmarks.corpus import Receiver
from benchmarks.generator import Asker
from benchmarks.ledger import Ledger

PAGE = 500
WAIT_SECONDS = 20
FETCHERS = 8
"""Connections over which a receiver fetches what is not in its page."""


class Entry(msgspec.Struct):
    """What a receiver reads of an entry. Of the last three there is one, or none (large messages)."""

    id: str
    sender_id: str
    jws: msgspec.Raw = msgspec.Raw(b"")
    entry: msgspec.Raw = msgspec.Raw(b"")
    edxml: str = ""

    @property
    def document(self) -> bytes:
        """The bytes that came with it; nothing if they have to be fetched."""
        if self.edxml:
            return self.edxml.encode()
        return bytes(self.jws or self.entry)[1:-1]  # which need no unescaping


class Page(msgspec.Struct):
    """What a receiver reads of a page."""

    entries: list[Entry]
    cursor: str
    more: bool


class Acked(msgspec.Struct):
    """What a receiver reads of the answer to an acknowledgement."""

    acknowledged: int


read_page = msgspec.json.Decoder(Page).decode
read_acked = msgspec.json.Decoder(Acked).decode


class Receivers:
    """All receiving endpoints. An async context; `ledger` is told what comes."""

    def __init__(self, address: tuple[str, int], receivers: Iterable[Receiver], linger: float = 0.0) -> None:
        """`linger`: seconds that a receiver waits between pages that were not full."""
        self._address = address
        self._receivers = list(receivers)
        self._linger = linger
        self._askers: list[Asker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._mailboxes: list[_Mailbox] = []
        self.ledger: Ledger
        self.pages = 0
        self.acks = 0

    async def __aenter__(self) -> Receivers:
        for receiver in self._receivers:
            mailbox = _Mailbox(self, receiver, self._address, self._linger)
            self._mailboxes.append(mailbox)
            for work in (mailbox.read, mailbox.acknowledge):
                self._askers.append(await Asker.connect(self._address))
                self._tasks.append(asyncio.create_task(work(self._askers[-1])))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for asker in self._askers:
            asker.close()
        for mailbox in self._mailboxes:
            mailbox.close()

    def check(self) -> None:
        """Raise what a receiver ended with, if one did."""
        for task in self._tasks:
            if task.done():
                task.result()


class _Mailbox:
    def __init__(self, owner: Receivers, receiver: Receiver, address: tuple[str, int], linger: float) -> None:
        self._owner = owner
        self._linger = linger
        self._address = address
        self._fetchers: list[Asker] = []
        host = f"{address[0]}:{address[1]}"
        self._read_head = f"GET /v1/mailbox?limit={PAGE}&wait={WAIT_SECONDS}&after=%b HTTP/1.1\r\n".encode()
        head = f"Host: {host}\r\nAuthorization: Bearer {receiver.token}\r\n"
        self._ack_head = (
            f"POST /v1/mailbox/ack HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        ).encode()
        self._read_tail = f"{head}\r\n".encode()
        self._name = receiver.name
        self._cursor = "0.0.0"
        self._places: list[int] = []
        self._fresh = asyncio.Event()

    async def read(self, asker: Asker) -> None:
        while True:
            status, body = await asker.ask(self._read_head % self._cursor.encode() + self._read_tail)
            if status != 200:
                raise RuntimeError(f"{self._name} could not read its mailbox: {status} {body[:300]!r}")
            page = read_page(body)
            if not page.entries:
                continue
            self._owner.pages += 1
            bodies = [entry.document for entry in page.entries]
            if not all(bodies):
                await self._fetch(page.entries, bodies)
            delivered, places = self._owner.ledger.delivered, self._places
            for entry, document in zip(page.entries, bodies, strict=True):
                place = delivered(entry.sender_id, document)
                if place >= 0:
                    places.append(place)
            self._cursor = page.cursor
            self._fresh.set()
            if self._linger and len(page.entries) < PAGE:
                await asyncio.sleep(self._linger)

    async def acknowledge(self, asker: Asker) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            places, self._places = self._places, []
            asked = b'{"up_to":"%b"}' % self._cursor.encode()
            status, body = await asker.ask(self._ack_head % len(asked), asked)
            if status != 200:
                raise RuntimeError(f"{self._name} could not acknowledge: {status} {body[:300]!r}")
            self._owner.acks += 1
            self._owner.ledger.acknowledge(places, read_acked(body).acknowledged)

    async def _fetch(self, entries: list[Entry], bodies: list[bytes]) -> None:
        """Put the documents that are missing in `bodies` into their places."""
        while len(self._fetchers) < FETCHERS:
            self._fetchers.append(await Asker.connect(self._address))
        missing = iter([index for index, document in enumerate(bodies) if not document])

        async def work(asker: Asker) -> None:
            for index in missing:
                head = f"GET /v1/messages/{entries[index].id} HTTP/1.1\r\n".encode()
                status, bodies[index] = await asker.ask(head + self._read_tail)
                if status != 200:
                    raise RuntimeError(f"{self._name} could not fetch a message: {status} {bodies[index][:300]!r}")

        await asyncio.gather(*map(work, self._fetchers))

    def close(self) -> None:
        for asker in self._fetchers:
            asker.close()
