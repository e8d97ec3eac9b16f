"""Who gets a message: addresses to agencies to endpoints, in one picture of the directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.directory.picture import Agency, Picture
from protocol.message import MAX_RECIPIENTS
from protocol.problems import Problem


@dataclass(slots=True)
class Route:
    """Where a message goes.

    `endpoints` maps an endpoint's id to the codes of the agencies it is addressed to there. `unreachable`
    holds (address or code, reason) of what was asked for and cannot be.
    """

    endpoints: dict[int, list[str]] = field(default_factory=dict)
    unreachable: list[tuple[str, str]] = field(default_factory=list)
    recipients: int = 0

    def codes(self) -> Iterable[str]:
        for codes in self.endpoints.values():
            yield from codes

    def unreachable_members(self) -> list[dict[str, str]]:
        return [{"recipient": recipient, "reason": reason} for recipient, reason in self.unreachable]


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
            found.recipients += 1

    def add_code(code: str) -> None:
        agency = picture.agency(code)
        if agency is None:
            found.unreachable.append((code, UNKNOWN))
        else:
            add(agency)

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
            unreachable=found.unreachable_members(),
        )
