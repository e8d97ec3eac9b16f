"""Proofs of a running hub: fetched by those who may, and verified by somebody who has no hub and no network."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from hub.directory import change
from hub.evidence.record import Recorded
from hub.relay import handover_sealing
from protocol.certificate import to_pem
from protocol.evidence import EventKind
from protocol.log import read_proof as read_log_proof
from protocol.manifest import seal_documents
from protocol.proof import MEDIA_TYPE, Proof, read_proof, sign_proof, write_proof
from protocol.proof_trust import Trust, read_trust
from protocol.proof_verdict import Verdict
from protocol.proof_verify import verify_proof, verify_single
from protocol.signature import parse
from tests.conftest import RunningHub, StartHub
from tests.integration.test_edxml_door import message as edxml_message
from tests.support import trial as trials
from tests.support import witness_scene
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party
from tests.support.trial import Trial
from tests.support.tsa import Root, Server
from tests.support.until import until
from tests.support.witnesses import RunningWitness

trial = trials.trial
impatient = witness_scene.impatient
witnesses = witness_scene.witnesses

OFFLINE = """
import sys

def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise RuntimeError("the network was asked for: " + event)

sys.addaudithook(refuse)
from hub.cli import main
sys.argv = ["lienthong", *sys.argv[1:]]
main()
"""
"""The command in a process that may not open a socket."""


@pytest.fixture(autouse=True)
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late an acknowledgement comes, its event tells of the hand-over: these files have no other."""
    monkeypatch.setattr(handover_sealing, "LOOK_SECONDS", 3600.0)


class Asking:
    """Somebody who asks a hub for proofs."""

    def __init__(self, hub: RunningHub, http: aiohttp.ClientSession) -> None:
        self.hub = hub
        self._http = http

    async def file(self, headers: dict[str, str], message: str, status: int = 200) -> bytes:
        async with self._http.get(f"{self.hub.url}/v1/messages/{message}/proof", headers=headers) as response:
            assert response.status == status, await response.text()
            if status == 200:
                assert response.content_type == MEDIA_TYPE
                assert response.headers["Cache-Control"] == "no-store"
                assert re.fullmatch(
                    r'attachment; filename="[0-9a-f-]{36}\.proof"', response.headers["Content-Disposition"]
                )
            return await response.read()

    async def recorded(self, headers: dict[str, str], message: str, events: int, signed: int = 0) -> bytes:
        """The file once it has that many events, all in the log, at a checkpoint with that many signatures."""

        async def look() -> bytes | None:
            file = await self.file(headers, message)
            proof = read_proof(file)
            ripe = len(proof.events) == events and all(one.logged for one in (proof.accepted, *proof.events))
            return file if ripe and (proof.checkpoint or "").count("\n— ") > signed else None

        return await until(look, f"{events} events are in the log, and {signed} witnesses have signed")

    async def trust(self, **members: Any) -> Trust:
        return read_trust(await self.trust_file())

    async def trust_file(self) -> bytes:
        async with self._http.get(f"{self.hub.url}/v1/hub/trust") as response:
            assert response.status == 200, await response.text()
            return await response.read()


@pytest.fixture
def asking_of(pair: Pair, http: aiohttp.ClientSession) -> Asking:
    return Asking(pair.hub, http)


def codes(verdict: Verdict) -> list[str]:
    return [one.code for one in verdict.findings]


def offline(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *map(str, words)], capture_output=True, text=True, timeout=60
    )


# -- the whole way ----------------------------------------------------------------------------------


async def test_everything_in_one_file_and_no_network(
    start_hub: StartHub,
    http: aiohttp.ClientSession,
    trial: Trial,
    witnesses: tuple[RunningWitness, RunningWitness],
    tmp_path: Path,
) -> None:
    """A certified sender, recipients that sign, witnesses and a time-stamp; checked where there is no socket."""
    authority = Root("CA dấu thời gian")
    (tmp_path / "tsa.pem").write_bytes(authority.pem)
    async with Server(authority.authority()).running() as server:
        hub = await start_hub(
            revocation_hosts="127.0.0.1",
            witness=" ".join(one.setting for one in witnesses),
            timestamp_url=server.url,
            timestamp_ca=str(tmp_path / "tsa.pem"),
        )
        asking = Asking(hub, http)
        async with http.get(f"{hub.url}/log") as response:
            log_key = (await response.json())["vkey"]
        province, district = await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN)
        await trial.trusted(hub)
        await trial.certify(hub, province)
        async with (
            province.client(hub.url) as sender,
            district.client(hub.url, sign_acknowledgements=True) as receiver,
        ):
            raw = sender.sign(province.document(VAN_YEN))
            sent = await sender.submit(raw)
            (entry,), _ = await receiver.read()
            await receiver.acknowledge(entry)
        # Witnesses begin to follow only now, so that the first time-stamp covers what was sent.
        await asking.recorded(province.headers, sent.id, 1)
        await hub.connection.execute("delete from checkpoint_timestamp")
        await hub.connection.execute("update timestamp_turn set next_at = now()")
        for witness in witnesses:
            witness.follow(log_key)

        async def stamped() -> bytes | None:
            file = await asking.recorded(province.headers, sent.id, 1, signed=2)
            return file if read_proof(file).timestamps else None

        file = await until(stamped, "a checkpoint that witnesses signed and an authority stamped")
        (tmp_path / "trust.json").write_bytes(await asking.trust_file())
    (tmp_path / "x.proof").write_bytes(file)
    (tmp_path / "x.jws").write_bytes(raw)
    (tmp_path / "ca.pem").write_bytes(to_pem(trial.authority.certificate))
    await trial.responder.stop()

    words = ("verify", tmp_path / "x.proof", tmp_path / "x.jws", "--trust-file", tmp_path / "trust.json")
    done = await asyncio.to_thread(offline, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = orjson.loads(done.stdout)
    assert answer["verified"] is True
    found = [one["code"] for one in answer["findings"]]
    assert found == [
        "file_intact",
        "accepted",
        "document_same",
        "sender_signed",
        "certificate_good",
        "revocation_good",
        "recipients_listed",
        "event",
        "event",
        "recipient_signed",
        "recipient_keys_by_hub",
        "log_recorded",
        "witnesses_met",
        "time_stamped",
    ]
    unproven = {one["code"] for one in answer["findings"] if one["status"] != "proven"}
    assert unproven == {"recipient_keys_by_hub"}
    told = await asyncio.to_thread(offline, *words, "--lang", "vi")
    assert told.returncode == 0 and told.stdout.startswith("KẾT LUẬN: bằng chứng đúng.")
    assert "2 bên làm chứng được tin cậy" in told.stdout and "Danh sách tin cậy" in told.stdout

    # The same with each thing that is trusted named by itself.
    (tmp_path / "keys.json").write_bytes(
        orjson.dumps({"keys": orjson.loads((tmp_path / "trust.json").read_bytes())["hub_keys"]})
    )
    options: list[object] = ["--hub-key", tmp_path / "keys.json", "--log-key", log_key, "--quorum", 2]
    for witness in witnesses:
        options += ["--witness", witness.verifier]
    options += ["--trust", tmp_path / "ca.pem", "--timestamp-ca", tmp_path / "tsa.pem"]
    again = await asyncio.to_thread(offline, *words[:3], *options, "--json")
    assert [one["code"] for one in orjson.loads(again.stdout)["findings"]] == found

    # One byte of the document.
    (tmp_path / "other.jws").write_bytes(raw[:-1] + (b"A" if raw[-1:] != b"A" else b"B"))
    refused = await asyncio.to_thread(offline, *words[:2], tmp_path / "other.jws", *words[3:], "--lang", "en")
    assert refused.returncode == 1, refused.stdout
    assert refused.stdout.startswith("VERDICT: NOT proven.")
    assert "is NOT the one that the proof speaks of" in refused.stdout


# -- formats ----------------------------------------------------------------------------------------


async def test_documents_that_were_signed_together(pair: Pair, asking_of: Asking) -> None:
    manifest = seal_documents([pair.province.document(VAN_YEN) for _ in range(5)], pair.province.signer)
    sent = await pair.sender.submit_manifest(manifest)
    entries = await pair.page()
    await pair.receiver.acknowledge(*entries)
    trust = await asking_of.trust()
    for answer, entry in zip(sent, entries, strict=True):
        assert not isinstance(answer, Exception)
        file = await asking_of.recorded(pair.province.headers, answer.id, 1)
        entry_bytes = await pair.receiver.fetch(entry)
        verdict = verify_proof(file, entry_bytes, trust, datetime.now(UTC))
        assert verdict.verified and "sender_signed" in codes(verdict)
    other = verify_proof(file, await pair.receiver.fetch(entries[0]), trust, datetime.now(UTC))
    assert other.failed is not None and other.failed.code == "document_other"


async def test_edxml(pair: Pair, asking_of: Asking) -> None:
    raw = edxml_message()
    sent = await pair.sender.submit(raw, "application/xml")
    await pair.receiver.acknowledge(*await pair.page())
    file = await asking_of.recorded(pair.province.headers, sent.id, 1)
    verdict = verify_proof(file, raw, await asking_of.trust(), datetime.now(UTC))
    assert verdict.verified and "sender_no_signature" in codes(verdict)


async def test_a_large_edxml_is_proven_too(pair: Pair, asking_of: Asking) -> None:
    """Its bytes are in the blob store."""
    raw = edxml_message(attachment="QUJD" * 200_000)
    sent = await pair.sender.submit(raw, "application/xml")
    file = await asking_of.file(pair.province.headers, sent.id)
    assert verify_proof(file, raw, await asking_of.trust(), datetime.now(UTC)).verified


async def test_a_notice_of_the_hub(pair: Pair, asking_of: Asking) -> None:
    """A refusal comes to the sender as a message of its own, whose proof there is as well."""
    await pair.send("normal")
    (entry,) = await pair.page()
    await pair.receiver.refuse(entry, "không thuộc thẩm quyền", "not-competent")
    (notice,), _ = await pair.sender.read(wait=10)
    file = await asking_of.file(pair.province.headers, notice.id)
    assert notice.receipt is not None
    document = notice.body or notice.receipt.to_json()
    verdict = verify_proof(file, document, await asking_of.trust(), datetime.now(UTC))
    assert read_proof(file).message.format == "receipt"
    assert verdict.verified, verdict.lines("en")


# -- who may have it --------------------------------------------------------------------------------


async def test_who_may_have_it(pair: Pair, asking_of: Asking) -> None:
    commune = await pair.hub.register("luc-yen", LUC_YEN)
    stranger = await pair.hub.register("la", "000.00.77.H63")
    operator = await change.issue_token(pair.hub.connection, role="operator")
    await pair.hub.follow()
    raw = pair.sender.sign(pair.province.document(VAN_YEN, DAI_SON, LUC_YEN))
    sent = await pair.sender.submit(raw)
    await pair.receiver.acknowledge(*await pair.page())
    async with commune.client(pair.hub.url) as reader:
        await reader.acknowledge(*(await reader.read())[0])
    trust, now = await asking_of.trust(), datetime.now(UTC)

    whole = await asking_of.recorded(pair.province.headers, sent.id, 2)
    proof = read_proof(whole)
    assert proof.recipients == (VAN_YEN, LUC_YEN, DAI_SON)
    assert verify_proof(whole, raw, trust, now).verified
    assert endpoints(proof) == ["luc-yen", "van-yen"]
    theirs = await asking_of.file({"Authorization": f"Bearer {operator}"}, sent.id)
    assert read_proof(theirs).recipients == proof.recipients

    own = await asking_of.recorded(pair.district.headers, sent.id, 1)
    copy = read_proof(own)
    assert copy.recipients is None and endpoints(copy) == ["van-yen"]
    assert LUC_YEN not in own.decode() and "luc-yen" not in own.decode()
    verdict = verify_proof(own, raw, trust, datetime.now(UTC))
    assert verdict.verified and "recipients_withheld" in codes(verdict)

    for headers, message, status in (
        (stranger.headers, sent.id, 404),
        ({}, sent.id, 401),
        (pair.province.headers, "không-có", 404),
    ):
        await asking_of.file(headers, message, status)
    # By the sender's own id, as everywhere.
    mine = await pair.sender.proof(proof_id(proof))
    assert read_proof(mine).message == proof.message


def endpoints(proof: Proof) -> list[str]:
    return sorted(str(orjson.loads(one.receipt.event)["endpoint"]) for one in proof.events)


def proof_id(proof: Proof) -> str:
    return str(orjson.loads(proof.accepted.receipt.event)["id"])


# -- before the log has it, and other events ----------------------------------------------------------


async def test_before_the_log_has_it(pair: Pair, asking_of: Asking) -> None:
    await pair.hub.hub.integrator.stop()
    raw = pair.sender.sign(pair.province.document(VAN_YEN))
    sent = await pair.sender.submit(raw)
    file = await asking_of.file(pair.province.headers, sent.id)
    assert read_proof(file).accepted.logged is None
    trust, now = await asking_of.trust(), datetime.now(UTC)
    verdict = verify_proof(file, raw, trust, now)
    assert verdict.verified and "log_promised" in codes(verdict)
    later = verify_proof(file, raw, trust, now + timedelta(days=3))
    assert later.failed is not None and later.failed.code == "log_promise_old"
    pair.hub.hub.integrator.start()
    ripe = await asking_of.recorded(pair.province.headers, sent.id, 0)
    assert "log_recorded" in codes(verify_proof(ripe, raw, trust, datetime.now(UTC) + timedelta(days=3)))


async def test_a_hub_that_does_not_keep_its_promise(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    """It promises a minute, never integrates, and signs that this is so."""
    hub = await start_hub(log_within_seconds=60)
    await hub.hub.integrator.stop()
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    asking = Asking(hub, http)
    async with province.client(hub.url) as sender:
        raw = sender.sign(province.document(VAN_YEN))
        sent = await sender.submit(raw)
    file = await asking.file(province.headers, sent.id)
    # The same file, made an hour later by the hub's clock.
    late = sign_proof(read_proof(file), hub.hub._signer, datetime.now(UTC) + timedelta(hours=1))
    verdict = verify_proof(write_proof(late), raw, await asking.trust(), datetime.now(UTC) + timedelta(hours=2))
    assert verdict.failed is not None and verdict.failed.code == "log_promise_broken"


async def test_other_events(pair: Pair, asking_of: Asking) -> None:
    """What others recorded about the message is in its proof: relaying to the recipient's hub, and the whole."""
    raw = pair.sender.sign(pair.province.document(VAN_YEN))
    sent = await pair.sender.submit(raw)
    row = await pair.hub.connection.fetchrow("select id from message")
    members = {"endpoint": "van-yen", "recipients": [VAN_YEN], "peer_id": "7"}
    await pair.hub.hub.recorder.record(
        [
            Recorded(row["id"], EventKind.RELAYED, pair.district.id, members),
            Recorded(
                row["id"],
                EventKind.SIGNATURES_CHECKED,
                None,
                {"attachment": {"name": "a.pdf"}, "pdf": {"verdict": "signed"}},
            ),
        ]
    )
    file = await asking_of.recorded(pair.province.headers, sent.id, 2)
    verdict = verify_proof(file, raw, await asking_of.trust(), datetime.now(UTC))
    told = "\n".join(verdict.lines("en"))
    assert verdict.verified
    assert "Relayed to another hub: van-yen (000.00.31.H63)" in told
    assert "Signatures in attachments checked: «a.pdf»" in told and "all signatures intact and trusted" in told


async def test_many_recipients(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    province = await hub.register("ubnd-tinh", PROVINCE)
    parties: list[Party] = []
    for number in range(40):
        parties.append(await hub.register(f"xa-{number}", f"000.{number:02}.31.H63"))
    to = [party.agencies[0] for party in parties]
    async with province.client(hub.url) as sender:
        raw = sender.sign(province.document(*to))
        sent = await sender.submit(raw)
    for party in parties[:39]:
        async with party.client(hub.url, sign_acknowledgements=True) as reader:
            await reader.acknowledge(*(await reader.read())[0])
    asking = Asking(hub, http)
    file = await asking.recorded(province.headers, sent.id, 39)
    verdict = verify_proof(file, raw, await asking.trust(), datetime.now(UTC))
    assert verdict.verified and codes(verdict).count("recipient_signed") == 39
    (waiting,) = [one for one in verdict.findings if one.code == "open"]
    assert to[39] in waiting.vi


# -- a receipt alone, whom to trust, the page ---------------------------------------------------------


async def test_a_receipt_and_the_logs_proof(pair: Pair, asking_of: Asking, http: aiohttp.ClientSession) -> None:
    raw = pair.sender.sign(pair.province.document(VAN_YEN))
    sent = await pair.sender.submit(raw)
    await asking_of.recorded(pair.province.headers, sent.id, 0)
    batch = orjson.loads(parse(sent.receipt.seal.encode()).payload)["batch"]
    async with http.get(f"{pair.hub.url}/log/proof/{batch}/{sent.receipt.index}") as response:
        logged = read_log_proof(await response.text())
    verdict = verify_single(sent.receipt, raw, await asking_of.trust(), datetime.now(UTC), logged)
    assert verdict.verified and "log_recorded" in codes(verdict)


async def test_trust_names_what_the_hub_has(asking_of: Asking, pair: Pair) -> None:
    trust = await asking_of.trust()
    keys = {jwk["kid"] for jwk in await pair.sender.hub_keys()}
    assert trust.hub_keys.keys() == keys and len(trust.logs) == 1
    assert (trust.witnesses, trust.quorum, trust.anchors, trust.timestamp_roots) == ((), 0, (), ())


async def test_the_page(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{hub.url}/verify") as response:
        assert response.status == 200 and response.content_type == "text/html" and response.charset == "utf-8"
        policy = response.headers["Content-Security-Policy"]
        body = await response.text()
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "connect-src" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Kiểm tra bằng chứng" in body and "verifyProof" in body


async def test_a_store_that_was_altered_gives_no_proof(pair: Pair, asking_of: Asking) -> None:
    (message,) = await pair.send("normal")
    await pair.hub.connection.execute("update message set event = replace(event, 'normal', 'urgent')")
    answer = orjson.loads(await asking_of.file(pair.province.headers, message, 500))
    assert answer["code"] == "internal" and "cannot be produced" in answer["detail"]
