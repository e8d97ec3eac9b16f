"""Systems of the axis's interface at a hub, and messages for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiohttp

from hub.directory import axis
from hub.directory.vault import Vault
from tests.conftest import RunningHub
from tests.support.axis_sdk import Sdk
from tests.support.edxml_messages import document, status, write
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN, Party


@dataclass
class System:
    """An endpoint that has both: the axis's interface, and the hub's own."""

    party: Party
    sdk: Sdk

    @property
    def endpoint(self) -> int:
        return self.party.id


async def add_system(
    hub: RunningHub, http: aiohttp.ClientSession, party: Party, system_id: str, utc_hours: int = 7
) -> System:
    """Let `party` speak the axis's interface; returns once this hub knows it."""
    vault = Vault.load(Path(hub.hub.config.secrets_key))
    secret = await axis.add_system(hub.connection, vault, system_id, party.name, utc_hours)
    await hub.follow()
    return System(party, Sdk(http, f"{hub.url}/vxp", system_id, secret))


@dataclass
class Axis:
    """Yên Bái's province and the district of Văn Yên, which speaks for its commune Đại Sơn too."""

    hub: RunningHub
    province: System
    district: System


async def connect(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    """Two systems at `hub`."""
    province = await hub.register("ubnd-tinh", PROVINCE, aliases={PROVINCE: ("H63",)})
    district = await hub.register("van-yen", VAN_YEN, DAI_SON)
    return Axis(
        hub,
        await add_system(hub, http, province, "yb.tinh"),
        await add_system(hub, http, district, "yb.vanyen.01"),
    )


_numbers = iter(range(1, 1_000_000))


def paper(
    *to: str, sender: str = PROVINCE, priority: str = "0", subject: str = "", content: str = "UEs="
) -> bytes:
    """An edXML document, different from all before."""
    number = next(_numbers)
    return write(
        document(
            sender=sender,
            to=tuple((code, f"Cơ quan {code}") for code in to or (VAN_YEN,)),
            document_id=f"{sender},2026/03/02,{number}/BC-UBND",
            number=str(number),
            subject=subject or f"Báo cáo phòng, chống thiên tai số {number}",
            priority=priority,
            references=(("cid:a-1", "Báo cáo.pdf"),),
            content=content,
        )
    )


def state(code: str = "03", *, sender: str = VAN_YEN, organ: str = PROVINCE, document_id: str = "") -> bytes:
    """An edXML status message, different from all before."""
    raw = write(status(code, organ=organ, more=[("X", str(next(_numbers)))]))
    raw = raw.replace(b"000.00.31.H63", sender.encode(), 1)  # in From, which comes first
    return raw.replace(b"000.00.00.H63,2017/10/02,215/BC-UBND", document_id.encode()) if document_id else raw
