"""The directory as systems of the axis may use it: whom they speak for, and what they ask to be changed."""

from __future__ import annotations

from typing import Any

import asyncpg

from hub.directory import axis
from hub.directory.axis import Change, NotAllowedError
from hub.directory.follow import Directory


class Registrar:
    """Answers for one process."""

    def __init__(self, pool: asyncpg.Pool[Any], directory: Directory, registration: str) -> None:
        """`registration`: ``approve``, ``allow`` or ``deny`` (the setting `--axis-registration`)."""
        self._pool = pool
        self._directory = directory
        self._registration = registration

    def speaks_for(self, endpoint: int, code: str) -> bool:
        """Whether an endpoint speaks for the agency known by `code`."""
        agency = self._directory.picture.agency(code)
        return agency is not None and agency.active and agency.endpoint == endpoint

    async def ask(self, system_id: str, endpoint: int, change: Change, signature: bytes) -> str:
        """Record what a system asks for, or carry it out, as the setting says. Returns the request's state.

        Raises DirectoryError.
        """
        if self._registration == "deny":
            raise NotAllowedError("this hub's directory is kept by its operator; ask there")
        async with self._pool.acquire() as acquired:
            connection: Any = acquired
            asked = await axis.ask(
                connection, system_id, endpoint, change, signature, allow=self._registration == "allow"
            )
        if asked.state == "rejected":
            raise NotAllowedError("the hub's operator has rejected this")
        if asked.state == "approved":
            await self._directory.refresh()  # whoever asks this process next finds it done
        return asked.state
