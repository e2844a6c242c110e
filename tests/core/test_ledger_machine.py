"""The ledger against a naive one, whatever happens in whatever order."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from quotaguard import Limit
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import (
    FILL,
    Adjust,
    Adjusted,
    Candidate,
    Change,
    Charge,
    Op,
    Owner,
    Peek,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
)
from quotaguard.testing import FakeClock

from .naive import Booking, NaiveLedger

SOAK = os.environ.get("QUOTAGUARD_SOAK") == "1"
TICK = 1 / 8
"""Seconds. All times are multiples of it, and all rates are such that levels are exact in floats:
so the two ledgers must agree exactly, not nearly."""
HAIR = 1 / 64

ALICE, BOB = ("user", "acme", "alice"), ("user", "", "bob")
ACME, EVERYBODY = ("org", "acme"), ("global",)

LIMITS: dict[Owner, list[list[Limit]]] = {
    ALICE: [
        [  # the same bucket, as a tier and a larger one name it
            Limit(64, "tokens", 16, on_expire="keep_input"),
            Limit(64, "tokens", 16, burst=128, on_expire="return_all"),
        ],
        [Limit(300, "tokens", "day", on_expire="keep_all"), Limit(400, "tokens", "day")],
    ],
    BOB: [[Limit(8, "requests", 32, burst=12, on_expire="return_all")]],
    ACME: [[Limit(256, "tokens", 64)], [Limit(900, "tokens", "week", on_expire="return_all")]],
    EVERYBODY: [[Limit(0, "output_tokens", 60)], [Limit(500, "input_tokens", "month")]],
}
BUCKETS = [(owner, same[0]) for owner, limits in LIMITS.items() for same in limits]


@st.composite
def charges(draw: st.DrawFn) -> tuple[Charge, ...]:
    """Charges of one candidate: one to four different buckets."""
    chosen = draw(st.lists(st.sampled_from(BUCKETS), min_size=1, max_size=4, unique=True))
    made = []
    for owner, known in chosen:
        same = next(same for same in LIMITS[owner] if same[0] is known)
        limit = draw(st.sampled_from(same))
        few = st.integers(0, 14) if limit.metric == "requests" else st.integers(0, 140)
        amount = draw(few)
        least = draw(st.just(amount) | st.integers(min(1, amount), amount))
        keep = draw(st.integers(0, amount))
        made.append(Charge(owner, limit, float(amount), float(least), float(keep)))
    return tuple(made)


candidates = st.lists(charges(), min_size=1, max_size=3).map(
    lambda options: tuple(Candidate(f"m{n}", charged) for n, charged in enumerate(options))
)
leases = st.sampled_from([4.0, 30.0, 200.0, 200_000.0])
few_seconds = st.integers(1, 800).map(lambda ticks: ticks * TICK)
half_days = (st.integers(1, 3) | st.integers(1, 70)).map(lambda count: count * 43_200.0)
used = st.lists(st.integers(0, 160), min_size=4, max_size=4)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Change, ...]:
    """What an operator gives to buckets, takes from them or fills up; perhaps one twice."""
    chosen = draw(st.lists(st.sampled_from(BUCKETS), max_size=4))
    amounts = st.integers(-200, 200).map(float) | st.just(FILL)
    return tuple(
        Change(owner, draw(st.sampled_from(same)), draw(amounts))
        for owner, known in chosen
        for same in LIMITS[owner]
        if same[0] is known
    )


class LedgerMachine(RuleBasedStateMachine):
    """The memory backend and the naive ledger do the same, and must say the same."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.forward = 0.0
        """How much time has gone by, steps back taken out."""
        self.owed: dict[tuple[Owner, str], Fraction] = {}
        """What settles charged above what was reserved, and what operators gave."""
        self.adjusted: dict[str, tuple[Adjusted, tuple[Change, ...]]] = {}

    @initialize(hour=st.sampled_from([0.0, 86_000.0, 86_399.5, 40_000.0]))
    def begin(self, hour: float) -> None:
        """Some begin just before midnight."""
        self.clock = FakeClock(1_767_225_600.0 + hour)
        self.latest = self.clock.now()
        self.backend = MemoryBackend(self.clock)
        self.naive = NaiveLedger(Fraction(self.clock.now()))

    def both(self, op: Op) -> Any:
        """Carry an operation out, after the naive ledger did what comes before every one."""
        self.naive.expire()
        return self.backend.execute(op)

    # -- operations ------------------------------------------------------------------------------

    @rule(target=ids, options=candidates, lease=leases)
    def reserve(self, options: tuple[Candidate, ...], lease: float) -> str:
        """A new call."""
        return self.reserved(f"r{next(self.numbers)}", options, lease, None)

    @rule(target=ids, options=candidates, lease=leases, outer=ids)
    def reserve_inside(self, options: tuple[Candidate, ...], lease: float, outer: str) -> str:
        """A call inside another, which may be over or may never have been admitted."""
        return self.reserved(f"r{next(self.numbers)}", options, lease, outer)

    @rule(id=ids, options=candidates, lease=leases)
    def reserve_again(self, id: str, options: tuple[Candidate, ...], lease: float) -> None:
        """The same id once more: an old answer, or a new chance for who was refused."""
        self.reserved(id, options, lease, None)

    def reserved(
        self, id: str, options: tuple[Candidate, ...], lease: float, outer: str | None
    ) -> str:
        """Compare the two answers."""
        known = self.naive.bookings.get(id)
        answer = self.both(Reserve(id, options, lease, 0.0, outer))
        booking = self.naive.reserve(id, options, lease, outer)
        if booking is None:
            assert isinstance(answer, Refusal)
            self.check_refusal(answer, options, outer)
        else:
            assert isinstance(answer, Reservation)
            self.check_reservation(answer, booking, new=known is None)
        return id

    def check_reservation(self, answer: Reservation, booking: Booking, *, new: bool) -> None:
        """The right candidate, with the right amounts, never more than there was."""
        assert (answer.id, answer.choice) == (booking.id, booking.choice)
        assert answer.granted == booking.granted
        assert len(answer.passed_over) == answer.choice
        if not new:
            return
        for charge, left, granted in zip(
            booking.candidate.charges, answer.left, answer.granted, strict=True
        ):
            self.agree(left, charge.owner, charge.limit)
            assert left >= 0 or granted == 0

    def check_refusal(
        self, answer: Refusal, options: tuple[Candidate, ...], outer: str | None
    ) -> None:
        """Whoever comes back after the wait fits, and a hair before does not."""
        assert len(answer.shortfalls) == len(options)
        wait = answer.wait()
        assert wait > 0
        if wait == float("inf"):
            for option in options:
                assert any(c.least > c.limit.ceiling for c in option.charges)
            return
        back = Fraction(self.clock.now()) + Fraction(wait)
        assert self.naive.fitting(options, outer, back) is not None
        assert self.naive.fitting(options, outer, back - Fraction(HAIR)) is None
        binding = answer.binding()
        assert binding.wait == wait
        assert binding.charge.least > binding.left

    @rule(id=ids, amounts=used)
    def settle_somebody(self, id: str, amounts: list[int]) -> None:
        """It comes to this more often than to anything else."""
        self.settle(id, amounts)

    @rule(id=ids | st.just("nobody"), amounts=used)
    def settle(self, id: str, amounts: list[int]) -> None:
        """Less, more or just what was reserved; for the first time or not; in time or not."""
        booking = self.naive.bookings.get(id)
        count = len(booking.candidate.charges) if booking is not None else 4
        self.settled(id, tuple(map(float, amounts[:count])))

    @rule(id=ids)
    def settle_as_reserved(self, id: str) -> None:
        """Nobody can tell what was used."""
        self.settled(id, None)

    def settled(self, id: str, amounts: tuple[float, ...] | None) -> None:
        """Compare the two answers, and note what is owed."""
        answer = self.both(Settle(id, amounts))
        booking = self.naive.bookings.get(id)
        late = booking is not None and booking.status == "expired"
        before = list(booking.charged) if booking is not None else []
        assert answer.first == self.naive.settle(id, amounts)
        if booking is None or not answer.first:
            assert answer.left == ()
            return
        assert answer.late == late
        for charge, left, old, new in zip(
            booking.candidate.charges, answer.left, before, booking.charged, strict=True
        ):
            self.agree(left, charge.owner, charge.limit)
            key = charge.owner, charge.limit.id
            self.owed[key] = self.owed.get(key, Fraction(0)) + max(Fraction(0), new - old)

    @rule(id=ids, lease=leases)
    def renew(self, id: str, lease: float) -> None:
        """A long call goes on."""
        answer = self.both(Renew(id, lease))
        assert answer == self.naive.renew(id, lease)

    @rule(id=ids)
    def release(self, id: str) -> None:
        """Nobody got the answer."""
        assert self.both(Release(id)) is None
        self.naive.release(id)

    @rule(of=changes(), again=st.booleans())
    def adjust(self, of: tuple[Change, ...], again: bool) -> None:
        """An operator changes levels by hand; or says it once more, as the reply was lost."""
        if again and self.adjusted:
            id, (said, of) = list(self.adjusted.items())[-1]
            assert self.both(Adjust(id, of)) == said
            return
        id = f"a{next(self.numbers)}"
        answer = self.both(Adjust(id, of))
        given = self.naive.adjust(id, of)
        assert isinstance(answer, Adjusted)
        assert list(answer.given) == given or any(c.limit.ceiling == 0 for c in of)
        last = {(owner, limit.id): (limit, n) for n, (owner, limit, _) in enumerate(of)}
        for (owner, _), (limit, n) in last.items():
            self.agree(answer.left[n], owner, limit)
        for (owner, limit, _), gift in zip(of, given, strict=True):
            key = owner, limit.id
            self.owed[key] = self.owed.get(key, Fraction(0)) + max(Fraction(0), gift)
        self.adjusted[id] = answer, of

    def agree(self, left: float, owner: Owner, limit: Limit) -> None:
        """The levels are equal; nobody remembers what a bucket of 0 owes, as nothing fits it."""
        assert left == self.naive.level(owner, limit) or left <= limit.ceiling == 0, (owner, limit)

    # -- time ------------------------------------------------------------------------------------

    @rule(seconds=few_seconds | few_seconds | half_days)
    def time_passes(self, seconds: float) -> None:
        """A moment, or until a new day, week or month begins."""
        self.move(seconds)

    @rule(ticks=st.integers(1, 240))
    def clock_steps_back(self, ticks: int) -> None:
        """Within the minute: buckets that were full before it are forgotten, which shows if a clock
        steps back to where they were not.
        """
        self.move(-min(ticks * TICK, self.latest % 60, self.clock.now() % 60))

    def move(self, seconds: float) -> None:
        """Move both clocks."""
        self.clock.advance(seconds)
        self.forward += max(0.0, seconds)
        self.latest = max(self.latest, self.clock.now())
        self.naive.time = Fraction(self.clock.now())

    # -- what must hold always -------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        """Every bucket holds the same, and so do the open reservations."""
        if not hasattr(self, "backend"):
            return
        states = self.both(Peek(tuple(BUCKETS)))
        for (owner, limit), state in zip(BUCKETS, states, strict=True):
            self.agree(state.left, owner, limit)
            assert state.held == self.naive.held(owner, limit)
            assert state.left <= limit.ceiling
        still = sum(booking.status == "open" for booking in self.naive.bookings.values())
        assert self.backend.open_reservations == still

    @invariant()
    def nothing_is_created(self) -> None:
        """What a bucket was charged in all is at most what it can have given: its burst, what came
        back as time went by, and what settles owe.
        """
        if not hasattr(self, "backend"):
            return
        for owner, limits in LIMITS.items():
            for same in limits:
                if same[0].is_window:
                    continue
                key = owner, same[0].id
                charged = sum(
                    amount
                    for booking in self.naive.bookings.values()
                    for charge, amount in zip(
                        booking.candidate.charges, booking.charged, strict=True
                    )
                    if (charge.owner, charge.limit.id) == key
                )
                most = max(limit.ceiling for limit in same)
                fastest = max(limit.rate for limit in same)
                assert charged <= most + self.forward * fastest + self.owed.get(key, 0)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=20_000 if SOAK else 150,
    stateful_step_count=60 if SOAK else 40,
    derandomize=not SOAK,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
if SOAK:
    TestLedgerMachine = pytest.mark.timeout(0)(TestLedgerMachine)
