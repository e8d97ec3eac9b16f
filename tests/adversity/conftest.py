"""What the tests of adversity share."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.client import transport
from tests.support.node import Node


@pytest.fixture(autouse=True)
def impatient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come back at least twice a second, so that no test waits for their patience."""
    monkeypatch.setattr(transport, "LONGEST_PAUSE", 0.5)


@pytest.fixture
async def unstarted() -> AsyncIterator[Node]:
    """A node whose data directory does not exist yet."""
    folder = Path(tempfile.mkdtemp(prefix="lienthong-node-"))
    folder.chmod(0o755)
    node = Node(folder / "node")
    yield node
    await node.stop()
    await asyncio.to_thread(shutil.rmtree, folder)
