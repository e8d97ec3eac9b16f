"""Signature checks, where they cost least.

One check takes 64 µs (P-256) to 111 µs (Ed25519) and releases the GIL. With a core to spare, groups go to a
thread and the event loop goes on meanwhile. With a process for each core there is none to spare, and the
thread only adds switching: then checks are made in place, in slices of half a millisecond, between which
the loop sees to its other work. A few checks are made in place in any case, since handing them over costs
more than making them. (docs/adr/0008 has the figures.)

A request with many signatures is checked in pieces, pieces of different endpoints take turns, and of those whose
turn it is the small ones come first, so that a batch of a thousand does not hold up a single document of somebody
else. Groups are as large as a commit: what is found right together is committed together (docs/adr/0013).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from hub.directory.picture import Key, Picture
from hub.relay.batcher import Batcher
from protocol.problems import Problem
from protocol.signature import Jws, PublicKey, verify

REQUESTS = 32
"""Requests in a group."""
GROUP = 256
"""Signatures in a group (16 to 28 ms), and in a piece of a larger request."""
SLICE = 6
"""Signatures that are checked on the event loop at a time."""
LATER_SECONDS = 30
"""When to come back where revocation is not known: authorities are asked again meanwhile."""


def find_key(picture: Picture, jws: Jws, endpoint: int, agency: str) -> Key:
    """The registered key that a message names, if `agency`, speaking through `endpoint`, may sign with it.

    Raises `Problem` as `find_signer`.
    """
    return find_signer(picture, jws, endpoint, agency)[0]


def find_signer(picture: Picture, jws: Jws, endpoint: int, agency: str) -> tuple[Key, str]:
    """The same, and what the sealed event says of the signer: the JSON of its member `signer`.

    Raises `Problem` unknown-key, key-not-yours, key-disabled, key-expired; and for the certificates in which the
    key came certificate-required, certificate-untrusted, certificate-expired, certificate-revoked or
    revocation-unknown. Costs a dict look-up and a few comparisons, whatever the certificate: all of it was worked
    out before (hub/directory/trust_standing.py). It comes before the signature check so that a stranger's message
    is cheap to refuse.
    """
    key = picture.keys.get(jws.kid)
    if key is None:
        raise Problem("unknown-key", f"no key {jws.kid[:128]!r} is registered; register it at the hub first")
    if key.endpoint != endpoint and (key.agency is None or key.agency != agency):
        raise Problem("key-not-yours", f"the key is not registered for {agency} nor for this endpoint")
    if not key.active:
        raise Problem("key-disabled", "the key has been disabled; sign with a key in use")
    now = datetime.now(UTC)
    if key.not_before is not None and now < key.not_before:
        raise Problem("key-expired", f"the key is valid from {key.not_before:%Y-%m-%dT%H:%MZ} on")
    if key.not_after is not None and now >= key.not_after:
        raise Problem("key-expired", f"the key was valid until {key.not_after:%Y-%m-%dT%H:%MZ}")
    refusal: tuple[str, str] | None = None
    for standing in key.standings:
        present = standing.at(now)
        if present.refusal is None:
            return key, present.signer
        refusal = refusal or present.refusal
    if refusal is None:  # a picture put together by hand
        raise Problem("unknown-key", f"nothing is known of the key {key.kid}")
    code, detail = refusal
    raise Problem(code, detail, retry_after=LATER_SECONDS if code == "revocation-unknown" else None)


@dataclass(slots=True)
class _Check:
    """Signatures of one request, or a piece of them, that its caller waits for."""

    endpoint: int
    signatures: list[tuple[PublicKey, Jws]]
    done: asyncio.Future[list[bool]]


def _verify(signatures: list[tuple[PublicKey, Jws]]) -> list[bool]:
    return [verify(key, jws.alg, jws.signature, jws.signing_input) for key, jws in signatures]


def _verify_all(checks: list[_Check]) -> list[list[bool]]:
    return [_verify(check.signatures) for check in checks]


async def _verify_in_slices(checks: list[_Check]) -> list[list[bool]]:
    signatures = [signature for check in checks for signature in check.signatures]
    flat = _verify(signatures[:SLICE])
    for start in range(SLICE, len(signatures), SLICE):
        await asyncio.sleep(0)
        flat += _verify(signatures[start : start + SLICE])
    results = iter(flat)
    return [[next(results) for _ in check.signatures] for check in checks]


class Verifier:
    """Checks signatures for the event loop that it was made on."""

    def __init__(self, in_place: bool = False) -> None:
        """`in_place`: there is no core to spare for a thread."""
        self._in_place = in_place
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self.batcher: Batcher[_Check] = Batcher(
            "verify",
            self._flush,
            self._fail,
            max_items=REQUESTS,
            max_weight=GROUP,
            weigh=lambda check: len(check.signatures),
            key=lambda check: check.endpoint,
            quantum=SLICE,
        )

    def start(self) -> None:
        self.batcher.start()

    async def stop(self) -> None:
        await self.batcher.stop()
        self._threads.shutdown()

    async def check(self, endpoint: int, signatures: list[tuple[PublicKey, Jws]]) -> list[bool]:
        """Whether each signature, of messages that `endpoint` submits, is right."""
        if len(signatures) <= GROUP:
            return await self._put(endpoint, signatures)
        pieces = [signatures[start : start + GROUP] for start in range(0, len(signatures), GROUP)]
        results = await asyncio.gather(*(self._put(endpoint, piece) for piece in pieces))
        return [right for result in results for right in result]

    def _put(self, endpoint: int, signatures: list[tuple[PublicKey, Jws]]) -> asyncio.Future[list[bool]]:
        done: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self.batcher.put(_Check(endpoint, signatures, done))
        return done

    async def _flush(self, worker: int, checks: list[_Check]) -> None:
        count = sum([len(check.signatures) for check in checks])
        if count > len(checks) > 1:
            checks.sort(key=lambda check: len(check.signatures))
            small = sum([len(check.signatures) <= SLICE for check in checks])
            if 0 < small < len(checks):
                first = checks[:small]
                await self._settle(first, sum([len(check.signatures) for check in first]))
                checks = checks[small:]
        await self._settle(checks, count)

    async def _settle(self, checks: list[_Check], count: int) -> None:
        if self._in_place or count <= SLICE:
            results = await _verify_in_slices(checks)
        else:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, _verify_all, checks)
        for check, result in zip(checks, results, strict=True):
            if not check.done.done():
                check.done.set_result(result)

    @staticmethod
    def _fail(checks: list[_Check], error: Exception) -> None:
        for check in checks:
            if not check.done.done():
                check.done.set_exception(error)
