"""The texts of events, and receipts made from them.

An event's text is what is hashed and sealed, so it is written in one place. `accepted` and `rejected`
are stored as they are. The events that end a delivery are stored as runs (one row for hundreds of
entries, hub/store/migrations), and so are hand-overs that are sealed by themselves; their texts are derived again
when somebody asks. `about` and `around` must therefore never change how they write an event that has been sealed.
Whoever derives one checks it against the stored leaf hash before handing it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from uuid import UUID

import orjson
import pybase64

from protocol.evidence import HASH_BYTES, EventKind, Receipt, Tree, leaf_hash, receipt

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
    signer: str = "",
) -> str:
    """`signer`: JSON of who signed it (`hub.directory.trust_standing`); empty where no signature was checked."""
    more = f',"unreachable":{orjson.dumps(unreachable).decode()}' if unreachable else ""
    if signer:
        more += f',"signer":{signer}'
    return (
        f'{{"event":"{_ACCEPTED}","at":"{at}","message":{_uuid(message)},"from":{_quoted(sender)},'
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


def about(message: UUID, sender: str, sender_id: str, digest: bytes, endpoint: str, agencies: list[str]) -> str:
    """What all events of one delivery say alike: members of a JSON object, without its braces."""
    return (
        f'"message":{_uuid(message)},"from":{_quoted(sender)},'
        f'"id":{orjson.dumps(sender_id).decode()},"sha256":"{digest.hex()}","endpoint":{_quoted(endpoint)},'
        f'"recipients":{orjson.dumps(agencies).decode()}'
    )


def around(
    kind: EventKind,
    at: str,
    code: str | None = None,
    reason: str | None = None,
    acknowledgement: str | None = None,
    handed_over_at: str | None = None,
) -> tuple[str, str]:
    """What stands before and after `about` in the event of a delivery.

    `code`: of `protocol.reasons`; None in what was sealed before there were codes. `acknowledgement`: the SHA-256
    (hex) of what the recipient signed. `handed_over_at`: by when the recipient had been given it, in an event that
    ends a delivery of which the hand-over has no event of its own.
    """
    more = "" if code is None else f',"code":"{code}"'
    if reason is not None:
        more += f',"reason":{orjson.dumps(reason).decode()}'
    if acknowledgement is not None:
        more += f',"acknowledgement":"{acknowledgement}"'
    if handed_over_at is not None:
        more += f',"handed_over_at":"{handed_over_at}"'
    return f'{{"event":"{kind}","at":"{at}",', more + "}"


def of_delivery(
    kind: EventKind,
    at: str,
    delivery: str,
    code: str | None = None,
    reason: str | None = None,
    acknowledgement: str | None = None,
    handed_over_at: str | None = None,
) -> str:
    """The event of a delivery, `delivery` being what `about` says of it."""
    before, after = around(kind, at, code, reason, acknowledgement, handed_over_at)
    return before + delivery + after


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    """A name as JSON. The same few come always."""
    return orjson.dumps(name).decode()


def _uuid(id_: UUID) -> str:
    """A UUID as JSON, in a fifth of the time that its own `str` takes."""
    return orjson.dumps(id_, default=str).decode()  # that of asyncpg is not the standard one


def _quoted_hashes(level: Sequence[bytes]) -> list[bytes]:
    """Hashes as JSON strings in base64url. Encoded together: 33 bytes at a time are 44 characters, of which the
    last is the filler's."""
    encoded = pybase64.urlsafe_b64encode(b"\0".join(level) + b"\0")
    return [b'"%b"' % encoded[start : start + 43] for start in range(0, len(encoded), 44)]


def receipts_json(tree: Tree, events: Sequence[str], seal: str) -> list[bytes]:
    """The receipts of all events of a batch, as JSON.

    From the root down, each node's path is its sibling and then its parent's path, so that every hash is encoded
    and every path joined once. The bytes are those that `Receipt.to_json` would give.
    """
    paths = [b""]
    for level in reversed(tree.levels[:-1]):
        quoted = _quoted_hashes(level)
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
    if not leaves:
        return None
    return receipt_in(Tree(leaves), event, leaf, seal)


def receipt_in(tree: Tree, event: str, leaf: int, seal: str) -> Receipt | None:
    """The same, from the tree over the batch's leaves."""
    leaves = tree.levels[0]
    if not 0 <= leaf < len(leaves) or leaf_hash(event.encode()) != leaves[leaf]:
        return None
    return receipt(event, leaf, tree, seal)
