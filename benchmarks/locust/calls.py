"""The requests of the HTTP door as an agency's system makes them, and every answer checked.

They go through Locust's `FastHttpSession`, so each is a `request` event with its own time. What that time hides
is fired beside it: `from schedule` counts a submission from when it was due, with all repetitions, and
`end to end` a document from when it was due until its acknowledgement was on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gevent
import msgspec
import orjson
from locust.contrib.fasthttp import FastHttpSession, ResponseContextManager
from locust.event import EventHook

from benchmarks.locust.account import Account, Mailbox

PAGE = 200
RETRY_SECONDS = 1.0
"""Before a submission is repeated, when the hub does not say how long."""
FROM_SCHEDULE = "from schedule"
END_TO_END = "end to end"
OWN_TYPES = (FROM_SCHEDULE, END_TO_END)
"""Types of events that are no requests: they are not counted as such."""


class _Entry(msgspec.Struct):
    seq: int
    sender_id: str = ""
    jws: str = ""


class _Page(msgspec.Struct):
    entries: list[_Entry]
    cursor: str
    more: bool


class _Acked(msgspec.Struct):
    acknowledged: int


class _Line(msgspec.Struct):
    """Of a batch's answer, what tells a refusal."""

    code: str = ""


_read_line = msgspec.json.Decoder(_Line).decode
_read_page = msgspec.json.Decoder(_Page).decode
_read_acked = msgspec.json.Decoder(_Acked).decode


@dataclass(slots=True)
class Refusal:
    """An answer that was not what was asked for."""

    reason: str
    retryable: bool
    after: float
    """Seconds to wait before the same request may succeed."""


def refusal(status: int, body: bytes | None, error: object = None) -> Refusal:
    """What an answer other than the one hoped for means. Status 0: none came."""
    if not status:
        return Refusal(f"no answer: {error!r}"[:120], True, RETRY_SECONDS)
    try:
        problem = orjson.loads(body or b"")
        reason, retryable = f"{problem['status']} {problem['code']}", bool(problem["retryable"])
    except (ValueError, KeyError, TypeError):
        reason, retryable = f"{status}, without a problem of the catalogue", status >= 500
    return Refusal(reason, retryable, RETRY_SECONDS)


class Calls:
    """One system's requests, and the account that they go into."""

    def __init__(self, session: FastHttpSession, token: str, account: Account, events: EventHook) -> None:
        """`events`: Locust's `request` event."""
        self._session = session
        self._account = account
        self._events = events
        self.polling = False
        """Whether nothing but waiting for mail is under way, which may be cut."""
        # Nothing that the hub answers is compressed; saying so spares both sides the question.
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._jose = self._headers | {"Content-Type": "application/jose"}
        self._ndjson = self._headers | {"Content-Type": "application/x-ndjson"}
        self._json = self._headers | {"Content-Type": "application/json"}

    # -- submitting -----------------------------------------------------------------------------

    def submit(self, numbers: list[int], due: float) -> None:
        """Submit documents until each has a receipt or a refusal for good, as a real sender would."""
        account = self._account
        for number in numbers:
            account.sent(number, due)
        waiting = self.submit_once(numbers)
        while waiting:
            left, after = waiting
            gevent.sleep(after)
            for number in left:
                account.sent_again(number)
            waiting = self.submit_once(left)
        self._fire(FROM_SCHEDULE, "submit", due, len(numbers))

    def submit_once(self, numbers: list[int]) -> tuple[list[int], float] | None:
        """One POST. Returns the documents to be sent again and after how many seconds; None when none is."""
        account = self._account
        documents = [account.load.document(number) for number in numbers]
        single = len(documents) == 1
        body = documents[0] if single else b"\n".join(documents)
        name = "submit" if single else f"submit, {len(documents)} at once"
        headers = self._jose if single else self._ndjson
        with self._session.post(
            "/v1/messages",
            data=body,  # type: ignore[arg-type]
            headers=headers,
            name=name,
            catch_response=True,
        ) as got:
            if got.status_code not in ((200, 202) if single else (200,)):
                found = self._failed(got)
                if found.retryable:
                    return numbers, found.after
                for number in numbers:
                    account.refused(number, found.reason)
                return None
            if single:
                wrong = account.receipted(numbers[0], got.content)
                if wrong:
                    got.failure(wrong)
                return None
            return self._take_lines(numbers, got)

    def _take_lines(self, numbers: list[int], got: ResponseContextManager) -> tuple[list[int], float] | None:
        """The answers to a batch. Returns as `submit_once`."""
        lines = got.content.splitlines()
        if len(lines) != len(numbers):
            got.failure(f"{len(lines)} answers to {len(numbers)} documents")
            return numbers, RETRY_SECONDS
        left: list[int] = []
        for number, line in zip(numbers, lines, strict=True):
            wrong = self._take_line(number, line, left)
            if wrong:
                got.failure(wrong)
        return (left, RETRY_SECONDS) if left else None

    def _take_line(self, number: int, line: bytes, left: list[int]) -> str | None:
        """One document's answer; `left` gets it when it is to be sent again. Returns what is wrong."""
        try:
            refused = bool(_read_line(line).code)
        except (msgspec.MsgspecError, ValueError):
            refused = False
        if not refused:
            return self._account.receipted(number, line)
        found = refusal(200, line)
        if found.retryable:
            left.append(number)
        else:
            self._account.refused(number, found.reason)
        return found.reason

    # -- receiving ------------------------------------------------------------------------------

    def read(self, mailbox: Mailbox, wait: float) -> int:
        """Read a page, waiting for mail up to `wait` seconds, and acknowledge it.

        Returns how many entries it had; -1 when the hub did not answer as it should.
        """
        name = "mailbox, waiting for mail" if wait else "mailbox"
        address = f"/v1/mailbox?limit={PAGE}&wait={wait:g}&after={mailbox.cursor}"
        self.polling = True
        with self._session.get(address, headers=self._headers, name=name, catch_response=True) as got:
            self.polling = False
            if got.status_code != 200:
                self._failed(got)
                return -1
            try:
                page = _read_page(got.content)
            except (msgspec.MsgspecError, ValueError):
                got.failure("not a page of a mailbox")
                return -1
        if not page.entries:
            return 0
        delivered = self._account.delivered
        numbers, seqs = [], []
        for entry in page.entries:
            number = delivered(mailbox, entry.sender_id, entry.jws.encode())
            if number >= 0:
                numbers.append(number)
                seqs.append(entry.seq)
        asked = {"entries": seqs} if mailbox.others else {"up_to": page.cursor}
        if numbers and not self._acknowledge(mailbox, numbers, asked):
            return -1  # the cursor stays: what was not acknowledged is read again
        mailbox.cursor = page.cursor
        return len(page.entries)

    def _acknowledge(self, mailbox: Mailbox, numbers: list[int], asked: dict[str, Any]) -> bool:
        with self._session.post(
            "/v1/mailbox/ack",
            data=orjson.dumps(asked),  # type: ignore[arg-type]
            headers=self._json,
            name="acknowledge",
            catch_response=True,
        ) as got:
            if got.status_code != 200:
                self._failed(got)
                mailbox.doubtful.update(numbers)
                return False
            try:
                counted = _read_acked(got.content).acknowledged
            except (msgspec.MsgspecError, ValueError):
                got.failure("not an answer to an acknowledgement")
                mailbox.doubtful.update(numbers)
                return False
        for number in self._account.acknowledged(mailbox, numbers, counted):
            self._fire(END_TO_END, "acknowledged", self._account.due(number))
        return True

    def _failed(self, got: ResponseContextManager) -> Refusal:
        found = refusal(got.status_code, got.content, getattr(got, "error", None))
        got.failure(found.reason)
        headers: Any = got.headers or {}
        if after := headers.get("Retry-After"):
            found.after = float(after)
        return found

    def _fire(self, kind: str, name: str, since: float, documents: int = 1) -> None:
        elapsed = (perf_counter() - since) * 1000
        for _ in range(documents):
            self._events.fire(
                request_type=kind,
                name=name,
                response_time=elapsed,
                response_length=0,
                exception=None,
                context={},
            )

    def drain(self, mailbox: Mailbox) -> None:
        """Read a mailbox from its beginning until nothing of this load is left in it."""
        mailbox.cursor = "0.0.0"
        while (found := self.read(mailbox, 0)) > 0:
            pass
        if not found:
            self._account.emptied(mailbox)


def silent_session(host: str, insecure: bool) -> FastHttpSession:
    """A session whose requests count nowhere: for settling, when the clock has stopped."""
    return FastHttpSession(host, EventHook(), None, insecure=insecure)
