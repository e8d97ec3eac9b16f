"""Secrets of the axis's systems: two valid at a time, sealed in the database, shut out and let in."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from hub.directory import axis as systems
from hub.directory import change
from hub.directory.change import DirectoryError
from hub.directory.vault import Vault, VaultError
from hub.evidence.keys import make_hub_key
from protocol.signature import generate
from tests.conftest import RunningHub, StartHub
from tests.integration.test_vxp_auth import list_call, refused
from tests.support.axis_parties import Axis, connect, paper
from tests.support.axis_sdk import Sdk, SdkError
from tests.support.parties import PROVINCE, VAN_YEN


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


async def test_the_newest_two_secrets_are_valid(axis: Axis) -> None:
    sdk = axis.province.sdk
    vault = Vault.load(axis.hub.hub.config.secrets_key)

    async def rotate(keep: bool = True) -> str:
        secret = await systems.new_secret(axis.hub.connection, vault, sdk.system_id, keep=keep)
        await axis.hub.follow()
        return secret

    async def valid(*secrets: str) -> list[bool]:
        answers = [await list_call(Sdk(sdk.session, sdk.endpoint, sdk.system_id, secret)) for secret in secrets]
        return [answer.result()["status"] == "OK" for answer in answers]

    first = sdk.secret
    second = await rotate()
    assert await valid(first, second) == [True, True]
    third = await rotate()
    assert await valid(first, second, third) == [False, True, True]
    fourth = await rotate(keep=False)
    assert await valid(second, third, fourth) == [False, False, True]
    assert len({first, second, third, fourth}) == 4 and all(len(secret) >= 43 for secret in (first, second))


async def test_a_system_or_its_endpoint_that_is_shut_out(axis: Axis) -> None:
    doc_id = await axis.province.sdk.send_edoc(paper(VAN_YEN), PROVINCE)
    sdk, connection = axis.district.sdk, axis.hub.connection
    for shut, let_in in (
        (systems.set_system_active, systems.set_system_active),
        (change.set_endpoint_active, change.set_endpoint_active),
    ):
        name = sdk.system_id if shut is systems.set_system_active else "van-yen"
        await shut(connection, name, False)
        await axis.hub.follow()
        await refused(await list_call(sdk), "54")
        await let_in(connection, name, True)
        await axis.hub.follow()
        assert [entry["docId"] for entry in await sdk.get_received_edoc_list()] == [doc_id], "its mail has waited"


async def test_the_database_alone_does_not_give_the_secret(axis: Axis, tmp_path: Path) -> None:
    secret = axis.province.sdk.secret
    rows = await axis.hub.connection.fetch("select system_id, secret from axis_system order by system_id")
    assert all(secret.encode() not in row["secret"] for row in rows)
    text = await axis.hub.connection.fetchval("select string_agg(x::text, ' ') from axis_system x")
    assert secret not in text
    vault = Vault.load(axis.hub.hub.config.secrets_key)
    tinh, vanyen = rows
    assert vault.open("yb.tinh", tinh["secret"]) == secret.encode()
    with pytest.raises(VaultError, match="altered"):
        vault.open("yb.tinh", vanyen["secret"])
    for place in range(len(tinh["secret"])):
        bent = bytearray(tinh["secret"])
        bent[place] ^= 1
        with pytest.raises(VaultError):
            vault.open("yb.tinh", bytes(bent))
    with pytest.raises(VaultError, match="another key"):
        Vault(generate("EdDSA")).open("yb.tinh", tinh["secret"])
    for short in (b"", b"\x01", tinh["secret"][:20]):
        with pytest.raises(VaultError):
            vault.open("yb.tinh", short)


async def test_nodes_need_the_same_key(start_hub: StartHub, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    shared = tmp_path / "secrets.pem"
    make_hub_key(shared)
    first = await start_hub(data_dir=str(tmp_path / "a"), secrets_key_file=str(shared))
    axis = await connect(first, http)
    for node, code in (
        (await start_hub(data_dir=str(tmp_path / "b"), secrets_key_file=str(shared)), "0"),
        (await start_hub(data_dir=str(tmp_path / "c")), "20"),
    ):
        sdk = Sdk(http, f"{node.url}/vxp", "yb.tinh", axis.province.sdk.secret)
        answer = await list_call(sdk)
        assert answer.result()["ErrorCode"] == code
        if code == "20":
            assert "cannot read the system's secret" in await refused(answer, "20")


@pytest.mark.parametrize("system_id", ["", "yb tinh", "yb;tinh", "-yb", "ỷb", "y" * 65, "yb\n"])
async def test_system_ids_that_are_none(hub: RunningHub, system_id: str) -> None:
    await hub.register("ubnd-tinh", PROVINCE)
    vault = Vault(generate("EdDSA"))
    with pytest.raises(DirectoryError, match="not a system id"):
        await systems.add_system(hub.connection, vault, system_id, "ubnd-tinh", 7)
    with pytest.raises(DirectoryError, match="no endpoint"):
        await systems.add_system(hub.connection, vault, "yb.tinh", "khong-co", 7)
    for call in (
        systems.new_secret(hub.connection, vault, "yb.khac", keep=True),
        systems.set_system_active(hub.connection, "yb.khac", False),
    ):
        with pytest.raises(DirectoryError, match="no system"):
            await call


async def test_a_system_is_made_once(axis: Axis) -> None:
    with pytest.raises(DirectoryError, match="already"):
        await systems.add_system(axis.hub.connection, Vault(generate("EdDSA")), "yb.tinh", "van-yen", 7)
    assert await axis.province.sdk.get_received_edoc_list() == []


async def test_it_counts_as_seen(axis: Axis) -> None:
    axis.hub.hub.gate.seen.clear()
    with pytest.raises(SdkError):
        await axis.province.sdk.get_edoc("1")
    assert set(axis.hub.hub.gate.seen) == {axis.province.endpoint}
