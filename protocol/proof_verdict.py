"""What a verification found: a list of findings, each in Vietnamese and in English, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from protocol.message import printable
from protocol.proof_words import LIMITS, STATUSES, STEPS, VERDICTS, WORDS

Status = Literal["proven", "not_proven", "contradicted"]
Text = str | tuple[str, str]
"""A value in a sentence: the same in both languages, or one for each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `step` is what, `code` names the sentence (protocol.proof_words). Where something `required` is not proven, or
    anything is contradicted, the whole is not.
    """

    step: str
    code: str
    status: Status
    required: bool
    vi: str
    en: str

    @property
    def fails(self) -> bool:
        return self.status == "contradicted" or (self.required and self.status == "not_proven")

    def members(self) -> dict[str, object]:
        """For a program."""
        return {
            "step": self.step,
            "code": self.code,
            "status": self.status,
            "required": self.required,
            "vi": self.vi,
            "en": self.en,
        }


@dataclass(slots=True)
class Verdict:
    """All findings, in the order in which they were made, and what they do not prove."""

    findings: list[Finding] = field(default_factory=list)
    limits: list[tuple[str, str]] = field(default_factory=list)

    @property
    def failed(self) -> Finding | None:
        """The first finding by which the whole fails."""
        return next((one for one in self.findings if one.fails), None)

    @property
    def verified(self) -> bool:
        return bool(self.findings) and self.failed is None

    def add(self, step: str, code: str, status: Status, *, required: bool = False, **values: Text) -> Finding:
        """Note a finding; `values` fill its sentence."""
        vi, en = (words.format_map(_in(values, place)) for place, words in enumerate(WORDS[code]))
        found = Finding(step, code, status, required or status != "not_proven", vi, en)
        self.findings.append(found)
        return found

    def limit(self, code: str, **values: Text) -> None:
        """Note what is not proven."""
        vi, en = (words.format_map(_in(values, place)) for place, words in enumerate(LIMITS[code]))
        self.limits.append((vi, en))

    def members(self) -> dict[str, object]:
        """For a program."""
        failed = self.failed
        return {
            "verified": self.verified,
            "failed": None if failed is None else failed.step,
            "findings": [one.members() for one in self.findings],
            "limits": [{"vi": vi, "en": en} for vi, en in self.limits],
        }

    def lines(self, language: Literal["vi", "en"]) -> list[str]:
        """For people, in one language."""
        place = 0 if language == "vi" else 1
        failed = self.failed
        verdict = VERDICTS["verified" if failed is None else "failed"][place]
        lines = [verdict.format(step=STEPS[failed.step][place] if failed else "")]
        for one in self.findings:
            text = one.vi if language == "vi" else one.en
            lines.append(f"  [{STATUSES[one.status][place]}] {STEPS[one.step][place]}: {text}")
        if self.limits:
            lines.append(VERDICTS["does_not"][place])
            lines += [f"  - {limit[place]}" for limit in self.limits]
        return lines


def _in(values: Mapping[str, Text], place: int) -> dict[str, str]:
    """For one language. What others chose (names, reasons) may not begin a line of its own, which could be taken
    for a finding, or turn the direction of a sentence round."""
    return {name: printable(value if isinstance(value, str) else value[place]) for name, value in values.items()}
