"""Links: other hubs, and the national axis, as the directory knows them.

A link is an endpoint like any other, whose mailbox is emptied by the hub itself (`hub.couriers.link`). It stands
for all agencies outside the hub's own *branch*: the units whose codes it was given, and everything below them.

Each function is one transaction under the directory's lock, as in `hub.directory.change`. Errors are
`DirectoryError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import structlog

from hub.directory.change import SQL as DIRECTORY
from hub.directory.change import DirectoryError, changing, checked_name
from hub.directory.picture import Picture
from hub.directory.vault import Vault
from hub.store import sql
from protocol.agency import is_code

log = structlog.get_logger()
SQL = sql.load("links")

POLL_SECONDS = 15.0
RETRY_SECONDS = 300.0
SYNC_SECONDS = 3600.0
MAX_NAME = 500
BATCH = 5_000
VANISHED_PART = 0.2
"""A list from which more than this part of a link's agencies has vanished is taken for a broken one."""
FEW = 20
"""So many may vanish at any time."""


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link to the axis, or whoever speaks its interface, as it is added. Times are seconds."""

    name: str
    url: str
    system_id: str
    branch: tuple[str, ...]
    default: bool = False
    utc_hours: int = 7
    poll_seconds: float = POLL_SECONDS
    retry_seconds: float = RETRY_SECONDS
    sync_seconds: float = SYNC_SECONDS


@dataclass(frozen=True, slots=True)
class PeerAgency:
    """An agency of a peer's list."""

    code: str
    name: str
    parent: str | None = None
    mail: str = ""


def owner(name: str) -> str:
    """For whom a link's secret is sealed."""
    return f"link:{name}"


async def add_link(connection: asyncpg.Connection, vault: Vault, link: NewLink, secret: str) -> int:
    """Add a link, and the endpoint of its name where there is none. Returns the endpoint's id."""
    checked_name(link.name, "a link's name")
    _check_url(link.url)
    if not secret:
        raise DirectoryError("the secret is empty; it is what the peer's operator gave you for your system id")
    if not link.branch:
        raise DirectoryError("name this hub's own unit with --branch; everything below it stays here")
    if wrong := [code for code in link.branch if not is_code(code)]:
        raise DirectoryError(f"not identity codes: {', '.join(wrong)}")
    async with changing(connection) as revision:
        row = await connection.fetchrow(DIRECTORY.endpoint_by_name, link.name)
        endpoint = row["id"] if row else None
        if endpoint is None:
            endpoint = await connection.fetchval(DIRECTORY.add_endpoint, link.name, revision)
            await connection.execute(DIRECTORY.add_mailbox, endpoint)
        if link.default:
            await connection.execute(SQL.clear_default, revision)
        made = await connection.fetchval(
            SQL.add_link,
            endpoint,
            link.url.rstrip("/"),
            link.system_id,
            vault.seal(owner(link.name), secret),
            link.utc_hours,
            list(link.branch),
            link.default,
            link.poll_seconds,
            link.retry_seconds,
            link.sync_seconds,
            revision,
        )
        if made is None:
            raise DirectoryError(f"there is a link {link.name} already; see `lienthong link show {link.name}`")
    return int(endpoint)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
    except ValueError:
        good = False
    if not good:
        raise DirectoryError(f"{url[:80]!r} is not an address like https://truc.chinhphu.vn/vxp")


async def _link(connection: asyncpg.Connection, name: str) -> int:
    rows = await connection.fetch(SQL.list_links, name)
    if not rows:
        raise DirectoryError(f"there is no link {name!r}; see `lienthong link list`")
    return int(rows[0]["endpoint"])


async def set_secret(connection: asyncpg.Connection, vault: Vault, name: str, secret: str) -> None:
    """Use another secret from now on."""
    if not secret:
        raise DirectoryError("the secret is empty")
    async with changing(connection) as revision:
        endpoint = await _link(connection, name)
        await connection.execute(SQL.set_secret, endpoint, vault.seal(owner(name), secret), revision)


async def set_active(connection: asyncpg.Connection, name: str, active: bool) -> None:
    """Stop a link's courier, or let it go on. What is for the link waits meanwhile."""
    async with changing(connection) as revision:
        await connection.execute(SQL.set_active, await _link(connection, name), active, revision)


async def order(connection: asyncpg.Connection, name: str, what: str, message: UUID | None = None) -> None:
    """Ask a link's courier to ``resend`` one message or all that waits, or to ``sync`` the directory, now."""
    await connection.execute(SQL.add_order, await _link(connection, name), what, message)


# -- the peer's agencies --------------------------------------------------------------------------


def wanted(picture: Picture, endpoint: int, listed: Iterable[PeerAgency]) -> list[PeerAgency]:
    """Of a peer's list what is to be written for the link `endpoint`: what lies outside and is new or differs."""
    link = picture.links[endpoint]
    found: dict[str, PeerAgency] = {}
    for row in listed:
        known = picture.agency(row.code)
        if known is not None and (known.code != row.code or known.endpoint not in (None, endpoint)):
            continue  # served here, or another code of one that is known
        if not is_code(row.code) or not row.name or picture.in_branch(link, row.code):
            continue
        name = "".join(c if c.isprintable() else " " for c in row.name).strip()[:MAX_NAME]
        up = row.parent if row.parent and is_code(row.parent) and row.parent != row.code else None
        row = PeerAgency(row.code, name or row.code, up, row.mail[:200])
        if known is None or (known.name, known.parent, known.mail, known.active, known.endpoint) != (
            row.name,
            row.parent,
            row.mail,
            True,
            endpoint,
        ):
            found[row.code] = row
    return list(found.values())


def vanished(picture: Picture, endpoint: int, listed: Iterable[PeerAgency]) -> list[str]:
    """The link's agencies that a peer's list does not have any more. DirectoryError for too many at once."""
    present = {row.code for row in listed}
    own = [agency.code for agency in picture.agencies.values() if agency.endpoint == endpoint and agency.active]
    gone = [code for code in own if code not in present]
    if len(gone) > max(FEW, len(own) * VANISHED_PART):
        raise DirectoryError(
            f"the peer's list has {len(present)} agencies, so {len(gone)} of {len(own)} would go: not believed"
        )
    return gone


async def apply(connection: Any, endpoint: int, rows: Sequence[PeerAgency], gone: Sequence[str]) -> None:
    """Write what `wanted` and `vanished` found, all of it under one revision, so that pictures change once."""
    if not rows and not gone:
        return
    async with changing(connection) as revision:
        await connection.execute(SQL.create_import)
        for start in range(0, len(rows), BATCH):
            records = [(row.code, row.name, row.parent, row.mail) for row in rows[start : start + BATCH]]
            await connection.copy_records_to_table("linked", records=records)
        await connection.execute(SQL.import_agencies, endpoint, revision)
        if gone:
            await connection.execute(SQL.close_agencies, endpoint, revision, list(gone))
