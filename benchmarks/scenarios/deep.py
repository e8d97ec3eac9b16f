"""A hub with deep mailboxes, and the load that keeps them as deep as they are.

Half of the waiting documents stand in the mailboxes that are read, the other half in those of endpoints that
are away. They are put there through the store's own `commit_messages`, sealed like all others; only that their
signatures are not right, which the hub checks when a document comes in and not when it goes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks import report
from benchmarks.campaign import PATIENCE_SECONDS, Mode, named
from benchmarks.corpus import AGENCIES_PER_RECEIVER, SENDERS, Corpus, Press, Receiver, Sender, agency_of
from benchmarks.crowd import Crowd, Member, drain, register
from benchmarks.generator import Asker, closed_loop
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import Node
from benchmarks.receivers import PAGE, read_acked, read_page
from benchmarks.scenarios import Outcome, Setting
from hub.directory.follow import Directory
from hub.evidence.keys import load_hub_key
from hub.relay.batch import Batch, Submission, Ticket, Work
from hub.relay.format import Format
from hub.relay.route import Route
from hub.store import sql
from hub.store.pool import create_pool
from protocol.evidence import SEAL_TYPE, Sealer
from protocol.message import Lane
from protocol.signature import Signer

SQL = sql.load("relay")
AWAY = 200
"""Endpoints that are away."""
COMMIT = 256
GATHER_SECONDS = 0.05
"""How long a receiver lets mail gather between two pages, as the hub does for those that wait."""
WAITING_URGENT_EVERY = 19
"""Of those that wait. Prime to the numbers of mailboxes, so that each has both lanes."""
_ID = "cho-{:012d}"


@dataclass(slots=True)
class Books:
    """All that the mailboxes being read may hand out: what waited before, and what was submitted since."""

    template: bytes = b""
    waiting: bytearray = field(default_factory=bytearray)
    """By number: 1 when it was handed out."""
    corpora: list[tuple[Corpus, bytearray]] = field(default_factory=list)
    delivered: int = 0
    acknowledged: int = 0
    strays: int = 0
    last_ack: float = 0.0
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    def body(self, number: int) -> bytes:
        """The bytes of the waiting document with this number."""
        tag = b"%012d" % number
        return self.template[: -len(tag)] + tag

    def take(self, member: int, sender_id: str, document: bytes) -> None:
        """A mailbox handed this out."""
        if sender_id.startswith("cho-"):
            number = int(sender_id[4:])
            right = number < len(self.waiting) and document == self.body(number)
            self._note(self.waiting, number, right)
            return
        for corpus, handed in self.corpora:
            place = corpus.place_of(sender_id)
            if place >= 0:
                self._note(handed, place, corpus.holds(place, document))
                return
        self.strays += 1

    def _note(self, handed: bytearray, place: int, right: bool) -> None:
        if not right or handed[place]:
            self.strays += 1
            return
        handed[place] = 1
        self.delivered += 1

    def acknowledge(self, count: int) -> None:
        """The hub says that it ended so many deliveries."""
        self.acknowledged += count
        self.last_ack = perf_counter()
        self.progress.set()


class _Paced(Ledger):
    """Tells a receiver when a document for it was accepted."""

    def __init__(self, corpus: Corpus, readers: list[_Reader]) -> None:
        super().__init__(corpus)
        self._readers = readers

    def answered(self, request: int, body: bytes) -> None:
        super().answered(request, body)
        number = self.corpus.first + request
        agency = agency_of(number, SENDERS, AGENCIES_PER_RECEIVER * len(self._readers))
        self._readers[agency // AGENCIES_PER_RECEIVER].owe()


class _Reader:
    """Reads as many documents as were accepted for its mailbox, from the head of the queue."""

    def __init__(self, number: int, receiver: Receiver, books: Books) -> None:
        self._number = number
        self._books = books
        self._token = receiver.token
        self._name = receiver.name
        self._owed = 0
        self._due = asyncio.Event()

    def owe(self) -> None:
        self._owed += 1
        self._due.set()

    async def run(self, address: tuple[str, int]) -> None:
        """Until cancelled."""
        asker = await Asker.connect(address)
        head = f"Host: {address[0]}:{address[1]}\r\nAuthorization: Bearer {self._token}\r\n"
        try:
            while True:
                await self._due.wait()
                await asyncio.sleep(GATHER_SECONDS)
                limit = min(PAGE, self._owed)
                asked = f"GET /v1/mailbox?limit={limit}&wait=5 HTTP/1.1\r\n{head}\r\n"
                page = read_page(await self._ask(asker, asked.encode()))
                for entry in page.entries:
                    self._books.take(self._number, entry.sender_id, entry.document)
                self._owed -= len(page.entries)
                if not self._owed:
                    self._due.clear()
                body = b'{"up_to":"%b"}' % page.cursor.encode()
                asked = (
                    f"POST /v1/mailbox/ack HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                self._books.acknowledge(read_acked(await self._ask(asker, asked.encode(), body)).acknowledged)
        finally:
            asker.close()

    async def _ask(self, asker: Asker, head: bytes, body: bytes = b"") -> bytes:
        status, answer = await asker.ask(head, body)
        if status != 200:
            raise RuntimeError(f"{self._name} was answered {status}: {answer[:300]!r}")
        return answer


@dataclass(slots=True)
class Deep:
    """One of the two hubs that take turns."""

    node: Node
    press: Press
    crowd: Crowd
    receivers: list[Receiver]
    readers: list[_Reader]
    books: Books
    kept: int
    """Documents that wait for endpoints that are away."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @classmethod
    async def start(cls, stack: AsyncExitStack, setting: Setting, waiting: int) -> Deep:
        """A hub in whose mailboxes so many documents wait."""
        senders = [Sender(number) for number in range(1, SENDERS + 1)]
        receivers = [Receiver(number) for number in range(setting.receivers)]
        node = await stack.enter_async_context(Node(setting.workers))
        await node.register(senders, receivers)
        crowd = await register(node, "XA", AWAY)
        press = Press(senders, receivers, node.url.removeprefix("http://"))
        books = Books(press.make(1, 1).documents[0])
        own = await fill(node, senders[0], receivers, crowd.members, books, waiting)
        readers = [_Reader(number, receiver, books) for number, receiver in enumerate(receivers)]
        return cls(node, press, crowd, receivers, readers, books, waiting - own)

    def read(self, stack: AsyncExitStack) -> None:
        """Let the receivers connect; soon they are asked for more, or the hub would close what stands idle."""
        self.tasks = [asyncio.create_task(reader.run(self.node.address)) for reader in self.readers]

        async def stop() -> None:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

        stack.push_async_callback(stop)

    async def turn(self, mode: Mode, seconds: float) -> None:
        """One slice of the load: as many documents end their way as are accepted. Its rate is noted."""
        guess = self.rates[-1] * 1.5 if self.rates else mode.guess
        corpus = self.press.make(max(mode.connections, round(guess * seconds)), 1)
        ledger = _Paced(corpus, self.readers)
        self.books.corpora.append((corpus, bytearray(len(corpus.documents))))
        self.ledgers.append(ledger)
        before = self.books.acknowledged
        submitted = await closed_loop(self.node.address, corpus, ledger, mode.connections, seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while self.books.acknowledged - before < ledger.answered_documents:
                    self.books.progress.clear()
                    await self.books.progress.wait()
        for task in self.tasks:
            if task.done():
                task.result()
        ended = max(self.books.last_ack, submitted.ended)
        self.rates.append((self.books.acknowledged - before) / (ended - submitted.started))

    async def finish(self) -> tuple[Conservation, float]:
        """Read what waits in the mailboxes being read; how many deliveries a second that took."""
        for task in self.tasks:
            task.cancel()
        books, before = self.books, self.books.delivered
        took = await drain(self.node, self.receivers, books, len(self.receivers))
        keys = await self.node.keys()
        proven = [ledger.receipts(keys) for ledger in self.ledgers]
        connection = await asyncpg.connect(self.node.database_url)
        try:
            away = await connection.fetchval(
                "select count(*) from inbox i join mailbox b using (endpoint, lane) where i.seq > b.floor"
            )
        finally:
            await connection.close()
        own = len(books.waiting) - self.kept
        counted = Conservation(
            own + sum(ledger.sent_documents for ledger in self.ledgers),
            own + sum(receipts for receipts, _ in proven),
            books.delivered,
            books.acknowledged,
            books.strays + abs(away - self.kept),
            sum(seals for _, seals in proven),
        )
        return counted, (books.delivered - before) / took

    @staticmethod
    async def compare(name: str, empty: Deep, deep: Deep) -> Outcome:
        """The ratio of the two, and what it comes from. The first turns warmed up and do not count."""
        pairs = [slower / faster for faster, slower in zip(empty.rates[1:], deep.rates[1:], strict=True)]
        (plain, _), (burdened, drained) = await empty.finish(), await deep.finish()
        conserved = plain.holds and burdened.holds
        figures: dict[str, Any] = {
            "ratio": round(statistics.median(pairs), 3),
            "ratio_min": round(min(pairs), 3),
            "ratio_max": round(max(pairs), 3),
            "docs_per_s": round(statistics.median(deep.rates[1:]), 1),
            "empty_docs_per_s": round(statistics.median(empty.rates[1:]), 1),
            "waiting": len(deep.books.waiting),
            "drain_deliveries_per_s": round(drained),
            "slices": len(pairs),
        }
        facts = await report.facts(deep.node)
        details = {"rates": {"empty": empty.rates, "deep": deep.rates}}
        log = "" if conserved else deep.node.log_tail()
        counts = [plain, burdened]
        return Outcome(name, named(name, figures), conserved, facts, counts, details=details, log=log)


async def fill(
    node: Node, sender: Sender, receivers: list[Receiver], away: list[Member], books: Books, count: int
) -> int:
    """Put `count` documents into mailboxes, half of them into the receivers'. Returns how many those got."""
    if not count:
        return 0
    books.waiting = bytearray(count)
    pool = await create_pool(node.database_url, 3, "fill", hot=True)
    try:
        directory = Directory(pool)
        await directory.refresh()
        ids = directory.picture.endpoint_ids
        sealer = Sealer("lienthong", Signer(load_hub_key(node.data / "hub-key.pem"), typ=SEAL_TYPE))
        read = [Route({ids[receiver.name]: [receiver.codes[0]]}) for receiver in receivers]
        unread = [Route({ids[member.name]: [member.code]}) for member in away]
        numbers = iter(range(0, count, COMMIT))
        own = 0

        async def work() -> None:
            nonlocal own
            for first in numbers:
                batch = range(first, min(first + COMMIT, count))
                ticket = Ticket(len(batch))
                items: list[Work] = []
                for number in batch:
                    route = unread[number // 2 % len(unread)] if number % 2 else read[number // 2 % len(read)]
                    body = books.body(number)
                    items.append(
                        Submission(
                            ticket=ticket,
                            endpoint=ids[sender.name],
                            endpoint_name=sender.name,
                            sender_id=_ID.format(number),
                            sender=sender.code,
                            format=Format.JWS,
                            lane=Lane.NORMAL if number % WAITING_URGENT_EVERY else Lane.URGENT,
                            digest=hashlib.sha256(body).digest(),
                            size=len(body),
                            body=body,
                            route=route,
                        )
                    )
                own += sum(1 for number in batch if not number % 2)
                arguments = Batch(items, sealer).arguments({}, [])
                await pool.execute(SQL.commit_messages, *arguments)

        await asyncio.gather(work(), work())
    finally:
        await pool.close()
    return own
