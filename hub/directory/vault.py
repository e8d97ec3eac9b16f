"""Secrets that the hub must be able to read again, sealed: the database alone gives nothing.

A token is kept as its hash. The secret of a system of the axis cannot be, since an HMAC is checked with the
secret itself. So it is encrypted with AES-256-GCM under a key derived (HKDF-SHA256, RFC 5869) from a private
key file that lies beside the database, not in it: the hub's own key, or `--secrets-key-file`. Nodes that share a
database share that file (docs/adr/0020).

A sealed secret is one byte for the form, eight that name the key, a nonce of twelve, the ciphertext. It is bound
to its owner, so that one system's cannot be passed off as another's by whoever can write to the database.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.evidence.keys import load_hub_key
from protocol.problems import LienthongError
from protocol.signature import PrivateKey

_FORM = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEAD = len(_FORM) + _ID_BYTES + _NONCE_BYTES


class VaultError(LienthongError):
    """A secret cannot be read with this key; the message says what to do."""


class Vault:
    """Seals secrets, and opens them."""

    def __init__(self, key: PrivateKey) -> None:
        """`key`: the private key whose secrecy the secrets get."""
        material = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        derived = HKDF(SHA256(), length=32 + _ID_BYTES, salt=b"lienthong", info=b"secrets of systems, 1").derive(
            material
        )
        self._cipher = AESGCM(derived[:32])
        self._id = derived[32:]

    @classmethod
    def load(cls, file: Path) -> Vault:
        """The vault of a key file (PEM). Raises HubKeyError."""
        return cls(load_hub_key(file))

    def seal(self, owner: str, secret: str) -> bytes:
        """`secret`, sealed for `owner`."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + self._id + nonce + self._cipher.encrypt(nonce, secret.encode(), owner.encode())

    def open(self, owner: str, sealed: bytes) -> bytes:
        """The secret that was sealed for `owner`, as UTF-8. Raises VaultError."""
        if sealed[:1] != _FORM or sealed[1 : 1 + _ID_BYTES] != self._id:
            raise VaultError(
                f"the secret of {owner} was sealed with another key; give every node the same --secrets-key-file, "
                "or make a new secret with `lienthong axis secret`"
            )
        try:
            return self._cipher.decrypt(sealed[1 + _ID_BYTES : _HEAD], sealed[_HEAD:], owner.encode())
        except InvalidTag:
            raise VaultError(f"the sealed secret of {owner} was altered in the database") from None
