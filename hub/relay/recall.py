"""Recalling: a document that nobody was given never leaves the hub; of one that was, its recipient is asked.

A recall is a message like any other, committed and receipted before anything is done about it: its sender's own
words are the evidence for what follows. Then, at each recipient that it names, the document's delivery ends as
`recalled` if no reader can have it (`hub.relay.openings`), and with it that of the recall itself, which has
nothing left to ask there. The sender gets a sealed notice of each. Everywhere else the recall lies in the mailbox,
behind the document, and its recipient answers with a status 15 or 16.

If the hub dies in between, both lie in the mailbox and the recipient answers: nothing is lost but the shorter way.
Sending the recall again carries it out again.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from hub.directory.follow import Directory
from hub.evidence.history import History
from hub.relay.acknowledge import Acknowledgement, Acknowledger
from hub.relay.batch import Submission
from hub.relay.format import BUSINESS
from hub.relay.openings import Openings
from hub.relay.references import Named, References
from hub.store import sql

log = structlog.get_logger()
SQL = sql.load("recall")

CLOSE_SECONDS = 1.0
"""How long other processes are given to close mailboxes that they do not use."""
_LOOK_SECONDS = 0.02
_NAMES = 500
"""Mailboxes in one NOTIFY, which holds 8,000 bytes."""
NOTHING_LEFT = "what it recalls was never handed over here"


class Recalls:
    """Carries out recalls for one process."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        acknowledger: Acknowledger,
        openings: Openings,
        history: History,
        references: References,
        directory: Directory,
    ) -> None:
        self._pool = pool
        self._acknowledger = acknowledger
        self._openings = openings
        self._history = history
        self._references = references
        self._directory = directory

    async def carry_out(self, recall: Submission, message: UUID) -> None:
        """Carry out what was committed as `message`. Does nothing for what is no recall.

        Raises `Problem` or what asyncpg raises; then some of it may have been done.
        """
        names = [(item.name, item.owner) for item in recall.references if item.takes_back]
        if not names:
            return
        documents = await self._documents(recall, message, names)
        if not documents:
            return
        wanted = await self._wanted(recall, documents)
        if not wanted:
            return
        await self._closed(set(wanted))
        own, still_open = await self._history.open_deliveries(message)
        for endpoint, (seqs, all_of_them) in wanted.items():
            reason = f"recalled by message {message}"
            recalled = dict.fromkeys(seqs, reason)
            quiet: set[int] = set()
            codes: dict[int, str] = {}
            if all_of_them and endpoint in still_open:
                recalled[own], codes[own] = NOTHING_LEFT, "nothing-left"
                quiet = {own}
            await self._acknowledger.recall(Acknowledgement(endpoint, recalled=recalled, codes=codes, quiet=quiet))

    async def _documents(self, recall: Submission, message: UUID, names: list[tuple[str, str]]) -> list[Named]:
        """What is recalled: every transfer of it but recalls."""
        named = await self._references.named(self._directory.picture, names)
        found = {
            document.row["id"]: document
            for documents in named.values()
            for document in documents
            if document.row["sender"] == recall.sender and document.row["business"] != BUSINESS.index("recall")
        }
        found.pop(message, None)
        return list(found.values())

    async def _wanted(self, recall: Submission, documents: list[Named]) -> dict[int, tuple[list[int], bool]]:
        """By endpoint the sequences that may be recalled there, and whether that is all that was sent there.

        Only where the recall names every agency of the endpoint to which the document went.
        """
        seqs: dict[int, list[int]] = {}
        partly: set[int] = set()
        for document in documents:
            row = document.row
            named = {
                endpoint
                for endpoint, codes in document.route.items()
                if set(codes) <= set(recall.route.endpoints.get(endpoint, ()))
            }
            rows = await self._pool.fetch(SQL.standing, list(named), row["seq"], row["lane"])
            waiting = {found["endpoint"] for found in rows}
            rows = await self._pool.fetch(SQL.recalled_at, row["id"])  # by a recall before this one
            already = {found["endpoint"] for found in rows}
            for endpoint in waiting:
                seqs.setdefault(endpoint, []).append(row["seq"])
            for endpoint in named & already:
                seqs.setdefault(endpoint, [])
            partly |= document.route.keys() - waiting - already
        return {endpoint: (found, endpoint not in partly) for endpoint, found in seqs.items()}

    async def _closed(self, endpoints: set[int]) -> None:
        """Return when nobody has these mailboxes open any more, or soon."""
        await self._openings.close_now(endpoints)
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        asked = False
        while await self._pool.fetch(SQL.open_elsewhere, list(endpoints)):
            if not asked:
                asked = True
                names = [str(endpoint) for endpoint in endpoints]
                payloads = [",".join(names[start : start + _NAMES]) for start in range(0, len(names), _NAMES)]
                await self._pool.execute(SQL.ask_to_close, payloads)
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_LOOK_SECONDS)
