"""Acknowledgements that recipients sign (`protocol.acknowledgement`): checked before anything ends.

What was signed must be what lies in the mailbox: the entries exist, and the root is over their documents, in the
order in which they are named. Entries never change, so that this holds whatever else happens meanwhile. One that
has ended already does no harm: a signed acknowledgement may be sent again like any other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import asyncpg
import structlog

from hub.directory.follow import Directory
from hub.directory.picture import Picture
from hub.relay.acknowledgement import Acknowledgement, Signed
from hub.relay.handed import Handed
from hub.relay.verify import Verifier, find_key
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.acknowledgement import MAX_BYTES, Statement, covers, document_leaf, read_acknowledgement
from protocol.ids import uuid7
from protocol.message import Lane
from protocol.problems import Problem
from protocol.signature import Jws, PublicKey

log = structlog.get_logger()
SQL = sql.load("relay")

REQUIRE = "require"
Found = dict[int, tuple[int, str, str]]
"""By sequence: the lane, and a document's id and SHA-256 in hex."""


class SignedAcknowledgements:
    """Checks them for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], directory: Directory, verifier: Verifier, handed: Handed) -> None:
        """`pool` should be that of readers."""
        self._pool = pool
        self._directory = directory
        self._verifier = verifier
        self._handed = handed

    def require_signed(self, endpoint: int) -> None:
        """An endpoint acknowledges without a signature. Raises `Problem` acknowledgement-not-signed when its
        policy forbids it."""
        known = self._directory.picture.endpoints.get(endpoint)
        if known is not None and known.signed_acknowledgements == REQUIRE:
            raise Problem("acknowledgement-not-signed", "sign them with a key of this endpoint")

    async def open(self, endpoint: int, raw: bytes) -> Acknowledgement:
        """What `endpoint` asks with a signed acknowledgement.

        Raises `Problem` too-large, not-a-jws, bad-acknowledgement, bad-signature, store-unavailable, or what
        `find_signer` says of the key.
        """
        if len(raw) > MAX_BYTES:
            raise Problem("too-large", f"a signed acknowledgement may have {MAX_BYTES} bytes", limit=MAX_BYTES)
        jws, statement = read_acknowledgement(raw)
        key = self._key(self._directory.picture, jws, endpoint)
        if not (await self._verifier.check(endpoint, [(key, jws)]))[0]:
            raise Problem("bad-signature", "the signature was not made over this acknowledgement by this key")
        refused = {one.seq: one for one in statement.refused}
        known = await self._documents(endpoint, [*statement.entries, *refused])
        leaves = [document_leaf(*known[seq][1:]) for seq in statement.entries]
        if leaves and not covers(statement, leaves):
            raise Problem("bad-acknowledgement", "`root` is not over the documents of `entries` in this mailbox")
        for seq, one in refused.items():
            if known[seq][1:] != (one.message, one.sha256):
                raise Problem("bad-acknowledgement", f"another document lies at {seq} than what is refused")
        text = raw.decode("ascii")
        request = Acknowledgement(
            endpoint,
            refused={seq: one.reason for seq, one in refused.items()},
            codes={seq: one.code for seq, one in refused.items()},
            signed=Signed(uuid7(), text, hashlib.sha256(raw).hexdigest(), b"".join(leaves)),
        )
        self._say_briefly(request, statement, known)
        return request

    @staticmethod
    def _key(picture: Picture, jws: Jws, endpoint: int) -> PublicKey:
        """The key, the endpoint's or an agency's that it speaks for."""
        named = picture.keys.get(jws.kid)
        agency = None if named is None or named.agency is None else picture.agency(named.agency)
        speaks = agency is not None and agency.active and agency.endpoint == endpoint
        return find_key(picture, jws, endpoint, agency.code if agency is not None and speaks else "").public

    async def _documents(self, endpoint: int, seqs: list[int]) -> Found:
        """The documents at these places of a mailbox; from memory, as nearly always, or from the store."""
        found = self._remembered(endpoint, max(seqs))
        if not all(seq in found for seq in seqs):
            try:
                rows = await self._pool.fetch(SQL.signed_entries, endpoint, seqs)
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.error("a mailbox could not be read", error=str(error))
                raise Problem("store-unavailable", "nothing is lost: acknowledge again", retry_after=2) from None
            found = {row["seq"]: (row["lane"], str(row["id"]), row["digest"].hex()) for row in rows}
        for seq in seqs:
            if seq not in found:
                raise Problem("bad-acknowledgement", f"nothing lies at {seq} in this mailbox")
        return found

    def _remembered(self, endpoint: int, up_to: int) -> Found:
        found: Found = {}
        for lane in Lane:
            for entry in self._handed.given(endpoint, lane, up_to):
                found[entry.seq] = lane, str(entry.id), entry.digest.hex()
        return found

    def _say_briefly(self, request: Acknowledgement, statement: Statement, known: Found) -> None:
        """Where the entries of a lane are all up to the last of them, a cursor says the same and costs less."""
        named: dict[int, set[int]] = {}
        for seq in statement.entries:
            named.setdefault(known[seq][0], set()).add(seq)
        for lane, seqs in named.items():
            last = max(seqs)
            waiting = self._handed.recall(request.endpoint, lane, last)
            if waiting is not None and {entry.seq for entry in waiting[1]} <= seqs:
                request.up_to[lane] = last
            else:
                request.entries |= seqs
