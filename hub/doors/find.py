"""Finding the message that a request names, for who may ask about it."""

from __future__ import annotations

import contextlib
from uuid import UUID

import asyncpg
from aiohttp import web

from hub.couriers.mailbox import Mailboxes
from hub.doors.http import Caller
from hub.evidence.history import History
from hub.store.routes import Routes
from hub.turns import Turns
from protocol.problems import Problem

QUESTIONS = 2
"""Of an endpoint's questions about messages and attachments, how many the store is asked at a time."""


class Finder:
    """Looks up messages by the hub's id, or by the caller's own."""

    def __init__(self, history: History, routes: Routes, mailboxes: Mailboxes) -> None:
        self._history = history
        self._routes = routes
        self._mailboxes = mailboxes
        self.turns = Turns(QUESTIONS)

    async def message(self, request: web.Request, caller: Caller) -> asyncpg.Record:
        """The message that the address names, if the caller sent it, gets it, or administers the hub.

        Raises `Problem` not-found.
        """
        name = request.match_info["id"]
        row = None
        with contextlib.suppress(ValueError):
            row = await self._history.message(UUID(name))
        if row is None and "\0" not in name:  # which no text in PostgreSQL holds
            row = await self._history.message_of_sender(caller.endpoint, name)
        if row is None or not self.may_see(row, await self._routes.get(row["route"]), caller):
            raise Problem("not-found", "no message of yours has this id")
        return row

    @staticmethod
    def may_see(row: asyncpg.Record, route: dict[int, list[str]], caller: Caller) -> bool:
        return caller.is_administrator or row["endpoint"] == caller.endpoint or caller.endpoint in route

    async def content(self, request: web.Request, caller: Caller) -> asyncpg.Record:
        """The same for an endpoint that will see what is in it. Its recipients are not given what was recalled.

        Raises `Problem` recalled.
        """

        async def find() -> asyncpg.Record:
            row = await self.message(request, caller)
            if is_withdrawn(row, caller):
                raise Problem("recalled")
            return row

        def place(row: asyncpg.Record) -> tuple[int, int] | None:
            return None if row["endpoint"] == caller.endpoint else (row["lane"], row["seq"])

        async with self.turns.of(caller.endpoint):
            return await self._mailboxes.take(caller.endpoint, find, place)

    def handed_over(self, row: asyncpg.Record, caller: Caller) -> None:
        """What `content` gave was written to the caller. Its sender is handed nothing over by that."""
        if row["endpoint"] != caller.endpoint:
            self._mailboxes.fetched(caller.endpoint, row["lane"], row["seq"])


def is_withdrawn(row: asyncpg.Record, caller: Caller) -> bool:
    """Whether a message was recalled before the caller was given it."""
    return row["endpoint"] != caller.endpoint and caller.endpoint in row["recalled"]
