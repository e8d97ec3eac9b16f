"""What a native link's two ends tell each other: who lies on which side, and with which keys they sign.

A hub *below* comes to this one as an endpoint with a token. Its operator was given a branch: for the units in it
and all below them the hub below may speak, name agencies and vouch for keys; for nobody else. A hub *above* is a
link; it tells of everybody outside this hub's own branch. What either vouches for counts for messages that come
over that very link, and for nothing else: an agency's key that was registered here cannot be replaced from beyond,
nor can one from beyond be used at another door (docs/adr/0045).

Errors are `DirectoryError`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from hub.directory import change, links
from hub.directory.change import SQL as DIRECTORY
from hub.directory.change import DirectoryError, changing, checked_name
from hub.directory.links import SQL, PeerAgency
from hub.directory.picture import Agency, Hub, Key, Link, Picture
from protocol.agency import is_code, is_qcvn_102, is_qd_20
from protocol.agency import parent as parent_of
from protocol.link import Directory, DirectoryTaken, LinkAgency, LinkKey, Untaken
from protocol.problems import LienthongError
from protocol.signature import from_jwk, to_jwk

MAX_UNTAKEN = 20
"""Agencies and keys that are named of those that were not taken."""


async def accept(
    connection: asyncpg.Connection, name: str, branch: Iterable[str], *, approval: bool = False
) -> str:
    """Let another hub link with this one as `name`, for the units `branch` and all below. Gives its token.

    With `approval` its keys wait until an operator has looked at them. Again, it gives a further token, and
    changes what is said.
    """
    branch = list(branch)
    checked_name(name, "a hub's name")
    if not branch or not all(map(is_code, branch)):
        raise DirectoryError("name the other hub's own unit with --branch, by its identity code")
    async with changing(connection) as revision:
        row = await connection.fetchrow(DIRECTORY.endpoint_by_name, name)
        endpoint = row["id"] if row else None
        if endpoint is None:
            endpoint = await connection.fetchval(DIRECTORY.add_endpoint, name, revision)
            await connection.execute(DIRECTORY.add_mailbox, endpoint)
        elif await connection.fetchval("select 1 from link where endpoint = $1", endpoint):
            raise DirectoryError(f"{name} is a link of this hub's own; two hubs are linked from one side")
        await connection.execute(SQL.put_hub, endpoint, branch, approval, revision)
    return await change.issue_token(connection, endpoint=name)


async def decide_keys(connection: asyncpg.Connection, name: str, key: str | None, approve: bool) -> list[str]:
    """Let a key of a hub below count, or all that wait; or let them not. The names of those."""
    async with changing(connection) as revision:
        endpoint = await change.endpoint_id(connection, name)
        rows = await connection.fetch(SQL.decide_keys, endpoint, key, approve, revision)
    if not rows:
        raise DirectoryError(f"no such key of {name} waits; see `lienthong link pending`")
    return [row["name"] for row in rows]


# -- what this hub tells ----------------------------------------------------------------------------


def told(
    picture: Picture, link: Link | None, hub: str, hub_keys: Iterable[dict[str, str]], now: datetime
) -> Directory:
    """What this hub tells the hub above at `link` of its own branch; without a link, hubs below of everybody."""
    agencies: dict[str, LinkAgency] = {}
    systems: set[str] = set()
    for agency in picture.agencies.values():
        if not agency.active:
            continue
        if link is not None and (
            agency.endpoint in (None, link.endpoint) or not picture.in_branch(link, agency.code)
        ):
            continue
        system = system_of(agency)
        systems.add(system)
        agencies[agency.code] = LinkAgency(
            agency.code, agency.name[:500], agency.parent, agency.aliases[:20], agency.mail, system
        )
    return Directory(
        hub, tuple(hub_keys), tuple(agencies.values()), tuple(_keys(picture, link, agencies, systems, now))
    )


def system_of(agency: Agency) -> str:
    """One word for who speaks for an agency; of one beyond another native link, with that hub's word for it."""
    if agency.endpoint is None:
        return ""
    return f"{agency.endpoint}.{agency.system}" if agency.system else str(agency.endpoint)


def _keys(
    picture: Picture, link: Link | None, agencies: dict[str, LinkAgency], systems: set[str], now: datetime
) -> Iterator[LinkKey]:
    """The keys with which those sign, if a message signed with them would be taken in here.

    Of a key that a hub vouches for, its own agencies alone count, as they do here; and none under the name of a
    key registered here or named by another hub before: its owner could not sign any more beyond the link.
    """
    own: set[str] = set()
    for name, key in picture.keys.items():
        system = "" if key.endpoint is None else str(key.endpoint)
        if (key.agency in agencies or system in systems) and _counts(key, now):
            own.add(name)
            yield LinkKey(name, to_jwk(key.public), key.agency, system, key.not_before, key.not_after)
    for (endpoint, name), beyond in picture.beyond_keys.items():
        if not beyond.present or not beyond.approved or (link is not None and endpoint == link.endpoint):
            continue
        system = f"{endpoint}.{beyond.system}" if beyond.system else ""
        if beyond.agency:
            told_of = beyond.agency in agencies and picture.agencies[beyond.agency].endpoint == endpoint
        else:
            told_of = system in systems
        if told_of and name not in own:
            own.add(name)
            yield LinkKey(name, to_jwk(beyond.public), beyond.agency, system, beyond.not_before, beyond.not_after)


def _counts(key: Key, now: datetime) -> bool:
    return key.active and any(standing.at(now).refusal is None for standing in key.standings)


def fingerprint(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


# -- what this hub is told --------------------------------------------------------------------------


def _listed(directory: Directory) -> list[PeerAgency]:
    return [
        PeerAgency(row.code, row.name, row.parent, row.mail, row.aliases, row.system) for row in directory.agencies
    ]


def _untaken(picture: Picture, hub: Hub, directory: Directory) -> tuple[list[PeerAgency], list[Untaken]]:
    """Of what a hub below tells the agencies that it may speak for, and why not the others.

    Where an agency lies is read from this hub's own directory or from the code, never from what the other says.
    """
    inside, untaken = [], []

    def inside_(code: str) -> bool:
        return _lies_in(picture, hub, code)

    for row in _listed(directory):
        known = picture.agency(row.code)
        if not picture.in_branch(hub, row.code):
            untaken.append(Untaken(row.code, "it does not lie in the branch that this link may speak for"))
        elif known is not None and known.endpoint not in (None, hub.endpoint):
            name = picture.endpoint_name(known.endpoint or 0)
            untaken.append(Untaken(row.code, f"the endpoint {name} speaks for it here"))
        elif known is not None and known.code != row.code:
            untaken.append(Untaken(row.code, f"it is another code of {known.code}"))
        else:
            untaken += [
                Untaken(alias, f"{row.code} cannot be called so: it does not lie in the branch of this link")
                for alias in row.aliases or ()
                if not inside_(alias)
            ]
            inside.append(_kept_in(picture, row, inside_))
    return inside, untaken


def _top(code: str) -> str:
    """The province or ministry that a code is one of, in either form of codes; empty for another form."""
    if is_qcvn_102(code):
        return code.rpartition(".")[2]
    return code.partition(".")[0] if is_qd_20(code) else ""


def _lies_in(picture: Picture, of: Hub | Link, code: str) -> bool:
    """`Picture.in_branch`, also of a code in the other of the two forms, where the branch is all of a province."""
    if picture.in_branch(of, code):
        return True
    return picture.agency(code) is None and _top(code) in {
        _top(unit) for unit in of.branch if parent_of(unit) is None and _top(unit)
    }


def _kept_in(picture: Picture, row: PeerAgency, inside: Callable[[str], bool]) -> PeerAgency:
    """An agency as a peer tells of it, without what would place it where the peer has no say.

    By a parent elsewhere it would get what is addressed to all below that; by another name, what is addressed to
    whoever is really called so.
    """
    up = row.parent
    if up is not None and not inside(up):
        known = picture.agency(row.code)
        # The uppermost unit of a branch has its parent outside: that is the own directory's word, or the code's.
        up = known.parent if known is not None and not known.system else parent_of(row.code)
    return replace(row, parent=up, aliases=tuple(alias for alias in row.aliases or () if inside(alias)))


async def take_from_below(pool: Any, picture: Picture, hub: Hub, directory: Directory) -> DirectoryTaken:
    """Write down what a hub below tells of its branch. Raises DirectoryError; then nothing has changed."""

    def compared() -> tuple[list[PeerAgency], list[Untaken], list[PeerAgency], list[str], list[LinkKey]]:
        inside, untaken = _untaken(picture, hub, directory)
        rows = links.differing(picture, hub.endpoint, inside)
        keys, unreadable = _readable(directory.keys)
        return inside, untaken + unreadable, rows, links.vanished(picture, hub.endpoint, inside), keys

    inside, untaken, rows, gone, keys = await asyncio.to_thread(compared)  # 100,000 agencies take a second
    hub_keys = orjson.dumps(directory.hub_keys).decode()
    try:
        list(map(from_jwk, directory.hub_keys))
    except (LienthongError, ValueError, KeyError, TypeError):
        raise DirectoryError("one of the hub's own keys is no JWK that can be read") from None
    async with pool.acquire() as connection:
        await _write(connection, picture, hub.endpoint, rows, gone, keys, hub_keys, hub.approval)
        refused = "; ".join(f"{one.name}: {one.reason}" for one in untaken[:MAX_UNTAKEN])
        await connection.execute(SQL.hub_told, hub.endpoint, directory.hub, refused)
        counted = await connection.fetchrow(SQL.count_keys, hub.endpoint)
    return DirectoryTaken(len(inside), counted["active"], counted["waiting"], tuple(untaken[:MAX_UNTAKEN]))


async def take_from_above(pool: Any, picture: Picture, link: Link, directory: Directory) -> tuple[int, int]:
    """Write down what a hub above tells. How many agencies changed, and how many closed. Raises DirectoryError."""

    def outside_(code: str) -> bool:
        return not _lies_in(picture, link, code)

    def compared() -> tuple[list[PeerAgency], list[str], list[LinkKey]]:
        listed = [_kept_in(picture, row, outside_) for row in _listed(directory)]
        rows = links.wanted(picture, link.endpoint, listed)
        gone = links.vanished(picture, link.endpoint, listed)
        systems = {row.system for row in listed if row.system and not picture.in_branch(link, row.code)}
        outside = (
            key
            for key in directory.keys
            if (not picture.in_branch(link, key.agency) if key.agency else key.system in systems)
        )
        return rows, gone, _readable(outside)[0]

    rows, gone, keys = await asyncio.to_thread(compared)
    async with pool.acquire() as connection:
        await _write(connection, picture, link.endpoint, rows, gone, keys, None, False)
    return len(rows), len(gone)


async def _write(
    connection: Any,
    picture: Picture,
    endpoint: int,
    rows: list[PeerAgency],
    gone: list[str],
    keys: list[LinkKey],
    hub_keys: str | None,
    approval: bool,
) -> None:
    if not (rows or gone or hub_keys is not None or await asyncio.to_thread(_differ, picture, endpoint, keys)):
        return
    async with changing(connection) as revision:
        await links.write(connection, endpoint, rows, gone, revision)
        await connection.execute(SQL.create_keys)
        records = [
            (key.name, orjson.dumps(key.jwk).decode(), key.agency, key.system, key.not_before, key.not_after)
            for key in keys
        ]
        await connection.copy_records_to_table("vouched", records=records)
        await connection.fetchval(SQL.import_keys, endpoint, revision, approval)
        if hub_keys is not None:
            await connection.execute(SQL.set_hub_keys, endpoint, hub_keys, revision)


def _differ(picture: Picture, endpoint: int, keys: list[LinkKey]) -> bool:
    known = {name: key for (owner, name), key in picture.beyond_keys.items() if owner == endpoint and key.present}
    if known.keys() != {key.name for key in keys}:
        return True
    return any(
        (known[key.name].agency, known[key.name].system, known[key.name].not_before, known[key.name].not_after)
        != (key.agency, key.system, key.not_before, key.not_after)
        or to_jwk(known[key.name].public) != key.jwk
        for key in keys
    )


def _readable(keys: Iterable[LinkKey]) -> tuple[list[LinkKey], list[Untaken]]:
    """Keys that can be used, each name once, and the others."""
    found: dict[str, LinkKey] = {}
    untaken = []
    for key in keys:
        try:
            public = from_jwk(key.jwk)
        except (LienthongError, ValueError, KeyError, TypeError):
            untaken.append(Untaken(key.name, "it is no JWK that can be read"))
            continue
        if not key.name.startswith("x5t:") and to_jwk(public)["kid"] != key.name:
            untaken.append(Untaken(key.name, "its name is not the key's thumbprint"))
        elif not key.agency and not key.system:
            untaken.append(Untaken(key.name, "it does not say whose it is"))
        else:
            found[key.name] = key
    return list(found.values()), untaken
