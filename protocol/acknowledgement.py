"""`lienthong-ack+1`: a recipient's acknowledgement under its own signature.

A hub's receipt of an acknowledgement proves what the hub says that a recipient said. Here the recipient says it
itself: a compact JWS by a key of its endpoint, whose payload names what it acknowledges and refuses.

    {"at": "2026-03-02T01:15:30Z",                      the recipient's own clock
     "entries": [1795438738534661, …],                  sequences in its mailbox
     "root": "…",                                       over the documents that lie there, in that order
     "refused": [{"seq": …, "message": "…", "sha256": "…", "code": "not-competent", "reason": "…"}]}

`root` is the root (base64url) of a Merkle tree as `protocol.evidence` has it, each leaf made of a message's id, a
blank and the SHA-256 of its bytes in hex (`document_leaf`). So a few bytes cover ten thousand documents, and of
each it can be shown later, by the path from its leaf, that this signature covers it: in nobody's words but the
recipient's. What is refused stands there in full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.evidence import HASH_BYTES, EvidenceError, Tree, leaf_hash, root_from_path, timestamp
from protocol.message import Sha256
from protocol.problems import Problem
from protocol.reasons import RefusalCode
from protocol.signature import Jws, PublicKey, Signer, b64url, parse, unb64url, verify
from protocol.stream import MAX_ACKS, Reason, Seq

ACKNOWLEDGEMENT_TYPE = "lienthong-ack+1"
MAX_BYTES = 1 << 20
"""The largest that a hub takes."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document in a mailbox. `message` is the hub's id of it, `sha256` in hex."""

    seq: int
    message: str
    sha256: str


class RefusedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document that is not taken, and why."""

    seq: Seq
    message: str
    sha256: Sha256
    reason: Reason
    code: RefusalCode = "other"


class Statement(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The payload."""

    at: Annotated[str, Meta(max_length=40)]
    entries: Annotated[tuple[Seq, ...], Meta(max_length=MAX_ACKS)] = ()
    root: Annotated[str, Meta(max_length=43)] = ""
    refused: Annotated[tuple[RefusedDocument, ...], Meta(max_length=MAX_ACKS)] = ()


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Statement).decode


def document_leaf(message: str, sha256: str) -> bytes:
    """The leaf hash of a document: its id at the hub, and the SHA-256 of its bytes in hex."""
    return leaf_hash(f"{message} {sha256}".encode())


def sign_acknowledgement(
    signer: Signer,
    documents: Sequence[Document],
    refused: Sequence[RefusedDocument] = (),
    at: datetime | None = None,
) -> bytes:
    """The compact JWS by which a recipient acknowledges `documents`, in that order, and refuses others."""
    root = b64url(Tree([document_leaf(one.message, one.sha256) for one in documents]).root) if documents else ""
    statement = Statement(
        timestamp(at or datetime.now(UTC)), tuple(one.seq for one in documents), root, tuple(refused)
    )
    return signer.typed(ACKNOWLEDGEMENT_TYPE).sign(_encode(statement))


def read_acknowledgement(raw: bytes) -> tuple[Jws, Statement]:
    """Take one apart; it proves nothing yet. Raises `Problem` not-a-jws or bad-acknowledgement."""
    jws = parse(raw)
    if jws.header.get("typ") != ACKNOWLEDGEMENT_TYPE:
        raise Problem("bad-acknowledgement", f"the JWS is not of type {ACKNOWLEDGEMENT_TYPE}")
    try:
        statement = _decode(jws.payload)
        named = len(statement.entries) + len(statement.refused)
        distinct = {*statement.entries, *(one.seq for one in statement.refused)}
        if datetime.fromisoformat(statement.at).tzinfo is None:
            raise ValueError("`at` has no offset from UTC")
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Problem("bad-acknowledgement", f"the payload is not as it must be: {error}"[:500]) from None
    if not named:
        raise Problem("bad-acknowledgement", "it names nothing")
    if len(distinct) < named:
        raise Problem("bad-acknowledgement", "it names an entry twice")
    if bool(statement.entries) != bool(statement.root):
        raise Problem("bad-acknowledgement", "`root` is over `entries`: there is none without the other")
    return jws, statement


def covers(statement: Statement, leaves: Sequence[bytes]) -> bool:
    """Whether `root` is that of these leaf hashes, which are those of the documents of `entries`."""
    return bool(leaves) and b64url(Tree(leaves).root) == statement.root


class SignedAcknowledgement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a recipient signed, and where one document is in it. Of a refused document there is no path."""

    jws: Annotated[str, Meta(description="Compact JWS by the recipient")]
    index: Annotated[int, Meta(ge=0, description="The document's place among those acknowledged, from 0")] = 0
    size: Annotated[int, Meta(ge=0, description="How many it acknowledges; 0 when this document is refused")] = 0
    path: Annotated[
        tuple[str, ...], Meta(max_length=64, description="Sibling hashes up to `root`, base64url")
    ] = ()

    @property
    def sha256(self) -> str:
        """What the hub's event names it by, in hex."""
        return hashlib.sha256(self.jws.encode()).hexdigest()


def locate(jws: str, leaves: Sequence[bytes], message: str, sha256: str) -> SignedAcknowledgement:
    """Where a document is in what was signed over `leaves`; as a refused one where it is not."""
    try:
        index = list(leaves).index(document_leaf(message, sha256))
    except ValueError:
        return SignedAcknowledgement(jws)
    tree = Tree(leaves)
    return SignedAcknowledgement(jws, index, tree.size, tuple(map(b64url, tree.path(index))))


@dataclass(frozen=True, slots=True)
class VerifiedAcknowledgement:
    """What a signature was found to say of one document. `code` and `reason` are None unless it is refused."""

    kid: str
    at: str
    refused: bool
    code: str | None = None
    reason: str | None = None


def verify_acknowledgement(
    found: SignedAcknowledgement, key_of: Callable[[str], PublicKey | None], message: str, sha256: str
) -> VerifiedAcknowledgement:
    """Check that a recipient's signature covers a document: `message` its id at the hub, `sha256` of its bytes.

    `key_of` gives the recipient's public key for a `kid`, or None. Raises EvidenceError naming the first step that
    fails.
    """
    try:
        jws, statement = read_acknowledgement(found.jws.encode("ascii"))
        path = [unb64url(step.encode("ascii")) for step in found.path]
        root = unb64url(statement.root.encode("ascii"))
    except Problem as problem:
        raise EvidenceError(f"the recipient's acknowledgement cannot be read: {problem}") from None
    except ValueError:
        raise EvidenceError("the recipient's acknowledgement or its path cannot be read") from None
    key = key_of(jws.kid)
    if key is None:
        raise EvidenceError(
            f"the acknowledgement was made with the key {jws.kid}, which is not one of the recipient"
        )
    if not verify(key, jws.alg, jws.signature, jws.signing_input):
        raise EvidenceError("the recipient's signature on the acknowledgement is wrong")
    if not found.size:
        for one in statement.refused:
            if (one.message, one.sha256) == (message, sha256):
                return VerifiedAcknowledgement(jws.kid, statement.at, True, one.code, one.reason)
        raise EvidenceError("the recipient's signature refuses other documents, not this one")
    if any(len(step) != HASH_BYTES for step in path) or len(statement.entries) != found.size:
        raise EvidenceError("the acknowledgement's path cannot be one of its documents")
    if root_from_path(document_leaf(message, sha256), found.index, found.size, path) != root:
        raise EvidenceError("the recipient's signature does not cover this document")
    return VerifiedAcknowledgement(jws.kid, statement.at, False)
