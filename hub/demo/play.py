"""Plays the morning: every endpoint sends what its agency writes, and waits for mail meanwhile.

Each endpoint has a client of its own that long-polls its mailbox. What it takes it checks (the sender's
signature, the attachments' digests) and acknowledges; then it reports states and replies, as `morning`
says. Nobody here looks into the hub.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from hub.demo.agencies import AGENCIES, Party, reached
from hub.demo.ledger import Ledger, Sent
from hub.demo.morning import DARK, DATE, Paper, everything
from hub.demo.node import DemoError
from hub.demo.papers import EdxmlParty, edxml_document, edxml_status, pdf
from hub.demo.show import Show
from protocol import edxml
from protocol.client import Attachment, Document, Entry, HubClient, new_id
from protocol.evidence import KeyLookup, verify_receipt
from protocol.message import Person, Promulgation, Reference, open_jws
from protocol.signature import PublicKey, thumbprint, verify
from protocol.status import VIETNAMESE, State

OPENS, CLOSES = 7 * 60 + 30, 11 * 60 + 30
POLL_SECONDS = 20.0
PAGE = 50
SLASHED_DATE = DATE.replace("-", "/")


def _minutes(at: str) -> int:
    hours, _, minutes = at.partition(":")
    return int(hours) * 60 + int(minutes)


class Clock:
    """The clock on the wall: four hours in `seconds`, or as fast as work gets done when that is 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = asyncio.get_running_loop().time()
        self._moved = asyncio.Condition()
        self.at = "07:30"

    async def advance(self, at: str) -> None:
        """Wait until it is `at`, then let everybody know."""
        due = self._started + self._seconds * (_minutes(at) - OPENS) / (CLOSES - OPENS)
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        async with self._moved:
            self.at = max(self.at, at)
            self._moved.notify_all()

    async def until(self, at: str) -> None:
        """Wait until somebody has advanced the clock so far."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.at >= at)


class Play:
    """The parties at their desks."""

    def __init__(
        self,
        parties: dict[str, Party],
        clients: dict[str, HubClient],
        keys: KeyLookup,
        papers: list[Paper],
        folder: Path,
        show: Show,
        seconds: float,
    ) -> None:
        self.ledger = Ledger()
        self._clients = clients
        self._keys = keys
        self._papers = papers
        self._by_id = {paper.id: paper for paper in everything(papers)}
        self._senders: dict[str, PublicKey] = {
            thumbprint(party.key.public_key()): party.key.public_key() for party in parties.values()
        }
        self._folder = folder
        self._show = show
        self._clock = Clock(seconds)
        self._power = asyncio.Event()
        self._later: asyncio.TaskGroup | None = None
        states = sum(len(states.split()) for paper in self._by_id.values() for states in paper.states.values())
        self.messages = len(self._by_id) + states
        """How many messages there will be: documents and states."""

    async def run(self, patience: float) -> None:
        """Play it. Raises DemoError when it has not come to an end `patience` seconds after 11:30."""
        with self._show.morning(self.messages):
            async with asyncio.TaskGroup() as group:
                self._later = group
                desks = [group.create_task(self._attend(endpoint)) for endpoint in self._clients]
                for paper in self._papers:
                    await self._clock.advance(paper.at)
                    await self._send(paper)
                await self._clock.advance("11:30")
                missing = await self.ledger.wait_complete(self.messages, patience)
                for desk in desks:
                    desk.cancel()
        if missing:
            raise DemoError(missing)

    # -- sending --------------------------------------------------------------------------------

    async def _send(self, paper: Paper, answered: Paper | None = None) -> None:
        client = self._clients[paper.sender]
        extra = ""
        if paper.edxml:
            message = self._edxml(paper)
            sent = await client.submit(message, "application/xml")
            extra = "in edXML"
        else:
            attachments = await self._upload(paper)
            message = client.sign(self._document(paper, attachments, answered))
            sent = await client.submit(message)
            if attachments:
                size = sum(attachment.size for attachment in attachments)
                plural = "s" if len(attachments) > 1 else ""
                extra = f"{len(attachments)} file{plural}, {size / 1000:,.0f} kB"
        to = frozenset(endpoint for address in paper.to for endpoint in reached(address))
        self._record(Sent(sent.id, paper.sender, paper.symbol, message, sent.receipt, to))
        self._show.document(paper.at, paper.priority, paper.symbol, _route(paper, to), paper.subject, extra)
        if paper.twice:
            again = await client.submit(message)
            if not again.duplicate or again.receipt != sent.receipt:
                raise DemoError(f"{paper.symbol} was sent again and did not get its first receipt again")
            self._event(f"{paper.symbol} is sent again, as if the answer were lost: the first receipt comes again")

    def _document(self, paper: Paper, attachments: tuple[Attachment, ...], answered: Paper | None) -> Document:
        agency = paper.agency
        return Document(
            id=paper.id,
            sender=agency.code,
            to=paper.to,
            subject=paper.subject,
            priority=paper.priority,
            code=paper.symbol,
            type=paper.type,
            promulgation=Promulgation(place="Hà Nội" if paper.sender == "vpcp" else "Yên Bái", date=DATE),
            signer=Person(name=agency.signer, position=agency.position),
            due=paper.due,
            response_for=(self._reference(answered),) if answered else (),
            attachments=attachments,
            expires=datetime.now(UTC) + timedelta(seconds=paper.expires_seconds)
            if paper.expires_seconds
            else None,
        )

    @staticmethod
    def _reference(paper: Paper) -> Reference:
        return Reference(id=paper.id, agency=paper.agency.code, code=paper.symbol, date=DATE)

    async def _upload(self, paper: Paper) -> tuple[Attachment, ...]:
        attachments = []
        for number, size in enumerate(paper.files):
            name = paper.symbol.replace("/", "_") + (f"_PL{number:02}" if number else "") + ".pdf"
            path = self._folder / "outbox" / f"{paper.sender}_{name}"
            await asyncio.to_thread(path.write_bytes, pdf(f"{paper.id} {number}", paper.subject, size << 10))
            attachments.append(await self._clients[paper.sender].upload(path, "application/pdf", name))
        return tuple(attachments)

    @staticmethod
    def _edxml(paper: Paper) -> bytes:
        to = next(agency for agency in AGENCIES.values() if agency.code == paper.to[0])
        return edxml_document(
            EdxmlParty(paper.agency.code, paper.agency.name),
            EdxmlParty(to.code, to.name),
            paper.symbol,
            SLASHED_DATE,
            paper.at,
            paper.type,
            paper.subject,
            (paper.agency.position, paper.agency.signer),
            {"normal": 0, "urgent": 1, "very_urgent": 2, "express": 3}[paper.priority],
            pdf(paper.id, paper.subject, paper.files[0] << 10),
        )

    async def _state(self, endpoint: str, paper: Paper, state: State) -> None:
        """Tell the sender of `paper` what became of it here."""
        client, agency = self._clients[endpoint], AGENCIES[endpoint]
        if paper.edxml:
            message = edxml_status(
                EdxmlParty(agency.code, agency.name),
                paper.agency.code,
                paper.symbol,
                SLASHED_DATE,
                paper.id,
                state,
                VIETNAMESE[state],
                self._clock.at,
            )
            sent = await client.submit(message, "application/xml")
        else:
            document = Document(
                id=f"{state} {paper.id} {new_id()}",
                sender=agency.code,
                to=(paper.agency.code,),
                subject=VIETNAMESE[state],
                kind="status",
                status=state,
                response_for=(self._reference(paper),),
            )
            message = client.sign(document)
            sent = await client.submit(message)
        label = f"state {state} of {paper.symbol}"
        self._record(Sent(sent.id, endpoint, label, message, sent.receipt, frozenset({paper.sender})))
        form = " (in edXML)" if paper.edxml else ""
        self._event(f"{agency.short} on {paper.symbol}: {state} {VIETNAMESE[state]}{form}")

    async def _reply(self, reply: Paper, answered: Paper | None) -> None:
        await self._clock.until(reply.at)
        await self._send(reply, answered)

    # -- receiving ------------------------------------------------------------------------------

    async def _attend(self, endpoint: str) -> None:
        """Take in the mail of an endpoint until cancelled."""
        client = self._clients[endpoint]
        if endpoint == DARK:
            await self._power.wait()
            self._event(f"{AGENCIES[DARK].short} has power again; its mail has waited", "cyan")
        cursor = "0.0.0"
        while True:
            entries, cursor = await client.read(PAGE, POLL_SECONDS, cursor)
            taken = [entry for entry in entries if await self._take(endpoint, entry)]
            if taken:
                await client.acknowledge(*taken)
            for entry in taken:
                if entry.format != "receipt":
                    self.ledger.record((entry.id, endpoint), "acknowledged")
            self._progress()
            for entry in taken:
                await self._follow(endpoint, entry)

    async def _take(self, endpoint: str, entry: Entry) -> bool:
        """Check an entry. True when it is to be acknowledged, False when it was refused."""
        if entry.receipt is not None:
            verify_receipt(entry.receipt, self._keys)
            return True
        self.ledger.received[entry.id, endpoint] += 1
        if entry.format == "edxml":
            return True
        assert entry.body is not None
        jws, document = open_jws(entry.body)
        key = self._senders.get(jws.kid)
        if key is None or not verify(key, jws.alg, jws.signature, jws.signing_input):
            raise DemoError(f"{endpoint} received {document.id} with a signature that is not its sender's")
        for number, attachment in enumerate(document.attachments):
            path = self._folder / "inbox" / f"{endpoint}_{entry.id}_{number}.pdf"
            await self._clients[endpoint].download(attachment, path)
        paper = self._by_id.get(document.id)
        if paper is None or not paper.refusal:
            return True
        await self._clients[endpoint].refuse(entry, paper.refusal)
        self.ledger.record((entry.id, endpoint), "refused")
        self._event(f"{AGENCIES[endpoint].short} refuses {paper.symbol}: “{paper.refusal}”", "red")
        return False

    async def _follow(self, endpoint: str, entry: Entry) -> None:
        """What an endpoint does about something that it has taken."""
        assert self._later is not None
        if entry.receipt is not None:
            self._notice(endpoint, entry)
            return
        if entry.format == "edxml":
            header = edxml.read(await self._clients[endpoint].fetch(entry))
            paper = self._by_id.get(header.document_id) if header.kind == "document" else None
        else:
            paper = self._by_id.get(entry.sender_id)
        if paper is None:
            return
        for state in paper.states.get(endpoint, "").split():
            await self._state(endpoint, paper, State(state))
        for reply in paper.replies:
            if reply.sender == endpoint:
                self._later.create_task(self._reply(reply, paper))

    def _notice(self, endpoint: str, entry: Entry) -> None:
        """The hub tells a sender how a delivery ended."""
        assert entry.receipt is not None and self._later is not None
        event = orjson.loads(entry.receipt.event)
        delivery = event["message"], event["endpoint"]
        self.ledger.notices[delivery] = entry.receipt
        paper = self._by_id[event["id"]]
        if event["event"] == "expired":
            self.ledger.record(delivery, "expired")
            self._power.set()
        self.ledger.changed.set()
        self._event(
            f"the hub tells {AGENCIES[endpoint].short}: {paper.symbol} is {event['event']} at "
            f"{AGENCIES[event['endpoint']].short}, with a sealed receipt",
            "red",
        )
        if paper.after_notice is not None:
            self._later.create_task(self._reply(paper.after_notice, None))

    # -- telling --------------------------------------------------------------------------------

    def _record(self, sent: Sent) -> None:
        self.ledger.sent[sent.id] = sent
        self.ledger.changed.set()
        self._progress()

    def _event(self, text: str, style: str = "dim") -> None:
        self._show.event(self._clock.at, text, style)

    def _progress(self) -> None:
        self._show.progress(self._clock.at, len(self.ledger.sent), len(self.ledger.ended))


def _route(paper: Paper, to: frozenset[str]) -> str:
    if len(to) > 3:
        return f"{paper.agency.short} → {len(to)} endpoints"
    return f"{paper.agency.short} → {', '.join(sorted(AGENCIES[endpoint].short for endpoint in to))}"
