"""The hub's keys in a PKCS#11 token, tried with SoftHSM."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hub.config import Config, make
from hub.evidence import pkcs11
from hub.evidence.keys import HubKeyError, load_key, load_log_key, prepare_keys
from hub.evidence.pkcs11 import TokenError, open_key
from protocol.evidence import read_receipt, verify_receipt
from protocol.message import seal
from protocol.note import Verifier, read_note, signature_line, verify_note
from protocol.signature import (
    JOSE_MEDIA_TYPE,
    PublicKey,
    Signer,
    SigningError,
    from_jwk,
    parse,
    thumbprint,
    verify,
)
from tests.conftest import StartHub
from tests.support import command
from tests.support.command import Lienthong
from tests.support.node import Node
from tests.support.parties import DAI_SON, VAN_YEN, Party, register
from tests.support.raw import request
from tests.support.softhsm import MODULE, PIN, SoftHsm, forget, needs_softhsm
from tests.support.softhsm import softhsm as softhsm_fixture
from tests.support.tsa import Root
from tests.support.until import until

pytestmark = needs_softhsm
softhsm, folder = softhsm_fixture, command.folder

StartNode = Callable[..., Awaitable[Node]]


# -- one key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_a_key_in_a_token_signs_what_its_public_half_verifies(softhsm: SoftHsm, alg: str) -> None:
    softhsm.make_key("khóa trục", alg)
    signer = Signer(open_key(softhsm.uri("khóa trục")), typ="lienthong-seal+1")
    assert signer.slow and signer.alg == alg
    jws = parse(signer.sign("văn bản".encode()))
    key = signer.key.public_key()
    assert (jws.alg, jws.kid) == (alg, thumbprint(key))
    assert verify(key, alg, jws.signature, jws.signing_input)
    assert not verify(key, alg, jws.signature, jws.signing_input + b"x")


def test_a_key_may_be_named_by_its_id(softhsm: SoftHsm) -> None:
    softhsm.make_key("hub", id=b"\1")
    softhsm.make_key("hub", id=b"\2\xff")
    with pytest.raises(TokenError, match="2 objects"):
        open_key(softhsm.uri("hub"))
    first, second = (open_key(softhsm.uri("hub", id=id)) for id in (b"\1", b"\2\xff"))
    assert first.public_key() != second.public_key()


def test_the_public_half_may_be_in_a_certificate(softhsm: SoftHsm) -> None:
    from pkcs11 import Attribute, CertificateType, ObjectClass

    softhsm.make_key("hub")
    key = open_key(softhsm.uri("hub")).public_key()
    now = datetime.now(UTC)
    root = Root("Gốc thử nghiệm")
    certificate = (
        x509.CertificateBuilder(root.certificate.subject, root.certificate.subject, key, 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(root.key, root.certificate.signature_hash_algorithm)
    )
    with softhsm.session() as session:
        (public,) = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
        public.destroy()
    forget()
    with pytest.raises(TokenError, match="its certificate"):
        open_key(softhsm.uri("hub"))
    with softhsm.session() as session:
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.CERTIFICATE,
                Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
                Attribute.TOKEN: True,
                Attribute.LABEL: "hub",
                Attribute.SUBJECT: certificate.subject.public_bytes(),
                Attribute.VALUE: certificate.public_bytes(Encoding.DER),
            }
        )
    forget()
    assert open_key(softhsm.uri("hub")).public_key() == key


def test_what_cannot_be_used_is_said_in_words(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    softhsm.make_key("hub")
    softhsm.make_key("lớn", "P-384", id=b"\2")
    forget()

    def refused(uri: str) -> str:
        with pytest.raises(TokenError) as error:
            open_key(uri)
        return str(error.value)

    uri = softhsm.uri("hub")
    assert "no private key 'khác' in the token 'truc'" in refused(softhsm.uri("khác"))
    assert "must be P-256 or Ed25519" in refused(softhsm.uri("lớn"))
    assert "is not there" in refused(softhsm.uri("hub", token="truc-khac"))
    assert "or it needs a PIN" in refused(uri.partition("&pin-source")[0])
    softhsm.pin_file.write_text("sai\n")
    assert "refuses the PIN" in refused(uri)
    assert "refuses the PIN" in refused(uri)
    softhsm.pin_file.unlink()
    assert "the PIN cannot be read" in refused(uri)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pkcs11", None)
        assert "pip install 'lienthong[hsm]'" in refused(uri)


def test_a_module_that_is_not_there_or_is_none(softhsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "none.so").write_text("không phải thư viện")
    for path, reason in (("/khong/co.so", "there is no file"), (str(tmp_path / "none.so"), "cannot be used")):
        with pytest.raises(TokenError, match=reason):
            open_key(softhsm.uri("hub").replace(str(MODULE), path))


def test_a_token_that_would_lock_is_left_alone() -> None:
    """A hub that is started again and again with a wrong PIN must not use up its last try."""
    from pkcs11 import TokenFlag

    class Token:
        flags = TokenFlag.USER_PIN_FINAL_TRY

        def open(self, **options: object) -> object:
            raise AssertionError("a PIN was tried")

    uri = pkcs11.read_uri(f"pkcs11:token=truc;object=hub?module-path={MODULE}&pin-source=/dev/null")
    with pytest.raises(TokenError, match="by hand"):
        pkcs11._Module(str(MODULE))._open(Token(), uri)


# -- a token that goes and comes ------------------------------------------------------------------


def test_a_lost_session_is_opened_again(softhsm: SoftHsm) -> None:
    import pkcs11 as library

    softhsm.make_key("hub")
    softhsm.make_key("log", "EdDSA", id=b"\2")
    hub, log = open_key(softhsm.uri("hub")), open_key(softhsm.uri("log"))
    library.lib(str(MODULE)).finalize()  # as a device that was reset: every handle is void
    assert verify(hub.public_key(), "ES256", hub.sign(b"1"), b"1")
    assert verify(log.public_key(), "EdDSA", log.sign(b"2"), b"2")


async def test_a_token_that_was_pulled_and_put_back(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs11, "PAUSE_SECONDS", 0.1)
    softhsm.make_key("hub")
    key = open_key(softhsm.uri("hub"))
    away = softhsm.tokens.rename(softhsm.folder / "away")
    softhsm.tokens.mkdir()
    with pytest.raises(SigningError):
        await until(lambda: not key.sign(b"1"), "a token that is not there signs no more")
    shutil.rmtree(softhsm.tokens)
    away.rename(softhsm.tokens)

    def signs() -> bytes | None:
        try:
            return key.sign(b"2")
        except SigningError:
            return None

    signature = await until(signs, "the token is back")
    assert verify(key.public_key(), "ES256", signature, b"2")


# -- the hub's keys -------------------------------------------------------------------------------


def settings(folder: Path, **more: str) -> Config:
    return make(data_dir=str(folder / "data"), **more)


def test_a_p256_key_needs_a_key_for_the_log(softhsm: SoftHsm, tmp_path: Path) -> None:
    softhsm.make_key("hub")
    softhsm.make_key("log", "EdDSA", id=b"\2")
    config = settings(tmp_path, seal_key=softhsm.uri("hub"))
    with pytest.raises(HubKeyError, match="log-key"):
        load_log_key(config, load_key(config))
    assert prepare_keys(config) == [tmp_path / "data" / "secrets-key.pem", tmp_path / "data" / "log-key.pem"]
    assert prepare_keys(config) == []
    for name in ("secrets-key.pem", "log-key.pem"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    assert not config.hub_key_file.exists() and config.secrets_key.name == "secrets-key.pem"
    both = settings(tmp_path, seal_key=softhsm.uri("hub"), log_key=softhsm.uri("log"))
    key = load_log_key(both, load_key(both))
    note = read_note("gốc\n1\nx\n\n" + signature_line("log", key, "gốc\n1\nx\n"))
    assert verify_note(note, [Verifier("log", key.public_key())])
    with pytest.raises(HubKeyError, match="signed with Ed25519"):
        prepare_keys(settings(tmp_path, log_key=softhsm.uri("hub")))


def test_an_ed25519_key_signs_the_log_too(softhsm: SoftHsm, tmp_path: Path) -> None:
    softhsm.make_key("hub", "EdDSA")
    config = settings(tmp_path, seal_key=softhsm.uri("hub"))
    prepare_keys(config)
    key = load_key(config)
    assert load_log_key(config, key) is key
    assert not config.log_key_file.exists()


def test_a_hub_that_had_a_file_keeps_it_for_its_secrets(softhsm: SoftHsm, tmp_path: Path) -> None:
    softhsm.make_key("hub")
    prepare_keys(settings(tmp_path))
    config = settings(tmp_path, seal_key=softhsm.uri("hub"))
    assert prepare_keys(config) == [config.log_key_file]
    assert config.secrets_key == config.hub_key_file


def test_a_wrong_pin_is_tried_once_however_often_the_hub_is_started(softhsm: SoftHsm, tmp_path: Path) -> None:
    softhsm.make_key("hub", "EdDSA")
    softhsm.pin_file.write_text("sai\n")
    config = settings(tmp_path, seal_key=softhsm.uri("hub"))
    with pytest.raises(HubKeyError, match="refuses the PIN"):
        prepare_keys(config)
    pkcs11._modules.clear()  # as a new process, which knows nothing of it
    with pytest.raises(HubKeyError, match="still in its file"):
        prepare_keys(config)
    assert str(MODULE) not in pkcs11._modules  # the token was not asked
    softhsm.pin_file.write_text(PIN, encoding="utf-8")
    prepare_keys(config)
    assert not (config.data / "pin-refused").exists()


async def test_a_hub_seals_with_a_key_in_a_token(
    softhsm: SoftHsm, start_hub: StartHub, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    softhsm.make_key("hub")
    config = settings(tmp_path, seal_key=softhsm.uri("hub"))
    prepare_keys(config)
    hub = await start_hub(data_dir=config.data_dir, seal_key=config.seal_key)
    sender = await hub.register("van-yen", VAN_YEN)
    receiver = await hub.register("dai-son", DAI_SON)
    async with sender.client(hub.url) as client, receiver.client(hub.url) as other:
        document = client.sign(sender.document(DAI_SON))
        outcome = await client.submit(document)
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
        proven = verify_receipt(outcome.receipt, keys.get, document)
        assert proven.event["event"] == "accepted"
        assert proven.kid == thumbprint(load_key(config).public_key())
        entries, cursor = await other.read()
        await other.acknowledge(up_to=cursor)
        (delivery,) = (await client.events(entries[0].id))["deliveries"]
        assert delivery["state"] == "acknowledged"
        async with http.get(f"{hub.url}/healthz/ready") as response:
            assert (await response.json())["checks"]["key"] == "ok"


async def test_every_process_has_a_session_of_its_own(softhsm: SoftHsm, start_node: StartNode) -> None:
    softhsm.make_key("hub")
    forget()
    node = await start_node("--workers", "2", "--seal-key", softhsm.uri("hub"))
    async with node.database() as database:
        sender = await register(database, "van-yen", VAN_YEN)
        await register(database, "dai-son", DAI_SON)
    await node.knows(sender)
    assert not (node.data_dir / "hub-key.pem").exists()
    async with sender.client(node.url) as client:
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
        assert len(keys) == 1
    await send_to_each(node, sender, keys)
    killed = {worker.pid for worker in node.workers()}
    node.kill_workers()
    await until(lambda: len({worker.pid for worker in node.workers()} - killed) == 2, "there are workers again")
    await node.knows(sender)
    await send_to_each(node, sender, keys)


async def send_to_each(node: Node, sender: Party, keys: dict[str, PublicKey]) -> None:
    """A document to each worker; each gives a receipt that verifies."""
    async with node.connections() as connections:
        assert len(connections) == 2
        for connection in connections.values():
            document = seal(sender.document(DAI_SON), sender.signer)
            headers = sender.headers | {"Content-Type": JOSE_MEDIA_TYPE}
            await connection.send(request("POST", "/v1/messages", headers, document))
            answer = await connection.answer()
            assert answer.status == 202, answer.body
            assert verify_receipt(read_receipt(answer.body), keys.get, document)


def test_init_gives_verifiers_the_public_half_of_the_key_in_the_token(softhsm: SoftHsm, folder: Path) -> None:
    softhsm.make_key("hub")
    forget()
    lienthong, data = Lienthong(folder), folder / "data"
    made = lienthong.json("init", "--data-dir", data, "--seal-key", softhsm.uri("hub"))
    public = open_key(softhsm.uri("hub")).public_key()
    assert made["hub_key"] == thumbprint(public)
    assert from_jwk(orjson.loads((data / "hub-key.pub").read_bytes())) == public
    assert (data / "log-key.pem").exists() and not (data / "hub-key.pem").exists()
    wrong = lienthong.fails("init", "--data-dir", data, "--seal-key", softhsm.uri("khác"))
    assert "there is no private key 'khác'" in wrong
