"""State secrets do not pass (Decision 28/2018, article 1), by whatever door and however they are marked."""

from __future__ import annotations

import hashlib

import aiohttp
import orjson
import pytest

from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.axis_parties import add_system
from tests.support.edxml_messages import document, write
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN

XML = "application/xml"


def marked(degree: str, name: str = "401/UBND") -> bytes:
    """A document in the dialect before 2016, which has a place for its secrecy."""
    name_, content = document(to=((VAN_YEN, "Văn Yên"),), document_id=name)
    raw = write((name_, content), "e-doc")
    assert raw.count(b"<ns0:OtherInfo>") == 1
    return raw.replace(b"<ns0:OtherInfo>", f"<ns0:OtherInfo><ns0:Secret>{degree}</ns0:Secret>".encode())


@pytest.mark.parametrize("degree", ["Mật", "TỐI MẬT", "Tuyệt mật", "2"])
async def test_a_native_document_that_is_marked_is_refused_with_proof(pair: Pair, degree: str) -> None:
    raw = pair.sender.sign(pair.province.document(VAN_YEN, id="400/UBND", secrecy=degree))
    with pytest.raises(Problem) as refused:
        await pair.sender.submit(raw)
    assert (refused.value.code, refused.value.retryable) == ("state-secret", False)
    assert degree in refused.value.detail
    receipt = refused.value.extra["receipt"]
    event = await pair.check(orjson.dumps(receipt), raw)
    assert (event["event"], event["code"]) == ("rejected", "state-secret")
    # Nothing of it is kept but its digest.
    assert await pair.hub.connection.fetchval("select count(*) from message") == 0
    row = await pair.hub.connection.fetchrow("select code, event from rejection")
    assert row["code"] == "state-secret" and "400/UBND" not in row["event"]
    assert await pair.page() == []


@pytest.mark.parametrize("degree", ["", "thường", "0", "Không"])
async def test_what_is_marked_as_no_secret_passes(pair: Pair, degree: str) -> None:
    sent = await pair.sender.send(pair.province.document(VAN_YEN, secrecy=degree))
    edxml = await pair.sender.submit(marked(degree), XML)
    assert [entry.id for entry in await pair.page() if entry.format == "jws"] == [sent.id]
    assert edxml.id in {entry.id for entry in await pair.page()}


async def test_edxml_that_is_marked_is_refused_and_spoils_no_other(pair: Pair) -> None:
    with pytest.raises(Problem) as refused:
        await pair.sender.submit(marked("Tối mật"), XML)
    assert refused.value.code == "state-secret"
    secret = pair.sender.sign(pair.province.document(VAN_YEN, secrecy="Mật"))
    plain = pair.sender.sign(pair.province.document(VAN_YEN))
    first, second = await pair.sender.submit_many([secret, plain])
    assert isinstance(first, Problem) and first.code == "state-secret"
    assert not isinstance(second, Problem)


async def test_a_large_one_leaves_no_file_behind(pair: Pair) -> None:
    raw = marked("Mật").replace(b"UEsDBBQA" * 20, b"UEsDBBQA" * 200_000)
    assert len(raw) > 1 << 20
    with pytest.raises(Problem) as refused:
        await pair.sender.submit(raw, XML)
    assert refused.value.code == "state-secret"
    blobs = pair.hub.hub.blobs.root
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


async def test_a_system_of_the_axis_is_told_in_its_own_words(hub: RunningHub, http: aiohttp.ClientSession) -> None:
    await hub.register("van-yen", VAN_YEN)
    province = await add_system(hub, http, await hub.register("ubnd-tinh", PROVINCE), "yb.tinh")

    raw = marked("Mật")
    asked = {
        "from": PROVINCE,
        "servicetype": "eDoc",
        "messagetype": "edoc",
        "hash-file": hashlib.sha256(raw).hexdigest(),
    }
    headers = province.sdk.sign(asked, "application/octet-stream")
    answer = await province.sdk.call("/sendEdoc", headers, raw)
    assert b'"FAIL"' in answer.body and "Mật" in answer.body.decode()
