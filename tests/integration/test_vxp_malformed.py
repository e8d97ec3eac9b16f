"""Whatever is wrong with a call, the answer is the interface's own: HTTP 200, FAIL, a code and a sentence."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub.doors import vxp_http
from hub.relay.intake import Intake
from hub.store.embedded import EmbeddedPostgres
from protocol.problems import Problem
from tests.conftest import RunningHub, StartHub
from tests.support.axis_parties import Axis, connect, paper, state
from tests.support.axis_sdk import Answer
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN, register
from tests.support.raw import head, raw_connection

LIST = {"servicetype": "eDoc", "messagetype": "edoc"}
CALLS = (
    "sendEdoc",
    "getReceivedEdocList",
    "getEdoc",
    "updateStatus",
    "getSentEdocList",
    "countReceiveEdoc",
    "countReceiveStatus",
    "getAgenciesList",
    "getAgenciesListQD20",
    "registerAgency",
    "deleteAgency",
)


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


def failed(answer: Answer, code: str) -> str:
    found = answer.result()
    assert (found["status"], found["ErrorCode"]) == ("FAIL", code), found
    assert set(found) == {"status", "ErrorCode", "ErrorDesc"}
    text = str(found["ErrorDesc"])
    assert text and "Traceback" not in text and "<" not in text and "asyncpg" not in text
    return text


async def send(axis: Axis, raw: bytes, message_type: str = "edoc", **parameters: str) -> Answer:
    sdk = axis.province.sdk
    signed = {
        "from": PROVINCE,
        "servicetype": "eDoc",
        "messagetype": message_type,
        "hash-file": hashlib.sha256(raw).hexdigest(),
    }
    return await sdk.call("/sendEdoc", sdk.sign(signed | parameters, "application/octet-stream"), raw)


# -- addresses and methods --------------------------------------------------------------------------


async def test_calls_that_are_none(axis: Axis) -> None:
    for path in ("", "/", "/nothing", "/sendedoc", "/sendEdoc/1", "/%00", "/%ff", "/" + "a" * 5_000):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            text = failed(await axis.province.sdk.call(path, {}, None, method=method), "59")
            assert len(text) < 120


async def test_calls_by_another_method(axis: Axis) -> None:
    sdk = axis.province.sdk
    for call in (*CALLS, "downloadEdoc"):
        for method in ("PUT", "POST" if call == "downloadEdoc" else "GET"):
            answer = await sdk.call(f"/{call}", sdk.sign({}), None, method=method)
            assert ("GET" if call == "downloadEdoc" else "POST") in failed(answer, "59")


async def test_a_call_that_is_not_offered(axis: Axis) -> None:
    sdk = axis.province.sdk
    assert "/getAgenciesList" in failed(await sdk.call("/getSynchronizeUnit", sdk.sign({})), "59")


async def test_slashes_do_not_matter(axis: Axis) -> None:
    """The SDK puts the method's path behind the endpoint, which may end with a slash."""
    sdk = axis.province.sdk
    sdk.endpoint += "/"
    assert (await sdk.call("/getReceivedEdocList", sdk.sign(LIST))).ok()["data"] == []
    assert (await sdk.call("/getReceivedEdocList/", sdk.sign(LIST))).ok()["data"] == []


async def test_the_rest_of_the_hub_answers_as_before(axis: Axis, http: aiohttp.ClientSession) -> None:
    for path in ("/vxpx", "/VXP/sendEdoc", "/v1/nothing"):
        async with http.post(axis.hub.url + path) as response:
            assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_without_a_signature(axis: Axis) -> None:
    for call in CALLS:
        for headers, body in (
            ({}, b""),
            ({"Content-Type": "application/json"}, b"{}"),
            ({"A": "b"}, b"x" * 99_999),
        ):
            failed(await axis.province.sdk.call(f"/{call}", headers, body), "50")


# -- parameters -------------------------------------------------------------------------------------


WRONG = [
    ("sendEdoc", {"from": PROVINCE, "messagetype": "edoc"}),
    ("sendEdoc", {"from": PROVINCE, "servicetype": "eDoc", "messagetype": "sms", "hash-file": "0" * 64}),
    ("sendEdoc", {"servicetype": "eDoc", "messagetype": "edoc", "hash-file": "0" * 64}),
    ("sendEdoc", {"from": PROVINCE, "servicetype": "eMail", "messagetype": "edoc", "hash-file": "0" * 64}),
    ("sendEdoc", {"from": PROVINCE, "servicetype": "eDoc", "messagetype": "edoc", "hash-file": "0" * 63}),
    ("getReceivedEdocList", {}),
    ("getReceivedEdocList", {"servicetype": "eDoc"}),
    ("getReceivedEdocList", {"servicetype": "eDoc", "messagetype": ""}),
    ("getReceivedEdocList", {"servicetype": "eDoc", "messagetype": "văn bản"}),
    ("getReceivedEdocList", {"servicetype": "khác", "messagetype": "edoc"}),
    ("getEdoc", {"filePath": "/tmp/a"}),
    ("getEdoc", {"docId": ""}),
    ("updateStatus", {"status": "done"}),
    ("updateStatus", {"docId": "1"}),
    ("updateStatus", {"docId": "1", "status": ""}),
    ("updateStatus", {"docId": "1", "status": "DONE!"}),
    ("getSentEdocList", LIST),
    ("getAgenciesListQD20", {"level": "một"}),
    ("getAgenciesListQD20", {"level": "-1"}),
    ("getAgenciesListQD20", {"level": "21"}),
    ("getAgenciesListQD20", {"level": "٣"}),
    ("deleteAgency", {}),
]


async def test_parameters_that_are_missing_or_wrong(axis: Axis) -> None:
    sdk = axis.province.sdk
    for call, parameters in WRONG:
        failed(await sdk.call(f"/{call}", sdk.sign(parameters), b"{}"), "50")


async def test_parameters_that_mean_nothing_are_let_pass(axis: Axis) -> None:
    sdk = axis.province.sdk
    (await sdk.call("/countReceiveEdoc", sdk.sign({"fromDate": "2026/01/01", "messagetype": "sms"}), b"{}")).ok()
    (await sdk.call("/getReceivedEdocList", sdk.sign({"messagetype": "EDOC"}), b"[1,2]")).ok()


async def test_a_head_that_is_no_http_is_refused_and_closed(axis: Axis) -> None:
    """What the parser does not take has no address yet; the hub says so as it does anywhere."""
    async with raw_connection(axis.hub.url) as connection:
        await connection.send(head("POST", "/vxp/sendEdoc", {"XroadVnpt-sign-header": "x" * 20_000}))
        answer = await connection.answer()
        assert answer.status == 400 and b"Traceback" not in answer.body


async def test_an_expectation_that_nobody_has(axis: Axis) -> None:
    async with raw_connection(axis.hub.url) as connection:
        headers = axis.province.sdk.sign(LIST) | {"Expect": "200-maybe", "Content-Length": "2"}
        await connection.send(head("POST", "/vxp/getReceivedEdocList", headers) + b"{}")
        answer = await connection.answer()
        assert (answer.status, answer.json()["status"]) == (200, "OK")


async def test_who_is_refused_is_not_asked_for_the_body(axis: Axis) -> None:
    """100 Continue comes after the signature was checked, not before."""
    raw = paper(VAN_YEN)
    sdk = axis.province.sdk
    signed = {"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()}
    for name, first in (("yb.khongco", 200), ("yb.tinh", 100)):
        sdk.system_id = name
        headers = sdk.sign(signed) | {"Expect": "100-continue", "Content-Length": str(len(raw))}
        async with raw_connection(axis.hub.url) as connection:
            await connection.send(head("POST", "/vxp/sendEdoc", headers))
            if first == 100:
                await connection.interim(100)
                await connection.send(raw)
            answer = await connection.answer()
            assert answer.json()["ErrorCode"] == ("0" if first == 100 else "15")
            assert (answer.headers.get("connection") == "close") == (first == 200)


# -- files ------------------------------------------------------------------------------------------


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


SPOILT: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda raw: b"", "10"),
    (lambda raw: b" ", "21"),
    (lambda raw: b"<html><body>500</body></html>", "22"),
    (lambda raw: b"%PDF-1.7", "21"),
    (lambda raw: b"\0" * 100, "21"),
    (cut, "21"),
    (lambda raw: b'<!DOCTYPE a [<!ENTITY x "x">]>' + raw, "21"),
    (lambda raw: raw.replace(b"edXML:From>", b"edXML:Frm>"), "22"),
    (lambda raw: raw.replace(b"<edXML:DocumentId>", b"<edXML:DocumentId>\n" + b"9" * 600), "22"),
    (lambda raw: raw.replace(b"TBT/QCVN_102_2016", b"TBT/QCVN_999"), "22"),
    (lambda raw: raw.decode().encode("utf-16"), "21"),
    (lambda raw: raw.replace("Báo cáo phòng".encode(), "Báo cáo".encode("latin-1")), "21"),
    (lambda raw: raw.replace(PROVINCE.encode(), b"000.00.00.G22"), "19"),
    (lambda raw: raw.replace(VAN_YEN.encode(), b"000.99.99.H63"), "18"),
]


async def test_files_that_cannot_be_relayed(axis: Axis) -> None:
    for spoil, code in SPOILT:
        raw = paper(VAN_YEN)
        spoilt = spoil(raw)
        assert spoilt != raw
        failed(await send(axis, spoilt), code)
    assert await axis.hub.connection.fetchval("select count(*) from message") == 0


async def test_fields_at_fault_are_named_as_the_axis_names_them(axis: Axis) -> None:
    raw = paper(VAN_YEN).replace(b"<edXML:DocumentId>", b"<edXML:DocumentNo>").replace(
        b"</edXML:DocumentId>", b"</edXML:DocumentNo>"
    )  # fmt: skip
    assert "[N.MessageHeader.DocumentId]" in failed(await send(axis, raw), "22")


async def test_what_is_refused_is_on_record(axis: Axis) -> None:
    raw = b"<html></html>"
    failed(await send(axis, raw), "22")
    row = await axis.hub.connection.fetchrow("select digest, code from rejection")
    assert tuple(row) == (hashlib.sha256(raw).digest(), "bad-edxml")


async def test_recipients_that_are_known_but_shut(axis: Axis) -> None:
    await register(axis.hub.connection, "luc-yen", LUC_YEN)
    await axis.hub.connection.execute(
        "update endpoint set active = false, revision = nextval('directory_revision') where name = 'luc-yen'"
    )
    await axis.hub.follow()
    assert "000.00.32.H63" in failed(await send(axis, paper(LUC_YEN)), "23")
    failed(await send(axis, paper(LUC_YEN, VAN_YEN)), "23")
    failed(await send(axis, paper(LUC_YEN, "000.99.99.H63")), "18")
    assert await axis.hub.connection.fetchval("select count(*) from inbox") == 0


async def test_a_kind_that_is_not_the_one_announced(axis: Axis) -> None:
    assert "this is a document" in failed(await send(axis, paper(VAN_YEN), "status"), "22")
    assert "this is a status" in failed(await send(axis, state(sender=PROVINCE, organ=VAN_YEN), "edoc"), "22")


async def test_a_sender_that_is_not_the_systems(axis: Axis) -> None:
    for code in (VAN_YEN, "000.00.00.G22", "x", "ủy ban"):
        assert "does not speak for" in failed(await send(axis, paper(VAN_YEN), **{"from": code}), "19")


async def test_a_file_in_a_form(axis: Axis) -> None:
    sdk = axis.province.sdk
    raw = b'--x\r\nContent-Disposition: form-data; name="file_doc"\r\n\r\n<edXML/>\r\n--x--\r\n'
    headers = sdk.sign(
        {"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()}, "multipart/form-data; boundary=x"
    )
    assert "application/octet-stream" in failed(await sdk.call("/sendEdoc", headers, raw), "50")


async def chunks(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 65_536):
        yield raw[start : start + 65_536]


async def test_a_file_that_is_too_large(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(await start_hub(max_xml_bytes=1 << 20), http)
    raw = paper(VAN_YEN, content="QUJD" * 500_000)
    sdk = axis.province.sdk
    for body in (raw, chunks(raw)):
        headers = sdk.sign({"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()})
        failed(await sdk.call("/sendEdoc", headers, body), "58")
    assert [path for path in axis.hub.hub.blobs.root.rglob("*") if path.is_file()] == []
    (await sdk.call("/registerAgency", sdk.sign({}), b" " * 1000 + b"{}")).result()
    failed(await sdk.call("/registerAgency", sdk.sign({}), b" " * (vxp_http.MAX_BODY + 1)), "58")
    failed(await sdk.call("/getReceivedEdocList", sdk.sign(LIST), b" " * (vxp_http.MAX_BODY + 1)), "58")


async def test_a_body_that_stands_still(start_hub: StartHub, http: aiohttp.ClientSession) -> None:
    axis = await connect(await start_hub(request_seconds=0.2), http)
    raw = paper(VAN_YEN)
    headers = axis.province.sdk.sign({"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()})
    async with raw_connection(axis.hub.url) as connection:
        await connection.send(head("POST", "/vxp/sendEdoc", headers | {"Content-Length": str(len(raw))}) + raw[:9])
        answer = await connection.answer()
        assert (answer.status, answer.json()["ErrorCode"]) == (200, "20")


async def test_a_body_that_is_not_sent_as_its_headers_say(axis: Axis) -> None:
    raw = paper(VAN_YEN)
    signed = {"from": PROVINCE, **LIST, "hash-file": hashlib.sha256(raw).hexdigest()}
    for length in ({"Content-Length": str(len(raw))}, {"Transfer-Encoding": "chunked"}):
        headers = axis.province.sdk.sign(signed) | length | {"Content-Encoding": "gzip", "Expect": "100-continue"}
        async with raw_connection(axis.hub.url) as connection:
            await connection.send(head("POST", "/vxp/sendEdoc", headers))
            await connection.interim(100)
            await connection.send(
                raw if "Content-Length" in length else b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
            )
            answer = await connection.answer()
            assert (answer.status, answer.json()["ErrorCode"]) == (200, "50"), answer.body


# -- the hub's own troubles -------------------------------------------------------------------------


async def test_a_hub_that_has_no_room(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> Any:
        raise Problem("overloaded", "send the same message again a little later", retry_after=1)

    monkeypatch.setattr(Intake, "room", full)
    assert "later" in failed(await send(axis, paper(VAN_YEN)), "20")


async def test_a_hub_that_fails(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any) -> Any:
        raise RuntimeError("select secret from axis_system")

    monkeypatch.setattr(Intake, "edxml", broken)
    text = failed(await send(axis, paper(VAN_YEN)), "20")
    assert "select" not in text


async def test_a_database_that_is_away(
    axis: Axis, http: aiohttp.ClientSession, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    doc_id = (await send(axis, paper(VAN_YEN))).ok()["DocId"]

    async def away(*arguments: Any, **options: Any) -> Any:
        raise ConnectionResetError("connection lost")

    monkeypatch.setattr(asyncpg.Pool, "fetch", away)
    monkeypatch.setattr(asyncpg.Pool, "fetchrow", away)
    province, district = axis.province.sdk, axis.district.sdk
    for sdk, call, parameters in (
        (district, "getReceivedEdocList", LIST),
        (district, "countReceiveEdoc", LIST),
        (district, "getEdoc", {"docId": doc_id}),
        (district, "updateStatus", {"docId": doc_id, "status": "done"}),
        (province, "getSentEdocList", {"docId": doc_id}),
    ):
        failed(await sdk.call(f"/{call}", sdk.sign(parameters), b"{}"), "20")


async def test_a_file_that_is_missing_from_the_store(axis: Axis) -> None:
    raw = paper(VAN_YEN, content="QUJD" * 500_000)
    doc_id = (await send(axis, raw)).ok()["DocId"]
    axis.hub.hub.blobs.path(hashlib.sha256(raw).digest()).unlink()
    sdk = axis.district.sdk
    for call, method in (("getEdoc", "POST"), ("downloadEdoc", "GET")):
        failed(await sdk.call(f"/{call}", sdk.sign({"docId": doc_id}), None, method=method), "20")
    assert len(await sdk.get_received_edoc_list()) == 1


async def test_many_at_once(axis: Axis) -> None:
    """A hundred documents at once, from forty callers, none lost and none twice."""
    papers = [paper(VAN_YEN) for _ in range(100)]
    gate = asyncio.Semaphore(40)

    async def one(raw: bytes) -> str:
        async with gate:
            return str((await send(axis, raw)).ok()["DocId"])

    ids = await asyncio.gather(*map(one, papers))
    assert len(set(ids)) == 100
    assert {entry["docId"] for entry in await axis.district.sdk.get_received_edoc_list()} == set(ids)
    assert orjson.loads(orjson.dumps(ids)) == ids
