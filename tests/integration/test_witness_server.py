"""A witness over HTTP, with its state on disk: whoever asks, whatever they send, however often it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import orjson
import pytest

from hub.witness import server as serving
from hub.witness import state as states
from hub.witness.state import STATE_FILE, State, WitnessError
from protocol.log import open_checkpoint
from protocol.misbehaviour import Kind, explain
from protocol.note import NoteError, Verifier, read_verifier
from protocol.witness import MAX_REQUEST_BYTES, Refusal, read_cosignature, write_request
from tests.support.small_log import ORIGIN, SmallLog
from tests.support.witnesses import NAMES, RunningWitness, ask, running


@pytest.fixture
def log() -> SmallLog:
    return SmallLog().grow(40)


@pytest.fixture
async def witness(log: SmallLog, tmp_path: Path) -> AsyncIterator[RunningWitness]:
    async with running(tmp_path / "nhân chứng", logs=[log.verifier]) as found:
        yield found


# -- what it signs ----------------------------------------------------------------------------------


async def test_a_log_that_grows_is_signed_each_time(
    witness: RunningWitness, log: SmallLog, http: aiohttp.ClientSession
) -> None:
    before = None
    for old, size in ((0, 1), (1, 2), (2, 13), (13, 13), (13, 40)):
        answer = await ask(http, witness.url, log.request(old, size))
        assert (answer.status, answer.media_type) == (200, "text/plain")
        line, at = read_cosignature(answer.body.encode(), log.note(size), witness.verifier)
        _, _, signed = open_checkpoint(log.note(size) + line, log.verifier, [witness.verifier])
        assert [one.verifier for one in signed] == [witness.verifier]
        assert before is None or at >= before
        before = at


async def test_everybody_can_see_what_it_signed(
    witness: RunningWitness, log: SmallLog, http: aiohttp.ClientSession
) -> None:
    async with http.get(witness.url) as response:
        about = await response.json()
    assert about == {
        "name": witness.verifier.name,
        "vkey": str(witness.verifier),
        "logs": [
            {
                "origin": ORIGIN,
                "keys": [str(log.verifier)],
                **dict.fromkeys(("size", "root", "signed_at", "checkpoint")),
                "misbehaviour": 0,
                "unproven": 0,
            }
        ],
    }
    await ask(http, witness.url, log.request(0, 13))
    async with http.get(witness.url) as response:
        (found,) = (await response.json())["logs"]
    checkpoint, _, signed = open_checkpoint(found["checkpoint"], log.verifier, [read_verifier(about["vkey"])])
    assert checkpoint == log.checkpoint(13) and len(signed) == 1
    assert found["size"] == 13


# -- what it refuses --------------------------------------------------------------------------------


async def test_each_refusal_has_the_status_of_the_specification(
    witness: RunningWitness, log: SmallLog, http: aiohttp.ClientSession
) -> None:
    assert (await ask(http, witness.url, log.request(0, 13))).status == 200
    stranger = SmallLog(origin="bo-noi-vu.gov.vn/log").grow(20)
    for data, status, said in (
        (b"old 0", 400, "no empty line"),
        ("xin chào".encode(), 400, "no empty line"),
        (os.urandom(500), 400, ""),
        (stranger.request(0), 404, "does not follow a log called bo-noi-vu.gov.vn/log"),
        (SmallLog().grow(20).request(13), 403, "not signed with a key of"),
        (write_request(20, [], log.note(13)), 400, "larger than the checkpoint's"),
        (write_request(13, [], log.note(20)), 422, "wrong length"),
    ):
        answer = await ask(http, witness.url, data)
        assert (answer.status, answer.media_type) == (status, "text/plain"), answer
        assert said in answer.body and answer.body.endswith("\n")
        assert "— " not in answer.body
    for old in (0, 5, 20):
        answer = await ask(http, witness.url, log.request(old, 30))
        assert (answer.status, answer.media_type, answer.body) == (409, "text/x.tlog.size", "13\n")
    async with http.get(f"{witness.url}/add-checkpoint") as response:
        assert response.status == 405
    assert witness.size() == 13


async def test_a_request_is_bounded_in_size_and_time(
    witness: RunningWitness, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await ask(http, witness.url, b"x" * (MAX_REQUEST_BYTES + 1))
    assert (answer.status, answer.body) == (413, "a request has 65536 bytes at most\n")
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.05)
    never = asyncio.Event()

    async def dawdles() -> AsyncIterator[bytes]:
        yield b"old 0\n"
        await never.wait()

    answer = await ask(http, witness.url, dawdles())
    assert (answer.status, answer.media_type) == (408, "text/plain")


# -- misbehaviour -----------------------------------------------------------------------------------


async def test_evidence_is_kept_and_shown(
    witness: RunningWitness, log: SmallLog, http: aiohttp.ClientSession
) -> None:
    assert (await ask(http, witness.url, log.request(0, 13))).status == 200
    fork = log.fork(7, 30)
    assert (await ask(http, witness.url, fork.request(0, 13))).status == 409
    assert (await ask(http, witness.url, fork.request(13, 30))).status == 422
    assert (await ask(http, witness.url, write_request(13, [bytes(32)] * 5, log.note(20)))).status == 422
    # The same again, and with strangers' lines on it, is not kept again.
    data = write_request(0, [], fork.note(13) + "— ai-đó AAAAAAA=\n")
    assert (await ask(http, witness.url, data)).status == 409
    kinds = [found.kind for found in witness.findings()]
    assert kinds == [Kind.REWRITTEN, Kind.TWO_FACES, Kind.UNPROVEN], "what proves something comes first"
    async with http.get(f"{witness.url}/evidence") as response:
        shown = orjson.loads(await response.read())
    assert [one["found"]["kind"] for one in shown["evidence"]] == kinds
    for found in witness.findings():
        assert explain(found, [log.verifier])
    async with http.get(witness.url) as response:
        (about,) = (await response.json())["logs"]
    assert (about["size"], about["misbehaviour"], about["unproven"]) == (13, 2, 1)
    # The log goes on as it was, and the witness with it: what was found stays.
    assert (await ask(http, witness.url, log.request(13, 40))).status == 200
    assert len(witness.findings()) == 3


async def test_nobody_can_fill_its_disk_with_findings(
    log: SmallLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "UNPROVEN_KEPT", 3)
    async with running(tmp_path / "w", logs=[log.verifier]) as witness, aiohttp.ClientSession() as http:
        assert (await ask(http, witness.url, log.request(0, 13))).status == 200
        for size in range(14, 40):
            assert (await ask(http, witness.url, write_request(13, [], log.note(size)))).status == 422
        assert (await ask(http, witness.url, log.fork(7, 13).request(13))).status == 409
        assert [found.kind for found in witness.findings()] == [Kind.TWO_FACES, *[Kind.UNPROVEN] * 3]


# -- at once, and killed ----------------------------------------------------------------------------


async def test_of_requests_at_once_none_rolls_back(
    witness: RunningWitness, log: SmallLog, http: aiohttp.ClientSession
) -> None:
    assert (await ask(http, witness.url, log.request(0, 1))).status == 200
    sizes = random.sample(range(2, 41), 39)
    answers = await asyncio.gather(*(ask(http, witness.url, log.request(1, size)) for size in sizes))
    (won,) = [size for size, answer in zip(sizes, answers, strict=True) if answer.status == 200]
    assert {(a.status, a.body) for a in answers if a.status != 200} == {(409, f"{won}\n")}
    assert witness.size() == won


async def test_two_processes_on_one_state_take_turns(log: SmallLog, tmp_path: Path) -> None:
    """As when somebody starts the witness twice. Each signs what the other has not."""
    folder = tmp_path / "w"
    states.make(folder, NAMES[0])
    with contextlib.closing(State(folder)) as state:
        state.add_log(str(log.verifier))
    signed: list[int] = []

    def bring(seed: int) -> None:
        chosen = random.Random(seed)
        with contextlib.closing(State(folder)) as state:
            known = 0
            while known < 40:
                size = chosen.randint(known, min(known + 3, 40))
                try:
                    state.add_checkpoint(log.request(known, size))
                    signed.append(size)
                    known = size
                except Refusal as refusal:
                    assert (refusal.status, refusal.misbehaviour) == (409, None)
                    assert refusal.size is not None and refusal.size > known, "it never goes back"
                    known = refusal.size

    await asyncio.gather(*(asyncio.to_thread(bring, seed) for seed in range(4)))
    assert max(signed) == 40


DIES_AFTER_SIGNING = """
import os, signal, sys
from pathlib import Path
from hub.witness.state import State
import asyncio
from hub.witness import server

sign = State.add_checkpoint

def sign_and_die(self, data):
    sign(self, data)
    os.kill(os.getpid(), signal.SIGKILL)

State.add_checkpoint = sign_and_die
asyncio.run(server.run(Path(sys.argv[1]), "127.0.0.1", 0, None, lambda address: print(address, flush=True)))
"""


async def test_killed_between_writing_down_and_answering_it_contradicts_nothing(
    log: SmallLog, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    folder = tmp_path / "w"
    async with running(folder, logs=[log.verifier]) as witness:
        assert (await ask(http, witness.url, log.request(0, 7))).status == 200
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES_AFTER_SIGNING, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    with pytest.raises(aiohttp.ClientError):
        await ask(http, url, log.request(7, 13))
    await process.communicate()
    assert process.returncode == -signal.SIGKILL
    async with running(folder) as witness:
        # It knows what it may have said. Another history gets nothing more, the true one goes on.
        assert (await ask(http, witness.url, log.fork(5, 13).request(7))).status == 409
        answer = await ask(http, witness.url, log.request(7, 13))
        assert (answer.status, answer.body) == (409, "13\n")
        answer = await ask(http, witness.url, log.request(13, 13))
        assert answer.status == 200
        read_cosignature(answer.body.encode(), log.note(13), witness.verifier)


async def test_what_cannot_be_written_down_is_not_signed(
    log: SmallLog, tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "BUSY_SECONDS", 0.05)
    async with running(tmp_path / "w", logs=[log.verifier]) as witness:
        other = sqlite3.connect(witness.folder / STATE_FILE, isolation_level=None)
        try:
            other.execute("begin immediate")
            answer = await ask(http, witness.url, log.request(0, 13))
            assert (answer.status, answer.media_type) == (503, "text/plain")
            assert "— " not in answer.body and "operator" in answer.body
            other.execute("rollback")
        finally:
            other.close()
        assert (await ask(http, witness.url, log.request(0, 13))).status == 200


def test_what_is_signed_is_flushed_to_the_disk_first(tmp_path: Path) -> None:
    states.make(tmp_path / "w", NAMES[0])
    with contextlib.closing(State(tmp_path / "w")) as state:
        assert state._db.execute("pragma synchronous").fetchone() == (2,), "FULL: each commit is flushed"
        assert state._db.execute("pragma journal_mode").fetchone() == ("wal",)


# -- its clock --------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back(log: SmallLog, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    verifier = states.make(folder, NAMES[0])
    now = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
    with contextlib.closing(State(folder, lambda: now)) as state:
        state.add_log(str(log.verifier))

        def sign(old: int, size: int) -> datetime:
            line = state.add_checkpoint(log.request(old, size))
            return read_cosignature(line.encode(), log.note(size), verifier)[1]

        first = sign(0, 5)
        now -= timedelta(seconds=30)
        assert sign(5, 6) == first, "a little: the former time is stated again"
        now -= timedelta(hours=7)
        with pytest.raises(Refusal, match="its operator must set it right") as caught:
            sign(6, 7)
        assert caught.value.status == 503
        with pytest.raises(Refusal) as caught:  # and what logs do is noticed all the same
            state.add_checkpoint(log.fork(3, 6).request(6))
        assert caught.value.misbehaviour
        now += timedelta(hours=8)
        assert sign(6, 7) == now


# -- making one -------------------------------------------------------------------------------------


def test_a_witness_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with pytest.raises(NoteError, match="cannot name a key"):
        states.make(folder, "sở nội vụ")
    states.make(folder, NAMES[1])
    with pytest.raises(WitnessError, match="there is a witness in"):
        states.make(folder, "khác")
    (folder / STATE_FILE).unlink()
    with pytest.raises(WitnessError, match="made anew in another folder"):
        State(folder)
    with pytest.raises(WitnessError, match="there is a witness in"):
        states.make(folder, NAMES[1])
    (folder / STATE_FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(WitnessError, match="is not a witness's state"):
        State(folder)


def test_only_keys_of_logs_are_followed(tmp_path: Path, log: SmallLog) -> None:
    states.make(tmp_path / "w", NAMES[0])
    with contextlib.closing(State(tmp_path / "w")) as state:
        with pytest.raises(WitnessError, match="one of a witness"):
            state.add_log(str(state.verifier))
        with pytest.raises(NoteError):
            state.add_log("trục+abc")
        state.add_log(str(log.verifier))
        state.add_log(str(log.verifier))
        assert [followed.origin for followed in state.logs()] == [ORIGIN]
        state.add_checkpoint(log.request(0, 13))
        state.remove_log(str(log.verifier))
        with pytest.raises(WitnessError, match="does not follow"):
            state.remove_log(str(log.verifier))
        with pytest.raises(Refusal) as caught:
            state.add_checkpoint(log.request(13))
        assert caught.value.status == 404
        # The same name under another key: what was signed of it is not forgotten.
        other = SmallLog(origin=ORIGIN).grow(20, "khác")
        state.add_log(str(Verifier(ORIGIN, other.key.public_key())))
        with pytest.raises(Refusal) as caught:
            state.add_checkpoint(other.request(0))
        assert (caught.value.status, caught.value.size) == (409, 13)
