"""Signed notes (c2sp.org/signed-note): a text, and lines of signatures under it.

    example.vn/log            ┐
    1234                      │ the text: everything up to the empty line, with its last line feed
    base64 of a hash          ┘

    — example.vn/log base64(key id ‖ signature)

Checkpoints of the transparency log are notes. Two kinds of signature are known here, both Ed25519: the plain
one (type 1), and the time-stamped cosignature of a witness (type 4, c2sp.org/tlog-cosignature), which says that
its maker saw this text at that time and nothing that contradicts it before.

A key is written as a *verifier key*, one word that can be pasted: ``name+key id in hex+base64(type ‖ key)``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.problems import LienthongError

ED25519 = 1
COSIGNATURE = 4
MAX_SIGNATURES = 64
MAX_BYTES = 64 << 10
_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8
_DASH = "— "


class NoteError(LienthongError):
    """A note, a verifier key or a signature on a note that cannot be relied on; the message says why."""


class Ed25519Key(Protocol):
    """A private key, wherever it is kept (a file, a PKCS#11 token)."""

    def public_key(self) -> Ed25519PublicKey: ...

    def sign(self, data: bytes, /) -> bytes: ...


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES]


def check_name(name: str) -> str:
    """`name` if a key or a log may be called so: not empty, no spaces, no plus. Raises NoteError."""
    if not name or "+" in name or any(character.isspace() or ord(character) < 0x20 for character in name):
        raise NoteError(f"{name!r} cannot name a key: a name is not empty and has no space and no plus")
    return name


class Verifier:
    """A public key under its name, as somebody trusts it."""

    __slots__ = ("_key", "id", "kind", "name", "public")

    def __init__(self, name: str, key: Ed25519PublicKey, kind: int = ED25519) -> None:
        self.name = check_name(name)
        self.kind = kind
        self.public = key.public_bytes_raw()
        self.id = _key_id(name, kind, self.public)
        self._key = key

    def __repr__(self) -> str:
        return f"Verifier({self})"

    def __str__(self) -> str:
        """The verifier key: what one party hands another to be trusted."""
        return f"{self.name}+{self.id.hex()}+{_b64(bytes([self.kind]) + self.public)}"

    def check(self, text: str, signature: bytes) -> datetime | None:
        """Check a signature over a note's text; gives the time that a cosignature states, None for a plain one.

        Raises NoteError.
        """
        at = None
        signed = text.encode()
        if self.kind == COSIGNATURE:
            if len(signature) != _TIME_BYTES + _SIGNATURE_BYTES:
                raise NoteError(f"the cosignature of {self.name} has the wrong length")
            seconds = int.from_bytes(signature[:_TIME_BYTES])
            try:
                at = datetime.fromtimestamp(seconds, UTC)
            except (ValueError, OverflowError, OSError):
                raise NoteError(f"the cosignature of {self.name} states no possible time") from None
            signed, signature = cosigned(text, seconds), signature[_TIME_BYTES:]
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            raise NoteError(f"the signature of {self.name} is wrong") from None
        return at


def cosigned(text: str, seconds: int) -> bytes:
    """What a witness signs of a note's text at a POSIX time."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def read_verifier(vkey: str) -> Verifier:
    """A verifier from its written form. Raises NoteError."""
    try:
        name, id_, encoded = vkey.strip().split("+", 2)
        data = _unb64(encoded)
        kind, public = data[0], data[1:]
        verifier = Verifier(name, Ed25519PublicKey.from_public_bytes(public), kind)
    except (ValueError, IndexError):
        raise NoteError(f"{vkey!r} is not a verifier key: it is written name+id+base64") from None
    if kind not in (ED25519, COSIGNATURE):
        raise NoteError(
            f"the verifier key of {name} is of type {kind}; known are Ed25519 (1) and cosignatures (4)"
        )
    if verifier.id.hex() != id_.lower():
        raise NoteError(f"the verifier key of {name} was altered: its id does not fit its key")
    return verifier


def signature_line(name: str, key: Ed25519Key, text: str, at: datetime | None = None) -> str:
    """The line that signs `text`; with `at` it is a witness's cosignature of that time (whole seconds)."""
    public = key.public_key().public_bytes_raw()
    if at is None:
        kind, stated, signed = ED25519, b"", text.encode()
    else:
        seconds = int(at.timestamp())
        kind, stated, signed = COSIGNATURE, seconds.to_bytes(_TIME_BYTES), cosigned(text, seconds)
    return f"{_DASH}{check_name(name)} {_b64(_key_id(name, kind, public) + stated + key.sign(signed))}\n"


class Signature(NamedTuple):
    """One signature line: whose it says it is, and the bytes after the key's id."""

    name: str
    id: bytes
    signature: bytes
    line: str


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart. Nothing of it is proven."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)


class Signed(NamedTuple):
    """A signature that was checked; `at` is the time that a cosignature states."""

    verifier: Verifier
    at: datetime | None


def read_note(data: bytes | str) -> Note:
    """Take a note apart. Raises NoteError."""
    try:
        written = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError:
        raise NoteError("the note is not UTF-8") from None
    if len(written) > MAX_BYTES:
        raise NoteError(f"the note is longer than {MAX_BYTES} characters")
    if any(ord(character) < 0x20 and character != "\n" for character in written):
        raise NoteError("the note has control characters")
    text, gap, lines = written.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise NoteError("the note has no signatures: they follow its last empty line")
    return Note(text + "\n", tuple(read_signature(line + "\n") for line in lines[:-1].split("\n")))


def read_signature(line: str) -> Signature:
    """One signature line, with its line feed. Raises NoteError."""
    name, _, encoded = line.removeprefix(_DASH).removesuffix("\n").partition(" ")
    try:
        data = _unb64(encoded)
    except ValueError:
        data = b""
    if not line.startswith(_DASH) or not name or len(data) <= _ID_BYTES:
        raise NoteError("a signature line of the note is not written as `— name base64`")
    return Signature(name, data[:_ID_BYTES], data[_ID_BYTES:], line)


def verify_note(note: Note, trusted: Iterable[Verifier]) -> list[Signed]:
    """The signatures of trusted keys on a note; those of other keys are ignored, as the specification asks.

    Raises NoteError when one by a trusted key is wrong. Gives an empty list when there is none.
    """
    if len(note.signatures) > MAX_SIGNATURES:
        raise NoteError(f"the note has more than {MAX_SIGNATURES} signatures")
    verifiers = {(verifier.name, verifier.id): verifier for verifier in trusted}
    found: dict[tuple[str, bytes], Signed] = {}
    for signature in dict.fromkeys(note.signatures):  # the same line again costs nothing
        verifier = verifiers.get((signature.name, signature.id))
        if verifier is not None:
            found[signature.name, signature.id] = Signed(verifier, verifier.check(note.text, signature.signature))
    return list(found.values())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None
