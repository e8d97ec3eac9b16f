"""Tries the settings that a peer names, one change at a time, to find what serves it best.

On a PostgreSQL without a hub, the peer started anew for each line. Short loads scatter by some percent:
believe only what is ahead twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import SENDERS, Receiver, Sender
from benchmarks.node import tree_seconds
from benchmarks.peers.load import Outcome, measure
from benchmarks.peers.peer import Ground, Peer
from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import wait_until_reachable


@contextlib.asynccontextmanager
async def bare_ground() -> AsyncIterator[Ground]:
    """The hub's PostgreSQL with the hub's settings, in a temporary folder, and no hub."""
    folder = Path(tempfile.mkdtemp(prefix="lienthong-peers-"))
    folder.chmod(0o755)  # root's PostgreSQL runs under another account
    postgres = EmbeddedPostgres(folder / "data")
    try:
        pid = await asyncio.to_thread(postgres.start)
        await wait_until_reachable(postgres.url, 30)

        def database(name: str) -> str:
            return postgres.url.replace("/lienthong?", f"/{name}?")

        yield Ground(folder, database, lambda: tree_seconds(psutil.Process(pid)))
    finally:
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(shutil.rmtree, folder, True)


async def try_once(
    kind: type[Peer], ground: Ground, changes: dict[str, Any], seconds: float, receivers: int
) -> Outcome:
    """One load with these changes to the peer's settings."""
    peer = kind(ground, receivers, changes)
    folder = ground.folder / kind.name
    folder.mkdir()
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    try:
        await peer.start(folder)
        return await measure(
            peer, senders, [Receiver(number) for number in range(receivers)], seconds, lambda _: None
        )
    finally:
        await peer.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def sweep(
    kind: type[Peer],
    seconds: float,
    receivers: int,
    console: Console,
    tries: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Measure the defaults, then each of the peer's `tries` (or of these); print what came of it."""
    table = Table(title=f"{kind.title}: {kind.defaults}")
    for title in ("change", "documents/s", "server µs", "client µs", "others", "e2e p50 ms", "e2e p99 ms"):
        table.add_column(title, justify="left" if title == "change" else "right")
    async with bare_ground() as ground:
        for changes in [{}, *kind.variants.values(), *(kind.tries if tries is None else tries)]:
            try:
                found = (await try_once(kind, ground, changes, seconds, receivers)).figures()
            except Exception as error:
                console.print(f"{changes}: {error}", style="red", markup=False)
                table.add_row(str(changes or "none"), "failed")
                continue
            table.add_row(
                str(changes or "none"),
                f"{found['docs_per_s']:,.0f}",
                f"{found['server_cpu_us_per_doc']:,.0f}",
                f"{found['client_cpu_us_per_doc']:,.0f}",
                f"{found['others_cpu_share']:.2f}",
                f"{found['e2e_p50_ms']:,.1f}",
                f"{found['e2e_p99_ms']:,.1f}",
            )
            console.print(f"{changes or 'none'}: {found['docs_per_s']:,.0f}/s", style="dim", markup=False)
    console.print(table)
