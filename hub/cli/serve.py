"""``lienthong init`` and ``lienthong serve``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson

from hub import config
from hub.cli.database import database_options, open_database
from hub.cli.output import Output, hand_over, json_option, pass_output, token_option
from hub.directory import change
from hub.evidence.keys import load_hub_key, make_hub_key
from hub.observe.logging import configure
from hub.store.embedded import EmbeddedPostgres
from hub.supervisor import Supervisor
from protocol.signature import thumbprint, to_jwk

_DEFAULT = config.Config()


def _setting(name: str, help: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = getattr(_DEFAULT, name)
    flag = "--" + name.replace("_", "-")
    shown = default not in ("", None)
    variable = "LIENTHONG_" + name.upper()
    return click.option(flag, default=default, show_default=shown, envvar=variable, help=help, **options)


_SERVE_OPTIONS = [
    _setting(
        "blob_dir", "Where blobs are; default: in --data-dir. Nodes on one database share it.", type=click.Path()
    ),
    _setting("host", "Address to listen on."),
    _setting("port", "Port to listen on; 0 takes a free one."),
    _setting("workers", "Processes, all alike. One for each core is right."),
    _setting("name", "The hub's name in its receipts."),
    _setting("tls_cert", "TLS certificate chain, PEM.", type=click.Path()),
    _setting("tls_key", "TLS private key, PEM.", type=click.Path()),
    _setting("tls_client_ca", "Accept client certificates signed by these, PEM.", type=click.Path()),
    _setting("allow_plain_http", "Speak plain HTTP on other addresses than loopback.", is_flag=True),
    _setting("max_message_bytes", "Largest native message."),
    _setting("max_batch_bytes", "Largest batch."),
    _setting("max_batch_messages", "Messages in a batch."),
    _setting("max_xml_bytes", "Largest edXML message."),
    _setting("max_attachment_bytes", "Largest attachment."),
    _setting("max_queue_bytes", "Messages on their way to a commit, per process, before 503."),
    _setting("max_queue_seconds", "How long messages may stand in a process's queues before 503."),
    _setting("rate_messages", "Messages a second of each endpoint before 429; 0 for no limit."),
    _setting("rate_bytes", "Bytes a second of each endpoint before 429; 0 for no limit."),
    _setting("rate_seconds", "Seconds of its rates that an endpoint may use at once."),
    _setting("request_seconds", "How long a request's head may take, and its body stand still."),
    _setting("stop_seconds", "How long requests under way may take when the hub stops."),
    _setting("retention_months", "Whole months that are kept before the present one; 0 keeps everything."),
    _setting(
        "axis_registration",
        "What becomes of an axis system's wish to add or close agencies of its branch.",
        type=click.Choice(["approve", "allow", "deny"]),
    ),
    _setting("axis_clock_seconds", "How far an axis request's timestamp may lie from this node's clock."),
    _setting(
        "secrets_key_file",
        "Seals axis systems' secrets; default: the hub's key. The same on every node.",
        type=click.Path(),
    ),
]


def _serve_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SERVE_OPTIONS):
        command = option(command)
    return command


@click.command()
@database_options
@_serve_options
@json_option
def serve(**settings: Any) -> None:
    """Run the hub until it is stopped (Ctrl-C or SIGTERM).

    Every option can also be given as an environment variable: LIENTHONG_PORT for --port.
    """
    configure()
    output = click.get_current_context().ensure_object(Output)
    made = config.make(**settings)

    def ready(address: str) -> None:
        output.result({"ready": address}, f"Lienthong is ready at {address}")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Supervisor(made, ready).run())


@click.command()
@token_option
@database_options
@json_option
@pass_output
def init(output: Output, token_file: Path | None, data_dir: str, database_url: str) -> None:
    """Prepare a hub: its key, its database, and a first operator's token.

    The public half of the key goes into hub-key.pub, for whoever wants to verify receipts. May be
    repeated: it never replaces what is there, and each time makes another operator's token.
    """
    folder = Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / "hub-key.pem"
    make_hub_key(key_file)
    public = load_hub_key(key_file).public_key()
    kid = thumbprint(public)
    public_file = folder / "hub-key.pub"
    public_file.write_bytes(orjson.dumps(to_jwk(public), option=orjson.OPT_INDENT_2) + b"\n")

    async def go() -> str:
        started = None
        if not database_url:
            postgres = EmbeddedPostgres(folder)
            if not postgres.initialised:
                await asyncio.to_thread(postgres.start)
                started = postgres
        try:
            async with open_database(data_dir, database_url) as connection:
                return await change.issue_token(connection, role="operator", label="init")
        finally:
            if started:
                await asyncio.to_thread(started.stop)

    members, line = hand_over(asyncio.run(go()), "an operator", token_file)
    output.result(
        {"data_dir": str(folder), "hub_key": kid, "hub_key_file": str(public_file)} | members,
        f"The hub in {folder} is ready to serve.\n"
        f"Its key: {kid}\n"
        f"For those who verify its receipts: {public_file}\n"
        f"{line}\n"
        f"Next: lienthong agency add, lienthong endpoint add, lienthong serve --data-dir {folder}",
    )
