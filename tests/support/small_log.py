"""A transparency log in memory, for those who follow logs: it can also misbehave."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import log
from protocol.log import Checkpoint
from protocol.note import Verifier, signature_line
from protocol.witness import write_request

ORIGIN = "trục.lienthong.yenbai.gov.vn/log"


def entry(number: int, face: str = "") -> bytes:
    return hashlib.sha256(f"sự kiện {number} {face}".encode()).digest()


class SmallLog:
    """Entries in a list. `face` makes the entries from `since` on others than those of another log of this key."""

    def __init__(self, key: Ed25519PrivateKey | None = None, origin: str = ORIGIN) -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self.origin = origin
        self.verifier = Verifier(origin, self.key.public_key())
        self._leaves: list[bytes] = []

    def grow(self, size: int, face: str = "") -> SmallLog:
        """Let it have `size` entries."""
        self._leaves += [log.log_leaf(entry(number, face)) for number in range(len(self._leaves), size)]
        return self

    def fork(self, at: int, size: int, face: str = "khác") -> SmallLog:
        """A log under the same key that has other entries from `at` on."""
        return SmallLog(self.key, self.origin).grow(at).grow(size, face)

    def _node(self, level: int, index: int) -> bytes:
        return log.subtree_root(self._leaves[index << level : (index + 1) << level])

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = len(self._leaves) if size is None else size
        return Checkpoint(self.origin, size, log.root(size, self._node))

    def note(self, size: int | None = None) -> str:
        """The signed checkpoint."""
        return self.sign(self.checkpoint(size).text)

    def sign(self, text: str) -> str:
        return text + "\n" + signature_line(self.origin, self.key, text)

    def proof(self, old: int, size: int | None = None) -> list[bytes]:
        return log.consistency_proof(old, len(self._leaves) if size is None else size, self._node)

    def request(self, old: int, size: int | None = None) -> bytes:
        """What an honest log sends to a witness that signed `old` last."""
        return write_request(old, self.proof(old, size), self.note(size))
