"""Keeps what is known of revocation up to date, in the background, for all processes.

One process at a time asks (hub/chores.py): for each certificate in the chain of a key in use, every
`--revocation-seconds`, its authority's OCSP responder, or its list where that does not answer. What comes back is
judged (`protocol.certificate_revocation`), kept for good as it came, and, where it changes what is known, put into
the directory, which every process follows. Nothing that a sender does waits for any of this: while an authority
does not answer, what it said last counts until it grows stale, and then the hub's policy
(`hub.directory.trust_standing`).

A fresh answer that says what is known already replaces it only when that has passed half of its time: a responder
that dates every answer anew would otherwise fill the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import structlog

from hub.directory.change import changing
from hub.directory.trust_standing import Revoking
from hub.evidence.revocation_fetch import Fetcher, FetchError
from hub.store import sql
from protocol.certificate import CertificateError, load, subject
from protocol.certificate_revocation import (
    Answer,
    AnswerKind,
    RevocationStatus,
    Status,
    check_revocation,
    crl_urls,
    ocsp_request,
    ocsp_urls,
)

log = structlog.get_logger()
SQL = sql.load("trust")

TURN_SECONDS = 5.0
"""How often somebody looks whether anything is to be asked."""
RETRY = timedelta(seconds=30)
"""After a first failure; then twice as long each time, up to `--revocation-seconds`."""
MAX_TURN = 500
"""Certificates of a turn."""
MAX_PLACES = 3
"""Addresses of a kind that are tried for one certificate."""


@dataclass(slots=True)
class _Asked:
    """A certificate that is due, and what came of asking."""

    row: asyncpg.Record
    found: RevocationStatus | None = None
    url: str = ""
    failure: str = ""


@dataclass(slots=True)
class _Turn:
    """One round of questions: a list is fetched once, however many certificates it concerns."""

    fetcher: Fetcher
    lists: dict[str, asyncio.Task[bytes]] = field(default_factory=dict)

    async def crl(self, url: str) -> bytes:
        if url not in self.lists:
            self.lists[url] = asyncio.create_task(self.fetcher.crl(url))
        return await asyncio.shield(self.lists[url])


class Revocations:
    """Asks for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        seconds: float,
        hosts: str,
        policy: Revoking,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`seconds`: how often to ask; `hosts`: which may be asked, with commas, or any; `policy`: the hub's."""
        self._policy = policy
        self._pool = pool
        self._seconds = timedelta(seconds=seconds)
        self._hosts = frozenset(filter(None, (host.strip().lower() for host in hosts.split(","))))
        self._now = now

    async def turn(self) -> None:
        """Ask whatever is due. Raises what the database raises."""
        rows = await self._pool.fetch(SQL.due, self._seconds, RETRY, MAX_TURN, self._policy)
        if not rows:
            return
        configured = {urlsplit(row[place]).hostname or "" for row in rows for place in ("crl_url", "ocsp_url")}
        named = self._hosts | (configured - {""})
        asked = [_Asked(row) for row in rows]
        async with Fetcher(named, bool(self._hosts)) as fetcher:
            turn = _Turn(fetcher)
            try:
                await asyncio.gather(*(self._ask(turn, one) for one in asked))
            finally:
                for task in turn.lists.values():
                    task.cancel()
                await asyncio.gather(*turn.lists.values(), return_exceptions=True)
        await self._note(asked)

    async def _ask(self, turn: _Turn, one: _Asked) -> None:
        """Ask of one certificate, at one place after the other, until something is known."""
        row = one.row
        try:
            certificate, issuer = load(row["der"]), load(row["issuer"])
        except CertificateError as error:
            one.failure = str(error)
            return
        # Those that an operator gave first: they may be there because the others cannot be reached.
        places = [(AnswerKind.OCSP, url) for url in _http(row["ocsp_url"], *ocsp_urls(certificate))]
        places += [(AnswerKind.CRL, url) for url in _http(row["crl_url"], *crl_urls(certificate))]
        if not places:
            one.failure = "its certificate names no http address; give `trust add` a --crl-url or --ocsp-url"
            return
        before = [] if row["answer_der"] is None else [Answer(AnswerKind(row["answer_kind"]), row["answer_der"])]
        failures = []
        for kind, url in places:
            try:
                if kind is AnswerKind.CRL:
                    der = await turn.crl(url)
                else:
                    der = await turn.fetcher.ocsp(url, ocsp_request(certificate, issuer))
            except FetchError as error:
                failures.append(str(error))
                continue
            now = self._now()
            answer = Answer(kind, der, now)
            # In a thread: a long list takes a moment to read.
            new = await asyncio.to_thread(check_revocation, certificate, issuer, [answer], now)
            if new.status is Status.UNKNOWN:
                failures.append(f"{kind} of {url[:200]}: {'; '.join(new.notes)}")
                continue
            one.found = await asyncio.to_thread(check_revocation, certificate, issuer, [*before, answer], now)
            one.url = url
            return
        one.failure = "; ".join(dict.fromkeys(failures))[:1000]

    async def _note(self, asked: list[_Asked]) -> None:
        """Write down what was found: what is known, if it changed, and that it was asked."""
        now = self._now()
        changed = [one for one in asked if one.found is not None and _says_more(one.row, one.found, now)]
        async with self._pool.acquire() as acquired:
            connection: Any = acquired
            if changed:
                async with changing(connection) as revision:
                    for one in changed:
                        await self._put(connection, one, revision)
            await connection.execute(
                SQL.note_asked, [one.row["sha256"] for one in asked], [one.failure for one in asked]
            )
        for one in asked:
            if one.failure and one.row["failures"] in (None, 0):
                log.warning("whether a certificate was revoked cannot be learned", why=one.failure, **_who(one))

    async def _put(self, connection: asyncpg.Connection, one: _Asked, revision: int) -> None:
        found = one.found
        assert found is not None and found.answer is not None
        answer = found.answer
        fetched_at = answer.fetched_at or self._now()
        await connection.execute(SQL.put_answer, answer.sha256, answer.kind.value, one.url, fetched_at, answer.der)
        await connection.execute(
            SQL.put_revocation,
            one.row["sha256"],
            found.status.value,
            found.reason,
            found.revoked_at,
            answer.sha256,
            found.answered_at,
            found.fresh_until,
            revision,
        )
        if found.status is Status.REVOKED:
            log.error("a certificate in use was revoked", reason=found.reason, since=found.revoked_at, **_who(one))


def _http(*urls: str | None) -> list[str]:
    """Addresses that can be asked: not those of directories (``ldap:``), which many certificates name first."""
    return [url for url in urls if url and url.startswith("http:")][:MAX_PLACES]


def _says_more(row: asyncpg.Record, found: RevocationStatus, now: datetime) -> bool:
    """Whether `found` is worth keeping beside what is known."""
    assert found.answer is not None
    if row["answer"] == found.answer.sha256 and row["status"] == found.status:
        return False
    if row["status"] != "good" or found.status is not Status.GOOD:
        return True
    left, whole = row["fresh_until"] - now, row["fresh_until"] - row["answered_at"]
    return bool(left < whole / 2)


def _who(one: _Asked) -> dict[str, str]:
    return {"certificate": one.row["sha256"].hex(), "subject": subject(one.row["der"])}
