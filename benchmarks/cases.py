"""The functions that a document passes through, each ready to be called alone (`benchmarks.micro` times them)."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
from aiohttp.test_utils import make_mocked_request

from benchmarks.corpus import Press, Receiver, Sender
from benchmarks.edxml import EdxmlPress
from benchmarks.manifest import ManifestPress
from hub.couriers.mailbox import Page
from hub.directory.follow import Directory
from hub.directory.picture import Picture
from hub.doors.http import Gate
from hub.doors.native import _submitted
from hub.doors.written import entry_json, outcome_json, page_json
from hub.relay import events
from hub.relay.answering import Accepted
from hub.relay.batch import Batch, Submission, Ticket, Work, digest_of
from hub.relay.format import Format
from hub.relay.route import Router, route
from hub.relay.verify import find_key
from protocol import edxml
from protocol.evidence import SEAL_TYPE, Sealer, Tree, leaf_hash, recipients_digest
from protocol.manifest import open_entry, open_manifest, seal_manifest
from protocol.message import LANE_OF_PRIORITY, read_document
from protocol.signature import Signer, generate, parse, verify
from protocol.stream import Role, Session, State

Cases = dict[str, tuple[int, Callable[[], object]]]
"""By name: how many things a call handles, and the call."""
CROWD = 300
"""Endpoints of the group that circulars go to."""
GROUP = "group:tat-ca"


class Fixture:
    """One of everything, as the hub would have it; on a database of its own."""

    def __init__(self, pool: asyncpg.Pool, senders: list[Sender], receivers: list[Receiver]) -> None:
        self.pool = pool
        self.senders = senders
        self.receivers = receivers
        self.press = Press(senders, receivers, "127.0.0.1")
        self.directory = Directory(pool)
        self.sealer = Sealer("bench", Signer(generate("EdDSA"), typ=SEAL_TYPE))
        self.gate = Gate(self.directory)
        self.router = Router()

    @property
    def picture(self) -> Picture:
        return self.directory.picture

    def submissions(self, count: int, to: tuple[str, ...] | None = None) -> list[Work]:
        """Documents of one sender, verified and routed; where `to` is given, to these addresses."""
        found: list[Work] = []
        ticket = Ticket(count)
        for raw in self.press.make(1, count).documents:
            jws = parse(raw)
            document = read_document(jws.payload)
            agency = self.picture.agency(document.sender)
            assert agency is not None and agency.endpoint is not None
            found.append(
                Submission(
                    ticket=ticket,
                    endpoint=agency.endpoint,
                    endpoint_name=self.picture.endpoint_name(agency.endpoint),
                    sender_id=document.id,
                    sender=agency.code,
                    format=Format.JWS,
                    lane=LANE_OF_PRIORITY[document.priority],
                    digest=digest_of(raw),
                    size=len(raw),
                    body=raw,
                    route=self.router.route(self.picture, to or document.to),
                )
            )
        return found


def functions(fixture: Fixture, page: Page) -> Cases:
    """All of them. `page` is one of a mailbox."""
    return {
        **_single(fixture, page),
        **_circular(fixture),
        **_manifest(fixture),
        **_stream(fixture, page),
        **_edxml(fixture),
    }


def _single(fixture: Fixture, page: Page) -> Cases:
    sender = fixture.senders[0]
    (raw,) = fixture.press.make(1, 1).documents
    jws = parse(raw)
    document = read_document(jws.payload)
    key = sender.signer.key.public_key()
    picture = fixture.picture
    agency = picture.agency(sender.code)
    assert agency is not None and agency.endpoint is not None
    origin = agency.endpoint
    items = fixture.submissions(64)
    batch = Batch(items, fixture.sealer)
    texts = [event.encode() for event in batch.events]
    (receipt,) = events.receipts_json(Tree(batch.leaves[:1]), batch.events[:1], batch.seal)
    accepted = Accepted(items[0].id, receipt, [])
    request = make_mocked_request("POST", "/v1/messages", headers={"Authorization": f"Bearer {sender.token}"})
    return {
        "gate": (1, lambda: fixture.gate.endpoint(request)),
        "parse": (1, lambda: parse(raw)),
        "read_document": (1, lambda: read_document(jws.payload)),
        "find_key": (1, lambda: find_key(picture, jws, origin, sender.code)),
        "verify": (1, lambda: verify(key, jws.alg, jws.signature, jws.signing_input)),
        "route": (1, lambda: route(picture, document.to)),
        "route, remembered": (1, lambda: fixture.router.route(picture, document.to)),
        "digest": (1, lambda: digest_of(raw)),
        "submission": (1, lambda: _another(items[0])),
        "batch 64 (events, leaves, tree, seal)": (64, lambda: Batch(items, fixture.sealer)),
        "   leaf_hash": (64, lambda: [leaf_hash(text) for text in texts]),
        "   tree": (64, lambda: Tree(batch.leaves)),
        "   seal": (64, lambda: fixture.sealer.seal(batch.tree, str(batch.id), batch.at)),
        "arguments 64": (64, lambda: batch.arguments({}, [])),
        "receipts_json 64": (64, lambda: events.receipts_json(batch.tree, batch.events, batch.seal)),
        "news 64": (64, lambda: batch.news(1)),
        "response": (1, lambda: _submitted(accepted)),
        "outcome_json": (1, lambda: outcome_json(accepted)),
        f"page_json {len(page.entries)}": (len(page.entries), lambda: page_json(page)),
    }


def _circular(fixture: Fixture) -> Cases:
    """One document to `CROWD` endpoints."""
    found = fixture.router.route(fixture.picture, (GROUP,))
    codes = list(found.codes())
    items = fixture.submissions(8, (GROUP,))
    batch = Batch(items, fixture.sealer)
    return {
        f"circular {CROWD}: route": (1, lambda: route(fixture.picture, (GROUP,))),
        f"circular {CROWD}: recipients_digest": (1, lambda: recipients_digest(codes)),
        f"circular {CROWD}: batch 8": (8, lambda: Batch(items, fixture.sealer)),
        f"circular {CROWD}: arguments 8": (8, lambda: batch.arguments({}, [])),
        f"circular {CROWD}: news 8": (8, lambda: batch.news(1)),
    }


def _manifest(fixture: Fixture) -> Cases:
    """Fifty documents under one signature."""
    sender, count = fixture.senders[0], 50
    press = ManifestPress(fixture.senders, fixture.receivers, "127.0.0.1", first=2_000_000_000)
    corpus = press.make(1, count)
    jws, lines = corpus.manifests[0], corpus.documents
    payloads = [press.payload(0, number) for number in range(count)]
    opened = open_manifest(jws, lines)
    entry = opened.entries()[0]
    return {
        f"manifest {count}: seal_manifest": (count, lambda: seal_manifest(payloads, sender.signer)),
        f"manifest {count}: open_manifest": (count, lambda: open_manifest(jws, lines)),
        f"manifest {count}: entries": (count, opened.entries),
        f"manifest {count}: read_document": (count, lambda: [read_document(p) for p in opened.payloads]),
        "manifest: open_entry": (1, lambda: open_entry(entry)),
    }


def _stream(fixture: Fixture, page: Page) -> Cases:
    """Frames as the hub reads and writes them."""
    (raw,) = fixture.press.make(1, 1).documents
    mails = page.entries
    entries = [entry_json(mail) for mail in mails]
    size = sum(mail.weight for mail in mails)
    session = Session(Role.HUB)

    def receive() -> object:
        session.state, session.submit_messages, session.submit_bytes = State.OPEN, 1 << 20, 1 << 40
        n = session.next_number
        frame = session.receive(b'{"type":"submit","n":%d,"messages":["%b"]}' % (n, raw))
        session.answers([(n, [b"{}"])], 1, len(raw))
        return frame

    def push() -> object:
        session.state, session.mail_messages, session.mail_bytes = State.OPEN, 1 << 20, 1 << 40
        return session.mail(entries, size, "1.2.3", False)

    return {
        "stream: submit and its answer": (1, receive),
        f"stream: entry_json {len(mails)}": (len(mails), lambda: [entry_json(mail) for mail in mails]),
        f"stream: mail {len(mails)}": (len(mails), push),
    }


def _edxml(fixture: Fixture) -> Cases:
    """A document of 18 KB."""
    (xml,) = EdxmlPress(fixture.senders, fixture.receivers, "127.0.0.1").make(1, 1).documents
    return {
        "edXML 18 KB: read": (1, lambda: edxml.read(xml, whole=True)),
        "edXML 18 KB: digest": (1, lambda: digest_of(xml)),
    }


def _another(like: Work) -> Submission:
    """Another submission with the same contents: what making one costs."""
    assert isinstance(like, Submission)
    return Submission(
        like.ticket,
        like.endpoint,
        like.endpoint_name,
        like.sender_id,
        like.sender,
        like.format,
        like.lane,
        like.digest,
        like.size,
        like.body,
        like.route,
    )
