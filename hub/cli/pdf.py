"""``lienthong pdf``: what was found of the signatures in PDFs, and what is still to be looked at."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import click
import msgspec
import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hub import config
from hub.cli.database import database_options, run
from hub.cli.output import Output, json_option, local_time, pass_output
from hub.directory.change import DirectoryError
from hub.pdf.checks import read_trust
from hub.pdf.pool import Bounds, Pool, TrustData
from hub.pdf.result import PdfResult
from hub.pdf.words import describe
from hub.store import sql
from protocol.evidence import EventKind
from protocol.signature import KeyFormatError

SQL = sql.load("pdf")
_DEFAULT = config.Config()


@click.group()
def pdf() -> None:
    """Signatures in PDF attachments."""


@pdf.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--trust",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A trust anchor's certificate, PEM; may be repeated. Default: those of the hub.",
)
@database_options
@json_option
@pass_output
def pdf_check(output: Output, file: Path, files: tuple[Path, ...], data_dir: str, database_url: str) -> None:
    """Check the signatures of the PDF in FILE as the hub would, within the same bounds. Nothing is kept."""

    async def check(trust: TrustData) -> PdfResult:
        bounds = Bounds(_DEFAULT.pdf_max_bytes, _DEFAULT.pdf_seconds, _DEFAULT.pdf_memory_bytes)
        pool = Pool(bounds)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            return await pool.check(descriptor, trust)
        finally:
            os.close(descriptor)
            await pool.stop()

    async def with_database(connection: asyncpg.Connection) -> PdfResult:
        return await check(await read_trust(connection))

    if files:
        result = asyncio.run(check(TrustData(tuple(der for each in files for der in _certificates(each)))))
    else:
        result = run(data_dir, database_url, with_database)
    output.result(msgspec.to_builtins(result), describe(result))


def _certificates(file: Path) -> list[bytes]:
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise KeyFormatError(f"{file} holds no PEM certificate: {error}") from None
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


@pdf.command("show")
@click.argument("message", type=click.UUID)
@database_options
@json_option
@pass_output
def pdf_show(output: Output, message: UUID, data_dir: str, database_url: str) -> None:
    """What was found of the PDFs of MESSAGE (the hub's id)."""

    async def go(connection: asyncpg.Connection) -> list[dict[str, Any]]:
        kind = EventKind.SIGNATURES_CHECKED.value
        return [orjson.loads(row["event"]) for row in await connection.fetch(SQL.recorded, message, kind, None)]

    events = run(data_dir, database_url, go)
    lines = []
    for event in events:
        result = msgspec.convert(event["pdf"], PdfResult)
        lines.append(f"{event['attachment']['name']}, checked {local_time(result.checked_at)} (UTC+7)")
        lines.append(describe(result))
    output.result(events, "\n".join(lines) or "Nothing is recorded of PDFs of this message")


@pdf.command("queue")
@click.option("--limit", default=50, show_default=True, help="Lines at the most.")
@database_options
@json_option
@pass_output
def pdf_queue(output: Output, limit: int, data_dir: str, database_url: str) -> None:
    """Messages whose PDFs are still to be checked, oldest first (Vietnam's time)."""
    rows = run(data_dir, database_url, lambda connection: connection.fetch(SQL.list_queue, limit))
    output.table(
        "Messages whose PDFs are to be checked",
        ("Message", "From", "Since", "Next try", "Tries"),
        (
            (row["message"], row["endpoint"], local_time(row["since"]), local_time(row["due"]), row["tries"])
            for row in rows
        ),
        [dict(row) for row in rows],
        nothing="No PDF waits to be checked",
    )


@pdf.command("again")
@click.argument("message", type=click.UUID)
@database_options
@json_option
@pass_output
def pdf_again(output: Output, message: UUID, data_dir: str, database_url: str) -> None:
    """Check the PDFs of MESSAGE (the hub's id) again: trust anchors may have changed. What was found stays."""
    found = run(data_dir, database_url, lambda connection: connection.fetchval(SQL.add, message))
    if found is None:
        raise DirectoryError(f"there is no message {message}")
    output.result({"message": str(message)}, f"The PDFs of {message} are checked again; see `lienthong pdf show`")
