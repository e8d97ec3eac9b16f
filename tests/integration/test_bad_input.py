"""Messages that must not pass: each gets its problem and a sealed rejection, and nothing is stored."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio

from hub.directory import change
from hub.store.embedded import EmbeddedPostgres
from protocol.message import MAX_RECIPIENTS, seal
from protocol.signature import Signer, b64url, generate, public_pem
from tests.support.desk import Desk, open_desk
from tests.support.parties import LUC_YEN, PROVINCE, VAN_YEN

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One hub for all these tests: none of them may leave anything in it."""
    async with open_desk(postgres, tmp_path_factory.mktemp("bad-input")) as desk:
        yield desk


async def refused(desk: Desk, body: bytes, code: str, media_type: str = "application/jose") -> dict[str, Any]:
    """Submit `body` as the province: it is refused with `code` and proof, and nothing is stored."""
    before = await desk.stored()
    members = (await desk.post(body, media_type)).problem(code)
    assert await desk.stored() == before
    await desk.check_rejection(members, body.strip(), "ubnd-tinh")
    return members


def payload(**changes: Any) -> bytes:
    members = {"id": "7/UBND-VP", "from": PROVINCE, "to": [VAN_YEN]} | changes
    return orjson.dumps(members)


def compact(header: dict[str, Any], body: bytes, signature: bytes) -> bytes:
    return ".".join(map(b64url, (orjson.dumps(header), body, signature))).encode()


# -- what is no JWS ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        "công văn số 7".encode(),
        b"\xff\xfe\x00\x01" * 50,
        payload(),
        orjson.dumps({"payload": b64url(payload()), "protected": "e30", "signature": "AA"}),
        b"a.b",
        b"....",
        b"e30.e30.",
        b"%PDF-1.7\n" + bytes(1000),
    ],
)
async def test_not_a_jws(desk: Desk, body: bytes) -> None:
    await refused(desk, body, "not-a-jws")


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "ES384", "RSA1_5"])
async def test_algorithms_that_are_not_accepted(desk: Desk, alg: str) -> None:
    header = {"alg": alg, "kid": desk.province.signer.kid}
    await refused(desk, compact(header, payload(), b""), "algorithm-not-allowed")


async def test_hmac_with_the_public_key_as_secret(desk: Desk) -> None:
    public = desk.province.key.public_key()
    unsigned = compact({"alg": "HS256", "kid": desk.province.signer.kid}, payload(), b"").rstrip(b".")
    for secret in (public_pem(public), public_pem(public).strip()):
        mac = hmac.digest(secret, unsigned, "sha256")
        await refused(desk, unsigned + b"." + b64url(mac).encode(), "algorithm-not-allowed")
    # Nor does the right algorithm's name help.
    header = {"alg": "ES256", "kid": desk.province.signer.kid}
    await refused(desk, compact(header, payload(), mac + mac), "bad-signature")


@pytest.mark.parametrize("extra", [{"crit": ["exp"], "exp": 1}, {"b64": False, "crit": ["b64"]}])
async def test_headers_that_change_the_rules(desk: Desk, extra: dict[str, Any]) -> None:
    header = {"alg": "ES256", "kid": desk.province.signer.kid} | extra
    await refused(desk, compact(header, payload(), bytes(64)), "not-a-jws")


# -- signatures and keys ----------------------------------------------------------------------------


async def test_a_bad_signature(desk: Desk) -> None:
    good = desk.province.signer.sign(payload())
    head, _, signature = good.rpartition(b".")
    forged = [
        head + b"." + b64url(bytes(64)).encode(),
        head + b"." + signature[:-4] + (b"AAAA" if signature[-4:] != b"AAAA" else b"BBBB"),
        good.replace(b64url(payload()).encode(), b64url(payload(id="8/UBND-VP")).encode()),
        Signer(generate("ES256"), kid=desk.province.signer.kid).sign(payload()),
        Signer(generate("EdDSA"), kid=desk.province.signer.kid).sign(payload()),
        Signer(generate("PS256"), kid=desk.province.signer.kid).sign(payload()),
        head + b".",
    ]
    for body in forged:
        await refused(desk, body, "bad-signature")


@pytest.mark.parametrize("kid", ["khong-co", "x\0y", "a\nb", "ă" * 128, "x5t:khong-co"])
async def test_an_unknown_key(desk: Desk, kid: str) -> None:
    await refused(desk, Signer(generate("ES256"), kid=kid).sign(payload()), "unknown-key")


async def test_a_key_of_another_endpoint(desk: Desk) -> None:
    await refused(desk, desk.van_yen.signer.sign(payload()), "key-not-yours")


async def test_a_key_of_another_agency(desk: Desk) -> None:
    key = generate("EdDSA")
    await change.add_key(desk.connection, key.public_key(), agency=VAN_YEN)
    await desk.follow()
    await refused(desk, Signer(key).sign(payload()), "key-not-yours")


async def test_a_disabled_key(desk: Desk) -> None:
    key = generate("ES256")
    kid = await change.add_key(desk.connection, key.public_key(), endpoint="ubnd-tinh")
    await change.disable_key(desk.connection, kid)
    await desk.follow()
    await refused(desk, Signer(key).sign(payload()), "key-disabled")


@pytest.mark.parametrize("days", [(-2, -1), (1, 2)])
async def test_a_key_before_and_after_its_time(desk: Desk, days: tuple[int, int]) -> None:
    key, now = generate("ES256"), datetime.now(UTC)
    start, end = (now + timedelta(days=number) for number in days)
    await change.add_key(desk.connection, key.public_key(), endpoint="ubnd-tinh", not_before=start, not_after=end)
    await desk.follow()
    members = await refused(desk, Signer(key).sign(payload()), "key-expired")
    assert f"{start if days[0] > 0 else end:%Y-%m-%d}" in members["detail"]


# -- documents --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", [VAN_YEN, "000.00.99.H63", "KHONG.CO"])
async def test_from_is_not_the_endpoints(desk: Desk, sender: str) -> None:
    members = await refused(desk, desk.province.signer.sign(payload(**{"from": sender})), "from-not-yours")
    assert sender in members["detail"]


DEEP = b"[" * 200_000 + b"]" * 200_000
BAD_DOCUMENTS: dict[str, bytes] = {
    "no object": b"[]",
    "no JSON": b"{",
    "malformed UTF-8 in a member": payload(subject="@").replace(b"@", b"\xff\xfe"),
    "malformed UTF-8 in an unknown member": payload(note="@").replace(b"@", b"\xc3\x28"),
    "UTF-16": payload().decode().encode("utf-16"),
    "a lone surrogate": payload(subject="@").replace(b"@", b"\\ud800"),
    "deep": payload(note="@").replace(b'"@"', DEEP),
    "deep in `to`": payload(to="@").replace(b'"@"', DEEP),
    "a huge number": payload(due="@").replace(b'"@"', b"9" * 500_000),
    "a huge exponent": payload(expires="@").replace(b'"@"', b"1e999999999"),
    "a huge subject": payload(subject="x" * 500_000),
    "many members": payload(**{f"m{number}": number for number in range(20_000)}, subject=7),
    "twice the same member": payload().replace(b'{"id"', b'{"to":7,"id"'),
    "no id": payload(id=None),
    "a control character in the id": payload(id="7/UBND\x1b[2J"),
    "NUL in the id": payload(id="7\0"),
    "a C1 control in the id": payload(id="7\x9b2J"),
    "a line feed at the end of the id": payload(id="7\n"),
    "a long id": payload(id="7" * 129),
    "a control character in from": payload(**{"from": PROVINCE + "\n"}),
    "a control character in to": payload(to=[VAN_YEN + "\r\nX: y"]),
    "a control character in the code": payload(code="7/UBND\x07"),
    "a control character in an attachment's name": payload(
        attachments=[{"name": "a\0.pdf", "size": 1, "sha256": "ab" * 32}]
    ),
    "no such calendar day": payload(expires="2026-02-30T00:00:00Z"),
    "beyond the calendar": payload(expires="9999-12-31T23:59:59-12:00"),
    "a status of nothing": payload(kind="status", status="03"),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
async def test_bad_documents(desk: Desk, name: str) -> None:
    await refused(desk, desk.province.signer.sign(BAD_DOCUMENTS[name]), "bad-document")


async def test_ten_thousand_recipients(desk: Desk) -> None:
    to = [f"000.{number // 100:02}.{number % 100:02}.H63" for number in range(10_000)]
    members = await refused(desk, desk.province.signer.sign(payload(to=to)), "too-many-recipients")
    assert members["limit"] == MAX_RECIPIENTS


@pytest.mark.parametrize(
    ("to", "unreachable"),
    [
        ([VAN_YEN, "KHONG.CO"], {"KHONG.CO"}),
        ([VAN_YEN, LUC_YEN], {LUC_YEN}),
        ([VAN_YEN, "group:khong-co", "below:KHONG.CO"], {"group:khong-co", "below:KHONG.CO"}),
    ],
)
async def test_a_recipient_that_cannot_be_reached_rejects_the_whole(
    desk: Desk, to: list[str], unreachable: set[str]
) -> None:
    members = await refused(desk, desk.province.signer.sign(payload(to=to)), "recipient-unknown")
    assert {gap["recipient"] for gap in members["unreachable"]} == unreachable
    assert all(gap["reason"] for gap in members["unreachable"])


async def test_a_report_needs_somebody_who_can_be_reached(desk: Desk) -> None:
    body = desk.province.signer.sign(payload(to=["KHONG.CO", LUC_YEN], unreachable="report"))
    members = await refused(desk, body, "recipient-unknown")
    assert len(members["unreachable"]) == 2


async def test_an_attachment_that_was_not_uploaded(desk: Desk) -> None:
    attachments = [{"name": "Phụ lục.pdf", "size": 3, "sha256": "ab" * 32}]
    members = await refused(
        desk, desk.province.signer.sign(payload(attachments=attachments)), "attachment-missing"
    )
    assert members["attachments"] == ["ab" * 32]


async def test_a_message_that_had_expired(desk: Desk) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    await refused(desk, desk.province.signer.sign(payload(expires=yesterday)), "already-expired")
    await refused(desk, desk.province.signer.sign(payload(expires="0001-01-02T00:00:00Z")), "already-expired")


async def test_the_same_id_with_other_bytes(desk: Desk) -> None:
    document = desk.province.document(VAN_YEN, id="9/UBND-VP", subject="Bản đúng")
    message = seal(document, desk.province.signer)
    first = await desk.post(message)
    assert first.status == 202
    other = seal(desk.province.document(VAN_YEN, id="9/UBND-VP", subject="Bản khác"), desk.province.signer)
    members = await refused(desk, other, "id-conflict")
    assert members["message"] == first.json()["id"]
    # In one batch too, and the id is free for another endpoint.
    lines = other + b"\n" + message
    answers = [orjson.loads(line) for line in (await desk.post(lines, "application/x-ndjson")).body.splitlines()]
    assert [answer["status"] for answer in answers] == [409, 200]
    own = desk.van_yen.document(PROVINCE, id="9/UBND-VP")
    assert (await desk.post(seal(own, desk.van_yen.signer), party=desk.van_yen)).status == 202


# -- edXML ------------------------------------------------------------------------------------------

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"


def edxml(
    sender: str = PROVINCE, to: str = VAN_YEN, namespace: str = NAMESPACE, subject: str = "Báo cáo"
) -> bytes:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<edXML:edXML xmlns:edXML="{namespace}"><edXML:edXMLEnvelope><edXML:edXMLHeader><edXML:MessageHeader>
<edXML:From><edXML:OrganId>{sender}</edXML:OrganId></edXML:From>
<edXML:To><edXML:OrganId>{to}</edXML:OrganId></edXML:To>
<edXML:DocumentId>H63,2026/03/02,7</edXML:DocumentId><edXML:Subject>{subject}</edXML:Subject>
</edXML:MessageHeader></edXML:edXMLHeader></edXML:edXMLEnvelope></edXML:edXML>""".encode()


def with_doctype(doctype: str, subject: str = "&e;") -> bytes:
    declaration, _, rest = edxml(subject=subject).partition(b"\n")
    return declaration + b"\n" + doctype.encode() + b"\n" + rest


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BAD_XML: dict[str, tuple[bytes, str]] = {
    "an entity": (with_doctype('<!DOCTYPE e [<!ENTITY e "x">]>'), "bad-xml"),
    "an external entity": (with_doctype('<!DOCTYPE e [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "bad-xml"),
    "an external DTD": (with_doctype('<!DOCTYPE e SYSTEM "http://127.0.0.1:9/e.dtd">', "x"), "bad-xml"),
    "a parameter entity": (
        with_doctype('<!DOCTYPE e [<!ENTITY % p SYSTEM "http://127.0.0.1:9/p">%p;]>', "x"),
        "bad-xml",
    ),
    "a billion laughs": (with_doctype(f'<!DOCTYPE e [<!ENTITY l0 "ha">{LAUGHS}]>', "&l9;"), "bad-xml"),
    "an undeclared entity": (edxml(subject="&e;"), "bad-xml"),
    "junk before the declaration": (b"rac" + edxml(), "bad-xml"),
    "a blank before the declaration": (b"\n" + edxml(), "bad-xml"),
    "two roots": (edxml() + b"<e/>", "bad-xml"),
    "cut off": (edxml()[:-20], "bad-xml"),
    "empty": (b"", "bad-xml"),
    "UTF-16": (edxml().decode().encode("utf-16"), "bad-xml"),
    "malformed UTF-8": (edxml(subject="@").replace(b"@", b"\xff"), "bad-xml"),
    "NUL": (edxml(subject="@").replace(b"@", b"\0"), "bad-xml"),
    "deep": (edxml().replace(b"</edXML:From>", b"</edXML:From>" + b"<a>" * 50_000 + b"</a>" * 50_000), "bad-xml"),
    "a JWS": (b"e30.e30.e30", "bad-xml"),
    "the wrong namespace": (edxml(namespace="http://example.vn/edxml"), "bad-edxml"),
    "another root": (b"<html/>", "bad-edxml"),
    "no recipient": (edxml(to=""), "bad-edxml"),
    "no code": (edxml(to="Ủy ban nhân dân huyện Văn Yên"), "bad-edxml"),
    "from is not the endpoint's": (edxml(sender=VAN_YEN), "from-not-yours"),
    "nobody there": (edxml(to="KHONG.CO"), "recipient-unknown"),
    "disabled": (edxml(to=LUC_YEN), "recipient-unknown"),
}


@pytest.mark.parametrize("media_type", ["application/xml", "text/xml; charset=utf-8"])
@pytest.mark.parametrize("name", BAD_XML)
async def test_bad_xml(desk: Desk, name: str, media_type: str) -> None:
    body, code = BAD_XML[name]
    before = await desk.stored()
    members = (await desk.post(body, media_type)).problem(code)
    assert await desk.stored() == before
    await desk.check_rejection(members, body, "ubnd-tinh")
    assert b"root:" not in orjson.dumps(members)


async def test_bad_xml_in_a_stream_without_length(desk: Desk) -> None:
    """It goes by way of a file, of which nothing may be left."""

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    headers = {"Content-Type": "application/xml"}
    for name in ("a billion laughs", "cut off", "the wrong namespace", "nobody there"):
        body, code = BAD_XML[name]
        before = await desk.stored()
        answer = await desk.request("POST", "/v1/messages", desk.province, data=chunks(body), headers=headers)
        await desk.check_rejection(answer.problem(code), body, "ubnd-tinh")
        assert await desk.stored() == before
    files = [path for path in desk.hub.blobs.root.rglob("*") if path.is_file()]
    assert files == []


# -- batches ----------------------------------------------------------------------------------------


async def test_each_bad_line_of_a_batch_has_its_own_proof(desk: Desk) -> None:
    sign = desk.province.signer.sign
    lines = [
        b"",
        b"khong phai JWS",
        sign(payload(to=["KHONG.CO"])),
        sign(b"[]"),
        sign(payload(**{"from": VAN_YEN})),
    ]
    codes = ["not-a-jws", "not-a-jws", "recipient-unknown", "bad-document", "from-not-yours"]
    before = await desk.stored()
    answer = await desk.post(b"\n".join(lines), "application/x-ndjson")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    answers = [orjson.loads(line) for line in answer.body.splitlines()]
    assert [members["code"] for members in answers] == codes
    for line, members in zip(lines, answers, strict=True):
        await desk.check_rejection(members, line, "ubnd-tinh")
    assert await desk.stored() == before


async def test_refusals_are_kept(desk: Desk) -> None:
    """What was given as evidence stays in the store, endpoint by endpoint."""
    count = "select count(*) from rejection where endpoint = $1 and code = 'not-a-jws'"
    before = await desk.connection.fetchval(count, desk.province.id)
    await refused(desk, b"rac", "not-a-jws")
    assert await desk.connection.fetchval(count, desk.province.id) == before + 1
    row = await desk.connection.fetchrow("select event, digest from rejection order by id desc limit 1")
    assert orjson.loads(row["event"])["sha256"] == row["digest"].hex()
