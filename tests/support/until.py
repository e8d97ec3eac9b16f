"""Waiting for a condition for which nobody sends an event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

PAUSE_SECONDS = 0.02


async def until(condition: Callable[[], Found | Awaitable[Found]], what: str, seconds: float = 30.0) -> Found:
    """Ask `condition` (plain or a coroutine function) until its answer is true; return that answer.

    Raises AssertionError naming `what` after `seconds`.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        asked = condition()
        found: Found = await asked if inspect.isawaitable(asked) else asked
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{seconds:g} s passed without: {what}"
        await asyncio.sleep(PAUSE_SECONDS)
