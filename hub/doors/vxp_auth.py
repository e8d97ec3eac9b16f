"""Who calls the axis's interface: the system's signature, the age of its request, and that it is new.

The signature covers neither the path nor the body, and whoever has seen a request can send it again. Within a
process a request is therefore answered once. Another process does not know it; there it can only do what it did
the first time, since every call may be repeated: a transfer of the same bytes is answered with the first DocId,
what has ended stays ended, and changes of the directory are kept with their signature (docs/adr/0021).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from aiohttp import web

from hub.directory.follow import Directory
from hub.directory.picture import System
from hub.directory.vault import Vault, VaultError
from hub.doors.http import Gate
from protocol.vxp import Claim, Code, Refusal, read_claim

log = structlog.get_logger()

MAX_REMEMBERED = 200_000
"""Requests that a process remembers (about 40 MB)."""
_MAX_SECRETS = 10_000
_NOBODY = b"\0" * 32
"""A secret that nobody has, so that an unknown system is found out no faster than a wrong signature."""


class Replays:
    """Remembers requests for as long as their timestamps are good."""

    def __init__(self, seconds: float, limit: int = MAX_REMEMBERED) -> None:
        """`seconds`: how long a request must be remembered. Beyond `limit` the oldest are forgotten earlier."""
        self._seconds = seconds
        self._limit = limit
        self._seen: OrderedDict[bytes, tuple[float, bool, tuple[str, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, signature: bytes, call: str, changes: bool, now: float) -> bool:
        """Remember a request; False when it was made before. `now` never goes back.

        Two reading calls with the same parameters in the same millisecond have the same signature, so that is
        no replay. A call that changes something never goes with a signature that was used for another.
        """
        seen = self._seen
        while seen and (len(seen) > self._limit or next(iter(seen.values()))[0] < now - self._seconds):
            seen.popitem(last=False)
        before = seen.get(signature)
        if before is None:
            seen[signature] = now, changes, (call,)
            return True
        first, changed, calls = before
        if changes or changed or call in calls:
            return False
        seen[signature] = first, False, (*calls, call)
        return True

    def forget(self, signature: bytes) -> None:
        """Its answer did not arrive: it may come again."""
        self._seen.pop(signature, None)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated system, and what it asked with."""

    system: System
    name: str
    """Of its endpoint."""
    claim: Claim


class Authenticator:
    """Tells systems apart, for one process."""

    def __init__(self, directory: Directory, gate: Gate, vault: Vault, seconds: float) -> None:
        """`seconds`: how far a request's timestamp may lie from the hub's clock, before or after it."""
        self._directory = directory
        self._gate = gate
        self._vault = vault
        self._seconds = seconds
        self._opened: dict[tuple[str, bytes], bytes] = {}
        # A request dated `seconds` ahead can be sent again until it is `seconds` old.
        self.replays = Replays(2 * seconds)

    def caller(self, request: web.Request, call: str, changes: bool) -> Caller:
        """Who makes the call, which reads alone or `changes` something. Raises `Refusal`."""
        claim = read_claim(request.raw_headers)
        picture = self._directory.picture
        system = picture.systems.get(claim.system_id)
        if not self._is_signed(claim, system) or system is None:
            raise Refusal(Code.NOT_AUTHENTICATED)
        endpoint = picture.endpoints.get(system.endpoint)
        if not system.active or endpoint is None or not endpoint.active:
            raise Refusal(Code.DISABLED)
        self._check_age(claim, system)
        if not self.replays.add(claim.signature, call, changes, time.monotonic()):
            raise Refusal(Code.REPLAYED)
        self._gate.seen[endpoint.id] = time.time()
        return Caller(system, endpoint.name, claim)

    def _is_signed(self, claim: Claim, system: System | None) -> bool:
        if system is None:
            return claim.is_signed_with(_NOBODY)
        # All of them, always: how long it takes must not tell which one fits.
        return any([claim.is_signed_with(secret) for secret in self._secrets(system)])

    def _secrets(self, system: System) -> list[bytes]:
        opened = [secret for sealed in system.secrets if (secret := self._open(system.id, sealed))]
        if not opened:
            raise Refusal(
                Code.AXIS_ERROR, "this node of the hub cannot read the system's secret; its operator can see why"
            )
        return opened

    def _open(self, system_id: str, sealed: bytes) -> bytes | None:
        secret = self._opened.get((system_id, sealed))
        if secret is None:
            try:
                secret = self._vault.open(system_id, sealed)
            except VaultError as error:
                log.error("a system's secret cannot be read", system=system_id, error=str(error))
                return None
            if len(self._opened) >= _MAX_SECRETS:
                self._opened.clear()
            self._opened[system_id, sealed] = secret
        return secret

    def _check_age(self, claim: Claim, system: System) -> None:
        age = claim.age(datetime.now(UTC), system.utc_hours)
        if abs(age) > timedelta(seconds=self._seconds):
            side = "old" if age > timedelta(0) else "ahead"
            raise Refusal(
                Code.STALE,
                f"the timestamp is {abs(age.total_seconds()):.0f} s {side}, more than {self._seconds:g} s; this "
                f"system's clock is taken for UTC{system.utc_hours:+d}. Set it, or ask the hub's operator",
            )
