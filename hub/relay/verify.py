"""Signature checks, where they cost least.

One check takes 64 µs (P-256) to 111 µs (Ed25519) and releases the GIL. With a core to spare, groups go to a
thread and the event loop goes on meanwhile. With a process for each core there is none to spare, and the
thread only adds switching: then checks are made in place, in slices of half a millisecond, between which
the loop sees to its other work. A few checks are made in place in any case, since handing them over costs
more than making them. (docs/adr/0008 has the figures.)
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

GROUP = 32
"""Requests in a group."""
SLICE = 6
"""Signatures that are checked on the event loop at a time."""


def find_key(picture: Picture, jws: Jws, endpoint: int, agency: str) -> Key:
    """The registered key that a message names, if `agency`, speaking through `endpoint`, may sign with it.

    Raises `Problem` unknown-key, key-not-yours, key-disabled or key-expired. Costs a dict look-up: it
    comes before the signature check so that a stranger's message is cheap to refuse.
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
    return key


@dataclass(slots=True)
class _Check:
    """A group of signatures that one caller waits for."""

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
        self._batcher: Batcher[_Check] = Batcher("verify", self._flush, self._fail, max_items=GROUP)

    def start(self) -> None:
        self._batcher.start()

    async def stop(self) -> None:
        await self._batcher.stop()
        self._threads.shutdown()

    async def check(self, signatures: list[tuple[PublicKey, Jws]]) -> list[bool]:
        """Whether each signature is right."""
        done: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._batcher.put(_Check(signatures, done))
        return await done

    async def _flush(self, worker: int, checks: list[_Check]) -> None:
        if self._in_place or sum(len(check.signatures) for check in checks) <= SLICE:
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
