"""A trial authority that answers on loopback, and signers with certificates of it.

A test module takes over the fixtures that it wants: ``trial = trial.trial``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509

from hub.ca.authority import NAME, Authority
from hub.ca.responder import Responder
from hub.directory import change, trust
from hub.directory.trust_standing import Revoking
from hub.evidence.signers import SignerEvidence, signer_evidence
from protocol.evidence import read_receipt, verify_receipt
from protocol.problems import Problem
from protocol.signature import PrivateKey, Signer, from_jwk, generate
from tests.conftest import RunningHub, StartHub
from tests.support.parties import PROVINCE, VAN_YEN, Party


@dataclass
class Trial:
    """An authority and its responder."""

    authority: Authority
    responder: Responder
    url: str

    @classmethod
    async def start(cls, folder: Path, name: str = NAME) -> Trial:
        authority = Authority.make(folder, name=name)
        responder = Responder(folder)
        url = await responder.start()
        authority.move(url)
        return cls(authority, responder, url)

    async def trusted(self, hub: RunningHub, revocation: Revoking | None = None) -> None:
        """Make it a trust anchor of a hub."""
        await trust.add_anchor(hub.connection, self.authority.certificate, revocation=revocation)
        await hub.follow()

    def issue(
        self,
        party: Party,
        key: PrivateKey,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        return self.authority.issue(
            f"Văn phòng {party.name}",
            key.public_key(),
            code=party.agencies[0],
            not_before=not_before,
            not_after=not_after,
        )

    async def certify(
        self,
        hub: RunningHub,
        party: Party,
        *,
        alg: str = "ES256",
        ends_in: timedelta | None = None,
        ask: bool = True,
    ) -> x509.Certificate:
        """Give a party a new key in a certificate, registered at a hub that has asked about it."""
        party.key = generate(alg)
        party.signer = Signer(party.key)
        ends = None if ends_in is None else datetime.now().astimezone() + ends_in
        certificate = self.issue(party, party.key, not_after=ends)
        await change.add_key(
            hub.connection, party.key.public_key(), endpoint=party.name, certificates=[certificate]
        )
        if ask:
            await hub.hub.revocations.turn()
        await hub.follow()
        return certificate

    def revoke(self, certificate: x509.Certificate, reason: str = "key_compromise") -> None:
        self.authority.revoke(f"{certificate.serial_number:x}", reason)


async def ask_again(hub: RunningHub) -> None:
    """Let a hub ask of everything, and follow what it finds."""
    await hub.connection.execute("delete from revocation_question")
    await hub.hub.revocations.turn()
    await hub.follow()


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    made = await Trial.start(tmp_path / "ca")
    yield made
    await made.responder.stop()


@pytest.fixture
async def asking(start_hub: StartHub) -> RunningHub:
    """A hub that may ask on loopback."""
    return await start_hub(revocation_hosts="127.0.0.1")


@pytest.fixture
async def province(asking: RunningHub) -> Party:
    await asking.register("van-yen", VAN_YEN)
    return await asking.register("ubnd-tinh", PROVINCE)


async def send(hub: RunningHub, party: Party, signer: Signer | None = None) -> dict[str, Any]:
    """The event of a document that the hub accepts."""
    async with party.client(hub.url, retry_seconds=0) as client:
        sent = await client.submit((signer or party.signer).sign(payload(party)))
    return dict(orjson.loads(sent.receipt.event))


def payload(party: Party) -> bytes:
    document = party.document(VAN_YEN)
    members = {"id": document.id, "from": document.sender, "to": list(document.to), "subject": "Giấy mời họp"}
    return orjson.dumps(members)


async def refused(hub: RunningHub, party: Party, signer: Signer | None = None) -> Problem:
    """What somebody is told whose document is refused, with a proof of that."""
    raw = (signer or party.signer).sign(payload(party))
    async with party.client(hub.url, retry_seconds=0) as client:
        with pytest.raises(Problem) as caught:
            await client.submit(raw)
        keys = {jwk["kid"]: from_jwk(jwk) for jwk in await client.hub_keys()}
    receipt = read_receipt(orjson.dumps(caught.value.extra["receipt"]))
    event = verify_receipt(receipt, keys.get, raw).event
    assert (event["event"], event["code"]) == ("rejected", caught.value.code)
    return caught.value


async def evidence(hub: RunningHub, message: str) -> SignerEvidence:
    row = await hub.connection.fetchrow("select event from message where id = $1", message)
    found = await signer_evidence(hub.connection, row)
    assert found is not None
    return found
