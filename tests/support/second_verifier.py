"""A second verifier of receipts and of entries of manifests, written from RFC 9162, RFC 7515 and RFC 8037 alone.

It shares no code with `protocol/` or `hub/`: whoever can only read those documents, the layout of a
receipt and of an entry (docs/manifests.md), and the JWKs of the hub or the sender comes to this. Slow,
recursive and close to the text of the RFCs on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class NotProvenError(Exception):
    """The receipt proves nothing."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise NotProvenError(what)


def decode64(text: str) -> bytes:
    """Base64url without padding (RFC 7515, appendix C); one text for each value."""
    _require(isinstance(text, str) and set(text) <= set(ALPHABET), "not base64url")
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
    except ValueError as error:
        raise NotProvenError(str(error)) from None
    _require(encode64(value) == text, "not the one base64url writing of its bytes")
    return value


def encode64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


# -- RFC 9162, section 2.1 ----------------------------------------------------------------------


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (k of section 2.1.1)."""
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(bytes([0]) + data).digest()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]) of section 2.1.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return hashlib.sha256(bytes([1]) + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def inclusion_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.3.1, over leaf hashes."""
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_path(index, leaves[:k]), tree_hash(leaves[k:])]
    return [*inclusion_path(index - k, leaves[k:]), tree_hash(leaves[:k])]


def root_of(entry: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf hash and its path give, by the recursion of PATH read backwards."""
    _require(0 <= index < size, "index outside the tree")
    if size == 1:
        _require(not path, "path too long")
        return entry
    _require(bool(path), "path too short")
    k = _split(size)
    *inner, sibling = path
    if index < k:
        return hashlib.sha256(bytes([1]) + root_of(entry, index, k, inner) + sibling).digest()
    return hashlib.sha256(bytes([1]) + sibling + root_of(entry, index - k, size - k, inner)).digest()


# -- the seal and the receipt -------------------------------------------------------------------


def _verify_signature(jwk: dict[str, str], alg: str, signature: bytes, data: bytes) -> None:
    try:
        if alg == "EdDSA" and (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
            ed25519.Ed25519PublicKey.from_public_bytes(decode64(jwk["x"])).verify(signature, data)
            return
        if alg == "ES256" and (jwk["kty"], jwk["crv"]) == ("EC", "P-256"):
            _require(len(signature) == 64, "an ES256 signature has 64 bytes")
            x, y = (int.from_bytes(decode64(jwk[name]), "big") for name in "xy")
            point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
            pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            point.public_key().verify(utils.encode_dss_signature(*pair), data, ec.ECDSA(hashes.SHA256()))
            return
    except InvalidSignature:
        raise NotProvenError("the signature is wrong") from None
    raise NotProvenError("the key does not fit the algorithm")


def _object(data: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotProvenError(f"not JSON: {error}") from None
    _require(isinstance(found, dict), "not a JSON object")
    return dict(found)


def open_seal(seal: str, jwks: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What the hub signed, after checking its signature against its published keys."""
    return _open_jws(seal, "lienthong-seal+1", jwks, "hub")


def _open_jws(jws: str, typ: str, jwks: Sequence[dict[str, str]], whose: str) -> dict[str, Any]:
    parts = jws.split(".")
    _require(len(parts) == 3, "a compact JWS has three parts")
    header = _object(decode64(parts[0]))
    _require(header.get("typ") == typ, f"the JWS is no {typ}")
    keys = {jwk["kid"]: jwk for jwk in jwks}
    _require(header.get("kid") in keys, f"the key is not one of the {whose}'s")
    signed = f"{parts[0]}.{parts[1]}".encode("ascii")
    _verify_signature(keys[header["kid"]], str(header.get("alg")), decode64(parts[2]), signed)
    return _object(decode64(parts[1]))


def prove(
    receipt: dict[str, Any], jwks: Sequence[dict[str, str]], document: bytes | None = None
) -> dict[str, Any]:
    """The event that a receipt proves. Raises NotProvenError.

    `receipt` is its JSON object, `jwks` the keys of ``/v1/hub/keys``; with `document` the event must speak
    of exactly those bytes.
    """
    sealed = open_seal(receipt["seal"], jwks)
    _require(receipt["size"] == sealed["size"], "the seal is over a tree of another size")
    path = [decode64(step) for step in receipt["path"]]
    root = root_of(leaf(receipt["event"].encode()), receipt["index"], receipt["size"], path)
    _require(root == decode64(sealed["root"]), "the event is not in the sealed tree")
    event = _object(receipt["event"])
    if document is not None:
        _require(event["sha256"] == hashlib.sha256(document).hexdigest(), "it speaks of other bytes")
    return event


# -- an entry of a manifest ---------------------------------------------------------------------


def prove_entry(entry: str, jwks: Sequence[dict[str, str]]) -> bytes:
    """The document that an entry of a manifest proves to be its sender's. Raises NotProvenError.

    `jwks`: the public keys with which the sender may have signed.
    """
    parts = entry.split("~")
    _require(len(parts) == 4, "an entry has four parts")
    signed = _open_jws(parts[0], "lienthong-manifest+1", jwks, "sender")
    _require(parts[1].isascii() and parts[1].isdigit(), "the index is no number")
    path = [decode64(step) for step in parts[2].split(".")] if parts[2] else []
    document = decode64(parts[3])
    root = root_of(leaf(document), int(parts[1]), signed["size"], path)
    _require(root == decode64(signed["root"]), "the manifest does not hold this document at this place")
    return document
