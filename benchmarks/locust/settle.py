"""The end of a run: what was sent gets its answer, what was accepted arrives, and receipts are verified.

No request here is an event of Locust's: the clock has stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import gevent
import orjson
from gevent.pool import Pool
from locust.event import EventHook

from benchmarks.locust.account import Account, Mailbox
from benchmarks.locust.calls import Calls, silent_session
from protocol.signature import PublicKey, from_jwk

if TYPE_CHECKING:
    from benchmarks.locust.run import Run

LOOK_SECONDS = 0.05
AT_ONCE = 16
QUIET_SECONDS = 3.0
"""Without progress for so long, mailboxes are read again from their beginning."""


def settle(run: Run, host: str) -> None:
    """Wait for what is under way, ask again for what was not answered, empty the mailboxes, verify."""
    account, patience = run.account, float(run.options.patience)
    session = silent_session(host, bool(run.options.insecure))
    nobody = EventHook()

    def calls(token: str) -> Calls:
        return Calls(session, token, account, nobody)

    def drain(mailbox: Mailbox) -> None:
        calls(run.receiver(mailbox).token).drain(mailbox)

    _wait(account, lambda: not any(sender.busy for sender in run.senders), patience)
    _submit_again(run, calls)
    pool = Pool(AT_ONCE)
    pool.map(drain, [mailbox for mailbox in account.mailboxes.values() if not mailbox.read_by_user])
    if not _wait(account, lambda: not account.undelivered, min(QUIET_SECONDS, patience)):
        pool.map(drain, account.mailboxes.values())
        _wait(account, lambda: not account.undelivered, patience)
    account.verify(_hub_keys(session))


def _submit_again(run: Run, calls: Callable[[str], Calls]) -> None:
    """The same bytes once more: the hub answers with the first receipt, or accepts them now."""
    senders = run.load.manifest.senders
    for number in list(run.account.unanswered()):
        again = calls(senders[number % len(senders)].token)
        run.account.sent_again(number)
        deadline = perf_counter() + float(run.options.patience)
        while (waiting := again.submit_once([number])) and perf_counter() < deadline:
            gevent.sleep(waiting[1])
        if waiting:
            return  # the hub is not there: nothing more can be learnt


def _wait(account: Account, done: Callable[[], bool], patience: float) -> bool:
    """Wait until `done`, or until the account has not changed for `patience` seconds."""
    counts = account.counts
    before, since = None, perf_counter()
    while not done():
        now = counts.receipted, counts.delivered, counts.acknowledged
        if now != before:
            before, since = now, perf_counter()
        elif perf_counter() - since > patience:
            return False
        gevent.sleep(LOOK_SECONDS)
    return True


def _hub_keys(session: object) -> dict[str, PublicKey]:
    got = session.get("/v1/hub/keys")  # type: ignore[attr-defined]
    if got.status_code != 200:
        return {}
    return {jwk["kid"]: from_jwk(jwk) for jwk in orjson.loads(got.content)["keys"]}
