"""Events, receipts and the Merkle batches that prove them; verification without a hub.

The hub signs once per commit batch, not once per event (a signature costs 41 µs, a leaf 1 µs):

    event  ── SHA-256(0x00 ‖ event) ──► leaf ─┐
    event  ───────────────────────────► leaf ─┼─► root ──► seal: a JWS by the hub over the root
    event  ───────────────────────────► leaf ─┘

A *receipt* is one event as the exact text that was hashed, the path from its leaf to the root, and
the seal. Whoever holds the receipt and the hub's public key can check it on an aeroplane. Hashes and
paths are those of RFC 9162, section 2.1 (leaf prefix 0x00, node prefix 0x01), so that a tree of
another size cannot be passed off as this one.

`event` stays a string in the receipt on purpose: its bytes are what was signed, so no canonical form
of JSON has to be agreed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import orjson

from protocol.problems import LienthongError, Problem
from protocol.signature import PublicKey, Signer, b64url, parse, unb64url, verify

SEAL_TYPE = "lienthong-seal+1"
RECEIPT_MEDIA_TYPE = "application/vnd.lienthong.receipt+json"
HASH_BYTES = 32


class EventKind(StrEnum):
    """What can be proven to have happened to a message; `STANDARD_EVENTS` has the standard's names."""

    ACCEPTED = "accepted"
    """The hub has it, and so has the mailbox of each recipient: both are one commit."""
    REJECTED = "rejected"
    RELAYED = "relayed"
    """Another hub has it, and said so."""
    RELAY_REJECTED = "relay_rejected"
    RELAY_FAILED = "relay_failed"
    HANDED_OVER = "handed_over"
    """Its bytes were given to the recipient's system."""
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    EXPIRED = "expired"
    RECALLED = "recalled"
    """Taken back by its sender before it was handed over."""
    SIGNATURES_CHECKED = "signatures_checked"
    """The signatures in a PDF among its attachments were looked at; what was found stands in `pdf`."""


STANDARD_EVENTS: dict[EventKind, tuple[str, ...]] = {
    EventKind.ACCEPTED: ("A.1 SubmissionAcceptance", "D.1 ContentConsignment"),
    EventKind.REJECTED: ("A.2 SubmissionRejection",),
    EventKind.RELAYED: ("B.1 RelayAcceptance",),
    EventKind.RELAY_REJECTED: ("B.2 RelayRejection",),
    EventKind.RELAY_FAILED: ("B.3 RelayFailure",),
    EventKind.HANDED_OVER: ("E.1 ContentHandover",),
    EventKind.ACKNOWLEDGED: ("C.3 ConsignmentAcceptance",),
    EventKind.REFUSED: ("C.4 ConsignmentRejection",),
    EventKind.EXPIRED: ("C.5 AcceptanceRejectionExpiry",),
    EventKind.RECALLED: (),
    EventKind.SIGNATURES_CHECKED: (),
}
"""The events of ETSI EN 319 522-1, clause 6, that each of ours is. The standard knows no taking back, and no
looking at what is delivered."""
EVENT_URI = "http://uri.etsi.org/19522/Event/"
"""Before the standard's name (without its number) it makes the identifier of EN 319 522-3, table 2."""


class EvidenceError(LienthongError):
    """A receipt that proves nothing; the message says at which step it fails."""


# -- Merkle trees (RFC 9162, section 2.1) -------------------------------------------------------


def leaf_hash(event: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + event).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Every level of the tree, leaves first; a lone last node moves up unhashed."""
    level = list(leaves)
    levels = [level]
    sha256 = hashlib.sha256
    while len(level) > 1:
        above = [
            sha256(b"\x01" + level[index] + level[index + 1]).digest() for index in range(0, len(level) - 1, 2)
        ]
        if len(level) & 1:
            above.append(level[-1])
        levels.append(above)
        level = above
    return levels


class Tree:
    """A Merkle tree over the leaf hashes of one batch (at least one leaf)."""

    __slots__ = ("levels", "size")

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("a batch has at least one event")
        self.size = len(leaves)
        self.levels = _levels(leaves)

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    def path(self, index: int) -> list[bytes]:
        """The sibling hashes from leaf `index` up to the root."""
        path = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return path


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that `path` leads to from `leaf` at `index` in a tree of `size` leaves.

    RFC 9162, section 2.1.3.2. Raises EvidenceError when the path cannot belong to such a tree.
    """
    if not 0 <= index < size:
        raise EvidenceError("the receipt's index lies outside its batch")
    node, last, hash_ = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise EvidenceError("the receipt's path is longer than its batch is deep")
        if node & 1 or node == last:
            hash_ = _node(sibling, hash_)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            hash_ = _node(hash_, sibling)
        node >>= 1
        last >>= 1
    if last:
        raise EvidenceError("the receipt's path is shorter than its batch is deep")
    return hash_


# -- receipts -----------------------------------------------------------------------------------


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event and the proof of it."""

    event: Annotated[str, msgspec.Meta(description="The event's JSON, exactly as it was hashed")]
    index: Annotated[int, msgspec.Meta(ge=0, description="The event's place in its batch, from 0")]
    size: Annotated[int, msgspec.Meta(ge=1, description="How many events the batch has")]
    path: Annotated[
        tuple[str, ...], msgspec.Meta(max_length=64, description="Sibling hashes up to the root, base64url")
    ]
    seal: Annotated[str, msgspec.Meta(description="Compact JWS by the hub over the batch's root")]

    def to_json(self) -> bytes:
        return _encode(self)


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Receipt).decode


def read_receipt(data: bytes) -> Receipt:
    """A receipt from its JSON, or from an answer of the hub that holds one under `receipt`.

    Raises EvidenceError.
    """
    try:
        members = orjson.loads(data)
        if isinstance(members, dict) and isinstance(members.get("receipt"), dict):
            return msgspec.convert(members["receipt"], Receipt)
        return _decode(data)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise EvidenceError(f"this is not a receipt: {error}") from None


@lru_cache(maxsize=1024)  # all events of a batch have the same
def timestamp(moment: datetime) -> str:
    """A moment as evidence writes it: RFC 3339, UTC, microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


LONGEST_PROMISE_SECONDS: Final = 7 * 86_400
"""No hub promises to take longer, and verifiers and auditors take nothing longer for a promise unless told to:
otherwise a hub that says "within ten years" could keep an event to itself and never be caught."""


class Promise(msgspec.Struct, frozen=True):
    """What a seal promises: within `seconds` its events are in the transparency log called `origin`."""

    origin: str
    seconds: float


class Sealer:
    """Turns a batch's events into receipts, with one signature."""

    def __init__(self, hub: str, signer: Signer, promise: Promise | None = None) -> None:
        self.hub = hub
        self._promise = promise
        self.slow = signer.slow
        """Whether sealing may take long: then not on an event loop."""
        self._signer = signer

    def seal(self, tree: Tree, batch: str, at: datetime) -> str:
        """The seal over a batch: what the hub signs. Raises SigningError when a key in a token cannot be used."""
        sealed: dict[str, object] = {
            "hub": self.hub,
            "batch": batch,
            "at": timestamp(at),
            "size": tree.size,
            "root": b64url(tree.root),
        }
        if self._promise is not None:
            sealed["log"] = self._promise.origin
            sealed["logged_by"] = timestamp(at + timedelta(seconds=self._promise.seconds))
        return self._signer.sign(orjson.dumps(sealed)).decode()


def receipt(event: str, index: int, tree: Tree, seal: str) -> Receipt:
    """The receipt of the event at `index` in a sealed tree."""
    return Receipt(event, index, tree.size, tuple(map(b64url, tree.path(index))), seal)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a receipt was found to prove.

    `log` and `logged_by` are the seal's promise: in which transparency log the event is, at the latest when. None
    where it makes none.
    """

    event: dict[str, Any]
    hub: str
    batch: str
    sealed_at: str
    kid: str
    log: str | None = None
    logged_by: str | None = None


KeyLookup = Callable[[str], PublicKey | None]


def verify_receipt(receipt: Receipt, key_of: KeyLookup, document: bytes | None = None) -> Verified:
    """Check a receipt with nothing but the hub's public key.

    `key_of` gives the hub's public key for a `kid`, or None when it is not trusted. With `document`
    (the message's bytes as sent) it is also checked that the event speaks of exactly those bytes.
    Raises EvidenceError naming the first step that fails.
    """
    try:
        jws = parse(receipt.seal.encode("ascii"))
        sealed = orjson.loads(jws.payload)
        root = unb64url(sealed["root"].encode("ascii"))
        size, hub, batch, at = sealed["size"], sealed["hub"], sealed["batch"], sealed["at"]
        log, logged_by = sealed.get("log"), sealed.get("logged_by")
        path = [unb64url(step.encode("ascii")) for step in receipt.path]
        event = orjson.loads(receipt.event)
    except Problem as problem:
        raise EvidenceError(f"the seal is not a JWS: {problem}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EvidenceError("the receipt's seal, path or event cannot be read") from None
    if jws.header.get("typ") != SEAL_TYPE:
        raise EvidenceError("the receipt's seal is a JWS of another type; it does not seal a batch")
    if any(len(step) != HASH_BYTES for step in path) or not isinstance(event, dict):
        raise EvidenceError("the receipt's path or event cannot be read")
    key = key_of(jws.kid)
    if key is None:
        raise EvidenceError(f"the seal was made with the key {jws.kid}, which is not among the trusted hub keys")
    if not verify(key, jws.alg, jws.signature, jws.signing_input):
        raise EvidenceError("the hub's signature on the seal is wrong")
    if size != receipt.size:
        raise EvidenceError("the receipt names another batch size than its seal")
    leaf = leaf_hash(receipt.event.encode())
    if root_from_path(leaf, receipt.index, receipt.size, path) != root:
        raise EvidenceError("the event is not in the sealed batch: its text, place or path was altered")
    if document is not None and event.get("sha256") != hashlib.sha256(document).hexdigest():
        raise EvidenceError("the receipt is genuine but speaks of another document than the one given")
    promise = (str(log), str(logged_by)) if log is not None and logged_by is not None else (None, None)
    return Verified(event, str(hub), str(batch), str(at), jws.kid, *promise)


def recipients_digest(codes: Iterable[str]) -> str:
    """The digest under which an event names its recipients: SHA-256 over sorted codes, each with a line feed.

    One digest, because a message to 3,000 agencies would otherwise carry a receipt of 50 KB.
    """
    return hashlib.sha256("".join(f"{code}\n" for code in sorted(codes)).encode()).hexdigest()
