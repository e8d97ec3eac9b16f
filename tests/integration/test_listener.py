"""Connections of a node are dealt out evenly to its processes, and none is lost on the way."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from select import select

import pytest

from hub.listener import Acceptor, Counts, listen, share_counts
from tests.support.until import until


class Greeting(asyncio.Protocol):
    """Says which process it belongs to."""

    def __init__(self, number: int, counts: Counts) -> None:
        self._number = number
        self._counts = counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"%d\n" % self._number)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.change(-1)


class Farm:
    """Acceptors of one socket, as several processes would have them."""

    def __init__(self, workers: int, tls: ssl.SSLContext | None = None) -> None:
        self._file = share_counts(workers)
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.counts = [Counts(self._file.fileno(), workers, number) for number in range(workers)]
        self.acceptors = [self._acceptor(number, tls) for number in range(workers)]
        self._writers: list[asyncio.StreamWriter] = []

    def _acceptor(self, number: int, tls: ssl.SSLContext | None) -> Acceptor:
        counts = self.counts[number]
        return Acceptor(self.listener.dup(), lambda: Greeting(number, counts), counts, tls, 10)

    async def connect(self) -> int:
        """Open a connection; the number of who took it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return int(await reader.readline())

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()
        await until(lambda: all(counts.own == 0 for counts in self.counts), "all connections counted out")
        for acceptor in self.acceptors:
            acceptor.close()
        self.listener.close()
        self._file.close()


@pytest.fixture
async def farm() -> AsyncIterator[Farm]:
    found = Farm(3)
    for acceptor in found.acceptors:
        acceptor.start()
    yield found
    await found.close()


async def test_connections_one_after_another_are_dealt_out_evenly(farm: Farm) -> None:
    taken = [await farm.connect() for _ in range(30)]
    assert sorted(taken) == [0] * 10 + [1] * 10 + [2] * 10


async def test_connections_that_come_together_are_dealt_out_evenly(farm: Farm) -> None:
    taken = await asyncio.gather(*(farm.connect() for _ in range(60)))
    assert sorted(taken) == [0] * 20 + [1] * 20 + [2] * 20


async def test_who_does_not_accept_keeps_nobody_waiting_for_good(farm: Farm) -> None:
    farm.acceptors[1]._loop.remove_reader(farm.acceptors[1]._listener.fileno())  # as a process that hangs
    taken = [await farm.connect() for _ in range(8)]
    assert set(taken) == {0, 2}
    farm.acceptors[1].start()
    assert await farm.connect() == 1


async def test_who_has_stopped_is_not_waited_for(farm: Farm) -> None:
    farm.acceptors[0].close()
    farm.counts[0].change(0)
    assert farm.counts[0].own > 1000
    assert {await farm.connect() for _ in range(6)} == {1, 2}
    farm.counts[0].change(-farm.counts[0].own)


async def test_connections_made_before_anybody_accepts_wait() -> None:
    farm = Farm(1)
    early = asyncio.create_task(farm.connect())
    await until(lambda: select([farm.listener], [], [], 0)[0], "the connection waits")
    assert not early.done()
    farm.acceptors[0].start()
    assert await early == 0
    await farm.close()


async def test_the_port_cannot_be_taken_twice() -> None:
    listener = listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listener.getsockname()[1])
    listener.close()


async def test_a_client_that_speaks_no_tls_is_counted_out() -> None:
    # Without a certificate no handshake can succeed, which is all that this test needs.
    farm = Farm(1, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    farm.acceptors[0].start()
    with socket.create_connection(("127.0.0.1", farm.port)) as plain:
        await until(lambda: farm.counts[0].own == 1, "the connection counted in")
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: farm.counts[0].own == 0, "the connection counted out")
    await farm.close()
