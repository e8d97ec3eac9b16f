"""The attachments that a native message names: have they been uploaded, and are the PDFs among them signed?"""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog

from hub.directory.picture import Picture
from hub.pdf.policy import PdfSignatures
from hub.pdf.result import Policy as PdfPolicy
from hub.relay.answering import Postponed
from hub.relay.opening import Opened, Sender
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.problems import Problem

log = structlog.get_logger()
SQL = sql.load("relay")


class Attached:
    """Looks after the attachments of what was opened."""

    def __init__(self, pool: asyncpg.Pool[Any], pdf_signatures: PdfSignatures) -> None:
        self._pool = pool
        self._pdf_signatures = pdf_signatures

    async def check(self, sender: Sender, opened: list[Opened | Problem]) -> None:
        """Replace what names attachments that the sender has not uploaded by its problem."""
        wanted = {
            bytes.fromhex(attachment.sha256)
            for item in opened
            if isinstance(item, Opened)
            for attachment in item.document.attachments
        }
        if not wanted:
            return
        try:
            rows = await self._pool.fetch(SQL.missing_attachments, sender.endpoint, list(wanted))
        except (*UNAVAILABLE, TimeoutError) as error:
            log.error("attachments could not be checked", error=str(error))
            raise Problem(
                "store-unavailable", "nothing is lost: send the same message again", retry_after=2
            ) from None
        missing = {row["sha256"].hex() for row in rows}
        for index, item in enumerate(opened):
            if isinstance(item, Opened):
                absent = [a.sha256 for a in item.document.attachments if a.sha256 in missing]
                if absent:
                    opened[index] = Problem(
                        "attachment-missing",
                        "upload them first with PUT /v1/attachments/{sha256}, then send the same message again",
                        attachments=absent,
                    )

    async def require_pdfs(self, picture: Picture, sender: Sender, item: Opened, deadline: float) -> None:
        """Refuse what has a PDF without a signature that is right, where the endpoint's policy is `require`.

        `deadline`: by the event loop's clock. Raises `Problem`, and `Postponed` where the hub could not look.
        """
        endpoint = picture.endpoints[sender.endpoint]
        if endpoint.pdf_signatures is PdfPolicy.REQUIRE:
            try:
                await self._pdf_signatures.require_native(endpoint, item.document.attachments, deadline)
            except Problem as problem:
                if problem.kind.fault != "hub":
                    raise
                raise Postponed(problem.code, problem.detail, retry_after=problem.retry_after) from None
