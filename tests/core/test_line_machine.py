"""The line of the memory backend: in order, in time, and nobody is forgotten in it."""

from __future__ import annotations

import itertools
import math
import os
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from quotaguard import Limit
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import (
    FILL,
    Adjust,
    Candidate,
    Change,
    Charge,
    Park,
    Peek,
    Queued,
    Release,
    Reservation,
    Reserve,
    Settle,
)
from quotaguard.core.plan import BEHIND_ALL, SHORTEST_PARK
from quotaguard.testing import FakeClock

SOAK = os.environ.get("QUOTAGUARD_SOAK") == "1"
HAIR = 0.01

ALICE, ACME = ("user", "acme", "alice"), ("org", "acme")
ONE, OTHER = Limit(64, "tokens", 64), Limit(30, "tokens", 60)


class Bedroom(FakeClock):
    """A clock whose sleepers return at once, and are noted: one thread plays them all."""

    def __init__(self) -> None:
        super().__init__()
        self.lying: tuple[threading.Event, float] | None = None

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Lie down; the machine says when it is over."""
        self.lying = bell, self.now() + seconds


@dataclass
class Waiter:
    """Somebody in line."""

    id: str
    order: int
    charges: tuple[Charge, ...]
    lease: float
    began: float
    deadline: float
    told: float = 0.0
    """When it should be admitted, as it was told first."""
    bell: threading.Event = field(default_factory=threading.Event)
    until: float = 0.0
    turn: tuple[float, str, float] = (0.0, "", 1.0)
    """Its priority, its flow, and the flow's weight."""


class LineMachine(RuleBasedStateMachine):
    """Calls come, wait, give up, settle and die while time goes by."""

    one = ONE

    @initialize(seed=st.randoms(use_true_random=False), two_buckets=st.booleans())
    def begin(self, seed: object, two_buckets: bool) -> None:
        """An empty line before an empty bucket."""
        self.two_buckets = two_buckets
        self.clock = Bedroom()
        self.backend = MemoryBackend(self.clock)
        self.random = seed
        self.numbers = itertools.count()
        self.waiters: dict[str, Waiter] = {}  # in order of arrival
        self.holders: dict[str, tuple[float, ...]] = {}
        self.ends: dict[str, float] = {}  # of the holders' leases
        self.delayed_at = 0.0
        """When something last happened that nobody could foresee, to the worse."""
        taken = Charge(ACME, self.one, 64.0, 64.0, 0.0)
        self.attempt(Waiter("first", -1, (taken,), 30.0, 0.0, 0.0))

    # -- what happens ----------------------------------------------------------------------------

    @rule(
        need=st.integers(1, 10) | st.integers(1, 64),
        other=st.none() | st.integers(1, 30),
        patience=st.just(0.0) | st.floats(1.0, 60.0) | st.floats(60.0, 900.0),
        lease=st.sampled_from([10.0, 1000.0]),
    )
    def come(self, need: int, other: int | None, patience: float, lease: float) -> None:
        """A call of one bucket, or of two."""
        charges = [Charge(ACME, self.one, float(need), float(need), 0.0)]
        if other is not None and self.two_buckets:
            charges.append(Charge(ALICE, OTHER, float(other), float(other), 0.0))
        now, order = self.clock.now(), next(self.numbers)
        waiter = Waiter(f"c{order}", order, tuple(charges), lease, now, now + patience)
        waiter.turn = self.turn_of(waiter)
        self.attempt(waiter)
        self.quiet_down()

    @rule(share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 3.0]), which=st.integers(0, 20))
    def settle(self, share: float, which: int) -> None:
        """Somebody used nothing, half, all, or more than was reserved."""
        if self.holders:
            id = list(self.holders)[which % len(self.holders)]
            granted = self.holders.pop(id)
            late = self.ends.pop(id, None) is None
            self.backend.execute(Settle(id, tuple(amount * share for amount in granted)))
            if share > 1.0 or late:
                self.delayed_at = self.clock.now()
            self.quiet_down()

    @rule()
    def nothing_was_used(self) -> None:
        """Who was admitted last gives everything back."""
        if self.holders:
            self.settle(0.0, len(self.holders) - 1)

    @rule(amount=st.integers(-20, 40) | st.just(FILL), other=st.booleans())
    def adjust(self, amount: float, other: bool) -> None:
        """An operator gives to the buckets, or takes from them."""
        buckets = [(ACME, self.one), (ALICE, OTHER)] if other else [(ACME, self.one)]
        changes = tuple(Change(owner, limit, float(amount)) for owner, limit in buckets)
        self.backend.execute(Adjust(f"a{next(self.numbers)}", changes))
        if amount < 0:
            self.delayed_at = self.clock.now()
        self.quiet_down()

    @rule(which=st.integers(0, 20))
    def give_up(self, which: int) -> None:
        """Somebody in line is cancelled, perhaps just when it was let in."""
        if self.waiters:
            id = list(self.waiters)[which % len(self.waiters)]
            del self.waiters[id]
            self.backend.execute(Release(id))
            self.quiet_down()

    @rule(seconds=st.floats(0.125, 4.0) | st.floats(4.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        """Everybody wakes when it wanted to."""
        target = self.clock.now() + seconds
        while True:
            alarms = [waiter.until for waiter in self.waiters.values() if waiter.until <= target]
            self.clock.advance(max(0.0, min(alarms, default=target) - self.clock.now()))
            self.quiet_down()
            if not alarms:
                return

    # -- how callers behave ----------------------------------------------------------------------

    def attempt(self, waiter: Waiter) -> None:
        """Ask, and lie down if told to stand in line: what `quotaguard.core.plan` does."""
        now = self.clock.now()
        candidates = tuple(Candidate(model, waiter.charges) for model in ("one", "same"))
        patience = max(0.0, waiter.deadline - now)
        op = Reserve(waiter.id, candidates, waiter.lease, patience, None, *waiter.turn)
        answer = self.backend.execute(op)
        if not isinstance(answer, Queued):
            self.waiters.pop(waiter.id, None)
            if isinstance(answer, Reservation):
                self.admitted(waiter, answer)
            else:
                self.told_right(waiter, answer.wait())
            return
        assert answer.refusal.wait() <= patience
        if waiter.id not in self.waiters:
            self.told_right(waiter, answer.refusal.wait())
            waiter.told = now + answer.refusal.wait()
            self.waiters[waiter.id] = waiter
        pause = max(SHORTEST_PARK, min(answer.wait, patience))
        self.clock.lying = None
        self.backend.execute(Park(waiter.id, pause))
        waiter.bell, waiter.until = self.clock.lying or (threading.Event(), now)
        if self.is_first(waiter):  # sees to it that leases end
            assert waiter.until <= min(self.ends.values(), default=math.inf) + HAIR

    def turn_of(self, waiter: Waiter) -> tuple[float, str, float]:
        """Its priority, its flow, and the flow's weight: all are alike."""
        return waiter.turn

    def is_first(self, waiter: Waiter) -> bool:
        """Whether everybody else in line came later."""
        return not any(each.order < waiter.order for each in self.waiters.values())

    def told_right(self, waiter: Waiter, wait: float) -> None:
        """A newcomer waits for what is missing, and for what those before it will take."""
        if waiter.id.startswith("c") and not self.two_buckets:
            before = [each for each in self.waiters.values() if each.order < waiter.order]
            everybody = [*before, waiter]
            states = self.backend.execute(Peek(((ACME, self.one),)))
            assert isinstance(states, tuple)
            missing = sum(each.charges[0].least for each in everybody) - states[0].left
            assert wait == pytest.approx(missing / self.one.rate)

    def admitted(self, waiter: Waiter, answer: Reservation) -> None:
        """Nobody who came earlier for the same one bucket is still waiting for it."""
        self.holders[waiter.id] = answer.granted
        self.ends[waiter.id] = self.clock.now() + waiter.lease
        if len(waiter.charges) == 1:
            earlier = [w for w in self.waiters.values() if w.order < waiter.order]
            assert not [w for w in earlier if len(w.charges) == 1 and not w.bell.is_set()]

    def quiet_down(self) -> None:
        """Let everybody who is awake try, in any order, until nobody is."""
        now = self.clock.now()
        self.ends = {id: end for id, end in self.ends.items() if end > now}
        for _ in range(500):
            awake = [w for w in self.waiters.values() if w.bell.is_set() or w.until <= now]
            if not awake:
                return
            self.attempt(self.random.choice(awake))  # type: ignore[attr-defined]
        raise AssertionError("they keep one another awake")

    # -- what must hold always -------------------------------------------------------------------

    @invariant()
    def nobody_sleeps_beside_room(self) -> None:
        """Whoever would fit, with all that those before it need left to them, has been let in."""
        if not hasattr(self, "backend"):
            return
        look = Peek(((ACME, self.one), (ALICE, OTHER)))
        self.backend.execute(look)  # which may end a lease, and so wake somebody
        self.quiet_down()
        states = self.backend.execute(look)
        assert isinstance(states, tuple)
        left = {state.limit: state.left for state in states}
        for waiter in self.waiters.values():
            assert any(left[c.limit] < c.least for c in waiter.charges), waiter
            for charge in waiter.charges:
                left[charge.limit] -= charge.least

    @invariant()
    def nobody_waits_too_long(self) -> None:
        """Waits are bounded by patience, and by what was told if nothing got in between."""
        if not hasattr(self, "backend"):
            return
        now = self.clock.now()
        for waiter in self.waiters.values():
            assert now <= waiter.deadline + HAIR
            if not self.two_buckets and self.delayed_at < waiter.began:
                assert now <= waiter.told + HAIR

    @invariant()
    def the_line_is_as_long_as_it_is(self) -> None:
        """Nobody is left in the line who went away."""
        if hasattr(self, "backend"):
            assert len(self.backend._places._waiters) == len(self.waiters)


class TurnsMachine(LineMachine):
    """The same where some are more urgent, and users of different weights share a bucket."""

    def turn_of(self, waiter: Waiter) -> tuple[float, str, float]:
        """Whatever comes up."""
        flow = self.random.choice("abc")  # type: ignore[attr-defined]
        priority = self.random.choice([-1.0, 0.0, 0.0, 0.1, 1.0, BEHIND_ALL])  # type: ignore[attr-defined]
        return priority, flow, {"a": 1.0, "b": 2.0, "c": 0.3}[flow]

    def line(self) -> list[str]:
        """Who stands in line for the bucket that is everybody's, in order."""
        return [each.id for each in self.backend._places.line((ACME, self.one.id))]

    def is_first(self, waiter: Waiter) -> bool:
        """Whether its turn in line is before everybody's."""
        return self.line()[:1] == [waiter.id]

    def told_right(self, waiter: Waiter, wait: float) -> None:
        """Nobody knows who will come that is more urgent."""

    def admitted(self, waiter: Waiter, answer: Reservation) -> None:
        """Nobody whose turn was before it is still waiting for the one bucket, and asleep."""
        self.holders[waiter.id] = answer.granted
        self.ends[waiter.id] = self.clock.now() + waiter.lease

    @invariant()
    def nobody_sleeps_beside_room(self) -> None:
        """Whoever is first in a line would not fit, or not elsewhere."""
        if not hasattr(self, "backend"):
            return
        look = Peek(((ACME, self.one), (ALICE, OTHER)))
        self.backend.execute(look)
        self.quiet_down()
        states = self.backend.execute(look)
        assert isinstance(states, tuple)
        left = {state.limit: state.left for state in states}
        for waiter in self.waiters.values():
            place = self.backend._places.waiter(waiter.id)
            assert place is not None
            assert place.standing()
        for waiter in [self.waiters[id] for id in self.line()]:
            if len(waiter.charges) == 1:
                assert left[self.one] < waiter.charges[0].least, waiter
            left[self.one] -= waiter.charges[0].least

    @invariant()
    def nobody_waits_too_long(self) -> None:
        """Waits are bounded by patience."""
        if hasattr(self, "backend"):
            for waiter in self.waiters.values():
                assert self.clock.now() <= waiter.deadline + HAIR

    @invariant()
    def books_of_lines_are_right(self) -> None:
        """They stand in order, and flows that went are forgotten."""
        if not hasattr(self, "backend"):
            return
        for queue in self.backend._places._lines.values():
            assert queue.turns == sorted(queue.turns)
            assert len(queue.turns) == len(queue.waiters) > 0
            assert len(queue.finishes) <= 2 * len(queue.waiters) + 64


class FairMachine(TurnsMachine):
    """The same where the bucket is shared fairly."""

    one = replace(ONE, scope="org", fair=True)


def _many(machine: type[LineMachine], examples: int) -> Any:
    test = machine.TestCase
    test.settings = settings(
        max_examples=20_000 if SOAK else examples,
        stateful_step_count=80,
        derandomize=not SOAK,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return pytest.mark.timeout(0)(test) if SOAK else test


TestLineMachine = _many(LineMachine, 150)
TestTurnsMachine = _many(TurnsMachine, 60)
TestFairMachine = _many(FairMachine, 60)
