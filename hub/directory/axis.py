"""Systems that speak the national axis's interface, and what they ask to be changed in the directory.

A *system* is an endpoint's name and secret on that interface. It may ask for agencies to be registered or
deleted within its own branch: below an agency that its endpoint speaks for. Whether the hub does so at once,
after its operator's approval or never is a setting (`--axis-registration`).

Each function is one transaction under the directory's lock, as in `hub.directory.change`. Errors are
`DirectoryError`.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

import asyncpg

from hub.directory.change import MAX_AGENCY_NAME, DirectoryError, changing, checked_name, endpoint_id
from hub.directory.vault import Vault
from hub.store import sql
from protocol.agency import is_code
from protocol.agency import parent as parent_of

SQL = sql.load("axis")
MAX_WAITING = 1_000
"""Requests of one system that may wait for approval."""
MAX_DETAIL = 200
_SYSTEM_ID = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._:-]{0,62}[0-9A-Za-z])?")


class NotAllowedError(DirectoryError):
    """The system may not ask for this."""


class ReplayedError(DirectoryError):
    """The signature came with another request before."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a system asks for. `kind` is ``register`` or ``delete``; a deletion has a code alone."""

    kind: str
    code: str
    name: str = ""
    parent: str = ""
    mail: str = ""
    mobile: str = ""
    fax: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was recorded. `state` is ``waiting``, ``approved`` or ``rejected``."""

    id: int
    state: str


# -- systems ------------------------------------------------------------------------------------


def _new_secret() -> str:
    return secrets.token_urlsafe(32)


async def add_system(
    connection: asyncpg.Connection, vault: Vault, system_id: str, endpoint: str, utc_hours: int
) -> str:
    """Let the endpoint `endpoint` speak the axis's interface as `system_id`. Returns the secret."""
    if not _SYSTEM_ID.fullmatch(system_id):
        raise DirectoryError(
            f"{system_id[:70]!r} is not a system id: letters, digits, '.', '-', '_', ':', at most 64 characters"
        )
    secret = _new_secret()
    async with changing(connection) as revision:
        owner = await endpoint_id(connection, endpoint)
        sealed = vault.seal(system_id, secret)
        if await connection.fetchval(SQL.add_system, system_id, owner, utc_hours, sealed, revision) is None:
            raise DirectoryError(
                f"there is a system {system_id} already; for another secret: `lienthong axis secret {system_id}`"
            )
    return secret


async def new_secret(connection: asyncpg.Connection, vault: Vault, system_id: str, *, keep: bool) -> str:
    """Give a system another secret and return it. With `keep` the one before goes on working until the next."""
    secret = _new_secret()
    async with changing(connection) as revision:
        sealed = vault.seal(system_id, secret)
        if await connection.fetchval(SQL.set_secret, system_id, sealed, keep, revision) is None:
            raise _no_system(system_id)
    return secret


async def set_system_active(connection: asyncpg.Connection, system_id: str, active: bool) -> None:
    """Shut a system out of the interface, or let it in again. Its mailbox is its endpoint's and stays."""
    async with changing(connection) as revision:
        if await connection.fetchval(SQL.set_system_active, system_id, active, revision) is None:
            raise _no_system(system_id)


def _no_system(system_id: str) -> DirectoryError:
    return DirectoryError(f"there is no system {system_id}; see `lienthong axis list`")


# -- what systems ask for -----------------------------------------------------------------------


def _checked(change: Change) -> Change:
    """`change`, with its parent read from the code where it names none. Raises DirectoryError."""
    for code in (change.code, change.parent or change.code):
        if not is_code(code):
            raise DirectoryError(f"{code[:60]!r} is not an identity code")
    if change.kind == "delete":
        return change
    checked_name(change.name, f"the name of {change.code}", MAX_AGENCY_NAME)
    for what in (change.mail, change.mobile, change.fax):
        if len(what) > MAX_DETAIL or not what.isprintable():
            raise DirectoryError(f"mail, mobile and fax may have {MAX_DETAIL} printable characters each")
    up = change.parent or parent_of(change.code)
    if up is None:
        raise DirectoryError(f"pcode is missing: which unit is {change.code} a part of?")
    return Change("register", change.code, change.name, up, change.mail, change.mobile, change.fax)


async def ask(
    connection: asyncpg.Connection,
    system_id: str,
    endpoint: int,
    change: Change,
    signature: bytes,
    *,
    allow: bool,
) -> Asked:
    """Record what a system asks for; with `allow` carry it out too.

    `signature` is that of the signed request: the same request again, whichever process gets it, changes nothing
    and gets the first answer. Raises `ReplayedError` for another request under the same signature,
    `NotAllowedError` outside the system's branch, DirectoryError otherwise.
    """
    change = _checked(change)
    async with changing(connection) as revision:
        known = await connection.fetchrow(SQL.request_by_signature, signature)
        if known is not None:
            if (known["system_id"], known["kind"], known["code"]) != (system_id, change.kind, change.code):
                raise ReplayedError(f"this signature came with another request about {known['code']}")
            return Asked(known["id"], known["state"])
        change = await _allowed(connection, endpoint, change)
        members = (change.kind, change.code, change.name, change.parent, change.mail, change.mobile, change.fax)
        waiting = await connection.fetchval(SQL.same_request, system_id, *members)
        if waiting is not None and not allow:
            return Asked(waiting, "waiting")
        await connection.execute(SQL.supersede, system_id, change.code)
        if not allow and await connection.fetchval(SQL.count_waiting, system_id) >= MAX_WAITING:
            raise NotAllowedError(f"{MAX_WAITING} requests wait already; ask the hub's operator to look at them")
        number = await connection.fetchval(SQL.add_request, system_id, *members, endpoint, signature)
        if not allow:
            return Asked(number, "waiting")
        await _carry_out(connection, endpoint, change, revision)
        await connection.execute(SQL.decide, number, "approved")
        return Asked(number, "approved")


async def decide(connection: asyncpg.Connection, number: int, approve: bool) -> Change:
    """Carry out a waiting request, or reject it. What was allowed when it was asked for must still be."""
    async with changing(connection) as revision:
        row = await connection.fetchrow(SQL.waiting_request, number)
        if row is None:
            raise DirectoryError(f"no request {number} waits; see `lienthong axis pending`")
        change = Change(*(row[column] for column in ("kind", "code", "name", "parent", "mail", "mobile", "fax")))
        if approve:
            allowed = await _allowed(connection, row["endpoint"], change)
            await _carry_out(connection, row["endpoint"], allowed, revision)
        await connection.execute(SQL.decide, number, "approved" if approve else "rejected")
    return change


async def _allowed(connection: asyncpg.Connection, endpoint: int, change: Change) -> Change:
    """`change`, with its parent under its own code, if the endpoint may ask for it. Raises NotAllowedError."""
    found = await connection.fetchrow(SQL.agency, change.code)
    if change.kind == "delete":
        if found is None or found["endpoint"] != endpoint:
            raise NotAllowedError(f"{change.code} is not an agency of this system")
        return Change("delete", found["code"])
    if found is not None:
        if found["code"] != change.code:
            raise NotAllowedError(f"{change.code} is another code of {found['code']}")
        if found["endpoint"] not in (None, endpoint):
            raise NotAllowedError(f"{change.code} is an agency of another system")
    up = await connection.fetchval(SQL.branch, change.parent, endpoint, change.code)
    if up is None:
        raise NotAllowedError(f"{change.parent} does not lie in this system's branch of the tree")
    return Change("register", change.code, change.name, up, change.mail, change.mobile, change.fax)


async def _carry_out(connection: asyncpg.Connection, endpoint: int, change: Change, revision: int) -> None:
    if change.kind == "delete":
        await connection.execute(SQL.close_agency, change.code, revision)
    else:
        await connection.execute(
            SQL.register_agency, change.code, change.name, change.parent, endpoint, change.mail, revision
        )
