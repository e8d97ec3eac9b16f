"""Who gets a message: addresses to agencies to endpoints, in one picture of the directory.

A sender writes to the same recipients again and again, and a circular goes to hundreds: a `Route` is made
once for a list of addresses and shared by all messages that have it (`Router`), together with what is
derived from it. Routes are never changed once made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from hub.directory.picture import Agency, Link, Picture
from hub.store.routes import StoredRoute, stored
from protocol.agency import is_code
from protocol.evidence import recipients_digest
from protocol.message import MAX_RECIPIENTS
from protocol.problems import Problem

REMEMBERED_RECIPIENTS = 200_000
"""Recipients in the routes that a process remembers, altogether (about 20 MB)."""


@dataclass(eq=False)
class Route:
    """Where a message goes.

    `endpoints` maps an endpoint's id to the codes of the agencies it is addressed to there. `unreachable`
    holds (address or code, reason) of what was asked for and cannot be.
    """

    endpoints: dict[int, list[str]] = field(default_factory=dict)
    unreachable: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def recipients(self) -> int:
        return sum(map(len, self.endpoints.values()))

    def codes(self) -> Iterable[str]:
        for codes in self.endpoints.values():
            yield from codes

    @cached_property
    def digest(self) -> str:
        """What a receipt says of the recipients (`protocol.evidence.recipients_digest`)."""
        return recipients_digest(self.codes())

    @cached_property
    def stored(self) -> StoredRoute:
        """How the store keeps it."""
        return stored(self.endpoints)

    @cached_property
    def unreachable_members(self) -> list[dict[str, str]]:
        return [{"recipient": recipient, "reason": reason} for recipient, reason in self.unreachable]


class Router:
    """Resolves addresses for one process."""

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._routes: dict[tuple[str, ...], Route] = {}
        self._held = 0

    def route(self, picture: Picture, addresses: tuple[str, ...]) -> Route:
        """As `route`; the same object for the same addresses while the directory stays as it is."""
        if picture is not self._picture or self._held > REMEMBERED_RECIPIENTS:
            self._picture, self._routes, self._held = picture, {}, 0
        found = self._routes.get(addresses)
        if found is None:
            found = self._routes[addresses] = route(picture, addresses)
            self._held += found.recipients + len(found.unreachable) + len(addresses)
        return found


UNKNOWN = "no agency is known by this code"
INACTIVE = "the agency has been closed"
NOT_CONNECTED = "no endpoint speaks for this agency yet"
DISABLED = "the endpoint of this agency is disabled"
NO_GROUP = "there is no such group"
EMPTY_GROUP = "the group has no members"
NOTHING_BELOW = "no agency is known below this unit"


def route(picture: Picture, addresses: Iterable[str]) -> Route:
    """Resolve `addresses` (codes, aliases, ``group:NAME``, ``below:CODE``); each agency gets it once.

    Raises `Problem` too-many-recipients.
    """
    found = Route()
    seen: set[str] = set()
    beyond = picture.default_link

    def add(agency: Agency) -> None:
        if agency.code in seen:
            return
        seen.add(agency.code)
        if len(seen) > MAX_RECIPIENTS:
            raise Problem(
                "too-many-recipients",
                f"the addresses resolve to more than {MAX_RECIPIENTS} agencies; send several messages",
                limit=MAX_RECIPIENTS,
            )
        endpoint = None if agency.endpoint is None else picture.endpoints.get(agency.endpoint)
        if not agency.active:
            found.unreachable.append((agency.code, INACTIVE))
        elif endpoint is None:
            found.unreachable.append((agency.code, NOT_CONNECTED))
        elif not endpoint.active:
            found.unreachable.append((agency.code, DISABLED))
        else:
            found.endpoints.setdefault(endpoint.id, []).append(agency.code)

    def add_code(code: str) -> None:
        agency = picture.agency(code)
        if agency is not None:
            add(agency)
        elif beyond is not None and is_code(code) and not picture.in_branch(beyond, code):
            # Its link may know it: codes that are new up there are not all here yet.
            add(Agency(code, code, endpoint=beyond.endpoint))
        else:
            found.unreachable.append((code, UNKNOWN))

    for address in addresses:
        scheme, colon, name = address.partition(":")
        if not colon:
            add_code(address)
        elif scheme == "group":
            group = picture.groups.get(name)
            if group is None or not group.active:
                found.unreachable.append((address, NO_GROUP))
                continue
            if not group.members:
                found.unreachable.append((address, EMPTY_GROUP))
            for member in group.members:
                add_code(member)
        else:
            unit = picture.agency(name)
            if unit is None:
                found.unreachable.append((address, UNKNOWN))
                continue
            agency = None
            for agency in picture.below(unit.code):
                add(agency)
            if agency is None:
                found.unreachable.append((address, NOTHING_BELOW))
    return found


def inward(picture: Picture, found: Route, link: Link) -> Route:
    """What of `found` is meant for this hub, when the message comes from `link`: nothing goes back there.

    Raises `Problem` recipient-unknown when that is nobody.
    """
    mine = Route(
        {endpoint: codes for endpoint, codes in found.endpoints.items() if endpoint != link.endpoint},
        [(code, why) for code, why in found.unreachable if why != UNKNOWN or picture.in_branch(link, code)],
    )
    if not mine.endpoints:
        raise Problem(
            "recipient-unknown",
            "none of its recipients can be reached here",
            unreachable=mine.unreachable_members,
        )
    return mine


def require_reachable(found: Route, report: bool) -> None:
    """Refuse a route with gaps, unless the sender asked for a report and somebody is left.

    Raises `Problem` recipient-unknown with the member `unreachable`.
    """
    if found.unreachable and (not report or not found.endpoints):
        names = ", ".join(recipient for recipient, _ in found.unreachable[:5])
        more = len(found.unreachable) - 5
        raise Problem(
            "recipient-unknown",
            f"cannot reach {names}{f' and {more} more' if more > 0 else ''}; correct `to`, "
            'or send with "unreachable": "report" to reach the others',
            unreachable=found.unreachable_members,
        )
