"""Proofs made in memory, right and wrong ones: a hub that does what a test says, its log, its witnesses."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from protocol import acknowledgement as ack
from protocol import log
from protocol.certificate_revocation import Answer as RevocationAnswer
from protocol.evidence import SEAL_TYPE, Promise, Receipt, Sealer, Tree, leaf_hash, receipt, recipients_digest
from protocol.evidence import timestamp as moment
from protocol.log import Checkpoint
from protocol.manifest import is_entry, open_entry, open_manifest, seal_documents
from protocol.message import Document, seal
from protocol.note import COSIGNATURE, Verifier, signature_line
from protocol.proof import (
    FORMAT,
    Acknowledged,
    Answer,
    Evidence,
    Message,
    Place,
    Proof,
    Sender,
    key_text,
    sign_proof,
    write_proof,
)
from protocol.proof_trust import Trust
from protocol.proof_verdict import Verdict
from protocol.proof_verify import verify_proof
from protocol.signature import PrivateKey, Signer, b64url, generate, thumbprint
from protocol.timestamp import read_reply, request_timestamp
from tests.support.certificates import NOW, Holder
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN
from tests.support.tsa import Root

HUB = "trục liên thông tỉnh Yên Bái"
ORIGIN = "trục.lienthong.yenbai.gov.vn/log"
MINUTE = timedelta(minutes=1)
LATER = NOW + 60 * MINUTE
"""When proofs are verified, unless a test says otherwise."""
MESSAGE = "01938f2a-7c00-7000-8000-00000000a001"
SUBJECT = "V/v triển khai kết nối, liên thông phần mềm quản lý văn bản"
EDXML = f"<?xml version='1.0' encoding='UTF-8'?><edXML><Subject>{SUBJECT}</Subject></edXML>".encode()
_HUB_KEY = generate("EdDSA")


def document(**members: Any) -> Document:
    return Document(id="215/BC-UBND", sender=PROVINCE, to=(VAN_YEN,), subject=SUBJECT, **members)


@dataclass
class Witness:
    """Another agency that signs checkpoints along."""

    name: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self.key.public_key(), COSIGNATURE)

    def line(self, text: str, at: datetime) -> str:
        return signature_line(self.name, self.key, text, at)


@dataclass
class Scene:
    """A message's life, and the hub that tells of it. Members may be set before `proof` is asked for."""

    format: str = "jws"
    alg: str = "ES256"
    recipients: tuple[str, ...] = (VAN_YEN, LUC_YEN)
    ended: int = 2
    """How many recipients, each a system of its own, have acknowledged."""
    signed: int = 1
    """How many of those signed it."""
    refused: bool = False
    chain: Sequence[Holder] = ()
    """The sender's certificates with their holders, the sender first."""
    answers: Sequence[RevocationAnswer] = ()
    policy: str = "soft"
    at: datetime = NOW
    made: datetime = NOW + 10 * MINUTE
    logged: bool | int = True
    """Whether the events are in the log; or how many of them are."""
    promise: float | None = 120.0
    origin: str = ORIGIN
    """The log that the events are in; the seals promise `ORIGIN`."""
    witnesses: Sequence[Witness] = ()
    witnessed_at: datetime = NOW + 2 * MINUTE
    stamped_by: Root | None = None
    stamped_at: datetime = NOW + 3 * MINUTE
    before: int = 5
    """Entries of others that the log had before."""
    key: PrivateKey = field(default_factory=lambda: _HUB_KEY)
    members: dict[str, Any] = field(default_factory=dict)
    """Members of the acceptance that are to be otherwise."""

    def __post_init__(self) -> None:
        self.signer = Signer(self.key, typ=SEAL_TYPE)
        sender_key = self.chain[0].key if self.chain else generate(self.alg)
        self.sender = Signer(sender_key)
        self.recipient_key = generate("ES256")
        self.document, self.content = self._written()
        self.tsa = self.stamped_by and self.stamped_by.authority(not_before=NOW - timedelta(days=30))

    def _written(self) -> tuple[bytes, bytes]:
        """The message as its file holds it, and what events speak of."""
        if self.format == "jws":
            raw = seal(document(), self.sender)
            return raw, raw
        if self.format == "manifest":
            manifest = seal_documents([document(code=str(number)) for number in range(5)], self.sender)
            raw = open_manifest(manifest.jws, manifest.documents).entries()[3]
            return raw, open_entry(raw).payload
        return EDXML, EDXML

    # -- what the hub says ----------------------------------------------------------------------

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def _signer(self) -> dict[str, Any]:
        if self.format not in ("jws", "manifest"):
            return {}
        signer: dict[str, Any] = {"kid": thumbprint(self.sender.key.public_key())}
        if self.chain:
            signer["certificate"] = hashlib.sha256(_der(self.chain[0])).hexdigest()
            answers = [answer.sha256.hex() for answer in self.answers]
            signer["revocation"] = {"status": "good", "policy": self.policy, "answers": answers}
        return {"signer": signer}

    def accepted(self) -> dict[str, Any]:
        """The event of acceptance."""
        return {
            "event": "accepted",
            "at": moment(self.at),
            "message": MESSAGE,
            "from": PROVINCE,
            "id": "215/BC-UBND",
            "endpoint": "tỉnh Yên Bái",
            "sha256": self.digest,
            "size": len(self.content),
            "lane": "normal",
            "recipients": len(self.recipients),
            "recipients_sha256": recipients_digest(self.recipients),
        } | (self._signer() | self.members)

    def ends(self) -> list[tuple[dict[str, Any], Acknowledged | None]]:
        """Events that end deliveries."""
        found = []
        for number, code in enumerate(self.recipients[: self.ended]):
            event = {
                "event": "refused" if self.refused else "acknowledged",
                "at": moment(self.at + MINUTE),
                "message": MESSAGE,
                "from": PROVINCE,
                "id": "215/BC-UBND",
                "sha256": self.digest,
                "endpoint": f"hệ thống {code}",
                "recipients": [code],
            }
            if self.refused:
                event |= {"code": "not-competent", "reason": "không thuộc thẩm quyền"}
            given = None
            if number < self.signed:
                given = self.acknowledgement(key=self.recipient_key)
                event["acknowledgement"] = hashlib.sha256(given.jws.encode()).hexdigest()
            found.append((event, given))
        return found

    def acknowledgement(
        self, message: str = MESSAGE, refused: bool | None = None, key: PrivateKey | None = None
    ) -> Acknowledged:
        """What a recipient signs, of this message among others; with a new key unless one is given."""
        key = key or generate("ES256")
        others = [ack.Document(seq, str(UUID(int=seq)), "ab" * 32) for seq in (1, 2)]
        own = ack.Document(3, message, self.digest)
        if self.refused if refused is None else refused:
            gone = ack.RefusedDocument(3, message, self.digest, "không thuộc thẩm quyền", "not-competent")
            jws = ack.sign_acknowledgement(Signer(key), others, [gone], self.at + MINUTE)
            return Acknowledged(jws.decode(), 0, 0, (), key_text(key.public_key()))
        jws = ack.sign_acknowledgement(Signer(key), [*others, own], (), self.at + MINUTE)
        leaves = [ack.document_leaf(one.message, one.sha256) for one in (*others, own)]
        at = ack.locate(jws.decode(), leaves, message, self.digest)
        return Acknowledged(at.jws, at.index, at.size, at.path, key_text(key.public_key()))

    def seal(self, events: Sequence[dict[str, Any]], at: datetime) -> list[Receipt]:
        """Receipts of events of one batch, one of somebody else's among them."""
        texts = [orjson.dumps(event).decode() for event in (*events, {"event": "accepted", "at": moment(at)})]
        tree = Tree([leaf_hash(text.encode()) for text in texts])
        promise = None if self.promise is None else Promise(ORIGIN, self.promise)
        written = Sealer(HUB, self.signer, promise).seal(tree, str(UUID(int=len(events))), at)
        return [receipt(text, number, tree, written) for number, text in enumerate(texts[:-1])]

    def proof(self) -> Proof:
        """The file, signed by the hub."""
        ends = self.ends()
        receipts = self.seal([self.accepted()], self.at)
        receipts += self.seal([event for event, _ in ends], self.at + MINUTE)
        given = [None, *(acknowledged for _, acknowledged in ends)]
        count = len(receipts) if self.logged is True else int(self.logged)
        entries = [hashlib.sha256(b"%d" % number).digest() for number in range(self.before)]
        places = range(len(entries), len(entries) + count)
        entries += [leaf_hash(one.event.encode()) for one in receipts[:count]]
        entries.append(bytes(32))
        leaves = list(map(log.log_leaf, entries))

        def node(level: int, index: int) -> bytes:
            return log.subtree_root(leaves[index << level : (index + 1) << level])

        evidence = []
        for number, one in enumerate(receipts):
            place = None
            if number < count:
                path = log.inclusion_proof(places[number], len(entries), node)
                place = Place(places[number], tuple(map(b64url, path)))
            evidence.append(Evidence(one, place, given[number]))
        text = Checkpoint(self.origin, len(entries), log.root(len(entries), node)).text
        note = text + "\n" + signature_line(self.origin, self.key, text)  # type: ignore[arg-type]
        note += "".join(witness.line(text, self.witnessed_at) for witness in self.witnesses)
        file = Proof(
            FORMAT,
            Message(MESSAGE, self.digest, len(self.content), self.format),  # type: ignore[arg-type]
            self._sender_member(),
            evidence[0],
            self.recipients,
            tuple(evidence[1:]),
            note if count else None,
            (self.stamp(text),) if self.stamped_by else (),
        )
        return self.sign(file)

    def _sender_member(self) -> Sender:
        chain = tuple(_b64(_der(one)) for one in self.chain)
        answers = tuple(Answer(answer.kind.value, _b64(answer.der)) for answer in self.answers)
        key = key_text(self.sender.key.public_key())
        if self.format == "jws":
            protected, _, signature = self.document.decode().split(".")
            return Sender(f"{protected}..{signature}", 0, (), key, chain, answers)
        if is_entry(self.document):
            jws, index, path, _ = self.document.decode().split("~")
            return Sender(jws, int(index), tuple(path.split(".")), key, chain, answers)
        return Sender("", 0, (), "", (), ())

    def stamp(self, text: str) -> str:
        """A time-stamp over a checkpoint."""
        assert self.tsa is not None and self.stamped_by is not None
        self.tsa.now = lambda: self.stamped_at
        request = request_timestamp(text.encode())
        return _b64(read_reply(self.tsa.answer(request.body), request, [self.stamped_by.der])[0])

    # -- what is done with it -------------------------------------------------------------------

    def sign(self, proof: Proof) -> Proof:
        """Let the hub sign whatever it is."""
        return sign_proof(proof, self.signer, self.made)

    def change(self, proof: Proof | None = None, **members: Any) -> Proof:
        """A file that the hub signed although members of it are otherwise."""
        return self.sign(msgspec.structs.replace(proof or self.proof(), **members))

    def trust(self, quorum: int = 0, **members: Any) -> Trust:
        """Trust in this hub and its log, and in the scene's witnesses."""
        members.setdefault("logs", (Verifier(ORIGIN, self.key.public_key()),))  # type: ignore[arg-type]
        members.setdefault("witnesses", tuple(witness.verifier for witness in self.witnesses))
        return Trust({self.signer.kid: self.key.public_key()}, quorum=quorum, **members)

    def verify(
        self,
        proof: Proof | bytes | None = None,
        document: bytes | None = b"",
        trust: Trust | None = None,
        now: datetime = LATER,
    ) -> Verdict:
        """Verify with this scene's document and trust, unless there are others."""
        document = self.document if document == b"" else document
        if not isinstance(proof, bytes):
            proof = write_proof(proof or self.proof())
        return verify_proof(proof, document, trust or self.trust(), now)


def _der(holder: Holder) -> bytes:
    return holder.certificate.public_bytes(Encoding.DER)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
