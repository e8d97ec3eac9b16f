"""Brings the log's checkpoints to its witnesses and keeps their cosignatures (c2sp.org/tlog-witness).

One process of all does it, whoever has the advisory lock. Each witness has a task of its own: one that is slow,
dead or refuses holds up nobody else, and least of all the relay, which does not know of it. A witness gets the
newest checkpoint, with the proof that the log grew to it from what that witness signed last; what came between is
left out. Where the hub is wrong about that size, the witness names it (409) and is asked again.

A witness that says that the log was rewritten is not argued with: it is asked again later, and until it signs
again its word stands in /v1/status and sets off an alert.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
import asyncpg
import structlog

from hub import tasks
from hub.config import WitnessSetting
from hub.couriers.link_health import backoff
from hub.evidence.log import Log
from hub.store import sql
from hub.store.pool import UNAVAILABLE, connect
from protocol.log import LogError
from protocol.note import NoteError, Verifier
from protocol.problems import LienthongError
from protocol.witness import ADD_CHECKPOINT, MAX_ANSWER_BYTES, read_cosignature, read_size, write_request

log = structlog.get_logger()
SQL = sql.load("witness")

LOOK_SECONDS = 0.5
LOCK_SECONDS = 2.0
STATEMENT_SECONDS = 10.0
ANSWER_SECONDS = 10.0
LONGEST_PAUSE = 60.0
TRIES = 3
"""How often a witness may name another size before its answer counts as a failure."""
STORE = (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError)


class WitnessFailureError(LienthongError):
    """A witness gave no cosignature; the message says why."""


class WitnessRefusalError(WitnessFailureError):
    """A witness says that the log is not the one that it signed before."""


class _Checkpoint(NamedTuple):
    size: int
    note: str


async def states(pool: asyncpg.Pool[Any], witnesses: Sequence[WitnessSetting]) -> list[asyncpg.Record]:
    """How the configured witnesses do, in their order (hub/store/witness.sql, `states`)."""
    return await pool.fetch(SQL.states, [witness.verifier.name for witness in witnesses]) if witnesses else []


class Witnessing:
    """A process's part in it: it waits for the lock, and works while it has it."""

    def __init__(self, url: str, pool: asyncpg.Pool[Any], log: Log, witnesses: Sequence[WitnessSetting]) -> None:
        self._url = url
        self._pool = pool
        self._log = log
        self._witnesses = witnesses
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._witnesses:
            self._task = asyncio.create_task(self._keep(), name="witnessing")

    async def stop(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])

    async def _keep(self) -> None:
        tries = 0
        while True:
            try:
                async with _locked(self._url) as lock:
                    tries = 0
                    await self._work(lock)
            except* STORE as group:
                log.warning("the witnesses wait for the database", error=str(group.exceptions[0]))
            except* Exception:  # ended unnoticed, no checkpoint would be signed any more
                log.exception("bringing checkpoints to the witnesses failed")
            tries += 1
            await asyncio.sleep(backoff(tries, LONGEST_PAUSE))

    async def _work(self, lock: asyncpg.Connection) -> None:
        """Until the lock is lost. Raises an ExceptionGroup."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "Content-Type": "text/plain; charset=utf-8"},
            auto_decompress=False,
        ) as session:
            couriers = [_Courier(setting, self._pool, self._log, session) for setting in self._witnesses]
            async with asyncio.TaskGroup() as group:
                for courier in couriers:
                    group.create_task(courier.run())
                while True:
                    row = await lock.fetchrow(SQL.newest)  # which fails when the lock is lost
                    if row is not None:
                        for courier in couriers:
                            courier.offer(_Checkpoint(row["size"], row["note"]))
                    await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that has the lock. Waits for it."""
    connection = await connect(url, "witnesses", STATEMENT_SECONDS)
    try:
        while not await connection.fetchval(SQL.try_lock):  # noqa: ASYNC110
            await asyncio.sleep(LOCK_SECONDS)  # nobody tells when a lock is free
        yield connection
    finally:
        connection.terminate()


class _Courier:
    """Brings checkpoints to one witness."""

    def __init__(
        self, setting: WitnessSetting, pool: asyncpg.Pool[Any], log_: Log, session: aiohttp.ClientSession
    ) -> None:
        self._url = setting.url.rstrip("/") + "/" + ADD_CHECKPOINT
        self._verifier: Verifier = setting.verifier
        self._pool = pool
        self._log = log_
        self._session = session
        self._newest: _Checkpoint | None = None
        self._offered = asyncio.Event()
        self._signed = -1
        """The size of the newest checkpoint whose cosignature is stored."""
        self._known = 0
        """The size that the witness has, as far as is known."""
        self._failures = 0

    def offer(self, newest: _Checkpoint) -> None:
        if newest != self._newest:
            self._newest = newest
            self._offered.set()

    async def run(self) -> None:
        """Until cancelled. Raises when the database cannot be used."""
        size = await self._pool.fetchval(SQL.begin, self._verifier.name, str(self._verifier))
        if size is not None:
            self._signed = self._known = size
        while True:
            newest = await self._due()
            try:
                await self._bring(newest)
            except WitnessRefusalError as error:
                log.critical("a witness refuses the log", witness=self._verifier.name, reason=str(error))
                await self._failed(str(error), refused=True)
            except (WitnessFailureError, NoteError) as error:
                await self._failed(str(error))
            else:
                self._failures = 0
            # After a success there is nothing to do before the next checkpoint.
            if self._failures:
                await asyncio.sleep(backoff(self._failures, LONGEST_PAUSE))

    async def _due(self) -> _Checkpoint:
        """The newest checkpoint, once there is one that the witness has not signed."""
        while self._newest is None or self._newest.size == self._signed:
            self._offered.clear()
            await self._offered.wait()
        return self._newest

    async def _failed(self, reason: str, refused: bool = False) -> None:
        self._failures += 1
        if self._failures == 1 and not refused:
            log.warning("a witness gave no cosignature", witness=self._verifier.name, error=reason)
        reason = reason[:500]
        await self._pool.execute(
            SQL.failed, self._verifier.name, self._failures, reason, reason if refused else None
        )

    async def _bring(self, newest: _Checkpoint) -> None:
        """Get the witness's cosignature on a checkpoint, and keep it. Raises WitnessFailureError, NoteError."""
        for _ in range(TRIES):
            # A size beyond the log's own is asked for once more: the witness answers with what it has.
            old = self._known if self._known <= newest.size else 0
            try:
                proof = await self._log.consistency(old, newest.size)
            except LogError as error:
                raise WitnessFailureError(f"this hub cannot prove its own log: {error}") from None
            status, answer = await self._ask(write_request(old, proof, newest.note))
            if status == 200:
                await self._keep(newest, answer)
                return
            size = read_size(answer.decode(errors="replace").removesuffix("\n")) if status == 409 else None
            if size is None:
                raise self._reason(status, answer)
            if size == old == newest.size:
                raise WitnessRefusalError(f"it signed another log of {size} entries under this name before")
            self._known = size
            if size > newest.size:
                newest = await self._newer(newest, size)
        raise WitnessFailureError("it names another size each time that it is asked")

    async def _newer(self, newest: _Checkpoint, size: int) -> _Checkpoint:
        """The newest checkpoint there is, when somebody else brought the witness one that is newer than `newest`.

        Raises WitnessRefusalError when the log has no `size` entries.
        """
        row = await self._pool.fetchrow(SQL.newest)
        if row is not None and row["size"] >= size:
            return _Checkpoint(row["size"], row["note"])
        raise WitnessRefusalError(
            f"it signed a log of {size} entries, and this hub's has {newest.size}: the log shrank (was its "
            "database restored from a copy?)"
        )

    async def _keep(self, newest: _Checkpoint, answer: bytes) -> None:
        line, at = read_cosignature(answer, newest.note, self._verifier)
        ahead = (at - datetime.now(UTC)).total_seconds()
        await self._pool.execute(SQL.signed, self._verifier.name, newest.size, line, at, round(ahead, 1))
        self._signed = self._known = newest.size

    @staticmethod
    def _reason(status: int, answer: bytes) -> WitnessFailureError:
        said = " ".join(answer.decode(errors="replace").split())[:200]
        if status == 422:
            return WitnessRefusalError(f"it says that the log was rewritten: {said}")
        hint = "; give its operator the log's verifier key (/log)" if status in (403, 404) else ""
        return WitnessFailureError(f"it answered {status}: {said}{hint}")

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        try:
            async with self._session.post(self._url, data=request, allow_redirects=False) as response:
                answer = bytearray()
                async for data in response.content.iter_any():
                    answer += data
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise WitnessFailureError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
                return response.status, bytes(answer)
        except TimeoutError:
            raise WitnessFailureError(f"it did not answer within {ANSWER_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise WitnessFailureError(f"it cannot be reached: {error}") from None
