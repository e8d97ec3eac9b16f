"""Requests of the axis's interface: signed, read, compared; timestamps; results."""

from __future__ import annotations

import hashlib
import hmac
import inspect
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import vxp
from protocol.problems import CATALOGUE, Problem
from protocol.vxp import Claim, Code, Refusal, fail, ok, read_claim, read_result, read_stamp, refusal_of, sign
from tests.support.axis_sdk import Sdk

# As observed on the wire.
SIGNED = (
    '{"XroadVnpt-systemid":"SYS01","XroadVnpt-servicetype":"eDoc","XroadVnpt-messagetype":"edoc",'
    '"XroadVnpt-timestamp":"23112026T104447+0278","XroadVnpt-Content-Type":"application/json"}'
)
HASH = "b113513616e9eda041e7100b179069ea11a0cd990ed48bc7243d47f2b220a17e"
MOMENT = datetime(2026, 11, 23, 3, 44, 47, 278_000, tzinfo=UTC)
LIST = {"servicetype": "eDoc", "messagetype": "edoc"}


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def observed() -> dict[str, str]:
    """The request of which SIGNED was observed."""
    return sign("SYS01", "s3cret", LIST, MOMENT)


def refused(headers: dict[str, str] | list[tuple[bytes, bytes]], code: Code) -> str:
    with pytest.raises(Refusal) as caught:
        read_claim(raw(headers) if isinstance(headers, dict) else headers)
    assert caught.value.code is code, caught.value
    return str(caught.value)


def resigned(signed: str, secret: str = "s3cret", **changes: str) -> dict[str, str]:
    """The observed request with another signed text, signed rightly."""
    headers = observed()
    digest = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return headers | {"XroadVnpt-sign-header": signed, "XroadVnpt-hash-header": digest} | changes


# -- signing --------------------------------------------------------------------------------------


def test_the_request_that_was_observed() -> None:
    headers = observed()
    assert headers["XroadVnpt-sign-header"] == SIGNED
    assert headers["XroadVnpt-sign-header-key"] == "systemid;servicetype;messagetype;timestamp;Content-Type"
    assert headers["XroadVnpt-hash-header"] == HASH
    assert headers["XroadVnpt-version"] == "3.0.201608"
    assert headers["User-Agent"] == "JAVASDKAgent/1.0.0 XRoad/VPCP"
    claim = read_claim(raw(headers))
    assert claim.system_id == "SYS01"
    assert claim.is_signed_with(b"s3cret")
    assert not claim.is_signed_with(b"s3creT")
    assert claim.stamp.isoformat() == "2026-11-23T10:44:47.278000"
    assert claim.parameters == {
        "systemid": "SYS01",
        "servicetype": "eDoc",
        "messagetype": "edoc",
        "timestamp": "23112026T104447+0278",
        "content-type": "application/json",
    }


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30).map(str.strip)


@given(st.dictionaries(st.sampled_from(["docId", "from", "level", "filePath", "AgencyCode"]), texts), texts, texts)
@settings(max_examples=200)
def test_what_is_signed_is_read(parameters: dict[str, str], secret: str, system: str) -> None:
    """By this code's own signing and by the double's, which are written apart and must agree."""
    system = "S" + system
    headers = sign(system, secret, parameters, MOMENT)
    sdk = Sdk(None, "", system, secret)  # type: ignore[arg-type]
    assert sdk.sign(parameters).keys() == headers.keys()
    for written in (headers, sdk.sign(parameters)):
        claim = read_claim(raw(written))
        assert claim.is_signed_with(secret.encode())
        assert not claim.is_signed_with(secret.encode() + b"!")
        assert claim.system_id == system.strip()
        for name, value in parameters.items():
            assert claim.parameters[name.lower()] == value.strip(" \t")


def test_names_come_in_any_case_and_order() -> None:
    headers = observed()
    mixed = [(name.swapcase().encode(), f" {value}\t".encode()) for name, value in reversed(headers.items())]
    assert read_claim(mixed) == read_claim(raw(headers))


def test_comparing_takes_as_long_whatever_differs() -> None:
    assert "hmac.compare_digest(" in inspect.getsource(Claim.is_signed_with)


def test_neither_signature_nor_signed_text_shows_in_logs() -> None:
    assert HASH not in repr(read_claim(raw(observed()))) and SIGNED not in repr(read_claim(raw(observed())))


# -- the headers against what was signed ----------------------------------------------------------


@pytest.mark.parametrize("name", ["systemid", "servicetype", "messagetype", "timestamp", "Content-Type"])
def test_a_header_that_was_changed(name: str) -> None:
    header = f"XroadVnpt-{name}"
    assert name.lower() in refused(observed() | {header: "khác"}, Code.NOT_AS_SIGNED)
    assert name.lower() in refused(observed() | {header: ""}, Code.NOT_AS_SIGNED)


@pytest.mark.parametrize("name", ["systemid", "servicetype", "messagetype", "timestamp"])
def test_a_header_that_was_taken_away(name: str) -> None:
    headers = observed()
    del headers[f"XroadVnpt-{name}"]
    assert name in refused(headers, Code.NOT_AS_SIGNED)


@pytest.mark.parametrize("name", ["docId", "from", "hash-file", "status", "X"])
def test_a_header_that_was_added(name: str) -> None:
    assert name.lower() in refused(observed() | {f"XroadVnpt-{name}": "1"}, Code.NOT_AS_SIGNED)


def test_a_header_that_stands_twice() -> None:
    for name in ("servicetype", "ServiceType", "sign-header", "hash-header", "version"):
        twice = [*raw(observed()), (f"XroadVnpt-{name}".encode(), b"eDoc")]
        assert "twice" in refused(twice, Code.BAD_REQUEST)


def test_the_names_must_be_those_that_were_signed_in_their_order() -> None:
    for listed in (
        "servicetype;systemid;messagetype;timestamp;Content-Type",
        "systemid;servicetype;messagetype;timestamp",
        "systemid;servicetype;messagetype;timestamp;Content-Type;docId",
        ";",
    ):
        refused(observed() | {"XroadVnpt-sign-header-key": listed}, Code.NOT_AS_SIGNED)


def test_other_headers_mean_nothing() -> None:
    assert read_claim([*raw(observed()), (b"X-Forwarded-For", b"10.0.0.1")]).is_signed_with(b"s3cret")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", "APPLICATION/JSON;charset=utf-8"]
)
def test_content_type_may_stand_without_its_prefix(content_type: str) -> None:
    headers = observed()
    del headers["XroadVnpt-Content-Type"]
    assert read_claim(raw(headers | {"Content-Type": content_type})).is_signed_with(b"s3cret")
    refused(headers | {"Content-Type": "text/xml"}, Code.NOT_AS_SIGNED)
    del headers["Content-Type"]
    refused(headers, Code.NOT_AS_SIGNED)


@pytest.mark.parametrize("name", ["sign-header", "sign-header-key", "hash-header"])
def test_without_a_part_of_the_signature(name: str) -> None:
    headers = observed()
    assert name in refused(headers | {f"XroadVnpt-{name}": ""}, Code.BAD_REQUEST)
    del headers[f"XroadVnpt-{name}"]
    assert name in refused(headers, Code.BAD_REQUEST)


def test_without_anything() -> None:
    refused([], Code.BAD_REQUEST)
    refused([(b"Authorization", b"Bearer lt_1")], Code.BAD_REQUEST)


@pytest.mark.parametrize("digest", ["", "zz", HASH[:-1], HASH + "0", " ".join(HASH[::2]), HASH[:-2] + "ﬀ"])
def test_what_is_no_digest(digest: str) -> None:
    refused(observed() | {"XroadVnpt-hash-header": digest}, Code.BAD_REQUEST)


def test_a_digest_in_capitals_is_one() -> None:
    headers = observed()
    headers["XroadVnpt-hash-header"] = HASH.upper()
    assert read_claim(raw(headers)).is_signed_with(b"s3cret")


# -- the signed text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signed",
    [
        "",
        "[]",
        "{}",
        "1",
        "null",
        '"text"',
        "{",
        "[" * 5_000,
        '{"a":' * 3_000,
        SIGNED[:-1],
        SIGNED + "}",
        SIGNED.replace('"SYS01"', "null"),
        SIGNED.replace('"SYS01"', "true"),
        SIGNED.replace('"SYS01"', "NaN"),
        SIGNED.replace('"SYS01"', '{"a":"b"}'),
        SIGNED.replace('"SYS01"', '["SYS01"]'),
        SIGNED.replace("XroadVnpt-systemid", "systemid"),
        SIGNED.replace("XroadVnpt-systemid", "XroadVnpt-"),
        SIGNED.replace("XroadVnpt-systemid", "XroadVnpt-system id"),
        SIGNED.replace("XroadVnpt-servicetype", "XroadVnpt-systemid"),
        SIGNED.replace("XroadVnpt-servicetype", "xroadvnpt-SYSTEMID"),
        "{" + ",".join(f'"XroadVnpt-p{number}":"1"' for number in range(vxp.MAX_PARAMETERS + 1)) + "}",
    ],
)
def test_a_signed_text_that_is_none(signed: str) -> None:
    refused(resigned(signed), Code.BAD_REQUEST)


def test_a_signed_text_that_is_not_utf_8() -> None:
    headers = [(name, value) for name, value in raw(observed()) if name != b"XroadVnpt-sign-header"]
    refused([*headers, (b"XroadVnpt-sign-header", SIGNED.encode().replace(b"SYS01", b"\xc4"))], Code.BAD_REQUEST)


def test_a_number_is_signed_as_one_and_travels_as_text() -> None:
    """Some callers give the SDK a number: {"level":1}."""
    headers = observed()
    signed = SIGNED.replace('"XroadVnpt-servicetype":"eDoc"', '"XroadVnpt-level":1')
    headers = resigned(signed, **{"XroadVnpt-level": "1"})
    del headers["XroadVnpt-servicetype"]
    headers["XroadVnpt-sign-header-key"] = headers["XroadVnpt-sign-header-key"].replace("servicetype", "level")
    claim = read_claim(raw(headers))
    assert claim.parameters["level"] == "1" and claim.is_signed_with(b"s3cret")
    refused(headers | {"XroadVnpt-level": "2"}, Code.NOT_AS_SIGNED)


@pytest.mark.parametrize("name", ["systemid", "timestamp"])
def test_systemid_and_timestamp_are_always_signed(name: str) -> None:
    members = orjson.loads(SIGNED)
    del members[f"XroadVnpt-{name}"]
    headers = resigned(orjson.dumps(members).decode())
    del headers[f"XroadVnpt-{name}"]
    headers["XroadVnpt-sign-header-key"] = ";".join(key.removeprefix("XroadVnpt-") for key in members)
    assert name in refused(headers, Code.BAD_REQUEST)


@given(st.binary(max_size=200), st.sampled_from(["sign-header", "sign-header-key", "hash-header", "timestamp"]))
@settings(max_examples=300)
def test_whatever_a_header_holds_is_refused_in_order(value: bytes, name: str) -> None:
    headers = [(key, content) for key, content in raw(observed()) if key != f"XroadVnpt-{name}".encode()]
    with pytest.raises(Refusal):
        read_claim([*headers, (f"XroadVnpt-{name}".encode(), value)])


# -- timestamps -----------------------------------------------------------------------------------


def test_a_timestamp_is_a_clock_in_vietnam() -> None:
    assert vxp.write_stamp(MOMENT) == "23112026T104447+0278"
    assert vxp.write_stamp(MOMENT.astimezone(timezone(timedelta(hours=-5)))) == "23112026T104447+0278"
    assert vxp.write_stamp(MOMENT, 0) == "23112026T034447+0278"
    assert vxp.write_stamp(datetime(2026, 12, 31, 17, 0, 0, 999, tzinfo=UTC)) == "01012027T000000+0000"
    assert vxp.local_time(MOMENT) == "2026/11/23 10:44:47"


@given(st.integers(86_400_000, 253_402_200_000_000), st.integers(-12, 14))
def test_a_timestamp_is_read_as_it_was_written(milliseconds: int, hours: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    stamp = read_stamp(vxp.write_stamp(moment, hours))
    assert stamp == (moment + timedelta(hours=hours)).replace(tzinfo=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "23112026T104447",
        "23112026T104447+078",
        "23112026T104447+1000",
        "23112026 104447+0278",
        "23112026T104447-0278",
        "32112026T104447+0278",
        "23132026T104447+0278",
        "30022026T104447+0278",
        "23110000T104447+0278",
        "23112026T244447+0278",
        "23112026T106047+0278",
        "23112026T104460+0278",
        "23112026T104447+0278 ",
        "2026-11-23T10:44:47Z",
        "２３112026T104447+0278",
        "\n23112026T104447+0278",
    ],
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_stamp(text)
    assert caught.value.code is Code.BAD_REQUEST


def test_the_age_of_a_request() -> None:
    claim = read_claim(raw(observed()))
    assert claim.age(MOMENT) == timedelta(0)
    assert claim.age(MOMENT + timedelta(seconds=90)) == timedelta(seconds=90)
    assert claim.age(MOMENT - timedelta(seconds=90)) == timedelta(seconds=-90)
    assert claim.age(MOMENT, utc_hours=0) == timedelta(hours=-7)
    assert claim.age(MOMENT.astimezone(timezone(timedelta(hours=9)))) == timedelta(0)


# -- parameters and results -----------------------------------------------------------------------


def test_a_parameter_that_is_needed() -> None:
    claim = read_claim(raw(sign("SYS01", "s3cret", {"docID": "1", "from": ""}, MOMENT)))
    assert claim.get("docid") == "1"
    for name in ("from", "level"):
        with pytest.raises(Refusal, match=name) as caught:
            claim.get(name)
        assert caught.value.code is Code.BAD_REQUEST


def test_results() -> None:
    assert orjson.loads(ok(DocId="1")) == {"status": "OK", "ErrorCode": "0", "ErrorDesc": "", "DocId": "1"}
    assert orjson.loads(ok("đợi duyệt")) == {"status": "OK", "ErrorCode": "0", "ErrorDesc": "đợi duyệt"}
    assert orjson.loads(fail(Refusal(Code.STALE, "cũ"))) == {
        "status": "FAIL",
        "ErrorCode": "52",
        "ErrorDesc": "cũ",
    }
    assert orjson.loads(fail(Refusal(Code.STALE)))["ErrorDesc"] == Code.STALE.meaning


def test_results_are_read_as_they_were_written() -> None:
    assert read_result(ok(DocId="1", data=[]))["DocId"] == "1"
    for code in Code:
        if code is Code.OK:
            continue
        with pytest.raises(Refusal) as caught:
            read_result(fail(Refusal(code, "vì sao")))
        assert (caught.value.code, str(caught.value)) == (code, "vì sao")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"status":"OK","ErrorCode":"99","ErrorDesc":"?"}',
        b'{"status":"FAIL","ErrorCode":"0"}',
        b'{"status":"FAIL","ErrorCode":99,"ErrorDesc":null}',
        b"{}",
    ],
)
def test_answers_of_others_that_are_no_success(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_result(body)
    assert caught.value.code is Code.AXIS_ERROR


def test_answers_of_others_may_have_a_number_for_code() -> None:
    assert read_result(b'{"status":"OK","ErrorCode":0,"count":3}')["count"] == 3
    with pytest.raises(Refusal) as caught:
        read_result(b'{"status":"FAIL","ErrorCode":15,"ErrorDesc":"sai"}')
    assert caught.value.code is Code.NOT_AUTHENTICATED


def test_every_code_is_explained_and_every_problem_has_one() -> None:
    assert set(vxp.MEANINGS) == set(Code)
    assert all(code.meaning and code.meaning == vxp.MEANINGS[code] for code in Code)
    for kind in CATALOGUE.values():
        refusal = refusal_of(Problem(kind.code, "chi tiết"))
        assert refusal.code is not Code.OK and "chi tiết" in str(refusal)
        if kind.fault == "hub":
            assert refusal.code is Code.AXIS_ERROR and refusal.code.retryable
    assert refusal_of(Problem("internal")).description == CATALOGUE["internal"].title


def test_fields_at_fault_are_named() -> None:
    problem = Problem("bad-edxml", "Subject is missing", fields=(("N.MessageHeader.Subject", "is missing"),))
    refusal = refusal_of(problem)
    assert refusal.code is Code.BAD_EDXML
    assert refusal.description == "Subject is missing [N.MessageHeader.Subject]"


@pytest.mark.parametrize(
    ("text", "expected"), [(HASH, True), (HASH.upper(), True), (HASH[1:], False), ("", False), ("g" * 64, False)]
)
def test_what_is_a_digest(text: str, expected: bool) -> None:
    assert vxp.is_digest(text) is expected
