"""The events in a proof: each receipt, whom it is about, and what recipients and other hubs signed themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from protocol.acknowledgement import SignedAcknowledgement, verify_acknowledgement
from protocol.agency import is_code
from protocol.evidence import EventKind, EvidenceError, Receipt, recipients_digest, verify_receipt
from protocol.problems import Problem
from protocol.proof import Evidence, Made, Proof, read_key, read_moment
from protocol.proof_log import Event
from protocol.proof_trust import Trust
from protocol.proof_verdict import Text, Verdict
from protocol.proof_words import DEEDS, KINDS, PDF, shown
from protocol.signature import parse, thumbprint

SHOWN = 12
"""Recipients named in a sentence; of more it tells the number."""
_ENDS = (EventKind.ACKNOWLEDGED, EventKind.REFUSED, EventKind.EXPIRED, EventKind.RECALLED)


@dataclass(slots=True)
class Work:
    """What a verification works on."""

    proof: Proof
    document: bytes | None
    trust: Trust
    now: datetime
    made: Made
    verdict: Verdict


def read_event(work: Work, number: int, evidence: Evidence) -> Event:
    """An event whose receipt is right and which is about this message. Raises EvidenceError."""
    found = verify_receipt(evidence.receipt, work.trust.hub_keys.get)
    event, message = found.event, work.proof.message
    kind = event.get("event")
    times = event.get("at"), event.get("handed_over_at", found.sealed_at), found.sealed_at
    if not isinstance(kind, str) or None in map(read_moment, times):
        raise EvidenceError("the event does not say what happened, or when")
    if event.get("message") != message.id or event.get("sha256", message.sha256) != message.sha256:
        raise EvidenceError("the event is genuine but about another message")
    return Event(number, evidence.receipt, found, evidence.logged)


def _named(codes: Iterable[str]) -> str:
    listed = list(codes)
    more = f", … (+{len(listed) - SHOWN})" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def check_recipients(work: Work, accepted: Event) -> None:
    listed, event, verdict = work.proof.recipients, accepted.event, work.verdict
    count = str(event.get("recipients"))
    if listed is None:
        verdict.add("recipients", "recipients_withheld", "not_proven", count=count)
    elif recipients_digest(listed) != event.get("recipients_sha256") or len(listed) != event.get("recipients"):
        verdict.add("recipients", "recipients_other", "contradicted")
    else:
        verdict.add("recipients", "recipients_listed", "proven", count=count, recipients=_named(listed))


def check_events(work: Work) -> list[Event]:
    proof, verdict = work.proof, work.verdict
    found = []
    ended: set[str] = set()
    owned: list[bool] = []
    for number, evidence in enumerate(proof.events, start=2):
        try:
            event = read_event(work, number, evidence)
            if event.event["event"] in (EventKind.ACCEPTED, EventKind.REJECTED):
                raise EvidenceError("a message is accepted once")
            agencies = _agencies(event, work.trust)
            if proof.recipients is not None and not set(agencies) <= set(proof.recipients):
                raise EvidenceError("the event names recipients that the message does not have")
        except EvidenceError as error:
            verdict.add("events", "event_wrong", "contradicted", number=str(number), why=str(error))
            continue
        told(verdict, event)
        if "beyond" in event.event:
            _beyond(work, event)
        if event.event["event"] in _ENDS:
            ended.update(agencies)
        if event.event["event"] in DEEDS:
            owned += _acknowledged(work, event, evidence, agencies)
        elif evidence.acknowledgement is not None:
            why = "the file has an acknowledgement for an event that is none"
            verdict.add("events", "event_wrong", "contradicted", number=str(number), why=why)
        found.append(event)
    if True in owned:
        verdict.add("events", "recipient_keys_known", "proven", count=str(owned.count(True)))
    if False in owned:
        verdict.add("events", "recipient_keys_by_hub", "not_proven", count=str(owned.count(False)))
    waiting = [code for code in proof.recipients or () if code not in ended]
    if waiting:
        verdict.add("events", "open", "not_proven", count=str(len(waiting)), recipients=_named(waiting))
    return found


def _agencies(event: Event, trust: Trust) -> list[str]:
    """The recipients that an event names.

    Raises EvidenceError, also for what gets past a list of agencies' keys by looking like a code in it.
    """
    named = event.event.get("recipients", [])
    if not isinstance(named, list) or not all(isinstance(code, str) for code in named):
        raise EvidenceError("the event's recipients cannot be read")
    if trust.agencies and not all(map(is_code, named)):
        raise EvidenceError("the event names a recipient by what is no agency's code")
    if not named and event.event["event"] in DEEDS:
        raise EvidenceError("the event does not say for which recipient it is")
    return named


def told(verdict: Verdict, event: Event) -> None:
    members = event.event
    kind = str(members.get("event"))
    recipients = members.get("recipients")
    agencies = [str(code) for code in recipients] if isinstance(recipients, list) else []
    whom = str(members.get("endpoint", "")) + (f" ({_named(agencies)})" if agencies else "")
    attachment, pdf = members.get("attachment"), members.get("pdf")
    reason = " ".join(str(members[name]) for name in ("code", "reason") if members.get(name))
    more: Text = (f" Lý do: {reason}.", f" Reason: {reason}.") if reason else ""
    if isinstance(attachment, dict) and isinstance(pdf, dict):
        whom = f"«{attachment.get('name')}»"
        found = str(pdf.get("verdict"))
        vi, en = PDF.get(found, (found, found))
        more = f" Máy chủ thấy: {vi}.", f" What the hub found: {en}."
    steps = [(kind, event.at, more)]
    handed_over = read_moment(members.get("handed_over_at"))
    if handed_over is not None:
        steps.insert(0, (EventKind.HANDED_OVER, handed_over, ""))
    if kind not in KINDS:  # its name is the hub's own text, which could be the words of another kind
        verdict.add("events", "event_unknown", "not_proven", number=str(event.number), kind=kind)
        return
    for step, at, rest in steps:
        verdict.add("events", "event", "proven", kind=KINDS[step], whom=whom or "–", at=shown(at), more=rest)


def _beyond(work: Work, event: Event) -> None:
    """The receipt that another hub gave for the same message."""
    try:
        receipt = msgspec.convert(event.event["beyond"], Receipt)
        kid = parse(receipt.seal.encode("ascii")).kid
        if kid not in work.trust.hub_keys:
            work.verdict.add("events", "beyond_untrusted", "not_proven", kid=kid)
            return
        found = verify_receipt(receipt, work.trust.hub_keys.get)
        if kid in (work.made.kid, event.verified.kid):
            raise EvidenceError("it is sealed with a key of this hub")
        at = read_moment(found.event.get("at"))
        if found.event.get("event") != EventKind.ACCEPTED or at is None:
            raise EvidenceError("it is not one of acceptance")
        if found.event.get("sha256") != work.proof.message.sha256:
            raise EvidenceError("it is about another message")
    except (EvidenceError, Problem, ValueError, msgspec.MsgspecError) as error:
        work.verdict.add("events", "beyond_wrong", "contradicted", number=str(event.number), why=str(error))
        return
    work.verdict.add("events", "beyond", "proven", hub=found.hub, at=shown(at), kid=kid)


def _acknowledged(work: Work, event: Event, evidence: Evidence, agencies: Sequence[str]) -> Iterable[bool]:
    """Whether the verifier itself knows the key by which the recipient signed; nothing when it did not sign."""
    members, given = event.event, evidence.acknowledgement
    endpoint, what = str(members.get("endpoint")), DEEDS[str(members["event"])]
    if given is None:
        code = "recipient_missing" if "acknowledgement" in members else "recipient_unsigned"
        work.verdict.add("events", code, "not_proven", endpoint=endpoint, what=what)
        return ()
    try:
        signed = SignedAcknowledgement(given.jws, given.index, given.size, given.path)
        if signed.sha256 != members.get("acknowledgement"):
            raise EvidenceError("it is not the one that the event names")
        key = read_key(given.key)
        message = work.proof.message
        found = verify_acknowledgement(signed, lambda kid: key, message.id, message.sha256)
        signed_at = read_moment(found.at)
        if found.refused != (members["event"] == EventKind.REFUSED) or signed_at is None:
            raise EvidenceError("the recipient signed something else than the event says")
    except EvidenceError as error:
        work.verdict.add("events", "recipient_wrong", "contradicted", endpoint=endpoint, why=str(error))
        return ()
    kid = thumbprint(key)
    work.verdict.add(
        "events",
        "recipient_signed",
        "proven",
        endpoint=endpoint,
        what=what,
        at=shown(signed_at),
        kid=kid,
    )
    known = {code: keys for code in agencies if (keys := work.trust.keys_of(code)) is not None}
    foreign = [code for code in agencies if code in known and kid not in known[code]]
    if foreign:
        who: dict[str, Any] = {"endpoint": endpoint, "kid": kid, "agencies": _named(foreign)}
        work.verdict.add("events", "recipient_key_foreign", "contradicted", **who)
        return ()
    return (bool(agencies) and known.keys() >= set(agencies),)
