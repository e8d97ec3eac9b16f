"""The hub's own key: what seals its batches, and how the world learns its public half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import structlog

from protocol.problems import LienthongError
from protocol.signature import PrivateKey, PublicKey, generate, load_private, private_pem, thumbprint, to_jwk

log = structlog.get_logger()
KEY_ALGORITHM = "EdDSA"
"""Signing costs 41 µs a batch; checkpoints of a later log are Ed25519 by specification."""


class HubKeyError(LienthongError):
    """The hub's key cannot be used; the message says what to do."""


def make_hub_key(path: Path) -> bool:
    """Make the hub's key unless there is one. True when it was made."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private_pem(generate(KEY_ALGORITHM)))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return True


def load_hub_key(path: Path) -> PrivateKey:
    """The hub's private key. Raises HubKeyError."""
    try:
        return load_private(path.read_bytes())
    except (OSError, LienthongError) as error:
        raise HubKeyError(f"the hub's key {path} cannot be read: {error}. Run `lienthong init`") from None


async def record_hub_key(pool: asyncpg.Pool[Any], key: PublicKey) -> None:
    """Keep the public key for good: receipts sealed with it stay verifiable after it was replaced."""
    await pool.execute(
        "insert into hub_key (kid, jwk) values ($1, $2) on conflict do nothing",
        thumbprint(key),
        orjson.dumps(to_jwk(key)).decode(),
    )


async def public_keys(pool: asyncpg.Pool[Any]) -> tuple[dict[str, str], ...]:
    """Every public key that this hub has sealed with, newest first."""
    rows = await pool.fetch("select jwk from hub_key order by created_at desc")
    return tuple(orjson.loads(row["jwk"]) for row in rows)
