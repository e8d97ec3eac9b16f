"""Verify the package signature (XMLDSig) of an edXML message, where there is one that can be.

In real traffic most package signatures are decoration: elements outside the XMLDSig namespace, digests copied
from one message to the next, certificates cut off after ten characters. Those are `DUMMY`, and never trusted.
`VALID` means: the key of the certificate that stands in the signature signed these bytes, and the certificate
was in its time. Whose certificate that is, is said by its subject and fingerprint; that somebody vouches for
it, only by `trusted`, for which the caller brings its anchors.

Subtle parts:

* lxml is loaded when the first signature in the right namespace comes, and nowhere else. It keeps element names
  until its thread ends (docs/adr/0007), so each message is verified in a thread of its own, which then ends.
* A signature over the whole message needs the whole message, and several copies of it: messages beyond
  `MAX_BYTES` are not verified. Each reference costs a copy too, hence `MAX_PARTS`. Nor are those verified whose
  canonical form would cost the square of what they hold (`MAX_NAMESPACES`, `MAX_ATTRIBUTES`).
* signxml passes over transforms that it does not know. Here they make a signature `UNSUPPORTED`, as does the
  misspelt identifier of exclusive canonicalization that the axis's samples have: what such a signer digested
  cannot be known.
* A relaying system that appends its TraceHeader breaks a signature over the whole message.
"""

from __future__ import annotations

import base64
import io
import itertools
import threading
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO
from xml.parsers import expat

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from protocol.edxml.binding import DSIG
from protocol.edxml.model import Element
from protocol.edxml.parser import CHUNK, FRAMES
from protocol.edxml.reader import MessageReader
from protocol.problems import Problem

if TYPE_CHECKING:
    from lxml import etree

MAX_BYTES = 8 * 1024 * 1024
MAX_PARTS = 4
"""Signatures in a message, references in a signature, transforms in a reference."""
MAX_NAMESPACES = 32
"""Namespaces declared on an element and above it, and prefixes that a signature lists: canonicalizing costs the
square of these for each element (1,600 above 2,000 elements, 49 KB, took 17 s)."""
MAX_ATTRIBUTES = 100
"""Of an element, which are sorted in the square of their number."""
MIN_RSA_BITS = 2048

_ENVELOPED = f"{DSIG}enveloped-signature"
_CANONICAL = frozenset(
    method + comments
    for method in (
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        "http://www.w3.org/2006/12/xml-c14n11",
        "http://www.w3.org/2001/10/xml-exc-c14n#",
    )
    for comments in ("", "WithComments" if method.endswith("#") else "#WithComments")
)


class Verdict(StrEnum):
    VALID = "valid"
    INVALID = "invalid"
    DUMMY = "dummy"
    """It has the shape of a signature, and nothing that could ever be verified."""
    UNSUPPORTED = "unsupported"
    """It cannot be verified here, and may be right."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one signature."""

    verdict: Verdict
    reason: str = ""
    subject: str = ""
    """Of the certificate in it (RFC 4514); says nothing unless the signature is valid."""
    fingerprint: str = ""
    """SHA-256 of that certificate, in lower-case hex."""
    whole: bool = False
    """Whether it covers the whole message, rather than an element of it."""
    weak: bool = False
    """Whether it rests on SHA-1, or an RSA key shorter than 2,048 bits."""
    trusted: bool | None = None
    """Whether its certificate leads to an anchor; None when there were none."""


class Policy(StrEnum):
    """What an endpoint's package signatures are to the hub."""

    IGNORE = "ignore"
    RECORD = "record"
    REQUIRE = "require"


def verify(
    source: bytes | BinaryIO, anchors: Sequence[x509.Certificate] = (), at: datetime | None = None
) -> tuple[Result, ...]:
    """A result for each package signature in the message, in their order; none if it has none.

    Certificates must be valid `at` that time, by default now. Raises `Problem` as reading the message does.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    reader, data = MessageReader(routable=False), bytearray()
    while chunk := stream.read(CHUNK):
        reader.feed(chunk)
        data += chunk[: MAX_BYTES + 1 - len(data)]
    message = reader.close().message
    empty = [extra for extra in message.header_extras if extra.name.rpartition("}")[2] == "DigitalSignature"]
    signatures = [*message.signatures, *empty]  # .NET's own name for one, seen empty
    results = [_look(signature) for signature in signatures]
    if None in results and len(data) > MAX_BYTES:
        results = [result or _unsupported(f"the message has more than {MAX_BYTES} bytes") for result in results]
    if None in results and _is_costly(bytes(data)):
        reason = f"an element has more than {MAX_NAMESPACES} namespaces or {MAX_ATTRIBUTES} attributes"
        results = [result or _unsupported(reason) for result in results]
    if None in results:
        proper = [(result, sign) for result, sign in zip(results, signatures, strict=True) if _is_dsig(sign)]
        verified = _in_own_thread(bytes(data), proper, anchors, at or datetime.now(UTC))
        results = [
            verified.pop(0) if _is_dsig(sign) else result for result, sign in zip(results, signatures, strict=True)
        ]
    return tuple(result for result in results if result is not None)


def judge(
    policy: Policy,
    results: Sequence[Result],
    allow_weak: bool = False,
    pins: Collection[str] | None = None,
) -> Problem | None:
    """The refusal that `policy` asks for, or None.

    `REQUIRE` wants a signature that is valid, covers the whole message, is not weak (unless `allow_weak`: SHA-1
    is what the axis's own profile names), has a trusted certificate if there were anchors, and one whose
    fingerprint is among `pins` unless these are None.
    """
    if policy is not Policy.REQUIRE:
        return None
    lacking = "the message has no package signature, and this endpoint's must have one"
    for result in results:
        if result.verdict is not Verdict.VALID:
            lacking = f"the package signature is {result.verdict}: {result.reason}"
        elif not result.whole:
            lacking = "the package signature does not cover the whole message"
        elif result.weak and not allow_weak:
            lacking = "the package signature rests on SHA-1 or a short key"
        elif result.trusted is False:
            lacking = "nobody whom this hub trusts vouches for the package signature's certificate"
        elif pins is not None and result.fingerprint not in pins:
            lacking = f"the package signature's certificate (SHA-256 {result.fingerprint}) is not registered here"
        else:
            return None
    return Problem("package-signature", lacking)


# -- without lxml -----------------------------------------------------------------------------------


def _unsupported(reason: str) -> Result:
    return Result(Verdict.UNSUPPORTED, reason)


def _is_dsig(element: Element) -> bool:
    return element.name.startswith(f"{{{DSIG}}}")


def _below(element: Element, *names: str) -> list[Element]:
    """The elements at the path `names` below `element`, in any namespace."""
    found = [element]
    for name in names:
        found = [
            child
            for parent in found
            for child in parent.content
            if isinstance(child, Element) and child.name.rpartition("}")[2] == name
        ]
    return found


def _text(elements: Iterable[Element]) -> str:
    return "".join(item for element in elements for item in element.content if isinstance(item, str)).strip()


def _algorithms(elements: Iterable[Element]) -> list[str]:
    return [dict(element.attributes).get("Algorithm", "") for element in elements]


def _certificates(signature: Element) -> tuple[list[x509.Certificate], bool]:
    """Those that can be read, and whether there was any at all."""
    texts = [_text([item]) for item in _below(signature, "KeyInfo", "X509Data", "X509Certificate")]
    found = []
    for text in texts[: MAX_PARTS * 2]:
        try:
            found.append(x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True)))
        except ValueError:
            continue
    return found, any(texts)


def _look(signature: Element) -> Result | None:
    """A verdict that needs no verification, or None."""
    if not signature.content:
        return Result(Verdict.DUMMY, "it is empty")
    references = _below(signature, "SignedInfo", "Reference")
    digests = [_text(_below(reference, "DigestValue")) for reference in references]
    if not _text(_below(signature, "SignatureValue")) or not digests or not all(digests):
        return Result(Verdict.DUMMY, "it has no value, or no digest")
    certificates, given = _certificates(signature)
    if given and not certificates:
        return Result(Verdict.DUMMY, "its certificate is none")
    if not _is_dsig(signature):
        return _unsupported(f"it is not in the namespace {DSIG}")
    if not certificates:
        return _unsupported("it has no certificate")
    if len(references) > MAX_PARTS:
        return _unsupported(f"it has more than {MAX_PARTS} references")
    for reference in references:
        transforms = _algorithms(_below(reference, "Transforms", "Transform"))
        if len(transforms) > MAX_PARTS:
            return _unsupported(f"a reference has more than {MAX_PARTS} transforms")
        if unknown := [name for name in transforms if name != _ENVELOPED and name not in _CANONICAL]:
            return _unsupported(f"it names a transform that is not supported: {unknown[0][:100]!r}")
    methods = _below(signature, "SignedInfo", "CanonicalizationMethod")
    methods += _below(signature, "SignedInfo", "Reference", "Transforms", "Transform")
    for listed in (child for method in methods for child in _below(method, "InclusiveNamespaces")):
        if len(dict(listed.attributes).get("PrefixList", "").split()) > MAX_NAMESPACES:
            return _unsupported(f"it lists more than {MAX_NAMESPACES} prefixes")
    return None


def _is_costly(data: bytes) -> bool:
    """Whether an element of a well-formed document has more namespaces or attributes than are canonicalized."""
    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    scopes, found = [0], False

    def start(name: str, attributes: list[str]) -> None:
        nonlocal found
        names = attributes[::2]
        scopes.append(scopes[-1] + sum(name == "xmlns" or name.startswith("xmlns:") for name in names))
        found = found or scopes[-1] > MAX_NAMESPACES or len(names) > MAX_ATTRIBUTES

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: scopes.pop()
    parser.Parse(data, True)
    return found


def _leaf(certificates: list[x509.Certificate]) -> x509.Certificate:
    """The certificate that issued none of the others: the standard gives them no order."""
    issuers = {certificate.issuer for certificate in certificates if certificate.issuer != certificate.subject}
    return next((item for item in certificates if item.subject not in issuers), certificates[0])


def _is_weak(signature: Element, certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    named = _algorithms(_below(signature, "SignedInfo", "SignatureMethod"))
    named += _algorithms(_below(signature, "SignedInfo", "Reference", "DigestMethod"))
    short = isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS
    return short or any("sha1" in name.lower() for name in named)


def _is_trusted(
    certificate: x509.Certificate,
    others: list[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> bool:
    policy = x509.verification.PolicyBuilder().store(x509.verification.Store(list(anchors))).time(at)
    policy = policy.extension_policies(
        # What WebPKI asks of a server's certificate, a signer's need not have.
        ee_policy=x509.verification.ExtensionPolicy.permit_all(),
        ca_policy=x509.verification.ExtensionPolicy.webpki_defaults_ca(),
    )
    try:
        policy.build_client_verifier().verify(certificate, others)
    except x509.verification.VerificationError:
        return False
    return True


# -- with lxml, in a thread that ends -----------------------------------------------------------------

_Judged = Sequence[tuple[Result | None, Element]]


def _in_own_thread(
    data: bytes, judged: _Judged, anchors: Sequence[x509.Certificate], at: datetime
) -> list[Result]:
    results: list[Result] = []

    def work() -> None:
        try:
            results.extend(_verify(data, judged, anchors, at))
        except Exception as error:  # hostile XML may find what no one foresaw in three libraries
            failed = _unsupported(f"it could not be verified ({type(error).__name__})")
            results[:] = [result or failed for result, _ in judged]

    thread = threading.Thread(target=work, name="xmldsig")
    thread.start()
    thread.join()
    return results


def _verify(data: bytes, judged: _Judged, anchors: Sequence[x509.Certificate], at: datetime) -> list[Result]:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    tag = f"{{{DSIG}}}Signature"
    places: list[str | None] = []
    for node in etree.fromstring(data, parser).iter(tag):
        above = list(node.iterancestors())
        if above and all(etree.QName(item).localname in FRAMES for item in above):
            places.append(_place([node, *above]) if len(places) < MAX_PARTS else None)
    results = []
    for (result, signature), place in zip(judged, places, strict=True):
        if result is not None:
            results.append(result)
        elif place is None:
            results.append(_unsupported("it is not the first in its place, or one of too many"))
        else:
            results.append(_verify_one(data, parser, place, signature, anchors, at))
    return results


def _place(line: list[etree._Element]) -> str | None:
    """The path to the parent of the first of `line`, or None unless each is the first of its name in the next.

    In a frame that is there twice a signature may be anybody's; and lxml finds the n-th child in n squared.
    """
    if any(above.find(node.tag) is not node for node, above in itertools.pairwise(line)):
        return None
    return "/".join([".", *(f"{node.tag}[1]" for node in line[-2:0:-1]), ""])


def _verify_one(
    data: bytes,
    parser: etree.XMLParser,
    place: str,
    signature: Element,
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> Result:
    from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
    from signxml.exceptions import InvalidSignature
    from signxml.verifier import SignatureConfiguration, XMLVerifier

    certificates, _ = _certificates(signature)
    certificate = _leaf(certificates)
    known = Result(
        Verdict.INVALID,
        subject=certificate.subject.rfc4514_string(),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        weak=_is_weak(signature, certificate),
    )
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        return msgspec.structs.replace(known, reason="its certificate was not in its time")
    configuration = SignatureConfiguration(
        location=place,
        expect_references=True,  # any number
        signature_methods=frozenset(method for method in SignatureMethod if not method.name.startswith("HMAC")),
        digest_algorithms=frozenset(DigestAlgorithm),
        verification_time=at,
        # XMLDSig, section 4.3.3.2: what is used when no transform says otherwise.
        default_reference_c14n_method=CanonicalizationMethod.CANONICAL_XML_1_0,
    )
    try:
        verified = XMLVerifier().verify(data, x509_cert=certificate, parser=parser, expect_config=configuration)
    except InvalidSignature as error:  # a wrong digest is a kind of it
        return msgspec.structs.replace(known, reason=str(error)[:300] or "it was not made with this key")
    except Exception as error:  # as above: a list of what hostile signatures raise has no end
        reason = f"it is not as XMLDSig wants it ({type(error).__name__})"
        return msgspec.structs.replace(known, verdict=Verdict.UNSUPPORTED, reason=reason)
    signed = verified[0].signature_xml if isinstance(verified, list) and verified else None
    uris = [] if signed is None else [item.get("URI") for item in signed.iterfind(f"{{{DSIG}}}SignedInfo/*[@URI]")]
    return msgspec.structs.replace(
        known,
        verdict=Verdict.VALID if uris else Verdict.UNSUPPORTED,
        reason="" if uris else "it has no references",
        whole="" in uris,
        trusted=_is_trusted(certificate, certificates, anchors, at) if anchors else None,
    )
