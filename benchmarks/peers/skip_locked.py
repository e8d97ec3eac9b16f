"""A plain SKIP LOCKED queue in PostgreSQL: a row for each document, inserted by a transaction of its own.

A receiver deletes what it takes, up to `limit` rows at a time, and its commit is the acknowledgement. One
index, prepared statements, pooled connections without asyncpg's reset query, bodies kept out of TOAST. A
receiver that found nothing looks again after `idle_ms`: a NOTIFY in the inserting transaction would
serialise the commits.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import asyncpg

from benchmarks.peers import child, peer, postgres
from benchmarks.peers.share import Book

DATABASE = "peer_skip_locked"

_TABLE = """
create table job (
    receiver smallint,
    id bigint generated always as identity,
    body bytea not null,
    primary key (receiver, id)
);
alter table job alter column body set storage external;
alter table job set (toast_tuple_target = 8160);
"""
_INSERT = "insert into job (receiver, body) values ($1, $2)"
# By `ctid`: found by their places, whatever the planner believes of the size of a table that fills and empties.
_TAKE = """
delete from job where ctid = any (array(
    select ctid from job where receiver = $1 order by id limit $2 for update skip locked
)) returning body
"""


class SkipLocked(peer.Peer):
    name = "skip_locked"
    title = "SKIP LOCKED"
    guess = 4_000
    defaults: ClassVar[dict[str, Any]] = {
        "window": 4,
        "split": "roles",
        "limit": 100,
        "idle_ms": 20,
        "ahead": 0,
    }
    tries: ClassVar[list[dict[str, Any]]] = [
        {"window": 1},
        {"window": 2},
        {"window": 6},
        {"limit": 20},
        {"limit": 500},
        {"idle_ms": 2},
        {"idle_ms": 10},
        {"ahead": 500},
        {"split": 1},
        {"split": 2},
    ]

    async def start(self, folder: Path) -> None:
        self.address = await postgres.make_database(self.ground.database, DATABASE)
        connection = await asyncpg.connect(self.address)
        try:
            await connection.execute(_TABLE)
        finally:
            await connection.close()

    async def stop(self) -> None:
        await postgres.drop_database(self.ground.database, DATABASE)

    def server_seconds(self) -> float:
        return self.ground.postgres_seconds()

    async def left_over(self) -> int:
        return int(await postgres.ask(self.address, "select count(*) from job"))

    async def versions(self) -> dict[str, str]:
        return {
            "server": "PostgreSQL " + await postgres.ask(self.address, "show server_version"),
            "client": "asyncpg " + importlib.metadata.version("asyncpg"),
        }


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        return ""  # nothing is listened to, locked or set here that would have to be undone


def client(address: str, settings: Mapping[str, Any], book: Book) -> child.Client:
    return _Client(address, settings, book)


class _Client(child.Client):
    async def open(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        size = max(1, len(senders) * self.settings["window"])
        self._pool = await asyncpg.create_pool(
            self.address, min_size=size, max_size=size, connection_class=_Connection
        )
        self._readers = {receiver: await asyncpg.connect(self.address) for receiver in receivers}

    async def publish(self, sender: int, places: Sequence[int]) -> None:
        for place in places:
            await self._pool.execute(_INSERT, self.book.receiver(place), self.book.document(place))

    async def receive(self, receiver: int) -> None:
        connection, limit = self._readers[receiver], self.settings["limit"]
        while True:
            async with connection.transaction():
                rows = await connection.fetch(_TAKE, receiver, limit)
                places = [self.book.delivered(row[0], receiver) for row in rows]
            if places:
                self.book.acknowledge(places)
            else:
                await asyncio.sleep(self.settings["idle_ms"] / 1000)

    async def close(self) -> None:
        for connection in self._readers.values():
            await connection.close()
        await self._pool.close()
