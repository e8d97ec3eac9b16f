"""What is asked of a message that comes over a link, before it is taken in like any other.

It must have been signed with a key that the peer vouches for, by an agency that lies on the peer's side; it must
be addressed to whom the peer says it is for; and it may not have been here before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import orjson
import structlog

from hub.directory.picture import Agency, Picture
from hub.relay.route import Route, Router, require_reachable
from hub.relay.verify import find_signer
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.edxml import Header
from protocol.link import MAX_HOPS, Beside
from protocol.problems import Problem
from protocol.signature import Jws, PublicKey

log = structlog.get_logger()
SQL = sql.load("links")

BACK = "here it is known to lie where the message comes from"
CLOCK = timedelta(minutes=5)
"""How far a peer's clock may be ahead."""


def require_new(beside: Beside, own_keys: frozenset[str]) -> None:
    """Refuse what has been here before, or goes in a circle elsewhere. Raises `Problem` loop."""
    if not own_keys.isdisjoint(beside.hops):
        raise Problem("loop", "the message has passed through this hub before: links between hubs form a circle")
    if len(beside.hops) >= MAX_HOPS:
        raise Problem("loop", f"the message has passed through {len(beside.hops)} hubs: links form a circle")


def require_untraced(picture: Picture, header: Header, sender: str) -> None:
    """Refuse an edXML message of somebody else's that has this hub's TraceHeader. Raises `Problem` loop.

    What agencies of the own branch send may name their own unit as the first system on its way.
    """
    seen = picture.own_codes.intersection(header.traced)
    if seen and not any(picture.in_branch(link, sender) for link in picture.links.values()):
        raise Problem(
            "loop", f"TraceHeaders say that it has passed through {min(seen)}, this hub: links form a circle"
        )


def find_beyond(picture: Picture, jws: Jws, endpoint: int, agency: str, beside: Beside) -> tuple[PublicKey, str]:
    """The key that the peer vouches for, and what the sealed event says of the signer; or one registered here.

    Raises `Problem` key-not-approved, or as `find_signer`. Whether its time had come is asked of the moment when
    the peer took the message in: it may have waited for the link.
    """
    key = picture.beyond_keys.get((endpoint, jws.kid))
    if key is None or not key.present:
        found, signer = find_signer(picture, jws, endpoint, agency)
        return found.public, signer
    known = picture.agency(agency)
    own = key.agency == agency if key.agency else known is not None and known.system == key.system
    if not own or known is None or known.endpoint != endpoint:
        raise Problem("key-not-yours", f"the linked hub does not vouch for this key as one of {agency}")
    if not key.approved:
        waits = key.approved is None
        raise Problem(
            "key-not-approved" if waits else "key-disabled",
            "the key waits for the approval of this hub's operator"
            if waits
            else "this hub's operator rejected the key",
            retry_after=60 if waits else None,
        )
    at = min(beside.accepted_at, datetime.now(UTC) + CLOCK)
    if (key.not_before is not None and at < key.not_before) or (key.not_after is not None and at >= key.not_after):
        raise Problem(
            "key-expired", f"the key was not valid at {at:%Y-%m-%dT%H:%MZ}, when the linked hub took it in"
        )
    vouched = {"kid": jws.kid, "vouched_by": picture.endpoint_name(endpoint)}
    return key.public, orjson.dumps(vouched).decode()


def is_named_for_another(picture: Picture, endpoint: int, agency: Agency, id_: str) -> bool:
    """Whether a sender's id is what this hub would call a message of another agency beyond the same link.

    Whoever takes that name, and the id itself, could keep the other's message out: ids are easily guessed.
    """
    other = picture.agencies.get(id_.partition("/")[0]) if "/" in id_ else None
    return other is not None and other.endpoint == endpoint and other.code != agency.code


def route_beyond(router: Router, picture: Picture, endpoint: int, beside: Beside, to: Sequence[str]) -> Route:
    """Where a message goes that a link or a hub below brings: to those for whom it is passed on.

    `to` is what the sender signed. Whoever it does not name cannot be made its recipient by a hub on the way; as
    far as can be told here, since a group or a code may mean something at the other hub alone. Raises `Problem`.
    """
    for code in _unnamed(picture, beside.recipients, to):
        raise Problem("recipient-unknown", f"the message is not addressed to {code}, for whom it is passed on")
    found = router.route(picture, beside.recipients)
    if back := found.endpoints.get(endpoint):
        others = {other: codes for other, codes in found.endpoints.items() if other != endpoint}
        found = Route(others, [*found.unreachable, *((code, BACK) for code in back)])
    require_reachable(found, report=True)
    return found


def _unnamed(picture: Picture, recipients: Sequence[str], to: Sequence[str]) -> Iterable[str]:
    named = set(to)
    if named.issuperset(recipients):
        return
    for address in to:
        agency = None if ":" in address else picture.agency(address)
        if agency is None:
            return
        named.add(agency.code)
    for code in recipients:
        known = picture.agency(code)
        if code not in named and (known is None or known.code not in named):
            yield code


class Hops:
    """Keeps through which hubs messages came, for one process."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], own_key: str, own_keys: Iterable[str]) -> None:
        """`own_key`: the thumbprint of this hub's key; `own_keys`: of all that it ever had."""
        self._pool = pool
        self._own_key = own_key
        self.own_keys = frozenset(own_keys) | {own_key}

    async def keep(self, messages: Sequence[tuple[UUID, Beside]]) -> None:
        """Note the ways of messages that are to be committed. Raises `Problem` store-unavailable."""
        noted = [(id_, " ".join(beside.hops)) for id_, beside in messages if beside.hops]
        if not noted:
            return
        try:
            await self._pool.execute(SQL.add_hops, [id_ for id_, _ in noted], [hops for _, hops in noted])
        except (*UNAVAILABLE, TimeoutError) as error:
            log.error("hops could not be noted", error=str(error))
            raise Problem("store-unavailable", "nothing is lost: send it again", retry_after=2) from None

    async def onward(self, messages: Sequence[UUID]) -> dict[UUID, tuple[str, ...]]:
        """The hubs that each message has passed through when it leaves here, this one the last."""
        rows = await self._pool.fetch(SQL.hops, list(messages))
        came = {row["message"]: tuple(row["hops"]) for row in rows}
        return {id_: (*came.get(id_, ()), self._own_key) for id_ in messages}
