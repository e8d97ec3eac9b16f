"""What submissions pass through whose endpoint must sign its PDFs, and what is done when one was uploaded.

Checking waits for nothing but itself: a submission whose PDFs take too long is told to come back, and finds the
results then. It holds up the other messages of its own request only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import structlog

from hub import tasks
from hub.directory.picture import Endpoint
from hub.pdf.checks import Checks
from hub.pdf.pool import NoProcessError
from hub.pdf.result import MAGIC_WITHIN, Policy, is_pdf, judge, line
from hub.pdf.source import File, edxml_files, native_files
from hub.store.blobs import Blobs
from hub.store.pool import UNAVAILABLE
from protocol.message import Attachment
from protocol.problems import Problem

log = structlog.get_logger()

WAIT_SECONDS = 45.0
"""How long a request waits for its PDFs, all together: less than callers commonly wait for an answer."""
AGAIN_SECONDS = 10.0
MAX_WAITING = 64
"""Submissions of an endpoint that wait for results; more are told to come back."""
MAX_EARLY = 16
"""PDFs that are checked before a message names them; of more, checking waits for the message."""


class PdfSignatures:
    """Judges submissions, and begins early, in one process."""

    def __init__(self, blobs: Blobs, checks: Checks, max_bytes: int, queued: Callable[[], None]) -> None:
        """`max_bytes`: what the files of an edXML message may unpack to, altogether.

        `queued` is to be called after a commit that left PDFs to be checked or recorded.
        """
        self.queued = queued
        self._blobs = blobs
        self._checks = checks
        self._max_bytes = max_bytes
        self._waiting: dict[int, int] = {}
        self._early: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        await tasks.end(list(self._early))
        await self._checks.stop()

    def uploaded(self, endpoint: Endpoint, sha256: bytes) -> None:
        """An attachment came from an endpoint; the message that names it will want to know."""
        if endpoint.pdf_signatures is Policy.REQUIRE and len(self._early) < MAX_EARLY:
            task = asyncio.create_task(self._begin(endpoint.id, sha256), name="pdf-early")
            self._early.add(task)
            task.add_done_callback(self._early.discard)

    async def _begin(self, endpoint: int, sha256: bytes) -> None:
        path = self._blobs.path(sha256)

        def look() -> bool:
            with path.open("rb") as file:
                return is_pdf(file.read(MAGIC_WITHIN))

        try:
            if await asyncio.to_thread(look):
                await self._checks.result(endpoint, sha256, path)
        except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
            log.warning("a PDF could not be checked early", error=str(error))

    def deadline(self) -> float:
        """Until when a request that begins now waits for the results of its PDFs; the event loop's time."""
        return asyncio.get_running_loop().time() + WAIT_SECONDS

    async def require_native(self, endpoint: Endpoint, attachments: Sequence[Attachment], deadline: float) -> None:
        """Raises `Problem` pdf-signature unless all PDFs are signed as they must be, and overloaded or
        store-unavailable."""
        try:
            held = await asyncio.to_thread(native_files, self._blobs, attachments)
        except OSError as error:
            log.error("an attachment cannot be read", error=str(error))
            raise Problem("internal", "the hub does not find an attachment; its operator can see which") from None
        with held as files:
            await self._require(endpoint, files, deadline)

    async def require_edxml(self, endpoint: Endpoint, source: bytes | Path, deadline: float) -> None:
        """The same of an edXML message. Raises bad-xml, bad-edxml and too-large besides, as reading it does."""
        with await asyncio.to_thread(edxml_files, self._blobs, source, self._max_bytes) as files:
            await self._require(endpoint, files, deadline)

    async def _require(self, endpoint: Endpoint, files: Sequence[File], deadline: float) -> None:
        if not any(file.pdf or file.named_pdf for file in files):
            return
        if self._waiting.get(endpoint.id, 0) >= MAX_WAITING:
            raise _later("too many messages of this endpoint wait to have their PDFs checked")
        self._waiting[endpoint.id] = self._waiting.get(endpoint.id, 0) + 1
        try:
            async with asyncio.timeout_at(deadline):
                for file in files:
                    await self._require_signed(endpoint, file)
        except TimeoutError:
            raise _later(
                "checking the signatures of the message's PDFs goes on; send the same message again"
            ) from None
        except NoProcessError as error:
            log.error("PDFs cannot be checked", error=str(error))
            raise Problem("internal", "the hub cannot check PDFs at present; its operator can see why") from None
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            log.error("PDFs could not be checked", error=str(error))
            raise Problem(
                "store-unavailable", "nothing is lost: send the same message again", retry_after=2
            ) from None
        finally:
            self._waiting[endpoint.id] -= 1
            if not self._waiting[endpoint.id]:
                del self._waiting[endpoint.id]

    async def _require_signed(self, endpoint: Endpoint, file: File) -> None:
        if not file.pdf:
            if file.named_pdf:
                reason = f"{line(file.name, 100) or file.sha256.hex()}: it is called a PDF and is none"
                raise Problem("pdf-signature", reason, attachment=file.sha256.hex())
            return
        result = await self._checks.result(endpoint.id, file.sha256, file.path)
        refused = judge(result, file.name, file.sha256.hex(), endpoint.pdf_countersigned)
        if refused is not None:
            raise refused


def _later(detail: str) -> Problem:
    return Problem("overloaded", detail, retry_after=AGAIN_SECONDS)
