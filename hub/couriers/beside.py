"""What is said beside the entries of a page: looked up for those entries for which there is something to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from hub.catalogue import Catalogue
from hub.directory.follow import Directory
from hub.relay.beyond import Hops
from hub.relay.mail import Mail
from hub.store.routes import Routes

Said = dict[UUID, dict[str, Any]]
"""By message, further members of its entry."""


class Besides:
    """Looks it up, for one process."""

    def __init__(self, directory: Directory, hops: Hops, catalogue: Catalogue, routes: Routes) -> None:
        self._directory = directory
        self._hops = hops
        self._catalogue = catalogue
        self._routes = routes

    async def of(self, endpoint: int, mails: Sequence[Mail]) -> Said:
        """Of a page that `endpoint` is given. Raises what asyncpg raises."""
        said: Said = {}
        if endpoint in self._directory.picture.hubs:
            for message, hops in (await self._hops.onward([mail.entry.id for mail in mails])).items():
                said.setdefault(message, {})["hops"] = hops
        repeating = [mail.entry.id for mail in mails if mail.repeats]
        if repeating:
            for message, earlier in (await self.repeated_by(endpoint, repeating)).items():
                said.setdefault(message, {})["duplicate_of"] = earlier
        return said

    async def repeated_by(self, endpoint: int, messages: list[UUID]) -> dict[UUID, list[str]]:
        """What messages repeat of what `endpoint` sent or got before."""
        return await self._catalogue.repeated_by(endpoint, messages, self._routes)
