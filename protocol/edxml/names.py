"""Names of attachments, made safe to use as names of files; and what a name says of a file's type."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 200
"""Longer names are cut before their extension; file systems allow 255 bytes, and some is left for suffixes."""

MEDIA_TYPES = {
    "7z": "application/x-7z-compressed",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rar": "application/vnd.rar",
    "rtf": "application/rtf",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}
"""By extension; of other files no more is said than that they are bytes."""

_SEPARATOR = re.compile(r"[/\\]")
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)


def safe_name(name: str, fallback: str = "tep-dinh-kem") -> str:
    """`name` without what could make it more than the name of one file in one folder.

    The last component of a path (with either slash), in NFC; without control and formatting characters (which
    can turn ``gpj.exe`` into ``exe.jpg`` before the eye), without characters, names, leading or trailing dots and
    blanks that Windows or a shell would take specially; at most `MAX_BYTES` in UTF-8. Vietnamese letters stay.
    """
    base = _SEPARATOR.split(unicodedata.normalize("NFC", name))[-1]
    base = "".join(letter for letter in base if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    base = _FORBIDDEN.sub("_", base).strip(". \t")
    stem, dot, extension = base.rpartition(".")
    if not dot or len(extension.encode()) > 20:
        stem, dot, extension = base, "", ""
    room = MAX_BYTES - len(f"{dot}{extension}".encode())
    stem = stem.encode()[:room].decode(errors="ignore").rstrip(". ")
    if not stem:
        stem = fallback
    if _RESERVED.fullmatch(stem.partition(".")[0].strip()):
        stem = f"_{stem}"
    return f"{stem}{dot}{extension}"


def media_type(name: str) -> str:
    """The media type of a file by the extension of its name."""
    _, dot, extension = name.rpartition(".")
    return MEDIA_TYPES.get(extension.lower() if dot else "", "application/octet-stream")
