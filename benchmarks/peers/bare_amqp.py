"""AMQP 0-9-1 on a bare asyncio protocol: as lean a client as the hub's own load generator.

The handshake and the declarations go through pamqp's frames. What is said once for each document is written and
read here: Basic.Publish, Basic.Deliver and Basic.Ack (AMQP 0-9-1 specification, 1.8.3; RabbitMQ's confirms are
Basic.Ack from the server).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from pamqp import commands, frame

from benchmarks.peers import child

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
_FRAME = struct.Struct(">BHI")
_ACK = struct.Struct(">HHQB")
_DELIVER, _ACKED, _NACKED = ((60 << 16) + number for number in (60, 80, 120))
_PERSISTENT = 2


def queue(receiver: int) -> str:
    return f"receiver-{receiver}"


def _framed(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def _publish(channel: int, routing_key: str, size: int) -> bytes:
    """Method, header and the beginning of the body's frame, for a body of `size` bytes."""
    key = routing_key.encode()
    method = struct.pack(">HHHBB", 60, 40, 0, 0, len(key)) + key + b"\0"
    properties = struct.pack(">HHQHB", 60, 0, size, 1 << 12, _PERSISTENT)
    return (
        _framed(_METHOD, channel, method)
        + _framed(_HEADER, channel, properties)
        + _FRAME.pack(_BODY, channel, size)
    )


class Link(asyncio.Protocol):
    """A connection with a channel for each sender or receiver.

    `confirmed(channel, tag, multiple, positive)` and `delivered(channel, tag, body)` are called as they come.
    """

    def __init__(
        self,
        confirmed: Callable[[int, int, bool, bool], None],
        delivered: Callable[[int, int, bytes], None],
    ) -> None:
        self._confirmed = confirmed
        self._delivered = delivered
        self._rest = b""
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._tags: dict[int, int] = {}
        self._parts: dict[int, list[bytes]] = {}
        self._missing: dict[int, int] = {}
        self._closing = False
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the server ends the connection."""

    @classmethod
    async def connect(cls, address: str, confirmed: Any, delivered: Any) -> Link:
        at = urlsplit(address)
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: cls(confirmed, delivered), at.hostname or "", at.port or 0
        )
        link.transport.write(b"AMQP\0\0\x09\x01")
        await link._said.get()
        response = f"\0{at.username}\0{at.password}"
        tune = await link.ask(0, commands.Connection.StartOk(mechanism="PLAIN", response=response))
        agreed = commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0)
        link.transport.write(frame.marshal(agreed, 0))
        await link.ask(0, commands.Connection.Open())
        return link

    async def ask(self, channel: int, method: Any) -> Any:
        """Call a method, and return the next one that the server calls."""
        self.transport.write(frame.marshal(method, channel))
        answer = await self._said.get()
        if isinstance(answer, ConnectionError):
            raise answer
        return answer

    async def close(self) -> None:
        """Ends the connection when the server has worked off all that was written."""
        self._closing = True
        await self.ask(0, commands.Connection.Close(200, "", 0, 0))
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            error = ConnectionError(f"the server closed the connection: {exc}")
            self.lost.set_exception(error)
            self._said.put_nowait(error)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 8:
            kind, channel, length = _FRAME.unpack_from(data, at)
            start, end = at + 7, at + 7 + length
            if end >= size:
                break
            if data[end] != _END:
                raise ConnectionError("a frame without its end")
            at = end + 1
            if kind == _BODY:
                self._take(channel, data[start:end])
            elif kind == _HEADER:
                self._missing[channel] = int.from_bytes(data[start + 4 : start + 12])
            elif kind == _METHOD:
                self._method(channel, data, start, end)
        self._rest = data[at:]

    def _method(self, channel: int, data: bytes, start: int, end: int) -> None:
        method = int.from_bytes(data[start : start + 4])
        if method == _DELIVER:
            tag = start + 5 + data[start + 4]
            self._tags[channel] = int.from_bytes(data[tag : tag + 8])
        elif method in (_ACKED, _NACKED):
            _, _, tag, bits = _ACK.unpack_from(data, start)
            self._confirmed(channel, tag, bool(bits & 1), method == _ACKED)
        else:
            _, _, said = frame.unmarshal(data[start - 7 : end + 1])
            if isinstance(said, commands.Connection.Close | commands.Channel.Close):
                raise ConnectionError(f"{said.reply_code} {said.reply_text}")
            self._said.put_nowait(said)

    def _take(self, channel: int, part: bytes) -> None:
        parts = self._parts.setdefault(channel, [])
        parts.append(part)
        self._missing[channel] -= len(part)
        if not self._missing[channel]:
            whole = part if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._delivered(channel, self._tags[channel], whole)


def _nothing(*_: Any) -> None:
    """For what a connection is not used for."""


class BareClient(child.Client):
    """One connection for all senders, with a channel for each, and one for each receiver."""

    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        self._outward = await Link.connect(self.address, self._confirmed, _nothing)
        self._outward.lost.add_done_callback(self._lost)
        self._channels = {}
        for channel, sender in enumerate(senders, 1):
            await self._outward.ask(channel, commands.Channel.Open())
            await self._outward.ask(channel, commands.Confirm.Select())
            self._channels[sender] = _Outgoing(channel)
        self._by_number = {outgoing.channel: outgoing for outgoing in self._channels.values()}
        self._heads: dict[tuple[int, int], bytes] = {}
        self._inward: list[Link] = []

    def _confirmed(self, channel: int, tag: int, multiple: bool, positive: bool) -> None:
        self._by_number[channel].answered(tag, multiple, None if positive else "the broker refused a document")

    def _lost(self, lost: asyncio.Future[None]) -> None:
        for outgoing in self._channels.values():
            outgoing.answered(outgoing.published, True, str(lost.exception()))

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        outgoing, book = self._channels[sender], self.book
        answer = child.Answers(len(places))
        parts: list[bytes] = []
        for place in places:
            document, receiver = book.document(place), book.receiver(place)
            key = outgoing.channel, receiver
            if key not in self._heads:
                self._heads[key] = _publish(outgoing.channel, queue(receiver), len(document))
            parts += (self._heads[key], document, b"\xce")
            outgoing.wait(answer)
        self._outward.transport.write(b"".join(parts))
        await answer.all

    async def receive(self, receiver: int) -> None:
        fresh = asyncio.Event()
        places: list[int] = []
        last = 0

        def delivered(_channel: int, tag: int, document: bytes) -> None:
            nonlocal last
            places.append(self.book.delivered(document, receiver))
            last = tag
            fresh.set()

        link = await Link.connect(self.address, _nothing, delivered)
        self._inward.append(link)
        link.lost.add_done_callback(lambda _: fresh.set())
        await link.ask(1, commands.Channel.Open())
        await link.ask(1, commands.Basic.Qos(0, self.settings["prefetch"]))
        await link.ask(1, commands.Basic.Consume(queue=queue(receiver)))
        while True:
            await fresh.wait()
            if link.lost.done():
                link.lost.result()
            fresh.clear()
            done, places = places, []
            link.transport.write(_framed(_METHOD, 1, _ACK.pack(60, 80, last, 1)))
            self.book.acknowledge(done)

    async def close(self) -> None:
        for link in [self._outward, *self._inward]:
            await link.close()


class _Outgoing:
    """A sender's channel, and who waits for which of its confirms."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.published = 0
        self._oldest = 1
        self._waiting: dict[int, child.Answers] = {}

    def wait(self, answer: child.Answers) -> None:
        self.published += 1
        self._waiting[self.published] = answer

    def answered(self, tag: int, multiple: bool, error: str | None) -> None:
        for number in range(self._oldest, tag + 1) if multiple else (tag,):
            if answer := self._waiting.pop(number, None):
                answer.take(error)
        if multiple:
            self._oldest = tag + 1
