"""``lienthong send``, ``receive``, ``status`` and ``verify``: what an agency's side can do by hand."""

from __future__ import annotations

import asyncio
import functools
import mimetypes
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from hub.cli.output import Output, json_option, local_time, pass_output
from protocol import edxml
from protocol.client import Document, Entry, HubClient, Sent, new_id
from protocol.manifest import open_native
from protocol.message import read_document, seal, write_document
from protocol.problems import LienthongError
from protocol.signature import PrivateKey, Signer, load_private

Result = TypeVar("Result")


def _client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--url", envvar="LIENTHONG_URL", default="http://127.0.0.1:8700", show_default=True, help="The hub."
        ),
        click.option("--token", envvar="LIENTHONG_TOKEN", help="This endpoint's token (better: --token-file)."),
        click.option(
            "--token-file",
            envvar="LIENTHONG_TOKEN_FILE",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file that holds the token.",
        ),
        click.option(
            "--ca", envvar="LIENTHONG_CA", type=click.Path(exists=True), help="Trust this CA for TLS, PEM."
        ),
        click.option(
            "--client-cert",
            envvar="LIENTHONG_CLIENT_CERT",
            type=click.Path(exists=True),
            help="TLS client certificate, in place of a token: PEM, with its private key.",
        ),
        click.option(
            "--retry",
            envvar="LIENTHONG_RETRY",
            default=10.0,
            show_default=True,
            help="Seconds to go on when the hub is away.",
        ),
    ]
    for option in options:
        command = option(command)

    @functools.wraps(command)
    def with_hub(
        url: str,
        token: str | None,
        token_file: Path | None,
        ca: str | None,
        client_cert: str | None,
        retry: float,
        **others: Any,
    ) -> Any:
        if token_file is not None:
            token = token_file.read_text().strip()
        if not token and not client_cert:
            raise LienthongError("the hub must know who you are: give --token-file, or set LIENTHONG_TOKEN")
        tls = None
        if ca or client_cert:
            try:
                tls = ssl.create_default_context(cafile=ca)
            except ssl.SSLError:
                raise LienthongError(f"--ca: {ca} holds no PEM certificate") from None
            if client_cert:
                try:
                    tls.load_cert_chain(client_cert)
                except ssl.SSLError:
                    raise LienthongError(
                        f"--client-cert: {client_cert} must hold a PEM certificate and its private key"
                    ) from None
        return command(hub=_Hub(url, token, tls, retry), **others)

    return with_hub


@dataclass(frozen=True)
class _Hub:
    """The hub that a command speaks to, and as whom."""

    url: str
    token: str | None
    tls: ssl.SSLContext | None
    retry: float

    def run(
        self, work: Callable[[HubClient], Awaitable[Result]], key: PrivateKey | None = None, signs: bool = False
    ) -> Result:
        """Run `work` with a client. `signs`: it signs what it acknowledges, with `key`."""

        async def go() -> Result:
            client = HubClient(
                self.url,
                self.token,
                key=key,
                tls=self.tls,
                retry_seconds=self.retry,
                sign_acknowledgements=signs,
            )
            async with client:
                return await work(client)

        return asyncio.run(go())


_key_option = click.option(
    "--key",
    "key_file",
    envvar="LIENTHONG_KEY",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The private key that signs: PEM, from `lienthong key generate`.",
)


_receipt_option = click.option(
    "--receipt",
    "receipt_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep receipts here; with `send`, also what it signed, as ID.jws.",
)


def _keep_receipt(folder: Path, name: str, receipt: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name.replace('/', '_')}.receipt.json"
    target.write_bytes(receipt)
    return target


def _private_key(file: Path | None) -> PrivateKey:
    if file is None:
        raise LienthongError("this is to be signed: give --key, or set LIENTHONG_KEY")
    data = file.read_bytes()
    if b"PRIVATE KEY" not in data:
        raise LienthongError(f"{file} holds no private key; `lienthong key generate NAME` writes one into NAME")
    return load_private(data)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_key_option
@click.option(
    "--into", type=click.Path(dir_okay=False, path_type=Path), help="Where to; FILE with .jws by default."
)
@json_option
@pass_output
def sign(output: Output, file: Path, key_file: Path | None, into: Path | None) -> None:
    """Sign FILE, a document written as JSON. What comes out can be sent with `send`, or with curl."""
    signer = Signer(_private_key(key_file))
    document = read_document(file.read_bytes())
    target = into or file.with_suffix(".jws")
    target.write_bytes(seal(document, signer))
    output.result({"id": document.id, "kid": signer.kid, "file": str(target)}, f"{document.id}, signed: {target}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_key_option
@click.option("--from", "sender", help="The sending agency's code.")
@click.option("--to", multiple=True, help="A recipient: code, alias, group:NAME or below:CODE; may be repeated.")
@click.option("--subject", default="", help="Trích yếu.")
@click.option("--code", default="", help="Số và ký hiệu, such as 215/BC-UBND.")
@click.option("--priority", type=click.Choice(["normal", "urgent", "very_urgent", "express"]), default="normal")
@click.option("--id", "message_id", help="The message's id; a fresh one by default.")
@click.option("--report-unreachable", is_flag=True, help="Send to those who can be reached, and name the others.")
@_receipt_option
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
    hub: _Hub,
) -> None:
    """Send FILES.

    With --from and --to they are the attachments of one new document. Without, each is a message of its
    own: .jws (signed), .json (a document to sign), .edxml or .xml.
    """
    if bool(sender) != bool(to):
        raise click.UsageError("--from and --to belong together")
    to_sign = bool(sender) or any(file.suffix.lower() == ".json" for file in files)
    key = _private_key(key_file) if to_sign else None

    async def compose(client: HubClient) -> list[tuple[str, Sent, bytes | None]]:
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
        message = client.sign(document)
        return [(document.id, await client.submit(message), message)]

    async def each(client: HubClient) -> list[tuple[str, Sent, bytes | None]]:
        sent: list[tuple[str, Sent, bytes | None]] = []
        for file in files:
            data = file.read_bytes()
            suffix = file.suffix.lower()
            signed = None
            if suffix == ".json":
                data = signed = client.sign(read_document(data))
            elif suffix in (".edxml", ".xml"):
                sent.append((file.name, await client.submit(data, "application/xml"), None))
                continue
            elif suffix != ".jws":
                raise LienthongError(
                    f"{file}: give --from and --to to send it as an attachment, or a .jws, .json or .edxml"
                )
            sent.append((file.name, await client.submit(data.strip()), signed))
        return sent

    results = hub.run(compose if sender else each, key)
    lines, members = [], []
    for name, sent, signed in results:
        lines.append(f"{name}: {'accepted before as' if sent.duplicate else 'accepted as'} {sent.id}")
        lines += [f"  not reached: {gap['recipient']} ({gap['reason']})" for gap in sent.unreachable]
        if receipt_dir:
            target = _keep_receipt(receipt_dir, sent.id, sent.receipt.to_json())
            lines.append(f"  receipt: {target}")
            if signed is not None:  # it is nowhere else, and a proof is nothing without it
                (receipt_dir / f"{sent.id}.jws").write_bytes(signed)
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
    suffix = {"jws": ".jws", "manifest": ".entry", "edxml": ".edxml", "receipt": ".receipt.json"}[entry.format]
    folder.mkdir(parents=True, exist_ok=True)
    message = folder / f"{entry.id}{suffix}"
    body = entry.body or (entry.receipt.to_json() if entry.receipt else await client.fetch(entry))
    message.write_bytes(body)
    saved = [message]
    if entry.format in ("jws", "manifest"):
        for index, attachment in enumerate(open_native(body)[1].attachments, start=1):
            # The sender chose the name: nothing of it but its last part may choose where it goes.
            name = Path(attachment.name.replace("\\", "/")).name.lstrip(".") or "attachment"
            target = folder / entry.id / f"{index:02}-{name[:150]}"
            target.parent.mkdir(exist_ok=True)
            await client.download(attachment, target)
            saved.append(target)
    return saved


def _title(entry: Entry, message: Path) -> str:
    """What a saved message is about, in a line."""
    if entry.receipt is not None:
        event = orjson.loads(entry.receipt.event)
        return f"{event['event']} at {event['endpoint']}: {event['id']}: {event.get('reason', '')}"
    if entry.format == "edxml":
        return edxml.read(message.read_bytes()).subject
    return open_native(message.read_bytes())[1].subject


@click.command()
@click.option("--into", default="received", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--wait", default=0.0, type=click.FloatRange(0, 60), help="Seconds to wait for mail.")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="Messages at the most."
)
@click.option("--keep", is_flag=True, help="Do not acknowledge: the messages come again.")
@click.option("--sign", "signs", is_flag=True, help="Sign what is acknowledged, with --key.")
@_key_option
@_client_options
@json_option
@pass_output
def receive(
    output: Output,
    into: Path,
    wait: float,
    limit: int,
    keep: bool,
    signs: bool,
    key_file: Path | None,
    hub: _Hub,
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

    received = hub.run(go, _private_key(key_file) if signs else None, signs)
    output.table(
        f"{len(received)} received into {into}",
        ("Accepted", "Lane", "From", "Subject or id", "Files"),
        (
            (
                local_time(entry.accepted_at),
                entry.lane,
                entry.sender,
                _title(entry, saved[0]) or entry.sender_id,
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
        nothing="No mail",
    )


@click.command()
@click.argument("message_id", metavar="ID")
@_receipt_option
@_client_options
@json_option
@pass_output
def status(output: Output, message_id: str, receipt_dir: Path | None, hub: _Hub) -> None:
    """Who has a message, since when. ID is the hub's, or your own."""
    timeline = hub.run(lambda client: client.events(message_id))
    if receipt_dir:
        receipts = [(timeline["id"], timeline["accepted"])]
        for d in timeline["deliveries"]:
            handed = d.get("handed_over", {}).get("receipt")
            if handed != d.get("receipt") or d["state"] == "handed_over":  # else that of the end says it, too
                receipts.append((f"{timeline['id']}.{d['endpoint']}.handed_over", handed))
            if d["state"] != "handed_over":
                receipts.append((f"{timeline['id']}.{d['endpoint']}", d.get("receipt")))
        for name, receipt in receipts:
            if receipt is not None:
                _keep_receipt(receipt_dir, name, orjson.dumps(receipt))
    output.table(
        f"{timeline['id']} from {timeline['from']}, accepted {local_time(timeline['accepted_at'])}",
        ("Endpoint", "Recipients", "Handed over", "State", "At", "Code", "Reason"),
        (
            (
                d["endpoint"],
                " ".join(d["recipients"]),
                local_time(d.get("handed_over", {}).get("at")),
                d["state"],
                local_time(d.get("at")),
                d.get("code"),
                d.get("reason"),
            )
            for d in timeline["deliveries"]
        ),
        timeline,
    )
