"""The directory beyond a link, and who goes where."""

from __future__ import annotations

from typing import Any

import pytest

from hub.directory import change, links
from hub.directory.change import AgencyRow, DirectoryError
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support import link_scene
from tests.support.fake_axis import FakeAxis
from tests.support.link_scene import Linked, link_up
from tests.support.linked import (
    FINANCE,
    GOVERNMENT_OFFICE,
    UP,
    link_row,
)
from tests.support.parties import LUC_YEN, VAN_YEN
from tests.support.until import until

impatient_couriers, axis, linked = link_scene.impatient_couriers, link_scene.axis, link_scene.linked


def _listed(*codes: str, **more: str) -> list[dict[str, Any]]:
    rows = [{"id": str(n), "pid": "0", "code": code, "name": f"Cơ quan {code}"} for n, code in enumerate(codes, 1)]
    return [row | more for row in rows]


async def test_the_directory_beyond_comes_down_and_nothing_of_this_hub_changes(linked: Linked) -> None:
    await change.add_agency(linked.hub.connection, AgencyRow(LUC_YEN, "Ủy ban nhân dân huyện Lục Yên"))
    await linked.hub.follow()
    before = await linked.hub.connection.fetch("select * from agency order by code")
    linked.axis.agencies = [
        *_listed(GOVERNMENT_OFFICE, VAN_YEN, LUC_YEN, "000.00.55.H63", "bậy bạ"),
        {"id": 900, "pid": 0, "code": FINANCE, "name": " Bộ\tTài chính ", "mail": "btc@mof.gov.vn"},
        {"id": "901", "pid": "900", "code": "000.00.01.G12", "name": "Văn phòng Bộ Tài chính"},
    ]
    await links.order(linked.hub.connection, UP, "sync")
    endpoint = (await linked.row())["endpoint"]
    rows = "select * from agency where endpoint = $1 order by code"
    found = await until(lambda: linked.hub.connection.fetch(rows, endpoint), "the agencies are here")
    assert [(row["code"], row["name"], row["parent"], row["mail"]) for row in found] == [
        (FINANCE, "Bộ Tài chính", None, "btc@mof.gov.vn"),
        (GOVERNMENT_OFFICE, f"Cơ quan {GOVERNMENT_OFFICE}", None, ""),
        ("000.00.01.G12", "Văn phòng Bộ Tài chính", FINANCE, ""),
    ]
    own = await linked.hub.connection.fetch(
        "select * from agency where code = any($1) order by code", [row["code"] for row in before]
    )
    assert own == before


async def test_an_agency_that_is_gone_beyond_is_closed_and_a_list_that_shrinks_is_not_believed(
    linked: Linked,
) -> None:
    many = [f"000.00.{number:02}.G12" for number in range(1, 90)]
    endpoint = (await linked.row())["endpoint"]
    linked.axis.agencies = _listed(*many)

    async def active() -> int:
        found: int = await linked.hub.connection.fetchval(
            "select count(*) from agency where endpoint = $1 and active", endpoint
        )
        return found

    async def synced(count: int) -> bool:
        return await active() == count

    await links.order(linked.hub.connection, UP, "sync")
    await until(lambda: synced(89), "all are here")
    await linked.hub.follow()
    linked.axis.agencies = _listed(*many[:80])
    await links.order(linked.hub.connection, UP, "sync")
    await until(lambda: synced(80), "nine are closed")
    await linked.hub.follow()
    linked.axis.agencies = _listed(*many[:5])
    await links.order(linked.hub.connection, UP, "sync")

    async def disbelieved() -> bool:
        return "not believed" in ((await linked.row())["last_error"] or "")

    await until(disbelieved, "the operator is told")
    assert await active() == 80


async def test_a_list_of_the_whole_nation_is_read_in_one_go(linked: Linked) -> None:
    """111,000 rows; pictures change once, and readers are answered meanwhile."""
    letters = "ABCDEG"
    linked.axis.agencies = _listed(
        *(
            f"{unit:03}.{(unit * 7) % 97:02}.{level:02}.{letters[number % 6]}{number:02}"
            for number in range(30)
            for level in range(37)
            for unit in range(100)
        )
    )
    before = linked.hub.hub.directory.picture
    await links.order(linked.hub.connection, UP, "sync")
    await until(lambda: linked.hub.hub.directory.picture is not before, "the picture changed", 90)
    after = linked.hub.hub.directory.picture
    assert sum(agency.endpoint is not None for agency in after.agencies.values()) == 111_000 + 2
    message = await linked.send("001.07.05.B01")
    await linked.ended(message, "acknowledged")


# -- who may ------------------------------------------------------------------------------------


async def test_a_typing_error_within_the_branch_does_not_go_up(linked: Linked) -> None:
    with pytest.raises(Problem, match=r"000\.00\.99\.H63"):
        await linked.send("000.00.99.H63")
    assert linked.axis.tried == []


async def test_without_a_default_link_unknown_codes_are_refused(hub: RunningHub, axis: FakeAxis) -> None:
    parties = await link_up(hub, axis, default=False)
    async with parties.district.client(hub.url) as sender:
        document = parties.district.document(GOVERNMENT_OFFICE)
        with pytest.raises(Problem, match=GOVERNMENT_OFFICE):
            await sender.submit(sender.sign(document))


async def test_what_a_link_cannot_be(hub: RunningHub, axis: FakeAxis) -> None:
    with pytest.raises(DirectoryError, match="not an address"):
        await link_up(hub, FakeAxis(url="ftp://truc"))
    await hub.connection.execute("delete from agency; delete from endpoint")
    with pytest.raises(DirectoryError, match="secret is empty"):
        await link_up(hub, FakeAxis(url="http://127.0.0.1:9/vxp", secret=""))


async def test_a_list_that_is_the_same_is_not_read_again(hub: RunningHub, axis: FakeAxis) -> None:
    axis.agencies = _listed(GOVERNMENT_OFFICE, FINANCE)
    await link_up(hub, axis, sync_seconds=0.2)
    endpoint = (await link_row(hub.connection))["endpoint"]
    known = "select count(*) from agency where endpoint = $1 and active"
    await until(lambda: hub.connection.fetchval(known, endpoint), "the list is here")
    revision = await hub.connection.fetchval("select max(revision) from agency")
    await until(lambda: axis.calls.count("getAgenciesList") > 3, "it is fetched again and again")
    assert await hub.connection.fetchval("select max(revision) from agency") == revision
    axis.agencies = _listed(GOVERNMENT_OFFICE, FINANCE, "000.00.00.G15")

    async def three() -> bool:
        return await hub.connection.fetchval(known, endpoint) == 3

    await until(three, "a change comes all the same")


async def test_agencies_are_known_by_their_newer_codes_too(linked: Linked) -> None:
    linked.axis.agencies = _listed(GOVERNMENT_OFFICE, FINANCE, "000.00.01.G12")
    both = {"oldCode": "", "pid": "", "mail": "", "name": "x"}
    linked.axis.levels = {
        "1": [
            both | {"id": "1", "code": "G22", "code102": GOVERNMENT_OFFICE},
            both | {"id": "2", "code": "G12", "oldCode": FINANCE},
        ],
        "2": [
            both | {"id": "3", "code": "G12.01", "code102": "000.00.01.G12"},
            both | {"id": "4", "code": "G99.01"},
        ],
    }
    await links.order(linked.hub.connection, UP, "sync")
    aliases = "select code, aliases from agency where endpoint = $1 order by code"
    endpoint = (await linked.row())["endpoint"]
    found = await until(lambda: linked.hub.connection.fetch(aliases, endpoint), "the agencies are here")
    assert [tuple(row) for row in found] == [
        (FINANCE, ["G12"]),
        (GOVERNMENT_OFFICE, ["G22"]),
        ("000.00.01.G12", ["G12.01"]),
    ]
    await linked.hub.follow()
    message = await linked.send("G12.01")
    await linked.ended(message, "acknowledged")
    # A name that somebody here has is not given away, and one that the axis takes back is gone.
    await change.add_agency(linked.hub.connection, AgencyRow(LUC_YEN, "UBND huyện Lục Yên", aliases=("H63.32",)))
    await linked.hub.follow()
    linked.axis.levels = {"1": [both | {"id": "1", "code": "H63.32", "code102": GOVERNMENT_OFFICE}]}
    await links.order(linked.hub.connection, UP, "sync")

    async def taken_back() -> bool:
        return all(not row["aliases"] for row in await linked.hub.connection.fetch(aliases, endpoint))

    await until(taken_back, "the aliases are gone")
