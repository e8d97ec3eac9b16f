"""How the load changes over a run: `--shape ramp`, `spike`, `soak` or `fan-out`.

A shape is a table: until which part of the run which part of the senders is there. Receivers are there from
the beginning to the end, as mailboxes are: Locust starts users of a fixed number first and stops them last.
"""

from __future__ import annotations

from typing import ClassVar

from locust import LoadTestShape

Stage = tuple[float, float]
"""(until this part of the run, this part of the senders)"""


class Shape(LoadTestShape):
    """Follows `stages`."""

    abstract = True
    stages: ClassVar[tuple[Stage, ...]] = ()
    fan_out: ClassVar[bool] = False
    """Whether it wants documents for all mailboxes."""

    def __init__(self, fixed: int, senders: int, seconds: float, spawn_rate: float) -> None:
        """`fixed`: users that are always there; `senders`: of these as many as the stages say."""
        super().__init__()
        self._fixed = fixed
        self._senders = senders
        self._seconds = seconds
        self._spawn_rate = spawn_rate

    def at(self, seconds: float) -> int | None:
        """Users at a moment of the run; None when it is over."""
        for until, share in self.stages:
            if seconds < until * self._seconds:
                return self._fixed + max(1, round(share * self._senders))
        return None

    def tick(self) -> tuple[int, float] | None:
        """What Locust asks once a second."""
        users = self.at(self.get_run_time())
        return None if users is None else (users, self._spawn_rate)


class Ramp(Shape):
    """Ten steps of equal length from a tenth to all: at which step do latencies bend?"""

    abstract = False
    stages = tuple((step / 10, step / 10) for step in range(1, 11))


class Spike(Shape):
    """A fifth; everybody at once; a fifth again: what does a rush cost, and how soon is it forgotten?"""

    abstract = False
    stages = ((0.3, 0.2), (0.5, 1.0), (1.0, 0.2))


class Soak(Shape):
    """Two short steps, then all for the rest of hours: what leaks, what grows?"""

    abstract = False
    stages = ((0.02, 0.25), (0.05, 0.5), (1.0, 1.0))


class FanOut(Shape):
    """All the time all senders, each document for every mailbox: a circular to everybody."""

    abstract = False
    stages = ((1.0, 1.0),)
    fan_out = True


SHAPES: dict[str, type[Shape]] = {"ramp": Ramp, "spike": Spike, "soak": Soak, "fan-out": FanOut}
