"""Where in a PDF a signature is seen. Imported by the checking process alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.reader import PdfFileReader

MAX_PAGES = 5_000
"""Nodes of the tree of pages that are looked at."""


def place_of(reader: PdfFileReader, field: Any) -> tuple[int, tuple[float, ...]]:
    """The page and the rectangle of a signature that is seen; 0 and nothing for others."""
    try:
        rectangle = tuple(round(float(number), 1) for number in field.get("/Rect", ()))
        if len(rectangle) != 4 or rectangle[0] == rectangle[2] or rectangle[1] == rectangle[3]:
            return 0, ()
        own = field.container_ref
        wanted = field.raw_get("/P").reference if "/P" in field else None
        for number, (reference, page) in enumerate(_pages(reader), start=1):
            if reference == wanted:
                return number, rectangle
            if wanted is None:
                widgets = page.get("/Annots", ())
                if any(getattr(one, "reference", None) == own.reference for one in widgets):
                    return number, rectangle
        return 0, ()
    except MemoryError:
        raise
    except Exception:  # where a signature is seen is told for convenience; nothing rests on it
        return 0, ()


def _pages(reader: PdfFileReader) -> Iterator[tuple[Any, Any]]:
    """Pages with their references, in order."""
    waiting = [reader.root.raw_get("/Pages")]
    for _ in range(MAX_PAGES):
        if not waiting:
            return
        node = waiting.pop()
        page = node.get_object()
        if not isinstance(page, generic.DictionaryObject):
            continue
        if "/Kids" in page:
            waiting.extend(reversed(list(page["/Kids"])))
        else:
            yield getattr(node, "reference", None), page
