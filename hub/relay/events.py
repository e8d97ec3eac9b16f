"""The texts of events, and receipts made from them.

An event's text is what is hashed and sealed, so it is written in one place. `accepted` and `rejected`
are stored as they are. The events that end a delivery are stored as runs (one row for hundreds of
entries, hub/store/migrations) and their texts derived again when somebody asks; `ended` must therefore
never change how it writes an event that has been sealed. Whoever derives one checks it against the
stored leaf hash before handing it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

import orjson

from protocol.evidence import HASH_BYTES, EventKind, Receipt, Tree, leaf_hash, receipt
from protocol.signature import b64url

_ACCEPTED = EventKind.ACCEPTED
ENDED_KINDS = (EventKind.ACKNOWLEDGED, EventKind.REFUSED, EventKind.EXPIRED, EventKind.RECALLED)
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
    more = f',"unreachable":{orjson.dumps(unreachable).decode()}' if unreachable else ""
    return (
        f'{{"event":"{_ACCEPTED}","at":"{at}","message":"{message}","from":{_quoted(sender)},'
        f'"id":{orjson.dumps(sender_id).decode()},"endpoint":{_quoted(endpoint)},"sha256":"{digest.hex()}",'
        f'"size":{size},"lane":"{lane}","recipients":{recipients},'
        f'"recipients_sha256":"{recipients_sha256}"{more}}}'
    )


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
    more = "" if reason is None else f',"reason":{orjson.dumps(reason).decode()}'
    return (
        f'{{"event":"{kind}","at":"{at}","message":"{message}","from":{_quoted(sender)},'
        f'"id":{orjson.dumps(sender_id).decode()},"sha256":"{digest.hex()}","endpoint":{_quoted(endpoint)},'
        f'"recipients":{orjson.dumps(agencies).decode()}{more}}}'
    )


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    """A name as JSON. The same few come always."""
    return orjson.dumps(name).decode()


def receipts_json(tree: Tree, events: Sequence[str], seal: str) -> list[bytes]:
    """The receipts of all events of a batch, as JSON.

    From the root down, each node's path is its sibling and then its parent's path, so that every hash is encoded
    and every path joined once. The bytes are those that `Receipt.to_json` would give.
    """
    paths = [b""]
    for level in reversed(tree.levels[:-1]):
        quoted = [b'"' + b64url(node).encode() + b'"' for node in level]
        count = len(level)
        below = []
        for place in range(count):
            above = paths[place >> 1]
            sibling = place ^ 1
            if sibling >= count:
                below.append(above)  # a lone last node moves up as it is
            elif above:
                below.append(quoted[sibling] + b"," + above)
            else:
                below.append(quoted[sibling])
        paths = below
    size = tree.size
    tail = b'],"seal":' + orjson.dumps(seal) + b"}"
    return [
        b'{"event":%b,"index":%d,"size":%d,"path":[%b%b' % (orjson.dumps(event), index, size, path, tail)
        for index, (event, path) in enumerate(zip(events, paths, strict=True))
    ]


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
