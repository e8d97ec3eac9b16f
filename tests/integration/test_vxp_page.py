"""docs/connecting-with-the-axis-sdk.md says what is so: its tables agree with the code and with the tests."""

from __future__ import annotations

import re
from pathlib import Path

from hub.couriers import axis, axis_sent
from hub.directory import axis as systems
from hub.doors import vxp, vxp_http
from hub.relay import ending
from protocol.vxp import MAX_PARAMETERS, Code
from tests.conftest import RunningHub
from tests.integration.test_readme import page, table

PAGE = page("connecting-with-the-axis-sdk.md")
FOLDER = Path(__file__).parent
TESTS = "".join(
    path.read_text(encoding="utf-8")
    for path in [*FOLDER.glob("test_vxp_*.py"), FOLDER.parent / "support" / "pdf_scene.py"]
)


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"\btest_\w+", cell))


async def test_every_call_has_a_line_and_a_test(hub: RunningHub) -> None:
    rows = table(PAGE, "call | what it does here | covered by")
    assert [row[0] for row in rows] == [*(f"/{name}" for name in hub.hub.axis.calls), "/getSynchronizeUnit"]
    for call, what, covered in rows:
        assert what and names_in(covered), call
    listed = re.findall(r"^\| `([A-Z]+) /vxp/(\w+)` \|", page("http.md"), re.MULTILINE)
    assert listed == [(call.method, name) for name, call in hub.hub.axis.calls.items()]


def test_every_test_that_is_named_exists() -> None:
    named = names_in(PAGE)
    assert len(named) > 25
    for name in named:
        assert f"def {name}(" in TESTS, name


def test_every_failure_is_explained_and_tried() -> None:
    rows = table(PAGE, "ErrorCode | again | meaning")
    failures = [code for code in Code if code is not Code.OK]
    assert rows == [[code.value, "yes" if code.retryable else "no", code.meaning] for code in failures]
    for code in failures:
        assert f'"{code.value}"' in TESTS, f"no test expects {code}"


def test_limits_that_the_page_names() -> None:
    assert (axis.LIST_LIMIT, axis.LIST_CODES, axis.COUNT_LIMIT, axis.COUNT_SECONDS) == (
        1000,
        100_000,
        100_000,
        2.0,
    )
    assert "1,000 entries, 100,000 agencies named" in PAGE and "up to 100,000, as of two seconds ago" in PAGE
    assert (vxp_http.MAX_BODY, MAX_PARAMETERS, systems.MAX_WAITING) == (64 << 10, 32, 1000)
    assert "64 KiB" in PAGE and "32; 8 KiB" in PAGE
    assert (ending.MAX_RANGES, axis.UNTAKEN_DAYS, axis_sent.MAX_TRANSFERS) == (10_000, 7, 50)
    assert "10,000 documents" in PAGE and "seven days" in PAGE
    assert axis_sent.MAX_LINES == 10_000 and "the first 50 transfers of one DocumentId, 10,000 lines" in PAGE
    assert vxp.PATH == "/vxp"


def test_what_to_change_is_five_lines() -> None:
    section = PAGE.split("## What to change in an existing system\n", 1)[1].split("\n## ", 1)[0]
    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) == 5
