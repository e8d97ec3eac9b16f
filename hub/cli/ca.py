"""``lienthong ca``: a small certificate authority for trials. Its certificates have no legal force, and say so."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509

from hub.ca.authority import ALGORITHMS, DAYS, NAME, TRIAL, Authority
from hub.ca.responder import Responder
from hub.cli.keys import make_key
from hub.cli.output import Output, json_option, local_time, pass_output
from protocol.certificate import load_all, sha256, subject, to_pem
from protocol.signature import ALGORITHMS as KEY_ALGORITHMS
from protocol.signature import PublicKey, load_private, load_public

PORT = 8720
"""Not the witness's 8710: both may be tried on one machine."""
folder_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group(help=f"A certificate authority for trials, tests and the demo. {TRIAL}.")
def ca() -> None:
    pass


@ca.command("init")
@folder_argument
@click.option("--name", default=NAME, show_default=True, help="What it is called.")
@click.option(
    "--ca-url",
    default=f"http://127.0.0.1:{PORT}",
    show_default=True,
    help="Where `ca serve` will be: certificates name it. Empty: they name no place to ask.",
)
@click.option("--alg", type=click.Choice(ALGORITHMS), default="ES256", show_default=True)
@json_option
@pass_output
def ca_init(output: Output, folder: Path, name: str, ca_url: str, alg: str) -> None:
    """Make an authority in FOLDER: its key, and its certificate ca.pem."""
    made = Authority.make(folder, name=name, url=ca_url.rstrip("/"), alg=alg)
    digest = sha256(made.certificate).hex()
    output.result(
        {"certificate": str(folder / "ca.pem"), "sha256": digest, "subject": subject(made.certificate)},
        f"{subject(made.certificate)}\nSHA-256 {digest}\nFor trial only. Trust it with: "
        f"lienthong trust add {folder / 'ca.pem'}",
    )


def _public(file: Path | None, new: Path | None, alg: str) -> PublicKey:
    """The key to certify: of a file (public or private, PEM or JWK), or a new one."""
    if (file is None) == (new is None):
        raise click.UsageError("give one of --key and --new-key")
    if file is not None:
        data = file.read_bytes()
        return load_private(data).public_key() if b"PRIVATE KEY" in data else load_public(data)[0]
    assert new is not None
    return make_key(new, alg)


@ca.command("issue")
@folder_argument
@click.argument("name")
@click.option("--agency", default="", help="The agency's identity code; it goes into the subject as UID.")
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The key to certify: PEM or JWK."
)
@click.option("--new-key", type=click.Path(dir_okay=False, path_type=Path), help="Make a key, into this file.")
@click.option("--alg", type=click.Choice(KEY_ALGORITHMS), default="ES256", show_default=True, help="Of a new key.")
@click.option(
    "--days", type=click.FloatRange(0.001, 3650), default=DAYS, show_default=True, help="How long it is valid."
)
@click.option("--not-before", type=click.DateTime(), help="When it begins (UTC). Default: now.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it. Default: NAME.pem"
)
@json_option
@pass_output
def ca_issue(
    output: Output,
    folder: Path,
    name: str,
    agency: str,
    key: Path | None,
    new_key: Path | None,
    alg: str,
    days: float,
    not_before: datetime | None,
    out: Path | None,
) -> None:
    """Issue a certificate to NAME for its signing key."""
    authority = Authority.open(folder)
    begins = not_before.replace(tzinfo=UTC) if not_before else None
    ends = (begins or datetime.now(UTC)) + timedelta(days=days)
    made = authority.issue(name, _public(key, new_key, alg), code=agency, not_before=begins, not_after=ends)
    target = out or Path(f"{name.replace('/', '_')}.pem")
    target.write_bytes(to_pem(made))
    serial = f"{made.serial_number:x}"
    output.result(
        {"certificate": str(target), "serial": serial, "sha256": sha256(made).hex(), "subject": subject(made)},
        f"{subject(made)}\nSerial number {serial}, until {local_time(ends)}, in {target}\n"
        f"Register it with: lienthong key add {target} --endpoint NAME",
    )


@ca.command("revoke")
@folder_argument
@click.argument("which")
@click.option("--reason", default="unspecified", show_default=True, help="key_compromise, superseded, …")
@json_option
@pass_output
def ca_revoke(output: Output, folder: Path, which: str, reason: str) -> None:
    """Revoke a certificate: WHICH is its file or its serial number."""
    serial = which
    if Path(which).is_file():
        serial = f"{load_all(Path(which).read_bytes())[0].serial_number:x}"
    revoked = Authority.open(folder).revoke(serial, reason)
    output.result(
        {"serial": revoked.serial, "revoked_at": revoked.revoked_at, "reason": revoked.reason},
        f"The certificate of {revoked.name} is revoked since {local_time(revoked.revoked_at)} ({revoked.reason})",
    )


@ca.command("list")
@folder_argument
@json_option
@pass_output
def ca_list(output: Output, folder: Path) -> None:
    """List what was issued (Vietnam's time)."""
    rows = Authority.open(folder).issued()
    output.table(
        f"Certificates for trial ({TRIAL})",
        ("Serial number", "Name", "Valid until", "Revoked"),
        ((row.serial, row.name, local_time(row.not_after), _revoked(row.revoked_at, row.reason)) for row in rows),
        [
            {
                "serial": row.serial,
                "name": row.name,
                "not_after": row.not_after,
                "revoked_at": row.revoked_at,
                "reason": row.reason,
            }
            for row in rows
        ],
        "nothing was issued yet",
    )


def _revoked(moment: datetime | None, reason: str) -> str:
    return "" if moment is None else f"{local_time(moment)} ({reason})"


@ca.command("crl")
@folder_argument
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="crl.der", show_default=True)
@click.option(
    "--hours", type=click.FloatRange(0.001, 8760), default=24, show_default=True, help="How long it counts."
)
@json_option
@pass_output
def ca_crl(output: Output, folder: Path, out: Path, hours: float) -> None:
    """Write the list of what was revoked (DER)."""
    der = Authority.open(folder).crl(timedelta(hours=hours))
    out.write_bytes(der)
    count = len(x509.load_der_x509_crl(der))
    output.result({"crl": str(out), "revoked": count}, f"{count} revoked certificates, in {out}")


@ca.command("serve")
@folder_argument
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one.")
@json_option
@pass_output
def ca_serve(output: Output, folder: Path, port: int) -> None:
    """Answer for the authority on loopback, until stopped: /crl, /ocsp, /ca.pem, and time-stamps at /tsr."""

    async def go() -> None:
        responder = Responder(folder)
        address = await responder.start(port)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        output.result({"ready": address}, f"The authority (for trial only) answers at {address}")
        try:
            await stopped.wait()
        finally:
            await responder.stop()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(go())
