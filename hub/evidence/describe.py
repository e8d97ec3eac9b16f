"""What a stored message says about itself, in whatever format it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from hub.relay.format import Format
from hub.store.blobs import Blobs
from protocol import edxml
from protocol.manifest import open_native
from protocol.problems import Problem

_THREAD_BYTES = 64 << 10
"""From here on a message is parsed off the event loop."""


@dataclass(frozen=True, slots=True)
class Description:
    """Texts are ``""`` and times None where they are absent, or where the message cannot be read any more."""

    subject: str = ""
    code: str = ""
    type: str = ""
    issued: str | None = None
    due: str | None = None
    sent_at: datetime | None = None
    reason: str = ""


class Describer:
    """Describes messages for one process."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def of(self, row: asyncpg.Record) -> Description:
        """The description of a row of `message` (with `format`, `body` and `digest`)."""
        if row["format"] == Format.RECEIPT:
            return Description()
        try:
            if row["body"] is not None and len(row["body"]) < _THREAD_BYTES:
                return self._read(row)
            return await asyncio.to_thread(self._read, row)
        except (Problem, OSError):
            return Description()

    def _read(self, row: asyncpg.Record) -> Description:
        if row["format"] != Format.EDXML:
            document = open_native(row["body"])[1]
            return Description(
                document.subject,
                document.code,
                document.type,
                document.promulgation.date if document.promulgation else None,
                document.due,
                document.at,
                document.reason,
            )
        if row["body"] is not None:
            header = edxml.read(row["body"])
        else:
            with self._blobs.path(row["digest"]).open("rb") as file:
                header = edxml.read(file)
        return Description(
            header.subject or header.status_description,
            header.code,
            header.type_name,
            header.promulgation_date,
            header.due,
            datetime.fromisoformat(header.timestamp) if header.timestamp else None,
        )
