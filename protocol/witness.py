"""Witnesses of a transparency log (c2sp.org/tlog-witness): what they are sent, what they sign, what they refuse.

A log sends a witness each new checkpoint, with the proof that it only grew since the one that the witness signed
last:

    old 20852014                              ┐ the size that the witness signed last
    base64 of a hash                          │ the consistency proof, at most 63 lines
    …                                         │
                                              ┘
    example.vn/log                            ┐
    20852163                                  │ the checkpoint, a signed note
    base64 of the root                        │
                                              │
    — example.vn/log base64                   ┘

The witness remembers one checkpoint of each log. It answers with its cosignature, which says: at this time, this
is the largest log of this name that I have seen, and it begins with all that I saw before. So a log that is
changed afterwards, or shown to one party otherwise than to another, gets no more cosignatures; and what it signed
in the attempt is evidence against it, which anybody can check with its key alone (`protocol/misbehaviour.py`).

Nothing here does I/O: `judge` is given what the witness knows and raises a `Refusal`, which says what to answer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from protocol.evidence import HASH_BYTES
from protocol.log import EMPTY_ROOT, Checkpoint, LogError, read_checkpoint, verify_consistency
from protocol.misbehaviour import Kind, Misbehaviour, own_note, prefix_root
from protocol.note import (
    MAX_SIGNATURES,
    Note,
    NoteError,
    Verifier,
    read_note,
    read_signature,
    verify_note,
)
from protocol.problems import LienthongError

ADD_CHECKPOINT = "add-checkpoint"
"""The address below a witness's prefix."""
MAX_PROOF = 63
MAX_REQUEST_BYTES = 64 << 10
"""A proof has 3 KB at most, a checkpoint with 60 signatures 15."""
MAX_ANSWER_BYTES = 16 << 10
MAX_SIZE = 2**63 - 1
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"
CLOCK_TOLERANCE = timedelta(minutes=1)
"""How far a witness's clock may be set back: so much a time service corrects."""


class Refusal(LienthongError):
    """What a witness does not sign. The message says why, and is safe to show.

    `status` is the HTTP status, `body` and `media_type` what to answer. `misbehaviour` is what to keep.
    """

    def __init__(
        self, status: int, reason: str, *, size: int | None = None, misbehaviour: Misbehaviour | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.size = size
        """The size that the witness signed last, where it is the answer."""
        self.misbehaviour = misbehaviour

    @property
    def body(self) -> str:
        return f"{self}\n" if self.size is None else f"{self.size}\n"

    @property
    def media_type(self) -> str:
        return TEXT if self.size is None else SIZE


@dataclass(frozen=True, slots=True)
class Request:
    """A request taken apart. Nothing of it is proven."""

    old: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Seen:
    """The checkpoint of a log that a witness signed last."""

    size: int
    root: bytes
    note: str
    """As the log sent it."""
    at: datetime
    """The time that the cosignature states."""


# -- the wire -----------------------------------------------------------------------------------


def write_request(old: int, proof: Iterable[bytes], checkpoint: str) -> bytes:
    """What a log sends: the size that the witness signed last, the proof from there, and the signed checkpoint."""
    lines = "".join(base64.b64encode(step).decode() + "\n" for step in proof)
    return f"old {old}\n{lines}\n{checkpoint}".encode()


def read_request(data: bytes) -> Request:
    """Take a request apart. Raises a Refusal (400)."""
    try:
        head, gap, written = data.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise Refusal(400, "the request is not UTF-8") from None
    if not gap:
        raise Refusal(400, "the request has no empty line between its proof and its checkpoint")
    first, *steps = head.split("\n")
    old = read_size(first.removeprefix("old ")) if first.startswith("old ") else None
    if old is None:
        raise Refusal(400, "the request does not begin with `old` and a size without leading zeroes")
    if len(steps) > MAX_PROOF:
        raise Refusal(400, f"the consistency proof has more than {MAX_PROOF} lines")
    proof = tuple(map(_read_hash, steps))
    try:
        note = read_note(written)
        checkpoint = read_checkpoint(note)
    except (NoteError, LogError) as error:
        raise Refusal(400, str(error)) from None
    if len(note.signatures) > MAX_SIGNATURES:
        raise Refusal(400, f"the checkpoint has more than {MAX_SIGNATURES} signatures")
    if checkpoint.size > MAX_SIZE:
        raise Refusal(400, "the checkpoint's size is beyond 2^63 - 1")
    return Request(old, proof, note, checkpoint)


def read_size(text: str) -> int | None:
    """A size in decimal, as this protocol writes it; None when it is not one."""
    if not text.isascii() or not text.isdigit() or len(text) > 19 or (text[0] == "0" and text != "0"):
        return None
    size = int(text)
    return size if size <= MAX_SIZE else None


def _read_hash(line: str) -> bytes:
    try:
        step = base64.b64decode(line.encode("ascii"), validate=True)
    except ValueError:
        step = b""
    if len(step) != HASH_BYTES:
        raise Refusal(400, "a line of the consistency proof is not a hash of 32 bytes in base64")
    return step


def read_cosignature(answer: bytes, checkpoint: str, witness: Verifier) -> tuple[str, datetime]:
    """The line of `witness` in its answer to a signed checkpoint, and the time that it states.

    Lines of other keys are ignored, as the specification asks. Raises NoteError when there is none of its own, or
    it is wrong.
    """
    try:
        written = answer.decode()
    except UnicodeDecodeError:
        raise NoteError("the witness's answer is not UTF-8") from None
    lines = [line + "\n" for line in written.removesuffix("\n").split("\n")]
    if not written.endswith("\n") or len(lines) > MAX_SIGNATURES:
        raise NoteError("the witness's answer is not lines of signatures")
    text = read_note(checkpoint).text
    for signature in map(read_signature, lines):
        if (signature.name, signature.id) == (witness.name, witness.id):
            at = witness.check(text, signature.signature)
            if at is None:
                raise NoteError(f"the key of {witness.name} is not one of a witness (type 4)")
            return signature.line, at
    raise NoteError(f"the answer has no cosignature of {witness.name} under the key that is configured")


# -- the rules ----------------------------------------------------------------------------------


def signed_by(request: Request, trusted: Sequence[Verifier]) -> None:
    """Return when a request's checkpoint is signed with one of the keys that are `trusted` for its origin.

    Raises a Refusal: 404 when none is trusted, 403 when none of them signed it.
    """
    origin = request.checkpoint.origin
    if not trusted:
        raise Refusal(404, f"this witness does not follow a log called {origin}")
    try:
        signed = verify_note(request.note, trusted)
    except NoteError as error:
        raise Refusal(403, str(error)) from None
    if not signed:
        raise Refusal(403, f"the checkpoint is not signed with a key of {origin} that this witness trusts")


def judge(request: Request, trusted: Sequence[Verifier], last: Seen | None) -> None:
    """Return when a witness may sign. Raises a Refusal otherwise.

    `trusted` are the keys that it trusts for the checkpoint's origin, `last` is what it signed last for that.
    """
    signed_by(request, trusted)
    checkpoint, old = request.checkpoint, request.old
    known = last.size if last else 0

    def misbehaviour(kind: Kind) -> Misbehaviour:
        return Misbehaviour(
            kind=kind,
            origin=checkpoint.origin,
            keys=tuple(map(str, trusted)),
            known=last.note if last else "",
            presented=own_note(request.note, trusted),
            proof=tuple(base64.b64encode(step).decode() for step in request.proof),
        )

    found = None
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        found = misbehaviour(Kind.IMPOSSIBLE)
    elif last and checkpoint.size == known and checkpoint.root != last.root:
        found = misbehaviour(Kind.TWO_FACES)
    if old > checkpoint.size:
        raise Refusal(400, "the old size is larger than the checkpoint's", misbehaviour=found)
    if old != known:
        raise Refusal(409, "the old size is not the one that was signed last", size=known, misbehaviour=found)
    if found and found.kind is Kind.TWO_FACES:
        raise Refusal(409, "the log signed another root for this size before", size=known, misbehaviour=found)
    if found:
        raise Refusal(422, "an empty log has another root", misbehaviour=found)
    try:
        verify_consistency(old, last.root if last else EMPTY_ROOT, checkpoint.size, checkpoint.root, request.proof)
    except LogError as error:
        # With a checkpoint of the same size and root, or the first of all, it is only an odd request.
        kind = None if old in (0, checkpoint.size) else _kind(request, known, last)
        raise Refusal(422, str(error), misbehaviour=misbehaviour(kind) if kind else None) from None


def _kind(request: Request, known: int, last: Seen | None) -> Kind:
    """What a proof shows that does not lead from what was signed last to the checkpoint."""
    prefix = prefix_root(known, request.checkpoint.size, request.checkpoint.root, request.proof)
    return Kind.REWRITTEN if last and prefix is not None and prefix != last.root else Kind.UNPROVEN


def time_to_state(now: datetime, last: datetime | None) -> datetime:
    """The time for a cosignature after one of `last`: never an earlier one.

    Of two cosignatures on one log the later must be on the larger; a clock that is set back a little may not turn
    that round, so the former time is stated again. Raises a Refusal (503) when it was set back by more than
    `CLOCK_TOLERANCE`: then one of the two times is false, and only somebody at the machine can tell which.
    """
    now = now.replace(microsecond=0)
    if last is None or now >= last:
        return now
    if last - now > CLOCK_TOLERANCE:
        raise Refusal(
            503,
            f"this witness's clock says {now:%Y-%m-%dT%H:%M:%SZ}, and it signed at {last:%Y-%m-%dT%H:%M:%SZ} "
            "before; its operator must set it right",
        )
    return last
