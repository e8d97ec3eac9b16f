"""``lienthong operator``: who administers the hub."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from hub.cli.database import database_options, run
from hub.cli.output import Output, hand_over, json_option, local_time, pass_output, token_option
from hub.directory import change
from hub.store import sql

SQL = sql.load("directory")


@click.group()
def operator() -> None:
    """Administrators: operators and auditors."""


@operator.command("token")
@click.option("--role", type=click.Choice(["operator", "auditor"]), default="operator", show_default=True)
@click.option("--label", default="", help="Whose it is; `operator revoke` goes by it.")
@click.option("--days", type=click.IntRange(min=1), help="How long it is valid; for good by default.")
@token_option
@database_options
@json_option
@pass_output
def operator_token(
    output: Output,
    role: str,
    label: str,
    days: int | None,
    token_file: Path | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Make an administrator's token."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    token = run(
        data_dir, database_url, lambda c: change.issue_token(c, role=role, label=label, expires_at=expires)
    )
    members, line = hand_over(token, f"an {role}", token_file)
    output.result(
        {"role": role, "label": label, "expires": expires} | members,
        line + (f"\nValid until {local_time(expires)} (UTC+7)" if expires else ""),
    )


@operator.command("list")
@database_options
@json_option
@pass_output
def operator_list(output: Output, data_dir: str, database_url: str) -> None:
    """List administrators' tokens: whose they are, never the tokens themselves."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_administrators))
    output.table(
        "Administrators' tokens",
        ("Label", "Role", "Made", "Valid until"),
        ((r["label"], r["role"], local_time(r["created_at"]), local_time(r["expires_at"])) for r in rows),
        [dict(row) for row in rows],
    )


@operator.command("revoke")
@click.argument("label")
@database_options
@json_option
@pass_output
def operator_revoke(output: Output, label: str, data_dir: str, database_url: str) -> None:
    """End every administrator's token with this LABEL."""
    count = run(data_dir, database_url, lambda connection: change.revoke_administrators(connection, label))
    output.result({"label": label, "revoked": count}, f"{count} tokens labelled {label!r} ended")
