"""Trust anchors: the authorities whose word the hub takes for whose a key is.

Each function is one transaction under the directory's lock, as in `hub.directory.change`. Errors are
`DirectoryError` and `protocol.certificate.CertificateError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
from cryptography import x509

from hub.directory import trust_chains
from hub.directory.change import DirectoryError, changing
from hub.directory.trust_standing import Revoking
from hub.store import sql
from protocol.certificate import is_authority, subject

SQL = sql.load("trust")
MAX_URL = 500


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of the anchors did: to which anchor, and to the certificates of how many keys."""

    sha256: bytes
    subject: str
    chained: int
    lost: int


def checked_url(url: str) -> str:
    """`url`, if it may be one to ask at: http, a host, nothing secret. Raises DirectoryError."""
    try:
        parts = urlsplit(url)
        right = parts.scheme == "http" and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        right = False
    if not right or len(url) > MAX_URL or not url.isprintable():
        raise DirectoryError(
            f"{url[:100]!r} must be http://host/path: what authorities say is signed, not encrypted"
        )
    return url


async def add_anchor(
    connection: asyncpg.Connection,
    certificate: x509.Certificate,
    *,
    revocation: Revoking | None = None,
    crl_url: str = "",
    ocsp_url: str = "",
) -> Effect:
    """Trust an authority's certificate; again, to change what is said of it.

    `revocation`: its own policy instead of the hub's. The addresses are for certificates that it issues itself and
    that name none. Keys whose certificates lead to it count by their chains from now on.
    """
    if not is_authority(certificate):
        raise DirectoryError(
            f"the certificate of {subject(certificate)} is no authority's; register an agency's with its key: "
            "`lienthong key add`"
        )
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise DirectoryError(f"the certificate of {subject(certificate)} has expired")
    for url in filter(None, (crl_url, ocsp_url)):
        checked_url(url)
    async with changing(connection) as revision:
        digest = await trust_chains.put_certificate(connection, certificate)
        await connection.execute(
            SQL.put_anchor,
            digest,
            revocation,
            crl_url,
            ocsp_url,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            subject(certificate),
            revision,
        )
        have, lost = await trust_chains.rechain(connection, now, revision)
    return Effect(digest, subject(certificate), have, lost)


async def remove_anchor(connection: asyncpg.Connection, prefix: str) -> Effect:
    """Trust an authority no longer. `prefix`: the beginning of its certificate's SHA-256 in hexadecimal.

    Keys whose certificates led to it and lead to no other sign nothing more, until they are registered anew.
    """
    wanted = prefix.replace(":", "").lower()
    if len(wanted) < 8 or set(wanted) - set("0123456789abcdef"):
        raise DirectoryError(
            f"{prefix[:80]!r} is not the beginning of a SHA-256 (8 digits or more); see `trust list`"
        )
    async with changing(connection) as revision:
        found = await connection.fetch(SQL.find_anchors, wanted)
        if len(found) != 1:
            raise DirectoryError(f"{len(found)} trust anchors begin with {wanted}; see `lienthong trust list`")
        digest, name = found[0]
        await connection.execute(SQL.remove_anchor, digest, revision)
        have, lost = await trust_chains.rechain(connection, datetime.now(UTC), revision)
    return Effect(digest, name, have, lost)
