"""PostgreSQL loses connections, loses answers, goes away: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import orjson
import pytest

from hub import tasks
from hub.app import Hub
from hub.config import make
from hub.evidence.keys import make_hub_key
from hub.listener import listen
from hub.relay import acknowledge, commit
from hub.store import reconnect
from protocol.client import HubClient, Problem, Sent
from protocol.message import seal
from protocol.signature import JOSE_MEDIA_TYPE
from tests.conftest import RunningHub, StartHub
from tests.support.load import Ledger, Reader, check_ended, sign_messages, whole_mailbox
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN
from tests.support.proxy import Proxy
from tests.support.until import until

TERMINATE = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and application_name like 'lienthong%'"
)


async def test_terminated_backends_lose_and_double_nothing(hub: RunningHub) -> None:
    senders = [await hub.register("ubnd-tinh", PROVINCE), await hub.register("luc-yen", LUC_YEN)]
    receivers = {
        "pages": await hub.register("van-yen", VAN_YEN),
        "entries": await hub.register("dai-son", DAI_SON),
    }
    loads = [sign_messages(sender, 150, (VAN_YEN, DAI_SON)) for sender in senders]
    ledger = Ledger(sum(map(len, loads)))
    readers = {how: Reader(how, limit=10) for how in receivers}
    complete = asyncio.Event()

    async def terminated() -> bool:
        return bool(await hub.connection.fetchval(TERMINATE))

    async def terminate() -> None:
        for part in range(1, 4):
            await ledger.reached(ledger.expected * part // 4)
            await until(terminated, "the hub had connections")
            await readers["entries"].reached(ledger.expected * part // 5)
            await until(terminated, "the hub has connected again")

    async with contextlib.AsyncExitStack() as stack:
        writing = [await stack.enter_async_context(sender.client(hub.url)) for sender in senders]
        reading = {
            how: await stack.enter_async_context(receiver.client(hub.url)) for how, receiver in receivers.items()
        }
        async with asyncio.TaskGroup() as following:
            for how, client in reading.items():
                following.create_task(readers[how].follow(client, complete))
            async with asyncio.TaskGroup() as submitting:
                submitting.create_task(terminate())
                for client, load in zip(writing, loads, strict=True):
                    submitting.create_task(ledger.submit_singles(client, load[:90]))
                    submitting.create_task(ledger.submit_batches(client, load[90:], 6))
            complete.set()
        await ledger.check_receipts(writing[0])
        for how, reader in readers.items():
            ledger.check_mailbox(reader.seen)
            assert await whole_mailbox(reading[how]) == []
        some = [sent.id for sent in list(ledger.receipts.values())[::10]]
        await check_ended(reading["pages"], some, "van-yen")
        await check_ended(reading["entries"], some, "dai-son")


# -- answers that are lost --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _hub_behind(
    proxy: Proxy, database_url: str, connection: asyncpg.Connection, data: Path
) -> AsyncIterator[RunningHub]:
    """A hub that reaches its database through `proxy` only."""
    with tempfile.TemporaryDirectory(prefix="lt-") as folder:  # a socket's path must be short
        async with proxy.before_postgres(database_url, Path(folder)) as url:
            config = make(database_url=url, port=0, data_dir=str(data))
            make_hub_key(config.hub_key_file)
            hub = Hub(config, url)
            await hub.start()
            try:
                listener = listen("127.0.0.1", 0)
                hub.serve(listener, None)
                yield RunningHub(hub, f"http://127.0.0.1:{listener.getsockname()[1]}", connection)
            finally:
                await hub.stop()


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    proxy = Proxy()
    async with _hub_behind(proxy, database_url, connection, tmp_path) as hub:
        sender = await hub.register("ubnd-tinh", PROVINCE)
        receiver = await hub.register("van-yen", VAN_YEN)
        async with (
            sender.client(hub.url, retry_seconds=0) as client,
            receiver.client(hub.url, retry_seconds=0) as reader,
        ):
            warm = 0
            committers = "select count(*) from pg_stat_activity where datname = current_database()"
            committers += " and application_name like 'lienthong commit %'"
            while await connection.fetchval(committers) < 2:  # each opens its connection when first used
                await client.send(sender.document(VAN_YEN))
                warm += 1
            proxy.hold()
            message = seal(sender.document(VAN_YEN, id="công-văn-01"), sender.signer)
            sending = asyncio.create_task(client.submit(message))
            stored = "select message from submission where sender_id = 'công-văn-01'"
            first = await until(lambda: connection.fetchval(stored), "the message is committed")
            assert not sending.done()
            await proxy.cut()
            sent = await sending
            assert (sent.id, sent.duplicate) == (str(first), False)
            entries = await whole_mailbox(reader)
            assert len(entries) == warm + 1
            assert [entry.id for entry in entries if entry.sender_id == "công-văn-01"] == [sent.id]
            again = await client.submit(message)
            assert (again.id, again.duplicate, again.receipt) == (sent.id, True, sent.receipt)


async def test_an_acknowledgement_whose_answer_was_lost_stands(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    proxy = Proxy()
    async with _hub_behind(proxy, database_url, connection, tmp_path) as hub:
        sender = await hub.register("ubnd-tinh", PROVINCE)
        receiver = await hub.register("van-yen", VAN_YEN)
        async with sender.client(hub.url) as client, receiver.client(hub.url, retry_seconds=0) as reader:
            sent = [await client.send(sender.document(VAN_YEN)) for _ in range(4)]
            (first, second, third, fourth), _ = await reader.read()
            assert await reader.acknowledge(first) == 1
            async with connection.transaction():
                await connection.execute("select from mailbox for update")
                acknowledging = asyncio.create_task(reader.acknowledge(third))
                waiting = (
                    "select true from pg_stat_activity where datname = current_database()"
                    " and application_name = 'lienthong acknowledge' and wait_event_type = 'Lock'"
                )
                await until(lambda: connection.fetchval(waiting), "the acknowledgement is being written")
                proxy.hold()
            written = "select count(*) = 2 from progress"
            await until(lambda: connection.fetchval(written), "the acknowledgement is committed")
            assert not acknowledging.done()
            await proxy.cut()
            with pytest.raises(Problem) as failed:
                await acknowledging
            assert (failed.value.code, failed.value.retryable) == ("store-unavailable", True)
            assert await until(lambda: _quietly(reader.acknowledge(third)), "the hub is back") == "0"
            assert await reader.acknowledge(third, second) == 1
            assert [entry.seq for entry in await whole_mailbox(reader)] == [fourth.seq]
            await check_ended(client, [one.id for one in sent[:3]], "van-yen")


async def _quietly(acknowledging: asyncio.Future[int]) -> str:
    """The number as text; empty when the hub says to come back."""
    try:
        return str(await acknowledging)
    except Problem as problem:
        assert problem.retryable
        return ""


async def test_a_connection_that_went_silent_is_given_up(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reset, no end: the other side just says nothing any more, as after a failed switch."""
    monkeypatch.setattr(reconnect, "COMMAND_SECONDS", 2.0)  # which those that are answered must not take
    monkeypatch.setattr(commit, "RETRY_SECONDS", 0.2)
    proxy = Proxy()
    async with _hub_behind(proxy, database_url, connection, tmp_path) as hub:
        sender = await hub.register("ubnd-tinh", PROVINCE)
        receiver = await hub.register("van-yen", VAN_YEN)
        async with sender.client(hub.url) as client, receiver.client(hub.url) as reader:
            await client.send(sender.document(VAN_YEN))
            ((first,), _) = await reader.read()
            assert await reader.acknowledge(first) == 1
            document = sender.document(VAN_YEN)
            message = seal(document, sender.signer)
            proxy.hold()
            async with sender.client(hub.url, retry_seconds=0) as hasty:
                with pytest.raises(Problem) as failed:
                    await hasty.submit(message)
            assert (failed.value.code, failed.value.retryable) == ("store-unavailable", True)
            await proxy.cut()
            await client.submit(message)
            (entry,) = await whole_mailbox(reader)
            assert entry.sender_id == document.id
            assert await reader.acknowledge(entry) == 1


async def test_while_the_store_is_away_everything_says_so(
    database_url: str,
    connection: asyncpg.Connection,
    tmp_path: Path,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """503, retryable, the hub's fault: for whatever needs the store. Then everything works again."""
    monkeypatch.setattr(commit, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(acknowledge, "CONNECT_SECONDS", 0.2)
    proxy = Proxy()
    async with _hub_behind(proxy, database_url, connection, tmp_path) as hub:
        sender = await hub.register("ubnd-tinh", PROVINCE)
        receiver = await hub.register("van-yen", VAN_YEN)
        file = tmp_path / "phụ lục.xlsx"
        file.write_bytes("số liệu".encode() * 100)
        async with sender.client(hub.url) as client, receiver.client(hub.url) as reader:
            attachment = await client.upload(file)
            sent = await client.send(sender.document(VAN_YEN, attachments=(attachment,)))
            cursor = (await reader.read())[1]
        new, other, third = (seal(sender.document(VAN_YEN), sender.signer) for _ in range(3))
        named = seal(sender.document(VAN_YEN, attachments=(attachment,)), sender.signer)
        content = b"n\xe1\xbb\x99i dung"
        address = f"/v1/attachments/{hashlib.sha256(content).hexdigest()}"
        jose, ndjson = ({"Content-Type": name} for name in (JOSE_MEDIA_TYPE, "application/x-ndjson"))
        as_json = {"Content-Type": "application/json"}
        ack = orjson.dumps({"up_to": cursor})
        asked: list[tuple[str, str, dict[str, str], bytes, int]] = [
            ("POST", "/v1/messages", sender.headers | jose, new, 202),
            ("POST", "/v1/messages", sender.headers | jose, named, 202),
            ("GET", f"/v1/messages/{sent.id}", sender.headers, b"", 200),
            ("GET", f"/v1/messages/{sent.id}/events", sender.headers, b"", 200),
            ("GET", "/v1/mailbox?wait=30", receiver.headers, b"", 200),
            ("POST", "/v1/mailbox/ack", receiver.headers | as_json, ack, 200),
            ("PUT", address, sender.headers, content, 201),
            ("GET", f"/v1/attachments/{attachment.sha256}", receiver.headers, b"", 200),
            ("GET", "/v1/status", {}, b"", 200),
        ]

        async def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
            async with http.request(method, hub.url + path, headers=headers, data=body or None) as response:
                return response.status, await response.read()

        await proxy.refuse()
        answers = await asyncio.gather(*(ask(*one[:4]) for one in asked))
        for (method, path, *_), (status, body) in zip(asked, answers, strict=True):
            problem = orjson.loads(body)
            told = status, problem.get("code"), problem.get("retryable"), problem.get("fault")
            assert told == (503, "store-unavailable", True, "hub"), f"{method} {path}: {told}"
        status, body = await ask("POST", "/v1/messages", sender.headers | ndjson, other + b"\n" + third)
        assert status == 200
        assert [orjson.loads(line)["code"] for line in body.splitlines()] == ["store-unavailable"] * 2
        assert (await ask("GET", "/healthz/live", {}, b""))[0] == 200
        status, body = await ask("GET", "/healthz/ready", {}, b"")
        assert (status, orjson.loads(body)["checks"]["database"]) == (503, "unavailable")
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []

        monkeypatch.setattr(commit, "RETRY_SECONDS", 20.0)  # from here on nothing is to be given up
        monkeypatch.setattr(acknowledge, "CONNECT_SECONDS", 20.0)
        proxy.accept()
        for method, path, headers, body, expected in asked:
            assert (await ask(method, path, headers, body))[0] == expected, f"{method} {path}"
        assert (await ask("GET", "/healthz/ready", {}, b""))[0] == 200


async def test_a_stop_while_the_store_is_away_ends(
    database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    proxy = Proxy()
    async with _hub_behind(proxy, database_url, connection, tmp_path) as hub:
        sender = await hub.register("ubnd-tinh", PROVINCE)
        async with sender.client(hub.url) as client:
            await client.send(sender.document(PROVINCE))
            assert len((await client.read())[0]) == 1
        await proxy.refuse()
    # Leaving the block has stopped the hub: it raised nothing, and left no task behind.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancellation_that_a_lost_connection_hid_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    hidden = 0

    async def loop() -> None:
        """As a loop of the hub whose rollback fails because the connection has gone."""
        nonlocal hidden
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if hidden == 2:
                    raise
                hidden += 1

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await tasks.end([task])
    assert task.cancelled()
    assert hidden == 2


# -- two hubs, one id -------------------------------------------------------------------------------


@pytest.mark.parametrize("same_bytes", [True, False], ids=["same-bytes", "other-bytes"])
async def test_one_id_at_two_hubs_at_once_is_accepted_once(start_hub: StartHub, same_bytes: bool) -> None:
    hubs = [await start_hub(), await start_hub()]
    sender = await hubs[0].register("ubnd-tinh", PROVINCE)
    receiver = await hubs[0].register("van-yen", VAN_YEN)
    await hubs[1].follow()
    count = 60
    ids = [f"công-văn-{number}" for number in range(count)]
    subjects = ("V/v nghỉ lễ", "V/v nghỉ lễ" if same_bytes else "V/v trực lễ")
    # An ES256 signature is another one each time, so the same bytes are signed once.
    signed = {
        (id_, subject): seal(sender.document(VAN_YEN, id=id_, subject=subject), sender.signer)
        for id_ in ids
        for subject in subjects
    }
    outcomes: dict[str, list[Sent | Problem]] = {id_: [] for id_ in ids}
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(sender.client(hub.url)) for hub in hubs]

        async def singles(client: HubClient, id_: str, subject: str) -> None:
            try:
                outcomes[id_].append(await client.submit(signed[id_, subject]))
            except Problem as problem:
                outcomes[id_].append(problem)

        async def batch(client: HubClient, some: list[str], subject: str) -> None:
            answered = await client.submit_many([signed[id_, subject] for id_ in some])
            for id_, outcome in zip(some, answered, strict=True):
                outcomes[id_].append(outcome)

        async with asyncio.TaskGroup() as group:
            for client, subject in zip(clients, subjects, strict=True):
                for id_ in ids[: count // 2]:
                    group.create_task(singles(client, id_, subject))
                group.create_task(batch(client, ids[count // 2 :], subject))
            # And in the other order, so that neither hub has a head start throughout.
            group.create_task(batch(clients[1], ids[count // 2 :][::-1], subjects[0]))
        async with receiver.client(hubs[1].url) as reader:
            entries = {entry.sender_id: entry for entry in await whole_mailbox(reader)}
            assert len(await whole_mailbox(reader)) == len(entries) == count
    for id_, answers in outcomes.items():
        sent = [answer for answer in answers if isinstance(answer, Sent)]
        refused = [answer for answer in answers if isinstance(answer, Problem)]
        (first,) = [answer for answer in sent if not answer.duplicate]
        assert {(answer.id, answer.receipt) for answer in sent} == {(first.id, first.receipt)}
        assert entries[id_].id == first.id
        assert all(problem.code == "id-conflict" for problem in refused)
        if same_bytes:
            assert not refused
        else:
            assert refused
