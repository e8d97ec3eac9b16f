"""``lienthong audit``: follow a hub's log as an outsider, and check evidence."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from hub.cli.audit_files import (
    MAX_STATE_BYTES,
    alone,
    held_receipts,
    keep_evidence,
    leaves,
    public_keys,
    read,
    read_state_file,
    shown_checkpoints,
    write,
)
from hub.cli.audit_show import brief, members, sentence
from hub.cli.output import Output, json_option, pass_output
from protocol.audit import Remembered, State, write_state
from protocol.audit_evidence import check_evidence, lookup
from protocol.client.audit import Audit, Plan, Report, Witness
from protocol.client.audit_events import SAMPLES, EventAudit
from protocol.client.log import FetchError, LogClient
from protocol.evidence import EvidenceError
from protocol.findings import found
from protocol.note import COSIGNATURE, ED25519, Verifier, read_verifier
from protocol.problems import LienthongError

AT_MOST_SECONDS = 3600.0


class _UnusableError(click.ClickException):
    """What was given cannot be used. Not 1: that is for tampering, and somebody may be woken by it."""

    exit_code = 2


@dataclass(slots=True)
class _Wishes:
    """What was asked for."""

    url: str
    log_key: Verifier | None
    state_file: Path | None
    evidence: Path
    witnesses: tuple[Witness, ...]
    seen: tuple[Path, ...]
    full: bool
    receipts: Path | None
    hub_keys: tuple[Path, ...]
    token: str | None
    tls: ssl.SSLContext | None
    events: int
    at_most: float


@click.command()
@click.argument("url", required=False)
@click.option(
    "--log-key", help="The log's verifier key (name+id+base64), as its operator told you by a way you trust."
)
@click.option(
    "--state",
    "state_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remembers here what was seen. Without it nothing can be compared with the last time.",
)
@click.option(
    "--witness", "witnesses", multiple=True, metavar="VKEY[=URL]", help="A witness, and where it answers."
)
@click.option(
    "--seen",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What somebody else was shown of this log: a checkpoint, or another auditor's state.",
)
@click.option("--full", is_flag=True, help="Download and check everything, not only what is new and a sample.")
@click.option(
    "--receipts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Receipts that you hold (*.receipt, *.receipt.json); each is looked for in the log.",
)
@click.option(
    "--hub-key",
    "hub_keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The hub's public key, by which receipts are checked; by default it is asked, once.",
)
@click.option("--token", envvar="LIENTHONG_TOKEN", help="An auditor's, operator's or endpoint's token.")
@click.option(
    "--token-file",
    envvar="LIENTHONG_TOKEN_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds it. With it, events are picked from the log and compared with the hub's database.",
)
@click.option("--events", default=SAMPLES, show_default=True, type=click.IntRange(0, 10_000), help="How many.")
@click.option(
    "--evidence",
    default="evidence",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where evidence of misbehaviour is written, if there is any.",
)
@click.option("--follow", type=click.FloatRange(min=1), metavar="SECONDS", help="Again and again, so often.")
@click.option(
    "--at-most",
    default=AT_MOST_SECONDS,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds that one audit may take.",
)
@click.option(
    "--ca", envvar="LIENTHONG_CA", type=click.Path(exists=True, dir_okay=False), help="Trust these for TLS, PEM."
)
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check an evidence file instead, without any network.",
)
@json_option
@pass_output
def audit(output: Output, /, **options: Any) -> None:
    """Follow the log of the hub at URL as an outsider, and report tampering. Needs no account.

    Ends with 0 when nothing is wrong, 1 when tampering was found, 2 when something could not be checked.
    """
    if options["check"] is not None:
        keys = options["hub_keys"]
        status = _check(output, options["check"], _log_key(options["log_key"]), keys)
    elif not options["url"]:
        raise click.UsageError("give the hub's address, such as https://lienthong.yenbai.gov.vn")
    else:
        try:
            status = asyncio.run(_follow(output, _wishes(options), options["follow"]))
        except (LienthongError, OSError) as error:
            raise _UnusableError(" ".join(str(error).split())) from None
    click.get_current_context().exit(status)


def _wishes(options: dict[str, Any]) -> _Wishes:
    token = options["token"]
    if options["token_file"] is not None:
        token = options["token_file"].read_text().strip()
    return _Wishes(
        options["url"].rstrip("/"),
        _log_key(options["log_key"]),
        options["state_file"],
        options["evidence"],
        tuple(map(_witness, options["witnesses"])),
        options["seen"],
        options["full"],
        options["receipts"],
        options["hub_keys"],
        token,
        ssl.create_default_context(cafile=options["ca"]) if options["ca"] else None,
        options["events"],
        options["at_most"],
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _log_key(written: str | None) -> Verifier | None:
    if written is None:
        return None
    verifier = read_verifier(written)
    if verifier.kind != ED25519:
        raise LienthongError(f"{verifier.name} is the key of a witness, not of a log: give it with --witness")
    return verifier


def _witness(written: str) -> Witness:
    # Neither a verifier key of 33 bytes nor a name that makes sense has such a part. As the hub takes it, too.
    first, _, last = written.partition(" ")
    vkey, equals, url = (f"{last}={first}" if last else written).partition("=http")
    verifier = read_verifier(vkey)
    if verifier.kind != COSIGNATURE:
        raise LienthongError(f"{verifier.name} is not the key of a witness (type 4)")
    return Witness(verifier, f"http{url}" if equals else None)


# -- auditing -----------------------------------------------------------------------------------


async def _follow(output: Output, wishes: _Wishes, seconds: float | None) -> int:
    """Audit once, or until interrupted; the exit status of the worst."""
    statuses: list[int] = []
    try:
        while True:
            report = await _once(wishes)
            files = keep_evidence(wishes.evidence, report)
            if seconds is None or not output.as_json:
                well = statuses and not report.status
                told = brief(report) if well else sentence(report, files, wishes.state_file is not None)
                output.result(members(report, files), told)
            else:
                click.echo(orjson.dumps(members(report, files)))
            statuses.append(report.status)
            if seconds is None:
                break
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not statuses:  # an audit that was not finished says nothing
            raise
    return 1 if 1 in statuses else max(statuses)


async def _once(wishes: _Wishes) -> Report:
    async with alone(wishes.state_file):
        return await _audit(wishes)


async def _audit(wishes: _Wishes) -> Report:
    state = read_state_file(wishes.state_file)
    async with LogClient(wishes.url, wishes.token, wishes.tls) as client:
        try:
            remembered = await _known(wishes, state, client)
        except FetchError as error:
            vkey = str(wishes.log_key) if wishes.log_key else ""
            report = Report(wishes.url, wishes.log_key.name if wishes.log_key else "", vkey, _now())
            away = error.status in (0, 429) or error.status >= 500
            report.add(found("unreachable" if away else "not-a-log", str(error)))
            return report
        held = held_receipts(wishes.receipts)
        plan = Plan(
            full=wishes.full,
            witnesses=wishes.witnesses,
            shown=shown_checkpoints(wishes.seen, remembered),
            wanted=set(leaves(held)),
        )
        work = Audit(client, remembered, plan, _now)
        if remembered.first_use:
            work.tell("first-use", remembered.vkey)
        try:
            async with asyncio.timeout(wishes.at_most):
                await work.run()
                if held or wishes.token:
                    await _events(wishes, work, held)
        except TimeoutError:
            work.tell("unreachable", f"the audit was not over within {wishes.at_most:g} s (--at-most)")
    if wishes.state_file is not None:
        state.logs[remembered.origin] = remembered
        try:
            write(wishes.state_file, write_state(state))
        except OSError as error:
            work.tell("not-kept", str(error))
    return work.report


async def _known(wishes: _Wishes, state: State, client: LogClient) -> Remembered:
    """What is known of the log: what is remembered, under the key that is given or was taken at first."""
    if wishes.log_key is not None:
        key = wishes.log_key
        known = state.logs.get(key.name) or Remembered(key.name, str(key), wishes.url, False)
        known.vkey, known.url, known.first_use = str(key), wishes.url, False
        return known
    remembered = state.of_url(wishes.url)
    if remembered is not None:
        return remembered
    about = await client.about()
    try:
        verifier = read_verifier(about.vkey)
    except LienthongError as error:
        raise FetchError(f"the hub does not name its log's key: {error}", 200) from None
    if verifier.name in state.logs:
        return state.logs[verifier.name]
    return Remembered(verifier.name, str(verifier), wishes.url, True)


async def _events(wishes: _Wishes, work: Audit, held: list[tuple[str, bytes]]) -> None:
    remembered = work.remembered
    if wishes.hub_keys:
        remembered.hub_keys, remembered.hub_keys_first_use = public_keys(wishes.hub_keys), False
    elif not remembered.hub_keys:
        with work.step("the hub's keys"):
            remembered.hub_keys, remembered.hub_keys_first_use = await work.client.hub_keys(), True
    try:
        events = EventAudit(work, remembered.hub_keys)
    except EvidenceError as error:
        work.tell("not-a-log", str(error))
        return
    if remembered.hub_keys_first_use:
        work.tell("first-use", "the keys of its receipts (--hub-key)")
    await events.receipts(held)
    if wishes.token:
        await events.sample(wishes.events)


# -- evidence -----------------------------------------------------------------------------------


def _check(output: Output, file: Path, log_key: Verifier | None, hub_keys: tuple[Path, ...]) -> int:
    """Check an evidence file; 0 when it shows what it says. Raises LienthongError."""
    checked = check_evidence(
        read(file, MAX_STATE_BYTES),
        [log_key] if log_key else (),
        lookup(public_keys(hub_keys)) if hub_keys else None,
    )
    given = log_key is not None
    lines = [
        f"This evidence is genuine. {checked.said}" if checked.conclusive else f"It is as it says. {checked.said}",
        "Only the holder of the log's key can have made both."
        if checked.conclusive
        else "Whoever is accused can refute this by showing that proof.",
        "It rests on " + ("the key that you gave" if given else "keys that the file itself names"),
        *(f"  {key}" for key in checked.keys),
    ]
    if not given:
        lines.append("Whether they are that hub's, you have to find out (--log-key).")
    output.result(
        {"genuine": True, "conclusive": checked.conclusive, "said": checked.said, "keys": checked.keys},
        "\n".join(lines),
    )
    return 0
