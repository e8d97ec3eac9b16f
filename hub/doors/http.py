"""What every HTTP door needs: problems as answers, bodies within bounds, and who is asking."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hub.directory.follow import Directory
from hub.directory.picture import AUDITOR, ENDPOINT, OPERATOR, Credential
from hub.relay.admission import AHEAD, Room
from hub.store.blobs import CHUNK
from hub.store.pool import is_away
from protocol.problems import MEDIA_TYPE, Problem

log = structlog.get_logger()
Model = TypeVar("Model")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def problem_response(problem: Problem) -> web.Response:
    headers = dict(SECURITY_HEADERS)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="lienthong"'
    response = web.Response(
        body=problem.to_json(), status=problem.status, content_type=MEDIA_TYPE, headers=headers
    )
    if problem.code in ("too-large", "timeout", "stopping"):
        response.force_close()  # the rest of the body is not read
    return response


def json_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=SECURITY_HEADERS)


async def blob_response(request: web.Request, path: Path, headers: dict[str, str]) -> web.FileResponse:
    """A blob, or the range of it that is asked for. Raises `Problem` where aiohttp would answer nothing."""
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
        start = request.http_range.start
    except FileNotFoundError:
        log.error("a blob is missing", path=str(path))
        raise Problem("internal", "the hub does not find these bytes; its operator can see which") from None
    except ValueError:
        raise Problem("range-not-satisfiable", "one range is answered at a time: `bytes=first-last`") from None
    if start is not None and (not size or start >= size):
        raise Problem("range-not-satisfiable", f"there are {size} bytes", size=size)
    return web.FileResponse(path, headers=headers, chunk_size=1 << 18)


_BY_STATUS = {
    404: ("not-found", "there is nothing at this address; see /openapi.json"),
    405: ("method-not-allowed", "see /openapi.json for what this address answers"),
    413: ("too-large", ""),
    416: ("range-not-satisfiable", ""),
}


_PACED = (401, 429, 503)
"""Refusals that a client can ask for as fast as it likes, at no cost to itself (`guard`)."""


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into RFC 9457 answers. Nothing else ever reaches a client."""
    try:
        return await handler(request)
    except Problem as problem:
        hold_back = getattr(request.protocol, "refused", None)
        if problem.status in _PACED and hold_back is not None and (seconds := hold_back()):
            await asyncio.sleep(seconds)
        return problem_response(problem)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code, detail = _BY_STATUS.get(error.status, ("bad-request" if error.status < 500 else "internal", ""))
        response = problem_response(Problem(code, detail))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except (HttpProcessingError, web.RequestPayloadError):
        response = problem_response(Problem("bad-request", "the body is not sent as its headers say"))
        response.force_close()
        return response
    except Exception as error:
        if is_away(error):
            log.error("a request needs the store", method=request.method, path=request.path, error=str(error))
            return problem_response(Problem("store-unavailable", "try again; nothing is lost", retry_after=2))
        log.exception("a request failed", method=request.method, path=request.path)
        return problem_response(Problem("internal"))


# -- bodies -------------------------------------------------------------------------------------


def _nobody_asks(size: int) -> None:
    """Nothing has to make room for the body."""


async def chunks(
    request: web.Request, limit: int, idle_seconds: float, arrived: Callable[[int], None] = _nobody_asks
) -> AsyncIterator[bytes]:
    """The body as it comes. `arrived` is told how many bytes there are by now, and may raise.

    Raises `Problem` too-large as soon as the length is known or passed, and timeout when the client
    sends nothing for `idle_seconds`.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise Problem("too-large", f"the body has {length} bytes; at most {limit} are accepted", limit=limit)
    received = 0
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await request.content.readany()
        except TimeoutError:
            raise Problem("timeout", f"nothing came for {idle_seconds:g} s; send the request again") from None
        if not chunk:
            return
        received += len(chunk)
        if received > limit:
            raise Problem("too-large", f"at most {limit} bytes are accepted", limit=limit)
        arrived(received)
        yield chunk


async def read_body(
    request: web.Request, limit: int, seconds: float, arrived: Callable[[int], None] = _nobody_asks
) -> bytes:
    """The whole body, within `limit` bytes and within `seconds` altogether. Raises `Problem` as `chunks`."""
    content = request.content
    if content.is_eof() and request.content_length is not None and request.content_length <= limit:
        body = await content.read()  # it came with the head: no timer, no generator
        if len(body) > limit:  # unpacked (Content-Encoding) it is larger than its declared length
            raise Problem("too-large", f"at most {limit} bytes are accepted", limit=limit)
        arrived(len(body))
        return body
    parts = []
    try:
        async with asyncio.timeout(seconds):
            async for chunk in chunks(request, limit, seconds, arrived):
                parts.append(chunk)
    except TimeoutError:
        raise Problem("timeout", f"the body took more than {seconds:g} s; send the request again") from None
    return b"".join(parts)


def sizes(request: web.Request, limit: int) -> tuple[int, int]:
    """What `Intake.room` is to be asked for: bytes of memory to take for a body before it arrives, and how many
    it says it will be, at most `limit`.
    """
    length = request.content_length
    announced = AHEAD if length is None else min(length, limit)
    return min(announced, AHEAD), announced


def in_pieces(room: Room, piece: Room) -> Callable[[int], None]:
    """For `chunks`: a body on its way to disk counts whole for its endpoint's rate, and a piece of it for room."""

    def arrived(size: int) -> None:
        room.stream(size)
        piece.reach(min(size, CHUNK))

    return arrived


def _convert_problem(error: msgspec.ValidationError, where: str) -> Problem:
    reason, _, path = str(error).partition(" - at `")
    path = path.rstrip("`") or "$"
    return Problem("bad-request", f"{where}: {reason}", fields=((path, reason),))


def read_json(body: bytes, model: type[Model]) -> Model:
    """The body as `model`. Raises `Problem` bad-request with the offending field."""
    try:
        return msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        raise _convert_problem(error, "the body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("bad-request", f"the body is not JSON: {error}") from None


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query as `model`. Raises `Problem` bad-request with the offending parameter."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise Problem("bad-request", f"the parameter {name} was given twice", fields=((name, "twice"),))
        values[name] = value
    try:
        return msgspec.convert(values, model, strict=False)
    except msgspec.ValidationError as error:
        raise _convert_problem(error, "the query") from None


# -- who is asking ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client. `endpoint` is 0 for operators and auditors."""

    role: str
    endpoint: int = 0
    name: str = ""

    @property
    def is_administrator(self) -> bool:
        return self.role in (OPERATOR, AUDITOR)


_BEARER = re.compile(r"Bearer +([!-~]{1,200})", re.IGNORECASE)


@lru_cache(maxsize=10_000)
def _token_hash(authorization: str) -> bytes | None:
    """The SHA-256 of the token in an Authorization header; None when it holds none. The same few come always."""
    match = _BEARER.fullmatch(authorization)
    return hashlib.sha256(match[1].encode()).digest() if match else None


class Gate:
    """Authenticates requests against the directory, by bearer token or by client certificate."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.seen: dict[int, float] = {}
        """When each endpoint last came (UNIX time), since somebody took the dict away."""

    def caller(self, request: web.Request) -> Caller:
        """Who is asking. Raises `Problem` unauthenticated or forbidden."""
        found = self._credential(request)
        if found.role != ENDPOINT or found.endpoint is None:
            return Caller(found.role, 0, found.label)
        endpoint = self._directory.picture.endpoints.get(found.endpoint)
        if endpoint is None or not endpoint.active:
            raise Problem("forbidden", "this endpoint has been disabled; its mail waits. Ask the hub's operator")
        self.seen[endpoint.id] = time.time()
        return Caller(ENDPOINT, endpoint.id, endpoint.name)

    def _credential(self, request: web.Request) -> Credential:
        credentials = self._directory.picture.credentials
        header = request.headers.get("Authorization")
        if header is not None:
            digest = _token_hash(header)
            found = credentials.get(digest) if digest else None
        else:
            found = self._by_certificate(request, credentials)
            if found is None:
                raise Problem("unauthenticated", "send `Authorization: Bearer <token>`")
        if found is None or not found.active:
            raise Problem("unauthenticated", "the token is not known, or it has been revoked; get a new one")
        if found.expires_at is not None and found.expires_at <= datetime.now(UTC):
            raise Problem("unauthenticated", "the token has expired; get a new one")
        return found

    @staticmethod
    def _by_certificate(request: web.Request, credentials: dict[bytes, Credential]) -> Credential | None:
        tls: Any = request.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        return credentials.get(hashlib.sha256(der).digest()) if der else None

    def endpoint(self, request: web.Request) -> Caller:
        """The calling endpoint. Raises `Problem` unauthenticated or forbidden."""
        caller = self.caller(request)
        if caller.role != ENDPOINT:
            raise Problem("forbidden", f"this needs an endpoint's token, not an {caller.role}'s")
        return caller

    def administrator_or_none(self, request: web.Request) -> Caller | None:
        """The calling operator or auditor; None for everybody else who brought no credential."""
        if "Authorization" not in request.headers:
            return None
        caller = self.caller(request)
        return caller if caller.is_administrator else None
