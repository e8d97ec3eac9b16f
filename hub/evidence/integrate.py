"""The integrator: puts sealed batches into the transparency log, in one order, one process at a time.

Every process tries about once a second; whoever gets the advisory lock does the turn. A turn is one
transaction: the batches that wait (table `log_pending`, filled by a trigger whenever a batch is sealed) get
their places, the tiles at the right edge are written, a checkpoint is signed, and the batches leave the list.
So a turn that is cut leaves nothing behind, and a checkpoint that was signed but not committed is never seen.

A log must never sign two trees that contradict each other. So before it appends, the integrator computes the
root of what is stored again and compares it with the last checkpoint; if they differ, somebody changed the
tables, and it signs nothing more (`LogBrokenError`; an alert tells the operator).
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import asyncpg
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub import tasks
from hub.evidence.log import Identity, Log
from hub.evidence.sealing import elsewhere
from hub.evidence.tree import Edge
from hub.observe import metrics
from hub.store import sql
from hub.store.pool import UNAVAILABLE
from protocol.log import Checkpoint, split_hashes
from protocol.note import Ed25519Key, NoteError, Verifier, read_note, read_verifier, signature_line
from protocol.problems import LienthongError, Problem

log = structlog.get_logger()
SQL = sql.load("log")

PAUSE_SECONDS = 1.0
"""Between two checkpoints. An event is in the log a second or two after its commit."""
BATCHES = 512
"""Batches of one turn; what is left takes the next, at once."""
SLICE = 8
"""Tiles filled before the event loop may do something else: 8 · 256 · 1.5 µs are 3 ms."""
PRUNE_SECONDS = 3600.0
BROKEN_SECONDS = 60.0
"""Between two complaints about tables that were altered."""


async def identify(pool: asyncpg.Pool[Any], origin: str, key: Ed25519PublicKey) -> Identity:
    """The log's identity: the stored one, or for a new log this name and key, given by one process of all."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(SQL.lock_identity)
        await connection.execute(SQL.first_identity, str(Verifier(origin, key)), origin)
    return (await Log(pool).identities())[0]


class LogBrokenError(LienthongError):
    """The stored log is not the one that the last checkpoint was signed over."""


def _signed_by(note: str, signer: Verifier) -> bool:
    try:
        return any((line.name, line.id) == (signer.name, signer.id) for line in read_note(note).signatures)
    except NoteError:
        return False  # altered: what follows finds that out


class Integrator:
    """Appends to the log; one turn at a time over all processes."""

    def __init__(self, pool: asyncpg.Pool[Any], identity: Identity, key: Ed25519Key) -> None:
        """Does nothing when `key` is not the identity's: then nodes with the right key do it."""
        self._pool = pool
        self.origin = identity.origin
        self._key = key
        self._public = key.public_key().public_bytes_raw()
        self.ours = identity.verifier.public == self._public
        self._gone = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.ours:
            self._task = asyncio.create_task(self._repeat(), name="integrator")
        else:
            log.warning(
                "this node does not sign the transparency log: its key is another one. Give all nodes the same "
                "--log-key, or have the log signed with this one from now on: `lienthong log use-key`"
            )

    async def stop(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])

    async def _repeat(self) -> None:
        pruned = complained = float("-inf")
        full = False
        while True:
            pause, full = 0.0 if full else PAUSE_SECONDS * 0.8, False
            try:
                full = await self.integrate(pause) == BATCHES
                metrics.LOG_BROKEN.set(0)
                if time.monotonic() - pruned > PRUNE_SECONDS:
                    await self._pool.execute(SQL.prune)
                    pruned = time.monotonic()
            except LogBrokenError as error:
                metrics.LOG_BROKEN.set(1)
                if time.monotonic() - complained > BROKEN_SECONDS:
                    log.critical("the transparency log was altered in the database", error=str(error))
                    complained = time.monotonic()
            except (*UNAVAILABLE, TimeoutError, asyncpg.PostgresError) as error:
                log.warning("the log waits for the database", error=str(error))
            except Problem as problem:
                log.warning("the log waits for its key", error=str(problem))
            except Exception:  # a log that stops unnoticed would break its promises
                log.exception("the log could not be continued")
            await asyncio.sleep(0 if full else PAUSE_SECONDS)

    async def integrate(self, pause: float = 0.0) -> int:
        """One turn; how many batches it took. Does nothing when the last checkpoint is younger than `pause`
        seconds, another process is at it, or the log has another key by now.

        Raises LogBrokenError, or `Problem` key-unavailable when the log's key is in a token that does not sign.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(SQL.try_lock):
                return 0
            signer = read_verifier(await connection.fetchval(SQL.signer))
            if (signer.public, signer.name) != (self._public, self.origin):
                self._replaced()
                return 0
            newest = await connection.fetchrow(SQL.newest)
            if newest is not None and newest["age"] < pause:
                return 0
            batches = await connection.fetch(SQL.pending, BATCHES)
            if len(batches) < BATCHES:
                gone = await connection.fetchval(SQL.gone)
                if gone > self._gone:  # said once, not every second; they go on waiting, which `lag` shows
                    log.error("sealed batches are gone before they were logged", batches=gone)
                self._gone = gone
            # A log in which nothing happens is signed once more when it has got another key: whoever trusts that
            # one alone would take the newest checkpoint for a stranger's.
            if newest is not None and not batches and _signed_by(newest["note"], signer):
                return 0
            edge = await self._edge(connection, newest)
            firsts = []
            for row in batches:
                firsts.append(edge.size)
                entries = split_hashes(row["leaves"])
                for start in range(0, len(entries), SLICE * 256):
                    edge.append(entries[start : start + SLICE * 256])
                if len(firsts) % SLICE == 0:
                    await asyncio.sleep(0)
            checkpoint = Checkpoint(self.origin, edge.size, edge.root())
            sign = partial(signature_line, self.origin, self._key, checkpoint.text)
            # A key in a token is not waited for as long as it may like: this transaction waits with it.
            line = await (elsewhere(sign) if getattr(self._key, "slow", False) else asyncio.to_thread(sign))
            tiles = edge.changed()
            await connection.execute(
                SQL.append,
                [row["batch"] for row in batches],
                firsts,
                *([tile[column] for tile in tiles] for column in range(3)),
                checkpoint.size,
                checkpoint.root,
                checkpoint.text + "\n" + line,
            )
        metrics.LOG_ENTRIES.set(checkpoint.size)
        return len(batches)

    def _replaced(self) -> None:
        """Another key was put in the place of this node's, perhaps by a thief, or another log was begun."""
        if self.ours:
            self.ours = False
            log.warning("this node does not sign the transparency log any more: it has another key or name by now")

    async def _edge(self, connection: Any, newest: asyncpg.Record | None) -> Edge:
        if newest is None:
            return Edge()
        rows = await connection.fetch(SQL.edge, newest["size"])
        try:
            edge = Edge(newest["size"], [(row["level"], row["hashes"]) for row in rows])
            if edge.root() == newest["root"] and newest["note"].startswith(
                Checkpoint(self.origin, newest["size"], newest["root"]).text
            ):
                return edge
        except ValueError:
            pass
        raise LogBrokenError(
            f"the tree stored under {newest['size']} entries of {self.origin} is not the one that was signed; "
            "nothing more is logged until the tables are what they were: restore them from a backup"
        )
