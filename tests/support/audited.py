"""A hub whose log is audited by the command, and what its operator could do to its tables."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from hub.cli import audit as command
from hub.cli import main
from hub.directory import change
from hub.evidence.tree import Edge
from protocol.client import HubClient, Problem, Sent
from protocol.log import Checkpoint, split_hashes
from protocol.note import signature_line
from tests.conftest import RunningHub, StartHub
from tests.support.parties import PROVINCE, VAN_YEN, Party
from tests.support.until import until

MakeAudited = Callable[..., Awaitable["Audited"]]


@dataclass
class Told:
    """What an audit's user reads, and the exit status."""

    status: int
    text: str

    def __contains__(self, words: str) -> bool:
        return words in self.text


class Audited:
    """A hub in this process. Its log is continued only when `log` is called."""

    def __init__(self, hub: RunningHub, folder: Path) -> None:
        self.hub = hub
        self.url = hub.url
        self.folder = folder
        self.connection = hub.connection
        self.clock = timedelta()

    async def settle(self) -> None:
        """Stop the integrator, and register who sends."""
        await self.hub.hub.integrator.stop()
        self.province: Party = await self.hub.register("ubnd-tinh", PROVINCE)
        self.district: Party = await self.hub.register("van-yen", VAN_YEN)
        token = await change.issue_token(self.connection, role="auditor", label="Thanh tra tỉnh")
        self.token = self.folder / "auditor.token"
        self.token.write_text(token)
        await self.hub.follow()
        self.vkey = str(await self.connection.fetchval("select vkey from log_identity order by since desc"))

    @property
    def origin(self) -> str:
        return self.vkey.split("+")[0]

    async def send(self, count: int = 1) -> list[Sent]:
        """Documents, and the receipts of them in a folder of their own."""
        async with self.province.client(self.url) as client:
            return await self._send(client, count)

    async def _send(self, client: HubClient, count: int) -> list[Sent]:
        outcomes = []
        for start in range(0, count, 500):
            messages = [
                client.sign(self.province.document(VAN_YEN)) for _ in range(start, min(start + 500, count))
            ]
            outcomes += await client.submit_many(messages)
        sent = [outcome for outcome in outcomes if not isinstance(outcome, Problem)]
        assert len(sent) == count
        (self.folder / "biên nhận").mkdir(exist_ok=True)
        for one in sent:
            (self.receipts / f"{one.id}.receipt.json").write_bytes(one.receipt.to_json())
        return sent

    @property
    def receipts(self) -> Path:
        return self.folder / "biên nhận"

    async def log(self, size: int | None = None) -> int:
        """Continue the log with what waits; its size."""
        while await self.hub.hub.integrator.integrate():
            pass
        found = int(await self.connection.fetchval("select max(size) from checkpoint"))
        assert size is None or found == size
        return found

    # -- the auditor ----------------------------------------------------------------------------

    async def audit(self, *options: object, state: str | None = "state.json", url: str = "") -> Told:
        """``lienthong audit``; its clock is `self.clock` ahead."""
        words = ["audit", url or self.url, "--evidence", self.folder / "bằng chứng", *options]
        if state is not None:
            words += ["--state", self.folder / state]
        return await self.call(*words)

    async def call(self, *words: object) -> Told:
        """The command, whose text does not depend on the terminal's width."""
        environment = {name: None for name in os.environ if name.startswith("LIENTHONG")}
        original = command._now
        command._now = lambda: datetime.now(UTC) + self.clock
        try:
            result = await asyncio.to_thread(lambda: CliRunner().invoke(main, [*map(str, words)], env=environment))
        finally:
            command._now = original
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Told(result.exit_code, result.output)

    async def json(self, *options: object, **more: Any) -> dict[str, Any]:
        told = await self.audit("--json", *options, **more)
        found: dict[str, Any] = orjson.loads(told.text)
        assert found["status"] == told.status
        return found

    def evidence(self) -> list[Path]:
        return sorted((self.folder / "bằng chứng").glob("*")) if (self.folder / "bằng chứng").exists() else []

    # -- the operator ---------------------------------------------------------------------------

    async def entries(self) -> list[bytes]:
        """All entries of the log as they are stored."""
        rows = await self.connection.fetch("select hashes from log_tile where level = -1 order by place")
        return [entry for row in rows for entry in split_hashes(row["hashes"])]

    async def rewrite(self, at: int, by: bytes = bytes(32)) -> None:
        """Change an entry as somebody could who has the log's key: all tables fit each other again."""
        entries = await self.entries()
        entries[at] = by
        await self.make(entries)

    async def make(self, entries: list[bytes]) -> None:
        """Make the log one of these entries, signed with its own key."""
        edge = Edge()
        edge.append(entries)
        checkpoint = Checkpoint(self.origin, edge.size, edge.root())
        key = self.hub.hub.integrator._key
        note = checkpoint.text + "\n" + signature_line(self.origin, key, checkpoint.text)
        async with self.connection.transaction():
            await self.connection.execute("truncate log_tile, checkpoint, checkpoint_signature")
            await self.connection.executemany("insert into log_tile values ($1, $2, $3)", edge.changed())
            await self.connection.execute(
                "insert into checkpoint values ($1, now(), $2, $3)", edge.size, checkpoint.root, note
            )

    async def back_up(self) -> Callable[[], Awaitable[None]]:
        """Remember the log's tables; call what this gives to go back to them."""
        tables = ("log_tile", "checkpoint", "log_batch", "log_pending")
        rows = {table: await self.connection.fetch(f"select * from {table}") for table in tables}

        async def restore() -> None:
            async with self.connection.transaction():
                for table, kept in rows.items():
                    await self.connection.execute(f"delete from {table}")
                    places = ", ".join(f"${place + 1}" for place in range(len(kept[0]) if kept else 0))
                    for row in kept:
                        await self.connection.execute(f"insert into {table} values ({places})", *row.values())

        return restore

    async def cosigned(self, count: int) -> None:
        """Wait until `count` witnesses have signed the newest checkpoint."""

        async def look() -> bool:
            found = await self.connection.fetchval(
                "select count(*) from checkpoint_signature where size = (select max(size) from checkpoint)"
            )
            return bool(found == count)

        await until(look, f"{count} witnesses have signed")


@pytest.fixture
async def make_audited(start_hub: StartHub, tmp_path: Path) -> MakeAudited:
    async def make(folder: Path = tmp_path, **settings: object) -> Audited:
        settings.setdefault("log_name", "trục.yenbai.gov.vn/nhật-ký")
        scene = Audited(await start_hub(**settings), folder)
        await scene.settle()
        return scene

    return make


@pytest.fixture
async def scene(make_audited: MakeAudited) -> Audited:
    """A hub with five logged events."""
    scene = await make_audited()
    await scene.send(5)
    await scene.log(5)
    return scene
