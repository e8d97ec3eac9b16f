"""Real messages, which are kept outside of the repository: tests with them are skipped where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[3] / "shared" / "axis" / "samples"
_NONE = pytest.param(
    SAMPLES, id="none", marks=pytest.mark.skip(reason="no sample messages at ../shared/axis/samples")
)

each_sample = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.name[:24]) for path in sorted(SAMPLES.glob("*.edxml"))] or [_NONE]
)
"""Runs a test with the path of each real message as `path`."""
