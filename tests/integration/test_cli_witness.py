"""``lienthong witness``: what somebody at an agency types, without a hub or a database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from hub.witness.state import KEY_FILE, VKEY_FILE, State
from protocol.note import read_verifier
from protocol.witness import Refusal, read_cosignature
from tests.support.command import Lienthong
from tests.support.small_log import ORIGIN, SmallLog
from tests.support.witnesses import NAMES, Answer, ask


@pytest.fixture
def log() -> SmallLog:
    return SmallLog().grow(40)


@pytest.fixture
def lienthong(tmp_path: Path) -> Lienthong:
    return Lienthong(tmp_path, {"LIENTHONG_WITNESS_DIR": str(tmp_path / "nhân chứng")})


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """``lienthong witness serve`` as a child process; gives its address."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")}
    process = subprocess.Popen(
        [sys.executable, "-m", "hub", "witness", "serve", "--dir", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert "The witness is ready at http://127.0.0.1:" in ready
        yield ready.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0


def bring(url: str, data: bytes) -> Answer:
    async def go() -> Answer:
        async with aiohttp.ClientSession() as http:
            return await ask(http, url, data)

    return asyncio.run(go())


def test_from_making_one_to_evidence_that_others_check(
    lienthong: Lienthong, log: SmallLog, tmp_path: Path
) -> None:
    """Everything that docs/witnesses.md asks of an agency."""
    folder = tmp_path / "nhân chứng"
    written = lienthong("witness", "init", "--name", NAMES[0])
    vkey = written.split("\n")[0]
    assert "Give it to the hub's operator" in written
    assert (folder / VKEY_FILE).read_text() == vkey + "\n"
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    verifier = read_verifier(vkey)
    assert (verifier.name, verifier.kind) == (NAMES[0], 4)
    assert "follows no log yet" in lienthong("witness", "status")

    with serving(folder) as url:
        assert bring(url, log.request(0, 13)).status == 404
        assert lienthong.json("witness", "log", "add", log.verifier) == {
            "origin": ORIGIN,
            "vkey": str(log.verifier),
            "witness": NAMES[0],
        }
        answer = bring(url, log.request(0, 13))  # a witness that runs follows it at once
        assert answer.status == 200
        read_cosignature(answer.body.encode(), log.note(13), verifier)
        assert "has only grown" in lienthong("witness", "evidence")
        assert bring(url, log.fork(7, 40).request(13)).status == 422
        (seen,) = lienthong.json("witness", "status")["logs"]
        assert (seen["origin"], seen["size"], seen["misbehaviour"]) == (ORIGIN, 13, 1)

    assert ORIGIN in lienthong("witness", "status")
    (found,) = lienthong.json("witness", "evidence", "--into", tmp_path / "chứng cứ")
    file = Path(found["file"])
    assert file.name == "000001-rewritten.json"
    assert orjson.loads(file.read_bytes()) == found["found"]
    # Whoever gets the file needs only the log's key.
    said = lienthong("witness", "check", file, log.verifier)
    assert said == f"Proven: {ORIGIN} signed a log of 13 entries, and one of 40 that begins differently.\n"
    assert lienthong.json("witness", "check", file, log.verifier)["proven"] is True
    assert "proves nothing: a checkpoint of the finding is not signed by" in lienthong.fails(
        "witness", "check", file, SmallLog().verifier
    )
    file.write_bytes(file.read_bytes().replace(b"rewritten", b"two-faces"))
    assert "do not contradict each other" in lienthong.fails("witness", "check", file, log.verifier)
    file.write_text("{}")
    assert "not what a witness found" in lienthong.fails("witness", "check", file, log.verifier)

    lienthong("witness", "log", "remove", log.verifier)
    assert "not followed" in lienthong("witness", "status")


def test_what_proves_nothing_by_itself_says_so(lienthong: Lienthong, log: SmallLog, tmp_path: Path) -> None:
    lienthong("witness", "init", "--name", NAMES[1])
    lienthong("witness", "log", "add", log.verifier)
    with contextlib.closing(State(tmp_path / "nhân chứng")) as state:
        state.add_checkpoint(log.request(0, 16))
        with pytest.raises(Refusal):
            state.add_checkpoint(log.fork(7, 40).request(16))
    (found,) = lienthong.json("witness", "evidence", "--into", tmp_path)
    said = lienthong("witness", "check", found["file"], log.verifier)
    assert (
        said.startswith(f"Not proven: {ORIGIN} signed a log of 16 entries and one of 40") and "Ask the log" in said
    )


UNIT = Path(__file__).parents[2] / "deploy" / "lienthong-witness.service"
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def test_the_unit_serves_what_the_page_has_made(lienthong: Lienthong) -> None:
    lines = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w+=", line))
    executable, *words = shlex.split(lines["ExecStart"])
    folder = words[words.index("--dir") + 1]
    assert Path(folder).parent == Path(lines["WorkingDirectory"]) == Path("/var/lib") / lines["StateDirectory"]
    page = (UNIT.parents[1] / "docs" / "witnesses.md").read_text()
    assert f'{executable} witness "$@" --dir {folder}' in page
    # It is called rightly: it only misses the witness.
    assert f"there is no {folder}/{KEY_FILE}" in lienthong.fails(*words)


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/lienthong/bin/lienthong", shutil.which("true") or ""))
    assert SYSTEMD_ANALYZE is not None
    done = subprocess.run([SYSTEMD_ANALYZE, "verify", "--man=no", copy], capture_output=True, text=True)
    assert done.returncode == 0 and UNIT.name not in done.stderr, done.stderr


def test_mistakes_are_told_in_one_line(lienthong: Lienthong, tmp_path: Path, log: SmallLog) -> None:
    assert "lienthong witness init" in lienthong.fails("witness", "status")
    assert "lienthong witness init" in lienthong.fails("witness", "serve", "--port", "0")
    assert "cannot name a key" in lienthong.fails("witness", "init", "--name", "Sở Nội vụ")
    lienthong("witness", "init", "--name", NAMES[0])
    assert "there is a witness in" in lienthong.fails("witness", "init", "--name", NAMES[0])
    assert "is not a verifier key" in lienthong.fails("witness", "log", "add", "yenbai.gov.vn/log")
    own = (tmp_path / "nhân chứng" / VKEY_FILE).read_text().strip()
    assert "not of a log" in lienthong.fails("witness", "log", "add", own)
    assert "does not follow" in lienthong.fails("witness", "log", "remove", log.verifier)
    assert "belong together" in lienthong.fails("witness", "serve", "--tls-cert", __file__, status=2)
