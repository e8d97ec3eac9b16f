"""Time-stamps of an authority (RFC 3161): what is verified, and what each lie is called."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import cms, tsp
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from hub.ca.timestamps import POLICY, TimestampAuthority
from protocol.timestamp import TimestampError, read_reply, request_timestamp, verify_timestamp
from tests.support.tsa import Root

TEXT = "trục.yên-bái/log\n1234\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n".encode()
ROOT = Root("Gốc thử nghiệm")
AUTHORITY = ROOT.authority()


def token(authority: TimestampAuthority = AUTHORITY, text: bytes = TEXT) -> bytes:
    request = request_timestamp(text)
    return tsp.TimeStampResp.load(authority.answer(request.body))["time_stamp_token"].dump()


def refused(given: bytes, *, text: bytes = TEXT, roots: tuple[bytes, ...] = (ROOT.der,)) -> str:
    with pytest.raises(TimestampError) as error:
        verify_timestamp(given, text, roots)
    return str(error.value)


def stating(authority: TimestampAuthority, *, with_certificates: bool = True, **changes: object) -> bytes:
    """A token with another statement than the authority would make."""
    info = {
        "version": "v1",
        "policy": POLICY,
        "message_imprint": tsp.TimeStampReq.load(request_timestamp(TEXT).body)["message_imprint"],
        "serial_number": 1,
        "gen_time": datetime.now(UTC).replace(microsecond=0),
    }
    return bytes(authority.sign(tsp.TSTInfo(info | changes), with_certificates=with_certificates).dump())


# -- good ones ------------------------------------------------------------------------------------


def test_a_token_says_when_and_who() -> None:
    now = datetime.now(UTC)
    stamp = verify_timestamp(token(), TEXT, [ROOT.der])
    assert abs(stamp.at - now) < timedelta(minutes=1) and stamp.at.utcoffset() == timedelta()
    assert stamp.authority == "Lienthong TSA thử nghiệm"
    assert stamp.policy == POLICY
    assert stamp.accuracy == timedelta(seconds=1)
    assert stamp.serial == AUTHORITY.serial


def test_a_root_among_others_is_found() -> None:
    others = [Root("Gốc khác").der for _ in range(2)]
    assert verify_timestamp(token(), TEXT, [*others, ROOT.der, ROOT.der])


def test_an_authority_below_an_intermediate() -> None:
    middle = Root("Trung gian", ROOT)
    authority = middle.authority()
    authority.certificates.append(middle.certificate)
    assert verify_timestamp(token(authority), TEXT, [ROOT.der])
    authority.certificates.pop()
    assert "leads to no trusted root" in refused(token(authority))


def test_a_certificate_that_has_ended_since_does_no_harm() -> None:
    begin = datetime.now(UTC) - timedelta(days=800)
    authority = ROOT.authority(not_before=begin, not_after=begin + timedelta(days=365))
    authority.now = lambda: begin + timedelta(days=30)
    assert verify_timestamp(token(authority), TEXT, [ROOT.der]).at < datetime.now(UTC) - timedelta(days=700)


def test_a_large_serial_number_and_no_accuracy() -> None:
    stamp = verify_timestamp(stating(AUTHORITY, serial_number=1 << 150, policy="1.2.3.4"), TEXT, [ROOT.der])
    assert (stamp.serial, stamp.accuracy, stamp.policy) == (1 << 150, None, "1.2.3.4")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_reads_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(token())
    (tmp_path / "text").write_bytes(TEXT)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    command = ["openssl", "ts", "-verify", "-in", "token", "-token_in", "-data", "text", "-CAfile", "ca.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "OK" in done.stdout + done.stderr


def test_the_module_verifies_alone(tmp_path: Path) -> None:
    """In a process that has loaded nothing else: parsers register what they know when they are loaded."""
    for name, data in (("token", token()), ("text", TEXT), ("root", ROOT.der)):
        (tmp_path / name).write_bytes(data)
    program = (
        "from pathlib import Path; from protocol.timestamp import verify_timestamp; "
        "read = lambda name: Path(name).read_bytes(); "
        "print(verify_timestamp(read('token'), read('text'), [read('root')]).policy)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == POLICY + "\n", done.stderr


# -- lies and damage ------------------------------------------------------------------------------


def test_another_text() -> None:
    assert "over something else" in refused(token(), text=TEXT.replace(b"1234", b"1235"))
    assert "over something else" in refused(token(text="điểm kiểm tra khác".encode()))


def test_an_unknown_root_and_none() -> None:
    assert "leads to no trusted root" in refused(token(), roots=(Root("Gốc thử nghiệm").der,))
    assert "leads to no trusted root" in refused(token(), roots=())
    assert "trusted root cannot be read" in refused(token(), roots=(b"PEM",))


def test_a_certificate_that_had_ended_or_not_begun() -> None:
    ended = ROOT.authority(
        not_before=datetime.now(UTC) - timedelta(days=30), not_after=datetime.now(UTC) - timedelta(days=1)
    )
    assert "the authority's certificate is valid from" in refused(token(ended))
    early = ROOT.authority(not_before=datetime.now(UTC) + timedelta(days=1))
    assert "the authority's certificate is valid from" in refused(token(early))


def test_a_certificate_for_another_purpose() -> None:
    assert refused(token(ROOT.authority(purposes=())))
    assert refused(token(ROOT.authority(purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,))))


def test_a_root_that_signs_for_an_authority_it_did_not_certify() -> None:
    """The certificate in the token is exchanged for one with the same names and the liar's key."""
    honest, liar = ROOT.authority(), Root("Gốc thử nghiệm").authority()
    assert "leads to no trusted root" in refused(token(liar))
    liar.certificates = honest.certificates
    assert "signature is wrong" in refused(token(liar))


def test_a_token_for_another_certificate_of_the_same_key() -> None:
    """RFC 5816: the signature names the certificate, so that none can be put in another's place."""
    authority = ROOT.authority()
    made = tsp.TimeStampResp.load(authority.answer(request_timestamp(TEXT).body))["time_stamp_token"]
    twin = TimestampAuthority.make(ROOT.certificate, ROOT.key, name="Song sinh")
    signed = made["content"]
    signed["certificates"] = cms.CertificateSet([cms.CertificateChoices.load(_der(twin))])
    signed["signer_infos"][0]["sid"].chosen["serial_number"] = twin.certificates[0].serial_number
    signed["signer_infos"][0]["sid"].chosen["issuer"] = made["content"]["certificates"][0].chosen.issuer
    assert "another certificate" in refused(made.dump(force=True))


def _der(authority: TimestampAuthority) -> bytes:
    return authority.certificates[0].public_bytes(Encoding.DER)


def test_a_token_without_certificates() -> None:
    assert "not in the token" in refused(stating(AUTHORITY, with_certificates=False))


def test_another_digest() -> None:
    imprint = {"hash_algorithm": {"algorithm": "sha512"}, "hashed_message": b"\0" * 64}
    assert "not over a SHA-256" in refused(stating(AUTHORITY, message_imprint=imprint))


def test_every_altered_byte_and_every_cut_is_noticed() -> None:
    given = token()
    for place in range(len(given)):
        refused(given[:place] + bytes([given[place] ^ 1 << place % 8]) + given[place + 1 :])
    for end in range(len(given)):
        refused(given[:end])
    refused(given + b"\0")


@pytest.mark.parametrize("given", [b"", b"\0", b"<html>502 Bad Gateway</html>", b"\x30\x80", b"0" * 70_000])
def test_what_is_no_token(given: bytes) -> None:
    assert "not a time-stamp" in refused(given)


# -- answers --------------------------------------------------------------------------------------


def test_an_answer_belongs_to_its_request() -> None:
    request, other = request_timestamp(TEXT), request_timestamp(TEXT)
    assert request.nonce != other.nonce
    given, stamp = read_reply(AUTHORITY.answer(request.body), request, [ROOT.der])
    assert verify_timestamp(given, TEXT, [ROOT.der]) == stamp
    with pytest.raises(TimestampError, match="nonce differs"):
        read_reply(AUTHORITY.answer(other.body), request, [ROOT.der])


def test_an_answer_that_refuses() -> None:
    with pytest.raises(TimestampError, match="it rejects the request"):
        read_reply(AUTHORITY.reject("bad_alg"), request_timestamp(TEXT), [ROOT.der])
    with pytest.raises(TimestampError, match="it rejects the request"):
        read_reply(AUTHORITY.answer(b"khong phai yeu cau"), request_timestamp(TEXT), [ROOT.der])


def test_an_answer_that_says_granted_and_holds_nothing() -> None:
    with pytest.raises(TimestampError, match="sent none"):
        read_reply(bytes.fromhex("30053003020100"), request_timestamp(TEXT), [ROOT.der])
