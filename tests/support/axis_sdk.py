"""A double of the axis's Java SDK: what it puts on the wire, and what it does with the answers.

Written from the description of the interface alone, with nothing of the hub's own code: signing, header names,
paths and results are spelled out here a second time, so that a mistake in one is seen by the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import aiohttp

LOCAL = timezone(timedelta(hours=7))


class SdkError(Exception):
    """An answer with another status than OK."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(f"{result.get('ErrorCode')}: {result.get('ErrorDesc')}")
        self.code = result["ErrorCode"]
        self.description = result["ErrorDesc"]


@dataclass
class Answer:
    """A response as it came."""

    status: int
    content_type: str
    body: bytes

    def result(self) -> dict[str, Any]:
        """The JSON object. Always HTTP 200, always a JSON object with its three members."""
        assert self.status == 200, (self.status, self.body)
        assert self.content_type == "application/json", self.body[:200]
        found = json.loads(self.body)
        assert isinstance(found, dict)
        assert isinstance(found["ErrorCode"], str) and isinstance(found["ErrorDesc"], str)
        assert (found["status"], found["ErrorCode"] == "0") in (("OK", True), ("FAIL", False))
        return found

    def ok(self) -> dict[str, Any]:
        found = self.result()
        if found["status"] != "OK":
            raise SdkError(found)
        return found


def timestamp(moment: datetime) -> str:
    """ddMMyyyy'T'HHmmss+SSSS of the local time; the last four digits are milliseconds."""
    return moment.strftime("%d%m%YT%H%M%S") + f"+{moment.microsecond // 1000:04d}"


@dataclass
class Sdk:
    """A document system's connection to an axis. `endpoint` is what its `service.endpoint` is set to."""

    session: aiohttp.ClientSession
    endpoint: str
    system_id: str
    secret: str
    zone: timezone = LOCAL
    clock: timedelta = field(default_factory=timedelta)
    """How far its clock is wrong."""
    _last: datetime = field(default=datetime(2000, 1, 1, tzinfo=UTC), repr=False)

    def _now(self) -> datetime:
        """Its clock; a later millisecond each time, as calls that go over a network are."""
        self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
        return self._last.astimezone(self.zone) + self.clock

    def sign(self, parameters: dict[str, str], content_type: str = "application/json") -> dict[str, str]:
        """The headers of one request, in the order in which the SDK writes them."""
        names = {"systemid": self.system_id, **parameters}
        names["timestamp"] = timestamp(self._now())
        names["Content-Type"] = content_type
        prefixed = {f"XroadVnpt-{name}": value for name, value in names.items()}
        compact = json.dumps(prefixed, separators=(",", ":"), ensure_ascii=False)
        headers = {"Content-Type": content_type, "User-Agent": "JAVASDKAgent/1.0.0 XRoad/VPCP", **prefixed}
        headers["XroadVnpt-sign-header-key"] = ";".join(names)
        headers["XroadVnpt-sign-header"] = compact
        digest = hmac.new(self.secret.encode(), compact.encode(), hashlib.sha256)
        headers["XroadVnpt-hash-header"] = digest.hexdigest()
        headers["XroadVnpt-version"] = "3.0.201608"
        return headers

    async def call(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes] | None = b"",
        method: str = "POST",
        **options: Any,
    ) -> Answer:
        """One request as it is given; the answer is read whole."""
        data = io.BytesIO(body) if isinstance(body, bytes) and len(body) > 1 << 20 else body
        async with self.session.request(
            method, self.endpoint + path, headers=headers, data=data, allow_redirects=False, **options
        ) as response:
            return Answer(response.status, response.content_type, await response.read())

    # -- the SDK's methods ----------------------------------------------------------------------

    async def send_edoc(self, edxml: bytes, sender: str, message_type: str = "edoc", **options: Any) -> str:
        """Send a file; its DocId."""
        headers = self.sign(
            {
                "from": sender,
                "servicetype": "eDoc",
                "messagetype": message_type,
                "hash-file": hashlib.sha256(edxml).hexdigest(),
            },
            "application/octet-stream",
        )
        found = (await self.call("/sendEdoc", headers, edxml, **options)).ok()
        return str(found["DocId"])

    async def get_received_edoc_list(self, message_type: str = "edoc") -> list[dict[str, Any]]:
        headers = self.sign({"servicetype": "eDoc", "messagetype": message_type})
        data: list[dict[str, Any]] = (await self.call("/getReceivedEdocList", headers)).ok()["data"]
        return data

    async def get_edoc(self, doc_id: str, file_path: str = "/tmp/edoc") -> bytes:
        """The SDK decodes this as UTF-8 text and writes it to a file."""
        headers = self.sign({"docId": doc_id, "filePath": file_path})
        found = (await self.call("/getEdoc", headers, b"{}")).ok()
        content = base64.b64decode(found["data"], validate=True)
        content.decode("utf-8")
        return content

    async def download_edoc(self, doc_id: str, file_path: str = "/tmp/edoc") -> bytes:
        headers = self.sign({"docId": doc_id, "filePath": file_path})
        answer = await self.call("/downloadEdoc", headers, None, method="GET")
        if answer.content_type != "application/octet-stream":
            answer.ok()
        assert answer.status == 200
        return answer.body

    async def update_status(self, doc_id: str, status: str) -> dict[str, Any]:
        return (await self.call("/updateStatus", self.sign({"status": status, "docId": doc_id}), b"{}")).ok()

    async def get_sent_edoc_list(self, doc_id: str, message_type: str = "edoc") -> list[dict[str, Any]]:
        headers = self.sign({"servicetype": "eDoc", "messagetype": message_type, "docId": doc_id})
        data: list[dict[str, Any]] = (await self.call("/getSentEdocList", headers)).ok()["data"]
        return data

    async def count_receive_edoc(self) -> int:
        headers = self.sign({"servicetype": "eDoc", "messagetype": "edoc"})
        return int((await self.call("/countReceiveEdoc", headers, b"{}")).ok()["count"])

    async def count_receive_status(self) -> int:
        headers = self.sign({"servicetype": "eDoc", "messagetype": "status"})
        return int((await self.call("/countReceiveStatus", headers, b"{}")).ok()["count"])

    async def get_agencies_list(self) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = (await self.call("/getAgenciesList", self.sign({}))).ok()["data"]
        return data

    async def get_agencies_list_qd20(self, level: str) -> list[dict[str, Any]]:
        headers = self.sign({"level": level})
        data: list[dict[str, Any]] = (await self.call("/getAgenciesListQD20", headers)).ok()["data"]
        return data

    async def register_agency(self, **agency: str) -> dict[str, Any]:
        body = json.dumps({"id": "", "mail": "", "mobile": "", "fax": "", **agency}).encode()
        return (await self.call("/registerAgency", self.sign({}), body)).ok()

    async def delete_agency(self, code: str) -> dict[str, Any]:
        return (await self.call("/deleteAgency", self.sign({"AgencyCode": code}), b"{}")).ok()

    async def receive(self, message_type: str = "edoc") -> list[bytes]:
        """What a system does every few minutes: list, fetch, keep, acknowledge. The files, in order."""
        kept = []
        for item in await self.get_received_edoc_list(message_type):
            kept.append(await self.get_edoc(item["docId"]))
            await self.update_status(item["docId"], "done")
        return kept
