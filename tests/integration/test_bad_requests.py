"""Requests that are wrong before any message is looked at: credentials, sizes, addresses, parameters."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio
from yarl import URL

from hub.directory import change
from hub.store.embedded import EmbeddedPostgres
from protocol.message import seal
from tests.support import raw
from tests.support.desk import Answer, Desk, open_desk
from tests.support.parties import PROVINCE, VAN_YEN, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHA256 = hashlib.sha256(b"").hexdigest()
PROTECTED = [
    ("POST", "/v1/messages"),
    ("GET", "/v1/messages/7"),
    ("GET", "/v1/messages/7/events"),
    ("GET", "/v1/mailbox"),
    ("POST", "/v1/mailbox/ack"),
    ("PUT", f"/v1/attachments/{SHA256}"),
    ("GET", f"/v1/attachments/{SHA256}"),
]
LIMITS = {
    "max_message_bytes": 64 << 10,
    "max_batch_bytes": 256 << 10,
    "max_batch_messages": 20,
    "max_xml_bytes": 2 << 20,
    "max_attachment_bytes": 1 << 20,
}
JOSE = {"Content-Type": "application/jose"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One hub with small limits for all these tests."""
    async with open_desk(postgres, tmp_path_factory.mktemp("bad-requests"), **LIMITS) as desk:
        yield desk


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_stored(desk: Desk) -> AsyncIterator[None]:
    """None of these requests changes what is stored, nor leaves a file behind."""
    before = await desk.stored()
    yield
    assert await desk.stored() == before
    assert [path for path in desk.hub.blobs.root.rglob("*") if path.is_file()] == []


# -- credentials ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_no_token(desk: Desk, method: str, path: str) -> None:
    (await desk.request(method, path)).problem("unauthenticated")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer lt_khong_ai_biet",
        "Bearer",
        "Bearer ",
        "bearer\tlt_x",
        "Bearer lt_một",
        "Bearer " + "x" * 201,
        "Basic dWJuZDp0aW5o",
        "lt_khong_ai_biet",
        "",
    ],
)
async def test_a_token_that_nobody_knows(desk: Desk, header: str) -> None:
    for method, path in PROTECTED:
        (await desk.request(method, path, headers={"Authorization": header})).problem("unauthenticated")


async def make_token(desk: Desk, **options: Any) -> dict[str, str]:
    token = await change.issue_token(desk.connection, keep=100, **options)
    await desk.follow()
    return {"Authorization": f"Bearer {token}"}


async def test_a_revoked_token(desk: Desk) -> None:
    await change.add_endpoint(desk.connection, "cũ")
    headers = await make_token(desk, endpoint="cũ")
    assert (await desk.request("GET", "/v1/mailbox", headers=headers)).status == 200
    assert await change.revoke_credentials(desk.connection, "cũ") == 1
    await desk.follow()
    for method, path in PROTECTED:
        (await desk.request(method, path, headers=headers)).problem("unauthenticated")


async def test_an_expired_token(desk: Desk) -> None:
    headers = await make_token(desk, endpoint="ubnd-tinh", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for method, path in PROTECTED:
        members = (await desk.request(method, path, headers=headers)).problem("unauthenticated")
        assert "expired" in members["detail"]


async def test_the_token_of_a_disabled_endpoint(desk: Desk) -> None:
    for method, path in PROTECTED:
        members = (await desk.request(method, path, desk.far)).problem("forbidden")
        assert "disabled" in members["detail"]


@pytest.mark.parametrize("role", ["operator", "auditor"])
async def test_an_administrators_token_on_an_endpoints_operation(desk: Desk, role: str) -> None:
    headers = await make_token(desk, role=role)
    for method, path in PROTECTED:
        if not path.endswith("/events"):  # which administrators may ask for
            (await desk.request(method, path, headers=headers)).problem("forbidden")
    (await desk.request("GET", "/v1/messages/7/events", headers=headers)).problem("not-found")


async def test_a_wrong_token_is_told_even_where_none_is_needed(desk: Desk) -> None:
    (await desk.request("GET", "/v1/status", headers={"Authorization": "Bearer sai"})).problem("unauthenticated")


# -- addresses, methods, media types ------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/messages/", "/v2/messages", "/v1/mailbox/ack/1", "/..%2f..%2fetc"]
)
async def test_an_unknown_address(desk: Desk, path: str) -> None:
    for method in ("GET", "POST"):
        (await desk.request(method, path, desk.province)).problem("not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", {"POST"}),
        ("DELETE", "/v1/mailbox", {"GET"}),
        ("GET", "/v1/mailbox/ack", {"POST"}),
        ("POST", f"/v1/attachments/{SHA256}", {"GET", "PUT"}),
        ("PATCH", "/healthz/live", {"GET"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_is_not_answered(desk: Desk, method: str, path: str, allowed: set[str]) -> None:
    answer = await desk.request(method, path, desk.province)
    answer.problem("method-not-allowed")
    assert set(answer.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "jose",
    ],
)
async def test_a_media_type_that_is_not_taken(desk: Desk, media_type: str) -> None:
    members = (await desk.post(b"e30.e30.e30", media_type)).problem("unsupported-media-type")
    assert "application/jose" in members["detail"]


@pytest.mark.parametrize(
    "message", ["%00", "a%00b", "%ff", "%ed%a0%80", "x" * 513, "%0a", "khong-co", "%F0%9F%93%84", "{", "%2e%2e"]
)
async def test_a_message_that_is_not_there(desk: Desk, message: str) -> None:
    for path in (f"/v1/messages/{message}", f"/v1/messages/{message}/events"):
        url = URL(desk.url + path, encoded=True)
        async with desk.http.get(url, headers=desk.province.headers) as response:
            answer = Answer(response.status, dict(response.headers), await response.read())
        answer.problem("not-found")


@pytest.mark.parametrize("name", ["ab", "A" * 64, "g" * 64, SHA256 + "0", "..%2f" + SHA256[:61], "%00" * 64])
async def test_an_attachment_whose_name_is_no_digest(desk: Desk, name: str) -> None:
    (await desk.request("GET", f"/v1/attachments/{name}", desk.province)).problem("bad-request")
    (await desk.request("PUT", f"/v1/attachments/{name}", desk.province, data=b"x")).problem("bad-request")


async def test_an_attachment_with_other_bytes(desk: Desk) -> None:
    answer = await desk.request("PUT", f"/v1/attachments/{SHA256}", desk.province, data="phụ lục".encode())
    members = answer.problem("digest-mismatch")
    assert members["received"] == hashlib.sha256("phụ lục".encode()).hexdigest()
    (await desk.request("GET", f"/v1/attachments/{SHA256}", desk.province)).problem("not-found")


# -- the mailbox --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=nhi%E1%BB%81u",
        "limit=1.5",
        "limit=99999999999999999999",
        "wait=-1",
        "wait=61",
        "wait=nan",
        "wait=inf",
        "wait=",
        "after=",
        "after=0",
        "after=0.0.0.0",
        "after=-1.0.0",
        "after=%D9%A3.0.0",
        "after=0.0.0%0a",
        "after=9999999999999999999.0.0",
        "limit=1&limit=2",
        "wait=0&wait=0",
        "cursor=0.0.0",
        "Limit=1",
        "=1",
        "limit=1&%00=x",
    ],
)
async def test_a_query_that_is_wrong(desk: Desk, query: str) -> None:
    members = (await desk.request("GET", f"/v1/mailbox?{query}", desk.province)).problem("bad-request")
    assert members["detail"]


DEEP = b'{"entries":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"up_to":"0.0"}',
        b'{"up_to":"0.0.0\\n"}',
        b'{"up_to":5}',
        b'{"upto":"0.0.0"}',
        b'{"entries":[0]}',
        b'{"entries":[-1]}',
        b'{"entries":[1.5]}',
        b'{"entries":[9007199254740992]}',
        b'{"entries":["1"]}',
        b'{"entries":[' + b"1," * 10_000 + b"1]}",
        b'{"refuse":[{"seq":1}]}',
        b'{"refuse":[{"seq":1,"reason":""}]}',
        b'{"refuse":[{"seq":1,"reason":"a\\u0000b"}]}',
        b'{"refuse":[{"seq":1,"reason":"a\\ud800b"}]}',
        b'{"refuse":[{"seq":1,"reason":"' + b"x" * 501 + b'"}]}',
        DEEP,
    ],
    ids=range(21),
)
async def test_an_acknowledgement_that_is_wrong(desk: Desk, body: bytes) -> None:
    (await desk.request("POST", "/v1/mailbox/ack", desk.province, data=body)).problem("bad-request")


async def test_acknowledging_past_the_end_of_an_empty_mailbox(desk: Desk) -> None:
    for asked in (
        {"up_to": "1.0.0"},
        {"up_to": "0.0.999999999999999999"},
        {"entries": [1]},
        {"refuse": [{"seq": 1, "reason": "sai nơi nhận"}]},
    ):
        answer = await desk.request("POST", "/v1/mailbox/ack", desk.province, data=orjson.dumps(asked))
        answer.problem("beyond-end")


async def test_acknowledging_nothing_is_nothing(desk: Desk) -> None:
    for asked in ({}, {"up_to": "0.0.0"}, {"entries": []}):
        answer = await desk.request("POST", "/v1/mailbox/ack", desk.province, data=orjson.dumps(asked))
        assert answer.json() == {"acknowledged": 0, "refused": 0}


# -- batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"\n", b"\n\n\r\n \n"])
async def test_a_batch_without_a_line(desk: Desk, body: bytes) -> None:
    (await desk.post(body, "application/x-ndjson")).problem("bad-request")


async def test_a_batch_with_too_many_lines(desk: Desk) -> None:
    lines = [seal(desk.province.document(VAN_YEN), desk.province.signer) for _ in range(21)]
    members = (await desk.post(b"\n".join(lines), "application/x-ndjson")).problem("too-large")
    assert members["limit"] == 20


async def test_a_line_of_a_batch_that_is_too_large_for_a_message(desk: Desk) -> None:
    large = seal(desk.province.document(VAN_YEN, content="x" * (70 << 10)), desk.province.signer)
    answer = await desk.post(large + b"\nrac", "application/x-ndjson")
    assert answer.status == 200
    assert [orjson.loads(line)["code"] for line in answer.body.splitlines()] == ["too-large", "not-a-jws"]


# -- sizes --------------------------------------------------------------------------------------------

LARGE = [
    ("POST", "/v1/messages", "application/jose", "max_message_bytes"),
    ("POST", "/v1/messages", "application/x-ndjson", "max_batch_bytes"),
    ("POST", "/v1/messages", "application/xml", "max_xml_bytes"),
    ("PUT", f"/v1/attachments/{SHA256}", "application/octet-stream", "max_attachment_bytes"),
]


def headers_of(party: Party, media_type: str, **more: str) -> dict[str, str]:
    return {**party.headers, "Content-Type": media_type, **more}


def problem_of(answer: raw.Answer, code: str) -> dict[str, Any]:
    headers = {name.title(): value for name, value in answer.headers.items()}
    return Answer(answer.status, {**headers, "WWW-Authenticate": "Bearer "}, answer.body).problem(code)


@pytest.mark.parametrize(("method", "path", "media_type", "limit"), LARGE)
async def test_a_declared_length_is_refused_before_the_body(
    desk: Desk, method: str, path: str, media_type: str, limit: str
) -> None:
    """Only the head is sent; the answer comes all the same, and says that the connection ends."""
    for length in (LIMITS[limit] + 1, 10**15):
        async with raw.raw_connection(desk.url) as connection:
            headers = headers_of(desk.province, media_type, **{"Content-Length": str(length)})
            await connection.send(raw.head(method, path, headers))
            answer = await connection.answer()
            assert problem_of(answer, "too-large")["limit"] == LIMITS[limit]
            assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("method", "path", "media_type", "limit"), LARGE)
async def test_a_body_without_length_is_refused_when_it_passes_the_limit(
    desk: Desk, method: str, path: str, media_type: str, limit: str
) -> None:
    """It would go on for ever; after a little more than the limit the answer is there."""
    async with raw.raw_connection(desk.url) as connection:
        headers = headers_of(desk.province, media_type, **{"Transfer-Encoding": "chunked"})
        await connection.send(raw.head(method, path, headers))
        answer = asyncio.create_task(connection.answer())
        chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
        sent = 0
        while not answer.done() and sent < 4 * LIMITS[limit] + (4 << 20):
            try:
                await connection.send(chunk)
            except ConnectionError:
                break
            sent += 0x4000
            await asyncio.sleep(0)
        assert problem_of(await answer, "too-large")["limit"] == LIMITS[limit]


async def test_the_largest_that_is_accepted(desk: Desk) -> None:
    """A body of exactly the limit is read to its end."""
    (await desk.post(b"a" * LIMITS["max_message_bytes"])).problem("not-a-jws")
    (await desk.post(b"a" * (LIMITS["max_message_bytes"] + 1))).problem("too-large")


@pytest.mark.parametrize("media_type", ["application/jose", "application/x-ndjson", "application/xml"])
async def test_a_small_body_that_unpacks_to_a_large_one(desk: Desk, media_type: str) -> None:
    """16 MiB of zeros are 16 KiB when packed: the limit holds for what they unpack to."""
    packed = gzip.compress(bytes(16 << 20))
    assert len(packed) < LIMITS["max_message_bytes"]
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    answer = await desk.request("POST", "/v1/messages", desk.province, data=packed, headers=headers)
    answer.problem("too-large")


async def test_a_body_that_is_not_packed_as_it_says(desk: Desk) -> None:
    for encoding in ("gzip", "deflate"):
        headers = {"Content-Type": "application/jose", "Content-Encoding": encoding}
        answer = await desk.request("POST", "/v1/messages", desk.province, data=b"khong nen", headers=headers)
        answer.problem("bad-request")


@pytest.mark.parametrize("bad", [b"xyz\r\nabc\r\n", b"-5\r\nabc\r\n", b"5\r\nabcdefgh\r\n"])
async def test_chunks_that_are_malformed(desk: Desk, bad: bytes) -> None:
    async with raw.raw_connection(desk.url) as connection:
        headers = headers_of(desk.province, "application/jose", **{"Transfer-Encoding": "chunked"})
        await connection.send(raw.head("POST", "/v1/messages", headers) + bad)
        problem_of(await connection.answer(), "bad-request")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"xin chao\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/mailbox HTTP/1.1\r\nHost: hub\r\nBad Header: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v1/mailbox HTTP/1.1\r\nHost: hub\r\nX-Dai: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: hub\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=range(9),
)
async def test_what_is_not_http(desk: Desk, request_bytes: bytes) -> None:
    async with raw.raw_connection(desk.url) as connection:
        await connection.send(request_bytes)
        problem_of(await connection.answer(), "bad-request")
        assert await connection.ended() == b""


async def test_the_hub_still_answers(desk: Desk) -> None:
    assert (await desk.request("GET", "/healthz/ready")).status == 200
    assert (await desk.request("GET", "/v1/mailbox", desk.province)).json()["entries"] == []
    assert PROVINCE in desk.province.agencies
