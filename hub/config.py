"""Every setting of the hub, typed and checked once, before anything starts.

A setting is an option of ``lienthong serve``; its environment variable is its name in capitals after
``LIENTHONG_`` (``LIENTHONG_PORT``). docs/operating.md holds the table.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.problems import LienthongError

DEFAULT_PORT = 8700


class ConfigError(LienthongError):
    """A setting that cannot be; the message says which and what to set instead."""


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
    axis_registration: Literal["approve", "allow", "deny"] = "approve"
    axis_clock_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    """How far the timestamp of an axis request may lie from this node's clock, before or after it."""
    secrets_key_file: str = ""
    """The private key under which secrets of axis systems are sealed; the hub's own by default."""

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
    def blobs(self) -> Path:
        return Path(self.blob_dir) if self.blob_dir else self.data / "blobs"

    @property
    def metrics_dir(self) -> Path:
        return self.data / "run" / "metrics"

    @property
    def hub_key_file(self) -> Path:
        return self.data / "hub-key.pem"

    @property
    def secrets_key(self) -> Path:
        return Path(self.secrets_key_file) if self.secrets_key_file else self.hub_key_file

    def check(self) -> None:
        """Raise ConfigError for settings that do not go together."""
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key belong together; give both")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key")
        for option, file in (
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
            ("--tls-client-ca", self.tls_client_ca),
            ("--secrets-key-file", self.secrets_key_file),
        ):
            if file and not Path(file).is_file():
                raise ConfigError(f"{option}: there is no file {file}")
        if not self.tls_cert and not self.allow_plain_http and not is_loopback(self.host):
            raise ConfigError(
                f"plain HTTP on {self.host} would send tokens in the clear; give --tls-cert and --tls-key, "
                "or --allow-plain-http behind a proxy that speaks TLS"
            )
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
