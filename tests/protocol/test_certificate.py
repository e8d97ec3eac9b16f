"""Chains of signers' certificates: which hold, and what somebody reads of those that do not."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.certificate import (
    CertificateError,
    is_authority,
    issuer,
    load,
    load_all,
    public_key,
    sha256,
    subject,
    to_der,
    to_pem,
    validate_chain,
    x5t,
)
from protocol.signature import KeyFormatError, b64url
from tests.support.certificates import DAY, NOW, Holder, key_usage, make_key, root

ROOT = root()
BETWEEN = ROOT.issue("Cơ quan chứng thực trung gian", authority=True)
LEAF = BETWEEN.issue("Ủy ban nhân dân tỉnh Yên Bái")
OTHER = root("Một cơ quan chứng thực khác")


def refused(leaf: Holder, *between: Holder, anchors: tuple[Holder, ...] = (ROOT,), at=NOW) -> str:  # type: ignore[no-untyped-def]
    """What somebody reads of a chain that does not hold."""
    with pytest.raises(CertificateError) as found:
        validate_chain(
            leaf.certificate,
            [one.certificate for one in between],
            [one.certificate for one in anchors],
            at,
        )
    return str(found.value)


@pytest.mark.parametrize("authority", ["p256", "rsa"])
@pytest.mark.parametrize("signer", ["p256", "rsa", "ed25519"])
def test_a_chain_holds_with_every_kind_of_key(authority: str, signer: str) -> None:
    top = root("Gốc", authority)
    between = top.issue("Trung gian", make_key(authority, 1), authority=True)
    leaf = between.issue("Văn phòng", make_key(signer, 2))
    chain = validate_chain(to_der(leaf.certificate), [to_der(between.certificate)], [to_der(top.certificate)], NOW)
    assert chain.certificates == (leaf.certificate, between.certificate, top.certificate)
    assert (chain.leaf, chain.anchor) == (leaf.certificate, top.certificate)
    assert chain.issued == ((leaf.certificate, between.certificate), (between.certificate, top.certificate))
    assert (chain.not_before, chain.not_after) == (NOW - 30 * DAY, NOW + 335 * DAY)
    assert chain.der() == tuple(map(to_der, chain.certificates))


def test_an_authority_between_may_be_trusted_itself() -> None:
    chain = validate_chain(LEAF.certificate, [], [BETWEEN.certificate], NOW)
    assert chain.certificates == (LEAF.certificate, BETWEEN.certificate)


def test_useless_certificates_beside_do_no_harm() -> None:
    beside = [OTHER.certificate, LEAF.certificate, BETWEEN.certificate]
    chain = validate_chain(LEAF.certificate, beside, [OTHER.certificate, ROOT.certificate], NOW)
    assert chain.anchor == ROOT.certificate


def test_nobody_is_trusted() -> None:
    assert "there is no trust anchor" in refused(LEAF, BETWEEN, anchors=())


def test_the_wrong_anchor() -> None:
    assert refused(LEAF, BETWEEN, ROOT, anchors=(OTHER,)) == (
        f"it leads to {subject(ROOT.certificate)}, who is not trusted here"
    )


def test_an_intermediate_is_missing() -> None:
    told = refused(LEAF)
    assert "the certificate of CN=Cơ quan chứng thực trung gian, C=VN" in told and "missing" in told


def test_expired_and_not_yet_valid() -> None:
    assert "expired at 2027-10-24T08:00:00Z" in refused(LEAF, BETWEEN, at=NOW + 336 * DAY)
    assert "is not valid before 2026-10-24T08:00:00Z" in refused(LEAF, BETWEEN, at=NOW - 31 * DAY)
    validate_chain(LEAF.certificate, [BETWEEN.certificate], [ROOT.certificate], NOW + 335 * DAY)


def test_an_authority_between_has_expired() -> None:
    between = ROOT.issue("Trung gian ngắn hạn", authority=True, ends=NOW + DAY)
    leaf = between.issue("Văn phòng")
    told = refused(leaf, between, at=NOW + 2 * DAY)
    assert told.startswith("the authority's certificate of CN=Trung gian ngắn hạn") and "expired" in told


def test_the_anchor_has_expired() -> None:
    top = root("Gốc cũ", ends=NOW + DAY)
    assert "CN=Gốc cũ" in refused(top.issue("Văn phòng"), anchors=(top,), at=NOW + 2 * DAY)


def test_a_forged_signature() -> None:
    forged = ROOT.issue("Văn phòng giả", signed_by=make_key("p256"))
    assert "was not made by" in refused(forged)


def test_a_signer_cannot_issue() -> None:
    below = LEAF.issue("Kẻ mạo danh")
    assert "basicConstraints" in refused(below, LEAF, BETWEEN) or "authority" in refused(below, LEAF, BETWEEN)


def test_an_authority_without_leave_to_issue() -> None:
    between = ROOT.issue("Trung gian", authority=True, extensions=[key_usage(crl_sign=True)])
    assert "does not allow it to issue" in refused(between.issue("Văn phòng"), between)


def test_an_authority_beyond_its_depth() -> None:
    top = root("Gốc nông", path_length=0)
    between = top.issue("Trung gian", authority=True)
    assert "path length" in refused(between.issue("Văn phòng"), between, anchors=(top,))


def test_an_authority_does_not_sign_documents() -> None:
    assert "it is an authority's" in refused(BETWEEN)


def test_a_certificate_that_may_not_sign() -> None:
    assert "does not allow it to sign" in refused(
        ROOT.issue("Chỉ mã hóa", extensions=[key_usage(key_encipherment=True)])
    )


@pytest.mark.parametrize(
    ("purposes", "right"),
    [
        ([ExtendedKeyUsageOID.EMAIL_PROTECTION], True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], True),
        ([x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.12")], True),  # document signing
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.OCSP_SIGNING], False),
        ([ExtendedKeyUsageOID.TIME_STAMPING], False),
    ],
)
def test_what_a_certificate_is_for(purposes: list[x509.ObjectIdentifier], right: bool) -> None:
    leaf = ROOT.issue("Văn phòng", extensions=[x509.ExtendedKeyUsage(purposes)])
    if right:
        validate_chain(leaf.certificate, [], [ROOT.certificate], NOW)
    else:
        assert "something else than signing documents" in refused(leaf)


def test_an_ed25519_authority_is_refused() -> None:
    top = root("Gốc Ed25519", "ed25519")
    assert "Forbidden public key algorithm" in refused(top.issue("Văn phòng"), anchors=(top,))


def test_a_weak_key_signs_no_messages() -> None:
    weak = ROOT.issue("Văn phòng", rsa.generate_private_key(65537, 1024))
    with pytest.raises(KeyFormatError, match="2048 bits"):
        public_key(weak.certificate)


# -- reading --------------------------------------------------------------------------------------


def test_files_of_certificates() -> None:
    both = to_pem(LEAF.certificate) + to_pem(BETWEEN.certificate)
    assert load_all(both) == [LEAF.certificate, BETWEEN.certificate]
    assert load_all(b"xin chao\n" + to_pem(LEAF.certificate)) == [LEAF.certificate]
    assert load_all(to_der(LEAF.certificate)) == [LEAF.certificate]
    with pytest.raises(CertificateError, match="private key"):
        load_all(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(CertificateError, match="20 are the most"):
        load_all(to_pem(LEAF.certificate) * 21)
    with pytest.raises(CertificateError, match="can be read"):
        load_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(CertificateError, match="at most"):
        load(b"0" * 100_000)


def test_names() -> None:
    assert subject(LEAF.certificate) == "CN=Ủy ban nhân dân tỉnh Yên Bái, C=VN"
    assert issuer(LEAF.certificate) == subject(BETWEEN.certificate)
    assert x5t(LEAF.certificate) == b64url(sha256(LEAF.certificate))
    assert is_authority(BETWEEN.certificate) and not is_authority(LEAF.certificate)


@given(st.integers(0, 1_000), st.integers(0, 255))
def test_no_altered_byte_makes_a_chain(place: int, byte: int) -> None:
    """Every byte of a certificate is under its issuer's signature, or is that signature."""
    der = bytearray(LEAF.certificate.public_bytes(Encoding.DER))
    if der[place % len(der)] == byte:
        return
    der[place % len(der)] = byte
    with pytest.raises(CertificateError):
        validate_chain(bytes(der), [BETWEEN.certificate], [ROOT.certificate], NOW)


@given(st.binary(max_size=300))
def test_bytes_from_anywhere_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(CertificateError):
        load_all(data)
