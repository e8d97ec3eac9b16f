"""Clients that dawdle, leave in the middle, or say several things at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator

import orjson
import pytest

from protocol.message import seal
from protocol.signature import JOSE_MEDIA_TYPE
from tests.conftest import RunningHub, StartHub
from tests.support.load import whole_mailbox
from tests.support.parties import PROVINCE, VAN_YEN, Party
from tests.support.raw import RawConnection, head, raw_connection, request, served_here
from tests.support.until import until

JOSE = {"Content-Type": JOSE_MEDIA_TYPE}
NDJSON = {"Content-Type": "application/x-ndjson"}
CONTENT = "nội dung tờ trình về việc phê duyệt quy hoạch".encode() * 50_000
ENDLESS_HEAD = b"GET /v1/mailbox HTTP/1.1\r\n", b"X-A: b\r\n"


class Scene:
    """A hub with a sender and a receiver."""

    def __init__(self, hub: RunningHub, sender: Party, receiver: Party) -> None:
        self.hub = hub
        self.sender = sender
        self.receiver = receiver
        self.incoming = hub.hub.blobs.root / "incoming"

    def message(self, **members: object) -> bytes:
        return seal(self.sender.document(VAN_YEN, **members), self.sender.signer)

    def post(self, body: bytes, media_type: dict[str, str] = JOSE) -> bytes:
        return request("POST", "/v1/messages", self.sender.headers | media_type, body)

    async def check_served(self) -> None:
        """Others get their answers."""
        async with self.sender.client(self.hub.url, retry_seconds=0) as client:
            assert (await client.read())[0] == []

    async def check_nothing_stored(self) -> None:
        """Neither a message nor an attachment nor a piece of one, and nothing on its way."""
        connection = self.hub.connection
        for table in ("message", "submission", "inbox", "attachment", "attachment_owner"):
            assert await connection.fetchval(f"select count(*) from {table}") == 0, table
        await until(lambda: not list(self.incoming.iterdir()), "what was uploaded in part is gone")
        assert [path for path in self.hub.hub.blobs.root.rglob("*") if path.is_file()] == []
        await until(lambda: self.hub.hub.admission.used == 0, "no room is held")


@pytest.fixture
async def scene(start_hub: StartHub) -> Scene:
    hub = await start_hub(request_seconds=0.5)
    return Scene(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN))


# -- slow ones --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _dribbling(connection: RawConnection, first: bytes, again: bytes) -> AsyncIterator[None]:
    """Send `first`, then `again` and again, a byte at a time, for as long as the other side takes it."""

    async def dribble() -> None:
        with contextlib.suppress(ConnectionError):
            for byte in itertools.chain(first, itertools.cycle(again)):
                await connection.send(bytes([byte]))
                await asyncio.sleep(0.01)  # the pace of the attack

    task = asyncio.create_task(dribble())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(scene: Scene) -> None:
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(raw_connection(scene.hub.url)) for _ in range(20)]
        for connection in slow:
            await stack.enter_async_context(_dribbling(connection, *ENDLESS_HEAD))
        await scene.check_served()
        for connection in slow:
            assert await connection.ended() == b""
        await scene.check_served()


async def test_a_connection_that_says_nothing_is_closed(scene: Scene) -> None:
    async with raw_connection(scene.hub.url) as connection:
        assert await connection.ended() == b""


async def test_the_second_head_on_a_connection_is_not_waited_for_either(scene: Scene) -> None:
    async with raw_connection(scene.hub.url) as connection:
        await connection.send(request("GET", "/healthz/live", {}))
        assert (await connection.answer()).status == 200
        async with _dribbling(connection, *ENDLESS_HEAD):
            assert await connection.ended() == b""


@pytest.mark.parametrize(
    ("method", "path", "media_type"),
    [
        ("POST", "/v1/messages", JOSE),
        ("POST", "/v1/messages", NDJSON),
        ("POST", "/v1/messages", {"Content-Type": "application/xml"}),
        ("POST", "/v1/mailbox/ack", {"Content-Type": "application/json"}),
        ("PUT", f"/v1/attachments/{hashlib.sha256(CONTENT).hexdigest()}", {}),
    ],
    ids=["single", "batch", "edxml", "ack", "attachment"],
)
async def test_a_body_that_stands_still_is_given_up(
    scene: Scene, method: str, path: str, media_type: dict[str, str]
) -> None:
    headers = scene.sender.headers | media_type | {"Content-Length": "100000"}
    async with raw_connection(scene.hub.url) as connection:
        await connection.send(head(method, path, headers) + b"eyJhbGciOi")
        answer = await connection.answer()
        assert (answer.status, answer.json()["code"], answer.json()["retryable"]) == (408, "timeout", True)
        assert answer.headers["connection"] == "close"
    await scene.check_nothing_stored()


async def test_a_message_that_comes_byte_by_byte_is_given_up(scene: Scene) -> None:
    """It never stands still, and yet it would never end."""
    async with raw_connection(scene.hub.url) as connection:
        headers = scene.sender.headers | JOSE | {"Content-Length": "100000"}
        await connection.send(head("POST", "/v1/messages", headers))
        async with _dribbling(connection, b"eyJ", b"h"):
            answer = await connection.answer()
        assert (answer.status, answer.json()["code"]) == (408, "timeout")
    await scene.check_nothing_stored()


# -- those that leave -------------------------------------------------------------------------------


def _cut_bodies(scene: Scene) -> dict[str, bytes]:
    """Requests of which the last part is missing."""
    single = scene.message()
    batch = b"\n".join(scene.message() for _ in range(5))
    upload = f"/v1/attachments/{hashlib.sha256(CONTENT).hexdigest()}"
    chunked = scene.sender.headers | {"Transfer-Encoding": "chunked"}
    chunk = b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT)
    return {
        "single": scene.post(single)[:-20],
        "batch": scene.post(batch, NDJSON)[: -len(single) // 2],
        "batch, at the end of a line": scene.post(batch + b"\n" + single, NDJSON)[: -len(single)],
        "attachment": request("PUT", upload, scene.sender.headers, CONTENT)[:-1],
        "chunked attachment, in a chunk": head("PUT", upload, chunked) + chunk[:-10],
        "chunked attachment, whole but for the end": head("PUT", upload, chunked) + chunk,
        "chunked message, whole but for the end": head("POST", "/v1/messages", chunked | JOSE)
        + b"%x\r\n%b\r\n" % (len(single), single),
    }


@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(scene: Scene, abruptly: bool) -> None:
    for name, data in _cut_bodies(scene).items():
        async with raw_connection(scene.hub.url) as connection:
            await connection.send(data)
            if "attachment" in name:
                await until(lambda: list(scene.incoming.iterdir()), f"{name}: the upload has begun")
            if abruptly:
                await connection.close()
            else:
                connection.finish()
                await connection.ended()
        await scene.check_nothing_stored()
    await scene.check_served()
    async with scene.sender.client(scene.hub.url) as client:  # and all of it can be sent again
        assert not (await client.submit(scene.message())).duplicate


async def test_a_client_that_leaves_before_the_answer_has_sent_its_message(scene: Scene) -> None:
    raw = scene.message(id="công-văn-72")
    connection = scene.hub.connection
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(7001)")  # commits are held up
        async with raw_connection(scene.hub.url) as leaving:
            await leaving.send(scene.post(raw))
            waiting = "select true from pg_locks where locktype = 'advisory' and objid = 7001 and not granted"
            await until(lambda: connection.fetchval(waiting), "the message is being committed")
        await until(lambda: not served_here(leaving.local_port), "the hub has noticed")
    async with scene.receiver.client(scene.hub.url) as receiver:
        entries, _ = await receiver.read(wait=30)
        async with scene.sender.client(scene.hub.url) as sender:
            again = await sender.submit(raw)
            assert again.duplicate
            assert (await sender.events("công-văn-72"))["accepted"] == orjson.loads(again.receipt.to_json())
        assert [entry.id for entry in entries] == [again.id]
        assert [entry.id for entry in await whole_mailbox(receiver)] == [again.id]


@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
async def test_a_reader_that_leaves_is_not_waited_for(scene: Scene, abruptly: bool) -> None:
    waiting = scene.hub.hub.wake
    poll = request("GET", "/v1/mailbox?wait=60", scene.receiver.headers)
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(raw_connection(scene.hub.url)) for _ in range(10)]
        for reader in readers:
            await reader.send(poll)
        await until(lambda: waiting.waiting == len(readers), "the readers wait")
        for reader in readers[1:]:
            if abruptly:
                await reader.close()
            else:
                reader.finish()
        await until(lambda: waiting.waiting == 1, "only the one that stayed is waited for")
        async with scene.sender.client(scene.hub.url) as sender:
            sent = await sender.submit(scene.message())
        (entry,) = (await readers[0].answer()).json()["entries"]
        assert entry["id"] == sent.id
    await until(lambda: waiting.waiting == 0, "nobody waits")


# -- those that say several things at once ----------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(scene: Scene) -> None:
    raws = [scene.message() for _ in range(3)]
    headers = scene.sender.headers | NDJSON
    path = "/v1/messages/"
    async with raw_connection(scene.hub.url) as connection:
        await connection.send(
            b"".join(scene.post(raw) for raw in raws)
            + scene.post(raws[0])
            + scene.post(b"khong.phai.jws")
            + request("POST", "/v1/messages", headers, b"\n".join(raws))
            + request("GET", "/v1/nowhere", {})
            + request("GET", "/v1/mailbox", scene.receiver.headers)
        )
        answers = [await connection.answer() for _ in range(8)]
        assert [answer.status for answer in answers] == [202, 202, 202, 200, 400, 200, 404, 200]
        ids = [answer.json()["id"] for answer in answers[:3]]
        assert answers[3].json()["id"] == ids[0]
        assert [orjson.loads(line)["id"] for line in answers[5].body.splitlines()] == ids
        entries = answers[7].json()["entries"]
        assert [entry["jws"].encode() for entry in entries] == raws
        # The connection is as good as new.
        await connection.send(request("GET", path + ids[0], scene.sender.headers))
        assert (await connection.answer()).body == raws[0]


async def test_what_is_not_http_is_refused_and_closed(scene: Scene) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"xin ch\xc3\xa0o\r\n\r\n", b"\0" * 4096):
        async with raw_connection(scene.hub.url) as connection:
            await connection.send(nonsense)
            said = await connection.ended()
            assert said == b"" or said.startswith(b"HTTP/1.")
    await scene.check_served()


async def test_a_chunk_that_is_none_stores_nothing(scene: Scene) -> None:
    upload = f"/v1/attachments/{hashlib.sha256(CONTENT).hexdigest()}"
    headers = scene.sender.headers | {"Transfer-Encoding": "chunked"}
    async with raw_connection(scene.hub.url) as connection:
        await connection.send(head("PUT", upload, headers) + b"5\r\nn\xe1\xbb\x99i\r\n")
        await until(lambda: list(scene.incoming.iterdir()), "the upload has begun")
        await connection.send(b"hai\r\nkhong phai so\r\n")
        answer = await connection.answer()
        # aiohttp does not always tell the handler what is wrong; then nothing comes, until that is too long.
        assert (answer.status, answer.json()["code"]) in ((400, "bad-request"), (408, "timeout"))
    await scene.check_nothing_stored()
    await scene.check_served()
