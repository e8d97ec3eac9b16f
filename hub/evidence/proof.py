"""Puts together all that proves what became of a message: one file, which needs this hub no more (protocol.proof).

Nothing is made up here: receipts come from `History`, which checks them against what was sealed, places and
paths from the log, keys and certificates from what the sealed acceptance names. What the hub adds is a signature
over the whole, so that nothing can be left out of it unseen; also when it says that an event is not in the log
yet.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson

from hub.config import Config
from hub.directory.follow import Directory
from hub.evidence.history import Event, History
from hub.evidence.keys import public_keys
from hub.evidence.log import Log
from hub.evidence.sealing import elsewhere
from hub.evidence.signers import SignerEvidence, signer_evidence
from hub.relay.format import Format
from hub.store import sql
from hub.store.blobs import Blobs
from hub.store.routes import Routes
from protocol.acknowledgement import SignedAcknowledgement
from protocol.certificate import load_all, to_der
from protocol.evidence import EventKind, Receipt
from protocol.log import NodeHash, inclusion_proof, node_from, tiles_needed
from protocol.problems import Problem
from protocol.proof import (
    FORMAT,
    Acknowledged,
    Answer,
    Evidence,
    Message,
    Place,
    Proof,
    Sender,
    key_text,
    sign_proof,
    write_proof,
)
from protocol.proof_trust import Trust
from protocol.signature import Signer, b64url, from_jwk, parse, thumbprint

SQL = sql.load("proof")
_TRUST_SQL = sql.load("trust")
SIGNATURES = 1000
"""Signatures of witnesses among which a checkpoint is looked for."""
_THREAD_EVENTS = 32
"""From here on work is done off the event loop: signing, and finding paths, of 32 events take a millisecond."""


@dataclass(frozen=True, slots=True)
class _Logged:
    """Where events are in the log, by their receipts' places, and what their paths lead to."""

    places: dict[tuple[UUID, int], Place]
    checkpoint: str | None
    tokens: tuple[bytes, ...]


class Proofs:
    """Makes proofs for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        history: History,
        routes: Routes,
        directory: Directory,
        blobs: Blobs,
        signer: Signer,
    ) -> None:
        self._pool = pool
        self._history = history
        self._routes = routes
        self._directory = directory
        self._blobs = blobs
        self._signer = signer
        self._log = Log(pool)

    async def of(self, row: asyncpg.Record, recipient: str | None = None, *, withdrawn: bool = False) -> bytes:
        """The proof of a message, as its file.

        `recipient`: the endpoint that gets it, of whose delivery alone it then tells; None for the sender and
        whoever administers the hub. `withdrawn`: it was recalled before this one was given it, who is then not
        told what is in it. Raises `Problem` internal when the store is not whole, key-unavailable.
        """
        timeline = await self._history.timeline(row)
        events = [
            event
            for event in timeline.events
            if event.kind != EventKind.ACCEPTED
            and not event.with_end  # the end itself follows
            and (recipient is None or event.endpoint in ("", recipient))
            and not (withdrawn and event.kind == EventKind.SIGNATURES_CHECKED)
        ]
        receipts = [timeline.accepted, *(event.receipt for event in events if event.receipt is not None)]
        logged = await self._logged(receipts)
        try:
            signer = await signer_evidence(self._pool, dict(row))
        except LookupError as error:
            raise Problem("internal", f"the proof cannot be produced: {error}") from None
        route = await self._routes.get(row["route"])
        codes = (
            None if recipient is not None else tuple(sorted(code for codes in route.values() for code in codes))
        )
        proof = Proof(
            FORMAT,
            Message(str(row["id"]), row["digest"].hex(), row["size"], _label(row)),
            await self._sender(row, signer),
            _evidence(timeline.accepted, logged),
            codes,
            tuple(
                _evidence(event.receipt, logged, self._acknowledged(event))
                for event in events
                if event.receipt is not None
            ),
            logged.checkpoint,
            tuple(_base64(token) for token in logged.tokens),
        )
        # Of an old month messages leave first: if this one is still there, nothing was missing above.
        if await self._history.message(row["id"]) is None:
            raise Problem("not-found", "the message is not kept any longer")
        return await self._sign(proof)

    async def _sign(self, proof: Proof) -> bytes:
        def sign() -> bytes:
            return write_proof(sign_proof(proof, self._signer))

        if self._signer.slow:
            return await elsewhere(sign)
        return await asyncio.to_thread(sign) if len(proof.events) >= _THREAD_EVENTS else sign()

    # -- the log --------------------------------------------------------------------------------

    async def _logged(self, receipts: list[Receipt]) -> _Logged:
        """Places and paths to one checkpoint, of those events that are in the log."""
        names = [_name(receipt) for receipt in receipts]
        rows = await self._pool.fetch(SQL.places, list({batch for batch, _ in names}))
        first = {row["batch"]: row["first"] for row in rows}
        places = {name: first[name[0]] + name[1] for name in names if name[0] in first}
        least = max(places.values(), default=-1) + 1
        if len(places) == len(names):
            checkpoint = await self._pool.fetchrow(SQL.checkpoint, least, SIGNATURES)
        else:
            # A promise may be broken: then the newest that others signed says most.
            checkpoint = await self._log.covering(least)
        if checkpoint is None:
            return _Logged({}, None, ())
        size = checkpoint["size"]
        paths = await self._paths(list(places.values()), size)
        tokens = await self._pool.fetch(SQL.tokens, size)
        return _Logged(
            {
                name: Place(index, tuple(map(b64url, path)))
                for (name, index), path in zip(places.items(), paths, strict=True)
            },
            self._log.signed(checkpoint),
            tuple(row["token"] for row in tokens),
        )

    async def _paths(self, indexes: list[int], size: int) -> list[list[bytes]]:
        def paths(node: NodeHash) -> list[list[bytes]]:
            once = lru_cache(maxsize=None)(node)  # neighbours share most of their paths
            return [inclusion_proof(index, size, once) for index in indexes]

        if len(indexes) < _THREAD_EVENTS:
            return await self._log.compute(size, paths)
        tiles = await self._log.tiles(await asyncio.to_thread(tiles_needed, size, paths))
        return await asyncio.to_thread(lambda: paths(node_from(tiles, size)))

    # -- who signed -----------------------------------------------------------------------------

    async def _sender(self, row: asyncpg.Record, signer: SignerEvidence | None) -> Sender:
        format_ = Format(row["format"])
        if format_ not in (Format.JWS, Format.MANIFEST):
            return Sender("", 0, (), "", (), ())
        body = row["body"]
        if body is None:
            body = await asyncio.to_thread(_read, self._blobs.path(row["digest"]))
        raw = body.decode("ascii")
        index, path = 0, ()
        if format_ is Format.MANIFEST:
            signature, place, steps, _ = raw.split("~")
            index, path = int(place), tuple(steps.split(".")) if steps else ()
        else:
            protected, _, written = raw.split(".")
            signature = f"{protected}..{written}"
        if signer is None:
            return Sender(signature, index, path, "", (), ())
        return Sender(
            signature,
            index,
            path,
            key_text(from_jwk(signer.jwk)),
            tuple(map(_base64, signer.chain)),
            tuple(Answer(answer.kind.value, _base64(answer.der)) for answer in signer.revocation),
        )

    def _acknowledged(self, event: Event) -> Acknowledged | None:
        given: SignedAcknowledgement | None = event.acknowledgement
        if given is None:
            return None
        key = self._directory.picture.keys.get(parse(given.jws.encode()).kid)
        if key is None:
            return None
        return Acknowledged(given.jws, given.index, given.size, given.path, key_text(key.public))


async def trusted(pool: asyncpg.Pool[Any], config: Config) -> Trust:
    """Whom this hub would have others trust: its keys, its log's, most of its witnesses, its authorities."""
    keys = [from_jwk(jwk) for jwk in await public_keys(pool)]
    witnesses = tuple(witness.verifier for witness in config.witnesses)
    anchors = await pool.fetch(_TRUST_SQL.active_anchors)
    roots = load_all(Path(config.timestamp_ca).read_bytes()) if config.timestamp_ca else []
    return Trust(
        {thumbprint(key): key for key in keys},
        tuple(identity.verifier for identity in await Log(pool).identities()),
        witnesses,
        len(witnesses) // 2 + 1 if witnesses else 0,
        tuple(row["der"] for row in anchors),
        tuple(map(to_der, roots)),
    )


def _label(row: asyncpg.Record) -> Literal["jws", "manifest", "edxml", "receipt"]:
    return Format(row["format"]).label  # type: ignore[return-value]


def _name(receipt: Receipt) -> tuple[UUID, int]:
    """An event's batch and its place in that."""
    return _batch(receipt.seal), receipt.index


@lru_cache(maxsize=1024)  # events that end together have one seal
def _batch(seal: str) -> UUID:
    return UUID(orjson.loads(parse(seal.encode()).payload)["batch"])


def _evidence(receipt: Receipt, logged: _Logged, acknowledged: Acknowledged | None = None) -> Evidence:
    return Evidence(receipt, logged.places.get(_name(receipt)), acknowledged)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(path: Path) -> bytes:
    return path.read_bytes()
