"""Two endpoints at one hub, and what tests do between them."""

from __future__ import annotations

from typing import Any

import orjson

from protocol.client import HubClient
from protocol.client.hub import Entry
from protocol.evidence import read_receipt, verify_receipt
from protocol.problems import Problem
from protocol.signature import from_jwk
from tests.conftest import RunningHub
from tests.support import second_verifier
from tests.support.parties import VAN_YEN, Party


class Pair:
    """A sender and a recipient at one hub."""

    def __init__(self, hub: RunningHub, province: Party, district: Party) -> None:
        self.hub = hub
        self.province = province
        self.district = district
        self.sender: HubClient = province.client(hub.url)
        self.receiver: HubClient = district.client(hub.url)

    async def send(self, *priorities: str, **members: Any) -> list[str]:
        """Send one document of each priority, in one batch; the hub's ids."""
        messages = [
            self.sender.sign(self.province.document(VAN_YEN, priority=priority, **members))
            for priority in priorities
        ]
        outcomes = await self.sender.submit_many(messages)
        assert not any(isinstance(outcome, Problem) for outcome in outcomes)
        return [outcome.id for outcome in outcomes if not isinstance(outcome, Problem)]

    async def page(self, **options: Any) -> list[Entry]:
        return (await self.receiver.read(**options))[0]

    async def state(self, message: str) -> dict[str, Any]:
        """The one delivery of a message, as its sender sees it."""
        (delivery,) = (await self.sender.events(message))["deliveries"]
        return dict(delivery)

    async def check(self, receipt: bytes, document: bytes) -> dict[str, Any]:
        """The event that a receipt proves, by both verifiers."""
        jwks = await self.sender.hub_keys()
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in jwks}
        found = read_receipt(receipt)
        event = verify_receipt(found, keys.get, document).event
        assert second_verifier.prove(orjson.loads(found.to_json()), jwks, document) == event
        return event
