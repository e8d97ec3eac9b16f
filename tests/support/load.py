"""A bounded load, and a ledger of what the hub answered to it.

Messages are signed before the load begins, so their ids and bytes are the same however often they are
sent. Whoever submits repeats what failed for a passing reason, as an agency's system would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from protocol.client import Entry, HubClient, Problem, Sent
from protocol.evidence import read_receipt, verify_receipt
from protocol.message import Priority, seal
from protocol.signature import from_jwk
from tests.support.parties import Party

LANES: tuple[Priority, ...] = ("normal", "express", "urgent", "normal")


@dataclass(frozen=True, slots=True)
class Signed:
    """A message ready to be sent, any number of times."""

    id: str
    raw: bytes


def sign_messages(
    sender: Party, count: int, to: Sequence[str], priorities: Sequence[Priority] = LANES
) -> list[Signed]:
    """`count` messages from `sender`, their priorities taken in turn."""
    signed = []
    for number in range(count):
        document = sender.document(
            *to,
            id=f"{sender.name}/{number}",
            subject=f"V/v phòng, chống thiên tai và tìm kiếm cứu nạn, công văn số {number}",
            priority=priorities[number % len(priorities)],
        )
        signed.append(Signed(document.id, seal(document, sender.signer)))
    return signed


@dataclass
class Ledger:
    """What was answered: the receipt of each message, by the sender's id."""

    expected: int
    receipts: dict[str, Sent] = field(default_factory=dict)
    raws: dict[str, bytes] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self, message: Signed, sent: Sent) -> None:
        assert message.id not in self.receipts
        self.receipts[message.id] = sent
        self.raws[message.id] = message.raw
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, count: int) -> None:
        """Wait until `count` messages have their receipts."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.receipts) >= count)

    async def submit_singles(self, client: HubClient, messages: Iterable[Signed], width: int = 4) -> None:
        """Submit messages one by one, `width` at a time."""
        waiting = iter(messages)

        async def submit() -> None:
            for message in waiting:
                await self.note(message, await client.submit(message.raw))

        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(submit())

    async def submit_batches(self, client: HubClient, messages: Sequence[Signed], size: int) -> None:
        """Submit messages in batches of `size`, one batch after the other."""
        for start in range(0, len(messages), size):
            left = messages[start : start + size]
            while left:
                outcomes = await client.submit_many([message.raw for message in left])
                assert len(outcomes) == len(left)
                again = []
                for message, outcome in zip(left, outcomes, strict=True):
                    if isinstance(outcome, Problem):
                        if not outcome.retryable:
                            raise outcome
                        again.append(message)
                    else:
                        await self.note(message, outcome)
                left = again

    async def check_receipts(self, client: HubClient) -> None:
        """Everything was answered, and every receipt proves it of these bytes and this id."""
        assert len(self.receipts) == self.expected
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
        for id_, sent in self.receipts.items():
            event = verify_receipt(sent.receipt, keys.get, self.raws[id_]).event
            assert (event["event"], event["id"], event["message"]) == ("accepted", id_, sent.id)
        assert len({sent.id for sent in self.receipts.values()}) == self.expected

    def check_mailbox(self, seen: Sequence[Entry]) -> None:
        """What a mailbox gave is what was receipted: all of it, each once, as sent, in order in its lane."""
        assert sorted(entry.sender_id for entry in seen) == sorted(self.receipts)
        last: dict[str, int] = {}
        for entry in seen:
            assert entry.id == self.receipts[entry.sender_id].id
            assert entry.body == self.raws[entry.sender_id]
            assert entry.seq > last.get(entry.lane, 0), f"{entry.lane} went back to {entry.seq}"
            last[entry.lane] = entry.seq


@dataclass
class Reader:
    """Follows one mailbox with a cursor, and acknowledges as it goes.

    `acknowledge`: ``pages`` (cumulatively, by cursor), ``entries`` (one by one, the second half of each
    page before its first) or ``nothing``. `acknowledged` counts what the hub has answered to.
    """

    acknowledge: str = "pages"
    limit: int = 25
    seen: list[Entry] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    pages: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, client: HubClient, complete: asyncio.Event) -> None:
        """Read until a page is empty that was asked for after `complete`."""
        cursor = "0.0.0"
        while True:
            last = complete.is_set()
            entries, cursor = await client.read(self.limit, 0 if last else 1, cursor)
            if not entries:
                if last:
                    return
                continue
            self.seen += entries
            self.pages += 1
            if self.acknowledge == "pages":
                await client.acknowledge(up_to=cursor)
                await self._note(entries)
            elif self.acknowledge == "entries":
                middle = len(entries) // 2
                for half in (entries[middle:], entries[:middle]):
                    if half:
                        await client.acknowledge(*half)
                        await self._note(half)

    async def _note(self, entries: Sequence[Entry]) -> None:
        self.acknowledged.update(entry.seq for entry in entries)
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, count: int) -> None:
        """Wait until `count` acknowledgements have been answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.acknowledged) >= count)


async def whole_mailbox(client: HubClient) -> list[Entry]:
    """Everything that waits in a mailbox, without acknowledging it."""
    reader = Reader("nothing", limit=500)
    complete = asyncio.Event()
    complete.set()
    await reader.follow(client, complete)
    return reader.seen


async def check_ended(client: HubClient, messages: Iterable[str], endpoint: str) -> None:
    """The deliveries of `messages` to `endpoint` are acknowledged, each with a receipt that proves it."""
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
    for message in messages:
        timeline = await client.events(message)
        (delivery,) = [delivery for delivery in timeline["deliveries"] if delivery["endpoint"] == endpoint]
        assert delivery["state"] == "acknowledged"
        receipt = read_receipt(orjson.dumps(delivery))
        event = verify_receipt(receipt, keys.get).event
        assert (event["event"], event["message"], event["endpoint"]) == ("acknowledged", message, endpoint)
