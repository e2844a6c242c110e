"""Tokens and money are conserved, whatever happens: a machine over a whole guard."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from quotaguard import Fallback, Guard, Limit, Price, QuotaExceeded, Usage, Weights
from quotaguard.testing import FakeClock

PRICES = {
    "large": Price(Decimal("2.5"), Decimal(10)),
    "small": Price(Decimal("0.1"), Decimal("0.4")),
}
LEASE = 100.0
LIMITS = {
    "tokens": Limit(50_000, "tokens", "month", models=("large",)),
    "weighed": Limit(
        90_000, "tokens", "month", weights=Weights(output=2, models=(("small", 0.5),))
    ),
    "money": Limit.parse("$0.4/month"),
}
tokens = st.integers(0, 20_000)


def charged(name: str, model: str, used: Usage) -> float | None:
    """What a limit counts of a call, worked out by hand; None: it does not apply."""
    if name == "tokens":
        return used.input_tokens + used.output_tokens if model == "large" else None
    if name == "weighed":
        factor = 0.5 if model == "small" else 1.0
        return (used.input_tokens + 2 * used.output_tokens) * factor
    return PRICES[model].nano_usd(used)


class Governance(RuleBasedStateMachine):
    """Calls with fallbacks, refusals, settles, deaths, grants and resets, within one month."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.guard = Guard(
            limits=LIMITS.values(),
            prices=PRICES,
            when_exceeded=[Fallback("small")],
            clock=self.clock,
            lease_seconds=LEASE,
        )
        self.drained = dict.fromkeys(LIMITS, 0.0)
        self.open: dict[str, tuple[Any, float, Usage]] = {}
        """By id: the lease, when it expires, and what it is charged now."""

    def _move(self, model: str, before: Usage, after: Usage) -> None:
        for name in LIMITS:
            old, new = charged(name, model, before), charged(name, model, after)
            if old is not None and new is not None:
                self.drained[name] = max(0.0, self.drained[name] + new - old)

    def _bury(self) -> None:
        """The dead keep their input charged."""
        for id, (lease, expires, now) in list(self.open.items()):
            if expires <= self.clock.now():
                kept = Usage(1, lease.demand.input_tokens, 0)
                self._move(lease.model, now, kept)
                self.open[id] = lease, float("inf"), kept

    @rule(target=leases, model=st.sampled_from(["large", "small"]), given=tokens, asked=tokens)
    def call(self, model: str, given: int, asked: int) -> Any:
        """Reserve; what is refused leaves no trace."""
        hold = self.guard.hold(user="u", model=model, input_tokens=given, output_tokens=asked)
        try:
            lease = self.guard.run(hold.admission())  # type: ignore[attr-defined]
        except QuotaExceeded:
            return None
        demand = Usage(1, given, asked)
        self._move(lease.model, Usage(), demand)
        self.open[lease.id] = lease, self.clock.now() + LEASE, demand
        return lease

    @rule(lease=consumes(leases), given=tokens, answered=tokens)
    def settle(self, lease: Any, given: int, answered: int) -> None:
        """Also late, and never twice."""
        if lease is None or not lease.close():
            return
        _, _, now = self.open.pop(lease.id)
        used = Usage(1, given, answered)
        self.guard.run(self.guard.settlement(lease, lease.charged(used)))
        self._move(lease.model, now, used)
        assert not lease.close()

    @rule(seconds=st.floats(0.1, 80))
    def time_passes(self, seconds: float) -> None:
        """Whoever does not come back in time is dead."""
        self.clock.advance(seconds)
        self.guard.peek(user="u")  # the next operation buries the dead
        self._bury()

    @rule(metric=st.sampled_from(["tokens", "usd"]), amount=st.integers(1, 9000))
    def grant(self, metric: str, amount: int) -> None:
        """No bucket above full."""
        units = amount / 1e5 if metric == "usd" else amount
        self.guard.grant(units, user="u", metric=metric)
        for name, limit in LIMITS.items():
            if limit.metric == metric:
                self.drained[name] = max(0.0, self.drained[name] - units * limit.scale)

    @rule()
    def reset(self) -> None:
        """Full again; open calls keep what they hold."""
        self.guard.reset(user="u")
        self.drained = dict.fromkeys(LIMITS, 0.0)

    @invariant()
    def levels(self) -> None:
        """Each bucket lacks exactly what was charged to it."""
        states = self.guard.peek(user="u", everything=True)
        for (name, limit), state in zip(LIMITS.items(), states, strict=True):
            lacks = (limit.amount - state.left) * limit.scale
            assert lacks == pytest.approx(self.drained[name], abs=0.51), name


TestGovernance = Governance.TestCase
