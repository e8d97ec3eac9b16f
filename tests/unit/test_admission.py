"""Who is let in, how much of it, and what the others are told."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.directory.picture import Endpoint
from hub.relay.admission import LONGEST_PAUSE, OVERHEAD, SHARE, Admission
from hub.relay.rates import Rates
from protocol.problems import Problem

LIMIT = 64 << 20
PROVINCE, VAN_YEN, LUC_YEN = 1, 2, 3
MIB = 1 << 20


def flood(admission: Admission, endpoint: int, stack: ExitStack, size: int = MIB) -> int:
    """Take rooms of `size` until no more is given; how many there were."""
    count = 0
    while True:
        try:
            stack.enter_context(admission.admit(endpoint, size))
        except Problem as refused:
            assert (refused.code, refused.retryable, refused.kind.fault) == ("overloaded", True, "hub")
            return count
        count += 1


# -- bytes ------------------------------------------------------------------------------------------


def test_what_is_left_is_given_back_however_it_is_left() -> None:
    admission = Admission(LIMIT)
    with admission.admit(PROVINCE, 1000, 3):
        assert admission.used == admission.held(PROVINCE) == 1000 + 3 * OVERHEAD
        with pytest.raises(ValueError), admission.admit(VAN_YEN, 5):
            assert admission.used == 1005 + 4 * OVERHEAD
            raise ValueError
        assert admission.held(VAN_YEN) == 0
    assert admission.used == admission.held(PROVINCE) == 0


def test_a_flood_by_one_leaves_a_third_for_the_others() -> None:
    admission = Admission(LIMIT)
    with ExitStack() as stack:
        assert flood(admission, PROVINCE, stack) == 42
        assert LIMIT - admission.used >= LIMIT // 3 - MIB
        assert admission.refused == {"bytes": 0, "share": 1, "time": 0, "rate": 0}
        with admission.admit(VAN_YEN, 14 * MIB):
            pass
        for endpoint in range(100, 2100):  # two thousand others with a document each
            stack.enter_context(admission.admit(endpoint, 2048))
        assert admission.refused["share"] == 1


@pytest.mark.parametrize("count", [2, 5, 10])
def test_floods_by_several_leave_room_too(count: int) -> None:
    admission = Admission(LIMIT)
    with ExitStack() as stack:
        took = dict.fromkeys(range(count), 0)
        while any([flood_once(admission, endpoint, stack, took) for endpoint in took]):
            pass
        assert LIMIT - admission.used >= LIMIT // (SHARE * count + 1) - 16 * 1024
        assert max(took.values()) - min(took.values()) <= 1, "they got the same"
        stack.enter_context(admission.admit(99, (LIMIT - admission.used) * 2 // 3 - OVERHEAD))


def flood_once(admission: Admission, endpoint: int, stack: ExitStack, took: dict[int, int]) -> bool:
    try:
        stack.enter_context(admission.admit(endpoint, 8192))
    except Problem:
        return False
    took[endpoint] += 1
    return True


_STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 300_000), st.booleans()), max_size=120)


@given(steps=_STEPS)
def test_nobody_holds_more_than_its_share_and_nobody_new_is_kept_out(
    steps: list[tuple[int, int, bool]],
) -> None:
    limit = 1 << 20
    admission = Admission(limit)
    held: list[tuple[int, int, ExitStack]] = []
    for endpoint, size, leave in steps:
        if leave and held:
            held.pop(size % len(held))[2].close()
            continue
        free = limit - admission.used
        stack, new, cost = ExitStack(), not admission.held(endpoint), size + OVERHEAD
        try:
            stack.enter_context(admission.admit(endpoint, size))
        except Problem:
            assert not (new and cost * 3 <= free * 2), "two thirds of what is free are there for whoever comes"
        else:
            held.append((endpoint, cost, stack))
            assert admission.held(endpoint) <= SHARE * (limit - admission.used)
        assert admission.used == sum(cost for _, cost, _ in held) <= limit
        for known in range(7):
            assert admission.held(known) == sum(cost for owner, cost, _ in held if owner == known)
    for _, _, stack in held:
        stack.close()
    assert admission.used == 0


def test_a_single_request_may_be_larger_than_the_whole_limit_when_it_is_alone() -> None:
    admission = Admission(1 << 16)
    with admission.admit(PROVINCE, MIB):
        with pytest.raises(Problem):
            admission.admit(VAN_YEN, 10)
        assert admission.refused["bytes"] == 1
    with admission.admit(VAN_YEN, 10), pytest.raises(Problem):
        admission.admit(PROVINCE, MIB)


# -- bodies that are still to come --------------------------------------------------------------------


def test_what_is_announced_must_fit_but_only_what_arrives_is_taken() -> None:
    admission = Admission(LIMIT)
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(admission.admit(PROVINCE, 4096, announced=MIB))
        assert admission.used == 500 * (4096 + OVERHEAD)
        with pytest.raises(Problem):
            admission.admit(PROVINCE, 4096, announced=LIMIT)
        with admission.admit(VAN_YEN, MIB):
            pass
    assert admission.used == 0


def test_a_body_takes_room_as_it_arrives() -> None:
    admission = Admission(LIMIT)
    with admission.admit(PROVINCE, 10, announced=MIB) as room:
        room.reach(5)
        assert admission.used == 10 + OVERHEAD
        room.reach(300_000)
        assert admission.used == 300_000 + OVERHEAD
        room.reach(300_000, 1000)
        assert admission.used == admission.held(PROVINCE) == 300_000 + 1000 * OVERHEAD
        room.stream(1 << 30)
        assert admission.used == 300_000 + 1000 * OVERHEAD, "what goes by needs no room"
    assert admission.used == 0


def test_a_body_for_which_no_room_is_left_is_given_up_and_gives_back_what_it_had() -> None:
    admission = Admission(LIMIT)
    with ExitStack() as stack:
        slow = [stack.enter_context(admission.admit(PROVINCE, 0, announced=MIB)) for _ in range(500)]
        grown = 0
        with pytest.raises(Problem) as refused:
            for room in slow:
                room.reach(MIB)
                grown += 1
        assert refused.value.code == "overloaded"
        assert grown == 42
        assert admission.held(PROVINCE) == 42 * MIB + 500 * OVERHEAD
        with admission.admit(VAN_YEN, 8 * MIB):
            pass
    assert admission.used == 0


def test_a_lone_body_may_outgrow_the_limit() -> None:
    admission = Admission(1 << 16)
    with admission.admit(PROVINCE, 0, announced=MIB) as room:
        room.reach(MIB)
        assert admission.used == MIB + OVERHEAD


# -- time -------------------------------------------------------------------------------------------


def test_whoever_has_waited_too_long_is_told_for_how_long_to_stay_away() -> None:
    waited = {PROVINCE: 7.5, VAN_YEN: 4.9, LUC_YEN: 3600.0}
    admission = Admission(LIMIT, 5.0, lambda endpoint: waited.get(endpoint, 0.0))
    for endpoint, seconds in ((PROVINCE, 7.5), (LUC_YEN, LONGEST_PAUSE)):
        with pytest.raises(Problem) as refused:
            admission.admit(endpoint, 10)
        assert (refused.value.code, refused.value.retry_after) == ("overloaded", seconds)
    for endpoint in (VAN_YEN, 4):
        with admission.admit(endpoint, 10):
            pass
    assert admission.refused == {"bytes": 0, "share": 0, "time": 2, "rate": 0}


def test_a_full_queue_says_to_come_back_when_it_may_have_emptied() -> None:
    admission = Admission(LIMIT, 5.0, lambda endpoint: 3.5)
    with ExitStack() as stack:
        flood(admission, PROVINCE, stack)
        with pytest.raises(Problem) as refused:
            admission.admit(PROVINCE, MIB)
        assert refused.value.retry_after == 3.5
        assert f"{42 * (MIB + OVERHEAD)} bytes of this endpoint" in refused.value.detail


# -- asking without being refused ---------------------------------------------------------------------


def test_a_door_can_ask_how_long_to_wait() -> None:
    waited = {VAN_YEN: 9.0}
    admission = Admission(LIMIT, 5.0, lambda endpoint: waited.get(endpoint, 0.0), Rates(messages=2))
    assert admission.delay(PROVINCE, MIB) == 0
    assert admission.delay(VAN_YEN, 1) == 9.0
    assert admission.delay(PROVINCE, LIMIT) == 0, "alone"
    with admission.admit(PROVINCE, MIB, 2):
        assert admission.delay(PROVINCE, 1) > 0, "its rate is used up"
        assert admission.delay(LUC_YEN, LIMIT) == 1.0
        assert admission.delay(LUC_YEN, MIB) == 0
    assert admission.refused == dict.fromkeys(("bytes", "share", "time", "rate"), 0)


def test_a_hub_that_stops_says_so_to_whoever_enters() -> None:
    admission = Admission(LIMIT)
    admission.closed = True
    assert admission.delay(PROVINCE, 1) == 0, "waiting would not help: it is to enter and be told"
    with pytest.raises(Problem) as refused:
        admission.admit(PROVINCE, 1)
    assert refused.value.code == "stopping"


# -- rates ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(admission: Admission, endpoint: int, size: int = 100, messages: int = 1) -> float:
    """0 when it was let in, otherwise the seconds that it was told."""
    try:
        with admission.admit(endpoint, size, messages):
            return 0.0
    except Problem as refused:
        assert (refused.code, refused.kind.fault) == ("too-many-requests", "caller")
        assert refused.retry_after is not None and refused.retry_after > 0
        return refused.retry_after


def test_an_endpoint_sends_at_its_rate_and_no_faster() -> None:
    clock = Clock()
    admission = Admission(LIMIT, rates=Rates(messages=5, clock=clock))
    assert [admitted(admission, PROVINCE) for _ in range(7)] == [0] * 5 + [pytest.approx(0.2)] * 2
    assert admission.refused["rate"] == 2
    assert admitted(admission, VAN_YEN) == 0, "everybody has an allowance of its own"
    clock.now += 0.2
    assert admitted(admission, PROVINCE) == 0
    assert admitted(admission, PROVINCE) == pytest.approx(0.2)
    clock.now += 3600
    assert [admitted(admission, PROVINCE) for _ in range(6)].count(0) == 5, "silence is not saved up"


def test_bytes_are_limited_as_messages_are() -> None:
    clock = Clock()
    admission = Admission(LIMIT, rates=Rates(octets=1000, seconds=2, clock=clock))
    assert [admitted(admission, PROVINCE, 800) for _ in range(3)] == [0, 0, pytest.approx(0.4)]
    clock.now += 0.4
    assert admitted(admission, PROVINCE, 800) == 0


def test_what_is_larger_than_the_allowance_passes_and_is_owed() -> None:
    clock = Clock()
    admission = Admission(LIMIT, rates=Rates(messages=10, octets=1000, clock=clock))
    assert admitted(admission, PROVINCE, 5000) == 0
    assert admitted(admission, PROVINCE, 1) == pytest.approx(4.001)
    clock.now += 4.5
    assert admitted(admission, PROVINCE, 5000) == pytest.approx(0.5), "only a full allowance lets it pass"
    clock.now += 0.5
    assert admitted(admission, PROVINCE, 5000) == 0
    clock.now += 100
    with admission.admit(PROVINCE, 100) as room:
        room.reach(100, 30)  # a batch of thirty, as it turned out
    assert admitted(admission, PROVINCE) == pytest.approx(2.1)


def test_bytes_count_when_they_arrive_each_once() -> None:
    clock = Clock()
    admission = Admission(LIMIT, rates=Rates(octets=1000, clock=clock))
    with admission.admit(PROVINCE, 10, announced=900) as room:
        for arrived in (5, 400, 400, 500):
            room.reach(arrived)
        room.stream(700)
        room.reach(600)
    assert admitted(admission, PROVINCE, 300) == 0
    assert admitted(admission, PROVINCE, 1) == pytest.approx(0.001)


def test_limits_of_an_endpoints_own_go_before_the_default_and_change_at_once() -> None:
    clock = Clock()
    own = {
        VAN_YEN: Endpoint(VAN_YEN, "van-yen", rate_messages=2),
        LUC_YEN: Endpoint(LUC_YEN, "luc-yen", rate_messages=0, rate_bytes=0),
    }
    admission = Admission(LIMIT, rates=Rates(1, 10_000, own=lambda: own, clock=clock))

    def let_in(endpoint: int, **options: int) -> int:
        return [admitted(admission, endpoint, **options) for _ in range(20)].count(0)

    assert (let_in(PROVINCE), let_in(VAN_YEN), let_in(LUC_YEN)) == (1, 2, 20)
    clock.now += 10
    assert let_in(VAN_YEN, size=6_000) == 1, "its bytes have the default"
    own[VAN_YEN] = Endpoint(VAN_YEN, "van-yen", rate_messages=7, rate_bytes=0)
    assert let_in(VAN_YEN, size=6_000) == 7
    del own[VAN_YEN]
    assert let_in(VAN_YEN) == 1
    own[PROVINCE] = Endpoint(PROVINCE, "ubnd-tinh", rate_messages=0, rate_bytes=0)
    assert let_in(PROVINCE) == 20


def test_each_process_grants_its_share() -> None:
    clock = Clock()
    own = {VAN_YEN: Endpoint(VAN_YEN, "van-yen", rate_messages=1)}
    admission = Admission(LIMIT, rates=Rates(messages=40, share=1 / 4, own=lambda: own, clock=clock))
    assert [admitted(admission, PROVINCE) for _ in range(12)].count(0) == 10
    assert admitted(admission, VAN_YEN) == 0, "a single message always passes"
    assert admitted(admission, VAN_YEN) == pytest.approx(4)


def test_the_rate_is_asked_for_first_then_the_time_then_room() -> None:
    clock = Clock()
    waited = {PROVINCE: 60.0}
    rates = Rates(messages=1, clock=clock)
    admission = Admission(1 << 16, 5.0, lambda endpoint: waited.get(endpoint, 0.0), rates)
    with admission.admit(VAN_YEN, 50_000):
        for reason in ("time", "rate"):
            with pytest.raises(Problem):
                admission.admit(PROVINCE, 50_000)
            assert admission.refused[reason] == 1
            allowance = rates.of(PROVINCE)
            assert allowance is not None
            allowance.charge(1, 0)
        waited.clear()
        clock.now += 2
        with pytest.raises(Problem):
            admission.admit(PROVINCE, 50_000)
        assert admission.refused == {"bytes": 1, "share": 0, "time": 1, "rate": 1}
