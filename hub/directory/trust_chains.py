"""How keys' certificates lead to trust anchors: found when a key or an anchor is registered, kept in the store.

Each function works inside a change of the directory that its caller has begun (`hub.directory.change.changing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from cryptography import x509

from hub.store import sql
from protocol.certificate import (
    CertificateError,
    Chain,
    load,
    public_key,
    sha256,
    subject,
    to_der,
    validate_chain,
)
from protocol.signature import thumbprint

SQL = sql.load("trust")


async def _trusted(connection: asyncpg.Connection) -> list[x509.Certificate]:
    return [load(row["der"]) for row in await connection.fetch(SQL.active_anchors)]


async def _between(connection: asyncpg.Connection) -> list[x509.Certificate]:
    return [load(row["der"]) for row in await connection.fetch(SQL.authorities)]


async def put_certificate(connection: asyncpg.Connection, certificate: x509.Certificate) -> bytes:
    """Keep a certificate. Returns its SHA-256."""
    digest = sha256(certificate)
    await connection.execute(SQL.put_certificate, digest, to_der(certificate))
    return digest


def _moment(certificate: x509.Certificate, now: datetime) -> datetime:
    """When to look at a chain: now, or, for a certificate registered ahead of its time, when that begins."""
    return max(now, certificate.not_valid_before_utc)


async def register(
    connection: asyncpg.Connection,
    kid: str,
    certificates: Sequence[x509.Certificate],
    now: datetime,
    revision: int,
) -> Chain | None:
    """Keep the certificate of a key: the first of `certificates`; the others may be of use for its chain.

    Returns the chain; None where nobody is trusted yet: the certificate then counts because it was registered.
    Raises CertificateError where somebody is trusted and it does not lead there, or where it has expired.
    """
    leaf, *others = certificates
    if thumbprint(public_key(leaf)) != kid:
        raise CertificateError(f"the certificate of {subject(leaf)} is of another key")
    trusted = await _trusted(connection)
    chain = None
    if trusted:
        between = [*others, *(await _between(connection))]
        try:
            chain = validate_chain(leaf, between, trusted, _moment(leaf, now))
        except CertificateError as error:
            raise CertificateError(
                f"{error}. Give the certificates between with --chain, or trust its authority with `lienthong "
                "trust add`; to rely on the key alone, register it without its certificate"
            ) from None
    elif now > leaf.not_valid_after_utc:
        raise CertificateError(f"the certificate of {subject(leaf)} has expired")
    await put_certificate(connection, leaf)
    for one in others:
        await put_certificate(connection, one)
    digests = await _note(connection, chain, now) if chain else []
    await connection.execute(
        SQL.put_key_certificate,
        kid,
        sha256(leaf),
        chain is not None,
        digests,
        chain.not_before if chain else leaf.not_valid_before_utc,
        chain.not_after if chain else leaf.not_valid_after_utc,
        subject(leaf),
        revision,
    )
    return chain


async def _note(connection: asyncpg.Connection, chain: Chain, now: datetime) -> list[bytes]:
    """Keep a chain for proofs. Returns the SHA-256 of its certificates."""
    digests = [await put_certificate(connection, one) for one in chain.certificates]
    await connection.execute(SQL.note_chain, digests[0], now, digests)
    return digests


async def rechain(connection: asyncpg.Connection, now: datetime, revision: int) -> tuple[int, int]:
    """Look for the chains of all keys anew, after anchors changed.

    A pinned certificate that now leads to an anchor counts by its chain from now on; one that once had a chain and
    has none any more counts for nothing. Returns how many have a chain now, and how many have lost theirs.
    """
    trusted, between = await _trusted(connection), await _between(connection)
    have = lost = 0
    for row in await connection.fetch(SQL.certified):
        leaf = load(row["der"])
        try:
            chain = validate_chain(leaf, between, trusted, _moment(leaf, now))
        except CertificateError:
            if row["chain"]:
                lost += 1
                await _set(connection, row, leaf, None, revision)
            continue
        have += 1
        digests = await _note(connection, chain, now)
        if digests != row["chain"]:
            await _set(connection, row, leaf, (chain, digests), revision)
    return have, lost


async def _set(
    connection: asyncpg.Connection,
    row: asyncpg.Record,
    leaf: x509.Certificate,
    found: tuple[Chain, list[bytes]] | None,
    revision: int,
) -> None:
    await connection.execute(
        SQL.set_chain,
        row["kid"],
        row["certificate"],
        row["chained"] or found is not None,
        found[1] if found else [],
        found[0].not_before if found else leaf.not_valid_before_utc,
        found[0].not_after if found else leaf.not_valid_after_utc,
        revision,
    )
