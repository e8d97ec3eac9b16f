"""Results as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hub.pdf.result import Changes, PdfResult, PdfSignature

_VIETNAM = timezone(timedelta(hours=7))
_CHANGES = {
    Changes.NONE: "",
    Changes.MAINTENANCE: "after it came time-stamps or revocation data",
    Changes.FORM: "after it came signatures or filled-in fields",
    Changes.OTHER: "AFTER IT CONTENT WAS CHANGED",
}


def describe(result: PdfResult) -> str:
    """A result in lines: the verdict, then each signature."""
    lines = [f"{result.verdict}{f': {result.reason}' if result.reason else ''}"]
    if result.countersigned:
        lines.append("A later signature, intact and trusted, covers the change.")
    for number, one in enumerate(result.signatures, start=1):
        lines.append(f"{number}. {one.name or one.field}{f', {one.organisation}' if one.organisation else ''}")
        lines += [f"   {text}" for text in _about(one) if text]
    return "\n".join(lines)


def _about(one: PdfSignature) -> list[str]:
    state = "intact" if one.intact else "NOT INTACT"
    trust = "trusted" if one.trusted else "NOT TRUSTED"
    kind = "time-stamp" if one.kind == "timestamp" else "signature"
    covers = "covers the whole file" if one.whole else f"covers state {one.revision} of the file"
    when = f"says it was made {_local(one.claimed_at)}" if one.claimed_at else ""
    if one.timestamp is not None:
        worth = "trusted" if one.timestamp.intact and one.timestamp.trusted else "not trusted"
        when += f"; stamped {_local(one.timestamp.at)} by {one.timestamp.authority} ({worth})"
    return [
        f"{kind}, {state}, {trust}{', WEAK' if one.weak else ''}" + (f": {one.reason}" if one.reason else ""),
        f"{covers}{f'; {_CHANGES[one.changes]}' if _CHANGES[one.changes] else ''}",
        when,
        f"certificate {one.certificate}, by {one.issuer}; {one.algorithm}" if one.certificate else "",
        f"seen on page {one.page}" if one.page else "",
    ]


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(_VIETNAM).strftime("%d/%m/%Y %H:%M:%S")
