"""How an audit is told: an object for programs, sentences for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hub.cli.output import local_time
from protocol.client.audit import Report
from protocol.evidence import timestamp
from protocol.findings import KINDS, Finding, Severity

_HEADS = {Severity.ALARM: "ALARM", Severity.UNCHECKED: "NOT CHECKED", Severity.NOTE: "Note"}
_ORDER = list(_HEADS)
RESULTS = {
    0: "Nothing wrong was found.",
    1: "TAMPERING FOUND, or what looks like it. See above what to do.",
    2: "Not everything could be checked. What could be is in order.",
}


def members(report: Report, files: dict[int, Path]) -> dict[str, Any]:
    """A report for programs. Times are RFC 3339, UTC."""
    return {
        "status": report.status,
        "url": report.url,
        "origin": report.origin,
        "vkey": report.vkey,
        "at": timestamp(report.at),
        "size": report.seen.size if report.seen else None,
        "size_before": report.before.size if report.before else None,
        "new_entries": report.new_entries,
        "old_entries": report.old_entries,
        "checked_below": report.walked,
        "cosigned": [{"witness": name, "at": timestamp(at)} for name, at in report.cosigned],
        "agreed": [{"with": whose, "size": size} for whose, size in report.compared],
        "receipts": report.receipts,
        "events": report.events,
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity.value,
                "title": finding.kind.title,
                "vietnamese": finding.kind.vietnamese,
                "detail": finding.detail,
                "meaning": finding.kind.meaning,
                "advice": finding.kind.advice,
                "evidence": str(files[place]) if place in files else None,
            }
            for place, finding in enumerate(report.findings)
        ],
    }


def sentence(report: Report, files: dict[int, Path], remembers: bool) -> str:
    """A report for people. Times are Vietnam's."""
    lines = [f"Audit of {report.origin or 'the log'} at {report.url}, {local_time(report.at)} (UTC+7)"]
    if report.vkey:
        lines.append(f"  key        {report.vkey}")
    if report.seen is not None:
        before = ""
        if report.before is not None:
            before = f"; {report.before.size} were there at {local_time(report.before.at)}"
        lines.append(f"  log        {report.seen.size} entries{before}")
    if report.checked:
        lines.append(
            f"  checked    {report.new_entries} entries that are new here, {report.old_entries} again; "
            f"all below {report.walked} were checked"
        )
    if not remembers:
        lines.append("  memory     none: give --state, or a rewritten log cannot be noticed the next time")
    lines += [f"  cosigned   {name}, {local_time(at)}" for name, at in report.cosigned]
    lines += [f"  agrees     {whose}, {size} entries" for whose, size in report.compared]
    if report.receipts:
        lines.append(f"  receipts   {report.receipts} are in the log")
    if report.events:
        lines.append(f"  events     {report.events} in the hub's database are those in the log")
    codes = dict.fromkeys(finding.code for finding in report.findings)
    for code in sorted(codes, key=lambda code: _ORDER.index(KINDS[code].severity)):
        lines += ["", *_told(code, report.findings, files)]
    return "\n".join([*lines, "", RESULTS[report.status]])


def brief(report: Report) -> str:
    """A line on an audit like the one before, in which nothing was wrong."""
    size = report.seen.size if report.seen else 0
    return f"{local_time(report.at)} (UTC+7): {size} entries, in order"


def _told(code: str, findings: list[Finding], files: dict[int, Path]) -> list[str]:
    """All findings of one kind."""
    kind = KINDS[code]
    lines = [f"{_HEADS[kind.severity]}: {kind.title}", f"  ({kind.vietnamese})"]
    for place, finding in enumerate(findings):
        if finding.code == code:
            lines.append(f"  * {finding.detail}")
            if place in files:
                lines.append(f"    evidence: {files[place]}")
    if kind.meaning:
        lines.append(f"  What it means: {kind.meaning}")
    if kind.advice:
        lines.append(f"  What to do: {kind.advice}")
    return lines
