"""What is written between 7:30 and 11:30 on Monday, 2 October 2017, and how the recipients answer.

A `Paper` says who writes what to whom, and what follows from it: which business states the recipients
report (messages of kind ``status``), who replies, who refuses. Subjects and symbols are of the kind that
such agencies write; none is a real document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hub.demo.agencies import AGENCIES, BY_CODE, GROUP, Agency, reached
from protocol.message import LANE_OF_PRIORITY, Priority

DATE = "2017-10-02"
DARK = "tram-tau"
"""The endpoint that is switched off at first: its district has no power."""

_TYPES = {
    "BC": "Báo cáo",
    "CT": "Chỉ thị",
    "CĐ": "Công điện",
    "GM": "Giấy mời",
    "HD": "Hướng dẫn",
    "KH": "Kế hoạch",
    "PC": "Phiếu chuyển",
    "QĐ": "Quyết định",
    "TB": "Thông báo",
    "TTr": "Tờ trình",
}


@dataclass(frozen=True, slots=True)
class Paper:
    """A document of the morning."""

    at: str
    """The time on the clock, 07:31."""
    sender: str
    """The endpoint that sends it, for its main agency."""
    to: tuple[str, ...]
    """Addresses as they stand in the message: codes, aliases, ``group:``, ``below:``."""
    symbol: str
    subject: str
    priority: Priority = "normal"
    files: tuple[int, ...] = ()
    """Sizes of its attachments, in KiB."""
    states: dict[str, str] = field(default_factory=dict)
    """Business states that recipients report, by their endpoint: ``01 03 06``."""
    replies: tuple[Paper, ...] = ()
    """What recipients write in answer, as soon as they have it."""
    due: str | None = None
    edxml: bool = False
    refusal: str = ""
    """Why its recipient refuses it."""
    after_notice: Paper | None = None
    """What the sender writes when told that it was refused or has expired."""
    expires_seconds: float = 0.0
    """How long after it was sent it may still be handed over; 0: always."""
    twice: bool = False
    """Whether the sender, believing the answer lost, sends it again."""

    @property
    def agency(self) -> Agency:
        return AGENCIES[self.sender]

    @property
    def type(self) -> str:
        return _TYPES.get(self.symbol.partition("/")[2].partition("-")[0], "Công văn")

    @property
    def id(self) -> str:
        """The document's id as QCVN 102 writes it: agency, date, symbol."""
        return f"{self.agency.code},{DATE.replace('-', '/')},{self.symbol}"


# A line is: time | sender > recipients | symbol | subject | the rest. Senders and recipients are endpoints by
# name, or addresses. The rest: attachments (46k), urgency, states that the named recipients report (03),
# `twice`, `edxml`, `expires=SECONDS`, `due=DATE`. Below a line may stand: + a reply, - why it is refused,
# = what its sender writes on the notice.
_SCRIPT = f"""
07:31 | vp-ubnd > group:{GROUP} | 98/TB-VP | Thông báo lịch công tác của Thường trực UBND tỉnh tuần 40 | 46k
07:35 | ubnd-tinh > group:{GROUP} | 12/CĐ-UBND
      | Công điện về việc khẩn trương ứng phó với mưa lũ, lũ ống, lũ quét và sạt lở đất | 92k express
07:38 | ban-dan-toc > tram-tau | 33/GM-BDT
      | Giấy mời họp trực tuyến lúc 8 giờ về chính sách đối với người có uy tín | 18k very_urgent expires=2.5
07:44 | so-y-te > so-tai-chinh | 1320/SYT-KHTC
      | V/v thẩm định dự toán mua sắm vật tư y tế quý IV | 210k 01 03 twice
07:49 | van-yen > dai-son | 905/UBND-NN
      | V/v rà soát diện tích quế bị ảnh hưởng do mưa lũ | 64k 31k urgent 01 03 06
    + 08:20 | dai-son > van-yen | 41/BC-UBND
      | Báo cáo diện tích quế bị ảnh hưởng do mưa lũ trên địa bàn xã Đại Sơn | 55k 03
07:52 | so-nnptnt > H63.31, H63.32, van-chan | 1184/SNN-TL
      | V/v kiểm tra an toàn hồ, đập và công trình thủy lợi | 88k urgent 03
07:57 | so-cong-thuong > so-noi-vu | 61/TTr-SCT
      | Tờ trình về việc bổ sung kinh phí khuyến công địa phương năm 2017 | 120k
    - Văn bản gửi nhầm địa chỉ; nội dung thuộc thẩm quyền của Sở Tài chính
    = 08:10 | so-cong-thuong > so-tai-chinh | 62/TTr-SCT
      | Tờ trình về việc bổ sung kinh phí khuyến công địa phương năm 2017 | 120k 01 03
08:05 | so-tttt > ubnd-tinh, vp-ubnd | 287/BC-STTTT
      | Báo cáo kết quả sử dụng chữ ký số và liên thông phần mềm quản lý văn bản quý III | 340k 28k 01 03 06
08:12 | so-gddt > van-yen, luc-yen, yen-binh, tran-yen | 1562/SGDĐT-GDTrH
      | V/v cho học sinh nghỉ học tại các xã có nguy cơ sạt lở | 26k express 03
08:16 | so-noi-vu > so-tu-phap, thanh-tra | 743/SNV-TCBC
      | V/v góp ý dự thảo Quy định phân cấp quản lý tổ chức bộ máy, biên chế | 190k 03 due=2017-10-10
    + 10:50 | so-tu-phap > so-noi-vu | 1488/STP-XDKT
      | V/v góp ý dự thảo Quy định phân cấp quản lý tổ chức bộ máy, biên chế | 44k 03
08:24 | mot-cua > so-tnmt | 1107/PC-TTPVHCC
      | Phiếu chuyển hồ sơ cấp giấy chứng nhận quyền sử dụng đất | 410k 75k 33k 01 03 05 06
08:31 | so-tai-chinh > H63 | 209/TTr-STC
      | Tờ trình về việc phân bổ kinh phí khắc phục hậu quả thiên tai đợt 2 năm 2017 | 155k 42k very_urgent
08:37 | so-khdt > so-tai-chinh, so-xay-dung, so-gtvt | 1876/SKHĐT-TH
      | V/v rà soát kế hoạch đầu tư công trung hạn giai đoạn 2016 - 2020 | 260k 03
    + 09:05 | so-gtvt > so-khdt | 1423/SGTVT-KHTC
      | V/v rà soát kế hoạch đầu tư công trung hạn lĩnh vực giao thông | 130k 03
    + 09:12 | so-xay-dung > so-khdt | 1290/SXD-QLXD
      | V/v rà soát kế hoạch đầu tư công trung hạn lĩnh vực xây dựng | 115k 03
08:45 | luc-yen > so-tnmt | 1204/UBND-TNMT | V/v đề nghị thẩm định hồ sơ mỏ đá vôi trắng | 2100k 01 03
08:52 | so-gtvt > van-chan, mu-cang-chai | 1417/SGTVT-QLGT
      | V/v phân luồng giao thông trên quốc lộ 32 do sạt lở | 48k 610k express 03 06
08:58 | yen-binh > so-nnptnt | 266/BC-UBND | Báo cáo tình hình nuôi cá lồng trên hồ Thác Bà sau mưa lũ | 72k 03
09:03 | ubnd-tinh > below:000.00.00.H63 | 2051/UBND-CN
      | V/v gửi, nhận văn bản điện tử có ký số qua trục liên thông văn bản của tỉnh | 176k
09:08 | so-ldtbxh > tran-yen | 988/SLĐTBXH-BTXH
      | V/v hỗ trợ gạo cứu đói cho các hộ bị thiệt hại | 39k urgent 01 03
09:14 | thanh-tra > tp-yen-bai | 77/QĐ-TTr | Quyết định về việc thanh tra trách nhiệm tiếp công dân | 84k 03
09:20 | vpcp > ubnd-tinh | 10213/VPCP-KSTT
      | V/v đẩy mạnh gửi, nhận văn bản điện tử liên thông qua mạng | 145k urgent 03 edxml
    + 10:40 | ubnd-tinh > G22 | 215/BC-UBND
      | Báo cáo kết quả kết nối liên thông văn bản điện tử tỉnh Yên Bái | 230k 61k urgent
09:26 | so-khcn > so-nnptnt, van-yen | 640/SKHCN-QLKH
      | V/v phối hợp nghiệm thu đề tài chọn tạo giống quế bản địa Văn Yên | 890k 03
09:31 | nghia-lo > so-vhttdl | 177/TTr-UBND | Tờ trình xếp hạng di tích Căng và Đồn Nghĩa Lộ | 1650k 01 03
09:37 | so-tu-phap > H63.01 | 402/BC-STP | Báo cáo thẩm định dự thảo Quyết định của UBND tỉnh | 98k
09:43 | ubnd-tinh > group:{GROUP} | 18/CT-UBND
      | Chỉ thị về tăng cường kỷ luật hành chính; không gửi bản giấy khi đã gửi bản điện tử | 134k
09:48 | tp-yen-bai > so-xay-dung, so-tnmt | 1533/UBND-QLĐT
      | V/v điều chỉnh cục bộ quy hoạch phân khu phía nam sông Hồng | 3200k 240k 03
09:54 | so-vhttdl > dai-pttth | 716/SVHTTDL-NVVH | V/v tuyên truyền Tuần Văn hóa - Du lịch Mường Lò | 57k 03 06
10:02 | mu-cang-chai > so-nnptnt, so-tai-chinh | 203/TTr-UBND
      | Tờ trình hỗ trợ khẩn cấp khắc phục đường vào các bản bị cô lập | 77k 540k express 03
    + 10:25 | so-tai-chinh > mu-cang-chai | 2410/STC-QLNS
      | V/v tạm ứng kinh phí khắc phục hậu quả thiên tai | 45k urgent 03
10:08 | ban-kcn > so-cong-thuong, so-tnmt | 355/BQLKCN-QLMT
      | V/v kiểm tra xử lý nước thải tại Khu công nghiệp phía Nam | 66k 03
10:15 | so-xay-dung > nghia-lo | 1301/SXD-KTQH | V/v lấy ý kiến quy hoạch chung thị xã Nghĩa Lộ | 720k 03
10:21 | tran-yen > so-ldtbxh | 287/BC-UBND | Báo cáo số hộ cần cứu trợ lương thực | 33k urgent 03
10:28 | so-nnptnt > ubnd-tinh | 402/BC-SNN
      | Báo cáo tổng hợp thiệt hại do mưa lũ đến 9 giờ | 187k 52k express 01 03
10:33 | vp-ubnd > so-tttt, so-noi-vu, so-tai-chinh | 114/GM-VP
      | Giấy mời họp Ban Chỉ đạo ứng dụng công nghệ thông tin | 21k urgent 03
10:38 | dai-pttth > vp-ubnd | 64/BC-PTTH | Báo cáo lượt tin, bài về phòng chống thiên tai | 29k 03
10:46 | so-y-te > van-chan, mu-cang-chai, van-yen, luc-yen, cd-y-te | 1333/SYT-NVY
      | V/v bảo đảm thuốc, hóa chất khử khuẩn nước và phòng chống dịch bệnh sau lũ | 81k urgent 03
10:52 | so-tnmt > mot-cua | 2011/STNMT-VPĐK | V/v trả kết quả hồ sơ đất đai ngày 02/10/2017 | 105k 88k 03
10:57 | ubnd-tinh > so-tai-chinh, so-nnptnt, mu-cang-chai | 1892/QĐ-UBND
      | Quyết định về việc hỗ trợ kinh phí khắc phục hậu quả thiên tai | 96k very_urgent 03
11:03 | so-nnptnt > below:000.00.31.H63 | 1203/SNN-KL
      | V/v hỗ trợ giống quế cho các xã của huyện Văn Yên bị thiệt hại do mưa lũ | 59k
11:08 | dai-son > H63.31 | 42/TTr-UBND | Tờ trình đề nghị hỗ trợ giống quế trồng lại sau mưa lũ | 47k 01 03
11:12 | so-tu-phap > mot-cua | 1502/STP-HCTP | V/v trả kết quả phiếu lý lịch tư pháp | 36k 03 06
11:17 | vp-ubnd > vpcp | 121/BC-VP | Báo cáo danh sách đầu mối kỹ thuật liên thông văn bản của tỉnh | 25k
11:22 | so-khdt > ubnd-tinh, vp-ubnd | 331/BC-SKHĐT
      | Báo cáo tình hình kinh tế - xã hội 9 tháng năm 2017 | 1400k 310k 03
11:28 | vp-ubnd > group:{GROUP} | 99/TB-VP
      | Thông báo kết luận của Chủ tịch UBND tỉnh tại cuộc họp giao ban đầu tuần | 73k
"""

_STORM = "12/CĐ-UBND"
_DISTRICTS = ("van-yen", "luc-yen", "yen-binh", "tran-yen", "van-chan", "mu-cang-chai", "nghia-lo", "tp-yen-bai")


def _flood_reports() -> Iterator[str]:
    """What the districts answer to the telegram about the storm."""
    for number, district in enumerate(_DISTRICTS):
        name = AGENCIES[district].short
        yield (
            f"07:{50 + number} | {district} > ubnd-tinh, so-nnptnt | {310 + number * 11}/BC-UBND"
            f" | Báo cáo nhanh tình hình mưa lũ và công tác ứng phó trên địa bàn {name}"
            f" | {30 + number * 9}k urgent"
        )


def _weekly_reports() -> Iterator[str]:
    """What every department sends to the province's office on a Monday."""
    subject = "Báo cáo kết quả công tác tuần 39, nhiệm vụ trọng tâm tuần 40 năm 2017"
    departments = [agency for agency in BY_CODE.values() if agency.name.startswith(("Sở", "Ban", "Thanh"))]
    for number, agency in enumerate(departments):
        yield (
            f"08:{number * 7 % 60:02} | {agency.endpoint} > vp-ubnd | {140 + number * 3}/BC-{agency.notation}"
            f" | {subject} | {24 + number * 5}k"
        )


def _read(line: str) -> dict[str, Any]:
    """The members of a `Paper` from a line of the script."""
    at, route, symbol, subject, rest = (part.strip() for part in line.split("|"))
    sender, _, names = route.partition(" > ")
    recipients = names.split(", ")
    made: dict[str, Any] = {"at": at, "sender": sender, "symbol": symbol, "subject": subject}
    made["to"] = tuple(AGENCIES[name].code if name in AGENCIES else name for name in recipients)
    words = rest.split()
    made["files"] = tuple(int(word[:-1]) for word in words if re.fullmatch(r"\d+k", word))
    states = " ".join(word for word in words if re.fullmatch(r"\d\d", word))
    endpoints = [endpoint for address in made["to"] for endpoint in reached(address)]
    made["states"] = dict.fromkeys(endpoints, states) if states else {}
    for word in words:
        name, _, value = word.partition("=")
        if word in LANE_OF_PRIORITY:
            made["priority"] = word
        elif name == "expires":
            made["expires_seconds"] = float(value)
        elif name == "due":
            made["due"] = value
        elif name in ("twice", "edxml"):
            made[name] = True
    return made


def papers() -> list[Paper]:
    """Everything that is sent of its own accord, in the order of the clock."""
    found: list[dict[str, Any]] = []
    for line in re.sub(r"\n +\|", " |", _SCRIPT).strip().split("\n"):
        mark, rest = line.strip()[0], line.strip()[1:]
        if mark == "+":
            found[-1].setdefault("replies", []).append(Paper(**_read(rest)))
        elif mark == "-":
            found[-1]["refusal"] = rest.strip()
        elif mark == "=":
            found[-1]["after_notice"] = Paper(**_read(rest))
        else:
            found.append(_read(line))
            if found[-1]["symbol"] == _STORM:
                found[-1]["replies"] = [Paper(**_read(report)) for report in _flood_reports()]
    found.extend(map(_read, _weekly_reports()))
    made = [Paper(**members | {"replies": tuple(members.get("replies", ()))}) for members in found]
    return sorted(made, key=lambda paper: paper.at)


def everything(of: list[Paper]) -> Iterator[Paper]:
    """`of`, and all that follows from it."""
    for paper in of:
        yield paper
        yield from everything(list(paper.replies))
        if paper.after_notice is not None:
            yield paper.after_notice
