"""``lienthong witness``: co-sign a hub's transparency log, as an agency that wants to be sure of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from hub.cli.output import Output, json_option, local_time, pass_output
from hub.observe.logging import configure
from hub.witness import state as states
from hub.witness.server import describe, run
from hub.witness.state import VKEY_FILE, State, sizes
from protocol.log import LogError
from protocol.misbehaviour import explain, read_misbehaviour
from protocol.note import read_verifier

DEFAULT_PORT = 8710

folder_option = click.option(
    "--dir",
    "folder",
    default="witness",
    show_default=True,
    envvar="LIENTHONG_WITNESS_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the witness keeps its key and what it has signed. Never restore it from a copy.",
)


@click.group()
def witness() -> None:
    """Co-sign the transparency log of a hub, and notice when it is rewritten."""


@witness.command("init")
@click.option(
    "--name",
    required=True,
    help="What the witness is called: an address of yours without https://, such as so-noi-vu.yenbai.gov.vn/w1.",
)
@folder_option
@json_option
@pass_output
def witness_init(output: Output, name: str, folder: Path) -> None:
    """Make a witness: its key and its state. Prints its verifier key, which is public."""
    vkey = str(states.make(folder, name))
    output.result(
        {"name": name, "vkey": vkey, "dir": str(folder)},
        f"{vkey}\n"
        f"This line is the witness's verifier key (also in {folder / VKEY_FILE}). Give it to the hub's operator, "
        "and to everybody who is to verify proofs.\n"
        f"Next: lienthong witness log add VKEY --dir {folder}, with the hub's log key from its /log page,\n"
        f"      lienthong witness serve --dir {folder}",
    )


@witness.command("serve")
@folder_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, envvar="LIENTHONG_WITNESS_HOST", help="Address to listen on."
)
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    envvar="LIENTHONG_WITNESS_PORT",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False),
    envvar="LIENTHONG_WITNESS_TLS_CERT",
    help="TLS certificate chain, PEM. Plain HTTP does no harm: what is sent is public and signed.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False),
    envvar="LIENTHONG_WITNESS_TLS_KEY",
    help="Its private key, PEM.",
)
@json_option
@pass_output
def witness_serve(
    output: Output, folder: Path, host: str, port: int, tls_cert: str | None, tls_key: str | None
) -> None:
    """Run the witness until it is stopped (Ctrl-C or SIGTERM). Whatever it signs is on disk first."""
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("--tls-cert and --tls-key belong together; give both")
    configure()
    tls = None
    if tls_cert and tls_key:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(tls_cert, tls_key)

    def ready(address: str) -> None:
        output.result({"ready": address}, f"The witness is ready at {address}")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(folder, host, port, tls, ready))


@witness.group("log")
def witness_log() -> None:
    """The logs that the witness follows."""


def _change_log(name: str, help: str, change: Callable[[State, str], Any], sentence: str) -> None:
    def command(output: Output, vkey: str, folder: Path) -> None:
        with contextlib.closing(State(folder)) as state:
            verifier = change(state, vkey)
        output.result(
            {"origin": verifier.name, "vkey": str(verifier), "witness": state.name},
            sentence.format(origin=verifier.name),
        )

    command.__doc__ = help
    witness_log.command(name)(click.argument("vkey")(folder_option(json_option(pass_output(command)))))


_change_log(
    "add",
    "Follow the log with this verifier key (name+id+base64). A witness that runs does so at once.",
    State.add_log,
    "The witness follows {origin}",
)
_change_log(
    "remove",
    "Trust this key of a log no more. What was signed of it stays known.",
    State.remove_log,
    "The key of {origin} is no longer trusted",
)


@witness.command("status")
@folder_option
@json_option
@pass_output
def witness_status(output: Output, folder: Path) -> None:
    """What the witness is, and what it signed last of each log (Vietnam's time)."""
    with contextlib.closing(State(folder)) as state:
        logs = state.logs()
    members = {"name": state.name, "vkey": str(state.verifier), "logs": [describe(log) for log in logs]}
    if not output.as_json:
        output.result(None, f"{state.name}\n{state.verifier}")
    output.table(
        "",
        ("Log", "Keys", "Signed last", "Entries", "Misbehaviour", "Unproven"),
        (
            (
                log.origin,
                len(log.keys) or "not followed",
                local_time(log.last.at if log.last else None) or "never",
                log.last.size if log.last else "",
                log.conclusive,
                log.unproven,
            )
            for log in logs
        ),
        members,
        "It follows no log yet; see `lienthong witness log add`",
    )


@witness.command("evidence")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each finding into a file of this folder, to be shown to others.",
)
@folder_option
@json_option
@pass_output
def witness_evidence(output: Output, into: Path | None, folder: Path) -> None:
    """What logs signed that they must not have signed. `lienthong witness check` reads such a file."""
    with contextlib.closing(State(folder)) as state:
        findings = state.findings()
    rows, members = [], []
    for finding in findings:
        found = finding.misbehaviour
        known, presented = sizes(found)
        file = ""
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            path = into / f"{finding.id:06}-{found.kind}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
            file = str(path)
        rows.append((finding.id, local_time(finding.at), found.origin, found.kind.value, known, presented, file))
        members.append(
            {"id": finding.id, "at": finding.at.isoformat(), "found": msgspec.to_builtins(found)}
            | ({"file": file} if file else {})
        )
    output.table(
        "Found, what proves misbehaviour by itself first",
        ("Number", "At", "Log", "What", "Entries signed before", "Entries then", "File"),
        rows,
        members,
        "nothing: every log that this witness follows has only grown",
    )


@witness.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("vkeys", metavar="VKEY...", nargs=-1, required=True)
@json_option
@pass_output
def witness_check(output: Output, file: Path, vkeys: tuple[str, ...]) -> None:
    """Check a finding in FILE with the log's verifier key. Needs no witness, no hub and no network.

    Believe it for the log's own signatures, not for whoever gave it to you; so take VKEY from elsewhere.
    """
    found = read_misbehaviour(file.read_bytes())
    try:
        sentence = explain(found, [read_verifier(vkey) for vkey in vkeys])
    except LogError as error:
        raise LogError(f"{file} proves nothing: {error}") from None
    verdict = "Proven" if found.conclusive else "Not proven"
    output.result(
        {"proven": found.conclusive, "kind": found.kind.value, "origin": found.origin, "says": sentence},
        f"{verdict}: {sentence}",
    )
