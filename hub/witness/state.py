"""What a witness remembers, in an SQLite file: its name, the logs it follows, what it signed last, what it found.

A witness that forgets what it signed can be made to sign a second history. So a checkpoint is checked against the
last one and written down in one transaction, which is on disk (fsync) before the cosignature leaves; two
requests, or two processes, at once take turns. For the same reason its state is never restored from a copy: a
witness that lost its state begins anew, with another key.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.log import read_checkpoint
from protocol.misbehaviour import Misbehaviour, own_note
from protocol.note import COSIGNATURE, ED25519, Verifier, read_note, read_verifier, signature_line
from protocol.problems import LienthongError
from protocol.signature import load_private, private_pem
from protocol.witness import Refusal, Seen, judge, read_request, signed_by, time_to_state

KEY_FILE = "witness-key.pem"
STATE_FILE = "witness.db"
VKEY_FILE = "witness.vkey"
BUSY_SECONDS = 10.0
CONCLUSIVE_KEPT = 1000
"""Findings kept of a log, 2 KB each: each takes two signatures of the log, but it may be malicious."""
UNPROVEN_KEPT = 100
"""Of those that prove nothing by themselves, which anybody can cause."""
_SCHEMA = """
create table witness (
    name text not null
);
create table log_key (
    origin text not null,
    vkey   text primary key
);
create table signed (
    origin text primary key,
    size   integer not null,
    root   blob not null,
    note   text not null,       -- with the log's signature
    line   text not null,       -- the witness's own
    at     integer not null     -- UNIX seconds, as the line states
);
create table finding (
    id         integer primary key,
    origin     text not null,
    digest     blob not null unique,    -- of its kind and the two texts: the same is kept once
    conclusive integer not null,
    at         integer not null,        -- UNIX seconds
    found      text not null            -- protocol.misbehaviour.Misbehaviour as JSON
);
"""


class WitnessError(LienthongError):
    """The witness cannot be made or used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A log that the witness follows."""

    origin: str
    keys: tuple[Verifier, ...]
    last: Seen | None
    line: str
    """The witness's line under that checkpoint."""
    conclusive: int
    unproven: int
    """How much was found, by whether it proves misbehaviour by itself."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found, and when."""

    id: int
    at: datetime
    misbehaviour: Misbehaviour


def _now() -> datetime:
    return datetime.now(UTC)


def make(folder: Path, name: str) -> Verifier:
    """Make a witness in a folder: its key and its state. Gives its verifier key.

    Raises WitnessError when there is one already, NoteError when it cannot be called so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key_file, state_file = folder / KEY_FILE, folder / STATE_FILE
    if key_file.exists() or state_file.exists():
        raise WitnessError(f"there is a witness in {folder} already; it is never made anew in place")
    key = Ed25519PrivateKey.generate()
    verifier = Verifier(name, key.public_key(), COSIGNATURE)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(private_pem(key))
        target.flush()
        os.fsync(descriptor)
    connection = _connect(state_file)
    try:
        _set_up(connection)
        connection.executescript("begin exclusive;" + _SCHEMA)
        connection.execute("insert into witness values (?)", (name,))
        connection.execute("commit")
    finally:
        connection.close()
    (folder / VKEY_FILE).write_text(f"{verifier}\n", encoding="utf-8")
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return verifier


def _connect(file: Path) -> sqlite3.Connection:
    # Transactions are begun by hand: the module's own begin late, and would not exclude each other.
    return sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")  # each commit is flushed before it returns


class State:
    """A witness's state and key. To be used by one thread at a time; other processes may have it open too."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = _now) -> None:
        """Raises WitnessError when there is no witness in `folder`, or half of one."""
        self._clock = clock
        for file in (folder / KEY_FILE, folder / STATE_FILE):
            if not file.is_file():
                raise WitnessError(
                    f"there is no {file}. Make a witness with `lienthong witness init`; one that lost its key or "
                    "its state is made anew in another folder, with another name"
                )
        key = load_private((folder / KEY_FILE).read_bytes())
        if not isinstance(key, Ed25519PrivateKey):
            raise WitnessError(f"{folder / KEY_FILE} is not an Ed25519 key, which a witness's has to be")
        self._key = key
        self._db = _connect(folder / STATE_FILE)
        try:
            _set_up(self._db)
            (self.name,) = self._db.execute("select name from witness").fetchone()
        except (sqlite3.DatabaseError, TypeError) as error:
            self._db.close()
            raise WitnessError(f"{folder / STATE_FILE} is not a witness's state: {error}") from None
        self.verifier = Verifier(self.name, key.public_key(), COSIGNATURE)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Alone with the state; what was written is on disk afterwards."""
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise
        self._db.execute("commit")

    # -- logs -----------------------------------------------------------------------------------

    def add_log(self, vkey: str) -> Verifier:
        """Follow a log by its verifier key; beside another of the same log it may change over to it.

        Raises NoteError, or WitnessError for a key of the wrong type.
        """
        verifier = read_verifier(vkey)
        if verifier.kind != ED25519:
            raise WitnessError(f"the key of {verifier.name} is one of a witness, not of a log")
        self._db.execute("insert or ignore into log_key values (?, ?)", (verifier.name, str(verifier)))
        return verifier

    def remove_log(self, vkey: str) -> Verifier:
        """Trust a log's key no more. What was signed stays known. Raises NoteError, WitnessError."""
        verifier = read_verifier(vkey)
        if not self._db.execute("delete from log_key where vkey = ?", (str(verifier),)).rowcount:
            raise WitnessError(f"this witness does not follow {verifier}")
        return verifier

    def _keys(self, origin: str) -> list[Verifier]:
        rows = self._db.execute("select vkey from log_key where origin = ? order by rowid", (origin,))
        return [read_verifier(vkey) for (vkey,) in rows.fetchall()]

    def logs(self) -> list[Followed]:
        """The logs that are followed, and those that were."""
        rows = self._db.execute(
            "select origin from log_key union select origin from signed union select origin from finding"
            " order by 1"
        ).fetchall()
        return [self._followed(origin) for (origin,) in rows]

    def _followed(self, origin: str) -> Followed:
        counts = dict(
            self._db.execute(
                "select conclusive, count(*) from finding where origin = ? group by 1", (origin,)
            ).fetchall()
        )
        last, line = self._last(origin)
        return Followed(origin, tuple(self._keys(origin)), last, line, counts.get(1, 0), counts.get(0, 0))

    def _last(self, origin: str) -> tuple[Seen | None, str]:
        row = self._db.execute(
            "select size, root, note, at, line from signed where origin = ?", (origin,)
        ).fetchone()
        if row is None:
            return None, ""
        size, root, note, at, line = row
        return Seen(size, root, note, datetime.fromtimestamp(at, UTC)), line

    # -- checkpoints ----------------------------------------------------------------------------

    def add_checkpoint(self, data: bytes) -> str:
        """Sign the checkpoint of a request, if the rules allow it. Gives the cosignature's line.

        Raises a Refusal. What a log should not have signed is kept before it is raised.
        """
        request = read_request(data)
        origin = request.checkpoint.origin
        trusted = self._keys(origin)
        signed_by(request, trusted)  # strangers do not get so far as to make others wait
        refused: Refusal | None = None
        line = ""
        with self._transaction():
            trusted = self._keys(origin)
            last, _ = self._last(origin)
            try:
                judge(request, trusted, last)
                at = time_to_state(self._clock(), last.at if last else None)
            except Refusal as refusal:
                refused = refusal
                if refusal.misbehaviour:
                    self._keep(refusal.misbehaviour)
            else:
                line = signature_line(self.name, self._key, request.note.text, at)
                checkpoint, note = request.checkpoint, own_note(request.note, trusted)
                self._db.execute(
                    "insert or replace into signed values (?, ?, ?, ?, ?, ?)",
                    (origin, checkpoint.size, checkpoint.root, note, line, int(at.timestamp())),
                )
        if refused:
            raise refused
        return line

    def _keep(self, found: Misbehaviour) -> None:
        known = read_note(found.known).text if found.known else ""
        digest = hashlib.sha256(f"{found.kind}\n{known}\n{read_note(found.presented).text}".encode()).digest()
        (kept,) = self._db.execute(
            "select count(*) from finding where origin = ? and conclusive = ?", (found.origin, found.conclusive)
        ).fetchone()
        if kept < (CONCLUSIVE_KEPT if found.conclusive else UNPROVEN_KEPT):
            self._db.execute(
                "insert or ignore into finding (origin, digest, conclusive, at, found) values (?, ?, ?, ?, ?)",
                (
                    found.origin,
                    digest,
                    found.conclusive,
                    int(self._clock().timestamp()),
                    msgspec.json.encode(found).decode(),
                ),
            )

    def findings(self, limit: int = -1) -> list[Finding]:
        """What was found, what proves misbehaviour first, then the newest; `limit` of it, or everything."""
        rows = self._db.execute(
            "select id, at, found from finding order by conclusive desc, id desc limit ?", (limit,)
        ).fetchall()
        return [
            Finding(id_, datetime.fromtimestamp(at, UTC), msgspec.json.decode(found, type=Misbehaviour))
            for id_, at, found in rows
        ]


def cosigned_note(followed: Followed) -> str:
    """The checkpoint that was signed last, with the witness's line; empty when there is none."""
    return followed.last.note + followed.line if followed.last else ""


def sizes(found: Misbehaviour) -> tuple[int | None, int]:
    """The sizes of the two checkpoints of a finding."""
    known = read_checkpoint(read_note(found.known)).size if found.known else None
    return known, read_checkpoint(read_note(found.presented)).size
