"""The hub's own keys: what seals its batches and signs its log, and how the world learns the public halves.

A key is a PEM file or, in a hardware security module, a PKCS#11 URI (RFC 7512; `hub.evidence.pkcs11`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.config import PKCS11_SCHEME, Config
from hub.directory.change import changing
from hub.evidence import pkcs11
from hub.store import sql
from protocol.problems import LienthongError
from protocol.signature import (
    PrivateKey,
    PublicKey,
    SigningKey,
    generate,
    load_private,
    private_pem,
    thumbprint,
    to_jwk,
)

log = structlog.get_logger()
LINKS = sql.load("links")
KEY_ALGORITHM = "EdDSA"
"""Signing costs 41 µs a batch; the log's checkpoints are Ed25519 by specification."""


class HubKeyError(LienthongError):
    """A key of the hub cannot be used; the message says what to do."""


class LogKey(Protocol):
    """What signs checkpoints. Both may be called from any thread; `sign` may take long, or raise SigningError."""

    def public_key(self) -> Ed25519PublicKey: ...

    def sign(self, data: bytes, /) -> bytes:
        """An Ed25519 signature, 64 bytes."""


def make_hub_key(path: Path) -> bool:
    """Make a key file of the hub unless there is one. True when it was made."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private_pem(generate(KEY_ALGORITHM)))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # unlike renaming, it never replaces what another process made meanwhile
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def prepare_keys(config: Config) -> list[Path]:
    """Make the key files that this configuration needs and that are not there, and try every key; what was made.

    A key that a setting names is never made: a path with a slip of the pen in it must not become a new identity.
    Keys are tried here, before there are workers to be started again and again. Raises HubKeyError when one cannot
    be used.
    """
    made = []
    if not config.seal_key and make_hub_key(config.hub_key_file):
        made.append(config.hub_key_file)
    if not config.secrets_key_file and not config.secrets_key.exists():
        # The hub's key is elsewhere and has always been; a hub that had a file before keeps it for its secrets.
        own = config.data / "secrets-key.pem"
        make_hub_key(own)
        made.append(own)
    try:
        hub_key = load_key(config)
        if not config.log_key and not _signs_checkpoints(hub_key) and make_hub_key(config.log_key_file):
            made.append(config.log_key_file)
        load_log_key(config, hub_key)
    finally:
        pkcs11.close()
    _refused(config).unlink(missing_ok=True)
    return made


def _refused(config: Config) -> Path:
    """Where it is noted that a token refused a PIN: who starts a hub again and again must not lock the token."""
    return config.data / "pin-refused"


def _pins(config: Config) -> str:
    """Which files hold PINs, and when they were last changed."""
    lines = []
    for where in (config.seal_key, config.log_key):
        if where.startswith(PKCS11_SCHEME):
            with contextlib.suppress(OSError, LienthongError):
                file = pkcs11.read_uri(where).pin_file
                lines.append(f"{file} {file.stat().st_mtime_ns if file else 0}")
    return "\n".join(lines)


def load_hub_key(path: Path) -> PrivateKey:
    """The private key in a file. Raises HubKeyError."""
    try:
        return load_private(path.read_bytes())
    except (OSError, LienthongError) as error:
        raise HubKeyError(f"the hub's key {path} cannot be read: {error}. Run `lienthong init`") from None


def load_key(config: Config) -> PrivateKey | SigningKey:
    """The hub's private key: what seals batches. Raises HubKeyError."""
    return _load(config.seal_key, config) if config.seal_key else load_hub_key(config.hub_key_file)


def _load(where: str, config: Config) -> PrivateKey | SigningKey:
    if not where.startswith(PKCS11_SCHEME):
        return load_hub_key(Path(where))
    refused, pins = _refused(config), _pins(config)
    if refused.exists() and refused.read_text(encoding="utf-8") == pins:
        raise HubKeyError(f"a token refused the PIN that is still in its file; correct that, or remove {refused}")
    try:
        return pkcs11.open_key(where)
    except LienthongError as error:
        if isinstance(error, pkcs11.PinError):
            refused.write_text(pins, encoding="utf-8")
        raise HubKeyError(str(error)) from None


def _signs_checkpoints(key: PrivateKey | SigningKey) -> bool:
    return isinstance(key.public_key(), Ed25519PublicKey)


def load_log_key(config: Config, hub_key: PrivateKey | SigningKey) -> LogKey:
    """The key that signs the log's checkpoints: its own where one is set, the hub's where that is Ed25519, the
    one that `lienthong init` made otherwise. Raises HubKeyError.
    """
    if config.log_key:
        key = _load(config.log_key, config)
        if not _signs_checkpoints(key):
            raise HubKeyError(
                f"--log-key: checkpoints are signed with Ed25519, and {config.log_key} is another key"
            )
    elif _signs_checkpoints(hub_key):
        key = hub_key
    else:
        key = load_hub_key(config.log_key_file)
    return key  # type: ignore[return-value]  # an Ed25519 key in memory signs as a `SigningKey` does


async def record_hub_key(pool: asyncpg.Pool[Any], key: PublicKey) -> None:
    """Keep the public key for good: receipts sealed with it stay verifiable after it was replaced."""
    kid, jwk = thumbprint(key), orjson.dumps(to_jwk(key)).decode()
    async with pool.acquire() as acquired:
        connection: Any = acquired
        if await connection.fetchval("select true from hub_key where kid = $1", kid):
            return
        async with changing(connection) as revision:  # which other nodes follow, and tell their links
            await connection.execute(
                "insert into hub_key (kid, jwk) values ($1, $2) on conflict do nothing", kid, jwk
            )
            await connection.execute(LINKS.exchange_anew, revision)


async def public_keys(pool: asyncpg.Pool[Any]) -> tuple[dict[str, str], ...]:
    """Every public key that this hub has sealed with, newest first."""
    rows = await pool.fetch("select jwk from hub_key order by created_at desc")
    return tuple(orjson.loads(row["jwk"]) for row in rows)
