"""What became of a document, as the axis's interface tells its sender: a line for each agency it went to.

The hub's own receipts are not edXML and are not listed there as documents. What they would tell (that a recipient
refused, that time ran out) stands here instead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from hub.directory.follow import Directory
from hub.evidence.history import Delivery, History
from hub.relay.format import Format, Kind
from hub.store import sql
from hub.store.blobs import Blobs
from protocol import edxml
from protocol.evidence import EventKind
from protocol.manifest import open_native
from protocol.problems import Problem

SQL = sql.load("axis")
MAX_TRANSFERS = 50
"""Transfers shown of one document that was sent, updated, recalled…; the first ones."""
MAX_LINES = 10_000
"""Lines shown (about 4 MB)."""


@dataclass(frozen=True, slots=True)
class SentTo:
    """One document at one agency. `state` is ``new``, ``processing``, ``done`` or ``fail``."""

    id: UUID
    kind: Kind
    sender: str
    recipient: str
    title: str
    notation: str
    sent_at: datetime
    state: str
    explanation: str
    ended_at: datetime | None


class AxisSent:
    """Reads what became of documents, for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], history: History, directory: Directory, blobs: Blobs) -> None:
        self._pool = pool
        self._history = history
        self._directory = directory
        self._blobs = blobs

    async def find(self, endpoint: int, name: str) -> list[SentTo]:
        """What became of the transfer `name`, or of all transfers of the document with that DocumentId.

        Empty when the endpoint sent nothing of that name.
        """
        try:
            rows = await self._pool.fetch(SQL.sent_by_id, UUID(name), endpoint)
        except ValueError:
            rows = []
        if not rows and "\0" not in name:
            rows = await self._pool.fetch(SQL.sent_by_document, name, endpoint, MAX_TRANSFERS)
        found: list[SentTo] = []
        for row in rows:
            if len(found) < MAX_LINES:
                found += await self._lines(row["id"])
        return found[:MAX_LINES]

    async def _lines(self, message: UUID) -> list[SentTo]:
        row = await self._history.message(message)
        if row is None:
            return []  # it left the hub meanwhile
        timeline = await self._history.timeline(row, proofs=False)
        title, notation = await self._describe(row)
        noted = {
            self._directory.picture.endpoint_name(note["endpoint"])
            for note in await self._pool.fetch(SQL.notes, message)
        }
        lines = []
        for delivery in timeline.deliveries:
            state, explanation = _state(delivery, delivery.endpoint in noted)
            lines += [
                SentTo(
                    row["id"],
                    Kind(row["kind"]),
                    row["sender"],
                    code,
                    title,
                    notation,
                    row["accepted_at"],
                    state,
                    explanation,
                    delivery.at,
                )
                for code in delivery.recipients
            ]
        return lines

    async def _describe(self, row: asyncpg.Record) -> tuple[str, str]:
        """Subject, and number and notation; empty where they cannot be read any more."""
        try:
            if row["format"] != Format.EDXML:
                document = open_native(row["body"])[1]
                return document.subject, document.code
            if row["body"] is not None:
                header = edxml.read(row["body"])
            else:
                header = await asyncio.to_thread(self._read_blob, row["digest"])
            return header.subject, header.code
        except (Problem, OSError):
            return "", ""

    def _read_blob(self, digest: bytes) -> edxml.Header:
        with self._blobs.path(digest).open("rb") as file:
            return edxml.read(file)


def _state(delivery: Delivery, noted: bool) -> tuple[str, str]:
    match delivery.state:
        case EventKind.ACKNOWLEDGED:
            return "done", "Hệ thống nhận đã nhận văn bản"
        case EventKind.REFUSED:
            return "fail", f"Hệ thống nhận từ chối: {delivery.reason}"
        case EventKind.EXPIRED:
            return "fail", f"Không còn hiệu lực chuyển: {delivery.reason}"
        case EventKind.RECALLED:
            return "fail", "Đã thu hồi trước khi hệ thống nhận lấy về"
    if noted:
        return "processing", "Hệ thống nhận đang xử lý"
    if delivery.state == "handed_over":
        return "processing", "Hệ thống nhận đã lấy văn bản về, chưa xác nhận"
    return "new", "Chờ hệ thống nhận lấy về"
