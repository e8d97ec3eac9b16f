"""Two hubs that are linked, each held, cut off or set back at the place where it hurts: what is on its way arrives
once, whoever cannot have it does not hold up the rest, and what became of it reaches its sender."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import orjson
import pytest
from aiohttp import web

from hub.couriers import (
    link,
    link_fetch,
    link_health,
    link_native,
    link_native_carrier,
    link_native_fetch,
    link_push,
)
from hub.couriers.link_axis import Listed, PeerError, PeerRefusedError
from hub.couriers.link_fetch import Fetcher
from hub.couriers.link_native import BehindError, NativePeer
from hub.couriers.link_native_fetch import NativeFetcher
from hub.couriers.link_native_sync import NativeSync
from hub.couriers.link_push import Pusher
from hub.directory import change, hubs, links
from hub.directory.change import AgencyRow, DirectoryError
from hub.pdf.result import Policy
from protocol.client import transport
from protocol.client.model import Entry, Sent
from protocol.link import Beside, DirectoryTaken, Line
from protocol.problems import Problem
from tests.support import link_scene, native_linked
from tests.support.axis_parties import paper as paper_of
from tests.support.link_scene import Linked
from tests.support.linked import FINANCE, GOVERNMENT_OFFICE, UP
from tests.support.native_linked import BELOW, Levels
from tests.support.parties import DAI_SON, LUC_YEN, NAMES, VAN_YEN, register
from tests.support.pdf_signed import paper
from tests.support.until import until

hub_maker, unlinked, levels = native_linked.hub_maker, native_linked.unlinked, native_linked.levels
axis, linked, impatient_couriers = link_scene.axis, link_scene.linked, link_scene.impatient_couriers
CONTROL = "000.00.01.G22"


# -- what the peer will not have -------------------------------------------------------------------


async def test_an_unsigned_pdf_is_refused_there_and_holds_up_nothing(levels: Levels, tmp_path: Path) -> None:
    await change.set_pdf_signatures(levels.nation.connection, BELOW, Policy.REQUIRE)
    await levels.nation.follow()
    file = tmp_path / "Tờ trình.pdf"
    file.write_bytes(paper("Tờ trình chưa ký"))
    attachment = await levels.client(levels.district).upload(file)
    message = await levels.send(levels.district, GOVERNMENT_OFFICE, attachments=(attachment,))
    delivery = await levels.ended(levels.district, message, "refused")
    assert "pdf-signature" in delivery["reason"] and "Tờ trình.pdf" in delivery["reason"]
    await levels.settled()


async def test_a_limit_of_one_request_is_none_of_each_message(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy before the peer takes less in one body than this hub puts into it."""
    asked: list[int] = []
    send_lines = NativePeer.send_lines

    async def limited(self: NativePeer, lines: list[Line]) -> list[Sent | PeerError | PeerRefusedError]:
        asked.append(len(lines))
        if len(lines) > 1:
            raise link_native.error_of(transport.from_members({}, 413))
        return await send_lines(self, lines)

    monkeypatch.setattr(NativePeer, "send_lines", limited)
    await links.set_active(levels.province.connection, UP, False)
    await levels.province.follow()
    names = [f"{number}/BC-UBND" for number in range(1, 6)]
    for name in names:
        await levels.send(levels.district, GOVERNMENT_OFFICE, id=name)
    await links.set_active(levels.province.connection, UP, True)
    await levels.province.follow()
    entries = await levels.mail(levels.office, len(names))
    assert [entry.sender_id for entry in entries] == names
    assert max(asked) > 1
    await levels.settled()


# -- a peer that was set back ----------------------------------------------------------------------


async def _forget(levels: Levels, *messages: str) -> None:
    """The nation's hub is as it was before these came: restored from an older backup."""
    connection = levels.nation.connection
    names = [UUID(message) for message in messages]
    for table, column in (("submission", "message"), ("message", "id")):
        await connection.execute(f"delete from {table} where {column} = any($1::uuid[])", names)


async def test_a_notice_of_what_the_peer_has_no_more_is_not_told_for_ever(levels: Levels) -> None:
    lost = await levels.send(levels.office, DAI_SON)
    (entry,) = await levels.mail(levels.commune)
    await levels.settled()
    await _forget(levels, lost)
    await levels.client(levels.commune).refuse(entry, "Gửi nhầm cơ quan")
    refused = "select count(*) from message where kind = 2"
    await until(lambda: levels.province.connection.fetchval(refused), "the link has the notice")
    await levels.settled()
    state = await levels.row()
    assert state["failures"] == 0


async def test_a_refusal_reaches_the_peer_under_the_newer_name_of_what_it_was_sent_again(levels: Levels) -> None:
    client = levels.client(levels.office)
    raw = client.sign(levels.office.document(DAI_SON, id="15/VPCP"))
    lost = (await client.submit(raw)).id
    (entry,) = await levels.mail(levels.commune)
    await levels.settled()
    await _forget(levels, lost)
    again = (await client.submit(raw)).id
    assert again != lost
    await levels.ended(levels.office, again, "acknowledged")
    assert len(await levels.mail(levels.commune)) == 1
    await levels.client(levels.commune).refuse(entry, "Không thuộc thẩm quyền")
    (notice,) = await levels.mail(levels.office)
    assert orjson.loads(notice.receipt.event)["message"] == again


async def test_an_older_directory_that_arrives_late_is_set_right(levels: Levels) -> None:
    """A request stood still, its hub sent another, and then it went on."""
    province, nation = levels.province.hub, levels.nation.hub
    (up,) = province.directory.picture.links.values()
    older = hubs.told(province.directory.picture, up, "truc-yen-bai", province._hub_keys, datetime.now(UTC))
    await register(levels.province.connection, "luc-yen", LUC_YEN)
    await levels.province.follow()

    def known() -> bool:
        agency = nation.directory.picture.agency(LUC_YEN)
        return agency is not None and agency.active

    await until(known, "the nation's hub knows the new agency")
    (below,) = nation.directory.picture.hubs.values()
    await hubs.take_from_below(nation.pool, nation.directory.picture, below, older)
    await levels.nation.follow()
    assert not known()
    await until(known, "it knows it again")
    assert await levels.send(levels.office, LUC_YEN)


# -- exchanges that fail ---------------------------------------------------------------------------


async def test_nothing_is_refused_for_an_agency_of_which_the_peer_could_not_be_told(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, judged = NativePeer.tell, link_native_carrier.NativeCarrier._judged
    stalled, found = [True], list[Exception]()

    async def failing(self: NativePeer, directory: bytes) -> DirectoryTaken:
        if stalled[0]:
            raise PeerError("the peer's store is away")
        return await tell(self, directory)

    def noted(self: Any, message: UUID, error: Exception) -> Exception:
        found.append(judged(self, message, error))
        return found[-1]

    monkeypatch.setattr(NativePeer, "tell", failing)
    monkeypatch.setattr(link_native_carrier.NativeCarrier, "_judged", noted)
    newcomer = await register(levels.province.connection, "luc-yen", LUC_YEN)
    await levels.province.follow()
    async with newcomer.client(levels.province.url) as client:
        sent = await client.send(newcomer.document(GOVERNMENT_OFFICE, subject="Công văn đầu tiên"))
        most = link_native_carrier.BEHIND_TRIES
        await until(lambda: len(found) > most, "it was tried more often than a stranger's would be")
        assert all(isinstance(error, BehindError) for error in found)
        stalled[0] = False
        (entry,) = await levels.mail(levels.office)
        assert entry.sender == LUC_YEN
        (delivery,) = (await client.events(sent.id))["deliveries"]
        assert delivery["state"] != "refused"


async def test_nothing_is_refused_of_a_signer_of_whom_the_peer_could_not_be_asked(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, put = NativeSync._ask, link_native_fetch.Deferred.put
    stalled, tries = [True], list[int]()

    async def failing(self: NativeSync) -> None:
        if stalled[0]:
            raise DirectoryError("the peer's list is not believed")
        await ask(self)

    def noted(self: Any, item: Any, known: int = 0) -> int:
        tries.append(put(self, item, known))
        return tries[-1]

    monkeypatch.setattr(NativeSync, "_ask", failing)
    monkeypatch.setattr(link_native_fetch.Deferred, "put", noted)
    newcomer = await register(levels.nation.connection, "vpcp-2", CONTROL)
    await levels.nation.follow()
    async with newcomer.client(levels.nation.url) as client:
        sent = await client.send(newcomer.document(DAI_SON, subject="Công điện"))
        await until(lambda: max(tries, default=0) > link_native_fetch.BEHIND_TRIES, "it was tried often")
        (delivery,) = (await client.events(sent.id))["deliveries"]
        assert delivery["state"] != "refused"
        stalled[0] = False
        (entry,) = await levels.mail(levels.commune)
        assert entry.sender == CONTROL


async def test_a_message_of_which_the_peer_tells_nonsense_holds_up_no_other(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, told = NativePeer.read, dict[str, str]()
    nonsense = ["", "hôm qua", "2026-11-23T08:00:00"]  # the last without a zone

    async def altered(self: NativePeer, limit: int, wait: float, after: str) -> tuple[list[Entry], str]:
        entries, cursor = await read(self, limit, wait, after)
        for entry in entries:
            told.setdefault(entry.id, nonsense.pop() if nonsense else entry.accepted_at)
        return [replace(entry, accepted_at=told[entry.id]) for entry in entries], cursor

    monkeypatch.setattr(NativePeer, "read", altered)
    await levels.send(levels.office, DAI_SON)  # for which the page is already asked
    await levels.mail(levels.commune)
    for _ in range(4):
        await levels.send(levels.office, DAI_SON)
    await levels.mail(levels.commune, 2)
    assert not nonsense and len(told) == 4
    told.update(dict.fromkeys(told, "2026-11-23T08:00:00Z"))
    await levels.mail(levels.commune, 5)


# -- operators' orders -----------------------------------------------------------------------------


async def test_an_order_outlives_the_courier_that_read_it(levels: Levels, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await levels.send(levels.district, GOVERNMENT_OFFICE)
    await levels.settled()
    resend, died = Pusher.resend, []

    async def dying(self: Pusher, name: UUID) -> None:
        if not died:
            died.append(name)
            raise asyncpg.ConnectionDoesNotExistError("the store went away")
        await resend(self, name)

    monkeypatch.setattr(Pusher, "resend", dying)
    await links.order(levels.province.connection, UP, "resend", UUID(message))
    tries = "select tries from link_transfer where message = $1"

    async def sent_again() -> bool:
        return bool(await levels.province.connection.fetchval(tries, UUID(message)) == 2)

    await until(sent_again, "the next courier carried it out")
    assert died == [UUID(message)]
    orders = "select count(*) from link_order"
    await until(lambda: _none(levels.province.connection, orders), "it is not carried out once more")
    assert len(await levels.mail(levels.office)) == 1


async def _none(connection: asyncpg.Connection, count: str) -> bool:
    return not await connection.fetchval(count)


async def test_an_order_to_exchange_directories_does_not_wait_for_the_next_try(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, failing, failed = NativeSync._ask, [True], asyncio.Event()

    async def unable(self: NativeSync) -> None:
        if failing[0]:
            failed.set()
            raise PeerError("the peer's store is away")
        await ask(self)

    for module in (link, link_health):
        monkeypatch.setattr(module, "backoff", lambda tries, longest: 600.0)
    monkeypatch.setattr(NativeSync, "_ask", unable)
    await failed.wait()
    failing[0] = False
    at = "select synced_at from link_state"
    synced = await levels.province.connection.fetchval(at)
    await links.order(levels.province.connection, UP, "sync")

    async def again() -> bool:
        return bool(await levels.province.connection.fetchval(at) > synced)

    await until(again, "the directories were exchanged")


async def test_an_order_that_cannot_be_carried_out_ends_no_courier(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Pusher, name: UUID) -> None:
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(Pusher, "resend", broken)
    message = await levels.send(levels.district, GOVERNMENT_OFFICE)
    await links.order(levels.province.connection, UP, "resend", UUID(message))
    orders = "select count(*) from link_order"
    await until(lambda: _none(levels.province.connection, orders), "it was taken")
    await levels.ended(levels.district, message, "acknowledged")


# -- a hostile peer --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _endless(status: int = 200) -> AsyncIterator[str]:
    """A server that answers everything without end."""
    ended = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not ended.is_set():
                await response.write(b" " * 65536)
        return response

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        await runner.cleanup()


MESSAGE = "0199b7a0-0000-7000-8000-000000000001"
CALLS: list[Callable[[NativePeer], Any]] = [
    lambda peer: peer.read(10, 0.0, "0.0.0"),
    lambda peer: peer.directory(),
    lambda peer: peer.tell(b"{}"),
    lambda peer: peer.send_lines([]),
    lambda peer: peer.acknowledge([1], {}),
    lambda peer: peer.fetch_whole(MESSAGE),
]


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("call", CALLS, ids=["read", "directory", "tell", "send", "acknowledge", "fetch"])
async def test_an_answer_without_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[NativePeer], Any], status: int
) -> None:
    monkeypatch.setattr(transport, "MAX_BODY_BYTES", 1 << 20)
    monkeypatch.setattr(link_native, "MAX_HELD_BYTES", 1 << 20)
    async with _endless(status) as url, NativePeer(url, "token", 1 << 20) as peer:
        with pytest.raises(PeerError):
            await call(peer)


async def test_other_work_goes_on_while_a_long_directory_is_compared(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100,000 agencies took a process three seconds, in which it answered nobody."""
    threads: list[bool] = []
    differing, readable = links.differing, hubs._readable

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return differing(*arguments)

    def noted_keys(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return readable(*arguments)

    monkeypatch.setattr(links, "differing", noted)
    monkeypatch.setattr(hubs, "_readable", noted_keys)
    await change.add_agency(levels.nation.connection, AgencyRow(CONTROL, "Cục Kiểm soát thủ tục hành chính"))
    await change.add_agency(levels.province.connection, AgencyRow(LUC_YEN, NAMES[LUC_YEN]))
    await register(levels.province.connection, "luc-yen", LUC_YEN)
    above, below = levels.nation.hub.directory, levels.province.hub.directory
    await until(lambda: above.picture.agency(LUC_YEN) and below.picture.agency(CONTROL), "both have heard")
    assert len(threads) >= 4 and not any(threads)


def test_what_a_proxy_says_of_the_length_is_said_of_the_message() -> None:
    error = link_native.error_of(transport.from_members({}, 413))
    assert isinstance(error, PeerRefusedError)
    assert msgspec.json.encode(Problem("too-large").kind.status) == b"413"


# -- a slow one ------------------------------------------------------------------------------------


async def test_what_is_urgent_does_not_wait_for_a_slow_transfer(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a gigabyte over a slow line takes hours."""
    held, go_on, send_whole = asyncio.Event(), asyncio.Event(), NativePeer.send_whole

    async def slow(self: NativePeer, beside: Beside, source: bytes | Path) -> Sent:
        held.set()
        await go_on.wait()
        return await send_whole(self, beside, source)

    monkeypatch.setattr(link_push, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(NativePeer, "send_whole", slow)
    large = paper_of(GOVERNMENT_OFFICE, sender=VAN_YEN)
    await levels.client(levels.district).submit(large, "application/xml")
    await held.wait()
    try:
        await levels.send(levels.commune, FINANCE, priority="express", subject="Công điện hỏa tốc")
        await levels.mail(levels.finance)
        # Its own agency's wait for it, but for those of another lane.
        for name in ("1/BC", "2/BC"):
            await levels.send(levels.district, GOVERNMENT_OFFICE, id=name)
        await levels.send(levels.district, GOVERNMENT_OFFICE, id="3/CĐ", priority="express")
        (entry,) = await levels.mail(levels.office)
        assert entry.sender_id == "3/CĐ"
    finally:
        go_on.set()
    await levels.settled()
    entries = await levels.mail(levels.office, 4)
    normal = [entry.sender_id for entry in entries if entry.lane == "normal"]
    assert normal[0].startswith("edxml:") and normal[1:] == ["1/BC", "2/BC"]
    assert len(entries) == 4 and len(await levels.mail(levels.finance)) == 1


async def test_what_is_urgent_does_not_wait_for_a_slow_download(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on, edxml = asyncio.Event(), asyncio.Event(), NativeFetcher._edxml
    given = []

    async def slow(self: NativeFetcher, entry: Entry, ended: set[int]) -> None:
        given.append(entry.id)
        held.set()
        await go_on.wait()
        await edxml(self, entry, ended)

    monkeypatch.setattr(link_native_fetch, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(NativeFetcher, "_edxml", slow)
    client = levels.client(levels.office)
    large = (await client.submit(paper_of(DAI_SON, sender=GOVERNMENT_OFFICE), "application/xml")).id
    await held.wait()
    try:
        urgent = await levels.send(levels.finance, DAI_SON, priority="express", subject="Công điện hỏa tốc")
        await levels.mail(levels.commune)
        await levels.ended(levels.finance, urgent, "acknowledged")
        for name in ("1/CV", "2/CV"):
            await levels.send(levels.office, DAI_SON, id=name)
        await levels.send(levels.office, DAI_SON, id="3/CĐ", priority="express")
        entries = await levels.mail(levels.commune, 2)
        assert [entry.sender_id for entry in entries][1:] == ["3/CĐ"]
    finally:
        go_on.set()
    await levels.settled()
    entries = await levels.mail(levels.commune, 5)
    normal = [entry.sender_id for entry in entries if entry.lane == "normal"]
    assert normal[0].startswith("edxml:") and normal[1:] == ["1/CV", "2/CV"]
    assert len(entries) == 5 and given == [large]
    await levels.ended(levels.office, large, "acknowledged")


async def test_a_slow_document_of_the_axis_holds_up_its_own_agency_alone(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on, fetch = asyncio.Event(), asyncio.Event(), Fetcher._fetch
    given = []

    async def slow(self: Fetcher, item: Listed) -> None:
        given.append(item.id)
        if item.id == "1":
            held.set()
            await go_on.wait()
        await fetch(self, item)

    monkeypatch.setattr(link_fetch, "HOLD_SECONDS", 0.05)
    monkeypatch.setattr(Fetcher, "_fetch", slow)
    linked.give("1", paper_of(DAI_SON, sender=GOVERNMENT_OFFICE))
    await held.wait()
    try:
        linked.give("2", paper_of(DAI_SON, sender=GOVERNMENT_OFFICE))
        linked.give("3", paper_of(DAI_SON, sender=FINANCE), FINANCE)
        assert await linked.taken("3") == "done"
        assert given == ["1", "3"]
    finally:
        go_on.set()
    assert [await linked.taken(name) for name in ("1", "2")] == ["done", "done"]
    assert given == ["1", "3", "2"]
    assert len(await linked.mail(3)) == 3
