"""What an auditor concludes, against logs of every size that grow, are rewritten, or show altered tiles."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import audit, log
from protocol.audit import (
    SIGHTS,
    BrokenTreeError,
    Remembered,
    Seen,
    State,
    check_bundle,
    check_edge,
    check_tile,
    contradiction,
    edge,
    late,
    own_key,
    parent,
    prefix_proof,
    read_state,
    rewriting,
    write_state,
)
from protocol.log import ENTRIES, LogError, Tile, tile_of
from protocol.misbehaviour import Kind, explain, prefix_root
from protocol.note import Verifier
from tests.support.small_log import ORIGIN, SmallLog, entry

AT = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)


class BigLog(SmallLog):
    """One of three levels of tiles, whose hashes are computed once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, int], bytes] = {}

    def _node(self, level: int, index: int) -> bytes:
        if not level:
            return self._leaves[index]
        if (level, index) not in self._known:
            pair = [self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1)]
            self._known[level, index] = log.subtree_root(pair)
        return self._known[level, index]


BIG = BigLog().grow(66_000)
BIG.checkpoint()
ENTRIES_OF_BIG = [entry(number) for number in range(66_000)]
SIZES = st.integers(1, 700) | st.sampled_from([255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 66_000])


def seen(one: SmallLog, size: int | None = None) -> Seen:
    return own_key(one.note(size), [one.verifier])


def data_of(tile: Tile, one: SmallLog = BIG) -> bytes:
    """A tile as an honest log serves it."""
    if tile.level == ENTRIES:
        start = tile.index * 256
        return log.write_bundle(ENTRIES_OF_BIG[start : start + tile.width])
    start = tile.index * 256
    return b"".join(one._node(8 * tile.level, start + place) for place in range(tile.width))


def believe(tile: Tile, size: int) -> bytes:
    """A tile, checked up to the root as an auditor does."""
    tiles = {one: data_of(one) for one in edge(size)}
    check_edge(tiles, BIG.checkpoint(size))
    if tile in tiles:
        return tiles[tile]
    data = data_of(tile)
    check_tile(tile, data, believe(parent(tile, size), size), size)
    return data


# -- the tree ---------------------------------------------------------------------------------------


@given(SIZES, st.data())
def test_every_entry_of_an_honest_log_is_believed(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = tile_of(0, index, size)
    bundle = audit.bundle_of(index, size)
    assert bundle == leaves._replace(level=ENTRIES)
    entries = check_bundle(bundle, data_of(bundle), believe(leaves, size), size)
    assert entries[index % 256] == entry(index)


@given(SIZES, st.data())
def test_a_changed_bit_of_any_tile_is_noticed_and_its_place_named(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    chain = [tile_of(0, index, size)]
    while chain[-1] not in edge(size):
        chain.append(parent(chain[-1], size))
    tile = data.draw(st.sampled_from(chain))
    good = data_of(tile)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([good[place] ^ 1 << data.draw(st.integers(0, 7))]) + good[place + 1 :]
    with pytest.raises(BrokenTreeError) as caught:
        if tile in edge(size):
            check_edge({one: bad if one == tile else data_of(one) for one in edge(size)}, BIG.checkpoint(size))
        else:
            check_tile(tile, bad, believe(parent(tile, size), size), size)
    assert caught.value.first <= index < caught.value.end or tile in edge(size)
    for cut in (good[:-1], good + b"\0", b""):
        with pytest.raises(BrokenTreeError, match="bytes in place of"):
            if tile in edge(size):
                check_edge({one: cut if one == tile else data_of(one) for one in edge(size)}, BIG.checkpoint(size))
            else:
                check_tile(tile, cut, believe(parent(tile, size), size), size)


@given(st.integers(1, 600), st.data())
def test_a_changed_byte_of_a_bundle_is_noticed_and_the_entry_named(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    bundle = audit.bundle_of(index, size)
    good, leaves = data_of(bundle), data_of(bundle._replace(level=0))
    place = index % 256 * 34 + 2 + data.draw(st.integers(0, 31))
    with pytest.raises(BrokenTreeError) as caught:
        check_bundle(bundle, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], leaves, size)
    assert (caught.value.first, caught.value.end) == (index, index + 1)
    for garbled in (good[:-1], good + b"\0\0", good + good[:34], b"", b"\xff" * len(good)):
        with pytest.raises(BrokenTreeError):
            check_bundle(bundle, garbled, leaves, size)


def test_an_entry_that_is_no_hash_is_refused() -> None:
    long = b"x" * 33
    with pytest.raises(BrokenTreeError, match="it has 33 bytes"):
        check_bundle(Tile(ENTRIES, 0, 1), log.write_bundle([long]), log.log_leaf(long), 1)


# -- two checkpoints ----------------------------------------------------------------------------------


@given(st.integers(1, 300), st.data())
def test_a_log_that_only_grew_is_accused_of_nothing(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, new))
    first, second = seen(BIG, old), seen(BIG, new)
    assert contradiction(first, second) is None
    assert rewriting(first, second, BIG._node) is None


@given(st.integers(2, 120), st.data())
def test_a_log_that_was_rewritten_is_convicted_whatever_the_sizes(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    at = data.draw(st.integers(0, old - 1))
    honest = SmallLog().grow(old)
    other = honest.fork(at, new)
    proof = rewriting(seen(honest), seen(other), other._node)
    assert proof is not None and proof.kind is Kind.REWRITTEN and proof.conclusive
    assert "that begins differently" in explain(proof, [honest.verifier])
    steps = [base64.b64decode(step) for step in proof.proof]
    assert prefix_root(old, new, other.checkpoint().root, steps) == other.checkpoint(old).root
    with pytest.raises(LogError):
        explain(proof, [SmallLog().verifier])


@given(st.integers(2, 60), st.data())
def test_nobody_can_accuse_an_honest_log_with_a_made_up_proof(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    steps = prefix_proof(old, new, BIG._node)
    place = data.draw(st.integers(0, len(steps)))
    made = data.draw(st.binary(min_size=32, max_size=32))
    what = data.draw(st.sampled_from(["drop", "add", "change", "nothing"]))
    if what == "add":
        steps.insert(place, made)
    elif what != "nothing" and place < len(steps):
        steps[place : place + 1] = [made] if what == "change" else []
    found = prefix_root(old, new, BIG.checkpoint(new).root, steps)
    assert found in (None, BIG.checkpoint(old).root)


@given(st.integers(1, 100), st.data())
def test_two_roots_of_one_size_convict(size: int, data: st.DataObject) -> None:
    honest = SmallLog().grow(size)
    other = honest.fork(data.draw(st.integers(0, size - 1)), size)
    proof = contradiction(seen(honest), seen(other))
    assert proof is not None and proof.kind is Kind.TWO_FACES
    assert explain(proof, [honest.verifier]) == f"{ORIGIN} signed two different logs of {size} entries."


def test_an_empty_log_has_one_root() -> None:
    one = SmallLog()
    lie = own_key(one.sign(log.Checkpoint(ORIGIN, 0, bytes(32)).text), [one.verifier])
    proof = contradiction(lie, seen(one.grow(3)))
    assert proof is not None and proof.kind is Kind.IMPOSSIBLE
    assert "does not have" in explain(proof, [one.verifier])
    assert contradiction(seen(SmallLog()), seen(SmallLog())) is None


def test_only_the_trusted_key_and_the_trusted_name_count() -> None:
    one = SmallLog().grow(5)
    with pytest.raises(LogError, match="not signed with a trusted key"):
        own_key(one.note(), [Verifier(ORIGIN, SmallLog().key.public_key())])
    twin = SmallLog(one.key, "nhật-ký-khác").grow(5)
    with pytest.raises(LogError, match="not signed with a trusted key"):
        own_key(twin.note(), [one.verifier])
    with pytest.raises(LogError, match=f"checkpoint of {ORIGIN}, not of nhật-ký-khác"):
        text = one.checkpoint().text
        line = twin.sign(text).removeprefix(text + "\n")
        own_key(text + "\n" + line, [twin.verifier])
    with pytest.raises(LogError, match="is wrong"):
        own_key(one.note().replace("\n5\n", "\n6\n"), [one.verifier])
    for garbage in ("", "x", "\n\n", "a\n1\n", one.note()[:-30]):
        with pytest.raises(LogError):
            own_key(garbage, [one.verifier])


# -- what is remembered -------------------------------------------------------------------------------


def remembered(one: SmallLog) -> Remembered:
    return Remembered(ORIGIN, str(one.verifier), "https://lienthong.yenbai.gov.vn", False)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=120))
def test_what_is_remembered_is_bounded_and_ends_with_the_largest(steps: list[int]) -> None:
    one = BIG
    memory, size = remembered(one), 0
    sizes = []
    for number, step in enumerate(steps):
        size += step
        sizes.append(size)
        memory.remember(seen(one, size), AT + timedelta(minutes=number))
        memory.remember(seen(one, size), AT + timedelta(minutes=number, seconds=30))
    kept = [sight.size for sight in memory.sights]
    assert kept == sorted(set(kept)) and set(kept) <= set(sizes) and len(kept) <= SIGHTS
    assert (kept[0], kept[-1]) == (sizes[0], sizes[-1])
    again = read_state(write_state(State({ORIGIN: memory}))).logs[ORIGIN]
    assert again == memory
    last = again.last()
    assert last is not None and last.checkpoint == one.checkpoint(size) and last.at is not None


@pytest.mark.parametrize(
    "text", ["", "hôm qua", "2026-11-23T17:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9" * 99]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    assert audit.moment("2026-11-23T17:00:00.000000Z") == AT
    with pytest.raises(LogError, match="is not a time"):
        audit.moment(text)


def test_a_state_that_was_changed_is_not_believed() -> None:
    one = SmallLog().grow(9)
    memory = remembered(one)
    memory.remember(seen(one), AT)
    data = write_state(State({ORIGIN: memory}))
    altered = read_state(data.replace(b"\\n9\\n", b"\\n8\\n"))
    with pytest.raises(LogError, match="is wrong"):
        altered.logs[ORIGIN].last()
    for garbage in (b"", b"{", b"[]", b'{"format":"khac"}', data[:-20], b"\xff"):
        with pytest.raises(LogError, match="not an auditor's state"):
            read_state(garbage)


def test_a_promise_is_late_when_the_log_was_seen_without_it_after_its_time() -> None:
    one = SmallLog().grow(20)
    memory = remembered(one)
    memory.remember(seen(one, 10), AT)
    memory.remember(seen(one, 10), AT + timedelta(hours=1))  # shown again
    assert late(memory, 10, AT + timedelta(minutes=30)) == AT + timedelta(hours=1)
    assert late(memory, 9, AT - timedelta(days=1)) is None
    assert late(memory, 10, AT + timedelta(hours=2)) is None
    memory.remember(seen(one, 20), AT + timedelta(hours=3))
    assert late(memory, 15, AT - timedelta(minutes=1)) == AT
    assert late(memory, 15, AT + timedelta(hours=2)) is None
    assert late(memory, 20, AT + timedelta(hours=2)) == AT + timedelta(hours=3)
