"""The ``lienthong`` command for tests: called in this process, with a hub beside it in processes of its own.

A test module takes over the fixtures that it wants: ``lienthong = command.lienthong``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from click.testing import CliRunner, Result

from hub.cli import main
from tests.support.parties import PROVINCE, VAN_YEN


@dataclass
class Lienthong:
    """Calls the command in this process, with an environment of its own."""

    folder: Path
    environment: dict[str, str | None] = field(default_factory=dict)

    def call(self, *words: object, **environment: str | None) -> Result:
        present = {name: None for name in os.environ if name.startswith("LIENTHONG")}
        logging = structlog.get_config()
        try:
            return CliRunner().invoke(main, [*map(str, words)], env=present | self.environment | environment)
        finally:
            structlog.configure(**logging)  # `serve` sets up that of its process, which is that of later tests

    def __call__(self, *words: object, **environment: str | None) -> str:
        """What it writes to standard output; it must succeed."""
        result = self.call(*words, **environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words: object, **environment: str | None) -> Any:
        """The same with --json: before the command and after it in turn, which must mean the same."""
        after = len(words) % 2
        return orjson.loads(
            self(*(words if after else ("--json", *words)), *(["--json"] if after else []), **environment)
        )

    def fails(self, *words: object, status: int = 1, **environment: str | None) -> str:
        """The one line that it complains with."""
        result = self.call(*words, **environment)
        assert result.exit_code == status, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        complaint = result.stderr.strip()
        if status == 1:
            assert complaint.startswith("Error: ") and "\n" not in complaint, complaint
        return complaint


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the embedded PostgreSQL's own account may pass through, as pytest's are not."""
    made = Path(tempfile.mkdtemp(prefix="lienthong-cli-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Lienthong:
    """A prepared hub that does not run yet."""
    lienthong = Lienthong(folder, {"LIENTHONG_DATA_DIR": str(folder / "data")})
    lienthong("init", "--token-file", folder / "operator.token")
    return lienthong


@pytest.fixture(scope="module")
def lienthong(prepared: Lienthong) -> Iterator[Lienthong]:
    """A hub that runs, with two endpoints whose keys and tokens are files in its folder."""
    command = [sys.executable, "-m", "hub", "serve", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")}
    environment |= {"LIENTHONG_DATA_DIR": str(prepared.folder / "data"), "LIENTHONG_NAME": "trục Yên Bái"}
    with (prepared.folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert "is ready at" in ready, (prepared.folder / "hub.log").read_text()
        prepared.environment["LIENTHONG_URL"] = ready.split()[-1]
        for name, code, agency in (
            ("tinh", PROVINCE, "Ủy ban nhân dân tỉnh Yên Bái"),
            ("van-yen", VAN_YEN, "Ủy ban nhân dân huyện Văn Yên"),
        ):
            files = prepared.folder / name
            prepared("agency", "add", code, agency)
            prepared("key", "generate", f"{files}.pem")
            key, token = f"{files}.pem.pub", f"{files}.token"
            prepared("endpoint", "add", name, "--agency", code, "--key", key, "--token-file", token)
            known = "receive", "--into", prepared.folder / "cũ", "--token-file", token
            eventually(lambda known=known: prepared.call(*known).exit_code == 0)
        yield prepared
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def tinh(lienthong: Lienthong) -> dict[str, str]:
    """The environment of somebody at the province's office."""
    folder = lienthong.folder
    return {"LIENTHONG_TOKEN_FILE": str(folder / "tinh.token"), "LIENTHONG_KEY": str(folder / "tinh.pem")}


@pytest.fixture
def van_yen(lienthong: Lienthong) -> dict[str, str]:
    """The environment of somebody at the district's office, whose mailbox is empty."""
    environment = {"LIENTHONG_TOKEN_FILE": str(lienthong.folder / "van-yen.token")}
    while lienthong.json("receive", "--into", lienthong.folder / "cũ", **environment):
        pass
    return environment


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    made = tmp_path / "báo cáo.pdf"
    made.write_bytes("nội dung báo cáo".encode() * 100)
    return made


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Call until it is true; a change of the directory reaches the hub within two seconds, or when it can."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true in {seconds:g} s"
