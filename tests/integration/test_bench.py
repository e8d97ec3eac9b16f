"""`make bench` runs from end to end, writes the figures that it promises, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODES = ("post", "batch50")
EACH = (
    "docs_per_s",
    "cpu_us_per_doc",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "e2e_p50_ms",
    "e2e_p99_ms",
    "closed_p99_ms",
    "hub_cpu_us_per_doc",
    "postgres_cpu_us_per_doc",
    "generator_cpu_us_per_doc",
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


@pytest.mark.timeout(240)
def test_the_quick_campaign_writes_its_figures_and_conserves(tmp_path: Path) -> None:
    output = tmp_path / "results" / "figures.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["conserved"] is True
    assert found["sent"] == found["receipted"] == found["delivered"] == found["acknowledged"] > 0
    assert found["strays"] == 0 and found["refused"] == {}
    measured = [f"{mode}.{name}" for mode in MODES for name in EACH]
    assert {name: found.get(name) for name in (*measured, *FLOORS) if not found.get(name, 0) > 0} == {}
    assert {name for name in FACTS if name not in found} == set()
    assert found["postgres.fsync"] == found["postgres.synchronous_commit"] == "on"
    assert found["payload_bytes"] == 2048
    for mode in MODES:
        assert found[f"{mode}.p50_ms"] <= found[f"{mode}.p95_ms"] <= found[f"{mode}.p99_ms"]
        parts = found[f"{mode}.hub_cpu_us_per_doc"] + found[f"{mode}.postgres_cpu_us_per_doc"]
        assert parts == pytest.approx(found[f"{mode}.cpu_us_per_doc"], abs=0.2)
    assert "documents/s" in done.stdout
