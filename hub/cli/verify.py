"""``lienthong verify``: what a proof or a receipt proves, without a hub and without a network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from hub.cli.output import Output, json_option, local_time, pass_output
from protocol.certificate import load_all, to_der
from protocol.evidence import Receipt, Verified, read_receipt, verify_receipt
from protocol.log import InclusionProof
from protocol.log import read_proof as read_log_proof
from protocol.manifest import signed_bytes
from protocol.note import read_verifier
from protocol.proof import is_proof, read_proof
from protocol.proof_log import compare_checkpoints
from protocol.proof_trust import Gathered, Trust, read_agency_key, read_trust
from protocol.proof_verdict import Verdict
from protocol.proof_verify import verify_proof, verify_single
from protocol.signature import PublicKey, from_jwk, load_public, thumbprint

NATIVE = (".jws", ".entry")
"""Files with a message of our own format: alone, or as an entry of a manifest, whose document counts."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _hub_keys(file: Path) -> dict[str, PublicKey]:
    data = file.read_bytes()
    try:
        members = orjson.loads(data)
    except ValueError:
        members = None
    if isinstance(members, dict) and isinstance(members.get("keys"), list):
        loaded = [from_jwk(jwk) for jwk in members["keys"]]
    else:
        loaded = [load_public(data)[0]]
    return {thumbprint(key): key for key in loaded}


def _certificates(files: tuple[Path, ...]) -> dict[bytes, None]:
    return dict.fromkeys(to_der(one) for file in files for one in load_all(file.read_bytes()))


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    """What the options name whom to trust by, under the names that `_trust_options` gives them."""

    trust_files: tuple[Path, ...]
    key_files: tuple[Path, ...]
    log_keys: tuple[str, ...]
    witnesses: tuple[str, ...]
    quorum: int | None
    anchors: tuple[Path, ...]
    roots: tuple[Path, ...]
    agency_keys: tuple[str, ...]
    promise_seconds: int | None

    def trust(self) -> Trust:
        """Everybody whom they name. Raises TrustError, NoteError, KeyFormatError, CertificateError."""
        gathered = Gathered()
        for file in self.trust_files:
            gathered.add(read_trust(file.read_bytes()))
        for file in self.key_files:
            gathered.hub_keys |= _hub_keys(file)
        gathered.logs |= {str(one): one for one in map(read_verifier, self.log_keys)}
        gathered.witnesses |= {str(one): one for one in map(read_verifier, self.witnesses)}
        gathered.anchors |= _certificates(self.anchors)
        gathered.timestamp_roots |= _certificates(self.roots)
        for code, kid in map(read_agency_key, self.agency_keys):
            gathered.add_agency(code, [kid])
        if self.promise_seconds is not None:
            gathered.promise_seconds = self.promise_seconds
        if self.quorum is not None:
            gathered.quorum = self.quorum
        elif self.witnesses:
            gathered.quorum = max(gathered.quorum, len(gathered.witnesses) // 2 + 1)
        return gathered.trust()

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each list of the trusted, by its file."""
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in self.trust_files}


def _trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name whom to trust; the command is given them together, as `named`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **values: Any) -> Any:
        named = _Named(**{member.name: values.pop(member.name) for member in dataclasses.fields(_Named)})
        return command(*arguments, named=named, **values)

    options = [
        click.option(
            "--trust-file",
            "trust_files",
            multiple=True,
            type=_FILE,
            help="Whom you trust, in one file (trust.json; docs/proofs.md). What further options name is added.",
        ),
        click.option(
            "--hub-key",
            "key_files",
            multiple=True,
            type=_FILE,
            envvar="LIENTHONG_HUB_KEY",
            help="The hub's public key: its hub-key.pub, the answer of /v1/hub/keys, or PEM. Get it once, by a "
            "way you trust.",
        ),
        click.option(
            "--log-key", "log_keys", multiple=True, metavar="VKEY", help="The log's key: name+id+base64."
        ),
        click.option(
            "--witness", "witnesses", multiple=True, metavar="VKEY", help="The key of a witness; may be repeated."
        ),
        click.option(
            "--quorum",
            type=click.IntRange(0),
            help="How many of the witnesses must have signed; by default what the trust file says, or most of "
            "those named.",
        ),
        click.option(
            "--trust",
            "anchors",
            multiple=True,
            type=_FILE,
            help="Certificates of authorities that you trust to say whose key it is: PEM.",
        ),
        click.option(
            "--timestamp-ca",
            "roots",
            multiple=True,
            type=_FILE,
            help="Certificates that time-stamps must lead to: PEM.",
        ),
        click.option(
            "--agency-key",
            "agency_keys",
            multiple=True,
            metavar="CODE=KEY_ID",
            help="A key that you know to be an agency's, by its id; name all that it has. A signature in the "
            "agency's name by any other key fails.",
        ),
        click.option(
            "--promise-seconds",
            type=click.IntRange(0, 315_360_000),
            help="The longest time until an event is logged that a promise may take; by default a week.",
        ),
    ]
    made: Callable[..., Any] = gathering
    for option in reversed(options):
        made = option(made)
    return made


@click.command()
@click.argument("file", type=_FILE)
@click.argument("document", required=False, type=_FILE)
@click.option(
    "--document", "named_document", type=_FILE, help="The message as sent or received; or give it after FILE."
)
@click.option(
    "--log-proof", type=_FILE, help="For a single receipt: its place in the log, from /log/proof/… (tlog-proof)."
)
@click.option(
    "--against",
    multiple=True,
    type=_FILE,
    help="Another proof, perhaps somebody else's: whether the log showed both the same history.",
)
@click.option("--lang", type=click.Choice(["vi", "en"]), help="One language; by default Vietnamese, then English.")
@_trust_options
@json_option
@pass_output
def verify(
    output: Output,
    file: Path,
    document: Path | None,
    named_document: Path | None,
    log_proof: Path | None,
    against: tuple[Path, ...],
    lang: Literal["vi", "en"] | None,
    named: _Named,
) -> None:
    """Check a proof (from `lienthong proof`) or a single receipt. Needs no hub and no network.

    The exit status is 0 when it is proven, 1 when it is not.
    """
    if not named.trust_files and not named.key_files:
        raise click.UsageError("Missing option '--hub-key' (or '--trust-file'): whom do you trust?")
    if document is not None and named_document is not None:
        raise click.UsageError("give the document once: after the file, or with --document")
    document = document or named_document
    trust = named.trust()
    data = file.read_bytes()
    content = None if document is None else document.read_bytes()
    now = datetime.now(UTC)
    if is_proof(data) or file.suffix == ".proof":
        if log_proof is not None:
            raise click.UsageError("a proof holds its places in the log; --log-proof is for a single receipt")
        verdict = verify_proof(data, content, trust, now)
        for other in against if verdict.verified else ():
            checkpoints = read_proof(data).checkpoint, read_proof(other.read_bytes()).checkpoint
            compare_checkpoints(verdict, *checkpoints, str(other), trust)
        _show(output, verdict, lang, verdict.members() | {"trust": named.digests()}, [], named)
        return
    if against:
        raise click.UsageError("--against compares proofs; this is a single receipt")
    if content is not None and document is not None and document.suffix in NATIVE:
        content = signed_bytes(content.strip())
    if content is not None and is_proof(content):
        raise click.UsageError("give the proof first, then the document")
    receipt = read_receipt(data)
    logged = None if log_proof is None else read_log_proof(log_proof.read_text(encoding="utf-8"))
    _single(output, receipt, content, trust, now, logged, lang, named)


def _single(
    output: Output,
    receipt: Receipt,
    content: bytes | None,
    trust: Trust,
    now: datetime,
    logged: InclusionProof | None,
    lang: Literal["vi", "en"] | None,
    named: _Named,
) -> None:
    found = verify_receipt(receipt, trust.hub_keys.get, content)
    verdict = verify_single(receipt, content, trust, now, logged)
    members = verdict.members() | {"hub": found.hub, "sealed_at": found.sealed_at, "event": found.event}
    _show(output, verdict, lang, members, _told(found, content is not None), named)


def _told(found: Verified, compared: bool) -> list[str]:
    event = found.event
    return [
        f"Genuine: the hub {found.hub} sealed this event at {local_time(found.sealed_at)} (UTC+7).",
        f"  event    {event.get('event')}  {local_time(event.get('at'))}",
        *(
            f"  {name:<8} {event[name]}"
            for name in ("from", "id", "message", "endpoint", "reason")
            if name in event
        ),
        *([f"  handed over {local_time(event['handed_over_at'])}"] if "handed_over_at" in event else ()),
        f"  sha256   {event.get('sha256')}",
        "The document given is the one that the event speaks of."
        if compared
        else "Give --document to check that it speaks of a particular document.",
    ]


def _show(
    output: Output,
    verdict: Verdict,
    lang: Literal["vi", "en"] | None,
    members: dict[str, object],
    first: list[str],
    named: _Named,
) -> None:
    """Write it, and end the command with the status that it means."""
    lines = list(first)
    for language in (lang,) if lang else ("vi", "en"):
        lines += verdict.lines(language)
        for file, digest in named.digests().items():
            words = "Danh sách tin cậy" if language == "vi" else "Whom was trusted"
            lines.append(f"{words}: {file}, SHA-256 {digest}")
        lines.append("")
    output.result(members, "\n".join(lines[:-1]))
    click.get_current_context().exit(0 if verdict.verified else 1)
