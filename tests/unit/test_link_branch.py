"""What a linked hub says of its side may neither draw mail of others to it nor take their keys' names away."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hub.directory import hubs
from hub.directory.picture import Agency, BeyondKey, Changes, Endpoint, Hub, Key, Link, Picture
from protocol.link import Directory, LinkAgency
from protocol.signature import generate, thumbprint

PROVINCE, DISTRICT, OFFICE = "000.00.00.H63", "000.00.31.H63", "000.00.00.G22"
HUB, OTHER, LOCAL = 7, 8, 9
OWN, STRANGER = generate("ES256").public_key(), generate("ES256").public_key()


def picture(*beyond: BeyondKey) -> Picture:
    return Picture().with_changes(
        Changes(
            revision=1,
            endpoints=[Endpoint(HUB, "truc-yen-bai"), Endpoint(OTHER, "truc-lao-cai"), Endpoint(LOCAL, "bo")],
            hubs=[Hub(HUB, (PROVINCE,)), Hub(OTHER, ("000.00.00.H35",))],
            agencies=[
                Agency(OFFICE, "Bộ", endpoint=LOCAL),
                Agency(DISTRICT, "Văn Yên", PROVINCE, endpoint=HUB, system="1"),
                Agency("000.00.12.H35", "Bát Xát", "000.00.00.H35", endpoint=OTHER, system="1"),
            ],
            keys=[Key(thumbprint(OWN), OWN, agency=OFFICE)],
            beyond_keys=list(beyond),
        )
    )


def told_by_below(*agencies: LinkAgency) -> tuple[dict[str, tuple[str | None, tuple[str, ...] | None]], list[str]]:
    known = picture()
    inside, untaken = hubs._untaken(known, known.hubs[HUB], Directory("trục", (), agencies))
    return {row.code: (row.parent, row.aliases) for row in inside}, [one.name for one in untaken]


def test_a_parent_elsewhere_is_not_believed() -> None:
    """Else an agency would get what is addressed to all below a unit of somebody else's."""
    taken, untaken = told_by_below(
        LinkAgency(DISTRICT, "Văn Yên", parent=OFFICE),
        LinkAgency("000.21.31.H63", "Xã", parent=DISTRICT),
        LinkAgency(PROVINCE, "Tỉnh", parent="000.00.12.H35"),
    )
    assert taken == {DISTRICT: (PROVINCE, ()), "000.21.31.H63": (DISTRICT, ()), PROVINCE: (None, ())}
    assert not untaken


def test_another_name_elsewhere_is_not_believed() -> None:
    """Else it would get what is addressed to whoever is really called so, and is not known here."""
    aliases = ("H63.31", "000.00.00.G09", "H35.12", "G09", "TEN-TU-DO")
    taken, untaken = told_by_below(LinkAgency(DISTRICT, "Văn Yên", aliases=aliases))
    assert taken == {DISTRICT: (None, ("H63.31",))}
    assert untaken == ["000.00.00.G09", "H35.12", "G09", "TEN-TU-DO"]


def test_a_branch_that_is_no_province_has_no_other_form() -> None:
    known = picture()
    inside, _ = hubs._untaken(
        known, Hub(HUB, (DISTRICT,)), Directory("trục", (), (LinkAgency(DISTRICT, "a", aliases=("H63.32",)),))
    )
    assert inside[0].aliases == ()


def names(*beyond: BeyondKey) -> list[tuple[str, str | None]]:
    told = hubs.told(picture(*beyond), None, "bộ", (), datetime(2026, 3, 2, tzinfo=UTC))
    return [(key.name, key.agency) for key in told.keys]


@pytest.mark.parametrize("agency", [OFFICE, "000.00.12.H35"])
def test_a_key_for_somebody_elses_agency_is_not_passed_on(agency: str) -> None:
    forged = BeyondKey(HUB, thumbprint(STRANGER), STRANGER, agency, system="1")
    assert names(forged) == [(thumbprint(OWN), OFFICE)]
    right = BeyondKey(HUB, thumbprint(STRANGER), STRANGER, DISTRICT)
    assert (thumbprint(STRANGER), DISTRICT) in names(right)


def test_the_name_of_a_key_that_is_known_is_not_taken_away() -> None:
    stolen = BeyondKey(HUB, thumbprint(OWN), OWN, DISTRICT)
    assert names(stolen) == [(thumbprint(OWN), OFFICE)]


def test_a_hub_above_does_not_place_itself_in_this_branch() -> None:
    known = picture()
    link = Link(HUB, "https://truc", "", b"", 7, (PROVINCE,), kind="native")

    def outside(code: str) -> bool:
        return not hubs._lies_in(known, link, code)

    (row,) = hubs._listed(
        Directory("trục", (), (LinkAgency(OFFICE, "Bộ", parent=DISTRICT, aliases=("H63.99", "G22")),))
    )
    kept = hubs._kept_in(known, row, outside)
    assert (kept.parent, kept.aliases) == (None, ("G22",))
