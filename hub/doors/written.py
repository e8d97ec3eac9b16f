"""What the native doors write: the outcome of a submission, an entry of a mailbox.

Receipts and messages are put in as they are, without being parsed or escaped again: a receipt is JSON already,
and a JWS or a manifest's entry needs no escape in JSON.
"""

from __future__ import annotations

from typing import Any

import orjson

from hub.couriers.beside import Said
from hub.couriers.mailbox import Page, cursor_text
from hub.relay.answering import Accepted
from hub.relay.format import Format
from hub.relay.mail import Mail
from protocol.evidence import timestamp
from protocol.message import Lane
from protocol.problems import Problem

_BODIES = {Format.JWS: "jws", Format.MANIFEST: "entry"}


def accepted_json(accepted: Accepted) -> bytes:
    """The JSON object of an answer."""
    return b"{" + _members(accepted)


def _members(accepted: Accepted) -> bytes:
    state = b"duplicate" if accepted.duplicate else b"accepted"
    unreachable = b',"unreachable":' + orjson.dumps(accepted.unreachable) if accepted.unreachable else b""
    return b'"id":"%b","state":"%b","receipt":%b%b}' % (
        str(accepted.id).encode(),
        state,
        accepted.receipt,
        unreachable,
    )


def outcome_json(outcome: Accepted | Problem) -> bytes:
    """One outcome among many: with its own `status`, as a line of a batch or in a stream's `answers`."""
    if isinstance(outcome, Problem):
        return problem_json(outcome)
    return b'{"status":%d,%b' % (200 if outcome.duplicate else 202, _members(outcome))


def problem_json(problem: Problem) -> bytes:
    """A problem where no header can say when to come again: as the member `retry_after`, in seconds."""
    if problem.retry_after is None:
        return problem.to_json()
    return orjson.dumps(problem.members() | {"retry_after": problem.retry_after})


def entry_json(mail: Mail, said: dict[str, Any] | None = None) -> bytes:
    """An entry of a mailbox, with further members `said` of it."""
    entry, format_ = mail.entry, mail.format
    members = {
        "seq": entry.seq,
        "lane": Lane(mail.lane).label,
        "id": str(entry.id),
        "sender_id": entry.sender_id,
        "from": entry.sender,
        "to": entry.agencies,
        "format": format_.label,
        "media_type": format_.media_type,
        "size": mail.size,
        "sha256": entry.digest.hex(),
        "accepted_at": timestamp(mail.accepted_at),
    }
    if mail.expires_at is not None:
        members["expires"] = timestamp(mail.expires_at)
    if said is not None:
        members |= said
    body = mail.body
    if body is not None and format_ in _BODIES:
        members[_BODIES[format_]] = orjson.Fragment(b'"' + body + b'"')
    elif body is not None and format_ is Format.EDXML:
        members["edxml"] = body.decode()
    elif body is not None and format_ is Format.RECEIPT:
        members["receipt"] = orjson.Fragment(body)
    return orjson.dumps(members)


def page_json(page: Page, said: Said) -> bytes:
    """A page of a mailbox. `said`: what else is told of some of its entries."""
    return b'{"entries":[%b],"cursor":"%b","more":%b}' % (
        b",".join([entry_json(mail, said.get(mail.entry.id)) for mail in page.entries]),
        cursor_text(page.cursor).encode(),
        b"true" if page.more else b"false",
    )
