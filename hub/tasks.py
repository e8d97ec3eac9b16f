"""Ending background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 1.0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, however they do.

    Once is not always enough: a clean-up on a connection that was lost (a rollback, say) raises its own
    error in place of the cancellation, and a loop that outlives lost connections then goes on.
    """
    tasks = list(tasks)
    alive = {task for task in tasks if not task.done()}
    while alive:
        for task in alive:
            task.cancel()
        _, alive = await asyncio.wait(alive, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
