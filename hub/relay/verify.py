"""Signature checks, in groups, off the event loop when there is enough to hand over.

One check costs 64 µs (P-256) to 111 µs (Ed25519) of CPU and releases the GIL. Handing work to a thread
and hearing back costs more than that, however much it is; so a few checks are made in place, holding the
loop for a third of a millisecond at the most, and more go to the thread as one group. One thread is enough:
there is a process per core. (docs/adr/0008 has the figures.)
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
IN_PLACE = 4
"""Up to so many signatures are checked on the event loop."""


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


def _verify_all(checks: list[_Check]) -> list[list[bool]]:
    return [
        [verify(key, jws.alg, jws.signature, jws.signing_input) for key, jws in check.signatures]
        for check in checks
    ]


class Verifier:
    """Checks signatures for the event loop that it was made on."""

    def __init__(self) -> None:
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
        if sum(len(check.signatures) for check in checks) <= IN_PLACE:
            results = _verify_all(checks)
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
