"""The ``lienthong`` command, as people at an agency use it: sign, send, receive, ask, verify."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.app import tls_context
from hub.config import make
from hub.evidence.keys import load_hub_key
from hub.listener import listen
from protocol.client import HubClient
from protocol.evidence import read_receipt, verify_receipt
from protocol.message import Document, new_id, open_jws, seal
from protocol.signature import Signer, generate, load_private, private_pem, public_pem
from tests.conftest import RunningHub
from tests.support import command
from tests.support.command import Lienthong, eventually
from tests.support.parties import PROVINCE, VAN_YEN

folder, prepared, lienthong = command.folder, command.prepared, command.lienthong
tinh, van_yen, paper = command.tinh, command.van_yen, command.paper


def test_a_document_goes_out_and_comes_in(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], paper: Path, tmp_path: Path
) -> None:
    receipts, received = tmp_path / "biên nhận", tmp_path / "đến"
    name = new_id()
    options = ["--from", PROVINCE, "--to", VAN_YEN, "--subject", "Báo cáo tuần 39", "--code", "215/BC-UBND"]
    told = lienthong("send", paper, *options, "--id", name, "--priority", "express", "--receipt", receipts, **tinh)
    assert f"{name}: accepted as " in told
    message = told.split("accepted as ")[1].split()[0]
    assert "waiting" in lienthong("status", name, **tinh)
    table = lienthong("receive", "--into", received, "--wait", 1, "--keep", **van_yen)
    assert "Báo cáo tuần 39" in table and "express" in table
    (entry,) = lienthong.json("receive", "--into", received, **van_yen)
    assert (entry["id"], entry["sender_id"], entry["from"]) == (message, name, PROVINCE)
    jws, attachment = map(Path, entry["files"])
    assert attachment.read_bytes() == paper.read_bytes()
    assert open_jws(jws.read_bytes())[1].code == "215/BC-UBND"
    assert lienthong("receive", "--into", received, **van_yen).strip() == "No mail"
    status = lienthong.json("status", name, "--receipt", receipts, **tinh)
    assert [delivery["state"] for delivery in status["deliveries"]] == ["acknowledged"]
    assert "acknowledged" in lienthong("status", message, **van_yen)

    keys = lienthong.folder / "data" / "hub-key.pub"
    assert {file.name for file in receipts.iterdir()} == {
        f"{message}.jws",
        f"{message}.receipt.json",
        f"{message}.van-yen.receipt.json",
    }
    assert (receipts / f"{message}.jws").read_bytes() == jws.read_bytes()  # the sender keeps what it signed
    for file in receipts.glob("*.json"):
        proof = lienthong.json("verify", file, "--hub-key", keys, "--document", jws)
        assert proof["verified"] is True and proof["event"]["id"] == name
        assert proof["hub"] == "trục Yên Bái"
        told = lienthong("verify", file, LIENTHONG_HUB_KEY=str(keys))
        assert told.startswith("Genuine: the hub trục Yên Bái sealed") and "UTC+7" in told


def test_a_recipient_signs_what_it_acknowledges(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], paper: Path, tmp_path: Path
) -> None:
    sent = lienthong.json("send", paper, "--from", PROVINCE, "--to", VAN_YEN, **tinh)[0]["id"]
    assert "--key" in lienthong.fails("receive", "--into", tmp_path, "--sign", **van_yen)
    key = lienthong.folder / "van-yen.pem"
    lienthong("receive", "--into", tmp_path, "--sign", "--key", key, "--wait", 5, **van_yen)
    file = tmp_path / "x.proof"
    lienthong("proof", sent, "--out", file, **tinh)
    keys = ("--hub-key", lienthong.folder / "data" / "hub-key.pub")
    told = lienthong("verify", file, tmp_path / f"{sent}.jws", *keys)
    assert "«van-yen» itself signed that it received this message" in told
    swapped = lienthong.fails("verify", tmp_path / f"{sent}.jws", file, *keys, status=2)
    assert "give the proof first" in swapped


def test_documents_that_were_signed_together_are_received_and_proven_alone(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], paper: Path, tmp_path: Path
) -> None:
    async def send() -> list[Any]:
        key = load_private(Path(tinh["LIENTHONG_KEY"]).read_bytes())
        token = Path(tinh["LIENTHONG_TOKEN_FILE"]).read_text().strip()
        async with HubClient(str(lienthong.environment["LIENTHONG_URL"]), token, key=key) as client:
            file = await client.upload(paper)
            return await client.send_together(
                [
                    Document(new_id(), PROVINCE, (VAN_YEN,), subject=f"Thông báo số {number}", attachments=(file,))
                    for number in range(3)
                ]
            )

    sent = asyncio.run(send())
    keys = ("--hub-key", lienthong.folder / "data" / "hub-key.pub")
    table = lienthong("receive", "--into", tmp_path, "--keep", **van_yen)
    assert "Thông báo số 2" in table
    entries = lienthong.json("receive", "--into", tmp_path, **van_yen)
    assert [entry["format"] for entry in entries] == ["manifest"] * 3
    for number, (answer, entry) in enumerate(zip(sent, entries, strict=True)):
        message, attachment = map(Path, entry["files"])
        assert (message.suffix, attachment.read_bytes()) == (".entry", paper.read_bytes())
        receipt = tmp_path / f"{number}.json"
        receipt.write_bytes(answer.receipt.to_json())
        assert lienthong.json("verify", receipt, *keys, "--document", message)["event"]["id"] == entry["sender_id"]
        other = Path(entries[number - 1]["files"][0])
        assert "another document" in lienthong.fails("verify", receipt, *keys, "--document", other)
        swapped = tmp_path / "tráo.entry"
        parts = message.read_bytes().split(b"~")
        swapped.write_bytes(b"~".join([*parts[:3], other.read_bytes().split(b"~")[3]]))
        told = lienthong.fails("verify", receipt, *keys, "--document", swapped)
        assert "not the one that the manifest signs" in told


def test_verify_fails_closed(lienthong: Lienthong, tinh: dict[str, str], paper: Path, tmp_path: Path) -> None:
    sent = lienthong.json("send", paper, "--from", PROVINCE, "--to", VAN_YEN, "--receipt", tmp_path, **tinh)[0]
    file = tmp_path / f"{sent['id']}.receipt.json"
    keys = ("--hub-key", lienthong.folder / "data" / "hub-key.pub")
    lienthong("verify", file, *keys)
    assert "another document" in lienthong.fails("verify", file, *keys, "--document", paper)
    other = tmp_path / "khác.pub"
    other.write_bytes(public_pem(generate("EdDSA").public_key()))
    assert "not among the trusted" in lienthong.fails("verify", file, "--hub-key", other)
    genuine = orjson.loads(file.read_bytes())
    alterations: list[tuple[dict[str, Any], str]] = [
        ({"event": genuine["event"].replace('"lane":"normal"', '"lane":"urgent"')}, "altered"),
        ({"index": genuine["size"]}, "outside its batch"),
        ({"size": genuine["size"] + 1}, "another batch size"),
        ({"path": [*genuine["path"], "A" * 43]}, "longer than its batch"),
        ({"seal": genuine["seal"][:-4] + ("AAAA" if genuine["seal"][-4:] != "AAAA" else "BBBB")}, "signature"),
        ({"seal": "không phải"}, "seal"),
    ]
    for members, complaint in alterations:
        file.write_bytes(orjson.dumps(genuine | members))
        assert complaint in lienthong.fails("verify", file, *keys), members
        assert lienthong.call("--json", "verify", file, *keys).stdout == ""
    file.write_bytes(b"[]")
    assert "not a receipt" in lienthong.fails("verify", file, *keys)
    assert "Missing option '--hub-key'" in lienthong.fails("verify", file, status=2)


def test_messages_that_were_written_before(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], tmp_path: Path
) -> None:
    """A .json is signed on the way, a .jws is sent as it is, an .edxml too; each is known when it comes again."""
    draft = tmp_path / "công văn.json"
    name = new_id()
    draft.write_bytes(orjson.dumps({"id": name, "from": PROVINCE, "to": [VAN_YEN], "subject": "V/v rà soát"}))
    signed = lienthong.json("sign", draft, **tinh)
    assert signed["id"] == name and signed["file"] == str(tmp_path / "công văn.jws")
    first, second = (lienthong.json("send", signed["file"], **tinh)[0] for _ in range(2))
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert first["receipt"] == second["receipt"]
    assert "accepted before as" in lienthong("send", signed["file"], **tinh)
    draft.write_bytes(orjson.dumps({"id": new_id(), "from": PROVINCE, "to": [VAN_YEN], "subject": "V/v ký"}))
    lienthong("send", draft, **tinh)
    edxml = tmp_path / "văn bản.edxml"
    namespace = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
    edxml.write_text(
        f'<edXML xmlns="{namespace}"><edXMLEnvelope><edXMLHeader><MessageHeader>'
        f"<From><OrganId>{PROVINCE}</OrganId></From><To><OrganId>{VAN_YEN}</OrganId></To><DocumentId>{new_id()}</DocumentId>"
        "<Code><CodeNumber>7</CodeNumber><CodeNotation>BC-UBND</CodeNotation></Code>"
        "<Subject>Báo cáo bằng edXML</Subject></MessageHeader>"
        "</edXMLHeader></edXMLEnvelope></edXML>"
    )
    lienthong("send", edxml, **tinh)
    table = lienthong("receive", "--into", tmp_path / "đến", **van_yen)
    for subject in ("V/v rà soát", "V/v ký", "Báo cáo bằng edXML"):
        assert subject in table
    (saved,) = (tmp_path / "đến").glob("*.edxml")
    assert saved.read_bytes() == edxml.read_bytes()


def test_a_large_message_is_fetched(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], tmp_path: Path
) -> None:
    """A message too large for the mailbox page is named there and fetched by itself, attachments included."""
    key = load_private((lienthong.folder / "tinh.pem").read_bytes())
    large = Document(id=new_id(), sender=PROVINCE, to=(VAN_YEN,), subject="Dài", content="nội dung " * 20_000)
    file = tmp_path / "dài.jws"
    file.write_bytes(seal(large, Signer(key)))
    lienthong("send", file, **tinh)
    (entry,) = lienthong.json("receive", "--into", tmp_path / "đến", **van_yen)
    assert Path(entry["files"][0]).read_bytes() == file.read_bytes()


def test_a_notice_of_the_hub_is_saved_as_a_receipt(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], paper: Path, tmp_path: Path
) -> None:
    sent = lienthong.json("send", paper, "--from", PROVINCE, "--to", VAN_YEN, **tinh)[0]
    token = Path(van_yen["LIENTHONG_TOKEN_FILE"]).read_text().strip()
    url = lienthong.environment["LIENTHONG_URL"]
    assert url is not None

    async def refuse() -> None:
        async with HubClient(url, token) as client:
            (entry,), _ = await client.read()
            await client.refuse(entry, "gửi nhầm địa chỉ")

    asyncio.run(refuse())
    table = lienthong("receive", "--into", tmp_path / "đến", "--wait", 5, **tinh)
    assert f"refused at van-yen: {sent['name']}: gửi nhầm địa chỉ" in table
    (notice,) = (tmp_path / "đến").glob("*.receipt.json")
    proof = lienthong.json("verify", notice, "--hub-key", lienthong.folder / "data" / "hub-key.pub")
    assert (proof["event"]["event"], proof["event"]["message"]) == ("refused", sent["id"])


def test_some_recipients_may_be_out_of_reach(
    lienthong: Lienthong, tinh: dict[str, str], van_yen: dict[str, str], paper: Path
) -> None:
    options = ["--from", PROVINCE, "--to", VAN_YEN, "--to", "000.00.97.H63"]
    assert "recipient-unknown: cannot reach 000.00.97.H63" in lienthong.fails("send", paper, *options, **tinh)
    told = lienthong("send", paper, *options, "--report-unreachable", **tinh)
    assert "not reached: 000.00.97.H63" in told


def test_what_a_sender_may_get_wrong(lienthong: Lienthong, tinh: dict[str, str], paper: Path) -> None:
    options = ["--from", PROVINCE, "--to", VAN_YEN]
    fails = lienthong.fails
    no_token, no_key = {"LIENTHONG_TOKEN_FILE": None}, {"LIENTHONG_KEY": None}
    assert "give --token-file, or set LIENTHONG_TOKEN" in fails("send", paper, *options, **tinh | no_token)
    assert "give --key, or set LIENTHONG_KEY" in fails("send", paper, *options, **tinh | no_key)
    public = {"LIENTHONG_KEY": str(lienthong.folder / "tinh.pem.pub")}
    assert "holds no private key" in fails("send", paper, *options, **tinh | public)
    other = {"LIENTHONG_KEY": str(lienthong.folder / "van-yen.pem")}
    assert "key-not-yours: " in fails("send", paper, *options, **tinh | other)
    assert "from-not-yours: " in fails("send", paper, "--from", VAN_YEN, "--to", PROVINCE, **tinh)
    assert "bad-document: $.from" in fails("send", paper, "--from", "sai mã", "--to", VAN_YEN, **tinh)
    assert "--from and --to belong together" in fails("send", paper, "--from", PROVINCE, status=2, **tinh)
    assert "give --from and --to" in fails("send", paper, **tinh)
    assert "does not exist" in fails("send", paper.with_name("không có.pdf"), *options, status=2, **tinh)
    assert "not-found: " in fails("status", "không có", **tinh)
    operator = {"LIENTHONG_TOKEN_FILE": str(lienthong.folder / "operator.token")}
    assert "needs an endpoint's token" in fails("receive", **operator)
    assert "unauthenticated: the token is not known" in fails("receive", "--token", "lt_sai")


def test_receipts_that_the_command_verifies_are_those_of_the_protocol(
    lienthong: Lienthong, tinh: dict[str, str], paper: Path
) -> None:
    """`send --json` gives the receipt itself: a program may verify it without the command."""
    sent = lienthong.json("send", paper, "--from", PROVINCE, "--to", VAN_YEN, **tinh)[0]
    signer = Signer(load_hub_key(lienthong.folder / "data" / "hub-key.pem"))
    found = verify_receipt(read_receipt(orjson.dumps(sent)), {signer.kid: signer.key.public_key()}.get)
    assert found.event["message"] == sent["id"]


# -- TLS ------------------------------------------------------------------------------------------


def _certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """A key and a certificate for `name`, self-signed or by `issuer`; also as name.pem, key first, in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, by = issuer if issuer else (key, None)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
    )
    made = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(private_pem(key) + made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key, made


async def test_a_client_certificate_in_place_of_a_token(
    hub: RunningHub, database_url: str, tmp_path: Path, paper: Path
) -> None:
    authority = _certificate(tmp_path, "ca")
    for name in ("hub", "van-yen", "luc-yen"):
        _certificate(tmp_path, name, authority)
    files = {"tls_cert": "hub.pem", "tls_key": "hub.pem", "tls_client_ca": "ca.crt"}
    config = make(**{name: str(tmp_path / file) for name, file in files.items()})
    listener = listen("127.0.0.1", 0)
    hub.hub.serve(listener, tls_context(config))
    lienthong = Lienthong(
        tmp_path,
        {
            "LIENTHONG_DATABASE_URL": database_url,
            "LIENTHONG_URL": f"https://127.0.0.1:{listener.getsockname()[1]}",
            "LIENTHONG_CA": str(tmp_path / "ca.crt"),
            "LIENTHONG_CLIENT_CERT": str(tmp_path / "van-yen.pem"),
            "LIENTHONG_RETRY": "0",
        },
    )

    def work() -> None:
        lienthong("agency", "add", VAN_YEN, "Ủy ban nhân dân huyện Văn Yên")
        lienthong("key", "generate", tmp_path / "khóa.pem")
        key = ("--key", tmp_path / "khóa.pem.pub")
        lienthong(
            "endpoint", "add", "van-yen", "--agency", VAN_YEN, *key, "--client-cert", tmp_path / "van-yen.crt"
        )
        send = ["send", paper, "--from", VAN_YEN, "--to", VAN_YEN, "--key", tmp_path / "khóa.pem"]
        eventually(lambda: lienthong.call(*send).exit_code == 0)
        assert lienthong.json("receive", "--into", tmp_path / "đến")[0]["from"] == VAN_YEN
        other = {"LIENTHONG_CLIENT_CERT": str(tmp_path / "luc-yen.pem")}
        assert "unauthenticated" in lienthong.fails("receive", **other), "the authority alone is not enough"
        trusted = lienthong.json("endpoint", "trust", "van-yen", tmp_path / "luc-yen.crt")
        assert trusted["subject"] == "CN=luc-yen"
        eventually(lambda: lienthong.call("receive", "--into", tmp_path / "đến", **other).exit_code == 0)
        assert "registered already" in lienthong.fails("endpoint", "trust", "van-yen", tmp_path / "luc-yen.crt")
        assert "is not a PEM certificate" in lienthong.fails("endpoint", "trust", "van-yen", paper)
        untrusted = lienthong.fails("receive", LIENTHONG_CA=None)
        assert untrusted.startswith("Error: unreachable: ") and "certificate" in untrusted
        assert "--ca: " in lienthong.fails("receive", LIENTHONG_CA=str(paper))
        assert "--client-cert: " in lienthong.fails("receive", LIENTHONG_CLIENT_CERT=str(paper))

    await asyncio.to_thread(work)
