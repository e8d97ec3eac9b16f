"""Verifying a proof with nothing but the file, the document and the keys that one trusts: no network, no hub.

Steps go from what everything rests on to what is only more: the file as the hub signed it, acceptance, the
document, the sender's signature, recipients, each event (`protocol.proof_events`), and then the log, witnesses
and time-stamps (`protocol.proof_log`). A file that is not intact ends the verification at once. The browser page
(hub/doors/verify.js) goes the same way and says the same sentences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import orjson

from protocol.agency import is_code
from protocol.certificate import CertificateError, load, public_key, subject, validate_chain
from protocol.certificate_revocation import Answer, AnswerKind, Status, check_chain, overall
from protocol.evidence import EventKind, EvidenceError, Receipt, verify_receipt
from protocol.log import InclusionProof
from protocol.manifest import open_entry
from protocol.message import is_reserved
from protocol.problems import Problem
from protocol.proof import (
    Place,
    Proof,
    ProofError,
    from_base64,
    key_text,
    read_key,
    read_moment,
    read_path,
    read_proof,
    verify_file,
)
from protocol.proof_events import Work, check_events, check_recipients, read_event, told
from protocol.proof_log import Event, LogClaim, check_log
from protocol.proof_trust import Trust
from protocol.proof_verdict import Verdict
from protocol.proof_words import shown
from protocol.signature import KeyFormatError, PublicKey, b64url, parse, thumbprint, unb64url, verify

SKEW = timedelta(minutes=5)
"""How far clocks may differ before that is worth a word."""


def verify_proof(data: bytes, document: bytes | None, trust: Trust, now: datetime) -> Verdict:
    """Check a proof's file. `document` is the message as its own holds it; `now` the verifier's time (aware).

    Never raises on what the file or the document holds.
    """
    verdict = Verdict()
    try:
        proof = read_proof(data)
    except ProofError as error:
        verdict.add("file", "file_unreadable", "contradicted", why=str(error))
        return verdict
    try:
        made = verify_file(proof, trust.hub_keys)
    except ProofError as error:
        verdict.add("file", "file_altered", "contradicted", why=str(error))
        return verdict
    verdict.add("file", "file_intact", "proven", at=shown(made.at))
    work = Work(proof, document, trust, now, made, verdict)
    accepted = _accepted(work)
    if accepted is not None:
        _clock(verdict, now, made.at)
        content = _document(work)
        ended = _sender(work, accepted, content)
        check_recipients(work, accepted)
        events = [accepted, *check_events(work)]
        claim = LogClaim(events, proof.checkpoint, proof.timestamps, made.at, proof.message.id)
        seen = check_log(claim, trust, now, verdict)
        if ended is not None and seen is not None and seen > ended:
            times: dict[str, Any] = {"ended": shown(ended), "seen": shown(seen)}
            verdict.add("certificate", "certificate_seen_later", "not_proven", **times)
    for limit in ("read", "content", "attachments", "trust"):
        verdict.limit(limit)
    verdict.limit("later", made=shown(made.at))
    return verdict


def verify_single(
    receipt: Receipt, document: bytes | None, trust: Trust, now: datetime, logged: InclusionProof | None = None
) -> Verdict:
    """Check a receipt, and its place in the log where that is given (c2sp.org/tlog-proof), without a proof file.

    `document` is what events speak of (`protocol.manifest.signed_bytes`). Raises EvidenceError when the receipt
    itself is wrong.
    """
    found = verify_receipt(receipt, trust.hub_keys.get, document)
    sealed_at = read_moment(found.sealed_at)
    if sealed_at is None or read_moment(found.event.get("at")) is None:
        raise EvidenceError("the event does not say what happened, or when")
    verdict = Verdict()
    verdict.add("file", "receipt_alone", "proven")
    _clock(verdict, now, sealed_at)
    place = None if logged is None else Place(logged.index, tuple(map(b64url, logged.path)))
    event = Event(1, receipt, found, place)
    told(verdict, event)
    claim = LogClaim(
        [event], None if logged is None else logged.checkpoint, (), None, str(found.event.get("message", ""))
    )
    check_log(claim, trust, now, verdict)
    for limit in ("read", "content", "attachments", "trust"):
        verdict.limit(limit)
    return verdict


# -- acceptance and the document -------------------------------------------------------------------


def _accepted(work: Work) -> Event | None:
    proof, verdict = work.proof, work.verdict
    try:
        found = read_event(work, 1, proof.accepted)
        event = found.event
        if event["event"] != EventKind.ACCEPTED:
            raise EvidenceError("the event is not one of acceptance")
        if event.get("sha256") != proof.message.sha256 or event.get("size") != proof.message.size:
            raise EvidenceError("the event speaks of another document than the file")
        sender = event.get("from")
        if not isinstance(sender, str) or not is_code(sender):
            raise EvidenceError("the event names its sender by what is no agency's code")
        if proof.accepted.acknowledgement is not None:
            raise EvidenceError("an acceptance has no acknowledgement")
    except EvidenceError as error:
        verdict.add("accepted", "accepted_wrong", "contradicted", why=str(error))
        return None
    values: dict[str, Any] = {
        "hub": found.verified.hub,
        "message": proof.message.id,
        "at": shown(found.at),
        "endpoint": str(event.get("endpoint")),
        "from": str(event.get("from")),
        "id": str(event.get("id")),
        "size": str(proof.message.size),
        "sha256": proof.message.sha256,
    }
    verdict.add("accepted", "accepted", "proven", **values)
    return found


def _clock(verdict: Verdict, now: datetime, made: datetime) -> None:
    if now < made - SKEW:
        verdict.add("clock", "clock_wrong", "contradicted", now=shown(now), at=shown(made))


def _document(work: Work) -> bytes | None:
    """The bytes that events speak of, if the document given has them."""
    if work.document is None:
        work.verdict.add("document", "document_missing", "not_proven", required=True)
        return None
    sha256 = work.proof.message.sha256
    for content in _writings(work.proof, work.document):
        if hashlib.sha256(content).hexdigest() == sha256:
            work.verdict.add("document", "document_same", "proven")
            return content
    given = hashlib.sha256(work.document).hexdigest()
    work.verdict.add("document", "document_other", "contradicted", why=f"SHA-256 {given}")
    return None


def _writings(proof: Proof, document: bytes) -> Iterable[bytes]:
    """What may be meant by a document's file: the message itself; or of a native one its payload alone."""
    yield document
    stripped = document.strip(b" \t\r\n")
    yield stripped
    if proof.message.format == "manifest" and stripped.count(b"~") == 3:
        try:
            yield unb64url(stripped.rpartition(b"~")[2])
        except ValueError:
            return
    protected, dots, signature = proof.sender.signature.partition("..")
    if proof.message.format == "jws" and dots:
        yield f"{protected}.{b64url(document)}.{signature}".encode()


# -- the sender ------------------------------------------------------------------------------------


def _sender(work: Work, accepted: Event, content: bytes | None) -> datetime | None:
    """The end of a certificate that was found good."""
    proof, verdict, event = work.proof, work.verdict, accepted.event
    sender = proof.sender
    if proof.message.format not in ("jws", "manifest"):
        if sender.signature or sender.key or sender.chain or sender.revocation:
            why = "the file has a signature for a format that has none"
            verdict.add("sender", "sender_wrong", "contradicted", why=why)
            return None
        if event.get("signer") is not None:
            why = "the event of acceptance names a signer, and the file says that the format has none"
            verdict.add("sender", "sender_wrong", "contradicted", why=why)
            return None
        named: dict[str, Any] = {"format": proof.message.format, "endpoint": str(event.get("endpoint"))}
        verdict.add("sender", "sender_no_signature", "not_proven", **named)
        return None
    signer = event.get("signer")
    if signer is None and not sender.key:
        verdict.add("sender", "sender_key_unnamed", "not_proven", required=True)
        return None
    names = [str(event.get("from"))]
    try:
        key, revocation = _signer(work, signer)
        if content is None:
            verdict.add("sender", "sender_needs_document", "not_proven", required=True)
        else:
            written = _written(_check_signature(proof, content, key), event)
            verdict.add("sender", "sender_signed", "proven", kid=thumbprint(key))
            if written != event.get("from"):
                names.append(str(written))
                others: dict[str, Any] = {"named": names[1], "from": names[0]}
                verdict.add("sender", "sender_other_name", "not_proven", **others)
    except (EvidenceError, CertificateError, KeyFormatError) as error:
        verdict.add("sender", "sender_wrong", "contradicted", why=str(error))
        return None
    owned = _owner(work, thumbprint(key), names)
    return _certificate(work, accepted, revocation, owned)


def _owner(work: Work, kid: str, names: Iterable[str]) -> bool:
    """Whether the verifier's own list says whose the key is; then what the hub says of that does not count."""
    listed = {name: keys for name in names if (keys := work.trust.keys_of(name)) is not None}
    for name, keys in listed.items():
        agency: dict[str, Any] = {"from": name, "kid": kid}
        if kid in keys:
            work.verdict.add("certificate", "key_known", "proven", **agency)
        else:
            work.verdict.add("certificate", "key_foreign", "contradicted", **agency)
    return bool(listed)


def _signer(work: Work, signer: Any) -> tuple[PublicKey, dict[str, Any]]:
    """The sender's key and what the event says of revocation; the file has just what the sealed event names.

    Raises EvidenceError, CertificateError, KeyFormatError.
    """
    sender = work.proof.sender
    if not isinstance(signer, dict) or not sender.key:
        raise EvidenceError("the file's key and the event do not name the same signer")
    key = read_key(sender.key)
    if signer.get("kid") != thumbprint(key):
        raise EvidenceError("the file's key is not the one that the event of acceptance names")
    chain = [from_base64(one) for one in sender.chain]
    named = signer.get("certificate")
    if (hashlib.sha256(chain[0]).hexdigest() if chain else None) != named:
        raise EvidenceError("the file's certificate is not the one that the event of acceptance names")
    if chain and key_text(public_key(chain[0])) != sender.key:
        raise EvidenceError("the certificate is one for another key")
    revocation = signer.get("revocation", {})
    answers = [hashlib.sha256(from_base64(answer.der)).hexdigest() for answer in sender.revocation]
    if not isinstance(revocation, dict) or answers != revocation.get("answers", []):
        raise EvidenceError("the answers on revocation are not those that the event of acceptance names")
    return key, revocation


def _written(payload: bytes, event: dict[str, Any]) -> object:
    """Whom the sender itself named as sending what it signed. Raises EvidenceError, also for another id.

    A hub may know an agency by another code, and sets that before an id that another message of a link has.
    """
    try:
        members: Any = orjson.loads(payload)
        named, id_ = members["from"], members["id"]
    except (ValueError, KeyError, TypeError):
        raise EvidenceError("what was signed is not a document") from None
    if not isinstance(named, str) or not isinstance(id_, str) or not is_code(named):
        raise EvidenceError("what was signed does not name its sender as a document does")
    if event.get("id") not in (id_, f"{event.get('from')}/{id_}"):
        raise EvidenceError("the document that was signed has another id than the acceptance names")
    return named


def _check_signature(proof: Proof, content: bytes, key: PublicKey) -> bytes:
    """What was signed. Raises EvidenceError."""
    sender = proof.sender
    try:
        if proof.message.format == "jws":
            if sender.index or sender.path:
                raise EvidenceError("a document that is signed alone has no place in a manifest")
            jws = parse(content)
            protected, _, rest = content.partition(b".")
            if b".".join((protected, b"", rest.rpartition(b".")[2])) != sender.signature.encode():
                raise EvidenceError("the signature in the file is not the document's")
            if is_reserved(jws):
                raise EvidenceError("what was signed is not a document: it is a JWS of another type")
            payload = jws.payload
        else:
            read_path(sender.path)
            parts = (sender.signature, str(sender.index), ".".join(sender.path), b64url(content))
            jws, payload = open_entry("~".join(parts).encode()).jws, content
    except Problem as problem:
        raise EvidenceError(f"the signature cannot be read: {problem}") from None
    if not verify(key, jws.alg, jws.signature, jws.signing_input):
        raise EvidenceError("the signature was not made with that key over this document")
    return payload


def _certificate(work: Work, accepted: Event, revocation: dict[str, Any], owned: bool) -> datetime | None:
    sender, verdict, at = work.proof.sender, work.verdict, accepted.at
    if not sender.chain and owned:
        return None
    if not sender.chain:
        owner: dict[str, Any] = {"from": str(accepted.event.get("from"))}
        verdict.add("certificate", "key_by_hub", "not_proven", **owner)
        return None
    chain = [from_base64(one) for one in sender.chain]
    try:
        leaf = load(chain[0])
        whose = subject(leaf)
        if not work.trust.anchors:
            verdict.add("certificate", "certificate_no_anchors", "not_proven", subject=whose)
            return None
        found = validate_chain(chain[0], chain[1:], work.trust.anchors, at)
    except CertificateError as error:
        if len(chain) == 1 and leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
            verdict.add("certificate", "certificate_pinned", "not_proven", subject=whose)
            return None
        verdict.add("certificate", "certificate_wrong", "contradicted", at=shown(at), why=str(error))
        return None
    values: dict[str, Any] = {"subject": whose, "anchor": subject(found.anchor), "at": shown(at)}
    if work.now > found.not_after:
        verdict.add("certificate", "certificate_good_then", "proven", ended=shown(found.not_after), **values)
    else:
        verdict.add("certificate", "certificate_good", "proven", **values)
    if not found.issued:
        return found.not_after
    answers = [Answer(AnswerKind(one.kind), from_base64(one.der)) for one in sender.revocation]
    statuses = check_chain(found, answers, at)
    match overall(statuses):
        case Status.REVOKED:
            revoked = min(one.revoked_at for one in statuses if one.revoked_at is not None)
            verdict.add("revocation", "revocation_revoked", "contradicted", revoked=shown(revoked))
        case Status.GOOD:
            answered = min(one.answered_at for one in statuses if one.answered_at is not None)
            verdict.add("revocation", "revocation_good", "proven", answered=shown(answered))
        case _:
            why = "; ".join(dict.fromkeys(note for one in statuses for note in one.notes))
            policy = str(revocation.get("policy", "off"))
            verdict.add("revocation", "revocation_unknown", "not_proven", policy=policy, why=why)
    return found.not_after
