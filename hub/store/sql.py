"""SQL from named files.

A file holds blocks that begin with ``-- name: some_name`` and may go on with comment lines that
describe the statement. `load` gives them as attributes: ``load("mailbox").read``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from types import SimpleNamespace

_NAME = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


@cache
def load(name: str) -> SimpleNamespace:
    """The statements of ``hub/store/<name>.sql``, by name."""
    text = (files("hub.store") / f"{name}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return SimpleNamespace(**dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True)))


def migrations() -> list[tuple[int, str, str]]:
    """Every migration as (number, name, SQL), in order."""
    found = []
    for entry in (files("hub.store") / "migrations").iterdir():
        if entry.name.endswith(".sql"):
            number, _, title = entry.name.removesuffix(".sql").partition("_")
            found.append((int(number), title, entry.read_text(encoding="utf-8")))
    return sorted(found)
