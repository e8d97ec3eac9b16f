"""Changes to the directory, as the command line and the demo make them.

Each function is one transaction under the directory's lock and one revision. Errors are
`DirectoryError` with a sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
from cryptography import x509

from hub.directory import trust_chains
from hub.pdf.result import Policy as PdfPolicy
from hub.store import sql
from protocol.agency import is_code, parent
from protocol.edxml.xmldsig import Policy
from protocol.problems import LienthongError
from protocol.signature import PublicKey, thumbprint, to_jwk

SQL = sql.load("directory")
TRUST = sql.load("trust")
TOKEN_PREFIX = "lt_"  # noqa: S105 - lets a leaked token be recognised by scanners
TOKENS_PER_ENDPOINT = 2
MAX_NAME = 100
MAX_AGENCY_NAME = 500


class DirectoryError(LienthongError):
    """The directory cannot be changed in this way."""


@dataclass(frozen=True, slots=True)
class AgencyRow:
    """One agency as it is imported."""

    code: str
    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    endpoint: str | None = None


@contextlib.asynccontextmanager
async def changing(connection: asyncpg.Connection) -> AsyncIterator[int]:
    """One change: a transaction under the directory's lock, whose revision the block is given."""
    async with connection.transaction():
        await connection.execute(SQL.lock)
        yield await connection.fetchval(SQL.next_revision)
        await connection.execute(SQL.notify)


def checked_name(name: str, what: str, limit: int = MAX_NAME) -> str:
    """`name`, if it may be one. Raises DirectoryError."""
    if not name or len(name) > limit or not name.isprintable() or name != name.strip():
        raise DirectoryError(f"{what} {name[:limit]!r} must have 1 to {limit} printable characters")
    return name


async def endpoint_id(connection: asyncpg.Connection, name: str) -> int:
    """The id of the endpoint `name`. Raises DirectoryError."""
    row = await connection.fetchrow(SQL.endpoint_by_name, name)
    if row is None:
        raise DirectoryError(f"there is no endpoint {name!r}; make it with `lienthong endpoint add {name}`")
    return int(row["id"])


async def add_endpoint(connection: asyncpg.Connection, name: str, agencies: Iterable[str] = ()) -> int:
    """Make an endpoint with an empty mailbox that speaks for `agencies` (codes). Returns its id."""
    checked_name(name, "an endpoint's name")
    async with changing(connection) as revision:
        endpoint = await connection.fetchval(SQL.add_endpoint, name, revision)
        if endpoint is None:
            raise DirectoryError(f"there is an endpoint {name!r} already; choose another name")
        await connection.execute(SQL.add_mailbox, endpoint)
        await _assign(connection, endpoint, list(agencies), revision)
    return int(endpoint)


async def _assign(connection: asyncpg.Connection, endpoint: int, codes: list[str], revision: int) -> None:
    if not codes:
        return
    found = {row["code"] for row in await connection.fetch(SQL.assign_agencies, endpoint, revision, codes)}
    if missing := [code for code in codes if code not in found]:
        raise DirectoryError(f"no such agency: {', '.join(missing)}; add it with `lienthong agency add`")


async def assign(connection: asyncpg.Connection, name: str, agencies: Iterable[str]) -> None:
    """Let the endpoint `name` speak for `agencies` from now on."""
    async with changing(connection) as revision:
        await _assign(connection, await endpoint_id(connection, name), list(agencies), revision)


async def set_endpoint_active(connection: asyncpg.Connection, name: str, active: bool) -> None:
    """Disable an endpoint (its mail waits, nobody may address it) or enable it again."""
    async with changing(connection) as revision:
        if await connection.fetchval(SQL.set_endpoint_active, name, active, revision) is None:
            raise DirectoryError(f"there is no endpoint {name!r}; see `lienthong endpoint list`")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint may submit in a second. None: the hub's default. 0: no limit."""

    messages: float | None = None
    octets: float | None = None


async def set_limits(connection: asyncpg.Connection, name: str, change: Callable[[Limits], Limits]) -> Limits:
    """Replace an endpoint's limits by what `change` makes of them. Returns the new ones."""
    async with changing(connection) as revision:
        row = await connection.fetchrow(SQL.endpoint_by_name, name)
        if row is None:
            raise DirectoryError(f"there is no endpoint {name!r}; see `lienthong endpoint list`")
        limits = change(Limits(row["rate_messages"], row["rate_bytes"]))
        await connection.fetchval(SQL.set_endpoint_limits, name, limits.messages, limits.octets, revision)
    return limits


@dataclass(frozen=True, slots=True)
class PackageSignatures:
    """What package signatures of an endpoint's edXML are to the hub. `pins`: SHA-256 of certificates, in hex."""

    policy: Policy
    pins: tuple[str, ...] = ()
    any_certificate: bool = False


def fingerprint(text: str) -> str:
    """The SHA-256 of a certificate as it is kept: colons, blanks and case do not count. Raises DirectoryError."""
    plain = text.replace(":", "").replace(" ", "").lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise DirectoryError(
            f"{text[:100]!r} is not a SHA-256 in hex; see `openssl x509 -in FILE -noout -fingerprint -sha256`"
        )
    return plain


async def set_package_signatures(
    connection: asyncpg.Connection,
    name: str,
    policy: Policy,
    pins: Iterable[str] = (),
    any_certificate: bool = False,
) -> PackageSignatures:
    """Set an endpoint's policy. Pins that are given replace earlier ones; those are kept otherwise.

    `any_certificate`, instead of pins, is for `Policy.REQUIRE` alone, and holds until the policy is set again.
    Raises DirectoryError, also where a signature is required and nothing says whose.
    """
    given = tuple(dict.fromkeys(map(fingerprint, pins)))
    if any_certificate and (given or policy is not Policy.REQUIRE):
        raise DirectoryError("any certificate will do only where a signature is required, and none is pinned")
    async with changing(connection) as revision:
        row = await connection.fetchrow(SQL.endpoint_by_name, name)
        if row is None:
            raise DirectoryError(f"there is no endpoint {name!r}; see `lienthong endpoint list`")
        kept = () if any_certificate else given or tuple(row["edxml_pins"])
        if policy is Policy.REQUIRE and not kept and not any_certificate:
            raise DirectoryError(
                "say whose signature is required, with --pin; with --any-certificate anybody's will do, which "
                "shows that a message was not changed on its way, and not who made it"
            )
        await connection.fetchval(SQL.set_endpoint_signatures, name, policy, list(kept), any_certificate, revision)
    return PackageSignatures(policy, kept, any_certificate)


async def set_pdf_signatures(
    connection: asyncpg.Connection, name: str, policy: PdfPolicy, countersigned: bool = False
) -> None:
    """Say what signatures in the PDFs of an endpoint are. Raises DirectoryError.

    `countersigned`, for `REQUIRE` alone: content may be changed after a signature where a later one covers it.
    """
    if countersigned and policy is not PdfPolicy.REQUIRE:
        raise DirectoryError("--pdf-countersigned says what is enough with --pdf require, and nothing without it")
    async with changing(connection) as revision:
        arguments = name, policy, countersigned, revision
        if await connection.fetchval(SQL.set_endpoint_pdf_signatures, *arguments) is None:
            raise DirectoryError(f"there is no endpoint {name!r}; see `lienthong endpoint list`")


async def set_signed_acknowledgements(connection: asyncpg.Connection, name: str, policy: str) -> None:
    """Say whether an endpoint must sign what it acknowledges (require) or may (accept). Raises DirectoryError."""
    async with changing(connection) as revision:
        if await connection.fetchval(SQL.set_endpoint_acknowledgements, name, policy, revision) is None:
            raise DirectoryError(f"there is no endpoint {name!r}; see `lienthong endpoint list`")


async def add_agency(connection: asyncpg.Connection, row: AgencyRow) -> None:
    """Add an agency or change it. An unnamed parent is read from the code when the code's form tells."""
    _check_agency(row, "")
    async with changing(connection) as revision:
        endpoint = await endpoint_id(connection, row.endpoint) if row.endpoint else None
        taken = await connection.fetch(SQL.taken_aliases, [row.code, *row.aliases], [row.code])
        if taken:
            raise DirectoryError(f"{taken[0]['taken']} already names the agency {taken[0]['code']}")
        up = row.parent or parent(row.code)
        await connection.execute(SQL.put_agency, row.code, row.name, up, list(row.aliases), endpoint, revision)


def _check_agency(row: AgencyRow, where: str) -> None:
    for code in (row.code, *row.aliases, *([row.parent] if row.parent else [])):
        if not is_code(code):
            raise DirectoryError(
                f"{where}{code!r} is not an identity code: letters, digits, '.', '-', '_', at most 35 characters"
            )
    checked_name(row.name, f"{where}the name of {row.code}", MAX_AGENCY_NAME)
    if row.endpoint is not None:
        checked_name(row.endpoint, f"{where}the endpoint of {row.code}")


CSV_COLUMNS = ("code", "name", "parent", "aliases", "endpoint")


def read_csv(text: str) -> Iterator[AgencyRow]:
    """Agencies from CSV with a header line of `CSV_COLUMNS` (the first two required; several aliases are
    separated by blanks or semicolons). Raises DirectoryError naming the line.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), skipinitialspace=True)
    try:
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise DirectoryError(f"line 1: {error}") from None
    unknown = [column for column in columns if column not in CSV_COLUMNS]
    if "code" not in columns or "name" not in columns or unknown:
        raise DirectoryError(
            f"the first line must name the columns: {', '.join(CSV_COLUMNS)} (code and name required)"
            + (f"; not known: {', '.join(unknown)}" if unknown else "")
        )
    try:
        for record in reader:
            if None in record:
                raise DirectoryError(f"line {reader.line_num}: more fields than columns; quote names with commas")
            aliases = (record.get("aliases") or "").replace(";", " ").split()
            row = AgencyRow(
                (record["code"] or "").strip(),
                (record["name"] or "").strip(),
                (record.get("parent") or "").strip() or None,
                tuple(aliases),
                (record.get("endpoint") or "").strip() or None,
            )
            _check_agency(row, f"line {reader.line_num}: ")
            yield row
    except csv.Error as error:
        raise DirectoryError(f"line {reader.line_num + 1}: {error}") from None  # it counts what it could read


async def import_agencies(
    connection: asyncpg.Connection, rows: Iterable[AgencyRow], progress: Callable[[int], None] = lambda count: None
) -> tuple[int, int]:
    """Add or change many agencies at once; endpoints that they name and that do not exist are made.

    All or nothing. `progress` is told how many rows were sent so far. Returns the numbers of
    agencies and of new endpoints. 10^5 rows take about two seconds.
    """
    seen: dict[str, int] = {}
    async with changing(connection) as revision:
        await connection.execute(SQL.create_import)
        batch: list[tuple[Any, ...]] = []
        total = 0

        async def send() -> None:
            nonlocal total
            await connection.copy_records_to_table("imported", records=batch)
            total += len(batch)
            batch.clear()
            progress(total)

        for line, row in enumerate(rows, start=2):
            for code in (row.code, *row.aliases):
                if code in seen:
                    raise DirectoryError(f"{code} stands twice in the file (rows {seen[code]} and {line})")
                seen[code] = line
            up = row.parent or parent(row.code)
            batch.append((row.code, row.name, up, list(row.aliases), row.endpoint, line))
            if len(batch) == 5_000:
                await send()
        await send()
        if taken := await connection.fetch(SQL.taken_aliases, list(seen), _main_codes(seen, rows)):
            raise DirectoryError(f"{taken[0]['taken']} already names the agency {taken[0]['code']}")
        made = [row["id"] for row in await connection.fetch(SQL.import_endpoints, revision)]
        await connection.execute(SQL.import_mailboxes, made)
        await connection.execute(SQL.import_agencies, revision)
    return total, len(made)


def _main_codes(seen: dict[str, int], rows: Iterable[AgencyRow]) -> list[str]:
    # Rows that come from a generator are spent by now; every code of the file then counts as its own,
    # which only weakens this check for codes that change hands inside one file.
    return [row.code for row in rows] if isinstance(rows, list) else list(seen)


async def put_group(connection: asyncpg.Connection, name: str, members: Iterable[str]) -> None:
    """Make a named group of recipients, or replace its members."""
    members = list(members)
    if not is_code(name):
        raise DirectoryError(f"a group's name {name!r} may hold letters, digits, '.', '-' and '_'")
    if wrong := [member for member in members if not is_code(member)]:
        raise DirectoryError(f"not identity codes: {', '.join(wrong)}")
    async with changing(connection) as revision:
        await connection.execute(SQL.put_group, name, members, revision)


async def add_key(
    connection: asyncpg.Connection,
    key: PublicKey,
    *,
    endpoint: str | None = None,
    agency: str | None = None,
    x5t: str | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    certificates: Sequence[x509.Certificate] = (),
) -> str:
    """Register a public key for an endpoint or for an agency (code or alias). Returns its `kid`.

    `certificates`: the key's own first, then such as may lead from it to a trust anchor. Where there are anchors
    it must lead to one, or `CertificateError` is raised. A key may have several certificates at a time. `x5t` is
    for a key whose certificate is not to be looked at, only found by.
    """
    kid = thumbprint(key)
    jwk = orjson.dumps(to_jwk(key)).decode()
    async with changing(connection) as revision:
        owner = await endpoint_id(connection, endpoint) if endpoint else None
        if agency is not None:
            found = await connection.fetchval(SQL.agency_code, agency)
            if found is None:
                raise DirectoryError(f"no such agency: {agency}; add it with `lienthong agency add`")
            agency = found
        put = await connection.fetchval(SQL.put_key, kid, x5t, jwk, owner, agency, not_before, not_after, revision)
        if put is None:
            raise DirectoryError(f"the key {kid} is registered for somebody else; generate another")
        if certificates:
            await trust_chains.register(connection, kid, certificates, datetime.now(UTC), revision)
        elif await connection.fetchval(TRUST.has_certificate, kid):
            raise DirectoryError(
                f"the key {kid} is registered with a certificate; give the certificate, or first `key disable` it"
            )
    return kid


async def disable_key(connection: asyncpg.Connection, kid: str) -> None:
    async with changing(connection) as revision:
        if await connection.fetchval(SQL.disable_key, kid, revision) is None:
            raise DirectoryError(f"no key {kid} is registered")
        await connection.execute(TRUST.end_certificates, kid, revision)


def hash_token(token: str) -> bytes:
    """What the hub keeps of a token. Tokens hold 256 random bits, so a plain hash suffices."""
    return hashlib.sha256(token.encode()).digest()


async def issue_token(
    connection: asyncpg.Connection,
    *,
    endpoint: str | None = None,
    role: str = "endpoint",
    label: str = "",
    expires_at: datetime | None = None,
    keep: int = TOKENS_PER_ENDPOINT,
) -> str:
    """Make a token and return it; it cannot be shown again.

    An endpoint keeps its newest `keep` tokens: with two, the old one goes on working until the next
    rotation; with one, every older token ends now.
    """
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    async with changing(connection) as revision:
        owner = await endpoint_id(connection, endpoint) if endpoint else None
        await connection.fetchval(
            SQL.add_credential, hash_token(token), "token", role, owner, label, expires_at, revision
        )
        if owner is not None:
            await connection.execute(SQL.retire_tokens, owner, revision, keep)
    return token


async def trust_certificate(connection: asyncpg.Connection, endpoint: str, der: bytes, label: str = "") -> None:
    """Accept a TLS client certificate (its DER) in place of a token."""
    async with changing(connection) as revision:
        owner = await endpoint_id(connection, endpoint)
        made = await connection.fetchval(
            SQL.add_credential,
            hashlib.sha256(der).digest(),
            "certificate",
            "endpoint",
            owner,
            label,
            None,
            revision,
        )
        if made is None:
            raise DirectoryError("this certificate is registered already, or was revoked; issue another")


async def revoke_administrators(connection: asyncpg.Connection, label: str) -> int:
    """End every operator's and auditor's token with this label. Returns how many there were."""
    async with changing(connection) as revision:
        ended = await connection.fetch(SQL.revoke_administrators, label, revision)
        if not ended:
            raise DirectoryError(f"no administrator's token is labelled {label!r}; see `lienthong operator list`")
        return len(ended)


async def revoke_credentials(connection: asyncpg.Connection, endpoint: str) -> int:
    """End every token and certificate of an endpoint. Returns how many there were."""
    async with changing(connection) as revision:
        owner = await endpoint_id(connection, endpoint)
        return len(await connection.fetch(SQL.revoke_credentials, owner, revision))
