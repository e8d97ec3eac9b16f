"""The locustfile for the HTTP door: agency systems that send, that receive, and an administrator who looks.

    locust -f benchmarks/locust/http_door.py --load FOLDER --headless -u 500 -r 50 -t 5m --html report.html

`FastHttpUser` and not `HttpUser`: Locust's own documentation gives 16,000 requests a second from one process
against 4,000, and what the generator does not use is the hub's when both share a machine. These users need
nothing of what `requests` can do more. `python -m benchmarks.locust` makes a load and fills all of this in.
"""

from __future__ import annotations

from typing import Any

import gevent
from locust import FastHttpUser, events, tag, task

from benchmarks.locust import run
from benchmarks.locust.account import Mailbox
from benchmarks.locust.administrator import Administrator
from benchmarks.locust.calls import RETRY_SECONDS, Calls
from benchmarks.locust.schedule import Schedule

__all__ = ["Administrator", "Receiver", "Sender"]

RUN = run.install()
SPARE_SECONDS = 5.0


@events.init.add_listener
def _one_reader_for_each_mailbox(**_: Any) -> None:
    Receiver.fixed_count = RUN.readers


class AgencySystem(FastHttpUser):
    """What agency systems have in common: one connection, and certificates that are checked."""

    abstract = True
    concurrency = 1
    connection_timeout = 20.0

    def __init__(self, environment: Any) -> None:
        self.insecure = bool(environment.parsed_options.insecure)
        super().__init__(environment)
        self.account = RUN.account

    def calls(self, token: str) -> Calls:
        """The requests of the system with this token."""
        return Calls(self.client, token, self.account, self.environment.events.request)


class Sender(Schedule, AgencySystem):
    """Submits a document, or a batch, every `--pace` seconds by the clock, however long the last one took."""

    busy = False
    """Whether a submission is under way."""

    def on_start(self) -> None:
        self.begin(RUN)
        self.requests = self.calls(self.seat.token)

    @tag("submit")
    @task
    def submit(self) -> None:
        """What is due now."""
        numbers, due = self.next_documents()
        if not numbers:
            return
        self.busy = True
        try:
            self.requests.submit(numbers, due)
        finally:
            self.busy = False

    def on_stop(self) -> None:
        self.end()


class Receiver(AgencySystem):
    """Reads one mailbox with long polls and acknowledges each page."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.mailbox: Mailbox | None = None
        self.requests = self.calls("")

    def on_start(self) -> None:
        self.mailbox = RUN.claim_mailbox()
        if self.mailbox is not None:
            self.requests = self.calls(RUN.receiver(self.mailbox).token)

    @tag("receive")
    @task
    def receive(self) -> None:
        """One page."""
        if self.mailbox is None:  # every mailbox has its reader
            gevent.sleep(SPARE_SECONDS)
        elif self.requests.read(self.mailbox, RUN.options.poll_seconds) < 0:
            gevent.sleep(RETRY_SECONDS)

    def stop(self, force: bool = False) -> Any:
        """A poll that waits for mail may be cut, an acknowledgement is finished."""
        return super().stop(force=force or self.requests.polling or self.mailbox is None)

    def on_stop(self) -> None:
        if self.mailbox is not None:
            RUN.leave_mailbox(self.mailbox)
