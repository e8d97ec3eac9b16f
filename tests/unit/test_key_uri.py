"""PKCS#11 URIs (RFC 7512), public keys as tokens give them, and the settings that name keys and authorities."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub.config import Config, ConfigError, make
from hub.evidence.keys import HubKeyError, load_key, load_log_key, prepare_keys
from hub.evidence.pkcs11 import TokenError, _public_key, read_uri
from protocol.signature import KeyFormatError, PublicKey, generate, private_pem

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def test_a_uri_is_taken_apart() -> None:
    uri = read_uri(
        "pkcs11:token=tr%E1%BB%A5c%20Y%C3%AAn%20B%C3%A1i;object=a%3Bb;id=%00%ff;type=private"
        f"?{MODULE}&pin-source=file:/etc/lienthong/m%C3%A3%20pin"
    )
    assert (uri.token, uri.object, uri.id, uri.serial) == ("trục Yên Bái", "a;b", b"\0\xff", None)
    assert uri.pin_file == Path("/etc/lienthong/mã pin")
    assert str(uri) == "'a;b' in the token 'trục Yên Bái'"
    bare = read_uri(f"pkcs11:serial=0123;id=%01?{MODULE}")
    assert (bare.serial, bare.id, bare.pin_file) == (b"0123", b"\1", None)
    assert read_uri(f"pkcs11:token=t;object=o?{MODULE}&pin-source=file:///pin").pin_file == Path("/pin")
    assert read_uri(f"pkcs11:token=t;object=o?{MODULE}&pin-source=/pin").pin_file == Path("/pin")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (f"pkcs11:token=t?{MODULE}", "names the token"),
        (f"pkcs11:object=o?{MODULE}", "names the token"),
        ("pkcs11:", "names the token"),
        (f"pkcs12:token=t;object=o?{MODULE}", "names the token"),
        ("pkcs11:token=t;object=o", "module-path"),
        ("pkcs11:token=t;object=o?module-path=softhsm2.so", "module-path"),
        (f"pkcs11:token=t;object=o;slot-id=3?{MODULE}", "slot-id is not understood"),
        (f"pkcs11:token=t;object=o;type=public?{MODULE}", "must name a private key"),
        (f"pkcs11:token=t;token=u;object=o?{MODULE}", "each once"),
        (f"pkcs11:token=t;object?{MODULE}", "not 'object'"),
        (f"pkcs11:token=t;object=o?{MODULE}&pin-source=|cat /pin", "pin-source is a file"),
        (f"pkcs11:token=t;object=o?{MODULE}&pin-source=file:pin", "pin-source is a file"),
    ],
)
def test_what_names_no_key(uri: str, reason: str) -> None:
    with pytest.raises(TokenError, match=reason):
        read_uri(uri)


def test_a_pin_in_the_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(TokenError) as error:
        read_uri(f"pkcs11:token=t;object=o?{MODULE}&pin-value=5678")
    assert "must not stand in a setting" in str(error.value) and "5678" not in str(error.value)


def point_of(key: PublicKey) -> bytes:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize(
    ("alg", "parameters"),
    [
        ("ES256", "06082a8648ce3d030107"),
        ("EdDSA", "06032b6570"),
        ("EdDSA", "130c656477617264733235353139"),
    ],
)
def test_points_with_and_without_their_wrapping(alg: str, parameters: str) -> None:
    key = generate(alg).public_key()
    point = point_of(key)
    for given in (point, bytes([4, len(point)]) + point):
        assert _public_key(bytes.fromhex(parameters), given) == key


def test_other_curves_and_points_that_are_none() -> None:
    with pytest.raises(KeyFormatError, match="its curve is 06052b81040022"):
        _public_key(bytes.fromhex("06052b81040022"), b"\4")
    with pytest.raises(ValueError, match="Invalid EC key"):
        _public_key(bytes.fromhex("06082a8648ce3d030107"), b"\4" + bytes(64))


# -- settings -------------------------------------------------------------------------------------


def settings(folder: Path, **more: object) -> Config:
    return make(data_dir=str(folder / "data"), **more)


def key_file(path: Path, alg: str) -> str:
    path.write_bytes(private_pem(generate(alg)))
    return str(path)


def test_keys_that_are_files(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert prepare_keys(plain) == [plain.hub_key_file]
    assert load_log_key(plain, load_key(plain)).public_key() == load_key(plain).public_key()
    named = settings(tmp_path / "b", seal_key=key_file(tmp_path / "seal.pem", "ES256"))
    assert prepare_keys(named) == [named.data / "secrets-key.pem", named.log_key_file]
    assert load_log_key(named, load_key(named)).public_key() != load_key(named).public_key()
    assert not named.hub_key_file.exists()
    both = settings(tmp_path / "c", seal_key=named.seal_key, log_key=key_file(tmp_path / "log.pem", "EdDSA"))
    assert prepare_keys(both) == [both.data / "secrets-key.pem"]
    assert len(load_log_key(both, load_key(both)).sign(b"x")) == 64


def test_a_log_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubKeyError, match="signed with Ed25519"):
        prepare_keys(settings(tmp_path, log_key=key_file(tmp_path / "log.pem", "ES256")))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"seal_key": "khong-co.pem"}, "--seal-key: there is no file"),
        ({"log_key": "khong-co.pem"}, "--log-key: there is no file"),
        ({"timestamp_ca": "khong-co.pem"}, "--timestamp-ca: there is no file"),
        ({"timestamp_url": "https://tsa.example.vn/tsr"}, "--timestamp-url needs --timestamp-ca"),
        ({"timestamp_url": "tsa.example.vn", "timestamp_ca": __file__}, "is not an address"),
        ({"timestamp_seconds": 1.0}, "--timestamp-seconds"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(**given)


def test_several_authorities() -> None:
    config = make(
        timestamp_url="https://a.vn/tsr, http://b.vn ,", timestamp_ca=__file__, timestamp_policy="1.2,1.3"
    )
    assert config.timestamp_urls == ["https://a.vn/tsr", "http://b.vn"]
    assert config.timestamp_policies == ["1.2", "1.3"]
