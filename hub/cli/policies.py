"""Policies of endpoints as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from hub.pdf.result import Policy as PdfPolicy
from protocol.edxml.xmldsig import Policy


def signatures_text(policy: str, pins: Sequence[str], any_certificate: bool) -> str:
    """A policy as people read it; nothing where signatures are ignored."""
    if policy == Policy.REQUIRE:
        return f"{policy}, any certificate" if any_certificate else f"{policy}, {len(pins)} pinned"
    return "" if policy == Policy.IGNORE else policy


def pdf_text(policy: str, countersigned: bool) -> str:
    """The same of signatures in PDFs."""
    if policy == PdfPolicy.REQUIRE and countersigned:
        return f"{policy}, or countersigned"
    return "" if policy == PdfPolicy.IGNORE else policy
