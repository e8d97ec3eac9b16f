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
NATIVE_SYNC_SECONDS = 60.0
"""A peer whose directory has not changed answers with a few bytes."""
MAX_NAME = 500
BATCH = 5_000
VANISHED_PART = 0.2
"""A list from which more than this part of a link's agencies has vanished is taken for a broken one."""
FEW = 20
"""So many may vanish at any time."""


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link as it is added, to the axis or whoever speaks its interface, or to another hub. Times are seconds."""

    name: str
    url: str
    system_id: str
    """What the peer knows this hub as; nothing on a native link."""
    branch: tuple[str, ...]
    default: bool = False
    utc_hours: int = 7
    poll_seconds: float = POLL_SECONDS
    retry_seconds: float = RETRY_SECONDS
    sync_seconds: float = SYNC_SECONDS
    kind: str = "axis"
    """``axis`` or ``native``."""


@dataclass(frozen=True, slots=True)
class PeerAgency:
    """An agency of a peer's list. `aliases` is None where the list tells nothing of them."""

    code: str
    name: str
    parent: str | None = None
    mail: str = ""
    aliases: tuple[str, ...] | None = None
    system: str = ""
    """Which of a native peer's systems speaks for it."""


def owner(name: str) -> str:
    """For whom a link's secret is sealed."""
    return f"link:{name}"


async def add_link(connection: asyncpg.Connection, vault: Vault, link: NewLink, secret: str) -> int:
    """Add a link, and the endpoint of its name where there is none. Returns the endpoint's id."""
    checked_name(link.name, "a link's name")
    _check_url(link.url)
    if not secret:
        raise DirectoryError("the secret is empty; it is what the peer's operator gave you for this hub")
    if link.kind == "axis" and not link.system_id:
        raise DirectoryError("name with --system-id as what this hub is known to the axis")
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
            link.kind,
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
    return differing(picture, endpoint, (row for row in listed if not picture.in_branch(link, row.code)))


def differing(picture: Picture, endpoint: int, listed: Iterable[PeerAgency]) -> list[PeerAgency]:
    """Of a list what is new or differs, and nothing that another endpoint speaks for."""
    found: dict[str, PeerAgency] = {}
    named: set[str] = set()
    for row in listed:
        known = picture.agency(row.code)
        if known is not None and (known.code != row.code or known.endpoint not in (None, endpoint)):
            continue  # served by somebody else, or another code of one that is known
        if not is_code(row.code) or not row.name:
            continue
        name = "".join(c if c.isprintable() else " " for c in row.name).strip()[:MAX_NAME]
        up = row.parent if row.parent and is_code(row.parent) and row.parent != row.code else None
        aliases = row.aliases
        if aliases is not None:
            aliases = tuple(alias for alias in dict.fromkeys(aliases) if _is_free(picture, alias, row.code, named))
            named.update(aliases)
            if known is not None and set(aliases) == set(known.aliases):
                aliases = known.aliases  # in whatever order
        row = PeerAgency(row.code, name or row.code, up, row.mail[:200], aliases, row.system)
        if known is None or (
            known.name,
            known.parent,
            known.mail,
            known.active,
            known.endpoint,
            known.system,
            known.aliases,
        ) != (
            row.name,
            row.parent,
            row.mail,
            True,
            endpoint,
            row.system,
            known.aliases if aliases is None else aliases,
        ):
            found[row.code] = row
    return list(found.values())


def _is_free(picture: Picture, alias: str, code: str, named: set[str]) -> bool:
    """Whether `alias` can be another name of `code`: it is nobody else's."""
    if not is_code(alias) or alias == code or alias in named:
        return False
    owner = picture.agency(alias)
    return owner is None or owner.code == code


def vanished(picture: Picture, endpoint: int, listed: Iterable[PeerAgency]) -> list[str]:
    """The link's agencies that a peer's list does not have any more. DirectoryError for too many at once.

    Of a native link those that the peer told of: others were entered by hand.
    """
    present = {row.code for row in listed}
    link = picture.links.get(endpoint)
    told = link is None or link.kind == "native"
    own = [
        agency.code
        for agency in picture.agencies.values()
        if agency.endpoint == endpoint and agency.active and (agency.system or not told)
    ]
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
        await write(connection, endpoint, rows, gone, revision)


async def write(
    connection: Any, endpoint: int, rows: Sequence[PeerAgency], gone: Sequence[str], revision: int
) -> None:
    """The same, within a change."""
    if rows:
        await connection.execute(SQL.create_import)
        for start in range(0, len(rows), BATCH):
            records = [
                (row.code, row.name, row.parent, row.mail, row.aliases, row.system)
                for row in rows[start : start + BATCH]
            ]
            await connection.copy_records_to_table("linked", records=records)
        await connection.execute(SQL.import_agencies, endpoint, revision)
    if gone:
        await connection.execute(SQL.close_agencies, endpoint, revision, list(gone))
