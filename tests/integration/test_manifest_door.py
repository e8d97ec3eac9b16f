"""Manifests over HTTP: documents under one signature, each with an outcome, a recipient and a proof of its own."""

from __future__ import annotations

import hashlib
from typing import Any

import aiohttp
import orjson
import pytest

from protocol.client import Attachment, Document, Problem, Sent
from protocol.manifest import (
    ENTRY_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    Manifest,
    message_digest,
    open_entry,
    seal_documents,
    signed_bytes,
)
from protocol.message import write_document
from protocol.problems import MEDIA_TYPE
from protocol.signature import Signer, generate, to_jwk
from tests.conftest import StartHub
from tests.support import second_verifier
from tests.support.desk import check_problem
from tests.support.load import whole_mailbox
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN

NDJSON = "application/x-ndjson"


def documents(pair: Pair, count: int, *to: str, **members: Any) -> list[Document]:
    return [pair.province.document(*(to or (VAN_YEN,)), **members) for _ in range(count)]


async def post(
    pair: Pair, http: aiohttp.ClientSession, body: bytes, status: int = 200, **headers: str
) -> list[dict[str, Any]]:
    """The lines of an answer; of a problem, one."""
    asked = pair.province.headers | {"Content-Type": MANIFEST_MEDIA_TYPE} | headers
    async with http.post(f"{pair.hub.url}/v1/messages", data=body, headers=asked) as answer:
        text = await answer.read()
        assert answer.status == status, text
        assert answer.content_type == (NDJSON if status == 200 else MEDIA_TYPE)
        return [orjson.loads(line) for line in text.splitlines()]


async def refused(pair: Pair, http: aiohttp.ClientSession, body: bytes, code: str, status: int = 422) -> None:
    """The whole is refused, nothing is stored, and the refusal is proven."""
    (problem,) = await post(pair, http, body, status)
    check_problem(problem, code)
    event = await pair.check(orjson.dumps(problem), body.split(b"\n")[0].strip())
    assert (event["event"], event["code"]) == ("rejected", code)
    assert await whole_mailbox(pair.receiver) == []


@pytest.mark.parametrize("count", [1, 50])
async def test_each_document_has_its_outcome_and_its_recipient_its_proof(pair: Pair, count: int) -> None:
    sent = documents(pair, count)
    outcomes = await pair.sender.send_together(sent)
    entries = await whole_mailbox(pair.receiver)
    jwk = to_jwk(pair.province.key.public_key())
    jwks = await pair.sender.hub_keys()
    for document, outcome, entry in zip(sent, outcomes, entries, strict=True):
        assert isinstance(outcome, Sent) and not outcome.duplicate
        payload = write_document(document)
        event = await pair.check(outcome.receipt.to_json(), payload)
        assert (event["event"], event["id"], event["message"]) == ("accepted", document.id, outcome.id)
        assert (entry.id, entry.format, entry.document) == (outcome.id, "manifest", document)
        assert entry.sha256 == hashlib.sha256(payload).hexdigest()
        assert entry.body is not None and entry.size == len(entry.body)
        # What the recipient holds proves it alone, and the hub's receipt speaks of it.
        assert second_verifier.prove_entry(entry.body.decode(), [jwk]) == payload
        assert signed_bytes(entry.body) == payload
        receipt = orjson.loads(outcome.receipt.to_json())
        assert second_verifier.prove(receipt, jwks, second_verifier.prove_entry(entry.body.decode(), [jwk]))


async def test_a_thousand_documents_are_one_manifest_and_no_more(pair: Pair, http: aiohttp.ClientSession) -> None:
    sent = documents(pair, 1000)
    outcomes = await pair.sender.send_together(sent)
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    entries = await whole_mailbox(pair.receiver)
    assert {entry.sender_id: entry.document for entry in entries} == {document.id: document for document in sent}
    for entry in entries:
        assert sent[open_entry(entry.body or b"").index].id == entry.sender_id
    await pair.receiver.acknowledge(*entries)
    one = documents(pair, 1)[0]
    jws = seal_documents([one], pair.province.signer).jws
    line = second_verifier.encode64(write_document(one)).encode()
    await refused(pair, http, b"\n".join([jws, *[line] * 1001]), "bad-manifest")


async def test_the_bytes_that_are_fetched_are_the_entry(pair: Pair, http: aiohttp.ClientSession) -> None:
    document = pair.province.document(VAN_YEN, content="Phụ lục kèm theo. " * 5000)
    (_, sent) = await pair.sender.send_together([*documents(pair, 1), document])
    assert isinstance(sent, Sent)
    (_, entry) = await whole_mailbox(pair.receiver)
    assert entry.body is None and entry.size > 64 << 10
    for party in (pair.district, pair.province):
        async with http.get(f"{pair.hub.url}/v1/messages/{sent.id}", headers=party.headers) as answer:
            raw = await answer.read()
            assert answer.content_type == ENTRY_MEDIA_TYPE
            assert answer.headers["Digest-SHA-256"] == message_digest(raw).hex() == entry.sha256
    assert len(raw) == entry.size
    entry.body = await pair.receiver.fetch(entry)
    assert (entry.body, entry.document) == (raw, document)


async def test_how_a_delivery_ends_is_proven_of_the_document(pair: Pair) -> None:
    taken, refused_ = await pair.sender.send_together(documents(pair, 2))
    assert isinstance(taken, Sent) and isinstance(refused_, Sent)
    first, second = await whole_mailbox(pair.receiver)
    await pair.receiver.acknowledge(first)
    await pair.receiver.refuse(second, "Gửi nhầm")
    for id_, entry, kind in ((taken.id, first, "acknowledged"), (refused_.id, second, "refused")):
        assert entry.body is not None
        event = await pair.check(orjson.dumps(await pair.state(id_)), signed_bytes(entry.body))
        assert (event["event"], event["sha256"]) == (kind, entry.sha256)
    timeline = await pair.sender.events(taken.id)
    assert (timeline["format"], timeline["sha256"]) == ("manifest", first.sha256)


async def test_a_wrong_document_spoils_no_other(start_hub: StartHub) -> None:
    hub = await start_hub(max_message_bytes=4096)
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN, DAI_SON))
    missing = Attachment(name="Phụ lục.pdf", size=3, sha256="ab" * 32)
    async with pair.sender, pair.receiver:
        sent = documents(pair, 2)
        wrong = {
            "recipient-unknown": pair.province.document("KHONG.CO"),
            "from-not-yours": pair.province.document(VAN_YEN, sender=DAI_SON),
            "attachment-missing": pair.province.document(VAN_YEN, attachments=(missing,)),
            "too-large": pair.province.document(VAN_YEN, content="a" * 5000),
            "bad-document": Document(id="", sender=PROVINCE, to=(VAN_YEN,)),
        }
        outcomes = await pair.sender.send_together([sent[0], *wrong.values(), sent[1]])
        assert isinstance(outcomes[0], Sent) and isinstance(outcomes[-1], Sent)
        for (code, document), outcome in zip(wrong.items(), outcomes[1:-1], strict=True):
            assert isinstance(outcome, Problem)
            assert outcome.code == code
            event = await pair.check(outcome.to_json(), write_document(document))
            assert (event["event"], event["code"]) == ("rejected", code)
        assert [entry.document for entry in await whole_mailbox(pair.receiver)] == sent


async def test_a_manifest_again_gives_the_first_receipts(pair: Pair, http: aiohttp.ClientSession) -> None:
    manifest = pair.sender.sign_together(documents(pair, 3))
    first = await post(pair, http, manifest.to_body())
    assert [line["status"] for line in first] == [202] * 3
    again = await post(pair, http, manifest.to_body())
    assert [line["status"] for line in again] == [200] * 3
    assert [line["receipt"] for line in again] == [line["receipt"] for line in first]
    assert len(await whole_mailbox(pair.receiver)) == 3


async def test_the_same_document_twice_in_a_manifest_is_one_message(pair: Pair) -> None:
    document = pair.province.document(VAN_YEN)
    first, second = await pair.sender.send_together([document, document])
    assert isinstance(first, Sent) and isinstance(second, Sent)
    assert (first.id, first.receipt, first.duplicate) == (second.id, second.receipt, False)
    assert second.duplicate
    assert len(await whole_mailbox(pair.receiver)) == 1


async def test_a_document_signed_alone_is_another_message_than_one_in_a_manifest(pair: Pair) -> None:
    """The bytes that were signed are others; the id tells that it was meant to be the same."""
    document = pair.province.document(VAN_YEN)
    await pair.sender.send(document)
    (conflict,) = await pair.sender.send_together([document])
    assert isinstance(conflict, Problem) and conflict.code == "id-conflict"
    other = pair.province.document(VAN_YEN)
    await pair.sender.send_together([other])
    with pytest.raises(Problem) as refused_:
        await pair.sender.send(other)
    assert refused_.value.code == "id-conflict"
    assert len(await whole_mailbox(pair.receiver)) == 2


def tampered(pair: Pair, how: str) -> tuple[Manifest, str, int]:
    """A manifest that is wrong as a whole, and what is said of it."""
    right = seal_documents(documents(pair, 3), pair.province.signer)
    lines = right.documents
    other = seal_documents(documents(pair, 3), pair.province.signer)
    if how == "root":
        return Manifest(other.jws, lines), "bad-manifest", 422
    if how == "order":
        return Manifest(right.jws, lines[::-1]), "bad-manifest", 422
    if how == "missing":
        return Manifest(right.jws, lines[:2]), "bad-manifest", 422
    if how == "added":
        return Manifest(right.jws, (*lines, other.documents[0])), "bad-manifest", 422
    if how == "not base64url":
        return Manifest(right.jws, (*lines[:2], lines[2] + b"=")), "bad-manifest", 422
    if how == "empty line":
        return Manifest(right.jws, (lines[0], b"", *lines[1:])), "bad-manifest", 422
    if how == "signature":
        return Manifest(right.jws[:-6] + b"AAAAAA", lines), "bad-signature", 403
    if how == "algorithm":
        header = second_verifier.encode64(b'{"alg":"none","kid":"x","typ":"lienthong-manifest+1"}')
        return (
            Manifest(b".".join([header.encode(), right.jws.split(b".")[1], b""]), lines),
            "algorithm-not-allowed",
            400,
        )
    assert how == "no jws"
    return Manifest("xin chào".encode(), lines), "not-a-jws", 400


@pytest.mark.parametrize(
    "how",
    ["root", "order", "missing", "added", "not base64url", "empty line", "signature", "algorithm", "no jws"],
)
async def test_a_manifest_that_is_wrong_is_refused_as_a_whole(
    pair: Pair, http: aiohttp.ClientSession, how: str
) -> None:
    manifest, code, status = tampered(pair, how)
    await refused(pair, http, manifest.to_body(), code, status)


async def test_a_stranger_cannot_sign_for_the_sender(pair: Pair, http: aiohttp.ClientSession) -> None:
    mine = documents(pair, 2)
    for key, code in ((generate("ES256"), "unknown-key"), (pair.district.key, "key-not-yours")):
        manifest = seal_documents(mine, Signer(key))
        for line in await post(pair, http, manifest.to_body()):
            check_problem(line, code)
    theirs = [pair.district.document(PROVINCE)]
    (line,) = await post(pair, http, seal_documents(theirs, pair.district.signer).to_body())
    check_problem(line, "from-not-yours")
    assert await whole_mailbox(pair.receiver) == await whole_mailbox(pair.sender) == []


async def test_lines_may_end_as_any_system_ends_them(pair: Pair, http: aiohttp.ClientSession) -> None:
    for end in (b"\n", b"\r\n"):
        manifest = pair.sender.sign_together(documents(pair, 2))
        body = manifest.to_body().replace(b"\n", end)
        for ended in (body, body + end):
            assert [line["state"] for line in await post(pair, http, ended)] in (
                ["accepted"] * 2,
                ["duplicate"] * 2,
            )
    assert len(await whole_mailbox(pair.receiver)) == 4


@pytest.mark.parametrize("body", [b"", b"\n", b"eyJ.eyJ.AAAA", b"eyJ.eyJ.AAAA\n"])
async def test_a_body_without_documents_is_no_manifest(
    pair: Pair, http: aiohttp.ClientSession, body: bytes
) -> None:
    (problem,) = await post(pair, http, body, 422)
    check_problem(problem, "bad-manifest")


async def test_larger_than_a_batch_may_be_is_not_read(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    hub = await start_hub(max_batch_bytes=2048)
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN))
    async with pair.sender, pair.receiver:
        (problem,) = await post(pair, http, pair.sender.sign_together(documents(pair, 20)).to_body(), 413)
        check_problem(problem, "too-large")
