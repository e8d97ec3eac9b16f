"""Latencies as a table and as a curve, both exact: every request is kept, none is put into a bucket.

The curve has the percentile axis of HdrHistogram: evenly many points on each halving of what is left, so that
p99 to p99.99 take as much room as p0 to p90. Whoever looks at the worst sees the worst.
"""

from __future__ import annotations

from collections.abc import Sequence

TABLE = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p999"), (1.0, "max"))
"""What every run reports."""
_TICKS = 5
"""Points on each halving of the distance to 100 %."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at or below which `share` of the sorted values lie (nearest rank); 0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def milliseconds(seconds: Sequence[float], *shares: float) -> list[float]:
    """Percentiles in ms."""
    ordered = sorted(seconds)
    return [round(percentile(ordered, share) * 1000, 2) for share in shares]


def table(seconds: Sequence[float], prefix: str = "") -> dict[str, float]:
    """The percentiles of `TABLE` in ms, by names such as ``p99_ms``."""
    values = milliseconds(seconds, *(share for share, _ in TABLE))
    return {f"{prefix}{name}_ms": value for (_, name), value in zip(TABLE, values, strict=True)}


def curve(seconds: Sequence[float]) -> list[list[float]]:
    """[percentile, ms] from the median of nothing to the maximum, as far as the number of values carries."""
    ordered = sorted(seconds)
    if not ordered:
        return []
    points: list[list[float]] = []
    left = 1.0
    while left > 1 / len(ordered):
        for tick in range(_TICKS):
            share = 1 - left * (1 - tick / (2 * _TICKS))
            points.append([round(share * 100, 4), round(percentile(ordered, share) * 1000, 3)])
        left /= 2
    points.append([100.0, round(ordered[-1] * 1000, 3)])
    return points
