"""Identity codes (mã định danh) of agencies, in both forms that are in use.

QCVN 102:2016 writes thirteen characters, most local unit first: ``000.00.31.H63``. Decision
20/2020/QĐ-TTg writes the ministry or province first: ``H63.31``. An agency may be known by one of
each, so the hub keeps one as its code and the other as an alias.

Real traffic holds codes of neither form (``H37.DN.001``, ``28.22.H17``, ``vxp.saas.03``). A code is
therefore an opaque string with a few rules of safety (`is_code`); the two forms are recognised only
to find a parent when an operator did not name one.
"""

from __future__ import annotations

import re

MAX_CODE_LENGTH = 35
"""Decision 20/2020 allows up to 35 characters."""

CODE_PATTERN = r"^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,33}[0-9A-Za-z])?$(?!\n)"
_CODE = re.compile(CODE_PATTERN)
_QCVN_102 = re.compile(r"(\d{3})\.(\d{2})\.(\d{2})\.([A-Z]\d{2})")
_QD_20 = re.compile(r"[A-Z]\d{2}(?:\.[0-9A-Z]+)*")


def is_code(text: str) -> bool:
    """Whether `text` may be an agency's code or alias."""
    return _CODE.match(text) is not None


def is_qcvn_102(code: str) -> bool:
    """Whether `code` has the form of QCVN 102:2016, most local unit first: ``000.00.31.H63``."""
    return _QCVN_102.fullmatch(code) is not None


def is_qd_20(code: str) -> bool:
    """Whether `code` has the form of Decision 20/2020, ministry or province first: ``H63.31``."""
    return _QD_20.fullmatch(code) is not None


def parent(code: str) -> str | None:
    """The code one level up, or None for a code of level 1 or of an unknown form.

    >>> parent("000.21.31.H63"), parent("000.00.31.H63"), parent("H63.31.02"), parent("H63")
    ('000.00.31.H63', '000.00.00.H63', 'H63.31', None)
    """
    if match := _QCVN_102.fullmatch(code):
        groups = list(match.groups())
        for level in range(3):
            if groups[level].strip("0"):
                groups[level] = "0" * len(groups[level])
                return ".".join(groups)
        return None
    if _QD_20.fullmatch(code) and "." in code:
        return code.rpartition(".")[0]
    return None
