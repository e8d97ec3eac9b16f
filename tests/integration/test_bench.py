"""The benchmark runs from end to end, writes the figures that it promises, and notices what is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import charts, latency, summary
from benchmarks.axis import AxisPress, system_id
from benchmarks.bench import collect, keep, parse_options
from benchmarks.corpus import Corpus, Press, Receiver, Sender
from benchmarks.crowd import Deliveries
from benchmarks.edxml import DOCUMENT_BYTES, EdxmlPress
from benchmarks.ledger import Conservation, Ledger
from benchmarks.manifest import ManifestPress
from benchmarks.scenarios import Outcome
from benchmarks.websocket import Socket
from protocol import edxml, vxp
from protocol.manifest import open_entry
from protocol.message import read_document
from protocol.signature import parse, verify

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]
MODES = ("post", "batch50", "stream", "manifest50", "edxml", "axis")
EACH = (
    "docs_per_s",
    "cpu_us_per_doc",
    "p50_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "p999_ms",
    "max_ms",
    "p99_ms_at_70pct",
    "e2e_p50_ms",
    "e2e_p99_ms",
    "closed_p99_ms",
    "hub_cpu_us_per_doc",
    "postgres_cpu_us_per_doc",
    "generator_cpu_us_per_doc",
    "wal_bytes_per_doc",
    "commits_per_doc",
    "connections",
)
FLOORS = ("floor.http.cpu_us", "floor.verify.cpu_us", "floor.insert.cpu_us")
FACTS = (
    "cpu_count",
    "cpu_model",
    "python",
    "version.aiohttp",
    "version.cryptography",
    "postgres.server_version",
    "workers",
    "payload_bytes",
    "generator_cpu_share",
)
SCENARIOS = (
    "startup.first_s",
    "startup.again_s",
    "fanout300.docs_per_s",
    "fanout300.deliveries_per_s",
    "fanout300.others_p99_ms",
    "fanout300.others_alone_p99_ms",
    "fanout300.drain_deliveries_per_s",
    "idle10k.mib",
    "idle10k.all_served_s",
    "longpoll10k.mib",
    "backlog1m.ratio",
    "backlog1m.drain_deliveries_per_s",
    "xmin.ratio",
    "xmin.docs_per_s",
    "large50.mib_per_s",
    "large50.worker_idle_mib",
    "large50.worker_peak_mib",
)


def _run(module: str, *arguments: str, seconds: float = 220) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def _conserved(found: dict[str, Any]) -> None:
    assert found["conserved"] is True
    assert found["sent"] == found["receipted"] == found["delivered"] == found["acknowledged"] > 0
    assert found["strays"] == 0 and found["refused"] == {}


# -- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short run of all ways of submitting leaves."""
    folder = tmp_path_factory.mktemp("results")
    only = [word for mode in MODES for word in ("--only", mode)]
    output = _run("bench", "--quick", "--seconds", "1", *only, "--output", str(folder / "latest.json"))
    (folder / "stdout").write_text(output, encoding="utf-8")
    return folder


@pytest.mark.timeout(240)
def test_every_way_of_submitting_has_its_figures_and_conserves(folder: Path) -> None:
    found = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    _conserved(found)
    measured = [f"{mode}.{name}" for mode in MODES for name in EACH]
    assert {name: found.get(name) for name in (*measured, *FLOORS) if not found.get(name, 0) > 0} == {}
    assert {name for name in FACTS if name not in found} == set()
    assert found["postgres.fsync"] == found["postgres.synchronous_commit"] == "on"
    assert found["payload_bytes"] == 2048
    for mode in MODES:
        assert found[f"{mode}.conserved"] is True
        ladder = [found[f"{mode}.{name}_ms"] for name in ("p50", "p90", "p95", "p99", "p999", "max")]
        assert ladder == sorted(ladder)
        assert found[f"{mode}.p99_ms_at_70pct"] == found[f"{mode}.p99_ms"]
        parts = found[f"{mode}.hub_cpu_us_per_doc"] + found[f"{mode}.postgres_cpu_us_per_doc"]
        assert parts == pytest.approx(found[f"{mode}.cpu_us_per_doc"], abs=0.2)
    assert "documents/s" in (folder / "stdout").read_text(encoding="utf-8")


@pytest.mark.timeout(240)
def test_samples_charts_and_the_page_come_from_the_figures(folder: Path) -> None:
    for mode in MODES:
        sampled = json.loads((folder / f"{mode}.samples.json").read_text(encoding="utf-8"))
        assert all(len(row) == len(sampled["peak"]["columns"]) for row in sampled["peak"]["rows"])
        assert sampled["peak"]["rows"] and sampled["submission_ms"][-1][0] == 100.0
    drawn = {path.stem: path for path in charts.draw(folder)}
    assert set(drawn) == {"throughput", "cpu", "latency", "samples"}
    first = {name: path.read_bytes() for name, path in drawn.items()}
    assert all(text.lstrip().startswith(b"<?xml") for text in first.values())
    assert {path.stem: path.read_bytes() for path in charts.draw(folder)} == first, "the same figures, other bytes"
    page = summary.write(folder).read_text(encoding="utf-8")
    found = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    assert f"{found['stream.docs_per_s']:,.0f}" in page and found["cpu_model"] in page
    assert found["git_commit"] in page and "latency.svg" in page


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "names",
    [("startup", "fanout300"), ("idle10k", "longpoll10k"), ("backlog1m", "xmin"), ("large50",)],
    ids="+".join,
)
def test_the_other_scenarios_run_small(names: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "latest.json"
    only = [word for name in names for word in ("--only", name)]
    small = ("--quick", "--seconds", "0.5", "--idle", "60", "--backlog", "2000", "--minutes", "0.05")
    _run("bench", *small, *only, "--output", str(output))
    found = json.loads(output.read_text(encoding="utf-8"))
    _conserved(found)
    expected = [name for name in SCENARIOS if name.partition(".")[0] in names]
    assert expected and {name: found.get(name) for name in expected if not found.get(name, 0) > 0} == {}
    assert all(found[f"{name}.conserved"] for name in names)
    assert found.get("idle10k.endpoints", 60) == found.get("longpoll10k.endpoints", 60) == 60
    assert found.get("backlog1m.waiting", 2000) == 2000
    assert found.get("large50.document_bytes", 50_000_000) >= 50_000_000
    assert found.get("fanout300.deliveries", 0) == 300 * found.get("fanout300.documents", 0)


def test_the_sweeps_fill_their_cells(tmp_path: Path) -> None:
    output = tmp_path / "sweeps.json"
    _run("sweeps", "--seconds", "0.02", "--only", "payload", "--output", str(output))
    cells = json.loads(output.read_text(encoding="utf-8"))
    assert [cell["payload_kib"] for cell in cells] == [0.5, 1, 2, 4, 8, 16, 32, 64]
    assert all(cell["docs_per_s"] > 0 and cell["wal_bytes"] > cell["payload_kib"] * 1024 for cell in cells)


def test_micro_times_the_functions_of_stream_and_manifest() -> None:
    output = _run("micro", "--no-live", "--only", "manifest:", "--only", "stream: submit")
    assert "open_entry" in output and "submit and its answer" in output


# -- the books ------------------------------------------------------------------------------------


def _corpus(count: int = 4) -> Corpus:
    return Press([Sender(1)], [Receiver(0)], "hub").make(count, 1)


def test_a_ledger_counts_a_delivery_once_and_only_with_the_right_bytes() -> None:
    corpus = _corpus()
    ledger = Ledger(corpus)
    name, right = corpus.sender_id(2), corpus.documents[2]
    assert ledger.delivered(name, right[:-1] + (b"A" if right[-1:] != b"A" else b"B")) == -1
    assert ledger.delivered(name, corpus.documents[1]) == -1
    assert ledger.delivered("of-somebody-else", right) == -1
    assert ledger.strays == 3
    assert ledger.delivered(name, right) == 2
    assert ledger.delivered(name, right) == -1
    assert ledger.strays == 4


def test_books_of_a_crowd_count_each_member_once() -> None:
    corpus = _corpus(2)
    books = Deliveries(2)
    books.expect(corpus)
    for member in (0, 1, 1):
        books.take(member, corpus.sender_id(0), corpus.documents[0])
    books.take(0, corpus.sender_id(1), corpus.documents[0])
    assert (books.delivered, books.strays) == (2, 2)


WHOLE = Conservation(3, 3, 3, 3, 0, 1)


@pytest.mark.parametrize(
    "broken",
    [
        dataclasses.replace(WHOLE, receipted=2),
        dataclasses.replace(WHOLE, delivered=2),
        dataclasses.replace(WHOLE, acknowledged=2),
        dataclasses.replace(WHOLE, strays=1),
    ],
)
def test_what_is_not_conserved_gives_no_figure(broken: Conservation) -> None:
    facts = {"at": "2026-11-23T00:00:00+00:00", "git_commit": "0" * 12}
    outcomes = [
        Outcome("post", {"post.docs_per_s": 9.0}, broken.holds, facts, [broken]),
        Outcome("stream", {"stream.docs_per_s": 7.0}, WHOLE.holds, facts, [WHOLE]),
    ]
    found = collect(outcomes)
    assert found["conserved"] is False and found["post.conserved"] is False
    assert "post.docs_per_s" not in found
    assert found["stream.docs_per_s"] == 7.0 and found["stream.conserved"] is True


def test_results_of_other_scenarios_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    keep({"post.docs_per_s": 1.0, "post.old": 1, "peer.nats.docs_per_s": 2.0, "conserved": True}, path)
    kept = keep({"post.docs_per_s": 3.0, "conserved": True}, path)
    assert kept == {"post.docs_per_s": 3.0, "peer.nats.docs_per_s": 2.0, "conserved": True}
    assert json.loads(path.read_text(encoding="utf-8")) == kept


def test_a_quick_run_leaves_the_real_results_alone() -> None:
    quick, real = parse_options(["--quick"]), parse_options([])
    assert quick.output != real.output and quick.output.parent.parent == real.output.parent
    long = parse_options(["--long"]).only
    for name in ("backlog1m", "axis", "large50"):
        assert name not in real.only and long.count(name) == 1


# -- what the load is made of ---------------------------------------------------------------------


def test_documents_are_signed_right_and_alike_on_every_run() -> None:
    sender = Sender(1)
    (document,) = _corpus(1).documents
    jws = parse(document)
    assert verify(sender.signer.key.public_key(), jws.alg, jws.signature, jws.signing_input)
    assert len(jws.payload) == 2048
    assert jws.payload == parse(_corpus(1).documents[0]).payload
    assert read_document(jws.payload).signer is not None


def test_a_manifest_holds_what_its_recipients_will_get() -> None:
    corpus = ManifestPress([Sender(1)], [Receiver(0)], "hub").make(2, 5)
    head, body = corpus.request(1)
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    for place in range(10):
        entry = corpus.proofs[place] + corpus.documents[place]
        assert corpus.holds(place, entry)
        assert not corpus.holds(place, entry[:-1] + b"_")
        assert read_document(open_entry(entry).payload).id == corpus.sender_id(place)


def test_edxml_documents_can_be_read_and_have_one_length() -> None:
    press = EdxmlPress([Sender(1), Sender(2)], [Receiver(0)], "hub")
    corpus = press.make(7, 1)
    assert {len(document) for document in corpus.documents} == {DOCUMENT_BYTES}
    assert len(set(corpus.documents)) == 7
    for place, document in enumerate(corpus.documents):
        header = edxml.read(document, whole=True)
        assert header.sender == Sender(1 + place % 2).code and not header.warnings
        assert header.references and corpus.place_of(corpus.sender_id(place)) == place
    assert corpus.place_of("edxml:" + "0" * 64) == -1


def test_requests_of_the_axis_are_signed_each_for_itself() -> None:
    senders = [Sender(1, secret="bí mật một"), Sender(2, secret="bí mật hai")]
    corpus = AxisPress(senders, [Receiver(0)], "hub").make(5, 1)
    signatures = set()
    for request in range(5):
        sender = senders[request % 2]
        head, body = corpus.request(request)
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        claim = vxp.read_claim(headers)
        assert first == b"POST /vxp/sendEdoc HTTP/1.1" and (b"Content-Length", b"%d" % len(body)) in headers
        assert (claim.system_id, claim.get("from")) == (system_id(sender), sender.code)
        assert claim.is_signed_with(sender.secret.encode())
        assert claim.get("hash-file") == hashlib.sha256(body).hexdigest()
        assert edxml.read(body, whole=True).sender == sender.code
        assert abs(claim.age(datetime.now(UTC))) < timedelta(minutes=5)
        signatures.add(claim.signature)
    assert len(signatures) == 5
    assert corpus.accepts(200, vxp.ok(DocId="1"))
    assert not corpus.accepts(200, vxp.fail(vxp.Refusal(vxp.Code.STALE)))


def test_a_document_of_the_axis_without_a_receipt_does_not_count() -> None:
    ledger = Ledger(AxisPress([Sender(1, secret="-")], [Receiver(0)], "hub").make(1, 1))
    ledger.answers = [(0, b'{"state":"accepted","receipt":null}')]
    assert ledger.receipts({}) == (0, 0)


@pytest.mark.parametrize("cuts", [1, 3, 1000])
def test_websocket_frames_are_read_however_they_are_cut(cuts: int) -> None:
    sizes = (0, 5, 125, 126, 65_535, 65_536, 3)
    stream = b"".join(_server_frame(b"x" * size) for size in sizes)
    received: list[bytes] = []
    socket = Socket(received.append, lambda reason: pytest.fail(reason))
    for start in range(0, len(stream), cuts):
        socket.data_received(stream[start : start + cuts])
    assert [len(frame) for frame in received] == list(sizes)


def _server_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((0x81, size))
    elif size < 1 << 16:
        head = bytes((0x81, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, 127)) + size.to_bytes(8, "big")
    return head + payload


def test_latencies_are_exact() -> None:
    values = [number / 1000 for number in range(1, 1001)]
    assert latency.table(values) == {
        "p50_ms": 500,
        "p90_ms": 900,
        "p95_ms": 950,
        "p99_ms": 990,
        "p999_ms": 999,
        "max_ms": 1000,
    }
    curve = latency.curve(values)
    assert [share for share, _ in curve] == sorted(share for share, _ in curve)
    assert curve[-1] == [100.0, 1000.0] and [50.0, 500.0] in curve
    assert latency.curve([]) == [] and latency.milliseconds([], 0.5) == [0.0]
