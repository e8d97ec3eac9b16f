"""The national document axis's HTTP interface: how requests are signed, and what results say.

A request's parameters travel as headers ``XroadVnpt-<name>``. Three more headers sign them (observed on the
wire with the axis's Java SDK, version 2.0.1):

    XroadVnpt-sign-header-key   the names in order, without prefix, joined by ``;``
    XroadVnpt-sign-header       compact JSON of the same, names with prefix, in that order
    XroadVnpt-hash-header       lower-case hex of HMAC-SHA256(secret, the bytes of sign-header)

The HMAC covers that JSON and nothing else: not the headers it was made from, not the method, the path or the
body. `read_claim` therefore compares every header with the JSON, both ways; whoever acts on a request checks
the claim's signature, its age, that it is new, and the body against ``hash-file``.

Results are JSON objects: ``status`` (``OK`` or ``FAIL``), ``ErrorCode`` (``"0"`` or another `Code`) and
``ErrorDesc``, beside what the call gives. A failure too is HTTP 200.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from protocol.problems import LienthongError, Problem

PREFIX = "XroadVnpt-"
VERSION = "3.0.201608"
USER_AGENT = "JAVASDKAgent/1.0.0 XRoad/VPCP"
SERVICE = "eDoc"
VIETNAM_HOURS = 7
"""Vietnam's clock is seven hours ahead of UTC, all year."""
MAX_PARAMETERS = 32

_UNSIGNED = frozenset({"sign-header-key", "sign-header", "hash-header", "version"})
_LOWER = PREFIX.lower().encode()
_KEY = re.compile(PREFIX + r"([a-z][a-z0-9_-]{0,63})", re.ASCII | re.IGNORECASE)
_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")
_STAMP = re.compile(r"(\d{2})(\d{2})(\d{4})T(\d{2})(\d{2})(\d{2})\+(\d{4})", re.ASCII)


class Code(StrEnum):
    """ErrorCode. Those below 50 are used by axes in service, in the same meaning; the others are this hub's."""

    OK = "0"
    INVALID_FILE = "10"
    NOT_AUTHENTICATED = "15"
    RECEIVER_UNKNOWN = "18"
    SENDER_UNKNOWN = "19"
    AXIS_ERROR = "20"
    BAD_XML = "21"
    BAD_EDXML = "22"
    RECEIVER_LOCKED = "23"
    BAD_REQUEST = "50"
    NOT_AS_SIGNED = "51"
    STALE = "52"
    REPLAYED = "53"
    DISABLED = "54"
    NO_SUCH_DOCUMENT = "55"
    NOT_ALLOWED = "56"
    NOT_CONVERTIBLE = "57"
    TOO_LARGE = "58"
    NO_SUCH_CALL = "59"
    PACKAGE_SIGNATURE = "60"
    PDF_SIGNATURE = "61"

    @property
    def meaning(self) -> str:
        return MEANINGS[self]

    @property
    def retryable(self) -> bool:
        """Whether the same call, signed anew, may succeed later without anybody changing anything."""
        return self in (Code.AXIS_ERROR, Code.REPLAYED)


MEANINGS = {
    Code.OK: "Done",
    Code.INVALID_FILE: "The body is empty, or its SHA-256 is not the one that `hash-file` announces",
    Code.NOT_AUTHENTICATED: "Wrong `systemid` or secret",
    Code.RECEIVER_UNKNOWN: "A recipient is not known here; nothing was sent",
    Code.SENDER_UNKNOWN: "The system does not speak for the sender named",
    Code.AXIS_ERROR: "The hub cannot do it now; nothing is lost, call again",
    Code.BAD_XML: "The file is not XML that the hub accepts",
    Code.BAD_EDXML: "The XML is not an edXML message that can be routed, or not of the kind announced",
    Code.RECEIVER_LOCKED: "A recipient is closed, disabled or not connected yet; nothing was sent",
    Code.BAD_REQUEST: "A header or the body is missing, malformed or holds a value that is not known",
    Code.NOT_AS_SIGNED: "The headers are not those that were signed",
    Code.STALE: "The timestamp lies too far in the past or in the future",
    Code.REPLAYED: "This very request was answered before; sign it anew",
    Code.DISABLED: "The system has been shut out by the hub's operator; its documents wait",
    Code.NO_SUCH_DOCUMENT: "The system neither got nor sent a document with this id",
    Code.NOT_ALLOWED: "The system may not change this agency, or the hub takes no such changes",
    Code.NOT_CONVERTIBLE: "The document cannot be given as edXML; fetch it from the hub's own interface",
    Code.TOO_LARGE: "The request is larger than the hub accepts",
    Code.NO_SUCH_CALL: "The interface has no such call, or not by this method",
    Code.PACKAGE_SIGNATURE: "The file lacks the package signature that this system's must have",
    Code.PDF_SIGNATURE: "A PDF in the file is not signed as this system's must be",
}


_FAILURES = frozenset(code.value for code in Code) - {"0"}


class Refusal(LienthongError):
    """A call that fails: its `Code`, and one sentence that is safe to show the caller."""

    def __init__(self, code: Code, description: str = "") -> None:
        super().__init__(description or code.meaning)
        self.code = code
        self.description = description or code.meaning


# -- results ------------------------------------------------------------------------------------


def ok(description: str = "", **members: Any) -> bytes:
    """A success, as JSON. `members` are what the call gives; `orjson.Fragment` is put in as it is."""
    return orjson.dumps({"status": "OK", "ErrorCode": Code.OK, "ErrorDesc": description, **members})


def fail(refusal: Refusal) -> bytes:
    """A failure, as JSON."""
    return orjson.dumps({"status": "FAIL", "ErrorCode": refusal.code, "ErrorDesc": refusal.description})


def read_result(body: bytes) -> dict[str, Any]:
    """The members of a result, as a caller gets it. Raises `Refusal` for a failure and for what is no result.

    A code that is not known becomes `AXIS_ERROR`; the text keeps it.
    """
    try:
        members = orjson.loads(body)
    except ValueError:
        raise Refusal(Code.AXIS_ERROR, "the answer is not JSON") from None
    if not isinstance(members, dict):
        raise Refusal(Code.AXIS_ERROR, "the answer is not a JSON object")
    code, status = str(members.get("ErrorCode", "")), str(members.get("status", ""))
    if status.upper() == "OK" and code in ("0", ""):
        return members
    description = str(members.get("ErrorDesc") or "")
    if code in _FAILURES:
        raise Refusal(Code(code), description)
    raise Refusal(Code.AXIS_ERROR, f"{status or 'no status'}, code {code or 'missing'}: {description}")


_PROBLEMS = {
    "bad-xml": Code.BAD_XML,
    "bad-edxml": Code.BAD_EDXML,
    "bad-document": Code.BAD_EDXML,
    "package-signature": Code.PACKAGE_SIGNATURE,
    "pdf-signature": Code.PDF_SIGNATURE,
    "too-many-recipients": Code.BAD_EDXML,
    "already-expired": Code.BAD_EDXML,
    "from-not-yours": Code.SENDER_UNKNOWN,
    "recipient-unknown": Code.RECEIVER_UNKNOWN,
    "not-addressed": Code.NOT_ALLOWED,
    "not-the-sender": Code.NOT_ALLOWED,
    "state-secret": Code.NOT_ALLOWED,
    "recalled": Code.NO_SUCH_DOCUMENT,
    "not-convertible": Code.NOT_CONVERTIBLE,
    "digest-mismatch": Code.INVALID_FILE,
    "unauthenticated": Code.NOT_AUTHENTICATED,
    "forbidden": Code.DISABLED,
    "not-found": Code.NO_SUCH_DOCUMENT,
    "method-not-allowed": Code.NO_SUCH_CALL,
    "too-large": Code.TOO_LARGE,
    "too-many-requests": Code.AXIS_ERROR,
    "timeout": Code.AXIS_ERROR,
}


def refusal_of(problem: Problem) -> Refusal:
    """What a problem of the hub is called on this interface."""
    code = _PROBLEMS.get(problem.code, Code.AXIS_ERROR if problem.kind.fault == "hub" else Code.BAD_REQUEST)
    text = problem.detail or problem.kind.title
    if problem.fields:
        text += " [" + "; ".join(path for path, _ in problem.fields) + "]"
    return Refusal(code, text)


# -- timestamps ---------------------------------------------------------------------------------


def write_stamp(moment: datetime, utc_hours: float = VIETNAM_HOURS) -> str:
    """A moment (with a time zone) as the interface writes it: ``23112026T104447+0066``.

    Day, month, year, then the time of a clock `utc_hours` ahead of UTC; after the plus sign milliseconds.
    """
    local = moment.astimezone(UTC) + timedelta(hours=utc_hours)
    return f"{local:%d%m%YT%H%M%S}+{local.microsecond // 1000:04}"


def local_time(moment: datetime) -> str:
    """A moment (with a time zone) as results write it, in Vietnam's time: ``2026/11/23 10:44:47``."""
    return f"{moment.astimezone(UTC) + timedelta(hours=VIETNAM_HOURS):%Y/%m/%d %H:%M:%S}"


def read_stamp(text: str) -> datetime:
    """The reading of the caller's clock, without a zone. Raises `Refusal`."""
    match = _STAMP.fullmatch(text)
    try:
        if match is not None and int(match[7]) < 1000:
            day, month, year, hour, minute, second, milliseconds = map(int, match.groups())
            return datetime(year, month, day, hour, minute, second, milliseconds * 1000)  # noqa: DTZ001
    except ValueError:
        pass
    raise Refusal(
        Code.BAD_REQUEST, f"timestamp {text[:40]!r} is not ddMMyyyy'T'HHmmss+SSSS, such as 23112026T104447+0066"
    )


# -- requests -----------------------------------------------------------------------------------


def _hmac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, signed, hashlib.sha256)


def sign(
    system_id: str,
    secret: str,
    parameters: Mapping[str, str],
    at: datetime,
    *,
    content_type: str = "application/json",
    utc_hours: float = VIETNAM_HOURS,
) -> dict[str, str]:
    """The headers of a request. `parameters` stand in their order between systemid and timestamp."""
    named = {
        "systemid": system_id,
        **parameters,
        "timestamp": write_stamp(at, utc_hours),
        "Content-Type": content_type,
    }
    headers = {PREFIX + name: value for name, value in named.items()}
    signed = orjson.dumps(headers)
    return {
        "Content-Type": content_type,
        "User-Agent": USER_AGENT,
        **headers,
        PREFIX + "sign-header-key": ";".join(named),
        PREFIX + "sign-header": signed.decode(),
        PREFIX + "hash-header": _hmac(secret.encode(), signed).hex(),
        PREFIX + "version": VERSION,
    }


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself: consistent, but proven only once `is_signed_with` says so."""

    system_id: str
    parameters: dict[str, str]
    """By name in lower case."""
    stamp: datetime
    """The reading of the caller's clock; it names no zone."""
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)

    def is_signed_with(self, secret: bytes) -> bool:
        """Whether the signature was made with `secret`. Takes as long whatever differs."""
        return hmac.compare_digest(_hmac(secret, self.signed), self.signature)

    def age(self, now: datetime, utc_hours: float = VIETNAM_HOURS) -> timedelta:
        """How old the request is, if its clock is `utc_hours` ahead of UTC; negative when it lies ahead."""
        return now.astimezone(UTC).replace(tzinfo=None) + timedelta(hours=utc_hours) - self.stamp

    def get(self, name: str) -> str:
        """A parameter by its name in lower case. Raises `Refusal` when it is missing or empty."""
        value = self.parameters.get(name, "")
        if not value:
            raise Refusal(Code.BAD_REQUEST, f"the parameter {name} is missing")
        return value


def read_claim(headers: Iterable[tuple[bytes, bytes]]) -> Claim:
    """Take a request's headers (names in any case, values as received) apart.

    Every ``XroadVnpt-`` header must be signed and every signed one be there, with the same value; only the
    signature itself and the version are left out. ``Content-Type`` may stand without its prefix, which is how
    HTTP has it. Raises `Refusal` BAD_REQUEST or NOT_AS_SIGNED.
    """
    given: dict[str, bytes] = {}
    content_type = b""
    for raw_name, raw_value in headers:
        lower = raw_name.lower()
        if lower.startswith(_LOWER):
            name = lower[len(_LOWER) :].decode("latin-1")
            if name in given:
                raise Refusal(Code.BAD_REQUEST, f"the header {PREFIX}{name[:64]} stands twice")
            given[name] = raw_value.strip(b" \t")
        elif lower == b"content-type":
            content_type = raw_value
    for name in ("sign-header", "sign-header-key", "hash-header"):
        if not given.get(name):
            raise Refusal(Code.BAD_REQUEST, f"the header {PREFIX}{name} is missing")
    signed = given["sign-header"]
    parameters = _read_signed(signed)
    _check_names(given["sign-header-key"], list(parameters))
    _compare(given, parameters, content_type)
    signature = given["hash-header"].decode("latin-1")
    if not _SHA256_HEX.fullmatch(signature):
        raise Refusal(Code.BAD_REQUEST, f"{PREFIX}hash-header is not a SHA-256 in hex")
    for name in ("systemid", "timestamp"):
        if not parameters.get(name):
            raise Refusal(Code.BAD_REQUEST, f"{name} is not among what was signed")
    return Claim(
        parameters["systemid"], parameters, read_stamp(parameters["timestamp"]), bytes.fromhex(signature), signed
    )


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its members in order, repeated ones among them."""


# Numbers as they are written: some callers give the SDK a number, which it signs as one.
_decode = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str).decode


def _read_signed(signed: bytes) -> dict[str, str]:
    """The signed parameters by name in lower case, in their order."""
    try:
        pairs = _decode(signed.decode())
    except (ValueError, RecursionError):
        raise Refusal(Code.BAD_REQUEST, f"{PREFIX}sign-header is not JSON in UTF-8") from None
    if not isinstance(pairs, _Pairs) or not 1 <= len(pairs) <= MAX_PARAMETERS:
        raise Refusal(Code.BAD_REQUEST, f"{PREFIX}sign-header is not an object of 1 to {MAX_PARAMETERS} members")
    parameters: dict[str, str] = {}
    for key, value in pairs:
        match = _KEY.fullmatch(key)
        if match is None or not isinstance(value, str):
            raise Refusal(Code.BAD_REQUEST, f"{PREFIX}sign-header holds {key[:64]!r}, which is no parameter")
        name = match[1].lower()
        if name in parameters:
            raise Refusal(Code.BAD_REQUEST, f"{PREFIX}sign-header holds {name} twice")
        parameters[name] = value.strip(" \t")
    return parameters


def _check_names(listed: bytes, names: list[str]) -> None:
    if listed.decode("latin-1").lower().split(";") != names:
        raise Refusal(Code.NOT_AS_SIGNED, f"{PREFIX}sign-header-key does not list what {PREFIX}sign-header holds")


def _compare(given: Mapping[str, bytes], parameters: Mapping[str, str], content_type: bytes) -> None:
    for name in given:
        if name not in parameters and name not in _UNSIGNED:
            raise Refusal(Code.NOT_AS_SIGNED, f"the header {PREFIX}{name[:64]} was not signed")
    for name, value in parameters.items():
        expected = value.encode("utf-8", "surrogatepass")
        if name in given:
            same = given[name] == expected
        elif name == "content-type":  # a library may have added a charset to it
            same = content_type.partition(b";")[0].strip().lower() == expected.partition(b";")[0].strip().lower()
        else:
            raise Refusal(Code.NOT_AS_SIGNED, f"{name} was signed, but there is no header {PREFIX}{name}")
        if not same:
            raise Refusal(Code.NOT_AS_SIGNED, f"the header {PREFIX}{name} is not what was signed")


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in hex, as ``hash-file`` is."""
    return _SHA256_HEX.fullmatch(text) is not None
