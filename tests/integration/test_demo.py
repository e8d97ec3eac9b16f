"""The demo, as a stranger runs it: it ends well, cleans up after itself, and would notice a loss."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import psutil
import pytest

from hub.demo import agencies, morning, papers
from hub.demo.ledger import Ledger, Sent, audit
from hub.demo.node import MARK, DemoError, Place
from protocol import edxml
from protocol.evidence import EventKind, Receipt, Sealer, Tree, leaf_hash, receipt
from protocol.message import Document, read_document, write_document
from protocol.signature import Signer, generate

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded PostgreSQL's own account may pass through, as pytest's are not."""
    made = Path(tempfile.mkdtemp(prefix="lienthong-demo-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Running:
    """``lienthong demo`` as a child process."""

    def __init__(self, process: asyncio.subprocess.Process, place: Path) -> None:
        self.process = process
        self.place = place
        self.lines: list[str] = []

    async def until(self, text: str) -> None:
        """Read what it writes until a line holds `text`."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode())
            if text in self.lines[-1]:
                return
        raise AssertionError(f"the demo ended without {text!r}:\n{''.join(self.lines)[-2000:]}")

    async def rest(self) -> tuple[int | None, str]:
        """Its exit status, and all that it wrote."""
        written, _ = await self.process.communicate()
        return self.process.returncode, "".join(self.lines) + written.decode()

    def left(self) -> list[psutil.Process]:
        """Processes that serve this demo's directory."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            environment = process.environ() if process.pid != os.getpid() else {}
            words = [*process.cmdline(), environment.get("LIENTHONG_WORKER", "")]
            return process.pid != self.process.pid and any(str(self.place) in word for word in words)
        return False


@contextlib.asynccontextmanager
async def demo(place: Path, *options: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "demo", "--data-dir", str(place), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        stdin=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    running = Running(process, place)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def test_the_demo_relays_its_morning_even_after_one_that_was_killed(folder: Path) -> None:
    place = folder / "buổi sáng"
    async with demo(place) as killed:
        await killed.until("98/TB-VP")
        killed.process.kill()
        await killed.process.communicate()
        assert killed.left(), "nothing was left running, so nothing is proven below"
    async with demo(place, "--seconds", "0") as running:
        status, written = await running.rest()
        assert status == 0, written[-2000:]
        assert not running.left()
    assert not place.exists()
    for telling in (
        "VP UBND tỉnh → 30 endpoints",
        "HỎA TỐC",
        "in edXML",
        "Sở Nội vụ refuses 61/TTr-SCT",
        "33/GM-BDT is expired at huyện Trạm Tấu",
        "403 bad-signature",
        "403 from-not-yours",
        "422 recipient-unknown",
        "Everything adds up: 155 messages, 334 deliveries",
        "334 deliveries = 332 acknowledged + 1 refused + 1 expired",
        "Sở Nội vụ and xã Đại Sơn each run a witness",
        "xã Đại Sơn signed it at",
        "xã Đại Sơn reads it from the province's hub, byte for byte as it was sent",
        "Văn phòng Chính phủ has all 3 states, in edXML",
        "xã Đại Sơn reads on 16/BC-UBND: 03 Đã tiếp nhận",
        "xã Đại Sơn is told so: “truc-quoc-gia: code 18",
        "Both hubs add up: 6 messages crossed the link, each once; 1 was refused",
    ):
        assert telling in written, telling
    assert "\x1b" not in written, "no escape sequences where there is no terminal"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything(folder: Path, number: signal.Signals) -> None:
    place = folder / "demo"
    async with demo(place, "--seconds", "60") as running:
        await running.until("98/TB-VP")
        running.process.send_signal(number)
        running.process.send_signal(number)  # impatience changes nothing
        status, written = await running.rest()
        assert status == 128 + number, written[-2000:]
        assert "nothing of the demo runs any more" in written
        assert not running.left()
    assert not place.exists()


async def test_json_and_keep(folder: Path) -> None:
    place = folder / "demo"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "--json", "demo", "--data-dir", str(place), "--seconds", "0", "--keep"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    written, told = await process.communicate()
    assert process.returncode == 0, told.decode()[-2000:]
    summary = orjson.loads(written)
    assert summary["deliveries"] == sum(summary["ended"].values()) == 334
    assert summary["receipts_verified"] == {
        "accepted": summary["messages"],
        **summary["ended"],
        "rejected": summary["rejected"],
    }
    assert "Four submissions that the hub must not take" in told.decode()
    assert (place / MARK).exists()
    assert (place / "hub" / "hub-key.pem").exists()
    assert (place / "nation" / "hub-key.pem").exists()
    assert summary["log"]["witnesses"] == ["dai-son.vanyen.yenbai.gov.vn/w1", "so-noi-vu.yenbai.gov.vn/w1"]
    assert summary["nation"] == {
        "crossed": 6,
        "hubs": {
            "the province's hub": {"accepted": 7, "acknowledged": 6, "refused": 1},
            "the nation's hub": {"accepted": 6, "acknowledged": 6},
        },
    }


def test_a_directory_that_the_demo_did_not_make_is_left_alone(folder: Path) -> None:
    (folder / "quan trọng.txt").write_text("đừng xóa")
    with pytest.raises(DemoError, match="did not make it"), Place(folder, keep=False):
        pass
    assert (folder / "quan trọng.txt").read_text() == "đừng xóa"


def test_two_demos_do_not_share_a_directory(folder: Path) -> None:
    with Place(folder / "demo", keep=False) as place:
        with pytest.raises(DemoError, match="a demo is running"), Place(folder / "demo", keep=False):
            pass
        assert place.hub_dir.parent.exists()
    assert not (folder / "demo").exists()


# -- the script -----------------------------------------------------------------------------------


def test_the_script_is_sound() -> None:
    """Everybody is known, nobody writes to himself, and every answer comes from a recipient."""
    everything = list(morning.everything(morning.papers()))
    assert len({paper.id for paper in everything}) == len(everything) >= 60
    for paper in everything:
        to = {endpoint for address in paper.to for endpoint in agencies.reached(address)}
        assert paper.sender in agencies.AGENCIES and paper.sender not in to, paper
        assert set(paper.states) <= to, paper
        assert {reply.sender for reply in paper.replies} <= to, paper
        assert "07:30" <= paper.at <= "11:30", paper
        document = Document(id=paper.id, sender=paper.agency.code, to=paper.to, code=paper.symbol, type=paper.type)
        assert read_document(write_document(document)) == document
    sizes = {len({e for address in paper.to for e in agencies.reached(address)}) for paper in everything}
    assert {1, 30} <= sizes
    assert {paper.priority for paper in everything} == {"normal", "urgent", "very_urgent", "express"}


def test_the_edxml_of_the_demo_is_read_as_it_was_meant() -> None:
    office, province = papers.EdxmlParty("000.00.00.G22", "Văn phòng Chính phủ"), "000.00.00.H63"
    message = papers.edxml_document(
        office,
        papers.EdxmlParty(province, "UBND tỉnh Yên Bái"),
        "10213/VPCP-KSTT",
        "2017/10/02",
        "09:20",
        "Công văn",
        "V/v <gửi> & nhận văn bản",
        ("Phó Chủ nhiệm", "Nguyễn Văn An"),
        1,
        papers.pdf("10213/VPCP-KSTT", "V/v gửi, nhận", 4000),
    )
    header = edxml.read(message, whole=True)
    assert (header.sender, header.recipients, header.priority) == (office.code, (province,), 1)
    assert header.subject == "V/v <gửi> & nhận văn bản"
    assert header.warnings == ()
    status = papers.edxml_status(
        papers.EdxmlParty(province, "UBND tỉnh"), office.code, header.code, "2017/10/02", header.document_id,
        "03", "Đã tiếp nhận", "09:40",
    )  # fmt: skip
    read = edxml.read(status, whole=True)
    assert (read.kind, read.recipients, read.status_code) == ("status", (office.code,), "03")
    assert read.response_for[0].document_id == header.document_id


def test_a_pdf_of_the_demo_has_its_objects_where_its_table_says() -> None:
    data = papers.pdf("215/BC-UBND", "Báo cáo (thử)", 3000)
    assert 2500 < len(data) < 3500
    table = data[int(data.rsplit(b"startxref\n", 1)[1].split()[0]) :]
    assert table.startswith(b"xref\n")
    offsets = [int(line[:10]) for line in table.splitlines()[3:9]]
    for number, offset in enumerate(offsets, start=1):
        assert data[offset:].startswith(b"%d 0 obj" % number)
    assert papers.ascii_text("Đặng Hữu Ước") == "Dang Huu Uoc"


# -- the reckoning --------------------------------------------------------------------------------


class Story:
    """One message to two endpoints, and a hub's true answers about it."""

    def __init__(self) -> None:
        self.signer = Signer(generate("EdDSA"))
        self.body = b"van ban"
        accepted = self.proof(EventKind.ACCEPTED)
        self.ledger = Ledger()
        to = frozenset({"van-yen", "luc-yen"})
        self.ledger.sent["m1"] = Sent("m1", "ubnd-tinh", "215/BC-UBND", self.body, accepted, to)
        self.timeline: dict[str, Any] = {"accepted": msgspec.to_builtins(accepted), "deliveries": []}
        for endpoint in sorted(to):
            self.ledger.received["m1", endpoint] += 1
            self.ledger.record(("m1", endpoint), "acknowledged")
            proof = msgspec.to_builtins(self.proof(EventKind.ACKNOWLEDGED))
            delivery = {"endpoint": endpoint, "state": "acknowledged", "receipt": proof}
            self.timeline["deliveries"].append(delivery)

    def proof(self, kind: EventKind) -> Receipt:
        digest = hashlib.sha256(self.body).hexdigest()
        event = orjson.dumps({"event": kind, "sha256": digest, "endpoint": "x"}).decode()
        tree = Tree([leaf_hash(event.encode())])
        signer = Signer(self.signer.key, typ="lienthong-seal+1")
        seal = Sealer("hub", signer).seal(tree, "b", datetime.now(UTC))
        return receipt(event, 0, tree, seal)

    async def events(self, message: str) -> dict[str, Any]:
        return self.timeline

    async def wrong(self) -> list[str]:
        keys = {self.signer.kid: self.signer.key.public_key()}
        return (await audit(self.ledger, {"ubnd-tinh": self}, keys.get)).wrong  # type: ignore[dict-item]


async def test_the_reckoning_accepts_a_true_story_and_notices_every_lie() -> None:
    assert await Story().wrong() == []

    lost = Story()
    del lost.ledger.received["m1", "van-yen"]
    del lost.ledger.ended["m1", "van-yen"]
    assert lost.ledger.open() == {("m1", "van-yen")}
    assert "215/BC-UBND at van-yen" in await lost.ledger.wait_complete(1, 0.01)
    assert any("handed over 0 times" in reason for reason in await lost.wrong())

    twice = Story()
    twice.ledger.received["m1", "luc-yen"] += 1
    assert any("2 times" in reason for reason in await twice.wrong())

    stray = Story()
    stray.ledger.received["m1", "tram-tau"] += 1
    assert any("was not sent to it" in reason for reason in await stray.wrong())

    unproven = Story()
    unproven.timeline["deliveries"][0]["receipt"]["event"] += " "
    assert any("altered" in reason for reason in await unproven.wrong())

    other = Story()
    other.timeline["deliveries"][0]["state"] = "waiting"
    assert any("waiting by the hub" in reason for reason in await other.wrong())

    missing = Story()
    missing.timeline["deliveries"].pop()
    assert any("went to" in reason for reason in await missing.wrong())

    foreign = Story()
    foreign.signer = Signer(generate("EdDSA"))
    assert any("not among the trusted" in reason for reason in await foreign.wrong())
