"""How commands reach the hub's database: the one they are told, or the embedded one of a data directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import click

from hub.store.embedded import EmbeddedPostgres
from hub.store.pool import StoreError, connect, migrate, wait_until_reachable

Result = TypeVar("Result")


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--data-dir and --database-url, as `serve` has them.

    Every command also takes them from LIENTHONG_DATA_DIR and LIENTHONG_DATABASE_URL, so that an operator
    sets them once.
    """
    command = click.option(
        "--database-url",
        default="",
        envvar="LIENTHONG_DATABASE_URL",
        help="Your PostgreSQL. Default: the embedded one of --data-dir.",
        show_default=False,
    )(command)
    return click.option(
        "--data-dir",
        default="data",
        show_default=True,
        envvar="LIENTHONG_DATA_DIR",
        type=click.Path(file_okay=False),
        help="Where the hub keeps its key, its blobs and its embedded PostgreSQL.",
    )(command)


@contextlib.asynccontextmanager
async def open_database(data_dir: str, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the hub's database, with the schema up to date.

    The embedded PostgreSQL is started when the hub is not running, and then stopped again.
    """
    postgres = None if database_url else EmbeddedPostgres(Path(data_dir))
    started = False
    if postgres is not None:
        if not postgres.initialised:
            raise StoreError(
                f"there is no hub in {data_dir}; make one with `lienthong init --data-dir {data_dir}`"
            )
        started = postgres.pid() is None
        await asyncio.to_thread(postgres.start)
    url = database_url or (postgres.url if postgres else "")
    try:
        # The embedded one may be recovering; yours either runs or it does not.
        await wait_until_reachable(url, 3 if database_url else 30)
        await migrate(url)
        connection = await connect(url, "command")
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        if started and postgres is not None:
            await asyncio.to_thread(postgres.stop)


def run(data_dir: str, database_url: str, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
    """Run `work` with a connection to the hub's database."""

    async def go() -> Result:
        async with open_database(data_dir, database_url) as connection:
            return await work(connection)

    return asyncio.run(go())
