"""The log is for everybody, who together get a bounded share of the hub."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp.test_utils import make_mocked_request

from hub.doors.log import AT_ONCE, LogDoor
from hub.evidence.log import Log


class Slow:
    """A log whose answers wait, and which counts those who wait for them."""

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self.full = asyncio.Event()
        self.go_on = asyncio.Event()

    async def newest(self) -> str:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.under_way == AT_ONCE:
            self.full.set()
        await self.go_on.wait()
        self.under_way -= 1
        return "điểm kiểm tra\n"


async def test_a_few_are_looked_up_at_a_time() -> None:
    log = Slow()
    door = LogDoor(cast(Log, log), 86400.0)
    request = make_mocked_request("GET", "/log/checkpoint")
    asked = [asyncio.create_task(door.log_checkpoint(request)) for _ in range(AT_ONCE * 5)]
    await log.full.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert log.under_way == AT_ONCE
    log.go_on.set()
    answers = await asyncio.gather(*asked)
    assert len(answers) == AT_ONCE * 5 and {answer.status for answer in answers} == {200}
    assert log.most == AT_ONCE
