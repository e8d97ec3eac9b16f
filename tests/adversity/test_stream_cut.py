"""Streams that are cut, killed and drained: nothing is lost, nothing is done twice, every receipt holds."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil
import pytest

from protocol.client import Entry, HubClient, Stream
from protocol.manifest import seal_manifest, signed_bytes
from protocol.message import write_document
from tests.conftest import RunningHub
from tests.support.load import Ledger, Signed, check_ended, sign_messages, whole_mailbox
from tests.support.node import Node
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party, register
from tests.support.proxy import Proxy
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]
SINGLES, TOGETHER, PART = 150, 90, 15


class StreamLedger(Ledger):
    """A ledger of what was submitted on streams."""

    async def submit_on(self, stream: Stream, messages: Iterable[Signed], width: int = 6) -> None:
        """Submit messages one by one, `width` at a time."""
        waiting = iter(messages)

        async def submit() -> None:
            for message in waiting:
                await self.note(message, await stream.submit(message.raw))

        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(submit())

    async def submit_together(self, stream: Stream, party: Party, documents: Sequence[Signed]) -> None:
        """Submit documents in manifests of `PART`, one after the other."""
        for start in range(0, len(documents), PART):
            part = documents[start : start + PART]
            manifest = seal_manifest([document.raw for document in part], party.signer)
            for document, outcome in zip(part, await stream.submit_manifest(manifest), strict=True):
                assert not isinstance(outcome, Exception), outcome
                await self.note(document, outcome)

    def check_seen(self, seen: Sequence[Entry]) -> None:
        """What a stream gave is what was receipted: all of it, each once, as signed, in order in its lane."""
        assert sorted(entry.sender_id for entry in seen) == sorted(self.receipts)
        last: dict[str, int] = {}
        for entry in seen:
            assert entry.id == self.receipts[entry.sender_id].id
            assert entry.body is not None
            assert signed_bytes(entry.body) == self.raws[entry.sender_id]
            assert entry.seq > last.get(entry.lane, 0), f"{entry.lane} went back to {entry.seq}"
            last[entry.lane] = entry.seq


def documents_of(party: Party, count: int, to: Sequence[str]) -> list[Signed]:
    """Documents to be signed together."""
    made = [party.document(*to, id=f"{party.name}/chung/{number}", priority="urgent") for number in range(count)]
    return [Signed(document.id, write_document(document)) for document in made]


@dataclass
class Follower:
    """Takes mail and acknowledges it: by ``cursor``, each ``entry``, or by ``halves``, the second one first."""

    how: str
    expected: int
    seen: list[Entry] = field(default_factory=list)
    acknowledged: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, stream: Stream) -> None:
        """Until everything has come and the hub has every acknowledgement."""
        part: list[Entry] = []
        async for entry in stream.mail():
            self.seen.append(entry)
            part.append(entry)
            last = len(self.seen) == self.expected
            if self.how == "entry":
                await stream.acknowledge(entry)
                part = []
            elif len(part) == 12 or last:
                if self.how == "cursor":
                    await stream.acknowledge(up_to=stream.cursor)
                else:
                    await asyncio.gather(*(stream.acknowledge(*half) for half in (part[6:], part[:6]) if half))
                part = []
            await self._note(len(self.seen) - len(part))
            if last:
                return

    async def _note(self, count: int) -> None:
        self.acknowledged = count
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, count: int) -> None:
        """Wait until so many acknowledgements were answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.acknowledged >= count)


class Traffic:
    """Two senders and three recipients of everything, on streams."""

    def __init__(self, senders: list[Party], receivers: list[Party]) -> None:
        self.senders, self.receivers = senders, receivers
        to = (VAN_YEN, LUC_YEN, DAI_SON)
        self.singles = [sign_messages(sender, SINGLES, to) for sender in senders]
        self.together = [documents_of(sender, TOGETHER, to) for sender in senders]
        self.ledger = StreamLedger(len(senders) * (SINGLES + TOGETHER))
        self.followers = [Follower(how, self.ledger.expected) for how in ("cursor", "entry", "halves")]

    async def flow(
        self,
        sender_url: str,
        receiver_url: str,
        trouble: Callable[[], Awaitable[None]],
        spread: Callable[[], bool] = lambda: True,
    ) -> None:
        """Send, receive and acknowledge through `trouble`; everything that was asked comes to its end.

        Senders' streams are opened until they are `spread`: a process that was busy leaves them to another.
        """
        async with AsyncExitStack() as stack:

            async def stream(party: Party, url: str, **options: int) -> Stream:
                client = await stack.enter_async_context(party.client(url, retry_seconds=60.0))
                return await stack.enter_async_context(client.stream(**options))

            outgoing = [await stream(sender, sender_url) for sender in self.senders]
            while not spread():
                outgoing[-1] = await stream(self.senders[-1], sender_url)
            incoming = [await stream(receiver, receiver_url, messages=40) for receiver in self.receivers]
            async with asyncio.TaskGroup() as group:
                for follower, one in zip(self.followers, incoming, strict=True):
                    group.create_task(follower.follow(one))
                for party, one, singles, together in zip(
                    self.senders, outgoing, self.singles, self.together, strict=True
                ):
                    group.create_task(self.ledger.submit_on(one, singles))
                    group.create_task(self.ledger.submit_together(one, party, together))
                group.create_task(trouble())

    async def check(self, url: str) -> None:
        """Every receipt holds, everybody got everything once, and nothing that was acknowledged comes again."""
        async with AsyncExitStack() as stack:
            clients: list[HubClient] = [
                await stack.enter_async_context(party.client(url)) for party in (self.senders[0], *self.receivers)
            ]
            await self.ledger.check_receipts(clients[0])
            some = [sent.id for sent in list(self.ledger.receipts.values())[::30]]
            for follower, client, receiver in zip(self.followers, clients[1:], self.receivers, strict=True):
                self.ledger.check_seen(follower.seen)
                assert await whole_mailbox(client) == []
                await check_ended(client, some, receiver.name)

    async def check_store(self, fetchval: Callable[[str], Awaitable[int]]) -> None:
        expected = self.ledger.expected
        assert await fetchval("select count(*) from message") == expected
        assert await fetchval("select count(*) from inbox") == 3 * expected
        assert await fetchval("select count(distinct (endpoint, message)) from inbox") == 3 * expected


async def _parties(make: Callable[..., Awaitable[Party]]) -> Traffic:
    senders = [await make("ubnd-tinh", PROVINCE), await make("van-phong", "000.01.00.H63")]
    receivers = [await make("van-yen", VAN_YEN), await make("luc-yen", LUC_YEN), await make("dai-son", DAI_SON)]
    return Traffic(senders, receivers)


# -- connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_connections_cut_anywhere_lose_and_double_nothing(hub: RunningHub, seed: int) -> None:
    """Each connection ends after some bytes of answers: within a frame, within a handshake, or between two."""
    choose = random.Random(seed)
    out = Proxy(tuple(choose.choice((choose.randint(1, 300), choose.randint(300, 60_000))) for _ in range(20)))
    into = Proxy(tuple(choose.choice((choose.randint(1, 300), choose.randint(300, 90_000))) for _ in range(30)))
    traffic = await _parties(hub.register)

    async def nothing_else() -> None:
        await traffic.ledger.reached(traffic.ledger.expected)

    async with out.before_hub(hub.url) as sending, into.before_hub(hub.url) as receiving:
        await traffic.flow(sending, receiving, nothing_else)
        assert out.connections > 8 and into.connections > 12, "hardly anything was cut"
    await traffic.check(hub.url)
    await traffic.check_store(hub.connection.fetchval)


async def test_everything_cut_at_once_again_and_again(hub: RunningHub) -> None:
    proxy = Proxy()
    traffic = await _parties(hub.register)
    ledger = traffic.ledger

    async def cut() -> None:
        for part in range(1, 6):
            await ledger.reached(ledger.expected * part // 8)
            await proxy.cut()
        await traffic.followers[1].reached(ledger.expected // 2)
        await proxy.refuse()
        await until(lambda: proxy.refused >= 5, "they try to come back")
        proxy.accept()

    async with proxy.before_hub(hub.url) as url:
        await traffic.flow(url, url, cut)
    await traffic.check(hub.url)
    await traffic.check_store(hub.connection.fetchval)


async def test_a_reader_that_is_cut_for_good_leaves_what_it_did_not_acknowledge(hub: RunningHub) -> None:
    """The next one gets exactly that, in the same order."""
    sender, receiver = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
    count, half = 60, 24
    async with sender.client(hub.url) as client, client.stream() as stream:
        ids = [(await stream.send(sender.document(VAN_YEN))).id for _ in range(count)]
    first, second = Follower("cursor", half), Follower("entry", count - half)
    proxy = Proxy()
    async with (
        proxy.before_hub(hub.url) as url,
        receiver.client(url, retry_seconds=0) as client,
        client.stream() as stream,
    ):
        await first.follow(stream)
        async for entry in stream.mail():  # seen, but not acknowledged
            assert entry.id == ids[half]
            break
        await proxy.refuse()
    async with receiver.client(hub.url) as client, client.stream() as stream:
        await second.follow(stream)
    assert [entry.id for entry in [*first.seen, *second.seen]] == ids


# -- processes ----------------------------------------------------------------------------------------


async def _node(start_node: StartNode) -> tuple[Node, Traffic]:
    node = await start_node("--workers", "2")
    async with node.database() as database:
        traffic = await _parties(lambda name, code: register(database, name, code))
    await node.knows(traffic.receivers[-1])
    return node, traffic


async def _check(node: Node, traffic: Traffic) -> None:
    await traffic.check(node.url)
    async with node.database() as database:
        await traffic.check_store(database.fetchval)


async def test_two_processes_commit_and_streams_at_either_miss_nothing(start_node: StartNode) -> None:
    node, traffic = await _node(start_node)

    async def nothing() -> None:
        await traffic.ledger.reached(traffic.ledger.expected)

    def at_both() -> bool:
        """Whether each process has a sender's stream; of idle connections none is left by then."""

        def has_one(worker: psutil.Process) -> bool:
            open_ = (one for one in worker.net_connections() if one.status == psutil.CONN_ESTABLISHED)
            return any(one.laddr.port == port for one in open_)

        return all(map(has_one, node.workers()))

    port = urlsplit(node.url).port
    await traffic.flow(node.url, node.url, nothing, at_both)
    await _check(node, traffic)
    async with node.database() as database:
        committers = "select count(*) from pg_stat_activity where application_name = 'lienthong commit 0'"
        assert await database.fetchval(committers) == 2, "only one of the processes committed"


async def test_a_worker_that_is_killed_takes_no_message_with_it(start_node: StartNode) -> None:
    node, traffic = await _node(start_node)
    ledger = traffic.ledger

    async def kill() -> None:
        for part in (1, 3, 5):
            await ledger.reached(ledger.expected * part // 8)
            victim = node.workers()[0]
            victim.kill()
            await asyncio.to_thread(psutil.wait_procs, [victim], 30)
        await traffic.followers[2].reached(ledger.expected // 2)
        node.kill_workers()

    await traffic.flow(node.url, node.url, kill)
    await _check(node, traffic)


async def test_a_worker_that_is_stopped_hands_its_streams_over(start_node: StartNode) -> None:
    """SIGTERM to one process of two: its streams go to the other, and nobody is told of any trouble."""
    node, traffic = await _node(start_node)
    ledger = traffic.ledger

    async def stop() -> None:
        for part in (1, 4):
            await ledger.reached(ledger.expected * part // 8)
            workers = node.workers()
            assert len(workers) == 2
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
                gone, _ = await asyncio.to_thread(psutil.wait_procs, [worker], 60)
                assert gone
                await until(lambda: len(node.workers()) == 2, "another has been started in its place")

    await traffic.flow(node.url, node.url, stop)
    assert not any(sent.duplicate for sent in ledger.receipts.values()), "what was answered is not sent again"
    await _check(node, traffic)
