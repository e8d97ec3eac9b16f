"""The files in attachments: zipped and unzipped within limits, and named safely."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.edxml.names import MAX_BYTES, media_type, safe_name
from protocol.edxml.wrapping import FREE_BYTES, MAX_RATIO, ZIP_TYPE, unwrap, wrap
from protocol.problems import Problem

UUID = "0b9a1c1e-5d63-4f0e-9f7c-2f6d2c6c1a00"

# -- zips -------------------------------------------------------------------------------------------


def zipped(entries: dict[str, bytes], **options: int) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            archive.writestr(name, data)
    return file


def unwrapped(file: io.BytesIO, content_type: str = ZIP_TYPE, name: str = "a.pdf") -> bytes | None:
    pieces = unwrap(file, content_type, name, 1 << 30)
    return None if pieces is None else b"".join(pieces)


@given(st.lists(st.binary(max_size=1000), max_size=5))
@settings(deadline=None)
def test_what_was_wrapped_is_unwrapped(pieces: list[bytes]) -> None:
    packed = b"".join(wrap(f"{UUID}.pdf", pieces))
    assert unwrapped(io.BytesIO(packed), "application/pdf") == b"".join(pieces)
    assert packed == b"".join(wrap(f"{UUID}.pdf", pieces)), "the same file gives the same bytes"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{UUID}.pdf"]


@pytest.mark.parametrize(
    ("file", "content_type", "name", "wrapper"),
    [
        (zipped({f"{UUID}.pdf": b"x"}), "application/pdf", "a.pdf", True),
        (zipped({f"{UUID.upper()}.PDF": b"x"}), "", "", True),
        (zipped({"1896_QD.doc": b"x"}), ZIP_TYPE, "1896_QD.doc", True),
        (zipped({"1896_QD.doc": b"x"}), "application/x-zip-compressed", "1896_QD.doc", True),
        (zipped({"1896_QD.doc": b"x"}), "application/msword", "1896_QD.doc", False),
        (zipped({"hồ sơ.pdf": b"x"}), ZIP_TYPE, "hồ sơ.ZIP", False),
        (zipped({"[Content_Types].xml": b"x", "word/document.xml": b"y"}), ZIP_TYPE, "a.docx", False),
        (zipped({}), ZIP_TYPE, "a.pdf", False),
        (zipped({"thư mục/": b""}), ZIP_TYPE, "a.pdf", False),
        (zipped({f"../{UUID}.pdf": b"x"}), "application/pdf", "a.pdf", False),
        (zipped({f"{UUID}.pdf": b"x"}, compression=zipfile.ZIP_BZIP2), ZIP_TYPE, "a.pdf", False),
        (io.BytesIO(b"%PDF-1.7"), ZIP_TYPE, "a.pdf", False),
        (io.BytesIO(b""), ZIP_TYPE, "a.pdf", False),
        (io.BytesIO(b"PK\x03\x04" + b"x" * 100), ZIP_TYPE, "a.pdf", False),
        (io.BytesIO(zipped({UUID: b"x"}).getvalue()[:-5]), ZIP_TYPE, "a.pdf", False),
        (io.BytesIO(b"#!" + zipped({UUID: b"x"}).getvalue()), ZIP_TYPE, "a.pdf", False),
    ],
)
def test_which_zips_are_wrappers(file: io.BytesIO, content_type: str, name: str, wrapper: bool) -> None:
    assert (unwrapped(file, content_type, name) == b"x") is wrapper
    assert (unwrapped(file, content_type, name) is None) is not wrapper


def test_a_directory_of_many_entries_is_not_read() -> None:
    file = zipped({f"{number}" * 20: b"" for number in range(20_000)})
    tracemalloc.start()
    try:
        assert unwrapped(file) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_bombs_are_cut_off() -> None:
    packed = io.BytesIO(b"".join(wrap(f"{UUID}.pdf", (bytes(1 << 20) for _ in range(64)))))
    size = len(packed.getvalue())
    assert size < 100_000
    seen = 0
    with pytest.raises(Problem) as caught:
        for piece in unwrap(packed, ZIP_TYPE, "a.pdf", 1 << 30) or ():
            seen += len(piece)
    assert caught.value.code == "too-large"
    assert seen <= max(FREE_BYTES, size * MAX_RATIO)
    with pytest.raises(Problem, match="more than 1000 bytes"):
        list(unwrap(packed, ZIP_TYPE, "a.pdf", 1000) or ())


@pytest.mark.parametrize("at", [50, 1000, 5000])
def test_damaged_zips_are_refused(at: int) -> None:
    data = bytearray(b"".join(wrap(f"{UUID}.pdf", [hashlib.shake_256(b"x").digest(10_000)])))
    data[at] ^= 0xFF
    try:
        assert unwrapped(io.BytesIO(bytes(data))) is None
    except Problem as problem:
        assert problem.code == "bad-edxml"
        assert "zip" in problem.detail


def test_a_file_too_large_for_a_zip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    with pytest.raises(Problem) as caught:
        list(wrap(f"{UUID}.pdf", [bytes(600), bytes(600)]))
    assert caught.value.code == "too-large"


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "safe"),
    [
        ("Báo cáo số 215 (đợt 2).pdf", "Báo cáo số 215 (đợt 2).pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\Windows\\win.ini", "win.ini"),
        ("../../..", "tep-dinh-kem"),
        ("", "tep-dinh-kem"),
        ("a/b/", "tep-dinh-kem"),
        (".bashrc", "bashrc"),
        ("ảnh\u202egpj.exe", "ảnhgpj.exe"),
        ("a\0b\r\n.pdf", "ab.pdf"),
        ("e\u0302\u0301.pdf", "ế.pdf"),
        ("con.txt", "_con.txt"),
        ("LPT1", "_LPT1"),
        ("a:b*c?.pdf", "a_b_c_.pdf"),
        ("a.pdf. . ", "a.pdf"),
        (".pdf", "pdf"),
        ("ệ" * 200 + ".docx", "ệ" * 65 + ".docx"),
    ],
)
def test_names_of_files(given_: str, safe: str) -> None:
    assert safe_name(given_) == safe


@given(st.text(max_size=300))
@settings(max_examples=500, deadline=None)
def test_a_safe_name_is_one_and_stays_one(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert len(safe.encode()) <= MAX_BYTES
    assert safe_name(safe) == safe
    assert not set(safe) & set('/\\:*?"<>|\0\n\r')
    assert safe.strip(". ") == safe


def test_media_types() -> None:
    assert media_type("a.PDF") == "application/pdf"
    assert media_type("pdf") == media_type("") == media_type("a.exe") == "application/octet-stream"
