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

from hub.directory.trust_standing import (
    Anchor,
    KeyCertificate,
    Revocation,
    Standing,
    TrustPolicy,
    certified,
    ends_the_key,
    plain,
)
from hub.pdf.result import Policy as PdfPolicy
from protocol.agency import parent as parent_of
from protocol.edxml.xmldsig import Policy
from protocol.signature import PublicKey, b64url

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
    pdf_signatures: PdfPolicy = PdfPolicy.IGNORE
    """What signatures in the PDFs that it submits are to the hub."""
    pdf_countersigned: bool = False
    """Whether content may be changed after a signature where a later one covers the change."""
    signed_acknowledgements: str = "accept"
    """Whether what it acknowledges may (``accept``) or must (``require``) be signed."""


@dataclass(frozen=True, slots=True)
class Agency:
    code: str
    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    endpoint: int | None = None
    active: bool = True
    mail: str = ""
    system: str = ""
    """Beyond a native link: which of the peer's systems speaks for it."""


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
    kind: str = "axis"
    """The interface that is spoken there: ``axis`` or ``native``."""


@dataclass(frozen=True, slots=True)
class Hub:
    """An endpoint that is another hub, and comes here as a native link (hub/directory/hubs.py)."""

    endpoint: int
    branch: tuple[str, ...]
    """The units for which it may speak, and for all below them."""
    approval: bool = False
    """Whether its new keys wait for an operator."""
    keys: tuple[PublicKey, ...] = ()
    """That hub's own, with which its receipts are sealed."""


@dataclass(frozen=True, slots=True)
class BeyondKey:
    """A key of a signer beyond a native link: of an agency, or of one of the peer's systems. It counts for what
    comes over that link alone.
    """

    endpoint: int
    name: str
    public: PublicKey
    agency: str | None = None
    system: str = ""
    not_before: datetime | None = None
    not_after: datetime | None = None
    present: bool = True
    """Whether the peer vouches for it still."""
    approved: bool | None = True
    """None: it waits for an operator."""


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    members: tuple[str, ...]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and whose it is: an agency's or an endpoint's.

    `standings` say what it counts for, one for each of its certificates, the longest valid first; a key without
    certificates has one. `Picture.with_changes` works them out.
    """

    kid: str
    public: PublicKey
    x5t: str | None = None
    endpoint: int | None = None
    agency: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    active: bool = True
    standings: tuple[Standing, ...] = ()


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
    hubs: list[Hub] = field(default_factory=list)
    beyond_keys: list[BeyondKey] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    certificates: list[KeyCertificate] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)


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
    hubs: dict[int, Hub] = field(default_factory=dict)
    """By endpoint."""
    beyond_keys: dict[tuple[int, str], BeyondKey] = field(default_factory=dict)
    """By the link's or hub's endpoint and the key's name."""
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    anchors: dict[bytes, Anchor] = field(default_factory=dict)
    """Trust anchors by their SHA-256, removed ones too."""
    certificates: dict[str, tuple[KeyCertificate, ...]] = field(default_factory=dict)
    """Certificates in use, by the `kid` of their key."""
    revocations: dict[bytes, Revocation] = field(default_factory=dict)

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

    @cached_property
    def own_codes(self) -> frozenset[str]:
        """The codes under which this hub stands in TraceHeaders."""
        return frozenset(link.branch[0] for link in self.links.values())

    def in_branch(self, link: Link | Hub, code: str) -> bool:
        """Whether `code`, known or not, lies in the branch of `link`: this hub's own, or that of a hub below."""
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
        if changes.keys or changes.anchors or changes.certificates or changes.revocations:
            made |= self._key_changes(changes)
        if changes.credentials:
            made["credentials"] = self.credentials | {row.hash: row for row in changes.credentials}
        if changes.systems:
            made["systems"] = self.systems | {row.id: row for row in changes.systems}
        if changes.links:
            made["links"] = self.links | {row.endpoint: row for row in changes.links}
        if changes.hubs:
            made["hubs"] = self.hubs | {row.endpoint: row for row in changes.hubs}
        if changes.beyond_keys:
            made["beyond_keys"] = self.beyond_keys | {(row.endpoint, row.name): row for row in changes.beyond_keys}
        if changes.agencies:
            made |= self._agency_changes(changes.agencies)
        return replace(picture, **made)  # type: ignore[arg-type]

    def _key_changes(self, changes: Changes) -> dict[str, object]:
        """Keys, found by `kid` and by the thumbprint of each certificate in which they came.

        Only keys that a change concerns are worked out anew. A key's older names are given up: by a certificate
        that was replaced it is no longer found.
        """
        anchors = self.anchors | {row.sha256: row for row in changes.anchors}
        revocations = self.revocations | {row.certificate: row for row in changes.revocations}
        certificates = dict(self.certificates)
        for row in changes.certificates:
            others = tuple(one for one in certificates.get(row.kid, ()) if one.sha256 != row.sha256)
            certificates[row.kid] = (*others, row) if row.active else others
        told = {row.sha256 for row in changes.anchors} | {row.certificate for row in changes.revocations}
        changed = {row.kid: row for row in changes.keys}
        concerned = changed.keys() | {row.kid for row in changes.certificates}
        if told:
            concerned |= {
                kid for kid, own in certificates.items() if any(not told.isdisjoint(one.chain) for one in own)
            }
        keys = dict(self.keys)
        for kid in concerned:
            before = self.keys.get(kid)
            for name in () if before is None else _names(before, self.certificates.get(kid, ())):
                keys.pop(name, None)
        for kid in concerned:
            key = changed.get(kid) or self.keys.get(kid)
            if key is not None:
                keys.update(self._named(key, certificates.get(kid, ()), anchors, revocations))
        return {"keys": keys, "anchors": anchors, "certificates": certificates, "revocations": revocations}

    def _named(
        self,
        key: Key,
        certificates: tuple[KeyCertificate, ...],
        anchors: dict[bytes, Anchor],
        revocations: dict[bytes, Revocation],
    ) -> Iterator[tuple[str, Key]]:
        """A key under its names. By a certificate's thumbprint, that certificate alone counts."""
        if not certificates:
            key = replace(key, standings=(plain(key.kid, self.trust),))
            yield from ((name, key) for name in _names(key, ()))
            return
        newest_first = sorted(certificates, key=lambda one: one.not_after, reverse=True)
        found = [(one, certified(one, anchors, revocations, self.trust)) for one in newest_first]
        for one, standing in found:
            refused = standing.refusal is not None and standing.refusal[0] == "certificate-revoked"
            if refused and ends_the_key(one, revocations):
                found = [(other, standing) for other in newest_first]
                break
        whole = replace(key, standings=tuple(standing for _, standing in found))
        yield from ((name, whole) for name in _names(key, ()))
        yield from ((_thumbprint(one), replace(key, standings=(standing,))) for one, standing in found)

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


def _thumbprint(certificate: KeyCertificate) -> str:
    return "x5t:" + b64url(certificate.sha256)


def _names(key: Key, certificates: Iterable[KeyCertificate]) -> Iterator[str]:
    """What a key is found by: its `kid`, and the thumbprint of each certificate in which it came."""
    yield key.kid
    if key.x5t:
        yield "x5t:" + key.x5t
    yield from map(_thumbprint, certificates)
