"""PDFs of messages that were accepted: checked behind them, and what is found recorded as their evidence.

The queue is a table: a row comes in the transaction of its message and goes when the message's events are on
disk. Every hub process takes rows (SKIP LOCKED), one at a time, and holds them by saying so; one that dies leaves
a row that is due again. So each PDF of a message gets an event, and one only unless a process stood still for
longer than its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from hub import tasks
from hub.evidence.history import History
from hub.evidence.record import Recorded, Recorder
from hub.observe import metrics
from hub.pdf.checks import Checks
from hub.pdf.result import PdfResult, line
from hub.pdf.source import File, Files, edxml_files, native_files
from hub.relay.format import Format
from hub.store import sql
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE
from protocol.evidence import EventKind
from protocol.manifest import open_native
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("pdf")

LEASE = timedelta(seconds=30)
"""How long a message is left alone whose process does not say any more that it works on it."""
POLL_SECONDS = 2.0
COUNT_SECONDS = 15.0
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=1)
_MISHAPS = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError, Problem)


class PdfQueue:
    """One process's share of the queue."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        blobs: Blobs,
        checks: Checks,
        history: History,
        recorder: Recorder,
        max_bytes: int,
    ) -> None:
        """`max_bytes`: what the files of an edXML message may unpack to, altogether."""
        self._pool = pool
        self._blobs = blobs
        self._checks = checks
        self._history = history
        self._recorder = recorder
        self._max_bytes = max_bytes
        self._turn = 0
        """The endpoint whose message was the last: endpoints take turns, however much one sends."""
        self._more = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(), name="pdf-queue"),
            asyncio.create_task(self._count(), name="pdf-queue-count"),
        ]

    async def stop(self) -> None:
        await tasks.end(self._tasks)

    def poke(self) -> None:
        """There is more to do."""
        self._more.set()

    async def _work(self) -> None:
        while True:
            try:
                while await self._next():
                    pass
            except _MISHAPS as error:
                log.warning("PDFs wait to be checked", error=str(error))
            except Exception:  # a queue that stopped unnoticed would leave everything lying
                log.exception("PDFs could not be checked")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._more.wait()
            self._more.clear()

    async def _count(self) -> None:
        while True:
            try:
                row = await self._pool.fetchrow(SQL.waiting)
                assert row is not None
                metrics.PDF_QUEUE.set(row["messages"])
                metrics.PDF_OLDEST.set(row["oldest"] or 0.0)
                await self._checks.forget()
            except _MISHAPS as error:
                log.warning("the queue of PDFs could not be counted", error=str(error))
            await asyncio.sleep(COUNT_SECONDS)

    async def _next(self) -> bool:
        """Work on one message, of another endpoint than the last if there is one. False when there is none."""
        row = await self._pool.fetchrow(SQL.take, LEASE, self._turn)
        if row is None and self._turn:
            row = await self._pool.fetchrow(SQL.take, LEASE, 0)
        if row is None:
            return False
        self._turn = row["endpoint"]
        message: UUID = row["message"]
        hold = asyncio.create_task(self._hold(message), name="pdf-lease")
        try:
            try:
                await self._message(message, row["endpoint"], row["since"])
            finally:
                await tasks.end([hold])
        except BaseException as error:
            pause = min(FIRST_PAUSE * 2 ** min(row["tries"] - 1, 20), LONGEST_PAUSE)
            if isinstance(error, asyncio.CancelledError):
                pause = timedelta(0)  # another process goes on
            with contextlib.suppress(*_MISHAPS):
                await self._pool.execute(SQL.extend, message, pause)
            if not isinstance(error, (*_MISHAPS, OSError)):
                raise
            log.warning("PDFs of a message could not be checked", message=str(message), error=str(error))
        else:
            await self._pool.execute(SQL.done, message, row["since"])
        return True

    async def _hold(self, message: UUID) -> None:
        """Say now and then that the message is being worked on."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            with contextlib.suppress(*_MISHAPS):
                await self._pool.execute(SQL.extend, message, LEASE)

    async def _message(self, id_: UUID, endpoint: int, since: datetime) -> None:
        message = await self._history.message(id_)
        if message is None:  # it left with its month
            return
        recorded = await self._pool.fetch(SQL.recorded, id_, EventKind.SIGNATURES_CHECKED.value, since)
        done = {row["sha256"] for row in recorded}
        with await asyncio.to_thread(self._files, message) as files:
            for file in files:
                sha256 = file.sha256.hex()
                if not file.pdf or sha256 in done:
                    continue
                done.add(sha256)
                result = await self._checks.result(endpoint, file.sha256, file.path)
                await self._recorder.record([_event(message, file, result)])

    def _files(self, message: asyncpg.Record) -> Files:
        source = message["body"] if message["body"] is not None else self._blobs.path(message["digest"])
        if message["format"] == Format.EDXML:
            return edxml_files(self._blobs, source, self._max_bytes)
        return native_files(self._blobs, open_native(message["body"])[1].attachments)


def _event(message: asyncpg.Record, file: File, result: PdfResult) -> Recorded:
    return Recorded(
        message["id"],
        EventKind.SIGNATURES_CHECKED,
        None,
        {
            "from": message["sender"],
            "id": message["sender_id"],
            "sha256": message["digest"].hex(),
            "attachment": {"name": line(file.name), "sha256": file.sha256.hex(), "size": file.size},
            "pdf": msgspec.to_builtins(result),
        },
    )
