"""What a run has shown, in a few lines, and whether that is good enough."""

from __future__ import annotations

import sys
from argparse import Namespace

import msgspec
from locust.env import Environment

from benchmarks.locust.account import Counts
from benchmarks.locust.calls import FROM_SCHEDULE

KEPT_UP, FEW = 0.99, 20
"""With less of the schedule done than this, and more left undone than these documents, latencies speak of a queue
that grows, not of the hub."""
WAITING = 0.1
LATE_SHARE, LATE_MS = 0.25, 10.0
"""A generator that waits for a CPU for more of its time, or wakes up later than this part of a 99th percentile
and than these ms, measures itself."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a run passed, and why not."""

    lines: list[str]
    failures: list[str]
    counts: Counts
    p99_ms: float
    """Of submissions, from schedule."""

    def show(self) -> None:
        """Print it."""
        print("\n".join(["Lienthong", *(f"  {line}" for line in self.lines)]))
        for failure in self.failures:
            print(f"  FAILED: {failure}")
        if not self.failures:
            print("  PASSED: nothing lost, nothing twice, no threshold broken")
        sys.stdout.flush()

    def json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def judge(environment: Environment, options: Namespace, counts: Counts, missing: int) -> Verdict:
    """Compare what was counted with what must be. `missing`: load generators that did not report."""
    p99 = environment.stats.get("submit", FROM_SCHEDULE).get_response_time_percentile(0.99) or 0
    share = counts.failures / max(1, counts.requests)
    kept = counts.sent / max(1, counts.offered)
    lines = [
        f"documents: {counts.offered:,} due, {counts.sent:,} sent, {counts.receipted:,} receipted"
        f" ({counts.verified:,} proofs verified)",
        f"deliveries: {counts.due:,} due, {counts.delivered:,} made, {counts.acknowledged:,} acknowledged",
        f"submission from schedule, p99: {p99:,.0f} ms"
        + (f" (limit {options.max_p99_ms:g} ms)" if options.max_p99_ms else ""),
        f"requests: {counts.requests:,}, failed {counts.failures:,} (limit {options.max_error_share:.3%})",
        f"generator: {counts.cpu_share:.0%} of a CPU, {counts.waiting_share:.0%} of the time waiting for one,"
        f" woken {counts.late_p99_ms:g} ms late (p99)",
    ]
    if counts.repeated:
        lines.append(f"delivered again to the next reader, unacknowledged: {counts.repeated:,}")
    if kept < KEPT_UP and counts.offered - counts.sent > FEW:
        lines.append(f"NOTE: only {kept:.1%} of what was due was sent; latencies grow with the length of the run")
    if counts.waiting_share > WAITING or counts.late_p99_ms > max(LATE_MS, LATE_SHARE * p99):
        lines.append("NOTE: the generator did not get the CPU that it needed: these are its own latencies")
    failures = [f"{fault} ({count:,} times)" for fault, count in sorted(counts.faults.items())]
    if missing:
        failures.append(f"{missing} load generators did not report")
    if not counts.sent:
        failures.append("nothing was sent")
    if counts.sent != counts.receipted:
        failures.append(f"{counts.sent - counts.receipted:,} documents have no receipt")
    if counts.acknowledged != counts.due or counts.delivered != counts.due:
        failures.append(f"{counts.due - counts.acknowledged:,} deliveries were not acknowledged")
    if counts.strays:
        failures.append(f"{counts.strays:,} deliveries were not as they should be")
    if counts.receipted and not counts.verified and counts.receipted >= options.sample:
        failures.append("no receipt could be verified")
    if options.max_p99_ms and p99 > options.max_p99_ms:
        failures.append(f"p99 from schedule is {p99:,.0f} ms; the limit is {options.max_p99_ms:g} ms")
    if share > options.max_error_share:
        failures.append(f"{share:.3%} of the requests failed; the limit is {options.max_error_share:.3%}")
    for row in environment.runner.exceptions.values() if environment.runner else ():
        failures.append(f"a user ended with {row['msg']} ({row['count']} times)")
    return Verdict(lines, failures, counts, float(p99))
