"""The part of a verification that does not rest on the hub's word: the log, its witnesses, time-stamps, promises.

A receipt is the hub's signature, and a hub that lies signs whatever it likes. What it cannot do unseen is to
take an event out of the log, or to show two logs: witnesses that many others rely on signed the same checkpoint.
And a seal that promised to be logged by a certain time, and was not, is evidence against the hub in its own
hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from protocol.evidence import EvidenceError, Receipt, Verified, leaf_hash
from protocol.log import Checkpoint, LogError, open_checkpoint, verify_inclusion
from protocol.note import Note, Signed
from protocol.proof import Place, from_base64, read_moment, read_path
from protocol.proof_trust import Trust
from protocol.proof_verdict import Text, Verdict
from protocol.proof_words import shown
from protocol.timestamp import TimestampError, verify_timestamp

SKEW = timedelta(minutes=5)
"""How far an outsider's clock may be off."""
SLACK = timedelta(minutes=1)
"""How much later than promised an event may be before the hub is called a liar: its nodes' clocks differ."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event whose receipt was found right. `number` counts from 1, which is the acceptance."""

    number: int
    receipt: Receipt
    verified: Verified
    logged: Place | None

    @property
    def event(self) -> dict[str, Any]:
        return self.verified.event

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.verified.event["at"])

    @property
    def sealed_at(self) -> datetime:
        return datetime.fromisoformat(self.verified.sealed_at)

    @property
    def until(self) -> datetime | None:
        """The latest time by which the seal promises it to be logged."""
        return read_moment(self.verified.logged_by)


@dataclass(frozen=True, slots=True)
class LogClaim:
    """What a file says of the log. `made`: when the hub put the file together; None for a receipt alone."""

    events: Sequence[Event]
    checkpoint: str | None
    timestamps: Sequence[str]
    made: datetime | None
    message: str


def check_log(claim: LogClaim, trust: Trust, now: datetime, verdict: Verdict) -> datetime | None:
    """Find out where the events are in the log, who else saw it, and whether promises were kept.

    The first time at which somebody else had seen the first event; None when nobody has.
    """
    opened = _checkpoint(claim, trust, verdict)
    logged = [event for event in claim.events if event.logged is not None]
    # A checkpoint says nothing of what is not in its log, whoever signed it: witnesses and time-stamps count when
    # the first event, on which the others rest, is there. Otherwise they only date a promise that was broken.
    covered = claim.events[0].logged is not None
    outside: list[datetime] = []
    if opened is not None:
        checkpoint, note, signed = opened
        if _included(logged, checkpoint, len(claim.events), trust, verdict):
            found = verdict if covered else Verdict()
            outside = _witnesses(logged, signed, trust, now, found)
            outside += _stamps(claim, logged, note.text, trust, now, found)
    if trust.quorum and (opened is None or not covered):
        verdict.add(
            "witnesses", "witnesses_missing", "not_proven", required=True, quorum=str(trust.quorum), count="0"
        )
    if not outside or not covered:
        verdict.add("time", "time_by_hub", "not_proven")
    unlogged = [event for event in claim.events if event.logged is None]
    _promises(claim, unlogged, outside, now, verdict, trust)
    return min(outside, default=None) if covered else None


def _checkpoint(claim: LogClaim, trust: Trust, verdict: Verdict) -> tuple[Checkpoint, Note, list[Signed]] | None:
    if claim.checkpoint is None:
        if any(event.logged is not None for event in claim.events):
            why = "the file has no checkpoint"
            verdict.add("log", "log_checkpoint_wrong", "contradicted", why=why)
        return None
    if not trust.logs:
        verdict.add("log", "log_no_key", "not_proven")
        return None
    complaints: list[str] = []
    for log in trust.logs:
        try:
            return open_checkpoint(claim.checkpoint, log, trust.witnesses)
        except LogError as error:
            complaints.append(str(error))
    verdict.add("log", "log_checkpoint_wrong", "contradicted", why="; ".join(dict.fromkeys(complaints)))
    return None


def compare_checkpoints(verdict: Verdict, own: str | None, other: str | None, name: str, trust: Trust) -> None:
    """Compare a file's checkpoint with that of another file, called `name`: a log signs one root for a size."""
    found: list[Checkpoint] = []
    why = "a checkpoint is missing, or not signed by a log that is trusted"
    for text in (own, other):
        for log in trust.logs if text is not None else ():
            try:
                found.append(open_checkpoint(text or "", log)[0])
                break
            except LogError as error:
                why = str(error)
    if len(found) == 2 and (found[0].origin, found[0].size) == (found[1].origin, found[1].size):
        if found[0].root == found[1].root:
            verdict.add("log", "log_same_face", "proven", other=name)
        else:
            values: dict[str, Any] = {"log": found[0].origin, "size": str(found[0].size)}
            verdict.add("log", "log_two_faces", "contradicted", other=name, **values)
        return
    if len(found) == 2:
        why = f"{found[0].size} and {found[1].size} entries"
    verdict.add("log", "log_not_comparable", "not_proven", other=name, why=why)


def _included(logged: Sequence[Event], checkpoint: Checkpoint, all_: int, trust: Trust, verdict: Verdict) -> bool:
    """Whether all are where the file says.

    A hub that lost its log begins another, and logs again there what its old seals promise to the old one. That
    counts where the verifier trusts both, and is said.
    """
    known = {log.name for log in trust.logs}
    for event in logged:
        assert event.logged is not None
        try:
            promised = event.verified.log
            if promised not in (None, checkpoint.origin) and promised not in known:
                raise LogError(f"its seal promises another log, {promised}, which is not among the trusted")
            entry = leaf_hash(event.receipt.event.encode())
            path = read_path(event.logged.path)
            if event.logged.index >= checkpoint.size:
                raise LogError(
                    f"the log has {checkpoint.size} entries at the checkpoint, and the event is to be entry "
                    f"{event.logged.index}: the log shrank, or the checkpoint is older than the event"
                )
            _verify(entry, event.logged.index, checkpoint, path)
        except LogError as error:
            verdict.add("log", "log_wrong", "contradicted", number=str(event.number), why=str(error))
            return False
    if logged:
        whole = len(logged) == all_
        values: dict[str, Any] = {
            "count": str(len(logged)),
            "log": checkpoint.origin,
            "size": str(checkpoint.size),
        }
        if whole:
            verdict.add("log", "log_recorded", "proven", **values)
        else:
            verdict.add("log", "log_partly", "proven", all=str(all_), **values)
    moved = [event for event in logged if event.verified.log not in (None, checkpoint.origin)]
    if moved:
        old = ", ".join(dict.fromkeys(str(event.verified.log) for event in moved))
        verdict.add("log", "log_begun_anew", "not_proven", count=str(len(moved)), old=old, log=checkpoint.origin)
    return True


def _verify(entry: bytes, index: int, checkpoint: Checkpoint, path: Sequence[bytes]) -> None:
    """Raises LogError."""
    try:
        verify_inclusion(entry, index, checkpoint.size, checkpoint.root, path)
    except LogError:
        raise
    except EvidenceError:  # in words that are for receipts
        raise LogError(f"no log of {checkpoint.size} entries has such a path at entry {index}") from None


def _plausible(name: str, at: datetime, logged: Sequence[Event], now: datetime, verdict: Verdict) -> bool:
    """Whether an outsider's time fits to this computer's clock, and to events that are said to come before it."""
    if at > now + SKEW:
        verdict.add("witnesses", "witness_ahead", "contradicted", name=name, at=shown(at), now=shown(now))
        return False
    for event in logged:
        latest = max(event.at, event.sealed_at)
        if latest > at + SKEW:
            values: dict[str, Any] = {
                "name": name,
                "at": shown(at),
                "number": str(event.number),
                "event": shown(latest),
            }
            verdict.add("witnesses", "witness_early", "contradicted", **values)
            return False
    return True


def _witnesses(
    logged: Sequence[Event], signed: Sequence[Signed], trust: Trust, now: datetime, verdict: Verdict
) -> list[datetime]:
    times = [
        (one.at, one.verifier.name)
        for one in signed
        if one.at is not None and _plausible(one.verifier.name, one.at, logged, now, verdict)
    ]
    if len(times) < trust.quorum:
        values: dict[str, Any] = {"quorum": str(trust.quorum), "count": str(len(times))}
        verdict.add("witnesses", "witnesses_missing", "not_proven", required=True, **values)
    elif not times:
        verdict.add("witnesses", "witnesses_none", "not_proven")
    else:
        first = min(times)[0]
        names = ", ".join(sorted(name for _, name in times))
        verdict.add("witnesses", "witnesses_met", "proven", count=str(len(times)), names=names, first=shown(first))
    return [at for at, _ in times]


def _stamps(
    claim: LogClaim, logged: Sequence[Event], text: str, trust: Trust, now: datetime, verdict: Verdict
) -> list[datetime]:
    if not claim.timestamps:
        return []
    if not trust.timestamp_roots:
        verdict.add("time", "time_stamp_unchecked", "not_proven", count=str(len(claim.timestamps)))
        return []
    times = []
    for token in claim.timestamps:
        try:
            stamp = verify_timestamp(from_base64(token), text.encode(), trust.timestamp_roots)
        except TimestampError as error:
            verdict.add("time", "time_stamp_wrong", "not_proven", why=str(error))
            continue
        if _plausible(stamp.authority, stamp.at, logged, now, verdict):
            verdict.add("time", "time_stamped", "proven", authority=stamp.authority, at=shown(stamp.at))
            times.append(stamp.at)
    return times


def _promises(
    claim: LogClaim,
    unlogged: Sequence[Event],
    outside: Sequence[datetime],
    now: datetime,
    verdict: Verdict,
    trust: Trust,
) -> None:
    """What it means that events are not shown to be in the log.

    A single receipt has to show it where the log's key is known. Where witnesses are asked for, what was never
    even promised to be logged is not proven: a hub could say it to one reader alone.
    """
    waiting = sorted(
        ((event.until, event) for event in unlogged if event.until is not None), key=lambda pair: pair[0]
    )
    never = len(unlogged) - len(waiting)
    if never:
        verdict.add("log", "log_never_promised", "not_proven", required=trust.quorum > 0, count=str(never))
    if not waiting:
        return
    until, event = waiting[0]
    last = waiting[-1][0]
    if claim.made is None:
        if now > until + SLACK:
            verdict.add(
                "log",
                "log_proof_needed",
                "not_proven",
                required=bool(trust.logs),
                log=str(event.verified.log),
                until=shown(until),
                batch=event.verified.batch,
                index=str(event.receipt.index),
            )
            return
    elif claim.made > until + SLACK:
        known: Text = ""
        later = max(outside, default=None)
        if later is not None and later > until + SLACK:
            known = (
                f" Người ngoài xác nhận điểm kiểm tra trong tệp là của lúc {shown(later)}, sau hạn đó.",
                f" Outsiders confirm that the file's checkpoint is one of {shown(later)}, after that time.",
            )
        broken: dict[str, Any] = {"number": str(event.number), "until": shown(until), "made": shown(claim.made)}
        verdict.add("log", "log_promise_broken", "contradicted", known=known, **broken)
        return
    longest = timedelta(seconds=trust.promise_seconds)
    far = [event for until, event in waiting if until > min(event.sealed_at, now) + longest]
    if far:
        limit: dict[str, Any] = {"until": shown(last), "days": f"{longest / timedelta(days=1):g}"}
        verdict.add("log", "log_promise_far", "not_proven", required=True, count=str(len(far)), **limit)
        return
    values: dict[str, Any] = {"count": str(len(waiting)), "until": shown(last), "message": claim.message}
    if claim.made is not None and now > until + SLACK:
        verdict.add("log", "log_promise_old", "not_proven", required=True, made=shown(claim.made), **values)
    else:
        verdict.add("log", "log_promised", "not_proven", **values)
