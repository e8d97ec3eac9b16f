"""State secrets do not pass through here (Decision 28/2018/QĐ-TTg, article 1).

A document says of itself that it is one: natively by `secrecy`, in edXML by the element that the dialect before
2016 has for it. The hub looks at these marks alone, not into texts or files.
"""

from __future__ import annotations

from protocol.problems import Problem

NOT_SECRET = frozenset({"", "0", "null", "thường", "thuong", "bình thường", "không", "không mật", "none"})
"""What systems write where a document has no degree of secrecy. Anything else is taken for one."""


def require_no_secret(degree: str) -> None:
    """Raises `Problem` state-secret."""
    mark = degree.strip()
    if mark.casefold() not in NOT_SECRET:
        raise Problem(
            "state-secret",
            f"the document is marked {mark[:40]!r}; state secrets are not sent through this hub (Decision "
            "28/2018/QĐ-TTg, article 1). Nothing of it was kept but its SHA-256",
        )
