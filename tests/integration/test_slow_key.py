"""A key that is somewhere else: while it takes its time the hub goes on, and when it is lost nothing else is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from uuid import UUID

import aiohttp
import pytest

from hub.evidence import sealing
from hub.evidence.record import Recorded
from protocol.evidence import EventKind, read_receipt, verify_receipt
from protocol.problems import Problem
from protocol.signature import PublicKey, Signer, SigningError, generate
from tests.conftest import RunningHub, StartHub
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until


class ElsewhereKey:
    """A key behind a door that can be held shut, or broken."""

    slow = True

    def __init__(self, alg: str = "ES256") -> None:
        self._signer = Signer(generate(alg))
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.threads: set[int] = set()
        self.waiting = 0

    def public_key(self) -> PublicKey:
        return self._signer.key.public_key()

    def sign(self, data: bytes, /) -> bytes:
        self.threads.add(threading.get_ident())
        self.waiting += 1
        try:
            assert self.open.wait(60)
        finally:
            self.waiting -= 1
        if self.broken:
            raise SigningError("the token 'truc' is not there")
        return self._signer._signature(data)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> ElsewhereKey:
    made = ElsewhereKey()
    log_key = generate("EdDSA")
    monkeypatch.setattr("hub.app.load_key", lambda config: made)
    monkeypatch.setattr("hub.app.load_log_key", lambda config, hub_key: log_key)
    return made


@pytest.fixture
async def relay(start_hub: StartHub, key: ElsewhereKey) -> AsyncIterator[Pair]:
    hub = await start_hub()
    pair = Pair(hub, await hub.register("tinh", PROVINCE), await hub.register("van-yen", VAN_YEN))
    async with pair.sender, pair.receiver:
        yield pair
    key.open.set()  # a failed test must not leave threads behind


async def is_well(hub: RunningHub, http: aiohttp.ClientSession) -> tuple[int, str]:
    async with http.get(f"{hub.url}/healthz/ready") as response:
        return response.status, (await response.json())["checks"]["key"]


async def refused(asked: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as error:
        await asked
    return error.value


async def submit_once(pair: Pair, document: bytes) -> None:
    """Submit, and hear the first answer."""
    async with pair.province.client(pair.hub.url, retry_seconds=0) as client:
        await client.submit(document)


async def test_signing_never_holds_the_event_loop(
    relay: Pair, key: ElsewhereKey, http: aiohttp.ClientSession
) -> None:
    key.open.clear()
    sending = asyncio.gather(*(relay.send("normal") for _ in range(20)))
    await until(lambda: key.waiting, "the key is asked")
    # With every batch stuck at the key, the hub still answers.
    async with http.get(f"{relay.hub.url}/healthz/live") as response:
        assert response.status == 200
    assert not await relay.page()
    key.open.set()
    assert len(await sending) == 20
    assert threading.get_ident() not in key.threads
    assert len(await relay.page(limit=100)) == 20


async def test_a_lost_key_refuses_for_the_moment_and_loses_nothing(
    relay: Pair, key: ElsewhereKey, http: aiohttp.ClientSession
) -> None:
    first = await relay.send("normal")
    assert await is_well(relay.hub, http) == (200, "ok")
    key.broken = True
    assert await is_well(relay.hub, http) == (503, "key-unavailable")
    document = relay.sender.sign(relay.province.document(VAN_YEN))
    problem = await refused(submit_once(relay, document))
    assert (problem.code, problem.status, problem.retryable, problem.kind.fault) == (
        "key-unavailable",
        503,
        True,
        "hub",
    )
    assert problem.retry_after is not None
    assert await relay.hub.connection.fetchval("select count(*) from message") == 1
    assert [entry.id for entry in await relay.page()] == first  # what is there can be read
    key.broken = False
    # The same document again is a first submission, and proven as ever.
    outcome = await relay.sender.submit(document)
    event = await relay.check(outcome.receipt.to_json(), document)
    assert event["event"] == "accepted"
    assert await is_well(relay.hub, http) == (200, "ok")


async def test_a_client_that_repeats_gets_through(relay: Pair, key: ElsewhereKey) -> None:
    key.broken = True
    sending = asyncio.create_task(relay.sender.send(relay.province.document(VAN_YEN)))
    await until(lambda: key.threads, "the key was asked in vain")
    key.broken = False
    assert (await sending).receipt


async def test_acknowledgements_and_other_events_wait_for_the_key(relay: Pair, key: ElsewhereKey) -> None:
    (message,) = await relay.send("normal")
    entries, cursor = await relay.receiver.read()
    key.broken = True
    async with relay.district.client(relay.hub.url, retry_seconds=0) as client:
        problem = await refused(client.acknowledge(up_to=cursor))
        assert problem.code == "key-unavailable"
        problem = await refused(client.refuse(entries[0], "không đúng thẩm quyền"))
        assert problem.code == "key-unavailable"
    recorded = Recorded(UUID(message), EventKind.REFUSED)
    problem = await refused(relay.hub.hub.recorder.record([recorded]))
    assert problem.code == "key-unavailable"
    assert (await relay.state(message))["state"] == "waiting"
    key.broken = False
    await relay.receiver.refuse(entries[0], "không đúng thẩm quyền")
    assert (await relay.state(message))["state"] == "refused"


async def test_a_key_that_does_not_answer_is_given_up_in_time(
    relay: Pair, key: ElsewhereKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "SIGN_SECONDS", 0.1)
    key.open.clear()
    document = relay.sender.sign(relay.province.document(VAN_YEN))
    problems = await asyncio.gather(*(refused(submit_once(relay, document)) for _ in range(2 * sealing.THREADS)))
    assert {problem.code for problem in problems} == {"key-unavailable"}
    monkeypatch.setattr(sealing, "SIGN_SECONDS", 5.0)
    key.open.set()
    outcome = await relay.sender.submit(document)
    keys = {relay.hub.hub._signer.kid: key.public_key()}
    assert verify_receipt(read_receipt(outcome.receipt.to_json()), keys.get, document)


async def test_the_log_goes_on_when_its_key_is_back(start_hub: StartHub, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ElsewhereKey("EdDSA")
    monkeypatch.setattr("hub.app.load_log_key", lambda config, hub_key: key)
    hub = await start_hub()
    sender = await hub.register("tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    key.broken = True
    async with sender.client(hub.url) as client:
        await client.send(sender.document(VAN_YEN))  # its receipt is sealed with the hub's key, which is another
    await hub.connection.execute("update checkpoint set at = at - interval '1 minute'")

    async def waits() -> bool:
        try:
            await hub.hub.integrator.integrate()
        except Problem as problem:
            return problem.code == "key-unavailable"
        return False  # another turn of the same log was under way

    await until(waits, "the log waits for its key")
    assert await hub.connection.fetchval("select count(*) from log_pending") > 0
    key.broken = False
    await until(lambda: logged(hub), "the log takes what waited")


async def logged(hub: RunningHub) -> bool:
    return not await hub.connection.fetchval("select count(*) from log_pending")
