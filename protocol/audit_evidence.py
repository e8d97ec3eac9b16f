"""Evidence of an auditor: what stands on its own, for anybody to check later, without the hub and the auditor.

Two checkpoints that contradict each other convict the holder of the log's key (`protocol/misbehaviour.py`). A
broken promise can be refuted by the hub alone, with the proof that it does not give: `check_evidence` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from protocol.audit import moment, own_key
from protocol.evidence import EvidenceError, KeyLookup, leaf_hash, read_receipt, verify_receipt
from protocol.log import LogError, read_proof, verify_inclusion
from protocol.misbehaviour import Misbehaviour, explain
from protocol.note import NoteError, Verifier, read_verifier
from protocol.problems import LienthongError
from protocol.signature import from_jwk, thumbprint

EVIDENCE_FORMAT = "lienthong-audit-evidence@v1"


class BrokenPromise(msgspec.Struct, frozen=True):
    """A receipt whose promise was not kept, and the log as it was shown afterwards."""

    receipt: str
    hub_keys: tuple[dict[str, str], ...]
    keys: tuple[str, ...]
    """The log's verifier keys."""
    checkpoint: str
    """What the hub showed of its log when the time was over, with all signatures that stood under it."""
    proof: str | None = None
    """What the hub gave as the proof that it is in the log, where that is wrong."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A finding to be handed on. One of the last two members is there."""

    code: str
    origin: str
    found_at: str
    said: str
    format: str = EVIDENCE_FORMAT
    misbehaviour: Misbehaviour | None = None
    promise: BrokenPromise | None = None


class Checked(NamedTuple):
    """What a piece of evidence was found to show."""

    said: str
    conclusive: bool
    """Whether nobody but the holder of the key can have made it."""
    keys: tuple[str, ...]
    """The keys that it rests on; whether they are the hub's is for the reader to know."""


def check_evidence(
    data: bytes, log: Sequence[Verifier] = (), hub_key: KeyLookup | None = None, now: datetime | None = None
) -> Checked:
    """Check an evidence file, of an auditor or of a witness, offline.

    `log` are the keys that are trusted to be the log's, by default those that the file names; likewise `hub_key`.
    Raises LienthongError when it shows nothing.
    """
    try:
        members = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogError(f"this is no evidence: {error}") from None
    try:
        if isinstance(members, dict) and members.get("format") == EVIDENCE_FORMAT:
            evidence = msgspec.convert(members, Evidence)
        else:  # as a witness gives it out
            found = members.get("found", members) if isinstance(members, dict) else members
            evidence = Evidence(
                code="", origin="", found_at="", said="", misbehaviour=msgspec.convert(found, Misbehaviour)
            )
    except msgspec.ValidationError as error:
        raise LogError(f"this is no evidence: {error}") from None
    if evidence.misbehaviour is not None:
        named = _verifiers(evidence.misbehaviour.keys)
        said = explain(evidence.misbehaviour, log or named)
        return Checked(said, evidence.misbehaviour.conclusive, tuple(map(str, log or named)))
    if evidence.promise is None:
        raise LogError("this evidence holds nothing")
    return _check_promise(evidence.promise, log, hub_key, now or datetime.now(UTC))


def _verifiers(keys: Sequence[str]) -> list[Verifier]:
    try:
        return [read_verifier(key) for key in keys]
    except NoteError as error:
        raise LogError(f"a key in the evidence cannot be read: {error}") from None


def _check_promise(
    promise: BrokenPromise, log: Sequence[Verifier], hub_key: KeyLookup | None, now: datetime
) -> Checked:
    keys = log or _verifiers(promise.keys)
    if not keys:
        raise LogError("the evidence names no key of the log; give --log-key")
    if hub_key is None:
        hub_key = lookup(promise.hub_keys)
    receipt = read_receipt(promise.receipt.encode())
    verified = verify_receipt(receipt, hub_key)
    if verified.log is None or verified.logged_by is None:
        raise LogError("the receipt is genuine, but promises nothing")
    shown = own_key(promise.checkpoint, keys)
    if verified.log != shown.checkpoint.origin:
        raise LogError(
            f"the receipt speaks of the log {verified.log}, the checkpoint of {shown.checkpoint.origin}"
        )
    logged_by = moment(verified.logged_by)
    if logged_by >= now:
        raise LogError(f"the promise is not broken yet: it holds until {verified.logged_by}")
    rest = "It did not show where."
    if promise.proof is not None:
        if in_log(promise.proof, receipt.event.encode(), keys) is not None:
            raise LogError(
                "the proof in this evidence is right: the event is in the log, and the promise was kept"
            )
        rest = "What it showed in its place does not lead there."
    event = verified.event.get("event")
    return Checked(
        f"The hub {verified.hub} sealed the event {event!r} ({verified.batch}, leaf {receipt.index}) and "
        f"promised to have it in the log {verified.log} by {verified.logged_by}. Afterwards it showed a log of "
        f"{shown.size} entries. {rest} Unless the hub can show a proof that it is in that log, the promise was "
        "broken.",
        False,
        (*map(str, keys), verified.kid),
    )


def lookup(jwks: Sequence[dict[str, Any]]) -> KeyLookup:
    """Hub keys by thumbprint. Raises EvidenceError."""
    try:
        keys = {thumbprint(key): key for key in (from_jwk(jwk) for jwk in jwks)}
    except (LienthongError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"a key of the hub cannot be read: {error}") from None
    return keys.get


def in_log(written: str, event: bytes, keys: Sequence[Verifier]) -> int | None:
    """Where a proof shows an event to be in a log of one of `keys`; None when it shows nothing of the kind."""
    try:
        proof = read_proof(written)
        checkpoint = own_key(proof.checkpoint, keys).checkpoint
        verify_inclusion(leaf_hash(event), proof.index, checkpoint.size, checkpoint.root, proof.path)
    except EvidenceError:
        return None
    return proof.index


def write_evidence(evidence: Evidence) -> bytes:
    return msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n"
