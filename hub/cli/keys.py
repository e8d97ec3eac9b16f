"""``lienthong key``: signing keys of agencies and endpoints."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import click
import orjson

from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, pass_output
from hub.directory import change
from protocol.problems import LienthongError
from protocol.signature import ALGORITHMS, generate, load_public, private_pem, thumbprint, to_jwk


@click.group()
def key() -> None:
    """Keys that sign documents."""


@key.command("generate")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--alg", type=click.Choice(ALGORITHMS), default="ES256", show_default=True)
@json_option
@pass_output
def key_generate(output: Output, file: Path, alg: str) -> None:
    """Make a key: the private half into FILE (PEM), the public half beside it as FILE.pub (JWK)."""
    made = generate(alg)
    jwk = to_jwk(made.public_key())
    public = file.with_name(file.name + ".pub")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LienthongError(f"{file} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(descriptor, "wb") as target:
        target.write(private_pem(made))
    public.write_bytes(orjson.dumps(jwk, option=orjson.OPT_INDENT_2) + b"\n")
    kid = thumbprint(made.public_key())
    output.result(
        {"kid": kid, "private": str(file), "public": str(public), "jwk": jwk},
        f"Key {kid}\nPrivate (keep it to yourself): {file}\nPublic (register it at the hub): {public}",
    )


@key.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--endpoint", help="It signs for everything that this endpoint speaks for.")
@click.option("--agency", help="It signs for this agency only.")
@click.option("--not-before", type=click.DateTime(), help="Valid from (UTC).")
@click.option("--not-after", type=click.DateTime(), help="Valid until (UTC).")
@database_options
@json_option
@pass_output
def key_add(
    output: Output,
    file: Path,
    endpoint: str | None,
    agency: str | None,
    not_before: datetime | None,
    not_after: datetime | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Register a public key (PEM key or certificate, or JWK) for an endpoint or an agency."""
    if bool(endpoint) == bool(agency):
        raise click.UsageError("give one of --endpoint and --agency")
    public, x5t = load_public(file.read_bytes())

    async def go(connection: asyncpg.Connection) -> str:
        return await change.add_key(
            connection,
            public,
            endpoint=endpoint,
            agency=agency,
            x5t=x5t,
            not_before=not_before.replace(tzinfo=UTC) if not_before else None,
            not_after=not_after.replace(tzinfo=UTC) if not_after else None,
        )

    kid = run(data_dir, database_url, go)
    output.result(
        {"kid": kid, "endpoint": endpoint, "agency": agency}, f"Key {kid} signs for {endpoint or agency}"
    )


@key.command("disable", context_settings={"ignore_unknown_options": True})  # a thumbprint may begin with "-"
@click.argument("kid", type=click.UNPROCESSED)
@database_options
@json_option
@pass_output
def key_disable(output: Output, kid: str, data_dir: str, database_url: str) -> None:
    """Accept nothing more that is signed with this key."""
    run(data_dir, database_url, lambda connection: change.disable_key(connection, kid))
    output.result({"kid": kid, "active": False}, f"Key {kid} is disabled")
