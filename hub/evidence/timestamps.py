"""Time-stamps on the log's checkpoints: an outside authority says when the log was what it was (RFC 3161).

A checkpoint covers every event before it, so one token every few minutes dates them all. Each authority is
asked by one process at a time, which takes its turn in the database (`timestamp_turn`); what it answers is
verified before it is kept. An authority that is dead or lies is asked again later and later; nothing else waits
for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import structlog
from yarl import URL

from hub import tasks
from hub.config import Config, ConfigError
from hub.observe import metrics
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.certificate import load_all, to_der
from protocol.note import NoteError, read_note
from protocol.problems import LienthongError
from protocol.timestamp import (
    MAX_TOKEN_BYTES,
    REQUEST_MEDIA_TYPE,
    TimeStamp,
    TimestampError,
    TimeStampRequest,
    read_reply,
    request_timestamp,
)

log = structlog.get_logger()
SQL = sql.load("timestamps")

POLL_SECONDS = 5.0
ASK_SECONDS = 20.0
"""How long an authority may take for its answer."""
TURN_SECONDS = 60.0
"""After which another process may ask, if the one that was about to has died."""
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 1800.0
SKEW = timedelta(minutes=5)
"""How far a token's time may lie from this hub's clock. One of the two is wrong beyond that."""


class AuthorityError(LienthongError):
    """An authority gave no token that can be kept; the message says why."""


@dataclass(frozen=True)
class Authority:
    """A time-stamping authority that is asked, and under what name its tokens are kept."""

    url: URL

    @property
    def name(self) -> str:
        """Its address, without what may be secret in it."""
        return str(self.url.with_user(None).with_query(None).with_fragment(None))


def pause_after(failures: int) -> float:
    """Seconds until an authority that failed so often in a row is asked again; a little random."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.8, 1.0)  # noqa: S311


class Stamper:
    """Has checkpoints stamped by every authority that is configured; one instance for each process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        authorities: Sequence[str],
        roots: Sequence[bytes],
        seconds: float,
        policies: Sequence[str] = (),
    ) -> None:
        """`roots`: certificates (DER) to which tokens must lead. `seconds`: between two tokens of an authority.
        `policies`: OIDs of which a token must name one; any if empty.
        """
        self._pool = pool
        self._authorities = [Authority(URL(url)) for url in authorities]
        self._roots = tuple(roots)
        self._seconds = seconds
        self._policies = frozenset(policies)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._repeat(authority), name=f"timestamps {authority.name}")
            for authority in self._authorities
        ]

    async def stop(self) -> None:
        await tasks.end(self._tasks)
        self._tasks = []

    async def _repeat(self, authority: Authority) -> None:
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            while True:
                try:
                    await self.turn(authority, session)
                except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                    log.warning("checkpoints are not stamped now", error=str(error))
                except Exception:  # a task that ended unnoticed would never stamp again
                    log.exception("a checkpoint could not be stamped")
                await asyncio.sleep(POLL_SECONDS)

    async def turn(self, authority: Authority, session: aiohttp.ClientSession) -> TimeStamp | None:
        """Have the newest checkpoint stamped, if it is time; the time-stamp that was kept.

        Raises what asyncpg raises; whatever the authority does is logged and counted.
        """
        name = authority.name
        row = await self._pool.fetchrow(SQL.due, name)
        if row is None:
            return None
        failures = await self._pool.fetchval(SQL.claim, name, TURN_SECONDS)
        if failures is None:
            return None
        try:
            token, stamp = await self._ask(authority, session, _text_of(row["note"]))
        except AuthorityError as error:
            pause = pause_after(failures + 1)
            metrics.TIMESTAMP_FAILURES.labels(name).inc()
            log.error("no time-stamp", authority=name, error=str(error), again_in=round(pause))
            await self._pool.execute(SQL.failed, name, pause, str(error)[:500])
            return None
        await self._pool.execute(SQL.stamped, name, row["size"], token, stamp.at, self._seconds)
        metrics.TIMESTAMPS.labels(name).inc()
        metrics.TIMESTAMP_SUCCESS.labels(name).set_to_current_time()
        log.info("a checkpoint was stamped", authority=name, by=stamp.authority, size=row["size"])
        return stamp

    async def _ask(
        self, authority: Authority, session: aiohttp.ClientSession, text: bytes
    ) -> tuple[bytes, TimeStamp]:
        request = request_timestamp(text)
        reply = await _fetch(authority, session, request)
        try:
            # About 1 ms of parsing and signatures.
            token, stamp = await asyncio.to_thread(read_reply, reply, request, self._roots)
        except TimestampError as error:
            raise AuthorityError(str(error)) from None
        if self._policies and stamp.policy not in self._policies:
            raise AuthorityError(f"the token was made under the policy {stamp.policy}, which is not accepted here")
        off = stamp.at - datetime.now(UTC)
        if abs(off) > SKEW:
            raise AuthorityError(
                f"the token says {stamp.at:%Y-%m-%d %H:%M:%S} UTC, {abs(off).total_seconds():.0f} s "
                f"{'after' if off > timedelta() else 'before'} this hub's clock: one of the two is wrong"
            )
        return token, stamp


def make_stamper(config: Config, pool: asyncpg.Pool[Any]) -> Stamper:
    """The stamper that a configuration asks for; without authorities one that does nothing. Raises ConfigError."""
    roots: list[bytes] = []
    if config.timestamp_ca:
        try:
            roots = [to_der(one) for one in load_all(Path(config.timestamp_ca).read_bytes())]
        except (OSError, LienthongError) as error:
            raise ConfigError(f"--timestamp-ca: {config.timestamp_ca} cannot be read: {error}") from None
    return Stamper(pool, config.timestamp_urls, roots, config.timestamp_seconds, config.timestamp_policies)


async def _fetch(authority: Authority, session: aiohttp.ClientSession, request: TimeStampRequest) -> bytes:
    """The authority's answer, whatever it is. Raises AuthorityError."""
    headers = {"Content-Type": REQUEST_MEDIA_TYPE}
    try:
        async with session.post(
            authority.url, data=request.body, headers=headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise AuthorityError(f"it answers with the status {response.status}")
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > MAX_TOKEN_BYTES:
                    raise AuthorityError(f"its answer is longer than {MAX_TOKEN_BYTES} bytes")
            return bytes(body)
    except TimeoutError:
        raise AuthorityError(f"it did not answer within {ASK_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise AuthorityError(f"it cannot be reached: {error or type(error).__name__}") from None


def _text_of(note: str) -> bytes:
    """What is stamped: a checkpoint's text, without its signatures. Raises AuthorityError."""
    try:
        return read_note(note).text.encode()
    except NoteError as error:
        raise AuthorityError(f"the checkpoint cannot be read: {error}") from None
