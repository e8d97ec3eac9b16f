"""Auditing whatever answers at an address: garbage, silence, floods. Time and memory are bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub.cli.audit_show import sentence
from protocol.audit import Remembered
from protocol.client import log as client_log
from protocol.client.audit import Audit, Plan, Report
from protocol.client.audit_events import EventAudit
from protocol.client.log import FetchError, LogClient
from protocol.log import ENTRIES, Checkpoint, read_tile_path, write_bundle
from tests.support.small_log import SmallLog, entry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_log, "PAUSE_SECONDS", 0.0)


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Something that answers every request so; gives its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def served(one: SmallLog, size: int, face: str = "", **instead: Handler) -> Handler:
    """A log in memory. `instead`: by the first word of the path below /log, what answers in its place."""

    async def handler(request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/log").strip("/")
        other = instead.get(path.split("/")[0] or "about")
        if other is not None:
            return await other(request)
        if path == "checkpoint":
            return web.Response(text=one.note(size))
        if not path:
            return web.json_response(
                {"origin": one.origin, "vkey": str(one.verifier), "size": size, "waiting": 0, "within_seconds": 60}
            )
        if request.path.startswith("/v1/"):
            return web.json_response({"detail": "không được phép"}, status=403)
        tile = read_tile_path(path)
        start = tile.index * 256
        if tile.level == ENTRIES:
            return web.Response(body=write_bundle(entry(start + place, face) for place in range(tile.width)))
        return web.Response(body=b"".join(one._node(8 * tile.level, start + place) for place in range(tile.width)))

    return handler


async def audited(one: SmallLog, handler: Handler, plan: Plan | None = None) -> Report:
    async with answering(handler) as url, LogClient(url, "lt_mã", timeout=0.5) as client:
        work = Audit(client, Remembered(one.origin, str(one.verifier), url, False), plan or Plan())
        await work.run()
        events = EventAudit(work, [])
        await events.sample(3)
        return work.report


def codes(report: Report) -> set[str]:
    assert sentence(report, {}, True)
    return {finding.code for finding in report.findings}


ONE = SmallLog().grow(600)


async def test_a_log_in_memory_is_in_order() -> None:
    report = await audited(ONE, served(ONE, 600))
    assert codes(report) == {"forbidden"}
    assert (report.new_entries, report.walked) == (600, 600)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x" * 65536)
    return response


async def _trickling(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)
    return response


async def _silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:1/")


async def _packed(request: web.Request) -> web.StreamResponse:
    """Not unpacked: nobody asked for it."""
    return web.Response(body=b"\x1f\x8b" + bytes(100), headers={"Content-Encoding": "gzip"})


def _text(text: bytes, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=text, status=status)

    return handler


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (_endless, "not-a-log"),
        (_trickling, "unreachable"),
        (_silent, "unreachable"),
        (_elsewhere, "not-a-log"),
        (_packed, "not-a-log"),
        (_text(b""), "not-a-log"),
        (_text(b"\xff\xfe"), "not-a-log"),
        (_text(b"[" * 100_000), "not-a-log"),
        (_text(b"<html>"), "not-a-log"),
        (_text("không\n".encode(), 404), "not-a-log"),
        (_text(b'{"detail":[1]}', 500), "unreachable"),
    ],
)
@pytest.mark.parametrize("part", ["checkpoint", "tile", "about"])
async def test_nonsense_is_bounded_and_told(handler: Handler, code: str, part: str) -> None:
    report = await audited(ONE, served(ONE, 600, **{part: handler}))
    assert report.status != 0
    if part != "tile":
        assert codes(report) - {"forbidden"} == {code} and report.status == 2
    else:  # within what was signed, nonsense and denial are more than that
        assert codes(report) & {code, "broken-tree", "withheld"}
    assert report.seen is None if part == "checkpoint" else report.seen is not None


@pytest.mark.parametrize("handler", [_endless, _trickling, _silent, _text(b"no")])
async def test_nothing_large_or_slow_is_taken(handler: Handler) -> None:
    async with answering(handler) as url, LogClient(url, timeout=0.3) as client:
        for ask in (
            client.about,
            client.hub_keys,
            lambda: client.event(1),
            lambda: client.witness(url),
            lambda: client.witness_evidence(url),
        ):
            with pytest.raises(FetchError) as caught:
                await ask()
            assert "answer" in str(caught.value) or "JSON" in str(caught.value)
        assert client.requests <= 5 * client_log.TRIES


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"waiting": 3, "checkpoint_at": "hôm qua"}, "not-a-log"),
        ({"waiting": 3, "checkpoint_at": "0001-01-01T00:00:00+14:00"}, "not-a-log"),
        ({"waiting": 3, "checkpoint_at": "2026-01-01T00:00:00"}, "not-a-log"),
        ({"waiting": 3, "checkpoint_at": "2020-01-01T00:00:00Z", "within_seconds": 1e300}, ""),
        ({"waiting": 3, "checkpoint_at": "2020-01-01T00:00:00Z"}, "standstill"),
        ({"waiting": "ba"}, "not-a-log"),
    ],
)
async def test_a_hub_may_say_of_its_log_what_it_likes(told: dict[str, Any], code: str) -> None:
    members = {
        "origin": ONE.origin,
        "vkey": str(ONE.verifier),
        "size": 1,
        "waiting": 0,
        "within_seconds": 60,
    } | told

    async def about(request: web.Request) -> web.Response:
        return web.json_response(members)

    report = await audited(ONE, served(ONE, 600, about=about))
    assert codes(report) - {"forbidden"} == ({code} if code else set())


async def test_entries_that_are_not_those_of_the_tree_are_named() -> None:
    report = await audited(ONE, served(ONE, 600, face="giả"))
    assert codes(report) >= {"broken-tree"}
    details = " ".join(finding.detail for finding in report.findings)
    assert "entry 0 is not the one that was signed" in details
    assert "entry 256" in details and "entry 512" in details
    assert report.walked == 0


async def test_a_size_that_nobody_can_have_is_not_walked() -> None:
    """The key signs that there are 2^62 entries: what is looked at is bounded."""
    lie = SmallLog(ONE.key)

    async def checkpoint(request: web.Request) -> web.Response:
        return web.Response(text=lie.sign(Checkpoint(lie.origin, 1 << 62, bytes(32)).text))

    async def tile(request: web.Request) -> web.Response:
        found = read_tile_path(request.path.removeprefix("/log/"))
        return web.Response(body=bytes(32 * found.width))

    report = await audited(ONE, served(ONE, 600, checkpoint=checkpoint, tile=tile))
    assert "broken-tree" in codes(report) and report.new_entries == 0


async def test_of_a_huge_log_so_much_is_walked_at_a_time() -> None:
    plan = Plan(new_bundles=2)
    async with answering(served(ONE, 600)) as url, LogClient(url) as client:
        remembered = Remembered(ONE.origin, str(ONE.verifier), url, False)
        reports = []
        for _ in range(3):
            reports.append(await Audit(client, remembered, plan).run())
    assert [(one.status, one.walked) for one in reports] == [(0, 512), (0, 600), (0, 600)]
    assert [codes(one) for one in reports] == [{"remainder"}, set(), set()]
    assert reports[0].findings[0].detail == "entries from 512 to 599"


async def test_the_store_may_say_what_it_likes() -> None:
    for told in (
        {},
        {"state": "kept"},
        {"state": "kept", "event": 5},
        {"state": "kept", "event": "không"},
        {"state": "kept", "event": "{}", "receipt": {}},
        {"state": ["kept"], "batch": {}},
        [],
    ):

        async def event(request: web.Request, told: Any = told) -> web.Response:
            return web.json_response(told)

        async with answering(event_of(event)) as url, LogClient(url, "lt_mã") as client:
            work = Audit(client, Remembered(ONE.origin, str(ONE.verifier), url, False), Plan())
            await work.run()
            await EventAudit(work, []).sample(2)
            assert work.report.events == 0
            assert codes(work.report) <= {"event-altered", "not-a-log"}


def event_of(event: Handler) -> Handler:
    log = served(ONE, 600)

    async def handler(request: web.Request) -> web.StreamResponse:
        return await (event if request.path.startswith("/v1/") else log)(request)

    return handler


async def test_a_damaged_receipt_is_told_and_the_others_are_looked_at(tmp_path: Path) -> None:
    async with answering(served(ONE, 600)) as url, LogClient(url) as client:
        work = Audit(
            client, Remembered(ONE.origin, str(ONE.verifier), url, False), Plan(), lambda: datetime.now(UTC)
        )
        await work.run()
        await EventAudit(work, []).receipts([("một.receipt", b"{"), ("hai.receipt", b"\xff" * 100)])
    assert [finding.code for finding in work.report.findings] == ["untrusted-receipt"] * 2
    assert work.report.status == 2
