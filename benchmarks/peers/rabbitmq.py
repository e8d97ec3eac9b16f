"""RabbitMQ: a quorum queue for each receiver, publisher confirms, consumer acknowledgements (aio-pika).

Quorum queues write every message to a Raft log and flush it before they confirm, with no switch to turn it
off. One node, so `x-quorum-initial-group-size` is 1. A channel answers confirms in gatherings, so a sender
keeps many publishes under way. Consumers acknowledge `multiple`: all that came in one turn of the loop.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.peers import child, peer, services
from benchmarks.peers.bare_amqp import BareClient, queue
from benchmarks.peers.share import Book

PACKAGE = "rabbitmq-server (apt-get install rabbitmq-server)"
_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's; /usr/sbin has a wrapper that would change to another account and another directory."""
_BARE: dict[str, Any] = {"client": "bare", "window": 4, "batch": 8}
_ARGUMENTS = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}


def program() -> Path | None:
    installed = sorted(str(path) for path in Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    return services.find("RABBITMQ_SERVER", _SCRIPT, *reversed(installed))


class RabbitMQ(peer.Peer):
    name = "rabbitmq"
    title = "RabbitMQ quorum"
    defaults: ClassVar[dict[str, Any]] = {
        "client": "aio-pika",
        "window": 16,
        "batch": 1,
        "split": "roles",
        "prefetch": 1000,
        "connections": 1,
        "erlang": "",
        "ahead": 0,
    }
    tries: ClassVar[list[dict[str, Any]]] = [
        {"window": 8},
        {"window": 32},
        {"window": 64},
        {"split": 1},
        {"split": 2},
        {"prefetch": 200},
        {"prefetch": 5000},
        {"connections": 4},
        {"connections": 16},
        {"erlang": "+sbwt none +sbwtdcpu none +sbwtdio none"},
        {"ahead": 2000},
        {**_BARE, "window": 2},
        {**_BARE, "window": 8},
        {**_BARE, "batch": 4},
        {**_BARE, "batch": 16},
        {**_BARE, "split": 1},
        {**_BARE, "erlang": "+sbwt none +sbwtdcpu none +sbwtdio none"},
    ]
    variants: ClassVar[dict[str, dict[str, Any]]] = {"bare": _BARE}

    _server: services.Service | None = None
    _names: services.Service | None = None

    @classmethod
    def missing(cls) -> str | None:
        return None if program() and services.find("EPMD", "epmd") else f"needs the Debian package {PACKAGE}"

    async def start(self, folder: Path) -> None:
        server, names = program(), services.find("EPMD", "epmd")
        assert server is not None and names is not None
        port, names_port, between = services.free_ports(3)
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {services.LOOPBACK}:{port}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        (folder / "enabled_plugins").write_text("[].\n")
        environment = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(names_port),
            "ERL_EPMD_ADDRESS": services.LOOPBACK,
            "RABBITMQ_NODENAME": f"peer{port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(between),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} " + self.settings["erlang"]
            ),
        }
        self._names = services.Service("epmd", folder)
        self._server = services.Service("rabbitmq", folder)
        # Started by us and not by the node, whose own would stay behind.
        self._names.start([str(names), "-address", services.LOOPBACK, "-port", str(names_port)])
        await self._names.until(lambda: services.listening(names_port))
        self._server.start([str(server)], environment)
        await self._server.until(lambda: services.listening(port))
        self.address = f"amqp://guest:guest@{services.LOOPBACK}:{port}/"
        await self._server.until(self._declare)

    async def _declare(self) -> None:
        """Make the queues. Fails until the node is up."""
        connection = await _connect(self.address)
        async with connection:
            channel = await connection.channel()
            for receiver in range(self.receivers):
                await channel.declare_queue(queue(receiver), durable=True, arguments=_ARGUMENTS)

    async def stop(self) -> None:
        for service in (self._server, self._names):
            if service is not None:
                await service.stop()

    def server_seconds(self) -> float:
        assert self._server is not None
        return self._server.seconds()

    async def left_over(self) -> int:
        left = 0
        connection = await _connect(self.address)
        async with connection:
            channel = await connection.channel()
            for receiver in range(self.receivers):
                declared = await channel.declare_queue(queue(receiver), passive=True)
                left += declared.declaration_result.message_count or 0
        return left

    async def versions(self) -> dict[str, str]:
        connection = await _connect(self.address)
        async with connection:
            properties = connection.transport.connection.server_properties
        bare = self.settings["client"] == "bare"
        erlang = re.sub(r"^Erlang/OTP ", "", str(properties["platform"]))
        return {
            "server": f"RabbitMQ {properties['version']}, Erlang {erlang}",
            "client": "bare asyncio protocol" if bare else "aio-pika " + importlib.metadata.version("aio-pika"),
        }


async def _connect(address: str) -> Any:
    try:
        return await aio_pika.connect(address, timeout=5)
    except aio_pika.exceptions.AMQPError as error:
        raise services.ServiceError(str(error)) from error


def client(address: str, settings: Mapping[str, Any], book: Book) -> child.Client:
    return (BareClient if settings["client"] == "bare" else _Client)(address, settings, book)


class _Client(child.Client):
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        self._connections: list[Any] = []
        self._exchanges: dict[int, Any] = {}
        shared = [await self._connect() for _ in range(min(len(senders), self.settings["connections"]))]
        for number, sender in enumerate(senders):
            channel = await shared[number % len(shared)].channel(publisher_confirms=True)
            self._exchanges[sender] = channel.default_exchange
        self._inward = await self._connect() if receivers else None

    async def _connect(self) -> Any:
        self._connections.append(await aio_pika.connect(self.address))
        return self._connections[-1]

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        exchange, book = self._exchanges[sender], self.book
        for place in places:
            message = aio_pika.Message(book.document(place), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(message, queue(book.receiver(place)))

    async def receive(self, receiver: int) -> None:
        assert self._inward is not None
        channel = await self._inward.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=self.settings["prefetch"])
        incoming = await channel.get_queue(queue(receiver), ensure=False)
        fresh = asyncio.Event()
        places: list[int] = []
        last: AbstractIncomingMessage

        async def take(message: AbstractIncomingMessage) -> None:
            nonlocal last
            places.append(self.book.delivered(message.body, receiver))
            last = message
            fresh.set()

        await incoming.consume(take)
        while True:
            await fresh.wait()
            fresh.clear()
            done, places = places, []
            await last.ack(multiple=True)
            self.book.acknowledge(done)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
