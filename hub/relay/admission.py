"""How much the hub takes in before it says "later", and to whom it says so.

Every queue is bounded, in bytes. A request counts for what has arrived of it, from its first byte until it
is committed. Whoever would go beyond a bound is told when to come back, which a client can act on, instead
of the hub growing until the system ends it. Asked in this order:

*rate*    has the endpoint been faster than it may (`rates`)? 429
*time*    has what it put into the hub's queues before, or everybody's, been standing there too long? 503
*room*    would it hold more than its share? 503

The share is a dynamic threshold (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998): an
endpoint may hold at most `SHARE` = 2 times what is left free. One endpoint alone therefore holds at most two
thirds of the limit, k of them that flood settle where 1/(2k + 1) of it is left, and one that holds nothing yet
always finds two thirds of what is free. (docs/adr/0013)
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from hub.relay.rates import Allowance, Rates
from protocol.problems import Problem

OVERHEAD = 1024
"""What a queued message costs beside its bytes."""
SHARE = 2
AHEAD = 64 << 10
"""Room that is taken for a body before it arrives; more is taken as it does."""
LONGEST_PAUSE = 30.0
"""Seconds: nobody is told to stay away for longer because of a queue."""
REASONS = ("bytes", "share", "time", "rate")


class Room:
    """What one request holds. A context manager: leaving it gives all of it back."""

    __slots__ = ("_admission", "_allowance", "_arrived", "_endpoint", "_messages", "_size")

    def __init__(
        self, admission: Admission, endpoint: int, size: int, messages: int, allowance: Allowance | None
    ) -> None:
        self._admission = admission
        self._endpoint = endpoint
        self._size = self._arrived = size
        self._messages = messages
        self._allowance = allowance

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission._give_back(self._endpoint, self._size + OVERHEAD * self._messages)
        self._size = self._messages = 0

    def reach(self, size: int, messages: int = 0) -> None:
        """So many bytes of the request have arrived by now, or it turned out to hold so many messages.

        Raises `Problem` overloaded when there is no room for so much.
        """
        if size <= self._size and messages <= self._messages:
            return
        more, extra = max(size - self._size, 0), max(messages - self._messages, 0)
        own = self._size + OVERHEAD * self._messages
        self._admission._grow(self._endpoint, own, more + OVERHEAD * extra)
        self._size += more
        self._messages += extra
        self._count(size, extra)

    def stream(self, size: int) -> None:
        """So many bytes have arrived by now that need no room: they only count for the endpoint's rate."""
        self._count(size, 0)

    def _count(self, size: int, messages: int) -> None:
        new = max(size - self._arrived, 0)
        self._arrived += new
        if self._allowance is not None:
            self._allowance.charge(messages, new)


class Admission:
    """Counts what is on its way in one process, by endpoint."""

    def __init__(
        self,
        limit: int,
        max_seconds: float = float("inf"),
        waited: Callable[[int], float] = lambda endpoint: 0.0,
        rates: Rates | None = None,
    ) -> None:
        """`limit`: bytes of messages that may be on their way at once. `max_seconds`: how long they may stand in
        the queues that `waited` tells of, by endpoint.
        """
        self.limit = limit
        self.max_seconds = max_seconds
        self.used = 0
        self.closed = False
        self.refused = dict.fromkeys(REASONS, 0)
        """How many requests, by reason, since the start."""
        self._held: dict[int, int] = {}
        self._waited = waited
        self._allowance = (rates or Rates()).of

    def admit(self, endpoint: int, size: int, messages: int = 1, *, announced: int = 0) -> Room:
        """Room for messages of `size` bytes together, until the room is left.

        When they are still to come, `announced` says how many they will be: so much must be free, but only
        `size` is taken, and the rest as it arrives (`Room.reach`). Raises `Problem` too-many-requests,
        overloaded or stopping.
        """
        if self.closed:
            raise Problem("stopping", "connect again and send the same message", retry_after=1)
        allowance = self._allowance(endpoint)
        refused = self._refusal(endpoint, allowance, max(size, announced), messages)
        if refused is not None:
            self._refuse(endpoint, *refused)
        if allowance is not None:
            allowance.charge(messages, size)
        self._take(endpoint, size + OVERHEAD * messages)
        return Room(self, endpoint, size, messages, allowance)

    def delay(self, endpoint: int, size: int, messages: int = 1) -> float:
        """Seconds after which to ask again; 0 when `admit` would let it in.

        For a door that stops reading instead of refusing: nothing is counted as refused.
        """
        if self.closed:
            return 0.0
        refused = self._refusal(endpoint, self._allowance(endpoint), size, messages)
        return 0.0 if refused is None else refused[1]

    def held(self, endpoint: int) -> int:
        """Bytes that an endpoint has on their way."""
        return self._held.get(endpoint, 0)

    def _refusal(
        self, endpoint: int, allowance: Allowance | None, size: int, messages: int
    ) -> tuple[str, float] | None:
        """Why something is not let in, and after how many seconds to ask again; None when it is."""
        if allowance is not None and (wait := allowance.wait(messages, size)):
            return "rate", wait
        waited = self._waited(endpoint)
        if waited > self.max_seconds:
            return "time", self._pause(waited)
        reason = self._lack(endpoint, 0, size + OVERHEAD * messages)
        return None if reason is None else (reason, self._pause(waited))

    @staticmethod
    def _pause(waited: float) -> float:
        """What has stood in the queue for so long takes about as long to go (and a second at least)."""
        return min(max(waited, 1.0), LONGEST_PAUSE)

    def _lack(self, endpoint: int, own: int, cost: int) -> str | None:
        """Why there is no room for `cost` bytes more for a request that holds `own`; None when there is."""
        free = self.limit - self.used - cost
        if self._held.get(endpoint, 0) + cost <= SHARE * free:
            return None
        if self.used == own:
            return None  # it is all alone: a single request may be larger than the whole limit
        return "bytes" if free < 0 else "share"

    def _refuse(self, endpoint: int, reason: str, seconds: float) -> None:
        self.refused[reason] += 1
        if reason == "rate":
            raise Problem(
                "too-many-requests",
                "the endpoint sends faster than its limit; send the same message again after the time told",
                retry_after=seconds,
            )
        detail = "send the same message again a little later"
        if reason == "share":
            detail = f"{self.held(endpoint)} bytes of this endpoint are on their way already; {detail}"
        raise Problem("overloaded", detail, retry_after=seconds)

    def _grow(self, endpoint: int, own: int, cost: int) -> None:
        reason = self._lack(endpoint, own, cost)
        if reason is not None:
            self._refuse(endpoint, reason, self._pause(self._waited(endpoint)))
        self._take(endpoint, cost)

    def _take(self, endpoint: int, cost: int) -> None:
        self.used += cost
        self._held[endpoint] = self._held.get(endpoint, 0) + cost

    def _give_back(self, endpoint: int, cost: int) -> None:
        self.used -= cost
        left = self._held.get(endpoint, 0) - cost
        if left:
            self._held[endpoint] = left
        else:
            self._held.pop(endpoint, None)
