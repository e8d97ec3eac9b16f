"""Once a second while a load runs: what each part of the machine and of PostgreSQL did.

A sample costs about a millisecond of the generator and two of PostgreSQL. CPU is read for the workers and
PostgreSQL's processes from the system; all else in one statement, and the event loops' lateness from the
report that each worker writes every two seconds (the worst since its last report). PostgreSQL's processes
report their own counts (commits, flushes, dead tuples) at most once a second, so short runs are a little off
at their ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from benchmarks.node import Node

EVERY_SECONDS = 1.0

COLUMNS = (
    "t",  # seconds since the first sample
    "hub_cpu",  # cores used by the workers since the sample before
    "postgres_cpu",
    "generator_cpu",
    "documents",  # finished since the sample before, a second
    "loop_lag_ms",  # the worst of all workers
    "wal_mib",  # a second
    "commits",  # a second
    "wal_fsyncs",  # a second
    "dead_tuples",  # in all tables
    "checkpoints",  # since the first sample
)

_COUNTERS = """
select (pg_current_wal_insert_lsn() - '0/0')::bigint as wal,
       (select xact_commit from pg_stat_database where datname = current_database()) as commits,
       (select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io where object = 'wal') as wal_fsyncs,
       (select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables) as dead_tuples,
       (select num_timed + num_requested from pg_stat_checkpointer) as checkpoints,
       (select coalesce(max((stats::json ->> 'loop_lag_ms')::float8), 0) from worker) as loop_lag_ms
"""


class Sampler:
    """Samples a node while its block runs. An async context; `rows` has the `COLUMNS`."""

    def __init__(self, node: Node, progress: Callable[[], int]) -> None:
        """`progress`: how many documents have been through so far."""
        self._node = node
        self._progress = progress
        self._connection: asyncpg.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._workers = node.workers()
        self._postmaster = psutil.Process(node.postgres_pid)
        self._hub: dict[int, float] = {}
        self._postgres: dict[int, float] = {}
        self.rows: list[list[float]] = []
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    async def __aenter__(self) -> Sampler:
        self._connection = await asyncpg.connect(self._node.database_url)
        self.first = self.last = await self._read()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None and self._connection is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._sample()
        await self._connection.close()

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            due += EVERY_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._sample()

    async def _read(self) -> dict[str, Any]:
        assert self._connection is not None
        row = await self._connection.fetchrow(_COUNTERS)
        assert row is not None
        return dict(row) | {
            "at": time.monotonic(),
            "hub_cpu": _used(self._hub, self._workers),
            "postgres_cpu": _used(self._postgres, [self._postmaster, *self._backends()]),
            "generator_cpu": time.process_time(),
            "documents": self._progress(),
        }

    def _backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes; one read where the system has a list, a search through all where not."""
        pid = self._postmaster.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children")
        try:
            pids = [int(child) for child in listed.read_text().split()]
        except OSError:
            return list(self._postmaster.children())
        found = []
        for child in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(child))
        return found

    async def _sample(self) -> None:
        before, now = self.last, await self._read()
        seconds = now["at"] - before["at"]
        if seconds < EVERY_SECONDS / 10:  # too short to make rates of
            return
        self.last = now

        def rate(name: str, digits: int = 1, scale: float = 1.0) -> float:
            return float(round((now[name] - before[name]) / seconds / scale, digits))

        self.rows.append(
            [
                round(now["at"] - self.first["at"], 2),
                rate("hub_cpu", 3),
                rate("postgres_cpu", 3),
                rate("generator_cpu", 3),
                rate("documents"),
                round(now["loop_lag_ms"], 2),
                rate("wal", 2, 1 << 20),
                rate("commits"),
                rate("wal_fsyncs"),
                now["dead_tuples"],
                now["checkpoints"] - self.first["checkpoints"],
            ]
        )

    def total(self, name: str) -> int:
        """How much a counter grew over the run."""
        return int(self.last[name] - self.first[name])

    def summary(self, documents: int) -> dict[str, float]:
        """The run in a few figures, for `documents` that went through it."""
        lags = [row[COLUMNS.index("loop_lag_ms")] for row in self.rows]
        return {
            "commits_per_doc": round(self.total("commits") / max(1, documents), 4),
            "wal_fsyncs_per_doc": round(self.total("wal_fsyncs") / max(1, documents), 4),
            "loop_lag_max_ms": max(lags, default=0.0),
            "dead_tuples": int(self.last["dead_tuples"]),
            "checkpoints": self.total("checkpoints"),
        }

    def json(self) -> dict[str, Any]:
        """The rows, and what their columns are."""
        return {"columns": list(COLUMNS), "rows": self.rows}


def _used(seen: dict[int, float], processes: list[psutil.Process]) -> float:
    """CPU seconds of all processes ever `seen`; those of one that has ended are its last known ones."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen[process.pid] = float(sum(process.cpu_times()[:2]))
    return sum(seen.values())
