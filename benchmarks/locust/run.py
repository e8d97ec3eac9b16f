"""What every locustfile here shares: options, the load, who is which endpoint, settling, the exit code.

A locustfile calls `install` once. In a run of several processes each worker is a cell of the load with an
account of its own; the master asks them to settle, adds up what they report, and judges.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from argparse import Namespace
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent
import msgspec
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_INIT, STATE_STOPPED, MasterRunner, WorkerRunner

from benchmarks.locust import settle, verdict
from benchmarks.locust.account import Account, Counts, Mailbox
from benchmarks.locust.calls import OWN_TYPES
from benchmarks.locust.load import SENT, Load, LoadError, Receiver
from benchmarks.locust.shapes import SHAPES
from benchmarks.locust.verdict import Verdict

log = logging.getLogger(__name__)

GC_THRESHOLDS = (50_000, 20, 100)
STOP_SECONDS = 10.0
"""How long users may take to finish a request when a shape sends them home, unless --stop-timeout says so."""


class Seat:
    """A sending endpoint, taken by a user."""

    __slots__ = ("place", "round", "token", "turn")

    def __init__(self, place: int, turn: int, token: str) -> None:
        self.place = place
        self.turn = turn
        """Of the cell's senders, which."""
        self.token = token
        self.round = 0
        """Of its next document."""


class Run:
    """The state of one load generator."""

    def __init__(self) -> None:
        self.options = Namespace()
        self.load: Load
        self.account: Account
        self.closing = False
        self.senders: set[Any] = set()
        """Users that send: each tells its `overdue` documents and whether it is `busy`."""
        self._cell = -1
        self._seats: deque[Seat] = deque()
        self._free: deque[Mailbox] = deque()
        self._reports: dict[str, Counts] = {}
        self._verdict: Verdict | None = None
        self._clock = self._cpu = self._waited = 0.0

    @property
    def pace(self) -> float:
        """Seconds between a sender's submissions."""
        return float(self.options.pace)

    @property
    def batch(self) -> int:
        """Documents in a submission."""
        return int(self.options.batch)

    @property
    def readers(self) -> int:
        """Users that read mailboxes. Locust deals users out without knowing cells: one to spare for each."""
        manifest = self.load.manifest
        return len(manifest.receivers) + (manifest.cells if manifest.cells > 1 else 0)

    # -- who is who -----------------------------------------------------------------------------

    def claim_sender(self) -> Seat:
        """A sending endpoint. When there are more users than endpoints, they share them."""
        seat = self._seats.popleft()
        self._seats.append(seat)
        return seat

    def leave_sender(self, seat: Seat) -> None:
        """The next user takes this endpoint first: it has the most documents left."""
        self._seats.remove(seat)
        self._seats.appendleft(seat)

    def documents_of(self, seat: Seat) -> list[int]:
        """The numbers of an endpoint's next documents; fewer than a batch, or none, when they are used up."""
        manifest = self.load.manifest
        rounds = range(seat.round, min(seat.round + self.batch, manifest.rounds))
        seat.round = rounds.stop
        return [turn * len(manifest.senders) + seat.place for turn in rounds]

    def claim_mailbox(self) -> Mailbox | None:
        """A mailbox that nobody reads; None when each has its reader."""
        if not self._free:
            return None
        mailbox = self._free.popleft()
        mailbox.read_by_user = True
        return mailbox

    def leave_mailbox(self, mailbox: Mailbox) -> None:
        mailbox.read_by_user = False
        self._free.append(mailbox)

    def receiver(self, mailbox: Mailbox) -> Receiver:
        return self.load.manifest.receivers[mailbox.place]

    # -- Locust's events ------------------------------------------------------------------------

    @staticmethod
    def spare_the_collector() -> None:
        """`spawning_complete`: with 5,000 users a full collection took 0.5 s, time and again."""
        gc.collect()
        gc.freeze()

    def add_options(self, parser: LocustArgumentParser) -> None:
        """`init_command_line_parser`."""
        group = parser.add_argument_group("Lienthong")
        add = group.add_argument
        add("--load", default="", env_var="LIENTHONG_LOAD", help="folder that benchmarks.locust.prepare made")
        add("--shape", choices=["", *SHAPES], default="", env_var="LIENTHONG_SHAPE", help="how users come and go")
        add("--pace", type=float, default=10.0, help="seconds between a sender's submissions (10)")
        add("--batch", type=int, default=1, help="documents in a submission (1)")
        add("--poll-seconds", type=float, default=20.0, help="how long a receiver's poll waits for mail (20)")
        add("--sample", type=int, default=20, help="verify the proof of every so many-th receipt (20)")
        add("--patience", type=float, default=20.0, help="seconds without progress after which the rest is lost")
        add("--max-p99-ms", type=float, default=0.0, help="fail above this 99th percentile of `from schedule`")
        add("--max-error-share", type=float, default=0.0, help="fail above this part of failed requests (0)")
        add("--verdict", default="", help="write the counts and what failed to this file, as JSON")
        add("--insecure", action="store_true", help="do not check the hub's TLS certificate")

    def begin(self, environment: Environment) -> None:
        """`init`: open the load, and set what depends on it."""
        options = self.options = environment.parsed_options or Namespace()
        try:
            if not options.load:
                raise LoadError("name the folder that benchmarks.locust.prepare made with --load")
            self.load = Load(Path(options.load))
            self._check(environment)
        except LoadError as error:
            sys.exit(f"Error: {error}")
        manifest = self.load.manifest
        environment.host = environment.host or manifest.hub
        environment.stop_timeout = environment.stop_timeout or STOP_SECONDS
        if options.shape:
            fixed = self.readers + 1
            shape = SHAPES[options.shape]
            users = max(fixed + 1, options.num_users or fixed + len(manifest.senders))
            seconds = float(options.run_time or 60.0)
            environment.shape_class = shape(fixed, users - fixed, seconds, float(options.spawn_rate or users / 10))
            environment.shape_class.runner = environment.runner
        runner: Any = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.register_message("settle", self._settle_as_worker, concurrent=True)
        elif isinstance(runner, MasterRunner):
            runner.register_message("settled", self._reported)

    def _check(self, environment: Environment) -> None:
        manifest = self.load.manifest
        shape = SHAPES.get(self.options.shape)
        if shape and shape.fan_out and manifest.fan_out == 1 < len(manifest.receivers):
            raise LoadError("this shape wants documents for many mailboxes: prepare the load with --fan-out")
        if isinstance(environment.runner, WorkerRunner):
            return
        if (self.load.folder / SENT).exists():
            raise LoadError(f"the documents in {self.load.folder} were sent before: sign new ones")
        workers = self.options.expect_workers if self._is_master(environment) else 1
        if workers != manifest.cells:
            raise LoadError(f"the load was prepared for {manifest.cells} processes, not for {workers}")

    @staticmethod
    def _is_master(environment: Environment) -> bool:
        return isinstance(environment.runner, MasterRunner)

    def start(self, environment: Environment) -> None:
        """`test_start`."""
        self.closing = False
        self._verdict = None
        self._reports.clear()
        self.senders.clear()
        # Of classes that --tags leaves no task Locust would start users that end at once.
        environment.user_classes[:] = [kind for kind in environment.user_classes if kind.tasks]
        if not isinstance(environment.runner, WorkerRunner):
            (self.load.folder / SENT).write_text(datetime.now(UTC).isoformat(), encoding="ascii")
        if self._is_master(environment):
            return
        manifest, runner = self.load.manifest, _runner(environment)
        cell = runner.worker_index
        if not 0 <= cell < manifest.cells:
            log.error("this is process %d of a load for %d: start all of them again", cell + 1, manifest.cells)
            runner.quit()
            return
        if not self._seats:
            places = range(cell, len(manifest.senders), manifest.cells)
            self._seats.extend(Seat(p, t, manifest.senders[p].token) for t, p in enumerate(places))
        self.account = Account(self.load, cell, max(1, int(self.options.sample)))
        self._free = deque(self.account.mailboxes.values())
        gc.set_threshold(*GC_THRESHOLDS)
        self._clock, self._cpu, self._waited = perf_counter(), time.process_time(), _waited_for_cpu()

    def count(self, request_type: str, exception: BaseException | None) -> None:
        """`request`."""
        if request_type not in OWN_TYPES:
            self.account.counts.requests += 1
            self.account.counts.failures += exception is not None

    def stopping(self, environment: Environment) -> None:
        """`test_stopping`: let everything that was sent arrive before users go."""
        if self._is_master(environment):
            self._ask_workers(_runner(environment))
        elif not self.closing:
            self._close(environment)

    def _close(self, environment: Environment) -> None:
        self.closing = True
        counts = self.account.counts
        now = perf_counter()
        elapsed = max(now - self._clock, 0.001)
        counts.cpu_share = round((time.process_time() - self._cpu) / elapsed, 2)
        counts.waiting_share = round((_waited_for_cpu() - self._waited) / elapsed, 2)
        counts.offered += sum(sender.overdue(now) for sender in self.senders)
        settle.settle(self, environment.host or "")

    def _settle_as_worker(self, environment: Environment, msg: Any) -> None:
        if not self.closing:
            self._close(environment)
        runner = _runner(environment)
        runner._send_stats()  # before the answer: the master judges when it has all answers
        runner.send_message("settled", msgspec.to_builtins(self.account.report()))

    def _reported(self, environment: Environment, msg: Any) -> None:
        self._reports[msg.node_id] = msgspec.convert(msg.data, Counts)

    def _ask_workers(self, runner: MasterRunner) -> None:
        runner.send_message("settle")
        waited = perf_counter()
        patience = 3 * float(self.options.patience) + 60
        while len(self._reports) < runner.worker_count and perf_counter() - waited < patience:
            gevent.sleep(0.05)

    def judge(self, environment: Environment) -> None:
        """`test_stop`: the verdict is the exit code."""
        if isinstance(environment.runner, WorkerRunner):
            return
        if self._is_master(environment):
            total, missing = Counts(), self.load.manifest.cells - len(self._reports)
            for report in self._reports.values():
                total += report
        else:
            total, missing = self.account.report(), 0
        self._verdict = verdict.judge(environment, self.options, total, missing)
        environment.process_exit_code = 1 if self._verdict.failures else 0
        if self.options.verdict:
            Path(self.options.verdict).write_bytes(self._verdict.json())
        if not self.options.headless:
            self._verdict.show()

    def quit(self) -> None:
        """`quit`: after Locust's tables, where it is seen."""
        if self._verdict is not None and self.options.headless:
            self._verdict.show()

    def quitting(self, environment: Environment) -> None:
        """`quitting`: after Ctrl-C or SIGTERM the run has not been stopped yet."""
        runner = environment.runner
        if (
            runner is not None
            and not self._is_master(environment)
            and runner.state
            not in (
                STATE_INIT,
                STATE_STOPPED,
            )
        ):
            runner.stop()


def _waited_for_cpu() -> float:
    """Seconds that this thread was ready to run and did not get a CPU. Linux tells; elsewhere 0."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _runner(environment: Environment) -> Any:
    """Locust's runner, of whichever kind: the caller knows."""
    return environment.runner


def install() -> Run:
    """Connect a `Run` with Locust's events; for the top of a locustfile."""
    run = Run()
    events.init_command_line_parser.add_listener(lambda parser, **_: run.add_options(parser))
    events.init.add_listener(lambda environment, **_: run.begin(environment))
    events.test_start.add_listener(lambda environment, **_: run.start(environment))
    events.request.add_listener(lambda request_type, exception=None, **_: run.count(request_type, exception))
    events.spawning_complete.add_listener(lambda **_: run.spare_the_collector())
    events.test_stopping.add_listener(lambda environment, **_: run.stopping(environment))
    events.test_stop.add_listener(lambda environment, **_: run.judge(environment))
    events.quitting.add_listener(lambda environment, **_: run.quitting(environment))
    events.quit.add_listener(lambda **_: run.quit())
    return run
