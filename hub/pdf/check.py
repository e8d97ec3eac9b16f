"""The signatures of one PDF, found and judged with pyHanko. Imported by the checking process alone.

What pyHanko does not do and this does: it looks at every signature field, those too whose form it does not know;
it compares the gap in /ByteRange with the signature that should fill it; it takes bytes after the file's last
state for a change; and it checks a certificate for the time of a trusted time-stamp, where there is one. Nothing
is fetched: whether a certificate was revoked is known from what the file carries and from the lists that are
handed in.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.misc import PdfReadError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.xref import XRefSectionType
from pyhanko.sign.diff_analysis import ModificationLevel
from pyhanko.sign.fields import SigSeedSubFilter, enumerate_sig_fields
from pyhanko.sign.validation.pdf_embedded import (
    EmbeddedPdfSignature,
    async_validate_pdf_signature,
    async_validate_pdf_timestamp,
)
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko.sign.validation.status import SignatureCoverageLevel
from pyhanko_certvalidator import ValidationContext

from hub.pdf.place import place_of
from hub.pdf.result import MAX_SIGNATURES, Changes, PdfResult, PdfSignature, PdfTimestamp, Verdict, conclude, line
from hub.pdf.trusted import (
    NOT_KNOWN,
    Carried,
    Trust,
    adobe_of,
    carried_by,
    distrust,
    is_listed,
    is_stale,
    moment_text,
)

_KNOWN = frozenset(kind.value for kind in SigSeedSubFilter)
_CHANGES = {
    ModificationLevel.NONE: Changes.NONE,
    ModificationLevel.LTA_UPDATES: Changes.MAINTENANCE,
    ModificationLevel.FORM_FILLING: Changes.FORM,
}
_END = re.compile(rb"[\s\0]*(?:endobj)?[\s\0]*startxref[\s\0]+\d+[\s\0]*%%EOF[\s\0]*")
_USAGE = KeyUsageConstraints(key_usage={"non_repudiation", "digital_signature"})
"""Of a signer's certificate, one of these. Seals of organisations often have the second alone."""


class _BadSignatureError(Exception):
    """A signature that is none of this file; the message says why."""


async def check(data: bytes, trust: Trust) -> PdfResult:
    """What is found of the PDF in `data`. Raises MemoryError only."""
    logging.disable(logging.CRITICAL)  # pyHanko tells a log what it also returns
    try:
        return await _check(data, trust)
    except MemoryError:
        raise
    except RecursionError:
        return PdfResult(verdict=Verdict.LIMIT, reason="it is nested too deeply")
    except Exception as error:  # pyHanko raises what Python does for a file that is not as it expects
        return PdfResult(verdict=Verdict.UNREADABLE, reason=_told(error))


async def _check(data: bytes, trust: Trust) -> PdfResult:
    reader = PdfFileReader(io.BytesIO(data), strict=True)
    hybrid = bool(reader.xrefs.hybrid_xrefs_present)
    if hybrid:
        # Word processors write such files; pyHanko then judges no signature as long as it is strict.
        reader = PdfFileReader(io.BytesIO(data), strict=False)
    if reader.encrypt_dict is not None:
        return PdfResult(verdict=Verdict.ENCRYPTED, reason="it is encrypted", hybrid=hybrid)
    revisions = reader.xrefs.total_revisions
    fields = []
    for name, value, field in enumerate_sig_fields(reader, filled_status=True):
        fields.append((str(name), value.get_object(), field.get_object()))
        if len(fields) > MAX_SIGNATURES:
            reason = f"it has more than {MAX_SIGNATURES} signatures"
            return PdfResult(verdict=Verdict.LIMIT, reason=reason, revisions=revisions, hybrid=hybrid)
    carried = carried_by(reader)
    rest = fields and not _ends(reader, data)
    found, seen = [], set[bytes]()
    for name, value, field in fields:
        one = await _signature(reader, data, trust, carried, name, value, field)
        if rest and one.intact and not one.whole and one.changes is not Changes.OTHER:
            one = replace(one, changes=Changes.OTHER, reason="bytes follow that belong to no state of the file")
        contents = hashlib.sha256(bytes(_contents(value))).digest()
        if contents in seen:
            one = replace(one, intact=False, reason="the same signature stands in several fields")
        seen.add(contents)
        found.append(one)
    found.sort(key=lambda one: one.revision)
    verdict, reason, countersigned = conclude(found)
    return PdfResult(
        verdict=verdict,
        reason=reason,
        revisions=revisions,
        signatures=tuple(found),
        countersigned=countersigned,
        hybrid=hybrid,
    )


def _ends(reader: PdfFileReader, data: bytes) -> bool:
    """Whether the file ends with its last state. What comes after that, other readers may take for one more."""
    info = reader.xrefs.get_xref_container_info(reader.xrefs.total_revisions - 1)
    end = info.end_location
    if info.xref_section_type is not XRefSectionType.STREAM:
        stream = io.BytesIO(data)
        stream.seek(end)
        trailer = generic.TrailerReference(reader)  # type: ignore[no-untyped-call]
        generic.DictionaryObject.read_from_stream(stream, trailer)
        end = stream.tell()
    return _END.fullmatch(data, end) is not None


def _contents(value: Any) -> bytes:
    contents = value.raw_get("/Contents") if "/Contents" in value else b""
    return bytes(getattr(contents, "original_bytes", b""))


async def _signature(
    reader: PdfFileReader, data: bytes, trust: Trust, carried: Carried, name: str, value: Any, field: Any
) -> PdfSignature:
    page, place = place_of(reader, field)
    base = PdfSignature(field=line(name, 100), page=page, place=place)
    if str(value.get("/Type", "/Sig")) == "/DocTimeStamp":
        base = replace(base, kind="timestamp")
    try:
        kind = str(value.get("/SubFilter", ""))
        if kind not in _KNOWN:
            raise _BadSignatureError(f"it is of the kind {line(kind, 60) or '(none)'}, which is not checked here")
        signature = EmbeddedPdfSignature(reader, field, name)
        base = _described(base, signature)
        _require_frame(data, signature)
        if base.kind == "timestamp":
            return await _judge_timestamp(base, signature, trust, carried)
        return await _judge(base, signature, trust, carried)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        return replace(base, intact=False, trusted=False, reason=_told(error))


def _require_frame(data: bytes, signature: EmbeddedPdfSignature) -> None:
    """The gap that a signature leaves must be itself, and nothing else: no room to hide anything in."""
    numbers = [int(number) for number in signature.byte_range]
    if len(numbers) != 4 or numbers[0] != 0 or min(numbers) < 0:
        raise _BadSignatureError("its /ByteRange does not begin at the file's first byte, or has several gaps")
    _, before, after, rest = numbers
    gap = data[before:after]
    if after + rest > len(data):
        raise _BadSignatureError("its /ByteRange reaches beyond the end of the file")
    try:
        framed = gap[:1] == b"<" and gap[-1:] == b">" and bytes.fromhex(gap[1:-1].decode("ascii"))
    except ValueError:
        framed = False
    if framed != signature.pkcs7_content:
        raise _BadSignatureError("the gap in its /ByteRange is not filled by the signature itself")


def _described(base: PdfSignature, signature: EmbeddedPdfSignature) -> PdfSignature:
    certificate = signature.signer_cert
    algorithm, weak = _algorithm(signature)
    claimed = signature.self_reported_timestamp if base.kind == "signature" else None
    subject = certificate.subject.native
    return replace(
        base,
        name=_named(subject, "common_name"),
        organisation=", ".join(
            filter(None, (_named(subject, "organizational_unit_name"), _named(subject, "organization_name")))
        ),
        certificate=certificate.sha256.hex(),
        issuer=_named(certificate.issuer.native, "common_name")
        or _named(certificate.issuer.native, "organization_name"),
        claimed_at=moment_text(claimed),
        algorithm=algorithm,
        weak=weak,
    )


def _named(name: dict[str, Any], part: str) -> str:
    found = name.get(part, "")
    return line(", ".join(map(str, found)) if isinstance(found, list) else str(found))


def _algorithm(signature: EmbeddedPdfSignature) -> tuple[str, bool]:
    digest = str(signature.md_algorithm)
    key = signature.signer_cert.public_key
    kind = str(key.algorithm)
    if kind.startswith("rsa"):
        size = int(key.bit_size)
        return f"{digest} with RSA {size}", digest in ("md2", "md5", "sha1") or size < 2048
    if kind == "ec":
        curve = key.curve
        return f"{digest} with ECDSA {line(str(curve[1]), 40)}", digest in ("md2", "md5", "sha1")
    return f"{digest} with {line(kind, 40)}", kind == "dsa" or digest in ("md2", "md5", "sha1")


async def _judge(
    base: PdfSignature, signature: EmbeddedPdfSignature, trust: Trust, carried: Carried
) -> PdfSignature:
    own = adobe_of(signature)
    every = Carried(carried.certificates, [*carried.crls, *own.crls], [*carried.ocsps, *own.ocsps])
    moment: datetime | None = None
    status = await _validated(signature, trust.context(every, None))
    stamp = status.timestamp_validity
    stamped = None
    if stamp is not None:
        stamped = PdfTimestamp(
            at=moment_text(stamp.timestamp),
            authority=_named(stamp.signing_cert.subject.native, "common_name"),
            intact=bool(stamp.intact and stamp.valid),
            trusted=bool(stamp.trusted),
        )
    intact = bool(status.intact and status.valid)
    if intact and not status.trusted and stamp is not None and stamped is not None and stamped.trusted:
        moment = stamp.timestamp
        status = await _validated(signature, trust.context(every, moment))
    listed = intact and is_stale(status) and is_listed(signature.signer_cert, [*every.crls, *trust.lists()])
    if intact and is_stale(status) and not listed:
        # What the file carries has grown old. That is no less than a file that carries nothing.
        status = await _validated(
            signature, Trust(trust.anchors).context(Carried(every.certificates, [], []), None)
        )
    known = True
    if intact and status.trusted and trust.is_hard(status):
        status = await _validated(signature, trust.context(every, moment, "require"))
        known = status.trusted or status.revocation_details is not None
    changes, changed = _changes(status)
    if not intact:
        reason = (
            "the bytes that it covers were changed after signing"
            if status.valid
            else "it was not made by the certificate that it carries"
        )
    elif changes is Changes.OTHER:
        reason = changed
    elif listed:
        reason = "a revocation list names its certificate"
    elif not known:
        reason = NOT_KNOWN
    else:
        reason = "" if status.trusted else distrust(status, trust)
    revocation = [kind for kind, there in (("crl", every.crls), ("ocsp", every.ocsps)) if there]
    covered = status.coverage in (SignatureCoverageLevel.ENTIRE_FILE, SignatureCoverageLevel.ENTIRE_REVISION)
    return replace(
        base,
        timestamp=stamped,
        intact=intact,
        trusted=bool(status.trusted),
        reason=reason,
        whole=intact and status.coverage == SignatureCoverageLevel.ENTIRE_FILE,
        revision=int(signature.signed_revision) + 1 if covered else 0,
        changes=changes,
        revocation=tuple(revocation),
    )


async def _validated(signature: EmbeddedPdfSignature, context: ValidationContext) -> Any:
    return await async_validate_pdf_signature(signature, context, context, key_usage_settings=_USAGE)


async def _judge_timestamp(
    base: PdfSignature, signature: EmbeddedPdfSignature, trust: Trust, carried: Carried
) -> PdfSignature:
    status: Any = await async_validate_pdf_timestamp(signature, trust.context(carried, None))
    intact = bool(status.intact and status.valid)
    changes, changed = _changes(status)
    reason = ""
    if not intact:
        reason = "the bytes that it covers were changed after it was made"
    elif changes is Changes.OTHER:
        reason = changed
    elif not status.trusted:
        reason = distrust(status, trust)
    return replace(
        base,
        claimed_at=moment_text(status.timestamp),
        intact=intact,
        trusted=bool(status.trusted),
        reason=reason,
        whole=intact and status.coverage == SignatureCoverageLevel.ENTIRE_FILE,
        revision=int(signature.signed_revision) + 1,
        changes=changes,
    )


def _changes(status: Any) -> tuple[Changes, str]:
    level = status.modification_level
    changes = _CHANGES.get(level, Changes.OTHER)
    if changes is Changes.OTHER:
        return changes, f"an update of the file did more than sign or fill in fields ({_told(status.diff_result)})"
    if status.docmdp_ok is False:
        return Changes.OTHER, "its signer allowed no such changes"
    return changes, ""


# -- words ------------------------------------------------------------------------------------------


def _told(error: object) -> str:
    """What an exception says, if it is one that is meant to be read."""
    if isinstance(error, _BadSignatureError | PdfReadError) or hasattr(error, "failure_message"):
        return line(str(getattr(error, "failure_message", None) or error) or "it is not a PDF as it must be")
    text = line(str(error))
    return text if type(error).__module__.startswith("pyhanko") and text else "it is not built as a PDF must be"
