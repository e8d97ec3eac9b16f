"""The texts of events, and receipts made from them.

An event's text is what is hashed and sealed, so it is written in one place. `accepted` and `rejected`
are stored as they are. The events that end a delivery are stored as runs (one row for hundreds of
entries, hub/store/migrations) and their texts derived again when somebody asks; `ended` must therefore
never change how it writes an event that has been sealed. Whoever derives one checks it against the
stored leaf hash before handing it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson

from protocol.evidence import HASH_BYTES, EventKind, Receipt, Tree, leaf_hash, receipt
from protocol.signature import b64url

ENDED_KINDS = (EventKind.ACKNOWLEDGED, EventKind.REFUSED, EventKind.EXPIRED)
"""The kinds that end a delivery; a row of `progress` holds the index."""


def accepted(
    at: str,
    message: UUID,
    endpoint: str,
    sender: str,
    sender_id: str,
    digest: bytes,
    size: int,
    lane: str,
    recipients: int,
    recipients_sha256: str,
    unreachable: list[dict[str, str]],
) -> str:
    event = {
        "event": EventKind.ACCEPTED,
        "at": at,
        "message": str(message),
        "from": sender,
        "id": sender_id,
        "endpoint": endpoint,
        "sha256": digest.hex(),
        "size": size,
        "lane": lane,
        "recipients": recipients,
        "recipients_sha256": recipients_sha256,
    }
    if unreachable:
        event["unreachable"] = unreachable
    return orjson.dumps(event).decode()


def rejected(at: str, rejection: UUID, endpoint: str, digest: bytes, code: str, detail: str) -> str:
    return orjson.dumps(
        {
            "event": EventKind.REJECTED,
            "at": at,
            "rejection": str(rejection),
            "endpoint": endpoint,
            "sha256": digest.hex(),
            "code": code,
            "reason": detail,
        }
    ).decode()


def ended(
    kind: EventKind,
    at: str,
    message: UUID,
    sender: str,
    sender_id: str,
    digest: bytes,
    endpoint: str,
    agencies: list[str],
    reason: str | None,
) -> str:
    event = {
        "event": kind,
        "at": at,
        "message": str(message),
        "from": sender,
        "id": sender_id,
        "sha256": digest.hex(),
        "endpoint": endpoint,
        "recipients": agencies,
    }
    if reason is not None:
        event["reason"] = reason
    return orjson.dumps(event).decode()


def receipts_json(tree: Tree, events: Sequence[str], seal: str) -> list[bytes]:
    """The receipts of all events of a batch, as JSON.

    Every inner hash is encoded once, though it stands in many paths; the bytes are those that
    `Receipt.to_json` would give.
    """
    encoded = [[b64url(node) for node in level] for level in tree.levels]
    tail = b',"seal":' + orjson.dumps(seal) + b"}"
    written = []
    for index, event in enumerate(events):
        path = []
        place = index
        for level in encoded[:-1]:
            sibling = place ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            place >>= 1
        head = b'{"event":%b,"index":%d,"size":%d,"path":%b' % (
            orjson.dumps(event),
            index,
            tree.size,
            orjson.dumps(path),
        )
        written.append(head + tail)
    return written


def leaves_of(stored: bytes) -> list[bytes]:
    """A batch's leaf hashes from its column."""
    return [stored[start : start + HASH_BYTES] for start in range(0, len(stored), HASH_BYTES)]


def stored_receipt(event: str, leaf: int, stored_leaves: bytes, seal: str) -> Receipt | None:
    """The receipt of an event from what the store holds; None when the store does not hold that event.

    None means that a derived text differs from what was sealed. It must not be handed out.
    """
    leaves = leaves_of(stored_leaves)
    if not 0 <= leaf < len(leaves) or leaf_hash(event.encode()) != leaves[leaf]:
        return None
    return receipt(event, leaf, Tree(leaves), seal)
