"""Files of ``lienthong audit``: its state, receipts, what others were shown, evidence."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import orjson

from protocol.audit import Remembered, State, read_state
from protocol.audit_evidence import write_evidence
from protocol.client.audit import Report
from protocol.evidence import EvidenceError, leaf_hash, read_receipt
from protocol.findings import evidence_name, found
from protocol.log import LogError
from protocol.problems import LienthongError
from protocol.signature import from_jwk, load_public, to_jwk

MAX_RECEIPT_BYTES = 1 << 20
MAX_STATE_BYTES = 16 << 20
LOCK_SECONDS = 0.2
RECEIPT_FILES = ("*.receipt", "*.receipt.json")


def held_receipts(folder: Path | None) -> list[tuple[str, bytes]]:
    """The receipts in a folder, and below."""
    if folder is None:
        return []
    files = sorted({file for pattern in RECEIPT_FILES for file in folder.rglob(pattern)})
    return [(str(file), read(file, MAX_RECEIPT_BYTES)) for file in files if file.is_file()]


def leaves(held: Sequence[tuple[str, bytes]]) -> list[bytes]:
    leaves = []
    for _, data in held:
        with contextlib.suppress(EvidenceError):
            leaves.append(leaf_hash(read_receipt(data).event.encode()))
    return leaves


def shown_checkpoints(files: Sequence[Path], log: Remembered) -> list[tuple[str, str]]:
    """The checkpoints of this log in files. Raises LienthongError for one that is neither note nor state."""
    shown = []
    for file in files:
        data = read(file, MAX_STATE_BYTES)
        if data.lstrip().startswith(b"{"):
            other = read_state(data).logs.get(log.origin)
            if other is None:
                raise LienthongError(f"{file} says nothing of {log.origin}")
            shown += [(f"the auditor of {file}", sight.note) for sight in other.sights]
        else:
            shown.append((f"whoever was shown {file}", data.decode(errors="replace")))
    return shown


def public_keys(files: Sequence[Path]) -> list[dict[str, str]]:
    """Public keys (JWK) from files: hub-key.pub, an answer of /v1/hub/keys, PEM."""
    keys = []
    for file in files:
        data = read(file, MAX_RECEIPT_BYTES)
        try:
            members = orjson.loads(data)
        except ValueError:
            members = None
        if isinstance(members, dict) and isinstance(members.get("keys"), list):
            keys += [to_jwk(from_jwk(jwk)) for jwk in members["keys"]]
        else:
            keys.append(to_jwk(load_public(data)[0]))
    return keys


def read(file: Path, limit: int) -> bytes:
    with file.open("rb") as source:
        data = source.read(limit + 1)
    if len(data) > limit:
        raise LienthongError(f"{file} has more than {limit} bytes; it is not what is looked for here")
    return data


def read_state_file(file: Path | None) -> State:
    if file is None or not file.exists():
        return State()
    try:
        return read_state(read(file, MAX_STATE_BYTES))
    except LogError as error:
        raise LogError(f"{file}: {error}. Move it away to begin anew; what it remembered is then lost") from None


@asynccontextmanager
async def alone(file: Path | None) -> AsyncIterator[None]:
    """Alone with a state file: of two audits that write down what they know, one would forget the other's."""
    with contextlib.ExitStack() as stack:
        # Where there can be no lock, nothing is written either: the audit says so at its end.
        with contextlib.suppress(OSError):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(file.with_name(f"{file.name}.lock").open("w"))
                while not _taken(lock):  # noqa: ASYNC110
                    await asyncio.sleep(LOCK_SECONDS)  # nobody tells when it is free
        yield


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, on disk when it returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    with temporary.open("wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep_evidence(folder: Path, report: Report) -> dict[int, Path]:
    """Write the evidence of findings into files; gives them by the finding's place."""
    files = {}
    for place, finding in enumerate(list(report.findings)):
        if finding.evidence is not None:
            file = folder / evidence_name(finding)
            try:
                if not file.exists():
                    write(file, write_evidence(finding.evidence))
                files[place] = file
            except OSError as error:  # what was found is told all the same
                report.add(found("not-kept", str(error)))
    return files
