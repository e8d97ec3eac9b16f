"""Attachments: up and down in a stream, in parts, and never to whom they were not sent."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from protocol.client import Attachment
from protocol.client.hub import describe_file
from protocol.problems import Problem
from tests.support.desk import Answer
from tests.support.pair import Pair
from tests.support.parties import LUC_YEN, VAN_YEN, Party

CONTENT = random.Random(7).randbytes(300_001)
NAME = hashlib.sha256(CONTENT).hexdigest()


async def call(
    pair: Pair, http: aiohttp.ClientSession, method: str, party: Party, name: str = NAME, **options: object
) -> Answer:
    headers = {**party.headers, **options.pop("headers", {})}  # type: ignore[dict-item]
    url = f"{pair.hub.url}/v1/attachments/{name}"
    async with http.request(method, url, headers=headers, **options) as response:  # type: ignore[arg-type]
        return Answer(response.status, dict(response.headers), await response.read())


def described(name: str = NAME) -> tuple[Attachment, ...]:
    return (Attachment("Phụ lục số 1.xlsx", len(CONTENT), name),)


@pytest.fixture
async def sent(pair: Pair, http: aiohttp.ClientSession) -> Pair:
    """The attachment was uploaded and sent to the district."""
    answer = await call(pair, http, "PUT", pair.province, data=CONTENT)
    assert answer.status == 201
    await pair.sender.send(pair.province.document(VAN_YEN, attachments=described()))
    return pair


async def test_what_was_uploaded_is_downloaded_by_both(sent: Pair, http: aiohttp.ClientSession) -> None:
    for party in (sent.province, sent.district):
        answer = await call(sent, http, "GET", party)
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1023", 0, 1024),
        ("bytes=1000-", 1000, len(CONTENT)),
        ("bytes=-500", len(CONTENT) - 500, len(CONTENT)),
        ("bytes=300000-300000", 300_000, 300_001),
        ("bytes=300000-999999", 300_000, 300_001),
        ("bytes=-999999", 0, len(CONTENT)),
    ],
)
async def test_a_range(sent: Pair, http: aiohttp.ClientSession, asked: str, start: int, end: int) -> None:
    answer = await call(sent, http, "GET", sent.district, headers={"Range": asked})
    assert (answer.status, answer.body) == (206, CONTENT[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=300001-", "bytes=999999-1000000", "bytes=5-1", "bytes=a-b", "trang=1-2"])
async def test_a_range_that_is_not_there(sent: Pair, http: aiohttp.ClientSession, asked: str) -> None:
    answer = await call(sent, http, "GET", sent.district, headers={"Range": asked})
    answer.problem("range-not-satisfiable")


async def test_the_parts_make_the_whole(sent: Pair, http: aiohttp.ClientSession) -> None:
    parts = []
    for start in range(0, len(CONTENT), 99_999):
        headers = {"Range": f"bytes={start}-{start + 99_998}"}
        parts.append((await call(sent, http, "GET", sent.district, headers=headers)).body)
    assert b"".join(parts) == CONTENT


async def test_only_who_uploaded_it_or_was_sent_it_may_read_it(sent: Pair, http: aiohttp.ClientSession) -> None:
    stranger = await sent.hub.register("luc-yen", LUC_YEN)
    (await call(sent, http, "GET", stranger)).problem("not-found")
    # Nor is naming it in a message of one's own a way to it.
    async with stranger.client(sent.hub.url) as other:
        with pytest.raises(Problem) as caught:
            await other.send(stranger.document(LUC_YEN, attachments=described()))
    assert (caught.value.code, caught.value.extra["attachments"]) == ("attachment-missing", [NAME])
    (await call(sent, http, "GET", stranger)).problem("not-found")


async def test_bytes_that_the_hub_knows_must_be_sent_all_the_same(sent: Pair, http: aiohttp.ClientSession) -> None:
    """Knowing a digest is not having the file."""
    stranger = await sent.hub.register("luc-yen", LUC_YEN)
    (await call(sent, http, "PUT", stranger, data=b"")).problem("digest-mismatch")
    (await call(sent, http, "GET", stranger)).problem("not-found")
    answer = await call(sent, http, "PUT", stranger, data=CONTENT)
    assert (answer.status, answer.json()) == (201, {"sha256": NAME, "size": len(CONTENT)})
    assert (await call(sent, http, "GET", stranger)).body == CONTENT
    again = await call(sent, http, "PUT", stranger, data=CONTENT)
    assert (again.status, again.json()) == (200, answer.json())
    assert len(blobs(sent)) == 1


def blobs(pair: Pair) -> list[Path]:
    return [path for path in pair.hub.hub.blobs.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("body", [b"", CONTENT[:-1], CONTENT + b"\0", CONTENT[::-1]])
async def test_other_bytes_than_the_digest_names(pair: Pair, http: aiohttp.ClientSession, body: bytes) -> None:
    members = (await call(pair, http, "PUT", pair.province, data=body)).problem("digest-mismatch")
    assert members["received"] == hashlib.sha256(body).hexdigest()
    (await call(pair, http, "GET", pair.province)).problem("not-found")
    assert blobs(pair) == []


async def test_a_stream_without_length(pair: Pair, http: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(CONTENT), 1000):
            yield CONTENT[start : start + 1000]

    assert (await call(pair, http, "PUT", pair.province, data=pieces())).status == 201
    assert [path.read_bytes() for path in blobs(pair)] == [CONTENT]


async def test_an_empty_attachment(pair: Pair, http: aiohttp.ClientSession) -> None:
    name = hashlib.sha256(b"").hexdigest()
    assert (await call(pair, http, "PUT", pair.province, name, data=b"")).json() == {"sha256": name, "size": 0}
    assert (await call(pair, http, "GET", pair.province, name)).body == b""


async def test_a_message_is_accepted_once_its_attachment_is_there(pair: Pair, http: aiohttp.ClientSession) -> None:
    message = pair.sender.sign(pair.province.document(VAN_YEN, attachments=described()))
    with pytest.raises(Problem) as caught:
        await pair.sender.submit(message)
    assert caught.value.code == "attachment-missing"
    await call(pair, http, "PUT", pair.province, data=CONTENT)
    assert not (await pair.sender.submit(message)).duplicate
    assert (await call(pair, http, "GET", pair.district)).body == CONTENT


async def test_a_blob_that_was_lost_is_the_hubs_fault(sent: Pair, http: aiohttp.ClientSession) -> None:
    (path,) = blobs(sent)
    path.unlink()
    (await call(sent, http, "GET", sent.district)).problem("internal")


async def test_the_client_goes_on_where_a_download_stopped(sent: Pair, tmp_path: Path) -> None:
    target = tmp_path / "phụ lục.xlsx"
    part = target.with_name(target.name + ".part")
    part.write_bytes(CONTENT[:123_456])
    ((entry,), _) = await sent.receiver.read()
    await sent.receiver.download(entry.document.attachments[0], target)
    assert target.read_bytes() == CONTENT
    assert describe_file(target).sha256 == NAME
    # A beginning that was something else is noticed, and nothing is left.
    target.unlink()
    part.write_bytes(b"\0" * 123_456)
    with pytest.raises(Problem) as caught:
        await sent.receiver.download(entry.document.attachments[0], target)
    assert caught.value.code == "digest-mismatch"
    assert list(tmp_path.glob("phụ*")) == []


async def test_the_receipt_covers_what_names_the_attachment(sent: Pair) -> None:
    ((entry,), _) = await sent.receiver.read()
    timeline = await sent.receiver.events(entry.id)
    event = orjson.loads(timeline["accepted"]["event"])
    assert event["sha256"] == entry.sha256
    assert [attachment.sha256 for attachment in entry.document.attachments] == [NAME]
