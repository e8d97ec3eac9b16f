"""``lienthong link``: other hubs, and the national axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import click

from hub.cli.axis import _vault, key_option
from hub.cli.database import database_options, run
from hub.cli.output import Output, hand_over, json_option, local_time, pass_output, token_option
from hub.directory import hubs, links
from hub.directory.change import DirectoryError
from hub.store import sql
from protocol.vxp import VIETNAM_HOURS

SQL = sql.load("links")
FAILED = 20
"""Transfers that failed, as `show` lists them."""

secret_in = click.option(
    "--secret-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the secret that belongs to the system id, or with the token of a native link.",
)


@click.group()
def link() -> None:
    """Other hubs and the national axis, to which this hub is connected."""


@link.command("add")
@click.argument("name")
@click.option(
    "--url",
    required=True,
    help="The peer: of the axis its service.endpoint, https://truc.chinhphu.vn/vxp; of a Lienthong its address.",
)
@click.option("--axis", "kind", flag_value="axis", help="It speaks the national axis's interface.")
@click.option("--native", "kind", flag_value="native", help="It is a Lienthong, and speaks its own interface.")
@click.option("--system-id", default="", help="With --axis: as what this hub is known there.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --axis: a file with the secret that belongs to the system id.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --native: a file with the token that `lienthong link accept` gave there.",
)
@click.option(
    "--branch",
    "branch",
    multiple=True,
    required=True,
    help="A unit of this hub's own (with all below it), which is not beyond the link; repeat for more. The "
    "first is this hub's own code.",
)
@click.option("--default", "default", is_flag=True, help="Codes that nobody knows here go there.")
@click.option(
    "--utc-offset",
    "utc_hours",
    type=click.IntRange(-12, 14),
    default=VIETNAM_HOURS,
    show_default=True,
    help="How many hours the clock is ahead of UTC that the peer expects requests to be signed with.",
)
@click.option(
    "--poll-seconds",
    type=click.FloatRange(0.1, 3600),
    default=links.POLL_SECONDS,
    show_default=True,
    help="With --axis: how often the peer is asked for what it has. A Lienthong says it at once.",
)
@click.option(
    "--retry-seconds",
    type=click.FloatRange(0.1, 3600),
    default=links.RETRY_SECONDS,
    show_default=True,
    help="The longest pause after failures.",
)
@click.option(
    "--sync-seconds",
    type=click.FloatRange(0),
    help=f"How often the peer's agencies are fetched, {links.SYNC_SECONDS:g} with --axis, "
    f"{links.NATIVE_SYNC_SECONDS:g} with --native; 0: only by `link sync`.",
)
@key_option
@database_options
@json_option
@pass_output
def link_add(
    output: Output,
    /,
    kind: str | None,
    secret_file: Path | None,
    token_file: Path | None,
    sync_seconds: float | None,
    secrets_key_file: str,
    data_dir: str,
    database_url: str,
    **new: Any,
) -> None:
    """Connect this hub to a peer as NAME, which becomes an endpoint."""
    native = kind == "native"
    file, needed = (token_file, "--token-file") if native else (secret_file, "--secret-file")
    if kind is None:
        raise click.UsageError("say what the peer speaks: --axis or --native")
    if file is None:
        raise click.UsageError(f"--{kind} needs {needed}")
    if native and (secret_file or new["system_id"]):
        raise click.UsageError("--secret-file and --system-id are for --axis")
    if sync_seconds is None:
        sync_seconds = links.NATIVE_SYNC_SECONDS if native else links.SYNC_SECONDS
    vault = _vault(data_dir, secrets_key_file)
    given = links.NewLink(**new, sync_seconds=sync_seconds, kind=kind)
    secret = file.read_text().strip()
    run(data_dir, database_url, lambda c: links.add_link(c, vault, given, secret))
    named = "" if native else f" as {given.system_id}"
    output.result(
        {"name": given.name, "url": given.url, "system_id": given.system_id, "branch": list(given.branch)},
        f"Linked with {given.url}{named}. See how it goes: lienthong link show {given.name}",
    )


@link.command("accept")
@click.argument("name")
@click.option(
    "--branch",
    "branch",
    multiple=True,
    required=True,
    help="The other hub's own unit: for it and all below it that hub may speak. Repeat for more.",
)
@click.option(
    "--approve-keys", "approval", is_flag=True, help="Its signers' keys wait for `link approve` before they count."
)
@token_option
@database_options
@json_option
@pass_output
def link_accept(
    output: Output,
    name: str,
    branch: tuple[str, ...],
    approval: bool,
    token_file: Path | None,
    data_dir: str,
    database_url: str,
) -> None:
    """Let another Lienthong link with this one, as NAME, and make its token. Again: another token."""
    token = run(data_dir, database_url, lambda c: hubs.accept(c, name, branch, approval=approval))
    members, line = hand_over(token, name, token_file)
    output.result(
        {"name": name, "branch": list(branch), "approve_keys": approval} | members,
        f"{name} may link with this hub, for {', '.join(branch)} and all below. There: lienthong link add NAME "
        f"--native --url THIS-HUB --token-file FILE --branch {branch[0]}\n{line}",
    )


@link.command("hubs")
@database_options
@json_option
@pass_output
def link_hubs(output: Output, data_dir: str, database_url: str) -> None:
    """List the hubs that may link with this one, and what they told of themselves."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_hubs, None))
    output.table(
        "Hubs that link with this one",
        ("Hub", "State", "Branch", "Calls itself", "Agencies", "Keys", "Keys that wait", "Told", "Not taken"),
        (
            (
                r["name"],
                "active" if r["active"] else "disabled",
                " ".join(r["branch"]),
                r["hub"],
                r["agencies"],
                r["keys"],
                r["waiting_keys"],
                local_time(r["told_at"]),
                r["refused"],
            )
            for r in rows
        ),
        [dict(row) for row in rows],
        "no hubs; let one in with `lienthong link accept`",
    )


@link.command("pending")
@click.argument("name", required=False)
@database_options
@json_option
@pass_output
def link_pending(output: Output, name: str | None, data_dir: str, database_url: str) -> None:
    """List keys of hubs that wait for approval, and whose they are."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.waiting_keys, name))
    output.table(
        "Keys that wait for approval",
        ("Hub", "Key", "Since", "Agencies"),
        ((r["hub"], r["name"], local_time(r["at"]), r["agencies"]) for r in rows),
        [dict(row) for row in rows],
        "no keys wait",
    )


def _decide(name: str, approve: bool) -> None:
    def command(output: Output, hub: str, key: str | None, data_dir: str, database_url: str) -> None:
        keys = run(data_dir, database_url, lambda c: hubs.decide_keys(c, hub, key, approve))
        done = "approved" if approve else "rejected"
        output.result({"name": hub, done: keys}, f"{len(keys)} of {hub}'s keys {done}")

    command.__doc__ = (
        "Let KEY of the hub NAME count, or all that wait." if approve else "Let KEY of the hub NAME not count."
    )
    decorated = database_options(json_option(pass_output(command)))
    decorated = click.argument("key", required=not approve)(decorated)
    link.command(name)(click.argument("hub", metavar="NAME")(decorated))


_decide("approve", True)
_decide("reject", False)


@link.command("secret")
@click.argument("name")
@secret_in
@key_option
@database_options
@json_option
@pass_output
def link_secret(
    output: Output, name: str, secret_file: Path, secrets_key_file: str, data_dir: str, database_url: str
) -> None:
    """Use another secret from now on."""
    vault = _vault(data_dir, secrets_key_file)
    secret = secret_file.read_text().strip()
    run(data_dir, database_url, lambda c: links.set_secret(c, vault, name, secret))
    output.result({"name": name}, f"{name} uses the new secret")


def _state(row: Any) -> str:
    if not row["active"]:
        return "disabled"
    if row["retry_at"] is not None and row["failures"]:
        return f"fails ({row['failures']}), again at {local_time(row['retry_at'])}"
    return "fails" if row["failures"] else "works" if row["last_success_at"] else "new"


@link.command("list")
@database_options
@json_option
@pass_output
def link_list(output: Output, data_dir: str, database_url: str) -> None:
    """List links and how they do (Vietnam's time); never their secrets."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_links, None))
    output.table(
        "Links",
        ("Link", "State", "Waiting", "Oldest", "Sent", "Fetched", "Refused there", "Agencies", "Last success"),
        (
            (
                r["name"],
                _state(r),
                r["waiting"],
                local_time(r["oldest_at"]),
                r["sent"],
                r["fetched"],
                r["refused_there"],
                r["agencies"],
                local_time(r["last_success_at"]),
            )
            for r in rows
        ),
        [dict(row) for row in rows],
        "no links; make one with `lienthong link add`",
    )


@link.command("show")
@click.argument("name")
@database_options
@json_option
@pass_output
def link_show(output: Output, name: str, data_dir: str, database_url: str) -> None:
    """Show one link: how it does, its last error, and what failed lately."""

    async def look(connection: Any) -> tuple[Any, list[Any]]:
        rows = await connection.fetch(SQL.list_links, name)
        if not rows:
            raise DirectoryError(f"there is no link {name!r}; see `lienthong link list`")
        return rows[0], await connection.fetch(SQL.failed_transfers, rows[0]["endpoint"], FAILED)

    row, failed = run(data_dir, database_url, look)
    if output.as_json:
        output.result(dict(row) | {"failed": [dict(transfer) for transfer in failed]}, "")
        return
    lines = [
        f"{row['name']}: {_state(row)}",
        f"  peer           {row['url']} {'as ' + row['system_id'] if row['kind'] == 'axis' else '(native)'}",
        f"  own branch     {', '.join(row['branch'])}{'; default' if row['is_default'] else ''}",
        f"  last success   {local_time(row['last_success_at']) or 'never'}",
        f"  last error     {local_time(row['last_error_at']) or 'never'}  {row['last_error'] or ''}".rstrip(),
        f"  waiting        {row['waiting']}, oldest {local_time(row['oldest_at']) or '-'}",
        f"  sent           {row['sent']}, refused there {row['refused_there']}",
        f"  fetched        {row['fetched']}, refused here {row['refused_here']}",
        f"  agencies       {row['agencies']} beyond it{_keys_of(row)}; list fetched "
        f"{local_time(row['synced_at']) or 'never'}",
    ]
    output.result({}, "\n".join(lines))
    if failed:
        output.table(
            "What failed lately",
            ("Message", "At", "Tries", "What", "Reason"),
            (
                (t["message"], local_time(t["at"]), t["tries"], "refused" if t["refused"] else "waits", t["error"])
                for t in failed
            ),
            [],
        )


def _keys_of(row: Any) -> str:
    return f", {row['keys']} keys" if row["kind"] == "native" else ""


def _set_active(name: str, active: bool) -> None:
    def command(output: Output, link_name: str, data_dir: str, database_url: str) -> None:
        run(data_dir, database_url, lambda c: links.set_active(c, link_name, active))
        output.result({"name": link_name, "active": active}, f"{link_name} is {name}d; its mail is kept")

    command.__doc__ = "Let a link work again." if active else "Stop a link. What is for it waits."
    decorated = database_options(json_option(pass_output(command)))
    link.command(name)(click.argument("link_name", metavar="NAME")(decorated))


_set_active("disable", False)
_set_active("enable", True)


@link.command("resend")
@click.argument("name")
@click.argument("message", type=click.UUID, required=False)
@database_options
@json_option
@pass_output
def link_resend(output: Output, name: str, message: UUID | None, data_dir: str, database_url: str) -> None:
    """Try now what waits for the link; or send MESSAGE once more, even if it was refused there."""
    run(data_dir, database_url, lambda c: links.order(c, name, "resend", message))
    what = f"message {message}" if message else "everything that waits"
    output.result({"name": name, "message": message}, f"{name} sends {what} within a second")


@link.command("sync")
@click.argument("name")
@database_options
@json_option
@pass_output
def link_sync(output: Output, name: str, data_dir: str, database_url: str) -> None:
    """Fetch the peer's agencies now."""
    run(data_dir, database_url, lambda c: links.order(c, name, "sync"))
    output.result({"name": name}, f"{name} fetches the peer's agencies; see `lienthong link show {name}`")
