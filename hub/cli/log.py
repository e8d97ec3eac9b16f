"""``lienthong log``: the transparency log, as its operator sees it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub import config
from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, local_time, pass_output
from hub.evidence.keys import load_key, load_log_key
from hub.store import sql
from protocol.client.log import About, LogClient
from protocol.note import Verifier, read_verifier
from protocol.problems import LienthongError

SQL = sql.load("log")


@click.group()
def log() -> None:
    """The transparency log: how far it is, and the key that signs it."""


@log.command("status")
@click.option("--url", default="http://127.0.0.1:8700", show_default=True, envvar="LIENTHONG_URL", help="The hub.")
@click.option(
    "--ca", envvar="LIENTHONG_CA", type=click.Path(exists=True, dir_okay=False), help="Trust these for TLS, PEM."
)
@json_option
@pass_output
def log_status(output: Output, url: str, ca: str | None) -> None:
    """What the hub says of its log. `lienthong audit` checks it."""

    async def ask() -> About:
        async with LogClient(url, tls=ssl.create_default_context(cafile=ca) if ca else None) as client:
            return await client.about()

    about = asyncio.run(ask())
    lines = [
        f"Log      {about.origin}",
        f"Key      {about.vkey}",
        f"Size     {about.size} events; checkpoint of {local_time(about.checkpoint_at) or 'never'} (UTC+7)",
        f"Waiting  {about.waiting} batches; promised within {about.within_seconds:g} seconds",
        *(f"Before   {key.get('vkey')}, from {local_time(key.get('since'))}" for key in about.keys[1:]),
    ]
    output.result(
        {
            "origin": about.origin,
            "vkey": about.vkey,
            "size": about.size,
            "checkpoint_at": about.checkpoint_at,
            "waiting": about.waiting,
            "within_seconds": about.within_seconds,
            "keys": about.keys,
        },
        "\n".join(lines),
    )


@log.command("use-key")
@click.option("--seal-key", default="", envvar="LIENTHONG_SEAL_KEY", help="As `lienthong serve` has it.")
@click.option("--log-key", default="", envvar="LIENTHONG_LOG_KEY", help="As `lienthong serve` has it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
@json_option
@pass_output
def log_use_key(output: Output, seal_key: str, log_key: str, yes: bool, data_dir: str, database_url: str) -> None:
    """Let the log be signed with this data directory's key from now on.

    For a key that was lost or stolen. Nodes with another key stop signing at once; start this one anew. Everybody
    who verifies the log, and each witness, has to be told the new key, by a way they trust.
    """
    made = config.make(data_dir=data_dir, database_url=database_url, seal_key=seal_key, log_key=log_key)
    public = load_log_key(made, load_key(made)).public_key()

    def change(do: bool) -> Callable[[asyncpg.Connection], Awaitable[tuple[str, Verifier]]]:
        async def work(connection: asyncpg.Connection) -> tuple[str, Verifier]:
            rows: list[Any] = await connection.fetch(SQL.identities)
            if not rows:
                raise LienthongError("there is no log yet; it takes its key when the hub is started")
            verifier = Verifier(rows[0]["origin"], public)
            if do:
                async with connection.transaction():
                    await connection.execute(SQL.lock)  # the former key may be at a turn, its last
                    await connection.execute(SQL.take_key, str(verifier), verifier.name)
            return rows[0]["vkey"], verifier

        return work

    before, verifier = run(data_dir, database_url, change(False))
    same = read_verifier(before).public == verifier.public
    if not same:
        if not yes and not output.as_json:
            click.confirm(
                f"The log {verifier.name} is signed with\n  {before}\nand will be signed with\n  {verifier}\n"
                "Whoever follows it notices, and has to be told. Go on?",
                abort=True,
            )
        run(data_dir, database_url, change(True))
    output.result(
        {"origin": verifier.name, "vkey": str(verifier), "before": before, "changed": not same},
        f"The log {verifier.name} has this key already:\n  {verifier}"
        if same
        else f"The log {verifier.name} is signed from now on with\n  {verifier}\n"
        "Start this node anew. Tell the witnesses (`lienthong witness log add`) and all who verify; if the old "
        "key was stolen, tell them that no checkpoint with it counts any more.",
    )


@log.command("begin")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
@json_option
@pass_output
def log_begin(output: Output, name: str, yes: bool, data_dir: str, database_url: str) -> None:
    """Begin another log, called NAME, in the place of this one. The hub must not be running.

    For a database that was restored from a backup older than the last checkpoint: its tree can never again be what
    witnesses signed, and they rightly refuse it. Events that are still in the database go into the new log; proofs
    that were given out before stay valid with the old name and key.
    """

    async def work(connection: asyncpg.Connection, do: bool) -> tuple[str, Verifier, int]:
        if await connection.fetchval(SQL.running):
            raise LienthongError(
                "a node was running within the last ten seconds: stop every node, wait that long, and repeat"
            )
        rows = await connection.fetch(SQL.identities)
        if not rows:
            raise LienthongError("there is no log yet; it takes its name when the hub is started (--log-name)")
        if any(row["origin"] == name for row in rows):
            raise LienthongError(f"the log was called {name} already; a name is never used for two trees")
        verifier = Verifier(name, Ed25519PublicKey.from_public_bytes(read_verifier(rows[0]["vkey"]).public))
        size = await connection.fetchval(SQL.size)
        if do:
            async with connection.transaction():
                await connection.execute(SQL.lock)  # a node that was started meanwhile may be at a turn
                await connection.execute(SQL.begin_anew, str(verifier), name)
        return rows[0]["origin"], verifier, size

    before, verifier, size = run(data_dir, database_url, lambda connection: work(connection, do=False))
    if not yes and not output.as_json:
        click.confirm(
            f"The log {before} ends with {size} events, and a new one called {name} begins. Witnesses, auditors "
            "and all who verify proofs have to be told. Go on?",
            abort=True,
        )
    run(data_dir, database_url, lambda connection: work(connection, do=True))
    output.result(
        {"origin": name, "vkey": str(verifier), "before": before, "events_before": size},
        f"The log {before} has ended. When the hub is started it goes on as\n  {verifier}\n"
        "Tell the witnesses (`lienthong witness log add`), the auditors, and all who verify proofs.",
    )
