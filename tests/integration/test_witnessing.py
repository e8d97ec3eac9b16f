"""A hub and the witnesses of its log: cosignatures come by themselves, whoever else fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hub.config import WitnessSetting
from hub.evidence import witnessing
from protocol.client.log import LogClient
from protocol.evidence import Receipt
from protocol.log import InclusionProof, open_checkpoint, read_proof
from protocol.note import COSIGNATURE, Verifier
from protocol.proof_trust import Trust
from protocol.proof_verify import verify_single
from protocol.signature import from_jwk, generate, parse, thumbprint
from tests.conftest import StartHub
from tests.support import witness_scene
from tests.support.parties import VAN_YEN
from tests.support.small_log import SmallLog
from tests.support.until import until
from tests.support.witness_scene import Scene, follow, settings
from tests.support.witnesses import RunningWitness, ask

impatient = witness_scene.impatient
witnesses = witness_scene.witnesses
scene = witness_scene.scene


# -- all is well ------------------------------------------------------------------------------------


async def test_two_witnesses_sign_every_newest_checkpoint(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    sizes = set()
    for size in (1, 2, 5):
        await scene.send(size)
        sizes.add((await scene.cosigned(*witnesses, size=1 + max(sizes, default=0))).size)
    assert len(sizes) == 3
    await scene.hub.hub.integrator.stop()  # whatever else happens is not logged any more
    checkpoint = await scene.cosigned(*witnesses)
    for witness in witnesses:

        async def level(witness: RunningWitness = witness) -> bool:
            return (await scene.status(witness))["size"] == checkpoint.size

        await until(level, "the hub knows of the last signature")
        async with scene.http.get(witness.url) as response:
            (seen,) = (await response.json())["logs"]
        assert open_checkpoint(seen["checkpoint"], scene.log, [witness.verifier])[0] == checkpoint
        assert (seen["misbehaviour"], seen["unproven"]) == (0, 0)
        status = await scene.status(witness)
        assert status["lag_seconds"] == 0.0
        assert "refused" not in status and abs(status.get("clock_seconds", 0.0)) < 60
    metrics = await scene.get("/metrics")
    for witness in witnesses:
        assert f'lienthong_witness_lag_seconds{{witness="{witness.verifier.name}"}} 0.0' in metrics
        assert f'lienthong_witness_refuses{{witness="{witness.verifier.name}"}} 0.0' in metrics


async def test_a_proof_may_ask_for_a_quorum(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    verifiers = [witness.verifier for witness in witnesses]
    async with scene.province.client(scene.hub.url) as client, LogClient(scene.hub.url) as log:
        keys = {thumbprint(key): key for key in map(from_jwk, await client.hub_keys())}

        async def sent() -> Receipt:
            return (await client.submit(client.sign(scene.province.document(VAN_YEN)))).receipt

        async def place(receipt: Receipt) -> InclusionProof:
            batch = orjson.loads(parse(receipt.seal.encode()).payload)["batch"]
            found = await until(lambda: log.proof(batch, receipt.index), "the event is in the log")
            assert found is not None
            return read_proof(found)

        def proven(receipt: Receipt, proof: InclusionProof, quorum: int, *others: Verifier) -> bool:
            trust = Trust(keys, (scene.log,), (*verifiers, *others), quorum)
            return verify_single(receipt, None, trust, datetime.now(UTC), proof).verified

        seen = await sent()
        await scene.cosigned(*witnesses, size=1)
        await scene.hub.hub.witnessing.stop()
        unseen = await sent()
        bare = await place(unseen)
        checkpoint, _, signed = open_checkpoint(bare.checkpoint, scene.log, verifiers)
        assert checkpoint.size > bare.index and signed == []
        assert proven(unseen, bare, 0) and not proven(unseen, bare, 1)
        # A checkpoint that nobody signed along is newer, but covers no more of this one.
        proof = await place(seen)
        older, _, signed = open_checkpoint(proof.checkpoint, scene.log, verifiers)
        assert proof.index < older.size < checkpoint.size and len(signed) == 2
        assert proven(seen, proof, 2)
        stranger = Verifier("người-lạ", generate("EdDSA").public_key(), COSIGNATURE)  # type: ignore[arg-type]
        assert not proven(seen, proof, 3, stranger)


async def test_of_several_processes_one_brings_them(
    witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    first = await start_hub(**settings(*witnesses))
    second = await start_hub(**settings(*witnesses))
    scene = await follow(first, http, *witnesses)
    await scene.send(3)
    await scene.cosigned(*witnesses, size=3)
    held = "select count(*) from pg_locks where locktype = 'advisory' and objid = 7023 and granted"
    assert await first.connection.fetchval(held) == 1
    # Whoever has it ends: another takes over.
    await first.hub.witnessing.stop()
    scene = Scene(second, http, scene.log, scene.province)
    await second.follow()
    await scene.send(3)
    await scene.cosigned(*witnesses, size=6)


# -- witnesses that do not do well --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _silent() -> AsyncIterator[str]:
    """A witness that takes requests and never answers."""
    closed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        closed.set()
        server.close()


@pytest.fixture
def away() -> Iterator[int]:
    """A port at which nobody answers: it is bound and not listened at, so that nobody else gets it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


@pytest.fixture
def stranger() -> Iterator[str]:
    yield str(Verifier("kiểm-toán/w3", SmallLog().key.public_key(), COSIGNATURE))


async def test_one_that_is_slow_or_away_holds_nobody_up(
    witnesses: tuple[RunningWitness, RunningWitness],
    start_hub: StartHub,
    http: aiohttp.ClientSession,
    stranger: str,
    away: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(witnessing, "ANSWER_SECONDS", 0.2)
    first, second = witnesses
    async with _silent() as url:
        wanted = f"{url} {stranger}, http://127.0.0.1:{away}/w2 {second.verifier} {first.setting}"
        scene = await follow(await start_hub(**settings() | {"witness": wanted}), http, first)
        await scene.send(3)
        await scene.cosigned(first, size=3)

        async def failed() -> bool:
            rows = await witnessing.states(scene.hub.hub.pool, scene.hub.hub.config.witnesses)
            errors = {row["name"]: row["error"] or "" for row in rows}
            return (
                "did not answer within" in errors["kiểm-toán/w3"]
                and "cannot be reached" in errors[second.verifier.name]
                and not errors[first.verifier.name].startswith("it cannot")
            )

        await until(failed, "what is wrong with the two is written down")
        status = await scene.status(second)
        assert status["failures"] > 0 and status["size"] is None and "last_error" not in status


async def test_one_that_was_not_told_of_the_log_signs_once_it_is(
    witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    first, second = witnesses
    scene = await follow(await start_hub(**settings(first, second)), http, first)
    await scene.send(2)
    await scene.cosigned(first, size=2)

    async def told() -> bool:
        (row,) = await witnessing.states(scene.hub.hub.pool, scene.hub.hub.config.witnesses[1:])
        return "it answered 404" in (row["error"] or "") and "give its operator" in row["error"]

    await until(told, "the hub says what is to be done")
    second.follow(scene.log)
    await scene.cosigned(first, second)
    assert (await scene.status(second)).get("failures", 0) == 0


async def test_answers_of_a_stranger_are_not_kept(
    witnesses: tuple[RunningWitness, RunningWitness],
    start_hub: StartHub,
    http: aiohttp.ClientSession,
    stranger: str,
) -> None:
    """At the address answers another witness than the one whose key is configured."""
    first, _ = witnesses
    scene = await follow(await start_hub(**settings() | {"witness": f"{first.url} {stranger}"}), http, first)

    async def told() -> bool:
        (row,) = await witnessing.states(scene.hub.hub.pool, scene.hub.hub.config.witnesses)
        return "no cosignature of kiểm-toán/w3" in (row["error"] or "")

    await until(told, "the hub says that it is another")
    assert await scene.hub.connection.fetchval("select count(*) from checkpoint_signature") == 0


NONSENSE = {
    "quá-dài": (200, lambda count: b"x" * 20_000, "its answer is longer than 16384 bytes"),
    "trang-web": (200, lambda count: b"<html></html>", "not lines of signatures"),
    "không-phải-số": (409, lambda count: "rất nhiều\n".encode(), "it answered 409: rất nhiều"),
    "mỗi-lần-một-khác": (409, lambda count: b"%d\n" % (count % 3 + 1), "another size each time"),
    "vượt-quá": (409, lambda count: b"999999999\n", "the log shrank"),
    "đổi-chỗ": (301, lambda count: b"", "it answered 301"),
    "vu-khống": (422, lambda count: "đã sửa\n".encode(), "it says that the log was rewritten: đã sửa"),
}


async def test_nonsense_is_told_and_harms_nobody(
    witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub, http: aiohttp.ClientSession
) -> None:
    first, _ = witnesses
    counts: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        status, body, _ = NONSENSE[name]
        counts[name] += 1
        return web.Response(
            status=status, body=body(counts[name]), headers={"Location": "/"} if status == 301 else {}
        )

    app = web.Application()
    app.router.add_post("/{name}/add-checkpoint", answer)
    async with TestServer(app) as server:
        wanted = [
            f"{server.make_url('/')}{name}/ {Verifier(name, SmallLog().key.public_key(), COSIGNATURE)}"
            for name in NONSENSE
        ]
        hub = await start_hub(**settings() | {"witness": " ".join([*wanted, first.setting])})
        scene = await follow(hub, http, first)
        await scene.send(5)
        await scene.cosigned(first, size=5)
        for setting, (name, (_, _, reason)) in zip(hub.hub.config.witnesses, NONSENSE.items(), strict=False):

            async def told(setting: WitnessSetting = setting, reason: str = reason) -> bool:
                (row,) = await witnessing.states(hub.hub.pool, [setting])
                assert not row["refused"] or row["refused"] == row["error"]
                return reason in (row["error"] or "")

            assert setting.verifier.name == name
            await until(told, f"{name}: {reason}")
        assert await hub.connection.fetch("select distinct name from checkpoint_signature") == [
            (first.verifier.name,)
        ]


async def test_what_the_hub_forgot_the_witness_tells(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness], start_hub: StartHub
) -> None:
    await scene.send(3)
    await scene.cosigned(*witnesses, size=3)
    await scene.hub.hub.witnessing.stop()
    await scene.hub.connection.execute("truncate witness, checkpoint_signature")
    await start_hub(**settings(*witnesses))
    await scene.cosigned(*witnesses, size=3)  # the same checkpoint, signed again
    await scene.send(3)
    await scene.cosigned(*witnesses, size=6)


async def test_a_request_by_hand_is_one_like_any_other(
    scene: Scene, witnesses: tuple[RunningWitness, RunningWitness]
) -> None:
    """Anybody may bring a witness a checkpoint, an auditor for instance; the hub goes on from there."""
    first, _ = witnesses
    await scene.send(2)
    checkpoint = await scene.cosigned(*witnesses, size=2)
    note = await scene.get("/log/checkpoint")
    answer = await ask(scene.http, first.url, f"old {checkpoint.size}\n\n{note}".encode())
    assert answer.status == 200
    await scene.send(2)
    await scene.cosigned(*witnesses, size=checkpoint.size + 1)
