"""The OpenAPI document is true: whatever is asked by it is answered as it says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import jsonschema
import orjson
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.engine import Status, events, from_schema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from hub.directory import change, hubs
from hub.store.embedded import EmbeddedPostgres
from protocol.evidence import SEAL_TYPE, Sealer, Tree, leaf_hash, receipt
from protocol.link import RELAYED_MEDIA_TYPE
from protocol.message import Attachment, Document, Person, Promulgation, Reference, seal, write_document
from protocol.problems import CATALOGUE
from protocol.signature import Signer, generate, parse, thumbprint, to_jwk
from protocol.stream import SUBPROTOCOL
from tests.support.desk import Desk, open_desk
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN
from tests.support.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 25


@schemathesis.serializer("application/x-ndjson", RELAYED_MEDIA_TYPE)  # what the fuzzer makes up for them is bytes
def as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else orjson.dumps(value, default=str)


OPERATIONS = [
    "POST /v1/messages",
    "GET /v1/messages/{id}",
    "GET /v1/messages/{id}/events",
    "GET /v1/messages/{id}/proof",
    "GET /v1/messages/{id}/thread",
    "GET /v1/messages/{id}/document",
    "GET /v1/messages/{id}/edxml",
    "GET /v1/mailbox",
    "POST /v1/mailbox/ack",
    "PUT /v1/attachments/{sha256}",
    "GET /v1/attachments/{sha256}",
    "GET /healthz/live",
    "GET /healthz/ready",
    "GET /metrics",
    "GET /v1/status",
    "GET /v1/hub/keys",
    "GET /v1/hub/trust",
    "GET /verify",
    "GET /problems/{code}",
    "GET /v1/stream",
    "POST /v1/link/messages",
    "GET /v1/link/directory",
    "PUT /v1/link/directory",
    "POST /v1/link/notices",
    "GET /log",
    "GET /log/checkpoint",
    "GET /log/tile/{path}",
    "GET /log/proof/{batch}/{leaf}",
    "GET /v1/log/events/{index}",
]
ASKED_BY_ANYBODY = (
    "GET /healthz/live",
    "GET /healthz/ready",
    "GET /metrics",
    "GET /v1/status",
    "GET /v1/hub/keys",
    "GET /v1/hub/trust",
    "GET /verify",
)
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
}
"""What makes a request one for a stream; the fuzzer's library sends no `Connection` of ours."""
BY_LINES = ("POST /v1/messages", "POST /v1/link/messages")
"""A batch is answered line by line: 200, and in each line a status of its own."""
BODIES = [label for label in OPERATIONS if not label.startswith("GET")]
"""Where a body that fits the schema may be refused all the same: no schema can ask for a right signature or
digest, and JSON Schema takes 1.0 for an integer."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with open_desk(postgres, tmp_path_factory.mktemp("openapi")) as desk:
        yield desk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(desk: Desk) -> dict[str, Any]:
    answer = await desk.request("GET", "/openapi.json")
    assert answer.headers["Content-Type"].startswith("application/json")
    found: dict[str, Any] = answer.json()
    return found


def load(desk: Desk, document: dict[str, Any], **settings: Any) -> Any:
    """The document as the fuzzer knows it, with the province's token."""
    config = schemathesis.Config.from_dict(
        {"base-url": desk.url, "headers": desk.province.headers, "generation": {"database": "none"}, **settings}
    )
    return schemathesis.openapi.from_dict(document, config=config)


def without_long_polls(case: Any) -> None:
    """A reader without mail waits for as long as it asked; the fuzzer should not."""
    wait = (case.query or {}).get("wait")
    with contextlib.suppress(TypeError, ValueError):  # it may be anything; on the wire a number is text
        if not isinstance(wait, bool) and 0 < float(wait) <= 60:
            case.query["wait"] = 0


# -- the document itself ----------------------------------------------------------------------------


async def test_it_is_openapi_3_1_and_names_every_operation(desk: Desk, document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    schema = load(desk, document)
    schema.validate()
    labels = [result.ok().label for result in schema.get_all_operations()]
    assert sorted(labels) == sorted(OPERATIONS)
    broken = document | {"info": {"title": 7}}
    with pytest.raises(ValueError, match="is a required property"):
        load(desk, broken).validate()


async def test_each_operation_says_who_may_ask_and_what_may_be_refused(document: dict[str, Any]) -> None:
    names = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names.add(operation["operationId"])
            assert operation["summary"]
            assert {"400", "405", "500", "503"} <= set(operation["responses"])
            is_open = operation.get("security") == []
            assert is_open != path.startswith(("/v1/m", "/v1/a", "/v1/l", "/v1/stream"))
            assert is_open or {"401", "403"} <= set(operation["responses"])
            for status, answer in operation["responses"].items():
                problem = "application/problem+json" in answer.get("content", {})
                assert problem == (int(status) >= 400 and not (path == "/healthz/ready" and status == "503"))
                assert answer["description"]
            assert ("requestBody" in operation) == (method in ("post", "put"))
    assert len(names) == len(OPERATIONS)
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(CATALOGUE)


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if "$ref" in schema else set()
        return own.union(*map(references, schema.values()))
    return set().union(*map(references, schema)) if isinstance(schema, list) else set()


async def test_every_reference_leads_somewhere_and_no_pattern_is_pythons_own(document: dict[str, Any]) -> None:
    named = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= named
    assert b"(?!" not in orjson.dumps(document)


FULL = Document(
    id="7/UBND-VP",
    sender=PROVINCE,
    to=(VAN_YEN, "group:so-nganh", "below:H63"),
    subject="V/v kết nối, liên thông phần mềm quản lý văn bản",
    priority="express",
    promulgation=Promulgation("Yên Bái", "2026-03-02"),
    signer=Person("Đặng Thị Ngọc Ánh"),
    response_for=(Reference("11/UBND-NC"),),
    attachments=(Attachment("Phụ lục.pdf", 3, "ab" * 32),),
    expires=datetime(2026, 4, 1, tzinfo=UTC),
)


async def test_the_payload_of_a_message_is_described_as_it_is_read(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Document", "components": document["components"]}
    check = jsonschema.Draft202012Validator(schema)
    good = orjson.loads(write_document(FULL))
    assert check.is_valid(good)
    assert check.is_valid({"id": "7", "from": "H63", "to": ["H63.31"], "tương_lai": 1})
    for change_ in (
        {"id": ""},
        {"id": "7" * 129},
        {"from": "Yên Bái"},
        {"from": "H63\t"},
        {"to": []},
        {"to": ["ngoài:H63"]},
        {"kind": "hồ sơ"},
        {"attachments": [{"name": "a", "size": -1, "sha256": "ab" * 32}]},
    ):
        assert not check.is_valid(good | change_), change_
    assert not check.is_valid({name: value for name, value in good.items() if name != "to"})


# -- with real data ---------------------------------------------------------------------------------


def edxml_message() -> bytes:
    return (
        f'<e:edXML xmlns:e="http://www.mic.gov.vn/TBT/QCVN_102_2016"><e:edXMLEnvelope><e:edXMLHeader>'
        f"<e:MessageHeader><e:From><e:OrganId>{PROVINCE}</e:OrganId></e:From>"
        f"<e:To><e:OrganId>{VAN_YEN}</e:OrganId></e:To><e:DocumentId>{PROVINCE},7</e:DocumentId>"
        f"</e:MessageHeader></e:edXMLHeader></e:edXMLEnvelope></e:edXML>"
    ).encode()


async def as_a_hub_below(desk: Desk, ask: Callable[..., Awaitable[requests.Response]]) -> None:
    """What a linked hub asks: it tells who lies there, passes on a document, and says how another one ended."""
    token = await hubs.accept(desk.connection, "tinh-lao-cai", ("000.00.00.H38",))
    await desk.follow()
    below, hub_key, key = {"Authorization": f"Bearer {token}"}, generate("EdDSA"), generate("ES256")
    told = {
        "hub": "truc-lao-cai",
        "hub_keys": [to_jwk(hub_key.public_key())],
        "agencies": [{"code": "000.00.00.H38", "name": "UBND tỉnh Lào Cai", "system": "1"}],
        "keys": [{"name": thumbprint(key.public_key()), "jwk": to_jwk(key.public_key()), "system": "1"}],
    }
    assert (await ask("PUT /v1/link/directory", below, json=told)).json()["keys"] == 1
    assert (await ask("GET /v1/link/directory", below)).json()["agencies"]
    letter = Document(id="1/UBND", sender="000.00.00.H38", to=(VAN_YEN,))
    line = {"for": [VAN_YEN], "accepted_at": "2026-03-02T00:00:00Z", "message": seal(letter, Signer(key)).decode()}
    sent = await ask(
        "POST /v1/link/messages", below, data=orjson.dumps(line), headers={"Content-Type": "application/x-ndjson"}
    )
    assert orjson.loads(sent.content)["status"] == 202
    raw = seal(desk.province.document("000.00.00.H38"), desk.province.signer)
    jose = {"Content-Type": "application/jose"}
    message = (await ask("POST /v1/messages", desk.province, data=raw, headers=jose)).json()["id"]
    event = {"event": "refused", "at": "2026-03-02T00:00:00Z", "sha256": hashlib.sha256(raw).hexdigest(),
             "recipients": ["000.00.00.H38"], "reason": "Gửi nhầm"}  # fmt: skip
    text = orjson.dumps(event).decode()
    tree = Tree([leaf_hash(text.encode())])
    sealed = Sealer("truc-lao-cai", Signer(hub_key, typ=SEAL_TYPE)).seal(tree, "1", datetime.now(UTC))
    notice = {"message": message, "receipt": orjson.loads(receipt(text, 0, tree, sealed).to_json())}
    assert (await ask("POST /v1/link/notices", below, json=notice)).status_code == 204
    forged = notice | {"receipt": notice["receipt"] | {"event": text.replace("nhầm", "đúng")}}
    assert (await ask("POST /v1/link/notices", below, json=forged)).status_code == 400


async def until_logged(desk: Desk) -> None:
    """Return when every event so far is in the log."""

    async def drained() -> bool:
        await desk.hub.integrator.integrate()
        return not await desk.connection.fetchval("select exists (select 1 from log_pending)")

    await until(drained, "the log takes all batches")


async def test_every_operation_answers_real_requests_as_described(desk: Desk, document: dict[str, Any]) -> None:
    schema = load(desk, document)
    answered: set[tuple[str, int]] = set()
    operator = {"Authorization": f"Bearer {await change.issue_token(desk.connection, role='operator')}"}
    await desk.follow()
    file = "phụ lục".encode()
    name = hashlib.sha256(file).hexdigest()
    attachment = Attachment("Phụ lục.txt", len(file), name)
    letter = desk.province.document(VAN_YEN, DAI_SON, "KHONG.CO", attachments=(attachment,), unreachable="report")
    jws = seal(letter, desk.province.signer)
    lines = desk.province.signer.sign(write_document(desk.province.document(VAN_YEN))) + b"\nrac\n" + jws

    async def ask(label: str, party: Any, **options: Any) -> requests.Response:
        """One request; the answer fits the description of its operation."""
        method, path = label.split()
        url = desk.url + path.format(**options.pop("path", {}))
        headers = (party if isinstance(party, dict) else party.headers) | options.pop("headers", {})
        response = await asyncio.to_thread(requests.request, method, url, headers=headers, timeout=30, **options)
        schema.find_operation_by_label(label).validate_response(response)
        answered.add((label, response.status_code))
        return response

    province, district = desk.province, desk.van_yen
    for status in (201, 200):
        put = await ask("PUT /v1/attachments/{sha256}", province, path={"sha256": name}, data=file)
        assert put.status_code == status
    jose = {"Content-Type": "application/jose"}
    for status in (202, 200):
        sent = await ask("POST /v1/messages", province, data=jws, headers=jose)
        assert sent.status_code == status
    batch = await ask("POST /v1/messages", province, data=lines, headers={"Content-Type": "application/x-ndjson"})
    await ask("POST /v1/messages", province, data=edxml_message(), headers={"Content-Type": "application/xml"})
    await ask("POST /v1/messages", province, data=b"rac", headers=jose)
    page = (await ask("GET /v1/mailbox", district)).json()
    assert [entry["format"] for entry in page["entries"]] == ["jws", "jws", "edxml"]
    for entry in page["entries"]:
        await ask("GET /v1/messages/{id}", district, path={"id": entry["id"]})
    for headers, status in (({}, 200), ({"Range": "bytes=2-"}, 206), ({"Range": "bytes=99-"}, 416)):
        got = await ask("GET /v1/attachments/{sha256}", district, path={"sha256": name}, headers=headers)
        assert got.status_code == status
    first, *others = (entry["seq"] for entry in page["entries"])
    asked = {"entries": others, "refuse": [{"seq": first, "reason": "Gửi nhầm"}]}
    await ask("POST /v1/mailbox/ack", district, json=asked)
    (notice,) = (await ask("GET /v1/mailbox", province)).json()["entries"]
    assert notice["format"] == "receipt"
    await ask("GET /v1/messages/{id}", province, path={"id": notice["id"]})
    for party in (province, district, operator):
        await ask("GET /v1/messages/{id}/events", party, path={"id": page["entries"][0]["id"]})
        await ask("GET /v1/messages/{id}/thread", party, path={"id": page["entries"][0]["id"]})
        await ask("GET /v1/messages/{id}/proof", party, path={"id": page["entries"][0]["id"]})
    for entry in page["entries"]:
        for form in ("document", "edxml"):
            await ask("GET /v1/messages/{id}/" + form, district, path={"id": entry["id"]})
    await ask("GET /v1/messages/{id}/document", province, path={"id": notice["id"]})
    for party in ({}, operator):
        for label in ASKED_BY_ANYBODY:
            await ask(label, party)
    await until_logged(desk)
    batch_id = orjson.loads(parse(sent.json()["receipt"]["seal"].encode()).payload)["batch"]
    await ask("GET /log", {})
    await ask("GET /log/checkpoint", {})
    for tile, status in (("entries/000.p/1", 200), ("0/000.p/1", 200), ("0/999", 404)):
        assert (await ask("GET /log/tile/{path}", {}, path={"path": tile})).status_code == status
    for leaf, status in ((0, 200), (10**6, 404)):
        got = await ask("GET /log/proof/{batch}/{leaf}", {}, path={"batch": batch_id, "leaf": leaf})
        assert got.status_code == status
    for index, status in ((0, 200), (10**6, 404)):
        assert (await ask("GET /v1/log/events/{index}", operator, path={"index": index})).status_code == status
    await ask("GET /problems/{code}", {}, path={"code": "too-large"})
    for headers, status in (({}, 426), (HANDSHAKE, 101)):
        assert (await ask("GET /v1/stream", province, headers=headers)).status_code == status
    await as_a_hub_below(desk, ask)
    assert {label for label, status in answered if status < 300} == set(OPERATIONS)
    # No library of the fuzzer's reads the lines of a batch: each is a `Submitted` or a `Problem`.
    models = document["components"]
    for line in batch.content.splitlines():
        members = orjson.loads(line)
        model = "Submitted" if members["status"] < 300 else "Problem"
        jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{model}", "components": models}).validate(
            members
        )


# -- with made-up data ------------------------------------------------------------------------------


def fuzz(desk: Desk, document: dict[str, Any], label: str, mode: GenerationMode) -> int:
    """Ask an operation with what fits its description, or does not. Returns how often it was asked."""
    operation = load(desk, document).find_operation_by_label(label)
    excluded = [positive_data_acceptance] if label in BODIES or label == "GET /v1/stream" else []
    asked = 0
    with requests.Session() as session:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            without_long_polls(case)
            headers = desk.province.headers
            case.call_and_validate(session=session, headers=headers, excluded_checks=excluded, timeout=30)

        check()
    return asked


@pytest.mark.parametrize("label", OPERATIONS)
async def test_whatever_fits_is_answered_as_described(desk: Desk, document: dict[str, Any], label: str) -> None:
    assert await asyncio.to_thread(fuzz, desk, document, label, GenerationMode.POSITIVE) >= 1


@pytest.mark.parametrize("label", OPERATIONS[1:10])  # of the first, any text may be the body
async def test_whatever_does_not_fit_is_refused_as_described(
    desk: Desk, document: dict[str, Any], label: str
) -> None:
    assert await asyncio.to_thread(fuzz, desk, document, label, GenerationMode.NEGATIVE) >= EXAMPLES


def cover(desk: Desk, document: dict[str, Any]) -> tuple[int, list[str]]:
    """Ask every operation with the bounds of each of its parameters, methods that it does not have, and so on.

    Returns how often it was asked, and what was wrong.
    """
    off = {"enabled": False}
    phases = {"examples": off, "fuzzing": off, "stateful": off, "coverage": {"enabled": True}}
    schema = load(desk, document, phases=phases, checks={"positive_data_acceptance": off})
    asked, wrong = 0, []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            wrong.append(repr(event))
        if isinstance(event, events.ScenarioFinished):
            asked += len(event.recorder.cases)
            failed = [
                check
                for checks in event.recorder.checks.values()
                for check in checks
                if check.status is not Status.SUCCESS
            ]
            wrong += [
                f"{event.label}: {check.name}: {check.failure_info}"
                for check in failed
                if not (event.label in BY_LINES and check.name == "negative_data_rejection")
            ]
    return asked, wrong


async def test_the_bounds_of_every_parameter(desk: Desk, document: dict[str, Any]) -> None:
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        without_long_polls(case)

    schemathesis.hook(before_call)
    try:
        asked, wrong = await asyncio.to_thread(cover, desk, document)
    finally:
        schemathesis.hooks.unregister(before_call)
    assert wrong == []
    assert asked > 200
