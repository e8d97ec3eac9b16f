"""NATS JetStream: streams on disk with `sync_interval: always`, a durable pull consumer for each receiver.

Without that setting JetStream answers a publisher before anything is flushed (every two minutes by default),
which is not what the hub promises. A stream writes and flushes one message after another, so each receiver has
a stream of its own: four flush side by side. Acknowledgements are explicit, one for each message.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from benchmarks.peers import child, peer, services
from benchmarks.peers.bare_nats import BareClient, stream, subject
from benchmarks.peers.share import Book

ACK_WAIT_SECONDS = 120
_BARE: dict[str, Any] = {"client": "bare", "window": 4, "batch": 8}
FETCH_SECONDS = 5.0


def program() -> Path | None:
    return services.find("NATS_SERVER", f"{sys.prefix}/bin/nats-server", "nats-server", "/usr/sbin/nats-server")


def _configuration(port: int, folder: Path) -> str:
    return (
        f"listen: {services.LOOPBACK}:{port}\n"
        f'jetstream {{ store_dir: "{folder / "jetstream"}", sync_interval: always }}\n'
    )


@cache
def _missing() -> str | None:
    server = program()
    if server is None:
        return "needs the Debian package nats-server, 2.10 or newer (apt-get install nats-server, Debian 13)"
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nats.conf"
        configuration.write_text(_configuration(4222, Path(folder)))
        tested = subprocess.run([server, "-t", "-c", configuration], capture_output=True, text=True, timeout=30)
    if tested.returncode:
        version = subprocess.run([server, "-v"], capture_output=True, text=True, timeout=30).stdout.strip()
        return (
            f"{version} does not know sync_interval: needs the package nats-server of Debian 13 or newer (2.10), "
            "on the PATH or as NATS_SERVER=/path/to/it"
        )
    return None


class JetStream(peer.Peer):
    name = "jetstream"
    title = "JetStream sync always"
    defaults: ClassVar[dict[str, Any]] = {
        "client": "nats-py",
        "window": 16,
        "batch": 1,
        "split": "roles",
        "fetch": 100,
        "ahead": 0,
    }
    tries: ClassVar[list[dict[str, Any]]] = [
        {"window": 4},
        {"window": 8},
        {"window": 32},
        {"split": 1},
        {"split": 2},
        {"fetch": 20},
        {"fetch": 500},
        {"ahead": 1000},
        {**_BARE, "window": 2},
        {**_BARE, "window": 8},
        {**_BARE, "batch": 1},
        {**_BARE, "batch": 16},
        {**_BARE, "split": 1},
        {**_BARE, "fetch": 20},
    ]
    variants: ClassVar[dict[str, dict[str, Any]]] = {"bare": _BARE}

    _server: services.Service | None = None

    @classmethod
    def missing(cls) -> str | None:
        return _missing()

    async def start(self, folder: Path) -> None:
        (port,) = services.free_ports(1)
        configuration = folder / "nats.conf"
        configuration.write_text(_configuration(port, folder))
        self._server = services.Service("nats-server", folder)
        self._server.start([str(program()), "-c", str(configuration)])
        self.address = f"nats://{services.LOOPBACK}:{port}"
        await self._server.until(lambda: services.listening(port))
        connection = await nats.connect(self.address)
        try:
            js = connection.jetstream()
            for receiver in range(self.receivers):
                await js.add_stream(
                    StreamConfig(
                        name=stream(receiver),
                        subjects=[subject(receiver)],
                        retention=RetentionPolicy.WORK_QUEUE,
                        storage=StorageType.FILE,
                        num_replicas=1,
                    )
                )
                await js.add_consumer(
                    stream(receiver),
                    ConsumerConfig(
                        durable_name=stream(receiver),
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=ACK_WAIT_SECONDS,
                        max_ack_pending=20_000,
                    ),
                )
        finally:
            await connection.close()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def server_seconds(self) -> float:
        assert self._server is not None
        return self._server.seconds()

    async def left_over(self) -> int:
        connection = await nats.connect(self.address)
        try:
            js = connection.jetstream()
            streams = [await js.stream_info(stream(receiver)) for receiver in range(self.receivers)]
            return sum(info.state.messages for info in streams)
        finally:
            await connection.close()

    async def versions(self) -> dict[str, str]:
        connection = await nats.connect(self.address)
        version = connection.connected_server_version
        await connection.close()
        bare = self.settings["client"] == "bare"
        return {
            "server": f"nats-server {version.major}.{version.minor}.{version.patch}",
            "client": "bare asyncio protocol" if bare else "nats-py " + importlib.metadata.version("nats-py"),
        }


def client(address: str, settings: Mapping[str, Any], book: Book) -> child.Client:
    return (BareClient if settings["client"] == "bare" else _Client)(address, settings, book)


class _Client(child.Client):
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        self._outward = await nats.connect(self.address)
        self._inward = await nats.connect(self.address)
        self._js = self._outward.jetstream(timeout=60)

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        book, send = self.book, self._js.publish_async
        under_way = [await send(subject(book.receiver(place)), book.document(place)) for place in places]
        for answer in under_way:
            await answer

    async def receive(self, receiver: int) -> None:
        js = self._inward.jetstream()
        pull = await js.pull_subscribe_bind(stream(receiver), stream(receiver))
        while True:
            try:
                messages = await pull.fetch(self.settings["fetch"], timeout=FETCH_SECONDS)
            except TimeoutError:
                continue
            places = [self.book.delivered(message.data, receiver) for message in messages]
            for message in messages:
                await message.ack()
            self.book.acknowledge(places)

    async def close(self) -> None:
        for connection in (self._outward, self._inward):
            await connection.flush()
            await connection.close()
