"""An audit of a hub's log, as an outsider makes it: what is fetched, compared and concluded, and in which order.

First what others were shown (witnesses, files), then what the hub shows now: so an honest hub is never behind.
Then the tree below that checkpoint, receipts that somebody holds, and events that the hub still has
(`protocol/client/audit_events.py`). Each step adds findings and leaves the next ones to be done; what cannot be
fetched is a finding too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from protocol.audit import (
    BrokenTreeError,
    Remembered,
    Seen,
    contradiction,
    moment,
    own_key,
    prefix_proof,
    rewriting,
)
from protocol.client.log import About, FetchError, LogClient, Tree, WithheldError
from protocol.findings import Finding, Severity, convicted, found, shown
from protocol.log import TILE_WIDTH, LogError, node_from, root, tiles_needed
from protocol.misbehaviour import read_misbehaviour
from protocol.note import Note, NoteError, Verifier, read_note, read_verifier
from protocol.problems import LienthongError

SAMPLE_BUNDLES = 16
"""Of what was checked before, how many bundles of 256 entries are looked at again."""
NEW_BUNDLES = 20_000
"""Of what is new, how many at a time: 5 million entries, 340 MB."""
WINDOW = 16
AGAIN_SECONDS = 2.0
"""Between two looks at a log that seems to be behind: proxies may keep a checkpoint for a second."""
FINDINGS = 100
"""Findings of one kind that are told; what is wrong a million times need not be said so often."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness whose key is known, and where it answers, if it is to be asked."""

    verifier: Verifier
    url: str | None = None


@dataclass(slots=True)
class Plan:
    """What is to be audited."""

    full: bool = False
    """Everything from the first entry on; otherwise what is new, and a sample of the rest."""
    bundles: int = SAMPLE_BUNDLES
    new_bundles: int = NEW_BUNDLES
    witnesses: Sequence[Witness] = ()
    shown: Sequence[tuple[str, str]] = ()
    """Checkpoints that others were shown: whose, and the note."""
    wanted: set[bytes] = field(default_factory=set)
    """Entries to be looked for on the way."""


@dataclass(slots=True)
class Report:
    """What came of an audit."""

    url: str
    origin: str
    vkey: str
    at: datetime
    findings: list[Finding] = field(default_factory=list)
    seen: Seen | None = None
    before: Seen | None = None
    new_entries: int = 0
    old_entries: int = 0
    walked: int = 0
    """All entries below were checked, now or before."""
    checked: bool = False
    """Whether the tree could be looked at at all."""
    cosigned: list[tuple[str, datetime]] = field(default_factory=list)
    """Trusted witnesses under the checkpoint, and the times that they state."""
    compared: list[tuple[str, int]] = field(default_factory=list)
    """Whose checkpoints agree with the hub's, and their sizes."""
    receipts: int = 0
    """Receipts found to be in the log."""
    events: int = 0
    """Events of the hub's store found to be those in the log."""

    def add(self, finding: Finding) -> None:
        if finding not in self.findings and sum(one.code == finding.code for one in self.findings) < FINDINGS:
            self.findings.append(finding)

    @property
    def status(self) -> int:
        """The exit status: 0 nothing wrong, 1 something is, 2 something could not be checked."""
        severities = {finding.severity for finding in self.findings}
        return 1 if Severity.ALARM in severities else 2 if Severity.UNCHECKED in severities else 0


class Audit:
    """One audit. `run` it once; `remembered` is changed to what is to be remembered."""

    def __init__(
        self,
        client: LogClient,
        remembered: Remembered,
        plan: Plan,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.client = client
        self.remembered = remembered
        self.plan = plan
        self.clock = clock
        self.report = Report(client.url, remembered.origin, remembered.vkey, clock())
        self.chance = random.SystemRandom()
        self.tree: Tree | None = None
        """Of the checkpoint that the hub shows, once its root is known to be right."""
        self.note = ""
        """That checkpoint with all signatures that stand under it."""
        self.places: dict[bytes, int] = {}
        """Where entries that were `wanted` are."""
        self._others: list[Seen] = []
        self._agreed: set[tuple[int, bytes]] = set()

    @property
    def keys(self) -> tuple[Verifier, ...]:
        """The log's trusted key, and those by which remembered checkpoints were checked."""
        written = [self.remembered.vkey, *(key for sight in self.remembered.sights for key in sight.keys)]
        return tuple(read_verifier(key) for key in dict.fromkeys(written))

    def tell(self, code: str, detail: str) -> None:
        self.report.add(found(code, detail))

    @contextmanager
    def step(self, what: str = "") -> Iterator[None]:
        """Turn what goes wrong in a step into a finding."""
        try:
            yield
        except LienthongError as error:
            self.fail(what, error)

    def fail(self, what: str, error: LienthongError) -> None:
        """Tell what went wrong in a step."""
        detail = f"{what}: {error}" if what else str(error)
        if isinstance(error, BrokenTreeError):
            code = "withheld" if isinstance(error, WithheldError) else "broken-tree"
            self.tell(code, f"{detail} (entries {error.first} to {error.end - 1})")
        elif isinstance(error, FetchError) and (error.status in (0, 429) or error.status >= 500):
            self.tell("unreachable", detail)
        else:
            self.tell("not-a-log", detail)

    # -- the checkpoint -------------------------------------------------------------------------

    async def run(self) -> Report:
        """Audit the log; see `protocol/client/audit_events.py` for receipts and events."""
        await self._ask_others()
        with self.step("the log's checkpoint"):
            await self._look()
        if self.tree is not None:
            with self.step("looking through the log"):
                await self._walk()
            with self.step("the log at a glance"):
                self._standing(await self.client.about())
        return self.report

    async def _look(self) -> None:
        seen = self._opened(await self.client.checkpoint())
        if seen is None:
            return
        ahead = max((other.size for other in self._others), default=0)
        if seen.size < ahead:
            await asyncio.sleep(AGAIN_SECONDS)
            seen = self._opened(await self.client.checkpoint()) or seen
        self.report.seen = seen
        self.report.before = before = self.remembered.last()
        for other in [*map(self.remembered.seen, self.remembered.sights), *self._others]:
            if (proof := contradiction(other, seen)) is not None:
                self.report.add(convicted(proof, _against(other), self.clock()))
        tree = Tree(self.client, seen)
        await tree.open()
        self.tree, self.report.checked = tree, True
        honest = await self._compare_past(seen.size)
        for other in self._others:
            if await self.compare(other):
                self.report.compared.append((other.where, other.size))
        if honest and (before is None or seen.size >= before.size):
            self.remembered.remember(seen, self.clock())

    def _opened(self, written: str) -> Seen | None:
        """The hub's checkpoint, if the trusted key signed it; says what is wrong with it otherwise."""
        try:
            note = read_note(written)
        except NoteError as error:
            raise LogError(f"the checkpoint cannot be read: {error}") from None
        trusted = read_verifier(self.remembered.vkey)
        try:
            seen = own_key(written, [trusted])
        except LogError as error:
            named = any((line.name, line.id) == (trusted.name, trusted.id) for line in note.signatures)
            code = "bad-signature" if named else "unknown-key"
            self.tell(code, f"trusted is {trusted}; {error}")
            return None
        self.note = written
        self.report.cosigned = []
        for witness in self.plan.witnesses:
            self._cosigned(note, witness.verifier)
        return seen._replace(where="the hub", at=self.clock())

    def _cosigned(self, note: Note, witness: Verifier) -> None:
        for line in note.signatures:
            if (line.name, line.id) == (witness.name, witness.id):
                try:
                    at = witness.check(note.text, line.signature)
                    at = None if at is None else moment(at.isoformat())
                except LienthongError as error:
                    self.tell("bad-cosignature", f"{witness.name}: {error}")
                else:
                    if at is not None:
                        self.report.cosigned.append((witness.name, at))

    async def _compare_past(self, size: int) -> bool:
        """Whether the log begins with what was seen before.

        The largest that it can be compared with tells: the others were found in that one when it was new.
        """
        past = [self.remembered.seen(sight) for sight in reversed(self.remembered.sights)]
        honest = not past or await self.compare(past[0])
        if past and past[0].size > size:
            for other in past:
                if other.size <= size:
                    await self.compare(other)
                    break
        return honest

    async def compare(self, other: Seen) -> bool:
        """Whether the hub's log begins with `other`, a checkpoint seen elsewhere or before. Says so if not."""
        assert self.tree is not None
        seen, remembered = self.tree.seen, other.where == "remembered"
        if (other.size, other.checkpoint.root) in self._agreed:
            return True
        if other.size > seen.size:
            when = f" ({shown(other.at)})" if other.at else ""
            whose = f"you saw{when}" if remembered else f"{other.where} has{when}"
            self.tell(
                "shrank" if remembered else "behind-witness",
                f"the log that {whose} had {other.size} entries; now {seen.size} are shown",
            )
            return False
        proof = contradiction(other, seen)
        if proof is None and 0 < other.size < seen.size:
            size = other.size
            tiles = await self.tree.tiles(
                tiles_needed(seen.size, lambda node: (prefix_proof(size, seen.size, node), root(size, node)))
            )
            proof = rewriting(other, seen, node_from(tiles, seen.size))
        if proof is not None:
            self.report.add(convicted(proof, _against(other), self.clock()))
            return False
        self._agreed.add((other.size, other.checkpoint.root))
        return True

    # -- others ---------------------------------------------------------------------------------

    async def _ask_others(self) -> None:
        for whose, note in self.plan.shown:
            with self.step(whose):
                self._others.append(own_key(note, self.keys)._replace(where=whose))
        for witness in self.plan.witnesses:
            if witness.url is not None:
                with self.step(f"the witness {witness.verifier.name}"):
                    await self._ask(witness.verifier, witness.url)
        for place, one in enumerate(self._others):
            for other in self._others[:place]:
                if (proof := contradiction(other, one)) is not None:
                    self.report.add(convicted(proof, f"{other.where} and {one.where}", self.clock()))

    async def _ask(self, witness: Verifier, url: str) -> None:
        logs = await self.client.witness(url)
        log = next((log for log in logs if log.get("origin") == self.remembered.origin), None)
        if log is None:
            raise FetchError(f"it does not follow {self.remembered.origin}", 200)
        if log.get("misbehaviour"):
            for told in await self.client.witness_evidence(url):
                self._told(told, witness)
        note = log.get("checkpoint")
        if not isinstance(note, str) or not note:
            raise FetchError("it has not signed a checkpoint of this log yet", 200)
        seen = own_key(note, self.keys)
        signed = read_note(note)
        at = [
            witness.check(signed.text, line.signature)
            for line in signed.signatures
            if (line.name, line.id) == (witness.name, witness.id)
        ]
        if not at:
            raise LogError("what it shows is not signed with the key that you gave for it")
        self._others.append(seen._replace(where=f"the witness {witness.name}", at=at[0]))

    def _told(self, told: object, witness: Verifier) -> None:
        """What a witness says it found is believed as far as it proves itself."""
        try:
            proof = read_misbehaviour(msgspec.json.encode(told.get("found") if isinstance(told, dict) else None))
            if proof.origin == self.remembered.origin and proof.conclusive:
                own = msgspec.structs.replace(proof, keys=tuple(map(str, self.keys)))
                self.report.add(convicted(own, f"kept by the witness {witness.name}", self.clock()))
        except LogError as error:
            self.tell("not-a-log", f"the evidence of the witness {witness.name}: {error}")

    # -- the tree -------------------------------------------------------------------------------

    async def _walk(self) -> None:
        """Download what is new (or everything) and a sample of the rest, and check it."""
        assert self.tree is not None
        size = self.tree.size
        count = -(-size // TILE_WIDTH)
        start = 0 if self.plan.full else min(self.remembered.walked, size) // TILE_WIDTH
        end = count if self.plan.full else min(count, start + self.plan.new_bundles)
        wrong: list[int] = []
        for first in range(start, end, WINDOW):
            last = min(first + WINDOW, end)
            wrong += await self._check(range(first, last))
            if not wrong:
                self.remembered.walked = max(self.remembered.walked, min(last * TILE_WIDTH, size))
            self.report.new_entries += min(last * TILE_WIDTH, size) - first * TILE_WIDTH
        old = sorted(self.chance.sample(range(start), min(start, self.plan.bundles)))
        for place in range(0, len(old), WINDOW):
            wrong += await self._check(old[place : place + WINDOW])
        self.report.old_entries = len(old) * TILE_WIDTH
        if end < count:
            self.tell("remainder", f"entries from {end * TILE_WIDTH} to {size - 1}")
        if wrong:  # what was wrong once is looked at each time, until it is right
            self.remembered.walked = min(self.remembered.walked, min(wrong) * TILE_WIDTH)
        self.report.walked = self.remembered.walked

    async def _check(self, bundles: Sequence[int]) -> list[int]:
        """Check bundles; gives those that are wrong, each of them with a finding."""
        assert self.tree is not None
        try:
            self._find(await self.tree.bundles(bundles))
        except BrokenTreeError:
            wrong = []
            for bundle in bundles:
                wrong.append(bundle)
                with self.step():
                    self._find(await self.tree.bundles([bundle]))
                    wrong.pop()
            return wrong
        return []

    def _find(self, bundles: dict[int, list[bytes]]) -> None:
        if self.plan.wanted:
            for bundle, entries in bundles.items():
                for place, entry in enumerate(entries):
                    if entry in self.plan.wanted:
                        self.places.setdefault(entry, bundle * TILE_WIDTH + place)

    def _standing(self, about: About) -> None:
        """Whether the log still moves."""
        if about.waiting and about.checkpoint_at is not None:
            since = moment(about.checkpoint_at)
            if (self.clock() - since).total_seconds() > about.within_seconds:
                self.tell(
                    "standstill",
                    f"{about.waiting} batches of events wait; the last checkpoint is of {shown(since)}, and the "
                    f"hub promises {about.within_seconds:g} seconds",
                )


def _against(other: Seen) -> str:
    if other.where == "remembered":
        return f"what you saw at {shown(other.at)}, and now" if other.at else "what you saw before, and now"
    return f"what {other.where} was shown, and what you are"
