"""The bare floors: what the parts cost with no hub around them, on the same machine in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import psutil
import uvloop
from aiohttp import web

from benchmarks.corpus import Corpus
from benchmarks.generator import closed_loop
from benchmarks.ledger import Ledger
from benchmarks.node import Node, tree_seconds
from hub.listener import listen
from protocol.ids import uuid7
from protocol.signature import PublicKey, parse, verify

INSERT_BATCH = 64
INSERT_CONNECTIONS = 2
_DATABASE = "floor"

_TABLES = """
create table document (id uuid primary key, at timestamptz not null, sender int not null, body bytea not null);
alter table document alter column body set storage external;
alter table document set (toast_tuple_target = 8160);
create table mail (endpoint int, seq bigint, document uuid not null, primary key (endpoint, seq));
create sequence mail_seq;
"""
_INSERT = """
with stored as (
    insert into document select id, $1, sender, body from unnest($2::uuid[], $3::int[], $4::bytea[])
        d(id, sender, body)
)
insert into mail select endpoint, nextval('mail_seq'), id from unnest($2::uuid[], $5::int[]) m(id, endpoint)
"""


@dataclass(frozen=True, slots=True)
class Floors:
    """CPU in µs: of an HTTP request, of checking a P-256 signature, of inserting a document."""

    http: float
    http_batch: float
    """Of a document's share of a request that carries a batch of them."""
    verify: float
    insert: float
    """PostgreSQL's part."""
    insert_client: float
    """The part of the program that sends it."""

    def json(self) -> dict[str, float]:
        """Under the names of the results' file."""
        return {
            "floor.http.cpu_us": round(self.http, 1),
            "floor.http_batch50.cpu_us": round(self.http_batch, 1),
            "floor.verify.cpu_us": round(self.verify, 1),
            "floor.insert.cpu_us": round(self.insert, 1),
            "floor.insert.client_cpu_us": round(self.insert_client, 1),
        }


async def measure(node: Node, single: Corpus, batch: Corpus, key: PublicKey, seconds: float) -> Floors:
    """All floors; about four times `seconds`. `key` verifies the first sender's documents."""
    insert, client = await insert_floor(node, single.documents, seconds)
    return Floors(
        http=await http_floor(single, 32, seconds),
        http_batch=await http_floor(batch, 16, seconds / 2),
        verify=verify_floor(key, [document for document in single.documents if document], seconds),
        insert=insert,
        insert_client=client,
    )


# -- aiohttp answering nothing ------------------------------------------------------------------


async def http_floor(corpus: Corpus, connections: int, seconds: float) -> float:
    """CPU µs per document of an aiohttp that reads the same requests and answers 202 without a body."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.floors", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None and server.stdin is not None
    try:
        address = "127.0.0.1", int(await server.stdout.readline())
        process = psutil.Process(server.pid)
        before = tree_seconds(process)
        documents = 0
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            submitted = await closed_loop(address, corpus, Ledger(corpus), connections, left)
            documents += len(submitted.latencies) * corpus.per_request
        used = tree_seconds(process) - before
    finally:
        server.stdin.close()
        await server.wait()
    return used / documents * 1e6


async def _serve_nothing() -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=202)

    app = web.Application(client_max_size=1 << 25)
    app.router.add_post("/v1/messages", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = listen("127.0.0.1", 0)
    await web.SockSite(runner, listener, backlog=1024).start()
    print(listener.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


# -- verification alone -------------------------------------------------------------------------


def verify_floor(key: PublicKey, documents: list[bytes], seconds: float) -> float:
    """CPU µs of checking one signature of a document that was taken apart before."""
    parsed = [parse(document) for document in documents[:2000]]
    checked = 0
    until = time.monotonic() + seconds
    before = time.process_time()
    while time.monotonic() < until:
        for jws in parsed:
            verify(key, jws.alg, jws.signature, jws.signing_input)
        checked += len(parsed)
    return (time.process_time() - before) / checked * 1e6


# -- the batched insert alone -------------------------------------------------------------------


async def insert_floor(node: Node, documents: list[bytes], seconds: float) -> tuple[float, float]:
    """CPU µs per document of PostgreSQL and of this program: body and inbox row, 64 to a commit, 2 connections.

    In a database of its own on the node's server, which has the node's settings. There is no idempotency
    key, no evidence and no order of sequences in it.
    """
    maintenance = await asyncpg.connect(node.database("postgres"))
    await maintenance.execute(f"create database {_DATABASE}")
    connections = [await asyncpg.connect(node.database(_DATABASE)) for _ in range(INSERT_CONNECTIONS)]
    try:
        await connections[0].execute(_TABLES)
        batches = [documents[at : at + INSERT_BATCH] for at in range(0, len(documents), INSERT_BATCH)]
        whole = [batch for batch in batches if len(batch) == INSERT_BATCH]
        inserted = 0

        async def insert(connection: asyncpg.Connection, number: int, until: float) -> None:
            nonlocal inserted
            while time.monotonic() < until:
                batch = whole[number % len(whole)]
                number += INSERT_CONNECTIONS
                await connection.execute(
                    _INSERT,
                    datetime.now(UTC),
                    [uuid7() for _ in batch],
                    [index & 15 for index in range(len(batch))],
                    batch,
                    [index & 3 for index in range(len(batch))],
                )
                inserted += len(batch)

        async def run(duration: float) -> None:
            until = time.monotonic() + duration
            await asyncio.gather(*(insert(c, n, until) for n, c in enumerate(connections)))

        await run(min(1.0, seconds / 4))
        inserted = 0
        before, own = node.postgres_seconds(), time.process_time()
        await run(seconds)
        after, own_after = node.postgres_seconds(), time.process_time()
    finally:
        for connection in connections:
            await connection.close()
        await maintenance.execute(f"drop database {_DATABASE} with (force)")
        await maintenance.close()
    return (after - before) / inserted * 1e6, (own_after - own) / inserted * 1e6


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve_nothing())
