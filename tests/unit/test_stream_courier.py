"""What a connection is pushed: from commits and from the store together, everything once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.couriers import stream as couriers
from hub.couriers.mailbox import Page, compose
from hub.couriers.stream import StreamCourier
from hub.relay.format import Format
from hub.relay.handed import Entry
from hub.relay.live import Live
from hub.relay.mail import END, After, Mail
from protocol.problems import Problem
from protocol.stream import Credit, Hello, Role, Session, State, Welcome
from tests.support.until import until

ENDPOINT, LANES, NORMAL = 7, 3, 2
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)


def mail(seq: int, lane: int, size: int = 10, expires_at: datetime | None = None) -> Mail:
    entry = Entry(seq, UUID(int=seq), b"", "000.00.00.H63", f"{seq}/UBND", 1, ["000.00.31.H63"])
    return Mail(entry, lane, Format.JWS, size, NOW, expires_at, b"x" * size)


class Store:
    """One mailbox, as all processes of the hub write it, and as this one's `Mailboxes` reads it.

    Each read waits until it is let through, and sees what was there then or what had been there when it was
    asked for.
    """

    def __init__(self) -> None:
        self.lanes: tuple[list[Mail], ...] = ([], [], [])
        self.seq = 0
        self.reads: list[asyncio.Future[bool]] = []
        """Reads under way: whether each sees what came while it waited."""
        self.read = 0
        self.asked: list[tuple[After, After]] = []
        """Of each read, what it begins after and where it ends."""
        self.away = False
        self.noted: list[tuple[int, int, list[int]]] = []
        self.expired: list[int] = []
        self._turn = 0

    def commit(
        self, *lanes: int, size: int = 10, expires_at: datetime | None = None
    ) -> dict[int, tuple[int, list[Mail]]]:
        """Write entries into lanes in this order; by lane, the last sequence before them and the new ones."""
        written: dict[int, tuple[int, list[Mail]]] = {}
        for lane in lanes:
            self.seq += 1
            before = self.lanes[lane][-1].entry.seq if self.lanes[lane] else 0
            item = mail(self.seq, lane, size, expires_at)
            self.lanes[lane].append(item)
            written.setdefault(lane, (before, []))[1].append(item)
        return written

    async def page(
        self, endpoint: int, after: After, limit: int, until: After, shares: tuple[int, int, int]
    ) -> Page:
        assert endpoint == ENDPOINT and limit >= 1
        before = [list(lane) for lane in self.lanes]
        allowed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.reads.append(allowed)
        self.asked.append((after, until))
        fresh = await allowed
        self.read += 1
        if self.away:
            raise Problem("store-unavailable", retry_after=2)
        rows = [
            [item for item in lane if low < item.entry.seq <= high and item.entry.seq not in self.expired][
                : limit + 1
            ]
            for lane, low, high in zip(self.lanes if fresh else before, after, until, strict=True)
        ]
        take = compose((len(rows[0]), len(rows[1]), len(rows[2])), limit, self._turn)
        self._turn += 1
        taken = [lane[:count] for lane, count in zip(rows, take, strict=True)]
        cursor = [lane[-1].entry.seq if lane else low for lane, low in zip(taken, after, strict=True)]
        entries = [item for lane in taken for item in lane]
        return Page(entries, (cursor[0], cursor[1], cursor[2]), len(entries) < sum(map(len, rows)))

    def let_read(self, fresh: bool = True) -> bool:
        """Let the oldest read through."""
        while self.reads:
            allowed = self.reads.pop(0)
            if not allowed.done():
                allowed.set_result(fresh)
                return True
        return False

    def note(self, endpoint: int, lane: int, after: int, floor: int | None, done: bool, taken: list[Mail]) -> None:
        assert (endpoint, floor, done) == (ENDPOINT, None, False)
        self.noted.append((lane, after, [item.entry.seq for item in taken]))

    async def expire(self, endpoint: int, expired: dict[int, datetime]) -> None:
        if self.away:
            raise Problem("store-unavailable", retry_after=2)
        self.expired += expired


class Waiters:
    """Who asked to be woken."""

    def __init__(self) -> None:
        self.all: set[Any] = set()

    def add(self, waiter: Any) -> None:
        self.all.add(waiter)

    def remove(self, waiter: Any) -> None:
        self.all.remove(waiter)


class Scene:
    """A courier between a store and a reader."""

    def __init__(self, messages: int = 1000, size: int = 1 << 20, after: After = (0, 0, 0)) -> None:
        self.store = Store()
        self.session = Session(Role.HUB)
        self.session._step(Hello(messages, size), Role.CLIENT)
        self.session.send(Welcome("trục", 1, 1, 30))
        self.live, self.wake = Live(), Waiters()
        self.pushed: tuple[list[int], ...] = ([], [], [])
        self.pages: list[Page] = []
        self.failed: list[Exception] = []
        self.hold: Callable[[], Awaitable[None]] | None = None
        self.after = after
        self.courier = StreamCourier(
            ENDPOINT,
            after,
            self.store,  # type: ignore[arg-type]
            self.wake,  # type: ignore[arg-type]
            self.live,
            self.session,
            self.push,
            self.failed.append,
        )

    async def push(self, page: Page) -> None:
        self.session.mail(
            [b"{}"] * len(page.entries), sum(item.weight for item in page.entries), "0.0.0", page.more
        )
        self.pages.append(page)
        for item in page.entries:
            self.pushed[item.lane].append(item.entry.seq)
        self.check(page.cursor)
        if self.hold is not None:
            await self.hold()

    def check(self, cursor: After) -> None:
        """What was pushed is a beginning of what is there, and the cursor reaches just as far."""
        for lane, pushed in enumerate(self.pushed):
            there = [item.entry.seq for item in self.store.lanes[lane] if item.entry.seq > self.after[lane]]
            there = [seq for seq in there if seq not in self.store.expired]
            assert pushed == there[: len(pushed)]
            reached = [seq for seq in there if seq <= cursor[lane]]
            assert reached == pushed, f"acknowledging {cursor} would end what was not pushed"

    def grant(self, messages: int = 1000, size: int = 1 << 20) -> None:
        self.session._step(Credit(messages, size), Role.CLIENT)
        self.courier.granted()

    def own(self, *lanes: int, **options: Any) -> None:
        """A commit by this process."""
        for lane, (previous, mails) in self.store.commit(*lanes, **options).items():
            self.courier.offer(lane, previous, mails)

    def hear(self, lane: int, seq: int) -> None:
        """Another process's announcement, as `Wake` passes it on."""
        if seq > self.courier.after[lane]:
            self.courier.heard()

    async def settle(self) -> None:
        """Until nothing is under way that no read holds up."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Let everything be read and pushed."""
        for _ in range(200):
            await self.settle()
            if self.store.let_read():
                continue
            if not self.session.may_push:
                self.grant()
            elif self.courier._task is None and not self.courier._has_work():
                return
        raise AssertionError("it never comes to an end")


async def started(**options: Any) -> Scene:
    """A courier that has read its empty mailbox."""
    scene = Scene(**options)
    scene.courier.granted()
    await scene.finish()
    scene.store.read = 0
    return scene


# -- one thing at a time ------------------------------------------------------------------------------


async def test_what_waits_is_read_first_and_what_is_committed_comes_from_memory() -> None:
    scene = Scene()
    scene.store.commit(NORMAL, 0, NORMAL)
    scene.courier.granted()
    await scene.finish()
    assert scene.pushed == ([2], [], [1, 3])
    assert scene.store.read == 1
    for _ in range(5):
        scene.own(NORMAL, 1)
        await scene.settle()
    assert scene.pushed == ([2], [5, 7, 9, 11, 13], [1, 3, 4, 6, 8, 10, 12])
    assert scene.store.read == 1, "not read again"
    assert scene.live.held == 0


async def test_a_commit_while_the_mailbox_is_read_comes_once() -> None:
    for fresh in (True, False):  # the read sees it, or does not
        scene = Scene()
        scene.store.commit(NORMAL)
        scene.courier.granted()
        await scene.settle()
        scene.own(NORMAL, NORMAL)
        scene.store.let_read(fresh)
        await scene.settle()
        assert scene.pushed[NORMAL] == [1, 2, 3]
        await scene.finish()


async def test_offers_that_come_in_another_order_wait_for_each_other() -> None:
    scene = await started()
    first, second, third = (scene.store.commit(NORMAL)[NORMAL] for _ in range(3))
    scene.courier.offer(NORMAL, *third)
    scene.courier.offer(NORMAL, *second)
    scene.courier.offer(NORMAL, *first)
    await scene.settle()
    assert scene.pushed[NORMAL] == [1, 2, 3]
    assert scene.store.read == 0


async def test_the_gap_that_another_process_left_is_read_and_nothing_else() -> None:
    scene = await started()
    scene.own(NORMAL)
    await scene.settle()
    scene.store.commit(NORMAL, NORMAL)
    scene.own(NORMAL, NORMAL)
    await scene.settle()
    assert scene.pushed[NORMAL] == [1]
    scene.store.commit(0)
    scene.own(0)
    await scene.finish()
    assert scene.pushed == ([6, 7], [], [1, 2, 3, 4, 5])
    assert scene.store.asked[-2:] == [((0, 0, 1), (0, 0, 3)), ((0, 0, 5), (6, 0, 5))]


async def test_a_gap_larger_than_the_credit_is_read_in_parts() -> None:
    scene = await started(messages=2)
    scene.store.commit(*[NORMAL] * 9)
    scene.own(NORMAL)
    await scene.finish()
    assert scene.pushed[NORMAL] == list(range(1, 11))
    assert len(scene.pages[0].entries) == 2


async def test_a_gap_whose_entries_have_ended_holds_nothing_up() -> None:
    """Another process's reader was faster."""
    scene = await started()
    scene.store.commit(NORMAL, NORMAL)
    scene.store.expired += [1, 2]
    scene.own(NORMAL)
    await scene.finish()
    assert scene.pushed[NORMAL] == [3]
    assert scene.store.read == 1


async def test_a_backlog_is_read_to_its_end() -> None:
    scene = Scene(messages=2)
    scene.store.commit(*[NORMAL] * 9)
    scene.courier.granted()
    await scene.finish()
    assert scene.pushed[NORMAL] == list(range(1, 10))
    assert scene.store.read == 2


async def test_mail_that_was_only_announced_is_read() -> None:
    scene = await started()
    scene.store.commit(1)
    scene.hear(1, 1)
    await scene.finish()
    assert scene.pushed[1] == [1]
    scene.hear(1, 1)
    await scene.settle()
    assert scene.store.read == 1, "what it has is not looked for again"


async def test_without_credit_nothing_is_read_and_nothing_kept() -> None:
    scene = Scene(messages=0, size=0)
    scene.courier.granted()
    await scene.settle()
    assert not scene.wake.all and len(scene.live) == 0 and not scene.store.reads
    scene.store.commit(NORMAL)
    scene.grant(1, 1)
    await scene.finish()
    assert scene.pushed[NORMAL] == [1]


async def test_credit_bounds_each_push_and_is_not_exceeded() -> None:
    scene = await started(messages=3, size=1000)
    scene.own(*[NORMAL] * 10)
    await scene.settle()
    assert scene.pushed[NORMAL] == [1, 2, 3]
    scene.session._step(Credit(10, 0), Role.CLIENT)
    scene.session.mail_bytes = 25
    scene.courier.granted()
    await scene.settle()
    assert scene.pushed[NORMAL] == [1, 2, 3, 4, 5, 6], "two fit, and while anything is left one more may overdraw"
    assert scene.session.mail_bytes == -5
    scene.grant(0, 1000)
    await scene.settle()
    assert scene.pushed[NORMAL] == list(range(1, 11))
    assert scene.live.held == 0


async def test_a_slow_reader_is_let_go_and_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "HELD_BYTES", 10_000)
    scene = await started(messages=2, size=1 << 20)
    for _ in range(100):
        scene.own(NORMAL, 0, size=100)
        assert scene.live.held <= 10_000
        await scene.settle()
    assert sum(map(len, scene.pushed)) == 2
    assert scene.live.held == 0, "what is read again is not kept"
    scene.grant()
    await scene.finish()
    assert scene.pushed == (list(range(2, 201, 2)), [], list(range(1, 200, 2)))
    scene.own(NORMAL)
    reads = scene.store.read
    await scene.settle()
    assert scene.pushed[NORMAL][-1] == 201 and scene.store.read == reads, "it is served from memory again"


async def test_all_slow_readers_together_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "ALL_HELD_BYTES", 5_000)
    scene = await started(messages=1)
    scene.own(NORMAL, NORMAL)
    await scene.settle()
    assert 0 < scene.live.held <= 5_000
    scene.live.held += 10_000  # another reader's
    scene.own(NORMAL)
    assert scene.live.held == 10_000
    scene.live.held -= 10_000
    await scene.finish()
    assert scene.pushed[NORMAL] == [1, 2, 3]


async def test_let_go_in_the_middle_of_a_read_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "HELD_BYTES", 2_000)
    scene = Scene()
    scene.store.commit(NORMAL)
    scene.courier.granted()
    await scene.settle()
    for _ in range(20):
        scene.own(NORMAL, 1, size=200)
    scene.store.let_read(fresh=False)
    await scene.finish()
    assert [len(lane) for lane in scene.pushed] == [0, 20, 21]


# -- expiry, and a store that is away -----------------------------------------------------------------


async def test_what_expired_in_memory_is_ended_and_not_pushed() -> None:
    scene = await started(messages=1)
    past = datetime.now(UTC) - timedelta(seconds=1)
    scene.own(NORMAL)
    await scene.settle()
    scene.own(NORMAL, 0, expires_at=past)
    scene.own(NORMAL, expires_at=past + timedelta(hours=1))
    scene.grant()
    await scene.finish()
    assert sorted(scene.store.expired) == [2, 3]
    assert scene.pushed == ([], [], [1, 4])
    assert scene.store.noted[-1] == (NORMAL, 1, [4]), "the memory of what was handed out does not have it"
    assert scene.live.held == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "RETRY_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_is_away_is_asked_again() -> None:
    scene = Scene()
    scene.store.commit(NORMAL)
    scene.store.away = True
    scene.courier.granted()
    for _ in range(3):
        await until(scene.store.let_read, "it is read again")
        await scene.settle()
    scene.store.away = False
    await until(scene.store.let_read, "it is read again")
    await scene.finish()
    assert scene.pushed[NORMAL] == [1]
    assert scene.failed == []


@pytest.mark.usefixtures("impatient")
async def test_what_expired_is_not_passed_over_while_the_store_is_away() -> None:
    """Else an acknowledgement by cursor would end it as received, by somebody who never saw it."""
    scene = await started(messages=1)
    past = datetime.now(UTC) - timedelta(seconds=1)
    scene.own(NORMAL)
    await scene.settle()
    scene.own(NORMAL, expires_at=past)
    scene.own(NORMAL)
    scene.store.away = True
    scene.grant()
    await scene.settle()
    assert scene.pushed[NORMAL] == [1]
    scene.store.away = False
    await until(lambda: scene.pushed[NORMAL] == [1, 3], "the rest is pushed")
    assert scene.store.expired == [2]
    assert scene.failed == []
    await scene.finish()


async def test_any_other_failure_is_told_to_whoever_owns_the_connection() -> None:
    scene = await started()

    async def broken() -> None:
        raise ConnectionResetError

    scene.hold = broken
    scene.own(NORMAL)
    await scene.settle()
    assert [type(error) for error in scene.failed] == [ConnectionResetError]

    async def refused() -> None:
        raise Problem("unauthenticated")

    scene.hold = refused
    scene.own(NORMAL)
    await scene.settle()
    assert len(scene.failed) == 2


# -- the end ------------------------------------------------------------------------------------------


async def test_after_the_end_nothing_is_pushed_or_kept() -> None:
    scene = await started(messages=1)
    scene.own(NORMAL, NORMAL)
    await scene.settle()
    await scene.courier.stop()
    await scene.courier.stop()
    assert not scene.wake.all and len(scene.live) == 0 and scene.live.held == 0
    scene.grant()
    await scene.settle()
    assert scene.pushed[NORMAL] == [1]


async def test_a_courier_that_never_started_can_be_stopped() -> None:
    scene = Scene(messages=0, size=0)
    await scene.courier.stop()
    scene.grant()
    await scene.settle()
    assert len(scene.live) == 0


async def test_a_read_that_comes_back_after_the_goodbye_is_not_pushed() -> None:
    for state in (State.CLOSING, State.CLOSED):
        scene = Scene()
        scene.store.commit(NORMAL)
        scene.courier.granted()
        await scene.settle()
        scene.session.state = state
        scene.store.let_read()
        await scene.settle()
        assert scene.pages == [] and scene.failed == []


# -- everything at once -------------------------------------------------------------------------------

LANE = st.integers(0, LANES - 1)
STEPS = st.one_of(
    st.tuples(st.just("own"), st.lists(LANE, min_size=1, max_size=3)),
    st.tuples(st.just("other"), st.lists(LANE, min_size=1, max_size=3)),
    st.tuples(st.just("offer"), st.integers(0, 5)),
    st.tuples(st.just("hear"), st.integers(0, 5)),
    st.tuples(st.just("read"), st.booleans()),
    st.tuples(st.just("grant"), st.tuples(st.integers(0, 3), st.integers(0, 40))),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("let go"), st.none()),
)


@settings(max_examples=400, deadline=None)
@given(
    st.tuples(st.integers(0, 3), st.integers(0, 40)),
    st.lists(LANE, max_size=4),
    st.lists(STEPS, max_size=40),
    st.booleans(),
)
def test_two_processes_commit_and_a_reader_gets_everything_once_and_in_order(
    credit: tuple[int, int], there: list[int], steps: list[tuple[str, Any]], announced: bool
) -> None:
    """Whatever comes when: commits of both, offers late and out of order, announcements late or lost, reads that
    see what came meanwhile or do not, credit in drops. `Scene.check` looks at every push.
    """

    async def play() -> None:
        scene = Scene(*credit)
        scene.store.commit(*there)
        scene.courier.granted()
        offers: list[tuple[int, int, list[Mail]]] = []
        news: list[tuple[int, int]] = []
        for step, what in steps:
            if step in ("own", "other"):
                written = scene.store.commit(*what)
                live = scene.live.endpoints()
                for lane, (previous, mails) in written.items():
                    if step == "own" and ENDPOINT in live:
                        offers.append((lane, previous, mails))
                    else:
                        news.append((lane, mails[-1].entry.seq))
            elif step == "offer" and offers:
                lane, previous, mails = offers.pop(what % len(offers))
                scene.courier.offer(lane, previous, mails)
                scene.hear(lane, mails[-1].entry.seq)
            elif step == "hear" and news:
                heard = news.pop(what % len(news))
                if announced:
                    scene.hear(*heard)
            elif step == "read":
                scene.store.let_read(what)
            elif step == "grant":
                scene.grant(*what)
            elif step == "turn":
                for _ in range(what):
                    await asyncio.sleep(0)
            elif step == "let go" and len(scene.live):
                scene.courier._let_go()
        for offer in offers:
            scene.courier.offer(*offer)
        scene.grant()
        await scene.finish()
        for lane in range(LANES):  # the look every two seconds
            if scene.store.lanes[lane]:
                scene.hear(lane, scene.store.lanes[lane][-1].entry.seq)
        await scene.finish()
        assert scene.failed == []
        assert scene.pushed == tuple([item.entry.seq for item in lane] for lane in scene.store.lanes)
        assert scene.live.held == 0
        await scene.courier.stop()

    asyncio.run(play())


def test_the_end_of_a_mailbox_lies_beyond_every_sequence() -> None:
    assert all(seq >= 1 << 62 for seq in END)
