"""Who signed a message, as a proof needs it: the key, its chain, and the answers that were applied.

What the hub relied on when it accepted a message is named in the message's sealed `accepted` event (its member
`signer`), and everything named there is kept for good, whatever became of the key, the certificate or the trust
since. This module finds it again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from hub.store import sql
from protocol.certificate_revocation import Answer, AnswerKind

SQL = sql.load("trust")


@dataclass(frozen=True, slots=True)
class SignerEvidence:
    """What stands behind a message's signature. Of a key that a linked hub vouches for there is the key alone.

    `signer` is the event's member as it was sealed. `chain` is DER, the signer's certificate first and the anchor
    last; just the certificate where it was pinned and led to nobody; empty for a plain key. `revocation` are the
    answers that were applied, in the order of the chain. `policy` is ``soft``, ``hard`` or ``off``; None where
    there was nothing to ask.
    """

    kid: str
    jwk: dict[str, str]
    chain: tuple[bytes, ...]
    revocation: tuple[Answer, ...]
    policy: str | None
    signer: dict[str, Any]

    def members(self) -> dict[str, Any]:
        """The same for a JSON file: DER as standard base64, times as RFC 3339."""
        return {
            "kid": self.kid,
            "jwk": self.jwk,
            "chain": [_base64(der) for der in self.chain],
            "revocation": [
                {
                    "kind": answer.kind.value,
                    "fetched_at": None if answer.fetched_at is None else _moment(answer.fetched_at),
                    "der": _base64(answer.der),
                }
                for answer in self.revocation
            ],
            "policy": self.policy,
        }


async def signer_evidence(
    connection: asyncpg.Connection | asyncpg.Pool[Any], message: Mapping[str, Any]
) -> SignerEvidence | None:
    """What stands behind the signature of a message: anything with its `accepted` event's text under `event`.

    None for what carried no signature that the hub checks (edXML, notices of the hub itself), and for messages of
    before the hub noted it. Raises LookupError when the store lacks something that the sealed event names, which
    never happens to a store that is whole.
    """
    event = orjson.loads(message["event"])
    signer = event.get("signer")
    if signer is None:
        return None
    if "vouched_by" in signer:
        jwk = await connection.fetchval(SQL.vouched_jwk, signer["kid"], signer["vouched_by"])
    else:
        jwk = await connection.fetchval(SQL.jwk, signer["kid"])
    if jwk is None:
        raise LookupError(f"the key {signer['kid']} is gone from the store")
    chain: tuple[bytes, ...] = ()
    if "certificate" in signer:
        leaf = bytes.fromhex(signer["certificate"])
        digests = [leaf]
        if "revocation" in signer:  # it led to an anchor
            digests = await connection.fetchval(SQL.chain_at, leaf, datetime.fromisoformat(event["at"])) or [leaf]
        chain = await _in_order(connection, SQL.certificates, digests, "certificate")
    revocation = signer.get("revocation") or {}
    digests = [bytes.fromhex(digest) for digest in revocation.get("answers", ())]
    rows = {row["sha256"]: row for row in await connection.fetch(SQL.answers, digests)} if digests else {}
    missing = [digest.hex() for digest in digests if digest not in rows]
    if missing:
        raise LookupError(f"the answer {missing[0]} about revocation is gone from the store")
    answers = tuple(
        Answer(AnswerKind(rows[digest]["kind"]), rows[digest]["der"], rows[digest]["fetched_at"])
        for digest in digests
    )
    return SignerEvidence(signer["kid"], orjson.loads(jwk), chain, answers, revocation.get("policy"), signer)


async def _in_order(
    connection: asyncpg.Connection | asyncpg.Pool[Any], statement: str, digests: list[bytes], what: str
) -> tuple[bytes, ...]:
    rows = {row["sha256"]: row["der"] for row in await connection.fetch(statement, digests)}
    missing = [digest.hex() for digest in digests if digest not in rows]
    if missing:
        raise LookupError(f"the {what} {missing[0]} is gone from the store")
    return tuple(rows[digest] for digest in digests)


def _base64(der: bytes) -> str:
    return base64.b64encode(der).decode()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
