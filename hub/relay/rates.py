"""How fast an endpoint may submit: token buckets of messages and of bytes.

A bucket fills at its rate and holds `burst` seconds of it. A request needs what it brings, or a full bucket
when it brings more than that; what is taken beyond is owed, and the next request waits until it is paid. So
the rate holds on average, and a single large request passes all the same.

Each process counts alone: of a limit it grants its share, the limit divided by the node's processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

_ROUNDING = 1e-6


class Limited(Protocol):
    """An endpoint with limits of its own. None: the hub's default. 0: no limit."""

    @property
    def rate_messages(self) -> float | None: ...
    @property
    def rate_bytes(self) -> float | None: ...


class _Bucket:
    """One endpoint's allowance of one kind. A rate of 0 is no limit."""

    __slots__ = ("burst", "level", "rate")

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self.burst = max(rate * seconds, 1.0)
        self.level = self.burst

    def fill(self, seconds: float) -> None:
        self.level = min(self.burst, self.level + self.rate * seconds)

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken."""
        if not self.rate:
            return 0.0
        missing = min(amount, self.burst) - self.level
        return missing / self.rate if missing > _ROUNDING else 0.0


class Allowance:
    """What one endpoint may submit now."""

    __slots__ = ("_at", "_messages", "_octets", "rates")

    def __init__(self, rates: tuple[float, float], seconds: float, now: float) -> None:
        """`rates`: messages and bytes in a second; `seconds`: for how long it saves them up."""
        self.rates = rates
        self._messages = _Bucket(rates[0], seconds)
        self._octets = _Bucket(rates[1], seconds)
        self._at = now

    def fill(self, now: float) -> None:
        """Time has passed."""
        seconds, self._at = now - self._at, now
        self._messages.fill(seconds)
        self._octets.fill(seconds)

    def wait(self, messages: int, octets: int) -> float:
        """Seconds until a request of `messages` and `octets` may pass; 0 when it may now."""
        return max(self._messages.wait(messages), self._octets.wait(octets))

    def charge(self, messages: int, octets: int) -> None:
        """Take it, owing what is not there."""
        self._messages.level -= messages
        self._octets.level -= octets


class Rates:
    """The allowances of every endpoint, in one process."""

    def __init__(
        self,
        messages: float = 0.0,
        octets: float = 0.0,
        seconds: float = 1.0,
        share: float = 1.0,
        own: Callable[[], Mapping[int, Limited]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`messages`, `octets`: of each endpoint in a second, 0 for no limit. `seconds`: what a bucket holds.
        `share`: this process's part of all that. `own` gives the endpoints with limits of their own, by id.
        """
        self._default = (messages, octets)
        self._none = not messages and not octets
        self._seconds = seconds
        self._share = share
        self._own = own
        self._clock = clock
        self._allowances: dict[int, Allowance] = {}

    def of(self, endpoint: int) -> Allowance | None:
        """The endpoint's allowance as it is now; None when nothing limits it."""
        own = self._own()
        if self._none and not own:
            return None
        messages, octets = self._default
        limited = own.get(endpoint)
        if limited is not None:
            messages = messages if limited.rate_messages is None else limited.rate_messages
            octets = octets if limited.rate_bytes is None else limited.rate_bytes
        if not messages and not octets:
            self._allowances.pop(endpoint, None)
            return None
        rates = messages * self._share, octets * self._share
        now = self._clock()
        found = self._allowances.get(endpoint)
        if found is None or found.rates != rates:
            found = self._allowances[endpoint] = Allowance(rates, self._seconds, now)
        else:
            found.fill(now)
        return found
