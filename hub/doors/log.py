"""The transparency log, for everybody: checkpoints, tiles and proofs as c2sp.org specifies them.

No credential is asked for. The log holds hashes of events, so it tells nobody who wrote to whom; and whoever
must prove something in years to come may no longer have an account here.
"""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from hub.doors.http import SECURITY_HEADERS, json_response
from hub.doors.operations import Answer, Operation
from hub.doors.status_models import LogKey, LogStatus
from hub.evidence.log import Log
from protocol.evidence import timestamp
from protocol.log import LogError, read_tile_path
from protocol.problems import Problem

AT_ONCE = 4
"""Requests that a process looks up at a time: whoever comes needs no credential, and shall not take the database's
connections from those who have one."""
_TEXT = "text/plain; charset=utf-8"
_FOR_GOOD = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=31536000, immutable"}
_BRIEFLY = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=1"}


class LogDoor:
    """Answers auditors, witnesses, and whoever holds a receipt."""

    def __init__(self, log: Log, within_seconds: float) -> None:
        self._log = log
        self._within = within_seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "GET",
                "/log",
                "The transparency log: its name, its keys, how far it reaches",
                self.log_status,
                {200: Answer("The log at a glance", LogStatus)},
                tag="log",
                open=True,
            ),
            Operation(
                "GET",
                "/log/checkpoint",
                "The newest checkpoint, with the signatures of the witnesses that have signed it so far",
                self.log_checkpoint,
                {200: Answer("A signed note (c2sp.org/tlog-checkpoint)", None, ("text/plain",))},
                (404,),
                tag="log",
                open=True,
            ),
            Operation(
                "GET",
                "/log/tile/{path}",
                "256 hashes of the log, or the entries under them",
                self.log_tile,
                {200: Answer("Hashes of 32 bytes (c2sp.org/tlog-tiles)", None, ("application/octet-stream",))},
                (404,),
                path_parameters={"path": str},
                rest="path",
                tag="log",
                open=True,
                description="The path is `<level>/<index>` or `entries/<index>`, with `.p/<width>` for a tile "
                "that is not full.",
            ),
            Operation(
                "GET",
                "/log/proof/{batch}/{leaf}",
                "The proof that an event is in the log",
                self.log_proof,
                {200: Answer("c2sp.org/tlog-proof", None, ("text/plain",))},
                (400, 404),
                path_parameters={"batch": UUID, "leaf": Annotated[int, Meta(ge=0, lt=10**9)]},
                tag="log",
                open=True,
                description="`batch` is the one that the receipt's seal names, `leaf` the receipt's index. 404 "
                "while the event waits for its place in the log: the seal says until when.",
            ),
        ]

    async def log_status(self, request: web.Request) -> web.Response:
        async with self._turns:
            keys = await self._log.identities()
            size, at, waiting = await self._log.reach()
        answer = LogStatus(
            keys[0].origin,
            str(keys[0].verifier),
            size,
            None if at is None else timestamp(at),
            waiting,
            self._within,
            tuple(LogKey(str(key.verifier), timestamp(key.since)) for key in keys),
        )
        return json_response(msgspec.json.encode(answer))

    async def log_checkpoint(self, request: web.Request) -> web.Response:
        async with self._turns:
            note = await self._log.newest()
        if note is None:
            raise Problem("not-found", "the log has no checkpoint yet; it will within seconds")
        return web.Response(body=note.encode(), headers=_BRIEFLY | {"Content-Type": _TEXT})

    async def log_tile(self, request: web.Request) -> web.Response:
        try:
            tile = read_tile_path(request.match_info["path"])
        except LogError as error:
            raise Problem("not-found", str(error)) from None
        async with self._turns:
            data = await self._log.tile(tile)
        if data is None:
            raise Problem("not-found", "the log does not reach so far; see /log/checkpoint")
        # Never packed: hashes do not compress.
        return web.Response(body=data, content_type="application/octet-stream", headers=_FOR_GOOD)

    async def log_proof(self, request: web.Request) -> web.Response:
        try:
            batch, leaf = UUID(request.match_info["batch"]), _number(request.match_info["leaf"])
        except ValueError:
            raise Problem("bad-request", "the address is /log/proof/<batch, a UUID>/<leaf, a number>") from None
        try:
            async with self._turns:
                proof = await self._log.proof(batch, leaf)
        except LogError as error:
            raise Problem("not-found", str(error)) from None
        if proof is None:
            raise Problem("not-found", "no such event is in the log; if you hold its receipt, see its `logged_by`")
        return web.Response(body=str(proof).encode(), headers=SECURITY_HEADERS | {"Content-Type": _TEXT})


def _number(text: str) -> int:
    """A count written in digits. Raises ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(text)
    return int(text)
