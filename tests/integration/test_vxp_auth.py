"""Who may call the axis's interface: signatures, clocks, replays, secrets."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub.directory import axis as systems
from hub.doors import vxp_auth
from hub.doors.vxp_auth import Replays
from hub.relay.intake import Intake
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import Axis, add_system, connect, paper
from tests.support.axis_sdk import Answer, Sdk
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.raw import raw_connection, served_here
from tests.support.raw import request as raw_request
from tests.support.until import until

LIST = {"servicetype": "eDoc", "messagetype": "edoc"}


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


async def refused(answer: Answer, code: str) -> str:
    found = answer.result()
    assert (found["status"], found["ErrorCode"]) == ("FAIL", code), found
    assert found["ErrorDesc"] and set(found) == {"status", "ErrorCode", "ErrorDesc"}
    return str(found["ErrorDesc"])


async def list_call(sdk: Sdk, **headers: str) -> Answer:
    return await sdk.call("/getReceivedEdocList", sdk.sign(LIST) | headers)


# -- the request that was observed ------------------------------------------------------------------

OBSERVED = {
    "Content-Type": "application/json",
    "User-Agent": "JAVASDKAgent/1.0.0 XRoad/VPCP",
    "XroadVnpt-systemid": "SYS01",
    "XroadVnpt-servicetype": "eDoc",
    "XroadVnpt-messagetype": "edoc",
    "XroadVnpt-timestamp": "23112026T104447+0278",
    "XroadVnpt-Content-Type": "application/json",
    "XroadVnpt-sign-header-key": "systemid;servicetype;messagetype;timestamp;Content-Type",
    "XroadVnpt-sign-header": '{"XroadVnpt-systemid":"SYS01","XroadVnpt-servicetype":"eDoc",'
    '"XroadVnpt-messagetype":"edoc","XroadVnpt-timestamp":"23112026T104447+0278",'
    '"XroadVnpt-Content-Type":"application/json"}',
    "XroadVnpt-hash-header": "b113513616e9eda041e7100b179069ea11a0cd990ed48bc7243d47f2b220a17e",
    "XroadVnpt-version": "3.0.201608",
}


class Clock(datetime):
    """The hub's clock, standing still."""

    stands_at = datetime(2026, 11, 23, 3, 44, 50, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.stands_at.astimezone(tz)


async def test_the_request_that_was_observed_is_answered(
    axis: Axis, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "_new_secret", lambda: "s3cret")
    await add_system(axis.hub, http, axis.province.party, "SYS01")
    monkeypatch.setattr(vxp_auth, "datetime", Clock)
    path = "/getReceivedEdocList"
    sdk = axis.province.sdk
    assert (await sdk.call(path, OBSERVED)).ok()["data"] == []
    assert "sign it anew" in await refused(await sdk.call(path, OBSERVED), "53")
    assert await refused(await sdk.call(path, OBSERVED | {"XroadVnpt-hash-header": "0" * 64}), "15")
    lower = {name.lower(): value for name, value in OBSERVED.items()}
    axis.hub.hub.gate.seen.clear()
    for at in (Clock.stands_at + timedelta(seconds=301), Clock.stands_at - timedelta(seconds=306)):
        monkeypatch.setattr(Clock, "stands_at", at)
        assert "30" in await refused(await sdk.call(path, lower), "52")
    assert axis.hub.hub.gate.seen == {}


# -- what was signed, and what came -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"XroadVnpt-messagetype": "status"}, "51"),
        ({"XroadVnpt-systemid": "yb.vanyen.01"}, "51"),
        ({"XroadVnpt-servicetype": ""}, "51"),
        ({"XroadVnpt-docId": "1"}, "51"),
        ({"XroadVnpt-sign-header-key": "systemid"}, "51"),
        ({"XroadVnpt-sign-header": "{}"}, "50"),
        ({"XroadVnpt-sign-header": "không"}, "50"),
        ({"XroadVnpt-hash-header": ""}, "50"),
        ({"XroadVnpt-hash-header": "a" * 64}, "15"),
    ],
)
async def test_headers_that_were_tampered_with(axis: Axis, changes: dict[str, str], code: str) -> None:
    await refused(await list_call(axis.province.sdk, **changes), code)
    assert len(axis.hub.hub.axis.authenticator.replays) == 0, "what nobody signed is not remembered"


async def test_wrong_secrets_and_unknown_systems_are_told_the_same(axis: Axis) -> None:
    sdk = axis.province.sdk
    told = set()
    for system_id, secret in (
        (sdk.system_id, sdk.secret + "x"),
        (sdk.system_id, ""),
        ("yb.khongco", sdk.secret),
        (axis.district.sdk.system_id, sdk.secret),
    ):
        stranger = Sdk(sdk.session, sdk.endpoint, system_id, secret)
        told.add(await refused(await list_call(stranger), "15"))
    assert told == {"Wrong `systemid` or secret"}


async def test_a_token_is_no_signature(axis: Axis) -> None:
    answer = await axis.province.sdk.call("/getReceivedEdocList", axis.province.party.headers)
    await refused(answer, "50")


async def test_another_file_than_was_signed(axis: Axis) -> None:
    """hash-file is signed, the body is compared with it. Small and large; nothing is kept."""
    sdk = axis.province.sdk
    for size in (10, 2_000_000):
        raw = paper(VAN_YEN, content="QUJD" * (size // 4))
        headers = sdk.sign(
            {"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()}, "application/octet-stream"
        )
        other = raw.replace("Báo cáo".encode(), b"Bao cao", 1)
        found = hashlib.sha256(other).hexdigest()
        assert found in await refused(await sdk.call("/sendEdoc", headers, other), "10")
    assert await axis.hub.connection.fetchval("select count(*) from message") == 0
    assert await axis.hub.connection.fetchval("select count(*) from rejection") == 0, "nobody signed it"
    assert [path for path in axis.hub.hub.blobs.root.rglob("*") if path.is_file()] == []


async def test_a_file_without_its_digest(axis: Axis) -> None:
    sdk = axis.province.sdk
    raw = paper(VAN_YEN)
    for digest in ({}, {"hash-file": ""}, {"hash-file": "x" * 64}):
        headers = sdk.sign({"from": PROVINCE, **LIST, **digest}, "application/octet-stream")
        await refused(await sdk.call("/sendEdoc", headers, raw), "50")
    headers = sdk.sign({"from": PROVINCE, **LIST}) | {"XroadVnpt-hash-file": hashlib.sha256(raw).hexdigest()}
    await refused(await sdk.call("/sendEdoc", headers, raw), "51")


# -- clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "code"), [(-290, "0"), (290, "0"), (-310, "52"), (310, "52"), (-90_000, "52")]
)
async def test_clocks_may_differ_by_five_minutes(axis: Axis, seconds: int, code: str) -> None:
    sdk = axis.province.sdk
    sdk.clock = timedelta(seconds=seconds)
    answer = await list_call(sdk)
    assert answer.result()["ErrorCode"] == code
    if code == "52":
        side = "old" if seconds < 0 else "ahead"
        assert side in await refused(await list_call(sdk), "52")


async def test_a_clock_in_another_zone(axis: Axis, http: aiohttp.ClientSession) -> None:
    """A system in a container has its clock in UTC, as often as not."""
    axis.province.sdk.zone = UTC
    told = await refused(await list_call(axis.province.sdk), "52")
    assert re.search(r"is 25[12]\d\d s old", told) and "UTC+7" in told
    system = await add_system(axis.hub, http, axis.province.party, "yb.tinh.utc", utc_hours=0)
    await refused(await list_call(system.sdk), "52")
    system.sdk.zone = UTC
    assert (await list_call(system.sdk)).ok()["data"] == []


async def test_how_far_clocks_may_differ_is_a_setting(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(await start_hub(axis_clock_seconds=3600), http)
    for seconds, code in ((-3500, "0"), (3500, "0"), (-3700, "52"), (3700, "52")):
        axis.province.sdk.clock = timedelta(seconds=seconds)
        assert (await list_call(axis.province.sdk)).result()["ErrorCode"] == code


# -- replays ----------------------------------------------------------------------------------------


async def test_a_request_is_answered_once(axis: Axis) -> None:
    sdk = axis.province.sdk
    raw = paper(VAN_YEN)
    sent = sdk.sign({"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()})
    (await sdk.call("/sendEdoc", sent, raw)).ok()
    for path, headers, body in (
        ("/getReceivedEdocList", sdk.sign(LIST), b""),
        ("/countReceiveEdoc", sdk.sign(LIST), b"{}"),
        ("/getAgenciesList", sdk.sign({}), b""),
    ):
        (await sdk.call(path, headers, body)).ok()
        await refused(await sdk.call(path, headers, body), "53")
    await refused(await sdk.call("/sendEdoc", sent, raw), "53")


async def test_what_was_signed_to_read_does_not_change_anything(axis: Axis) -> None:
    """Neither path nor body are signed: /getAgenciesList and /registerAgency look the same."""
    sdk = axis.province.sdk
    headers = sdk.sign({})
    (await sdk.call("/getAgenciesList", headers)).ok()
    agency = orjson.dumps({"code": "000.00.44.H63", "name": "Cơ quan giả", "pcode": PROVINCE})
    await refused(await sdk.call("/registerAgency", headers, agency), "53")
    assert await axis.hub.connection.fetchval("select count(*) from axis_request") == 0
    headers = sdk.sign({})
    (await sdk.call("/registerAgency", headers, agency)).ok()
    await refused(await sdk.call("/getAgenciesList", headers), "53")


async def test_two_reading_calls_of_one_millisecond_are_both_answered(axis: Axis) -> None:
    sdk = axis.province.sdk
    headers = sdk.sign(LIST)
    for path in ("/getReceivedEdocList", "/countReceiveEdoc", "/countReceiveStatus"):
        (await sdk.call(path, headers, b"{}")).ok()
        await refused(await sdk.call(path, headers, b"{}"), "53")


async def test_at_another_process_a_replay_changes_nothing(
    start_hub: StartHub, http: aiohttp.ClientSession, connection: asyncpg.Connection
) -> None:
    """It does not know the request. It can only do again what was done."""
    first, second = await start_hub(axis_registration="allow"), await start_hub(axis_registration="allow")
    axis = await connect(first, http)
    await second.follow()
    province, district = axis.province.sdk, axis.district.sdk

    async def elsewhere(sdk: Sdk, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return await Sdk(http, f"{second.url}/vxp", "", "").call(path, headers, body)

    raw = paper(VAN_YEN)
    sent = province.sign({"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()})
    doc_id = (await province.call("/sendEdoc", sent, raw)).ok()["DocId"]
    assert (await elsewhere(province, "/sendEdoc", sent, raw)).ok()["DocId"] == doc_id
    assert await connection.fetchval("select count(*) from message") == 1

    failed = district.sign({"docId": doc_id, "status": "fail"})
    (await district.call("/updateStatus", failed, b"{}")).ok()
    (await elsewhere(district, "/updateStatus", failed, b"{}")).ok()
    assert await connection.fetchval("select count(*) from progress") == 1
    assert await connection.fetchval("select count(*) from message where kind = 2") == 1, "one notice"

    agency = orjson.dumps({"code": "000.00.45.H63", "name": "Sở mới", "pcode": PROVINCE})
    registered = province.sign({})
    (await province.call("/registerAgency", registered, agency)).ok()
    await province.delete_agency("000.00.45.H63")
    (await elsewhere(province, "/registerAgency", registered, agency)).ok()
    assert not await connection.fetchval("select active from agency where code = '000.00.45.H63'"), (
        "it stays closed"
    )
    other = agency.replace(b".45.", b".46.")
    await refused(await elsewhere(province, "/registerAgency", province.sign({}) | registered, other), "53")
    assert await connection.fetchval("select count(*) from agency where code like '%.46.%'") == 0


async def test_a_request_whose_answer_was_lost_may_come_again(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's HTTP library sends a request again by itself when its connection breaks."""
    sdk = axis.province.sdk
    raw = paper(VAN_YEN)
    headers = sdk.sign({"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()})
    taken, go_on = asyncio.Event(), asyncio.Event()
    original: Callable[..., Any] = Intake.edxml

    async def slow(*arguments: Any) -> Any:
        accepted = await original(*arguments)
        taken.set()
        await go_on.wait()
        return accepted

    monkeypatch.setattr(Intake, "edxml", slow)
    async with raw_connection(axis.hub.url) as connection:
        await connection.send(raw_request("POST", "/vxp/sendEdoc", headers, raw))
        await taken.wait()
        port = connection.local_port
        assert served_here(port)
    await until(lambda: not served_here(port), "the hub notices that the caller has gone")
    go_on.set()
    replays = axis.hub.hub.axis.authenticator.replays
    await until(lambda: len(replays) == 0, "the request is forgotten")
    doc_id = (await sdk.call("/sendEdoc", headers, raw)).ok()["DocId"]
    assert await axis.hub.connection.fetchval("select array_agg(id::text) from message") == [doc_id]


def test_replays_are_remembered_for_a_time_and_up_to_a_number() -> None:
    replays = Replays(10.0, limit=3)
    assert replays.add(b"a", "x", False, 0.0)
    assert not replays.add(b"a", "x", False, 10.0)
    assert replays.add(b"a", "x", False, 10.1), "its timestamp is no good any more"
    for name in (b"b", b"c", b"d", b"e"):
        assert replays.add(name, "x", True, 11.0)
    assert len(replays) <= 4
    assert replays.add(b"a", "x", False, 12.0), "the oldest was forgotten"
    assert not replays.add(b"e", "x", True, 12.0)
    replays.forget(b"e")
    replays.forget(b"never there")
    assert replays.add(b"e", "x", True, 12.0)
