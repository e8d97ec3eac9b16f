"""The part of an audit that looks at events: receipts that somebody holds, and what the hub's store still has.

A receipt is looked for in the log: is its event there, at the place that the hub says, and was it in time? The
other way round, entries are picked from the log, and the hub is asked for their events (operators and auditors):
one that was altered or deleted afterwards no longer fits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from protocol.audit import late, moment, own_key
from protocol.audit_evidence import BrokenPromise, Evidence, in_log, lookup
from protocol.client.audit import Audit
from protocol.client.log import FetchError, Tree
from protocol.evidence import (
    LONGEST_PROMISE_SECONDS,
    EvidenceError,
    KeyLookup,
    Receipt,
    Verified,
    leaf_hash,
    read_receipt,
    timestamp,
    verify_receipt,
)
from protocol.findings import Finding, shown
from protocol.log import read_proof

SAMPLES = 16
HISTORIES = 8
"""Messages whose whole history is looked at, of those that the sampled events speak of."""
CLOCKS = timedelta(minutes=1)
"""How far the auditor's clock and the hub's may differ before a promise is called broken."""
MAX_RECEIPTS = 1000
"""Of one history."""


class EventAudit:
    """Goes on where `Audit.run` ends."""

    def __init__(self, audit: Audit, hub_keys: Sequence[dict[str, str]]) -> None:
        """`hub_keys`: JWKs by which the hub's seals are checked. Raises EvidenceError."""
        self._audit = audit
        self._jwks = tuple(hub_keys)
        self._key_of: KeyLookup = lookup(self._jwks)
        self._later: dict[int, str] = {}
        """Checkpoints newer than the audit's that proofs led to, by size."""
        self._messages: set[str] = set()
        """What genuine receipts are about."""

    # -- receipts -------------------------------------------------------------------------------

    async def receipts(self, held: Sequence[tuple[str, bytes]]) -> None:
        """Look for receipts, by the names of their files, in the log."""
        for name, data in held:
            try:
                receipt = read_receipt(data)
                verified = verify_receipt(receipt, self._key_of)
            except EvidenceError as error:
                self._audit.tell("untrusted-receipt", f"{name}: {error}")
                continue
            if message := _message(receipt.event):
                self._messages.add(message)
            with self._audit.step(name):
                if await self._held(name, receipt, verified):
                    self._audit.report.receipts += 1
        await self._compare_later()

    async def _held(self, name: str, receipt: Receipt, verified: Verified) -> bool:
        """Whether a genuine receipt's event is in the log; says what is wrong if it should be and is not."""
        audit, event = self._audit, receipt.event.encode()
        if verified.log != audit.remembered.origin or verified.logged_by is None:
            audit.tell("no-promise", name)
            return False
        logged_by = moment(verified.logged_by)
        place, proof = audit.places.get(leaf_hash(event)), None
        if place is None:
            proof = await audit.client.proof(verified.batch, receipt.index)
            place = None if proof is None else in_log(proof, event, audit.keys)
            if place is not None and proof is not None:
                place = await self._agreed(proof, place, leaf_hash(event))
        if place is None:
            if audit.clock() <= logged_by + CLOCKS:
                wrong = "" if proof is None else "; what the hub gives as proof is wrong"
                far = logged_by > moment(verified.sealed_at) + timedelta(seconds=LONGEST_PROMISE_SECONDS)
                audit.tell("far-promise" if far else "waiting", f"{name}: until {shown(logged_by)}{wrong}")
            else:
                audit.report.add(self._broken(name, receipt, verified, proof))
            return False
        if (at := late(audit.remembered, place, logged_by + CLOCKS)) is not None:
            audit.tell(
                "late",
                f"{name}: promised until {shown(logged_by)}; at {shown(at)} the log did not have it "
                f"yet. It is entry {place} now",
            )
        return True

    async def _agreed(self, proof: str, place: int, leaf: bytes) -> int | None:
        """The place that a proof shows, if its log is the one that is shown."""
        audit, checkpoint = self._audit, read_proof(proof).checkpoint
        seen = own_key(checkpoint, audit.keys)._replace(where="the hub's own proof", at=audit.clock())
        if audit.tree is None:
            return place
        if seen.size > audit.tree.size:  # the log has grown since the audit began
            self._later[seen.size] = checkpoint
        elif not await audit.compare(seen):
            return None
        if place < audit.tree.size and await audit.tree.entry(place) != leaf:
            return None
        return place

    async def _compare_later(self) -> None:
        """What proofs led to must be the log that was audited, grown."""
        audit = self._audit
        for size in sorted(self._later, reverse=True)[:1] if audit.tree is not None else ():
            with audit.step("the hub's proofs"):
                assert audit.tree is not None
                before = audit.tree.seen
                seen = own_key(self._later[size], audit.keys)._replace(where="the hub", at=audit.clock())
                later = Tree(audit.client, seen)
                await later.open()
                audit.tree = later
                await audit.compare(before._replace(where="a moment ago the hub"))
        self._later.clear()

    def _broken(self, name: str, receipt: Receipt, verified: Verified, proof: str | None) -> Finding:
        audit = self._audit
        kind, logged_by = verified.event.get("event"), verified.logged_by
        assert logged_by is not None
        size = audit.report.seen.size if audit.report.seen else 0
        rest = "and gives no proof of it" if proof is None else "and what it gives as proof is wrong"
        said = (
            f"{name}: the event {str(kind)[:40]!r} was promised to be in the log until "
            f"{shown(moment(logged_by))}; the hub shows {size} entries {rest}"
        )
        evidence = None
        if audit.note:
            broken = BrokenPromise(
                receipt.to_json().decode(),
                tuple(self._jwks),
                tuple(map(str, audit.keys)),
                audit.note,
                proof,
            )
            evidence = Evidence(
                code="broken-promise",
                origin=audit.remembered.origin,
                found_at=timestamp(audit.clock()),
                said=said,
                promise=broken,
            )
        return Finding("broken-promise", said, evidence)

    # -- the hub's store ------------------------------------------------------------------------

    async def sample(self, count: int = SAMPLES) -> None:
        """Pick entries of the log, and compare what the hub's store says of them."""
        audit = self._audit
        if audit.tree is None or not audit.tree.size:
            return
        tree, messages = audit.tree, set[str]()
        for index in audit.chance.sample(range(tree.size), min(count, tree.size)):
            try:
                told = await audit.client.event(index)
            except FetchError as error:
                if error.status in (401, 403):
                    await self._own(error)
                    return
                audit.fail(f"the event of entry {index}", error)
                continue
            with audit.step(f"the event of entry {index}"):
                message = self._event(index, await tree.entry(index), told)
                if message:
                    messages.add(message)
        for message in sorted(messages)[:HISTORIES]:
            await self.history(message)
        await self._compare_later()

    async def _own(self, error: FetchError) -> None:
        """What an endpoint may see: the histories of messages whose receipts it holds."""
        if error.status == 401 or not self._messages:
            self._audit.tell("forbidden", str(error))
            return
        messages = sorted(self._messages)
        for message in self._audit.chance.sample(messages, min(HISTORIES, len(messages))):
            await self.history(message)
        await self._compare_later()

    def _event(self, index: int, entry: bytes, told: dict[str, Any]) -> str:
        """Compare an event of the store with its entry; gives the message that it is about."""
        audit, where = self._audit, f"entry {index}, batch {str(told.get('batch'))[:40]}"
        if told.get("state") == "missing":
            audit.tell("event-missing", where)
        text = told.get("event")
        if told.get("state") != "kept" or not isinstance(text, str):
            return ""
        message = _message(text)
        if leaf_hash(text.encode()) != entry:
            audit.tell("event-altered", f"{where}, message {message or 'unknown'}")
            return ""
        if told.get("receipt") is None:
            audit.tell("receipt-lost", f"{where}, message {message or 'unknown'}")
            return ""
        try:
            verified = verify_receipt(read_receipt(msgspec.json.encode(told["receipt"])), self._key_of)
        except EvidenceError as error:
            audit.tell("bad-receipt", f"{where}: {error}")
            return ""
        if verified.logged_by is not None and verified.log == audit.remembered.origin:
            by = moment(verified.logged_by)
            if (at := late(audit.remembered, index, by + CLOCKS)) is not None:
                audit.tell("late", f"{where}: promised until {shown(by)}, not there at {shown(at)}")
        audit.report.events += 1
        return message

    async def history(self, message: str) -> None:
        """Check every receipt that the hub gives for a message."""
        audit, where = self._audit, f"the history of {message}"
        try:
            told = await audit.client.history(message)
        except FetchError as error:
            if error.status == 500:
                audit.tell("receipt-lost", f"{where}: {error}")
            elif error.status == 404:
                audit.tell("gone", where)
            else:
                audit.fail(where, error)
            return
        for receipt in _receipts(told):
            try:
                verified = verify_receipt(receipt, self._key_of)
            except EvidenceError as error:
                audit.tell("bad-receipt", f"{where}: {error}")
                continue
            with audit.step(where):
                if await self._held(f"{where}, {str(verified.event.get('event'))[:40]}", receipt, verified):
                    audit.report.events += 1


def _message(event: str) -> str:
    try:
        members = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    found = members.get("message") if isinstance(members, dict) else None
    return found if isinstance(found, str) and len(found) == 36 else ""


def _receipts(told: dict[str, Any]) -> list[Receipt]:
    """All receipts in an answer, wherever they stand in it, each once."""

    def look(value: Any) -> Iterator[Receipt]:
        if isinstance(value, dict):
            if value.keys() >= {"event", "index", "size", "path", "seal"}:
                with contextlib.suppress(msgspec.ValidationError):
                    yield msgspec.convert(value, Receipt)
            else:
                for member in value.values():
                    yield from look(member)
        elif isinstance(value, list):
            for member in value:
                yield from look(member)

    found: dict[Receipt, None] = {}
    for receipt in look(told):
        found[receipt] = None
        if len(found) == MAX_RECEIPTS:
            break
    return list(found)
