"""Fixtures for tests of what happens between two endpoints, over HTTP and on streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from protocol.client import Stream, transport
from protocol.stream import Frame, Role, Session
from tests.conftest import RunningHub
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.stream import RawStream, raw_stream


@pytest.fixture
async def pair(hub: RunningHub) -> AsyncIterator[Pair]:
    """The province, and the district that speaks for a commune too."""
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN, DAI_SON))
    async with pair.sender, pair.receiver:
        yield pair


@pytest.fixture
async def sending(pair: Pair, http: aiohttp.ClientSession) -> AsyncIterator[RawStream]:
    """The province's stream by hand, on which it only submits."""
    async with raw_stream(http, pair.hub.url, pair.province) as stream:
        yield stream


@pytest.fixture
async def receiving(pair: Pair, http: aiohttp.ClientSession) -> AsyncIterator[RawStream]:
    """The district's stream by hand, with room for a thousand entries."""
    async with raw_stream(http, pair.hub.url, pair.district, messages=1000, size=8 << 20) as stream:
        yield stream


@pytest.fixture
async def out(pair: Pair) -> AsyncIterator[Stream]:
    """The client's stream of the province."""
    async with pair.sender.stream() as stream:
        yield stream


@pytest.fixture
async def into(pair: Pair) -> AsyncIterator[Stream]:
    """The client's stream of the district."""
    async with pair.receiver.stream() as stream:
        yield stream


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a client's patience."""
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(transport, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Every frame that clients send."""
    frames: list[Frame] = []
    send = Session.send

    def noted(self: Session, frame: Frame) -> bytes:
        if self._role is Role.CLIENT:
            frames.append(frame)
        return send(self, frame)

    monkeypatch.setattr(Session, "send", noted)
    return frames
