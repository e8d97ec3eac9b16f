"""``lienthong verify``: what a receipt proves, without a hub and without a network."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from hub.cli.output import Output, json_option, local_time, pass_output
from protocol.evidence import read_receipt, verify_receipt
from protocol.manifest import signed_bytes
from protocol.signature import PublicKey, from_jwk, load_public, thumbprint

NATIVE = (".jws", ".entry")
"""Files with a message of our own format: alone, or as an entry of a manifest, whose document counts."""


def _trusted_keys(files: tuple[Path, ...]) -> dict[str, PublicKey]:
    keys: dict[str, PublicKey] = {}
    for file in files:
        data = file.read_bytes()
        try:
            members = orjson.loads(data)
        except ValueError:
            members = None
        if isinstance(members, dict) and isinstance(members.get("keys"), list):
            loaded = [from_jwk(jwk) for jwk in members["keys"]]
        else:
            loaded = [load_public(data)[0]]
        keys |= {thumbprint(key): key for key in loaded}
    return keys


@click.command()
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The message as sent or received.",
)
@click.option(
    "--hub-key",
    "key_files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="LIENTHONG_HUB_KEY",
    help="The hub's public key: its hub-key.pub, the answer of /v1/hub/keys, or PEM. Get it once, by a way "
    "you trust.",
)
@json_option
@pass_output
def verify(output: Output, receipt: Path, document: Path | None, key_files: tuple[Path, ...]) -> None:
    """Check a receipt. Needs no hub and no network."""
    keys = _trusted_keys(key_files)
    data = document.read_bytes() if document else None
    if data is not None and document is not None and document.suffix in NATIVE:
        data = signed_bytes(data.strip())
    found = verify_receipt(read_receipt(receipt.read_bytes()), keys.get, data)
    event = found.event
    lines = [
        f"Genuine: the hub {found.hub} sealed this event at {local_time(found.sealed_at)} (UTC+7).",
        f"  event    {event.get('event')}  {local_time(event.get('at'))}",
        *(
            f"  {name:<8} {event[name]}"
            for name in ("from", "id", "message", "endpoint", "reason")
            if name in event
        ),
        f"  sha256   {event.get('sha256')}",
        "The document given is the one that the event speaks of."
        if data is not None
        else "Give --document to check that it speaks of a particular document.",
    ]
    output.result(
        {"verified": True, "hub": found.hub, "sealed_at": found.sealed_at, "event": event}, "\n".join(lines)
    )
