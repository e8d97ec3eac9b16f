"""``lienthong axis``: systems that speak the national axis's interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hub.cli.database import database_options, run
from hub.cli.output import Output, hand_over, json_option, local_time, pass_output, secret_option
from hub.config import Config
from hub.directory import axis as systems
from hub.directory.vault import Vault
from hub.store import sql
from protocol.vxp import VIETNAM_HOURS

SQL = sql.load("axis")

key_option = click.option(
    "--secrets-key-file",
    default="",
    envvar="LIENTHONG_SECRETS_KEY_FILE",
    type=click.Path(dir_okay=False),
    help="The file of `serve --secrets-key-file`, if it has one.",
)


def _vault(data_dir: str, secrets_key_file: str) -> Vault:
    return Vault.load(Config(data_dir=data_dir, secrets_key_file=secrets_key_file).secrets_key)


@click.group()
def axis() -> None:
    """Systems that connect with the national axis's SDK."""


@axis.command("add")
@click.argument("system_id")
@click.option("--endpoint", required=True, help="The endpoint as which it sends and receives.")
@click.option(
    "--utc-offset",
    "utc_hours",
    type=click.IntRange(-12, 14),
    default=VIETNAM_HOURS,
    show_default=True,
    help="How many hours the system's clock is ahead of UTC.",
)
@secret_option
@key_option
@database_options
@json_option
@pass_output
def axis_add(
    output: Output,
    system_id: str,
    endpoint: str,
    utc_hours: int,
    secret_file: Path | None,
    secrets_key_file: str,
    data_dir: str,
    database_url: str,
) -> None:
    """Let an endpoint speak the axis's interface as SYSTEM_ID, and make its secret."""
    vault = _vault(data_dir, secrets_key_file)
    secret = run(data_dir, database_url, lambda c: systems.add_system(c, vault, system_id, endpoint, utc_hours))
    members, line = hand_over(secret, system_id, secret_file, "secret")
    output.result(
        {"system_id": system_id, "endpoint": endpoint, "utc_offset": utc_hours} | members,
        f"System {system_id} is {endpoint}. Its service.endpoint is this hub's address, followed by /vxp\n{line}",
    )


@axis.command("secret")
@click.argument("system_id")
@click.option("--revoke-others", is_flag=True, help="End the older secret now, not at the next rotation.")
@secret_option
@key_option
@database_options
@json_option
@pass_output
def axis_secret(
    output: Output,
    system_id: str,
    revoke_others: bool,
    secret_file: Path | None,
    secrets_key_file: str,
    data_dir: str,
    database_url: str,
) -> None:
    """Make another secret. The newest two are valid, so that a system can change over without a gap."""
    vault = _vault(data_dir, secrets_key_file)
    secret = run(data_dir, database_url, lambda c: systems.new_secret(c, vault, system_id, keep=not revoke_others))
    members, line = hand_over(secret, system_id, secret_file, "secret")
    output.result({"system_id": system_id} | members, line)


@axis.command("list")
@database_options
@json_option
@pass_output
def axis_list(output: Output, data_dir: str, database_url: str) -> None:
    """List systems, and when each was last seen (Vietnam's time); never their secrets."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_systems))
    output.table(
        "Systems of the axis's interface",
        ("System", "Endpoint", "State", "Agencies", "Secrets", "Clock", "Waiting requests", "Last seen"),
        (
            (
                r["system_id"],
                r["endpoint"],
                "active" if r["active"] else "disabled",
                r["agencies"],
                2 if r["two_secrets"] else 1,
                f"UTC{r['utc_hours']:+d}",
                r["waiting"],
                local_time(r["seen_at"]),
            )
            for r in rows
        ),
        [dict(row) for row in rows],
        "no systems; make one with `lienthong axis add`",
    )


def _set_active(name: str, active: bool) -> None:
    def command(output: Output, system_id: str, data_dir: str, database_url: str) -> None:
        run(data_dir, database_url, lambda c: systems.set_system_active(c, system_id, active))
        output.result({"system_id": system_id, "active": active}, f"{system_id} is {name}d; its mail is kept")

    command.__doc__ = "Let a system in again." if active else "Shut a system out. Its endpoint's mail waits."
    decorated = database_options(json_option(pass_output(command)))
    axis.command(name)(click.argument("system_id")(decorated))


_set_active("disable", False)
_set_active("enable", True)


@axis.command("pending")
@database_options
@json_option
@pass_output
def axis_pending(output: Output, data_dir: str, database_url: str) -> None:
    """List what systems ask to be changed in the directory, oldest first."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.waiting_requests))
    output.table(
        "Requests that wait for approval",
        ("Number", "Asked at", "System", "What", "Code", "Name", "Below", "Contact"),
        (
            (
                r["id"],
                local_time(r["at"]),
                r["system_id"],
                r["kind"],
                r["code"],
                r["name"],
                r["parent"],
                " ".join(filter(None, (r["mail"], r["mobile"], r["fax"]))),
            )
            for r in rows
        ),
        [dict(row) for row in rows],
        "nothing waits",
    )


def _decide(name: str, approve: bool) -> None:
    def command(output: Output, numbers: tuple[int, ...], data_dir: str, database_url: str) -> None:
        done: list[dict[str, Any]] = []

        async def go(connection: Any) -> None:
            async with connection.transaction():
                for number in numbers:
                    change = await systems.decide(connection, number, approve)
                    done.append({"number": number, "kind": change.kind, "code": change.code, "approved": approve})

        run(data_dir, database_url, go)
        word = "carried out" if approve else "rejected"
        output.result(done, "\n".join(f"{d['number']}: {d['kind']} {d['code']}, {word}" for d in done))

    command.__doc__ = "Carry out requests by NUMBERS, all or none." if approve else "Reject requests by NUMBERS."
    decorated = database_options(json_option(pass_output(command)))
    axis.command(name)(click.argument("numbers", type=int, nargs=-1, required=True)(decorated))


_decide("approve", True)
_decide("reject", False)
