"""A hub that many tests may share, and what every refusal of it must be."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import orjson

from hub.app import Hub
from hub.config import make
from hub.directory import change
from hub.evidence.keys import make_hub_key
from hub.listener import listen
from hub.store.embedded import EmbeddedPostgres
from protocol.evidence import read_receipt, verify_receipt
from protocol.problems import CATALOGUE, MEDIA_TYPE
from protocol.signature import from_jwk
from tests.support import second_verifier
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN, Party, register

STORED = "select (select count(*) from message), (select count(*) from submission), (select count(*) from inbox)"


class Desk:
    """A running hub, an HTTP client, and four endpoints; `far` is disabled."""

    def __init__(self, hub: Hub, url: str, http: aiohttp.ClientSession, connection: asyncpg.Connection) -> None:
        self.hub = hub
        self.url = url
        self.http = http
        self.connection = connection

    async def settle(self) -> None:
        self.province = await register(self.connection, "ubnd-tinh", PROVINCE, aliases={PROVINCE: ("H63",)})
        self.van_yen = await register(self.connection, "van-yen", VAN_YEN, DAI_SON)
        self.far = await register(self.connection, "luc-yen", LUC_YEN)
        await change.set_endpoint_active(self.connection, "luc-yen", False)
        await self.follow()

    async def follow(self) -> None:
        """Let the hub's picture catch up with the directory."""
        await self.hub.directory.refresh()

    async def stored(self) -> tuple[int, ...]:
        """How much the store holds of messages and mail."""
        return tuple(await self.connection.fetchrow(STORED))

    async def request(self, method: str, path: str, party: Party | None = None, **options: Any) -> Answer:
        """One request, with the party's token unless it brings another."""
        headers = ({} if party is None else party.headers) | options.pop("headers", {})
        async with self.http.request(method, self.url + path, headers=headers, **options) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def post(self, body: bytes, media_type: str = "application/jose", party: Party | None = None) -> Answer:
        """Submit `body`, as the province unless told otherwise."""
        headers = {"Content-Type": media_type}
        return await self.request("POST", "/v1/messages", party or self.province, data=body, headers=headers)

    async def keys(self) -> list[dict[str, str]]:
        keys: list[dict[str, str]] = orjson.loads((await self.request("GET", "/v1/hub/keys")).body)["keys"]
        return keys

    async def check_rejection(self, members: dict[str, Any], document: bytes, endpoint: str) -> None:
        """The problem holds the sealed proof that exactly these bytes were refused for this reason."""
        jwks = await self.keys()
        trusted = {jwk["kid"]: from_jwk(jwk) for jwk in jwks}
        event = verify_receipt(read_receipt(orjson.dumps(members)), trusted.get, document).event
        assert second_verifier.prove(members["receipt"], jwks, document) == event
        assert event["event"] == "rejected"
        assert (event["code"], event["endpoint"]) == (members["code"], endpoint)
        assert event["sha256"] == hashlib.sha256(document).hexdigest()


class Answer:
    """A response that was read."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return orjson.loads(self.body)

    def problem(self, code: str) -> dict[str, Any]:
        """The answer's members, if it is the problem `code` as RFC 9457 and the catalogue have it."""
        assert self.headers["Content-Type"] == MEDIA_TYPE, self.body
        members = check_problem(self.json(), code)
        assert self.status == CATALOGUE[code].status
        if CATALOGUE[code].status == 401:
            assert self.headers["WWW-Authenticate"].startswith("Bearer ")
        return members


def check_problem(members: dict[str, Any], code: str) -> dict[str, Any]:
    """`members`, if they are those of the problem `code`."""
    kind = CATALOGUE[code]
    assert members["code"] == code, members
    found = {name: members[name] for name in ("type", "title", "status", "fault", "retryable")}
    assert found == {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "fault": kind.fault,
        "retryable": kind.retryable,
    }
    return members


@contextlib.asynccontextmanager
async def open_desk(cluster: EmbeddedPostgres, data_dir: Path, **settings: object) -> AsyncIterator[Desk]:
    """A desk on a database of its own, for as long as the block runs."""
    name = f"test_{uuid4().hex}"
    url = cluster.url.replace("/lienthong?", f"/{name}?")

    async def maintain(statement: str) -> None:
        connection = await asyncpg.connect(cluster.url.replace("/lienthong?", "/postgres?"))
        await connection.execute(statement)
        await connection.close()

    await maintain(f'create database "{name}" template lienthong')
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(maintain, f'drop database "{name}" with (force)')
        config = make(database_url=url, port=0, data_dir=str(data_dir), **settings)
        make_hub_key(config.hub_key_file)
        hub = Hub(config, url)
        await hub.start()
        stack.push_async_callback(hub.stop)
        listener = listen("127.0.0.1", 0)
        hub.serve(listener, None)
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        desk = Desk(hub, f"http://127.0.0.1:{listener.getsockname()[1]}", http, connection)
        await desk.settle()
        yield desk
