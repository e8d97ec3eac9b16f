"""Assembles one hub process: store, relay, doors; starts and stops them in order."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from typing import Any

import msgspec
import orjson
import structlog
from aiohttp import web

from hub import tasks
from hub.chores import Chores
from hub.config import Config
from hub.couriers.mailbox import Mailboxes
from hub.directory.follow import Directory
from hub.doors.guard import GuardedHandler
from hub.doors.health import HealthDoor
from hub.doors.http import Gate, answer_problems, json_response
from hub.doors.native import NativeDoor
from hub.doors.openapi import describe
from hub.doors.operations import Operation
from hub.evidence.history import History
from hub.evidence.keys import load_hub_key, public_keys, record_hub_key
from hub.observe.report import Reporter
from hub.relay.acknowledge import Acknowledger
from hub.relay.admission import Admission
from hub.relay.commit import Committer
from hub.relay.handed import Handed
from hub.relay.intake import Intake
from hub.relay.verify import Verifier
from hub.relay.wake import Wake
from hub.store.attachments import Attachments
from hub.store.blobs import Blobs
from hub.store.pool import create_pool
from protocol.evidence import SEAL_TYPE, Sealer
from protocol.problems import Problem
from protocol.signature import Signer

log = structlog.get_logger()

KEEP_ALIVE_SECONDS = 75.0


class Hub:
    """One process of the hub. `start`, then `serve` on a socket, then `stop`."""

    def __init__(self, config: Config, database_url: str) -> None:
        self.config = config
        self._url = database_url
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, load the directory, start the relay. Nothing is served yet."""
        config, url = self.config, self._url
        signer = Signer(load_hub_key(config.hub_key_file), typ=SEAL_TYPE)
        sealer = Sealer(config.hub_name, signer)
        self.pool = await create_pool(url, 6, "pool")
        self.readers = await create_pool(url, 4, "readers", hot=True)
        await record_hub_key(self.pool, signer.key.public_key())
        self.directory = Directory(self.pool)
        await self.directory.refresh()
        self._follower = asyncio.create_task(self.directory.follow(), name="directory")
        self.wake = Wake(url, self.pool, self.readers, self.directory.poke)
        self.verifier = Verifier(in_place=config.workers >= (os.cpu_count() or 1))
        self.admission = Admission(config.max_queue_bytes)
        self.committer = Committer(url, sealer, self.wake.committed)
        handed = Handed()
        self.acknowledger = Acknowledger(url, sealer, self.directory, handed, self.readers, self.wake.committed)
        self.history = History(self.pool, self.directory)
        self.mailboxes = Mailboxes(self.readers, self.wake, self.acknowledger, handed)
        self.blobs = Blobs(config.blobs)
        self.gate = Gate(self.directory)
        self.chores = Chores(self.pool, self.acknowledger, self.history, self.blobs)
        self.reporter = Reporter(self.pool, self.directory, self.gate, config.hub_name, self._gauge)
        for part in (
            self.wake,
            self.verifier,
            self.committer,
            self.acknowledger,
            self.mailboxes,
            self.chores,
            self.reporter,
        ):
            part.start()
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=config.stop_seconds, handle_signals=False
        )
        await self._runner.setup()

    def _gauge(self) -> dict[str, int]:
        return {
            "commit_queue": len(self.committer.batcher),
            "queue_bytes": self.admission.used,
            "waiting_readers": self.wake.waiting,
            "accepted": self.committer.accepted,
            "ended": self.acknowledger.ended,
            "batches": self.committer.batcher.batches,
            "items": self.committer.batcher.items,
        }

    def _application(self) -> web.Application:
        attachments = Attachments(self.pool, self.blobs)
        intake = Intake(
            self.pool,
            self.directory,
            self.admission,
            self.verifier,
            self.committer,
            self.history,
            self.config.max_message_bytes,
        )
        native = NativeDoor(
            self.config,
            self.gate,
            intake,
            self.mailboxes,
            self.acknowledger,
            self.history,
            attachments,
            self.blobs,
        )
        health = HealthDoor(
            self.gate,
            self.reporter,
            {"database": self._check_database, "intake": self._check_intake},
            lambda: public_keys(self.pool),
        )
        operations: list[Operation] = [*native.operations(), *health.operations()]
        document = orjson.dumps(msgspec.to_builtins(describe(operations, f"Lienthong ({self.config.hub_name})")))

        async def openapi(request: web.Request) -> web.Response:
            return json_response(document)

        app = web.Application(middlewares=[answer_problems], client_max_size=0)
        for operation in operations:
            # aiohttp's own pattern for a parameter leaves out braces, which a sender's id may hold.
            path = re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", operation.path)
            app.router.add_route(operation.method, path, operation.handler)
        app.router.add_get("/openapi.json", openapi)
        return app

    async def _check_database(self) -> None:
        """The database answers and has room for today's mail."""
        await self.pool.fetchval("select 1 from inbox where seq >= seq_floor(now()) limit 1")
        if not await self.pool.fetchval(
            "select to_regclass(to_char(now() at time zone 'UTC', '\"inbox_\"YYYYMM'))"
        ):
            raise Problem("store-unavailable")

    async def _check_intake(self) -> None:
        if self.admission.closed:
            raise Problem("stopping")
        if self.admission.used > self.admission.limit:
            raise Problem("overloaded")

    async def serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer requests on a bound socket."""
        assert self._runner is not None and self._runner.server is not None
        manager = self._runner.server
        seconds = self.config.request_seconds

        def connection() -> GuardedHandler:
            return GuardedHandler(
                manager,
                seconds,
                loop=asyncio.get_running_loop(),
                access_log=None,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )

        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"ssl_handshake_timeout": seconds} if tls else {}
        self._servers.append(await loop.create_server(connection, sock=listener, ssl=tls, backlog=1024, **options))

    async def stop(self) -> None:
        """Refuse new work, finish what was taken, let readers go, disconnect."""
        for server in self._servers:
            server.close()
        self.admission.closed = True
        self.mailboxes.close()
        if self._runner is not None:
            # Handlers still under way get their answers: the batches that they wait for are flushed.
            await self._runner.cleanup()
        await self.committer.stop()
        await self.mailboxes.stop()
        await self.chores.stop()
        await self.acknowledger.stop()
        await self.verifier.stop()
        await self.reporter.stop()
        await self.wake.stop()
        if self._follower is not None:
            await tasks.end([self._follower])
        for pool in (self.readers, self.pool):
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except TimeoutError:
                pool.terminate()


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The server's TLS settings, or None for plain HTTP."""
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_cert, config.tls_key)
    if config.tls_client_ca:
        context.load_verify_locations(config.tls_client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
