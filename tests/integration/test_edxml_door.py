"""edXML through the same door: routed by its header, kept byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from hub.directory import change
from hub.directory.change import AgencyRow
from protocol import edxml
from protocol.client.hub import Entry
from protocol.evidence import recipients_digest
from tests.conftest import RunningHub, StartHub
from tests.support.desk import check_problem
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN, Party, register

SAMPLES = Path(__file__).parents[3] / "shared" / "axis" / "samples"
XML = "application/xml"
LANES = ["normal", "urgent", "urgent", "express", "express"]


def message(
    sender: str = PROVINCE,
    to: tuple[str, ...] = (VAN_YEN,),
    priority: int = 0,
    subject: str = "Báo cáo tháng",
    attachment: str = "",
) -> bytes:
    """A document as the standard has it, with an attachment's text of any size."""
    recipients = "".join(f"<e:To><e:OrganId>{code}</e:OrganId></e:To>" for code in to)
    encoded = f"<e:AttachmentEncoded><e:Attachment>{attachment}</e:Attachment></e:AttachmentEncoded>"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<e:edXML xmlns:e="{edxml.NAMESPACE}"><e:edXMLEnvelope>'
        f"<e:edXMLHeader><e:MessageHeader><e:From><e:OrganId>{sender}</e:OrganId></e:From>{recipients}"
        f"<e:DocumentId>{sender},2026/03/02,215/BC-UBND</e:DocumentId><e:Subject>{subject}</e:Subject>"
        f"<e:OtherInfo><e:Priority>{priority}</e:Priority></e:OtherInfo></e:MessageHeader></e:edXMLHeader>"
        f"</e:edXMLEnvelope>{encoded if attachment else ''}</e:edXML>"
    ).encode()


# -- what others write ------------------------------------------------------------------------------


@pytest.fixture
async def axis(hub: RunningHub) -> Party:
    """One endpoint that speaks for every agency of the samples and gets their mail."""
    codes: set[str] = set()
    for path in SAMPLES.glob("*.edxml"):
        header = edxml.read(path.read_bytes())
        codes |= {header.sender, *header.recipients}
    for code in sorted(codes):
        await change.add_agency(hub.connection, AgencyRow(code, f"Cơ quan {code}"))
    party = await register(hub.connection, "truc")
    await change.assign(hub.connection, "truc", sorted(codes))
    await hub.follow()
    return party


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of the national axis lie outside the repository")
async def test_every_sample_of_the_axis_is_routed_and_kept(hub: RunningHub, axis: Party) -> None:
    paths = sorted(SAMPLES.glob("*.edxml"))
    assert len(paths) >= 10
    async with axis.client(hub.url) as client:
        for path in paths:
            raw, header = path.read_bytes(), edxml.read(path.read_bytes(), whole=True)
            sent = await client.submit(raw, XML)
            event = orjson.loads(sent.receipt.event)
            assert event["recipients_sha256"] == recipients_digest(set(header.recipients))
            assert (event["from"], event["sha256"]) == (header.sender, hashlib.sha256(raw).hexdigest())
            ((entry,), cursor) = await client.read()
            assert (entry.id, entry.format, entry.sender) == (sent.id, "edxml", header.sender)
            assert set(entry.to) == set(header.recipients)
            assert await client.fetch(entry) == raw
            assert (await client.submit(raw, XML)).duplicate
            assert await client.acknowledge(up_to=cursor) == 1


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of the national axis lie outside the repository")
async def test_a_status_goes_to_whose_document_it_answers(hub: RunningHub) -> None:
    """To ResponseFor/OrganId, which is another endpoint than the one that sends it."""
    messages = {path.read_bytes(): edxml.read(path.read_bytes()) for path in SAMPLES.glob("status_*.edxml")}
    codes = {code for header in messages.values() for code in (header.sender, *header.recipients)}
    assert len(messages) >= 9
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for code in codes:
            party = await hub.register(f"he-thong-{code}", code)
            clients[code] = await stack.enter_async_context(party.client(hub.url))
        for raw, header in messages.items():
            (organ,) = {response.organ for response in header.response_for}
            assert organ != header.sender
            sent = await clients[header.sender].submit(raw, XML)
            ((entry,), cursor) = await clients[organ].read()
            assert (entry.id, entry.to, entry.sender) == (sent.id, (organ,), header.sender)
            assert await clients[organ].fetch(entry) == raw
            await clients[organ].acknowledge(up_to=cursor)
        assert [(await client.read())[0] for client in clients.values()] == [[] for _ in codes]


# -- our own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "lane"), list(enumerate(LANES)))
async def test_the_priority_is_the_lane(pair: Pair, priority: int, lane: str) -> None:
    await pair.sender.submit(message(priority=priority), XML)
    (entry,) = await pair.page()
    assert entry.lane == lane


async def test_the_bytes_are_kept_whatever_their_layout(pair: Pair) -> None:
    plain = message()
    ways = [
        plain,
        b"\xef\xbb\xbf" + plain,
        plain + b"\r\n\r\n",
        plain.replace(b"\n", b"\r\n"),
        plain.replace(b"<e:edXML ", b"<!-- ghi ch\xc3\xba -->\n<e:edXML "),
        plain.replace(b"e:", b"edXML:").replace(b"xmlns:e=", b"xmlns:edXML="),
    ]
    for raw in ways:
        sent = await pair.sender.submit(raw, XML)
        assert not sent.duplicate
        assert await pair.receiver.fetch(sent.id) == raw
        await pair.check(sent.receipt.to_json(), raw)
    assert [entry.sha256 for entry in await pair.page()] == [hashlib.sha256(raw).hexdigest() for raw in ways]


async def test_one_to_several_agencies_by_code_and_alias(hub: RunningHub) -> None:
    pair = Pair(
        hub,
        await hub.register("ubnd-tinh", PROVINCE, aliases={PROVINCE: ("H63",)}),
        await hub.register("van-yen", VAN_YEN, DAI_SON, aliases={VAN_YEN: ("H63.31",)}),
    )
    async with pair.sender, pair.receiver:
        sent = await pair.sender.submit(message("H63", ("H63.31", DAI_SON, VAN_YEN, "H63")), XML)
        (entry,) = await pair.page()
        assert (entry.id, entry.to, entry.sender) == (sent.id, (VAN_YEN, DAI_SON), PROVINCE)
        ((own,), _) = await pair.sender.read()
        assert own.to == (PROVINCE,)


LARGE = "QUJD" * 500_000


async def pieces(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 100_000):
        yield raw[start : start + 100_000]


@pytest.mark.parametrize("streamed", [False, True], ids=["with length", "without length"])
@pytest.mark.parametrize("attachment", ["QUJD", LARGE], ids=["small", "large"])
async def test_a_message_of_any_size_comes_and_goes_in_a_stream(
    pair: Pair, http: aiohttp.ClientSession, attachment: str, streamed: bool
) -> None:
    raw = message(attachment=attachment)
    headers = {**pair.province.headers, "Content-Type": XML}
    for status in (202, 200):
        length = {} if streamed else {"Content-Length": str(len(raw))}
        async with http.post(
            f"{pair.hub.url}/v1/messages", data=pieces(raw), headers=headers | length
        ) as response:
            assert response.status == status
            location = response.headers["Location"]
    (entry,) = await pair.page()
    async with http.get(pair.hub.url + location, headers=pair.district.headers) as response:
        assert response.content_type == XML
        assert response.headers["Digest-SHA-256"] == entry.sha256
        assert await response.read() == raw
    files = [path for path in pair.hub.hub.blobs.root.rglob("*") if path.is_file()]
    assert len(files) == (attachment is LARGE)


async def test_a_large_message_that_breaks_off_in_its_attachment_leaves_nothing(
    pair: Pair, http: aiohttp.ClientSession
) -> None:
    raw = message(attachment=LARGE)[:-50]
    headers = {**pair.province.headers, "Content-Type": XML}
    async with http.post(f"{pair.hub.url}/v1/messages", data=pieces(raw), headers=headers) as response:
        members = check_problem(await response.json(content_type="application/problem+json"), "bad-xml")
    event = await pair.check(orjson.dumps(members), raw)
    assert (event["event"], event["code"]) == ("rejected", "bad-xml")
    assert [path for path in pair.hub.hub.blobs.root.rglob("*") if path.is_file()] == []


async def test_a_larger_message_than_the_hub_takes(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    hub = await start_hub(max_xml_bytes=1 << 20)
    province = await hub.register("ubnd-tinh", PROVINCE, VAN_YEN)
    headers = {**province.headers, "Content-Type": XML}
    raw = message(attachment=LARGE)
    async with http.post(f"{hub.url}/v1/messages", data=pieces(raw), headers=headers) as response:
        check_problem(await response.json(content_type="application/problem+json"), "too-large")
    assert await hub.connection.fetchval("select count(*) from message") == 0


async def test_its_delivery_is_proven_like_any_other(pair: Pair) -> None:
    raw = message()
    sent = await pair.sender.submit(raw, XML)
    entries: list[Entry] = await pair.page()
    await pair.receiver.refuse(entries[0], "Sai nơi nhận")
    state = await pair.state(sent.id)
    event = await pair.check(orjson.dumps(state), raw)
    assert (event["event"], event["id"]) == ("refused", f"edxml:{hashlib.sha256(raw).hexdigest()}")
    assert (await pair.sender.events(event["id"]))["format"] == "edxml"
