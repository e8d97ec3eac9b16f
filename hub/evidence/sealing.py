"""Sealing without holding up the event loop: a key in memory signs in place, one that is elsewhere in a thread.

Ed25519 in memory takes 41 µs a batch, less than handing it to a thread and back. A hardware security module
takes milliseconds, and its network may take for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import structlog

from hub.observe import metrics
from protocol.evidence import Sealer, Tree, leaf_hash
from protocol.problems import Problem
from protocol.signature import SigningError

log = structlog.get_logger()
SIGN_SECONDS = 5.0
"""How long a key is waited for before those who wait for a seal are told to come back."""
THREADS = 4
"""More would only wait for each other: a token is asked one thing at a time."""
Result = TypeVar("Result")

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="seal")


async def seal(sealer: Sealer, tree: Tree, batch: str, at: datetime) -> str:
    """The seal over a batch. Raises `Problem` key-unavailable when its key cannot be used now."""
    if not sealer.slow:
        return sealer.seal(tree, batch, at)
    return await elsewhere(lambda: sealer.seal(tree, batch, at))


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch of events that has its seal. `leaves`: their hashes, one after the other, as `batch` keeps them."""

    leaves: bytes
    tree: Tree
    seal: str


async def seal_events(sealer: Sealer, events: Iterable[bytes], batch: UUID, at: datetime) -> Sealed:
    """Hash the texts of events (UTF-8; at least one) and seal them. Raises `Problem` key-unavailable."""
    leaves = [leaf_hash(event) for event in events]
    tree = Tree(leaves)
    return Sealed(b"".join(leaves), tree, await seal(sealer, tree, str(batch), at))


async def elsewhere(sign: Callable[[], Result]) -> Result:
    """What `sign`, which uses a key outside this process, returns. Raises `Problem` key-unavailable."""
    try:
        async with asyncio.timeout(SIGN_SECONDS):
            with metrics.SIGN_SECONDS.time():
                return await asyncio.get_running_loop().run_in_executor(_threads, sign)
    except (SigningError, TimeoutError) as error:
        metrics.SIGN_FAILURES.inc()
        reason = str(error) or f"no answer within {SIGN_SECONDS:g} s"
        log.error("the hub's key cannot be used", error=reason)
        raise Problem("key-unavailable", "nothing is lost: send it again", retry_after=2) from None
