"""Whom a verifier trusts: keys of the hub, of its log, of witnesses, of agencies; authorities for certificates and
time-stamps.

An agency keeps this as one file, `trust.json`. Everything that a verification finds rests on it: it must come by
a way that does not lead through the hub alone (an official letter, another agency, the witnesses themselves), or
be compared by its digest with what came by such a way.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from protocol.evidence import LONGEST_PROMISE_SECONDS
from protocol.note import COSIGNATURE, NoteError, Verifier, read_verifier
from protocol.problems import LienthongError
from protocol.signature import KeyFormatError, PublicKey, from_jwk, thumbprint, to_jwk

TRUST_FORMAT: Final = "lienthong-trust+1"


class TrustError(LienthongError):
    """A list of the trusted that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verification may rely on. What is left empty is not relied on, and then said not to be proven.

    `hub_keys`: by thumbprint. `logs`: the present key of the hub's log and its former ones. `quorum`: how many of
    `witnesses` must have signed a checkpoint; 0 asks for none. `anchors` and `timestamp_roots`: certificates, DER.
    `agencies`: the ids (RFC 7638) of all keys of an agency, by its code, where the verifier knows them by a way of
    its own. `promise_seconds`: the longest time until an event is logged that a promise may take.
    """

    hub_keys: Mapping[str, PublicKey]
    logs: tuple[Verifier, ...] = ()
    witnesses: tuple[Verifier, ...] = ()
    quorum: int = 0
    anchors: tuple[bytes, ...] = ()
    timestamp_roots: tuple[bytes, ...] = ()
    agencies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    promise_seconds: int = LONGEST_PROMISE_SECONDS
    _folded: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folded", {code.upper(): kids for code, kids in self.agencies.items()})
        if not self.hub_keys:
            raise TrustError("no key of the hub is trusted: without one nothing can be verified")
        for witness in self.witnesses:
            if witness.kind != COSIGNATURE:
                raise TrustError(f"the key of {witness.name} is not a witness's: that is one for cosignatures (4)")
        for log in self.logs:
            if log.kind == COSIGNATURE:
                raise TrustError(f"the key of {log.name} is a witness's, not a log's")
        if len({witness.public for witness in self.witnesses}) < len(self.witnesses):
            raise TrustError("two of the witnesses have the same key")
        own = {log.public for log in self.logs}
        own |= {key.public_bytes_raw() for key in self.hub_keys.values() if isinstance(key, Ed25519PublicKey)}
        if any(witness.public in own for witness in self.witnesses):
            raise TrustError(
                "one of the witnesses has a key of the hub or its log: that would be no second pair of eyes"
            )
        if not 0 <= self.quorum <= len(self.witnesses):
            raise TrustError(f"{self.quorum} witnesses are asked for, and {len(self.witnesses)} are trusted")

    def keys_of(self, code: str) -> frozenset[str] | None:
        """The ids of an agency's keys; None where it is not listed. A code in small letters (``h63``) is not
        another agency's: a hub could write it so to get past the list."""
        found = self.agencies.get(code)
        return self._folded.get(code.upper()) if found is None else found


class TrustFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`trust.json`: logs and witnesses as verifier keys (``name+id+base64``), certificates as base64 of DER."""

    format: Literal["lienthong-trust+1"]
    hub_keys: Annotated[tuple[dict[str, str], ...], Meta(description="JWKs")]
    logs: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    quorum: Annotated[int, Meta(ge=0, description="How many of the witnesses must have signed")] = 0
    anchors: tuple[str, ...] = ()
    timestamp_roots: tuple[str, ...] = ()
    agencies: Annotated[
        dict[str, Annotated[tuple[str, ...], Meta(min_length=1)]],
        Meta(description="Ids (RFC 7638, SHA-256) of all keys of an agency, by its code"),
    ] = {}
    promise_seconds: Annotated[int, Meta(ge=0, le=315_360_000)] = LONGEST_PROMISE_SECONDS


_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_CODE = re.compile("[!-~]+")
"""No blank, no letter that merely looks like one of ASCII: such an entry would never apply, and nobody notice."""


def read_agency_key(named: str) -> tuple[str, str]:
    """An agency's code and a key's id from ``CODE=KEY_ID``. Raises TrustError."""
    code, _, kid = named.rpartition("=")
    _check_agency(code, [kid])
    return code, kid


def _check_agency(code: str, kids: Iterable[str]) -> None:
    """Raises TrustError."""
    if not code:
        raise TrustError("a key is given for an agency without a code: write CODE=KEY_ID")
    if not _CODE.fullmatch(code):
        raise TrustError(f"{code!r} is no agency's code: that has only letters and digits of ASCII, and . _ -")
    for kid in kids:
        if not _KEY_ID.fullmatch(kid):
            raise TrustError(
                f"{kid!r}, given for {code}, is no key's id: `lienthong key id FILE` shows the one of a key"
            )


def read_trust(data: bytes) -> Trust:
    """The trusted from a `trust.json`. Raises TrustError."""
    try:
        file = msgspec.json.decode(data, type=TrustFile)
        keys = [from_jwk(jwk) for jwk in file.hub_keys]
        for code, kids in file.agencies.items():
            _check_agency(code, kids)
        return Trust(
            {thumbprint(key): key for key in keys},
            tuple(map(read_verifier, file.logs)),
            tuple(map(read_verifier, file.witnesses)),
            file.quorum,
            tuple(base64.b64decode(one, validate=True) for one in file.anchors),
            tuple(base64.b64decode(one, validate=True) for one in file.timestamp_roots),
            {code: frozenset(kids) for code, kids in file.agencies.items()},
            file.promise_seconds,
        )
    except (ValueError, msgspec.MsgspecError, KeyFormatError, NoteError, RecursionError) as error:
        raise TrustError(f"this is not a list of the trusted: {error}") from None


def write_trust(trust: Trust) -> bytes:
    """The same as a file."""
    return msgspec.json.format(
        msgspec.json.encode(
            TrustFile(
                TRUST_FORMAT,
                tuple(to_jwk(key) for key in trust.hub_keys.values()),
                _written(trust.logs),
                _written(trust.witnesses),
                trust.quorum,
                _base64(trust.anchors),
                _base64(trust.timestamp_roots),
                {code: tuple(sorted(kids)) for code, kids in trust.agencies.items()},
                trust.promise_seconds,
            )
        )
    )


@dataclass(slots=True)
class Gathered:
    """The trusted, put together piece by piece."""

    hub_keys: dict[str, PublicKey] = field(default_factory=dict)
    logs: dict[str, Verifier] = field(default_factory=dict)
    witnesses: dict[str, Verifier] = field(default_factory=dict)
    quorum: int = 0
    anchors: dict[bytes, None] = field(default_factory=dict)
    timestamp_roots: dict[bytes, None] = field(default_factory=dict)
    agencies: dict[str, frozenset[str]] = field(default_factory=dict)
    promise_seconds: int = LONGEST_PROMISE_SECONDS

    def add(self, trust: Trust) -> None:
        """What another list names too; of quorums the larger counts, of the longest promises the shorter."""
        self.hub_keys |= trust.hub_keys
        self.logs |= {str(one): one for one in trust.logs}
        self.witnesses |= {str(one): one for one in trust.witnesses}
        self.quorum = max(self.quorum, trust.quorum)
        self.anchors |= dict.fromkeys(trust.anchors)
        self.timestamp_roots |= dict.fromkeys(trust.timestamp_roots)
        for code, kids in trust.agencies.items():
            self.add_agency(code, kids)
        self.promise_seconds = min(self.promise_seconds, trust.promise_seconds)

    def add_agency(self, code: str, kids: Iterable[str]) -> None:
        """More keys of an agency."""
        self.agencies[code] = self.agencies.get(code, frozenset()).union(kids)

    def trust(self) -> Trust:
        """All of it. Raises TrustError."""
        return Trust(
            self.hub_keys,
            tuple(self.logs.values()),
            tuple(self.witnesses.values()),
            self.quorum,
            tuple(self.anchors),
            tuple(self.timestamp_roots),
            self.agencies,
            self.promise_seconds,
        )


def _written(verifiers: Iterable[Verifier]) -> tuple[str, ...]:
    return tuple(map(str, verifiers))


def _base64(certificates: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(base64.b64encode(one).decode() for one in certificates)
