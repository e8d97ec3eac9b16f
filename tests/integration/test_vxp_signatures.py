"""A system of the axis whose package signatures are required: documents and statuses alike."""

from __future__ import annotations

import re

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes

from hub.directory import change
from protocol.edxml.xmldsig import Policy
from tests.conftest import RunningHub
from tests.support.axis_parties import connect, paper, state
from tests.support.axis_sdk import SdkError
from tests.support.edxml_signed import clerk, signed
from tests.support.parties import PROVINCE, VAN_YEN


async def test_documents_and_statuses_must_be_signed(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(hub, http)
    pin = clerk().certificate.fingerprint(hashes.SHA256()).hex()
    await change.set_package_signatures(hub.connection, axis.district.party.name, Policy.REQUIRE, [pin])
    await hub.follow()
    sdk = axis.district.sdk
    document = re.sub(
        rb"\s*<edXML:Signature>.*?</edXML:Signature>", b"", paper(PROVINCE, sender=VAN_YEN), flags=re.S
    )
    for raw, kind in [(document, "edoc"), (state(), "status")]:
        good = signed(raw)
        for refused in (raw, good.replace(b"H63", b"H63 ", 1)):
            with pytest.raises(SdkError) as caught:
                await sdk.send_edoc(refused, VAN_YEN, kind)
            assert caught.value.code == "60"
            assert "package signature" in caught.value.description
        await sdk.send_edoc(good, VAN_YEN, kind)
        assert await axis.province.sdk.receive(kind) == [good]
    # Whoever has no such policy goes on as before, dummies and all.
    await axis.province.sdk.send_edoc(paper(), PROVINCE)
