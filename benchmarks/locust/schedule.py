"""A sender's schedule: when its documents are due, whatever became of those before.

Locust's `constant_throughput` forgets what could not be done in time; this keeps it, so that a hub which stalls
is charged for everything that was due meanwhile.
"""

from __future__ import annotations

from time import perf_counter

from benchmarks.locust.run import Run, Seat

FOR_GOOD = 1e6
"""A wait that only the end of the run ends."""


class Schedule:
    """For users that send: `due` and `pace` are seconds, of `perf_counter` and between submissions."""

    generator: Run
    seat: Seat

    def begin(self, run: Run) -> None:
        """Take an endpoint, and be one of those who must have been answered at the end."""
        self.generator = run
        self.seat = run.claim_sender()
        self.pace = run.pace
        # Spread evenly over the pace whatever their number: the golden ratio never lines up.
        self.due = perf_counter() + self.seat.turn * 0.6180339887 % 1 * self.pace
        self._idle = True
        run.senders.add(self)

    def wait_time(self) -> float:
        """Seconds until the next documents are due; Locust asks after each task."""
        wait = self.due - perf_counter()
        self._idle = wait > 0
        return max(0.0, wait)

    def next_documents(self) -> tuple[list[int], float]:
        """The documents to submit now, and when they were due; none when it is too early or too late."""
        now, run = perf_counter(), self.generator
        if now < self.due:
            return [], 0.0  # the first time round, to be told by `wait_time` when
        if run.closing:
            self.due = now + FOR_GOOD
            return [], 0.0
        if self._idle:
            run.account.lags.append(now - self.due)
        numbers = run.documents_of(self.seat)
        if not numbers:
            run.account.faults["a sender's documents were used up: sign more"] += 1
            self.due = now + FOR_GOOD
            return [], 0.0
        due, self.due = self.due, self.due + self.pace
        run.account.counts.offered += len(numbers)
        return numbers, due

    def overdue(self, now: float) -> int:
        """Documents that were due by `now` and that nobody has sent."""
        return max(0, int((now - self.due) // self.pace) + 1) * self.generator.batch

    def end(self) -> None:
        """Leave the endpoint to another user."""
        if self in self.generator.senders:
            self.generator.senders.discard(self)
            self.generator.leave_sender(self.seat)
            if not self.generator.closing:
                self.generator.account.counts.offered += self.overdue(perf_counter())
