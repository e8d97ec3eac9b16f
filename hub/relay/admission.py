"""How much the hub takes in before it says "later".

Every queue is bounded, in bytes. A message counts from when its body has been read until it is
committed; past the limit the hub answers 503 with Retry-After, which a client can act on, instead of
growing until the system ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from protocol.problems import Problem

OVERHEAD = 1024
"""What a queued message costs beside its bytes."""


class Admission:
    """Counts what is on its way in one process."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of messages that may be on their way at once."""
        self.limit = limit
        self.used = 0
        self.closed = False
        self.refused = 0

    @contextlib.contextmanager
    def admit(self, size: int, messages: int = 1) -> Iterator[None]:
        """Hold room for messages of `size` bytes together while the block runs.

        Raises `Problem` overloaded or stopping.
        """
        if self.closed:
            raise Problem("stopping", "connect again and send the same message", retry_after=1)
        cost = size + OVERHEAD * messages
        # A single request larger than the whole limit is taken when nothing else is on its way.
        if self.used and self.used + cost > self.limit:
            self.refused += 1
            raise Problem("overloaded", "send the same message again a little later", retry_after=1)
        self.used += cost
        try:
            yield
        finally:
            self.used -= cost
