"""The doors for those who watch: health, metrics, status, keys, and what problems mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec
from aiohttp import web

from hub.doors.http import Gate, json_response
from hub.doors.operations import Answer, Operation
from hub.doors.status_models import Health, HubStatus, KeySet, ProblemKind
from hub.observe import metrics
from hub.observe.report import Reporter
from hub.store.pool import UNAVAILABLE
from protocol.problems import CATALOGUE, Problem

CHECK_SECONDS = 5.0
KEYS_SECONDS = 2.0
"""How old the public keys given out may be: a node that joins seals with a key of its own."""


class HealthDoor:
    """What needs no endpoint's token."""

    def __init__(
        self,
        gate: Gate,
        reporter: Reporter,
        checks: dict[str, Callable[[], Awaitable[None]]],
        public_keys: Callable[[], Awaitable[tuple[dict[str, str], ...]]],
    ) -> None:
        """`checks`: by name, what readiness depends on; a check raises when it fails.

        `public_keys` reads the keys of every node from the store.
        """
        self._gate = gate
        self._reporter = reporter
        self._checks = checks
        self._read_keys = public_keys
        self._keys: tuple[float, tuple[dict[str, str], ...]] = (float("-inf"), ())

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/healthz/live",
                "Whether the process answers",
                self.live,
                {200: Answer("It does", Health)},
                tag="health",
                open=True,
            ),
            Operation(
                "GET",
                "/healthz/ready",
                "Whether the hub can take and hand out messages",
                self.ready,
                {200: Answer("It can", Health), 503: Answer("It cannot, and which check failed", Health)},
                tag="health",
                open=True,
            ),
            Operation(
                "GET",
                "/metrics",
                "Prometheus metrics of this node's processes",
                self.metrics,
                {200: Answer("Prometheus text format", None, ("text/plain",))},
                tag="health",
                open=True,
            ),
            Operation(
                "GET",
                "/v1/status",
                "Queues, rates and processes; endpoints too for operators and auditors",
                self.status,
                {200: Answer("The hub at a glance", HubStatus)},
                (401, 403),
                tag="health",
                open=True,
                description="Without a credential the answer names no endpoint.",
            ),
            Operation(
                "GET",
                "/v1/hub/keys",
                "The hub's public keys, for verifying receipts",
                self.keys,
                {200: Answer("A JWK set", KeySet)},
                tag="health",
                open=True,
            ),
            Operation(
                "GET",
                "/problems/{code}",
                "What a problem's code means",
                self.problem,
                {200: Answer("The entry of the catalogue", ProblemKind)},
                (404,),
                path_parameters={"code": str},
                tag="health",
                open=True,
            ),
        ]

    async def live(self, request: web.Request) -> web.Response:
        return json_response(msgspec.json.encode(Health("ok", {})))

    async def ready(self, request: web.Request) -> web.Response:
        results: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await check()
                results[name] = "ok"
            except Problem as problem:
                results[name] = problem.code
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                results[name] = "unavailable"
        well = all(result == "ok" for result in results.values())
        body = msgspec.json.encode(Health("ok" if well else "unavailable", results))
        return json_response(body, 200 if well else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        try:
            await self._reporter.lanes()
            await self._reporter.witnesses()
            await self._reporter.log()
        except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
            pass  # the processes' own figures are worth having when the database is away
        body = await asyncio.to_thread(metrics.render)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def status(self, request: web.Request) -> web.Response:
        administrator = self._gate.administrator_or_none(request)
        try:
            status = await self._reporter.status(with_endpoints=administrator is not None)
        except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
            raise Problem("store-unavailable", "the database does not answer", retry_after=2) from None
        return json_response(msgspec.json.encode(status))

    async def keys(self, request: web.Request) -> web.Response:
        read_at, keys = self._keys
        if time.monotonic() - read_at > KEYS_SECONDS:
            try:
                keys = await self._read_keys()
                self._keys = (time.monotonic(), keys)
            except (*UNAVAILABLE, asyncpg.PostgresError, TimeoutError):
                if not keys:
                    raise Problem("store-unavailable", "the database does not answer", retry_after=2) from None
        return json_response(msgspec.json.encode(KeySet(keys)))

    async def problem(self, request: web.Request) -> web.Response:
        kind = CATALOGUE.get(request.match_info["code"])
        if kind is None:
            raise Problem("not-found", "the catalogue has no such code; see /openapi.json")
        answer = ProblemKind(kind.code, kind.status, kind.title, kind.fault, kind.retryable)
        return json_response(msgspec.json.encode(answer))
