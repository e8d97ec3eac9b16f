"""Who takes part: agencies of Yên Bái province as they were in 2017, and the Government Office.

The agencies are real; the codes of units below the province and the people are made up. Every endpoint
has a key and a token of its own. Most speak for one agency; a district's system also speaks for communes
that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
from cryptography import x509

from hub.directory import change
from hub.directory.change import AgencyRow
from protocol.agency import parent
from protocol.signature import PrivateKey, PublicKey, generate

GROUP = "so-nganh-huyen"
"""The thirty departments, boards and districts below the province, without its own office."""


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency: its identity codes (QCVN 102 and QĐ 20), names, and who signs its papers."""

    code: str
    alias: str
    name: str
    short: str
    notation: str
    """What stands for it in a document's symbol: ``STTTT`` in 12/BC-STTTT."""
    endpoint: str
    signer: str
    position: str


@dataclass(frozen=True, slots=True)
class Party:
    """An endpoint as its agency's system holds it: a name, a token, a signing key."""

    endpoint: str
    token: str
    key: PrivateKey


_SHORT = {
    "Sở Thông tin và Truyền thông": "Sở TT&TT",
    "Sở Kế hoạch và Đầu tư": "Sở KH&ĐT",
    "Sở Giáo dục và Đào tạo": "Sở GD&ĐT",
    "Sở Nông nghiệp và Phát triển nông thôn": "Sở NN&PTNT",
    "Sở Giao thông vận tải": "Sở GTVT",
    "Sở Tài nguyên và Môi trường": "Sở TN&MT",
    "Sở Khoa học và Công nghệ": "Sở KH&CN",
    "Sở Văn hóa, Thể thao và Du lịch": "Sở VH,TT&DL",
    "Sở Lao động - Thương binh và Xã hội": "Sở LĐ-TB&XH",
    "Ban Quản lý các khu công nghiệp": "Ban QL các KCN",
    "Trung tâm Phục vụ hành chính công": "Trung tâm HCC",
    "Đài Phát thanh và Truyền hình tỉnh": "Đài PT-TH",
    "Trường Cao đẳng Y tế": "CĐ Y tế",
}
"""Names as clerks abbreviate them."""


def _unit(
    number: str, endpoint: str, name: str, notation: str, signer: str, position: str, short: str = ""
) -> Agency:
    """A unit of the province; `number` is ``02`` for a level-2 code or ``21.31`` for a commune's."""
    local, _, district = number.rpartition(".")
    code = f"000.{local or '00'}.{district}.H63"
    alias = f"H63.{district}" + (f".{local}" if local else "")
    return Agency(code, alias, name, short or _SHORT.get(name, name), notation, endpoint, signer, position)


def _department(number: int, endpoint: str, name: str, notation: str, signer: str) -> Agency:
    titles = {"Thanh": "Chánh Thanh tra", "Ban": "Trưởng ban", "Trường": "Hiệu trưởng"}
    position = titles.get(name.split()[0], "Giám đốc")
    return _unit(f"{number:02}", endpoint, name, notation, signer, position)


def _district(number: int, endpoint: str, name: str, signer: str) -> Agency:
    full = f"Ủy ban nhân dân {name}"
    return _unit(f"{number}", endpoint, full, "UBND", signer, "Chủ tịch", name)


def _commune(number: str, endpoint: str, name: str, signer: str) -> Agency:
    full = f"Ủy ban nhân dân {name}"
    return _unit(number, endpoint, full, "UBND", signer, "Chủ tịch", name)


_LIST = (
    Agency(
        "000.00.00.G22",
        "G22",
        "Văn phòng Chính phủ",
        "Văn phòng Chính phủ",
        "VPCP",
        "vpcp",
        "Nguyễn Văn An",
        "Phó Chủ nhiệm",
    ),
    Agency(
        "000.00.00.H63",
        "H63",
        "Ủy ban nhân dân tỉnh Yên Bái",
        "UBND tỉnh",
        "UBND",
        "ubnd-tinh",
        "Trần Văn Bình",
        "Chủ tịch",
    ),
    _unit(
        "01", "vp-ubnd", "Văn phòng Ủy ban nhân dân tỉnh", "VP", "Lê Văn Cường", "Chánh Văn phòng", "VP UBND tỉnh"
    ),
    _department(2, "so-tttt", "Sở Thông tin và Truyền thông", "STTTT", "Hoàng Văn Dũng"),
    _department(3, "so-tai-chinh", "Sở Tài chính", "STC", "Phạm Thị Dung"),
    _department(4, "so-noi-vu", "Sở Nội vụ", "SNV", "Vũ Văn Đạt"),
    _department(5, "so-khdt", "Sở Kế hoạch và Đầu tư", "SKHĐT", "Trần Văn Giang"),
    _department(6, "so-tu-phap", "Sở Tư pháp", "STP", "Lê Thị Hạnh"),
    _department(7, "so-gddt", "Sở Giáo dục và Đào tạo", "SGDĐT", "Nguyễn Văn Hòa"),
    _department(8, "so-y-te", "Sở Y tế", "SYT", "Lương Thị Hoa"),
    _department(9, "so-nnptnt", "Sở Nông nghiệp và Phát triển nông thôn", "SNN", "Đinh Văn Hợp"),
    _department(10, "so-cong-thuong", "Sở Công Thương", "SCT", "Bùi Thị Huệ"),
    _department(11, "so-xay-dung", "Sở Xây dựng", "SXD", "Ngô Văn Khải"),
    _department(12, "so-gtvt", "Sở Giao thông vận tải", "SGTVT", "Đặng Văn Lâm"),
    _department(13, "so-tnmt", "Sở Tài nguyên và Môi trường", "STNMT", "Hà Văn Long"),
    _department(14, "so-khcn", "Sở Khoa học và Công nghệ", "SKHCN", "Nguyễn Thị Mai"),
    _department(15, "so-vhttdl", "Sở Văn hóa, Thể thao và Du lịch", "SVHTTDL", "Phan Văn Nam"),
    _department(16, "so-ldtbxh", "Sở Lao động - Thương binh và Xã hội", "SLĐTBXH", "Trịnh Văn Nghĩa"),
    _department(17, "thanh-tra", "Thanh tra tỉnh", "TTr", "Cao Văn Phúc"),
    _department(18, "ban-dan-toc", "Ban Dân tộc", "BDT", "Giàng A Páo"),
    _department(19, "ban-kcn", "Ban Quản lý các khu công nghiệp", "BQLKCN", "Vũ Văn Quân"),
    _department(20, "mot-cua", "Trung tâm Phục vụ hành chính công", "TTPVHCC", "Lý Thị Quyên"),
    _department(21, "dai-pttth", "Đài Phát thanh và Truyền hình tỉnh", "PTTH", "Nguyễn Văn Sơn"),
    _department(22, "cd-y-te", "Trường Cao đẳng Y tế", "CĐYT", "Vi Thị Sen"),
    _district(31, "van-yen", "huyện Văn Yên", "Nguyễn Văn Thái"),
    _district(32, "luc-yen", "huyện Lục Yên", "Hoàng Văn Thọ"),
    _district(33, "yen-binh", "huyện Yên Bình", "Lã Thị Thu"),
    _district(34, "tran-yen", "huyện Trấn Yên", "Trần Văn Tiến"),
    _district(35, "van-chan", "huyện Văn Chấn", "Đặng Văn Toàn"),
    _district(36, "mu-cang-chai", "huyện Mù Cang Chải", "Lê Văn Trung"),
    _district(37, "tram-tau", "huyện Trạm Tấu", "Giàng A Tủa"),
    _district(38, "nghia-lo", "thị xã Nghĩa Lộ", "Hoàng Thị Tuyết"),
    _district(39, "tp-yen-bai", "thành phố Yên Bái", "Nguyễn Văn Tùng"),
    _commune("20.31", "van-yen", "thị trấn Mậu A", "Đỗ Thị Vân"),
    _commune("21.31", "dai-son", "xã Đại Sơn", "Bàn Văn Việt"),
    _commune("22.31", "van-yen", "xã Châu Quế Hạ", "Lò Văn Vui"),
    _commune("20.32", "luc-yen", "thị trấn Yên Thế", "Nông Thị Xuân"),
    _commune("21.32", "luc-yen", "xã Khánh Thiện", "Hoàng Văn Ý"),
)

AGENCIES: dict[str, Agency] = {}
"""The main agency of each endpoint, by the endpoint's name."""
for _agency in _LIST:
    AGENCIES.setdefault(_agency.endpoint, _agency)
BY_CODE = {agency.code: agency for agency in _LIST}
ALIASES = {agency.alias: agency for agency in _LIST}
PROVINCE, GOVERNMENT_OFFICE = AGENCIES["ubnd-tinh"], AGENCIES["vpcp"]
THIRTY = tuple(
    agency.code for agency in _LIST if parent(agency.code) == PROVINCE.code and agency.endpoint != "vp-ubnd"
)


def _above(code: str) -> set[str]:
    up = parent(code)
    return {up} | _above(up) if up else set()


def reached(to: str) -> set[str]:
    """The endpoints that an address leads to, by the demo's own book-keeping."""
    if to == f"group:{GROUP}":
        return {BY_CODE[code].endpoint for code in THIRTY}
    if to.startswith("below:"):
        top = to.removeprefix("below:")
        return {agency.endpoint for agency in _LIST if top in _above(agency.code)}
    return {(BY_CODE.get(to) or ALIASES[to]).endpoint}


async def register(
    connection: asyncpg.Connection,
    certificates: Callable[[str, PublicKey], Sequence[x509.Certificate]] = lambda endpoint, key: (),
) -> dict[str, Party]:
    """Register everybody, as ``lienthong agency add``, ``endpoint add``, ``key add`` and ``group set`` do.

    `certificates` gives those of an endpoint's key, if it has any. Returns what each endpoint's system has to
    know, by the endpoint's name.
    """
    parties = {}
    async with connection.transaction():
        for agency in _LIST:
            await change.add_agency(connection, AgencyRow(agency.code, agency.name, aliases=(agency.alias,)))
        for endpoint in AGENCIES:
            codes = [agency.code for agency in _LIST if agency.endpoint == endpoint]
            await change.add_endpoint(connection, endpoint, codes)
            key = generate("EdDSA" if endpoint == "vpcp" else "ES256")
            public = key.public_key()
            await change.add_key(
                connection, public, endpoint=endpoint, certificates=certificates(endpoint, public)
            )
            token = await change.issue_token(connection, endpoint=endpoint)
            parties[endpoint] = Party(endpoint, token, key)
        await change.put_group(connection, GROUP, THIRTY)
    return parties
