"""Package signatures (XMLDSig) of edXML messages, for endpoints whose policy asks for them.

Nothing else that is done with a message costs as much: seconds of CPU and half a gigabyte for one that was made
to cost it (docs/adr/0035). Hence, in each process, `THREADS` messages at a time, of an endpoint one, and its
others wait in a line of their own: whoever sends such messages holds up nobody but himself for longer than one
of them takes. How large and how intricate a message may be is said by the limits of `protocol.edxml.xmldsig`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from hub.directory.picture import Endpoint
from hub.turns import Turns
from protocol.edxml.xmldsig import Result, Verdict, judge, verify
from protocol.problems import Problem

THREADS = 2
MAX_WAITING = 64
"""Messages of an endpoint that are being verified or wait for it; more are told to come back."""
MAX_NOTED = 16
"""Signatures of a message that are noted. More are nothing that a signer makes."""
_MAX_TEXT = 500

Found = Sequence[tuple[int, Result]]
"""Signatures with their places in the message, from 0."""


class PackageSignatures:
    """Verifies package signatures in one process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "package-signature")
        self._turns = Turns(1)
        self._waiting: Counter[int] = Counter()

    def stop(self) -> None:
        """What is being verified ends by itself, and is answered by nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, endpoint: Endpoint, source: bytes | Path) -> Found:
        """What there is to note of the message in `source`, which `endpoint` submits.

        Raises `Problem` package-signature if the endpoint's policy refuses it, overloaded, and bad-xml or
        bad-edxml as reading it does.
        """
        if self._waiting[endpoint.id] >= MAX_WAITING:
            detail = "too many messages of this endpoint wait to have their signatures verified"
            raise Problem("overloaded", detail, retry_after=2)
        self._waiting[endpoint.id] += 1
        try:
            async with self._turns.of(endpoint.id):
                loop = asyncio.get_running_loop()
                results = await loop.run_in_executor(self._threads, _verify, source)
        finally:
            self._waiting[endpoint.id] -= 1
            if not self._waiting[endpoint.id]:
                del self._waiting[endpoint.id]
        refused = judge(endpoint.edxml_signatures, results, pins=endpoint.edxml_pins)
        if refused is not None:
            raise refused
        # Valid ones first, lest worthless ones before them crowd them out.
        places = sorted(range(len(results)), key=lambda place: results[place].verdict is not Verdict.VALID)
        return [(place, _shown(results[place])) for place in sorted(places[:MAX_NOTED])]


def _verify(source: bytes | Path) -> tuple[Result, ...]:
    if isinstance(source, bytes):
        return verify(source)
    with source.open("rb") as file:
        return verify(file)


def _shown(result: Result) -> Result:
    """With texts that can be stored and shown: a certificate may say anything of its subject."""
    return msgspec.structs.replace(result, reason=_line(result.reason), subject=_line(result.subject))


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:_MAX_TEXT])
