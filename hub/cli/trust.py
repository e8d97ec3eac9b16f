"""``lienthong trust``: the authorities whose certificates the hub believes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import click

from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, local_time, pass_output
from hub.directory import trust as anchors
from hub.directory.trust import Effect
from hub.directory.trust_standing import Revoking
from hub.store import sql
from protocol.certificate import CertificateError, load_all

SQL = sql.load("trust")
SOON_DAYS = 60


def remaining(until: datetime | None) -> str:
    """The end of a certificate as people here read it, with the days left once they are few."""
    if until is None:
        return ""
    days = (until - datetime.now(UTC)).total_seconds() / 86_400
    note = "expired" if days < 0 else f"{int(days)} days left" if days <= SOON_DAYS else ""
    return f"{local_time(until)} ({note})" if note else local_time(until)


@click.group()
def trust() -> None:
    """Trust anchors: authorities whose certificates signers' keys may come in."""


@trust.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--revocation",
    type=click.Choice(["soft", "hard", "off"]),
    help="What is done where it cannot be learned whether a certificate was revoked. Default: as `serve` says.",
)
@click.option("--crl-url", default="", help="Where the list of what it issued is; asked before certificates' own.")
@click.option("--ocsp-url", default="", help="Where to ask about what it issued; before certificates' own.")
@database_options
@json_option
@pass_output
def trust_add(
    output: Output,
    file: Path,
    revocation: Revoking | None,
    crl_url: str,
    ocsp_url: str,
    data_dir: str,
    database_url: str,
) -> None:
    """Trust the authority whose certificate is in FILE (PEM or DER); again, to change what is said of it.

    Compare its SHA-256 with one that you got by another way. Keys whose certificates lead to it are then good only
    as long as they do.
    """
    found = load_all(file.read_bytes())
    if len(found) != 1:
        raise CertificateError(f"{file} holds {len(found)} certificates; trust one at a time")

    async def go(connection: asyncpg.Connection) -> Effect:
        return await anchors.add_anchor(
            connection, found[0], revocation=revocation, crl_url=crl_url, ocsp_url=ocsp_url
        )

    effect = run(data_dir, database_url, go)
    output.result(_members(effect), f"{effect.subject} is trusted\nSHA-256 {effect.sha256.hex()}\n{_keys(effect)}")


@trust.command("remove")
@click.argument("sha256")
@database_options
@json_option
@pass_output
def trust_remove(output: Output, sha256: str, data_dir: str, database_url: str) -> None:
    """Trust an authority no longer: the one whose certificate's SHA-256 begins with SHA256.

    Keys that came in its certificates sign nothing more, unless these lead to another anchor.
    """
    effect = run(data_dir, database_url, lambda connection: anchors.remove_anchor(connection, sha256))
    output.result(_members(effect), f"{effect.subject} is no longer trusted\n{_keys(effect)}")


def _members(effect: Effect) -> dict[str, object]:
    return {
        "sha256": effect.sha256.hex(),
        "subject": effect.subject,
        "certificates": effect.chained,
        "lost": effect.lost,
    }


def _keys(effect: Effect) -> str:
    lost = f"; {effect.lost} lead nowhere any more, their keys sign nothing" if effect.lost else ""
    return f"Certificates of signers that lead to a trust anchor: {effect.chained}{lost}"


@trust.command("list")
@database_options
@json_option
@pass_output
def trust_list(output: Output, data_dir: str, database_url: str) -> None:
    """List trust anchors, and what somebody should look at of signers' certificates (Vietnam's time)."""

    async def go(connection: asyncpg.Connection) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
        return await connection.fetch(SQL.list_anchors), await connection.fetch(SQL.troubled, SOON_DAYS)

    rows, troubled = run(data_dir, database_url, go)
    signers = [row for row in troubled if row["kind"] == "signer"]
    members = {
        "anchors": [dict(row) | {"sha256": row["sha256"].hex()} for row in rows],
        "troubled": [dict(row) | {"sha256": row["sha256"].hex()} for row in signers],
    }
    if output.as_json:
        output.result(members, "")
        return
    output.table(
        "Trust anchors",
        ("SHA-256", "Subject", "Revocation", "Asked at", "Valid until", "Certificates"),
        (
            (
                row["sha256"].hex()[:16],
                row["subject"],
                row["revocation"] or "as `serve` says",
                " ".join(filter(None, (row["ocsp_url"], row["crl_url"]))) or "as certificates say",
                remaining(row["not_after"]),
                row["keys"],
            )
            for row in rows
        ),
        None,
        "nobody is trusted: keys count because they are registered; `lienthong trust add` changes that",
    )
    if signers:
        output.table(
            "To be looked at",
            ("Whose", "Subject", "Valid until", "Revocation", "Last answer", "Why not"),
            (
                (
                    row["owner"],
                    row["subject"],
                    remaining(row["not_after"]),
                    standing(row),
                    local_time(row["answered_at"]),
                    row["failure"],
                )
                for row in signers
            ),
            None,
        )


def standing(row: asyncpg.Record) -> str:
    """What is known of a certificate's revocation, in words."""
    if row["status"] is None:
        return "not known"
    if row["status"] == "revoked":
        return f"revoked {local_time(row['revoked_at'])} ({row['reason']})"
    stale = row["fresh_until"] is not None and row["fresh_until"] < datetime.now(UTC)
    return "not known (the last answer is too old)" if stale or row["status"] != "good" else "good"


@trust.command("refresh")
@database_options
@json_option
@pass_output
def trust_refresh(output: Output, data_dir: str, database_url: str) -> None:
    """Let the hub ask all authorities anew, within seconds."""
    run(data_dir, database_url, lambda connection: connection.execute(SQL.forget_asked))
    output.result({"asked": True}, "A running hub asks within seconds; see `lienthong trust list`")
