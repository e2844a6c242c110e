"""The memory backend keeps the contract, wakes who waits, and forgets."""

from __future__ import annotations

import os
import threading
import tracemalloc

import pytest

from quotaguard import Limit
from quotaguard.backends import memory
from quotaguard.backends.memory import REMEMBERED, SWEPT_AT_ONCE, MemoryBackend
from quotaguard.core.ops import (
    Answer,
    Candidate,
    Charge,
    Op,
    Owner,
    Park,
    Peek,
    Queued,
    Refusal,
    Reservation,
    Reserve,
    Settle,
)
from quotaguard.testing import BackendContract, FakeClock

USERS = 1_000_000 if os.environ.get("QUOTAGUARD_SOAK") == "1" else 100_000
DAY = 86_400.0
PER_DAY = Limit(100, "tokens", "day")
PER_MINUTE = Limit(60, "tokens", 60)
RARE = Limit(1, "requests", 1_000)
ALICE, BOB = ("user", "", "alice"), ("user", "", "bob")


class TestMemory(BackendContract):
    """Every promise of a backend."""

    def make_backend(self, clock: FakeClock) -> MemoryBackend:
        """Books of its own for each test."""
        return MemoryBackend(clock)


def reserve(id: str, *charges: tuple[float, Limit, Owner], patience: float = 0.0) -> Reserve:
    """A call that charges so much of each."""
    candidate = Candidate("m", tuple(Charge(o, limit, n, n, n / 2) for n, limit, o in charges))
    return Reserve(id, (candidate,), 100.0, patience)


class Bedroom(FakeClock):
    """Whoever lies down is told at once, and its bell kept."""

    def __init__(self) -> None:
        super().__init__()
        self.bells: list[threading.Event] = []

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Keep the bell."""
        self.bells.append(bell)


def line_up(backend: MemoryBackend, clock: Bedroom, op: Reserve) -> threading.Event:
    """The bell of somebody who stands in line and lies down."""
    assert isinstance(backend.execute(op), Queued)
    backend.execute(Park(op.id, 1e6))
    return clock.bells[-1]


# -- waiting ---------------------------------------------------------------------------------------


def test_who_runs_out_of_patience_makes_way() -> None:
    """The next in line is let in as soon as the one before gives up."""
    clock = Bedroom()
    backend = MemoryBackend(clock)
    backend.execute(reserve("a", (60, PER_DAY, ALICE)))
    large = reserve("large", (50, PER_DAY, ALICE), patience=1e6)
    line_up(backend, clock, large)
    small = reserve("small", (30, PER_DAY, ALICE), patience=1e6)
    bell = line_up(backend, clock, small)
    assert isinstance(backend.execute(large._replace(patience=0.0)), Refusal)
    assert bell.is_set()
    backend.execute(small)
    assert backend.open_reservations == 2


def test_a_waiter_without_room_elsewhere_holds_up_nobody() -> None:
    """A refund that is enough for the first in line, who is short of something else too, goes to
    the one behind it.
    """
    clock = Bedroom()
    backend = MemoryBackend(clock)
    backend.execute(reserve("a", (100, PER_DAY, ALICE)))
    backend.execute(reserve("b", (1, RARE, BOB)))
    two = reserve("two", (50, PER_DAY, ALICE), (1, RARE, BOB), patience=1e6)
    first = line_up(backend, clock, two)
    second = line_up(backend, clock, reserve("one", (60, PER_DAY, ALICE), patience=1e6))
    backend.execute(Settle("a", (0.0,)))
    assert second.is_set()
    assert isinstance(backend.execute(two), Queued)
    assert not first.is_set() or isinstance(backend.execute(two), Queued)


def test_a_refund_that_is_not_enough_shortens_the_wait() -> None:
    """Who still has no room is woken to work out anew how long it takes, and only then."""
    clock = Bedroom()
    backend = MemoryBackend(clock)
    for id, tokens in (("a", 30.0), ("b", 30.0)):
        backend.execute(reserve(id, (tokens, PER_MINUTE, ALICE)))
    op = reserve("c", (50, PER_MINUTE, ALICE), patience=1e6)
    bell = line_up(backend, clock, op)
    backend.execute(Settle("a", (30.0,)))
    assert not bell.is_set()
    backend.execute(Settle("b", (10.0,)))
    assert bell.is_set()
    answer = backend.execute(op)
    assert isinstance(answer, Queued)
    assert answer.wait == 30


def test_an_inner_call_that_needs_less_lets_others_in() -> None:
    """What an outer hold frees when its inner call takes over goes to those in line."""
    clock = Bedroom()
    backend = MemoryBackend(clock)
    backend.execute(reserve("outer", (100, PER_DAY, ALICE)))
    bell = line_up(backend, clock, reserve("next", (40, PER_DAY, ALICE), patience=1e6))
    large = reserve("large", (70, PER_DAY, ALICE))._replace(instead_of="outer")
    assert isinstance(backend.execute(large), Refusal)  # those in line come first
    assert not bell.is_set()
    inner = reserve("inner", (50, PER_DAY, ALICE))._replace(instead_of="outer")
    assert isinstance(backend.execute(inner), Reservation)
    assert bell.is_set()


def test_the_wait_of_a_window_counts_those_ahead() -> None:
    """Whoever stands behind more than a window's worth waits for a later window."""
    clock = Bedroom()
    backend = MemoryBackend(clock)
    backend.execute(reserve("a", (100, PER_DAY, ALICE)))
    for number, days in enumerate((1, 2, 2, 3)):
        amount = (80, 60, 60, 10)[number]
        answer = backend.execute(reserve(f"w{number}", (amount, PER_DAY, ALICE), patience=10 * DAY))
        assert isinstance(answer, Queued)
        assert answer.refusal.wait() == days * DAY


# -- forgetting ------------------------------------------------------------------------------------


def books(backend: MemoryBackend) -> int:
    """All entries about buckets, in whatever structure."""
    store = backend._store
    waiting = sum(map(len, store._full_by.values())) + len(store._to_look_at)
    assert len(store._buckets) == len(store._limits) == waiting
    return len(store._buckets)


def idle(backend: MemoryBackend, ops: int) -> None:
    """Operations that touch nothing."""
    for _ in range(ops):
        backend.execute(Peek(((BOB, PER_DAY),)))


def test_a_day_of_many_users_leaves_nothing_behind() -> None:
    """100,000 users (1 million in the soak) over a day: in the end no bucket, no reservation, and
    ids of the last calls only.
    """
    clock = FakeClock()
    backend = MemoryBackend(clock)
    execute = backend.execute
    most = 0
    for user in range(USERS):
        owner = ("user", "", str(user))
        charges = (
            Charge(owner, PER_DAY, 40.0, 40.0, 10.0),
            Charge(owner, PER_MINUTE, 40.0, 40.0, 10.0),
            Charge(owner, RARE, 1.0, 1.0, 1.0),
        )
        answer = execute(Reserve(str(user), (Candidate("m", charges),), 900.0))
        assert type(answer) is Reservation
        if user % 50:  # the others die
            execute(Settle(str(user), (30.0, 30.0, 1.0)))
        clock.advance(DAY / USERS)
        if user % 1000 == 0:
            most = max(most, books(backend) - user)
    per_second = USERS / DAY
    assert most < 2 * (60 + RARE.period) * per_second + 1_000  # all but the days' windows
    clock.advance(DAY)
    idle(backend, 2 * USERS // SWEPT_AT_ONCE)
    assert books(backend) == len(backend) == 0
    assert backend.open_reservations == 0
    store = backend._store
    assert store._leases == {}
    assert store._settled.keys() | store._expired.keys() == store._held.keys()
    assert len(store._held) <= 2 * REMEMBERED


def test_one_operation_sweeps_little() -> None:
    """Forgetting is spread over operations, so that none is slow."""
    clock = FakeClock()
    backend = MemoryBackend(clock)
    for number in range(1000):
        backend.execute(reserve(f"{number}", (1, PER_MINUTE, ("user", "", str(number)))))
        backend.execute(Settle(f"{number}", (1.0,)))
    clock.advance(3600)
    before = len(backend)
    idle(backend, 1)
    assert before - len(backend) == SWEPT_AT_ONCE


def test_a_bucket_that_is_used_again_is_kept() -> None:
    """Only what is full is forgotten, also where it was to be full long ago."""
    clock = FakeClock()
    backend = MemoryBackend(clock)
    for number in range(50):
        backend.execute(reserve(f"{number}", (60, PER_MINUTE, ALICE)))
        backend.execute(Settle(f"{number}", (60.0,)))
        clock.advance(61)
        idle(backend, 1)
        assert books(backend) <= 1
    (state,) = backend.execute(Peek(((ALICE, PER_MINUTE),)))  # type: ignore[misc]
    assert state.left == 60


def test_debt_to_a_limit_of_0_is_not_kept() -> None:
    """It could never be paid back, and nothing fits there anyway."""
    backend = MemoryBackend(FakeClock())
    blocked = Limit(0, "tokens", 60)
    for number in range(10):
        backend.execute(reserve(f"{number}", (0, blocked, ("user", "", str(number)))))
        backend.execute(Settle(f"{number}", (5.0,)))
    assert books(backend) == 0


@pytest.mark.parametrize("die", [False, True])
def test_closed_reservations_are_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch, die: bool
) -> None:
    """So many are remembered, settled ones and expired ones each for themselves."""
    monkeypatch.setattr(memory, "REMEMBERED", 100)
    clock = FakeClock()
    backend = MemoryBackend(clock)
    op = reserve("first", (50, PER_DAY, ALICE))
    backend.execute(op)
    closing: Op = Settle("first", (50.0,))
    if die:
        clock.advance(100)
        closing = Peek(())
    backend.execute(closing)
    for number in range(300):
        backend.execute(reserve(f"{number}", (0, PER_DAY, BOB)))
        if die and number < 99:
            clock.advance(100)
            backend.execute(Peek(()))
        else:
            backend.execute(Settle(f"{number}", (0.0,)))
    assert len(backend._store._held) <= 201
    settled = backend.execute(Settle("first", (50.0,)))
    assert settled.first is die  # type: ignore[union-attr]


def test_a_settled_reservation_keeps_its_answer_and_little_else() -> None:
    """Thousands are remembered, so that a repeated operation changes nothing: each takes far less
    than it did while it was open.
    """
    backend = MemoryBackend(FakeClock())

    def call(number: int) -> Reserve:
        charges = [(1.0, limit, ALICE) for limit in (PER_DAY, PER_MINUTE, RARE)]
        return reserve(f"id {number}", *charges)

    def use(op: Reserve) -> Answer:
        made = backend.execute(op)
        backend.execute(Settle(op.id, (0.0, 0.0, 0.0)))
        return made

    made = use(call(0))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1, 1_000):
        use(call(number))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(made, Reservation)
    assert (after - before) / 999 < 900.0
    assert backend.execute(call(0)) == made
    (today,) = backend.execute(Peek(((ALICE, PER_DAY),)))  # type: ignore[misc,union-attr]
    assert today.left == 100.0


def test_leases_end_in_time_after_a_step_back() -> None:
    """A lease that began before another one, but later by the clock, does not hold it up."""
    clock = FakeClock()
    backend = MemoryBackend(clock)
    backend.execute(reserve("a", (10, PER_DAY, ALICE)))
    clock.advance(-50)
    backend.execute(reserve("b", (10, PER_DAY, BOB)))
    clock.advance(-20)
    backend.execute(reserve("c", (10, PER_DAY, BOB)))
    backend.execute(Settle("c", (10.0,)))
    assert backend.open_reservations == 2
    clock.advance(120)
    backend.execute(Peek(()))
    assert backend.open_reservations == 1
    clock.advance(50)
    backend.execute(Peek(()))
    assert backend.open_reservations == 0
    assert backend._store._leases == {}


def test_an_unknown_operation_is_named() -> None:
    """A newer operation than the backend knows is no silent success."""
    with pytest.raises(TypeError, match="'dance'"):
        MemoryBackend().execute("dance")  # type: ignore[arg-type]
