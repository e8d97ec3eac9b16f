"""The directory through the axis's interface: listed whole, changed within the caller's own branch."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub.directory import axis as systems
from hub.directory import change
from hub.directory.axis import Change, NotAllowedError
from hub.directory.change import AgencyRow, DirectoryError
from hub.doors.vxp_agencies import AgencyLists
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import Axis, connect, paper
from tests.support.axis_sdk import SdkError
from tests.support.parties import DAI_SON, LUC_YEN, NAMES, PROVINCE, VAN_YEN

NEW = "000.00.55.H63"
AGENCY = {"code": NEW, "name": "Sở Thông tin và Truyền thông", "pcode": PROVINCE}


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


@pytest.fixture
async def open_axis(start_hub: StartHub, http: aiohttp.ClientSession) -> Axis:
    """At a hub that carries out what systems ask for."""
    return await connect(await start_hub(axis_registration="allow"), http)


# -- lists ------------------------------------------------------------------------------------------


async def test_the_whole_directory(axis: Axis) -> None:
    """Active agencies, whoever speaks for them, also for nobody."""
    connection = axis.hub.connection
    await change.add_agency(connection, AgencyRow("000.00.00.G22", 'Văn phòng "Chính phủ"'))
    await change.add_agency(connection, AgencyRow("H63.99", "Cơ quan đã giải thể", PROVINCE))
    closed = "update agency set active = false, revision = nextval('directory_revision') where code = 'H63.99'"
    await connection.execute(closed)
    await connection.execute("update agency set mail = 'vt@yenbai.gov.vn' where code = $1", PROVINCE)
    await axis.hub.follow()
    found = {agency["code"]: agency for agency in await axis.province.sdk.get_agencies_list()}
    assert set(found) == {PROVINCE, VAN_YEN, DAI_SON, "000.00.00.G22"}
    assert found[VAN_YEN] == {
        "id": VAN_YEN,
        "pid": PROVINCE,
        "code": VAN_YEN,
        "name": NAMES[VAN_YEN],
        "mail": "",
    }
    assert found["000.00.00.G22"]["name"] == 'Văn phòng "Chính phủ"'
    assert {agency["pid"] for agency in found.values()} == {"", PROVINCE, VAN_YEN}
    assert axis.district.sdk.system_id and found == {
        agency["code"]: agency for agency in await axis.district.sdk.get_agencies_list()
    }


async def test_both_codes_and_levels(axis: Axis) -> None:
    connection = axis.hub.connection
    for row in (
        AgencyRow(VAN_YEN, NAMES[VAN_YEN], aliases=("H63.31",)),
        AgencyRow("H63.77", "Trung tâm Chuyển đổi số", PROVINCE),
        AgencyRow("vxp.saas.03", "Hệ thống thử nghiệm"),
    ):
        await change.add_agency(connection, row)
    await axis.hub.follow()
    sdk = axis.province.sdk
    everything = {agency["id"]: agency for agency in await sdk.get_agencies_list_qd20("0")}
    assert everything[PROVINCE] == {
        "id": PROVINCE,
        "pid": "",
        "code": "H63",
        "name": NAMES[PROVINCE],
        "mail": "",
        "oldCode": PROVINCE,
        "code102": PROVINCE,
    }
    codes = {id_: (agency["code"], agency["code102"]) for id_, agency in everything.items()}
    assert codes == {
        PROVINCE: ("H63", PROVINCE),
        VAN_YEN: ("H63.31", VAN_YEN),
        DAI_SON: (DAI_SON, DAI_SON),
        "H63.77": ("H63.77", ""),
        "vxp.saas.03": ("vxp.saas.03", ""),
    }
    levels = {level: [a["id"] for a in await sdk.get_agencies_list_qd20(str(level))] for level in (1, 2, 3, 4)}
    assert {level: sorted(ids) for level, ids in levels.items()} == {
        1: sorted([PROVINCE, "vxp.saas.03"]),
        2: sorted([VAN_YEN, "H63.77"]),
        3: [DAI_SON],
        4: [],
    }
    assert await sdk.get_agencies_list_qd20("") == list(everything.values())


async def test_a_circle_in_the_tree_ends(axis: Axis) -> None:
    for code, parent in (("C1", "C2"), ("C2", "C3"), ("C3", "C1")):
        await change.add_agency(axis.hub.connection, AgencyRow(code, f"Vòng {code}", parent))
    await axis.hub.follow()
    found = [agency["id"] for agency in await axis.province.sdk.get_agencies_list_qd20("0")]
    assert {"C1", "C2", "C3"} <= set(found)
    for level in range(21):
        await axis.province.sdk.get_agencies_list_qd20(str(level))


async def test_as_many_agencies_as_the_nation_has(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """111,000 of them: made once, in small steps, and given to everybody."""
    rows = [(f"001.{n // 1000:03}.{n % 1000:03}.X01", f"Ủy ban nhân dân xã số {n}") for n in range(111_000)]
    await axis.hub.connection.execute(
        "insert into agency (code, name, parent, revision) select c, n, $3, nextval('directory_revision')"
        " from unnest($1::text[], $2::text[]) r(c, n)",
        *zip(*rows, strict=True),
        PROVINCE,
    )
    await axis.hub.follow()
    steps: list[float] = []
    original = asyncio.sleep

    async def counted(seconds: float, *arguments: Any) -> None:
        steps.append(seconds)
        await original(seconds, *arguments)

    made = 0
    make = AgencyLists._make

    async def making(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return await make(*arguments)

    monkeypatch.setattr(AgencyLists, "_make", staticmethod(making))
    monkeypatch.setattr("hub.doors.vxp_agencies.asyncio.sleep", counted)
    lists = await asyncio.gather(*(axis.province.sdk.get_agencies_list() for _ in range(4)))
    assert [len(found) for found in lists] == [111_003] * 4
    assert {agency["code"] for agency in lists[0]} >= {PROVINCE, "001.110.999.X01"}
    assert made == 1, "four callers at once, one list"
    assert steps.count(0) >= 100, "other requests have their turn in between"
    assert len(await axis.province.sdk.get_agencies_list_qd20("2")) == 111_001
    await change.add_agency(axis.hub.connection, AgencyRow(NEW, "Sở mới"))
    await axis.hub.follow()
    assert len(await axis.district.sdk.get_agencies_list()) == 111_004


# -- registering and deleting -----------------------------------------------------------------------


async def state_of(axis: Axis, code: str) -> tuple[Any, ...] | None:
    row = await axis.hub.connection.fetchrow(
        "select a.name, a.parent, e.name, a.mail, a.active from agency a left join endpoint e on e.id = a.endpoint"
        " where a.code = $1",
        code,
    )
    return row and tuple(row)


async def waiting(axis: Axis) -> list[int]:
    rows = await axis.hub.connection.fetch("select id from axis_request where state = 'waiting' order by id")
    return [row["id"] for row in rows]


async def test_a_registration_waits_for_the_operator(axis: Axis) -> None:
    sdk = axis.province.sdk
    agency = AGENCY | {"mail": "vt@yenbai.gov.vn", "mobile": "0912000001", "fax": "0216000000"}
    answer = await sdk.register_agency(**agency)
    told = "waits for the approval of the hub's operator"
    assert answer == {"status": "OK", "ErrorCode": "0", "ErrorDesc": told}
    assert await sdk.register_agency(**agency) == answer, "asked again it is the same request"
    (number,) = await waiting(axis)
    assert await state_of(axis, NEW) is None
    with pytest.raises(SdkError) as caught:
        await sdk.send_edoc(paper(VAN_YEN, sender=NEW), NEW)
    assert caught.value.code == "19"
    done = await systems.decide(axis.hub.connection, number, True)
    assert (done.kind, done.code, done.mobile) == ("register", NEW, "0912000001")
    await axis.hub.follow()
    assert await state_of(axis, NEW) == (AGENCY["name"], PROVINCE, "ubnd-tinh", "vt@yenbai.gov.vn", True)
    listed = {found["code"]: found["mail"] for found in await sdk.get_agencies_list()}
    assert listed[NEW] == "vt@yenbai.gov.vn"
    doc_id = await sdk.send_edoc(paper(VAN_YEN, sender=NEW), NEW)
    assert [entry["docId"] for entry in await axis.district.sdk.get_received_edoc_list()] == [doc_id]
    with pytest.raises(DirectoryError, match=f"no request {number} waits"):
        await systems.decide(axis.hub.connection, number, True)


async def test_a_registration_that_the_operator_rejects(axis: Axis) -> None:
    sdk = axis.province.sdk
    await sdk.register_agency(**AGENCY)
    (number,) = await waiting(axis)
    await systems.decide(axis.hub.connection, number, False)
    assert await state_of(axis, NEW) is None and await waiting(axis) == []
    await sdk.register_agency(**AGENCY)
    assert len(await waiting(axis)) == 1, "it may ask again"


async def test_of_two_requests_about_one_agency_the_later_counts(axis: Axis) -> None:
    sdk = axis.province.sdk
    await sdk.register_agency(**AGENCY)
    await sdk.register_agency(**AGENCY | {"name": "Sở Khoa học và Công nghệ"})
    (number,) = await waiting(axis)
    await systems.decide(axis.hub.connection, number, True)
    assert (await state_of(axis, NEW) or ())[0] == "Sở Khoa học và Công nghệ"
    await axis.hub.follow()
    await sdk.delete_agency(NEW)
    (number,) = await waiting(axis)
    assert (await state_of(axis, NEW) or ())[-1] is True, "deleting waits too"
    await systems.decide(axis.hub.connection, number, True)
    assert (await state_of(axis, NEW) or ())[-1] is False


async def test_a_hub_that_carries_it_out(open_axis: Axis) -> None:
    axis, sdk = open_axis, open_axis.district.sdk
    xa = {"code": "000.25.31.H63", "name": "Ủy ban nhân dân xã Yên Thái", "pcode": VAN_YEN}
    assert (await sdk.register_agency(**xa))["ErrorDesc"] == ""
    assert await state_of(axis, xa["code"]) == (xa["name"], VAN_YEN, "van-yen", "", True)
    doc_id = await axis.province.sdk.send_edoc(paper(xa["code"]), PROVINCE)
    assert [entry["to"] for entry in await sdk.get_received_edoc_list()] == [xa["code"]]
    assert (await sdk.delete_agency(xa["code"]))["status"] == "OK"
    assert (await state_of(axis, xa["code"]) or ())[-1] is False
    with pytest.raises(SdkError) as caught:
        await axis.province.sdk.send_edoc(paper(xa["code"]), PROVINCE)
    assert caught.value.code == "23"
    assert [entry["docId"] for entry in await sdk.get_received_edoc_list()] == [doc_id], "what came before stays"
    await sdk.register_agency(**xa | {"name": "UBND xã Yên Thái"})
    assert await state_of(axis, xa["code"]) == ("UBND xã Yên Thái", VAN_YEN, "van-yen", "", True)


async def test_the_unit_above_is_read_from_the_code(open_axis: Axis) -> None:
    await open_axis.district.sdk.register_agency(code="000.26.31.H63", name="UBND xã Mậu Đông", pcode="")
    assert (await state_of(open_axis, "000.26.31.H63") or ())[1] == VAN_YEN
    with pytest.raises(SdkError, match="pcode is missing") as caught:
        await open_axis.district.sdk.register_agency(code="vxp.saas.04", name="Không rõ", pcode="")
    assert caught.value.code == "56"


async def test_the_unit_above_may_be_named_by_an_alias(open_axis: Axis) -> None:
    await open_axis.province.sdk.register_agency(**AGENCY | {"pcode": "H63"})
    assert (await state_of(open_axis, NEW) or ())[1] == PROVINCE


MAY_NOT = [
    ({"code": NEW, "name": "Sở", "pcode": PROVINCE}, "branch"),
    ({"code": NEW, "name": "Sở", "pcode": "000.00.00.G22"}, "branch"),
    ({"code": PROVINCE, "name": "Tỉnh giả", "pcode": VAN_YEN}, "another system"),
    ({"code": "H63", "name": "Tỉnh giả", "pcode": VAN_YEN}, "another code"),
    ({"code": VAN_YEN, "name": "Huyện", "pcode": DAI_SON}, "branch"),
    ({"code": VAN_YEN, "name": "Huyện", "pcode": VAN_YEN}, "branch"),
    ({"code": "", "name": "Xã", "pcode": VAN_YEN}, "identity code"),
    ({"code": "mã có dấu", "name": "Xã", "pcode": VAN_YEN}, "identity code"),
    ({"code": "000.25.31.H63", "name": "", "pcode": VAN_YEN}, "name"),
    ({"code": "000.25.31.H63", "name": "x" * 501, "pcode": VAN_YEN}, "name"),
    ({"code": "000.25.31.H63", "name": "Xã\nAn", "pcode": VAN_YEN}, "name"),
    ({"code": "000.25.31.H63", "name": "Xã", "pcode": "x" * 40}, "identity code"),
    ({"code": "000.25.31.H63", "name": "Xã", "pcode": VAN_YEN, "fax": "1" * 201}, "fax"),
]


async def test_what_a_system_may_not_register(open_axis: Axis) -> None:
    """The district speaks for itself and the commune below it."""
    before = await open_axis.hub.connection.fetch("select * from agency order by code")
    for agency, why in MAY_NOT:
        with pytest.raises(SdkError, match=why) as caught:
            await open_axis.district.sdk.register_agency(**agency)
        assert caught.value.code == "56", agency
    assert await open_axis.hub.connection.fetch("select * from agency order by code") == before
    assert await open_axis.hub.connection.fetchval("select count(*) from axis_request") == 0


async def test_what_a_system_may_not_delete(open_axis: Axis) -> None:
    await change.add_agency(open_axis.hub.connection, AgencyRow(LUC_YEN, NAMES[LUC_YEN]))
    await open_axis.hub.follow()
    for code in (PROVINCE, LUC_YEN, "000.99.99.H63", "H63"):
        with pytest.raises(SdkError, match="not an agency of this system") as caught:
            await open_axis.district.sdk.delete_agency(code)
        assert caught.value.code == "56"
    with pytest.raises(SdkError, match="not an agency of this system"):
        await open_axis.province.sdk.delete_agency(VAN_YEN)
    assert await open_axis.hub.connection.fetchval("select count(*) from agency where not active") == 0


async def test_an_agency_of_the_branch_that_nobody_speaks_for_may_be_taken(open_axis: Axis) -> None:
    await change.add_agency(open_axis.hub.connection, AgencyRow("000.27.31.H63", "Xã cũ", aliases=("H63.31.27",)))
    await open_axis.hub.follow()
    await open_axis.district.sdk.register_agency(code="000.27.31.H63", name="Xã mới", pcode=VAN_YEN)
    assert await state_of(open_axis, "000.27.31.H63") == ("Xã mới", VAN_YEN, "van-yen", "", True)
    aliases = await open_axis.hub.connection.fetchval("select aliases from agency where code = '000.27.31.H63'")
    assert aliases == ["H63.31.27"], "its other code stays"


async def test_a_hub_that_takes_no_changes(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(await start_hub(axis_registration="deny"), http)
    for call in (axis.province.sdk.register_agency(**AGENCY), axis.district.sdk.delete_agency(DAI_SON)):
        with pytest.raises(SdkError, match="its operator") as caught:
            await call
        assert caught.value.code == "56"
    assert await waiting(axis) == []


async def test_what_is_no_longer_allowed_is_not_carried_out(axis: Axis) -> None:
    """Between asking and approval the tree may change."""
    await axis.district.sdk.register_agency(code="000.25.31.H63", name="Xã", pcode=DAI_SON)
    (number,) = await waiting(axis)
    await change.assign(axis.hub.connection, "ubnd-tinh", [VAN_YEN, DAI_SON])
    with pytest.raises(NotAllowedError, match="branch"):
        await systems.decide(axis.hub.connection, number, True)
    assert await waiting(axis) == [number], "it waits still, and can be rejected"
    await systems.decide(axis.hub.connection, number, False)


async def test_requests_that_wait_are_bounded(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "MAX_WAITING", 3)
    for number in range(3):
        await axis.province.sdk.register_agency(code=f"H63.{number}", name=f"Sở {number}", pcode=PROVINCE)
    with pytest.raises(SdkError, match="3 requests wait already"):
        await axis.province.sdk.register_agency(code="H63.9", name="Sở 9", pcode=PROVINCE)
    await axis.province.sdk.register_agency(code="H63.1", name="Sở một", pcode=PROVINCE)
    assert len(await waiting(axis)) == 3


NO_AGENCIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    "không".encode(),
    b'{"code":1,"name":"a","pcode":"b"}',
    b'{"code":"1","name":null}',
    b'{"code":"1"',
    b"\xff\xfe",
    b"[" * 60_000,
]


async def test_bodies_that_are_no_agency(axis: Axis) -> None:
    sdk = axis.province.sdk
    for body in NO_AGENCIES:
        answer = (await sdk.call("/registerAgency", sdk.sign({}), body)).result()
        assert (answer["status"], answer["ErrorCode"]) == ("FAIL", "50"), body


async def test_members_that_mean_nothing_are_let_pass(axis: Axis) -> None:
    sdk = axis.province.sdk
    for body in (
        AGENCY | {"id": 17, "mail": None, "mobile": None, "fax": None, "more": [1]},
        AGENCY | {"id": "17"},
    ):
        (await sdk.call("/registerAgency", sdk.sign({}), orjson.dumps(body))).ok()


async def test_requests_of_one_signature_at_once(axis: Axis) -> None:
    """Sent to the store twice at the same moment, it is one request."""
    connection = axis.hub.connection
    other = await asyncpg.connect(axis.hub.hub._url)
    change_ = Change("register", NEW, "Sở", PROVINCE)
    asked = await asyncio.gather(
        *(
            systems.ask(each, "yb.tinh", axis.province.endpoint, change_, b"s" * 32, allow=True)
            for each in (connection, other)
        )
    )
    await other.close()
    assert asked[0] == asked[1] and asked[0].state == "approved"
    assert await connection.fetchval("select count(*) from axis_request") == 1
