"""Keys in certificates: an authority of our own with OCSP and a list on loopback, and a hub that asks it."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from hub.directory import change, trust
from hub.directory.change import DirectoryError
from hub.evidence.revocation_watch import Watch
from hub.evidence.signers import signer_evidence
from hub.store import sql
from hub.store.pool import HubConnection
from protocol.certificate import CertificateError, load, sha256, to_der, validate_chain, x5t
from protocol.certificate_revocation import Status, check_chain, overall
from protocol.problems import Problem
from protocol.signature import Signer, b64url, from_jwk, generate, parse, thumbprint, verify
from tests.conftest import RunningHub, StartHub
from tests.support import trial as fixtures
from tests.support.parties import PROVINCE, VAN_YEN, Party
from tests.support.trial import Trial, ask_again, evidence, refused, send
from tests.support.until import until

RELAY = sql.load("relay")
ON_THE_WAY = ("commit", "verify", "Task-")
"""Tasks that a message passes: batches, and requests, which have no name of their own."""


trial, asking, province = fixtures.trial, fixtures.asking, fixtures.province


# -- accepted, and what the evidence says ---------------------------------------------------------


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
async def test_a_certified_key_signs_and_the_event_says_what_was_known(
    asking: RunningHub, trial: Trial, province: Party, alg: str
) -> None:
    await trial.trusted(asking)
    certificate = await trial.certify(asking, province, alg=alg)
    event = await send(asking, province)
    signer = event["signer"]
    answer = await asking.connection.fetchval("select sha256 from revocation_answer")
    assert signer == {
        "kid": thumbprint(province.key.public_key()),
        "certificate": sha256(certificate).hex(),
        "revocation": {
            "status": "good",
            "policy": "soft",
            "answered_at": signer["revocation"]["answered_at"],
            "answers": [answer.hex()],
        },
    }
    assert datetime.fromisoformat(signer["revocation"]["answered_at"]) <= datetime.fromisoformat(event["at"])


async def test_a_plain_key_stays_what_it_was(asking: RunningHub, trial: Trial, province: Party) -> None:
    event = await send(asking, province)
    assert event["signer"] == {"kid": thumbprint(province.key.public_key())}
    await trial.trusted(asking)
    assert (await send(asking, province))["signer"] == event["signer"]


async def test_by_its_thumbprint_or_in_the_header(asking: RunningHub, trial: Trial, province: Party) -> None:
    await trial.trusted(asking)
    certificate = await trial.certify(asking, province)
    by_thumbprint = Signer(province.key, kid="x5t:" + x5t(certificate))
    assert (await send(asking, province, by_thumbprint))["signer"]["certificate"] == sha256(certificate).hex()

    def with_x5c(certificate: x509.Certificate) -> Signer:
        signer = Signer(province.key)
        header = {"alg": "ES256", "x5c": [base64.b64encode(to_der(certificate)).decode()]}
        signer._prefix = b64url(orjson.dumps(header)).encode() + b"."
        return signer

    assert (await send(asking, province, with_x5c(certificate)))["signer"]["kid"] == signer_kid(province)
    # Of the same authority, for the same key, and yet nobody registered it.
    stranger = trial.issue(province, province.key)
    assert (await refused(asking, province, with_x5c(stranger))).code == "unknown-key"


def signer_kid(party: Party) -> str:
    return thumbprint(party.key.public_key())


async def test_years_later_the_proof_finds_what_was_applied(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    await trial.trusted(asking)
    await trial.certify(asking, province)
    event = await send(asking, province)
    first = await evidence(asking, event["message"])
    # The certificate is revoked, the key disabled, the authority no longer trusted, another answer is known.
    row = await asking.connection.fetchrow("select body from message where id = $1", event["message"])
    trial.revoke(load(first.chain[0]))
    await ask_again(asking)
    await change.disable_key(asking.connection, signer_kid(province))
    await trust.remove_anchor(asking.connection, sha256(trial.authority.certificate).hex())
    found = await evidence(asking, event["message"])
    assert found == first
    assert (found.kid, found.policy) == (signer_kid(province), "soft")
    # What somebody does with it who has no hub.
    at = datetime.fromisoformat(event["at"])
    leaf, *others = found.chain
    chain = validate_chain(leaf, others, [found.chain[-1]], at)
    assert overall(check_chain(chain, found.revocation, at)) is Status.GOOD
    jws = parse(row["body"])
    assert verify(from_jwk(found.jwk), jws.alg, jws.signature, jws.signing_input)
    assert [one.fetched_at is not None for one in found.revocation] == [True]
    assert orjson.dumps(found.members())


async def test_what_nobody_signed_has_no_signer(connection: asyncpg.Connection) -> None:
    event = '{"event":"accepted","at":"2026-01-01T00:00:00Z"}'
    assert await signer_evidence(connection, {"event": event}) is None
    lost = '{"event":"accepted","at":"2026-01-01T00:00:00Z","signer":{"kid":"không còn"}}'
    with pytest.raises(LookupError, match="không còn"):
        await signer_evidence(connection, {"event": lost})


# -- time -----------------------------------------------------------------------------------------


async def test_a_certificate_ends_by_itself(asking: RunningHub, trial: Trial, province: Party) -> None:
    await trial.trusted(asking)
    await trial.certify(asking, province, ends_in=timedelta(seconds=6))
    assert (await send(asking, province))["signer"]["revocation"]["status"] == "good"

    async def ended() -> Problem | None:
        try:
            await send(asking, province)
        except Problem as problem:
            return problem
        return None

    problem = await until(ended, "the certificate ends")
    assert problem.code == "certificate-expired" and "Văn phòng ubnd-tinh" in problem.detail
    await refused(asking, province)


async def test_a_certificate_that_has_ended_is_not_registered(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    now = datetime.now(UTC)
    key = generate("ES256")
    old = trial.issue(province, key, not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    for anchored in (False, True):
        if anchored:
            await trial.trusted(asking)
        with pytest.raises(CertificateError, match="expired"):
            await change.add_key(asking.connection, key.public_key(), endpoint="ubnd-tinh", certificates=[old])
    assert await asking.connection.fetchval("select count(*) from signing_key where endpoint <> 0") == 2


async def test_rotation_without_a_gap(asking: RunningHub, trial: Trial, province: Party) -> None:
    """The next certificate is registered while the first signs; under traffic nobody is refused."""
    await trial.trusted(asking)
    first = await trial.certify(asking, province)
    old_key, old = province.key, Signer(province.key, kid="x5t:" + x5t(first))
    signers, outcomes, stop = [old], [], asyncio.Event()

    async def traffic() -> None:
        while not stop.is_set():
            outcomes.append((await send(asking, province, signers[-1]))["signer"]["certificate"])

    async def passes(certificate: Any) -> None:
        name = sha256(certificate).hex()
        await until(lambda: name in outcomes[-3:], "documents go on under the certificate")

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(traffic())
        await passes(first)
        # The authority renews the certificate of the same key.
        renewed = trial.issue(province, old_key, not_after=datetime.now(UTC) + timedelta(days=700))
        await change.add_key(asking.connection, old_key.public_key(), endpoint="ubnd-tinh", certificates=[renewed])
        await asking.follow()
        signers.append(Signer(old_key, kid="x5t:" + x5t(renewed)))
        await passes(renewed)
        # Then another key altogether.
        second = await trial.certify(asking, province)
        signers.append(province.signer)
        await passes(second)
        await change.disable_key(asking.connection, thumbprint(old_key.public_key()))
        await asking.follow()
        done = len(outcomes)
        await until(lambda: len(outcomes) > done + 5, "documents go on")
        stop.set()
    assert set(outcomes) == {sha256(one).hex() for one in (first, renewed, second)}
    assert (await refused(asking, province, old)).code == "unknown-key"
    assert (await refused(asking, province, Signer(old_key))).code == "key-disabled"


async def test_a_certificate_may_be_registered_ahead_of_its_time(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    await trial.trusted(asking)
    key = generate("ES256")
    later = trial.issue(province, key, not_before=datetime.now(UTC) + timedelta(days=2))
    await change.add_key(asking.connection, key.public_key(), endpoint="ubnd-tinh", certificates=[later])
    await asking.follow()
    problem = await refused(asking, province, Signer(key))
    assert problem.code == "certificate-expired" and "is valid from" in problem.detail


# -- trust ----------------------------------------------------------------------------------------


async def test_who_leads_nowhere_is_not_registered(
    asking: RunningHub, trial: Trial, province: Party, tmp_path: Path
) -> None:
    await trial.trusted(asking)
    other = await Trial.start(tmp_path / "other", "Một CA khác")
    await other.responder.stop()
    key = generate("ES256")
    certificate = other.issue(province, key)
    with pytest.raises(CertificateError, match="missing or not trusted"):
        await change.add_key(asking.connection, key.public_key(), endpoint="ubnd-tinh", certificates=[certificate])
    await asking.follow()
    assert (await refused(asking, province, Signer(key))).code == "unknown-key"
    with pytest.raises(DirectoryError, match="no authority's"):
        await trust.add_anchor(asking.connection, certificate)
    own = trial.issue(province, key)
    with pytest.raises(CertificateError, match="of another key"):
        await change.add_key(
            asking.connection, generate("ES256").public_key(), endpoint="ubnd-tinh", certificates=[own]
        )


async def test_trust_that_ends(asking: RunningHub, trial: Trial, province: Party) -> None:
    await trial.trusted(asking)
    await trial.certify(asking, province)
    effect = await trust.remove_anchor(asking.connection, sha256(trial.authority.certificate).hex()[:8])
    assert (effect.chained, effect.lost) == (0, 1)
    await asking.follow()
    assert (await refused(asking, province)).code == "certificate-untrusted"
    for prefix, told in (
        ("00000000", "0 trust anchors"),
        ("12", "8 digits or more"),
        ("không phải", "8 digits or more"),
    ):
        with pytest.raises(DirectoryError, match=told):
            await trust.remove_anchor(asking.connection, prefix)
    await trial.trusted(asking)
    assert (await send(asking, province))["signer"]["certificate"]


async def test_a_pinned_certificate_finds_its_authority_later(
    asking: RunningHub, trial: Trial, province: Party
) -> None:
    certificate = await trial.certify(asking, province)  # while nobody is trusted
    assert (await send(asking, province))["signer"] == {
        "kid": signer_kid(province),
        "certificate": sha256(certificate).hex(),
    }
    await trial.trusted(asking)
    assert (await send(asking, province))["signer"]["revocation"]["policy"] == "soft"
    with pytest.raises(DirectoryError, match="registered with a certificate"):
        await change.add_key(asking.connection, province.key.public_key(), endpoint="ubnd-tinh")


async def test_certificates_may_be_required(start_hub: StartHub, trial: Trial) -> None:
    hub = await start_hub(require_certificates=True, revocation="hard", revocation_hosts="127.0.0.1")
    await hub.register("van-yen", VAN_YEN)
    province = await hub.register("ubnd-tinh", PROVINCE)
    assert (await refused(hub, province)).code == "certificate-required"
    await trial.certify(hub, province)
    assert (await refused(hub, province)).code == "certificate-required"  # it is pinned, and leads nowhere
    await trial.trusted(hub)
    await ask_again(hub)
    assert (await send(hub, province))["signer"]["revocation"]["policy"] == "hard"


# -- what somebody sees before it hurts -----------------------------------------------------------


async def test_warnings(asking: RunningHub, trial: Trial, province: Party, http: aiohttp.ClientSession) -> None:
    await trial.trusted(asking)
    certificate = await trial.certify(asking, province, ends_in=timedelta(days=20))
    watch = Watch(asking.hub.pool)
    with capture_logs() as logs:
        await watch.turn()
        await watch.turn()
    warnings = [line for line in logs if line["event"] == "a certificate expires soon"]
    assert [(line["within_days"], line["of"]) for line in warnings] in ([(30, "ubnd-tinh")], [])
    given = await asking.connection.fetch("select certificate, days from expiry_warning")
    assert [tuple(row) for row in given] == [(sha256(certificate), 30)]
    token = await change.issue_token(asking.connection, role="operator", label="trực ban")
    await asking.follow()
    async with http.get(f"{asking.url}/metrics") as response:
        metrics = await response.text()
    for days, count in (("60", 1), ("30", 1), ("7", 0), ("0", 0)):
        assert f'lienthong_certificates_expiring{{days="{days}"}} {count}.0' in metrics
    assert 'lienthong_certificates{status="good"} 1.0' in metrics
    async with http.get(f"{asking.url}/v1/status") as response:
        assert "certificates" not in await response.json()
    async with http.get(f"{asking.url}/v1/status", headers={"Authorization": f"Bearer {token}"}) as response:
        (seen,) = (await response.json())["certificates"]
    assert (seen["kind"], seen["owner"], seen["days"], seen["revocation"]) == ("signer", "ubnd-tinh", 19, "good")
    assert seen["sha256"] == sha256(certificate).hex()


# -- cost -----------------------------------------------------------------------------------------


async def test_a_certificate_costs_no_statement(
    asking: RunningHub, trial: Trial, province: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database is asked for a message of a certified key is what it is asked for one of a plain key."""
    statements: list[str] = []

    def counted(name: str) -> None:
        plain = getattr(asyncpg.Connection, name)

        async def count(self: HubConnection, query: str, *args: Any, **options: Any) -> Any:
            task = asyncio.current_task()
            if task is not None and task.get_name().startswith(ON_THE_WAY):
                statements.append(query)
            return await plain(self, query, *args, **options)

        monkeypatch.setattr(HubConnection, name, count, raising=False)

    for name in ("fetch", "fetchval", "fetchrow", "execute"):
        counted(name)

    async def asked(party: Party) -> set[str]:
        await send(asking, party)
        statements.clear()
        await send(asking, party)
        return set(statements)

    plain = await asked(province)
    await trial.trusted(asking)
    await trial.certify(asking, province)
    certified = await asked(province)
    assert certified == plain and RELAY.commit_messages in plain
