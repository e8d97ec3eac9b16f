"""What a witness answers over HTTP: checkpoints to sign, and what it signed and found, for everybody to compare.

Nothing of it is secret and nobody logs in: a checkpoint is believed for its log's signature, an answer for the
witness's. So plain HTTP does no harm; with a certificate it speaks TLS.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import sqlite3
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson
import structlog
from aiohttp import web

from hub.doors.guard import GuardedHandler
from hub.listener import Acceptor, Counts, listen
from hub.witness.state import Followed, State, WitnessError, cosigned_note
from protocol.evidence import timestamp
from protocol.witness import ADD_CHECKPOINT, MAX_REQUEST_BYTES, TEXT, Refusal

log = structlog.get_logger()

BODY_SECONDS = 10.0
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0
FINDINGS = 100
"""What was found is shown up to so many; `lienthong witness evidence` has all."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
Result = TypeVar("Result")


class Witness:
    """Serves one witness. `start`, then `stop`."""

    def __init__(self, folder: Path) -> None:
        """Raises WitnessError when there is no witness in `folder`."""
        self._state = State(folder)
        # SQLite's one writer is this one thread.
        self._thread = ThreadPoolExecutor(1, "witness")
        self._acceptor: Acceptor | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> str:
        """Answer at an address; gives it. Raises WitnessError when it is taken."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/", self._about)
        app.router.add_get("/evidence", self._evidence)
        app.router.add_post(f"/{ADD_CHECKPOINT}", self._add_checkpoint)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await self._runner.setup()
        try:
            listener = listen(host, port)
        except OSError as error:
            await self._runner.cleanup()
            raise WitnessError(f"cannot listen on {host} port {port}: {error.strerror}; see --port") from None
        manager, counts, loop = self._runner.server, Counts(), asyncio.get_running_loop()
        assert manager is not None

        def connection() -> GuardedHandler:
            return GuardedHandler(
                manager,
                HEAD_SECONDS,
                lambda: counts.change(-1),
                loop=loop,
                access_log=None,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )

        shown = f"[{host}]" if ":" in host else host
        address = f"http{'s' if tls else ''}://{shown}:{listener.getsockname()[1]}"
        self._acceptor = Acceptor(listener, connection, counts, tls, HEAD_SECONDS)
        self._acceptor.start()
        return address

    async def stop(self) -> None:
        """Finish what is under way, and end."""
        if self._acceptor is not None:
            self._acceptor.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.to_thread(self._thread.shutdown)
        self._state.close()

    async def _with_state(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _add_checkpoint(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            return _text(f"the request did not arrive within {BODY_SECONDS:.0f} s\n", 408)
        except web.HTTPRequestEntityTooLarge:
            return _text(f"a request has {MAX_REQUEST_BYTES} bytes at most\n", 413)
        try:
            line = await self._with_state(lambda: self._state.add_checkpoint(body))
        except Refusal as refusal:
            if refusal.misbehaviour:
                found = refusal.misbehaviour
                log.error("a log misbehaves", log=found.origin, kind=found.kind.value, reason=str(refusal))
            else:
                log.info("a checkpoint was not signed", status=refusal.status, reason=str(refusal))
            return _text(refusal.body, refusal.status, refusal.media_type)
        except sqlite3.Error as error:
            log.critical("the witness's state cannot be written; nothing is signed", error=str(error))
            return _text("this witness cannot write down what it signs; its operator has to look\n", 503)
        return _text(line)

    async def _about(self, request: web.Request) -> web.Response:
        logs = await self._with_state(self._state.logs)
        return _json(
            {
                "name": self._state.name,
                "vkey": str(self._state.verifier),
                "logs": [describe(followed) for followed in logs],
            }
        )

    async def _evidence(self, request: web.Request) -> web.Response:
        findings = await self._with_state(lambda: self._state.findings(FINDINGS))
        return _json(
            {
                "name": self._state.name,
                "evidence": [
                    {"id": found.id, "at": timestamp(found.at), "found": found.misbehaviour} for found in findings
                ],
            }
        )


def describe(followed: Followed) -> dict[str, Any]:
    """What a witness says of a log: by it, witnesses can be compared."""
    last = followed.last
    return {
        "origin": followed.origin,
        "keys": [str(key) for key in followed.keys],
        "size": last.size if last else None,
        "root": base64.b64encode(last.root).decode() if last else None,
        "signed_at": timestamp(last.at) if last else None,
        "checkpoint": cosigned_note(followed) or None,
        "misbehaviour": followed.conclusive,
        "unproven": followed.unproven,
    }


def _text(body: str, status: int = 200, media_type: str = TEXT) -> web.Response:
    return web.Response(body=body.encode(), status=status, headers=_HEADERS | {"Content-Type": media_type})


def _json(members: Any) -> web.Response:
    body = orjson.dumps(members, default=msgspec.to_builtins, option=orjson.OPT_INDENT_2)
    return web.Response(body=body + b"\n", headers=_HEADERS | {"Content-Type": "application/json"})


async def run(
    folder: Path, host: str, port: int, tls: ssl.SSLContext | None, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is told the address. Raises WitnessError."""
    witness = Witness(folder)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        ready(await witness.start(host, port, tls))
        await ended.wait()
    finally:
        await witness.stop()
