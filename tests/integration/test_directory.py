"""The directory: who may speak for whom, and how soon every process knows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest

from hub.directory import change
from hub.directory.change import AgencyRow, DirectoryError, read_csv
from protocol.client import HubClient
from protocol.problems import Problem
from protocol.signature import Signer, generate, thumbprint
from tests.conftest import RunningHub, StartHub
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, LUC_YEN, PROVINCE, VAN_YEN

FOLLOW_SECONDS = 30.0


async def refused(client: HubClient, message: bytes) -> str:
    with pytest.raises(Problem) as caught:
        await client.submit(message)
    return caught.value.code


async def rows(connection: asyncpg.Connection, statement: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(statement)]


# -- what a running hub makes of a change -------------------------------------------------------------


async def test_a_change_reaches_every_process_by_itself(start_hub: StartHub) -> None:
    """Nobody asks the hubs to look: the announcement, or the look every second, brings it."""
    hubs = [await start_hub() for _ in range(2)]
    connection = hubs[0].connection
    for number in range(3):
        await change.add_agency(connection, AgencyRow(f"H63.{number}", f"Phòng số {number}"))
        revision = await connection.fetchval("select max(revision) from agency")
        async with asyncio.timeout(FOLLOW_SECONDS):
            await asyncio.gather(*(hub.hub.directory.reached(revision) for hub in hubs))
        for hub in hubs:
            found = hub.hub.directory.picture.agency(f"H63.{number}")
            assert found is not None
            assert found.name == f"Phòng số {number}"


async def test_a_change_arrives_without_its_announcement_too(start_hub: StartHub) -> None:
    hub = await start_hub()
    revision = await hub.connection.fetchval("select nextval('directory_revision')")
    await hub.connection.execute(
        "insert into agency (code, name, revision) values ('H63', 'Tỉnh Yên Bái', $1)", revision
    )
    async with asyncio.timeout(FOLLOW_SECONDS):
        await hub.hub.directory.reached(revision)
    assert hub.hub.directory.picture.agency("H63") is not None


async def test_the_mail_of_a_disabled_endpoint_waits(pair: Pair) -> None:
    (message,) = await pair.send("normal")
    await change.set_endpoint_active(pair.hub.connection, "van-yen", False)
    await pair.hub.follow()
    with pytest.raises(Problem) as caught:
        await pair.receiver.read()
    assert caught.value.code == "forbidden"
    assert await refused(pair.sender, pair.sender.sign(pair.province.document(VAN_YEN))) == "recipient-unknown"
    await change.set_endpoint_active(pair.hub.connection, "van-yen", True)
    await pair.hub.follow()
    assert [entry.id for entry in await pair.page()] == [message]


async def test_an_agency_that_changes_endpoints_takes_new_mail_along(pair: Pair) -> None:
    other = await pair.hub.register("luc-yen", LUC_YEN)
    old = await pair.sender.send(pair.province.document(DAI_SON))
    await change.assign(pair.hub.connection, "luc-yen", [DAI_SON])
    await pair.hub.follow()
    new = await pair.sender.send(pair.province.document(DAI_SON))
    async with other.client(pair.hub.url) as third:
        assert [entry.id for entry in (await third.read())[0]] == [new.id]
        assert not (await third.send(other.document(PROVINCE, sender=DAI_SON))).duplicate
    assert [entry.id for entry in await pair.page()] == [old.id]
    message = pair.receiver.sign(pair.district.document(PROVINCE, sender=DAI_SON))
    assert await refused(pair.receiver, message) == "from-not-yours"


async def test_keys_come_and_go(pair: Pair) -> None:
    key = generate("EdDSA")
    signer = Signer(key)

    def message() -> bytes:
        return signer.sign(orjson.dumps({"id": "k-1", "from": PROVINCE, "to": [VAN_YEN]}))

    assert await refused(pair.sender, message()) == "unknown-key"
    now = datetime.now(UTC)
    kid = await change.add_key(pair.hub.connection, key.public_key(), endpoint="ubnd-tinh")
    assert kid == thumbprint(key.public_key())
    await pair.hub.follow()
    assert not (await pair.sender.submit(message())).duplicate
    await change.disable_key(pair.hub.connection, kid)
    await pair.hub.follow()
    assert await refused(pair.sender, message()) == "key-disabled"
    await change.add_key(
        pair.hub.connection, key.public_key(), endpoint="ubnd-tinh", not_after=now + timedelta(hours=1)
    )
    await pair.hub.follow()
    assert (await pair.sender.submit(message())).duplicate
    with pytest.raises(DirectoryError, match="somebody else"):
        await change.add_key(pair.hub.connection, key.public_key(), endpoint="van-yen")
    with pytest.raises(DirectoryError, match="no key"):
        await change.disable_key(pair.hub.connection, "khong-co")


async def test_a_key_from_a_certificate_is_found_by_its_thumbprint(pair: Pair) -> None:
    key = generate("ES256")
    await change.add_key(pair.hub.connection, key.public_key(), endpoint="ubnd-tinh", x5t="dau-van-tay")
    await pair.hub.follow()
    payload = orjson.dumps({"id": "x-1", "from": PROVINCE, "to": [VAN_YEN]})
    signer = Signer(key, kid="x5t:dau-van-tay")
    assert not (await pair.sender.submit(signer.sign(payload))).duplicate


async def test_two_tokens_are_valid_at_a_time(pair: Pair) -> None:
    tokens = [pair.province.token]
    for _ in range(2):
        tokens.append(await change.issue_token(pair.hub.connection, endpoint="ubnd-tinh"))
    await pair.hub.follow()
    assert [await works(pair.hub, token) for token in tokens] == [False, True, True]
    only = await change.issue_token(pair.hub.connection, endpoint="ubnd-tinh", keep=1)
    await pair.hub.follow()
    assert [await works(pair.hub, token) for token in [*tokens, only]] == [False, False, False, True]
    assert await change.revoke_credentials(pair.hub.connection, "ubnd-tinh") == 1
    await pair.hub.follow()
    assert not await works(pair.hub, only)
    assert await works(pair.hub, pair.district.token)
    kept = await pair.hub.connection.fetch("select hash from credential")
    assert all(len(row["hash"]) == 32 for row in kept)
    assert not any(token.encode() in bytes(row["hash"]) for row in kept for token in tokens)


async def works(hub: RunningHub, token: str) -> bool:
    async with HubClient(hub.url, token, retry_seconds=0) as client:
        try:
            await client.read()
        except Problem as problem:
            assert problem.code == "unauthenticated"
            return False
    return True


# -- changing it --------------------------------------------------------------------------------------


async def test_an_agency_is_added_and_changed(connection: asyncpg.Connection) -> None:
    await change.add_endpoint(connection, "van-yen")
    await change.add_agency(
        connection, AgencyRow(VAN_YEN, "Huyện Văn Yên", aliases=("H63.31",), endpoint="van-yen")
    )
    await change.add_agency(connection, AgencyRow("H63.31.02", "Xã Mỏ Vàng"))
    await change.add_agency(connection, AgencyRow("la.1", "Không có cấp trên", parent="H63"))
    found = "select code, name, parent, aliases, endpoint is not null from agency order by code"
    assert await rows(connection, found) == [
        (VAN_YEN, "Huyện Văn Yên", PROVINCE, ["H63.31"], True),
        ("H63.31.02", "Xã Mỏ Vàng", "H63.31", [], False),
        ("la.1", "Không có cấp trên", "H63", [], False),
    ]
    # A change without an endpoint leaves the one it has.
    await change.add_agency(connection, AgencyRow(VAN_YEN, "Ủy ban nhân dân huyện Văn Yên"))
    assert (await rows(connection, found))[0] == (VAN_YEN, "Ủy ban nhân dân huyện Văn Yên", PROVINCE, [], True)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (AgencyRow("Văn Yên", "Văn Yên"), "not an identity code"),
        (AgencyRow("", "Văn Yên"), "not an identity code"),
        (AgencyRow("A" * 36, "Văn Yên"), "not an identity code"),
        (AgencyRow("A", ""), "printable"),
        (AgencyRow("A", "Văn\nYên"), "printable"),
        (AgencyRow("A", "x" * 501), "1 to 500"),
        (AgencyRow("A", "Văn Yên", parent="tỉnh"), "not an identity code"),
        (AgencyRow("A", "Văn Yên", aliases=("a b",)), "not an identity code"),
        (AgencyRow("A", "Văn Yên", endpoint="khong-co"), "lienthong endpoint add"),
        (AgencyRow("A", "Văn Yên", aliases=("H63",)), "already names the agency " + PROVINCE),
        (AgencyRow("H63", "Tỉnh khác"), "already names the agency " + PROVINCE),
    ],
)
async def test_agencies_that_cannot_be(connection: asyncpg.Connection, row: AgencyRow, says: str) -> None:
    await change.add_agency(connection, AgencyRow(PROVINCE, "Tỉnh Yên Bái", aliases=("H63",)))
    with pytest.raises(DirectoryError, match=says):
        await change.add_agency(connection, row)
    assert await rows(connection, "select code from agency") == [(PROVINCE,)]


@pytest.mark.parametrize("name", ["", " van-yen", "van\nyen", "x" * 101])
async def test_endpoints_that_cannot_be(connection: asyncpg.Connection, name: str) -> None:
    with pytest.raises(DirectoryError, match="printable"):
        await change.add_endpoint(connection, name)
    assert await rows(connection, "select name from endpoint") == []


async def test_an_endpoint_is_made_whole_or_not_at_all(connection: asyncpg.Connection) -> None:
    await change.add_agency(connection, AgencyRow(VAN_YEN, "Huyện Văn Yên"))
    with pytest.raises(DirectoryError, match="KHONG"):
        await change.add_endpoint(connection, "van-yen", [VAN_YEN, "KHONG.CO"])
    assert (
        await rows(connection, "select * from endpoint") == await rows(connection, "select * from mailbox") == []
    )
    await change.add_endpoint(connection, "van-yen", [VAN_YEN])
    assert len(await rows(connection, "select * from mailbox")) == 3
    with pytest.raises(DirectoryError, match="already"):
        await change.add_endpoint(connection, "van-yen")
    for attempt in (
        change.set_endpoint_active(connection, "khong-co", False),
        change.assign(connection, "khong-co", [VAN_YEN]),
        change.issue_token(connection, endpoint="khong-co"),
        change.revoke_credentials(connection, "khong-co"),
        change.add_key(connection, generate("EdDSA").public_key(), endpoint="khong-co"),
    ):
        with pytest.raises(DirectoryError, match="khong-co"):
            await attempt


@pytest.mark.parametrize(("name", "members"), [("so nganh", [VAN_YEN]), ("so-nganh", ["Văn Yên"])])
async def test_groups_that_cannot_be(connection: asyncpg.Connection, name: str, members: list[str]) -> None:
    with pytest.raises(DirectoryError):
        await change.put_group(connection, name, members)
    assert await rows(connection, "select * from recipient_group") == []


# -- importing ----------------------------------------------------------------------------------------


async def test_twelve_thousand_agencies_are_imported_and_can_be_written_to(hub: RunningHub) -> None:
    """More than two batches of the import, and more than the follower takes between two looks."""
    lines = ["code,name,parent,aliases,endpoint", "000.00.00.H63,Tỉnh Yên Bái,,H63,ubnd-tinh"]
    for number in range(1, 12_001):
        code = f"{number // 100:03}.{number % 100:02}.01.H63"
        lines.append(f"{code},Cơ quan số {number},000.00.01.H63,{f'H63.1.{number}'},mang-{number % 7}")
    seen: list[int] = []
    text = "\n".join(lines)
    agencies, endpoints = await change.import_agencies(hub.connection, read_csv(text), seen.append)
    assert (agencies, endpoints) == (12_001, 8)
    assert seen == [5_000, 10_000, 12_001]
    await hub.follow()
    picture = hub.hub.directory.picture
    assert len(picture.agencies) == 12_001
    found = picture.agency("H63.1.4321")
    assert found is not None
    assert (found.code, found.name) == ("043.21.01.H63", "Cơ quan số 4321")
    assert sum(1 for _ in picture.below("000.00.01.H63")) == 12_000
    token = await change.issue_token(hub.connection, endpoint="ubnd-tinh")
    key = generate("ES256")
    await change.add_key(hub.connection, key.public_key(), endpoint="ubnd-tinh")
    await hub.follow()
    async with HubClient(hub.url, token, key=key) as sender:
        to = [f"H63.1.{number}" for number in range(1, 301)]
        message = Signer(key).sign(orjson.dumps({"id": "7", "from": "H63", "to": to}))
        sent = await sender.submit(message)
        assert orjson.loads(sent.receipt.event)["recipients"] == 300
        assert len((await sender.events(sent.id))["deliveries"]) == 7
    # The same file again changes nothing but the revision.
    assert await change.import_agencies(hub.connection, list(read_csv(text))) == (12_001, 0)
    await hub.follow()
    assert hub.hub.directory.picture.agencies == picture.agencies


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("H63.1,Phòng một\nH63.1,Phòng hai\n", "H63.1 stands twice"),
        ("H63.1,Phòng một,H63.9\nH63.2,Phòng hai,H63.9\n", "H63.9 stands twice"),
        ("H63.1,Phòng một,H63.2\nH63.2,Phòng hai\n", "H63.2 stands twice"),
        ("H63.1,Phòng một\nH63 2,Phòng hai\n", "line 3"),
        ("H63.1,Phòng một\nH63.2\n", "line 3"),
    ],
)
async def test_an_import_is_all_or_nothing(connection: asyncpg.Connection, lines: str, says: str) -> None:
    with pytest.raises(DirectoryError, match=says):
        await change.import_agencies(connection, read_csv("code,name,aliases\n" + lines))
    assert await rows(connection, "select * from agency") == []
    await change.add_agency(connection, AgencyRow("H63", "Tỉnh Yên Bái"))


async def test_an_import_may_not_take_what_names_another(connection: asyncpg.Connection) -> None:
    await change.add_agency(connection, AgencyRow(PROVINCE, "Tỉnh Yên Bái", aliases=("H63",)))
    with pytest.raises(DirectoryError, match="already names the agency " + PROVINCE):
        await change.import_agencies(connection, [AgencyRow("G22", "Văn phòng", aliases=("H63",))])
    assert await rows(connection, "select code from agency") == [(PROVINCE,)]


async def test_an_alias_changes_hands_in_one_import(hub: RunningHub) -> None:
    await change.import_agencies(
        hub.connection, [AgencyRow("A.1", "Một", aliases=("X",)), AgencyRow("A.2", "Hai", aliases=("Y",))]
    )
    await hub.follow()
    for one, other in ((("Y",), ("X",)), (("X",), ("Y",))):
        text = f"code,name,aliases\nA.1,Một,{one[0]}\nA.2,Hai,{other[0]}\n"
        await change.import_agencies(hub.connection, list(read_csv(text)))
        await hub.follow()
        picture = hub.hub.directory.picture
        assert {picture.aliases[one[0]], picture.aliases[other[0]]} == {"A.1", "A.2"}
        assert picture.aliases[one[0]] == "A.1"
