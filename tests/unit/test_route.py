"""Who gets a message: codes, aliases, groups, units of the tree, and what cannot be reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.directory.picture import Agency, Changes, Endpoint, Group, Picture
from hub.relay.route import (
    DISABLED,
    EMPTY_GROUP,
    INACTIVE,
    NO_GROUP,
    NOT_CONNECTED,
    NOTHING_BELOW,
    UNKNOWN,
    require_reachable,
    route,
)
from protocol.message import MAX_RECIPIENTS
from protocol.problems import Problem

PROVINCE, VAN_YEN, LUC_YEN = "000.00.00.H63", "000.00.31.H63", "000.00.32.H63"
DAI_SON, MO_VANG, CLOSED, OFFLINE, LONELY = "000.21.31.H63", "000.22.31.H63", "C.1", "000.23.31.H63", "L.1"

PICTURE = Picture().with_changes(
    Changes(
        revision=1,
        endpoints=[
            Endpoint(1, "ubnd-tinh"),
            Endpoint(2, "van-yen"),
            Endpoint(3, "luc-yen"),
            Endpoint(4, "tat-may", False),
        ],
        agencies=[
            Agency(PROVINCE, "Ủy ban nhân dân tỉnh Yên Bái", None, ("H63",), 1),
            Agency(VAN_YEN, "Ủy ban nhân dân huyện Văn Yên", PROVINCE, ("H63.31",), 2),
            Agency(LUC_YEN, "Ủy ban nhân dân huyện Lục Yên", PROVINCE, ("H63.32",), 3),
            Agency(DAI_SON, "Ủy ban nhân dân xã Đại Sơn", VAN_YEN, ("H63.31.21",), 2),
            Agency(MO_VANG, "Ủy ban nhân dân xã Mỏ Vàng", VAN_YEN, (), 2),
            Agency(CLOSED, "Sở đã giải thể", None, (), 1, False),
            Agency(OFFLINE, "Ủy ban nhân dân xã Nà Hẩu", LUC_YEN, (), 4),
            Agency(LONELY, "Chưa kết nối", None, (), None),
            Agency("L.2", "Cũng chưa kết nối", "L.1", (), 99),
        ],
        groups=[
            Group("so-nganh", (PROVINCE, "H63.31")),
            Group("rong", ()),
            Group("da-xoa", (PROVINCE,), False),
            Group("co-la", (VAN_YEN, "KHONG.CO")),
        ],
    )
)


@pytest.mark.parametrize(
    ("addresses", "endpoints"),
    [
        ([VAN_YEN], {2: [VAN_YEN]}),
        (["H63.31"], {2: [VAN_YEN]}),
        ([PROVINCE, LUC_YEN], {1: [PROVINCE], 3: [LUC_YEN]}),
        ([VAN_YEN, DAI_SON], {2: [VAN_YEN, DAI_SON]}),
        (["group:so-nganh"], {1: [PROVINCE], 2: [VAN_YEN]}),
        (["below:H63.31"], {2: [MO_VANG, DAI_SON]}),
        ([f"below:{VAN_YEN}"], {2: [MO_VANG, DAI_SON]}),
        # Each agency gets it once, however often and by whatever name it is addressed.
        ([VAN_YEN, VAN_YEN, "H63.31", "group:so-nganh"], {2: [VAN_YEN], 1: [PROVINCE]}),
        ([DAI_SON, "below:H63.31", f"below:{VAN_YEN}"], {2: [DAI_SON, MO_VANG]}),
    ],
)
def test_routes(addresses: list[str], endpoints: dict[int, list[str]]) -> None:
    found = route(PICTURE, addresses)
    assert {endpoint: sorted(codes) for endpoint, codes in found.endpoints.items()} == {
        endpoint: sorted(codes) for endpoint, codes in endpoints.items()
    }
    assert list(found.codes()) == [code for codes in found.endpoints.values() for code in codes]
    assert found.recipients == sum(map(len, endpoints.values()))
    assert found.unreachable == []
    require_reachable(found, report=False)


@pytest.mark.parametrize(
    ("address", "unreachable"),
    [
        ("KHONG.CO", [("KHONG.CO", UNKNOWN)]),
        (CLOSED, [(CLOSED, INACTIVE)]),
        (LONELY, [(LONELY, NOT_CONNECTED)]),
        (OFFLINE, [(OFFLINE, DISABLED)]),
        ("L.2", [("L.2", NOT_CONNECTED)]),
        ("group:khong-co", [("group:khong-co", NO_GROUP)]),
        ("group:da-xoa", [("group:da-xoa", NO_GROUP)]),
        ("group:rong", [("group:rong", EMPTY_GROUP)]),
        ("group:co-la", [("KHONG.CO", UNKNOWN)]),
        ("below:KHONG.CO", [("below:KHONG.CO", UNKNOWN)]),
        (f"below:{DAI_SON}", [(f"below:{DAI_SON}", NOTHING_BELOW)]),
        ("below:H63.32", [(OFFLINE, DISABLED)]),
    ],
)
def test_what_cannot_be_reached_is_named_with_its_reason(address: str, unreachable: list[tuple[str, str]]) -> None:
    found = route(PICTURE, [address])
    assert found.unreachable == unreachable
    with pytest.raises(Problem) as caught:
        require_reachable(found, report=False)
    assert caught.value.code == "recipient-unknown"
    expected = [{"recipient": recipient, "reason": reason} for recipient, reason in unreachable]
    assert caught.value.extra == {"unreachable": expected}
    assert unreachable[0][0] in caught.value.detail


def test_gaps_may_be_reported_when_somebody_is_left() -> None:
    found = route(PICTURE, [VAN_YEN, "KHONG.CO", CLOSED])
    require_reachable(found, report=True)
    assert found.endpoints == {2: [VAN_YEN]}
    assert [recipient for recipient, _ in found.unreachable] == ["KHONG.CO", CLOSED]
    with pytest.raises(Problem, match=r"KHONG\.CO"):
        require_reachable(route(PICTURE, ["KHONG.CO"]), report=True)


def test_a_long_list_of_gaps_is_cut_in_the_text_only() -> None:
    found = route(PICTURE, [f"KHONG.{number}" for number in range(8)])
    with pytest.raises(Problem, match="and 3 more") as caught:
        require_reachable(found, report=False)
    assert len(caught.value.extra["unreachable"]) == 8


def test_a_unit_whose_agencies_have_moved_away_has_nothing_below_it() -> None:
    """Or a message to it would be accepted and go to nobody."""
    moved = [Agency(code, "xã", LUC_YEN, (), 2) for code in (DAI_SON, MO_VANG)]
    picture = PICTURE.with_changes(Changes(revision=2, agencies=moved))
    assert route(picture, ["below:H63.31"]).unreachable == [("below:H63.31", NOTHING_BELOW)]
    closed = [Agency(code, "xã", VAN_YEN, (), 2, False) for code in (DAI_SON, MO_VANG)]
    picture = PICTURE.with_changes(Changes(revision=2, agencies=closed))
    assert route(picture, ["below:H63.31"]).unreachable == [("below:H63.31", NOTHING_BELOW)]


def many(count: int) -> Picture:
    agencies = [Agency("T", "Tỉnh", None, (), 1)]
    agencies += [Agency(f"T.{number}", "Xã", "T", (), 1) for number in range(count)]
    return Picture().with_changes(Changes(revision=1, endpoints=[Endpoint(1, "một")], agencies=agencies))


def test_an_address_that_stands_for_too_many_is_refused() -> None:
    assert route(many(MAX_RECIPIENTS), ["below:T"]).recipients == MAX_RECIPIENTS
    for picture, addresses in ((many(MAX_RECIPIENTS + 1), ["below:T"]), (many(MAX_RECIPIENTS), ["T", "below:T"])):
        with pytest.raises(Problem) as caught:
            route(picture, addresses)
        assert caught.value.code == "too-many-recipients"


NAMES = [PROVINCE, "H63", VAN_YEN, "H63.31", LUC_YEN, DAI_SON, CLOSED, OFFLINE, LONELY, "KHONG.CO"]
addresses = st.sampled_from(
    [*NAMES, *(f"below:{name}" for name in NAMES), "group:so-nganh", "group:co-la", "group:x"]
)


@given(st.lists(addresses, max_size=8))
def test_every_address_leads_somewhere_or_is_named(asked: list[str]) -> None:
    found = route(PICTURE, asked)
    codes = list(found.codes())
    assert len(codes) == len(set(codes)) == found.recipients
    for endpoint, served in found.endpoints.items():
        assert served
        for code in served:
            agency = PICTURE.agencies[code]
            assert (agency.endpoint, agency.active, PICTURE.endpoints[endpoint].active) == (endpoint, True, True)
    for address in asked:
        alone = route(PICTURE, [address])
        assert alone.endpoints or alone.unreachable
        assert set(alone.codes()) <= set(codes)
        assert set(alone.unreachable) <= set(found.unreachable)
