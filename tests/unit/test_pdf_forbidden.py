"""What a checking process may open: its libraries, and nothing that a path leads out of them to."""

from __future__ import annotations

import os
import sys

import pytest

from hub.pdf.process import _forbid

LIBRARY = os.path.realpath(sys.prefix)


def test_libraries_are_read() -> None:
    _forbid("open", (f"{LIBRARY}/lib/module.py", "r", os.O_RDONLY))


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("/etc/passwd", os.O_RDONLY),
        (f"{LIBRARY}/../../etc/passwd", os.O_RDONLY),
        (f"{LIBRARY}/lib/../../etc/passwd", os.O_RDONLY),
        (f"{LIBRARY}-other/x", os.O_RDONLY),
        (f"{LIBRARY}/lib/module.py", os.O_WRONLY),
        (f"{LIBRARY}/lib/module.py", os.O_RDWR),
        (b"/etc/passwd", os.O_RDONLY),
    ],
)
def test_nothing_else_is_opened(path: str | bytes, flags: int) -> None:
    with pytest.raises(PermissionError, match="opens no files"):
        _forbid("open", (path, "r", flags))


@pytest.mark.parametrize("event", ["socket.connect", "subprocess.Popen", "os.exec", "os.fork", "os.remove"])
def test_nothing_is_started_or_reached(event: str) -> None:
    with pytest.raises(PermissionError, match="does not do that"):
        _forbid(event, ())
