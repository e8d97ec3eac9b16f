"""edXML messages for tests: made from fields in any dialect, and read in every way."""

from __future__ import annotations

import io
from html import escape
from typing import BinaryIO, cast

from protocol.edxml import NAMESPACE, OLD_NAMESPACES, Header, Party, Reference, Response, read

Tree = tuple[str, "str | list[Tree]"]


def document(
    *,
    sender: str = "000.00.00.H63",
    sender_name: str = "UBND tỉnh Yên Bái",
    to: tuple[tuple[str, str], ...] = (
        ("000.00.31.H63", "UBND huyện Lục Yên"),
        ("H63.31.02", "UBND xã Mường Lai"),
    ),
    document_id: str = "000.00.00.H63,2017/10/02,215/BC-UBND",
    number: str = "215",
    notation: str = "BC-UBND",
    place: str = "Yên Bái",
    issued: str = "2017/10/02",
    type_name: str = "Báo cáo",
    subject: str = "Về việc kết nối, liên thông văn bản điện tử <đợt 2> & chữ ký số",
    signer: str = "Đặng Thị Ngọc Ánh",
    due: str = "16/10/2017",
    priority: str = "3",
    references: tuple[tuple[str, str], ...] = (("cid:a-1", "Báo cáo.pdf"), ("CID:a-2", "Phụ lục.xlsx")),
    business: list[Tree] | None = None,
    more: list[Tree] | None = None,
    content: str = "UEsDBBQA" * 20,
) -> Tree:
    """A document; the keywords are its fields."""
    business = [("BussinessDocType", "0")] if business is None else business
    addressed: list[Tree] = [
        ("To", [("OrganId", code), ("OrganName", name), ("Email", "vt@example.vn")]) for code, name in to
    ]
    header: list[Tree] = [
        ("From", [("OrganId", sender), ("OrganName", sender_name), ("Fax", "")]),
        *addressed,
        ("DocumentId", document_id),
        ("Code", [("CodeNumber", number), ("CodeNotation", notation)]),
        ("PromulgationInfo", [("Place", place), ("PromulgationDate", issued)]),
        ("DocumentType", [("Type", "14"), ("TypeDetail", "0"), ("TypeName", type_name)]),
        ("Subject", subject),
        ("Content", "Nội dung không được đọc"),
        ("SignerInfo", [("Position", "Phó Chủ tịch"), ("FullName", signer)]),
        ("DueDate", due),
        ("OtherInfo", [("Priority", priority), ("Appendixes", [("Appendix", "Phụ lục")])]),
        ("ResponseFor", [("OrganId", "G22"), ("Code", "9/VPCP-TTĐT"), ("DocumentId", "hỏi-9"),
                         ("PromulgationDate", "2017-09-20")]),
        ("ToPlaces", [("Place", "Lưu: VT")]),
        *(more or []),
    ]  # fmt: skip
    trace: list[Tree] = [
        ("TraceHeader", [("OrganId", sender), ("Timestamp", "2017/10/02 08:15:30")]),
        ("TraceHeader", [("OrganId", "truc.h63"), ("Timestamp", "2017/10/02 08:15:31")]),
        *([("Bussiness", business)] if business else []),
    ]
    # The package signature repeats names that mean something elsewhere.
    signature: Tree = ("Signature", [("SignedInfo", [("Reference", [("ContentId", "không phải tệp")])])])
    manifest: list[Tree] = [
        ("Reference", [("ContentId", cid), ("ContentType", "application/pdf"), ("Description", "Tệp đính kèm"),
                       ("AttachmentName", name)])
        for cid, name in references
    ]  # fmt: skip
    attachments: list[Tree] = [
        ("Attachment", [("ContentId", cid), ("AttachmentName", name), ("ContentTransferEncoded", content)])
        for cid, name in references
    ]
    return (
        "edXML",
        [
            ("edXMLEnvelope", [
                ("edXMLHeader", [("MessageHeader", header), ("TraceHeaderList", trace), signature]),
                ("edXMLBody", [("edXMLManifest", manifest)]),
            ]),
            ("AttachmentEncoded", attachments),
        ],
    )  # fmt: skip


def status(code: str = "03", *, organ: str = "000.00.00.H63", more: list[Tree] | None = None) -> Tree:
    """A status about a document of `organ`."""
    header: list[Tree] = [
        ("From", [("OrganId", "000.00.31.H63"), ("OrganName", "UBND huyện Lục Yên")]),
        ("ResponseFor", [("OrganId", organ), ("Code", "215/BC-UBND"), ("PromulgationDate", "2017/10/02"),
                         ("DocumentId", "000.00.00.H63,2017/10/02,215/BC-UBND")]),
        ("StaffInfo", [("Department", "Văn thư"), ("Staff", "Lê Văn Cường")]),
        ("StatusCode", code),
        ("Description", "Đã vào sổ văn bản đến"),
        ("Timestamp", "2017/10/02 09:05:00"),
        *(more or []),
    ]  # fmt: skip
    return ("edXML", [("edXMLEnvelope", [("edXMLHeader", [("MessageHeader", header)])])])


def by_name(tree: Tree) -> Tree:
    """The same message in another order: backwards by name, equal names as they were."""
    name, content = tree
    if isinstance(content, str):
        return tree
    return name, sorted(map(by_name, content), key=lambda child: child[0], reverse=True)


DOTNET = ["From", "To", "Code", "PromulgationInfo", "DocumentType", "Subject", "Content", "SignerInfo",
          "DueDate", "ToPlaces", "OtherInfo", "ResponseFor", "SteeringType", "DocumentId"]  # fmt: skip


def as_dotnet(tree: Tree) -> Tree:
    name, content = tree
    if isinstance(content, str):
        return tree
    children = list(map(as_dotnet, content))
    if name == "MessageHeader":
        children.sort(key=lambda child: DOTNET.index(child[0]))
    return name, children


def write(tree: Tree, dialect: str = "axis") -> bytes:
    """`tree` as XML in a dialect."""

    def element(tree: Tree, prefix: str, depth: int) -> str:
        name, content = tree
        declared = ""
        if dialect == "axis":
            if name in ("edXML", "AttachmentEncoded"):
                prefix = ""
                declared = f' xmlns="{NAMESPACE}"' * (name == "edXML")
            elif name in ("edXMLEnvelope", "ContentTransferEncoded"):
                prefix, declared = "edXML:", f' xmlns:edXML="{NAMESPACE}"'
        elif depth == 0:
            prefix, declared = {
                "prefixed": ("e:", f' xmlns:e="{NAMESPACE}"'),
                "unprefixed": ("", f" xmlns='{NAMESPACE}'"),
                "none": ("", ""),
                "root only": ("e:", f' xmlns:e="{NAMESPACE}"'),
                "e-doc": ("ns0:", f' xmlns:ns0="{OLD_NAMESPACES[0]}"'),
                "go.vn": ("", f' xmlns="{OLD_NAMESPACES[1]}"'),
            }[dialect]
        elif dialect == "root only":
            prefix = ""
        written = prefix + (name.upper() if dialect == "go.vn" else name)
        if isinstance(content, str):
            inner = escape(content)
        else:
            indent = "\n" + "  " * depth
            inner = "".join(f"{indent}  {element(child, prefix, depth + 1)}" for child in content) + indent
        return f"<{written}{declared}>{inner}</{written}>"

    return ('<?xml version="1.0" encoding="UTF-8"?>\n' + element(tree, "", 0)).encode()


DOCUMENT = write(document())
EXPECTED = Header(
    kind="document",
    sender="000.00.00.H63",
    sender_name="UBND tỉnh Yên Bái",
    parties=(Party("000.00.31.H63", "UBND huyện Lục Yên"), Party("H63.31.02", "UBND xã Mường Lai")),
    document_id="000.00.00.H63,2017/10/02,215/BC-UBND",
    code="215/BC-UBND",
    type_name="Báo cáo",
    subject="Về việc kết nối, liên thông văn bản điện tử <đợt 2> & chữ ký số",
    priority=3,
    due="2017-10-16",
    promulgation_place="Yên Bái",
    promulgation_date="2017-10-02",
    signer="Đặng Thị Ngọc Ánh",
    business=0,
    business_document_id=None,
    replaces=(),
    response_for=(Response("G22", "9/VPCP-TTĐT", "hỏi-9", "2017-09-20"),),
    status_code=None,
    status_description="",
    timestamp="2017-10-02T08:15:30+07:00",
    references=(
        Reference("a-1", "Báo cáo.pdf", "application/pdf", "Tệp đính kèm"),
        Reference("a-2", "Phụ lục.xlsx", "application/pdf", "Tệp đính kèm"),
    ),
    warnings=(),
    traced=("000.00.00.H63", "truc.h63"),
)
"""What DOCUMENT says, in any dialect."""


class Drip:
    """A source that never gives more than 1,000 bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, 1000))


def both(data: bytes) -> Header:
    """The header, read whole, in part, and from a source that gives a few bytes at a time: all equal."""
    header = read(data, whole=True)
    assert (part := read(data)) == header, f"in part it reads {part}, whole {header}"
    assert (dripped := read(cast(BinaryIO, Drip(data)), whole=True)) == header, f"{dripped}, at once {header}"
    return header
