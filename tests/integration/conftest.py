"""Fixtures for tests of what happens between two endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import RunningHub
from tests.support.pair import Pair
from tests.support.parties import DAI_SON, PROVINCE, VAN_YEN


@pytest.fixture
async def pair(hub: RunningHub) -> AsyncIterator[Pair]:
    """The province, and the district that speaks for a commune too."""
    pair = Pair(hub, await hub.register("ubnd-tinh", PROVINCE), await hub.register("van-yen", VAN_YEN, DAI_SON))
    async with pair.sender, pair.receiver:
        yield pair
