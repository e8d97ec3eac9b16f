"""A stream by hand: frames as a test wants them, over a real WebSocket. And what tests do with either kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar

import aiohttp
import orjson
from aiohttp import WSMsgType

from protocol.client import Entry, Stream
from protocol.manifest import seal_documents
from protocol.message import Document
from protocol.stream import (
    MAX_ANSWER_BYTES,
    SUBPROTOCOL,
    Ack,
    Answers,
    Credit,
    Frame,
    Hello,
    Mail,
    Role,
    Session,
    Submit,
    Welcome,
)
from tests.support.pair import Pair
from tests.support.parties import VAN_YEN, Party

FrameKind = TypeVar("FrameKind", bound=Frame)
HEAR_SECONDS = 30.0


class RawStream:
    """One end of a stream. Whatever is awaited here ends within `HEAR_SECONDS` or fails."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.session = Session(Role.CLIENT)

    async def greet(self, messages: int = 0, size: int = 0, after: str = "0.0.0") -> Welcome:
        await self.say(Hello(messages, size, after))
        return await self.hear(Welcome)

    async def say(self, *frames: Frame) -> None:
        for frame in frames:
            await self.ws.send_bytes(self.session.send(frame))

    async def submit(self, *messages: bytes) -> int:
        """Submit JWS in one frame; its number."""
        n = self.session.next_number
        await self.say(Submit(n, messages=tuple(message.decode() for message in messages)))
        return n

    async def submit_together(self, party: Party, documents: Sequence[Document]) -> int:
        manifest = seal_documents(documents, party.signer)
        n = self.session.next_number
        lines = tuple(document.decode() for document in manifest.documents)
        await self.say(Submit(n, manifest=manifest.jws.decode(), documents=lines))
        return n

    async def acknowledge(self, **members: Any) -> int:
        n = self.session.next_number
        await self.say(Ack(n, **members))
        return n

    async def grant(self, messages: int, size: int = 1 << 20) -> None:
        await self.say(Credit(messages, size))

    async def next(self) -> Frame:
        """The next frame, whatever it is."""
        message = await self.ws.receive(HEAR_SECONDS)
        assert message.type is WSMsgType.TEXT, message
        return self.session.receive(message.data)

    async def hear(self, kind: type[FrameKind]) -> FrameKind:
        """The next frame, which must be of this kind."""
        frame = await self.next()
        assert isinstance(frame, kind), frame
        return frame

    async def answers(self, *numbers: int) -> dict[int, tuple[dict[str, Any], ...]]:
        """The outcomes of these submissions, in whatever order and frames they come."""
        found: dict[int, tuple[dict[str, Any], ...]] = {}
        while set(found) != set(numbers):
            for answer in (await self.hear(Answers)).answers:
                found[answer.n] = answer.outcomes
        return found

    async def mail(self, count: int) -> list[dict[str, Any]]:
        """So many entries, and no more."""
        entries: list[dict[str, Any]] = []
        while len(entries) < count:
            frame = await self.hear(Mail)
            entries += frame.entries
            self.cursor = frame.cursor
        assert len(entries) == count
        return entries

    async def silence(self) -> None:
        """Nothing comes before the answer to a question."""
        await self.ws.ping(b"im")
        async with asyncio.timeout(HEAR_SECONDS):
            message = await self.ws.receive()
        assert (message.type, message.data) == (WSMsgType.PONG, b"im"), message

    async def end(self) -> tuple[dict[str, Any] | None, int | None]:
        """The problem that the hub ends the connection with, if it says one, and the close code."""
        problem = None
        while True:
            message = await self.ws.receive(HEAR_SECONDS)
            if message.type is not WSMsgType.TEXT:
                return problem, self.ws.close_code
            frame = orjson.loads(message.data)
            if frame["type"] == "problem" and "n" not in frame:
                problem = frame["problem"]


@contextlib.asynccontextmanager
async def raw_stream(
    http: aiohttp.ClientSession, url: str, party: Party, **hello: Any
) -> AsyncIterator[RawStream]:
    """A stream of `party` to the hub at `url`, greeted unless ``greet=False``."""
    greet = hello.pop("greet", True)
    async with http.ws_connect(
        f"{url}/v1/stream",
        headers=party.headers,
        protocols=(SUBPROTOCOL,),
        max_msg_size=MAX_ANSWER_BYTES,
        autoping=False,
    ) as ws:
        stream = RawStream(ws)
        if greet:
            await stream.greet(**hello)
        yield stream


# -- between two endpoints ------------------------------------------------------------------------------


def document(pair: Pair, *to: str, **members: Any) -> Document:
    """A document of the province, to the district unless told otherwise."""
    return pair.province.document(*(to or (VAN_YEN,)), **members)


def message(pair: Pair, *to: str, **members: Any) -> bytes:
    """The same, signed alone."""
    return pair.sender.sign(document(pair, *to, **members))


async def prove(pair: Pair, outcome: dict[str, Any], signed: bytes) -> dict[str, Any]:
    """The event that an outcome's receipt proves of `signed`, by both verifiers."""
    return await pair.check(orjson.dumps(outcome), signed)


# -- the client's ---------------------------------------------------------------------------------------


async def take(stream: Stream, count: int) -> list[Entry]:
    """So many entries of mail."""
    entries: list[Entry] = []
    async for entry in stream.mail():
        entries.append(entry)
        if len(entries) == count:
            return entries
    raise AssertionError("the mail came to an end")


def of(frames: Sequence[Frame], kind: type[FrameKind]) -> Iterator[FrameKind]:
    """The frames of one kind."""
    return (frame for frame in frames if isinstance(frame, kind))
