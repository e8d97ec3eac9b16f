"""Two hubs: a province's, and the nation's that it is linked with."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from hub.couriers import link, link_health
from hub.directory import axis, change, links
from hub.directory.change import AgencyRow
from hub.directory.links import NewLink
from hub.directory.vault import Vault
from tests.support.axis_sdk import Sdk
from tests.support.parties import DAI_SON, NAMES, PROVINCE, VAN_YEN, Party, register

GOVERNMENT_OFFICE = "000.00.00.G22"
FINANCE = "000.00.00.G12"
SYSTEM = "yb.truc"
UP = "truc-quoc-gia"
NATIONAL = {GOVERNMENT_OFFICE: "Văn phòng Chính phủ", FINANCE: "Bộ Tài chính"}
BRANCH = (PROVINCE, VAN_YEN, DAI_SON)


@dataclass
class Province:
    """What is connected to the province's hub: a district's system, and a commune that speaks natively."""

    district: Party
    commune: Party


async def make_nation(connection: asyncpg.Connection, key_file: Path) -> tuple[str, str]:
    """The nation's directory: the Government Office and the province are systems of the axis there.

    Gives the secrets of the Government Office's system and of the province's (`SYSTEM`).
    """
    vault = Vault.load(key_file)
    await register(connection, "vpcp", GOVERNMENT_OFFICE)
    await register(connection, "btc", FINANCE)
    await register(connection, "tinh-yen-bai", *BRANCH)
    office = await axis.add_system(connection, vault, "vpcp.01", "vpcp", 7)
    return office, await axis.add_system(connection, vault, SYSTEM, "tinh-yen-bai", 7)


async def make_province(
    connection: asyncpg.Connection, key_file: Path, url: str, secret: str, **options: Any
) -> Province:
    """The province's directory, with a default link to the peer at `url` (which ends in ``/vxp``)."""
    await change.add_agency(connection, AgencyRow(PROVINCE, NAMES[PROVINCE]))
    district = await register(connection, "van-yen", VAN_YEN)
    commune = await register(connection, "dai-son", DAI_SON)
    options = {"poll_seconds": 0.2, "retry_seconds": 0.5, "sync_seconds": 0.0, "default": True} | options
    await links.add_link(
        connection, Vault.load(key_file), NewLink(UP, url, SYSTEM, (PROVINCE,), **options), secret
    )
    return Province(district, commune)


def office_sdk(session: aiohttp.ClientSession, url: str, secret: str) -> Sdk:
    """The Government Office's document system, at the nation's hub."""
    return Sdk(session, f"{url}/vxp", "vpcp.01", secret)


async def link_row(connection: asyncpg.Connection, name: str = UP) -> asyncpg.Record:
    """What `lienthong link show` reads."""
    (row,) = await connection.fetch(links.SQL.list_links, name)
    return row


@contextlib.contextmanager
def impatient() -> Any:
    """Couriers in this process look about ten times as often."""
    before = link.LOOK_SECONDS, link.LOCK_SECONDS, link_health.FIRST_SECONDS
    link.LOOK_SECONDS, link.LOCK_SECONDS, link_health.FIRST_SECONDS = 0.05, 0.1, 0.05
    try:
        yield
    finally:
        link.LOOK_SECONDS, link.LOCK_SECONDS, link_health.FIRST_SECONDS = before
