"""The directory as every process holds it: an immutable picture, swapped whole on change.

Nothing on the hot path asks the database who somebody is. A lookup is a dict access; a request sees
one picture from beginning to end, however long it takes. `Picture.with_changes` copies the dicts that
change (2 ms for 10^5 agencies) and leaves the old picture as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from protocol.agency import parent as parent_of
from protocol.edxml.xmldsig import Policy
from protocol.signature import PublicKey

ENDPOINT, OPERATOR, AUDITOR = "endpoint", "operator", "auditor"
MAX_DEPTH = 20
"""Levels that a tree of agencies may have; one made by hand may hold a circle."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    id: int
    name: str
    active: bool = True
    rate_messages: float | None = None
    """Messages a second that it may submit; None: the hub's default, 0: no limit."""
    rate_bytes: float | None = None
    edxml_signatures: Policy = Policy.IGNORE
    """What package signatures of the edXML that it submits are to the hub."""
    edxml_pins: frozenset[str] | None = frozenset()
    """SHA-256 (lower-case hex) of the certificates of which one must have signed, where that is required. None:
    an operator said that any certificate will do."""


@dataclass(frozen=True, slots=True)
class Agency:
    code: str
    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    endpoint: int | None = None
    active: bool = True
    mail: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """An endpoint's name on the national axis's interface. `secrets` are sealed (hub/directory/vault.py)."""

    id: str
    endpoint: int
    utc_hours: int
    secrets: tuple[bytes, ...]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """An endpoint that is another hub or the axis (hub/directory/links.py). Times are seconds."""

    endpoint: int
    url: str
    system_id: str
    secret: bytes
    """Sealed."""
    utc_hours: int
    branch: tuple[str, ...]
    """This hub's own units: they and all below them are not beyond the link. The first is the hub's own code."""
    default: bool = False
    """Whether codes that nobody knows here go there."""
    poll_seconds: float = 15.0
    retry_seconds: float = 300.0
    sync_seconds: float = 3600.0
    active: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    members: tuple[str, ...]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and whose it is: an agency's or an endpoint's."""

    kid: str
    public: PublicKey
    x5t: str | None = None
    endpoint: int | None = None
    agency: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or a client certificate, known by its SHA-256."""

    hash: bytes
    role: str
    endpoint: int | None = None
    label: str = ""
    expires_at: datetime | None = None
    active: bool = True


@dataclass(slots=True)
class Changes:
    """Rows that are new or changed since a revision."""

    revision: int = 0
    endpoints: list[Endpoint] = field(default_factory=list)
    agencies: list[Agency] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    credentials: list[Credential] = field(default_factory=list)
    systems: list[System] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """Everything that routing and authentication need. Never changed once made."""

    revision: int = 0
    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    agencies: dict[str, Agency] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    children: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    credentials: dict[bytes, Credential] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    """By endpoint."""

    @cached_property
    def endpoint_ids(self) -> dict[str, int]:
        """Endpoint ids by name."""
        return {endpoint.name: endpoint.id for endpoint in self.endpoints.values()}

    @cached_property
    def axis_endpoints(self) -> frozenset[int]:
        """Endpoints that speak the national axis's interface."""
        return frozenset(system.endpoint for system in self.systems.values() if system.active)

    @cached_property
    def default_link(self) -> Link | None:
        """Where codes go that nobody knows here. One that is shut goes on being it: its mail waits."""
        return next((link for link in self.links.values() if link.default), None)

    def in_branch(self, link: Link, code: str) -> bool:
        """Whether `code`, known or not, lies in this hub's own branch, as seen from `link`."""
        here: str | None = code
        for _ in range(MAX_DEPTH):
            if here is None:
                return False
            agency = self.agency(here)
            if here in link.branch or (agency is not None and agency.code in link.branch):
                return True
            here = (agency.parent if agency is not None else None) or parent_of(here)
        return False

    @cached_property
    def limited(self) -> dict[int, Endpoint]:
        """The endpoints with limits of their own, by id."""
        return {
            endpoint.id: endpoint
            for endpoint in self.endpoints.values()
            if endpoint.rate_messages is not None or endpoint.rate_bytes is not None
        }

    def agency(self, code: str) -> Agency | None:
        """The agency known by `code`, be it its code or an alias, active or not."""
        found = self.agencies.get(code)
        if found is None:
            main = self.aliases.get(code)
            found = None if main is None else self.agencies.get(main)
        return found

    def below(self, code: str) -> Iterator[Agency]:
        """Every active agency under `code` in the tree, itself left out."""
        seen = {code}
        pending = list(self.children.get(code, ()))
        while pending:
            child = pending.pop()
            if child in seen:  # a tree made by hand may hold a circle
                continue
            seen.add(child)
            pending.extend(self.children.get(child, ()))
            agency = self.agencies[child]
            if agency.active:
                yield agency

    def endpoint_name(self, endpoint: int) -> str:
        if endpoint == 0:
            return "hub"
        found = self.endpoints.get(endpoint)
        return found.name if found else f"#{endpoint}"

    def with_changes(self, changes: Changes) -> Picture:
        """A new picture in which `changes` have happened."""
        picture = replace(self, revision=changes.revision)
        made: dict[str, object] = {"revision": changes.revision}
        if changes.endpoints:
            made["endpoints"] = self.endpoints | {row.id: row for row in changes.endpoints}
        if changes.groups:
            made["groups"] = self.groups | {row.name: row for row in changes.groups}
        if changes.keys:
            # A renewed certificate has another thumbprint; by the old one the key is no longer found.
            known = [self.keys[row.kid] for row in changes.keys if row.kid in self.keys]
            gone = {f"x5t:{key.x5t}" for key in known if key.x5t}
            kept = {name: key for name, key in self.keys.items() if name not in gone} if gone else self.keys
            made["keys"] = kept | dict(_by_names(changes.keys))
        if changes.credentials:
            made["credentials"] = self.credentials | {row.hash: row for row in changes.credentials}
        if changes.systems:
            made["systems"] = self.systems | {row.id: row for row in changes.systems}
        if changes.links:
            made["links"] = self.links | {row.endpoint: row for row in changes.links}
        if changes.agencies:
            made |= self._agency_changes(changes.agencies)
        return replace(picture, **made)  # type: ignore[arg-type]

    def _agency_changes(self, rows: list[Agency]) -> dict[str, object]:
        agencies = self.agencies | {row.code: row for row in rows}
        aliases = dict(self.aliases)
        children = dict(self.children)
        moved: dict[str, list[str]] = {}
        for row in rows:  # first what is given up: an alias may change hands within one change
            before = self.agencies.get(row.code)
            for alias in before.aliases if before else ():
                if aliases.get(alias) == row.code:
                    del aliases[alias]
        for row in rows:
            before = self.agencies.get(row.code)
            for alias in row.aliases:
                aliases.setdefault(alias, row.code)
            if before and before.parent != row.parent and before.parent is not None:
                children[before.parent] = tuple(c for c in children[before.parent] if c != row.code)
            if row.parent is not None and (before is None or before.parent != row.parent):
                moved.setdefault(row.parent, []).append(row.code)
        for parent, codes in moved.items():
            children[parent] = children.get(parent, ()) + tuple(codes)
        return {"agencies": agencies, "aliases": aliases, "children": children}


def _by_names(keys: Iterable[Key]) -> Iterator[tuple[str, Key]]:
    """A key is found by its `kid`, and by its certificate's thumbprint when it came in one."""
    for key in keys:
        yield key.kid, key
        if key.x5t:
            yield "x5t:" + key.x5t, key
