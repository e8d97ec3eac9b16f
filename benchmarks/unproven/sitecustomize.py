"""Makes a hub that proves nothing, to be measured against (benchmarks/scenarios/evidence.py).

Python imports a module of this name by itself when its folder is on PYTHONPATH. What is replaced: the texts of
events, their hashes, trees, seals and receipts, the sealing of hand-overs, and the integrator of the log.
Everything else is the hub as it is. Nothing in the hub knows of this, and no setting can bring it about.
"""

from __future__ import annotations

from typing import Any

from protocol import evidence

evidence.leaf_hash = lambda event: b""  # before anybody imports it


class _Tree:
    """A tree without hashes."""

    root = bytes(evidence.HASH_BYTES)
    levels: tuple[Any, ...] = ()

    def __init__(self, leaves: list[bytes]) -> None:
        self.size = len(leaves)


evidence.Tree = _Tree  # type: ignore[assignment, misc]
evidence.Sealer.seal = lambda self, tree, batch, at: ""  # type: ignore[method-assign]

from hub.evidence.integrate import Integrator  # noqa: E402 - after what is replaced above
from hub.relay import events, handover_sealing, handovers  # noqa: E402

Integrator.start = lambda self: None  # type: ignore[method-assign]
handover_sealing.HandOverSealing.start = lambda self: None  # type: ignore[method-assign]
handovers.HandOvers.note = lambda self, *given: None  # type: ignore[method-assign, assignment]
for _name in ("accepted", "rejected", "about"):
    setattr(events, _name, lambda *members, **named: "")
events.around = lambda *members: ("", "")  # type: ignore[assignment]
events.receipts_json = lambda tree, texts, seal: [b"{}"] * len(texts)
