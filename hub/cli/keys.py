"""``lienthong key``: signing keys of agencies and endpoints."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import click
import orjson
from cryptography import x509

from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, local_time, pass_output
from hub.cli.trust import remaining, standing
from hub.directory import change
from hub.store import sql
from protocol.certificate import load_all, public_key, subject
from protocol.problems import LienthongError
from protocol.signature import (
    ALGORITHMS,
    KeyFormatError,
    PublicKey,
    generate,
    load_public,
    private_pem,
    thumbprint,
    to_jwk,
)

SQL = sql.load("trust")
_DER = b"0\x82"
"""How the DER of anything as long as a certificate begins: a sequence, its length in two bytes."""


def read_signer(file: Path, chain: Path | None = None) -> tuple[PublicKey, list[x509.Certificate]]:
    """A signer's key from a file (PEM key or certificates, DER certificate, JWK), and its certificates, if any.

    Of those its own is the first; the others, `chain`'s too, may lead on. Raises KeyFormatError, CertificateError.
    """
    data = file.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" in data or data.startswith(_DER):
        certificates = load_all(data)
        others = load_all(chain.read_bytes()) if chain else []
        return public_key(certificates[0]), [*certificates, *others]
    if chain:
        raise KeyFormatError(f"--chain belongs to a certificate; {file} holds a key alone")
    return load_public(data)[0], []


def make_key(file: Path, alg: str) -> PublicKey:
    """Make a key: its private half into a new file (PEM) that only its owner may read. Gives the public half.

    Raises LienthongError when there is such a file.
    """
    made = generate(alg)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LienthongError(f"{file} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(descriptor, "wb") as target:
        target.write(private_pem(made))
    return made.public_key()


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
    made = make_key(file, alg)
    jwk = to_jwk(made)
    public = file.with_name(file.name + ".pub")
    public.write_bytes(orjson.dumps(jwk, option=orjson.OPT_INDENT_2) + b"\n")
    kid = thumbprint(made)
    output.result(
        {"kid": kid, "private": str(file), "public": str(public), "jwk": jwk},
        f"Key {kid}\nPrivate (keep it to yourself): {file}\nPublic (register it at the hub): {public}",
    )


@key.command("id")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@pass_output
def key_id(output: Output, file: Path) -> None:
    """Show the id of a public key (PEM key or certificate, or JWK), by which proofs and lists of keys name it."""
    kid = thumbprint(read_signer(file)[0])
    output.result({"kid": kid}, kid)


@key.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--endpoint", help="It signs for everything that this endpoint speaks for.")
@click.option("--agency", help="It signs for this agency only.")
@click.option(
    "--chain",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates between FILE's and a trust anchor, PEM.",
)
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
    chain: Path | None,
    not_before: datetime | None,
    not_after: datetime | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Register a public key (PEM key or certificate, or JWK) for an endpoint or an agency.

    A certificate must lead to a trust anchor, once there is one (`lienthong trust`), and counts only in its time
    and while it is not revoked. A key may have several certificates at a time.
    """
    if bool(endpoint) == bool(agency):
        raise click.UsageError("give one of --endpoint and --agency")
    public, certificates = read_signer(file, chain)

    async def go(connection: asyncpg.Connection) -> str:
        return await change.add_key(
            connection,
            public,
            endpoint=endpoint,
            agency=agency,
            certificates=certificates,
            not_before=not_before.replace(tzinfo=UTC) if not_before else None,
            not_after=not_after.replace(tzinfo=UTC) if not_after else None,
        )

    kid = run(data_dir, database_url, go)
    name = subject(certificates[0]) if certificates else None
    line = f"Key {kid} signs for {endpoint or agency}"
    if certificates:
        line += f"\nCertificate of {name}, until {remaining(certificates[0].not_valid_after_utc)}"
    output.result({"kid": kid, "endpoint": endpoint, "agency": agency, "certificate": name}, line)


@key.command("list")
@click.option("--all", "disabled", is_flag=True, help="Disabled keys too.")
@database_options
@json_option
@pass_output
def key_list(output: Output, disabled: bool, data_dir: str, database_url: str) -> None:
    """List keys, whose they are, and what is known of their certificates (Vietnam's time)."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_keys, disabled))
    output.table(
        "Keys",
        ("Key", "Signs for", "State", "Certificate", "Valid until", "Leads to", "Revocation", "Last answer"),
        (
            (
                row["kid"],
                row["endpoint"] or row["agency"],
                "active" if row["active"] else "disabled",
                row["subject"],
                remaining(row["valid_until"] or row["not_after"]),
                _leads_to(row),
                standing(row) if row["chain"] else "",
                local_time(row["answered_at"]),
            )
            for row in rows
        ),
        [_plain(row) for row in rows],
        "no keys; register one with `lienthong key add`",
    )


def _leads_to(row: asyncpg.Record) -> str:
    if row["certificate"] is None:
        return ""
    if row["chain"]:
        return str(row["chain"][-1].hex()[:16])
    return "nobody who is trusted" if row["chained"] else "nobody: it is pinned"


def _plain(row: asyncpg.Record) -> dict[str, object]:
    members = dict(row)
    members["certificate"] = None if row["certificate"] is None else row["certificate"].hex()
    members["chain"] = [one.hex() for one in row["chain"] or ()]
    return members


# A thumbprint may begin with "-", and hold any letter: with `-h` as an option it would be a wish for help.
@key.command("disable", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("kid", type=click.UNPROCESSED)
@database_options
@json_option
@pass_output
def key_disable(output: Output, kid: str, data_dir: str, database_url: str) -> None:
    """Accept nothing more that is signed with this key."""
    run(data_dir, database_url, lambda connection: change.disable_key(connection, kid))
    output.result({"kid": kid, "active": False}, f"Key {kid} is disabled")
