"""The table of operations: one description of each, from which come both its route and its entry in the
OpenAPI document. What validates a request and what describes it are the same type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.doors.http import Handler


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers: a JSON model, or bytes of some media types."""

    description: str
    model: Any = None
    media_types: tuple[str, ...] = ("application/json",)
    headers: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    """By media type, where one has a model of its own."""


@dataclass(frozen=True, slots=True)
class Body:
    """What an operation takes. `content` maps media types to models, or to None for bytes."""

    content: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address."""

    method: str
    path: str
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    body: Body | None = None
    query: type[Any] | None = None
    path_parameters: Mapping[str, Any] = field(default_factory=dict)
    rest: str | None = None
    """The path parameter that takes all that is left of the path, slashes too."""
    headers: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    open: bool = False
    """Whether it needs no credential."""
    description: str = ""

    @property
    def route(self) -> str:
        """The path as aiohttp routes it, whose own pattern for a parameter leaves out braces: a sender's id may
        hold them.
        """
        return re.sub(
            r"\{(\w+)\}",
            lambda found: f"{{{found[1]}:{'.+' if found[1] == self.rest else '[^/]+'}}}",
            self.path,
        )
