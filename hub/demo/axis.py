"""The Government Office's document system, as it is connected with the national axis: its calls, no more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from protocol.vxp import SERVICE, read_result, sign


@dataclass
class AxisSystem:
    """A system by its id and secret. `url` is its service.endpoint. Calls raise `Refusal`."""

    session: aiohttp.ClientSession
    url: str
    system_id: str
    secret: str
    _last: datetime = field(default=datetime.min.replace(tzinfo=UTC), repr=False)

    def _signed(self, parameters: dict[str, str], content_type: str = "application/json") -> dict[str, str]:
        # A later millisecond each time: the same call signed in the same one would be a replay.
        self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
        return sign(self.system_id, self.secret, parameters, self._last, content_type=content_type)

    async def _post(self, call: str, headers: dict[str, str], body: bytes = b"{}") -> dict[str, Any]:
        async with self.session.post(f"{self.url}/{call}", headers=headers, data=body) as response:
            return read_result(await response.read())

    async def send(self, message: bytes, sender: str, kind: str = "edoc") -> str:
        """Send edXML; its DocId."""
        digest = hashlib.sha256(message).hexdigest()
        parameters = {"from": sender, "servicetype": SERVICE, "messagetype": kind, "hash-file": digest}
        found = await self._post("sendEdoc", self._signed(parameters, "application/octet-stream"), message)
        return str(found["DocId"])

    async def take(self, kind: str) -> list[tuple[str, bytes]]:
        """Whatever waits of a kind, as (DocId, edXML); said to be done."""
        parameters = {"servicetype": SERVICE, "messagetype": kind}
        taken = []
        for item in (await self._post("getReceivedEdocList", self._signed(parameters)))["data"]:
            headers = self._signed({"docId": item["docId"], "filePath": "edoc"})
            async with self.session.get(f"{self.url}/downloadEdoc", headers=headers) as response:
                content = await response.read()
            taken.append((item["docId"], content))
            await self._post("updateStatus", self._signed({"status": "done", "docId": item["docId"]}))
        return taken
