"""Compact JWS: known answers of the RFCs, every way to cheat with an algorithm or a key, hostile bytes."""

from __future__ import annotations

import hmac
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from protocol.problems import Problem
from protocol.signature import (
    ALGORITHMS,
    MAX_HEADER_BYTES,
    Jws,
    PrivateKey,
    Signer,
    b64url,
    from_jwk,
    generate,
    parse,
    public_pem,
    thumbprint,
    unb64url,
    verify,
)

KEYS: dict[str, PrivateKey] = {"ES256": generate("ES256"), "EdDSA": generate("EdDSA"), "PS256": generate("PS256")}
KEYS["RS256"] = KEYS["PS256"]
PAYLOAD = "Công văn 215/BC-UBND của Ủy ban nhân dân tỉnh Yên Bái".encode()


def compact(header: dict[str, Any], payload: bytes = PAYLOAD, signature: bytes = b"\0" * 64) -> bytes:
    """A JWS with any header and any signature."""
    return ".".join(map(b64url, (orjson.dumps(header), payload, signature))).encode()


def refusal(raw: bytes) -> str:
    """The code of the problem that `parse` raises."""
    with pytest.raises(Problem) as caught:
        parse(raw)
    return caught.value.code


# -- known answers --------------------------------------------------------------------------------


def test_the_rsa_example_of_rfc_7515_a_2() -> None:
    jwk = {
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
        "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS"
        "-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2et"
        "hFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    }
    signing_input = (
        b"eyJhbGciOiJSUzI1NiJ9."
        b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    signature = unb64url(
        b"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb"
        b"F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383"
        b"LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy"
        b"wlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    )
    key = from_jwk(jwk)
    assert verify(key, "RS256", signature, signing_input)
    assert not verify(key, "PS256", signature, signing_input)
    assert not verify(key, "RS256", signature, signing_input + b"A")


def test_the_ecdsa_example_of_rfc_7515_a_3() -> None:
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    signing_input = (
        b"eyJhbGciOiJFUzI1NiJ9."
        b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    signature = unb64url(b"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
    key = from_jwk(jwk)
    assert verify(key, "ES256", signature, signing_input)
    assert not verify(key, "ES256", signature, signing_input.replace(b"eyJpc3", b"eyJpc2"))
    assert not verify(key, "ES256", signature[:-1], signing_input)


def test_the_ed25519_example_of_rfc_8037_a_2_to_a_4() -> None:
    key = from_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = unb64url(b"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
    assert verify(key, "EdDSA", signature, signing_input)
    assert not verify(key, "EdDSA", bytes(64), signing_input)
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_deterministic_signature_of_rfc_6979_a_2_5() -> None:
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    signature = Signer(ec.derive_private_key(secret, ec.SECP256R1()))._signature(b"sample")
    assert signature.hex().upper() == (
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    )


# -- signing and verifying ------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
def test_what_a_signer_signs_verifies_and_nothing_else_does(alg: str) -> None:
    key = KEYS[alg]
    raw = Signer(key).sign(PAYLOAD)
    jws = parse(raw)
    assert (jws.alg, jws.kid, jws.payload, jws.raw) == (alg, thumbprint(key.public_key()), PAYLOAD, raw)
    assert verify(key.public_key(), jws.alg, jws.signature, jws.signing_input)
    assert not verify(generate(alg).public_key(), jws.alg, jws.signature, jws.signing_input)
    assert not verify(key.public_key(), jws.alg, jws.signature, jws.signing_input + b"A")


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_what_is_signed_again_is_the_same_message(alg: str) -> None:
    """So that a sender that signs anew when it repeats itself is known to repeat itself."""
    assert Signer(KEYS[alg]).sign(PAYLOAD) == Signer(KEYS[alg]).sign(PAYLOAD)


def test_an_rsa_key_verifies_rs256_too() -> None:
    key = KEYS["RS256"]
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(PAYLOAD, padding.PKCS1v15(), hashes.SHA256())
    assert verify(key.public_key(), "RS256", signature, PAYLOAD)
    assert not verify(key.public_key(), "PS256", signature, PAYLOAD)


def test_a_signer_may_name_another_kid_and_a_type() -> None:
    jws = parse(Signer(KEYS["ES256"], kid="khóa-2026", typ="lienthong-seal+1").sign(b"{}"))
    assert (jws.kid, jws.header["typ"]) == ("khóa-2026", "lienthong-seal+1")


@pytest.mark.parametrize("alg", [*ALGORITHMS, "none", "HS256", "ES384", ""])
@pytest.mark.parametrize("key_alg", ["ES256", "EdDSA", "PS256"])
def test_a_key_verifies_the_algorithms_of_its_own_type_only(alg: str, key_alg: str) -> None:
    jws = parse(Signer(KEYS[key_alg]).sign(PAYLOAD))
    right = verify(KEYS[key_alg].public_key(), alg, jws.signature, jws.signing_input)
    assert right == (alg == key_alg)


@given(st.sampled_from(["ES256", "EdDSA", "PS256", "RS256"]), st.binary(max_size=512), st.binary(max_size=64))
def test_a_made_up_signature_is_wrong_and_never_an_error(alg: str, signature: bytes, data: bytes) -> None:
    assert verify(KEYS[alg].public_key(), alg, signature, data) is False


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, b"\0" * 32 + b"\xff" * 32, b"\0" * 63 + b"\1"])
def test_numbers_outside_the_curve_are_no_ecdsa_signature(signature: bytes) -> None:
    assert verify(KEYS["ES256"].public_key(), "ES256", signature, PAYLOAD) is False


# -- what is no JWS -------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "HS512", "ES384", "ES256K", "RSA1_5", "dir", ""])
def test_other_algorithms_are_refused_before_any_key_is_looked_up(alg: str) -> None:
    assert refusal(compact({"alg": alg, "kid": "không có"}, signature=b"")) == "algorithm-not-allowed"


@pytest.mark.parametrize("name", ["ES256", "EdDSA", "PS256"])
def test_a_public_key_is_never_an_hmac_secret(name: str) -> None:
    """RFC 8725, section 2.1: the public key, as PEM, as DER and raw, tried as the secret of HS256."""
    public = KEYS[name].public_key()
    header = {"alg": "HS256", "kid": thumbprint(public)}
    signing_input = compact(header).rpartition(b".")[0]
    secrets = [public_pem(public), public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    for secret in secrets:
        mac = hmac.digest(secret, signing_input, "sha256")
        assert refusal(signing_input + b"." + b64url(mac).encode()) == "algorithm-not-allowed"
        assert not verify(public, "HS256", mac, signing_input)
        assert not verify(public, "ES256", mac + mac, signing_input)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "k"},
        {"alg": "ES256"},
        {"alg": "ES256", "kid": ""},
        {"alg": "ES256", "kid": 7},
        {"alg": "ES256", "kid": "k" * 129},
        {"alg": ["ES256"], "kid": "k"},
        {"alg": None, "kid": "k"},
        {"alg": "ES256", "kid": None, "x5t#S256": 5},
        {"alg": "ES256", "kid": "k", "crit": ["exp"], "exp": 1},
        {"alg": "ES256", "kid": "k", "crit": []},
        {"alg": "ES256", "kid": "k", "b64": False, "crit": ["b64"]},
        {"alg": "ES256", "kid": "k", "b64": False},
        {"alg": "ES256", "kid": "k", "b64": 0},
        {"alg": "ES256", "kid": "k", "padding": "x" * MAX_HEADER_BYTES},
    ],
    ids=lambda header: ",".join(header),
)
def test_headers_that_are_refused(header: dict[str, Any]) -> None:
    assert refusal(compact(header)) == "not-a-jws"


@pytest.mark.parametrize(
    "header", [b"", b"[]", b'"ES256"', b"{", b"\xff", b"[" * 5000, b'{"alg":"ES256","kid":"\xff"}']
)
def test_protected_headers_that_are_no_json_object(header: bytes) -> None:
    assert refusal(b64url(header).encode() + b".e30.AAAA") == "not-a-jws"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"..",
        b"...",
        b"e30.e30",
        b"e30.e30.e30.e30",
        b'{"payload":"e30"}',
        "văn bản".encode(),
        b"\0.\0.\0",
    ],
)
def test_bytes_that_are_no_compact_jws(raw: bytes) -> None:
    assert refusal(raw) == "not-a-jws"


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("change", ["=", "==", " ", "\n", "+", "/", "%", "ă", "\0"])
def test_padding_blanks_and_other_alphabets_are_refused(part: int, change: str) -> None:
    parts = Signer(KEYS["EdDSA"]).sign(b"x" * 4).decode().split(".")
    for place in (0, len(parts[part]) // 2, len(parts[part])):
        changed = parts.copy()
        changed[part] = parts[part][:place] + change + parts[part][place:]
        assert refusal(".".join(changed).encode()) == "not-a-jws"


def test_a_certificate_thumbprint_names_the_key() -> None:
    jws = parse(compact({"alg": "ES256", "x5t#S256": "dấu-vân"}))
    assert jws.kid == "x5t:dấu-vân"
    assert parse(compact({"alg": "ES256", "kid": "k", "x5t#S256": "x"})).kid == "k"


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_apart_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(parse(raw), Jws)
    except Problem as problem:
        assert problem.code in ("not-a-jws", "algorithm-not-allowed")


headers = st.dictionaries(
    st.sampled_from(["alg", "kid", "x5t#S256", "crit", "b64", "typ"]),
    st.sampled_from(["ES256", "none", "", None, True, False, 0, 1.5, [], {}, ["b64"]]),
)


@given(headers, st.binary(max_size=40), st.binary(max_size=70))
def test_any_header_is_taken_or_refused(header: dict[str, Any], payload: bytes, signature: bytes) -> None:
    raw = compact(header, payload, signature)
    try:
        jws = parse(raw)
    except Problem as problem:
        assert problem.code in ("not-a-jws", "algorithm-not-allowed")
    else:
        assert (jws.alg, jws.payload, jws.signature) == ("ES256", payload, signature)
        assert jws.signing_input + b"." + b64url(signature).encode() == raw


# -- base64url ------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_base64url_goes_there_and_back(data: bytes) -> None:
    assert unb64url(b64url(data).encode()) == data


@given(st.binary(max_size=12))
def test_what_is_decoded_has_no_other_writing(text: bytes) -> None:
    try:
        value = unb64url(text)
    except ValueError:
        return
    assert b64url(value).encode() == text


@pytest.mark.parametrize(
    "text", [b"A", b"AAAAA", b"QR", b"QUJ", b"QQ==", b"Q Q", b"QQ\n", b"+A", b"/A", b"\xff\xff"]
)
def test_what_is_not_base64url(text: bytes) -> None:
    with pytest.raises(ValueError):
        unb64url(text)
