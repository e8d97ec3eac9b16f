"""``lienthong send``, ``receive``, ``status`` and ``verify``: what an agency's side can do by hand."""

from __future__ import annotations

import asyncio
import mimetypes
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from hub.cli.output import Output, json_option, local_time, pass_output
from protocol.client import Document, Entry, HubClient, Sent, new_id
from protocol.evidence import read_receipt, verify_receipt
from protocol.message import read_document, write_document
from protocol.problems import LienthongError
from protocol.signature import PublicKey, from_jwk, load_private, load_public, thumbprint

Result = TypeVar("Result")


def _client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--url", envvar="LIENTHONG_URL", default="http://127.0.0.1:8700", show_default=True, help="The hub."
        ),
        click.option("--token", envvar="LIENTHONG_TOKEN", help="This endpoint's token (better: LIENTHONG_TOKEN)."),
        click.option(
            "--ca", envvar="LIENTHONG_CA", type=click.Path(exists=True), help="Trust this CA for TLS, PEM."
        ),
        click.option("--retry", default=10.0, show_default=True, help="Seconds to go on when the hub is away."),
    ]
    for option in options:
        command = option(command)
    return command


def _run(
    url: str,
    token: str | None,
    ca: str | None,
    retry: float,
    work: Callable[[HubClient], Awaitable[Result]],
    key: Any = None,
) -> Result:
    tls = ssl.create_default_context(cafile=ca) if ca else None

    async def go() -> Result:
        async with HubClient(url, token, key=key, tls=tls, retry_seconds=retry) as client:
            return await work(client)

    return asyncio.run(go())


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key", "key_file", envvar="LIENTHONG_KEY", type=click.Path(exists=True, path_type=Path), help="Private key."
)
@click.option("--from", "sender", help="The sending agency's code.")
@click.option("--to", multiple=True, help="A recipient: code, alias, group:NAME or below:CODE; may be repeated.")
@click.option("--subject", default="", help="Trích yếu.")
@click.option("--code", default="", help="Số và ký hiệu, such as 215/BC-UBND.")
@click.option("--priority", type=click.Choice(["normal", "urgent", "very_urgent", "express"]), default="normal")
@click.option("--id", "message_id", help="The message's id; a fresh one by default.")
@click.option("--report-unreachable", is_flag=True, help="Send to those who can be reached, and name the others.")
@click.option(
    "--receipt", "receipt_dir", type=click.Path(file_okay=False, path_type=Path), help="Keep receipts here."
)
@_client_options
@json_option
@pass_output
def send(
    output: Output,
    files: tuple[Path, ...],
    key_file: Path | None,
    sender: str | None,
    to: tuple[str, ...],
    subject: str,
    code: str,
    priority: Any,
    message_id: str | None,
    report_unreachable: bool,
    receipt_dir: Path | None,
    url: str,
    token: str | None,
    ca: str | None,
    retry: float,
) -> None:
    """Send FILES.

    With --from and --to they are the attachments of one new document. Without, each is a message of its
    own: .jws (signed), .json (a document to sign), .edxml or .xml.
    """
    key = load_private(key_file.read_bytes()) if key_file else None

    async def compose(client: HubClient) -> list[tuple[str, Sent]]:
        attachments = []
        for file in files:
            media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            attachments.append(await client.upload(file, media_type))
        document = Document(
            id=message_id or new_id(),
            sender=str(sender),
            to=to,
            subject=subject,
            code=code,
            priority=priority,
            attachments=tuple(attachments),
            unreachable="report" if report_unreachable else "reject",
        )
        read_document(write_document(document))  # the same rules as at the hub, before anything is sent
        return [(document.id, await client.send(document))]

    async def each(client: HubClient) -> list[tuple[str, Sent]]:
        sent = []
        for file in files:
            data = file.read_bytes()
            suffix = file.suffix.lower()
            if suffix == ".json":
                data = client.sign(read_document(data))
            elif suffix in (".edxml", ".xml"):
                sent.append((file.name, await client.submit(data, "application/xml")))
                continue
            elif suffix != ".jws":
                raise LienthongError(
                    f"{file}: give --from and --to to send it as an attachment, or a .jws, .json or .edxml"
                )
            sent.append((file.name, await client.submit(data.strip())))
        return sent

    if bool(sender) != bool(to):
        raise click.UsageError("--from and --to belong together")
    results = _run(url, token, ca, retry, compose if sender else each, key)
    lines, members = [], []
    for name, sent in results:
        lines.append(f"{name}: {'accepted before as' if sent.duplicate else 'accepted as'} {sent.id}")
        lines += [f"  not reached: {gap['recipient']} ({gap['reason']})" for gap in sent.unreachable]
        if receipt_dir:
            receipt_dir.mkdir(parents=True, exist_ok=True)
            target = receipt_dir / f"{sent.id}.receipt.json"
            target.write_bytes(sent.receipt.to_json())
            lines.append(f"  receipt: {target}")
        members.append(
            {
                "name": name,
                "id": sent.id,
                "duplicate": sent.duplicate,
                "unreachable": sent.unreachable,
                "receipt": orjson.loads(sent.receipt.to_json()),
            }
        )
    output.result(members, "\n".join(lines))


async def _save(client: HubClient, entry: Entry, folder: Path) -> list[Path]:
    """Write a message, and its attachments, below `folder`."""
    suffix = {"jws": ".jws", "edxml": ".edxml", "receipt": ".receipt.json"}[entry.format]
    folder.mkdir(parents=True, exist_ok=True)
    message = folder / f"{entry.id}{suffix}"
    message.write_bytes(entry.body if entry.body is not None else await client.fetch(entry))
    saved = [message]
    if entry.format == "jws":
        for index, attachment in enumerate(entry.document.attachments, start=1):
            # The sender chose the name: nothing of it but its last part may choose where it goes.
            name = Path(attachment.name.replace("\\", "/")).name.lstrip(".") or "attachment"
            target = folder / entry.id / f"{index:02}-{name[:150]}"
            target.parent.mkdir(exist_ok=True)
            await client.download(attachment, target)
            saved.append(target)
    return saved


@click.command()
@click.option("--into", default="received", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--wait", default=0.0, type=click.FloatRange(0, 60), help="Seconds to wait for mail.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="Messages at the most."
)
@click.option("--keep", is_flag=True, help="Do not acknowledge: the messages come again.")
@_client_options
@json_option
@pass_output
def receive(
    output: Output,
    into: Path,
    wait: float,
    limit: int,
    keep: bool,
    url: str,
    token: str | None,
    ca: str | None,
    retry: float,
) -> None:
    """Fetch mail into a directory, and acknowledge what was written."""

    async def go(client: HubClient) -> list[tuple[Entry, list[Path]]]:
        entries, _ = await client.read(limit, wait)
        done = []
        for entry in entries:
            saved = await _save(client, entry, into)
            if not keep:
                await client.acknowledge(entry)
            done.append((entry, saved))
        return done

    received = _run(url, token, ca, retry, go)
    output.table(
        f"{len(received)} received into {into}" if received else "No mail",
        ("Accepted", "Lane", "From", "Subject or id", "Files"),
        (
            (
                local_time(entry.accepted_at),
                entry.lane,
                entry.sender,
                (entry.document.subject if entry.format == "jws" and entry.body else "") or entry.sender_id,
                len(saved),
            )
            for entry, saved in received
        ),
        [
            {
                "id": entry.id,
                "seq": entry.seq,
                "lane": entry.lane,
                "from": entry.sender,
                "sender_id": entry.sender_id,
                "format": entry.format,
                "files": [str(path) for path in saved],
            }
            for entry, saved in received
        ],
    )


@click.command()
@click.argument("message_id", metavar="ID")
@_client_options
@json_option
@pass_output
def status(output: Output, message_id: str, url: str, token: str | None, ca: str | None, retry: float) -> None:
    """Who has a message, since when. ID is the hub's, or your own."""
    timeline = _run(url, token, ca, retry, lambda client: client.events(message_id))
    output.table(
        f"{timeline['id']} from {timeline['from']}, accepted {local_time(timeline['accepted_at'])}",
        ("Endpoint", "Recipients", "State", "At", "Reason"),
        (
            (d["endpoint"], " ".join(d["recipients"]), d["state"], local_time(d.get("at")), d.get("reason"))
            for d in timeline["deliveries"]
        ),
        timeline,
    )


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
    "--document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The message as sent."
)
@click.option(
    "--hub-key",
    "key_files",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The hub's public key: the answer of /v1/hub/keys, a JWK or PEM. Get it once, by a way you trust.",
)
@json_option
@pass_output
def verify(output: Output, receipt: Path, document: Path | None, key_files: tuple[Path, ...]) -> None:
    """Check a receipt. Needs no hub and no network."""
    keys = _trusted_keys(key_files)
    data = document.read_bytes() if document else None
    if data is not None and document is not None and document.suffix == ".jws":
        data = data.strip()
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
