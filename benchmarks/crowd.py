"""Hundreds or thousands of endpoints at once: made in one go, read over a few connections, each counted.

A document to a crowd has a delivery for each member, and each is looked at: handed out once, byte for byte.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import asyncpg

from benchmarks.corpus import Corpus
from benchmarks.generator import Asker
from benchmarks.node import Node
from benchmarks.receivers import PAGE, read_acked, read_page
from hub.directory import change
from hub.directory.change import AgencyRow, hash_token
from hub.store import sql

SQL = sql.load("directory")
REGISTER_SECONDS = 60


class Party(Protocol):
    """An endpoint that can be read for."""

    @property
    def name(self) -> str: ...

    @property
    def token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint of the crowd, with one agency."""

    name: str
    code: str
    token: str


@dataclass(slots=True)
class Crowd:
    """Endpoints that are alike, and the groups that address them."""

    name: str
    members: list[Member]
    groups: list[str] = field(default_factory=list)
    """Addresses; together they name every member once."""


async def register(node: Node, name: str, count: int, group_size: int = 5_000) -> Crowd:
    """Make `count` endpoints named after `name`, and groups of up to `group_size` of their agencies.

    Returns when every worker knows them. 10,000 take about a second.
    """
    rows = [
        AgencyRow(f"000.{name}.{number:05}.H63", f"Xã số {number}", endpoint=f"{name} {number}")
        for number in range(count)
    ]
    tokens = [change.TOKEN_PREFIX + secrets.token_urlsafe(32) for _ in rows]
    members = [Member(f"{name} {number}", rows[number].code, token) for number, token in enumerate(tokens)]
    crowd = Crowd(name, members)
    connection = await asyncpg.connect(node.database_url)
    try:
        await change.import_agencies(connection, rows)
        for number, start in enumerate(range(0, count, group_size)):
            group = f"{name}.{number}"
            await change.put_group(connection, group, [row.code for row in rows[start : start + group_size]])
            crowd.groups.append(f"group:{group}")
        ids = {row["name"]: row["id"] for row in await connection.fetch("select id, name from endpoint")}
        async with connection.transaction():  # `change.issue_token`, but all of them as one change
            await connection.execute(SQL.lock)
            revision = await connection.fetchval(SQL.next_revision)
            await connection.executemany(
                SQL.add_credential,
                [
                    (hash_token(member.token), "token", "endpoint", ids[member.name], "", None, revision)
                    for member in members
                ],
            )
            await connection.execute(SQL.notify)
    finally:
        await connection.close()
    async with asyncio.timeout(REGISTER_SECONDS):
        await node.until_known(members[-1].token)
    return crowd


class Books(Protocol):
    """Whoever counts what mailboxes hand out."""

    def take(self, member: int, sender_id: str, document: bytes) -> None:
        """The mailbox of this member handed out these bytes under this id."""

    def acknowledge(self, count: int) -> None:
        """The hub says that it ended so many deliveries."""


class Deliveries:
    """The books of a crowd: each document of `corpora` to each of its members, once."""

    def __init__(self, members: int) -> None:
        self._members = members
        self._corpora: list[tuple[Corpus, list[bytearray]]] = []
        self.delivered = 0
        self.acknowledged = 0
        self.strays = 0
        self.last_ack = 0.0
        """When the last acknowledgement's answer came (seconds of `perf_counter`)."""

    def expect(self, corpus: Corpus) -> None:
        """Documents that every member is to get."""
        self._corpora.append((corpus, [bytearray(len(corpus.documents)) for _ in range(self._members)]))

    def take(self, member: int, sender_id: str, document: bytes) -> None:
        for corpus, delivered in self._corpora:
            place = corpus.place_of(sender_id)
            if place >= 0:
                if not corpus.holds(place, document) or delivered[member][place]:
                    break
                delivered[member][place] = 1
                self.delivered += 1
                return
        self.strays += 1

    def acknowledge(self, count: int) -> None:
        self.acknowledged += count
        self.last_ack = perf_counter()


async def drain(node: Node, members: Sequence[Party], books: Books, readers: int) -> float:
    """Read every member's mailbox to its end over `readers` connections, acknowledging each page.

    Returns the seconds that took. Raises RuntimeError when the hub answers with anything but mail.
    """
    host, port = node.address
    queue = iter(enumerate(members))

    async def read() -> None:
        asker = await Asker.connect((host, port))
        try:
            for number, member in queue:
                head = f"Host: {host}:{port}\r\nAuthorization: Bearer {member.token}\r\n"
                more = True
                while more:
                    asked = f"GET /v1/mailbox?limit={PAGE} HTTP/1.1\r\n{head}\r\n"
                    page = read_page(await _ask(asker, member, asked.encode()))
                    more = page.more
                    for entry in page.entries:
                        books.take(number, entry.sender_id, entry.document)
                    body = b'{"up_to":"%b"}' % page.cursor.encode()
                    asked = (
                        f"POST /v1/mailbox/ack HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n"
                    )
                    answer = await _ask(asker, member, asked.encode(), body)
                    books.acknowledge(read_acked(answer).acknowledged)
        finally:
            asker.close()

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(readers):
            group.create_task(read())
    return perf_counter() - began


async def _ask(asker: Asker, member: Party, head: bytes, body: bytes = b"") -> bytes:
    status, answer = await asker.ask(head, body)
    if status != 200:
        raise RuntimeError(f"{member.name} was answered {status}: {answer[:300]!r}")
    return answer
