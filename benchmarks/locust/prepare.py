"""Endpoints to test with, and documents signed before the clock starts.

    python -m benchmarks.locust.prepare register endpoints.json --hub URL --senders 50 --receivers 10
    python -m benchmarks.locust.prepare sign endpoints.json FOLDER --documents 60000
    python -m benchmarks.locust.prepare retire endpoints.json

`register` and `retire` change the directory in the hub's database, as `lienthong endpoint add` does: for whoever
operates the hub. `sign` needs nothing but the file, which may just as well be written by hand. No request is
sent to the hub.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import msgspec

from benchmarks.corpus import PAYLOAD_BYTES
from benchmarks.locust.load import DOCUMENTS, MANIFEST, OFFSETS, LoadError, Manifest, Receiver, Sender
from hub.cli.database import open_database
from hub.directory import change
from hub.directory.change import AgencyRow
from protocol.message import Document, Person, Promulgation, write_document
from protocol.problems import LienthongError
from protocol.signature import Signer, generate, load_private, private_pem

URGENT_EVERY = 20
_TEXT = (
    "Căn cứ Nghị định số 30/2020/NĐ-CP ngày 05 tháng 3 năm 2020 của Chính phủ về công tác văn thư, đề nghị các "
    "cơ quan, đơn vị kiểm tra việc gửi, nhận văn bản điện tử qua trục liên thông văn bản của tỉnh, đối chiếu số "
    "văn bản đã gửi với số văn bản đã nhận, và báo cáo kết quả trước ngày làm việc cuối cùng của tháng. "
)


class SenderFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sending endpoint as the file names it."""

    name: str
    agency: str
    token: str = ""
    token_file: str = ""
    key: str = ""
    """Private key, PEM."""
    key_file: str = ""


class ReceiverFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A receiving endpoint as the file names it."""

    name: str
    agencies: tuple[str, ...]
    token: str = ""
    token_file: str = ""


class Endpoints(msgspec.Struct, frozen=True):
    """The file of endpoints. Names of files in it are relative to its own folder."""

    hub: str
    senders: tuple[SenderFile, ...]
    receivers: tuple[ReceiverFile, ...]


def read_endpoints(path: Path) -> Endpoints:
    """The file of endpoints. Raises LoadError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except (OSError, msgspec.MsgspecError) as error:
        raise LoadError(f"{path}: {error}") from None


async def register(connection: asyncpg.Connection, hub: str, senders: int, receivers: int) -> Endpoints:
    """Make endpoints with agencies, tokens and P-256 keys of their own, in one transaction."""
    tag = secrets.token_hex(3)
    made_senders, made_receivers = [], []
    names = [f"thu-tai-{tag}-gui-{number}" for number in range(1, senders + 1)]
    names += [f"thu-tai-{tag}-nhan-{number}" for number in range(1, receivers + 1)]
    rows = [
        AgencyRow(f"TT{tag}.{number:05}", f"Đơn vị thử tải số {number}", endpoint=name)
        for number, name in enumerate(names, start=1)
    ]
    async with connection.transaction():
        await change.import_agencies(connection, rows)
        for row in rows[:senders]:
            assert row.endpoint is not None
            key = generate("ES256")
            await change.add_key(connection, key.public_key(), endpoint=row.endpoint)
            token = await change.issue_token(connection, endpoint=row.endpoint)
            pem = private_pem(key).decode()
            made_senders.append(SenderFile(row.endpoint, row.code, token=token, key=pem))
        for row in rows[senders:]:
            assert row.endpoint is not None
            token = await change.issue_token(connection, endpoint=row.endpoint)
            made_receivers.append(ReceiverFile(row.endpoint, (row.code,), token=token))
    return Endpoints(hub, tuple(made_senders), tuple(made_receivers))


async def retire(connection: asyncpg.Connection, endpoints: Endpoints) -> None:
    """Disable the endpoints and end their tokens. What they sent and received stays."""
    async with connection.transaction():
        names = {sender.name for sender in endpoints.senders} | {receiver.name for receiver in endpoints.receivers}
        for name in sorted(names):
            await change.revoke_credentials(connection, name)
            await change.set_endpoint_active(connection, name, False)


def sign(
    endpoints: Endpoints, beside: Path, folder: Path, documents: int, fan_out: int = 1, cells: int = 1
) -> Manifest:
    """Write a load of at least `documents` documents into `folder`, which is made (about 50 µs each).

    `beside`: the folder to which the files named in `endpoints` are relative. Raises LoadError.
    """
    signers = [Signer(load_private(_text(beside, s.key, s.key_file, s.name).encode())) for s in endpoints.senders]
    manifest = Manifest(
        secrets.token_hex(5),
        endpoints.hub,
        tuple(Sender(s.name, s.agency, _text(beside, s.token, s.token_file, s.name)) for s in endpoints.senders),
        tuple(
            Receiver(r.name, r.agencies, _text(beside, r.token, r.token_file, r.name)) for r in endpoints.receivers
        ),
        -(-documents // max(1, len(signers))),
        fan_out,
        cells,
    )
    manifest.check()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    offsets = array("Q", [0])
    with (folder / DOCUMENTS).open("xb", buffering=1 << 20) as file:
        for number in range(manifest.documents):
            line = signers[number % len(signers)].sign(_payload(manifest, number)) + b"\n"
            offsets.append(offsets[-1] + len(line))
            file.write(line)
    (folder / OFFSETS).write_bytes(offsets.tobytes())
    (folder / MANIFEST).touch(mode=0o600)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return manifest


def _text(beside: Path, text: str, file: str, name: str) -> str:
    if not text and not file:
        raise LoadError(f"the endpoint {name} has no token, or no key")
    try:
        return text or (beside / file).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise LoadError(f"the endpoint {name}: {error}") from None


def _payload(manifest: Manifest, number: int) -> bytes:
    """The document `number`, filled up to `PAYLOAD_BYTES`."""
    receivers = [manifest.receivers[place] for place in manifest.recipients(number)]

    def write(content: str) -> bytes:
        return write_document(
            Document(
                id=manifest.sender_id(number),
                sender=manifest.senders[number % len(manifest.senders)].agency,
                to=tuple(receiver.agencies[number % len(receiver.agencies)] for receiver in receivers),
                subject="V/v kiểm tra việc gửi, nhận văn bản điện tử qua trục liên thông văn bản",
                priority="normal" if number % URGENT_EVERY else "urgent",
                code=f"{number % 9999 + 1}/VP-HCTC",
                type="Công văn",
                promulgation=Promulgation("Yên Bái", "2026-03-05"),
                signer=Person("Nguyễn Văn An", "Chánh Văn phòng"),
                content=content,
            )
        )

    room = PAYLOAD_BYTES - len(write("-")) + 1
    if room < 1:
        return write("-")
    text = (_TEXT * 8).encode()[:room].decode(errors="ignore")
    return write(text + "." * (room - len(text.encode())))


async def _change_directory(options: argparse.Namespace) -> str:
    async with open_database(options.data_dir, options.database_url) as connection:
        if options.command == "retire":
            endpoints = read_endpoints(options.endpoints)
            await retire(connection, endpoints)
            return f"{len(endpoints.senders) + len(endpoints.receivers)} endpoints disabled."
        made = await register(connection, options.hub, options.senders, options.receivers)
    options.endpoints.touch(mode=0o600, exist_ok=False)
    options.endpoints.write_bytes(msgspec.json.format(msgspec.json.encode(made)))
    return f"{options.senders} senders and {options.receivers} receivers: {options.endpoints}"


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locust.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("register", help="make endpoints to test with in a hub that you operate")
    making.add_argument("endpoints", type=Path, help="the file to write, with tokens and private keys")
    making.add_argument("--hub", default="http://127.0.0.1:8700", help="where the hub answers")
    making.add_argument("--senders", type=int, default=50)
    making.add_argument("--receivers", type=int, default=10)
    ending = commands.add_parser("retire", help="disable the endpoints of a file")
    ending.add_argument("endpoints", type=Path)
    for command in (making, ending):
        command.add_argument("--data-dir", default="data", help="of the hub with its own PostgreSQL")
        command.add_argument("--database-url", default="", help="of the hub with yours")
    signing = commands.add_parser("sign", help="sign the documents of one run")
    signing.add_argument("endpoints", type=Path)
    signing.add_argument("folder", type=Path, help="to be made; it holds tokens")
    signing.add_argument("--documents", type=int, required=True, help="at least as many as will be due")
    signing.add_argument("--fan-out", type=int, default=1, help="mailboxes for each document")
    signing.add_argument("--cells", type=int, default=1, help="as many as Locust is given --processes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_options(arguments)
    try:
        if options.command == "sign":
            found = read_endpoints(options.endpoints)
            beside = options.endpoints.parent
            made = sign(found, beside, options.folder, options.documents, options.fan_out, options.cells)
            print(f"{made.documents:,} documents of {len(made.senders)} senders: {options.folder}")
        else:
            print(asyncio.run(_change_directory(options)))
    except (LoadError, LienthongError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
