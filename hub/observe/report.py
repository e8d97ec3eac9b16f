"""What a process says of itself every two seconds, and the hub's state put together from it.

Each process writes one small row (an unlogged table); whoever is asked for the status reads all of them,
so the answer is the same whichever process gives it, on every node.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import structlog

from hub import tasks
from hub.config import WitnessSetting
from hub.directory.follow import Directory
from hub.doors.http import Gate
from hub.doors.status_models import (
    CertificateStatus,
    EndpointStatus,
    HubStatus,
    LaneStatus,
    LinkStatus,
    LogGlance,
    WitnessStatus,
    WorkerStatus,
)
from hub.evidence.witnessing import states
from hub.observe import metrics
from hub.relay.admission import REASONS
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.evidence import timestamp
from protocol.ids import uuid7
from protocol.message import Lane

log = structlog.get_logger()
SQL = sql.load("observe")
LINKS = sql.load("links")
TRUST = sql.load("trust")
LOG = sql.load("log")

REPORT_SECONDS = 2.0
BEAT_SECONDS = 0.1
WARN_DAYS = 60
"""Certificates are shown so many days before their end."""
STATUS_CACHE_SECONDS = 2.0
"""Counting a million waiting deliveries takes 100 ms; nobody may make the hub do it more often."""


class LoopLag:
    """Measures how late the event loop wakes a sleeper: what every request waits on top of its own work."""

    def __init__(self) -> None:
        self._worst = 0.0

    async def beat(self) -> None:
        """Run until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(BEAT_SECONDS)
            self._worst = max(self._worst, loop.time() - before - BEAT_SECONDS)

    def take(self) -> float:
        """The worst lateness since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst


class Counts:
    """Running totals of one process."""

    __slots__ = ("accepted", "batches", "ended", "items")

    def __init__(self) -> None:
        self.accepted = 0
        self.ended = 0
        self.batches = 0
        self.items = 0


class Reporter:
    """Writes a process's report, and reads everybody's."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        directory: Directory,
        gate: Gate,
        hub_name: str,
        gauge: Callable[[], dict[str, int]],
        connected: Callable[[], Iterable[int]],
        witnesses: Sequence[WitnessSetting] = (),
    ) -> None:
        """`gauge` gives present values by the names of `WorkerStatus` (queues, waiting readers) and the
        running totals `accepted`, `ended`, `batches`, `items` and, for each reason, `refused_…`. `connected`
        gives the endpoints with an open stream. `witnesses` are those of the log.
        """
        self._witnesses = witnesses
        self._connected = connected
        self.id = uuid7()
        self.lag = LoopLag()
        self._pool = pool
        self._directory = directory
        self._gate = gate
        self._hub_name = hub_name
        self._gauge = gauge
        self._started = datetime.now(UTC)
        self._before: tuple[float, dict[str, int]] = (time.monotonic(), gauge())
        self._cached: tuple[float, list[asyncpg.Record]] = (-STATUS_CACHE_SECONDS, [])
        self._cache_lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self.lag.beat(), name="loop-lag"),
            asyncio.create_task(self._run(), name="report"),
        ]

    async def stop(self) -> None:
        await tasks.end(self._tasks)

    async def _run(self) -> None:
        while True:
            try:
                await self.report()
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.warning("the report could not be written", error=str(error))
            await asyncio.sleep(REPORT_SECONDS)

    async def report(self) -> None:
        """Write this process's row and when endpoints were seen."""
        now, values = time.monotonic(), self._gauge()
        then, before = self._before
        self._before = (now, values)
        seconds = max(now - then, 0.001)
        batches = values["batches"] - before["batches"]
        lag = self.lag.take()
        status = WorkerStatus(
            id=str(self.id),
            pid=os.getpid(),
            started_at=timestamp(self._started),
            reported_at=timestamp(datetime.now(UTC)),
            accepted_per_second=round((values["accepted"] - before["accepted"]) / seconds, 1),
            ended_per_second=round((values["ended"] - before["ended"]) / seconds, 1),
            commit_batch_mean=round((values["items"] - before["items"]) / batches, 1) if batches else 0.0,
            commit_queue=values["commit_queue"],
            queue_bytes=values["queue_bytes"],
            loop_lag_ms=round(lag * 1000, 2),
            waiting_readers=values["waiting_readers"],
            streams=values["streams"],
            refused={reason: values[f"refused_{reason}"] for reason in REASONS},
        )
        for reason in REASONS:
            name = f"refused_{reason}"
            metrics.REFUSED.labels(reason).inc(values[name] - before[name])
        metrics.QUEUE_BYTES.set(values["queue_bytes"])
        metrics.READERS.set(values["waiting_readers"])
        metrics.STREAMS.set(values["streams"])
        metrics.LOOP_LAG.set(lag)
        metrics.DIRECTORY_REVISION.set(self._directory.picture.revision)
        await self._pool.execute(SQL.put_worker, self.id, msgspec.json.encode(status).decode())
        seen, self._gate.seen = self._gate.seen, {}
        seen.update(dict.fromkeys(self._connected(), time.time()))
        if seen:
            order = sorted(seen)
            moments = [datetime.fromtimestamp(seen[endpoint], UTC) for endpoint in order]
            await self._pool.execute(SQL.put_seen, order, moments)

    async def _lanes(self) -> list[asyncpg.Record]:
        async with self._cache_lock:
            counted, rows = self._cached
            if time.monotonic() - counted > STATUS_CACHE_SECONDS:
                rows = await self._pool.fetch(SQL.lanes)
                self._cached = (time.monotonic(), rows)
            return rows

    async def lanes(self) -> dict[str, LaneStatus]:
        """What waits, by lane; also sets the gauges."""
        rows = await self._lanes()
        status = {}
        for lane in Lane:
            own = [row for row in rows if row["lane"] == lane]
            waiting = sum(row["waiting"] for row in own)
            oldest = max((float(row["oldest_seconds"]) for row in own), default=0.0)
            status[lane.label] = LaneStatus(waiting, round(max(oldest, 0.0), 3))
            metrics.WAITING.labels(lane.label).set(waiting)
            metrics.OLDEST.labels(lane.label).set(max(oldest, 0.0))
        return status

    async def witnesses(self, with_errors: bool = False) -> tuple[WitnessStatus, ...]:
        """How the log's witnesses do; also sets the gauges."""
        found = []
        for row in await states(self._pool, self._witnesses):
            metrics.WITNESS_LAG.labels(row["name"]).set(max(row["lag"], 0.0))
            metrics.WITNESS_REFUSES.labels(row["name"]).set(row["refused"] is not None)
            found.append(
                WitnessStatus(
                    name=row["name"],
                    size=row["size"],
                    lag_seconds=round(max(row["lag"], 0.0), 3),
                    signed_at=_time(row["at"]),
                    clock_seconds=row["clock_seconds"] or 0.0,
                    refused=row["refused"],
                    failures=row["failures"],
                    last_error_at=_time(row["error_at"]),
                    last_error=row["error"] if with_errors else None,
                )
            )
        return tuple(found)

    async def log(self) -> LogGlance:
        """How far the transparency log is, and behind; also sets the gauges."""
        reach = await self._pool.fetchrow(LOG.reach)
        assert reach is not None
        entries, seconds = reach["size"] or 0, max(reach["seconds"] or 0.0, 0.0)
        metrics.LOG_ENTRIES.set(entries)
        metrics.LOG_LAG.set(seconds)
        return LogGlance(entries, _time(reach["at"]), reach["waiting"], round(seconds, 3))

    async def status(self, with_endpoints: bool) -> HubStatus:
        """The hub at a glance; endpoints by name only when asked for."""
        lanes = await self.lanes()
        workers = [
            msgspec.json.decode(row["stats"], type=WorkerStatus) for row in await self._pool.fetch(SQL.workers)
        ]
        return HubStatus(
            hub=self._hub_name,
            version=importlib.metadata.version("lienthong"),
            now=timestamp(datetime.now(UTC)),
            lanes=lanes,
            workers=tuple(workers),
            endpoints=await self._endpoints() if with_endpoints else None,
            links=await self._links() if with_endpoints else None,
            certificates=await self._certificates() if with_endpoints else None,
            witnesses=await self.witnesses(with_endpoints),
            log=await self.log(),
        )

    async def _certificates(self) -> tuple[CertificateStatus, ...]:
        now = datetime.now(UTC)
        found = []
        for row in await self._pool.fetch(TRUST.troubled, WARN_DAYS):
            stale = row["status"] == "good" and row["fresh_until"] < now
            found.append(
                CertificateStatus(
                    sha256=row["sha256"].hex(),
                    kind=row["kind"],
                    subject=row["subject"],
                    not_after=timestamp(row["not_after"]),
                    days=(row["not_after"] - now).days,
                    owner=row["owner"],
                    revocation="unknown" if stale or (row["asked"] and row["status"] is None) else row["status"],
                    reason=row["reason"] or "",
                    answered_at=_time(row["answered_at"]),
                    failure=row["failure"] or "",
                )
            )
        return tuple(found)

    async def _links(self) -> tuple[LinkStatus, ...]:
        counts = await self._lanes()
        found = []
        for row in await self._pool.fetch(LINKS.states):
            own = [count for count in counts if count["endpoint"] == row["endpoint"]]
            oldest = max((float(count["oldest_seconds"]) for count in own), default=0.0)
            found.append(
                LinkStatus(
                    name=row["name"],
                    active=row["active"],
                    waiting=sum(count["waiting"] for count in own),
                    oldest_seconds=round(max(oldest, 0.0), 3),
                    sent=row["sent"],
                    fetched=row["fetched"],
                    refused_there=row["refused_there"],
                    refused_here=row["refused_here"],
                    failures=row["failures"],
                    last_success_at=_time(row["last_success_at"]),
                    last_error_at=_time(row["last_error_at"]),
                    last_error=row["last_error"],
                    retry_at=_time(row["retry_at"]),
                    synced_at=_time(row["synced_at"]),
                )
            )
        return tuple(found)

    async def _endpoints(self) -> tuple[EndpointStatus, ...]:
        rows = await self._lanes()
        seen = {row["endpoint"]: row["at"] for row in await self._pool.fetch(SQL.seen)}
        waiting: dict[int, int] = {}
        oldest: dict[int, float] = {}
        for row in rows:
            waiting[row["endpoint"]] = waiting.get(row["endpoint"], 0) + row["waiting"]
            oldest[row["endpoint"]] = max(oldest.get(row["endpoint"], 0.0), float(row["oldest_seconds"]))
        return tuple(
            EndpointStatus(
                endpoint.name,
                endpoint.active,
                waiting.get(endpoint.id, 0),
                round(oldest.get(endpoint.id, 0.0), 3),
                timestamp(seen[endpoint.id]) if endpoint.id in seen else None,
                endpoint.rate_messages,
                endpoint.rate_bytes,
            )
            for endpoint in sorted(self._directory.picture.endpoints.values(), key=lambda e: e.name)
        )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)
