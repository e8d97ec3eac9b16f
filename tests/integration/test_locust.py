"""Locust runs from end to end, loses nothing, and its exit code says when something is not as it should be.

Always in a process of its own: Locust patches the standard library when it is imported.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.locust import prepare
from protocol.signature import generate, private_pem
from tests.conftest import RunningHub

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]
TINY = ("--seconds", "2", "--rate", "20", "--quiet")


async def locust(*options: str) -> tuple[int, str]:
    """`python -m benchmarks.locust`: its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.locust", *options),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def endpoints(hub: RunningHub, file: Path, senders: int, receivers: int, **changes: Any) -> Path:
    """Endpoints of a hub that runs already, in a file."""
    made = await prepare.register(hub.connection, hub.url, senders, receivers)
    await hub.follow()
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, **changes)))
    return file


@pytest.mark.parametrize("door", ["http", "stream"])
async def test_a_hub_of_its_own_a_report_and_nothing_lost(door: str, tmp_path: Path) -> None:
    report = tmp_path / "báo cáo.html"
    code, said = await locust("--door", door, "--users", "8", "--sample", "1", "--html", str(report), *TINY)
    assert code == 0, said
    assert "PASSED: nothing lost, nothing twice" in said
    assert "µs for each document" in said
    assert "from schedule" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize("door", ["http", "stream"])
async def test_a_hub_that_runs_already_and_documents_in_batches(
    door: str, hub: RunningHub, tmp_path: Path
) -> None:
    file = await endpoints(hub, tmp_path / "endpoints.json", 3, 2)
    options = ("--door", door, "--users", "6", "--batch", "4", "--fan-out", "2", *TINY)
    code, said = await locust("--endpoints", str(file), *options)
    assert code == 0, said
    sent = await hub.connection.fetchval("select count(*) from message")
    delivered = await hub.connection.fetchval("select count(*) from inbox")
    assert sent > 0 and delivered == 2 * sent


async def test_a_broken_threshold_is_the_exit_code(hub: RunningHub, tmp_path: Path) -> None:
    file = await endpoints(hub, tmp_path / "endpoints.json", 3, 1)
    code, said = await locust("--endpoints", str(file), "--users", "5", "--max-p99-ms", "0.001", *TINY)
    assert code == 1, said
    assert "FAILED: p99 from schedule is" in said
    assert said.count("FAILED") == 1, said


async def test_a_mailbox_that_nobody_can_read_is_the_exit_code(hub: RunningHub, tmp_path: Path) -> None:
    file = await endpoints(hub, tmp_path / "endpoints.json", 3, 2)
    made = prepare.read_endpoints(file)
    stranger = msgspec.structs.replace(made.receivers[1], token="lt_không-ai-biết".encode().hex())
    changed = msgspec.structs.replace(made, receivers=(made.receivers[0], stranger))
    file.write_bytes(msgspec.json.encode(changed))
    options = ("--users", "6", "--max-error-share", "1", "--patience", "0.5", *TINY)
    code, said = await locust("--endpoints", str(file), *options)
    assert code == 1, said
    assert "deliveries were not acknowledged" in said
    assert "401 unauthenticated" in said


async def test_several_processes_and_a_shape(hub: RunningHub, tmp_path: Path) -> None:
    file = await endpoints(hub, tmp_path / "endpoints.json", 6, 2)
    options = ("--users", "10", "--processes", "2", "--shape", "spike", *TINY)
    code, said = await locust("--endpoints", str(file), *options)
    assert code == 0, said
    sent = await hub.connection.fetchval("select count(*) from message")
    assert sent > 0 and f"{sent} sent, {sent} receipted" in said


def test_documents_are_signed_for_one_run_only(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    key = private_pem(generate("ES256")).decode()
    sender = prepare.SenderFile("gửi", "000.00.01.H63", token="a", key=key)
    receiver = prepare.ReceiverFile("nhận", ("000.00.02.H63",), token="b")
    file.write_bytes(msgspec.json.encode(prepare.Endpoints("http://127.0.0.1:1", (sender,), (receiver,))))
    folder = tmp_path / "load"
    assert prepare.main(["sign", str(file), str(folder), "--documents", "3"]) == 0
    assert json.loads((folder / "load.json").read_bytes())["rounds"] == 3
    (folder / "sent-at").touch()
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locust/http_door.py", "--headless"]
    done = subprocess.run([*command, "--load", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "were sent before: sign new ones" in done.stderr


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("ramp", [13, 23, 53, 103, 103, None]),
        ("spike", [23, 23, 103, 23, 23, None]),
        ("soak", [28, 53, 103, 103, 103, None]),
        ("fan-out", [103, 103, 103, 103, 103, None]),
    ],
)
def test_shapes_follow_their_tables(shape: str, users: list[int | None]) -> None:
    moments = (0.0, 2.5, 40.0, 91.0, 99.9, 100.0) if shape == "soak" else (0.0, 10.0, 40.0, 91.0, 99.9, 100.0)
    program = (
        "from benchmarks.locust.shapes import SHAPES; import json\n"
        f"shape = SHAPES[{shape!r}](3, 100, 100.0, 10.0)\n"
        f"print(json.dumps([shape.at(moment) for moment in {moments!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == users
