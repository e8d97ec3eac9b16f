"""Revocation: it takes effect on running hubs, and an authority that is silent stops nobody, or everybody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from hub.directory import change, trust
from protocol.problems import Problem
from protocol.signature import Signer
from tests.conftest import RunningHub, StartHub
from tests.support import certificates
from tests.support import trial as fixtures
from tests.support.parties import PROVINCE, VAN_YEN, Party
from tests.support.trial import Trial, ask_again, evidence, payload, refused, send
from tests.support.until import until

trial, asking, province = fixtures.trial, fixtures.asking, fixtures.province


# -- revoked --------------------------------------------------------------------------------------


async def test_a_revocation_takes_effect_on_every_running_process(
    start_hub: StartHub, trial: Trial, tmp_path: Path
) -> None:
    one = await start_hub(revocation_hosts="127.0.0.1")
    two = await start_hub(revocation_hosts="127.0.0.1", data_dir=str(tmp_path / "data2"))
    await one.register("van-yen", VAN_YEN)
    province = await one.register("ubnd-tinh", PROVINCE)
    await trial.trusted(one)
    certificate = await trial.certify(one, province)
    await two.follow()
    assert (await send(two, province))["signer"]["revocation"]["status"] == "good"
    signed_before = province.signer.sign(payload(province))
    trial.revoke(certificate)
    with capture_logs() as logs:
        await ask_again(one)
    (told,) = [line for line in logs if line["event"] == "a certificate in use was revoked"]
    assert told["reason"] == "key_compromise" and "Văn phòng ubnd-tinh" in told["subject"]
    await two.hub.directory.reached(one.hub.directory.picture.revision)
    for hub in (one, two):
        problem = await refused(hub, province)
        assert problem.code == "certificate-revoked" and "key_compromise" in problem.detail
        assert "whenever it was signed" in problem.detail
    async with province.client(two.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as caught:
            await client.submit(signed_before)
    assert caught.value.code == "certificate-revoked"


async def test_revoked_by_the_list_where_ocsp_is_down(
    asking: RunningHub, trial: Trial, province: Party, unused_port: int
) -> None:
    await trust.add_anchor(
        asking.connection,
        trial.authority.certificate,
        crl_url=f"{trial.url}/crl",
        ocsp_url=f"http://127.0.0.1:{unused_port}/ocsp",
    )
    trial.authority.move("")  # its certificates say nothing
    certificate = await trial.certify(asking, province)
    assert (await send(asking, province))["signer"]["revocation"]["status"] == "good"
    assert await asking.connection.fetchval("select kind from revocation_answer") == "crl"
    trial.revoke(certificate, "cessation_of_operation")
    await ask_again(asking)
    assert (await refused(asking, province)).code == "certificate-revoked"


async def test_an_authority_between_is_revoked(asking: RunningHub, province: Party) -> None:
    """Two levels, each with its list, which is fetched once for all that it concerns."""
    lists: dict[str, bytes] = {}
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=lists[request.path])

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    now = datetime.now(UTC)
    when = {"begins": now - timedelta(days=1), "ends": now + timedelta(days=9)}
    top = certificates.root("Gốc hai tầng")
    between = top.issue("Trung gian", authority=True, extensions=certificates.places(f"{url}/top"), **when)
    leaves = [between.issue(f"Số {n}", extensions=certificates.places(f"{url}/between"), **when) for n in (1, 2)]
    lists["/top"] = top.crl(at=now - timedelta(hours=1)).der
    lists["/between"] = between.crl(at=now - timedelta(hours=2)).der
    await trust.add_anchor(asking.connection, top.certificate)
    for leaf in leaves:
        both = [leaf.certificate, between.certificate]
        await change.add_key(asking.connection, leaf.key.public_key(), endpoint="ubnd-tinh", certificates=both)
    await ask_again(asking)
    assert sorted(asked) == ["/between", "/top"]
    said = (await send(asking, province, Signer(leaves[0].key)))["signer"]["revocation"]
    assert (said["status"], len(said["answers"])) == ("good", 2)
    assert datetime.fromisoformat(said["answered_at"]) == (now - timedelta(hours=2)).replace(microsecond=0)
    lists["/top"] = top.crl(between.certificate, at=now, since=now - timedelta(minutes=1)).der
    await ask_again(asking)
    for leaf in leaves:
        problem = await refused(asking, province, Signer(leaf.key))
        assert problem.code == "certificate-revoked" and "an authority behind" in problem.detail
    await runner.cleanup()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port at which nobody answers: it is bound and not listened at, so that nobody else gets it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield int(unused.getsockname()[1])


# -- an authority that does not answer ------------------------------------------------------------


async def test_a_dead_authority_under_soft_and_hard(asking: RunningHub, trial: Trial, province: Party) -> None:
    await trial.trusted(asking)
    await trial.responder.stop()
    with capture_logs() as logs:
        await trial.certify(asking, province)
    assert "cannot be learned" in str(logs)
    event = await send(asking, province)
    assert event["signer"]["revocation"] == {"status": "unknown", "policy": "soft"}
    assert (await evidence(asking, event["message"])).revocation == ()
    await trial.trusted(asking, "hard")
    problem = await refused(asking, province)
    assert (problem.code, problem.retryable) == ("revocation-unknown", True)
    await asking.hub.revocations.turn()  # too early to ask again
    row = await asking.connection.fetchrow("select failures, failure from revocation_question")
    assert row["failures"] == 1 and "127.0.0.1" in row["failure"]
    await trial.responder.start(trial.responder.port)
    await ask_again(asking)
    assert (await send(asking, province))["signer"]["revocation"]["status"] == "good"
    assert await asking.connection.fetchval("select failures from revocation_question") == 0


async def test_an_answer_grows_stale_while_the_authority_is_away(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    trial.responder.ocsp_life = trial.responder.crl_life = timedelta(seconds=6)
    await trial.trusted(asking, "hard")
    await trial.certify(asking, province)
    await trial.responder.stop()
    good = await send(asking, province)
    assert good["signer"]["revocation"]["status"] == "good"

    async def stale() -> str:
        try:
            await send(asking, province)
        except Problem as problem:
            return problem.code
        return ""

    assert await until(stale, "the answer grows stale") == "revocation-unknown"
    await trial.trusted(asking, "soft")
    later = (await send(asking, province))["signer"]["revocation"]
    # It is said how old the last answer was.
    assert later == good["signer"]["revocation"] | {"status": "unknown", "policy": "soft"}


async def test_nobody_is_asked_where_the_policy_is_off(asking: RunningHub, trial: Trial, province: Party) -> None:
    await trial.trusted(asking, "off")
    await trial.certify(asking, province)
    assert trial.responder.asked == 0
    assert (await send(asking, province))["signer"]["revocation"] == {"status": "unchecked", "policy": "off"}


async def test_a_good_answer_is_not_replaced_before_half_its_time(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    await trial.trusted(asking)
    await trial.certify(asking, province)
    asked, revision = trial.responder.asked, asking.hub.directory.picture.revision
    await ask_again(asking)
    assert trial.responder.asked > asked
    assert asking.hub.directory.picture.revision == revision
    assert await asking.connection.fetchval("select count(*) from revocation_answer") == 1
