"""A native link between two real hubs: what goes over it, as it was signed, both ways."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest

from hub.directory import change, hubs, links
from hub.directory.change import AgencyRow
from protocol import edxml
from protocol.client import HubClient
from protocol.client.model import Entry
from protocol.edxml.trace import append_trace, trace_header
from protocol.evidence import read_receipt, verify_receipt
from protocol.manifest import open_native
from protocol.message import Reference
from protocol.problems import Problem
from protocol.signature import Signer, from_jwk, generate, thumbprint
from tests.support import native_linked
from tests.support.axis_parties import add_system, paper
from tests.support.linked import FINANCE, GOVERNMENT_OFFICE, UP
from tests.support.native_linked import BELOW, HubMaker, Levels, link_natively
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN, register
from tests.support.until import until

hub_maker, unlinked, levels = native_linked.hub_maker, native_linked.unlinked, native_linked.levels


async def test_a_document_goes_up_as_it_was_signed(levels: Levels) -> None:
    client = levels.client(levels.district)
    raw = client.sign(levels.district.document(GOVERNMENT_OFFICE, subject="V/v triển khai chữ ký số"))
    sent = await client.submit(raw)
    (entry,) = await levels.mail(levels.office)
    assert (entry.format, entry.body, entry.sender) == ("jws", raw, VAN_YEN)
    assert entry.sender_id == open_native(raw)[1].id
    await levels.ended(levels.district, sent.id, "acknowledged")
    transfer = await levels.province.connection.fetchrow("select * from link_transfer")
    assert (str(transfer["message"]), transfer["peer_id"], transfer["error"]) == (sent.id, entry.id, None)
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await levels.client(levels.office).hub_keys()}
    event = verify_receipt(read_receipt(transfer["receipt"].encode()), keys.get, raw).event
    assert (event["event"], event["message"], event["endpoint"]) == ("accepted", entry.id, BELOW)
    assert event["signer"]["vouched_by"] == BELOW


async def test_a_document_comes_down_as_it_was_signed(levels: Levels) -> None:
    client = levels.client(levels.office)
    raw = client.sign(levels.office.document(DAI_SON, subject="Công điện"))
    sent = await client.submit(raw)
    (entry,) = await levels.mail(levels.commune)
    assert (entry.body, entry.sender, entry.to) == (raw, GOVERNMENT_OFFICE, (DAI_SON,))
    await levels.ended(levels.office, sent.id, "acknowledged")
    assert entry.id != sent.id


async def _cross(levels: Levels, up: bytes, down: bytes) -> Entry:
    """Two edXML messages go over unaltered, one each way. Gives what came of the one that went up."""
    await levels.client(levels.district).submit(up, "application/xml")
    await levels.client(levels.office).submit(down, "application/xml")
    (above,) = await levels.mail(levels.office)
    (below,) = await levels.mail(levels.commune)
    assert await levels.client(levels.office).fetch(above) == up
    assert await levels.client(levels.commune).fetch(below) == down
    return above


async def test_edxml_goes_over_unaltered_both_ways(levels: Levels) -> None:
    up, down = paper(GOVERNMENT_OFFICE, sender=VAN_YEN), paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    above = await _cross(levels, up, down)
    assert edxml.read(up).sender == above.sender


async def test_entries_of_a_manifest_go_over(levels: Levels) -> None:
    client = levels.client(levels.district)
    documents = [levels.district.document(GOVERNMENT_OFFICE, subject=f"Báo cáo số {n}") for n in range(5)]
    await client.send_together(documents)
    entries = await levels.mail(levels.office, 5)
    assert [entry.document.subject for entry in entries] == [document.subject for document in documents]
    assert {entry.format for entry in entries} == {"manifest"}


async def test_states_go_both_ways(levels: Levels) -> None:
    message = await levels.send(levels.office, DAI_SON, id="VPCP-1")
    (entry,) = await levels.mail(levels.commune)
    await levels.client(levels.commune).acknowledge(entry)
    about = Reference(id="VPCP-1", agency=GOVERNMENT_OFFICE)
    await levels.send(levels.commune, GOVERNMENT_OFFICE, kind="status", status="03", response_for=(about,))

    async def known() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await levels.client(levels.office).events(message)).get("states", [])
        return found

    (states,) = await until(known, "the sender sees the state")
    assert (states["agency"], states["current"]) == (DAI_SON, "03")


async def test_a_refusal_above_reaches_the_sender_below(levels: Levels) -> None:
    message = await levels.send(levels.district, GOVERNMENT_OFFICE, id="BC-9")
    (entry,) = await levels.mail(levels.office)
    await levels.client(levels.office).refuse(entry, "Gửi nhầm cơ quan")
    (notice,) = await levels.mail(levels.district)
    event = orjson.loads(notice.receipt.event)
    assert (event["event"], event["message"], event["id"]) == ("refused", message, "BC-9")
    assert (event["recipients"], event["reason"], event["endpoint"]) == (
        [GOVERNMENT_OFFICE],
        "Gửi nhầm cơ quan",
        UP,
    )
    keys = {jwk["kid"]: from_jwk(jwk) for jwk in await levels.client(levels.district).hub_keys()}
    assert verify_receipt(notice.receipt, keys.get).event == event
    above = {jwk["kid"]: from_jwk(jwk) for jwk in await levels.client(levels.office).hub_keys()}
    assert verify_receipt(read_receipt(orjson.dumps(event["beyond"])), above.get).event["message"] == entry.id


async def test_a_refusal_below_reaches_the_sender_above(levels: Levels) -> None:
    message = await levels.send(levels.finance, DAI_SON, VAN_YEN)
    (entry,) = await levels.mail(levels.commune)
    await levels.client(levels.commune).refuse(entry, "Không thuộc thẩm quyền")
    (notice,) = await levels.mail(levels.finance)
    event = orjson.loads(notice.receipt.event)
    assert (event["event"], event["message"], event["recipients"]) == ("refused", message, [DAI_SON])
    assert event["from"] == FINANCE


async def test_two_systems_below_may_use_the_same_id(levels: Levels) -> None:
    """Above they are one endpoint; ids of the two are told apart, and repetition is still recognised."""
    first = await levels.send(levels.district, GOVERNMENT_OFFICE, id="01/BC", subject="Của huyện")
    second = await levels.send(levels.commune, GOVERNMENT_OFFICE, id="01/BC", subject="Của xã")
    entries = await levels.mail(levels.office, 2)
    assert sorted(entry.document.subject for entry in entries) == ["Của huyện", "Của xã"]
    assert {entry.document.id for entry in entries} == {"01/BC"}
    await levels.ended(levels.district, first, "acknowledged")
    await levels.ended(levels.commune, second, "acknowledged")
    for message in (first, second):
        await links.order(levels.province.connection, UP, "resend", UUID(message))

    async def sent_again() -> bool:
        tries = await levels.province.connection.fetch("select tries from link_transfer")
        return sorted(row["tries"] for row in tries) == [2, 2]

    await until(sent_again, "both went over once more")
    assert len(await levels.mail(levels.office, 2)) == 2
    # A state about each reaches its own sender, and the recall of one leaves the other alone.
    for entry in entries:
        await levels.client(levels.office).acknowledge(entry)
        about = Reference(id="01/BC", agency=entry.sender)
        await levels.send(levels.office, entry.sender, kind="status", status="03", response_for=(about,))
    for party in (levels.district, levels.commune):
        (state,) = await levels.mail(party)
        assert (state.document.status, state.document.response_for[0].id) == ("03", "01/BC")


async def test_ids_taken_beforehand_keep_nobody_out(levels: Levels) -> None:
    """One system takes the id that another will use, and what the hub above would call that other message."""
    taken = ("01/BC", f"{VAN_YEN}/01/BC", f"{DAI_SON}/01/BC")
    for id_ in taken:
        sent = await levels.send(levels.commune, GOVERNMENT_OFFICE, id=id_, subject="Của xã")
        await levels.mail(levels.office, taken.index(id_) + 1)
    sent = await levels.send(levels.district, GOVERNMENT_OFFICE, id="01/BC", subject="Của huyện")
    entries = await levels.mail(levels.office, 4)
    assert sorted((entry.document.id, entry.sender) for entry in entries) == sorted(
        [*((id_, DAI_SON) for id_ in taken), ("01/BC", VAN_YEN)]
    )
    await levels.ended(levels.district, sent, "acknowledged")


async def test_a_large_attachment_goes_over_and_its_file_beside_it(levels: Levels, tmp_path: Path) -> None:
    content = b"%PDF-1.7 " + bytes(range(256)) * 12_000
    file = tmp_path / "phu-luc.pdf"
    file.write_bytes(content)
    for party, to, other in (
        (levels.district, GOVERNMENT_OFFICE, levels.office),
        (levels.office, DAI_SON, levels.commune),
    ):
        attachment = await levels.client(party).upload(file, "application/pdf")
        await levels.send(party, to, attachments=(attachment,))
        (entry,) = await levels.mail(other)
        there = tmp_path / "nhan.pdf"
        await levels.client(other).download(entry.document.attachments[0], there)
        assert there.read_bytes() == content


async def test_large_messages_of_both_formats(levels: Levels) -> None:
    content = base64.b64encode(b"PK" + bytes(range(256)) * 24_000).decode()
    up = paper(GOVERNMENT_OFFICE, sender=VAN_YEN, content=content)
    down = paper(DAI_SON, sender=GOVERNMENT_OFFICE, content=content)
    await _cross(levels, up, down)
    text = "Toàn văn " * 20_000
    await levels.send(levels.commune, GOVERNMENT_OFFICE, content=text)
    long = (await levels.mail(levels.office, 2))[-1]
    assert open_native(await levels.client(levels.office).fetch(long))[1].content == text


async def test_a_recall_from_below_of_what_nobody_read(levels: Levels) -> None:
    first = await levels.send(levels.district, GOVERNMENT_OFFICE, id="CV-7")
    await levels.ended(levels.district, first, "acknowledged")
    await levels.send(
        levels.district, GOVERNMENT_OFFICE, id="TH-7", business="recall", concerns=(Reference(id="CV-7"),)
    )
    (notice,) = await levels.mail(levels.district)
    event = orjson.loads(notice.receipt.event)
    assert (event["event"], event["message"], event["recipients"]) == ("recalled", first, [GOVERNMENT_OFFICE])
    assert await levels.client(levels.office).read(10) == ([], "0.0.0")


async def test_an_update_and_a_group_go_over(levels: Levels) -> None:
    await change.put_group(levels.province.connection, "bo-nganh", [GOVERNMENT_OFFICE, FINANCE, DAI_SON])
    await levels.province.follow()
    await levels.send(levels.district, "group:bo-nganh", id="KH-1", subject="Kế hoạch")
    await levels.send(
        levels.district, "group:bo-nganh", id="KH-1b", business="update", concerns=(Reference(id="KH-1"),)
    )
    for party, codes in ((levels.office, GOVERNMENT_OFFICE), (levels.finance, FINANCE), (levels.commune, DAI_SON)):
        entries = await levels.mail(party, 2)
        assert [(entry.document.business, entry.to) for entry in entries] == [
            ("new", (codes,)),
            ("update", (codes,)),
        ]


# -- trust ------------------------------------------------------------------------------------------


async def test_keys_from_beyond_count_for_their_link_and_branch_alone(levels: Levels) -> None:
    nation = levels.nation
    token = await change.issue_token(nation.connection, endpoint=BELOW)
    await nation.follow()
    async with HubClient(nation.url, token, key=levels.district.key) as intruder:
        document = levels.district.document(GOVERNMENT_OFFICE, sender=VAN_YEN)
        with pytest.raises(Problem, match="no key") as refused:  # through the common door it is nobody's
            await intruder.send(document)
        assert refused.value.code == "unknown-key"
        line = {"for": [GOVERNMENT_OFFICE], "accepted_at": "2026-11-23T10:00:00Z"}
        cases = {
            "from-not-yours": levels.district.document(FINANCE, sender=GOVERNMENT_OFFICE),
            "key-not-yours": levels.commune.document(GOVERNMENT_OFFICE, sender=DAI_SON),
            "recipient-unknown": levels.district.document(FINANCE, sender=VAN_YEN),  # passed on for somebody else
        }
        for code, bad in cases.items():
            body = orjson.dumps(line | {"message": intruder.sign(bad).decode()})
            assert await relay(nation.url, token, body) == [code]
        good = intruder.sign(document).decode()
        loop = line | {"hops": [jwk["kid"] for jwk in await levels.client(levels.office).hub_keys()]}
        assert await relay(nation.url, token, orjson.dumps(loop | {"message": good})) == ["loop"]
        forged = good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB")
        assert await relay(nation.url, token, orjson.dumps(line | {"message": forged})) == ["bad-signature"]
        assert await relay(nation.url, token, orjson.dumps(line | {"message": good})) == [202]
    assert await relay(nation.url, levels.office.token, orjson.dumps(line | {"message": good})) == ["forbidden"]


async def relay(url: str, token: str, body: bytes) -> list[Any]:
    """How each line of a body ends at /v1/link/messages."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/link/messages", data=body, headers=headers) as answer,
    ):
        lines = [orjson.loads(line) for line in (await answer.read()).splitlines()]
        return [line.get("code") or line["status"] for line in lines]


async def test_a_hub_below_speaks_for_its_own_branch_alone(levels: Levels) -> None:
    """Whatever it says of others is not taken, and changes nothing."""
    province, nation = levels.province, levels.nation
    await change.add_agency(province.connection, AgencyRow("000.00.00.G99", "Cơ quan lạ", parent=PROVINCE))
    await change.assign(province.connection, "van-yen", ["000.00.00.G99"])
    await change.add_agency(
        province.connection, AgencyRow("000.00.40.H63", "Sở Nội vụ", aliases=("H63.40", "G22"))
    )
    await change.assign(province.connection, "van-yen", ["000.00.40.H63"])
    await province.follow()
    await until(lambda: nation.hub.directory.picture.agency("H63.40"), "the new agency is known above")
    assert nation.hub.directory.picture.agency("000.00.00.G99") is None
    assert nation.hub.directory.picture.agency(GOVERNMENT_OFFICE).endpoint == levels.office.id
    (row,) = await nation.connection.fetch("select refused from linked_hub")
    assert "000.00.00.G99: it does not lie in the branch" in row["refused"]


async def test_keys_wait_for_approval_where_the_operator_wants_that(unlinked: Levels) -> None:
    await link_natively(unlinked.province, unlinked.nation, PROVINCE, approval=True)

    async def told() -> Any:
        return await unlinked.nation.connection.fetch("select name from link_key where approved is null")

    await until(told, "the keys wait")
    picture = unlinked.province.hub.directory
    await until(lambda: picture.picture.agency(GOVERNMENT_OFFICE), "the directory is here")
    message = await unlinked.send(unlinked.district, GOVERNMENT_OFFICE)

    async def waits() -> bool:
        row = await unlinked.row()
        return "key-not-approved" in (row["last_error"] or "")

    await until(waits, "the operator can see why")
    assert (await unlinked.delivery(unlinked.district, message))["state"] in ("waiting", "handed_over")
    await hubs.decide_keys(unlinked.nation.connection, BELOW, None, True)
    await unlinked.nation.follow()
    await links.order(unlinked.province.connection, UP, "resend")
    await unlinked.ended(unlinked.district, message, "acknowledged")
    assert len(await unlinked.mail(unlinked.office)) == 1


async def test_a_new_key_and_a_disabled_one(levels: Levels) -> None:
    """A signer's key may change any time; what the other hub knows of it follows."""
    old, levels.district.key = levels.district.key, generate("EdDSA")
    levels.district.signer = Signer(levels.district.key)
    kid = await change.add_key(levels.province.connection, levels.district.key.public_key(), endpoint="van-yen")
    await change.disable_key(levels.province.connection, thumbprint(old.public_key()))
    await levels.province.follow()
    async with levels.district.client(levels.province.url) as client:
        sent = await client.send(levels.district.document(GOVERNMENT_OFFICE))
    await levels.ended(levels.district, sent.id, "acknowledged")
    await levels.nation.follow()
    above = levels.nation.hub.directory.picture.beyond_keys
    known = {name: key.present for (_, name), key in above.items()}
    assert (known[kid], known[thumbprint(old.public_key())]) == (True, False)


async def test_an_agency_that_is_known_above_but_closed_is_told_to_the_sender(levels: Levels) -> None:
    await levels.nation.connection.execute(
        "update agency set endpoint = null, revision = nextval('directory_revision') where code = $1", FINANCE
    )
    await levels.nation.follow()
    message = await levels.send(levels.district, GOVERNMENT_OFFICE, FINANCE)
    assert len(await levels.mail(levels.office)) == 1
    (notice,) = await levels.mail(levels.district)
    event = orjson.loads(notice.receipt.event)
    assert (event["event"], event["message"], event["recipients"]) == ("refused", message, [FINANCE])
    assert "no endpoint" in event["reason"]


async def test_three_hubs_in_a_circle_relay_a_message_once(unlinked: Levels, hub_maker: HubMaker) -> None:
    """Each believes that an unknown agency lies beyond the next. The document is refused, and its sender told."""
    third = await hub_maker("truc-thu-ba")
    nation, province = unlinked.nation, unlinked.province
    await link_natively(province, nation, PROVINCE)
    both = GOVERNMENT_OFFICE, PROVINCE
    await link_natively(nation, third, *both, name="truc-thu-ba", below="quoc-gia")
    await link_natively(third, province, *both, name="truc-yen-bai", below="thu-ba")
    await until(lambda: third.hub.directory.picture.agency(VAN_YEN), "the third knows who lies beyond the second")
    assert third.hub.directory.picture.agency(VAN_YEN).system, "by the word of the second"
    message = await unlinked.send(unlinked.district, "000.00.00.G77")
    found = await unlinked.ended(unlinked.district, message, "acknowledged")
    assert found["recipients"] == ["000.00.00.G77"]
    (notice,) = await unlinked.mail(unlinked.district)
    event = orjson.loads(notice.receipt.event)
    assert (event["event"], event["message"]) == ("refused", message)
    assert "loop" in event["reason"]
    for hub, count in ((nation, 1), (third, 1), (province, 1)):
        assert await hub.connection.fetchval("select count(*) from message where kind = 0") == count


async def test_a_document_passes_through_a_hub_to_the_next(unlinked: Levels, hub_maker: HubMaker) -> None:
    """Two links in a row: keys of the lowest are vouched for by each in turn, refusals come all the way back."""
    top = await hub_maker("truc-tren-cung")
    party = await register(top.connection, "quoc-hoi", "000.00.00.A01")
    await link_natively(unlinked.province, unlinked.nation, PROVINCE)
    branch = GOVERNMENT_OFFICE, FINANCE, PROVINCE
    await link_natively(unlinked.nation, top, *branch, name="truc-tren-cung", below="quoc-gia")
    await until(lambda: top.hub.directory.picture.agency(DAI_SON), "the top knows the commune")
    known = unlinked.province.hub.directory
    await until(lambda: known.picture.agency("000.00.00.A01"), "the province knows who is at the top")
    message = await unlinked.send(unlinked.commune, "000.00.00.A01", id="KN-01")
    async with party.client(top.url) as client:

        async def arrived() -> list[Any]:
            return (await client.read(10))[0]

        (entry,) = await until(arrived, "it is at the top")
        assert (entry.sender, entry.sender_id) == (DAI_SON, "KN-01")
        await client.refuse(entry, "Không thuộc thẩm quyền")
        (notice,) = await unlinked.mail(unlinked.commune)
        event = orjson.loads(notice.receipt.event)
        assert (event["event"], event["message"], event["reason"]) == (
            "refused",
            message,
            "Không thuộc thẩm quyền",
        )
        down = client.sign(party.document(DAI_SON, id="TL-01"))
        await client.submit(down)
        assert (await unlinked.mail(unlinked.commune, 2))[1].body == down


async def test_edxml_with_a_trace_of_this_hub_is_refused(levels: Levels) -> None:
    """As it comes when links through the axis's interface form a circle: each writes itself into the message."""
    raw = paper(DAI_SON, sender=GOVERNMENT_OFFICE)
    client = levels.client(levels.office)
    traced = b"".join(append_trace(raw, trace_header(PROVINCE, datetime.now(UTC))))
    message = (await client.submit(traced, "application/xml")).id
    found = await levels.ended(levels.office, message, "refused")
    assert "loop: TraceHeaders say" in found["reason"]
    own = b"".join(
        append_trace(paper(GOVERNMENT_OFFICE, sender=VAN_YEN), trace_header(PROVINCE, datetime.now(UTC)))
    )
    await levels.client(levels.district).submit(own, "application/xml")  # its own unit was the first on its way
    assert len(await levels.mail(levels.office)) == 1


async def test_a_sender_of_the_axis_gets_a_refusal_beyond_as_a_state(
    levels: Levels, http: aiohttp.ClientSession
) -> None:
    system = await add_system(levels.province, http, levels.district, "yb.vanyen")
    raw = paper(GOVERNMENT_OFFICE, sender=VAN_YEN)
    await system.sdk.send_edoc(raw, VAN_YEN)
    (entry,) = await levels.mail(levels.office)
    await levels.client(levels.office).refuse(entry, "Văn bản thiếu phụ lục")

    async def states() -> list[Any]:
        return await system.sdk.get_received_edoc_list("status")

    (item,) = await until(states, "a state is listed")
    header = edxml.read(await system.sdk.get_edoc(item["docId"]))
    assert (header.sender, header.status_code, header.status_description) == (
        GOVERNMENT_OFFICE,
        "02",
        "Văn bản thiếu phụ lục",
    )
    assert header.document_id == edxml.read(raw).document_id
