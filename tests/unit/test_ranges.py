"""What a mailbox has done with, against a plain set of sequences."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.relay.ranges import Done

SEQS = st.sets(st.integers(1, 60), min_size=1, max_size=20).map(sorted)


def previous(seqs: list[int], seq: int) -> int:
    """The entry before `seq`, 0 for the first: what the store says."""
    return max((other for other in seqs if other < seq), default=0)


def is_sound(done: Done) -> bool:
    """Sorted, apart, none empty, all beyond the floor."""
    edges = [edge for pair in done.ranges for edge in pair]
    return edges == sorted(set(edges)) and all(low > done.floor + 1 for low, _ in done.ranges)


@given(SEQS, st.data())
def test_acknowledging_all_in_any_order_and_grouping_ends_with_a_floor_alone(
    seqs: list[int], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(seqs))
    cuts = data.draw(st.sets(st.integers(0, len(order))))
    done, acknowledged = Done(), set[int]()
    for place, seq in enumerate(order):
        done.add(previous(seqs, seq), seq)
        acknowledged.add(seq)
        if place in cuts:
            done.settle()
            assert is_sound(done)
            assert [seq in done for seq in seqs] == [seq in acknowledged for seq in seqs]
            done = Done.read(done.floor, done.write())
    done.settle()
    assert (done.floor, done.ranges) == (seqs[-1], [])


@given(SEQS, st.data())
def test_a_cursor_and_single_entries_may_be_mixed_and_repeated(seqs: list[int], data: st.DataObject) -> None:
    done, acknowledged = Done(), set[int]()
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            up_to = data.draw(st.sampled_from(seqs))
            done.raise_floor(up_to)
            acknowledged |= {seq for seq in seqs if seq <= up_to}
        for seq in data.draw(st.lists(st.sampled_from(seqs), max_size=4)):
            done.add(previous(seqs, seq), seq)
            acknowledged.add(seq)
        done.settle()
        assert is_sound(done)
        assert {seq for seq in seqs if seq in done} == acknowledged


@given(SEQS, st.data())
def test_between_knows_what_was_done_out_of_order(seqs: list[int], data: st.DataObject) -> None:
    """It tells whether two entries that are not done have a done one between them."""
    chosen = data.draw(st.sets(st.sampled_from(seqs)))
    done = Done()
    for seq in chosen:
        done.add(previous(seqs, seq), seq)
    done.settle()
    open_seqs = [seq for seq in seqs if seq not in chosen]
    for low, high in pairwise(open_seqs):
        assert done.between(low, high) == any(low < seq < high for seq in chosen)


ranges = st.lists(st.integers(0, 10**15), unique=True, max_size=12).map(sorted)


@given(st.integers(0, 10**15), ranges)
def test_the_columns_text_goes_there_and_back(floor: int, edges: list[int]) -> None:
    done = Done(floor, [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=False)])
    assert Done.read(floor, done.write()) == done


def test_the_text_is_postgresqls() -> None:
    assert Done().write() == "{}"
    assert Done(1, [(3, 4), (7, 9)]).write() == "{[3,4),[7,9)}"
    assert Done.read(0, "{}") == Done()


async def test_postgresql_reads_the_text_as_it_was_meant(connection: Any) -> None:
    done = Done(5, [(8, 9), (12, 20)])
    text = await connection.fetchval("select $1::text::int8multirange::text", done.write())
    assert Done.read(5, text) == done
    holds = "select array_agg(n) from generate_series(6, 21) n where $1::text::int8multirange @> n::bigint"
    assert await connection.fetchval(holds, done.write()) == [n for n in range(6, 22) if n in done]
