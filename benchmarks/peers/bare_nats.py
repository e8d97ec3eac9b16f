"""NATS on a bare asyncio protocol: as lean a client as the hub's own load generator.

Of the protocol (docs.nats.io, "Client Protocol") only what a load needs: PUB with a reply subject, whose answer
is JetStream's, and pull requests. A publisher's answer is matched by the token at the end of its reply subject.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.peers import child

PULL_SECONDS = 5
_CONNECT = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1}


def stream(receiver: int) -> str:
    return f"receiver-{receiver}"


def subject(receiver: int) -> str:
    return f"to.{receiver}"


class Link(asyncio.Protocol):
    """A connection. `got(subject, reply, status, body)` is called for each message; a plain one has no status."""

    def __init__(self, got: Callable[[bytes, bytes, bytes, bytes], None]) -> None:
        self._got = got
        self._rest = b""
        self._pong: asyncio.Future[None] | None = None
        self._closing = False
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the server ends the connection."""

    @classmethod
    async def connect(cls, address: str, got: Callable[[bytes, bytes, bytes, bytes], None]) -> Link:
        at = urlsplit(address)
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: cls(got), at.hostname or "", at.port or 0
        )
        link.transport.write(b"CONNECT " + json.dumps(_CONNECT).encode() + b"\r\n")
        await link.flush()
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self.lost.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    async def close(self) -> None:
        """Ends the connection when the server has read all that was written."""
        await self.flush()
        self._closing = True
        self.transport.close()

    async def flush(self) -> None:
        """Returns when the server has read all that was written."""
        self._pong = asyncio.get_running_loop().create_future()
        self.transport.write(b"PING\r\n")
        await self._pong

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            kind = data[at : at + 3]
            if kind == b"MSG" or kind == b"HMS":
                words = data[at:end].split()
                after = end + 2 + int(words[-1]) + 2
                if after > len(data):
                    break
                headers = int(words[-2]) if kind == b"HMS" else 0
                reply = words[3] if len(words) == (6 if headers else 5) else b""
                status = data[end + 2 : end + 2 + headers]
                self._got(words[1], reply, status, data[end + 2 + headers : after - 2])
                at = after
                continue
            if kind == b"PIN":
                self.transport.write(b"PONG\r\n")
            elif kind == b"PON" and self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
            elif kind == b"-ER":
                raise ConnectionError(data[at:end].decode())
            at = end + 2
        self._rest = data[at:]


class BareClient(child.Client):
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        self._answers: dict[bytes, child.Answers] = {}
        self._token = 0
        self._link = await Link.connect(self.address, self._answered)
        self._link.lost.add_done_callback(self._lost)
        self._inbox = f"_INBOX.{uuid4().hex}".encode()
        self._link.transport.write(b"SUB %b.* 1\r\n" % self._inbox)
        self._inward: list[Link] = []

    def _answered(self, to: bytes, _reply: bytes, status: bytes, body: bytes) -> None:
        answer = self._answers.pop(to.rpartition(b".")[2])
        answer.take(None if not status and b'"seq":' in body else f"not stored: {status!r} {body!r}")

    def _lost(self, lost: asyncio.Future[None]) -> None:
        for answer in self._answers.values():
            answer.take(str(lost.exception()))

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        answer = child.Answers(len(places))
        parts = []
        for place in places:
            self._token += 1
            token = b"%x" % self._token
            self._answers[token] = answer
            document = self.book.document(place)
            to = subject(self.book.receiver(place)).encode()
            parts.append(b"PUB %b %b.%b %d\r\n%b\r\n" % (to, self._inbox, token, len(document), document))
        self._link.transport.write(b"".join(parts))
        await answer.all

    async def receive(self, receiver: int) -> None:
        batch = self.settings["fetch"]
        asked = b'{"batch":%d,"expires":%d}' % (batch, PULL_SECONDS * 10**9)
        inbox = f"_INBOX.{uuid4().hex}".encode()
        next_ = f"$JS.API.CONSUMER.MSG.NEXT.{stream(receiver)}.{stream(receiver)}".encode()
        pull = b"PUB %b %b %d\r\n%b\r\n" % (next_, inbox, len(asked), asked)
        fresh = asyncio.Event()
        places: list[int] = []
        acks: list[bytes] = []
        wanted = 0

        def got(_to: bytes, reply: bytes, status: bytes, body: bytes) -> None:
            nonlocal wanted
            if status:  # the request expired, whole or in part
                wanted = 0
            else:
                wanted -= 1
                places.append(self.book.delivered(body, receiver))
                acks.append(b"PUB %b 0\r\n\r\n" % reply)
            fresh.set()

        link = await Link.connect(self.address, got)
        self._inward.append(link)
        link.lost.add_done_callback(lambda _: fresh.set())
        link.transport.write(b"SUB %b 1\r\n" % inbox)
        while True:
            out, done = acks, places
            acks, places = [], []
            if wanted <= batch // 2:
                wanted += batch
                out.append(pull)
            if out:
                link.transport.write(b"".join(out))
                self.book.acknowledge(done)
            fresh.clear()
            await fresh.wait()
            if link.lost.done():
                link.lost.result()

    async def close(self) -> None:
        for link in [self._link, *self._inward]:
            await link.close()
