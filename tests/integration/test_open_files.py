"""A shell's limit of open files does not limit how many systems may be connected."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SOFT_LIMIT, CONNECTIONS = 160, 300


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded PostgreSQL's own account may pass through."""
    made = Path(tempfile.mkdtemp(prefix="lienthong-files-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_more_connections_than_the_soft_limit_of_files(folder: Path) -> None:
    serve = (sys.executable, "-m", "hub", "serve", "--port", "0", "--data-dir", str(folder / "data"))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'ulimit -Sn {SOFT_LIMIT} && exec "$@"', "sh", *serve),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    writers: list[asyncio.StreamWriter] = []
    try:
        assert process.stdout is not None
        ready = (await process.stdout.readline()).decode()
        assert "is ready at" in ready, (folder / "log").read_text()
        port = int(ready.strip().rpartition(":")[2])
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        writers = [writer for _, writer in connections]
        for writer in writers:
            writer.write(b"GET /healthz/live HTTP/1.1\r\nHost: hub\r\n\r\n")
        answers = [await asyncio.wait_for(reader.readline(), 30) for reader, _ in connections]
        assert answers == [b"HTTP/1.1 200 OK\r\n"] * CONNECTIONS
    finally:
        for writer in writers:
            writer.close()
        process.terminate()
        await process.wait()
