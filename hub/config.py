"""Every setting of the hub, typed and checked once, before anything starts.

A setting is an option of ``lienthong serve``; its environment variable is its name in capitals after
``LIENTHONG_`` (``LIENTHONG_PORT``). docs/operating.md holds the table.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from protocol.evidence import LONGEST_PROMISE_SECONDS
from protocol.note import COSIGNATURE, NoteError, Verifier, check_name, read_verifier
from protocol.problems import LienthongError

DEFAULT_PORT = 8700
PKCS11_SCHEME = "pkcs11:"


class ConfigError(LienthongError):
    """A setting that cannot be; the message says which and what to set instead."""


class WitnessSetting(NamedTuple):
    """Where a witness is, and the key that its cosignatures are believed for."""

    url: str
    verifier: Verifier


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one node. Sizes are bytes, times seconds."""

    data_dir: str = "data"
    blob_dir: str = ""
    """Where blobs are; below the data directory by default. Nodes that share a database share it."""
    database_url: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_PORT
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    name: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    allow_plain_http: bool = False
    max_message_bytes: Annotated[int, Meta(ge=1024)] = 1 << 20
    max_batch_bytes: Annotated[int, Meta(ge=1024)] = 32 << 20
    max_batch_messages: Annotated[int, Meta(ge=1)] = 1000
    max_xml_bytes: Annotated[int, Meta(ge=1024)] = 512 << 20
    max_attachment_bytes: Annotated[int, Meta(ge=1024)] = 4 << 30
    max_queue_bytes: Annotated[int, Meta(ge=1 << 16)] = 64 << 20
    max_queue_seconds: Annotated[float, Meta(gt=0)] = 5.0
    """How long an endpoint's messages may stand in the queues before its next ones are told to come later."""
    rate_messages: Annotated[float, Meta(ge=0)] = 0.0
    """Messages that an endpoint may submit in a second, unless it has a limit of its own; 0 for no limit."""
    rate_bytes: Annotated[float, Meta(ge=0)] = 0.0
    """The same of bytes of messages and attachments."""
    rate_seconds: Annotated[float, Meta(gt=0)] = 1.0
    """How many seconds' worth an endpoint that was silent may submit at once."""
    retention_months: Annotated[int, Meta(ge=0, le=1200)] = 0
    """Whole months that are kept before the present one; 0 keeps everything."""
    request_seconds: Annotated[float, Meta(gt=0)] = 30.0
    """How long a request's head may take to arrive, and how long its body may stand still."""
    stop_seconds: Annotated[float, Meta(gt=0)] = 30.0
    pdf_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that check signatures in PDFs, of each hub process; none runs before the first PDF."""
    pdf_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 64 << 20
    pdf_seconds: Annotated[float, Meta(ge=0.5, le=600)] = 10.0
    """Of computing that a PDF may cost; by the clock, three times as long."""
    pdf_memory_bytes: Annotated[int, Meta(ge=64 << 20)] = 512 << 20
    axis_registration: Literal["approve", "allow", "deny"] = "approve"
    axis_clock_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    """How far the timestamp of an axis request may lie from this node's clock, before or after it."""
    require_certificates: bool = False
    """Whether a key must have come in a certificate that leads to a trust anchor."""
    revocation: Literal["soft", "hard", "off"] = "soft"
    """Where it is not known whether a certificate was revoked: accept and say so, refuse, or do not even ask."""
    revocation_seconds: Annotated[float, Meta(ge=10, le=86_400)] = 3600.0
    """How often authorities are asked."""
    revocation_hosts: str = ""
    """Hosts that may be asked, separated by commas; empty: all but this machine and its links."""
    secrets_key_file: str = ""
    """The private key under which secrets of axis systems are sealed; by default `secrets_key`."""
    seal_key: str = ""
    """The key that seals batches: a PEM file or a PKCS#11 URI (RFC 7512)."""
    log_name: str = ""
    """What the transparency log is called, for good: its name goes with its tree (`log_origin`)."""
    log_within_seconds: Annotated[float, Meta(ge=60, le=LONGEST_PROMISE_SECONDS)] = 86_400.0
    """The longest time until an event is in the log: a promise in every receipt."""
    log_key: str = ""
    """The Ed25519 key that signs the log's checkpoints, likewise; by default the hub's own, if that is Ed25519."""
    timestamp_url: str = ""
    """Authorities that stamp the log's checkpoints (RFC 3161): addresses, separated by commas."""
    timestamp_ca: str = ""
    """Certificates to which their tokens must lead, PEM."""
    timestamp_policy: str = ""
    """OIDs of policies, separated by commas, of which a token must name one; any by default."""
    timestamp_seconds: Annotated[float, Meta(ge=10)] = 600.0
    """How long an authority is left alone after a token."""
    witness: str = ""
    """Witnesses of the log, each an address and a verifier key, separated by blanks."""

    @property
    def data(self) -> Path:
        return Path(self.data_dir)

    @property
    def embedded(self) -> bool:
        """Whether the hub runs a PostgreSQL of its own."""
        return not self.database_url

    @property
    def hub_name(self) -> str:
        """The name that the hub's evidence carries."""
        return self.name or "lienthong"

    @property
    def log_origin(self) -> str:
        """The name of a log that is begun: words as `protocol.note.check_name` allows them."""
        return self.log_name or "-".join(re.split(r"[\s+]+", self.hub_name)) + "/log"

    @property
    def blobs(self) -> Path:
        return Path(self.blob_dir) if self.blob_dir else self.data / "blobs"

    @property
    def metrics_dir(self) -> Path:
        return self.data / "run" / "metrics"

    @property
    def hub_key_file(self) -> Path:
        """Where the hub's key is when `seal_key` does not say otherwise."""
        return self.data / "hub-key.pem"

    @property
    def log_key_file(self) -> Path:
        """Where the log's key is when `log_key` does not say otherwise and the hub's key cannot serve."""
        return self.data / "log-key.pem"

    @property
    def timestamp_urls(self) -> list[str]:
        return [url for part in self.timestamp_url.split(",") if (url := part.strip())]

    @property
    def timestamp_policies(self) -> list[str]:
        return [oid for part in self.timestamp_policy.split(",") if (oid := part.strip())]

    @property
    def secrets_key(self) -> Path:
        """The file of the secrets' key: the one made for them, where the hub's key is no file; else the hub's."""
        if self.secrets_key_file:
            return Path(self.secrets_key_file)
        own = self.data / "secrets-key.pem"
        return own if own.exists() else self.hub_key_file

    @property
    def witnesses(self) -> list[WitnessSetting]:
        """Those who sign the log's checkpoints along. Raises ConfigError."""
        words = [word for part in self.witness.split() if (word := part.strip(","))]
        if len(words) % 2:
            raise ConfigError("--witness takes an address and a verifier key: 'https://w.example.vn w+id+key'")
        found: list[WitnessSetting] = []
        for url, vkey in zip(words[::2], words[1::2], strict=True):
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"--witness: {url!r} is not an address like https://w.example.vn")
            try:
                verifier = read_verifier(vkey)
            except NoteError as error:
                raise ConfigError(f"--witness: {error}") from None
            if verifier.kind != COSIGNATURE:
                raise ConfigError(f"--witness: the key of {verifier.name} is one of a log, not of a witness")
            if any(verifier.name == other.verifier.name for other in found):
                raise ConfigError(f"--witness: {verifier.name} is named twice")
            found.append(WitnessSetting(url, verifier))
        return found

    def check(self) -> None:
        """Raise ConfigError for settings that do not go together."""
        try:
            check_name(self.log_origin)
        except NoteError as error:
            raise ConfigError(f"--log-name: {error}") from None
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key belong together; give both")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key")
        for option, file in (
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
            ("--tls-client-ca", self.tls_client_ca),
            ("--secrets-key-file", self.secrets_key_file),
            ("--seal-key", self.seal_key),
            ("--log-key", self.log_key),
            ("--timestamp-ca", self.timestamp_ca),
        ):
            if file and not file.startswith(PKCS11_SCHEME) and not Path(file).is_file():
                raise ConfigError(f"{option}: there is no file {file}")
        if not self.tls_cert and not self.allow_plain_http and not is_loopback(self.host):
            raise ConfigError(
                f"plain HTTP on {self.host} would send tokens in the clear; give --tls-cert and --tls-key, "
                "or --allow-plain-http behind a proxy that speaks TLS"
            )
        if self.timestamp_urls and not self.timestamp_ca:
            raise ConfigError(
                "--timestamp-url needs --timestamp-ca, the certificates that its tokens must lead to"
            )
        for url in self.timestamp_urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"--timestamp-url: {url!r} is not an address like https://tsa.example.vn/tsr")
        _ = self.witnesses
        if self.database_url and not self.database_url.startswith(("postgresql://", "postgres://")):
            raise ConfigError("--database-url must look like postgresql://user:password@host:5432/database")

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make(**settings: object) -> Config:
    """A checked configuration from settings by name. Raises ConfigError."""
    try:
        config = msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        reason, _, setting = str(error).partition(" - at `$.")
        raise ConfigError(f"--{setting.rstrip('`').replace('_', '-')}: {reason}") from None
    config.check()
    return config
