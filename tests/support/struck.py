"""Two linked hubs under blows: what may befall them, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from protocol.client import HubClient
from protocol.evidence import Receipt, verify_receipt
from protocol.signature import from_jwk
from tests.support.linked import link_row
from tests.support.node import Node
from tests.support.proxy import Proxy
from tests.support.until import until

PATIENCE = 90.0


class Hubs(Protocol):
    """Both hubs, and the proxy between them."""

    nation: Node
    province: Node
    proxy: Proxy


Strike = Callable[[Hubs], Awaitable[None]]


async def province_workers(hubs: Hubs) -> None:
    hubs.province.kill_workers()


async def nation_workers(hubs: Hubs) -> None:
    hubs.nation.kill_workers()


async def connections(hubs: Hubs) -> None:
    await hubs.proxy.cut()


async def answers_lost(hubs: Hubs) -> None:
    """Requests arrive and are carried out, their answers do not come back."""
    hubs.proxy.hold()
    await until(lambda: hubs.proxy.held > 0, "somebody asked in vain", PATIENCE)
    await hubs.proxy.cut()


async def province_everything(hubs: Hubs) -> None:
    await hubs.province.kill_everything()
    await hubs.province.start()


async def both(hubs: Hubs) -> None:
    hubs.nation.kill_postgres()
    await hubs.province.kill()
    await hubs.province.start()


STRIKES = (province_workers, nation_workers, connections, answers_lost, province_everything, both)


async def link_is_empty(hubs: Hubs, away: tuple[type[Exception], ...]) -> bool:
    """Whether nothing waits at the province's link; no, too, while it cannot be asked, which raises `away`."""
    try:
        async with hubs.province.database() as connection:
            row = await link_row(connection)
        return bool(row["waiting"] == 0)
    except away:
        return False


async def check_evidence(sender: HubClient, sent: dict[str, tuple[str, bytes]]) -> None:
    """The sender can prove for each document that its hub took it, and that it went over the link.

    `sent`: by the sender's id, the hub's id and the message.
    """
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await sender.hub_keys()}
    for name, (message, raw) in sent.items():
        events = await sender.events(message)
        (delivery,) = events["deliveries"]
        assert delivery["state"] == "acknowledged"
        for receipt in (events["accepted"], delivery["receipt"]):
            proof = verify_receipt(msgspec.convert(receipt, Receipt), keys.get, raw)
            assert (proof.event["message"], proof.event["id"]) == (message, name)
