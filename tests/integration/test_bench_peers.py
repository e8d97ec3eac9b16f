"""The peer comparison: what its harness counts, what it refuses to print, and that each peer can be loaded."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from benchmarks.corpus import SENDERS, Press, Receiver, Sender
from benchmarks.peers import load, services, tables
from benchmarks.peers.__main__ import NAMES, kind_of
from benchmarks.peers.hub import doors
from benchmarks.peers.load import Conservation, NotConservedError, Stock, count, measure, seats
from benchmarks.peers.peer import Ground, Peer
from benchmarks.peers.share import ACKNOWLEDGED, SEATS, STRAYS, Book, Share
from benchmarks.peers.skip_locked import SkipLocked
from benchmarks.peers.sweep import bare_ground

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]
LONG_AGO = "2000-01-01"
RECEIVERS = 2


@pytest.fixture
def share() -> Iterator[Share]:
    made = Share(64, 32)
    for place in range(64):
        made.write(place, f"văn bản số {place:016}".encode(), place % 4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with asyncio.Runner() as runner:
        context = bare_ground()
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def parties() -> tuple[list[Sender], list[Receiver]]:
    senders = [Sender(number) for number in range(1, SENDERS + 1)]
    return senders, [Receiver(number) for number in range(RECEIVERS)]


# -- The share and its books ----------------------------------------------------------------------


def test_each_sender_takes_its_own_places_in_order_until_they_are_used_up(share: Share) -> None:
    book = Book(share, 0, 4)
    book.prepare(8, 10)
    book.go(float("inf"))
    assert book.take(1, 2) == [9, 13]
    assert book.take(1, 5) == [17]
    assert book.take(1) == []
    assert [share.sent[place] > 0 for place in range(8, 18)] == [place in (9, 13, 17) for place in range(8, 18)]


def test_nothing_is_taken_when_the_time_is_over(share: Share) -> None:
    book = Book(share, 0, 4)
    book.prepare(0, 64)
    book.go(0.0)
    assert book.take(0) == []


def test_a_delivery_is_known_by_its_bytes_its_receiver_and_only_once(share: Share) -> None:
    book = Book(share, 3, 4)
    book.prepare(0, 32)
    assert book.delivered(share.document(6), 2) == 6
    altered = b"x" + share.document(7)[1:]
    assert [
        book.delivered(share.document(6), 2),
        book.delivered(share.document(5), 2),
        book.delivered(altered, 3),
        book.delivered(share.document(40), 0),
        book.delivered(b"", 0),
    ] == [-1] * 5
    assert share.total(STRAYS) == 5


def test_two_mappings_of_a_share_are_the_same_memory(share: Share) -> None:
    other = Share(64, 32, os.dup(share.descriptor))
    Book(other, 1, 4).acknowledge([3, -1, 4])
    assert share.total(ACKNOWLEDGED) == 2
    assert share.acknowledged[3] > 0 and share.acknowledged[5] == 0
    other.close()


def test_a_sender_waits_while_too_much_is_under_way(share: Share) -> None:
    book = Book(share, 0, 4, ahead=2)
    book.prepare(0, 64)
    book.go(float("inf"))
    places = book.take(0, 2)
    assert book.crowded()
    book.acknowledge(places[:1])
    assert not book.crowded()


def test_a_document_of_another_length_is_refused(share: Share) -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        share.write(0, bytes(31), 0)


# -- What is counted ------------------------------------------------------------------------------


def delivered_in_full(share: Share, places: range) -> None:
    for place in places:
        share.sent[place] = share.confirmed[place] = share.acknowledged[place] = 1.0
        share.deliveries[place] = 1


def test_a_whole_load_is_conserved(share: Share) -> None:
    delivered_in_full(share, range(10))
    assert count(share, 0, 64) == Conservation(10, 10, 10, 10, 0)
    assert count(share, 0, 64).holds


@pytest.mark.parametrize("spoil", ["lost", "unconfirmed", "unacknowledged", "twice", "unsent", "stray"])
def test_whatever_is_wrong_with_one_document_spoils_the_load(share: Share, spoil: str) -> None:
    delivered_in_full(share, range(10))
    match spoil:
        case "lost":
            share.deliveries[4] = 0
        case "unconfirmed":
            share.confirmed[4] = 0
        case "unacknowledged":
            share.acknowledged[4] = 0
        case "twice":
            share.deliveries[4] = 2
        case "unsent":
            share.deliveries[11] = 1
        case "stray":
            share.add(SEATS - 1, STRAYS, 1)
    assert not count(share, 0, 64).holds


def test_an_empty_load_and_one_that_leaves_something_behind_do_not_hold() -> None:
    assert not Conservation(0, 0, 0, 0, 0).holds
    assert not Conservation(5, 5, 5, 5, 0, left=1).holds


@pytest.mark.parametrize("split", [1, 2, 3, "roles"])
def test_every_sender_and_receiver_has_exactly_one_seat(split: int | str) -> None:
    places = seats(split, 4)
    assert sorted(sender for senders, _ in places for sender in senders) == list(range(SENDERS))
    assert sorted(receiver for _, receivers in places for receiver in receivers) == list(range(4))


@pytest.mark.parametrize("payload_only", [False, True])
def test_the_stock_is_the_hubs_documents_for_the_receivers_that_they_name(payload_only: bool) -> None:
    senders, receivers = parties()
    stock = Stock(Press(senders, receivers, ""), receivers, payload_only)
    try:
        first, number = stock.add(40)
        assert (first, number) == (0, 40)
        assert stock.add(1) == (40, SENDERS)
        assert {stock.share.receivers[place] for place in range(40)} == set(range(RECEIVERS))
        assert (stock.share.length == 2048) is payload_only
        assert len({stock.share.document(place) for place in range(40)}) == 40
    finally:
        stock.share.close()


# -- Peers ----------------------------------------------------------------------------------------


async def loaded(kind: type[Peer], ground: Ground, changes: dict[str, Any]) -> tuple[load.Outcome, dict[str, str]]:
    """A load of a second, and the versions."""
    peer = kind(ground, RECEIVERS, changes)
    folder = Path(tempfile.mkdtemp(dir=ground.folder))
    try:
        await peer.start(folder)
        return await measure(peer, *parties(), 1.0, lambda _: None), await peer.versions()
    finally:
        await peer.stop()


PEERS = [pytest.param(name, "", id=name) for name in NAMES] + [
    pytest.param("rabbitmq", "bare", id="rabbitmq-bare"),
    pytest.param("jetstream", "bare", id="jetstream-bare"),
]


@pytest.mark.parametrize(("name", "variant"), PEERS)
async def test_a_peer_relays_everything_once(name: str, variant: str, ground: Ground) -> None:
    if name == "pyas2":
        pyas2 = importlib.import_module("benchmarks.peers.pyas2")
        if not (pyas2.ENVIRONMENT / "installed").exists():
            pytest.skip("needs django-pyas2's own environment, which `make bench-peers` makes on its first run")
    try:
        kind = kind_of(name)
    except ImportError as error:
        pytest.skip(f"needs the extra bench-peers: {error}")
    if why := kind.missing():
        pytest.skip(f"{kind.title}: {why}")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    outcome, versions = await loaded(kind, ground, kind.variants[variant] if variant else {})
    assert outcome.conservation.holds
    assert outcome.conservation.sent == len(outcome.acknowledged_after) > 0
    assert all(latency > 0 for latency in outcome.acknowledged_after)
    figures = outcome.figures()
    assert figures["docs_per_s"] > 0 and figures["server_cpu_us_per_doc"] > 0 < figures["client_cpu_us_per_doc"]
    assert figures["e2e_p50_ms"] <= figures["e2e_p99_ms"] and figures["confirm_p50_ms"] > 0
    assert versions["server"] and versions["client"]
    left = {process.pid for process in psutil.Process().children(recursive=True)} - before
    names = [psutil.Process(pid).name() for pid in left]
    assert [name for name in names if "postgres" not in name] == []


SPOILERS = {
    "loses": "if new.id % 50 = 0 then return null; end if;",
    "alters": "if new.id % 50 = 0 then new.body = set_byte(new.body, 5, 63); end if;",
    "misleads": "if new.id % 50 = 0 then new.receiver = 1 - new.receiver; end if;",
    "repeats": (
        "if new.id % 50 = 0 then"
        " insert into job (receiver, id, body) overriding system value"
        " values (new.receiver, new.id + 1000000001, new.body); end if;"
    ),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
async def test_there_is_no_figure_for_a_peer_that(
    spoiler: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 1.0)

    class Spoiled(SkipLocked):
        async def start(self, folder: Path) -> None:
            await super().start(folder)
            connection = await asyncpg.connect(self.address)
            await connection.execute(
                f"create function spoil() returns trigger language plpgsql as $$"
                f" begin {SPOILERS[spoiler]} return new; end $$;"
                "create trigger spoil before insert on job for each row execute function spoil()"
            )
            await connection.close()

    with pytest.raises(NotConservedError, match="not conserved"):
        await loaded(Spoiled, ground, {})


async def test_a_client_that_fails_says_why(ground: Ground) -> None:
    class Broken(SkipLocked):
        async def start(self, folder: Path) -> None:
            await super().start(folder)
            connection = await asyncpg.connect(self.address)
            await connection.execute("alter table job add check (receiver < 0)")
            await connection.close()

    with pytest.raises(RuntimeError, match="CheckViolationError"):
        await loaded(Broken, ground, {})


async def test_a_service_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STOP_SECONDS", 0.5)  # neither of the two heeds SIGTERM
    service = services.Service("family", tmp_path)
    service.start(["sh", "-c", "trap '' TERM; sleep 300 & echo $! > child; exec sleep 300"])

    async def started() -> None:
        if not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
            raise OSError("not yet")

    await service.until(started)
    child = psutil.Process(int((tmp_path / "child").read_text()))
    await service.stop()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


# -- What is written ------------------------------------------------------------------------------


def figures(**more: Any) -> dict[str, Any]:
    measured = {
        "docs_per_s": 4000.0,
        "hub_docs_per_s": 8000.0,
        "hub_over_peer": 2.0,
        "server_cpu_us_per_doc": 100.0,
        "client_cpu_us_per_doc": 50.0,
        "hub_server_cpu_us_per_doc": 200.0,
        "hub_client_cpu_us_per_doc": 20.0,
        "e2e_p50_ms": 5.0,
        "e2e_p99_ms": 9.0,
        "hub_e2e_p50_ms": 6.0,
        "hub_e2e_p99_ms": 10.0,
        "others_cpu_share": 0.01,
        "title": "Hàng đợi",
        "server": "máy chủ 1",
        "client": "máy khách 1",
        "settings": "window 2, split roles",
        "at": LONG_AGO,
        "git_commit": "abc",
    }
    return measured | more


def test_peers_are_merged_into_the_results_and_leave_the_rest_alone(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    old = {
        "post.docs_per_s": 1.5,
        "conserved": True,
        "peer.rabbitmq.docs_per_s": 1,
        "peer.rabbitmq.stale": 1,
        "peer.rabbitmq_bare.docs_per_s": 2,
        "peer.jetstream.docs_per_s": 3,
        "peer.jetstream_bare.docs_per_s": 3,
    }
    path.write_text(json.dumps(old), encoding="utf-8")
    tables.merge(path, {"rabbitmq": figures(), "jetstream": {"absent": "cần cài đặt"}}, {"peer.at": LONG_AGO})
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["post.docs_per_s"] == 1.5 and found["conserved"] is True
    assert found["peer.rabbitmq.docs_per_s"] == 4000.0 and found["peer.rabbitmq.hub_docs_per_s"] == 8000.0
    assert found["peer.rabbitmq_bare.docs_per_s"] == 2 and found["peer.at"] == LONG_AGO
    assert "peer.rabbitmq.stale" not in found
    assert {name: value for name, value in found.items() if "jetstream" in name} == {
        "peer.jetstream.absent": "cần cài đặt"
    }


def test_the_page_shows_who_is_ahead_who_is_absent_and_on_what_machine() -> None:
    ahead = figures(docs_per_s=9000.0, hub_over_peer=0.889, title="Nhanh hơn")
    results = {f"peer.skip_locked.{name}": value for name, value in ahead.items()}
    results |= {f"peer.rabbitmq.{name}": value for name, value in figures().items()}
    missing = {"title": "Vắng mặt", "absent": "cần gói\nx|y", "at": LONG_AGO, "git_commit": "abc"}
    results |= {f"peer.jetstream.{name}": value for name, value in missing.items()}
    results |= {"peer.cpu_model": "bộ xử lý"}
    page = tables.markdown(results)
    lines = page.splitlines()
    assert "| Nhanh hơn | 9,000 | 8,000 | 0.89 ×: the peer is ahead |" in page
    assert "| Hàng đợi | 4,000 | 8,000 | 2.00 × | 100 + 50 | 200 + 20 | 5 / 9 | 6 / 10 |" in page
    assert any(line.startswith("| Vắng mặt | absent: cần gói x/y |") for line in lines)
    assert "| Hàng đợi | máy chủ 1 | máy khách 1 | window 2, split roles | 0.01 |" in lines
    assert "| cpu_model | bộ xử lý |" in lines
    rows = [line.split("|")[1].strip() for line in lines if LONG_AGO in line]
    assert rows == ["Hàng đợi", "Vắng mặt", "Nhanh hơn"]


def test_the_hub_is_compared_through_the_stream_door_unless_told_otherwise() -> None:
    assert list(doors()) == ["stream", "post", "batch50", "manifest50"]


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers", "--receivers", str(RECEIVERS), *options]


@pytest.mark.timeout(240)
def test_a_run_puts_the_hub_beside_a_peer_and_names_what_is_absent(tmp_path: Path) -> None:
    output = tmp_path / "results" / "latest.json"
    done = subprocess.run(
        command("--quick", "--only", "jetstream", "--only", "skip_locked", "--output", str(output)),
        cwd=ROOT,
        env={**os.environ, "NATS_SERVER": str(tmp_path / "not-there")},
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["peer.skip_locked.docs_per_s"] > 0 < found["peer.skip_locked.hub_docs_per_s"]
    assert found["peer.skip_locked.hub_mode"] == "stream"
    assert found["peer.skip_locked.settings"].startswith("window 4, split roles")
    assert found["peer.payload_bytes"] == 2048 and found["peer.postgres_fsync"] == "on"
    assert found["peer.jetstream.absent"] and "peer.jetstream.docs_per_s" not in found
    assert "JetStream sync always is absent" in done.stdout or "jetstream is absent" in done.stdout
    page = (output.parent / "peers.md").read_text(encoding="utf-8")
    assert f"| SKIP LOCKED | {found['peer.skip_locked.docs_per_s']:,.0f} |" in page


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_takes_everything_down(tmp_path: Path, order: signal.Signals) -> None:
    options = ("--seconds", "30", "--hub-seconds", "0.5", "--only", "skip_locked")
    short = tempfile.mkdtemp(prefix="lt")  # so that the sockets stand in the hub's own folder
    running = subprocess.Popen(
        command(*options, "--output", str(tmp_path / "latest.json")),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": short},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert running.stdout is not None
        said = [running.stdout.readline()]
        while said[-1] and "SKIP LOCKED" not in said[-1]:
            said.append(running.stdout.readline())
        assert said[-1], said
        family = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(order)
        said.append(running.stdout.read())
        assert running.wait(60) == 130, said
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
    assert len(family) > 2
    assert [process for process in family if process.is_running()] == []
    assert not (tmp_path / "latest.json").exists()
    Path(short).chmod(0o755)
    assert list(Path(short).iterdir()) == []
    Path(short).rmdir()
