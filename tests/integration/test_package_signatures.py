"""Package signatures of edXML at both doors: ignored, noted, or required, as the sender's endpoint has it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from hub.directory import change
from hub.directory.change import DirectoryError
from hub.relay import package_signatures
from hub.store import sql
from protocol.edxml import xmldsig
from protocol.edxml.binding import DSIG
from protocol.edxml.xmldsig import Policy, Result
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.axis_parties import Axis, System, connect, paper
from tests.support.axis_sdk import SdkError
from tests.support.command import Lienthong
from tests.support.desk import STORED, check_problem
from tests.support.edxml_signed import Party, clerk, rsa_key, signed
from tests.support.pair import Pair
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

XML = "application/xml"
DOORS = ["native", "axis"]
PIN = clerk().certificate.fingerprint(hashes.SHA256()).hex()
OTHER_PIN = "0" * 64
SUBJECT = "CN=Văn phòng UBND tỉnh Yên Bái"
NOTED = "select status, fingerprint from package_signature where message = $1 order by place"


@pytest.fixture
async def axis(hub: RunningHub, http: aiohttp.ClientSession) -> Axis:
    return await connect(hub, http)


async def settle(
    axis: Axis, policy: Policy, *pins: str, any_certificate: bool = False, system: System | None = None
) -> None:
    """Give the province (or `system`) a policy; returns once the hub knows it."""
    name = (system or axis.province).party.name
    await change.set_package_signatures(axis.hub.connection, name, policy, pins, any_certificate)
    await axis.hub.follow()


async def submit(axis: Axis, raw: bytes, door: str, system: System | None = None) -> str:
    """Send it by that door; the hub's id. Raises Problem, or SdkError."""
    system = system or axis.province
    if door == "axis":
        return await system.sdk.send_edoc(raw, system.party.agencies[0])
    async with system.party.client(axis.hub.url) as client:
        return (await client.submit(raw, XML)).id


async def events(axis: Axis, message: str, system: System | None = None) -> dict[str, Any]:
    async with (system or axis.province).party.client(axis.hub.url) as client:
        return dict(await client.events(message))


async def refusal(axis: Axis, raw: bytes, door: str) -> str:
    """Why it is refused as it lacks a signature. Nothing of it is kept, and the refusal is sealed."""
    before = await axis.hub.connection.fetchrow(STORED)
    with pytest.raises((Problem, SdkError)) as caught:
        await submit(axis, raw, door)
    if isinstance(caught.value, SdkError):
        assert caught.value.code == "60"
        reason = caught.value.description
    else:
        assert isinstance(caught.value, Problem)
        check_problem(caught.value.members(), "package-signature")
        pair = Pair(axis.hub, axis.province.party, axis.district.party)
        async with pair.sender:
            event = await pair.check(orjson.dumps(caught.value.members()), raw)
        assert (event["event"], event["code"]) == ("rejected", "package-signature")
        reason = caught.value.detail
    row = await axis.hub.connection.fetchrow("select * from rejection order by id desc limit 1")
    assert row is not None and (row["code"], row["digest"]) == ("package-signature", hashlib.sha256(raw).digest())
    assert await axis.hub.connection.fetchrow(STORED) == before
    return str(reason)


# -- messages ---------------------------------------------------------------------------------------

DUMMY = re.compile(rb"\s*<edXML:Signature>.*?</edXML:Signature>", re.DOTALL)


def unsigned(content: str = "UEs=") -> bytes:
    return DUMMY.sub(b"", paper(content=content))


def made(outcome: str) -> bytes:
    """A message whose one signature is such."""
    good = signed(unsigned())
    if outcome == "invalid":
        return good.replace("thiên tai".encode(), "thiên tại".encode(), 1)
    if outcome == "dummy":
        return re.sub(rb"(<ds:X509Certificate>).*?(<)", rb"\1MIIFtjCCBJ\2", good, flags=re.DOTALL)
    if outcome == "unsupported":
        return good.replace(f"{DSIG}enveloped-signature".encode(), f"{DSIG}enveloped".encode())
    return good


OUTCOMES = ["valid", "invalid", "dummy", "unsupported"]


# -- ignore -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_without_a_policy_nobody_looks(axis: Axis, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    def looked(source: object) -> Sequence[Result]:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(package_signatures, "verify", looked)
    for outcome in OUTCOMES:
        message = await submit(axis, made(outcome), door)
        assert "package_signatures" not in await events(axis, message)
    await settle(axis, Policy.RECORD)
    await settle(axis, Policy.IGNORE)
    await submit(axis, made("valid"), door)
    await settle(axis, Policy.REQUIRE, PIN, system=axis.district)  # somebody else's policy
    await submit(axis, made("invalid"), door)
    assert await axis.hub.connection.fetchval("select count(*) from package_signature") == 0


# -- record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_what_is_found_is_kept_with_the_message(axis: Axis, outcome: str, door: str) -> None:
    await settle(axis, Policy.RECORD)
    raw = made(outcome)
    message = await submit(axis, raw, door)
    (found,) = (await events(axis, message))["package_signatures"]
    assert found["status"] == outcome
    looked_at = outcome in ("valid", "invalid")
    assert (found.get("subject"), found.get("fingerprint")) == ((SUBJECT, PIN) if looked_at else (None, None))
    assert (found.get("whole", False), "reason" in found) == (outcome == "valid", outcome != "valid")
    assert (await events(axis, message, axis.district))["package_signatures"] == [found]
    async with axis.district.party.client(axis.hub.url) as client:
        ((entry,), _) = await client.read()
        assert (entry.id, await client.fetch(entry)) == (message, raw)


@pytest.mark.parametrize("door", DOORS)
async def test_the_same_bytes_again_are_noted_once(axis: Axis, door: str) -> None:
    await settle(axis, Policy.RECORD)
    raw = made("valid")
    assert await submit(axis, raw, door) == (message := await submit(axis, raw, door))
    assert [tuple(row) for row in await axis.hub.connection.fetch(NOTED, message)] == [("valid", PIN)]


@pytest.mark.parametrize("door", DOORS)
async def test_of_a_message_without_any_nothing_is_noted(axis: Axis, door: str) -> None:
    await settle(axis, Policy.RECORD)
    message = await submit(axis, unsigned(), door)
    assert "package_signatures" not in await events(axis, message)


async def test_several_and_of_too_many_the_valid_one(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    end = b"</edXML:edXMLHeader>"
    worthless = b"<edXML:Signature><edXML:SignedInfo/></edXML:Signature>"
    raw = signed(unsigned().replace(end, worthless * 3 + end))
    noted = (await events(axis, await submit(axis, raw, "native")))["package_signatures"]
    assert [(one["status"], one.get("place", 0)) for one in noted] == [
        ("dummy", 0),
        ("dummy", 1),
        ("dummy", 2),
        ("valid", 3),
    ]
    raw = signed(unsigned().replace(end, worthless * 40 + end))
    noted = (await events(axis, await submit(axis, raw, "native")))["package_signatures"]
    assert len(noted) == package_signatures.MAX_NOTED
    assert (noted[-1]["status"], noted[-1]["place"]) == ("valid", 40)


async def test_what_a_certificate_says_can_be_stored_and_shown(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    odd = Party("Văn thư\x1b[31m\u202e\x00 ở Yên Bái", rsa_key())
    (found,) = (await events(axis, await submit(axis, signed(unsigned(), by=odd), "native")))["package_signatures"]
    assert found["status"] == "valid"
    assert found["subject"].isprintable() and "Yên Bái" in found["subject"]


async def test_messages_and_what_was_found_are_committed_together(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    connection, raw = axis.hub.connection, made("valid")
    await connection.execute("alter table package_signature rename to gone")
    with pytest.raises(Problem) as caught:
        async with axis.province.party.client(axis.hub.url, retry_seconds=0) as client:
            await client.submit(raw, XML)
    assert caught.value.code == "internal"
    assert [*(await connection.fetchrow(STORED) or ())] == [0, 0, 0]
    await connection.execute("alter table gone rename to package_signature")
    message = await submit(axis, raw, "native")
    assert [row["status"] for row in await connection.fetch(NOTED, message)] == ["valid"]


async def test_what_was_found_leaves_with_its_month(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    message = await submit(axis, made("valid"), "native")
    retention, connection = sql.load("retention"), axis.hub.connection
    await connection.execute(retention.forget_references, datetime.now(UTC) - timedelta(days=1))
    assert await connection.fetchval("select count(*) from package_signature where message = $1", message) == 1
    await connection.execute(retention.forget_references, datetime.now(UTC) + timedelta(days=1))
    assert await connection.fetchval("select count(*) from package_signature") == 0


async def test_who_may_ask_for_the_message_alone_sees_them(axis: Axis) -> None:
    await settle(axis, Policy.RECORD)
    message = await submit(axis, made("valid"), "native")
    stranger = await axis.hub.register("luc-yen", "000.00.32.H63")
    async with stranger.client(axis.hub.url) as client:
        with pytest.raises(Problem) as caught:
            await client.events(message)
    assert caught.value.code == "not-found"


# -- require ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_only_a_valid_one_by_a_pinned_certificate_will_do(axis: Axis, door: str) -> None:
    await settle(axis, Policy.REQUIRE, OTHER_PIN, PIN)
    message = await submit(axis, made("valid"), door)
    (found,) = (await events(axis, message))["package_signatures"]
    assert (found["status"], found["fingerprint"]) == ("valid", PIN)
    for outcome in ("invalid", "dummy", "unsupported"):
        assert outcome in await refusal(axis, made(outcome), door)
    assert "has no package signature" in await refusal(axis, unsigned(), door)
    stranger = Party("Người lạ", rsa_key())  # with the very same key: it is the certificate that counts
    assert "is not registered here" in await refusal(axis, signed(unsigned(), by=stranger), door)
    other = Party("Người khác", rsa_key(3072))
    for certificates, reason in [
        ([clerk().certificate], "invalid"),
        ([clerk().certificate, other.certificate], "invalid"),
        ([other.certificate, clerk().certificate], "is not registered here"),
    ]:
        borrowed = signed(unsigned(), by=other, certificates=certificates)
        assert reason in await refusal(axis, borrowed, door)
    await settle(axis, Policy.REQUIRE, OTHER_PIN)
    assert PIN in await refusal(axis, made("valid"), door)


@pytest.mark.parametrize("door", DOORS)
async def test_anybodys_if_an_operator_says_so(axis: Axis, door: str) -> None:
    await settle(axis, Policy.REQUIRE, any_certificate=True)
    stranger = Party("Người lạ", rsa_key())
    message = await submit(axis, signed(unsigned(), by=stranger), door)
    (found,) = (await events(axis, message))["package_signatures"]
    assert (found["status"], found["subject"]) == ("valid", "CN=Người lạ")
    for outcome in ("invalid", "dummy", "unsupported"):
        await refusal(axis, made(outcome), door)


@pytest.mark.parametrize("door", DOORS)
async def test_weak_and_partial_ones_will_not_do(axis: Axis, door: str) -> None:
    weak = signed(unsigned(), method=SignatureMethod.RSA_SHA1, digest=DigestAlgorithm.SHA1)
    partial = signed(unsigned().replace(b"<edXML:Subject>", b'<edXML:Subject Id="s">'), reference="#s")
    await settle(axis, Policy.REQUIRE, PIN)
    assert "SHA-1" in await refusal(axis, weak, door)
    assert "does not cover the whole" in await refusal(axis, partial, door)
    await settle(axis, Policy.RECORD)
    (found,) = (await events(axis, await submit(axis, weak, door)))["package_signatures"]
    assert (found["status"], found["weak"], found["whole"]) == ("valid", True, True)
    (found,) = (await events(axis, await submit(axis, partial, door)))["package_signatures"]
    assert (found["status"], found.get("whole", False)) == ("valid", False)


async def test_what_else_is_wrong_is_said_first(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes the hub verify what it would refuse anyway."""
    await settle(axis, Policy.REQUIRE, PIN)
    monkeypatch.setattr(package_signatures, "verify", None)
    for raw, code in [
        (signed(DUMMY.sub(b"", paper(sender=VAN_YEN))), "from-not-yours"),
        (signed(DUMMY.sub(b"", paper("000.00.99.H63"))), "recipient-unknown"),
        (made("valid")[:-5], "bad-xml"),
    ]:
        with pytest.raises(Problem) as caught:
            await submit(axis, raw, "native")
        assert caught.value.code == code


# -- large ------------------------------------------------------------------------------------------


def blobs(axis: Axis) -> int:
    return sum(path.is_file() for path in axis.hub.hub.blobs.root.rglob("*"))


@pytest.mark.parametrize("door", DOORS)
async def test_large_messages(axis: Axis, door: str) -> None:
    raw = signed(unsigned("QUJD" * 500_000))
    damaged = raw.replace(b"QUJDQUJD", b"QUJDQUJE", 1)
    huge = unsigned("QUJD" * (xmldsig.MAX_BYTES // 4))
    # A signature that would be right, if anybody looked: made over a shorter message, and put into a long one.
    (signature,) = re.findall(rb"<ds:Signature .*?</ds:Signature>", raw, re.DOTALL)
    huge = huge.replace(b"</edXML:edXMLHeader>", signature + b"</edXML:edXMLHeader>")
    await settle(axis, Policy.REQUIRE, PIN)
    assert "invalid" in await refusal(axis, damaged, door)
    assert str(xmldsig.MAX_BYTES) in await refusal(axis, huge, door)
    assert blobs(axis) == 0
    message = await submit(axis, raw, door)
    assert blobs(axis) == 1
    assert [tuple(row) for row in await axis.hub.connection.fetch(NOTED, message)] == [("valid", PIN)]
    await settle(axis, Policy.RECORD)
    message = await submit(axis, huge, door)
    assert [row["status"] for row in await axis.hub.connection.fetch(NOTED, message)] == ["unsupported"]
    async with axis.district.party.client(axis.hub.url) as client:
        assert await client.fetch(message) == huge


# -- slow -------------------------------------------------------------------------------------------


class Slow:
    """Verification that stands still for messages with a certain word, until it is let go on."""

    def __init__(self, word: bytes) -> None:
        self.word = word
        self.entered = 0
        self.go_on = threading.Event()

    def verify(self, source: bytes) -> tuple[Result, ...]:
        if self.word in source:
            self.entered += 1
            assert self.go_on.wait(60)
        return xmldsig.verify(source)


async def test_a_slow_message_holds_up_its_sender_alone(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(b"SLOWSLOW")
    monkeypatch.setattr(package_signatures, "verify", slow.verify)
    monkeypatch.setattr(package_signatures, "MAX_WAITING", 4)
    await settle(axis, Policy.REQUIRE, PIN)
    await settle(axis, Policy.REQUIRE, PIN, system=axis.district)
    hostile = [signed(unsigned("SLOWSLOW")) for _ in range(4)]
    waiting = [asyncio.create_task(submit(axis, raw, door)) for raw, door in zip(hostile, DOORS * 2, strict=True)]
    try:
        await until(lambda: slow.entered, "the first is being verified")
        for door in DOORS * 3:  # somebody else, who must sign too
            other = signed(DUMMY.sub(b"", paper(PROVINCE, sender=VAN_YEN)))
            assert await submit(axis, other, door, axis.district)
        async with axis.province.party.client(axis.hub.url) as client:  # and itself, by what needs no verification
            await client.send(axis.province.party.document(VAN_YEN))
        limit = axis.hub.hub.package_signatures
        await until(lambda: limit._waiting[axis.province.endpoint] == 4, "all four are there")
        rejected = await axis.hub.connection.fetchval("select count(*) from rejection")
        with pytest.raises(SdkError) as caught:
            await submit(axis, made("valid"), "axis")
        assert caught.value.code == "20"  # come back: it says nothing of the message
        assert await axis.hub.connection.fetchval("select count(*) from rejection") == rejected
        assert slow.entered == 1
        assert not any(task.done() for task in waiting)
    finally:
        slow.go_on.set()
    assert len(set(await asyncio.gather(*waiting))) == 4
    assert not limit._waiting


async def test_a_message_made_to_be_slow(axis: Axis) -> None:
    """90,000 elements, each reference through every transform it may have."""
    end = b"</edXML:edXMLHeader>"
    elements = b"<X>" + b'<y a="1" b="2"/>' * 90_000 + b"</X>"
    raw = signed(unsigned().replace(end, elements + end))
    (reference,) = re.findall(rb"<ds:Reference .*?</ds:Reference>", raw, re.DOTALL)
    transform = b'<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>'
    slower = reference.replace(b"</ds:Transforms>", transform * 2 + b"</ds:Transforms>")
    raw = raw.replace(reference, slower * 4)
    await settle(axis, Policy.RECORD)
    await settle(axis, Policy.RECORD, system=axis.district)
    hostile = [asyncio.create_task(submit(axis, raw + b"\n" * n, "native")) for n in range(3)]
    for door in DOORS:
        own = signed(DUMMY.sub(b"", paper(PROVINCE, sender=VAN_YEN)))
        message = await submit(axis, own, door, axis.district)
        (found,) = (await events(axis, message, axis.district))["package_signatures"]
        assert found["status"] == "valid"
    for message in await asyncio.gather(*hostile):
        assert [row["status"] for row in await axis.hub.connection.fetch(NOTED, message)] == ["invalid"]


# -- the directory ----------------------------------------------------------------------------------


async def test_a_signature_is_required_of_somebody(axis: Axis) -> None:
    connection, name = axis.hub.connection, axis.province.party.name
    put = change.set_package_signatures
    for policy, pins, any_certificate in [
        (Policy.REQUIRE, (), False),
        (Policy.REQUIRE, (PIN,), True),
        (Policy.RECORD, (), True),
        (Policy.REQUIRE, ("không phải dấu vân tay",), False),
        (Policy.REQUIRE, (PIN[1:],), False),
    ]:
        with pytest.raises(DirectoryError):
            await put(connection, name, policy, pins, any_certificate)
    with pytest.raises(DirectoryError, match="no endpoint 'ai'"):
        await put(connection, "ai", Policy.RECORD)
    assert (await put(connection, name, Policy.REQUIRE, [PIN, PIN])).pins == (PIN,)
    assert (await put(connection, name, Policy.IGNORE)).pins == (PIN,)
    assert (await put(connection, name, Policy.REQUIRE)).pins == (PIN,), "they were kept"
    assert (await put(connection, name, Policy.REQUIRE, (), True)).pins == ()
    with pytest.raises(DirectoryError, match="--pin"):
        await put(connection, name, Policy.REQUIRE)
    await axis.hub.follow()
    kept = axis.hub.hub.directory.picture.endpoints[axis.province.endpoint]
    assert (kept.edxml_signatures, kept.edxml_pins) == (Policy.REQUIRE, None)


async def test_the_command(axis: Axis, database_url: str, tmp_path: Path) -> None:
    lienthong = Lienthong(tmp_path, {"LIENTHONG_DATABASE_URL": database_url})
    name = axis.province.party.name

    async def call(*words: object) -> Any:
        return await asyncio.to_thread(lienthong.json, "endpoint", *words)

    async def listed() -> tuple[str, list[str], bool]:
        (row,) = [row for row in await call("list") if row["name"] == name]
        return row["edxml_signatures"], row["edxml_pins"], row["edxml_any_certificate"]

    assert await listed() == ("ignore", [], False)
    complaint = await asyncio.to_thread(lienthong.fails, "endpoint", "signatures", name, "--policy", "require")
    assert "--any-certificate" in complaint
    colons = ":".join(re.findall("..", PIN.upper()))
    told = await call("signatures", name, "--policy", "require", "--pin", colons, "--pin", OTHER_PIN)
    assert told == {
        "name": name,
        "edxml_signatures": "require",
        "edxml_pins": [PIN, OTHER_PIN],
        "edxml_any_certificate": False,
    }
    assert await listed() == ("require", [PIN, OTHER_PIN], False)
    assert "require, 2 pinned" in await asyncio.to_thread(lienthong, "endpoint", "list", COLUMNS="200")
    await axis.hub.follow()
    assert "invalid" in await refusal(axis, made("invalid"), "native")
    await call("signatures", name, "--policy", "require", "--any-certificate")
    assert await listed() == ("require", [], True)
    assert "any certificate" in await asyncio.to_thread(lienthong, "endpoint", "list", COLUMNS="200")
    await call("signatures", name, "--policy", "record")
    assert await listed() == ("record", [], False)
    await axis.hub.follow()
    await submit(axis, made("invalid"), "native")
    status = (await asyncio.to_thread(lienthong.call, "endpoint", "signatures", name, "--policy", "x")).exit_code
    assert status == 2
