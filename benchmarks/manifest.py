"""Documents that one signature covers, fifty at a time, as their senders make manifests of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from benchmarks.corpus import Corpus, Press
from protocol.manifest import MANIFEST_MEDIA_TYPE, open_manifest, seal_manifest


@dataclass(slots=True)
class ManifestCorpus(Corpus):
    """`documents` are base64url lines. A recipient gets a document as an entry of its manifest."""

    manifests: list[bytes] = field(default_factory=list)
    """The signed JWS, by request."""
    proofs: list[bytes] = field(default_factory=list)
    """By document: what stands before it in its entry, the path to the signed root included."""
    digests: list[bytes] = field(default_factory=list)

    def request(self, number: int) -> tuple[bytes, bytes]:
        start = number * self.per_request
        lines = self.documents[start : start + self.per_request]
        return self.heads[number % len(self.heads)], b"\n".join((self.manifests[number], *lines))

    def holds(self, place: int, document: bytes) -> bool:
        proof, line = self.proofs[place], self.documents[place]
        whole = len(document) == len(proof) + len(line)
        return whole and document.startswith(proof) and document.endswith(line)

    def digest(self, place: int) -> str:
        return self.digests[place].hex()


class ManifestPress(Press):
    """Makes manifests of documents like those of `Press`; only how they are signed differs."""

    def make(self, requests: int, per_request: int) -> ManifestCorpus:
        """Sign `requests` manifests of `per_request` documents (about 12 µs for each of these)."""
        corpus = ManifestCorpus(self._next, per_request, [], [])
        for request in range(requests):
            sender = request % len(self._senders)
            payloads = [self.payload(sender, number) for number in range(self._next, self._next + per_request)]
            self._next += per_request
            manifest = seal_manifest(payloads, self._senders[sender].signer)
            corpus.manifests.append(manifest.jws)
            corpus.documents += manifest.documents
            corpus.digests += [hashlib.sha256(payload).digest() for payload in payloads]
            entries = open_manifest(manifest.jws, manifest.documents).entries()
            for entry, line in zip(entries, manifest.documents, strict=True):
                corpus.proofs.append(entry[: -len(line)])
        size = len(corpus.manifests[0]) + per_request * (1 + len(corpus.documents[0]))
        corpus.heads = self.heads(MANIFEST_MEDIA_TYPE, size)
        return corpus
