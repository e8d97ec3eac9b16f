"""Documents sent as the national axis's SDK sends them: edXML to ``/vxp/sendEdoc``, each request signed.

An answer on that interface holds an id alone. The receipts are asked for when the clock has stopped, at
``/v1/messages/{id}/events``.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import asyncpg
import msgspec

from benchmarks.corpus import Receiver, Sender
from benchmarks.edxml import EdxmlCorpus, EdxmlPress
from benchmarks.generator import Asker
from benchmarks.ledger import Conservation, Ledger
from benchmarks.node import KNOWN_IN_A_ROW, Node
from hub.directory import axis
from hub.directory.vault import Vault
from protocol.signature import PublicKey
from protocol.vxp import SERVICE, VIETNAM_HOURS, Code, sign

RECEIPTS = 2_000
"""Documents of a load whose receipts are looked up, evenly spread; of fewer, all."""
_ASKERS = 16
_OK = b'{"status":"OK","ErrorCode":"0",'


class Sent(msgspec.Struct):
    """What a sender reads of the answer to /sendEdoc."""

    id: str = msgspec.field(name="DocId", default="")


class Events(msgspec.Struct):
    """What a sender reads of a message's events."""

    accepted: msgspec.Raw


read_sent = msgspec.json.Decoder(Sent).decode
read_events = msgspec.json.Decoder(Events).decode


@dataclass(slots=True)
class AxisCorpus(EdxmlCorpus):
    """`EdxmlCorpus` with a head for each request, since each has a signature of its own."""

    signed: list[bytes] = field(default_factory=list)

    def request(self, number: int) -> tuple[bytes, bytes]:
        return self.signed[number], self.documents[number]

    def accepts(self, status: int, body: bytes) -> bool:
        return status == 200 and body.startswith(_OK)  # failures are 200 too


class AxisPress(EdxmlPress):
    """Makes edXML documents and signs their requests. The senders must be systems (`add_systems`)."""

    def make(self, requests: int, per_request: int) -> AxisCorpus:
        """Write and sign (50 µs each). To be sent within the hub's `axis_clock_seconds`."""
        made = EdxmlPress.make(self, requests, per_request)
        digests: dict[int, str] = {place: digest for digest, place in made.places.items()}
        signed = [self._sign(place, digests[place], len(body)) for place, body in enumerate(made.documents)]
        return AxisCorpus(made.first, 1, made.documents, [], made.places, signed)

    def _sign(self, request: int, digest: str, size: int) -> bytes:
        sender = self._senders[request % len(self._senders)]
        lines = "".join(f"{name}: {value}\r\n" for name, value in send_headers(sender, digest).items())
        return (
            f"POST /vxp/sendEdoc HTTP/1.1\r\nHost: {self._host}\r\n{lines}Content-Length: {size}\r\n\r\n"
        ).encode()


def send_headers(sender: Sender, digest: str) -> dict[str, str]:
    """What signs a call of /sendEdoc for a file with this SHA-256, now."""
    parameters = {"from": sender.code, "servicetype": SERVICE, "messagetype": "edoc", "hash-file": digest}
    return call_headers(sender, parameters, "application/octet-stream")


def call_headers(
    party: Sender | Receiver, parameters: Mapping[str, str], content_type: str = "application/json"
) -> dict[str, str]:
    """What signs a call, now."""
    return sign(system_id(party), party.secret, parameters, datetime.now(UTC), content_type=content_type)


def system_id(party: Sender | Receiver) -> str:
    """What an endpoint is called on the axis's interface."""
    return party.name.replace(" ", ".")


async def add_systems(node: Node, parties: Sequence[Sender | Receiver]) -> None:
    """Let registered endpoints speak the axis's interface; returns when every worker knows them."""
    vault = Vault.load(node.data / "hub-key.pem")
    connection = await asyncpg.connect(node.database_url)
    try:
        for party in parties:
            party.secret = await axis.add_system(connection, vault, system_id(party), party.name, VIETNAM_HOURS)
    finally:
        await connection.close()
    async with asyncio.timeout(20):
        known = 0
        while known < KNOWN_IN_A_ROW:
            known = known + 1 if await _is_known(node, parties[-1]) else 0
            if not known:
                await asyncio.sleep(0.05)


async def _is_known(node: Node, party: Sender | Receiver) -> bool:
    headers = call_headers(party, {"servicetype": SERVICE, "messagetype": "edoc"})
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{node.url}/vxp/countReceiveEdoc", data=b"{}") as answer,
    ):
        # Two such calls of one millisecond are one call to the hub, which tells so only to whom it knows.
        return (await answer.json())["ErrorCode"] in (Code.OK, Code.REPLAYED)


async def verify(
    node: Node, senders: Sequence[Sender], ledger: Ledger, keys: Mapping[str, PublicKey]
) -> Conservation:
    """Look up the receipts of up to `RECEIPTS` documents, check them with the hub's `keys`, and count.

    A document that is not looked up counts as receipted by its answer.
    """
    answers = ledger.answers
    chosen = answers[:: -(-len(answers) // RECEIPTS) or 1]
    ids = [(senders[request % len(senders)].token, read_sent(body).id) for request, body in chosen]
    receipts = await look_up(node, ids)
    ledger.answers = [
        (request, b'{"state":"accepted","receipt":%b}' % receipt)
        for (request, _), receipt in zip(chosen, receipts, strict=True)
    ]
    found = ledger.verify(keys)
    return dataclasses.replace(found, receipted=found.receipted + len(answers) - len(chosen))


async def look_up(node: Node, ids: Sequence[tuple[str, str]]) -> list[bytes]:
    """The receipts of accepted documents, as JSON (``null`` where there is none); `ids`: token and id of each."""
    receipts = [b"null"] * len(ids)
    places = iter(range(len(ids)))

    async def work(asker: Asker) -> None:
        for place in places:
            token, name = ids[place]
            head = f"GET /v1/messages/{name}/events HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n\r\n"
            status, body = await asker.ask(head.encode())
            if status == 200:
                receipts[place] = bytes(read_events(body).accepted)

    askers = [await Asker.connect(node.address) for _ in range(_ASKERS)]
    try:
        await asyncio.gather(*map(work, askers))
    finally:
        for asker in askers:
            asker.close()
    return receipts
