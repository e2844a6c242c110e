"""The Lua beside the pure ledger: the same operations at the same time, the same answers."""

# ruff: noqa: D102 - the rules of a state machine and the methods of a protocol

from __future__ import annotations

import math

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from quotaguard.backends.redis import RedisBackend
from quotaguard.core.ops import (
    FILL,
    Adjust,
    Candidate,
    Change,
    Charge,
    Merge,
    Merged,
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

from .beside import Asking
from .redis_server import RedisServer

CONTENDED = [
    Limit.parse(text)
    for text in (
        "60 tokens/minute",
        "90 tokens/minute per org",
        "100 tokens/minute per global shared fairly",
        "150 tokens/day per org shared fairly",
        "2 concurrent per org",
        "3 concurrent per global shared fairly",
    )
]
"""For calls that stand in line most of the time."""
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
        "800 tokens/2 hours per global shared fairly",
        "2 concurrent",
        "3 concurrent per org shared fairly",
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
WHAT = ("come", "settle", "again", "leave", "time", "give")
WHO = [(0.0, "ann", 1.0), (0.0, "bob", 2.0), (1.0, "ann", 1.0), (-2.5, "cyd", 5.0)]
"""Priority, flow and weight of a call in line."""
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


@st.composite
def contended(draw: st.DrawFn) -> tuple[Candidate, ...]:
    """A call of one or two buckets that others want too, perhaps with another way to serve it."""
    user = draw(st.sampled_from([("user", "acme", "ann"), ("user", "acme", "bob")]))
    found = []
    for model in ("a", "b")[: draw(st.sampled_from([1, 1, 2]))]:
        limits = draw(st.lists(st.sampled_from(CONTENDED), min_size=1, max_size=3, unique=True))
        charges = []
        for limit in limits:
            amount = 1.0 if limit.in_flight else float(draw(st.integers(1, 60)))
            charges.append(Charge(_owner(limit, user), limit, amount, amount, amount / 2))
        found.append(Candidate(model, tuple(charges)))
    return tuple(found)


class Beside(Asking):
    """Every operation, whatever comes."""

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
        if not isinstance(answer, Refusal):
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


class InLine(Asking):
    """Calls that stand in line, ask again, give up, settle and die."""

    @initialize()
    def nobody(self) -> None:
        self.waiting: dict[str, Reserve] = {}
        self.holding: dict[str, int] = {}
        self.number = 0

    def reserve(self, op: Reserve) -> None:
        answer = self.ask(op)
        self.waiting.pop(op.id, None)
        if isinstance(answer, Queued):
            self.waiting[op.id] = op
        elif isinstance(answer, Reservation):
            self.holding[op.id] = len(answer.granted)

    @rule(of=contended(), data=st.data())
    def come(self, of: tuple[Candidate, ...], data: st.DataObject) -> None:
        self.number += 1
        lease = data.draw(st.sampled_from([20.0, 1e4]))
        patience = data.draw(st.sampled_from([1e6, 1e6, 60.0, 0.0]))
        who = data.draw(st.sampled_from(WHO))
        inside = sorted(self.holding) if data.draw(st.integers(0, 9)) == 0 else []
        instead_of = data.draw(st.sampled_from(inside)) if inside else None
        self.reserve(Reserve(f"c{self.number}", of, lease, patience, instead_of, *who))

    @rule(
        data=st.data(), what=st.sampled_from(["come", "settle", "again", "leave", "time", "give"])
    )
    def go_on(self, data: st.DataObject, what: str) -> None:
        chosen = self.holding if what == "settle" else self.waiting
        if what == "come" or (what in ("settle", "again", "leave") and not chosen):
            self.come(data.draw(contended()), data)
        elif what == "time":
            self.clock.advance(data.draw(st.sampled_from([0.5, 1.0, 5.0, 30.0, 3600.0])))
        elif what == "give":
            limit = data.draw(st.sampled_from(CONTENDED))
            change = Change(
                _owner(limit, USERS[1]), limit, data.draw(st.sampled_from([20.0, -9.0]))
            )
            self.number += 1
            self.ask(Adjust(f"a{self.number}", (change,)))
        else:
            id = data.draw(st.sampled_from(sorted(chosen)))
            if what == "again":
                patience = data.draw(st.sampled_from([1e6, 1e6, 5.0, 0.0]))
                self.reserve(self.waiting[id]._replace(patience=patience))
            elif what == "leave":
                del self.waiting[id]
                self.ask(Release(id))
            else:
                used = float(data.draw(st.integers(0, 40)))
                self.ask(Settle(id, (used,) * self.holding.pop(id)))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("of", [Beside, InLine])
def test_the_lua_answers_as_the_ledger_does(
    of: type[Asking], server: RedisServer, soak: bool
) -> None:
    """Every operation, expiry, and a clock that jumps both ways; those who wait, in the same order,
    told the same time, rung for in the same moment.
    """
    clock = FakeClock()
    backend = RedisBackend(server.url, clock=clock)
    channel = redis.Redis.from_url(server.url).pubsub(ignore_subscribe_messages=True)
    channel.psubscribe("quotaguard!*")
    assert channel.get_message(timeout=5.0) is None  # it is told that it has subscribed

    class Machine(of):  # type: ignore[misc, valid-type]
        pass

    Machine.server, Machine.backend, Machine.clock = server, backend, clock
    Machine.channel = channel
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
        channel.close()
        backend.close()
