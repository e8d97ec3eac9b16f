"""``lienthong agency``, ``endpoint`` and ``group``: who is who."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hub.cli.database import database_options, run
from hub.cli.keys import read_signer
from hub.cli.output import Output, hand_over, json_option, local_time, pass_output, token_option
from hub.cli.policies import pdf_text, signatures_text
from hub.directory import change
from hub.directory.change import AgencyRow
from hub.store import sql
from protocol.agency import parent as parent_of
from protocol.signature import KeyFormatError

SQL = sql.load("directory")


@click.group()
def agency() -> None:
    """Agencies: the addresses of documents."""


@agency.command("add")
@click.argument("code")
@click.argument("name")
@click.option("--parent", help="Code of the unit above; read from the code's form when left out.")
@click.option("--alias", "aliases", multiple=True, help="Another code it is known by; may be repeated.")
@click.option("--endpoint", help="The endpoint that speaks for it.")
@database_options
@json_option
@pass_output
def agency_add(
    output: Output,
    code: str,
    name: str,
    parent: str | None,
    aliases: tuple[str, ...],
    endpoint: str | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Add an agency, or change it."""
    row = AgencyRow(code, name, parent, aliases, endpoint)
    run(data_dir, database_url, lambda connection: change.add_agency(connection, row))
    above = parent or parent_of(code)
    output.result(
        {"code": code, "name": name, "parent": above, "aliases": aliases, "endpoint": endpoint},
        f"Agency {code}, {name}, "
        + (f"below {above}." if above else "at the top of its tree.")
        + (f" The endpoint {endpoint} speaks for it." if endpoint else ""),
    )


@agency.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@database_options
@json_option
@pass_output
def agency_import(output: Output, file: Path, data_dir: str, database_url: str) -> None:
    """Add or change agencies from CSV: code,name[,parent,aliases,endpoint]. All or nothing.

    Several aliases are separated by blanks. Endpoints that do not exist are made.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise change.DirectoryError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    rows = list(change.read_csv(text))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=output.progress, transient=True, disable=output.as_json) as progress:
        task = progress.add_task("Importing", total=len(rows))

        async def go(connection: asyncpg.Connection) -> tuple[int, int]:
            return await change.import_agencies(
                connection, rows, lambda count: progress.update(task, completed=count)
            )

        agencies, endpoints = run(data_dir, database_url, go)
    output.result(
        {"agencies": agencies, "new_endpoints": endpoints},
        f"{agencies} agencies imported, {endpoints} endpoints made",
    )


@agency.command("list")
@click.argument("search", required=False)
@click.option("--limit", default=50, show_default=True, help="Lines at the most.")
@database_options
@json_option
@pass_output
def agency_list(output: Output, search: str | None, limit: int, data_dir: str, database_url: str) -> None:
    """List agencies: all, or those whose code, alias, parent or name fits SEARCH."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_agencies, search, limit + 1))
    cut = len(rows) > limit
    rows = rows[:limit]
    output.table(
        f"The first {limit} agencies; more with --limit or with a SEARCH" if cut else "Agencies",
        ("Code", "Name", "Parent", "Aliases", "Endpoint"),
        ((r["code"], r["name"], r["parent"], " ".join(r["aliases"]), r["endpoint"]) for r in rows),
        [dict(row) for row in rows],
    )


@click.group()
def endpoint() -> None:
    """Endpoints: connected systems, each with a mailbox."""


@endpoint.command("add")
@click.argument("name")
@click.option("--agency", "agencies", multiple=True, help="An agency that it speaks for; may be repeated.")
@click.option("--key", "key_file", type=click.Path(exists=True, path_type=Path), help="Its public key: PEM, JWK.")
@click.option("--client-cert", type=click.Path(exists=True, path_type=Path), help="TLS client certificate, PEM.")
@token_option
@database_options
@json_option
@pass_output
def endpoint_add(
    output: Output,
    name: str,
    agencies: tuple[str, ...],
    key_file: Path | None,
    client_cert: Path | None,
    token_file: Path | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Add an endpoint and make its first token."""
    public, certificates = read_signer(key_file) if key_file else (None, [])
    certificate = _certificate(client_cert) if client_cert else None

    async def go(connection: asyncpg.Connection) -> tuple[str, str | None]:
        async with connection.transaction():
            await change.add_endpoint(connection, name, agencies)
            kid = None
            if public is not None:
                kid = await change.add_key(connection, public, endpoint=name, certificates=certificates)
            if certificate is not None:
                await change.trust_certificate(connection, name, certificate)
            return await change.issue_token(connection, endpoint=name), kid

    token, kid = run(data_dir, database_url, go)
    members, line = hand_over(token, name, token_file)
    lines = [f"Endpoint {name} speaks for {', '.join(agencies) or 'no agency yet'}."]
    if not agencies:
        lines.append(f"Give it some with: lienthong endpoint assign {name} CODE…")
    lines.append(f"Key: {kid}" if kid else f"To send it needs a key: lienthong key add FILE --endpoint {name}")
    output.result({"name": name, "agencies": agencies, "kid": kid} | members, "\n".join([*lines, line]))


@endpoint.command("assign")
@click.argument("name")
@click.argument("agencies", nargs=-1, required=True)
@database_options
@json_option
@pass_output
def endpoint_assign(
    output: Output, name: str, agencies: tuple[str, ...], data_dir: str, database_url: str
) -> None:
    """Let an endpoint speak for AGENCIES (codes), from now on. Mail that came before stays where it is."""
    run(data_dir, database_url, lambda connection: change.assign(connection, name, agencies))
    output.result({"name": name, "agencies": agencies}, f"Endpoint {name} speaks for {', '.join(agencies)}.")


def _certificate(file: Path) -> bytes:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)
    except ValueError as error:
        raise KeyFormatError(f"{file} is not a PEM certificate: {error}") from None


@endpoint.command("list")
@database_options
@json_option
@pass_output
def endpoint_list(output: Output, data_dir: str, database_url: str) -> None:
    """List endpoints, and when each was last seen (Vietnam's time)."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_endpoints))
    output.table(
        "Endpoints",
        ("Name", "State", "Agencies", "Keys", "Credentials", "Limits", "Package signatures", "PDFs", "Last seen"),
        (
            (
                r["name"],
                "active" if r["active"] else "disabled",
                r["agencies"],
                r["keys"],
                r["credentials"],
                _limits_text(r["rate_messages"], r["rate_bytes"]),
                signatures_text(r["edxml_signatures"], r["edxml_pins"], r["edxml_any_certificate"]),
                pdf_text(r["pdf_signatures"], r["pdf_countersigned"]),
                local_time(r["seen_at"]),
            )
            for r in rows
        ),
        [dict(row) for row in rows],
    )


def _limits_text(messages: float | None, octets: float | None) -> str:
    """Limits as people read them; nothing where the hub's default holds."""
    named = ((messages, "messages/s"), (octets, "bytes/s"))
    return ", ".join(f"{rate:,.10g} {unit}" if rate else f"any {unit}" for rate, unit in named if rate is not None)


@endpoint.command("limit")
@click.argument("name")
@click.option("--messages", type=click.FloatRange(min=0), help="Messages it may submit a second; 0 for any.")
@click.option("--bytes", "octets", type=click.FloatRange(min=0), help="Bytes it may submit a second; 0 for any.")
@click.option("--default", "reset", is_flag=True, help="Limits that are not given become the hub's default.")
@database_options
@json_option
@pass_output
def endpoint_limit(
    output: Output,
    name: str,
    messages: float | None,
    octets: float | None,
    reset: bool,
    data_dir: str,
    database_url: str,
) -> None:
    """Limit how fast an endpoint submits; beyond it is answered 429. Reading its mailbox is never limited.

    Without a limit of its own an endpoint has the hub's default (--rate-messages and --rate-bytes of `serve`).
    """
    if messages is None and octets is None and not reset:
        raise click.UsageError("give --messages, --bytes or --default")

    def changed(before: change.Limits) -> change.Limits:
        kept = change.Limits() if reset else before
        return change.Limits(
            kept.messages if messages is None else messages, kept.octets if octets is None else octets
        )

    limits = run(data_dir, database_url, lambda c: change.set_limits(c, name, changed))
    text = _limits_text(limits.messages, limits.octets)
    output.result(
        {"name": name, "rate_messages": limits.messages, "rate_bytes": limits.octets},
        f"{name} may submit {text}" if text else f"{name} has the hub's default limits",
    )


def _set_active(name: str, active: bool) -> Any:
    def command(output: Output, endpoint_name: str, data_dir: str, database_url: str) -> None:
        run(data_dir, database_url, lambda c: change.set_endpoint_active(c, endpoint_name, active))
        output.result({"name": endpoint_name, "active": active}, f"{endpoint_name} is {name}d; its mail is kept")

    command.__doc__ = "Let an endpoint in again." if active else "Shut an endpoint out. Its mail waits."
    decorated = database_options(json_option(pass_output(command)))
    return endpoint.command(name)(click.argument("endpoint_name", metavar="NAME")(decorated))


_set_active("disable", False)
_set_active("enable", True)


@endpoint.command("token")
@click.argument("name")
@click.option("--revoke-others", is_flag=True, help="End all older tokens now, not at the next rotation.")
@click.option("--days", type=click.IntRange(min=1), help="How long it is valid; for good by default.")
@token_option
@database_options
@json_option
@pass_output
def endpoint_token(
    output: Output,
    name: str,
    revoke_others: bool,
    days: int | None,
    token_file: Path | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Make another token. The newest two are valid, so that a system can change over without a gap."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    keep = 1 if revoke_others else change.TOKENS_PER_ENDPOINT
    token = run(
        data_dir,
        database_url,
        lambda c: change.issue_token(c, endpoint=name, expires_at=expires, keep=keep),
    )
    members, line = hand_over(token, name, token_file)
    output.result(
        {"name": name, "expires": expires} | members,
        line + (f"\nValid until {local_time(expires)} (UTC+7)" if expires else ""),
    )


@endpoint.command("trust")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@database_options
@json_option
@pass_output
def endpoint_trust(output: Output, name: str, file: Path, data_dir: str, database_url: str) -> None:
    """Accept the TLS client certificate in FILE (PEM) in place of a token, beside those accepted already."""
    certificate = x509.load_der_x509_certificate(_certificate(file))
    der = certificate.public_bytes(Encoding.DER)
    label = certificate.subject.rfc4514_string()
    run(data_dir, database_url, lambda c: change.trust_certificate(c, name, der, label))
    output.result(
        {"name": name, "subject": label, "sha256": certificate.fingerprint(hashes.SHA256()).hex()},
        f"{name} may come with the certificate of {label}",
    )


@endpoint.command("revoke")
@click.argument("name")
@database_options
@json_option
@pass_output
def endpoint_revoke(output: Output, name: str, data_dir: str, database_url: str) -> None:
    """End every token and client certificate of an endpoint."""
    count = run(data_dir, database_url, lambda c: change.revoke_credentials(c, name))
    output.result({"name": name, "revoked": count}, f"{count} credentials of {name} ended")


@click.group()
def group() -> None:
    """Named groups of recipients (`group:NAME` in a document's `to`)."""


@group.command("set")
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
@database_options
@json_option
@pass_output
def group_set(output: Output, name: str, members: tuple[str, ...], data_dir: str, database_url: str) -> None:
    """Make a group of these agencies, or replace its members."""
    run(data_dir, database_url, lambda c: change.put_group(c, name, members))
    output.result({"name": name, "members": members}, f"group:{name} has {len(members)} members")
