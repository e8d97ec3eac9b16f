"""kill -9, during load: what was answered stands, once, and the hub comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psutil
import pytest

from tests.support.node import Node
from tests.support.storm import Strike, weather
from tests.support.until import until

StartNode = Callable[..., Awaitable[Node]]


async def _workers(node: Node) -> None:
    node.kill_workers()


async def _postgres(node: Node) -> None:
    node.kill_postgres()


async def _workers_and_postgres(node: Node) -> None:
    node.kill_workers()
    node.kill_postgres()


async def _supervisor_and_workers(node: Node) -> None:
    postgres = node.postgres_pid()
    assert postgres is not None
    await node.kill()
    await node.start()
    assert node.postgres_pid() == postgres, "the PostgreSQL that was left running is used, not another"


async def _everything(node: Node) -> None:
    await node.kill_everything()
    await node.start()


@pytest.mark.parametrize("strike", [_workers, _postgres, _workers_and_postgres])
async def test_what_was_answered_stands_and_the_hub_comes_back(start_node: StartNode, strike: Strike) -> None:
    node = await start_node("--workers", "2")
    await weather(node, strike)

    def whole() -> bool:
        children = psutil.Process(node.pid).children()
        try:
            return len(node.workers()) == 2 and all(child.status() != psutil.STATUS_ZOMBIE for child in children)
        except psutil.NoSuchProcess:  # it was going just now
            return False

    await until(whole, "two workers, and no zombies")


@pytest.mark.parametrize("strike", [_supervisor_and_workers, _everything])
async def test_what_was_answered_stands_after_another_start(start_node: StartNode, strike: Strike) -> None:
    await weather(await start_node("--workers", "2"), strike)


async def test_a_first_start_that_was_killed_can_be_repeated(unstarted: Node) -> None:
    await unstarted.launch()
    making = await until(lambda: unstarted.below("initdb"), "the cluster is being made")
    await unstarted.kill()
    await unstarted.start()
    _, alive = await asyncio.to_thread(psutil.wait_procs, making, 30)
    assert alive == []
