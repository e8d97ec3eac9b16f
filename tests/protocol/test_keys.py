"""Keys: their written forms, their thumbprints, and those that are refused."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from protocol.signature import (
    KeyFormatError,
    PrivateKey,
    PublicKey,
    b64url,
    checked,
    from_jwk,
    generate,
    load_private,
    load_public,
    private_pem,
    public_pem,
    thumbprint,
    to_jwk,
)

KEYS: dict[str, PrivateKey] = {alg: generate(alg) for alg in ("ES256", "EdDSA", "PS256")}


def test_the_thumbprint_of_rfc_7638_3_1() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd"
        "AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFC"
        "ur-kEgU8awapJzKnqDKgw"
    )
    assert (
        thumbprint(from_jwk({"kty": "RSA", "e": "AQAB", "n": n})) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )


@pytest.mark.parametrize("name", ["ES256", "EdDSA", "PS256"])
def test_keys_go_through_every_written_form(name: str) -> None:
    key = KEYS[name]
    public = key.public_key()
    assert to_jwk(from_jwk(dict(to_jwk(public)))) == to_jwk(public)
    assert load_public(orjson.dumps(to_jwk(public)))[0] == public
    assert load_public(public_pem(public)) == (public, None)
    assert load_private(private_pem(key)).public_key() == public
    assert to_jwk(public)["kid"] == thumbprint(public)


def test_a_certificate_gives_its_key_and_thumbprint() -> None:
    key = generate("ES256")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Ủy ban nhân dân tỉnh Yên Bái")])
    now = datetime.now(UTC)
    certificate = (x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))).sign(
        key, hashes.SHA256()
    )
    found, x5t = load_public(certificate.public_bytes(Encoding.PEM))
    assert found == key.public_key()
    assert x5t == b64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())


WEAK: dict[str, Any] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("name", WEAK)
def test_other_curves_types_and_short_keys_are_refused(name: str) -> None:
    key = WEAK[name]()
    with pytest.raises(KeyFormatError):
        checked(key.public_key())
    with pytest.raises(KeyFormatError):
        load_public(public_pem(key.public_key()))
    with pytest.raises(KeyFormatError):
        load_private(private_pem(key))


def test_a_short_rsa_key_is_refused_as_a_jwk_too() -> None:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    jwk = {"kty": "RSA", "e": "AQAB", "n": b64url(numbers.n.to_bytes(128, "big"))}
    with pytest.raises(KeyFormatError, match="2048 bits"):
        from_jwk(jwk)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AQ==", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": None},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQ"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "RSA", "e": "AQ", "n": "AQ"},
        {"kty": "RSA", "e": "", "n": ""},
        {"kty": "oct", "k": "AQ"},
    ],
)
def test_jwks_that_are_no_usable_public_key(jwk: dict[str, Any]) -> None:
    with pytest.raises(KeyFormatError):
        from_jwk(jwk)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}",
        b"khong phai khoa",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_files_that_hold_no_key(data: bytes) -> None:
    with pytest.raises(KeyFormatError):
        load_public(data)
    with pytest.raises(KeyFormatError):
        load_private(data)


def test_a_private_key_is_never_taken_for_a_public_one() -> None:
    with pytest.raises(KeyFormatError, match="private"):
        load_public(private_pem(KEYS["ES256"]))
    with pytest.raises(KeyFormatError, match="private"):
        load_public(orjson.dumps(to_jwk(KEYS["EdDSA"].public_key()) | {"d": "AAAA"}))


def test_an_encrypted_private_key_is_refused() -> None:
    pem = KEYS["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"mat khau"))
    with pytest.raises(KeyFormatError, match="unencrypted"):
        load_private(pem)


def test_an_unknown_algorithm_cannot_be_generated() -> None:
    with pytest.raises(KeyFormatError, match="HS256"):
        generate("HS256")


members = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e"]),
    st.sampled_from(["EC", "OKP", "RSA", "P-256", "Ed25519", "AQAB", "A" * 43, "", "ă", 1, None, True]),
)


@given(members)
def test_any_jwk_is_a_key_or_refused(jwk: dict[str, Any]) -> None:
    with contextlib.suppress(KeyFormatError):
        assert isinstance(from_jwk(jwk), PublicKey)
