"""How long `lienthong serve` takes until it says that it is ready: on a fresh directory, and again on the same.

The first start makes the cluster, the schema and the hub's key. Between the two starts the hub is stopped in
order; a document accepted before must be in its mailbox after, or no figure is given.
"""

from __future__ import annotations

from benchmarks import report
from benchmarks.campaign import PATIENCE_SECONDS
from benchmarks.corpus import Press, Receiver, Sender
from benchmarks.generator import closed_loop
from benchmarks.ledger import Ledger
from benchmarks.node import Node
from benchmarks.receivers import Receivers
from benchmarks.scenarios import Outcome, Setting

DOCUMENTS = 200
AGAIN = 3


async def run(setting: Setting) -> list[Outcome]:
    """Figures: ``first_s``, ``again_s`` (the median of three), ``stop_s``."""
    setting.say("startup: a fresh directory, then the same one again")
    sender, receiver = Sender(1), Receiver(0)
    node = Node(setting.workers)
    try:
        first = await node.start()
        await node.register([sender], [receiver])
        corpus = Press([sender], [receiver], node.url.removeprefix("http://")).make(DOCUMENTS, 1)
        ledger = Ledger(corpus)
        await closed_loop(node.address, corpus, ledger, 4, 60)
        keys = await node.keys()
        stops, starts = [], []
        for _ in range(1 if setting.quick else AGAIN):
            stops.append(await node.stop())
            starts.append(await node.start())
        async with Receivers(node.address, [receiver]) as reading:
            reading.ledger = ledger
            await ledger.settled(PATIENCE_SECONDS)
            reading.check()
        conservation = ledger.verify(keys)
        facts = await report.facts(node)
        log = "" if conservation.holds else node.log_tail()
    finally:
        await node.__aexit__()
    figures = {
        "startup.first_s": round(first, 2),
        "startup.again_s": round(sorted(starts)[len(starts) // 2], 2),
        "startup.stop_s": round(sorted(stops)[len(stops) // 2], 2),
    }
    return [Outcome("startup", figures, conservation.holds, facts, [conservation], log=log)]
