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
from hub.evidence.keys import load_key, prepare_keys
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


_SERVE_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
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
    _setting("log_name", "The transparency log's name when it is begun; default: the hub's, with /log."),
    _setting("log_within_seconds", "The longest time until an event is in the log, as receipts promise."),
    _setting("retention_months", "Whole months that are kept before the present one; 0 keeps everything."),
    _setting("pdf_processes", "Processes that check PDFs, for each hub process."),
    _setting("pdf_max_bytes", "Largest PDF whose signatures are checked."),
    _setting("pdf_seconds", "Seconds of computing that checking a PDF may cost."),
    _setting("pdf_memory_bytes", "Memory that checking a PDF may take."),
    _setting(
        "axis_registration",
        "What becomes of an axis system's wish to add or close agencies of its branch.",
        type=click.Choice(["approve", "allow", "deny"]),
    ),
    _setting("axis_clock_seconds", "How far an axis request's timestamp may lie from this node's clock."),
    _setting("require_certificates", "Refuse keys without a certificate of a trusted authority.", is_flag=True),
    _setting(
        "revocation",
        "Where it is not known whether a certificate was revoked: accept and say so, refuse, or never ask.",
        type=click.Choice(["soft", "hard", "off"]),
    ),
    _setting("revocation_seconds", "How often authorities are asked for revocations."),
    _setting("revocation_hosts", "Hosts that may be asked, with commas; default: any but this machine's own."),
    _setting(
        "secrets_key_file",
        "Seals axis systems' secrets; default: the hub's key. The same on every node.",
        type=click.Path(),
    ),
    _setting("timestamp_url", "Time-stamping authorities (RFC 3161) for the log's checkpoints, with commas."),
    _setting("timestamp_ca", "Certificates to which their tokens must lead, PEM.", type=click.Path()),
    _setting("timestamp_policy", "OIDs of policies, with commas, of which a token must name one; default: any."),
    _setting("timestamp_seconds", "How long an authority is left alone after a token."),
    click.option(
        "--witness",
        multiple=True,
        metavar="'URL VKEY'",
        envvar="LIENTHONG_WITNESS",
        # An environment variable comes taken apart at its blanks.
        callback=lambda ctx, parameter, words: " ".join(words),
        help="A witness of the log: its address and its verifier key. Repeat for more.",
    ),
]
_KEY_OPTIONS = [
    _setting("seal_key", "The hub's key: a PEM file or a PKCS#11 URI; default: hub-key.pem in --data-dir."),
    _setting("log_key", "Signs the log's checkpoints, likewise, Ed25519; default: the hub's key, or log-key.pem."),
]


def _serve_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SERVE_OPTIONS):
        command = option(command)
    return command


def _key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_KEY_OPTIONS):
        command = option(command)
    return command


@click.command()
@database_options
@_serve_options
@_key_options
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
@_key_options
@json_option
@pass_output
def init(
    output: Output, token_file: Path | None, data_dir: str, database_url: str, seal_key: str, log_key: str
) -> None:
    """Prepare a hub: its keys, its database, and a first operator's token.

    A key in a PKCS#11 token is made with the token's own program, and named by --seal-key here and to `serve`.
    The public half of the key goes into hub-key.pub, for whoever wants to verify receipts. May be
    repeated: it never replaces what is there, and each time makes another operator's token.
    """
    folder = Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    made = config.make(data_dir=data_dir, database_url=database_url, seal_key=seal_key, log_key=log_key)
    prepare_keys(made)
    public = load_key(made).public_key()
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
