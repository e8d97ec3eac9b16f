"""What a stream's client says of the mail it is done with: all of that, and nothing of the rest."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from protocol.client.work import Acking, Tally, read_cursor, write_cursor
from protocol.stream import Refusal


def acking(loop: asyncio.AbstractEventLoop, entries: tuple[tuple[int, int], ...], **members: object) -> Acking:
    return Acking(0.0, loop.create_future(), entries=entries, **members)  # type: ignore[arg-type]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hand"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("done"), st.integers(0, 50), st.integers(1, 4)),
        st.tuples(st.just("again"), st.integers(0, 50), st.just(1)),
        st.tuples(st.just("up to"), st.integers(0, 50), st.just(1)),
        st.tuples(st.just("stranger"), st.integers(1000, 1005), st.just(1)),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_frames_acknowledge_what_the_application_is_done_with_and_nothing_else(
    steps: list[tuple[str, int, int]], from_start: bool
) -> None:
    """Whatever is handed and done in whatever order, and however often a frame has to be made again."""
    loop = asyncio.new_event_loop()
    tally = Tally(from_start)
    handed: list[tuple[int, int]] = []  # lane and sequence
    done: set[int] = set()
    told: set[int] = set()
    works: list[Acking] = []
    seq = 0
    for step, number, count in steps:
        if step == "hand":
            for _ in range(count):
                seq += 1
                handed.append((number, seq))
                tally.handed(number, seq)
            continue
        if step == "up to":
            cursor = [0, 0, 0]
            for lane, one in handed[: number + 1]:
                cursor[lane] = one
            tally.done_up_to((cursor[0], cursor[1], cursor[2]))
            done |= {one for lane, one in handed if one <= cursor[lane]}
            works.append(acking(loop, (), up_to=(cursor[0], cursor[1], cursor[2])))
        elif step == "stranger":
            works.append(acking(loop, ((tally.done(number), number),)))
            done.add(number)
        elif step == "done":
            chosen = [handed[(number + i) % len(handed)][1] for i in range(count)] if handed else []
            works.append(acking(loop, tuple((tally.done(one), one) for one in chosen)))
            done |= set(chosen)
        frame = tally.frame(1, works[-2:] if step == "again" else works[-1:])
        cursor_ = read_cursor(frame.up_to) if frame.up_to else (0, 0, 0)
        said = {one for lane, one in handed if one <= cursor_[lane]} | set(frame.entries)
        assert said <= done, "an entry would be acknowledged that the application is not done with"
        told |= said
        for work in works[-1:]:
            assert {one for _, one in work.entries} <= said
    assert told == done
    if not from_start:
        assert all(work.up_to != (0, 0, 0) or not tally.frame(1, [work]).up_to for work in works)
    loop.close()


def test_one_by_one_from_the_start_is_one_cursor() -> None:
    loop = asyncio.new_event_loop()
    tally = Tally(True)
    for seq in range(1, 101):
        tally.handed(seq % 2, seq)
    works = [acking(loop, ((tally.done(seq), seq),)) for seq in range(1, 101)]
    frame = tally.frame(7, works)
    assert (frame.n, frame.up_to, frame.entries) == (7, "100.99.0", ())
    loop.close()


def test_refusals_go_along_and_close_no_gap_before_they_were_answered() -> None:
    loop = asyncio.new_event_loop()
    tally = Tally(True)
    for seq in (1, 2, 3):
        tally.handed(2, seq)
    refusal = Refusal(2, "Gửi nhầm")
    works = [acking(loop, ((tally.done(1), 1),)), acking(loop, (), refuse=(refusal,)), acking(loop, ((2, 3),))]
    tally.done(3)
    frame = tally.frame(1, works)
    assert (frame.up_to, frame.entries, frame.refuse) == ("0.0.1", (3,), (refusal,))
    assert tally.done(2) == 2
    assert tally.frame(2, [acking(loop, ((2, 3),))]).up_to == "0.0.3"
    assert write_cursor(read_cursor("3.2.1")) == "3.2.1"
    loop.close()
