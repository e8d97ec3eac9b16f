"""A few at a time: what one endpoint asks for at once waits in a line of its own, not in everybody's."""

from __future__ import annotations

import asyncio
import weakref


class Turns:
    """Of what an endpoint asks for, `width` are under way at a time; the others wait in order."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: weakref.WeakValueDictionary[int, asyncio.Semaphore] = weakref.WeakValueDictionary()

    def of(self, endpoint: int) -> asyncio.Semaphore:
        """Enter it (``async with``) for as long as the work takes."""
        line = self._lines.get(endpoint)
        if line is None:  # it lives while somebody is in it, or in line
            line = self._lines[endpoint] = asyncio.Semaphore(self._width)
        return line
