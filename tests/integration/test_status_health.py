"""What those who watch are shown: health, metrics, status, and what problems mean."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from hub.directory import change
from hub.doors.status_models import HubStatus
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import migrate, wait_until_reachable
from protocol.problems import CATALOGUE
from tests.conftest import RunningHub
from tests.support.desk import Answer, open_desk
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

PARTITION_LOCK = 7010


async def get(hub: RunningHub, http: aiohttp.ClientSession, path: str, token: str = "") -> Answer:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.get(hub.url + path, headers=headers) as response:
        return Answer(response.status, dict(response.headers), await response.read())


async def administrator(hub: RunningHub, role: str = "operator") -> str:
    token = await change.issue_token(hub.connection, role=role, label="trực ban")
    await hub.follow()
    return token


async def recount(hub: RunningHub) -> None:
    """Forget the counts that are kept for two seconds, and have this process report."""
    hub.hub.reporter._cached = (-1000.0, [])
    await hub.hub.reporter.report()


# -- status -----------------------------------------------------------------------------------------


async def test_the_status_counts_what_waits_by_lane(pair: Pair, http: aiohttp.ClientSession) -> None:
    await pair.send("express", "express", "normal", "urgent", "normal", "normal")
    await recount(pair.hub)
    status = (await get(pair.hub, http, "/v1/status")).json()
    assert {lane: found["waiting"] for lane, found in status["lanes"].items()} == {
        "express": 2,
        "urgent": 1,
        "normal": 3,
    }
    assert all(0 <= found["oldest_seconds"] < 600 for found in status["lanes"].values())
    assert status["hub"] == "lienthong"
    (worker,) = status["workers"]
    assert worker["pid"] == os.getpid()
    entries = await pair.page()
    await pair.receiver.acknowledge(entries[0], entries[-1])
    await recount(pair.hub)
    status = (await get(pair.hub, http, "/v1/status")).json()
    assert [status["lanes"][lane]["waiting"] for lane in ("express", "urgent", "normal")] == [1, 1, 2]
    await pair.receiver.acknowledge(*entries)
    await recount(pair.hub)
    status = (await get(pair.hub, http, "/v1/status")).json()
    assert set(map(tuple, (found.items() for found in status["lanes"].values()))) == {
        (("waiting", 0), ("oldest_seconds", 0.0))
    }


@pytest.mark.parametrize("role", ["operator", "auditor"])
async def test_endpoints_are_named_for_administrators_only(
    pair: Pair, http: aiohttp.ClientSession, role: str
) -> None:
    await pair.send("normal", "express")
    await change.add_endpoint(pair.hub.connection, "luc-yen")
    await change.set_endpoint_active(pair.hub.connection, "luc-yen", False)
    token = await administrator(pair.hub, role)
    await recount(pair.hub)
    for other in ("", pair.province.token):
        answer = await get(pair.hub, http, "/v1/status", other)
        assert "endpoints" not in answer.json()
        assert not any(name in answer.body for name in (b"ubnd-tinh", b"van-yen", PROVINCE.encode()))
    status = (await get(pair.hub, http, "/v1/status", token)).json()
    found = {endpoint.pop("name"): endpoint for endpoint in status["endpoints"]}
    assert list(found) == ["luc-yen", "ubnd-tinh", "van-yen"]
    assert found["luc-yen"] == {"active": False, "waiting": 0, "oldest_seconds": 0.0}
    assert (found["van-yen"]["waiting"], found["ubnd-tinh"]["waiting"]) == (2, 0)
    assert found["ubnd-tinh"]["seen_at"].endswith("Z")
    assert "seen_at" not in found["van-yen"]
    await pair.page()
    await recount(pair.hub)
    status = (await get(pair.hub, http, "/v1/status", token)).json()
    assert all("seen_at" in endpoint for endpoint in status["endpoints"] if endpoint["active"])
    assert HubStatus.__struct_fields__ == tuple(status)


async def test_the_rates_are_those_since_the_last_report(pair: Pair, http: aiohttp.ClientSession) -> None:
    await pair.hub.hub.reporter.stop()  # or a report of its own may come between the work and the next
    await recount(pair.hub)
    await pair.send(*["normal"] * 40)
    await pair.receiver.acknowledge(*await pair.page())
    await recount(pair.hub)
    (worker,) = (await get(pair.hub, http, "/v1/status")).json()["workers"]
    assert worker["accepted_per_second"] > 0
    assert worker["ended_per_second"] > 0
    assert 1 <= worker["commit_batch_mean"] <= 40
    assert (worker["commit_queue"], worker["queue_bytes"], worker["waiting_readers"]) == (0, 0, 0)


# -- metrics ----------------------------------------------------------------------------------------


def samples(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


async def test_the_metrics_move_with_the_messages(pair: Pair, http: aiohttp.ClientSession) -> None:
    before = samples((await get(pair.hub, http, "/metrics")).body.decode())
    message = pair.sender.sign(pair.province.document(VAN_YEN))
    await pair.sender.submit_many([message, message, b"rac", pair.sender.sign(pair.province.document(VAN_YEN))])
    entries = await pair.page()
    await pair.receiver.acknowledge(entries[0])
    await pair.receiver.refuse(entries[1], "trùng")
    await recount(pair.hub)
    answer = await get(pair.hub, http, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    after = samples(text)

    def moved(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert moved('lienthong_messages_total{outcome="accepted"}') >= 2
    assert moved('lienthong_messages_total{outcome="duplicate"}') == 1
    assert moved('lienthong_messages_total{outcome="rejected"}') == 1
    assert moved('lienthong_deliveries_total{outcome="acknowledged"}') == 1
    assert moved('lienthong_deliveries_total{outcome="refused"}') == 1
    assert moved("lienthong_commit_duration_seconds_count") >= 1
    assert after['lienthong_mailbox_waiting{lane="normal"}'] == 1  # the notice of the refusal
    # Every family is described, and none names an agency or an endpoint.
    described = tuple(re.findall(r"^# HELP (lienthong_\S+) \S", text, re.MULTILINE))
    assert len(described) >= 10
    assert all(name.startswith(described) for name in after if name.startswith("lienthong"))
    assert not any(name in text for name in ("ubnd-tinh", "van-yen", "H63"))


# -- health -----------------------------------------------------------------------------------------


async def test_a_hub_that_is_well(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    assert (await get(hub, http, "/healthz/live")).json() == {"status": "ok", "checks": {}}
    ready = await get(hub, http, "/healthz/ready")
    assert (ready.status, ready.json()) == (200, {"status": "ok", "checks": {"database": "ok", "intake": "ok"}})


async def test_a_hub_that_is_full_or_stopping_is_not_ready(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    with hub.hub.admission.admit(1, hub.hub.admission.limit):
        ready = await get(hub, http, "/healthz/ready")
    assert (ready.status, ready.json()["checks"]) == (503, {"database": "ok", "intake": "overloaded"})
    hub.hub.admission.closed = True
    ready = await get(hub, http, "/healthz/ready")
    assert (ready.status, ready.json()["checks"]["intake"]) == (503, "stopping")
    assert (await get(hub, http, "/healthz/live")).status == 200


async def test_a_hub_without_room_for_todays_mail_is_not_ready(
    hub: RunningHub, http: aiohttp.ClientSession
) -> None:
    held = "select pg_try_advisory_lock($1)"
    await until(lambda: hub.connection.fetchval(held, PARTITION_LOCK), "the lock of the chore that makes room")
    partitions = "select relid::regclass::text from pg_partition_tree('inbox') where isleaf"
    for row in await hub.connection.fetch(partitions):
        await hub.connection.execute(f"drop table {row[0]}")
    ready = await get(hub, http, "/healthz/ready")
    assert (ready.status, ready.json()["checks"]["database"]) == (503, "store-unavailable")


@contextlib.asynccontextmanager
async def own_cluster() -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL that may be stopped and started without harm to others."""
    folder = Path(tempfile.mkdtemp(prefix="lienthong-test-"))
    cluster = EmbeddedPostgres(folder)
    try:
        await asyncio.to_thread(cluster.start)
        await wait_until_reachable(cluster.url, 30)
        await migrate(cluster.url)
        yield cluster
    finally:
        await asyncio.to_thread(cluster.stop)
        await asyncio.to_thread(shutil.rmtree, folder)


async def test_a_hub_whose_database_is_away_says_so_and_comes_back(tmp_path: Path) -> None:
    async with own_cluster() as cluster, open_desk(cluster, tmp_path) as desk:
        message = desk.province.signer.sign(orjson.dumps({"id": "7", "from": PROVINCE, "to": [VAN_YEN]}))
        sent = await desk.post(message)
        assert sent.status == 202
        await asyncio.to_thread(cluster.stop)
        ready = await desk.request("GET", "/healthz/ready")
        assert (ready.status, ready.json()["checks"]) == (503, {"database": "unavailable", "intake": "ok"})
        assert ready.json()["status"] == "unavailable"
        assert (await desk.request("GET", "/healthz/live")).status == 200
        assert (await desk.request("GET", "/metrics")).status == 200
        for path in ("/v1/mailbox", f"/v1/messages/{sent.json()['id']}", "/v1/messages/7/events"):
            answer = await desk.request("GET", path, desk.province)
            answer.problem("store-unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        desk.hub.reporter._cached = (-1000.0, [])
        (await desk.request("GET", "/v1/status")).problem("store-unavailable")
        attachment = await desk.request("PUT", "/v1/attachments/" + EMPTY, desk.province, data=b"")
        attachment.problem("store-unavailable")
        (await desk.request("GET", "/v1/attachments/" + EMPTY, desk.province)).problem("store-unavailable")
        await asyncio.to_thread(cluster.start)
        await until(lambda: _ready(desk), "the hub is ready again")
        assert (await desk.post(message)).status == 200
        page = (await desk.request("GET", "/v1/mailbox", desk.van_yen)).json()
        assert [entry["id"] for entry in page["entries"]] == [sent.json()["id"]]


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


async def _ready(desk: Any) -> bool:
    return bool((await desk.request("GET", "/healthz/ready")).status == 200)


# -- problems ---------------------------------------------------------------------------------------


async def test_every_problem_is_explained_at_its_type(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    for code, kind in CATALOGUE.items():
        answer = await get(hub, http, f"/problems/{code}")
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "application/json")
        assert answer.json() == {
            "code": code,
            "status": kind.status,
            "title": kind.title,
            "fault": kind.fault,
            "retryable": kind.retryable,
        }
    for code in ("khong-co", "..%2fadmin", "%00"):
        (await get(hub, http, f"/problems/{code}")).problem("not-found")
