"""The locustfile for the stream door: each agency system holds one WebSocket, for hours as it would in earnest.

    locust -f benchmarks/locust/stream_door.py --load FOLDER --headless -u 500 -r 50 -t 5m --html report.html

`User` with a WebSocket of gevent's kind (websocket-client on patched sockets): asyncio's do not run inside Locust.
Senders and receivers are users of their own, as for the HTTP door, so that the two can be compared.
"""

from __future__ import annotations

import sys
from typing import Any

import gevent
from locust import User, events, tag, task

from benchmarks.locust import run
from benchmarks.locust.administrator import Administrator
from benchmarks.locust.schedule import Schedule
from benchmarks.locust.stream_calls import BYE_SECONDS, Stream

__all__ = ["Administrator", "Receiver", "Sender"]

RUN = run.install()


@events.init.add_listener
def _one_reader_for_each_mailbox(**_: Any) -> None:
    Receiver.fixed_count = RUN.readers


class StreamSystem(User):
    """What agency systems have in common: a stream, and a greenlet that reads from it."""

    abstract = True
    stream: Stream | None = None
    reader: gevent.Greenlet | None = None

    def open(self, token: str) -> Stream:
        """Begin to hold a stream."""
        requests = self.environment.events.request
        self.stream = Stream(self.host or "", token, bool(RUN.options.insecure), RUN.account, requests)
        return self.stream

    def read(self) -> None:
        """Start the reader."""
        self.reader = gevent.spawn(self._read)

    def _read(self) -> None:
        assert self.stream is not None
        try:
            self.stream.run()
        except Exception as error:
            trace = sys.exc_info()[2]
            self.environment.events.user_error.fire(user_instance=self, exception=error, tb=trace)

    def hang_up(self) -> None:
        """Let what is under way be answered, then close."""
        if self.stream is None or self.reader is None:
            return
        self.stream.finish()
        self.reader.join(BYE_SECONDS)
        self.stream.cut()
        self.reader.kill()


class Sender(Schedule, StreamSystem):
    """Submits a document, or a batch, every `--pace` seconds by the clock, without waiting for answers."""

    @property
    def busy(self) -> bool:
        """Whether submissions are under way."""
        return self.stream is not None and self.stream.busy

    def on_start(self) -> None:
        self.begin(RUN)
        self.open(self.seat.token)
        self.read()

    @tag("submit")
    @task
    def submit(self) -> None:
        """What is due now."""
        numbers, due = self.next_documents()
        if numbers and self.stream is not None:
            self.stream.submit(numbers, due)

    def on_stop(self) -> None:
        self.hang_up()
        self.end()


class Receiver(StreamSystem):
    """Takes the mail of one mailbox as it is pushed, and acknowledges it."""

    @tag("receive")
    @task
    def receive(self) -> None:
        """The first time, begin; all else is the reader's."""
        if self.stream is None:
            mailbox = RUN.claim_mailbox()
            if mailbox is not None:
                self.open(RUN.receiver(mailbox).token).mailbox = mailbox
                self.read()

    def wait_time(self) -> float:
        """Until the end; a user without a mailbox looks again for one that has become free."""
        return 1e6 if self.stream is not None else 5.0

    def on_stop(self) -> None:
        self.hang_up()
        if self.stream is not None and self.stream.mailbox is not None:
            RUN.leave_mailbox(self.stream.mailbox)
