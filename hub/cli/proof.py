"""``lienthong proof``: all that proves what became of a message, in one file."""

from __future__ import annotations

from pathlib import Path

import click

from hub.cli.messages import _client_options, _Hub
from hub.cli.output import Output, json_option, pass_output


@click.command()
@click.argument("message_id", metavar="ID")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write it into this file instead of to standard output.",
)
@_client_options
@json_option
@pass_output
def proof(output: Output, message_id: str, out: Path | None, hub: _Hub) -> None:
    """Get the proof of a message: `lienthong proof ID > x.proof`. ID is the hub's, or your own.

    Keep it with the document. `lienthong verify x.proof document.jws` checks it, without a hub and without a
    network; so does the hub's page /verify.
    """
    data = hub.run(lambda client: client.proof(message_id))
    if out is None:
        click.echo(data, nl=False)
    else:
        out.write_bytes(data)
        output.result({"file": str(out), "size": len(data)}, f"{out}: {len(data)} bytes")
