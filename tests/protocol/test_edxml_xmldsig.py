"""Package signatures: the right ones are valid, what was changed is not, and decoration is never trusted."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from protocol.edxml import xmldsig
from protocol.edxml.binding import DSIG
from protocol.edxml.trace import append_trace, trace_header
from protocol.edxml.xmldsig import Policy, Result, Verdict, judge, verify
from protocol.problems import Problem
from tests.support.edxml_damage import damaged
from tests.support.edxml_messages import DOCUMENT, status, write
from tests.support.edxml_samples import each_sample
from tests.support.edxml_signed import NOW, UNSIGNED, Party, authority, clerk, rsa_key, signed

GOOD = signed()


def one(data: bytes, anchors: Sequence[x509.Certificate] = (), **options: Any) -> Result:
    (result,) = verify(data, anchors, **options)
    return result


# -- what is right ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "c14n",
    [
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        "http://www.w3.org/2006/12/xml-c14n11",
        "http://www.w3.org/2001/10/xml-exc-c14n#",
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
    ],
)
def test_a_signature_over_the_whole_message(c14n: str) -> None:
    certificate = clerk().certificate
    assert one(signed(c14n=c14n)) == Result(
        Verdict.VALID,
        subject="CN=Văn phòng UBND tỉnh Yên Bái",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        whole=True,
        weak=False,
        trusted=None,
    )


def test_a_status_and_other_places_in_the_frame() -> None:
    assert one(signed(write(status()))).verdict is Verdict.VALID
    assert one(signed(place=b"</edXML:edXMLEnvelope>")).verdict is Verdict.VALID
    assert one(signed(place=b"</edXML>")).whole


def test_trust_comes_from_the_callers_anchors() -> None:
    assert one(GOOD, [authority().certificate]).trusted is True
    assert one(GOOD, [authority("Cơ quan khác").certificate]).trusted is False
    itself = Party("Tự ký", rsa_key())
    assert one(signed(by=itself), [authority().certificate]).trusted is False


def test_a_chain_in_either_order() -> None:
    middle = Party("Cấp hai", authority("Khóa của cấp hai").key, authority())
    leaf = Party("Văn thư", rsa_key(), middle)
    for chain in ([leaf.certificate, middle.certificate], [middle.certificate, leaf.certificate]):
        result = one(signed(by=leaf, certificates=chain), [authority().certificate])
        assert (result.verdict, result.trusted, result.subject) == (Verdict.VALID, True, "CN=Văn thư")
    assert one(signed(by=leaf), [authority().certificate]).trusted is False


@pytest.mark.parametrize(
    ("method", "digest", "bits"),
    [
        (SignatureMethod.RSA_SHA1, DigestAlgorithm.SHA1, 2048),
        (SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA1, 2048),
        (SignatureMethod.RSA_SHA1, DigestAlgorithm.SHA256, 2048),
        (SignatureMethod.RSA_SHA256, DigestAlgorithm.SHA256, 1024),
    ],
)
def test_weak_ones_are_valid_and_said_to_be_weak(
    method: SignatureMethod, digest: DigestAlgorithm, bits: int
) -> None:
    party = Party("Văn thư", rsa_key(bits), authority())
    result = one(signed(by=party, method=method, digest=digest))
    assert (result.verdict, result.weak) == (Verdict.VALID, True)
    assert judge(Policy.REQUIRE, [result]) is not None
    assert judge(Policy.REQUIRE, [result], allow_weak=True) is None


# -- what was changed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Yên Bái", "Yen Bai"),
        ("<edXML:OrganId>H63.31.02</edXML:OrganId>", "<edXML:OrganId>H63.31.03</edXML:OrganId>"),
        ("UEsDBBQA", "UEsDBBQB"),
        ("<edXML:To>", "<edXML:To> "),
        ("<edXML:From>", '<edXML:From a="1">'),
    ],
)
def test_a_changed_message(old: str, new: str) -> None:
    result = one(GOOD.replace(old.encode(), new.encode(), 1), [authority().certificate])
    assert result.verdict is Verdict.INVALID
    assert "Digest" in result.reason
    assert result.trusted is None


def test_another_key() -> None:
    other = Party("Kẻ khác", rsa_key(1024), authority())
    result = one(signed(certificates=[other.certificate]))
    assert result.verdict is Verdict.INVALID


def test_a_relayed_message() -> None:
    """The format's own weakness: whoever relays appends its trace, and the signature over the whole breaks."""
    after = b"".join(append_trace(GOOD, trace_header("000.00.00.G22", NOW)))
    assert one(after).verdict is Verdict.INVALID


def test_certificates_out_of_their_time() -> None:
    for days in (-2, 400):
        result = one(GOOD, at=NOW + timedelta(days=days))
        assert (result.verdict, result.reason) == (Verdict.INVALID, "its certificate was not in its time")
    assert one(GOOD, at=NOW + timedelta(days=364)).verdict is Verdict.VALID


# -- what covers less -------------------------------------------------------------------------------


def test_a_signature_over_an_element_is_not_one_over_the_message() -> None:
    data = UNSIGNED.replace(b"<edXML:edXMLBody>", b'<edXML:edXMLBody Id="than">')
    result = one(signed(data, reference="#than"))
    assert (result.verdict, result.whole) == (Verdict.VALID, False)
    assert judge(Policy.REQUIRE, [result]) is not None
    # It stays valid while everything else changes: that is why it must not count for the whole.
    changed = one(signed(data, reference="#than").replace("Yên Bái".encode(), b"Ha Noi"))
    assert (changed.verdict, changed.whole) == (Verdict.VALID, False)


# -- decoration -------------------------------------------------------------------------------------


@each_sample
def test_real_messages_are_signed_by_dummies_or_not_at_all(path: Path) -> None:
    results = verify(path.read_bytes())
    assert [result.verdict for result in results] == [Verdict.DUMMY] * path.read_bytes().count(b"<Signature>")
    assert judge(Policy.REQUIRE, results) is not None


def replaced(old: bytes, new: bytes, data: bytes = GOOD) -> bytes:
    assert old in data
    return data.replace(old, new)


def in_header(element: bytes, data: bytes = UNSIGNED) -> bytes:
    return data.replace(b"</edXML:edXMLHeader>", element + b"</edXML:edXMLHeader>")


CERTIFICATE = GOOD.split(b"<ds:X509Certificate>")[1].partition(b"<")[0]
VALUE = GOOD.split(b"<ds:SignatureValue>")[1].partition(b"<")[0]
METHOD = b"2001/04/xmldsig-more#rsa-sha256"
TRANSFORM = f'Algorithm="{DSIG}enveloped-signature"'.encode()


@pytest.mark.parametrize(
    ("data", "verdict", "said"),
    [
        (replaced(CERTIFICATE, CERTIFICATE[:12]), Verdict.DUMMY, "certificate"),
        (replaced(CERTIFICATE, b"khong phai"), Verdict.DUMMY, "certificate"),
        (replaced(VALUE, b" "), Verdict.DUMMY, "no value"),
        (replaced(b"ds:DigestValue", b"ds:Digest"), Verdict.DUMMY, "no digest"),
        (in_header(b"<edXML:DigitalSignature/>"), Verdict.DUMMY, "empty"),
        (in_header(b"<Signature/>"), Verdict.DUMMY, "empty"),
        (DOCUMENT, Verdict.DUMMY, "no value"),
        (replaced(DSIG.encode(), b"http://www.mic.gov.vn/TBT/QCVN_102_2016"), Verdict.UNSUPPORTED, "namespace"),
        (replaced(b"X509Certificate>", b"X509SKI>"), Verdict.UNSUPPORTED, "no certificate"),
        (replaced(TRANSFORM, b'Algorithm="TR/xml-exc-c14n#"'), Verdict.UNSUPPORTED, "TR/xml-exc-c14n#"),
        (replaced(TRANSFORM, b'Algorithm="TR/1999/REC-xslt-19991116"'), Verdict.UNSUPPORTED, "xslt"),
        (replaced(METHOD, b"2001/04/xmldsig-more#hmac-sha256"), Verdict.UNSUPPORTED, "XMLDSig"),
        (replaced(METHOD, b"2001/04/xmldsig-more#rsa-md5"), Verdict.UNSUPPORTED, "XMLDSig"),
        (replaced(b'URI=""', b'URI="http://example.vn/"'), Verdict.INVALID, ""),
        (replaced(b"<ds:SignedInfo>", b"<ds:SignedInfo><ds:Reference/>"), Verdict.DUMMY, "no digest"),
    ],
)  # fmt: skip
def test_what_cannot_be_verified(data: bytes, verdict: Verdict, said: str) -> None:
    (result,) = verify(data, [authority().certificate])
    assert result.verdict is verdict
    assert said in result.reason
    assert not result.whole
    assert judge(Policy.REQUIRE, [result], allow_weak=True) is not None


def test_each_reference_costs_a_copy_and_so_they_have_a_limit() -> None:
    start, end = GOOD.index(b"<ds:Reference "), GOOD.index(b"</ds:Reference>") + len(b"</ds:Reference>")
    result = one(GOOD[:end] + GOOD[start:end] * 4 + GOOD[end:])
    assert (result.verdict, result.reason) == (Verdict.UNSUPPORTED, "it has more than 4 references")
    transform = GOOD[GOOD.index(b"<ds:Transform ") : GOOD.index(b"</ds:Transforms>")]
    result = one(GOOD.replace(transform, transform * 5))
    assert (result.verdict, result.reason) == (Verdict.UNSUPPORTED, "a reference has more than 4 transforms")


def test_a_large_message_is_not_verified() -> None:
    data = signed().replace(b"UEsDBBQA", b"UEsDBBQA" * 40_000)
    assert len(data) > xmldsig.MAX_BYTES
    result = one(data)
    assert result.verdict is Verdict.UNSUPPORTED
    assert "8388608 bytes" in result.reason


def test_several_signatures_each_have_a_result() -> None:
    twice = signed(GOOD)
    results = verify(twice)
    assert [result.verdict for result in results] == [Verdict.INVALID, Verdict.UNSUPPORTED]
    dummy = in_header(b"<Signature/>", GOOD)
    assert [result.verdict for result in verify(dummy)] == [Verdict.INVALID, Verdict.DUMMY]
    apart = signed(signed(), place=b"</edXML:edXMLEnvelope>")
    assert [result.verdict for result in verify(apart)] == [Verdict.INVALID, Verdict.VALID]


def test_signatures_elsewhere_are_not_the_packages() -> None:
    assert verify(signed(place=b"</edXML:SignerInfo>")) == ()
    assert verify(UNSIGNED) == ()


def test_what_cannot_be_read_is_refused() -> None:
    for data in (b"", GOOD[:-5], b"<!DOCTYPE edXML>" + GOOD, GOOD.replace(b"Y", b"\0", 1)):
        with pytest.raises(Problem):
            verify(data)


@pytest.mark.parametrize("own", [b"", b"<ds:Signature xmlns:ds='http://www.w3.org/2000/09/xmldsig#'/>"])
def test_many_frames_are_not_counted(own: bytes) -> None:
    """Counted, 40,000 of them took minutes (docs/adr/0035)."""
    (signature,) = re.findall(rb"<ds:Signature .*?</ds:Signature>", GOOD, re.DOTALL)
    end = b"</edXML:edXMLEnvelope>"
    header = b"<edXML:edXMLHeader>%b</edXML:edXMLHeader>"
    many = header % own * 40_000 + header % signature
    results = verify(GOOD.replace(signature, b"").replace(end, many + end))
    assert [result.verdict for result in results][-1] is Verdict.UNSUPPORTED
    assert len(results) == (40_001 if own else 1)


def test_what_costs_the_square_of_its_number_is_not_canonicalized() -> None:
    end = b"</edXML:edXMLHeader>"

    def reason(markup: bytes, number: int) -> str:
        return one(signed(UNSIGNED.replace(end, markup % number + end))).reason

    def declared(count: int) -> bytes:  # half of them above the other half
        first, second = (
            b" ".join(b'xmlns:n%d="urn:%d"' % (number, number) for number in numbers)
            for numbers in (range(count // 2), range(count // 2, count))
        )
        return b"<X %b><y %b/></X><z n='%%d'/>" % (first, second)

    outside = 2  # the root's own, and the header's
    assert reason(declared(xmldsig.MAX_NAMESPACES - outside), 1) == ""
    assert "namespaces" in reason(declared(xmldsig.MAX_NAMESPACES + 1), 1)
    many = b" ".join(b'a%d="%d"' % (number, number) for number in range(xmldsig.MAX_ATTRIBUTES - 1))
    assert reason(b"<X %b b='%%d'/>" % many, 1) == ""
    assert "attributes" in reason(b"<X %b b='%%d' c=''/>" % many, 1)
    exclusive = signed(c14n="http://www.w3.org/2001/10/xml-exc-c14n#")
    prefixes = " ".join(f"p{number}" for number in range(xmldsig.MAX_NAMESPACES + 1)).encode()
    listing = b"<ec:InclusiveNamespaces xmlns:ec='http://www.w3.org/2001/10/xml-exc-c14n#' PrefixList='%b'/>"
    listing %= prefixes
    for tag in (b"CanonicalizationMethod", b"Transform"):
        place = rb'(<ds:%b Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#")/>' % tag
        found, count = re.subn(place, rb"\1>%b</ds:%b>" % (listing, tag), exclusive)
        assert count == 1
        assert "prefixes" in one(found).reason


# -- policy -----------------------------------------------------------------------------------------


def test_only_require_refuses() -> None:
    bad = verify(GOOD.replace(b"H63.31.02", b"H63.31.03"))
    for policy in (Policy.IGNORE, Policy.RECORD):
        assert judge(policy, bad) is None
        assert judge(policy, ()) is None
    refused = judge(Policy.REQUIRE, bad)
    assert refused is not None
    assert refused.code == "package-signature"
    assert "invalid" in refused.detail
    missing = judge(Policy.REQUIRE, ())
    assert missing is not None
    assert "has no package signature" in missing.detail
    assert judge(Policy.REQUIRE, verify(GOOD)) is None
    assert judge(Policy.REQUIRE, verify(GOOD, [authority().certificate])) is None
    assert judge(Policy.REQUIRE, verify(GOOD, [authority("Cơ quan khác").certificate])) is not None
    own = clerk().certificate.fingerprint(hashes.SHA256()).hex()
    assert judge(Policy.REQUIRE, verify(GOOD), pins={own, "0" * 64}) is None
    for others in ({"0" * 64}, frozenset[str]()):
        assert judge(Policy.RECORD, verify(GOOD), pins=others) is None
        unknown = judge(Policy.REQUIRE, verify(GOOD), pins=others)
        assert unknown is not None and own in unknown.detail


def test_one_good_signature_among_others_is_enough() -> None:
    good = one(GOOD)
    assert judge(Policy.REQUIRE, [Result(Verdict.DUMMY, "x"), good, Result(Verdict.INVALID, "y")]) is None


# -- what it costs others ---------------------------------------------------------------------------


def test_lxml_is_loaded_for_signatures_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from protocol.edxml import read; import protocol.edxml.convert, protocol.edxml.trace\n"
        "from protocol.edxml.xmldsig import verify; from pathlib import Path\n"
        "data = Path(sys.argv[1]).read_bytes(); verify(data)\n"
        "sys.exit('lxml' in sys.modules or 'signxml' in sys.modules)"
    )
    path = tmp_path / "dummy.edxml"
    path.write_bytes(DOCUMENT)
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0


def test_lxml_works_in_threads_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps every element name that it met until its thread ends."""
    threads = []
    work = xmldsig._verify

    def noted(*arguments: Any) -> list[Result]:
        threads.append(threading.current_thread())
        return work(*arguments)

    monkeypatch.setattr(xmldsig, "_verify", noted)
    for _ in range(3):
        assert one(GOOD).verdict is Verdict.VALID
    assert len(set(threads)) == 3
    assert not any(thread.is_alive() for thread in threads)


def test_whatever_comes_there_is_a_result_or_a_problem() -> None:
    verdicts = set()
    for seed in range(150):
        data = damaged(GOOD, random.Random(seed))
        try:
            verdicts |= {result.verdict for result in verify(data)}
        except Problem as problem:
            assert problem.code in ("bad-xml", "bad-edxml")
    assert verdicts >= {Verdict.INVALID, Verdict.VALID}
