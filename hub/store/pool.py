"""Connections to PostgreSQL, and what brings its schema up to date.

The hot path has connections of its own (`connect`): committing and reading never wait for each
other's. Everything else shares `Pool`.

Pooled connections are not reset when they are given back, which would cost a round trip on every use:
nothing in the hub leaves a session's state changed (no LISTEN, no SET; chores give back their locks).
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import structlog

from hub.store import sql
from protocol.problems import LienthongError

log = structlog.get_logger()

APPLICATION_NAME = "lienthong"
MIGRATION_LOCK = 7000
"""Advisory locks: 7000 migrations, 7001 sequences, 7002 partitions, 7003 directory, 7010… chores, 7020 the log,
7021 links and the log's identity, 7023 its witnesses."""

UNAVAILABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
)
"""What a lost, refused or restarting PostgreSQL raises. A statement may or may not have been carried out."""


def is_away(error: BaseException) -> bool:
    """Whether `error` says that PostgreSQL cannot work now, rather than that it will not take something.

    Classes of SQLSTATE: 08 connections, 53 resources (a full disk), 57 shutting down, 58 the system.
    """
    if isinstance(error, asyncpg.PostgresError):
        # 25006: a standby, or a primary that was made one. 25P03, 55P03: `_HOT_SETTINGS` ended a wait.
        state = error.sqlstate or ""
        return state in ("25006", "25P03", "55P03") or state[:2] in ("08", "53", "57", "58")
    # asyncpg raises an InterfaceError that is also a ValueError for arguments that it cannot encode.
    return isinstance(error, (*UNAVAILABLE, TimeoutError)) and not isinstance(error, ValueError)


class StoreError(LienthongError):
    """The store cannot be used; the message says what to do."""


class HubConnection(asyncpg.Connection):
    """A connection that needs no reset between uses."""

    def get_reset_query(self) -> str:
        return ""


_HOT_SETTINGS = {
    # Its few statements always want the same plan: index scans and nested loops. Left to itself PostgreSQL
    # plans unnest() arrays anew each time, over every day's partition: 1,100 µs of planning where the
    # statement takes 165 (docs/adr/0010).
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Whoever stands still in a transaction, or was lost with its machine, may hold the lock under which everybody
    # commits. Longer than a slow key takes to sign (5 s).
    "idle_in_transaction_session_timeout": "20s",
    # Sooner than the hub leaves (`reconnect`): a backend that nobody listens to does not stay in line.
    "lock_timeout": "25s",
}


def _settings(name: str, hot: bool) -> dict[str, str]:
    settings = {
        "application_name": f"{APPLICATION_NAME} {name}".strip(),
        "jit": "off",  # compiling costs milliseconds on statements that take one
        # A machine that is lost says no goodbye: its locks are free in a minute, not in Linux's two hours.
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    return settings | _HOT_SETTINGS if hot else settings


async def connect(
    url: str, name: str = "", command_seconds: float | None = None, *, hot: bool = False
) -> asyncpg.Connection:
    """One connection of its own, named `name` in pg_stat_activity; each statement may take `command_seconds`.

    `hot`: it is for the hot path's statements.
    """
    return await asyncpg.connect(
        url,
        connection_class=HubConnection,
        server_settings=_settings(name, hot),
        timeout=10,
        command_timeout=command_seconds,
    )


async def create_pool(url: str, size: int, name: str, *, hot: bool = False) -> asyncpg.Pool[Any]:
    """The shared connections of one process, named and set up as by `connect`."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        connection_class=HubConnection,
        server_settings=_settings(name, hot),
        timeout=10,
        command_timeout=60,
    )


async def wait_until_reachable(url: str, seconds: float) -> None:
    """Return once PostgreSQL answers. Raises StoreError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            connection = await connect(url, "probe")
        except UNAVAILABLE as error:
            if asyncio.get_running_loop().time() > deadline:
                raise StoreError(
                    f"PostgreSQL does not answer: {error}. Check --database-url and that the server runs"
                ) from None
            await asyncio.sleep(0.05)
        except (asyncpg.PostgresError, ValueError) as error:
            raise StoreError(f"PostgreSQL refused the connection: {error}. Check --database-url") from None
        else:
            await connection.close()
            return


async def migrate(url: str) -> list[str]:
    """Bring the schema up to date, one process at a time. Returns the names of what was applied."""
    connection = await connect(url, "migrate")
    try:
        version = connection.get_server_version()
        if version.major < 16:
            raise StoreError(f"PostgreSQL {version.major} is too old; the hub needs 16 or later (18 is best)")
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            await connection.execute(
                "create table if not exists migration"
                " (number int primary key, name text, at timestamptz default now())"
            )
            present = {row["number"] for row in await connection.fetch("select number from migration")}
            known = sql.migrations()
            if present and max(present) > known[-1][0]:
                raise StoreError(
                    f"the database is at schema {max(present)}, newer than this program's {known[-1][0]}; "
                    "start a newer lienthong"
                )
            applied = []
            for number, name, text in known:
                if number not in present:
                    await connection.execute(text)
                    await connection.execute("insert into migration (number, name) values ($1, $2)", number, name)
                    applied.append(f"{number:04} {name}")
        return applied
    finally:
        await connection.close()
