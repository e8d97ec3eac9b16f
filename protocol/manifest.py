"""Manifests: one signature over up to 1,000 documents, each of which can be proven alone.

A sender with many documents at hand signs the root of a Merkle tree over them (RFC 9162, section 2.1, as
receipts do): 41 µs for all instead of for each, and the hub checks one signature instead of many.

    document (JSON) ── SHA-256(0x00 ‖ document) ──► leaf ─┐
    document ─────────────────────────────────────► leaf ─┼─► root ──► JWS of type `MANIFEST_TYPE`
    document ─────────────────────────────────────► leaf ─┘            over {"root": …, "size": …}

On its way to the hub a manifest is text: its JWS on the first line, then on each line one document, in
order, as base64url without padding (RFC 7515, section 2).

A recipient gets its own document as an *entry*: one ASCII string that holds all that proves it,

    <JWS of the manifest>~<index>~<path, base64url hashes separated by dots>~<document, base64url>

The document itself, not the entry, is what digests speak of: the same document sent again in another
manifest is the same message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import pybase64

from protocol.evidence import HASH_BYTES, EvidenceError, Tree, leaf_hash, root_from_path
from protocol.message import Document, open_jws, read_document, write_document
from protocol.problems import Problem
from protocol.signature import MAX_HEADER_BYTES, Jws, Signer, b64url, parse, unb64url

MANIFEST_TYPE = "lienthong-manifest+1"
MANIFEST_MEDIA_TYPE = "application/vnd.lienthong.manifest"
ENTRY_MEDIA_TYPE = "application/vnd.lienthong.manifest-entry"
MAX_DOCUMENTS = 1000
MAX_JWS_BYTES = 2 * MAX_HEADER_BYTES
"""No manifest's JWS is longer: a header, a root, a size and a signature."""
_MAX_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Manifest:
    """A signed manifest as its sender holds it: its JWS, and each document as base64url."""

    jws: bytes
    documents: tuple[bytes, ...]

    def to_body(self) -> bytes:
        """What travels to the hub, of media type `MANIFEST_MEDIA_TYPE`."""
        return b"\n".join((self.jws, *self.documents))


def seal_manifest(payloads: Sequence[bytes], signer: Signer) -> Manifest:
    """Sign up to `MAX_DOCUMENTS` documents (as `write_document` gives them) together. Raises ValueError."""
    if not 1 <= len(payloads) <= MAX_DOCUMENTS:
        raise ValueError(f"a manifest holds 1 to {MAX_DOCUMENTS} documents, not {len(payloads)}")
    tree = Tree([leaf_hash(payload) for payload in payloads])
    signed = orjson.dumps({"root": b64url(tree.root), "size": tree.size})
    documents = tuple(pybase64.urlsafe_b64encode(payload).rstrip(b"=") for payload in payloads)
    return Manifest(signer.typed(MANIFEST_TYPE).sign(signed), documents)


def seal_documents(documents: Sequence[Document], signer: Signer) -> Manifest:
    """Sign documents together. Raises ValueError."""
    return seal_manifest([write_document(document) for document in documents], signer)


@dataclass(frozen=True, slots=True)
class Opened:
    """A manifest taken apart. Its root is that of its documents; its signature is not yet verified."""

    jws: Jws
    tree: Tree
    payloads: list[bytes]
    lines: Sequence[bytes]

    def entries(self) -> list[bytes]:
        """What the recipient of each document gets, in order; every inner hash is encoded once."""
        encoded = [[b64url(node).encode() for node in level] for level in self.tree.levels[:-1]]
        written = []
        for index, line in enumerate(self.lines):
            path = []
            place = index
            for level in encoded:
                sibling = place ^ 1
                if sibling < len(level):
                    path.append(level[sibling])
                place >>= 1
            written.append(b"%b~%d~%b~%b" % (self.jws.raw, index, b".".join(path), line))
        return written


def _signed(jws: Jws) -> tuple[bytes, int]:
    """Root and size that a manifest's JWS signs. Raises `Problem` bad-manifest."""
    if jws.header.get("typ") != MANIFEST_TYPE:
        raise Problem("bad-manifest", f"the JWS must have the type (`typ`) {MANIFEST_TYPE}")
    try:
        members: Any = orjson.loads(jws.payload)
        root, size = unb64url(members["root"].encode("ascii")), members["size"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Problem("bad-manifest", 'the JWS must sign {"root": base64url, "size": number}') from None
    if len(root) != HASH_BYTES or type(size) is not int or not 1 <= size <= MAX_DOCUMENTS:
        raise Problem("bad-manifest", f"a manifest has a root of 32 bytes and 1 to {MAX_DOCUMENTS} documents")
    return root, size


def open_manifest(raw: bytes, lines: Sequence[bytes]) -> Opened:
    """Take a manifest apart: its JWS and its documents' lines.

    Raises `Problem` not-a-jws, algorithm-not-allowed, or bad-manifest when these are not the documents that
    it signs. Proves nothing about the signature.
    """
    jws, root, size = _open_signed(raw)
    if size != len(lines):
        raise Problem("bad-manifest", f"the manifest signs {size} documents, {len(lines)} came with it")
    payloads = []
    for number, line in enumerate(lines, start=1):
        try:
            payloads.append(unb64url(line))
        except ValueError:
            raise Problem("bad-manifest", f"document {number} is not base64url without padding") from None
    tree = Tree([leaf_hash(payload) for payload in payloads])
    if tree.root != root:
        raise Problem("bad-manifest", "the documents, or their order, are not those that the manifest signs")
    return Opened(jws, tree, payloads, lines)


@dataclass(frozen=True, slots=True)
class Entry:
    """One document with what proves it. Its path leads to the signed root; verify `jws` with the sender's key."""

    jws: Jws
    index: int
    size: int
    payload: bytes


def _open_signed(raw: bytes) -> tuple[Jws, bytes, int]:
    if len(raw) > MAX_JWS_BYTES:
        raise Problem("bad-manifest", "the manifest's JWS is longer than one can be")
    jws = parse(raw)
    return (jws, *_signed(jws))


_parse_signed = lru_cache(maxsize=1024)(_open_signed)
"""Cached: a recipient of many documents of one manifest takes it apart once."""


def open_entry(raw: bytes) -> Entry:
    """Take an entry apart and check that its path leads from its document to the signed root.

    Raises `Problem` not-a-jws or bad-manifest. Proves nothing about the signature.
    """
    parts = raw.split(b"~")
    if len(parts) != 4:
        raise Problem("bad-manifest", "an entry has four parts separated by `~`")
    jws, root, size = _parse_signed(parts[0])
    try:
        index = int(parts[1])
        if b"%d" % index != parts[1]:
            raise ValueError
        path = [unb64url(step) for step in parts[2].split(b".")] if parts[2] else []
        payload = unb64url(parts[3])
    except ValueError:
        raise Problem("bad-manifest", "the entry's index, path or document cannot be read") from None
    if len(path) > _MAX_DEPTH or any(len(step) != HASH_BYTES for step in path):
        raise Problem("bad-manifest", "the entry's path cannot be read")
    try:
        found = root_from_path(leaf_hash(payload), index, size, path)
    except EvidenceError:
        raise Problem("bad-manifest", f"no manifest of {size} documents has this place and path") from None
    if found != root:
        raise Problem("bad-manifest", "the document is not the one that the manifest signs at this place")
    return Entry(jws, index, size, payload)


def is_entry(raw: bytes) -> bool:
    """Whether a native message is an entry of a manifest rather than a JWS of its own."""
    return b"~" in raw


def signed_bytes(raw: bytes) -> bytes:
    """What the hub's events call the message's bytes: the JWS, or an entry's document. Raises `Problem`."""
    return open_entry(raw).payload if is_entry(raw) else raw


def message_digest(raw: bytes) -> bytes:
    """The SHA-256 by which events name a native message. Raises `Problem`."""
    return hashlib.sha256(signed_bytes(raw)).digest()


def open_native(raw: bytes) -> tuple[Jws, Document]:
    """The JWS to verify, and the document, of a native message of either kind. Raises `Problem`."""
    if is_entry(raw):
        entry = open_entry(raw)
        return entry.jws, read_document(entry.payload)
    return open_jws(raw)
