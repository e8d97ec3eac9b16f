"""Checkpoints are stamped by an outside authority, and what it does when it is dead or lies stops nothing."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from yarl import URL

from hub.ca.authority import Authority as TrialAuthority
from hub.ca.responder import Responder
from hub.evidence import timestamps
from hub.evidence.timestamps import Authority, Stamper, pause_after
from hub.store.pool import create_pool
from protocol.note import read_note
from protocol.timestamp import TimeStamp, request_timestamp, verify_timestamp
from tests.conftest import StartHub
from tests.support.parties import DAI_SON, VAN_YEN
from tests.support.tsa import Root, Server
from tests.support.until import until

NOTE = (
    "truc.yen-bai/log\n{}\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    f"— truc.yen-bai/log {base64.b64encode(bytes(68)).decode()}\n"
)
INTERVAL = 600.0


class Scene:
    """A stamper with one authority, and checkpoints that are put into the table by hand."""

    def __init__(self, pool: asyncpg.Pool, server: Server, root: Root, session: aiohttp.ClientSession) -> None:
        self.pool = pool
        self.server = server
        self.root = root
        self.session = session
        self.authority = Authority(URL(server.url))
        self.stamper = Stamper(pool, [], [root.der], INTERVAL)

    async def checkpoint(self, size: int) -> bytes:
        """A checkpoint; gives what is to be stamped of it."""
        note = NOTE.format(size)
        await self.pool.execute("insert into checkpoint values ($1, now(), $2, $3)", size, b"\1" * 32, note)
        return read_note(note).text.encode()

    async def turn(self) -> TimeStamp | None:
        return await self.stamper.turn(self.authority, self.session)

    async def later(self) -> None:
        """Let the time pass after which the authority may be asked again."""
        await self.pool.execute("update timestamp_turn set next_at = now()")

    async def kept(self) -> list[asyncpg.Record]:
        return list(await self.pool.fetch("select * from checkpoint_timestamp order by size"))

    async def fails(self, reason: str) -> None:
        """A turn that comes to nothing, for this reason."""
        before = self.count("lienthong_timestamp_failures_total")
        assert await self.turn() is None
        assert await self.kept() == []
        assert self.count("lienthong_timestamp_failures_total") == before + 1
        row = await self.pool.fetchrow("select *, next_at - now() as wait from timestamp_turn")
        assert reason in row["error"] and row["failures"] == 1
        assert timedelta(seconds=20) < row["wait"] <= timedelta(seconds=30)
        # It is left alone for a while; then it is asked again, and that it was wrong once is forgotten.
        asked = len(self.server.requests)
        assert await self.turn() is None and len(self.server.requests) == asked
        self.server.answer = self.server.stamp
        self.authority = Authority(URL(self.server.url))

    def count(self, metric: str) -> float:
        return REGISTRY.get_sample_value(metric, {"authority": self.authority.name}) or 0.0


@pytest.fixture
async def scene(database_url: str, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    root = Root("Gốc thử nghiệm")
    pool = await create_pool(database_url, 3, "test")
    async with Server(root.authority()).running() as server:
        yield Scene(pool, server, root, http)
    await pool.close()


# -- as it should be ------------------------------------------------------------------------------


async def test_the_newest_checkpoint_is_stamped_and_anybody_can_verify_it(scene: Scene) -> None:
    assert await scene.turn() is None and not scene.server.requests  # there is nothing to stamp
    await scene.checkpoint(5)
    text = await scene.checkpoint(12)
    before = scene.count("lienthong_timestamps_total")  # another test's server may have had this port
    stamp = await scene.turn()
    (row,) = await scene.kept()
    assert (row["size"], row["authority"], row["at"]) == (12, scene.server.url, stamp.at if stamp else None)
    assert verify_timestamp(row["token"], text, [scene.root.der]) == stamp
    assert scene.count("lienthong_timestamps_total") == before + 1


async def test_an_authority_is_left_alone_between_two_tokens(scene: Scene) -> None:
    await scene.checkpoint(5)
    assert await scene.turn()
    assert await scene.turn() is None  # nothing new
    await scene.checkpoint(6)
    assert await scene.turn() is None  # too early
    wait = await scene.pool.fetchval("select next_at - now() from timestamp_turn")
    assert timedelta(seconds=INTERVAL - 60) < wait <= timedelta(seconds=INTERVAL)
    await scene.later()
    assert await scene.turn()
    assert [row["size"] for row in await scene.kept()] == [5, 6]
    assert len(scene.server.requests) == 2


async def test_an_empty_log_is_not_stamped(scene: Scene) -> None:
    await scene.checkpoint(0)
    assert await scene.turn() is None and not scene.server.requests


async def test_of_many_processes_one_asks(scene: Scene) -> None:
    await scene.checkpoint(5)
    turns = await asyncio.gather(*(scene.turn() for _ in range(8)))
    assert len([turn for turn in turns if turn]) == 1 == len(scene.server.requests)


def _hang(server: Server) -> asyncio.Event:
    """Let an authority answer nobody before what is returned is set."""
    hang = asyncio.Event()

    async def hanging(body: bytes) -> web.StreamResponse:
        await hang.wait()
        return web.Response()

    server.answer = hanging
    return hang


async def test_a_process_that_died_while_it_asked_holds_up_nobody_for_long(scene: Scene) -> None:
    await scene.checkpoint(5)
    hang = _hang(scene.server)
    dying = asyncio.create_task(scene.turn())
    await scene.server.asked.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    hang.set()
    scene.server.answer = scene.server.stamp
    assert await scene.turn() is None
    wait = await scene.pool.fetchval("select next_at - now() from timestamp_turn")
    assert wait <= timedelta(seconds=timestamps.TURN_SECONDS)
    await scene.later()
    assert await scene.turn()


async def test_several_authorities_stamp_the_same_checkpoint(scene: Scene) -> None:
    text = await scene.checkpoint(5)
    other_root = Root("Gốc khác")
    async with Server(other_root.authority(name="TSA thứ hai")).running() as other:
        stamper = Stamper(scene.pool, [scene.server.url, other.url], [scene.root.der, other_root.der], INTERVAL)
        stamper.start()
        rows = await until(lambda: _two(scene), "both have stamped")
        await stamper.stop()
    roots = [scene.root.der, other_root.der]
    named = {verify_timestamp(row["token"], text, roots).authority for row in rows}
    assert named == {"Lienthong TSA thử nghiệm", "TSA thứ hai"}


async def _two(scene: Scene) -> list[asyncpg.Record] | None:
    rows = await scene.kept()
    return rows if len(rows) == 2 else None


async def test_the_trial_authority_stamps_too(scene: Scene, tmp_path: Path) -> None:
    trial = TrialAuthority.make(tmp_path / "ca", alg="RS256")
    responder = Responder(tmp_path / "ca")
    scene.authority = Authority(URL(await responder.start() + "/tsr"))
    scene.stamper = Stamper(scene.pool, [], [trial.der()], INTERVAL)
    text = await scene.checkpoint(5)
    stamp = await scene.turn()
    await responder.stop()
    (row,) = await scene.kept()
    assert verify_timestamp(row["token"], text, [trial.der()]) == stamp


# -- authorities that are dead or lie -------------------------------------------------------------


async def test_an_authority_that_is_not_there(scene: Scene) -> None:
    await scene.checkpoint(5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        scene.authority = Authority(URL(f"http://127.0.0.1:{unused.getsockname()[1]}/tsr"))
        await scene.fails("it cannot be reached")


async def test_an_authority_that_does_not_answer(scene: Scene) -> None:
    await scene.checkpoint(5)
    hang = _hang(scene.server)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as impatient:
        patient, scene.session = scene.session, impatient
        await scene.fails("it did not answer within")
        scene.session = patient
    hang.set()
    await scene.later()
    assert await scene.turn()


async def answer(status: int = 200, body: bytes = b"") -> web.StreamResponse:
    return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/"})


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"loi", "the status 500"),
        (503, b"", "the status 503"),
        (302, b"", "the status 302"),
        (200, b"", "this is not a time-stamp"),
        (200, b"<html>Bad Gateway</html>", "this is not a time-stamp"),
        (200, bytes(100_000), "longer than"),
    ],
)
async def test_an_authority_that_answers_something_else(
    scene: Scene, status: int, body: bytes, reason: str
) -> None:
    await scene.checkpoint(5)
    scene.server.answer = lambda _: answer(status, body)
    await scene.fails(reason)
    await scene.later()
    assert await scene.turn()


async def test_an_answer_that_is_cut(scene: Scene) -> None:
    await scene.checkpoint(5)
    scene.server.answer = lambda body: answer(body=scene.server.authority.answer(body)[:-20])
    await scene.fails("this is not a time-stamp")


async def test_an_authority_that_refuses(scene: Scene) -> None:
    await scene.checkpoint(5)
    scene.server.answer = lambda _: answer(body=scene.server.authority.reject("unaccepted_policy"))
    await scene.fails("it rejects the request")


async def test_an_authority_that_answers_with_yesterdays_token(scene: Scene) -> None:
    text = await scene.checkpoint(5)
    old = scene.server.authority.answer(request_timestamp(text).body)
    scene.server.answer = lambda _: answer(body=old)
    await scene.fails("its nonce differs")


async def test_an_authority_that_stamps_something_else(scene: Scene) -> None:
    await scene.checkpoint(5)
    other = request_timestamp("một văn bản khác".encode()).body
    scene.server.answer = lambda _: answer(body=scene.server.authority.answer(other))
    await scene.fails("over something else")


async def test_an_authority_that_nobody_vouches_for(scene: Scene) -> None:
    await scene.checkpoint(5)
    scene.server.authority = Root("Gốc thử nghiệm").authority()
    await scene.fails("leads to no trusted root")


async def test_an_authority_whose_certificate_has_ended(scene: Scene) -> None:
    await scene.checkpoint(5)
    begin = datetime.now(UTC) - timedelta(days=400)
    scene.server.authority = scene.root.authority(not_before=begin, not_after=begin + timedelta(days=365))
    await scene.fails("the authority's certificate is valid from")


@pytest.mark.parametrize(
    ("minutes", "reason"), [(7, "s after this hub's clock"), (-7, "s before this hub's clock")]
)
async def test_clocks_that_differ(scene: Scene, minutes: int, reason: str) -> None:
    await scene.checkpoint(5)
    scene.server.authority.now = lambda: datetime.now(UTC) + timedelta(minutes=minutes)
    await scene.fails(reason)
    scene.server.authority.now = lambda: datetime.now(UTC) + timedelta(minutes=minutes // 7)
    await scene.later()
    assert await scene.turn()


async def test_a_policy_that_is_not_accepted(scene: Scene) -> None:
    await scene.checkpoint(5)
    scene.stamper = Stamper(scene.pool, [], [scene.root.der], INTERVAL, ["1.2.3.4"])
    await scene.fails("which is not accepted here")
    scene.server.authority.policy = "1.2.3.4"
    await scene.later()
    assert await scene.turn()


async def test_failures_in_a_row_are_counted_until_a_token_comes(scene: Scene) -> None:
    await scene.checkpoint(5)
    scene.server.answer = lambda _: answer(500)
    for failures in (1, 2, 3):
        await scene.turn()
        assert await scene.pool.fetchval("select failures from timestamp_turn") == failures
        await scene.later()
    scene.server.answer = scene.server.stamp
    assert await scene.turn()
    assert await scene.pool.fetchrow("select failures, error from timestamp_turn") == (0, None)


def test_pauses_grow_to_a_bound() -> None:
    assert 24 <= pause_after(1) <= 30 and 48 <= pause_after(2) <= 60
    assert all(1440 <= pause_after(failures) <= 1800 for failures in (7, 30, 10_000))


def test_what_is_secret_in_an_address_is_not_kept() -> None:
    authority = Authority(URL("https://truc:mat-khau@tsa.example.vn/tsr?khoa=bi-mat#x"))
    assert authority.name == "https://tsa.example.vn/tsr"


# -- in a hub -------------------------------------------------------------------------------------


async def test_a_hub_has_its_checkpoints_stamped(
    start_hub: StartHub, tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the authority hangs, documents are accepted as ever; once it answers, what they left is dated."""
    monkeypatch.setattr(timestamps, "POLL_SECONDS", 0.05)
    root = Root("Gốc thử nghiệm")
    (tmp_path / "tsa.pem").write_bytes(root.pem + Root("Gốc khác").pem)
    async with Server(root.authority()).running() as server:
        free = asyncio.Event()

        async def late(body: bytes) -> web.StreamResponse:
            await free.wait()
            return await server.stamp(body)

        server.answer = late
        metric = "lienthong_timestamps_total"
        before = REGISTRY.get_sample_value(metric, {"authority": server.url}) or 0.0
        hub = await start_hub(timestamp_url=f" {server.url} ,", timestamp_ca=str(tmp_path / "tsa.pem"))
        sender = await hub.register("van-yen", VAN_YEN)
        await hub.register("dai-son", DAI_SON)
        async with sender.client(hub.url) as client:
            await client.submit(client.sign(sender.document(DAI_SON)))
            await server.asked.wait()
            await client.submit(client.sign(sender.document(DAI_SON)))
        free.set()
        row = await until(
            lambda: hub.connection.fetchrow("select * from checkpoint_timestamp join checkpoint using (size)"),
            "a checkpoint is stamped",
        )
        assert verify_timestamp(row["token"], read_note(row["note"]).text.encode(), [root.der])
        async with http.get(f"{hub.url}/metrics") as response:
            text = await response.text()
        assert f'{metric}{{authority="{server.url}"}} {before + 1}' in text
