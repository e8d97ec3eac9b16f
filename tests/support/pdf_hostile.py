"""PDFs that are made to hurt whoever reads them, or to show what was not signed."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.generic import pdf_name
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.writer import copy_into_new_writer


def built(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalog."""
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<</Root 1 0 R/Size %d%b>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)


def _catalog(fields: bytes) -> list[bytes]:
    pages = b"<</Type/Pages/Kids[]/Count 0>>"
    return [b"<</Type/Catalog/Pages 2 0 R/AcroForm 3 0 R>>", pages, b"<</Fields %b>>" % fields]


def nested(depth: int = 200_000) -> bytes:
    """Arrays in arrays."""
    return built(_catalog(b"[" * depth + b"]" * depth))


def index_loop() -> bytes:
    """An index of which the one before it is itself."""
    plain = built(_catalog(b"[]"))
    start = int(re.findall(rb"startxref\n(\d+)", plain)[0])
    return built(_catalog(b"[]"), b"/Prev %d" % start)


def field_loop() -> bytes:
    """A form field that is its own child, and a page that is its own tree."""
    catalog = b"<</Type/Catalog/Pages 2 0 R/AcroForm 3 0 R>>"
    pages = b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>"
    value = b"<</Type/Sig/SubFilter/ETSI.CAdES.detached/ByteRange[0 1 2 3]/Contents<00>>>"
    field = b"<</FT/Sig/T(a)/Kids[4 0 R]/Parent 4 0 R/V 5 0 R/Rect[0 0 9 9]>>"
    return built([catalog, pages, b"<</Fields[4 0 R]>>", field, value])


def bomb(size: int = 2 << 30) -> bytes:
    """An index that unpacks to `size` bytes of a few megabytes."""
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    packed = b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()
    head = b"%PDF-1.7\n"
    body = b"<</Type/XRef/W[1 4 2]/Size 9/Root 2 0 R/Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (
        len(packed),
        packed,
    )
    return head + b"1 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF\n" % (body, len(head))


def many_numbers(count: int) -> bytes:
    """A list of fields that is `count` numbers long."""
    return built(_catalog(b"[" + b"1 " * count + b"]"))


def many_updates(signed: bytes, count: int) -> bytes:
    """A signed file with `count` updates after it, each of which has to be compared with the others."""
    out = bytearray(signed)
    size = int(re.findall(rb"/Size (\d+)", signed)[-1])
    root = re.findall(rb"/Root (\d+ \d+ R)", signed)[-1]
    previous = int(re.findall(rb"startxref\s+(\d+)", signed)[-1])
    for _ in range(count):
        place = len(out)
        out += b"%d 0 obj\n<</Producer(x)>>\nendobj\n" % size
        start = len(out)
        out += b"xref\n%d 1\n%010d 00000 n \n" % (size, place)
        out += b"trailer\n<</Root %b/Size %d/Prev %d>>\nstartxref\n%d\n%%%%EOF\n" % (
            root,
            size + 1,
            previous,
            start,
        )
        previous = start
    return bytes(out)


def encrypted(pdf: bytes) -> bytes:
    writer = copy_into_new_writer(PdfFileReader(io.BytesIO(pdf)))
    writer.encrypt(owner_pass="bí mật", user_pass="bí mật")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def hybrid() -> bytes:
    """A file with two indexes, as word processors export them: the second, a stream, knows one object more."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<<>>>>"
    catalog, _, form = _catalog(b"[]")
    plain = built([catalog, b"<</Type/Pages/Kids[4 0 R]/Count 1>>", form, page])
    body, index = plain[: plain.index(b"xref\n")], plain[plain.index(b"xref\n") :]
    entries = b"\x01" + len(body).to_bytes(4, "big") + b"\x00"
    stream = b"5 0 obj\n<</Type/XRef/Index[5 1]/W[1 4 1]/Size 6/Length %d>>stream\n%b\nendstream\nendobj\n" % (
        len(entries),
        entries,
    )
    start = len(body) + len(stream)
    index = index.replace(b"/Size 5", b"/Size 6/XRefStm %d" % len(body))
    index = re.sub(rb"startxref\n\d+", b"startxref\n%d" % start, index)
    return body + stream + index


# -- what was not signed ----------------------------------------------------------------------------


def byte_range(pdf: bytes) -> tuple[int, int, int, int]:
    """The last signature's."""
    (*_, found) = re.findall(rb"/ByteRange\s*\[\s*(\d+) (\d+) (\d+) (\d+)\s*\]", pdf)
    first, before, after, rest = map(int, found)
    return first, before, after, rest


def with_byte_range(pdf: bytes, *numbers: int) -> bytes:
    """The last signature's ByteRange, overwritten in its place."""
    (*_, found) = re.finditer(rb"/ByteRange\s*\[[^\]]*\]", pdf)
    new = b"/ByteRange [%b]" % b" ".join(b"%d" % number for number in numbers)
    assert len(new) <= len(found[0])
    return pdf[: found.start()] + new.ljust(len(found[0])) + pdf[found.end() :]


def appended(pdf: bytes, text: bytes = b"\n% Phai tra 1.000.000.000 dong\n") -> bytes:
    """With something after its end that no index names."""
    return pdf + text


def wrapped(pdf: bytes, subject: bytes) -> bytes:
    """Signature wrapping: another page, and the signature moved into an object of that update."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    page = writer.root["/Pages"]["/Kids"].raw_get(0)
    content = generic.StreamObject(stream_data=b"BT /F1 12 Tf 72 760 Td (" + subject + b") Tj ET")
    page.get_object()[pdf_name("/Contents")] = writer.add_object(content)
    writer.mark_update(page)
    field = writer.root["/AcroForm"]["/Fields"].raw_get(-1)
    old = field.get_object()["/V"]
    copy = generic.DictionaryObject({name: old.raw_get(name) for name in old})
    field.get_object()[pdf_name("/V")] = writer.add_object(copy)
    writer.mark_update(field)
    return _written(writer)


def borrowed(pdf: bytes) -> bytes:
    """A second field that shows the signature of the first as its own."""
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    form = writer.root["/AcroForm"]
    value = form["/Fields"].raw_get(-1).get_object().raw_get("/V")
    field = generic.DictionaryObject(
        {
            pdf_name("/FT"): pdf_name("/Sig"),
            pdf_name("/T"): generic.pdf_string("Con dấu thứ hai"),
            pdf_name("/V"): value,
            pdf_name("/Rect"): generic.ArrayObject(map(generic.NumberObject, (0, 0, 0, 0))),
        }
    )
    form["/Fields"].append(writer.add_object(field))
    writer.update_container(form["/Fields"])
    return _written(writer)


def _written(writer: IncrementalPdfFileWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
