"""`lienthong-proof+1`: all that proves what became of one message, in one JSON file; see docs/proofs.md.

The file is written in exactly one way: compact JSON as `msgspec` (or `JSON.stringify`) writes it, every member
present and in the order of the types below, base64 without spare bits. Whatever is written otherwise is refused,
so that a file has no byte that could be another one and mean the same. White space around the whole is not part
of it.

Its last member is a JWS by the hub over the digest of the others and the time at which the file was made. It is
not what proves the rest: every receipt, path and signature in the file is checked by itself
(`protocol.proof_verify`). It is there so that nothing can be changed, left out or put in on the way: a file that
says of an event "not in the log" says so in the hub's own name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson
from msgspec import Meta

from protocol.evidence import HASH_BYTES, EvidenceError, Receipt, timestamp
from protocol.log import MAX_PATH, LogError
from protocol.message import Sha256
from protocol.note import NoteError, read_note
from protocol.problems import Problem
from protocol.signature import PublicKey, Signer, from_jwk, parse, to_jwk, unb64url, verify

FORMAT: Final = "lienthong-proof+1"
MEDIA_TYPE = "application/vnd.lienthong.proof+json"
MAX_BYTES = 64 << 20
"""A message to 5,000 agencies at as many endpoints has a proof of about 15 MB."""
MAX_COUNT = (1 << 53) - 1
"""Larger numbers are not the same in every language's JSON."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Path = Annotated[tuple[str, ...], Meta(max_length=MAX_PATH)]
Base64 = str


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is proven: `id` is the hub's, `sha256` that of the bytes that events speak of (of a manifest's entry
    its document, else the message as sent), `size` that of the message as it is handed on."""

    id: str
    sha256: Sha256
    size: Count
    format: Literal["jws", "manifest", "edxml", "receipt"]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an authority said of a certificate's revocation, as the hub applied it: DER."""

    kind: Literal["crl", "ocsp"]
    der: Base64


class Sender(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's signature, and what the hub knew of its maker.

    `signature`: of a JWS its protected header and its signature, with nothing between the dots (RFC 7515,
    appendix F); of an entry the whole JWS of its manifest; empty for formats that the sender does not sign.
    `index` and `path` are the entry's place in its manifest. `key`: the public key as JSON as RFC 7638 writes
    it, so that its SHA-256 is its thumbprint; empty where the hub noted none. `chain`: certificates (DER), the
    signer's first.
    """

    signature: str
    index: Count
    path: Path
    key: str
    chain: tuple[Base64, ...]
    revocation: tuple[Answer, ...]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an event is in the transparency log, and the path to the root of the file's checkpoint (base64url)."""

    index: Count
    path: Path


class Acknowledged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a recipient signed (protocol.acknowledgement), the message's place in it, and the recipient's key as
    `Sender` has it."""

    jws: str
    index: Count
    size: Count
    path: Path
    key: str


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event. `logged` is None while the hub only promises that it will be in the log."""

    receipt: Receipt
    logged: Place | None
    acknowledgement: Acknowledged | None


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `recipients` is None in the copy of a recipient, who is not told of the others.

    `checkpoint` is a signed note that all `logged` lead to; `timestamps` are RFC 3161 tokens over its text.
    """

    format: Literal["lienthong-proof+1"]
    message: Message
    sender: Sender
    accepted: Evidence
    recipients: tuple[str, ...] | None
    events: tuple[Evidence, ...]
    checkpoint: str | None
    timestamps: tuple[Base64, ...]
    signature: str = ""


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Proof).decode


class ProofError(EvidenceError):
    """A file that is not an intact proof; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Made:
    """Who put the file together, and when by its clock."""

    kid: str
    at: datetime


def _digest(proof: Proof) -> str:
    """The SHA-256, in hex, of the file without its signature."""
    return hashlib.sha256(_encode(msgspec.structs.replace(proof, signature=""))).hexdigest()


def sign_proof(proof: Proof, signer: Signer, at: datetime | None = None) -> Proof:
    """The proof with the hub's signature over it. Raises SigningError if a key in a token cannot sign."""
    stated = {"at": timestamp(at or datetime.now(UTC)), "sha256": _digest(proof)}
    return msgspec.structs.replace(proof, signature=signer.typed(FORMAT).sign(orjson.dumps(stated)).decode())


def write_proof(proof: Proof) -> bytes:
    """The file."""
    return _encode(proof)


def is_proof(data: bytes) -> bool:
    """Whether a file means to be one."""
    return data.lstrip(b" \t\r\n").startswith(b'{"format":"lienthong-proof')


def read_proof(data: bytes) -> Proof:
    """A proof from its file; nothing of it is proven. Raises ProofError."""
    written = data.strip(b" \t\r\n")
    if len(written) > MAX_BYTES:
        raise ProofError(f"the file is larger than {MAX_BYTES >> 20} MiB")
    try:
        proof = _decode(written)
        same = _encode(proof) == written
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ProofError(f"the file is not a proof: {error}") from None
    if not same:
        raise ProofError(
            "the file is not written as a proof is: it was altered, or put together by another program"
        )
    for text in (
        *proof.timestamps,
        *proof.sender.chain,
        *(answer.der for answer in proof.sender.revocation),
    ):
        from_base64(text)
    if proof.checkpoint is not None:
        _require_canonical(proof.checkpoint)
    return proof


def _require_canonical(checkpoint: str) -> None:
    """Signature lines that trusted keys did not make are not checked, but must not be ambiguous either."""
    try:
        lines = [signature.line for signature in read_note(checkpoint).signatures]
    except NoteError as error:
        raise ProofError(f"the file's checkpoint cannot be read: {error}") from None
    for line in lines:
        from_base64(line.rstrip("\n").rpartition(" ")[2])


def from_base64(text: str) -> bytes:
    """Bytes from standard base64 with padding, written in the one right way. Raises ProofError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
        if base64.b64encode(data).decode() == text:
            return data
    except ValueError:
        pass
    raise ProofError("something in the file is not base64 as it must be")


def verify_file(proof: Proof, hub_keys: Mapping[str, PublicKey]) -> Made:
    """Check that the file is as a trusted hub key signed it. Raises ProofError."""
    try:
        jws = parse(proof.signature.encode("ascii"))
        stated = orjson.loads(jws.payload)
        digest, at = stated["sha256"], read_moment(stated["at"])
        if at is None:
            raise ValueError
    except (Problem, ValueError, KeyError, TypeError):
        raise ProofError("the hub's signature over the file cannot be read") from None
    if jws.header.get("typ") != FORMAT:
        raise ProofError("the signature over the file is one over something else")
    key = hub_keys.get(jws.kid)
    if key is None:
        raise ProofError(f"the file was signed with the key {jws.kid}, which is not among the trusted hub keys")
    if not verify(key, jws.alg, jws.signature, jws.signing_input):
        raise ProofError("the hub's signature over the file is wrong")
    if digest != _digest(proof):
        raise ProofError("the file was altered since the hub signed it")
    return Made(jws.kid, at)


def read_moment(text: object) -> datetime | None:
    """A time as evidence writes it (RFC 3339), of the years 2000 to 8999: others overflow somewhere."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if isinstance(text, str) and found.tzinfo is not None and 2000 <= found.year < 9000 else None


# -- keys, hashes and places as the file holds them ------------------------------------------------


def key_text(key: PublicKey) -> str:
    """A public key as RFC 7638 writes it: its SHA-256 is its thumbprint."""
    members = {name: value for name, value in to_jwk(key).items() if name not in ("kid", "use")}
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS).decode()


def read_key(text: str) -> PublicKey:
    """The same back. Raises ProofError."""
    try:
        members: Any = orjson.loads(text)
        key = from_jwk(members)
    except Exception:  # parsers of two libraries, each with its own kinds of complaint
        raise ProofError("a public key in the file cannot be used") from None
    if key_text(key) != text:
        raise ProofError("a public key in the file is not written as RFC 7638 has it")
    return key


def read_path(path: tuple[str, ...]) -> list[bytes]:
    """Hashes of a path. Raises LogError."""
    try:
        found = [unb64url(step.encode("ascii")) for step in path]
    except ValueError:
        found = [b""]
    if any(len(step) != HASH_BYTES for step in found):
        raise LogError("the path in the file cannot be read")
    return found
