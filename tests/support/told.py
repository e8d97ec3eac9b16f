"""What the sealed text behind an event of a message's history says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.evidence import EventKind


def tells(sealed: Mapping[str, Any], listed: Mapping[str, Any]) -> bool:
    """Whether a sealed event says what the history lists: the kind and the time, which of a hand-over may stand in
    the event that ended the delivery."""
    if listed["event"] == EventKind.HANDED_OVER and sealed["event"] != EventKind.HANDED_OVER:
        return bool(sealed["handed_over_at"] == listed["at"])
    return (sealed["event"], sealed["at"]) == (listed["event"], listed["at"])
