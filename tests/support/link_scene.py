"""A province's hub with a link to an axis that misbehaves on order, and fixtures of both.

A test module takes over the fixtures that it wants: ``linked = link_scene.linked``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from protocol.client import HubClient
from tests.conftest import RunningHub
from tests.support.fake_axis import FakeAxis
from tests.support.linked import GOVERNMENT_OFFICE, Province, impatient, link_row, make_province
from tests.support.until import until


@pytest.fixture(autouse=True)
def impatient_couriers() -> Iterator[None]:
    with impatient():
        yield


@pytest.fixture
async def axis() -> AsyncIterator[FakeAxis]:
    async with FakeAxis().serve() as fake:
        yield fake


class Linked:
    """A province's hub with a link to the fake axis."""

    def __init__(self, hub: RunningHub, axis: FakeAxis, parties: Province) -> None:
        self.hub = hub
        self.axis = axis
        self.district = parties.district
        self.commune = parties.commune
        self.sender: HubClient = parties.district.client(hub.url)
        self.reader: HubClient = parties.commune.client(hub.url)

    async def send(self, *to: str, subject: str = "Báo cáo", **members: Any) -> str:
        document = self.district.document(*(to or (GOVERNMENT_OFFICE,)), subject=subject, **members)
        return (await self.sender.submit(self.sender.sign(document))).id

    async def delivery(self, message: str) -> dict[str, Any]:
        (found,) = (await self.sender.events(message))["deliveries"]
        return dict(found)

    async def ended(self, message: str, how: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            found = await self.delivery(message)
            return found if found["state"] == how else None

        return await until(look, f"the delivery is {how}")

    async def row(self) -> asyncpg.Record:
        return await link_row(self.hub.connection)

    async def mail(self, count: int) -> list[Any]:
        """What the commune has got, as soon as it is `count` messages."""

        async def look() -> list[Any] | None:
            entries, _ = await self.reader.read(50)
            return entries if len(entries) >= count else None

        return await until(look, f"{count} messages have come")

    def give(self, name: str, content: bytes, sender: str = GOVERNMENT_OFFICE, kind: str = "edoc") -> None:
        self.axis.waiting[name] = kind, sender, content

    async def taken(self, name: str) -> str:
        """How /updateStatus ended a document."""
        return await until(lambda: dict(self.axis.ended).get(name), f"{name} is ended")


async def link_up(hub: RunningHub, axis: FakeAxis, **options: Any) -> Province:
    key = Path(hub.hub.config.secrets_key)
    options.setdefault("poll_seconds", 0.1)
    parties = await make_province(hub.connection, key, axis.url, axis.secret, retry_seconds=0.2, **options)
    await hub.follow()
    return parties


@pytest.fixture
async def linked(hub: RunningHub, axis: FakeAxis) -> AsyncIterator[Linked]:
    found = Linked(hub, axis, await link_up(hub, axis))
    async with found.sender, found.reader:
        yield found
