"""``lienthong endpoint signatures`` and ``acknowledgements``: what of an endpoint must be signed."""

from __future__ import annotations

from typing import Any

import asyncpg
import click

from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, pass_output
from hub.cli.policies import pdf_text, signatures_text
from hub.directory import change
from hub.pdf.result import Policy as PdfPolicy
from protocol.edxml.xmldsig import Policy


@click.command("signatures")
@click.argument("name")
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in Policy]),
    help="Of edXML. ignore: not looked at. record: verified and noted. require: refused without a valid one.",
)
@click.option(
    "--pin", "pins", multiple=True, metavar="FINGERPRINT", help="A signer's certificate, SHA-256; may be repeated."
)
@click.option("--any-certificate", is_flag=True, help="Require a valid signature, whoever made it.")
@click.option(
    "--pdf",
    type=click.Choice([policy.value for policy in PdfPolicy]),
    help="Of PDF attachments. record: checked afterwards and recorded. require: refused unless signed.",
)
@click.option(
    "--pdf-countersigned",
    is_flag=True,
    help="With --pdf require: pages may be changed after a signature if a later one covers the change.",
)
@database_options
@json_option
@pass_output
def endpoint_signatures(
    output: Output,
    name: str,
    policy: str | None,
    pins: tuple[str, ...],
    any_certificate: bool,
    pdf: str | None,
    pdf_countersigned: bool,
    data_dir: str,
    database_url: str,
) -> None:
    """Say what signatures in what an endpoint submits are to the hub.

    --policy: package signatures (XMLDSig) of its edXML. To require one, pin the certificates of which one must
    have signed; pins replace those given before. --pdf: signatures (PAdES) of the PDFs among its attachments.
    """
    if policy is None and (pins or any_certificate):
        raise click.UsageError("--pin and --any-certificate need --policy")
    if pdf is None and pdf_countersigned:
        raise click.UsageError("--pdf-countersigned needs --pdf require")
    if policy is None and pdf is None:
        raise click.UsageError("give --policy, --pdf or both")

    async def go(connection: asyncpg.Connection) -> change.PackageSignatures | None:
        async with connection.transaction():
            if pdf is not None:
                await change.set_pdf_signatures(connection, name, PdfPolicy(pdf), pdf_countersigned)
            if policy is None:
                return None
            return await change.set_package_signatures(connection, name, Policy(policy), pins, any_certificate)

    changed = run(data_dir, database_url, go)
    members: dict[str, Any] = {"name": name}
    lines = []
    if changed is not None:
        members |= {
            "edxml_signatures": changed.policy,
            "edxml_pins": changed.pins,
            "edxml_any_certificate": changed.any_certificate,
        }
        text = signatures_text(changed.policy, changed.pins, changed.any_certificate)
        lines.append(f"Package signatures of {name}: {text or Policy.IGNORE}")
    if pdf is not None:
        members |= {"pdf_signatures": pdf, "pdf_countersigned": pdf_countersigned}
        lines.append(f"Signatures in PDFs of {name}: {pdf_text(pdf, pdf_countersigned) or PdfPolicy.IGNORE}")
    output.result(members, "\n".join(lines))


@click.command("acknowledgements")
@click.argument("name")
@click.option(
    "--signed",
    type=click.Choice(["accept", "require"]),
    required=True,
    help="accept: signed or not. require: those that are not signed by a key of the endpoint are refused.",
)
@database_options
@json_option
@pass_output
def endpoint_acknowledgements(output: Output, name: str, signed: str, data_dir: str, database_url: str) -> None:
    """Say whether an endpoint must sign what it acknowledges and refuses.

    It concerns the hub's own interfaces. What a system of the axis reports is authenticated in that one's way.
    """
    run(data_dir, database_url, lambda c: change.set_signed_acknowledgements(c, name, signed))
    must = "must sign" if signed == "require" else "may sign"
    output.result({"name": name, "signed_acknowledgements": signed}, f"{name} {must} what it acknowledges")
