"""Agencies and endpoints of Yên Bái, as tests need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from hub.directory import change
from hub.directory.change import AgencyRow
from protocol.client import Document, HubClient, new_id
from protocol.signature import PrivateKey, Signer, generate

PROVINCE = "000.00.00.H63"
VAN_YEN = "000.00.31.H63"
LUC_YEN = "000.00.32.H63"
DAI_SON = "000.21.31.H63"

NAMES = {
    PROVINCE: "Ủy ban nhân dân tỉnh Yên Bái",
    VAN_YEN: "Ủy ban nhân dân huyện Văn Yên",
    LUC_YEN: "Ủy ban nhân dân huyện Lục Yên",
    DAI_SON: "Ủy ban nhân dân xã Đại Sơn",
}


@dataclass
class Party:
    """An endpoint with a token, a registered key, and the agencies that it speaks for."""

    name: str
    id: int
    token: str
    key: PrivateKey
    agencies: tuple[str, ...]
    signer: Signer = field(init=False)

    def __post_init__(self) -> None:
        self.signer = Signer(self.key)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def document(self, *to: str, **members: Any) -> Document:
        """A document from this party's first agency, with a fresh id unless one is given."""
        return Document(
            id=members.pop("id", None) or new_id(),
            sender=members.pop("sender", self.agencies[0]),
            to=to,
            subject=members.pop("subject", "V/v kết nối, liên thông phần mềm quản lý văn bản"),
            **members,
        )

    def client(self, url: str, **options: Any) -> HubClient:
        options.setdefault("retry_seconds", 20.0)
        return HubClient(url, self.token, key=self.key, **options)


async def register(
    connection: asyncpg.Connection, name: str, *agencies: str, aliases: dict[str, tuple[str, ...]] | None = None
) -> Party:
    """Make an endpoint and its agencies."""
    for code in agencies:
        row = AgencyRow(code, NAMES.get(code, f"Cơ quan {code}"), aliases=(aliases or {}).get(code, ()))
        await change.add_agency(connection, row)
    endpoint = await change.add_endpoint(connection, name, agencies)
    key = generate("ES256")
    await change.add_key(connection, key.public_key(), endpoint=name)
    token = await change.issue_token(connection, endpoint=name)
    return Party(name, endpoint, token, key, agencies)
