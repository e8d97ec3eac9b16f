"""What the parties know of the morning: who sent, received and ended what, and whether it adds up.

Everything here comes from answers of the hub over HTTP. Receipts are verified with nothing but the hub's
public key, as anybody could who was given them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from protocol.client import HubClient
from protocol.evidence import EvidenceError, KeyLookup, Receipt, Verified, verify_receipt

Delivery = tuple[str, str]
"""A message (the hub's id) at an endpoint (its name)."""

ENDINGS = ("acknowledged", "refused", "expired")
EXAMPLE = "215/BC-UBND"
AT_ONCE = 8
"""Histories asked for at the same time."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the hub accepted."""

    id: str
    endpoint: str
    label: str
    body: bytes
    receipt: Receipt
    to: frozenset[str]
    """The endpoints that must get it."""


@dataclass(slots=True)
class Ledger:
    """Filled in by the parties while the morning runs."""

    sent: dict[str, Sent] = field(default_factory=dict)
    received: Counter[Delivery] = field(default_factory=Counter)
    ended: dict[Delivery, str] = field(default_factory=dict)
    """How a recipient ended a delivery, or, if it expired, that its sender was told so."""
    notices: dict[Delivery, Receipt] = field(default_factory=dict)
    """Receipts of refusals and expiries that the hub put into senders' mailboxes."""
    rejections: list[tuple[Receipt, bytes]] = field(default_factory=list)
    """Receipts of submissions that were turned down, with what had been submitted."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def record(self, delivery: Delivery, ending: str) -> None:
        self.ended[delivery] = ending
        self.changed.set()

    def open(self) -> set[Delivery]:
        """Deliveries that have not ended, and endings that their sender was not told of."""
        due = {(sent.id, endpoint) for sent in self.sent.values() for endpoint in sent.to}
        untold = {delivery for delivery, ending in self.ended.items() if ending == "refused"} - set(self.notices)
        return (due - set(self.ended)) | untold

    async def wait_complete(self, messages: int, seconds: float) -> str:
        """Wait until `messages` were sent and every delivery has ended. Returns what is missing, or ``""``."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.sent) < messages or self.open():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            missing = [f"{self.sent[id_].label} at {endpoint}" for id_, endpoint in sorted(self.open())]
            return (
                f"after {seconds:.0f} s {len(self.sent)} of {messages} messages were sent, and these deliveries "
                f"had not ended: {', '.join(missing[:5]) or 'none'}"
            )
        return ""


@dataclass(slots=True)
class Audit:
    """What was verified, and what was found wrong."""

    receipts: Counter[str] = field(default_factory=Counter)
    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many deliveries ended how, by endpoint."""
    wrong: list[str] = field(default_factory=list)
    story: list[Verified] = field(default_factory=list)
    """What the receipts of the message labelled `EXAMPLE` say, in order."""

    def verify(
        self, receipt: Receipt, kind: str, keys: KeyLookup, what: str, body: bytes | None = None
    ) -> Verified | None:
        """Verify a receipt offline, and that it speaks of an event of this kind and of this message."""
        try:
            found = verify_receipt(receipt, keys, body)
        except EvidenceError as error:
            self.wrong.append(f"the receipt of {what} ({kind}): {error}")
            return None
        if found.event.get("event") != kind:
            self.wrong.append(f"the receipt of {what} says {found.event.get('event')}, not {kind}")
            return None
        self.receipts[kind] += 1
        return found


async def audit(ledger: Ledger, clients: dict[str, HubClient], keys: KeyLookup) -> Audit:
    """Ask the hub what happened to every message, verify every receipt, and compare all sides."""
    result = Audit()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(sent: Sent) -> None:
        async with gate:
            timeline = await clients[sent.endpoint].events(sent.id)
        _compare(result, ledger, sent, timeline, keys)

    await asyncio.gather(*map(one, ledger.sent.values()))
    known = {(sent.id, endpoint) for sent in ledger.sent.values() for endpoint in sent.to}
    for delivery, times in ledger.received.items():
        if delivery not in known:
            result.wrong.append(f"{delivery[1]} received the message {delivery[0]}, which was not sent to it")
        elif times != 1:
            result.wrong.append(f"{delivery[1]} received {ledger.sent[delivery[0]].label} {times} times")
    for number, (receipt, body) in enumerate(ledger.rejections, start=1):
        result.verify(receipt, "rejected", keys, f"bad submission {number}", body)
    return result


def _compare(result: Audit, ledger: Ledger, sent: Sent, timeline: dict[str, Any], keys: KeyLookup) -> None:
    """One message: what its sender, its recipients and the hub say of it."""
    found = result.verify(sent.receipt, "accepted", keys, sent.label, sent.body)
    if found is not None and sent.label == EXAMPLE:
        result.story.append(found)
    if msgspec.convert(timeline["accepted"], Receipt).event != sent.receipt.event:
        result.wrong.append(f"the hub now tells another story of how {sent.label} was accepted")
    deliveries = {members["endpoint"]: members for members in timeline["deliveries"]}
    if set(deliveries) != sent.to:
        result.wrong.append(f"{sent.label} went to {sorted(deliveries)}, not to {sorted(sent.to)}")
    for endpoint, members in deliveries.items():
        delivery = sent.id, endpoint
        state = members["state"]
        result.endings[endpoint, state] += 1
        if state != ledger.ended.get(delivery):
            result.wrong.append(f"{sent.label}: {state} by the hub, {ledger.ended.get(delivery)} by {endpoint}")
        if (state == "expired") == bool(ledger.received[delivery]):
            result.wrong.append(f"{sent.label} is {state} and was handed over {ledger.received[delivery]} times")
        if state not in ENDINGS:
            continue
        receipt = msgspec.convert(members["receipt"], Receipt)
        found = result.verify(receipt, state, keys, f"{sent.label} at {endpoint}", sent.body)
        if found is not None and sent.label == EXAMPLE:
            result.story.append(found)
        if state != "acknowledged":
            notice = ledger.notices.get(delivery)
            if notice is None or notice.event != receipt.event:
                result.wrong.append(f"{sent.endpoint} was not told that {sent.label} is {state} at {endpoint}")
