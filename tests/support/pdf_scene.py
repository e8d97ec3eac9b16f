"""An endpoint whose attached PDFs are looked at, by every door, and fixtures of it.

A test module takes over the fixtures: ``axis = pdf_scene.axis`` and ``quick = pdf_scene.quick``.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import aiohttp
import orjson
import pytest

from hub.directory import change, trust
from hub.pdf import queue as queues
from hub.pdf.result import Policy
from protocol.client import Attachment
from protocol.evidence import EventKind
from protocol.message import Document
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support import pdf_signed as signed
from tests.support.axis_parties import Axis, connect, paper
from tests.support.axis_sdk import SdkError
from tests.support.desk import STORED, check_problem
from tests.support.parties import VAN_YEN
from tests.support.until import until

CHECKED = EventKind.SIGNATURES_CHECKED.value
QUEUED = "select count(*) from pdf_queue"
DOORS = ["native", "edxml", "axis"]
NAME = "Báo cáo tuần 47.pdf"
SHEET = b"PK\x03\x04" + bytes(3000)


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    made = await connect(hub, http)
    await believe(hub)
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "POLL_SECONDS", 0.2)


async def believe(hub: RunningHub, authority: signed.Authority | None = None) -> None:
    """Make the tests' authority a trust anchor."""
    await trust.add_anchor(hub.connection, (authority or signed.authority()).certificate)
    await hub.follow()


async def settle(axis: Axis, wanted: Policy, countersigned: bool = False) -> None:
    """Give the province a policy; returns once the hub knows it."""
    await change.set_pdf_signatures(axis.hub.connection, axis.province.party.name, wanted, countersigned)
    await axis.hub.follow()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def upload(axis: Axis, *files: tuple[str, bytes]) -> tuple[Attachment, ...]:
    headers = axis.province.party.headers
    for _, data in files:
        url = f"{axis.hub.url}/v1/attachments/{sha256(data)}"
        async with aiohttp.ClientSession() as http, http.put(url, data=data, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
    return tuple(Attachment(name, len(data), sha256(data)) for name, data in files)


def document(axis: Axis, attachments: tuple[Attachment, ...], **members: Any) -> Document:
    return axis.province.party.document(VAN_YEN, attachments=attachments, **members)


async def send(axis: Axis, pdf: bytes, door: str = "native", name: str = NAME) -> str:
    """Send a document with this file in it by that door; the hub's id. Raises Problem, or SdkError."""
    if door == "native":
        attachments = await upload(axis, (name, pdf))
        async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
            return (await client.send(document(axis, attachments))).id
    raw = paper(content=b64encode(pdf).decode())
    if door == "axis":
        return await axis.province.sdk.send_edoc(raw, axis.province.party.agencies[0])
    async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
        return (await client.submit(raw, "application/xml")).id


async def timeline(axis: Axis, message: str) -> list[dict[str, Any]]:
    """Its events of PDFs, as its recipient sees them."""
    async with axis.district.party.client(axis.hub.url) as client:
        found = await client.events(message)
    return [event for event in found["events"] if event["event"] == CHECKED]


async def recorded(axis: Axis, message: str, count: int = 1) -> list[dict[str, Any]]:
    """The same once there are `count`, and nothing waits any more."""

    async def done() -> list[dict[str, Any]] | None:
        if await axis.hub.connection.fetchval(QUEUED):
            return None
        found = await timeline(axis, message)
        return found if len(found) >= count else None

    found = await until(done, f"{count} PDFs of {message} were checked")
    assert found is not None and len(found) == count
    return found


async def refusal(axis: Axis, pdf: bytes, door: str = "native", name: str = NAME) -> str:
    """Why it is refused. Nothing of it is kept, and the refusal is sealed."""
    before = await axis.hub.connection.fetchrow(STORED)
    with pytest.raises((Problem, SdkError)) as caught:
        await send(axis, pdf, door, name)
    if isinstance(caught.value, SdkError):
        assert caught.value.code == "61"
        reason = caught.value.description
    else:
        assert isinstance(caught.value, Problem)
        check_problem(caught.value.members(), "pdf-signature")
        assert caught.value.extra["attachment"] == sha256(pdf)
        reason = caught.value.detail
    row = await axis.hub.connection.fetchrow("select * from rejection order by id desc limit 1")
    assert row is not None and row["code"] == "pdf-signature"
    assert orjson.loads(row["event"])["reason"] == reason
    assert await axis.hub.connection.fetchrow(STORED) == before
    return str(reason)


async def empty(axis: Axis) -> bool:
    """Whether nothing waits to be checked."""
    return not await axis.hub.connection.fetchval(QUEUED)
