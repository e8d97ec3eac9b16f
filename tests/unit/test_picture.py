"""The picture of the directory: never changed, and the same whichever way it came about."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hub.directory.picture import Agency, Changes, Credential, Endpoint, Group, Key, Picture, System
from protocol.signature import generate

PUBLIC = generate("ES256").public_key()


def picture_of(*agencies: Agency) -> Picture:
    return Picture().with_changes(Changes(revision=1, agencies=list(agencies)))


def below(picture: Picture, code: str) -> set[str]:
    return {agency.code for agency in picture.below(code)}


def test_a_change_leaves_the_old_picture_as_it_was() -> None:
    old = Picture().with_changes(
        Changes(
            revision=3,
            endpoints=[Endpoint(1, "ubnd-tinh")],
            agencies=[Agency("H63", "Tỉnh Yên Bái", None, ("YB",), 1), Agency("H63.31", "Văn Yên", "H63")],
            groups=[Group("so-nganh", ("H63",))],
            keys=[Key("k", PUBLIC, x5t="t", endpoint=1)],
            credentials=[Credential(b"h", "endpoint", 1)],
        )
    )
    before = repr(old)
    new = old.with_changes(
        Changes(
            revision=4,
            endpoints=[Endpoint(1, "ubnd-tinh", False), Endpoint(2, "van-yen")],
            agencies=[
                Agency("H63", "Tỉnh", None, ("YB2",), 2, False),
                Agency("H63.31", "Văn Yên", None),
                Agency("H63.32", "Lục Yên", "H63"),
            ],
            groups=[Group("so-nganh", ()), Group("huyen", ("H63.31",))],
            keys=[Key("k", PUBLIC, x5t="t", endpoint=1, active=False)],
            credentials=[Credential(b"h", "endpoint", 1, active=False)],
        )
    )
    assert repr(old) == before
    assert old.agency("YB") == Agency("H63", "Tỉnh Yên Bái", None, ("YB",), 1)
    assert old.agency("YB2") is None
    assert below(old, "H63") == {"H63.31"}
    assert (new.revision, new.agency("YB"), new.agency("YB2")) == (4, None, new.agencies["H63"])
    assert below(new, "H63") == {"H63.32"}
    assert not new.keys["k"].active
    assert not new.keys["x5t:t"].active
    assert not new.credentials[b"h"].active
    assert new.endpoint_ids == {"ubnd-tinh": 1, "van-yen": 2}
    assert old.endpoint_ids == {"ubnd-tinh": 1}


def test_a_change_of_one_kind_shares_the_rest() -> None:
    old = picture_of(Agency("H63", "Tỉnh"))
    new = old.with_changes(Changes(revision=2, endpoints=[Endpoint(1, "một")]))
    assert new.agencies is old.agencies
    assert old.with_changes(Changes(revision=3)) == replace(old, revision=3)


def test_a_circle_in_the_tree_ends() -> None:
    picture = picture_of(
        Agency("A", "một", "C"), Agency("B", "hai", "A"), Agency("C", "ba", "B"), Agency("D", "bốn", "D")
    )
    assert below(picture, "A") == {"B", "C"}
    assert below(picture, "B") == {"A", "C"}
    assert below(picture, "D") == set()


def test_an_inactive_agency_hides_itself_but_not_what_is_below_it() -> None:
    picture = picture_of(Agency("A", "một"), Agency("B", "hai", "A", active=False), Agency("C", "ba", "B"))
    assert below(picture, "A") == {"C"}


def test_a_unit_may_be_named_as_parent_before_it_is_known() -> None:
    picture = picture_of(Agency("B", "hai", "A"))
    assert below(picture, "A") == {"B"}
    assert picture.agency("A") is None


def test_a_moved_agency_takes_what_is_below_it_along() -> None:
    picture = picture_of(Agency("A", "một"), Agency("B", "hai"), Agency("C", "ba", "A"), Agency("D", "bốn", "C"))
    moved = picture.with_changes(Changes(revision=2, agencies=[Agency("C", "ba", "B")]))
    assert (below(moved, "A"), below(moved, "B")) == (set(), {"C", "D"})
    back = moved.with_changes(Changes(revision=3, agencies=[Agency("C", "ba", "A")]))
    assert (below(back, "A"), below(back, "B")) == ({"C", "D"}, set())


def test_an_alias_may_change_hands_within_one_change_in_any_order() -> None:
    picture = picture_of(Agency("A", "một", aliases=("X", "Y")), Agency("B", "hai"))
    swapped = [Agency("B", "hai", aliases=("X",)), Agency("A", "một", aliases=("Y",))]
    for rows in (swapped, swapped[::-1]):
        changed = picture.with_changes(Changes(revision=2, agencies=rows))
        assert {name: changed.aliases.get(name) for name in "XY"} == {"X": "B", "Y": "A"}


def test_a_code_wins_over_an_alias_of_another() -> None:
    picture = picture_of(Agency("A", "một", aliases=("B",)), Agency("B", "hai"))
    found = picture.agency("B")
    assert found is not None
    assert found.code == "B"


def test_a_renewed_certificate_leaves_no_way_to_the_key_as_it_was() -> None:
    old = Picture().with_changes(Changes(revision=1, keys=[Key("k", PUBLIC, x5t="cũ", endpoint=1)]))
    renewed = old.with_changes(Changes(revision=2, keys=[Key("k", PUBLIC, x5t="mới", endpoint=1)]))
    assert set(renewed.keys) == {"k", "x5t:mới"}
    disabled = renewed.with_changes(
        Changes(revision=3, keys=[Key("k", PUBLIC, x5t="mới", endpoint=1, active=False)])
    )
    assert not any(key.active for key in disabled.keys.values())


def test_endpoints_have_names_even_when_unknown() -> None:
    picture = Picture().with_changes(Changes(revision=1, endpoints=[Endpoint(7, "văn-yên")]))
    assert [picture.endpoint_name(number) for number in (0, 7, 8)] == ["hub", "văn-yên", "#8"]


CODES = ["A", "B", "C", "D", "E"]


@st.composite
def directories(draw: st.DrawFn) -> dict[str, Agency]:
    """A directory in which no name stands for two agencies."""
    owners = {alias: draw(st.sampled_from([*CODES, None])) for alias in ("x", "y", "z")}
    return {
        code: Agency(
            code,
            draw(st.sampled_from(["Sở", "Phòng"])),
            draw(st.sampled_from([*CODES, None])),
            tuple(alias for alias, owner in owners.items() if owner == code),
            active=draw(st.booleans()),
        )
        for code in CODES
    }


@given(st.lists(directories(), min_size=1, max_size=5), st.data())
def test_followed_step_by_step_or_loaded_at_once_the_picture_is_the_same(
    states: list[dict[str, Agency]], data: st.DataObject
) -> None:
    followed = Picture()
    for revision, state in enumerate(states, start=1):
        rows = [agency for agency in state.values() if followed.agencies.get(agency.code) != agency]
        rows = data.draw(st.permutations(rows))
        followed = followed.with_changes(Changes(revision=revision, agencies=rows))
    loaded = picture_of(*states[-1].values())
    assert followed.agencies == loaded.agencies
    for name in [*CODES, "x", "y", "z"]:
        assert followed.agency(name) == loaded.agency(name)
        assert below(followed, name) == below(loaded, name)


def test_systems_of_the_axis_and_their_endpoints() -> None:
    tinh, vanyen = System("yb.tinh", 1, 7, (b"s",)), System("yb.vanyen", 2, 0, (b"t", b"u"))
    old = Picture().with_changes(Changes(revision=1, systems=[tinh, vanyen]))
    assert old.systems == {"yb.tinh": tinh, "yb.vanyen": vanyen}
    assert old.axis_endpoints == {1, 2}
    shut = replace(vanyen, active=False)
    new = old.with_changes(Changes(revision=2, systems=[shut]))
    assert (new.systems["yb.vanyen"], new.axis_endpoints) == (shut, {1})
    assert (old.systems["yb.vanyen"], old.axis_endpoints) == (vanyen, {1, 2}), "the old one is as it was"


def test_endpoints_with_limits_of_their_own_are_at_hand() -> None:
    old = Picture().with_changes(
        Changes(revision=1, endpoints=[Endpoint(1, "một"), Endpoint(2, "hai", rate_messages=5.0)])
    )
    assert set(old.limited) == {2}
    none, other = Endpoint(1, "một", rate_bytes=0.0), Endpoint(2, "hai")
    new = old.with_changes(Changes(revision=2, endpoints=[none, other]))
    assert new.limited == {1: none}, "no limit is one of its own too"
    assert set(old.limited) == {2}
