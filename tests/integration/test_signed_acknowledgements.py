"""Acknowledgements under the recipient's own signature: over HTTP, on streams, kept, shown for each document."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import orjson
import pytest

from hub.directory import change
from protocol.acknowledgement import (
    Document,
    RefusedDocument,
    SignedAcknowledgement,
    sign_acknowledgement,
    verify_acknowledgement,
)
from protocol.client import ClientError, HubClient
from protocol.problems import Problem
from protocol.signature import JOSE_MEDIA_TYPE, Signer, generate
from protocol.stream import Ack, Acked, Failure, Frame
from tests.support.desk import check_problem
from tests.support.pair import Pair
from tests.support.parties import VAN_YEN, Party
from tests.support.stream import RawStream


@pytest.fixture
async def signing(pair: Pair) -> AsyncIterator[HubClient]:
    """The district's client, that signs what it acknowledges."""
    async with pair.district.client(pair.hub.url, sign_acknowledgements=True) as client:
        yield client


async def proven(pair: Pair, party: Party, message: str) -> tuple[SignedAcknowledgement, dict[str, Any], Any]:
    """What a message's recipient signed, the hub's event of it, and what the signature was found to say."""
    state = await pair.state(message)
    document = await pair.sender.fetch(message)
    event = await pair.check(orjson.dumps(state), document)
    signed = msgspec.convert(state["acknowledgement"], SignedAcknowledgement)
    assert event["acknowledgement"] == signed.sha256 == hashlib.sha256(signed.jws.encode()).hexdigest()
    keys = {party.signer.kid: party.key.public_key()}
    found = verify_acknowledgement(signed, keys.get, message, hashlib.sha256(document).hexdigest())
    return signed, event, found


async def test_a_page_is_acknowledged_under_one_signature(pair: Pair, signing: HubClient) -> None:
    ids = await pair.send("normal", "express", *["normal"] * 7, "urgent")
    entries, cursor = await signing.read()
    assert await signing.acknowledge(up_to=cursor) == 10
    assert await pair.hub.connection.fetchval("select count(*) from acknowledgement") == 1
    found = [await proven(pair, pair.district, message) for message in ids]
    assert len({signed.jws for signed, _, _ in found}) == 1
    assert [ids.index(entry.id) for entry in entries] == [
        message for _, message in sorted((signed.index, place) for place, (signed, _, _) in enumerate(found))
    ]
    assert all(event["event"] == "acknowledged" and not said.refused for _, event, said in found)
    # Handed over and acknowledged in one event, as without a signature.
    assert all("handed_over_at" in event for _, event, _ in found)
    assert await pair.hub.connection.fetchval("select count(*) from progress where handed_at is not null") == 3
    assert await signing.acknowledge(up_to=cursor) == 0, "nothing is left to sign"
    assert await pair.page() == []


async def test_single_entries_and_refusals(pair: Pair, signing: HubClient) -> None:
    ids = await pair.send(*["normal"] * 5)
    entries, _ = await signing.read()
    assert await signing.acknowledge(entries[3], entries[1].seq) == 2
    assert await signing.refuse(entries[2], "không thuộc thẩm quyền của huyện", "not-competent") == 1
    assert await signing.refuse(entries[2], "lần nữa") == 0
    for place in (1, 3):
        signed, event, said = await proven(pair, pair.district, ids[place])
        assert (event["event"], signed.size, said.refused) == ("acknowledged", 2, False)
    signed, event, said = await proven(pair, pair.district, ids[2])
    assert (event["event"], event["code"], signed.size) == ("refused", "not-competent", 0)
    assert (said.refused, said.code, said.reason) == (True, "not-competent", "không thuộc thẩm quyền của huyện")
    assert [entry.id for entry in await pair.page()] == [ids[0], ids[4]]
    # The notice to the sender proves the same.
    ((notice,), _) = await pair.sender.read()
    assert notice.receipt is not None
    assert orjson.loads(notice.receipt.event)["acknowledgement"] == signed.sha256
    # Unsigned ones go on working, and are told apart.
    assert await pair.receiver.acknowledge(entries[0]) == 1
    state = await pair.state(ids[0])
    assert "acknowledgement" not in state
    assert "acknowledgement" not in orjson.loads(state["receipt"]["event"])


async def test_who_signs_must_have_been_given_it(pair: Pair, signing: HubClient) -> None:
    await pair.send("normal")
    (entry,) = await pair.page()
    with pytest.raises(ClientError, match="was not given the entry"):
        await signing.acknowledge(entry.seq)
    with pytest.raises(ClientError, match="private key"):
        HubClient(pair.hub.url, pair.district.token, sign_acknowledgements=True)
    assert await signing.acknowledge(entry) == 1, "an entry says what it is"


async def test_on_a_stream(pair: Pair, signing: HubClient, said: list[Frame]) -> None:
    ids = await pair.send(*["normal"] * 6)
    async with signing.stream() as stream:
        mail = stream.mail()
        entries = [await anext(mail) for _ in ids]
        await stream.acknowledge(*entries[:2])
        await stream.refuse(entries[2], "trùng", "duplicate")
        await stream.acknowledge(up_to=stream.cursor)
        await stream.acknowledge(up_to=stream.cursor)
    frames = [frame for frame in said if isinstance(frame, Ack)]
    assert [bool(frame.signed) for frame in frames] == [True, True, True, False]
    assert not any(frame.entries or frame.up_to or frame.refuse for frame in frames)
    for place, message in enumerate(ids):
        _, event, verified = await proven(pair, pair.district, message)
        assert verified.refused == (place == 2)
        assert event["event"] == ("refused" if place == 2 else "acknowledged")


def named(entries: list[Any]) -> list[Document]:
    return [Document(entry.seq, entry.id, entry.sha256) for entry in entries]


async def post(pair: Pair, http: aiohttp.ClientSession, jws: bytes) -> tuple[int, dict[str, Any]]:
    headers = pair.district.headers | {"Content-Type": JOSE_MEDIA_TYPE}
    async with http.post(f"{pair.hub.url}/v1/mailbox/ack", data=jws, headers=headers) as response:
        return response.status, orjson.loads(await response.read())


async def test_the_same_again_ends_nothing_and_is_no_error(pair: Pair, http: aiohttp.ClientSession) -> None:
    ids = await pair.send("normal", "normal")
    jws = sign_acknowledgement(pair.district.signer, named(await pair.page()))
    assert await post(pair, http, jws + b"\n") == (200, {"acknowledged": 2, "refused": 0})
    assert await post(pair, http, jws) == (200, {"acknowledged": 0, "refused": 0})
    assert await pair.hub.connection.fetchval("select jws from acknowledgement") == jws.decode()
    await proven(pair, pair.district, ids[1])


async def test_what_does_not_fit_ends_nothing(pair: Pair, http: aiohttp.ClientSession) -> None:
    await pair.send(*["normal"] * 3)
    entries = await pair.page()
    signer, documents = pair.district.signer, named(entries)
    other = Document(documents[0].seq, documents[0].message, "ab" * 32)
    nowhere = Document(documents[2].seq + 1, "01890a5d", "cd" * 32)
    refused = RefusedDocument(documents[0].seq, documents[1].message, documents[1].sha256, "nhầm")
    province = Signer(generate("ES256"))
    await change.add_key(pair.hub.connection, province.key.public_key(), endpoint="ubnd-tinh")
    await pair.hub.follow()
    for jws, status, code in (
        (sign_acknowledgement(signer, [other, *documents[1:]]), 422, "bad-acknowledgement"),
        (sign_acknowledgement(signer, [*documents, nowhere]), 422, "bad-acknowledgement"),
        (sign_acknowledgement(signer, documents[1:], [refused]), 422, "bad-acknowledgement"),
        (sign_acknowledgement(province, documents), 403, "key-not-yours"),
        (sign_acknowledgement(Signer(generate("EdDSA")), documents), 403, "unknown-key"),
        (sign_acknowledgement(Signer(generate("ES256"), signer.kid), documents), 403, "bad-signature"),
        (signer.sign(b"{}"), 422, "bad-acknowledgement"),
        (b"{}", 400, "not-a-jws"),
    ):
        found, problem = await post(pair, http, jws)
        assert (found, problem["code"]) == (status, code)
        check_problem(problem, code)
    assert await pair.page() == entries
    assert await pair.hub.connection.fetchval("select count(*) from acknowledgement") == 0


async def test_the_order_is_the_signers_own(pair: Pair, http: aiohttp.ClientSession) -> None:
    ids = await pair.send("normal", "express", "urgent")
    entries = await pair.page()
    jws = sign_acknowledgement(pair.district.signer, named(list(reversed(entries))))
    assert (await post(pair, http, jws))[1]["acknowledged"] == 3
    for place, message in enumerate(entry.id for entry in reversed(entries)):
        signed, _, _ = await proven(pair, pair.district, message)
        assert signed.index == place
    assert sorted(ids) == sorted(entry.id for entry in entries)


async def test_a_key_of_an_agency_that_the_endpoint_speaks_for(pair: Pair, http: aiohttp.ClientSession) -> None:
    agency = Signer(generate("EdDSA"))
    await change.add_key(pair.hub.connection, agency.key.public_key(), agency=VAN_YEN)
    await pair.hub.follow()
    (message,) = await pair.send("normal")
    jws = sign_acknowledgement(agency, named(await pair.page()))
    assert (await post(pair, http, jws))[0] == 200
    state = await pair.state(message)
    assert state["acknowledgement"]["jws"] == jws.decode()


async def test_an_endpoint_may_have_to_sign(
    pair: Pair, signing: HubClient, receiving: RawStream, http: aiohttp.ClientSession
) -> None:
    await change.set_signed_acknowledgements(pair.hub.connection, "van-yen", "require")
    await pair.hub.follow()
    ids = await pair.send("normal", "normal")
    entries, cursor = await pair.receiver.read()
    for attempt in (pair.receiver.acknowledge(up_to=cursor), pair.receiver.refuse(entries[0], "không")):
        with pytest.raises(Problem) as caught:
            await attempt
        assert caught.value.code == "acknowledgement-not-signed"
    await receiving.mail(2)
    n = await receiving.acknowledge(up_to=cursor)
    failure = await receiving.hear(Failure)
    assert (failure.n, failure.problem["code"]) == (n, "acknowledgement-not-signed")
    n = await receiving.acknowledge(signed=sign_acknowledgement(pair.district.signer, named(entries[:1])).decode())
    assert await receiving.hear(Acked) == Acked(n, 1, 0)
    assert await signing.acknowledge(entries[1]) == 1
    for message in ids:
        await proven(pair, pair.district, message)


async def test_an_acknowledgement_altered_in_the_store_is_not_proven(pair: Pair, signing: HubClient) -> None:
    (message,) = await pair.send("normal")
    _, cursor = await signing.read()
    await signing.acknowledge(up_to=cursor)
    await pair.hub.connection.execute("update acknowledgement set jws = jws || 'A'")
    with pytest.raises(Problem) as caught:
        await pair.sender.events(message)
    assert caught.value.code == "internal"
