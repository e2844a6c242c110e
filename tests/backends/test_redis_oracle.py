"""The Lua beside the pure ledger: the same operations at the same time, the same answers."""

# ruff: noqa: D102 - the rules of a state machine and the methods of a protocol

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from quotaguard.backends.redis import RedisBackend
from quotaguard.core.ledger import Held, Key, Ledger, State
from quotaguard.core.ops import (
    FILL,
    Adjust,
    Answer,
    Candidate,
    Change,
    Charge,
    Merge,
    Merged,
    Op,
    Owner,
    Peek,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Summary,
)
from quotaguard.core.summary import fold
from quotaguard.limits import Limit
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START

from .redis_server import RedisServer

LIMITS = [
    Limit.parse(text)
    for text in (
        "100 tokens/minute",
        "10 requests/minute",
        "1k tokens/day",
        "50 tokens/second burst 300",
        "2k tokens/week in Asia/Tokyo",
        "0 tokens/hour",
        "1M tokens/month per org",
        "700 tokens/hour per org",
        "900 tokens/rolling day per global",
    )
] + [
    Limit(300, "output_tokens", 60.0, on_expire="keep_all"),
    Limit(300, "input_tokens", "day", tz="America/New_York", on_expire="return_all"),
]
USERS: list[Owner] = [("user", "", "ann"), ("user", "acme", "ann"), ("user", "", "acme}:{")]
AMOUNTS = st.one_of(
    st.integers(0, 400).map(float),
    st.floats(0, 120, allow_nan=False, allow_subnormal=False),
)
WEIGHTS = st.dictionaries(
    st.integers(-(2**15), 2**15 - 1) | st.integers(0, 5),
    st.integers(-8, 800).map(lambda eighths: eighths / 8) | st.sampled_from([math.nan, math.inf]),
    max_size=6,
)
"""Eighths: sums are exact in whatever order, so that both halve in the same moment."""
PASSES = st.one_of(
    st.floats(0, 90),
    st.floats(0, 100_000),
    st.floats(-3000, 0),
    st.sampled_from([1.0, 60.0, 3600.0, 86_400.0]),
)


class Books:
    """The plainest `quotaguard.core.ledger.Store`."""

    def __init__(self) -> None:
        self.buckets: dict[Key, State] = {}
        self.reservations: dict[str, Held] = {}

    def bucket(self, key: Key) -> State | None:
        return self.buckets.get(key)

    def put(self, key: Key, limit: Limit, state: State) -> None:
        self.buckets[key] = state
        if state[0] <= 0.0:
            del self.buckets[key]

    def held(self, id: str) -> Held | None:
        return self.reservations.get(id)

    def hold(self, held: Held, lease: float) -> None:
        self.reservations[held.answer.id] = held

    def closed(self, held: Held) -> None:
        pass

    def open(self) -> Iterator[Held]:
        return (held for held in self.reservations.values() if held.status == "open")

    def due(self, now: float) -> Iterable[Held]:
        return [held for held in self.open() if held.expires <= now]

    def open_on(self, key: Key) -> float:
        return sum(
            charged
            for held in self.open()
            for charge, charged in zip(held.charges, held.charged, strict=True)
            if (charge.owner, charge.limit.id) == key
        )


def close(ours: Any, theirs: Any) -> bool:
    """Whether two answers are the same but for a millionth."""
    if isinstance(ours, (tuple, list)) and isinstance(theirs, (tuple, list)):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-6)
    return bool(ours == theirs)


def _owner(limit: Limit, user: Owner) -> Owner:
    return {"user": user, "org": ("org", user[1]), "global": ("global",)}[limit.scope]


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Candidate, ...]:
    """One to three ways to serve a call of one user."""
    user = draw(st.sampled_from(USERS))
    found = []
    for model in draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")])):
        limits = draw(st.lists(st.sampled_from(LIMITS), min_size=1, max_size=5, unique=True))
        charges = []
        for limit in limits:
            amount = draw(AMOUNTS)
            least = min(amount, draw(AMOUNTS)) if draw(st.booleans()) else amount
            charges.append(Charge(_owner(limit, user), limit, amount, least, draw(AMOUNTS)))
        found.append(Candidate(model, tuple(charges)))
    return tuple(found)


class Beside(RuleBasedStateMachine):
    """Every rule asks both and compares."""

    server: RedisServer
    backend: RedisBackend
    clock: FakeClock

    @initialize()
    def begin(self) -> None:
        self.server.flush()
        self.clock.advance(START - self.clock.now())
        self.books = Books()
        self.ledger = Ledger(self.books)
        self.reserved: dict[str, tuple[Candidate, ...]] = {}
        self.adjustments = 0
        self.summaries: dict[tuple[str, ...], dict[int, float]] = {}

    def ask(self, op: Op) -> Answer:
        now = self.clock.now()
        self.ledger.expire(now)
        expected: Answer
        if isinstance(op, Reserve):
            expected = self.ledger.reserve(op, now)
            if isinstance(expected, Refusal) and 0.0 < op.patience >= expected.wait():
                expiry = min((h.expires for h in self.books.open()), default=math.inf) - now
                expected = Queued(expected, min(expected.wait(), expiry))
        elif isinstance(op, Settle):
            expected = self.ledger.settle(op, now)
        elif isinstance(op, Renew):
            expected = self.ledger.renew(op, now)
        elif isinstance(op, Release):
            self.ledger.release(op.id, now)
            expected = None
        elif isinstance(op, Merge):
            expected = self.merged(op)
        elif isinstance(op, Adjust):
            expected = self.ledger.adjust(op, now)
        else:
            assert isinstance(op, Peek)
            expected = self.ledger.peek(op, now)
        found = self.backend.execute(op)
        assert type(found) is type(expected), (found, expected)
        assert close(found, expected), f"\n{found}\nis not\n{expected}"
        return found

    def known(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.reserved) or ["nobody"]))

    @rule(
        of=candidates(),
        lease=st.sampled_from([5.0, 60.0, 900.0, 100_000.0]),
        patience=st.sampled_from([0.0, 0.0, 10.0, 1e6]),
        data=st.data(),
    )
    def reserve(
        self, of: tuple[Candidate, ...], lease: float, patience: float, data: st.DataObject
    ) -> None:
        instead_of = self.known(data) if data.draw(st.integers(0, 3)) == 0 else None
        id = f"r{len(self.reserved)}"
        answer = self.ask(Reserve(id, of, lease, patience, instead_of))
        if isinstance(answer, Reservation):
            self.reserved[id] = of
            self.ask(Reserve(id, of, lease, patience, instead_of))

    @rule(amounts=st.lists(AMOUNTS, min_size=5, max_size=5), data=st.data())
    def settle(self, amounts: list[float], data: st.DataObject) -> None:
        id = self.known(data)
        held = self.books.held(id)
        as_reserved = data.draw(st.integers(0, 4)) == 0
        count = len(held.charges) if held else 1
        self.ask(Settle(id, None if as_reserved else tuple(amounts[:count])))

    @rule(lease=st.sampled_from([1.0, 60.0, 5000.0]), data=st.data())
    def renew(self, lease: float, data: st.DataObject) -> None:
        self.ask(Renew(self.known(data), lease))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.ask(Release(self.known(data)))

    @rule(user=st.sampled_from(USERS))
    def peek(self, user: Owner) -> None:
        self.ask(Peek(tuple((_owner(limit, user), limit) for limit in LIMITS)))

    @rule(
        user=st.sampled_from(USERS),
        of=st.lists(st.sampled_from(LIMITS), max_size=4),
        amount=AMOUNTS | AMOUNTS.map(lambda amount: -amount) | st.just(FILL),
        again=st.booleans(),
    )
    def adjust(self, user: Owner, of: list[Limit], amount: float, again: bool) -> None:
        if not again:
            self.adjustments += 1
        changes = tuple(Change(_owner(limit, user), limit, amount) for limit in of)
        self.ask(Adjust(f"a{self.adjustments}", changes))

    def merged(self, op: Merge) -> Merged:
        found = []
        for name, added, most in op.summaries:
            found.append(fold(self.summaries.get(name, {}), added, most))
            if added:
                self.summaries[name] = found[-1]
        return Merged(tuple(found))

    @rule(
        of=st.dictionaries(st.sampled_from("abc"), WEIGHTS, max_size=3),
        most=st.sampled_from([10.0, 400.0]),
    )
    def merge(self, of: dict[str, dict[int, float]], most: float) -> None:
        added = (Summary(("kind", name), weights, most) for name, weights in of.items())
        self.ask(Merge(tuple(added), 1e6))

    @rule(seconds=PASSES)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.timeout(300)
def test_the_lua_answers_as_the_ledger_does(server: RedisServer, soak: bool) -> None:
    """Every operation, expiry, and a clock that jumps both ways."""
    clock = FakeClock()
    backend = RedisBackend(server.url, clock=clock)

    class Machine(Beside):
        pass

    Machine.server, Machine.backend, Machine.clock = server, backend, clock
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=2000 if soak else 60,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        backend.close()
