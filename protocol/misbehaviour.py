"""What a transparency log signed that it must not have signed: evidence that anybody can check with the log's key.

A witness keeps it when it refuses to sign (`protocol/witness.py`), and whoever is shown it can look for himself
(`explain`): the notes carry the log's own signatures, so nobody needs to believe the witness.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from protocol.log import EMPTY_ROOT, Checkpoint, LogError, read_checkpoint
from protocol.note import Note, NoteError, Verifier, read_note, verify_note


class Kind(StrEnum):
    """What a log did."""

    TWO_FACES = "two-faces"
    """It signed two roots for one size."""
    REWRITTEN = "rewritten"
    """It signed a tree that begins with another log than the one that it signed before."""
    IMPOSSIBLE = "impossible"
    """It signed an empty log with a root that an empty log does not have."""
    UNPROVEN = "unproven"
    """It signed a larger log, and what came with it does not show that this is the former one, grown. By itself
    this is no proof: whoever has two checkpoints can send nonsense with them."""


class Misbehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a log signed that it must not have signed: enough for anybody who knows its key to see it.

    `known` is what the witness had signed along before, `presented` what it was shown then: two notes, both with
    the log's signature.
    """

    kind: Kind
    origin: str
    keys: tuple[str, ...]
    """The log's verifier keys, as the witness has them."""
    known: str
    presented: str
    proof: tuple[str, ...] = ()
    """The consistency proof that came along, base64."""

    @property
    def conclusive(self) -> bool:
        return self.kind is not Kind.UNPROVEN


def own_note(note: Note, trusted: Sequence[Verifier]) -> str:
    """A note with the signatures of `trusted` keys alone: nobody can make it differ by adding lines."""
    keys = {(key.name, key.id) for key in trusted}
    kept = tuple(line for line in note.signatures if (line.name, line.id) in keys)
    return str(Note(note.text, kept))


def explain(found: Misbehaviour, log: Sequence[Verifier]) -> str:
    """What a finding shows to somebody who trusts `log` to be the log's keys, in one or two sentences.

    Raises LogError when it shows nothing: a note is not signed by such a key, or what it says of them is not so.
    """
    presented = _opened(found.presented, log)
    origin = presented.origin
    if found.kind is Kind.IMPOSSIBLE:
        if presented.size or presented.root == EMPTY_ROOT:
            raise LogError("the checkpoint says nothing impossible of an empty log")
        return f"{origin} signed that it is empty, with a root that an empty log does not have."
    known = _opened(found.known, log)
    if known.origin != presented.origin:  # as when a hub began another: its log before is no lie
        raise LogError(f"the checkpoints are of two logs, {known.origin} and {presented.origin}")
    if found.kind is Kind.TWO_FACES:
        if known.size != presented.size or known.root == presented.root:
            raise LogError("the two checkpoints do not contradict each other")
        return f"{origin} signed two different logs of {known.size} entries."
    if not 0 < known.size < presented.size:
        raise LogError("the second checkpoint is not one of a larger log")
    if found.kind is Kind.REWRITTEN:
        proof = _proof(found)
        prefix = prefix_root(known.size, presented.size, presented.root, proof)
        if prefix is None or prefix == known.root:
            raise LogError("the proof does not show that the log was rewritten")
        return (
            f"{origin} signed a log of {known.size} entries, and one of {presented.size} that begins differently."
        )
    return (
        f"{origin} signed a log of {known.size} entries and one of {presented.size}; nobody has shown that the "
        "second begins with the first. Ask the log for that proof: if it cannot give one, it was rewritten."
    )


def read_misbehaviour(data: bytes) -> Misbehaviour:
    """A finding from its JSON. Raises LogError."""
    try:
        return msgspec.json.decode(data, type=Misbehaviour)
    except msgspec.DecodeError as error:
        raise LogError(f"this is not what a witness found: {error}") from None


def _proof(found: Misbehaviour) -> list[bytes]:
    try:
        return [base64.b64decode(step.encode("ascii"), validate=True) for step in found.proof]
    except ValueError:
        raise LogError("the proof of the finding is not in base64") from None


def _opened(written: str, log: Sequence[Verifier]) -> Checkpoint:
    try:
        note = read_note(written)
        signed = verify_note(note, log)
    except NoteError as error:
        raise LogError(f"a checkpoint of the finding cannot be relied on: {error}") from None
    checkpoint = read_checkpoint(note)
    if all(one.verifier.name != checkpoint.origin for one in signed):
        raise LogError(f"a checkpoint of the finding is not signed by {checkpoint.origin} with a key given")
    return checkpoint


def prefix_root(old: int, new: int, root: bytes, proof: Sequence[bytes]) -> bytes | None:
    """The root of the first `old` entries of the log that has `root` at `new`, as a consistency proof shows it.

    If the proof leads to `root`, its hashes are those of that very tree, and so is what they give for its
    beginning: nobody can make such a proof up. None when it does not lead there. The steps are those of RFC 9162,
    section 2.1.4.2. When `old` is a power of two, that leaves the root out which is looked for, and such a proof
    leads nowhere here; an auditor's evidence puts it in front (`protocol/audit.py`).
    """
    if not 0 < old < new or not proof:
        return None
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    first = second = proof[0]
    for step in proof[1:]:
        if last == 0:
            return None
        if place & 1 or place == last:
            first, second = _node(step, first), _node(step, second)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            second = _node(second, step)
        place >>= 1
        last >>= 1
    return first if last == 0 and second == root else None


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
