"""What is found of the signatures in a PDF, as it is kept and shown, and what a policy makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.problems import Problem

MAX_SIGNATURES = 32
"""Signatures of one PDF that are looked at. A document with more is nothing that offices make."""
MAX_TEXT = 300
MAGIC = b"%PDF-"
MAGIC_WITHIN = 1024
"""Bytes within which a PDF begins: readers take leading rubbish (ISO 32000-1, annex H), so this does too."""


def is_pdf(head: bytes) -> bool:
    """Whether a file with these first bytes (`MAGIC_WITHIN` of them) is a PDF to those who open it."""
    return MAGIC in head[:MAGIC_WITHIN]


def line(text: str, limit: int = MAX_TEXT) -> str:
    """Text out of a stranger's file as it can be stored and shown: one line, nothing that is not printed."""
    words = " ".join(text[: 2 * limit].split())[:limit]
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


class Policy(StrEnum):
    """What signatures of PDFs are to the hub, by endpoint."""

    IGNORE = "ignore"
    RECORD = "record"
    """Checked after the message was accepted; what was found is evidence of the message."""
    REQUIRE = "require"
    """Checked before it is accepted: a PDF that is not signed as it must be refuses the message."""


class Verdict(StrEnum):
    """What is to be said of a PDF as a whole."""

    SIGNED = "signed"
    """It has signatures; all are intact and trusted, and what came after each may come after a signature."""
    UNSIGNED = "unsigned"
    INVALID = "invalid"
    """A signature is not intact: what it signs was changed, or it is no signature of this file."""
    CHANGED = "changed"
    """A signature is intact, but content was changed after it by an update of the file."""
    UNTRUSTED = "untrusted"
    """A signature is intact, but nobody whom this hub trusts says whose it is."""
    ENCRYPTED = "encrypted"
    UNREADABLE = "unreadable"
    LIMIT = "limit"
    """It could not be checked: it asked for more time, memory or room than a PDF gets here."""


class Changes(StrEnum):
    """What came into the file after a signature."""

    NONE = "none"
    MAINTENANCE = "maintenance"
    """Time-stamps and revocation data, which keep signatures verifiable."""
    FORM = "form"
    """Further signatures, and fields that were filled in."""
    OTHER = "other"
    """Anything else: the content that was signed is not what a reader is shown."""


class PdfTimestamp(msgspec.Struct, frozen=True, omit_defaults=True):
    """A time-stamp (RFC 3161) over a signature."""

    at: Annotated[str, Meta(description="RFC 3339, UTC")]
    authority: str = ""
    intact: bool = False
    trusted: bool = False


class PdfSignature(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One signature of a PDF."""

    field: Annotated[str, Meta(description="The name of its field")] = ""
    kind: Annotated[
        Literal["signature", "timestamp"],
        Meta(description="`timestamp`: by a time-stamping authority over the whole file; nobody's signature"),
    ] = "signature"
    name: Annotated[str, Meta(description="Of the certificate's subject: common name")] = ""
    organisation: Annotated[str, Meta(description="Organisation and unit of the certificate's subject")] = ""
    certificate: Annotated[str, Meta(description="SHA-256 of the signer's certificate, in hex")] = ""
    issuer: str = ""
    claimed_at: Annotated[str, Meta(description="When it was made, as the signer says. RFC 3339, UTC")] = ""
    timestamp: PdfTimestamp | None = None
    intact: Annotated[bool, Meta(description="The bytes that it covers are those that were signed")] = False
    trusted: Annotated[bool, Meta(description="Its certificate leads to an authority that this hub trusts")] = (
        False
    )
    reason: Annotated[str, Meta(description="Why it is not intact, not trusted, or what was changed after it")] = (
        ""
    )
    whole: Annotated[bool, Meta(description="It covers the whole file as it is")] = False
    revision: Annotated[
        int, Meta(description="The state of the file that it covers, from 1; 0: none entirely")
    ] = 0
    changes: Changes = Changes.NONE
    algorithm: str = ""
    weak: Annotated[bool, Meta(description="MD5, SHA-1, DSA or an RSA key below 2,048 bits")] = False
    revocation: Annotated[
        tuple[str, ...], Meta(description="Revocation data that the file carries for it: `crl`, `ocsp`")
    ] = ()
    page: Annotated[int, Meta(description="The page on which it is seen, from 1; 0: nowhere")] = 0
    place: Annotated[
        tuple[float, ...], Meta(description="Where on that page: left, bottom, right, top in points (1/72 inch)")
    ] = ()


class PdfResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was found of one PDF."""

    verdict: Verdict
    reason: str = ""
    revisions: Annotated[int, Meta(description="States of the file: one, and one more for each update")] = 0
    signatures: tuple[PdfSignature, ...] = ()
    countersigned: Annotated[
        bool,
        Meta(description="After a signature content was changed, which a later one, intact and trusted, covers"),
    ] = False
    hybrid: Annotated[
        bool,
        Meta(description="The file has two indexes of its content (hybrid), as some word processors write it"),
    ] = False
    checked_at: Annotated[str, Meta(description="RFC 3339, UTC")] = ""
    trust: Annotated[
        str, Meta(description="SHA-256 over the trust anchors and revocation lists that were used")
    ] = ""


def conclude(signatures: Sequence[PdfSignature]) -> tuple[Verdict, str, bool]:
    """The verdict on a PDF with these signatures (in the order of revisions), its reason, `countersigned`."""
    own = [one for one in signatures if one.kind == "signature"]
    if not own:
        return Verdict.UNSIGNED, "it has no signature", False
    for one in signatures:
        if not one.intact:
            return Verdict.INVALID, f"{_who(one)} is not intact: {one.reason}", False
    for one in own:
        if one.changes is Changes.OTHER:
            covered = all(
                changed.revision and any(_stands(later) and later.revision > changed.revision for later in own)
                for changed in own
                if changed.changes is Changes.OTHER
            ) and all(each.trusted for each in own)
            return Verdict.CHANGED, f"content was changed after {_who(one)}: {one.reason}", covered
    for one in own:
        if not one.trusted:
            return Verdict.UNTRUSTED, f"{_who(one)} is intact, but not trusted: {one.reason}", False
    return Verdict.SIGNED, "", False


def _stands(one: PdfSignature) -> bool:
    return one.intact and one.trusted and one.changes is not Changes.OTHER


def _who(one: PdfSignature) -> str:
    by = one.name or one.organisation
    kind = "the time-stamp" if one.kind == "timestamp" else "the signature"
    return f"{kind} of {by}" if by else f"{kind} in the field {one.field!r}"


def judge(result: PdfResult, name: str, sha256: str, countersigned: bool) -> Problem | None:
    """Why a submission with this PDF is refused where signatures are required, or None.

    `countersigned`: content may have been changed after a signature if a later one covers it.
    """
    if result.verdict is Verdict.SIGNED or (countersigned and result.countersigned):
        return None
    reason = _ADVICE.get(result.verdict, "{reason}").format(reason=result.reason)
    return Problem(
        "pdf-signature",
        f"{line(name, 100) or sha256}: {reason}",
        attachment=sha256,
        verdict=result.verdict.value,
        signatures=msgspec.to_builtins(result.signatures),
    )


_ADVICE = {
    Verdict.UNSIGNED: "the PDF has no signature, and this endpoint's must be signed",
    Verdict.ENCRYPTED: "the PDF is encrypted, so that its signatures cannot be checked; send it unencrypted",
    Verdict.UNREADABLE: "the PDF cannot be read: {reason}",
    Verdict.LIMIT: "the PDF could not be checked: {reason}",
}
